//! How long a plan takes for 10 000 components on 1000 nodes: CPU time of the planning thread, the best and the middle of
//! several rounds. `make bench-plan`; ends with 1 where the middle is over the limit.
//!
//! Each case is planned twice, and the second plan is measured: it has what the first one handed on, and a ledger of
//! 1000 earlier actions.

#![expect(clippy::print_stdout, reason = "a measurement for people: it prints")]

use std::collections::BTreeMap;
use std::process::ExitCode;

use forestall::clock::Clock;
use forestall::forecast::{Eta, Foresight, Knowledge, Limit, Side};
use forestall::health::{Assessment, ScalesWith, SignalAssessment, Standing};
use forestall::model::{ComponentId, Labels, Millis, Timestamp};
use forestall::plan::{
    ActionKind, Budget, Capacity, Carry, EvictPolicy, Gates, Ledger, Mode, Node, Outcome, Plan, PlanInput, Policy,
    Rung, Selector, Workload, plan,
};

const COMPONENTS: usize = 10_000;
const NODES: usize = 1000;
/// The most that a plan may take, in milliseconds of CPU time.
const LIMIT: f64 = 100.0;
const ROUNDS: usize = 15;
const NOW: Timestamp = Timestamp::from_secs(1_772_438_400);

/// What a fleet is made of.
struct Case {
    name: &'static str,
    /// Of a hundred components, so many are at risk: the breaker opens above 40.
    at_risk: usize,
    /// Free cores of each node; its workloads use about 22.
    free: f64,
    /// Whether replicas of lower priority may give way.
    replicas_min: u32,
    mode: Mode,
    /// The share of components on which something may be done in an hour.
    share: f64,
}

const CASES: [Case; 6] = [
    Case { name: "calm", at_risk: 0, free: 8.0, replicas_min: 1, mode: Mode::Act, share: 0.1 },
    Case { name: "as usual", at_risk: 2, free: 8.0, replicas_min: 1, mode: Mode::Act, share: 0.1 },
    Case { name: "a bad day, with room", at_risk: 38, free: 8.0, replicas_min: 1, mode: Mode::Act, share: 1.0 },
    Case { name: "a bad day, others give way", at_risk: 38, free: 0.0, replicas_min: 1, mode: Mode::Act, share: 1.0 },
    Case { name: "a bad day, written down", at_risk: 38, free: 0.0, replicas_min: 1, mode: Mode::Observe, share: 1.0 },
    Case { name: "a bad day, in vain", at_risk: 38, free: 0.0, replicas_min: 9, mode: Mode::Approve, share: 1.0 },
];

