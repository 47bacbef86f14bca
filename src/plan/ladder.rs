//! The ladder: the first rung that helps, is worth it, is fast enough, and for which there is room.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{Candidate, Planner, action_id, finite, target};
use super::evict::{Claim, MayTake, Taken, Victim};
use super::explore;
use super::gates::Refusal;
use super::ledger::PastAction;
use super::room::{Demand, Room, Site};
use super::size;
use super::words::{count, figure, percent, span};
use super::{Action, ActionKind, Change, Constraints, Policy, Reason, Resources, Rung, Why, Workload};
use crate::health::{EXTERNAL_RULE, ScalesWith, Standing, predictions_among};
use crate::model::Millis;

/// What is going to be done for one component.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) rung: usize,
    change: Change,
    undo: Option<Change>,
    /// How the size was reckoned, in words.
    pub(super) arithmetic: String,
    /// What it takes from the room.
    pub(super) placed: Vec<(Site, Demand)>,
    /// What gives way on the first of those sites.
    pub(super) taken: Vec<Taken>,
    /// What those who give way are reckoned to lose by it, in the unit of expected losses.
    harm: f64,
    /// Nodes on which nothing more is placed.
    pub(super) closes: Vec<String>,
}

/// A change before it is known whether there is room for it.
struct Shape {
    change: Change,
    undo: Option<Change>,
    arithmetic: String,
    placed: Vec<(Site, Demand)>,
    closes: Vec<String>,
}

impl<'a> Planner<'a> {
    /// The first rung that fits, or one that is drawn of those that do; else the most telling reason, with what stood
    /// against each rung.
    pub(super) fn choose(&self, candidate: &Candidate<'a>) -> Result<Choice, Refusal> {
        let policy = self.policy(candidate);
        let (mut fitting, mut refusals): (Vec<Choice>, Vec<Refusal>) = (Vec::new(), Vec::new());
        for (index, rung) in policy.ladder.iter().enumerate() {
            match self.try_rung(candidate, index, rung) {
                Ok(choice) if !policy.explore => return Ok(choice),
                Ok(choice) => fitting.push(choice),
                Err(refusal) => refusals.push(refusal.of(rung.action)),
            }
        }
        if !fitting.is_empty() {
            return Ok(self.draw(candidate, fitting));
        }
        let telling = |refusal: &Refusal| match refusal.reason {
            Reason::InsufficientCapacity => 0,
            Reason::Priority => 1,
            Reason::Pdb => 2,
            Reason::Budget => 3,
            Reason::TooLate => 4,
            Reason::Latched => 5,
            _ => 6,
        };
        let Some(chosen) = refusals.iter().min_by_key(|refusal| telling(refusal)) else {
            return Err(Refusal::new(Reason::NotWorthIt, "the policy's ladder has no rung", "a rung is added"));
        };
        let details: Vec<String> = refusals
            .iter()
            .map(|refusal| format!("{}: {}", refusal.action.map_or("", name_of), refusal.detail))
            .collect();
        Err(Refusal { detail: details.join("; "), ..chosen.clone() })
    }

