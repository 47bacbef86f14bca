//! What must hold after every pass, whatever the world does. Nothing here asks the planner: what is checked is what was
//! written, sent and changed, against what was there to be seen.

use std::collections::{BTreeMap, BTreeSet};

use forestall::cycle::Report;
use forestall::health::{Assessment, Standing};
use forestall::model::{ComponentId, Millis, Timestamp};
use forestall::plan::{Action, ActionKind, Capacity, Change, Mode, Outcome, Reason, Resources, Workload};

use super::script::{Rules, share};
use super::target::{ATTEMPTS_MAX, Call, Row, Written};
use super::world::{Effect, Kind};

/// Too much of a kind at risk: nothing is done until it has been calm for so long.
const CALM: Millis = Millis(15 * Millis::MINUTE.0);
/// The opposite of what was done waits so long.
const OPPOSITE: Millis = Millis(30 * Millis::MINUTE.0);
/// What was promised may not show in what runs for so long.
const SHOWS_AFTER: Millis = Millis(15 * Millis::MINUTE.0);
/// A plan later than so many intervals after the last means that the clock was set or that we stood still.
const JUMP: i64 = 3;

/// Something that must hold does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) cycle: u32,
    pub(crate) what: String,
}

/// An action that was really meant, from its intent on.
#[derive(Debug, Clone)]
struct Deed {
    action: Action,
    life: u32,
    outcome: Option<Outcome>,
    settled_at: Timestamp,
    effective: Option<bool>,
    undone: bool,
    disowned: bool,
}

impl Deed {
    /// Whether something was done, or may have been, that is not giving back. What a person called off was not.
    fn is_act(&self) -> bool {
        self.action.undoes.is_none() && self.outcome != Some(Outcome::Cancelled)
    }

    fn is_main(&self) -> bool {
        self.is_act() && self.action.kind != ActionKind::Evict
    }

    fn took_effect(&self) -> bool {
        self.outcome.is_some_and(Outcome::took_effect)
    }

    fn in_force(&self) -> bool {
        self.is_act() && self.took_effect() && !self.undone && !self.disowned
    }

    /// Whether it gives to its component: more replicas, less load. What undoes an eviction gives, too.
    fn gives(&self) -> bool {
        gives(&self.action)
    }
}

fn cores(amounts: &Resources) -> f64 {
    amounts.get("cpu").copied().unwrap_or(0.0)
}

fn gives(action: &Action) -> bool {
    (action.kind == ActionKind::Evict) != action.undoes.is_none()
}

fn is_main(action: &Action) -> bool {
    action.undoes.is_none() && action.kind != ActionKind::Evict
}

/// One pass as it was from outside.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) cycle: u32,
    /// By forestall's clock.
    pub(crate) now: Timestamp,
    pub(crate) assessments: &'a [Assessment],
    pub(crate) capacity: &'a Capacity,
    /// What the pass reported, where it got so far.
    pub(crate) report: Option<&'a Report>,
    pub(crate) rows: &'a [Written],
    pub(crate) calls: &'a [Call],
    pub(crate) effects: &'a [Effect],
    /// Whether the journal could take the decision.
    pub(crate) durable: bool,
    /// The ceiling over all modes.
    pub(crate) mode: Mode,
    /// What a person released before this pass: kinds and components.
    pub(crate) released: &'a BTreeSet<String>,
}

impl Moment<'_> {
    fn assessment(&self, component: &ComponentId) -> Option<&Assessment> {
        self.assessments.iter().find(|a| a.component == *component)
    }

    fn workload(&self, component: &ComponentId) -> Option<&Workload> {
        self.capacity.workloads.iter().find(|w| w.component == *component)
    }
}

/// How often things came about: a run in which nothing happens shows nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) passes: u64,
    pub(crate) acts: u64,
    pub(crate) undos: u64,
    pub(crate) evictions: u64,
    pub(crate) effects: u64,
    pub(crate) ineffective: u64,
    pub(crate) latched: u64,
    pub(crate) breakers: u64,
    pub(crate) scrape_faults: u64,
    pub(crate) disowned: u64,
    pub(crate) unknown: u64,
    pub(crate) cancelled: u64,
    pub(crate) kills: u64,
    pub(crate) clock_steps: u64,
    pub(crate) given_back: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.passes += other.passes;
        self.acts += other.acts;
        self.undos += other.undos;
        self.evictions += other.evictions;
        self.effects += other.effects;
        self.ineffective += other.ineffective;
        self.latched += other.latched;
        self.breakers += other.breakers;
        self.scrape_faults += other.scrape_faults;
        self.disowned += other.disowned;
        self.unknown += other.unknown;
        self.cancelled += other.cancelled;
        self.kills += other.kills;
        self.clock_steps += other.clock_steps;
        self.given_back += other.given_back;
    }
}

type Held = Result<(), String>;

