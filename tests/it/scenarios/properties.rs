//! What holds for every plan, whatever the input.

use std::collections::{BTreeMap, BTreeSet};

use forestall::model::{Millis, Timestamp};
use forestall::plan::{Action, ActionKind, Change, EvictPolicy, Mode, Node, Outcome, Plan, PlanInput, Reason, plan};
use proptest::prelude::*;

use super::{assessment, base_policy, empty_input, rung, set_probability, take_effect, workload};

/// One made-up component: probability, loss, impact (tenths), replicas, minimum, half cores a replica, priority, node.
type Made = (u32, u32, u32, u32, u32, u32, i64, usize);

fn made() -> impl Strategy<Value = Made> {
    let probability = prop_oneof![3 => 0..5u32, 1 => 6..10u32];
    (probability, 0..10u32, 0..10u32, 0..6u32, 0..3u32, 1..5u32, 0..4i64, 0..8usize)
}

/// An input with `nodes` nodes, full up to so many tenths of a core that no component of ours uses.
fn input(components: &[Made], nodes: usize, spare_half_cores: u32, evicts: bool) -> PlanInput {
    let mut input = empty_input();
    let mut policy = base_policy("all");
    policy.selector.kind = Some("deployment".to_owned());
    policy.ladder = vec![rung("scale_out"), rung("migrate")];
    policy.constraints.max_per_node = BTreeMap::from([("cpu".to_owned(), 0.9)]);
    policy.evict = evicts.then_some(EvictPolicy { below_priority: 3, min_impact: 0.4 });
    policy.budgets[0].actions_max = 4;
    input.policies.push(policy);
    let mut used = vec![0.0; nodes];
    for (index, (p, loss, impact, replicas, min, half_cores, priority, node)) in components.iter().enumerate() {
        let name = format!("deployment/shop/c{index}");
        let mut about = assessment(&name);
        set_probability(&mut about, f64::from(*p) / 10.0);
        about.expected_loss = f64::from(*loss) / 10.0;
        about.impact = f64::from(*impact) / 10.0;
        input.assessments.push(about);
        let cpu = f64::from(*half_cores) / 2.0;
        let mut runs = workload(&name, *replicas, cpu, *priority, *min);
        if *replicas > 0 {
            runs.on_nodes.insert(format!("n{}", node % nodes), *replicas);
            used[node % nodes] += cpu * f64::from(*replicas);
        }
        input.capacity.workloads.push(runs);
    }
    let node = |(index, used): (usize, &f64)| Node {
        name: format!("n{index}"),
        allocatable: BTreeMap::from([("cpu".to_owned(), (used + f64::from(spare_half_cores) / 2.0) / 0.9)]),
        used: BTreeMap::from([("cpu".to_owned(), *used)]),
        labels: BTreeMap::new(),
    };
    input.capacity.pools.insert("general".to_owned(), used.iter().enumerate().map(node).collect());
    input
}

/// What is expected to be lost in all: if nothing is done, and if the plan's actions on their own components prevent no
/// more than their share of failures. Who gives way loses the share of its impact that is taken, and all of it where
/// what is left does not carry what is foreseen of it.
fn losses(input: &PlanInput, plan: &Plan) -> (f64, f64) {
    let policy = &input.policies[0];
    let (mut before, mut after) = (0.0, 0.0);
    for about in &input.assessments {
        let done = plan.actions.iter().find(|action| action.target.component == about.component);
        before += about.expected_loss;
        after += match done.map(|action| (action.kind, &action.change)) {
            Some((ActionKind::Evict, Change::Replicas { from, to })) if from > to => {
                let foresight = &about.signals[0].foresight;
                let (peak, limit) = (foresight.peak_q90.expect("foreseen"), foresight.limit.expect("there is one"));
                let is_carried = peak * f64::from(*from) < limit.threshold * f64::from(*to);
                let share = if is_carried { f64::from(from - to) / f64::from(*from) } else { 1.0 };
                about.expected_loss.max(about.impact * share)
            }
            Some(_) => about.expected_loss * (1.0 - policy.efficacy),
            None => about.expected_loss,
        };
    }
    (before, after)
}