    /// One of the rungs that fit: the one of which the most is to be hoped in a draw of what it may achieve, less what
    /// it takes from others. What a person has been offered stays.
    fn draw(&self, candidate: &Candidate<'_>, mut fitting: Vec<Choice>) -> Choice {
        let policy = self.policy(candidate);
        let offered = self.plan.carry.waiting.get(candidate.key).and_then(|actions| actions.last());
        let offered = offered.and_then(|offered| fitting.iter().position(|choice| choice.rung == offered.rung));
        if let Some(offered) = offered {
            return fitting.swap_remove(offered);
        }
        if fitting.len() == 1 {
            return fitting.swap_remove(0);
        }
        let mut draws = explore::Draws::new(&policy.name, candidate.key, self.now);
        let loss = finite(candidate.assessment.expected_loss).max(0.0);
        let (mut best, mut words) = ((f64::NEG_INFINITY, f64::NEG_INFINITY, 0), Vec::new());
        for (index, choice) in fitting.iter().enumerate() {
            let kind = policy.ladder[choice.rung].action;
            let (a, b) = self.experience.posterior(kind, policy.efficacy);
            let drawn = draws.beta(a, b);
            words.push(format!("{} {} (Beta {}, {})", name_of(kind), figure(drawn), figure(a), figure(b)));
            let hoped = (drawn * loss - choice.harm, drawn);
            if hoped > (best.0, best.1) {
                best = (hoped.0, hoped.1, index);
            }
        }
        let mut choice = fitting.swap_remove(best.2);
        let taken = name_of(policy.ladder[choice.rung].action);
        choice.arithmetic += &format!("; {taken} was drawn, to learn what works: {}", words.join(", "));
        choice
    }

    fn try_rung(&self, candidate: &Candidate<'a>, index: usize, rung: &Rung) -> Result<Choice, Refusal> {
        let policy = self.policy(candidate);
        // The last rung may be tried once more: the latch stops it after that.
        let is_last = index + 1 == policy.ladder.len();
        let mut ineffective = self.past.ineffective(candidate.key, self.latch_since(candidate.key));
        let had_no_effect = ineffective.find(|past| past.action.kind == rung.action && past.action.rung == index);
        // What is still under way is not sent again, whatever comes of it.
        let may_be_tried_once_more = |past: &&PastAction| is_last && !past.is_under_way(self.now);
        if let Some(past) = had_no_effect.filter(|past| !may_be_tried_once_more(past)) {
            let ago = span(self.now - past.action.decided_at);
            let when = "24 h have passed, or a person releases the latch";
            return Err(Refusal::new(Reason::Latched, format!("it had no effect {ago} ago"), when));
        }
        let efficacy = self.experience.efficacy(rung.action, policy.efficacy);
        self.worth(candidate, policy, efficacy)?;
        let needed = self.time_of(rung, rung.action);
        self.check_time(candidate, needed, "it takes")?;
        self.check_budgets(candidate.policy, |budget| usize::from(budget.counts(rung.action)))?;
        let mut shape = self.shape(candidate, rung)?;
        self.keep_offer(candidate, index, &mut shape);
        let (taken, harm) = match shape.placed.first() {
            Some((site, demand)) if shape.placed.len() == 1 => {
                self.find_room(candidate, rung, site, demand, efficacy)?
            }
            _ => (Vec::new(), 0.0),
        };
        if !taken.is_empty() {
            self.check_time(candidate, needed + self.time_of(rung, ActionKind::Evict), "with making room it takes")?;
        }
        let Shape { change, undo, mut arithmetic, placed, closes } = shape;
        arithmetic += &self.preferring(policy, &placed);
        Ok(Choice { rung: index, change, undo, arithmetic, placed, taken, harm, closes })
    }

    /// How much of what is placed fits on the nodes that the policy prefers, in words.
    fn preferring(&self, policy: &Policy, placed: &[(Site, Demand)]) -> String {
        let [(site, Demand::Anywhere { pieces, size })] = placed else { return String::new() };
        if policy.constraints.node_preferred.is_empty() {
            return String::new();
        }
        let fitting = self.room.fitting_preferred(site, size).min((*pieces).into());
        format!("; {fitting} of {} on nodes that the policy prefers", count((*pieces).into(), "replica"))
    }

    /// The 0.9 quantile of how long the rung's actuator takes for a kind of action: measured, or else as declared.
    pub(super) fn time_of(&self, rung: &Rung, kind: ActionKind) -> Millis {
        self.times.p90(&rung.actuator, kind).unwrap_or(rung.actuation_time)
    }

