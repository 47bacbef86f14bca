//! What persons said that still holds: pauses, answers to offers, released breakers and latches, and how far each policy
//! may go. Each is a row of the journal before it counts, and all of it is folded from the rows again after a restart.
//!
//! Two things do not wait for the disk: reading (the executor asks before each attempt), and a pause, which holds at once
//! and is written as soon as it can be.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::journal::{COLUMNS, Journal, JournalError, NewRow, Row, RowKind, read_error};
use super::predictions::{DoneBody, Predictions};
use crate::act::cut;
use crate::model::Timestamp;
use crate::plan::{Action, Breaker, Carry, Mode, Pause, PauseScope, Plan, Streak};

/// No more pauses hold at once; one more than that is refused.
pub const PAUSES_MAX: usize = 100;

/// No more of a person's reason is kept, in characters.
const REASON_CHARS_MAX: usize = 500;

/// No more of a person's name is kept, in characters.
const NAME_CHARS_MAX: usize = 100;

/// Who said something, and why: their words without control characters, cut to a bounded length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Said {
    /// From what was sent; `operator` where nobody says who.
    pub fn new(by: &str, reason: &str) -> Said {
        let by = cut(by, NAME_CHARS_MAX);
        Said { by: if by.is_empty() { "operator".to_owned() } else { by }, reason: cut(reason, REASON_CHARS_MAX) }
    }
}

/// A person's answer to an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Do it.
    Approve,
    /// Do not.
    Decline,
}

/// What a person releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Released {
    /// The breaker of a kind: the mass anomaly is over.
    Breaker,
    /// The latch of a component: what had no effect may be tried again.
    Latch,
}

/// What persons said that still holds, and what the next plan must know of the last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Controls {
    /// One for each scope.
    pub pauses: Vec<Pause>,
    /// Offers that were approved and not carried out yet.
    pub approved: BTreeSet<String>,
    /// Offers that were declined and not taken back yet.
    pub declined: BTreeSet<String>,
    /// Policy → how far it was last allowed to go. Only those that may do more than observe.
    pub modes: BTreeMap<String, Mode>,
    /// What other predictors said, and what was done for it.
    #[serde(default)]
    pub predictions: Predictions,
    /// What the last plan handed on, as far as it outlives a restart: no streaks but those of what waits for a person.
    carry: Carry,
}

#[derive(Debug, Serialize, Deserialize)]
struct LiftBody {
    scope: PauseScope,
    #[serde(flatten)]
    said: Said,
}

#[derive(Debug, Serialize, Deserialize)]
struct AnswerBody {
    answer: Answer,
    #[serde(flatten)]
    said: Said,
    /// What was offered, those that make room first.
    offered: Vec<Action>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ReleaseBody {
    what: Released,
    #[serde(flatten)]
    said: Said,
}

#[derive(Debug, Serialize, Deserialize)]
struct ModeBody {
    from: Mode,
    to: Mode,
}

impl Controls {
    /// The pauses that hold at `now`.
    pub fn pauses_at(&self, now: Timestamp) -> Vec<Pause> {
        self.pauses.iter().filter(|pause| pause.until.is_none_or(|until| now < until)).cloned().collect()
    }

    /// What a person said against sending this action at `now`.
    pub fn forbids(&self, action: &Action, now: Timestamp) -> Option<String> {
        let holds = |pause: &&Pause| pause.holds(&action.policy, &action.target.component, now);
        self.pauses.iter().find(holds).map(Pause::to_string)
    }

    /// What the first plan after a restart at `now` must know of the last one before it. Streaks begin anew, but what
    /// waits for a person has entered; a breaker must be seen calm for its whole time.
    pub fn carry(&self, now: Timestamp) -> Carry {
        let mut carry = self.carry.clone();
        for breaker in carry.breakers.values_mut() {
            breaker.last_above = now;
        }
        carry
    }

    /// Takes over a plan: what it hands on, and which answers it has used up.
    pub(super) fn note_plan(&mut self, plan: &Plan) {
        self.drop_answers(&plan.carry);
        let Carry { streaks, breakers, unlatched, waiting, withheld, unseen, .. } = &plan.carry;
        let entered = streaks.iter().filter(|(key, _)| waiting.contains_key(*key) || withheld.contains_key(*key));
        let afresh = |streak: &Streak| Streak { above: 0, below: 0, ..streak.clone() };
        self.carry = Carry {
            streaks: entered.map(|(key, streak)| (key.clone(), afresh(streak))).collect(),
            breakers: breakers.clone(),
            unlatched: unlatched.clone(),
            waiting: waiting.clone(),
            withheld: withheld.clone(),
            unseen: unseen.clone(),
            ..Carry::default()
        };
    }

