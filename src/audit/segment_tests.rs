//! Segments: nothing is lost when one is closed, whenever the process ends; what is deleted was said to be.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::journal_tests::{export, head_of, input, live, plan_at};
use super::segments::{Files, RollOver, STEPS, leave_wal};
use super::*;
use crate::act::tests::{NOW, action};
use crate::act::{Attempt, Record};
use crate::model::Millis;
use crate::plan::{Outcome, Pause, PauseScope};

/// Each call of [`Journal::tend`] closes the live file.
const SMALL: SegmentSettings =
    SegmentSettings { segment_bytes: 1, retention: Millis(Millis::DAY.0 * 365), closed_bytes_max: u64::MAX };

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("journal.sqlite");
    (folder, path)
}

fn open(path: &Path) -> Journal {
    Journal::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// A journal of three segments with something of each sort in the first, and what a plan decided on there that is settled
/// in the third.
fn three_segments(path: &Path) -> (Journal, Vec<String>) {
    let journal = open(path);
    let mut ids = live(&journal);
    let pause = Pause { scope: PauseScope::All, reason: "r".to_owned(), by: "ada".to_owned(), since: NOW, until: None };
    journal.pause(pause, NOW).expect("written");
    journal.tend(&SMALL, NOW).expect("closed");
    journal.attempt("a3", &Attempt { number: 1, at: NOW, error: Some("busy".to_owned()) }).expect("written");
    let at = NOW + Millis::HOUR;
    ids.push(journal.record_decision(&input(at), &plan_at(at, vec![action("a4")], Vec::new())).expect("written"));
    journal.intent(&action("a4"), at).expect("written");
    journal.tend(&SMALL, at).expect("closed");
    journal.attempt("a3", &Attempt { number: 2, at, error: None }).expect("written");
    journal.outcome("a3", Outcome::Expired, "late", None, at).expect("written");
    (journal, ids)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    names.sort();
    names
}

#[test]
fn closed_segments_and_the_live_file_are_one_journal() {
    let (folder, path) = folder();
    let (journal, ids) = three_segments(&path);
    assert_eq!(names(folder.path()), ["journal-000001.sqlite", "journal-000002.sqlite", "journal.sqlite"]);
    let whole = journal.verify().expect("the chain holds");
    assert_eq!((whole.rows, whole.first, whole.segments), (14 + 4 + 3, 1, 3));
    assert_eq!(head_of(&export(&journal), "0".repeat(64)), whole.head);
    for again in [&journal, &Journal::open_read_only(&path).expect("it is there")] {
        assert_eq!(again.verify().as_ref(), Ok(&whole));
        let listed = |filter: Filter| {
            let found = again.decisions(&filter).expect("readable");
            found.into_iter().map(|summary| summary.id).collect::<Vec<_>>()
        };
        let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
        assert_eq!(listed(Filter::default()), newest_first);
        assert_eq!(listed(Filter { limit: Some(2), ..Filter::default() }), newest_first[..2]);
        let second = again.decision(&ids[1]).expect("readable").expect("it is there").seq;
        assert_eq!(listed(Filter { before: Some(second), ..Filter::default() }), ids[..1]);
        assert_eq!(listed(Filter { outcome: Some(Outcome::Expired), ..Filter::default() }), ids[1..2]);
        assert_eq!(listed(Filter { outcome: Some(Outcome::Confirmed), ..Filter::default() }), ids[..1]);
        assert_eq!(listed(Filter { outcome: Some(Outcome::Unchanged), ..Filter::default() }), Vec::<String>::new());
        let record = again.decision(&ids[1]).expect("readable").expect("it is there");
        assert_eq!((record.attempts["a3"].len(), record.outcomes["a3"].outcome), (2, Outcome::Expired));
        assert_eq!(again.attempts("a3").expect("readable").len(), 2);
        assert!(again.replay(&ids[0]).is_ok() && again.replay(&ids[2]).is_ok());
    }
}

#[test]
fn what_still_matters_goes_on_from_segment_to_segment() {
    let (_folder, path) = folder();
    let (journal, _) = three_segments(&path);
    let one_file = Journal::in_memory();
    live(&one_file);
    one_file.intent(&action("a4"), NOW).expect("written");
    one_file.outcome("a3", Outcome::Expired, "late", None, NOW + Millis::HOUR).expect("written");
    assert_eq!(journal.ledger(NOW), one_file.ledger(NOW), "as if it were one file");
    assert!(journal.forbids(&action("x"), NOW).is_some(), "a pause holds on");
    let again = open(&path);
    assert_eq!((again.ledger(NOW), again.controls()), (journal.ledger(NOW), journal.controls()));
    assert_eq!((again.head(), again.witness()), (journal.head(), journal.witness()));
    again.note("on", "it goes on", NOW).expect("written");
    assert!(again.verify().is_ok());
}

#[test]
fn a_crash_after_any_step_of_a_roll_over_loses_nothing() {
    for steps in 0..=STEPS.len() {
        let (folder, path) = folder();
        let journal = open(&path);
        live(&journal);
        let (ledger, before) = (journal.ledger(NOW), journal.verify().expect("whole"));
        let files = Files { live: path.clone() };
        let mut roll_over = {
            let state = journal.state.lock();
            leave_wal(&state.connection).expect("nobody else has it");
            RollOver::of(&state, &files, Controls::default(), NOW)
        };
        drop(journal);
        for step in &STEPS[..steps] {
            step(&mut roll_over).expect("the disk is good");
        }
        let reader = Journal::open_read_only(&path).expect("it can be read as it is");
        assert!(reader.verify().is_ok(), "after {steps} steps");
        drop(reader);
        let again = open(&path);
        let after = again.verify().unwrap_or_else(|error| panic!("after {steps} steps: {error}"));
        let rolled_over = i64::from(steps >= 3);
        assert_eq!((after.rows, after.segments), (before.rows + rolled_over, if steps >= 3 { 2 } else { 1 }));
        assert_eq!(again.ledger(NOW), ledger, "after {steps} steps");
        again.note("on", "it goes on", NOW).expect("written");
        again.tend(&SMALL, NOW).expect("and is closed");
        assert!(again.verify().is_ok(), "after {steps} steps");
        assert!(names(folder.path()).iter().all(|name| !name.ends_with(".next")), "{:?}", names(folder.path()));
    }
}

#[test]
fn a_segment_is_closed_when_it_is_large_or_old_and_nobody_else_has_it() {
    let (folder, path) = folder();
    let journal = open(&path);
    let settings = SegmentSettings { segment_bytes: 1 << 20, retention: Millis::DAY * 8, closed_bytes_max: u64::MAX };
    journal.tend(&settings, NOW).expect("nothing is due");
    live(&journal);
    journal.tend(&settings, NOW + Millis::DAY * 2).expect("nothing is due");
    assert_eq!(names(folder.path()), ["journal.sqlite"]);
    let reader = Journal::open_read_only(&path).expect("it is there");
    let due = NOW + Millis::DAY * 2 + Millis(1);
    assert_eq!(journal.tend(&settings, due), Err(JournalError::InUse));
    journal.note("on", "it goes on all the same", due).expect("written");
    drop(reader);
    journal.tend(&settings, due).expect("closed: it is old");
    assert_eq!(names(folder.path()).len(), 2);
    for number in 0..20 {
        journal.note("big", &format!("{number}{}", "x".repeat(100_000)), due).expect("written");
    }
    let _ = journal.read(|raw| {
        raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(|e| JournalError::Read(e.to_string()))
    });
    journal.tend(&settings, due).expect("closed: it is large");
    assert_eq!(names(folder.path()).len(), 3);
    assert!(journal.verify().is_ok());
}

#[test]
fn what_is_too_old_or_too_much_is_deleted_whole_and_said_to_be() {
    let (folder, path) = folder();
    let (journal, ids) = three_segments(&path);
    let before = (journal.ledger(NOW), journal.controls());
    let whole = journal.verify().expect("whole");
    let witness = journal.witness();
    // The newest row of the first segment is a minute after `NOW`, that of the second an hour.
    let at = NOW + Millis::DAY + Millis::MINUTE * 2;
    let settings = SegmentSettings { segment_bytes: u64::MAX, retention: Millis::DAY, closed_bytes_max: u64::MAX };
    journal.tend(&SegmentSettings { retention: Millis::DAY * 5, ..settings }, at).expect("nothing is that old");
    assert_eq!(names(folder.path()).len(), 3);
    journal.tend(&settings, at).expect("deleted");
    let left = names(folder.path());
    assert!(!left.contains(&"journal-000001.sqlite".to_owned()), "{left:?}");
    let after = journal.verify().expect("a row says so");
    assert_eq!(after.first, 15);
    assert_eq!(after.rows, whole.rows + 2, "a segment began, and one was deleted");
    assert_eq!((journal.ledger(NOW), journal.controls()), before, "budgets and pauses hold on");
    let listed = journal.decisions(&Filter::default()).expect("readable");
    assert_eq!(listed.into_iter().map(|summary| summary.id).collect::<Vec<_>>(), ids[2..]);
    assert!(journal.verify_against(Some(witness)).is_ok());
    let old = Witness { rows: 3, value: 1 };
    assert_eq!(journal.verify_against(Some(old)), Err(JournalError::WitnessGone(3)));
    let none = SegmentSettings { segment_bytes: u64::MAX, closed_bytes_max: 0, ..SMALL };
    journal.tend(&none, at).expect("deleted");
    assert_eq!(names(folder.path()), ["journal.sqlite"]);
    assert!(journal.verify().is_ok());
    let again = open(&path);
    assert_eq!(again.ledger(NOW), journal.ledger(NOW));
}

/// What somebody does to the files, and what verification says of it.
fn check_forged(what: &str, forge: impl FnOnce(&Path), part: &str) {
    let (folder, path) = folder();
    drop(three_segments(&path));
    forge(folder.path());
    let found = Journal::open_read_only(&path).and_then(|journal| journal.verify());
    let error = found.expect_err(what).to_string();
    assert!(error.contains(part), "{what}: {error}");
}

#[test]
fn a_segment_that_is_gone_or_changed_is_found() {
    let remove = |name: &'static str| move |folder: &Path| std::fs::remove_file(folder.join(name)).expect("gone");
    check_forged(
        "the first is gone",
        remove("journal-000001.sqlite"),
        "journal-000001.sqlite is gone, and no row says",
    );
    check_forged("the second is gone", remove("journal-000002.sqlite"), "not as it was when it was closed, or gone");
    check_forged("the live one is gone", remove("journal.sqlite"), "it is gone, and");
    let forged = |sql: &'static str| {
        move |folder: &Path| {
            let file = folder.join("journal-000001.sqlite");
            let mut permissions = std::fs::metadata(&file).expect("it is there").permissions();
            assert!(permissions.readonly(), "a closed segment is read-only");
            #[expect(clippy::permissions_set_readonly_false, reason = "a determined forger")]
            permissions.set_readonly(false);
            std::fs::set_permissions(&file, permissions).expect("a determined forger");
            let raw = Connection::open(&file).expect("it is there");
            raw.execute_batch("DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete;").expect("and more so");
            raw.execute(sql, []).expect("done");
        }
    };
    check_forged("a row is changed", forged("UPDATE journal SET body = '{}' WHERE seq = 3"), "row 3: its hash");
    check_forged("the last row is cut off", forged("DELETE FROM journal WHERE seq = 14"), "row 15: it goes on from");
    check_forged("an index is changed", forged("DELETE FROM entries"), "row 15: it goes on from");
    check_forged(
        "two are exchanged",
        |folder| {
            let (one, two) = (folder.join("journal-000001.sqlite"), folder.join("journal-000002.sqlite"));
            std::fs::rename(&one, folder.join("x")).expect("moved");
            std::fs::rename(&two, &one).expect("moved");
            std::fs::rename(folder.join("x"), &two).expect("moved");
        },
        "broken at row",
    );
}