/// Remembers what was done, and says what is broken.
#[derive(Debug)]
pub(crate) struct Checker {
    rules: Vec<Rules>,
    pub(crate) interval: Millis,
    start_hold: Millis,
    started_at: Timestamp,
    /// The last plan of this process.
    last_plan: Option<Timestamp>,
    deeds: BTreeMap<String, Deed>,
    /// Component → its deeds, in the order of their intents.
    by_component: BTreeMap<String, Vec<String>>,
    /// Component → for how many passes in a row of this process it has been at or above the entry level, and below the exit.
    streaks: BTreeMap<String, (u32, u32)>,
    /// Components that have entered and not left, whatever process saw it.
    entered: BTreeSet<String>,
    /// Those that left in the last pass: whether that was written down is not known if the process died in it.
    left: BTreeSet<String>,
    /// Kind → when too much of it was at risk the last time.
    mass: BTreeMap<String, Timestamp>,
    /// Those of them that the journal has not been told of, because it could not be written since.
    unwritten_mass: BTreeSet<String>,
    /// Kind → those that the last pass heard of.
    heard: BTreeMap<&'static str, BTreeSet<ComponentId>>,
    /// Kinds whose breaker a person has released.
    released_kinds: BTreeSet<String>,
    /// Component → when a person released its latch.
    unlatched: BTreeMap<String, Timestamp>,
    pub(crate) broken: Vec<Broken>,
    pub(crate) tally: Tally,
}

