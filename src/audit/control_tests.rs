//! What persons say: it holds at once, and after a restart as before it.

use std::path::Path;

use super::journal_tests::{component, run_sql};
use super::*;
use crate::act::Record;
use crate::act::tests::{NOW, action};
use crate::model::{Millis, Timestamp};
use crate::plan::{
    Action, Anomaly, Breaker, Capacity, Carry, Gates, Ledger, Mode, Pause, PauseScope, Plan, PlanInput, Streak, Target,
    Withheld,
};

fn input() -> PlanInput {
    PlanInput {
        now: NOW,
        assessments: Vec::new(),
        capacity: Capacity::default(),
        policies: Vec::new(),
        ledger: Ledger::default(),
        carry: Carry::default(),
        gates: Gates::default(),
    }
}

fn pause(scope: PauseScope, until: Option<Timestamp>) -> Pause {
    Pause { scope, reason: "a deploy".to_owned(), by: "ada".to_owned(), since: NOW, until }
}

fn said() -> Said {
    Said::new("ada", "all is well")
}

/// An offer to `deployment/a`.
fn offer(id: &str) -> Vec<Action> {
    let target = Target { component: component("a"), namespace: String::new(), name: "a".to_owned() };
    vec![Action { target, ..action(id) }]
}

/// Writes to a journal, and gives what holds after it was opened again, which must be what held before.
fn restarted(write: impl FnOnce(&Journal)) -> Controls {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("journal.sqlite");
    let journal = Journal::open(&path).expect("a new journal");
    write(&journal);
    let before = journal.controls();
    drop(journal);
    let after = Journal::open(&path).expect("it is there").controls();
    assert_eq!(after, before);
    assert_eq!(Journal::open_read_only(&path).expect("it is there").controls(), after);
    after
}

/// Whether what a journal's pauses say to an action of policy `shop` on `deployment/shop/checkout`.
fn holds(journal: &Journal, at: Timestamp) -> bool {
    journal.forbids(&action("a1"), at).is_some()
}

#[test]
fn a_pause_holds_for_its_scope_and_its_time_and_survives_a_restart() {
    let scopes = [
        (PauseScope::All, true),
        (PauseScope::Policy("shop".to_owned()), true),
        (PauseScope::Policy("other".to_owned()), false),
        (PauseScope::Kind("deployment".to_owned()), true),
        (PauseScope::Kind("node".to_owned()), false),
        (PauseScope::Component("deployment/shop/checkout".to_owned()), true),
        (PauseScope::Component("deployment/shop".to_owned()), false),
    ];
    for (scope, wanted) in scopes {
        let until = NOW + Millis::HOUR;
        let after = restarted(|journal| {
            journal.pause(pause(scope.clone(), Some(until)), NOW).expect("written");
            assert_eq!(holds(journal, until - Millis(1)), wanted, "{scope:?}");
            assert!(!holds(journal, until), "{scope:?}: its time is over");
        });
        assert_eq!(after.pauses, [pause(scope, Some(until))]);
    }
}

#[test]
fn a_pause_takes_the_place_of_that_of_its_scope_and_is_lifted_by_it() {
    let after = restarted(|journal| {
        journal.pause(pause(PauseScope::All, Some(NOW + Millis::HOUR)), NOW).expect("written");
        journal.pause(pause(PauseScope::All, None), NOW).expect("written");
        journal.pause(pause(PauseScope::Kind("node".to_owned()), None), NOW).expect("written");
        assert_eq!(journal.controls().pauses.len(), 2);
        assert!(holds(journal, NOW + Millis::DAY * 1000));
        assert_eq!(journal.lift(&PauseScope::Kind("pod".to_owned()), said(), NOW), Ok(false));
        assert_eq!(journal.lift(&PauseScope::All, said(), NOW), Ok(true));
        assert!(!holds(journal, NOW));
    });
    assert_eq!(after.pauses, [pause(PauseScope::Kind("node".to_owned()), None)]);
}

#[test]
fn there_is_a_bound_to_what_is_paused_at_once() {
    let journal = Journal::in_memory();
    let kind = |number: usize| PauseScope::Kind(format!("k{number}"));
    let short = NOW + Millis::MINUTE;
    for number in 0..PAUSES_MAX {
        journal.pause(pause(kind(number), (number == 0).then_some(short)), NOW).expect("within the bound");
    }
    assert_eq!(journal.pause(pause(PauseScope::All, None), NOW), Err(JournalError::TooManyPauses));
    assert!(!holds(&journal, NOW), "what is refused does not hold");
    journal.pause(pause(kind(1), None), NOW).expect("in place of another");
    journal.pause(pause(PauseScope::All, None), short).expect("what is over makes room");
}

