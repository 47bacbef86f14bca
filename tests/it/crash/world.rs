//! What is acted on: workloads that need more at some times than at others, and three targets that carry actions out.
//!
//! Everything about it follows from a seed and from what was sent, so that its state at any earlier moment can be had
//! again from the marks on the tape.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forestall::act::{Acceptance, ActError, Actuator, Confirmation, Patience};
use forestall::forecast::{Eta, Foresight, Knowledge, Limit, Side};
use forestall::health::{Assessment, ScalesWith, SignalAssessment, Standing};
use forestall::model::{ComponentId, Labels, Millis, Timestamp};
use forestall::plan::{
    Action, ActionKind, Budget, Capacity, Carry, Change, EvictPolicy, Gates, Ledger, Mode, Node, PlanInput, Policy,
    Rung, Selector, Verify, Workload,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::chance::Chance;
use super::disk::{Event, Mark};
use super::vfs::Tape;

/// A Monday, 08:00 UTC.
pub(super) const START: Timestamp = Timestamp::from_secs(1_772_438_400);
/// The time between two passes.
pub(super) const INTERVAL: Millis = Millis(5 * Millis::MINUTE.0);
/// One action per component in this time.
pub(super) const COOLDOWN: Millis = Millis(10 * Millis::MINUTE.0);
/// What a policy may do in an hour.
pub(super) const BUDGET: u32 = 3;

/// The targets and what they can do.
const TARGETS: [(&str, Manners); 3] = [
    // Knows what it did, and does it once.
    ("cluster", Manners { can_be_asked: true, attempts_max: 3 }),
    // Does the same thing once, and tells nothing.
    ("hook", Manners { can_be_asked: false, attempts_max: 4 }),
    // Does what it is told as often as it is told, and tells nothing: it may be told once at most.
    ("pager", Manners { can_be_asked: false, attempts_max: 4 }),
];

/// How a target must be dealt with.
#[derive(Debug, Clone, Copy)]
struct Manners {
    can_be_asked: bool,
    attempts_max: u32,
}

/// Name, policy, replicas at first, the fewest, priority, impact.
const WORKLOADS: [(&str, &str, u32, u32, i64, f64); 6] = [
    ("deployment/api", "shop", 3, 2, 1000, 0.6),
    ("deployment/batch", "shop", 6, 2, 10, 0.1),
    ("deployment/front", "shop", 3, 2, 2000, 0.9),
    ("queue/jobs", "queues", 2, 1, 100, 0.5),
    ("queue/mail", "queues", 2, 1, 100, 0.4),
    ("service/search", "services", 4, 1, 100, 0.7),
];

/// Whether a target does a thing again when it is told again.
pub(super) fn is_at_most_once(actuator: &str) -> bool {
    actuator == "pager"
}

/// What needs more, and how reliable the targets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// Loads rise and fall; targets fail, and answers are lost.
    Rough,
    /// Nothing is at risk, and targets do what they are told.
    Calm,
}