impl Checker {
    pub(crate) fn new(rules: &[Rules], interval: Millis, start_hold: Millis) -> Checker {
        Checker {
            rules: rules.to_vec(),
            interval,
            start_hold,
            started_at: Timestamp(0),
            last_plan: None,
            deeds: BTreeMap::new(),
            by_component: BTreeMap::new(),
            streaks: BTreeMap::new(),
            entered: BTreeSet::new(),
            left: BTreeSet::new(),
            mass: BTreeMap::new(),
            unwritten_mass: BTreeSet::new(),
            heard: BTreeMap::new(),
            released_kinds: BTreeSet::new(),
            unlatched: BTreeMap::new(),
            broken: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// A process begins: what the last one had in memory is gone.
    pub(crate) fn started(&mut self, at: Timestamp) {
        self.started_at = at;
        self.last_plan = None;
        self.streaks.clear();
        self.heard.clear();
        self.entered.append(&mut self.left);
        // A breaker that could be written down outlives its process, and must be seen calm for its whole time.
        let unwritten = std::mem::take(&mut self.unwritten_mass);
        self.mass.retain(|kind, _| !unwritten.contains(kind));
        self.mass.values_mut().for_each(|last| *last = at);
    }

    pub(crate) fn say(&mut self, invariant: &'static str, cycle: u32, held: Held) {
        if let Err(what) = held {
            self.broken.push(Broken { invariant, cycle, what });
        }
    }

    fn rules(&self, kind: &str) -> Option<&Rules> {
        self.rules.iter().find(|rules| rules.kind.name() == kind)
    }

    /// The deeds on a component, the newest first.
    fn deeds_on(&self, component: &str) -> impl Iterator<Item = &Deed> {
        let ids = self.by_component.get(component).map_or(&[][..], Vec::as_slice);
        ids.iter().rev().map(|id| &self.deeds[id])
    }

    /// What is in force and has to be given back some time.
    pub(crate) fn outstanding(&self) -> impl Iterator<Item = &Action> {
        self.deeds.values().filter(|deed| deed.in_force() && deed.action.undo.is_some()).map(|deed| &deed.action)
    }

    /// How many things at the most have to be given back on one component.
    pub(crate) fn stacked(&self) -> i64 {
        let mut by_component: BTreeMap<String, i64> = BTreeMap::new();
        for action in self.outstanding() {
            *by_component.entry(action.target.component.to_string()).or_default() += 1;
        }
        by_component.into_values().max().unwrap_or(0)
    }

    /// Whether nothing is known yet of what came of something.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = &Action> {
        self.deeds.values().filter(|deed| deed.outcome.is_none()).map(|deed| &deed.action)
    }

    /// Looks at one pass.
    pub(crate) fn look(&mut self, moment: &Moment<'_>) {
        self.tally.passes += 1;
        self.tally.effects += moment.effects.len() as u64;
        let cycle = moment.cycle;
        let planned = moment.report.is_some();
        if planned {
            self.take_in(moment);
            if moment.durable {
                self.unwritten_mass.clear();
            }
        }
        let split = moment.rows.iter().position(|written| matches!(written.row, Row::Intent(_)));
        let (before, after) = moment.rows.split_at(split.unwrap_or(moment.rows.len()));
        before.iter().for_each(|written| self.note_row(written));
        if let Some(report) = moment.report {
            self.look_at_plan(moment, report);
        }
        for written in after {
            if let Row::Intent(action) = &written.row {
                self.look_at_intent(moment, action);
            }
            self.note_row(written);
        }
        for call in moment.calls {
            self.say("inv_no_effect_without_intent", cycle, inv_no_effect_without_intent(call));
            self.say("inv_paused_does_nothing", cycle, inv_paused_does_nothing(call));
            self.say("inv_observe_touches_nothing", cycle, self.inv_observe_touches_nothing(moment, call));
            self.say("inv_an_id_means_one_thing", cycle, self.inv_an_id_means_one_thing(call, moment.calls));
        }
        if planned {
            self.last_plan = Some(moment.now);
        }
    }

    /// What is at risk, how long for, and what people released.
    fn take_in(&mut self, moment: &Moment<'_>) {
        // A clock that was set back begins the hold anew.
        self.started_at = self.started_at.min(moment.now);
        let components = moment.released.iter().filter(|name| name.contains('/'));
        self.unlatched.extend(components.map(|name| (name.clone(), moment.now)));
        for kind in Kind::ALL {
            let of_kind = || moment.assessments.iter().filter(|a| a.component.kind == kind.name());
            let heard: BTreeSet<ComponentId> =
                of_kind().filter(|a| !self.is_silent(a, moment.now)).map(|a| a.component.clone()).collect();
            let before = self.heard.insert(kind.name(), heard).unwrap_or_default();
            let silent = before.difference(&self.heard[kind.name()]).count();
            let fell_silent = silent >= 2 && silent as f64 > 0.25 * before.len() as f64 && of_kind().next().is_some();
            if fell_silent {
                // What a person released before was something else.
                self.tally.scrape_faults += 1;
                self.released_kinds.remove(kind.name());
            }
            let at_risk = of_kind().filter(|a| matches!(a.standing, Standing::AtRisk | Standing::Failing)).count();
            // A clock that went back does not keep a breaker open for longer.
            let last = self.mass.get(kind.name()).map(|last| moment.now.min(*last));
            if let Some(last) = last {
                self.mass.insert(kind.name().to_owned(), last);
            }
            if fell_silent || (at_risk > 3 && at_risk as f64 > 0.4 * of_kind().count() as f64) {
                self.mass.insert(kind.name().to_owned(), moment.now);
                self.tally.breakers += u64::from(last.is_none());
                if last.is_none() {
                    self.unwritten_mass.insert(kind.name().to_owned());
                }
            } else if last.is_some_and(|last| moment.now - last >= CALM) {
                self.mass.remove(kind.name());
                self.released_kinds.remove(kind.name());
            }
            if self.mass.contains_key(kind.name()) && moment.released.contains(kind.name()) {
                self.released_kinds.insert(kind.name().to_owned());
            }
        }
        // Of what is not among what is seen nothing new is known: how it stood goes on.
        let mut streaks = std::mem::take(&mut self.streaks);
        self.left.clear();
        for assessment in moment.assessments {
            let Some(rules) = self.rules(&assessment.component.kind) else { continue };
            let key = assessment.component.to_string();
            let p = self.fresh(assessment, moment.now);
            let (above, below) = streaks.get(&key).copied().unwrap_or_default();
            let above = if p.is_some_and(|p| p >= rules.enter) { above + 1 } else { 0 };
            let below = if p.is_some_and(|p| p < rules.exit) { below + 1 } else { 0 };
            if above >= rules.enter_for {
                self.entered.insert(key.clone());
            } else if below >= rules.exit_for && self.entered.remove(&key) {
                self.left.insert(key.clone());
            }
            streaks.insert(key, (above, below));
        }
        self.streaks = streaks;
    }

    /// The probability, where something may be said.
    fn fresh(&self, assessment: &Assessment, now: Timestamp) -> Option<f64> {
        let known = !matches!(assessment.standing, Standing::Unknown | Standing::Learning);
        let known = known && assessment.expected_loss.is_finite();
        let old = now - assessment.at > self.interval * 2;
        assessment.probability.filter(|p| known && !old && p.is_finite())
    }

    /// Whether nothing is heard of a component: neither known nor on the way to be.
    fn is_silent(&self, assessment: &Assessment, now: Timestamp) -> bool {
        let learns = assessment.standing == Standing::Learning && now - assessment.at <= self.interval * 2;
        !learns && self.fresh(assessment, now).is_none()
    }

    fn note_row(&mut self, written: &Written) {
        match &written.row {
            Row::Intent(action) if !action.dry_run => {
                let key = action.target.component.to_string();
                self.by_component.entry(key).or_default().push(action.id.clone());
                let deed = Deed {
                    action: (**action).clone(),
                    life: written.life,
                    outcome: None,
                    settled_at: written.at,
                    effective: None,
                    undone: false,
                    disowned: false,
                };
                self.tally.acts += u64::from(deed.is_main());
                self.tally.undos += u64::from(deed.action.undoes.is_some());
                self.tally.evictions += u64::from(deed.is_act() && !deed.is_main());
                self.deeds.insert(action.id.clone(), deed);
            }
            Row::Outcome(id, outcome) => {
                let Some(deed) = self.deeds.get_mut(id) else { return };
                (deed.outcome, deed.settled_at) = (Some(*outcome), written.at);
                self.tally.unknown += u64::from(*outcome == Outcome::Unknown);
                self.tally.cancelled += u64::from(*outcome == Outcome::Cancelled);
                // What may not have been given back still has to be.
                let given_back =
                    matches!(outcome, Outcome::Confirmed | Outcome::Applied | Outcome::Unchanged | Outcome::Reverted);
                if let Some(original) = deed.action.undoes.clone().filter(|_| given_back)
                    && let Some(original) = self.deeds.get_mut(&original)
                {
                    original.undone = true;
                    self.tally.given_back += 1;
                }
            }
            Row::Intent(_) | Row::Attempt(..) => {}
        }
    }

    fn look_at_plan(&mut self, moment: &Moment<'_>, report: &Report) {
        let cycle = moment.cycle;
        for verdict in &report.plan.verdicts {
            self.say("inv_verdicts_are_what_was_seen", cycle, self.inv_verdicts_are_what_was_seen(moment, verdict));
        }
        if moment.durable {
            for verdict in &report.plan.verdicts {
                if let Some(deed) = self.deeds.get_mut(&verdict.action_id) {
                    deed.effective = Some(verdict.effective);
                    self.tally.ineffective += u64::from(!verdict.effective);
                }
            }
            for extension in &report.plan.extended {
                if let Some(deed) = self.deeds.get_mut(&extension.action_id) {
                    deed.action.expires_at = Some(extension.until);
                }
            }
            for id in &report.plan.disowned {
                self.say(
                    "inv_disowns_only_what_others_changed",
                    cycle,
                    self.inv_disowns_only_what_others_changed(moment, id),
                );
                if let Some(deed) = self.deeds.get_mut(id) {
                    deed.disowned = true;
                    self.tally.disowned += 1;
                }
            }
        }
        let latched = report.plan.declined.iter().any(|declined| declined.reason == Reason::Latched);
        self.tally.latched += u64::from(latched);
        let plan = &report.plan;
        self.say("inv_everything_at_risk_is_answered", cycle, self.inv_everything_at_risk_is_answered(moment, report));
        self.say("inv_one_thing_per_component_in_a_plan", cycle, inv_one_thing_per_component_in_a_plan(&plan.actions));
        self.say(
            "inv_promises_no_more_than_there_is",
            cycle,
            inv_promises_no_more_than_there_is(moment, &plan.actions),
        );
        self.say("inv_never_more_than_needed", cycle, self.inv_never_more_than_needed(moment, &plan.actions));
        for action in plan.actions.iter().filter(|action| action.kind == ActionKind::Evict && action.undoes.is_none()) {
            let held = self.inv_never_evicts_equal_or_higher_priority(moment, action, &plan.actions);
            self.say("inv_never_evicts_equal_or_higher_priority", cycle, held);
        }
    }

    fn look_at_intent(&mut self, moment: &Moment<'_>, action: &Action) {
        if action.dry_run {
            return;
        }
        let cycle = moment.cycle;
        let Some(rules) = self.rules(action.policy.trim_end_matches('s')).cloned() else {
            self.say("inv_acts_by_policy", cycle, Err(format!("{action:?} is of no policy")));
            return;
        };
        self.say("inv_start_hold", cycle, self.inv_start_hold(moment));
        self.say("inv_clock_jump_stops_one_interval", cycle, self.inv_clock_jump_stops_one_interval(moment));
        self.say("inv_mass_anomaly_opens_breaker", cycle, self.inv_mass_anomaly_opens_breaker(moment, action));
        self.say("inv_no_opposite_within_30min", cycle, self.inv_no_opposite_within_30min(moment, action));
        if action.undoes.is_some() {
            self.say("inv_undoes_only_its_own", cycle, self.inv_undoes_only_its_own(action));
            self.say("inv_a_persons_change_wins", cycle, self.inv_a_persons_change_wins(moment, action));
            self.say("inv_no_flapping", cycle, self.inv_gives_back_only_what_is_calm(moment, action, &rules));
            return;
        }
        self.say("inv_budget_holds_across_restart", cycle, self.inv_budget_holds_across_restart(moment, &rules));
        if is_main(action) {
            self.say("inv_unknown_never_acts", cycle, self.inv_unknown_never_acts(moment, action));
            self.say("inv_blast_radius", cycle, self.inv_blast_radius(moment, action, &rules));
            let held = self.inv_one_action_per_component_per_cooldown(moment, action, &rules);
            self.say("inv_one_action_per_component_per_cooldown", cycle, held);
            self.say(
                "inv_latch_after_two_ineffective",
                cycle,
                self.inv_latch_after_two_ineffective(moment, action, &rules),
            );
            self.say("inv_no_flapping", cycle, self.inv_enters_only_what_has_been_at_risk(moment, action, &rules));
        }
    }

    fn group(moment: &Moment<'_>, rules: &Rules) -> usize {
        moment.assessments.iter().filter(|a| a.component.kind == rules.kind.name()).count()
    }
}

/// Duplicates to a webhook (alertmanager#3551, #4108): an intent is durable before anything is sent.
fn inv_no_effect_without_intent(call: &Call) -> Held {
    if call.durable && !call.action.dry_run {
        return Ok(());
    }
    Err(format!("{} was sent to {} without an intent in the journal", call.action.id, call.port.name))
}

/// Drained what a person had uncordoned (draino#17): what a person paused is left alone from that moment on, in the middle
/// of a plan, of attempts, and after a restart.
fn inv_paused_does_nothing(call: &Call) -> Held {
    match &call.paused {
        None => Ok(()),
        Some(scope) => {
            Err(format!("attempt {} of {} was sent though {scope:?} is paused", call.attempt, call.action.id))
        }
    }
}

/// Evicting in circles (descheduler#707): nothing is given to and taken from in one plan.
fn inv_one_thing_per_component_in_a_plan(actions: &[Action]) -> Held {
    let mut touched = BTreeSet::new();
    let twice = actions.iter().find(|action| !touched.insert(&action.target.component));
    twice.map_or(Ok(()), |action| Err(format!("{} is touched twice in one plan", action.target.component)))
}

/// Scaled to where there was no room (karpenter#1019): a plan promises no more than is free and what it frees.
fn inv_promises_no_more_than_there_is(moment: &Moment<'_>, actions: &[Action]) -> Held {
    let mut promised: BTreeMap<&str, f64> = BTreeMap::new();
    for action in actions.iter().filter(|action| action.undoes.is_none()) {
        let Change::Replicas { from, to } = action.change else { continue };
        let Some(workload) = moment.workload(&action.target.component) else {
            return Err(format!("{} scales what is not among what runs", action.id));
        };
        *promised.entry(&workload.pool).or_default() +=
            (f64::from(to) - f64::from(from)) * cores(&workload.per_replica);
    }
    for (pool, promised) in promised {
        let nodes = moment.capacity.pools.get(pool).map_or(&[][..], Vec::as_slice);
        let free: f64 =
            nodes.iter().map(|n| (cores(&n.allocatable) - cores(&n.used)).max(0.0)).filter(|f| f.is_finite()).sum();
        if promised > free + 1e-6 {
            return Err(format!("{promised} cores of pool {pool} are promised, and {free} are free"));
        }
    }
    Ok(())
}

impl Checker {
    /// Everything looked empty at the start (autoscaler#446), thousands evicted after a redeploy (#2180): nothing is done
    /// before the hold after a start is over.
    fn inv_start_hold(&self, moment: &Moment<'_>) -> Held {
        let since = moment.now - self.started_at;
        if since >= self.start_hold {
            return Ok(());
        }
        Err(format!("acts {since} after the start; the hold is {}", self.start_hold))
    }

