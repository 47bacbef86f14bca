//! Where actions go: actuators over the world, with a wire between that loses, delays, repeats and hangs, a journal that
//! fills up, and a fuse that ends the process at any of these points.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use forestall::act::{Acceptance, ActError, Actuator, Attempt, Confirmation, Executor, Patience, Record, RecordError};
use forestall::audit::{Journal, Said};
use forestall::clock::Clock;
use forestall::model::{Millis, Timestamp};
use forestall::plan::{Action, Outcome, Pause, PauseScope};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::chance::Chance;
use super::world::{Heard, World};

/// How long a call is waited for that hangs.
const HANGS_FOR: Millis = Millis(10_000);

/// A kind of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: &'static str,
    /// It can be asked what came of an action.
    pub(crate) answers: bool,
    /// It knows an action by its id and does it once; where not, forestall is told so.
    pub(crate) dedupes: bool,
    /// It changes nothing that is not as the action says that it was.
    pub(crate) compares: bool,
}

/// How often a call is tried.
pub(crate) const ATTEMPTS_MAX: u32 = 3;

/// The targets that policies name.
pub(crate) const PORTS: [Port; 3] = [
    Port { name: "cluster", answers: true, dedupes: true, compares: true },
    Port { name: "hook", answers: false, dedupes: true, compares: false },
    Port { name: "plain", answers: false, dedupes: false, compares: false },
];

/// A call as its target would see it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) action: Action,
    pub(crate) attempt: u32,
    pub(crate) port: Port,
    /// Which process made it.
    pub(crate) life: u32,
    /// Whether its intent was in the journal by then.
    pub(crate) durable: bool,
    /// The pause that held by then, if one did.
    pub(crate) paused: Option<PauseScope>,
    /// Whether it may have got to its target.
    pub(crate) may_have_worked: bool,
}

/// What was written to the journal.
#[derive(Debug, Clone)]
pub(crate) enum Row {
    Intent(Box<Action>),
    Attempt(String),
    Outcome(String, Outcome),
}

/// A row with when, by forestall's clock, and by which process.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) row: Row,
    pub(crate) at: Timestamp,
    pub(crate) life: u32,
}

/// What is seen of a run from outside.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) calls: Vec<Call>,
    pub(crate) asked: Vec<String>,
    pub(crate) rows: Vec<Written>,
    intents: BTreeSet<String>,
}

/// How bad the wire is: shares of calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wire {
    pub(crate) dropped: f64,
    pub(crate) reply_lost: f64,
    pub(crate) late: f64,
    pub(crate) twice: f64,
    pub(crate) refused: f64,
    pub(crate) hangs: f64,
    pub(crate) panics: f64,
    /// The share of calls in the middle of which a person pauses everything.
    pub(crate) pauses: f64,
}

/// Ends the process when it has been passed so many times.
#[derive(Debug, Default)]
pub(crate) struct Fuse {
    state: Mutex<FuseState>,
    buried: Condvar,
    blown: Notify,
}

#[derive(Debug, Default)]
struct FuseState {
    left: Option<u32>,
    dead: bool,
}

impl Fuse {
    /// Blows at the next point but so many.
    pub(crate) fn light(&self, left: u32) {
        self.state.lock().left = Some(left);
    }

    /// Takes it out, where it has not blown.
    pub(crate) fn pull(&self) {
        self.state.lock().left = None;
    }

    /// Whether the process ends here.
    fn blows(&self) -> bool {
        let mut state = self.state.lock();
        match state.left {
            Some(0) => {
                (state.left, state.dead) = (None, true);
                self.blown.notify_one();
                true
            }
            Some(left) => {
                state.left = Some(left - 1);
                false
            }
            None => false,
        }
    }

    /// Ends once the process is to end.
    pub(crate) async fn blown(&self) {
        self.blown.notified().await;
    }

    /// The process is gone: threads that stood still at the fuse may end.
    pub(crate) fn bury(&self) {
        self.state.lock().dead = false;
        self.buried.notify_all();
    }

    /// Stands still until the process is gone.
    fn stand_still(&self) {
        let mut state = self.state.lock();
        while state.dead {
            self.buried.wait(&mut state);
        }
    }
}

/// A person's pause, and whether it is in the journal.
#[derive(Debug, Clone)]
pub(crate) struct Paused {
    pause: Pause,
    durable: bool,
}

/// What all targets and the journal's front share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) world: Mutex<World>,
    pub(crate) log: Mutex<Log>,
    pub(crate) fuse: Fuse,
    pub(crate) clock: Clock,
    pub(crate) wire: Mutex<Wire>,
    /// The journal refuses whatever the executor writes.
    pub(crate) full: Mutex<bool>,
    pub(crate) life: Mutex<u32>,
    /// What persons have paused.
    pub(crate) pauses: Mutex<Vec<Paused>>,
    /// The journal of the process that runs, where persons' words go.
    pub(crate) journal: Mutex<Weak<Journal>>,
    chance: Mutex<Chance>,
}