    fn check_time(&self, candidate: &Candidate<'_>, needed: Millis, what: &str) -> Result<(), Refusal> {
        let assessment = candidate.assessment;
        if assessment.standing == Standing::Failing {
            let detail = format!("it is failing now, and {what} up to {}", span(needed));
            return Err(Refusal::new(Reason::TooLate, detail, "it is no longer in breach"));
        }
        // An earliest time that lies beyond the horizon is at least the horizon away.
        let eta = assessment.eta.q10.unwrap_or(assessment.horizon);
        if eta > needed {
            return Ok(());
        }
        let detail = format!("the breach may begin in {}, and {what} up to {}", span(eta), span(needed));
        Err(Refusal::new(Reason::TooLate, detail, "a faster rung is added, or the breach is seen earlier"))
    }

    fn shape(&self, candidate: &Candidate<'a>, rung: &Rung) -> Result<Shape, Refusal> {
        let workload = self.workloads.get(candidate.key).copied();
        if workload.is_none() && rung.resizes() {
            let detail = "the capacity does not know how many replicas it has nor where it runs";
            let when = "a pool reports its workload";
            return Err(Refusal::new(Reason::InsufficientCapacity, detail, when));
        }
        match (rung.action, workload) {
            (ActionKind::ScaleOut, Some(workload)) => self.scale_out(candidate, rung, workload),
            (ActionKind::ScaleUp, Some(workload)) => self.scale_up(candidate, rung, workload),
            (ActionKind::ShiftLoad, _) => self.shift_load(candidate),
            (ActionKind::Migrate, Some(workload)) => self.migrate(candidate, workload),
            (ActionKind::Migrate, None) => self.drain(candidate),
            (ActionKind::Quarantine, _) => {
                let name = target(&candidate.assessment.component, Some(candidate.assessment)).name;
                let arithmetic = format!("nothing new goes to {name}");
                Ok(Shape { undo: Some(Change::Uncordon), closes: vec![name], ..shape(Change::Cordon, arithmetic) })
            }
            (ActionKind::Evict | ActionKind::ScaleOut | ActionKind::ScaleUp, _) => {
                let detail = "taking from a component does not help it";
                Err(Refusal::new(Reason::NotWorthIt, detail, "the rung is another action"))
            }
        }
    }

    fn scale_out(&self, candidate: &Candidate<'_>, rung: &Rung, workload: &Workload) -> Result<Shape, Refusal> {
        let policy = self.policy(candidate);
        let need = size::largest_need(candidate.assessment, policy, &[ScalesWith::Replicas]);
        let need = need.ok_or_else(|| helps_nothing("scales with replicas"))?;
        let from = workload.replicas;
        let proportion = self.experience.proportion(ActionKind::ScaleOut);
        let Some(sized) = size::replicas(rung, &need, from, proportion) else {
            let detail = format!("it has {} already, the most that the rung allows", count(from.into(), "replica"));
            return Err(Refusal::new(Reason::InsufficientCapacity, detail, "max_replicas of the rung is raised"));
        };
        let change = Change::Replicas { from, to: sized.to };
        let placed = self.demand(&change, workload, &policy.constraints)?.into_iter().collect();
        let undo = Some(Change::Replicas { from: sized.to, to: from });
        Ok(Shape { undo, placed, ..shape(change, format!("{} replicas", sized.arithmetic)) })
    }