/// The workloads and the targets. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct World {
    seed: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    replicas: BTreeMap<String, u32>,
    /// What was done, by the id of the action, with the time from which it shows.
    done: BTreeMap<String, Timestamp>,
    /// Ids in the order in which their requests arrived or were lost, each attempt once.
    sent: Vec<(Arc<Action>, Timestamp)>,
    weather: Weather,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let replicas = WORKLOADS.iter().map(|(name, _, replicas, ..)| ((*name).to_owned(), *replicas)).collect();
        let (done, sent, weather) = (BTreeMap::new(), Vec::new(), Weather::Rough);
        World { seed, state: Arc::new(Mutex::new(State { replicas, done, sent, weather })) }
    }

    /// The world as it was after these events.
    pub(super) fn after<'a>(seed: u64, events: impl Iterator<Item = &'a Event>) -> World {
        let world = World::new(seed);
        for event in events {
            match event {
                Event::Mark(Mark::Send { action, at, arrived }) => _ = world.receive(action, *at, *arrived),
                Event::Mark(Mark::Person { component, replicas }) => world.set(component, *replicas),
                Event::Mark(Mark::Weather(weather)) => world.set_weather(*weather),
                _ => {}
            }
        }
        world
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Somebody else sets a workload's replicas.
    pub(super) fn set(&self, component: &str, replicas: u32) {
        self.state().replicas.insert(component.to_owned(), replicas);
    }

    pub(super) fn replicas(&self, component: &str) -> u32 {
        self.state().replicas[component]
    }

    /// Every attempt so far, with its time.
    pub(super) fn sent(&self) -> Vec<(Arc<Action>, Timestamp)> {
        self.state().sent.clone()
    }

    /// The actions that had an effect.
    pub(super) fn done(&self) -> BTreeSet<String> {
        self.state().done.keys().cloned().collect()
    }

    /// A request; whether it changed anything.
    fn receive(&self, action: &Arc<Action>, at: Timestamp, arrived: bool) -> bool {
        let mut state = self.state();
        state.sent.push((Arc::clone(action), at));
        if !arrived || (state.done.contains_key(&action.id) && !is_at_most_once(&action.actuator)) {
            return false;
        }
        let shows_after = if state.weather == Weather::Calm { 0 } else { self.chance("delay", &action.id, 0).below(8) };
        let shows_at = at + Millis::MINUTE * i64::try_from(shows_after).expect("minutes");
        state.done.insert(action.id.clone(), shows_at);
        let Change::Replicas { to, .. } = action.change else { return true };
        let before = state.replicas.insert(action.target.component.to_string(), to);
        before != Some(to)
    }

    fn chance(&self, what: &str, id: &str, number: u32) -> Chance {
        Chance::of(&[&self.seed, &what, &id, &number])
    }

    /// How many times what it has a workload needs at a time: below 0.75 it is well, above 0.9 it fails.
    fn peak(&self, state: &State, name: &str, at: Timestamp) -> f64 {
        let (_, _, normal, ..) = *WORKLOADS.iter().find(|(known, ..)| *known == name).expect("it is known");
        let spell = (at - START).0.div_euclid(Millis::MINUTE.0 * 20);
        let hot = state.weather == Weather::Rough && Chance::of(&[&self.seed, &"load", &name, &spell]).below(5) < 2;
        let load = f64::from(normal)
            * match name {
                // Needs so little that it can give most of what it has.
                "deployment/batch" => 0.1,
                _ if hot => 1.2,
                _ => 0.5,
            };
        load / f64::from(state.replicas[name].max(1))
    }

    /// What a plan is made from at `now`.
    pub(super) fn input(&self, now: Timestamp, ledger: Ledger, carry: Carry, gates: Gates) -> PlanInput {
        let state = self.state();
        let assess = |(name, _, _, _, _, impact): &(&str, &str, u32, u32, i64, f64)| {
            assessment(name, *impact, self.peak(&state, name, now), now)
        };
        let assessments = WORKLOADS.iter().map(assess).collect();
        let workload = |(name, policy, _, min, priority, _): &(&str, &str, u32, u32, i64, f64)| Workload {
            component: component(name),
            pool: (*policy).to_owned(),
            replicas: state.replicas[*name],
            per_replica: BTreeMap::from([("cpu".to_owned(), 1.0)]),
            priority: *priority,
            replicas_min: *min,
            on_nodes: BTreeMap::new(),
        };
        let workloads: Vec<Workload> = WORKLOADS.iter().map(workload).collect();
        let mut pools = BTreeMap::new();
        // The shop is nearly full while it is busy, so that something must give way there.
        let shop = if state.weather == Weather::Rough { 13.0 } else { 50.0 };
        for (pool, cpu) in [("shop", shop), ("queues", 50.0), ("services", 50.0)] {
            let used = workloads.iter().filter(|w| w.pool == pool).map(|w| f64::from(w.replicas)).sum();
            let cores = |number: f64| BTreeMap::from([("cpu".to_owned(), number)]);
            let name = format!("{pool}-1");
            pools.insert(
                pool.to_owned(),
                vec![Node { name, allocatable: cores(cpu), used: cores(used), labels: BTreeMap::new() }],
            );
        }
        let capacity = Capacity { pools, workloads, ..Capacity::default() };
        PlanInput { now, assessments, capacity, policies: policies(), ledger, carry, gates }
    }

    /// The targets, for an executor.
    pub(super) fn actuators(&self, tape: &Arc<Tape>) -> BTreeMap<String, Arc<dyn Actuator>> {
        let target = |(name, manners): (&str, Manners)| {
            let target = Target { name: name.to_owned(), manners, world: self.clone(), tape: Arc::clone(tape) };
            (name.to_owned(), Arc::new(target) as Arc<dyn Actuator>)
        };
        TARGETS.into_iter().map(target).collect()
    }
}

pub(super) fn component(name: &str) -> ComponentId {
    let (kind, name) = name.split_once('/').expect("a kind and a name");
    ComponentId { kind: kind.to_owned(), labels: vec![(kind.to_owned(), name.to_owned())] }
}

/// Every workload with the replicas it has at first.
pub(super) fn at_first() -> impl Iterator<Item = (&'static str, u32)> {
    WORKLOADS.iter().map(|(name, _, replicas, ..)| (*name, *replicas))
}

pub(super) fn gates(started_at: Timestamp) -> Gates {
    Gates {
        mode: Mode::Act,
        journal_ok: true,
        interval: INTERVAL,
        hold_until: Some(started_at + Millis::MINUTE * 4),
        ..Gates::default()
    }
}