    /// Old events replayed after a reset (NVSentinel#450): a clock that jumps stops acting for one interval.
    fn inv_clock_jump_stops_one_interval(&self, moment: &Moment<'_>) -> Held {
        let Some(last) = self.last_plan else { return Ok(()) };
        let passed = moment.now - last;
        if Millis::ZERO <= passed && passed <= self.interval * JUMP {
            return Ok(());
        }
        Err(format!("acts though the clock moved by {passed} since the last plan"))
    }

    /// No data read as 0, everything scaled to the minimum at peak (keda#3065, kubernetes#104387, #105187): what is unknown,
    /// old or no number never acts.
    fn inv_unknown_never_acts(&self, moment: &Moment<'_>, action: &Action) -> Held {
        let component = &action.target.component;
        let assessment = moment.assessment(component);
        let p = assessment.and_then(|assessment| self.fresh(assessment, moment.now));
        let low = assessment.and_then(|assessment| assessment.probability_low).filter(|low| low.is_finite());
        if p.is_some() && low.is_some() {
            return Ok(());
        }
        Err(format!("acts on {component}, of which is known: {assessment:?}"))
    }

    /// More than three quarters of the nodes cordoned (draino#89): a mass anomaly of a kind stops what is done to it until
    /// 15 calm minutes have passed or a person releases it.
    fn inv_mass_anomaly_opens_breaker(&self, moment: &Moment<'_>, action: &Action) -> Held {
        let kind = action.target.component.kind.as_str();
        let Some(last) = self.mass.get(kind) else { return Ok(()) };
        // What is taken from others is about the kind of the component that it is taken for.
        if self.released_kinds.contains(kind) || !(is_main(action) || action.undoes.is_some()) {
            return Ok(());
        }
        Err(format!("{} acts on a {kind}, and too many of them were at risk {} ago", action.id, moment.now - *last))
    }

