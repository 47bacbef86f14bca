//! The way of a plan, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::zip;

use sha2::{Digest, Sha256};

use super::evict::Victims;
use super::gates::{self, Breaker, Carry, KindState, Refusal, Streak, Withheld};
use super::ladder::Choice;
use super::ledger::{Experience, Past};
use super::policy::Matcher;
use super::room::Room;
use super::words::{count, percent, span};
use super::{Action, ActionKind, ActuationTimes, Declined, Mode, Plan, PlanInput, Policy, Reason, Target, Workload};
use crate::health::{Assessment, EXTERNAL_RULE, SignalAssessment, Standing};
use crate::model::{ComponentId, Millis, Timestamp, hex};

/// What an earlier action promised may not show in the capacity yet; it is reserved for so long.
const SHOWS_AFTER: Millis = Millis(15 * Millis::MINUTE.0);

/// Makes the plan.
pub fn plan(input: &PlanInput) -> Plan {
    let names = Names::of(input);
    let mut planner = Planner::new(input, &names);
    planner.judge_earlier_actions();
    planner.count_what_is_under_way();
    planner.reserve_what_is_under_way();
    let candidates = std::mem::take(&mut planner.candidates);
    let mut order: Vec<&Candidate<'_>> = candidates.iter().collect();
    // A stable sort: by expected loss among those of one mode. What is only written down, or waits for a person, takes nothing
    // from what is done.
    order.sort_by_key(|candidate| std::cmp::Reverse(planner.mode_now(candidate)));
    for candidate in order {
        planner.decide(candidate);
    }
    planner.plan.declined.sort_by_key(|(rank, _)| *rank);
    planner.give_back(&candidates);
    planner.finish(&candidates)
}

/// Components as they are written, in the order of the input's lists: written once, since there are many.
#[derive(Debug)]
struct Names {
    assessments: Vec<String>,
    workloads: Vec<String>,
}

impl Names {
    fn of(input: &PlanInput) -> Names {
        Names {
            assessments: input.assessments.iter().map(|assessment| assessment.component.to_string()).collect(),
            workloads: input.capacity.workloads.iter().map(|workload| workload.component.to_string()).collect(),
        }
    }
}

/// A component that some policy is for.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) key: &'a str,
    pub(super) assessment: &'a Assessment,
    /// Index of the first policy that matches.
    pub(super) policy: usize,
    /// Absent while nothing may be said.
    pub(super) probability: Option<f64>,
    rank: usize,
}

impl Candidate<'_> {
    /// What acting is decided on: nothing is as good as zero.
    pub(super) fn probability_low(&self) -> f64 {
        self.assessment.probability_low.filter(|p| p.is_finite()).unwrap_or(0.0)
    }
}

/// A plan in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) actions: Vec<Action>,
    pub(super) declined: Vec<(usize, Declined)>,
    pub(super) waiting: Vec<Action>,
    pub(super) verdicts: Vec<super::Verdict>,
    pub(super) extended: Vec<super::Extension>,
    pub(super) disowned: Vec<String>,
    pub(super) carry: Carry,
}

/// All that is looked at while a plan is made.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    pub(super) input: &'a PlanInput,
    pub(super) now: Timestamp,
    /// By expected loss, then time to breach, then name.
    candidates: Vec<Candidate<'a>>,
    /// All assessments by component.
    pub(super) assessed: BTreeMap<&'a str, &'a Assessment>,
    pub(super) workloads: BTreeMap<&'a str, &'a Workload>,
    pub(super) past: Past<'a>,
    pub(super) experience: Experience,
    pub(super) times: ActuationTimes,
    /// The gate that stops everything, if one does.
    pub(super) shut: Option<Refusal>,
    /// By the candidates' ranks.
    streaks: Vec<Streak>,
    pub(super) breakers: BTreeMap<String, Breaker>,
    /// Kind → its components that are not silent.
    heard: BTreeMap<&'a str, Vec<&'a str>>,
    pub(super) room: Room,
    pub(super) victims: Victims<'a>,
    /// Per policy: how many components it is for.
    pub(super) groups: Vec<usize>,
    /// Per policy and budget: actions that count in it.
    pub(super) spent: Vec<Vec<usize>>,
    /// Per policy: components under action.
    pub(super) open: Vec<BTreeSet<String>>,
    /// Components that this plan gives to or takes from.
    pub(super) touched: BTreeSet<String>,
    pub(super) plan: Draft,
}

