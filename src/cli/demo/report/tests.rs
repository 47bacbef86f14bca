//! Reports worked out by hand.

use super::*;
use crate::cli::demo::world::Class;
use crate::model::ComponentId;
use crate::plan::{Action, Target, Why};

const START: Timestamp = Timestamp::from_secs(1_767_225_600);

fn at(hour: i64) -> Timestamp {
    START + Millis::HOUR * hour
}

fn failure(service: &str, from_hour: i64, to_hour: i64) -> Failure {
    let spec = FLEET.iter().find(|spec| spec.service() == service).expect("a service of the fleet");
    let signal = match spec.class {
        Class::MemoryLeak => "memory",
        Class::QueueBacklog => "queue",
        _ => "cpu",
    };
    let (class, preventable) = (spec.class, spec.preventable());
    Failure { service: service.to_owned(), class, signal, began: at(from_hour), ended: Some(at(to_hour)), preventable }
}

fn past(id: &str, kind: ActionKind, service: &str, hour: i64, outcome: Outcome) -> PastAction {
    let (namespace, name) = service.split_once('/').expect("namespace/name");
    let component = ComponentId { kind: "deployment".to_owned(), labels: Vec::new() };
    let signal = "saturation/cpu".to_owned();
    let (from, to) = if kind == ActionKind::Evict { (5, 4) } else { (4, 6) };
    let action = Action {
        id: id.to_owned(),
        policy: "demo".to_owned(),
        rung: 0,
        kind,
        actuator: "fleet".to_owned(),
        target: Target { component, namespace: namespace.to_owned(), name: name.to_owned() },
        change: Change::Replicas { from, to },
        why: Why {
            probability: 0.9,
            eta: None,
            expected_loss: 0.5,
            signal,
            peak: None,
            sentence: String::new(),
            predictions: Vec::new(),
        },
        decided_at: at(hour),
        expires_at: None,
        undo: None,
        undoes: None,
        makes_room_for: None,
        dry_run: false,
    };
    PastAction { outcome: Some(outcome), ..PastAction::new(action) }
}

fn report(twin: &[Failure], world: &[Failure], actions: &[PastAction], insufficient: &[(String, Timestamp)]) -> Report {
    let evidence = Evidence { seed: 1, start: START, twin, world, actions, insufficient, evicted_replica_minutes: 7 };
    Report::new(&evidence)
}

#[test]
fn tells_what_was_prevented_missed_impossible_and_caused() {
    let twin = [
        failure("core/sessions", 110, 112),
        failure("pay/payments", 130, 133),
        failure("pay/wallboard", 140, 143),
        failure("shop/coupons", 150, 151),
        failure("shop/catalog", 160, 163),
    ];
    let world = [
        failure("pay/wallboard", 140, 143),
        failure("shop/coupons", 150, 151),
        failure("shop/catalog", 167, 168),
        failure("pay/reports", 131, 132),
    ];
    let mut evict = past("e", ActionKind::Evict, "pay/reports", 126, Outcome::Confirmed);
    evict.action.makes_room_for = Some("p".to_owned());
    let mut undo = past("u", ActionKind::ScaleOut, "pay/payments", 135, Outcome::Confirmed);
    undo.action.undoes = Some("p".to_owned());
    let actions = [
        past("s", ActionKind::ScaleOut, "core/sessions", 108, Outcome::Confirmed),
        evict,
        past("p", ActionKind::ScaleOut, "pay/payments", 126, Outcome::Confirmed),
        undo,
        past("c", ActionKind::ScaleOut, "shop/catalog", 159, Outcome::Failed),
    ];
    let insufficient = [("pay/wallboard".to_owned(), at(137)), ("pay/wallboard".to_owned(), at(138))];
    let report = report(&twin, &world, &actions, &insufficient);
    assert_eq!((report.preventable, report.prevented), (3, 2));
    assert_eq!((report.failures_without, report.failures_with, report.failures_caused), (5, 4, 1));
    assert_eq!((report.actions, report.evictions, report.undone, report.actions_failed), (2, 1, 1, 1));
    assert_eq!((report.insufficient, report.false_actions), (1, 0));
    assert_eq!(report.lead_seconds_median, Some(3 * 3600));
    let verdicts: Vec<Verdict> = report.failures.iter().map(|row| row.result).collect();
    use Verdict::{Caused, Insufficient, Missed, Prevented, Sudden};
    // The catalog's failure was only put off by four hours.
    assert_eq!(verdicts, [Prevented, Prevented, Insufficient, Sudden, Missed, Caused]);
    insta::assert_snapshot!(report.table(), @r"
    SERVICE               CLASS          WHEN         LEAD     ACTION                        RESULT
    core/sessions         memory leak    day 5 14:00  2h 00m   scale out 4 to 6              prevented
    pay/payments          season growth  day 6 10:00  4h 00m   scale out 4 to 6, 1 evicted   prevented
    pay/wallboard         season growth  day 6 20:00  -        -                             no capacity
    shop/coupons          sudden crash   day 7 06:00  -        -                             no precursor
    shop/catalog          season growth  day 7 16:00  -        -                             FAILED
    pay/reports           steady         day 6 11:00  -        -                             CAUSED

    seed, services            1, 42
    failures without / with   5 / 4
    prevented                 2 of 3 preventable (66 %)
    median lead               3h 00m
    actions                   2 carried out, 1 given back, 1 failed
    evictions                 1 (7 replica minutes taken)
    insufficient capacity     1
    false actions             0
    failures caused           1
    ");
}

#[test]
fn an_action_is_false_when_nothing_calls_for_it_within_one_and_a_half_horizons() {
    let twin = [failure("shop/catalog", 160, 163)];
    for (service, hour, is_false) in [
        ("shop/catalog", 150, true),
        ("shop/catalog", 151, false),
        ("shop/catalog", 162, false),
        ("shop/catalog", 164, true),
        ("web/gateway", 158, true),
        ("nobody/knows", 158, true),
    ] {
        let done = |kind, outcome| report(&twin, &[], &[past("a", kind, service, hour, outcome)], &[]).false_actions;
        assert_eq!(done(ActionKind::ScaleOut, Outcome::Confirmed) == 1, is_false, "{service} at {hour}");
        assert_eq!(done(ActionKind::Evict, Outcome::Confirmed), 0);
        assert_eq!(done(ActionKind::ScaleOut, Outcome::DryRun), 0);
    }
}

#[test]
fn an_empty_demo_has_an_empty_report() {
    let report = report(&[], &[], &[], &[]);
    assert_eq!((report.preventable, report.prevented, report.lead_seconds_median), (0, 0, None));
    let json = serde_json::to_value(&report).expect("a report is plain data");
    for key in [
        "seed",
        "services",
        "preventable",
        "failures_without",
        "failures_with",
        "prevented",
        "lead_seconds_median",
        "actions",
        "evictions",
        "insufficient",
        "false_actions",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
}

#[test]
fn no_line_of_the_table_is_wider_than_a_hundred_columns() {
    let mut away = past("a", ActionKind::Migrate, "core/sessions", 109, Outcome::Confirmed);
    away.action.change = Change::Move { from_nodes: vec!["general-1".to_owned(); 9] };
    let table = report(&[failure("core/sessions", 110, 112)], &[], &[away], &[]).table();
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    assert!(table.contains("migrate off general-1"), "{table}");
}