    /// 4 → 200 → 4 (kubernetes#78761; karpenter#7146): the opposite of what was done waits 30 minutes.
    fn inv_no_opposite_within_30min(&self, moment: &Moment<'_>, action: &Action) -> Held {
        let key = action.target.component.to_string();
        let Some(last) = self.deeds_on(&key).find(|deed| deed.gives() != gives(action)) else { return Ok(()) };
        let ago = moment.now - last.action.decided_at;
        if ago >= OPPOSITE {
            return Ok(());
        }
        Err(format!("{} ({:?}) does the opposite of {} on {key} after {ago}", action.id, action.change, last.action.id))
    }

    /// Uncordoned what it had not cordoned (NVSentinel#1424): what is given back was taken by us, once, and has not been
    /// given back.
    fn inv_undoes_only_its_own(&self, undo: &Action) -> Held {
        let id = undo.undoes.as_deref().unwrap_or("");
        let Some(deed) = self.deeds.get(id) else { return Err(format!("{} undoes {id}, which is not ours", undo.id)) };
        let same = deed.action.undo.as_ref() == Some(&undo.change) && deed.action.target == undo.target;
        if deed.in_force() && same {
            return Ok(());
        }
        Err(format!("{} undoes {id} ({:?}): {deed:?}", undo.id, undo.change))
    }

    /// Drained what a person had uncordoned (draino#17): what others changed is not given back.
    fn inv_a_persons_change_wins(&self, moment: &Moment<'_>, undo: &Action) -> Held {
        let Some(deed) = undo.undoes.as_deref().and_then(|id| self.deeds.get(id)) else { return Ok(()) };
        let Change::Replicas { to, .. } = deed.action.change else { return Ok(()) };
        let key = &undo.target.component;
        match moment.workload(key) {
            Some(workload) if workload.replicas == to => Ok(()),
            Some(workload) => Err(format!(
                "{} gives back {} of {key} though it has {} now",
                undo.id, deed.action.id, workload.replicas
            )),
            None => {
                Err(format!("{} gives back {} of {key} though nobody knows how many it has", undo.id, deed.action.id))
            }
        }
    }