    /// An answer is for one offer: carried out, taken back or no longer wanted, the answer is used up.
    pub(super) fn drop_answers(&mut self, carry: &Carry) {
        let waits = |id: &String| carry.waiting.values().any(|offer| offer.last().is_some_and(|main| main.id == *id));
        self.approved.retain(waits);
        self.declined.retain(waits);
    }

    fn pause(&mut self, pause: Pause) {
        self.lift(&pause.scope);
        self.pauses.push(pause);
    }

    fn lift(&mut self, scope: &PauseScope) {
        self.pauses.retain(|pause| pause.scope != *scope);
    }

    fn answer(&mut self, id: &str, body: &AnswerBody) {
        let (to, from) = match body.answer {
            Answer::Approve => (&mut self.approved, &mut self.declined),
            Answer::Decline => (&mut self.declined, &mut self.approved),
        };
        to.insert(id.to_owned());
        from.remove(id);
        // The offer may be newer than the last plan that was kept.
        if let Some(main) = body.offered.last() {
            let key = main.target.component.to_string();
            let streak = Streak { policy: main.policy.clone(), entered: true, ..Streak::default() };
            self.carry.streaks.entry(key.clone()).or_insert(streak);
            self.carry.waiting.insert(key, body.offered.clone());
        }
    }

    fn release(&mut self, what: Released, name: &str, at: Timestamp) {
        match what {
            Released::Breaker => {
                if let Some(breaker) = self.carry.breakers.get_mut(name) {
                    *breaker = Breaker { released: true, ..breaker.clone() };
                }
            }
            Released::Latch => {
                self.carry.unlatched.insert(name.to_owned(), at);
            }
        }
    }

    fn set_mode(&mut self, policy: &str, mode: Mode) {
        match mode {
            Mode::Observe => self.modes.remove(policy),
            _ => self.modes.insert(policy.to_owned(), mode),
        };
    }

    /// Folds one row.
    fn fold(&mut self, row: &Row) -> Result<(), JournalError> {
        match row.kind.as_str() {
            "pause" => self.pause(row.parse()?),
            "lift" => self.lift(&row.parse::<LiftBody>()?.scope),
            "approval" => self.answer(&row.id, &row.parse()?),
            "release" => self.release(row.parse::<ReleaseBody>()?.what, &row.id, row.at),
            "mode" => self.set_mode(&row.id, row.parse::<ModeBody>()?.to),
            "prediction" => self.predictions.take(row.parse()?),
            "prediction_done" => self.predictions.note_done(&row.id, &row.parse::<DoneBody>()?.action),
            "decision" => self.note_plan(&row.parse::<PlanBody>()?.plan),
            _ => {}
        }
        Ok(())
    }

    /// Folds the rows of a file over what held before it.
    pub(super) fn rebuild(mut self, connection: &Connection) -> Result<Controls, JournalError> {
        // Of decisions only the last counts: it carries what the ones before it handed on.
        let last = "SELECT max(seq) FROM journal WHERE kind = 'decision'";
        let last: Option<i64> =
            connection.query_row(last, [], |row| row.get(0)).optional().map_err(read_error)?.flatten();
        let sql = format!(
            "SELECT {COLUMNS} FROM journal
             WHERE kind IN ('pause', 'lift', 'approval', 'release', 'mode', 'prediction', 'prediction_done')
                OR seq = ? ORDER BY seq"
        );
        let mut statement = connection.prepare(&sql).map_err(read_error)?;
        for row in statement.query_map([last], Row::read).map_err(read_error)? {
            self.fold(&row.map_err(read_error)?)?;
        }
        Ok(self)
    }
}

#[derive(Deserialize)]
struct PlanBody {
    plan: Plan,
}

impl Journal {
    /// What persons said that still holds. Does not wait for the disk.
    pub fn controls(&self) -> Controls {
        self.controls.read().clone()
    }

    /// What the first plan of a process that starts at `now` must know of the last one before it.
    pub fn carry(&self, now: Timestamp) -> Carry {
        self.controls.read().carry(now)
    }