impl Site {
    pub(crate) fn new(seed: u64, world: World, clock: Clock) -> Site {
        Site {
            world: Mutex::new(world),
            log: Mutex::default(),
            fuse: Fuse::default(),
            clock,
            wire: Mutex::default(),
            full: Mutex::new(false),
            life: Mutex::new(0),
            pauses: Mutex::default(),
            journal: Mutex::default(),
            chance: Mutex::new(Chance::new(seed, "wire")),
        }
    }

    /// A person pauses something from now on, for a while or until it is lifted.
    pub(crate) fn pause(&self, scope: PauseScope, lasts: Option<Millis>) {
        let now = self.clock.now();
        let Some(journal) = self.journal.lock().upgrade() else { return };
        let pause = Pause {
            scope: scope.clone(),
            reason: "a look at it".to_owned(),
            by: "ops".to_owned(),
            since: now,
            until: lasts.map(|lasts| now + lasts),
        };
        // What cannot be written holds, and may not outlive the process.
        let durable = journal.pause(pause.clone(), now).is_ok();
        let mut pauses = self.pauses.lock();
        pauses.retain(|other| other.pause.scope != scope);
        pauses.push(Paused { pause, durable });
    }

    /// What persons paused, as the journal knows it.
    pub(crate) fn paused_scopes(&self) -> Vec<PauseScope> {
        let Some(journal) = self.journal.lock().upgrade() else { return Vec::new() };
        journal.controls().pauses.into_iter().map(|pause| pause.scope).collect()
    }

    /// The process is gone, and with it what nobody wrote down.
    pub(crate) fn forget_what_was_not_written(&self) {
        self.pauses.lock().retain(|paused| paused.durable);
    }

    /// A person lifts the pause of a scope.
    pub(crate) fn lift(&self, scope: &PauseScope) {
        let Some(journal) = self.journal.lock().upgrade() else { return };
        if journal.lift(scope, Said::new("ops", "looked at"), self.clock.now()).is_ok() {
            self.pauses.lock().retain(|paused| paused.pause.scope != *scope);
        }
    }

    /// The same executor, with the world in place of what the settings name.
    pub(crate) fn executor(self: &Arc<Site>, executor: Executor) -> Executor {
        let target = |port: Port| -> (String, Arc<dyn Actuator>) {
            (port.name.to_owned(), Arc::new(Target { port, site: self.clone() }))
        };
        Executor {
            actuators: PORTS.into_iter().map(target).collect::<BTreeMap<_, _>>(),
            record: Arc::new(Front { journal: executor.record.clone(), site: self.clone() }),
            ..executor
        }
    }
}

/// One kind of target.
#[derive(Debug)]
struct Target {
    port: Port,
    site: Arc<Site>,
}

impl Target {
    fn unavailable(&self, reason: &str) -> ActError {
        let (target, reason) = (self.port.name.to_owned(), reason.to_owned());
        ActError::Unavailable { target, reason, retry_after: None }
    }

    fn unanswered(&self, reason: &str) -> ActError {
        let (target, reason) = (self.port.name.to_owned(), reason.to_owned());
        ActError::Unanswered { target, reason, retry_after: None }
    }

    fn note(&self, action: &Action, attempt: u32) {
        let (life, now) = (*self.site.life.lock(), self.site.clock.now());
        let holds = |paused: &&Paused| paused.pause.holds(&action.policy, &action.target.component, now);
        let paused = self.site.pauses.lock().iter().find(holds).map(|paused| paused.pause.scope.clone());
        let mut log = self.site.log.lock();
        let durable = log.intents.contains(&action.id);
        let action = action.clone();
        log.calls.push(Call { action, attempt, port: self.port, life, durable, paused, may_have_worked: true });
    }

    /// The newest call never got to its target.
    fn note_lost(&self) {
        self.site.log.lock().calls.last_mut().expect("it was noted").may_have_worked = false;
    }

    /// What becomes of a call between us and the target.
    fn call(&self, action: &Action) -> Result<Acceptance, ActError> {
        let (wire, mut chance) = (*self.site.wire.lock(), self.site.chance.lock());
        let mut left = chance.unit();
        let pauses = chance.is(wire.pauses);
        let mut falls = |share: f64| {
            left -= share;
            left < 0.0
        };
        if pauses {
            self.site.pause(PauseScope::All, Some(Millis::MINUTE * 5));
        }
        if falls(wire.dropped) {
            self.note_lost();
            return Err(self.unavailable("connection refused"));
        }
        if falls(wire.refused) {
            return Err(ActError::Refused { target: self.port.name.to_owned(), reason: "not now".to_owned() });
        }
        if falls(wire.panics) {
            // Without a word on the terminal, where it would look like a failed test.
            std::panic::resume_unwind(Box::new("a mistake in an actuator"));
        }
        let Port { dedupes, compares, .. } = self.port;
        let mut world = self.site.world.lock();
        let (send_late, send_now) = (Millis::SECOND * i64::from(chance.whole(30, 600)), reaction(&mut chance));
        if falls(wire.reply_lost) {
            world.send(action, send_now, dedupes, compares);
            return Err(self.unanswered("connection reset"));
        }
        if falls(wire.late) {
            world.send(action, send_late, dedupes, compares);
            return Err(self.unanswered("504"));
        }
        if falls(wire.hangs) {
            if chance.is(0.5) {
                world.send(action, send_late, dedupes, compares);
            }
            self.site.clock.advance_to(self.site.clock.now() + HANGS_FOR);
            return Err(self.unanswered("no answer in time"));
        }
        if world.heard(&action.id).is_none() && world.is_so(&action.target.component.to_string(), &action.change) {
            return Ok(Acceptance::Unchanged);
        }
        // A wire that doubles what it carries is no fault of the sender: that is for targets that see it.
        if falls(wire.twice) && dedupes {
            world.send(action, send_late, dedupes, compares);
        }
        world.send(action, send_now, dedupes, compares);
        match world.heard(&action.id) {
            Some(Heard::Done) => Ok(Acceptance::Done),
            Some(Heard::Refused(reason)) => {
                Err(ActError::Refused { target: self.port.name.to_owned(), reason: reason.clone() })
            }
            _ => Ok(Acceptance::Accepted),
        }
    }