    /// What is not given back any more was changed by somebody else; a gap in the data is no change.
    fn inv_disowns_only_what_others_changed(&self, moment: &Moment<'_>, id: &str) -> Held {
        let Some(deed) = self.deeds.get(id) else { return Err(format!("{id} is disowned and was never ours")) };
        let Change::Replicas { to, .. } = deed.action.change else { return Ok(()) };
        let key = &deed.action.target.component;
        match moment.workload(key) {
            Some(workload) if workload.replicas != to => Ok(()),
            Some(_) => Err(format!("{id} is disowned though {key} has the {to} replicas that it set")),
            None => Err(format!("{id} is disowned because {key} is not seen now")),
        }
    }

    /// Thousands evicted after a redeploy (autoscaler#2180): budgets count what earlier processes did.
    fn inv_budget_holds_across_restart(&self, moment: &Moment<'_>, rules: &Rules) -> Held {
        let policy = format!("{}s", rules.kind.name());
        let counts = |deed: &&Deed| {
            deed.is_act() && deed.action.policy == policy && deed.action.decided_at > moment.now - rules.per
        };
        let spent = self.deeds.values().filter(counts).count() + 1;
        let group = Self::group(moment, rules);
        if spent <= rules.budget(group) {
            return Ok(());
        }
        Err(format!("{spent} actions of policy {policy} in {}, and {} are allowed", rules.per, rules.budget(group)))
    }

    /// More than three quarters of the nodes cordoned (draino#89): at most a tenth of a group, and at least one, is under
    /// action at once.
    fn inv_blast_radius(&self, moment: &Moment<'_>, action: &Action, rules: &Rules) -> Held {
        let is_open = |deed: &&Deed| {
            let to_be_judged =
                deed.in_force() && deed.effective.is_none() && moment.now <= deed.settled_at + rules.verify_after;
            deed.is_main() && deed.action.policy == action.policy && (deed.outcome.is_none() || to_be_judged)
        };
        let open: BTreeSet<_> = self.deeds.values().filter(is_open).map(|deed| &deed.action.target.component).collect();
        let limit = share(0.1, Self::group(moment, rules)).max(1);
        // What is under action already is not one more.
        if open.len() < limit || open.contains(&action.target.component) {
            return Ok(());
        }
        Err(format!(
            "{} is under action, {} are already and at most {limit} may be",
            action.target.component,
            open.len()
        ))
    }

    /// Evicting in circles (autoscaler#2715, #6884): one action per component in a cool-down, and none while one is under way.
    fn inv_one_action_per_component_per_cooldown(&self, moment: &Moment<'_>, action: &Action, rules: &Rules) -> Held {
        let key = action.target.component.to_string();
        // What was not confirmed in time has no effect: then the next rung of the ladder is tried.
        let escalates =
            |deed: &Deed| rules.escalates && deed.effective == Some(false) && deed.action.rung + 1 < rules.ladder.len();
        if let Some(deed) = self.deeds_on(&key).find(|deed| deed.outcome.is_none() && !escalates(deed)) {
            return Err(format!("{} acts on {key} while {} is under way", action.id, deed.action.id));
        }
        let Some(last) = self.deeds_on(&key).find(|deed| deed.is_main()) else { return Ok(()) };
        let ago = moment.now - last.action.decided_at;
        let escalates = escalates(last);
        if ago >= rules.cooldown || escalates {
            return Ok(());
        }
        Err(format!("{} acts on {key} {ago} after {}; the cool-down is {}", action.id, last.action.id, rules.cooldown))
    }

    /// Evicting in circles (autoscaler#9362; descheduler#1695): what had no effect twice in a day is not tried again.
    fn inv_latch_after_two_ineffective(&self, moment: &Moment<'_>, action: &Action, rules: &Rules) -> Held {
        let key = action.target.component.to_string();
        let released = self.unlatched.get(&key).copied();
        let since = released.unwrap_or(Timestamp(0)).max(moment.now - Millis::DAY);
        let in_vain = |deed: &&Deed| deed.is_act() && deed.effective == Some(false) && deed.action.decided_at > since;
        let ineffective = self.deeds_on(&key).filter(in_vain).count();
        let allowed = usize::from(rules.escalates);
        if ineffective <= allowed {
            return Ok(());
        }
        Err(format!("{} acts on {key} after {ineffective} actions without effect", action.id))
    }

    /// A verdict follows from what was seen: drained in circles on what was never checked (autoscaler#6884).
    fn inv_verdicts_are_what_was_seen(&self, moment: &Moment<'_>, verdict: &forestall::plan::Verdict) -> Held {
        let Some(deed) = self.deeds.get(&verdict.action_id) else {
            return Err(format!("{} is judged and was never done", verdict.action_id));
        };
        let component = &deed.action.target.component;
        let Some(rules) = self.rules(&component.kind) else { return Ok(()) };
        let assessment = moment.assessment(component);
        let Some(p) = assessment.and_then(|assessment| self.fresh(assessment, moment.now)) else {
            return Err(format!("{} is judged, and nothing is known of {component}", verdict.action_id));
        };
        let effective = p <= deed.action.why.probability - rules.drop + 1e-9 || p < rules.exit;
        if effective == verdict.effective {
            return Ok(());
        }
        Err(format!("{verdict:?}, and P was {} and is {p}", deed.action.why.probability))
    }