/// That no action turns another one round within half an hour, and none follows two that had no effect.
fn check_history(input: &PlanInput, plan: &Plan) {
    let gives = |action: &Action| match &action.change {
        Change::Replicas { from, to } => to > from,
        _ => action.undoes.is_none(),
    };
    for action in plan.actions.iter() {
        let earlier =
            input.ledger.actions.iter().filter(|past| past.action.target.component == action.target.component);
        for past in earlier.clone() {
            let ago = input.now - past.action.decided_at;
            let opposite = gives(&past.action) != gives(action);
            assert!(
                !opposite || ago >= Millis::MINUTE * 30,
                "{} turns {} round after {ago}",
                action.id,
                past.action.id
            );
        }
        let judged = plan.verdicts.iter().filter(|verdict| !verdict.effective).map(|verdict| &verdict.action_id);
        let judged: BTreeSet<&String> = judged.collect();
        let in_vain = earlier.filter(|past| {
            (past.effective == Some(false) || judged.contains(&past.action.id))
                && input.now - past.action.decided_at < Millis::DAY
        });
        let helps = action.undoes.is_none() && action.kind != ActionKind::Evict;
        assert!(!helps || in_vain.count() < 2, "{} follows two that had no effect", action.id);
    }
}

fn bytes(plan: &Plan) -> String {
    serde_json::to_string(plan).expect("a plan can be written")
}

fn cpu_of(input: &PlanInput, action: &Action) -> f64 {
    let workload = input.capacity.workloads.iter().find(|w| w.component == action.target.component);
    workload.expect("it is known").per_replica["cpu"]
}

/// What holds for each plan by itself.
fn check(input: &PlanInput, plan: &Plan) {
    let policy = &input.policies[0];
    for budget in &policy.budgets {
        let limit = budget.limit(input.assessments.len());
        let counts = |action: &&Action| {
            action.undoes.is_none()
                && !action.dry_run
                && (budget.actions.is_empty() || budget.actions.contains(&action.kind))
                && action.decided_at > input.now - budget.per
        };
        let spent = input.ledger.actions.iter().map(|past| &past.action).filter(counts).count();
        let new = plan.actions.iter().filter(counts).count();
        assert!(new == 0 || spent + new <= limit, "over budget: {spent} + {new} of {limit} ({budget:?})");
    }
    let mains = plan.actions.iter().filter(|action| action.undoes.is_none() && action.kind != ActionKind::Evict);
    assert!(mains.count() <= (input.assessments.len() / 10).max(1), "over the blast radius");
    let mut touched = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (index, action) in plan.actions.iter().enumerate() {
        assert!(touched.insert(&action.target.component), "{} is touched twice", action.target.component);
        assert!(ids.insert(&action.id), "two actions are called {}", action.id);
        let Some(main) = &action.makes_room_for else { continue };
        let main = plan.actions[index..].iter().find(|other| &other.id == main).expect("it makes room for a later one");
        let find = |action: &Action| {
            let of = &action.target.component;
            let workload = input.capacity.workloads.iter().find(|w| &w.component == of).expect("it is known");
            (workload, input.assessments.iter().find(|a| &a.component == of).expect("it is assessed"))
        };
        let ((victim, its), (own, ours)) = (find(action), find(main));
        let evict = policy.evict.as_ref().expect("only a policy that may evict does");
        assert!(victim.priority < own.priority && victim.priority < evict.below_priority, "not strictly lower");
        assert!(its.expected_loss < ours.expected_loss && ours.impact >= evict.min_impact, "not worth less");
        assert!(
            matches!(action.change, Change::Replicas { from, to } if from == victim.replicas && to < from && to >= victim.replicas_min),
            "below its minimum: {:?}",
            action.change
        );
    }
    for about in input.assessments.iter().filter(|a| a.probability.is_some_and(|p| p >= policy.enter_above)) {
        let acted = touched.contains(&about.component);
        let said = plan.declined.iter().any(|declined| declined.component == about.component);
        assert!(acted || said, "nothing is said of {}", about.component);
    }
}

