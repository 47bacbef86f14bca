//! The journal: what must never be lost, changed or different the second time.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;

use super::*;
use crate::act::tests::{NOW, action};
use crate::act::{Attempt, Record};
use crate::forecast::{Eta, Foresight, Side};
use crate::health::{Assessment, ScalesWith, SignalAssessment, Standing};
use crate::model::{ComponentId, Labels, Millis, Timestamp};
use crate::plan::{
    self, Action, ActionKind, Capacity, Carry, Declined, Extension, Gates, Ledger, Outcome, Plan, PlanInput, Reason,
    Verdict,
};

pub(super) fn component(name: &str) -> ComponentId {
    ComponentId { kind: "deployment".to_owned(), labels: vec![("deployment".to_owned(), name.to_owned())] }
}

pub(super) fn assessment(name: &str, standing: Standing) -> Assessment {
    let mut foresight = Foresight::unknown(NOW, "for the test");
    foresight.path = Some(crate::forecast::Path {
        start: NOW,
        step: Millis::MINUTE,
        levels: vec![0.5],
        values: vec![vec![0.1 + 0.2, 1.0 / 3.0]],
    });
    let signal = SignalAssessment {
        rule: "saturation".to_owned(),
        signal: "cpu".to_owned(),
        group: "cpu".to_owned(),
        weight: 1.0,
        side: Side::Above,
        scales_with: ScalesWith::Replicas,
        severity: 0.5,
        foresight,
        peers: None,
    };
    Assessment {
        component: component(name),
        at: NOW,
        horizon: Millis::HOUR,
        standing,
        health: Some(0.1 + 0.2),
        slope_per_hour: None,
        rapid_decline: false,
        probability: Some(0.87),
        probability_low: Some(0.7),
        eta: Eta { q10: Some(Millis(600_000)), q50: Some(Millis(1_212_345)) },
        impact: 0.6,
        expected_loss: 0.4,
        rank: 1,
        signals: vec![signal],
        labels: Labels::new([("team", "checkout")]),
        target_namespace: String::new(),
        target_name: name.to_owned(),
    }
}

pub(super) fn input(now: Timestamp) -> PlanInput {
    PlanInput {
        now,
        assessments: vec![assessment("a", Standing::AtRisk), assessment("b", Standing::Steady)],
        capacity: Capacity::default(),
        policies: Vec::new(),
        ledger: Ledger::default(),
        carry: Carry::default(),
        gates: Gates { journal_ok: true, mode: plan::Mode::Act, ..Gates::default() },
    }
}

pub(super) fn declined(name: &str, reason: Reason) -> Declined {
    Declined {
        component: component(name),
        policy: "shop".to_owned(),
        action: Some(ActionKind::ScaleOut),
        reason,
        detail: "2 of 2 actions used".to_owned(),
        released_when: "in 10m".to_owned(),
    }
}

pub(super) fn plan_at(at: Timestamp, actions: Vec<Action>, declined: Vec<Declined>) -> Plan {
    Plan { at, actions, declined, ..Plan::default() }
}

/// A journal's life: two decisions, three actions, one of them never settled.
pub(super) fn live(journal: &Journal) -> Vec<String> {
    let first = plan_at(NOW, vec![action("a1"), action("a2")], vec![declined("b", Reason::Budget)]);
    let later = NOW + Millis::MINUTE;
    let mut second = plan_at(later, vec![action("a3")], vec![declined("c", Reason::InsufficientCapacity)]);
    let detail = "0.9 to 0.4".to_owned();
    second.verdicts = vec![Verdict { action_id: "a1".to_owned(), effective: true, achieved: Some(1.0), detail }];
    let until = NOW + Millis::DAY;
    second.extended = vec![Extension { action_id: "a1".to_owned(), until, detail: "still at risk".to_owned() }];
    second.disowned = vec!["a2".to_owned()];
    let mut ids = vec![journal.record_decision(&input(NOW), &first).expect("written")];
    journal.intent(&first.actions[0], NOW).expect("written");
    let failed = Attempt { number: 1, at: NOW, error: Some("no answer".to_owned()) };
    journal.attempt("a1", &failed).expect("written");
    journal.attempt("a1", &Attempt { number: 2, error: None, ..failed }).expect("written");
    journal.outcome("a1", Outcome::Confirmed, "it's \"done\"\n", Some(Millis(1500)), later).expect("written");
    journal.intent(&first.actions[1], NOW).expect("written");
    journal.outcome("a2", Outcome::Failed, "", None, later).expect("written");
    ids.push(journal.record_decision(&input(later), &second).expect("written"));
    journal.intent(&second.actions[0], later).expect("written");
    journal.note("mode", "mode is now `act`", later).expect("written");
    ids
}