    fn answer(&self, action: &Action) -> Result<Confirmation, ActError> {
        if !self.port.answers {
            return Ok(Confirmation::CannotAsk);
        }
        let wire = *self.site.wire.lock();
        if self.site.chance.lock().is(wire.dropped + wire.reply_lost) {
            return Err(self.unavailable("connection refused"));
        }
        Ok(match self.site.world.lock().heard(&action.id) {
            Some(Heard::Done) => Confirmation::Done,
            Some(Heard::OnItsWay) => Confirmation::Pending,
            Some(Heard::Refused(reason)) => Confirmation::Failed(reason.clone()),
            None => Confirmation::NeverHeard,
        })
    }
}

/// How long a target takes until a change shows.
fn reaction(chance: &mut Chance) -> Millis {
    if chance.is(0.4) { Millis::ZERO } else { Millis::SECOND * i64::from(chance.whole(5, 150)) }
}

impl Actuator for Target {
    fn apply<'a>(
        &'a self,
        action: &'a Action,
        attempt: u32,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<Acceptance, ActError>> {
        async move {
            if self.site.fuse.blows() {
                std::future::pending::<()>().await;
            }
            self.note(action, attempt);
            let answer = self.call(action);
            if self.site.fuse.blows() {
                std::future::pending::<()>().await;
            }
            answer
        }
        .boxed()
    }

    fn confirm<'a>(&'a self, action: &'a Action, _now: Timestamp) -> BoxFuture<'a, Result<Confirmation, ActError>> {
        async move {
            if self.site.fuse.blows() {
                std::future::pending::<()>().await;
            }
            self.site.log.lock().asked.push(action.id.clone());
            self.answer(action)
        }
        .boxed()
    }

    fn patience(&self) -> Patience {
        Patience { attempts_max: ATTEMPTS_MAX, confirm_within: Millis::MINUTE * 5 }
    }

    fn at_most_once(&self) -> bool {
        !self.port.dedupes
    }
}

/// The journal as the executor sees it.
#[derive(Debug)]
struct Front {
    journal: Arc<dyn Record>,
    site: Arc<Site>,
}

impl Front {
    fn write(
        &self,
        row: Row,
        at: Timestamp,
        write: impl FnOnce(&dyn Record) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        if *self.site.full.lock() {
            return Err(RecordError("database or disk is full".to_owned()));
        }
        if self.site.fuse.blows() {
            self.site.fuse.stand_still();
            return Err(RecordError("the process is gone".to_owned()));
        }
        write(&*self.journal)?;
        let life = *self.site.life.lock();
        {
            let mut log = self.site.log.lock();
            if let Row::Intent(action) = &row {
                log.intents.insert(action.id.clone());
            }
            log.rows.push(Written { row, at, life });
        }
        if self.site.fuse.blows() {
            self.site.fuse.stand_still();
        }
        Ok(())
    }
}

impl Record for Front {
    fn intent(&self, action: &Action, now: Timestamp) -> Result<(), RecordError> {
        self.write(Row::Intent(Box::new(action.clone())), now, |journal| journal.intent(action, now))
    }

    fn attempt(&self, action_id: &str, attempt: &Attempt) -> Result<(), RecordError> {
        let row = Row::Attempt(action_id.to_owned());
        self.write(row, attempt.at, |journal| journal.attempt(action_id, attempt))
    }

    fn outcome(
        &self,
        action_id: &str,
        outcome: Outcome,
        detail: &str,
        took: Option<Millis>,
        now: Timestamp,
    ) -> Result<(), RecordError> {
        let row = Row::Outcome(action_id.to_owned(), outcome);
        self.write(row, now, |journal| journal.outcome(action_id, outcome, detail, took, now))
    }

    fn attempts(&self, action_id: &str) -> Result<Vec<Attempt>, RecordError> {
        self.journal.attempts(action_id)
    }

    fn forbids(&self, action: &Action, now: Timestamp) -> Option<String> {
        self.journal.forbids(action, now)
    }
}