#[test]
fn a_pause_that_a_clock_ahead_had_ended_holds_when_the_clock_is_right_again() {
    let journal = Journal::in_memory();
    let until = NOW + Millis::MINUTE * 5;
    journal.pause(pause(PauseScope::All, Some(until)), NOW).expect("within the bound");
    let ahead = until + Millis::HOUR;
    assert!(!holds(&journal, ahead));
    journal.pause(pause(PauseScope::Kind("other".to_owned()), None), ahead).expect("within the bound");
    assert!(holds(&journal, NOW), "the first one is not over by a clock that is right");
}

#[test]
fn a_pause_holds_also_while_the_journal_is_full_and_is_written_when_it_can_be() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("journal.sqlite");
    let journal = Journal::open(&path).expect("a new journal");
    let full = "CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    run_sql(&journal, full);
    let error = journal.pause(pause(PauseScope::All, None), NOW).expect_err("it cannot be written");
    assert!(matches!(error, JournalError::Write(_)), "{error}");
    assert!(holds(&journal, NOW));
    assert!(journal.write_pauses(NOW).is_err());
    assert!(matches!(journal.lift(&PauseScope::All, said(), NOW), Err(JournalError::Write(_))));
    assert!(holds(&journal, NOW), "what is not written is not lifted");
    run_sql(&journal, "DROP TRIGGER full");
    assert_eq!(journal.write_pauses(NOW), Ok(()));
    drop(journal);
    assert!(holds(&Journal::open(&path).expect("it is there"), NOW));
}

#[test]
fn an_answer_to_an_offer_survives_a_restart_until_it_is_used_up() {
    let waiting = |id: &str| Carry { waiting: [("deployment/a".to_owned(), offer(id))].into(), ..Carry::default() };
    for (answer, then) in [(Answer::Approve, Answer::Decline), (Answer::Decline, Answer::Approve)] {
        let approved = |answer: Answer| [(answer == Answer::Approve).then(|| "w1".to_owned())].into_iter().flatten();
        let declined = |answer: Answer| [(answer == Answer::Decline).then(|| "w1".to_owned())].into_iter().flatten();
        let after = restarted(|journal| {
            journal.answer(&offer("w1"), answer, said(), NOW).expect("written");
        });
        assert!(
            after.approved.iter().cloned().eq(approved(answer)) && after.declined.iter().cloned().eq(declined(answer))
        );
        assert_eq!(after.carry(NOW).waiting["deployment/a"], offer("w1"), "the offer itself comes back");
        assert!(after.carry(NOW).streaks["deployment/a"].entered, "what waits has entered");
        let after = restarted(|journal| {
            journal.answer(&offer("w1"), answer, said(), NOW).expect("written");
            journal.answer(&offer("w1"), then, said(), NOW).expect("written");
            let plan = Plan { at: NOW, carry: waiting("w1"), ..Plan::default() };
            journal.record_decision(&input(), &plan).expect("written");
        });
        assert!(after.approved.iter().cloned().eq(approved(then)) && after.declined.iter().cloned().eq(declined(then)));
        let after = restarted(|journal| {
            journal.answer(&offer("w1"), answer, said(), NOW).expect("written");
            let plan = Plan { at: NOW, carry: waiting("w2"), ..Plan::default() };
            journal.record_decision(&input(), &plan).expect("written");
        });
        assert!(after.approved.is_empty() && after.declined.is_empty(), "it was for another offer");
    }
    let journal = Journal::in_memory();
    journal.answer(&offer("w1"), Answer::Approve, said(), NOW).expect("written");
    journal.drop_answers(&waiting("w2"));
    assert!(journal.controls().approved.is_empty());
}