    fn scale_up(&self, candidate: &Candidate<'_>, rung: &Rung, workload: &Workload) -> Result<Shape, Refusal> {
        let policy = self.policy(candidate);
        let proportion = self.experience.proportion(ActionKind::ScaleUp);
        let (mut from, mut to) = (Resources::new(), Resources::new());
        let (mut words, mut helps) = (Vec::new(), false);
        for with in [ScalesWith::Cpu, ScalesWith::Memory, ScalesWith::Disk] {
            let name = size::resource_of(with).unwrap_or_default();
            if !rung.resources.iter().any(|resource| resource == name) {
                continue;
            }
            let Some(need) = size::largest_need(candidate.assessment, policy, &[with]) else { continue };
            helps = true;
            let has = workload.per_replica.get(name).copied().unwrap_or(0.0);
            if let Some(sized) = size::resource(rung, &need, name, has, proportion) {
                from.insert(name.to_owned(), has);
                to.insert(name.to_owned(), sized.to);
                words.push(sized.arithmetic);
            }
        }
        if !helps {
            return Err(helps_nothing("scales with the rung's resources"));
        }
        if to.is_empty() {
            let detail = format!("each replica has as much as the rung allows (factor {})", figure(rung.factor_max));
            return Err(Refusal::new(Reason::InsufficientCapacity, detail, "factor_max of the rung is raised"));
        }
        let undo = Some(Change::Resources { from: to.clone(), to: from.clone() });
        let change = Change::Resources { from, to };
        let placed = self.demand(&change, workload, &policy.constraints)?.into_iter().collect();
        Ok(Shape { undo, placed, ..shape(change, format!("{} for each replica", words.join("; "))) })
    }

    fn shift_load(&self, candidate: &Candidate<'_>) -> Result<Shape, Refusal> {
        let need = size::largest_need(candidate.assessment, self.policy(candidate), &[]);
        let need = need.ok_or_else(|| helps_nothing("is known"))?;
        let size::Sized { to, mut arithmetic } = size::shift(&need, self.experience.proportion(ActionKind::ShiftLoad));
        // What is measured is what stays with it: the share is one of that.
        let away = self.share_away(candidate.key);
        let share = size::shift_on_top(away, to);
        if share <= away {
            let detail = format!("{} of its traffic goes elsewhere already, and more is not shifted", percent(away));
            return Err(Refusal::new(Reason::NotWorthIt, detail, "what was shifted is given back"));
        }
        if away > 0.0 {
            arithmetic += &format!(" that {} elsewhere leaves it, {} in all", percent(away), percent(share));
        }
        Ok(Shape { undo: Some(Change::Shift { share: away }), ..shape(Change::Shift { share }, arithmetic) })
    }

    /// The share of a component's traffic that goes elsewhere by what we did last.
    fn share_away(&self, key: &str) -> f64 {
        let stands = |past: &&&PastAction| past.is_act() && (past.is_in_force() || past.is_under_way(self.now));
        let shares = self.past.on(key).iter().filter(stands).filter_map(|past| match past.action.change {
            Change::Shift { share } if past.action.undoes.is_none() => Some((past.action.decided_at, share)),
            _ => None,
        });
        shares.max_by_key(|(at, _)| *at).map_or(0.0, |(_, share)| share)
    }

    /// Away from its nodes at risk, or from the fullest where none is.
    fn migrate(&self, candidate: &Candidate<'_>, workload: &Workload) -> Result<Shape, Refusal> {
        let constraints = &self.policy(candidate).constraints;
        check_available(workload, constraints)?;
        let mut from_nodes = self.room.at_risk_among(&workload.pool, &workload.on_nodes);
        if from_nodes.is_empty() {
            from_nodes.extend(self.room.fullest_among(&workload.pool, &workload.on_nodes));
        }
        let placed = self.moved(workload, &from_nodes, constraints, &self.room)?.into_iter().collect();
        let arithmetic = if from_nodes.is_empty() {
            "it starts again elsewhere".to_owned()
        } else {
            format!("away from {}", from_nodes.join(", "))
        };
        Ok(Shape { placed, ..shape(Change::Move { from_nodes }, arithmetic) })
    }

