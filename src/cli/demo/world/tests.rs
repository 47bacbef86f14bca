//! The world keeps its promises: true twins, physical effects, finite room, failures where they should be.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::ComponentId;
use crate::plan::{Target, Why};

const START: Timestamp = Timestamp::from_secs(1_767_225_600);

fn at_hour(hour: i64) -> Timestamp {
    START + Millis::HOUR * hour
}

/// A world that has lived so many hours.
fn world_at(seed: u64, hour: i64) -> World {
    let mut world = World::new(seed, START);
    world.step(at_hour(hour));
    world
}

fn index_of(service: &str) -> usize {
    FLEET.iter().position(|spec| spec.service() == service).expect("a service of the fleet")
}

fn action(id: &str, kind: ActionKind, service: &str, change: Change) -> Action {
    let (namespace, name) = service.split_once('/').expect("namespace/name");
    let kind_of_target = if namespace.is_empty() { "node" } else { "deployment" };
    let labels = vec![("namespace".to_owned(), namespace.to_owned()), ("deployment".to_owned(), name.to_owned())];
    let component = ComponentId { kind: kind_of_target.to_owned(), labels };
    let why = Why {
        probability: 0.9,
        eta: None,
        expected_loss: 0.5,
        signal: String::new(),
        peak: None,
        sentence: String::new(),
        predictions: Vec::new(),
    };
    Action {
        id: id.to_owned(),
        policy: "demo".to_owned(),
        rung: 0,
        kind,
        actuator: "fleet".to_owned(),
        target: Target { component, namespace: namespace.to_owned(), name: name.to_owned() },
        change,
        why,
        decided_at: START,
        expires_at: None,
        undo: None,
        undoes: None,
        makes_room_for: None,
        dry_run: false,
    }
}

fn replicas(from: u32, to: u32) -> Change {
    Change::Replicas { from, to }
}

fn resources(name: &str, amount: f64) -> Change {
    Change::Resources { from: Resources::new(), to: Resources::from([(name.to_owned(), amount)]) }
}

/// Applies an action to a copy of the world, lets both live for some minutes, and gives both levels of the service.
fn with_and_without(world: &World, action: &Action, minutes: i64) -> (service::Levels, service::Levels) {
    let (mut with, mut without) = (world.clone(), world.clone());
    with.apply(action).expect("the action is accepted");
    assert_eq!(with.status(&action.id), Some(Status::Pending));
    let until = world.now() + STEP * minutes;
    with.step(until);
    without.step(until);
    assert_eq!(with.status(&action.id), Some(Status::Done));
    let index = index_of(&format!("{}/{}", action.target.namespace, action.target.name));
    (with.services[index].levels, without.services[index].levels)
}

fn fails_at(seed: u64, service: &str) -> i64 {
    fleet::episodes(seed)[index_of(service)].fails
}

#[test]
fn the_same_seed_gives_the_same_samples_and_another_seed_others() {
    let (one, two, other) = (world_at(7, 30), world_at(7, 30), world_at(8, 30));
    assert_eq!(one.samples(), two.samples());
    assert_ne!(one.samples(), other.samples());
    // Step by step or at once: the same.
    let mut slow = World::new(7, START);
    for minute in 1..=30 * 60 {
        slow.step(START + STEP * minute);
    }
    assert_eq!(slow.samples(), one.samples());
}

#[test]
fn series_are_few_and_stay_the_same() {
    let mut world = World::new(3, START);
    let series = |world: &World| world.samples().into_iter().map(|(labels, _)| labels).collect::<Vec<_>>();
    let first = series(&world);
    assert!(first.len() <= 640, "{} series", first.len());
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len(), "a series twice");
    world.step(at_hour(190));
    assert_eq!(series(&world), first);
    assert!(world.samples().iter().all(|(_, value)| value.is_finite()));
}

#[test]
fn every_class_fails_in_the_twin_where_it_should_and_decoys_never() {
    for seed in 1..=5 {
        let world = world_at(seed, DAYS * 24);
        let mut failed: BTreeMap<String, &Failure> = BTreeMap::new();
        for failure in world.failures() {
            assert!(failed.insert(failure.service.clone(), failure).is_none(), "seed {seed}: {failure:?} twice");
        }
        for spec in FLEET {
            let failure = failed.get(&spec.service());
            assert_eq!(failure.is_some(), spec.class.fails(), "seed {seed}: {spec:?} {failure:?}");
            let Some(failure) = failure else { continue };
            let late = (failure.began - START).0 / STEP.0 - fails_at(seed, &failure.service);
            assert!((-200..=150).contains(&late), "seed {seed}: {late} minutes from the time aimed at: {failure:?}");
            assert!(at_hour(4 * 24) < failure.began, "seed {seed}: in the warm-up: {failure:?}");
            let ended = failure.ended.unwrap_or(world.now());
            assert!(Millis::MINUTE * 20 < ended - failure.began, "seed {seed}: {failure:?}");
            assert!(ended - failure.began < Millis::HOUR * 8, "seed {seed}: {failure:?}");
        }
        assert!(!world.is_overcommitted());
        assert_eq!(world.evicted_replica_minutes(), 0);
    }
}