fn main() -> ExitCode {
    println!("{COMPONENTS} components, {NODES} nodes, {ROUNDS} rounds; limit {LIMIT} ms of CPU time");
    println!("{:<28} {:>9} {:>9} {:>8} {:>9}", "", "best, ms", "middle", "actions", "declined");
    let mut held = true;
    for case in CASES {
        let (input, plan) = second(&case);
        let mut took: Vec<f64> = (0..ROUNDS).map(|_| time(|| forestall::plan::plan(&input))).collect();
        took.sort_by(f64::total_cmp);
        let (best, middle) = (took[0], took[ROUNDS / 2]);
        held &= middle <= LIMIT;
        let done = plan.actions.len() + plan.waiting.len();
        println!("{:<28} {best:>9.1} {middle:>9.1} {done:>8} {:>9}", case.name, plan.declined.len());
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Milliseconds of this thread's CPU time, where the system tells; else of the clock.
fn time(work: impl FnOnce() -> Plan) -> f64 {
    let cpu = || std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse::<f64>().ok();
    let clock = Clock::wall();
    let (before, started) = (cpu(), clock.now());
    std::hint::black_box(work());
    match (before, cpu()) {
        (Some(before), Some(after)) => (after - before) / 1e6,
        _ => (clock.now() - started).as_secs_f64() * 1e3,
    }
}

/// The input of the second plan, and that plan.
fn second(case: &Case) -> (PlanInput, Plan) {
    let mut input = input(case);
    let first = plan(&input);
    input.now = input.now + Millis::SECOND * 30;
    input.assessments.iter_mut().for_each(|assessment| assessment.at = input.now);
    input.carry = first.carry;
    let second = plan(&input);
    (input, second)
}

fn input(case: &Case) -> PlanInput {
    let policy = Policy {
        name: "workloads".to_owned(),
        selector: Selector {
            kind: Some("deployment".to_owned()),
            labels: BTreeMap::from([("namespace".to_owned(), "shop-.*".to_owned())]),
        },
        mode: case.mode,
        // It enters with the second plan, the one that is measured.
        enter_cycles: 2,
        ladder: vec![
            Rung { replicas_max: Some(20), ..Rung::new(ActionKind::ScaleOut, "cluster") },
            Rung::new(ActionKind::Migrate, "cluster"),
        ],
        evict: Some(EvictPolicy { below_priority: 1000, min_impact: 0.1 }),
        budgets: vec![Budget { share_max: case.share, ..Budget::default() }],
        ..Policy::default()
    };
    let mut capacity = Capacity::default();
    let mut used = vec![0.0; NODES];
    for index in 0..COMPONENTS {
        let replicas = u32::try_from(index % 5 + 1).unwrap_or(1);
        let cpu = (index % 4 + 1) as f64 / 4.0;
        let mut on_nodes: BTreeMap<String, u32> = BTreeMap::new();
        for replica in 0..replicas as usize {
            let node = (index * 7 + replica * 331) % NODES;
            *on_nodes.entry(node_name(node)).or_default() += 1;
            used[node] += cpu;
        }
        capacity.workloads.push(Workload {
            component: component(index),
            pool: "general".to_owned(),
            replicas,
            per_replica: BTreeMap::from([("cpu".to_owned(), cpu), ("memory".to_owned(), cpu * 4e9)]),
            priority: (index % 7) as i64 * 100,
            replicas_min: case.replicas_min,
            on_nodes,
        });
    }
    let node = |(index, used): (usize, f64)| Node {
        name: node_name(index),
        allocatable: BTreeMap::from([("cpu".to_owned(), used + case.free), ("memory".to_owned(), 1e12)]),
        used: BTreeMap::from([("cpu".to_owned(), used), ("memory".to_owned(), used * 4e9)]),
        labels: BTreeMap::from([("zone".to_owned(), format!("z{}", index % 3))]),
    };
    capacity.pools.insert("general".to_owned(), used.into_iter().enumerate().map(node).collect());
    let mut input = PlanInput {
        now: NOW,
        assessments: (0..COMPONENTS).map(|index| assessment(index, (index * 37) % 100 < case.at_risk)).collect(),
        capacity,
        policies: vec![policy],
        ledger: Ledger::default(),
        carry: Carry::default(),
        gates: Gates { mode: Mode::Act, journal_ok: true, interval: Millis::SECOND * 30, ..Gates::default() },
    };
    input.ledger = ledger(&input);
    input
}

/// 1000 actions of two days and more ago, a few of which still stand.
fn ledger(input: &PlanInput) -> Ledger {
    let mut before = input.clone();
    before.now = NOW - Millis::DAY * 2;
    before.gates.mode = Mode::Act;
    before.policies[0].mode = Mode::Act;
    before.policies[0].enter_cycles = 1;
    before.policies[0].budgets = vec![Budget { actions_max: 10_000, ..Budget::default() }];
    for (index, assessment) in before.assessments.iter_mut().enumerate() {
        *assessment = self::assessment(index, index % 9 == 0);
        assessment.at = before.now;
    }
    for node in before.capacity.pools.values_mut().flatten() {
        node.allocatable.values_mut().for_each(|amount| *amount *= 2.0);
    }
    let mut ledger = Ledger::default();
    for (index, action) in plan(&before).actions.iter().enumerate() {
        ledger.record_intent(action);
        ledger.record_outcome(&action.id, Outcome::Confirmed, Some(Millis::MINUTE), before.now + Millis::MINUTE);
        let past = &mut ledger.actions[index];
        past.effective = Some(index % 10 != 0);
        past.undone_by = (index % 50 != 0).then(|| "given back".to_owned());
    }
    ledger
}

fn node_name(index: usize) -> String {
    format!("node-{index:04}.example")
}

fn component(index: usize) -> ComponentId {
    let namespace = ("namespace".to_owned(), format!("shop-{}", index % 40));
    ComponentId {
        kind: "deployment".to_owned(),
        labels: vec![namespace, ("deployment".to_owned(), format!("app-{index}"))],
    }
}

fn assessment(index: usize, at_risk: bool) -> Assessment {
    let component = component(index);
    let (p, peak) = if at_risk { (0.8, 1.03) } else { (0.05, 0.4) };
    let mut foresight = Foresight::unknown(NOW, "");
    foresight.knowledge = Knowledge::Known;
    foresight.probability = Some(p);
    foresight.limit = Some(Limit { threshold: 0.9, warn: Some(0.75) });
    foresight.peak_q90 = Some(peak);
    let impact = (index % 9 + 1) as f64 / 10.0;
    let signal = |name: &str, scales_with: ScalesWith| SignalAssessment {
        rule: "saturation".to_owned(),
        signal: name.to_owned(),
        group: name.to_owned(),
        weight: 1.0,
        side: Side::Above,
        scales_with,
        severity: 0.5,
        foresight: foresight.clone(),
        peers: None,
    };
    Assessment {
        at: NOW,
        horizon: Millis::HOUR,
        standing: if at_risk { Standing::AtRisk } else { Standing::Steady },
        health: Some(1.0 - p * 0.5),
        slope_per_hour: None,
        rapid_decline: false,
        probability: Some(p),
        probability_low: Some(p - 0.05),
        eta: Eta { q10: Some(Millis::MINUTE * 24), q50: Some(Millis::MINUTE * 40) },
        impact,
        expected_loss: p * 0.5 * impact,
        rank: index + 1,
        signals: vec![signal("cpu", ScalesWith::Replicas), signal("memory", ScalesWith::Memory)],
        labels: Labels::new([("team", "shop")]),
        target_namespace: component.label("namespace").unwrap_or("").to_owned(),
        target_name: component.label("deployment").unwrap_or("").to_owned(),
        component,
    }
}