    /// A node's guests go elsewhere; what the capacity does not know starts again wherever it may.
    fn drain(&self, candidate: &Candidate<'_>) -> Result<Shape, Refusal> {
        let assessment = candidate.assessment;
        if assessment.component.kind != "node" {
            let arithmetic = "it starts again elsewhere; the capacity does not know where it runs".to_owned();
            return Ok(shape(Change::Move { from_nodes: Vec::new() }, arithmetic));
        }
        let name = target(&assessment.component, Some(assessment)).name;
        let from_nodes = vec![name.clone()];
        let constraints = &self.policy(candidate).constraints;
        // Guests differ in size, so they are placed one after the other in a copy of the room.
        let mut room = self.room.clone();
        let mut placed = Vec::new();
        for guest in self.workloads.values().filter(|workload| workload.on_nodes.contains_key(&name)) {
            let Some((site, demand)) = self.moved(guest, &from_nodes, constraints, &room)? else { continue };
            let (fitting, of) = room.fitting(&site, &demand);
            if fitting < of {
                let detail = format!("{} has to leave: {}", guest.component, room.gap(&site, &demand));
                return Err(Refusal::new(Reason::InsufficientCapacity, detail, "there is room elsewhere"));
            }
            room.reserve(&site, &demand);
            placed.push((site, demand));
        }
        let arithmetic = format!("{} on {name} have room elsewhere", count(placed.len() as u64, "workload"));
        Ok(Shape { placed, closes: from_nodes.clone(), ..shape(Change::Move { from_nodes }, arithmetic) })
    }

    /// The room that a workload's replicas on some nodes take elsewhere.
    fn moved(
        &self,
        workload: &Workload,
        from_nodes: &[String],
        constraints: &Constraints,
        room: &Room,
    ) -> Result<Option<(Site, Demand)>, Refusal> {
        let pieces = from_nodes.iter().filter_map(|node| workload.on_nodes.get(node)).sum();
        if workload.pool.is_empty() || pieces == 0 {
            return Ok(None);
        }
        let site = room.site(&workload.pool, constraints, from_nodes).ok_or_else(|| unknown_pool(&workload.pool))?;
        Ok(Some((site, Demand::Anywhere { pieces, size: room.row(&workload.per_replica) })))
    }

    /// What a change takes from the room; nothing where the workload is in no pool.
    pub(super) fn demand(
        &self,
        change: &Change,
        workload: &Workload,
        constraints: &Constraints,
    ) -> Result<Option<(Site, Demand)>, Refusal> {
        if workload.pool.is_empty() {
            return Ok(None);
        }
        let site = self.room.site(&workload.pool, constraints, &[]).ok_or_else(|| unknown_pool(&workload.pool))?;
        let demand = match change {
            Change::Replicas { from, to } => {
                Demand::Anywhere { pieces: to.saturating_sub(*from), size: self.room.row(&workload.per_replica) }
            }
            Change::Resources { from, to } => {
                let more: Resources =
                    to.iter().map(|(name, to)| (name.clone(), to - from.get(name).copied().unwrap_or(0.0))).collect();
                self.in_place(&site, workload, &self.room.row(&more))
            }
            _ => return Ok(None),
        };
        Ok(Some((site, demand)))
    }

    /// More for each replica where it runs; anywhere where that is not known.
    fn in_place(&self, site: &Site, workload: &Workload, more: &[f64]) -> Demand {
        let known: Option<Vec<(usize, u32)>> = workload
            .on_nodes
            .iter()
            .map(|(name, replicas)| Some((site.node_index(&self.room, name)?, *replicas)))
            .collect();
        match known.filter(|nodes| !nodes.is_empty()) {
            Some(nodes) => {
                let times = |replicas: u32| more.iter().map(|amount| amount * f64::from(replicas)).collect();
                Demand::OnNodes(nodes.into_iter().map(|(node, replicas)| (node, times(replicas))).collect())
            }
            None => Demand::Anywhere { pieces: workload.replicas, size: more.to_vec() },
        }
    }