/// In one node, walks through the actions in order: each fits when its turn comes, and would not with less evicted.
fn check_room_of_one_node(input: &PlanInput, plan: &Plan) {
    let node = &input.capacity.pools["general"][0];
    let mut free = node.allocatable["cpu"] * 0.9 - node.used["cpu"];
    let mut evicted: Vec<f64> = Vec::new();
    for action in plan.actions.iter().filter(|action| action.undoes.is_none()) {
        let Change::Replicas { from, to } = action.change else { continue };
        let cpu = cpu_of(input, action);
        if action.kind == ActionKind::Evict {
            free += cpu * f64::from(from - to);
            evicted.push(cpu);
            continue;
        }
        let needed = cpu * f64::from(to - from);
        assert!(needed <= free + 1e-6, "{needed} do not fit into {free}");
        for less in evicted.drain(..) {
            assert!(free - less < needed - 1e-6, "{less} less would have been enough: {free} for {needed}");
        }
        free -= needed;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn takes_only_from_lower_priority_and_no_more_than_needed(
        components in prop::collection::vec(made(), 10..40),
        spare in 0..6u32,
    ) {
        let input = input(&components, 1, spare, true);
        let plan = plan(&input);
        check(&input, &plan);
        check_room_of_one_node(&input, &plan);
    }

    #[test]
    fn a_plan_leaves_no_more_to_be_lost_than_doing_nothing(
        components in prop::collection::vec((made(), 0..12u32), 10..40),
        nodes in 1..4usize,
        spare in 0..4u32,
    ) {
        let (made, peaks): (Vec<Made>, Vec<u32>) = components.into_iter().unzip();
        let mut input = input(&made, nodes, spare, true);
        input.policies[0].budgets[0].actions_max = 40;
        for (about, peak) in input.assessments.iter_mut().zip(peaks) {
            // What is not at risk is busy to any degree below its threshold.
            if about.probability.is_some_and(|p| p < 0.6) {
                about.signals[0].foresight.peak_q90 = Some(f64::from(peak) / 10.0 * 0.75);
            }
            about.expected_loss = about.expected_loss.min(about.impact);
        }
        let plan = plan(&input);
        let (before, after) = losses(&input, &plan);
        prop_assert!(after <= before + 1e-9, "{after} instead of {before}: {:#?}", plan.actions);
    }

    #[test]
    fn promises_no_more_than_there_is_on_any_nodes(
        components in prop::collection::vec(made(), 10..40),
        nodes in 2..6usize,
        spare in 0..6u32,
    ) {
        let input = input(&components, nodes, spare, false);
        let plan = plan(&input);
        check(&input, &plan);
        // Every node has the same room left, so what fits can be counted by hand for the first action.
        let scaled = plan.actions.iter().find(|action| action.kind == ActionKind::ScaleOut);
        if let Some((action, Change::Replicas { from, to })) = scaled.map(|action| (action, &action.change)) {
            let slots = (f64::from(spare) / 2.0 / cpu_of(&input, action) + 1e-6).floor() * nodes as f64;
            prop_assert!(f64::from(to - from) <= slots, "{} into {slots} slots", to - from);
        }
        let needed = plan.actions.iter().map(|action| match action.change {
            Change::Replicas { from, to } => f64::from(to - from) * cpu_of(&input, action),
            _ => 0.0,
        });
        prop_assert!(needed.sum::<f64>() <= f64::from(spare) / 2.0 * nodes as f64 + 1e-6);
    }

    #[test]
    fn the_order_of_lists_does_not_matter_and_a_replay_decides_the_same(
        components in prop::collection::vec(made(), 10..40),
        nodes in 1..6usize,
        spare in 0..6u32,
        by in 1..7usize,
    ) {
        let input = input(&components, nodes, spare, true);
        let mut turned = input.clone();
        turned.assessments.rotate_left(by);
        turned.assessments.reverse();
        turned.capacity.workloads.rotate_right(by);
        turned.capacity.pools.values_mut().for_each(|nodes| nodes.reverse());
        let first = bytes(&plan(&input));
        prop_assert_eq!(&first, &bytes(&plan(&turned)));
        let text = serde_json::to_string(&input).expect("an input can be written");
        prop_assert_eq!(&first, &bytes(&plan(&serde_json::from_str(&text).expect("an input can be read"))));
    }

    #[test]
    fn holds_its_promises_over_many_cycles(
        components in prop::collection::vec(made(), 10..30),
        turns in prop::collection::vec((0..30usize, 0..10u32, 0..4u32), 10..40),
    ) {
        let mut input = input(&components, 2, 8, true);
        input.policies[0].expires_after = Millis::MINUTE * 30;
        for (who, p, outcome) in turns {
            let who = who % input.assessments.len();
            set_probability(&mut input.assessments[who], f64::from(p) / 10.0);
            input.now = input.now + Millis::MINUTE * 6;
            input.assessments.iter_mut().for_each(|about| about.at = input.now);
            let plan = plan(&input);
            check(&input, &plan);
            check_history(&input, &plan);
            input.carry = plan.carry.clone();
            input.ledger.note(&plan);
            let outcome = [Outcome::Confirmed, Outcome::Applied, Outcome::Failed, Outcome::Unchanged][outcome as usize];
            for action in &plan.actions {
                if let Some(original) = &action.undoes {
                    let past = input.ledger.actions.iter().find(|past| &past.action.id == original).expect("it is ours");
                    prop_assert!(past.undone_by.is_none(), "undone twice");
                    prop_assert!(past.outcome.is_some_and(Outcome::took_effect), "undoes what was not done");
                }
                input.ledger.record_intent(action);
                input.ledger.record_outcome(&action.id, outcome, Some(Millis::MINUTE), input.now + Millis::MINUTE);
                if outcome.took_effect() {
                    take_effect(&mut input.capacity, action);
                }
            }
            input.ledger.prune(input.now);
            prop_assert!(input.ledger.actions.len() <= 1000);
        }
    }

    #[test]
    fn figures_that_are_no_numbers_neither_panic_nor_act(
        components in prop::collection::vec(made(), 10..20),
        which in 0..8u32,
        junk in prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1.0, 0.0]),
    ) {
        let mut input = input(&components, 2, 4, true);
        for about in &mut input.assessments {
            match which {
                0 => about.probability = Some(junk),
                1 => about.probability_low = Some(junk),
                2 => about.expected_loss = junk,
                3 => about.signals[0].foresight.peak_q90 = Some(junk),
                4 => about.signals[0].foresight.limit = None,
                5 => about.signals.clear(),
                _ => {}
            }
        }
        for node in input.capacity.pools.values_mut().flatten().filter(|_| which == 6) {
            node.used.insert("cpu".to_owned(), junk);
        }
        for workload in input.capacity.workloads.iter_mut().filter(|_| which == 7) {
            workload.per_replica.insert("cpu".to_owned(), junk);
        }
        let plan = plan(&input);
        if !junk.is_finite() && (which < 2) {
            prop_assert!(plan.actions.is_empty(), "acts on a probability of {junk}");
        }
        if junk.is_nan() && which == 6 {
            let scaled = plan.actions.iter().any(|action| action.kind == ActionKind::ScaleOut && action.makes_room_for.is_none());
            prop_assert!(!scaled, "promises what nobody knows to be free");
        }
    }
}