#[test]
fn more_replicas_share_the_load() {
    let world = world_at(1, fails_at(1, "web/accounts") / 60 - 2);
    let out = action("a", ActionKind::ScaleOut, "web/accounts", replicas(3, 6));
    let (with, without) = with_and_without(&world, &out, 20);
    assert!((with.cpu * 2.0 - without.cpu).abs() < 1e-9, "{with:?} {without:?}");
    assert!(with.latency < without.latency.map(|p99| p99 * 0.7), "{with:?} {without:?}");

    let world = world_at(1, fails_at(1, "stream/invoices") / 60 - 1);
    let out = action("a", ActionKind::ScaleOut, "stream/invoices", replicas(3, 5));
    let (with, without) = with_and_without(&world, &out, 60);
    assert!(with.queue < without.queue.map(|backlog| backlog - 0.2), "{with:?} {without:?}");
}

#[test]
fn traffic_that_goes_elsewhere_is_no_load_here() {
    let world = world_at(1, fails_at(1, "shop/checkout") / 60 - 3);
    let shift = action("a", ActionKind::ShiftLoad, "shop/checkout", Change::Shift { share: 0.25 });
    let (with, without) = with_and_without(&world, &shift, 10);
    assert!((with.cpu - 0.75 * without.cpu).abs() < 1e-9, "{with:?} {without:?}");
}

#[test]
fn more_memory_is_more_headroom_and_does_not_stop_the_leak() {
    let world = world_at(1, fails_at(1, "core/sessions") / 60 - 2);
    let up = action("a", ActionKind::ScaleUp, "core/sessions", resources("memory", 8.0 * room::GIB));
    let (with, without) = with_and_without(&world, &up, 10);
    assert!((with.memory * 2.0 - without.memory).abs() < 1e-9, "{with:?} {without:?}");
    let (later, _) = with_and_without(&world, &up, 100);
    assert!(with.memory < later.memory, "{with:?} {later:?}");
}

#[test]
fn a_process_that_moves_starts_from_its_base() {
    let world = world_at(1, fails_at(1, "core/sessions") / 60 - 2);
    let nodes = world.room.placed[index_of("core/sessions")].iter().map(|&n| world.room.nodes[n].name.to_owned());
    let away = Change::Move { from_nodes: nodes.collect() };
    let (with, without) = with_and_without(&world, &action("a", ActionKind::Migrate, "core/sessions", away), 10);
    assert!(with.memory < 0.5 && 0.7 < without.memory, "{with:?} {without:?}");
}

#[test]
fn a_larger_volume_is_less_full_and_does_not_shrink_below_what_it_holds() {
    let world = world_at(1, fails_at(1, "data/orders-db") / 60 - 1);
    let up = action("a", ActionKind::ScaleUp, "data/orders-db", resources("disk", 400.0 * room::GIB));
    let (with, without) = with_and_without(&world, &up, 10);
    assert_eq!(with.disk.map(|share| share * 2.0), without.disk);
    let mut world = world;
    let down = action("b", ActionKind::ScaleUp, "data/orders-db", resources("disk", 150.0 * room::GIB));
    assert!(world.apply(&down).expect_err("it holds more").0.contains("cannot shrink"));
    assert_eq!(world.status("b"), Some(Status::Failed));
}

#[test]
fn the_full_pool_refuses_until_lower_priority_work_makes_room() {
    let mut world = world_at(1, 100);
    let out = |id: &str| action(id, ActionKind::ScaleOut, "pay/payments", replicas(4, 6));
    assert!(world.apply(&out("no-room")).expect_err("the pool is full").0.contains("no node of pool tight"));
    let wallboard = action("w", ActionKind::ScaleOut, "pay/wallboard", replicas(3, 4));
    assert!(world.apply(&wallboard).is_err());

    world.apply(&action("evict", ActionKind::Evict, "pay/reports", replicas(5, 3))).expect("evictions need no room");
    world.apply(&out("out")).expect("what is being evicted counts as room");
    let before = world.services[index_of("pay/reports")].levels.cpu;
    world.step(world.now() + STEP * 10);
    assert_eq!((world.status("evict"), world.status("out")), (Some(Status::Done), Some(Status::Done)));
    assert_eq!(world.room.placed[index_of("pay/payments")].len(), 6);
    let after = world.services[index_of("pay/reports")].levels.cpu;
    assert!(1.4 * before < after && after < 0.6, "what is left of the victim works harder: {before} {after}");
    assert!(0 < world.evicted_replica_minutes() && world.evicted_replica_minutes() <= 20);
    assert!(!world.is_overcommitted());

    let mut back = action("undo", ActionKind::Evict, "pay/reports", replicas(3, 5));
    back.undoes = Some("evict".to_owned());
    assert!(world.apply(&back).is_err(), "payments has the room now");
    let fewer = action("undo-out", ActionKind::ScaleOut, "pay/payments", replicas(6, 4));
    world.apply(&fewer).expect("fewer always fit");
    back.id = "undo-again".to_owned();
    world.apply(&back).expect("what is being given back counts as room");
    world.step(world.now() + STEP * 10);
    let harmed = world.evicted_replica_minutes();
    world.step(world.now() + STEP * 10);
    assert_eq!(world.evicted_replica_minutes(), harmed, "the victim has all of its replicas again");
}