impl<'a> Planner<'a> {
    fn new(input: &'a PlanInput, names: &'a Names) -> Planner<'a> {
        let assessed = by_component(&names.assessments, &input.assessments);
        let mut candidates = candidates(input, &assessed);
        let kinds = kinds(input, &assessed, &candidates);
        rank(&mut candidates);
        let nodes_at_risk = assessed.values().filter(|a| a.component.kind == "node" && gates::is_at_risk(a));
        let nodes_at_risk: BTreeSet<&str> = nodes_at_risk.map(|node| name_of(node)).collect();
        let room = Room::of(&input.capacity, &nodes_at_risk);
        let past = Past::of(&input.ledger);
        let named = names.workloads.iter().map(String::as_str);
        let mut workloads: Vec<(&str, &Workload)> = zip(named, &input.capacity.workloads).collect();
        workloads.sort_by_key(|(key, _)| *key);
        let mut spared = busy(&past, input.now);
        // What nothing is known of may be in trouble itself: it is not the one to take from.
        let silent = |assessment: &Assessment| gates::is_silent(assessment, &input.gates, input.now);
        spared.extend(assessed.iter().filter(|(_, assessment)| silent(assessment)).map(|(key, _)| *key));
        let victims = Victims::of(&workloads, &room, &assessed, &spared);
        let mut groups = vec![0; input.policies.len()];
        candidates.iter().for_each(|candidate| groups[candidate.policy] += 1);
        Planner {
            now: input.now,
            shut: gates::shut(&input.gates, input.carry.at, input.now),
            breakers: gates::next_breakers(&input.carry.breakers, &kinds, &input.gates, input.now),
            heard: kinds.into_iter().map(|(kind, state)| (kind, state.heard)).collect(),
            plan: Draft { carry: carry_over(input), ..Draft::default() },
            experience: Experience::of(&past),
            times: ActuationTimes::of(&input.ledger),
            spent: input.policies.iter().map(|policy| vec![0; policy.budgets.len()]).collect(),
            open: vec![BTreeSet::new(); input.policies.len()],
            touched: BTreeSet::new(),
            victims,
            workloads: workloads.into_iter().collect(),
            streaks: candidates.iter().map(|candidate| next_streak(input, candidate)).collect(),
            candidates,
            assessed,
            past,
            room,
            groups,
            input,
        }
    }

    /// How a candidate stands to its policy's levels.
    pub(super) fn streak(&self, candidate: &Candidate<'_>) -> &Streak {
        &self.streaks[candidate.rank]
    }

    pub(super) fn policy(&self, candidate: &Candidate<'_>) -> &'a Policy {
        &self.input.policies[candidate.policy]
    }

    /// How far a policy may go: its own mode up to the global one.
    pub(super) fn mode(&self, policy: &Policy) -> Mode {
        policy.mode.min(self.input.gates.mode)
    }

    /// The same for what a person may have said yes to already: that is done.
    fn mode_now(&self, candidate: &Candidate<'_>) -> Mode {
        let offered = self.plan.carry.waiting.get(candidate.key).and_then(|actions| actions.last());
        match self.mode(self.policy(candidate)) {
            Mode::Approve if offered.is_some_and(|main| self.input.gates.approved.contains(&main.id)) => Mode::Act,
            mode => mode,
        }
    }

    fn count_what_is_under_way(&mut self) {
        for (index, policy) in self.input.policies.iter().enumerate() {
            for (number, budget) in policy.budgets.iter().enumerate() {
                let counted = self.past.all().filter(|past| self.counts_in_budget(past, policy, budget));
                self.spent[index][number] = counted.count();
            }
            let open = self.past.all().filter(|past| self.is_open(past, policy));
            self.open[index] = open.map(|past| past.action.target.component.to_string()).collect();
        }
    }

    /// Sets aside what earlier actions promised and the capacity does not show yet.
    fn reserve_what_is_under_way(&mut self) {
        let recent = |at: Option<Timestamp>| at.is_some_and(|at| self.now - at < SHOWS_AFTER);
        let promised: Vec<_> = self.past.all().filter(|past| past.is_act()).collect();
        for past in promised {
            let pending = past.is_under_way(self.now) || (past.is_in_force() && recent(past.settled_at));
            if !pending || past.action.kind == ActionKind::Evict {
                continue;
            }
            let key = past.action.target.component.to_string();
            let Some(workload) = self.workloads.get(key.as_str()) else { continue };
            if self.is_disowned(past, &key) {
                continue;
            }
            let missing = super::ladder::missing(&past.action.change, workload);
            let constraints = super::Constraints { avoid_at_risk: false, ..super::Constraints::default() };
            let placed = missing.and_then(|change| self.demand(&change, workload, &constraints).ok().flatten());
            if let Some((site, demand)) = placed {
                self.room.reserve(&site, &demand);
            }
        }
    }

    fn decide(&mut self, candidate: &Candidate<'a>) {
        let Some(entry) = self.entry(candidate) else { return };
        match entry.and_then(|()| self.admit(candidate)).and_then(|()| self.choose(candidate)) {
            Ok(choice) => self.commit(candidate, choice),
            Err(refusal) => self.decline(candidate, refusal),
        }
    }

    /// Whether a component has entered; nothing where it is not worth a word.
    fn entry(&self, candidate: &Candidate<'_>) -> Option<Result<(), Refusal>> {
        let policy = self.policy(candidate);
        let streak = self.streak(candidate);
        let Some(probability) = candidate.probability else {
            return streak.entered.then(|| Err(self.blind(candidate.assessment)));
        };
        if probability < policy.exit_below && !streak.entered {
            return None;
        }
        let offered = self.plan.carry.waiting.contains_key(candidate.key);
        if streak.entered && (probability >= policy.enter_above || (offered && probability >= policy.exit_below)) {
            return Some(Ok(()));
        }
        let (level, cycles) = (percent(policy.enter_above), policy.enter_cycles);
        let p = percent(probability);
        let detail = if probability >= policy.enter_above {
            format!("P {p} has been at or above the entry level {level} for {} of {cycles} cycles", streak.above)
        } else if streak.below > 0 {
            format!(
                "P {p} is below the exit level for {} of {}",
                streak.below,
                count(policy.exit_cycles.into(), "cycle")
            )
        } else {
            format!("P {p} is below the entry level {level}")
        };
        let when = format!("P is at or above {level} for {}", count(cycles.into(), "consecutive cycle"));
        Some(Err(Refusal::new(Reason::BelowEntry, detail, when)))
    }

    /// Why nothing is known of a component that had entered.
    fn blind(&self, assessment: &Assessment) -> Refusal {
        if assessment.standing == Standing::Learning {
            let history = assessment.signals.iter().map(|signal| signal.foresight.history).max().unwrap_or_default();
            let detail = format!("too little history since its regime changed: {} seen", span(history));
            return Refusal::new(Reason::Learning, detail, "enough history has been seen");
        }
        let ages = assessment.signals.iter().filter_map(|signal| signal.foresight.age);
        let age = ages.max().unwrap_or(Millis::ZERO).max(self.now - assessment.at);
        let detail = format!("it was at risk and its data is {} old, which is neither health nor failure", span(age));
        Refusal::new(Reason::Stale, detail, "its data is fresh again")
    }

    pub(super) fn decline(&mut self, candidate: &Candidate<'_>, refusal: Refusal) {
        let declined = Declined {
            component: candidate.assessment.component.clone(),
            policy: self.policy(candidate).name.clone(),
            action: refusal.action,
            reason: refusal.reason,
            detail: refusal.detail,
            released_when: refusal.released_when,
        };
        self.plan.declined.push((candidate.rank, declined));
    }

    /// Takes a choice into the plan: carried out, written down, or offered to a person.
    fn commit(&mut self, candidate: &Candidate<'a>, choice: Choice) {
        let policy = self.policy(candidate);
        let kind = policy.ladder[choice.rung].action;
        let offered = self.plan.carry.waiting.remove(candidate.key);
        let mut actions = self.actions(candidate, &choice);
        if let Some(offered) = offered.filter(|offered| same_proposal(offered, &actions)) {
            actions = offered;
        }
        self.book(candidate, &choice, &actions);
        let (id, offered_at) = actions.last().map(|main| (main.id.clone(), main.decided_at)).unwrap_or_default();
        match self.mode(policy) {
            Mode::Observe => {
                actions.iter_mut().for_each(|action| action.dry_run = true);
                let detail = format!("observe mode: written down as {id} and not done; {}", choice.arithmetic);
                self.decline(candidate, Refusal::new(Reason::Observe, detail, "the mode is approve or act").of(kind));
                self.plan.actions.append(&mut actions);
            }
            Mode::Approve if !self.input.gates.approved.contains(&id) => {
                let detail = format!("{id} waits for a person; {}", choice.arithmetic);
                let when = format!("a person approves {id}, before {}", offered_at + policy.offer_lasts());
                self.decline(candidate, Refusal::new(Reason::Approval, detail, when).of(kind));
                self.plan.carry.waiting.insert(candidate.key.to_owned(), actions.clone());
                self.plan.waiting.append(&mut actions);
            }
            Mode::Approve | Mode::Act => {
                for action in &mut actions {
                    // The time a person took is not part of how long the action takes.
                    action.decided_at = self.now;
                    action.expires_at = action.expires_at.map(|_| self.now + policy.expires_after);
                }
                self.plan.actions.append(&mut actions);
            }
        }
    }

    /// Books a choice: capacity, budget, blast radius, and who was touched.
    fn book(&mut self, candidate: &Candidate<'_>, choice: &Choice, actions: &[Action]) {
        if let Some((site, _)) = choice.placed.first() {
            let freed = self.victims.freed(&choice.taken);
            self.room.release(site, &freed);
        }
        for (site, demand) in &choice.placed {
            self.room.reserve(site, demand);
        }
        self.room.close(&choice.closes);
        let victims: BTreeSet<usize> = choice.taken.iter().map(|one| one.victim).collect();
        for victim in victims {
            self.victims.touch(victim, &self.room);
            self.touched.insert(self.victims.all[victim].key.to_owned());
        }
        self.victims.touch_component(candidate.key, &self.room);
        self.touched.insert(candidate.key.to_owned());
        let budgets = self.input.policies[candidate.policy].budgets.iter();
        for (spent, budget) in self.spent[candidate.policy].iter_mut().zip(budgets) {
            *spent += actions.iter().filter(|action| budget.counts(action.kind)).count();
        }
        self.open[candidate.policy].insert(candidate.key.to_owned());
    }

    fn finish(self, candidates: &[Candidate<'_>]) -> Plan {
        let usage = self.usage();
        let mut carry = self.plan.carry;
        carry.at = Some(self.now);
        carry.breakers = self.breakers;
        let owned = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        carry.heard = self.heard.into_iter().map(|(kind, keys)| (kind.to_owned(), owned(keys))).collect();
        let entered: BTreeMap<&str, &Policy> = candidates
            .iter()
            .filter(|candidate| self.streaks[candidate.rank].entered)
            .map(|candidate| (candidate.key, &self.input.policies[candidate.policy]))
            .collect();
        let policies = &self.input.policies;
        // Of what is not assessed now (nothing is, right after a start) nothing new is known: how it stood goes on.
        let before = |key: &String| {
            let streak = self.input.carry.streaks.get(key).filter(|streak| streak.entered);
            streak.filter(|_| !self.assessed.contains_key(key.as_str()))
        };
        carry.waiting.retain(|key, _| entered.contains_key(key.as_str()) || before(key).is_some());
        carry.withheld.retain(|key, withheld| {
            let unseen = before(key).and_then(|streak| policies.iter().find(|policy| policy.name == streak.policy));
            let policy = entered.get(key.as_str()).copied().or(unseen);
            policy.is_some_and(|policy| self.now - withheld.since < policy.cooldown)
        });
        let offered = carry.waiting.keys().chain(carry.withheld.keys());
        let unseen: Vec<_> = offered.filter_map(|key| Some((key.clone(), before(key)?.clone()))).collect();
        let under_action: BTreeSet<String> = self
            .past
            .all()
            .filter(|past| past.is_in_force() || past.is_under_way(self.now))
            .map(|past| past.action.target.component.to_string())
            .collect();
        let kept = zip(candidates, self.streaks)
            .filter(|(candidate, streak)| streak.entered || streak.above > 0 || under_action.contains(candidate.key))
            .map(|(candidate, streak)| (candidate.key.to_owned(), streak));
        carry.streaks = kept.chain(unseen).collect();
        Plan {
            at: self.now,
            actions: self.plan.actions,
            declined: self.plan.declined.into_iter().map(|(_, declined)| declined).collect(),
            waiting: self.plan.waiting,
            verdicts: self.plan.verdicts,
            extended: self.plan.extended,
            disowned: self.plan.disowned,
            usage,
            carry,
        }
    }
}

/// A short name for an action, the same wherever the same is decided at the same time.
pub(super) fn action_id(
    policy: &str,
    component: &ComponentId,
    kind: ActionKind,
    at: Timestamp,
    undoes: Option<&str>,
) -> String {
    let mut hash = Sha256::new();
    // Lengths before texts: no two different sets of parts make the same bytes.
    for part in [policy, &component.to_string(), &format!("{kind:?}"), &at.0.to_string(), undoes.unwrap_or("")] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..6])
}