#[test]
fn plans_ten_thousand_components_on_a_thousand_nodes() {
    let components: Vec<Made> = (0..10_000u32)
        .map(|index| {
            let p = if index % 4 == 0 { 8 } else { 1 };
            (p, index % 10, index % 7 + 3, index % 5 + 1, 1, index % 4 + 1, i64::from(index % 4), index as usize)
        })
        .collect();
    let mut input = input(&components, 1000, 1, true);
    input.policies[0].budgets[0].share_max = 1.0;
    let started = now();
    let plan = plan(&input);
    let took = now() - started;
    assert_eq!(plan.declined.iter().filter(|declined| declined.reason == Reason::Breaker).count(), 0);
    assert!(plan.actions.len() >= 500, "{} actions", plan.actions.len());
    // Far above what it takes, since tests share the machine: this is to catch what grows with the square.
    assert!(took < Millis::SECOND * 30, "took {took}");
}

#[test]
fn looks_in_vain_for_room_quickly() {
    let components: Vec<Made> = (0..10_000u32)
        .map(|index| {
            (
                if index % 4 == 0 { 8 } else { 1 },
                index % 10,
                9,
                index % 5 + 1,
                9,
                4,
                i64::from(index % 4),
                index as usize,
            )
        })
        .collect();
    let mut input = input(&components, 1000, 0, true);
    input.policies[0].mode = Mode::Approve;
    input.policies[0].budgets[0].share_max = 1.0;
    let started = now();
    let plan = plan(&input);
    let took = now() - started;
    assert!(plan.actions.is_empty() && plan.waiting.is_empty(), "there is no room at all");
    assert!(took < Millis::SECOND * 30, "took {took}");
}

fn now() -> Timestamp {
    forestall::clock::Clock::wall().now()
}