    /// Pauses something, in place of the pause of the same scope. It holds at once, written or not: where it cannot be
    /// written, [`Journal::write_pauses`] tries again.
    ///
    /// # Errors
    /// [`JournalError::TooManyPauses`]: nothing is paused. [`JournalError::Write`]: it holds, and would not survive a
    /// restart.
    pub fn pause(&self, pause: Pause, now: Timestamp) -> Result<(), JournalError> {
        {
            let mut controls = self.controls.write();
            controls.lift(&pause.scope);
            // What is over stays while there is room: a clock that was ahead and is set back is not a person's word.
            if controls.pauses.len() >= PAUSES_MAX {
                controls.pauses = controls.pauses_at(now);
            }
            if controls.pauses.len() >= PAUSES_MAX {
                return Err(JournalError::TooManyPauses);
            }
            controls.pause(pause.clone());
        }
        let mut unwritten = self.unwritten.lock();
        unwritten.retain(|other| other.scope != pause.scope);
        let written = self.append_one(RowKind::Pause, now, "", &pause);
        if written.is_err() {
            unwritten.push(pause);
        }
        written
    }

    /// Writes the pauses that hold and could not be written yet.
    ///
    /// # Errors
    /// Where they still cannot.
    pub fn write_pauses(&self, now: Timestamp) -> Result<(), JournalError> {
        let mut unwritten = self.unwritten.lock();
        while let Some(pause) = unwritten.last() {
            self.append_one(RowKind::Pause, now, "", pause)?;
            unwritten.pop();
        }
        Ok(())
    }

    /// Lifts the pause of a scope. Says whether there was one.
    ///
    /// # Errors
    /// Where it could not be written: then the pause still holds.
    pub fn lift(&self, scope: &PauseScope, said: Said, now: Timestamp) -> Result<bool, JournalError> {
        if !self.controls.read().pauses_at(now).iter().any(|pause| pause.scope == *scope) {
            return Ok(false);
        }
        let mut unwritten = self.unwritten.lock();
        self.append_one(RowKind::Lift, now, "", &LiftBody { scope: scope.clone(), said })?;
        unwritten.retain(|pause| pause.scope != *scope);
        self.controls.write().lift(scope);
        Ok(true)
    }

    /// Keeps a person's answer to an offer: its actions, the main one last. A later answer replaces an earlier one.
    ///
    /// # Errors
    /// Where it could not be written: then it does not count.
    pub fn answer(&self, offered: &[Action], answer: Answer, said: Said, now: Timestamp) -> Result<(), JournalError> {
        let Some(main) = offered.last() else { return Ok(()) };
        let body = AnswerBody { answer, said, offered: offered.to_vec() };
        self.append_one(RowKind::Approval, now, &main.id, &body)?;
        self.controls.write().answer(&main.id, &body);
        Ok(())
    }

    /// Forgets answers to offers that are no longer made.
    pub fn drop_answers(&self, carry: &Carry) {
        self.controls.write().drop_answers(carry);
    }

    /// Keeps that a person released a kind's breaker or a component's latch.
    ///
    /// # Errors
    /// Where it could not be written: then it does not count.
    pub fn release(&self, what: Released, name: &str, said: Said, now: Timestamp) -> Result<(), JournalError> {
        self.append_one(RowKind::Release, now, name, &ReleaseBody { what, said })?;
        self.controls.write().release(what, name, now);
        Ok(())
    }

    /// Keeps how far each policy may go, where that differs from what the journal last saw; what it has never seen counts
    /// as having observed. Gives the policies that may go further than before, with their mode before and after.
    ///
    /// # Errors
    /// Where it could not be written.
    pub fn keep_modes(
        &self,
        modes: &BTreeMap<String, Mode>,
        now: Timestamp,
    ) -> Result<Vec<(String, Mode, Mode)>, JournalError> {
        let known = self.controls.read().modes.clone();
        let names: BTreeSet<&String> = known.keys().chain(modes.keys()).collect();
        let mode_in = |modes: &BTreeMap<String, Mode>, name: &String| modes.get(name).copied().unwrap_or_default();
        let mut changed = Vec::new();
        let mut rows = Vec::new();
        for name in names {
            let (from, to) = (mode_in(&known, name), mode_in(modes, name));
            if from != to {
                rows.push(NewRow::new(RowKind::Mode, now, name, &ModeBody { from, to })?);
                changed.push((name.clone(), from, to));
            }
        }
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        self.append(&rows)?;
        let mut controls = self.controls.write();
        for (name, _, to) in &changed {
            controls.set_mode(name, *to);
        }
        Ok(changed.into_iter().filter(|(_, from, to)| to > from).collect())
    }
}