/// Runs SQL on a journal's own connection.
pub(super) fn run_sql(journal: &Journal, sql: &str) {
    let ran = journal.read(|raw| raw.execute_batch(sql).map_err(|error| JournalError::Read(error.to_string())));
    assert_eq!(ran, Ok(()), "{sql}");
}

pub(super) fn export(journal: &Journal) -> String {
    let mut bytes = Vec::new();
    journal.export(&mut bytes).expect("memory takes everything");
    String::from_utf8(bytes).expect("the export is text")
}

/// A journal on disk, with what `live` writes, closed again.
fn on_disk(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("journal.db");
    live(&Journal::open(&path).expect("a new journal"));
    path
}

#[test]
fn two_journals_of_the_same_decisions_export_the_same_bytes() {
    let (one, other) = (Journal::in_memory(), Journal::in_memory());
    live(&one);
    live(&other);
    assert_eq!(export(&one), export(&other));
    assert_eq!(one.head(), other.head());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let reopened = Journal::open(&on_disk(folder.path())).expect("it is there");
    assert_eq!(export(&one), export(&reopened));
    assert_eq!(reopened.verify(), one.verify());
    assert_eq!(one.verify().expect("the chain holds"), Verified { rows: 13, head: one.head(), first: 1, segments: 1 });
}

#[test]
fn an_export_can_be_checked_without_forestall() {
    let journal = Journal::in_memory();
    live(&journal);
    assert_eq!(head_of(&export(&journal), "0".repeat(64)), journal.head());
}