fn assessment(name: &str, impact: f64, peak: f64, now: Timestamp) -> Assessment {
    let component = component(name);
    let p = if peak > 0.9 { 0.9 } else { 0.05 };
    let mut foresight = Foresight::unknown(now, "");
    foresight.knowledge = Knowledge::Known;
    foresight.limit = Some(Limit { threshold: 0.9, warn: Some(0.75) });
    foresight.peak_q90 = Some(peak);
    foresight.probability = Some(p);
    foresight.age = Some(Millis::SECOND * 15);
    Assessment {
        at: now,
        horizon: Millis::HOUR,
        standing: if peak > 0.9 { Standing::AtRisk } else { Standing::Steady },
        health: Some(1.0 - p),
        slope_per_hour: None,
        rapid_decline: false,
        probability: Some(p),
        probability_low: Some(p * 0.9),
        eta: Eta { q10: Some(Millis::MINUTE * 30), q50: Some(Millis::MINUTE * 40) },
        impact,
        expected_loss: p * impact,
        rank: 1,
        signals: vec![SignalAssessment {
            rule: "saturation".to_owned(),
            signal: "cpu".to_owned(),
            group: "saturation".to_owned(),
            weight: 1.0,
            side: Side::Above,
            scales_with: ScalesWith::Replicas,
            severity: 0.5,
            foresight,
            peers: None,
        }],
        labels: Labels::default(),
        target_namespace: String::new(),
        target_name: component.labels[0].1.clone(),
        component,
    }
}

fn policies() -> Vec<Policy> {
    let policy = |(name, kind, actuator): (&str, &str, &str)| Policy {
        name: name.to_owned(),
        selector: Selector { kind: Some(kind.to_owned()), labels: BTreeMap::new() },
        mode: Mode::Act,
        enter_above: 0.6,
        enter_cycles: 1,
        exit_below: 0.2,
        exit_cycles: 2,
        cost_miss: 20.0,
        cost_action: 1.0,
        efficacy: 0.8,
        ladder: vec![Rung { replicas_max: Some(8), ..Rung::new(ActionKind::ScaleOut, actuator) }],
        evict: Some(EvictPolicy { below_priority: 500, min_impact: 0.5 }),
        budgets: vec![Budget { per: Millis::HOUR, actions_max: BUDGET, share_max: 0.0, actions: BTreeSet::new() }],
        cooldown: COOLDOWN,
        expires_after: Millis::MINUTE * 35,
        verify: Some(Verify { after: INTERVAL, probability_drop: 0.3, escalate: true }),
        ..Policy::default()
    };
    [("shop", "deployment", "cluster"), ("queues", "queue", "pager"), ("services", "service", "hook")]
        .map(policy)
        .to_vec()
}

/// One target: counts what it is told, and now and then does not do it, or does not say so.
#[derive(Debug)]
struct Target {
    name: String,
    manners: Manners,
    world: World,
    tape: Arc<Tape>,
}

impl Target {
    fn unanswered(&self, reason: &str) -> ActError {
        ActError::Unanswered { target: self.name.clone(), reason: reason.to_owned(), retry_after: None }
    }

    fn take(&self, action: &Action, attempt: u32, now: Timestamp) -> Result<Acceptance, ActError> {
        let calm = self.world.state().weather == Weather::Calm;
        let luck = if calm { 9 } else { self.world.chance("luck", &action.id, attempt).below(10) };
        let (action, arrived) = (Arc::new(action.clone()), luck > 1);
        let changed = {
            // What is refused has arrived and changes nothing.
            let arrives = arrived && luck != 2;
            self.tape.mark(Mark::Send { action: Arc::clone(&action), at: now, arrived: arrives });
            self.world.receive(&action, now, arrives)
        };
        self.tape.mark(Mark::Reply);
        match luck {
            0 | 1 => Err(self.unanswered("the request was lost")),
            2 => Err(ActError::Refused { target: self.name.clone(), reason: "not now".to_owned() }),
            3 | 4 => Err(self.unanswered("the answer was lost")),
            5 => Ok(Acceptance::Done),
            _ if !changed && attempt == 1 => Ok(Acceptance::Unchanged),
            _ => Ok(Acceptance::Accepted),
        }
    }

    fn tell(&self, id: &str, now: Timestamp) -> Result<Confirmation, ActError> {
        if !self.manners.can_be_asked {
            return Ok(Confirmation::CannotAsk);
        }
        let state = self.world.state();
        Ok(match state.done.get(id) {
            Some(shows_at) if *shows_at <= now => Confirmation::Done,
            Some(_) => Confirmation::Pending,
            None => Confirmation::NeverHeard,
        })
    }
}

impl Actuator for Target {
    fn apply<'a>(
        &'a self,
        action: &'a Action,
        attempt: u32,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Acceptance, ActError>> {
        async move { self.take(action, attempt, now) }.boxed()
    }

    fn confirm<'a>(&'a self, action: &'a Action, now: Timestamp) -> BoxFuture<'a, Result<Confirmation, ActError>> {
        async move { self.tell(&action.id, now) }.boxed()
    }

    fn patience(&self) -> Patience {
        Patience { attempts_max: self.manners.attempts_max, confirm_within: Millis::MINUTE * 10 }
    }

    fn at_most_once(&self) -> bool {
        is_at_most_once(&self.name)
    }
}