    /// Flapping (kubernetes#78761): a component is acted on after it has been at risk for as long as its policy says.
    fn inv_enters_only_what_has_been_at_risk(&self, moment: &Moment<'_>, action: &Action, rules: &Rules) -> Held {
        let key = action.target.component.to_string();
        let (above, _) = self.streaks.get(&key).copied().unwrap_or_default();
        // What a person was asked goes on while it has not been calm.
        let asked = moment.report.is_some_and(|report| report.input.carry.waiting.contains_key(&key));
        let now = above > 0 || asked;
        if self.entered.contains(&key) && now {
            return Ok(());
        }
        Err(format!("{} acts on {key}, which has been at risk for {above} of {} passes", action.id, rules.enter_for))
    }

    /// Flapping (karpenter#1019): what was given stays until its component has been calm for as long as its policy says.
    fn inv_gives_back_only_what_is_calm(&self, moment: &Moment<'_>, undo: &Action, rules: &Rules) -> Held {
        let Some(deed) = undo.undoes.as_deref().and_then(|id| self.deeds.get(id)) else { return Ok(()) };
        let in_vain = |main: &&Deed| !main.in_force() && main.outcome.is_some();
        let main = deed.action.makes_room_for.as_deref().and_then(|id| self.deeds.get(id));
        if main.as_ref().is_some_and(in_vain) || (deed.action.makes_room_for.is_some() && main.is_none()) {
            return Ok(());
        }
        if deed.action.expires_at.is_none_or(|at| at > moment.now) {
            return Err(format!("{} gives back {} before it expires", undo.id, deed.action.id));
        }
        let key = main.map_or(&deed.action, |main| &main.action).target.component.to_string();
        let (_, below) = self.streaks.get(&key).copied().unwrap_or_default();
        if below >= rules.exit_for {
            return Ok(());
        }
        Err(format!("{} gives back {} though {key} has been calm for {below} passes only", undo.id, deed.action.id))
    }

    /// Acting in observe mode is acting without leave: a looser mode never comes by itself.
    fn inv_observe_touches_nothing(&self, moment: &Moment<'_>, call: &Call) -> Held {
        let kind = call.action.policy.trim_end_matches('s');
        let mode = self.rules(kind).map_or(Mode::Observe, |rules| rules.mode.min(moment.mode));
        if mode > Mode::Observe {
            return Ok(());
        }
        Err(format!("{} was sent in observe mode", call.action.id))
    }

    /// Duplicates to a webhook (alertmanager#4108): one id is one change, sent by one process, and no more often than its
    /// target allows; where a target does not know an action again, once.
    fn inv_an_id_means_one_thing(&self, call: &Call, all: &[Call]) -> Held {
        let Some(deed) = self.deeds.get(&call.action.id) else {
            return Err(format!("{} was sent without an intent", call.action.id));
        };
        if deed.life != call.life {
            return Err(format!("{} was sent again by another process", call.action.id));
        }
        if deed.action.change != call.action.change || deed.action.target != call.action.target {
            return Err(format!("{} means two things", call.action.id));
        }
        let earlier =
            all.iter().find(|c| c.action.id == call.action.id && c.attempt < call.attempt && c.may_have_worked);
        if let Some(earlier) = earlier.filter(|_| !call.port.dedupes) {
            return Err(format!(
                "{} was sent again to {}, where attempt {} may have worked",
                call.action.id, call.port.name, earlier.attempt
            ));
        }
        if call.attempt > ATTEMPTS_MAX {
            return Err(format!("{} was sent {} times to {}", call.action.id, call.attempt, call.port.name));
        }
        Ok(())
    }

    /// Why was nothing done? (evidence.md, section 6): everything at risk is acted on, or declined with a reason.
    fn inv_everything_at_risk_is_answered(&self, moment: &Moment<'_>, report: &Report) -> Held {
        let acted: BTreeSet<_> = report.plan.actions.iter().map(|action| &action.target.component).collect();
        let declined: BTreeSet<_> = report.plan.declined.iter().map(|declined| &declined.component).collect();
        for assessment in moment.assessments {
            let Some(rules) = self.rules(&assessment.component.kind) else { continue };
            let at_risk = self.fresh(assessment, moment.now).is_some_and(|p| p >= rules.enter);
            if at_risk && !acted.contains(&assessment.component) && !declined.contains(&assessment.component) {
                return Err(format!("nothing is said of {}", assessment.component));
            }
        }
        Ok(())
    }