    /// What a person has been offered stays as it was, so that they approve what they saw, while it starts from the same
    /// state.
    fn keep_offer(&self, candidate: &Candidate<'_>, rung: usize, shape: &mut Shape) {
        let offered = self.plan.carry.waiting.get(candidate.key).and_then(|actions| actions.last());
        let Some(offered) = offered.filter(|offered| offered.rung == rung) else { return };
        let same_start = match (&offered.change, &shape.change) {
            (Change::Replicas { from: a, .. }, Change::Replicas { from: b, .. }) => a == b,
            (Change::Resources { from: a, to }, Change::Resources { from: b, .. }) => a == b && to.keys().eq(b.keys()),
            (Change::Shift { .. }, Change::Shift { .. }) => true,
            _ => false,
        };
        if !same_start || offered.change == shape.change {
            return;
        }
        let workload = self.workloads.get(candidate.key);
        let policy = self.policy(candidate);
        let placed = workload.map(|w| self.demand(&offered.change, w, &policy.constraints));
        let Ok(placed) = placed.transpose() else { return };
        shape.placed = placed.flatten().into_iter().collect();
        shape.change = offered.change.clone();
        shape.undo.clone_from(&offered.undo);
        shape.arithmetic = "as it was offered".to_owned();
    }

    /// The replicas that give way so that a demand fits, and what that costs; none where there is room.
    fn find_room(
        &self,
        candidate: &Candidate<'_>,
        rung: &Rung,
        site: &Site,
        demand: &Demand,
        efficacy: f64,
    ) -> Result<(Vec<Taken>, f64), Refusal> {
        let (fitting, of) = self.room.fitting(site, demand);
        if fitting >= of {
            return Ok((Vec::new(), 0.0));
        }
        let gap = || self.room.gap(site, demand);
        let no_room = |why: String| {
            Refusal::new(
                Reason::InsufficientCapacity,
                format!("{}; {why}", gap()),
                format!("pool {} has room", site.pool()),
            )
        };
        let (policy, assessment) = (self.policy(candidate), candidate.assessment);
        let evict = policy.evict.as_ref().ok_or_else(|| no_room("the policy takes nothing from others".to_owned()))?;
        let impact_is_enough = assessment.impact >= evict.min_impact;
        if !impact_is_enough {
            let (impact, min) = (figure(assessment.impact), figure(evict.min_impact));
            return Err(no_room(format!("its impact {impact} is below {min}, from which others give way")));
        }
        let own = self.workloads.get(candidate.key).map_or(i64::MIN, |workload| workload.priority);
        let below = evict.below_priority.min(own);
        let loss = finite(assessment.expected_loss);
        let claim = Claim { key: candidate.key, below, loss, may_take: MayTake::DownToMinimum };
        let Some(taken) = self.victims.make_room(&self.room, site, demand, &claim) else {
            if !self.victims.others_could_shrink(site.pool(), &claim) {
                return Err(no_room("what may shrink is not enough to make room".to_owned()));
            }
            let lower = format!("of a priority below {below} with an expected loss below {}", figure(claim.loss));
            let detail = format!("{}; what could give way {lower} is not enough", gap());
            let when = format!("pool {} has room, or more work of lower priority runs there", site.pool());
            return Err(Refusal::new(Reason::Priority, detail, when));
        };
        let (taken, harm) = match self.check_harm(loss, taken, efficacy) {
            Ok(found) => found,
            // Others, of a higher priority though still a lower one than its own, may be able to spare something.
            Err(refusal) => {
                let claim = Claim { may_take: MayTake::Spare, ..claim };
                let spare = self.victims.make_room(&self.room, site, demand, &claim);
                spare.and_then(|taken| self.check_harm(loss, taken, efficacy).ok()).ok_or(refusal)?
            }
        };
        let victims = taken.iter().map(|one| one.victim).collect::<BTreeSet<_>>().len();
        self.check_budgets(candidate.policy, |budget| {
            usize::from(budget.counts(rung.action)) + victims * usize::from(budget.counts(ActionKind::Evict))
        })?;
        Ok((taken, harm))
    }