#[test]
fn an_action_told_twice_is_done_once_and_bad_ones_are_refused_in_words() {
    let mut world = world_at(1, 1);
    let out = action("a", ActionKind::ScaleOut, "web/docs", replicas(2, 3));
    world.apply(&out).expect("accepted");
    world.apply(&out).expect("accepted again");
    assert_eq!(world.pending.len(), 1);
    for (id, service, change, words) in [
        ("1", "web/nobody", replicas(1, 2), "there is no deployment \"nobody\""),
        ("2", "web/docs", replicas(2, 0), "0 replicas"),
        ("3", "web/docs", replicas(2, 5000), "5000 replicas"),
        ("4", "web/docs", resources("gpu", 1.0), "unknown resource \"gpu\""),
        ("5", "web/docs", resources("cpu", f64::NAN), "cannot be given"),
        ("6", "web/docs", resources("cpu", 500.0), "no node of pool general"),
        ("7", "web/docs", Change::Shift { share: 1.5 }, "not in 0..1"),
        ("8", "web/docs", Change::Cordon, "only a node"),
        ("9", "/general-99", Change::Cordon, "there is no node"),
        ("10", "/general-1", replicas(1, 2), "only be cordoned"),
    ] {
        let refusal = world.apply(&action(id, ActionKind::ScaleUp, service, change)).expect_err(words);
        assert!(refusal.0.contains(words), "{refusal}");
        assert_eq!(world.status(id), Some(Status::Failed));
    }
    assert_eq!(world.status("unheard of"), None);
}

#[test]
fn a_cordoned_node_gets_nothing_new_until_it_is_given_back() {
    let mut world = world_at(1, 1);
    for (index, node) in fleet::NODES.iter().filter(|node| node.1 == fleet::GENERAL).enumerate() {
        let cordon = action(&format!("c{index}"), ActionKind::Quarantine, &format!("/{}", node.0), Change::Cordon);
        world.apply(&cordon).expect("a node can be cordoned");
    }
    let out = action("out", ActionKind::ScaleOut, "web/docs", replicas(2, 3));
    assert!(world.apply(&out).is_err());
    world.step(world.now() + STEP * 5);
    let mut back = action("back", ActionKind::Quarantine, "/general-1", Change::Cordon);
    back.undoes = Some("c0".to_owned());
    world.apply(&back).expect("a node can be given back");
    let out = action("out-2", ActionKind::ScaleOut, "web/docs", replicas(2, 3));
    world.apply(&out).expect("general-1 has room");
}

#[test]
fn nothing_anyone_asks_for_overcommits_a_node() {
    let mut world = World::new(11, START);
    for round in 0..400_u64 {
        let draw = |index: u64, below: f64| noise::between(11, round, index, 0.0, below);
        let spec = FLEET.iter().cycle().nth((0..42).rfind(|&i| i as f64 <= draw(0, 42.0)).unwrap_or(0));
        let spec = spec.expect("the fleet is not empty");
        let many = (1..=12_u32).rfind(|&n| f64::from(n) <= draw(1, 12.0)).unwrap_or(1);
        let change = match round % 3 {
            0 => replicas(spec.replicas, many),
            1 => resources("cpu", spec.cpu * draw(2, 3.0)),
            _ => Change::Move { from_nodes: vec![format!("general-{}", 1 + round % 9)] },
        };
        world.apply(&action(&format!("r{round}"), ActionKind::ScaleOut, &spec.service(), change)).ok();
        world.step(world.now() + STEP * 2);
        assert!(!world.is_overcommitted(), "round {round}");
        for (index, service) in world.services.iter().enumerate() {
            assert!(!world.room.placed[index].is_empty() && service.levels.cpu.is_finite(), "round {round}");
        }
    }
    let of_node = |node: usize, r: usize| -> f64 {
        let here = |s: usize| world.room.placed[s].iter().filter(|&&n| n == node).count() as f64;
        (0..FLEET.len()).map(|s| here(s) * world.room.requests[s][r]).sum()
    };
    for (index, node) in world.room.nodes.iter().enumerate() {
        assert!((of_node(index, 0) - node.used[0]).abs() < 1e-6, "{node:?}");
    }
}