/// Follows an export's hashes from one to the last, by what the format says and nothing else.
pub(super) fn head_of(export: &str, mut head: String) -> String {
    use sha2::Digest;
    for line in export.lines() {
        let whole: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        let (hashed, rest) = line.split_once(r#","hash":""#).expect("each line has its hash");
        head = format!("{:x?}", sha2::Sha256::digest(format!("{head}{hashed}}}")).as_slice())
            .split(|c: char| !c.is_ascii_hexdigit())
            .filter(|byte| !byte.is_empty())
            .map(|byte| format!("{byte:0>2}"))
            .collect();
        assert!(rest.starts_with(&head), "{line}");
        assert_eq!(whole["kind"] == "decision", whole.get("input").is_some());
    }
    head
}

#[test]
fn rows_can_be_neither_changed_nor_deleted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let raw = Connection::open(on_disk(folder.path())).expect("it is there");
    for sql in
        ["UPDATE journal SET body = '{}' WHERE seq = 1", "DELETE FROM journal", "DELETE FROM journal WHERE seq = 9"]
    {
        let error = raw.execute(sql, []).expect_err(sql);
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[test]
fn verification_finds_the_row_that_somebody_changed() {
    for (sql, seq, reason) in [
        ("UPDATE journal SET body = '{}' WHERE seq = 3", 3, "hash"),
        ("UPDATE journal SET at = at + 1 WHERE seq = 5", 5, "hash"),
        ("UPDATE journal SET hash = hash || '0' WHERE seq = 2", 2, "hash"),
        ("UPDATE journal SET input_sha256 = NULL WHERE seq = 1", 1, "hash"),
        ("DELETE FROM journal WHERE seq = 4", 4, "missing"),
        ("DELETE FROM journal WHERE seq = 1", 1, "missing"),
        ("UPDATE inputs SET body = x'03086e6f7065' WHERE decision = 8", 8, "input"),
        ("UPDATE inputs SET body = (SELECT body FROM inputs WHERE decision = 1) WHERE decision = 8", 8, "not the one"),
        ("UPDATE inputs SET body = x'ffffffff0f00' WHERE decision = 1", 1, "at most"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = on_disk(folder.path());
        let raw = Connection::open(&path).expect("it is there");
        raw.execute_batch("DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete;")
            .expect("a determined forger");
        assert_eq!(raw.execute(sql, []), Ok(1), "{sql}");
        let journal = Journal::open_read_only(&path).expect("it can be opened all the same");
        match journal.verify() {
            Err(JournalError::Broken { seq: at, reason: words }) => {
                assert_eq!(at, seq, "{sql}: {words}");
                assert!(words.contains(reason), "{sql}: {words}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    let journal = Journal::in_memory();
    assert_eq!(journal.verify().map(|whole| whole.rows), Ok(0));
}

#[test]
fn replays_a_decision_byte_for_byte() {
    let journal = Journal::in_memory();
    let planned = plan::plan(&input(NOW));
    let id = journal.record_decision(&input(NOW), &planned).expect("written");
    let replay = journal.replay(&id).expect("its input is kept");
    assert!(replay.same, "{} is not {}", replay.recorded, replay.replayed);
    let forged = Plan { actions: vec![action("a1")], ..planned };
    let id = journal.record_decision(&input(NOW), &forged).expect("written");
    let replay = journal.replay(&id).expect("its input is kept");
    assert!(!replay.same && replay.recorded.contains("a1") && !replay.replayed.contains("a1"));
    assert_eq!(journal.replay("d0"), Err(JournalError::NoDecision("d0".to_owned())));
}

#[test]
fn replays_an_action_that_the_planner_chose() {
    let mut input = input(NOW);
    let risky = &mut input.assessments[0];
    risky.signals[0].foresight.probability = Some(0.87);
    risky.signals[0].foresight.probability_low = Some(0.7);
    risky.signals[0].foresight.knowledge = crate::forecast::Knowledge::Known;
    risky.signals[0].foresight.limit = Some(crate::forecast::Limit { threshold: 0.9, warn: Some(0.8) });
    risky.signals[0].foresight.peak_q90 = Some(1.3);
    risky.signals[0].foresight.current = Some(0.7);
    risky.signals[0].foresight.age = Some(Millis::ZERO);
    input.policies = vec![policy()];
    let of = |cpu: f64| plan::Resources::from([("cpu".to_owned(), cpu)]);
    let node =
        plan::Node { name: "n1".to_owned(), allocatable: of(16.0), used: of(0.1 + 0.2), labels: Default::default() };
    input.capacity.pools = [("general".to_owned(), vec![node])].into();
    input.capacity.workloads = vec![plan::Workload {
        component: component("a"),
        pool: "general".to_owned(),
        replicas: 3,
        per_replica: of(0.7),
        priority: 5,
        replicas_min: 1,
        on_nodes: [("n1".to_owned(), 3)].into(),
    }];
    let planned = plan::plan(&input);
    assert_eq!(planned.actions.len(), 1, "{planned:?}");
    let journal = Journal::in_memory();
    let id = journal.record_decision(&input, &planned).expect("written");
    let replay = journal.replay(&id).expect("its input is kept");
    assert!(replay.same, "{}\nis not\n{}", replay.recorded, replay.replayed);
}

fn policy() -> plan::Policy {
    plan::Policy {
        name: "shop".to_owned(),
        selector: plan::Selector { kind: Some("deployment".to_owned()), labels: Default::default() },
        mode: plan::Mode::Act,
        enter_above: 0.5,
        enter_cycles: 1,
        exit_cycles: 1,
        cost_miss: 10.0,
        ladder: vec![plan::Rung {
            replicas_max: Some(10),
            factor_max: 3.0,
            actuation_time: Millis::SECOND,
            ..plan::Rung::new(ActionKind::ScaleOut, "hook")
        }],
        cooldown: Millis::MINUTE,
        expires_after: Millis::HOUR,
        verify: None,
        ..plan::Policy::default()
    }
}

#[test]
fn a_decision_comes_back_with_all_that_belongs_to_it() {
    let journal = Journal::in_memory();
    let ids = live(&journal);
    let first = journal.decision(&ids[0]).expect("readable").expect("it is there");
    assert_eq!((first.seq, first.at, first.plan.actions.len()), (1, NOW, 2));
    let kept = first.input.expect("the input is kept");
    assert_eq!(kept.assessments[0].health, Some(0.1 + 0.2), "floats come back to the bit");
    assert!(kept.assessments[0].signals[0].foresight.path.is_none(), "fans are not kept");
    assert_eq!(first.attempts["a1"].len(), 2);
    assert_eq!(first.outcomes["a1"].detail, "it's \"done\"\n");
    assert_eq!(first.outcomes["a1"].took, Some(Millis(1500)));
    assert_eq!(first.outcomes["a2"].outcome, Outcome::Failed);
    assert_eq!(first.verdicts["a1"].achieved, Some(1.0));
    assert!(journal.decision("nothing").expect("readable").is_none());
    journal.read(|raw| Ok(raw.execute("DELETE FROM inputs", []).expect("inputs may go"))).expect("done");
    assert!(journal.decision(&ids[0]).expect("readable").expect("it is there").input.is_none());
    assert_eq!(journal.replay(&ids[0]), Err(JournalError::InputGone(ids[0].clone())));
    assert!(journal.verify().is_ok(), "the chain holds without inputs");
}

#[test]
fn lists_decisions_by_filter() {
    let journal = Journal::in_memory();
    let ids = live(&journal);
    let later = NOW + Millis::MINUTE;
    let base = Filter::default();
    let (first, second, both) = (vec![ids[0].clone()], vec![ids[1].clone()], vec![ids[1].clone(), ids[0].clone()]);
    let shop = Some("deployment/shop/checkout".to_owned());
    for (filter, wanted) in [
        (base.clone(), both.clone()),
        (Filter { limit: Some(1), ..base.clone() }, second.clone()),
        (Filter { before: Some(8), ..base.clone() }, first.clone()),
        (Filter { since: Some(later), ..base.clone() }, second.clone()),
        (Filter { until: Some(NOW), ..base.clone() }, first.clone()),
        (Filter { component: shop.clone(), ..base.clone() }, both),
        (Filter { component: Some("deployment/b".to_owned()), ..base.clone() }, first.clone()),
        (Filter { component: Some("deployment/shop".to_owned()), ..base.clone() }, Vec::new()),
        (Filter { outcome: Some(Outcome::Failed), ..base.clone() }, first.clone()),
        (Filter { reason: Some(Reason::InsufficientCapacity), ..base.clone() }, second),
        (Filter { reason: Some(Reason::Budget), outcome: Some(Outcome::Confirmed), ..base.clone() }, first),
        (Filter { reason: Some(Reason::Budget), component: shop, ..base.clone() }, Vec::new()),
        (Filter { limit: Some(0), ..base }, Vec::new()),
    ] {
        let found: Vec<String> =
            journal.decisions(&filter).expect("readable").into_iter().map(|summary| summary.id).collect();
        assert_eq!(found, wanted, "{filter:?}");
    }
    let summary = &journal.decisions(&Filter::default()).expect("readable")[1];
    assert_eq!(summary.actions[0].outcome, Some(Outcome::Confirmed));
    assert_eq!(summary.declined[0].reason, Reason::Budget);
}

#[test]
fn the_ledger_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = on_disk(folder.path());
    let journal = Journal::open(&path).expect("it is there");
    let ledger = journal.ledger(NOW);
    let outcomes: Vec<_> = ledger.actions.iter().map(|past| (past.action.id.as_str(), past.outcome)).collect();
    assert_eq!(outcomes, [("a1", Some(Outcome::Confirmed)), ("a2", Some(Outcome::Failed)), ("a3", None)]);
    assert_eq!(ledger.actions[0].took, Some(Millis(1500)));
    assert_eq!(ledger.actions[0].settled_at, Some(NOW + Millis::MINUTE));
    let found_out = (ledger.actions[0].effective, ledger.actions[0].action.expires_at, ledger.actions[1].disowned);
    assert_eq!(found_out, (Some(true), Some(NOW + Millis::DAY), true));
    journal.outcome("a3", Outcome::Applied, "looked up", None, NOW).expect("written");
    assert_eq!(journal.ledger(NOW).actions[2].outcome, Some(Outcome::Applied));
    assert_eq!(Journal::open_read_only(&path).expect("it is there").ledger(NOW), journal.ledger(NOW));
}

#[test]
fn the_ledger_knows_what_was_given_back_and_forgets_what_is_over() {
    let journal = Journal::in_memory();
    let undo = |id: &str, of: &str| Action { undoes: Some(of.to_owned()), undo: None, ..action(id) };
    let week = NOW + Millis::DAY * 8;
    for (one, outcome) in [
        (action("kept"), Outcome::Applied),
        (action("given-back"), Outcome::Confirmed),
        (action("never-done"), Outcome::Failed),
        (undo("u1", "given-back"), Outcome::Applied),
        (undo("u2", "kept"), Outcome::Failed),
    ] {
        journal.intent(&one, NOW).expect("written");
        journal.outcome(&one.id, outcome, "", None, NOW).expect("written");
    }
    let undone: Vec<_> = journal.ledger(NOW).actions.into_iter().filter_map(|past| past.undone_by).collect();
    assert_eq!(undone, ["u1"]);
    let left: Vec<_> = journal.ledger(week).actions.into_iter().map(|past| past.action.id).collect();
    assert_eq!(left, ["kept"], "it is still to be given back");
}

#[test]
fn a_full_journal_says_so_and_stays_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = on_disk(folder.path());
    let journal = Journal::open(&path).expect("it is there");
    let set = |pages: &str| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        let now = journal.read(|raw| {
            raw.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(|e| JournalError::Read(e.to_string()))
        });
        assert!(now.is_ok(), "{now:?}");
    };
    set("1");
    let big = |id: &str| Action { policy: "x".repeat(100_000), ..action(id) };
    let before = journal.head();
    let error = journal.intent(&big("a9"), NOW).expect_err("there is no room");
    assert!(error.to_string().contains("cannot be written: database or disk is full"), "{error}");
    let error = journal.record_decision(&input(NOW), &plan_at(NOW, vec![big("a9")], Vec::new()));
    assert!(matches!(error, Err(JournalError::Write(_))), "{error:?}");
    assert_eq!(journal.head(), before);
    assert!(journal.ledger(NOW).actions.iter().all(|past| past.action.id != "a9"), "what is not written is not done");
    set("1000000");
    journal.intent(&big("a9"), NOW).expect("there is room again");
    assert!(journal.verify().is_ok());
}

#[test]
fn a_second_writer_cannot_fork_the_chain() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = on_disk(folder.path());
    let (one, other) = (Journal::open(&path).expect("there"), Journal::open(&path).expect("there"));
    one.note("mode", "observe", NOW).expect("written");
    assert!(matches!(other.note("mode", "act", NOW), Err(JournalError::Write(_))));
    assert!(one.verify().is_ok());
    let reader = Journal::open_read_only(&path).expect("there");
    assert!(matches!(reader.note("mode", "act", NOW), Err(JournalError::Write(_))));
    assert_eq!(reader.decisions(&Filter::default()).expect("readable").len(), 2);
}

#[test]
fn refuses_files_that_are_no_journal_or_a_newer_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = on_disk(folder.path());
    Connection::open(&path).expect("there").execute_batch("PRAGMA user_version = 3").expect("set");
    let text = folder.path().join("text");
    std::fs::write(&text, "this is not a database, it is a text of some length".repeat(40)).expect("written");
    for (file, wanted) in [
        (path, "it has version 3, this forestall knows 2"),
        (text, "not a database"),
        (folder.path().join("no/such/folder"), "unable to open"),
    ] {
        let error = Journal::open(&file).expect_err(wanted).to_string();
        assert!(error.contains(wanted) && error.contains(&file.display().to_string()), "{error}");
    }
    assert!(Journal::open_read_only(&folder.path().join("absent")).is_err());
}

#[test]
fn only_decisions_that_say_something_new_are_kept() {
    let quiet = plan_at(NOW, Vec::new(), Vec::new());
    let budget = plan_at(NOW, Vec::new(), vec![declined("a", Reason::Budget)]);
    let mut reworded = budget.clone();
    reworded.declined[0].detail = "other words".to_owned();
    let window = plan_at(NOW, Vec::new(), vec![declined("a", Reason::Window)]);
    let acting = plan_at(NOW, vec![action("a1")], Vec::new());
    let waiting = Plan { waiting: vec![action("w1")], ..quiet.clone() };
    let waiting_still = Plan { waiting: vec![action("w2")], ..quiet.clone() };
    let disowning = Plan { disowned: vec!["a1".to_owned()], ..quiet.clone() };
    for (last, plan, wanted) in [
        (None, &quiet, false),
        (None, &budget, true),
        (Some(&budget), &reworded, false),
        (Some(&budget), &window, true),
        (Some(&budget), &quiet, true),
        (Some(&quiet), &quiet, false),
        (Some(&acting), &acting, true),
        (Some(&quiet), &waiting, true),
        (Some(&waiting), &waiting_still, false),
        (Some(&waiting), &quiet, true),
        (Some(&disowning), &disowning, true),
    ] {
        assert_eq!(worth_keeping(last, plan), wanted, "{last:?} then {plan:?}");
    }
}

#[test]
fn ids_of_decisions_differ() {
    let journal = Journal::in_memory();
    let ids: BTreeSet<String> = live(&journal).into_iter().collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().all(|id| id.starts_with("d1700000")), "{ids:?}");
}