#[test]
fn breakers_latches_and_offers_outlive_a_restart_and_streaks_do_not() {
    let breaker = |released: bool| Breaker {
        opened_at: NOW,
        last_above: NOW,
        released,
        at_risk: 5,
        of: 8,
        anomaly: Anomaly::default(),
        silent: 0,
        silent_of: 0,
    };
    let withheld = Withheld { id: "w0".to_owned(), since: NOW, declined: true };
    let streak = Streak { policy: "shop".to_owned(), above: 7, below: 0, entered: true, held_out: false };
    let carry = Carry {
        at: Some(NOW),
        streaks: ["a", "b", "e"].map(|name| (format!("deployment/{name}"), streak.clone())).into(),
        breakers: [("node".to_owned(), breaker(false)), ("pod".to_owned(), breaker(true))].into(),
        unlatched: [("deployment/c".to_owned(), NOW)].into(),
        waiting: [("deployment/a".to_owned(), offer("w1"))].into(),
        withheld: [("deployment/e".to_owned(), withheld)].into(),
        heard: [("deployment".to_owned(), ["deployment/a".to_owned()].into())].into(),
        ..Carry::default()
    };
    let plan = Plan { at: NOW, carry: carry.clone(), ..Plan::default() };
    let after = restarted(|journal| {
        journal.record_decision(&input(), &plan).expect("written");
        journal.release(Released::Breaker, "node", said(), NOW).expect("written");
        journal.release(Released::Latch, "deployment/d", said(), NOW + Millis::SECOND).expect("written");
    });
    let later = NOW + Millis::HOUR;
    let got = after.carry(later);
    assert_eq!((got.at, &got.waiting, &got.withheld), (None, &carry.waiting, &carry.withheld));
    let afresh = Streak { above: 0, ..streak };
    assert_eq!(got.streaks, ["a", "e"].map(|name| (format!("deployment/{name}"), afresh.clone())).into());
    assert!(got.heard.is_empty(), "that all is silent right after a start is no fault");
    let seen_calm_from_now_on = |released| Breaker { last_above: later, ..breaker(released) };
    assert_eq!(got.breakers["node"], seen_calm_from_now_on(true), "a person released it");
    assert_eq!(got.breakers["pod"], seen_calm_from_now_on(true));
    assert_eq!(got.unlatched["deployment/c"], NOW);
    assert_eq!(got.unlatched["deployment/d"], NOW + Millis::SECOND);
}

#[test]
fn a_policy_that_may_go_further_than_the_journal_last_saw_is_told_once() {
    let modes = |mode: Mode| [("shop".to_owned(), mode), ("other".to_owned(), Mode::Observe)].into();
    let wider = |from: Mode, to: Mode| Ok(vec![("shop".to_owned(), from, to)]);
    let after = restarted(|journal| {
        assert_eq!(journal.keep_modes(&modes(Mode::Observe), NOW), Ok(Vec::new()));
        assert_eq!(journal.verify().expect("whole").rows, 0, "what has always been so is not news");
        assert_eq!(journal.keep_modes(&modes(Mode::Approve), NOW), wider(Mode::Observe, Mode::Approve));
        assert_eq!(journal.keep_modes(&modes(Mode::Approve), NOW), Ok(Vec::new()));
        assert_eq!(journal.keep_modes(&modes(Mode::Act), NOW), wider(Mode::Approve, Mode::Act));
        assert_eq!(journal.keep_modes(&[].into(), NOW), Ok(Vec::new()), "less is written, and no warning");
        assert_eq!(journal.keep_modes(&modes(Mode::Act), NOW), wider(Mode::Observe, Mode::Act));
        assert_eq!(journal.verify().expect("whole").rows, 4);
    });
    assert_eq!(after.modes, [("shop".to_owned(), Mode::Act)].into());
}

#[test]
fn what_persons_say_is_kept_on_one_line_and_bounded() {
    let said = Said::new(" a\u{1b}[31m\nda ", &"<b>\u{7}x</b>\n".repeat(100_000));
    assert_eq!(said.by, "a [31m da");
    assert!((490..=500).contains(&said.reason.chars().count()), "{} characters", said.reason.chars().count());
    assert!(!said.reason.contains(['\n', '\u{7}']));
    assert_eq!(Said::new(" ", "").by, "operator");
}

#[test]
fn a_journal_that_is_read_only_says_so_to_persons() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path: &Path = &folder.path().join("journal.sqlite");
    drop(Journal::open(path).expect("a new journal"));
    let reader = Journal::open_read_only(path).expect("it is there");
    assert!(reader.answer(&offer("w1"), Answer::Approve, said(), NOW).is_err());
    assert!(reader.controls().approved.is_empty(), "what is not written does not count");
    assert!(reader.release(Released::Latch, "deployment/a", said(), NOW).is_err());
    assert!(reader.keep_modes(&[("shop".to_owned(), Mode::Act)].into(), NOW).is_err());
    assert!(reader.controls().modes.is_empty());
}