/// What a good operator would do three hours before the failure: a change, its undoing, and an eviction before it.
fn remedy(spec: &Spec) -> (ActionKind, Change, Change, Option<Change>) {
    let times = |amount: f64, name: &str| {
        (ActionKind::ScaleUp, resources(name, 1.5 * amount * room::GIB), resources(name, amount * room::GIB), None)
    };
    match spec.class {
        Class::MemoryLeak => times(spec.memory_gib, "memory"),
        Class::DiskFill => times(spec.disk_gib, "disk"),
        _ => {
            let more = spec.replicas + spec.replicas.div_ceil(2);
            let evict = (spec.name == "payments").then(|| replicas(5, 3));
            (ActionKind::ScaleOut, replicas(spec.replicas, more), replicas(more, spec.replicas), evict)
        }
    }
}

#[test]
fn all_that_is_preventable_is_prevented_by_who_knows_it_three_hours_before() {
    for seed in 1..=5 {
        let twin = world_at(seed, DAYS * 24);
        let mut deeds: Vec<(Timestamp, Action)> = Vec::new();
        for failure in twin.failures().iter().filter(|failure| failure.class.has_precursor()) {
            let mut undo_eviction = None;
            let (change_at, service) = (failure.began - Millis::HOUR * 3, failure.service.as_str());
            let (kind, change, undo, evict) = remedy(&FLEET[index_of(service)]);
            if let Some(evict) = evict {
                deeds.push((change_at, action("evict", ActionKind::Evict, "pay/reports", evict)));
                let mut back = action("evict undo", ActionKind::Evict, "pay/reports", replicas(3, 5));
                back.undoes = Some("evict".to_owned());
                undo_eviction = Some((change_at + Millis::HOUR * 8, back));
            }
            deeds.push((change_at, action(service, kind, service, change)));
            let mut back = action(&format!("{service} undo"), kind, service, undo);
            back.undoes = Some(service.to_owned());
            deeds.push((change_at + Millis::HOUR * 8, back));
            deeds.extend(undo_eviction);
        }
        deeds.sort_by_key(|(when, _)| *when);
        let mut world = World::new(seed, START);
        for (when, deed) in deeds.iter().filter(|(when, _)| *when < at_hour(DAYS * 24)) {
            world.step(*when);
            let accepted = world.apply(deed);
            // There is never room for the wallboard, and nothing to give back then.
            let has_room = deed.target.name != "wallboard" || deed.undoes.is_some();
            assert_eq!(accepted.is_ok(), has_room, "seed {seed}: {deed:?} {accepted:?}");
        }
        world.step(at_hour(DAYS * 24));
        let failed: Vec<&Failure> = world.failures().iter().filter(|failure| failure.preventable).collect();
        assert!(failed.is_empty(), "seed {seed}: {failed:?}");
        assert!(world.failures().iter().any(|failure| failure.service == "pay/wallboard"), "seed {seed}");
        assert!(world.failures().iter().all(|failure| failure.class.fails()), "seed {seed}: a victim failed");
        assert!(0 < world.evicted_replica_minutes(), "seed {seed}");
    }
}

/// Prints the peak of each signal per service and day, in shares of its threshold:
/// `cargo test --lib prints_a_world -- --ignored --nocapture`.
#[test]
#[ignore = "a tool to look at a world"]
#[expect(clippy::print_stdout, reason = "a tool prints")]
fn prints_a_world() {
    let mut world = World::new(1, START);
    let mut days: Vec<Vec<[f64; 5]>> = Vec::new();
    for _ in 0..DAYS {
        let mut peaks = vec![[0.0_f64; 5]; FLEET.len()];
        for _ in 0..fleet::DAY {
            world.step(world.now() + STEP);
            assert!(500 < world.samples().len());
            for (service, peaks) in world.services.iter().zip(&mut peaks) {
                let l = &service.levels;
                let values = [Some(l.cpu), Some(l.memory), l.disk, l.queue, l.latency];
                for ((peak, signal), value) in peaks.iter_mut().zip(&SIGNALS).zip(values) {
                    *peak = peak.max(value.unwrap_or(0.0) / signal.threshold);
                }
            }
        }
        days.push(peaks);
    }
    for (place, spec) in FLEET.iter().enumerate() {
        for (index, signal) in SIGNALS.iter().enumerate().filter(|(index, _)| 0.0 < days[0][place][*index]) {
            let row: Vec<String> = days.iter().map(|peaks| format!("{:.2}", peaks[place][index])).collect();
            println!("{:22} {:14} {:8} {}", spec.service(), spec.class.name(), signal.name, row.join(" "));
        }
    }
}