/// The object that a component names: from its assessment, else from its labels.
pub(super) fn target(component: &ComponentId, assessment: Option<&Assessment>) -> Target {
    let label = |name: &str| component.label(name).unwrap_or("").to_owned();
    let last = component.labels.last().map(|(_, value)| value.clone()).unwrap_or_default();
    let (namespace, name) = match assessment {
        Some(assessment) => (assessment.target_namespace.clone(), assessment.target_name.clone()),
        None => (label("namespace"), component.label(&component.kind).map_or(last, str::to_owned)),
    };
    Target { component: component.clone(), namespace, name }
}

/// Whether what was offered to a person is still what would be done.
fn same_proposal(offered: &[Action], wanted: &[Action]) -> bool {
    let same = |a: &Action, b: &Action| {
        a.target == b.target && a.change == b.change && a.actuator == b.actuator && a.rung == b.rung
    };
    offered.len() == wanted.len() && offered.iter().zip(wanted).all(|(a, b)| same(a, b))
}

/// A figure that is no number counts as nothing.
pub(super) fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

/// Assessments by component; of two for one component the one with the larger loss counts.
fn by_component<'a>(names: &'a [String], assessments: &'a [Assessment]) -> BTreeMap<&'a str, &'a Assessment> {
    let mut sorted: Vec<(&str, &Assessment)> = zip(names.iter().map(String::as_str), assessments).collect();
    sorted.sort_by(|(name, a), (other, b)| {
        name.cmp(other).then_with(|| finite(a.expected_loss).total_cmp(&finite(b.expected_loss))).then(a.at.cmp(&b.at))
    });
    // Of those with one key a map keeps the last.
    sorted.into_iter().collect()
}