    /// What is taken and what it costs, if that is less than what it saves.
    fn check_harm(&self, loss: f64, taken: Vec<Taken>, efficacy: f64) -> Result<(Vec<Taken>, f64), Refusal> {
        let (mut harm, mut losses) = (0.0, 0.0);
        for (victim, replicas) in by_victim(&taken) {
            let victim = &self.victims.all[victim];
            harm += victim.harm(replicas);
            losses += victim.loss;
        }
        if harm < efficacy * loss && losses < loss {
            return Ok((taken, harm));
        }
        let detail = format!(
            "what would have to give way is worth as much: it would lose {} (and expects to lose {}), and this saves {} × {} = {}",
            figure(harm),
            figure(losses),
            figure(efficacy),
            figure(loss),
            figure(efficacy * loss)
        );
        Err(Refusal::new(Reason::Priority, detail, "less has to give way, or the expected loss grows"))
    }

    /// The actions of a choice: what makes room first.
    pub(super) fn actions(&self, candidate: &Candidate<'_>, choice: &Choice) -> Vec<Action> {
        let (policy, assessment) = (self.policy(candidate), candidate.assessment);
        let rung = &policy.ladder[choice.rung];
        let why = self.why(candidate, &choice.arithmetic);
        let main = Action {
            id: action_id(&policy.name, &assessment.component, rung.action, self.now, None),
            policy: policy.name.clone(),
            rung: choice.rung,
            kind: rung.action,
            actuator: rung.actuator.clone(),
            target: target(&assessment.component, Some(assessment)),
            change: choice.change.clone(),
            why,
            decided_at: self.now,
            expires_at: choice.undo.as_ref().map(|_| self.now + policy.expires_after),
            undo: choice.undo.clone(),
            undoes: None,
            makes_room_for: None,
            dry_run: false,
        };
        let gap = choice.placed.first().map_or(String::new(), |(site, demand)| self.room.gap(site, demand));
        let mut actions: Vec<Action> = by_victim(&choice.taken)
            .into_iter()
            .map(|(victim, replicas)| {
                let taken: Vec<Taken> = choice.taken.iter().copied().filter(|one| one.victim == victim).collect();
                let frees = self.room.say(&self.victims.all[victim].size_of(replicas));
                let why = format!("that frees {frees} on {}: {gap}", self.nodes_of(&taken));
                self.eviction(&main, policy, &self.victims.all[victim], replicas, &why)
            })
            .collect();
        actions.push(main);
        actions
    }

    /// The nodes on which something is taken, in words: what a person looks at who wonders which replicas went.
    fn nodes_of(&self, taken: &[Taken]) -> String {
        let pool = taken.first().and_then(|one| self.room.pool(&self.victims.all[one.victim].workload.pool));
        let names: BTreeSet<&str> =
            taken.iter().filter_map(|one| Some(pool?.nodes.get(one.node)?.name.as_str())).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }

    fn eviction(&self, main: &Action, policy: &Policy, victim: &Victim<'_>, replicas: u32, why: &str) -> Action {
        let (component, from) = (&victim.workload.component, victim.workload.replicas);
        let to = from.saturating_sub(replicas);
        let sentence = format!(
            "{} of {component} (priority {}, expected loss {}) to make room for {} (expected loss {}); {why}",
            count(replicas.into(), "replica"),
            victim.workload.priority,
            figure(victim.loss),
            main.target.component,
            figure(main.why.expected_loss)
        );
        Action {
            id: action_id(&policy.name, component, ActionKind::Evict, self.now, None),
            kind: ActionKind::Evict,
            target: target(component, self.assessed.get(victim.key).copied()),
            change: Change::Replicas { from, to },
            undo: Some(Change::Replicas { from: to, to: from }),
            expires_at: Some(self.now + policy.expires_after),
            why: Why { sentence, peak: None, predictions: Vec::new(), ..main.why.clone() },
            makes_room_for: Some(main.id.clone()),
            ..main.clone()
        }
    }