    /// Safety limits that let a big one burn a small one (karpenter#2134): what gives way is of strictly lower priority,
    /// has less to lose, and keeps its minimum.
    fn inv_never_evicts_equal_or_higher_priority(&self, moment: &Moment<'_>, evict: &Action, all: &[Action]) -> Held {
        let main = all.iter().find(|action| Some(&action.id) == evict.makes_room_for.as_ref());
        let Some(main) = main else { return Err(format!("{} makes room for nothing", evict.id)) };
        let find = |action: &Action| moment.workload(&action.target.component);
        let (Some(victim), Some(own)) = (find(evict), find(main)) else {
            return Err(format!("{} takes from what is not among what runs", evict.id));
        };
        let limits = self.rules(&main.target.component.kind).and_then(|rules| rules.evict);
        let Some((below, min_impact)) = limits else { return Err(format!("{} takes, and may not", evict.id)) };
        let loss = |action: &Action| moment.assessment(&action.target.component).map_or(0.0, |a| a.expected_loss);
        let impact = moment.assessment(&main.target.component).map_or(0.0, |a| a.impact);
        let lower = victim.priority < own.priority && victim.priority < below;
        let stays = matches!(evict.change, Change::Replicas { from, to } if from == victim.replicas && to < from && to >= victim.replicas_min);
        if lower && stays && impact >= min_impact && loss(evict) < loss(main) {
            return Ok(());
        }
        Err(format!(
            "{:?} of {} (priority {}, loss {}) for {} (priority {}, loss {}, impact {impact})",
            evict.change,
            evict.target.component,
            victim.priority,
            loss(evict),
            main.target.component,
            own.priority,
            loss(main)
        ))
    }

    /// Emptied a fleet (SRE book, chapter 7): no more is taken than is needed, and no more given than the arithmetic says.
    fn inv_never_more_than_needed(&self, moment: &Moment<'_>, actions: &[Action]) -> Held {
        for action in actions.iter().filter(|action| action.kind == ActionKind::ScaleOut && action.undoes.is_none()) {
            let Change::Replicas { from, to } = action.change else { continue };
            let assessment = moment.assessment(&action.target.component);
            let values = assessment.map(|a| [a.signals[0].foresight.peak_q90, a.signals[0].foresight.current]);
            let finite = values.into_iter().flatten().flatten().filter(|value| value.is_finite());
            // What a person was offered keeps its size: it counts what was seen then.
            let Some(peak) = finite.chain(action.why.peak).reduce(f64::max) else { continue };
            // Where earlier actions brought less than was reckoned, up to twice as much is added.
            let needed = (peak / super::sight::WARN - 1.0) * f64::from(from) * 2.0;
            if f64::from(to - from) > needed.ceil().max(1.0) {
                return Err(format!("{} gets {from} → {to}, for a peak of {peak}", action.target.component));
            }
        }
        // Where a pool is one node, what is free can be followed from one action to the next.
        for (pool, nodes) in moment.capacity.pools.iter().filter(|(_, nodes)| nodes.len() == 1) {
            let mut free = cores(&nodes[0].allocatable) - cores(&nodes[0].used) - self.promised(moment, pool);
            let mut taken: Vec<f64> = Vec::new();
            for action in actions.iter().filter(|action| action.undoes.is_none()) {
                let Change::Replicas { from, to } = action.change else { continue };
                let Some(workload) = moment.workload(&action.target.component) else { continue };
                if workload.pool != *pool || !free.is_finite() {
                    continue;
                }
                let cpu = cores(&workload.per_replica);
                if action.kind == ActionKind::Evict {
                    free += cpu * f64::from(from - to);
                    taken.push(cpu);
                    continue;
                }
                let needed = cpu * f64::from(to - from);
                if let Some(less) = taken.drain(..).find(|less| free - less >= needed + 1e-6) {
                    return Err(format!(
                        "{less} cores less would have been enough for {}: {free} for {needed}",
                        action.id
                    ));
                }
                free -= needed;
            }
        }
        Ok(())
    }

    /// Cores of a pool that were promised just now and that what runs does not show yet.
    fn promised(&self, moment: &Moment<'_>, pool: &str) -> f64 {
        let missing = |deed: &Deed| {
            let shows = deed.outcome.is_some() && !(deed.in_force() && moment.now - deed.settled_at < SHOWS_AFTER);
            let workload = moment.workload(&deed.action.target.component).filter(|workload| workload.pool == *pool)?;
            let Change::Replicas { to, .. } = deed.action.change else { return None };
            (deed.is_main() && !shows)
                .then(|| f64::from(to.saturating_sub(workload.replicas)) * cores(&workload.per_replica))
        };
        self.deeds.values().filter_map(missing).sum()
    }

    /// What we did and what nobody needs any more is given back in the end.
    pub(crate) fn inv_given_back_when_reason_is_gone(&self) -> Held {
        match self.outstanding().next() {
            None => Ok(()),
            Some(action) => {
                Err(format!("{} ({:?} of {}) was never given back", action.id, action.change, action.target.component))
            }
        }
    }

    /// A lock that expired in the middle of an action (kube-hetzner#1182): every intent has an outcome in the end.
    pub(crate) fn inv_every_intent_has_an_outcome(&self) -> Held {
        self.under_way().next().map_or(Ok(()), |action| Err(format!("nobody ever learned what came of {}", action.id)))
    }
}

/// Duplicates to a webhook (alertmanager#3551): an id has one effect at most, also on a target that does not know an action
/// again.
pub(crate) fn inv_no_action_id_has_two_effects(effects: &[Effect], calls: &[Call]) -> Held {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for effect in effects {
        if !calls.iter().any(|call| call.action.id == effect.action_id) {
            return Err(format!("{effect:?} was never asked for"));
        }
        if !seen.insert(&effect.action_id) {
            return Err(format!("{} had two effects on {}: {:?}", effect.action_id, effect.component, effect.change));
        }
    }
    Ok(())
}