#[test]
fn refuses_to_go_on_from_segments_that_do_not_belong_to_it() {
    let (folder, path) = folder();
    drop(three_segments(&path));
    std::fs::rename(folder.path().join("journal-000002.sqlite"), folder.path().join("journal-000007.sqlite"))
        .expect("moved");
    let error = Journal::open(&path).expect_err("7 is not 2").to_string();
    assert!(error.contains("segment 3 and does not go on from"), "{error}");
    std::fs::remove_file(&path).expect("gone");
    let error = Journal::open(&path).expect_err("nothing goes on from there").to_string();
    assert!(error.contains("bring it back"), "{error}");
    assert!(!path.exists(), "and none is begun anew");
}

#[test]
fn a_witness_finds_rows_that_were_cut_off_or_changed() {
    let journal = Journal::in_memory();
    assert_eq!(journal.witness(), Witness { rows: 0, value: 0 });
    live(&journal);
    let seen = journal.witness();
    assert_eq!((seen.rows, seen.value >> 48), (13, 0));
    assert_eq!(format!("{:012x}", seen.value), journal.head()[..12]);
    journal.note("on", "it goes on", NOW).expect("written");
    assert!(journal.verify_against(Some(seen)).is_ok());
    let other = Witness { value: seen.value ^ 1, ..seen };
    assert!(matches!(journal.verify_against(Some(other)), Err(JournalError::Broken { seq: 13, .. })));
    let more = Witness { rows: 20, value: 1 };
    match journal.verify_against(Some(more)) {
        Err(JournalError::Broken { seq: 15, reason }) => assert!(reason.contains("cut off"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_closed_goes_on_as_it_is() {
    let (folder, path) = folder();
    let journal = open(&path);
    live(&journal);
    // Something is in the way of the closed file's name.
    std::fs::create_dir(folder.path().join("journal-000001.sqlite")).expect("a folder");
    let settings = SMALL;
    let error = journal.tend(&settings, NOW).expect_err("it is in the way").to_string();
    assert!(error.contains("journal-000001.sqlite is in the way"), "{error}");
    std::fs::remove_dir(folder.path().join("journal-000001.sqlite")).expect("gone");
    journal.note("on", "it goes on", NOW).expect("written");
    assert_eq!(journal.verify().expect("whole").segments, 1);
    journal.tend(&settings, NOW).expect("closed");
    assert_eq!(journal.verify().expect("whole").segments, 2);
}