    fn why(&self, candidate: &Candidate<'_>, arithmetic: &str) -> Why {
        let assessment = candidate.assessment;
        let probability = candidate.probability.unwrap_or(0.0);
        let loudest = size::loudest(assessment);
        let signal = loudest.map_or(String::new(), |signal| format!("{}/{}", signal.rule, signal.signal));
        let limit = loudest.and_then(|signal| signal.foresight.limit);
        let threshold = limit.map_or(String::new(), |limit| format!(" {}", figure(limit.threshold)));
        let earliest = assessment.eta.q10.map_or(String::new(), |eta| format!(", at the earliest in {}", span(eta)));
        let said = match loudest.filter(|signal| signal.rule == EXTERNAL_RULE) {
            Some(told) => format!("prediction {} says that it fails", told.signal),
            None => format!("{signal} is likely to cross{threshold}"),
        };
        let sentence = format!(
            "{said} within {}: P {} (at least {}){earliest}; {arithmetic}",
            span(assessment.horizon),
            percent(probability),
            percent(candidate.probability_low())
        );
        Why {
            probability,
            eta: assessment.eta.q10,
            expected_loss: assessment.expected_loss,
            signal,
            peak: loudest.and_then(size::peak),
            sentence,
            predictions: predictions_among(&assessment.signals),
        }
    }
}

fn shape(change: Change, arithmetic: String) -> Shape {
    Shape { change, undo: None, arithmetic, placed: Vec::new(), closes: Vec::new() }
}

fn by_victim(taken: &[Taken]) -> BTreeMap<usize, u32> {
    let mut replicas = BTreeMap::new();
    for one in taken {
        *replicas.entry(one.victim).or_default() += 1;
    }
    replicas
}

/// What a change still misses of its end state, by what the capacity shows.
pub(super) fn missing(change: &Change, workload: &Workload) -> Option<Change> {
    match change {
        Change::Replicas { to, .. } if workload.replicas < *to => {
            Some(Change::Replicas { from: workload.replicas, to: *to })
        }
        Change::Resources { to, .. } => {
            let has = |name: &str| workload.per_replica.get(name).copied().unwrap_or(0.0);
            let short: Resources =
                to.iter().filter(|(name, to)| has(name) < **to).map(|(n, to)| (n.clone(), *to)).collect();
            let from = short.keys().map(|name| (name.clone(), has(name))).collect();
            (!short.is_empty()).then_some(Change::Resources { from, to: short })
        }
        _ => None,
    }
}

/// One replica at a time may be away: that many must be enough without it.
fn check_available(workload: &Workload, constraints: &Constraints) -> Result<(), Refusal> {
    let must_stay = (constraints.min_available * f64::from(workload.replicas) - 1e-9).ceil();
    if f64::from(workload.replicas.saturating_sub(1)) >= must_stay {
        return Ok(());
    }
    let detail = format!(
        "{} of its {} must stay available ({}), so none can move",
        figure(must_stay),
        count(workload.replicas.into(), "replica"),
        percent(constraints.min_available)
    );
    Err(Refusal::new(Reason::Pdb, detail, "it has more replicas, or min_available is lower"))
}

fn helps_nothing(what: &str) -> Refusal {
    let detail = format!("no signal at risk {what}, so it would not help");
    Refusal::new(Reason::NotWorthIt, detail, "a signal says with scales_with that it helps")
}

fn unknown_pool(pool: &str) -> Refusal {
    let detail = format!("pool {pool} reports no capacity, and what is not known is not given");
    Refusal::new(Reason::InsufficientCapacity, detail, format!("pool {pool} reports its nodes"))
}

/// An action as policies and journals write it.
pub(super) fn name_of(kind: ActionKind) -> &'static str {
    match kind {
        ActionKind::ScaleOut => "scale_out",
        ActionKind::ScaleUp => "scale_up",
        ActionKind::Migrate => "migrate",
        ActionKind::ShiftLoad => "shift_load",
        ActionKind::Quarantine => "quarantine",
        ActionKind::Evict => "evict",
    }
}