/// All candidates by key.
fn candidates<'a>(input: &'a PlanInput, assessed: &BTreeMap<&'a str, &'a Assessment>) -> Vec<Candidate<'a>> {
    let matchers: Vec<Matcher<'_>> = input.policies.iter().map(|policy| Matcher::new(&policy.selector)).collect();
    let mut candidates: Vec<Candidate<'a>> = Vec::with_capacity(assessed.len());
    for (key, assessment) in assessed {
        let Some(policy) = matchers.iter().position(|matcher| matcher.matches(assessment)) else { continue };
        let probability = gates::fresh_probability(assessment, &input.gates, input.now);
        candidates.push(Candidate { key, assessment, policy, probability, rank: 0 });
    }
    candidates
}

/// Sorts candidates, which come by key: by expected loss, then time to breach, then key.
fn rank(candidates: &mut [Candidate<'_>]) {
    let eta = |candidate: &Candidate<'_>| candidate.assessment.eta.q10.unwrap_or(Millis(i64::MAX));
    // A stable sort.
    candidates.sort_by(|a, b| {
        finite(b.assessment.expected_loss).total_cmp(&finite(a.assessment.expected_loss)).then(eta(a).cmp(&eta(b)))
    });
    candidates.iter_mut().enumerate().for_each(|(rank, candidate)| candidate.rank = rank);
}

fn next_streak(input: &PlanInput, candidate: &Candidate<'_>) -> Streak {
    let policy = &input.policies[candidate.policy];
    let drawn = || gates::draws_holdout(policy, candidate.assessment, input.now);
    match input.carry.streaks.get(candidate.key) {
        Some(last) => last.next(policy, candidate.probability, drawn),
        None => Streak::default().next(policy, candidate.probability, drawn),
    }
}

/// The node that a component of kind `node` is.
fn name_of(node: &Assessment) -> &str {
    if node.target_name.is_empty() { node.component.label("node").unwrap_or("") } else { &node.target_name }
}

/// Components that we changed just now or are changing: nothing is taken from them.
fn busy<'p>(past: &'p Past<'_>, now: Timestamp) -> BTreeSet<&'p str> {
    let is_busy = |key: &str| {
        past.on(key).iter().any(|earlier| earlier.is_under_way(now))
            || past.last_touch(key).is_some_and(|last| now - last.action.decided_at < super::limits::OPPOSITE)
    };
    past.by_component.keys().map(String::as_str).filter(|key| is_busy(key)).collect()
}

/// What each kind is counted with for its breaker: at risk is also what is at or above the entry level of its policy.
/// Candidates come by key.
fn kinds<'a>(
    input: &PlanInput,
    assessed: &BTreeMap<&'a str, &'a Assessment>,
    candidates: &[Candidate<'a>],
) -> BTreeMap<&'a str, KindState<'a>> {
    let mut candidates = candidates.iter().peekable();
    let mut kinds: BTreeMap<&str, KindState<'a>> = BTreeMap::new();
    for (key, assessment) in assessed {
        let candidate = candidates.next_if(|candidate| candidate.key == *key);
        let has_entered = candidate.is_some_and(|candidate| {
            candidate.probability.is_some_and(|p| p >= input.policies[candidate.policy].enter_above)
        });
        let kind = kinds.entry(&assessment.component.kind).or_default();
        kind.at_risk += usize::from(has_entered || gates::is_at_risk(assessment));
        kind.known += usize::from(gates::fresh_probability(assessment, &input.gates, input.now).is_some());
        // What only others tell of falls silent when they have said it.
        let is_own = |signal: &SignalAssessment| signal.rule != EXTERNAL_RULE;
        let is_told = || !assessment.signals.is_empty() && !assessment.signals.iter().any(is_own);
        if !gates::is_silent(assessment, &input.gates, input.now) && !is_told() {
            kind.heard.push(key);
        }
    }
    for (kind, before) in &input.carry.heard {
        if let Some(state) = kinds.get_mut(kind.as_str()) {
            state.compare(before);
        }
    }
    kinds
}

/// What goes on from the last plan: offers that still stand, those that came to nothing, and which latches a person
/// released.
fn carry_over(input: &PlanInput) -> Carry {
    let (mut waiting, mut withheld) = (BTreeMap::new(), input.carry.withheld.clone());
    for (component, actions) in &input.carry.waiting {
        let Some(main) = actions.last() else { continue };
        let Some(policy) = input.policies.iter().find(|policy| policy.name == main.policy) else { continue };
        let declined = input.gates.declined.contains(&main.id);
        if declined || input.now - main.decided_at >= policy.offer_lasts() {
            withheld.insert(component.clone(), Withheld { id: main.id.clone(), since: input.now, declined });
        } else {
            waiting.insert(component.clone(), actions.clone());
        }
    }
    let mut unlatched = input.carry.unlatched.clone();
    for released in &input.gates.released {
        unlatched.insert(released.clone(), input.now);
    }
    unlatched.retain(|component, at| component.contains('/') && input.now - *at < super::limits::LATCH);
    Carry { unlatched, waiting, withheld, ..Carry::default() }
}
