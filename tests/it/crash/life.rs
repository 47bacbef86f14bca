//! One life of forestall: the real journal and executor, the real planner, a simulated clock. It ends by being dropped
//! (an orderly stop) or by a kill, which is a place on its tape.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use forestall::act::{Attempt, Executor, Record, RecordError};
use forestall::audit::{Journal, JournalError, worth_keeping};
use forestall::clock::Clock;
use forestall::model::{Millis, Timestamp};
use forestall::plan::{Action, Gates, Ledger, Outcome, Plan, plan};

use super::disk::Mark;
use super::vfs::Tape;
use super::world::{Weather, World, gates};

/// What is wrong with forestall, where the harness itself is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The journal asks for no syncs.
    SyncsNothing,
    /// The intent is written after the first attempt.
    SendsBeforeItWrites,
    /// Actions without an outcome are carried out again.
    SendsAgain,
    /// The outcome of what was under way is not written.
    ForgetsOutcomes,
    /// Plans do not know what was done before the start.
    ForgetsThePast,
}

/// The journal, and what it was seen to have written.
#[derive(Debug)]
struct Watched {
    journal: Arc<Journal>,
    tape: Arc<Tape>,
    fault: Fault,
    /// The intent that is to be written later, where that is the fault.
    unwritten: Mutex<Option<(Action, Timestamp)>>,
}

impl Watched {
    fn written(&self) {
        self.tape.mark(Mark::Written(self.journal.head()));
    }
}

impl Record for Watched {
    fn intent(&self, action: &Action, now: Timestamp) -> Result<(), RecordError> {
        if self.fault == Fault::SendsBeforeItWrites {
            *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner) = Some((action.clone(), now));
            return Ok(());
        }
        self.journal.intent(action, now)?;
        self.written();
        Ok(())
    }

    fn attempt(&self, action_id: &str, attempt: &Attempt) -> Result<(), RecordError> {
        if let Some((action, now)) = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.journal.intent(&action, now)?;
        }
        self.journal.attempt(action_id, attempt)?;
        self.written();
        Ok(())
    }

    fn outcome(
        &self,
        action_id: &str,
        outcome: Outcome,
        detail: &str,
        took: Option<Millis>,
        now: Timestamp,
    ) -> Result<(), RecordError> {
        if self.fault == Fault::ForgetsOutcomes {
            return Ok(());
        }
        self.journal.outcome(action_id, outcome, detail, took, now)?;
        self.written();
        Ok(())
    }

    fn attempts(&self, action_id: &str) -> Result<Vec<Attempt>, RecordError> {
        self.journal.attempts(action_id)
    }

    fn forbids(&self, action: &Action, now: Timestamp) -> Option<String> {
        self.journal.forbids(action, now)
    }
}

/// A life.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) journal: Arc<Journal>,
    pub(super) last: Option<Plan>,
    executor: Executor,
    world: World,
    tape: Arc<Tape>,
    clock: Clock,
    gates: Gates,
    fault: Fault,
    past: Ledger,
}

impl Life {
    /// Opens the journal, as forestall does at its start.
    pub(super) fn start(
        journal: &Path,
        tape: &Arc<Tape>,
        world: &World,
        at: Timestamp,
        fault: Fault,
    ) -> Result<Life, JournalError> {
        if fault == Fault::SyncsNothing {
            tape.sync_nothing();
        }
        let journal = Arc::new(Journal::open(journal)?);
        let record = Arc::new(Watched {
            journal: Arc::clone(&journal),
            tape: Arc::clone(tape),
            fault,
            unwritten: Mutex::default(),
        });
        let clock = Clock::simulated(at);
        let executor = Executor { actuators: world.actuators(tape), record, clock: clock.clone(), fence: None };
        let past = if fault == Fault::ForgetsThePast { journal.ledger(at) } else { Ledger::default() };
        Ok(Life {
            journal,
            executor,
            world: world.clone(),
            tape: Arc::clone(tape),
            clock,
            gates: gates(at),
            last: None,
            fault,
            past,
        })
    }

    /// A pass as the app makes it: follow up, plan, write down, carry out.
    pub(super) async fn pass(&mut self, now: Timestamp) -> Result<(), String> {
        self.clock.advance_to(now);
        self.tape.mark(Mark::Pass(now));
        self.follow_up(now).await?;
        let carry = self.last.take().map(|plan| plan.carry).unwrap_or_default();
        let mut ledger = self.journal.ledger(now);
        ledger.actions.retain(|past| !self.past.actions.iter().any(|known| known.action.id == past.action.id));
        let input = self.world.input(now, ledger, carry.clone(), self.gates.clone());
        let plan = plan(&input);
        if worth_keeping(Some(&Plan { carry, ..Plan::default() }), &plan) {
            self.journal.record_decision(&input, &plan).map_err(|error| error.to_string())?;
            self.tape.mark(Mark::Written(self.journal.head()));
        }
        let carried = self.executor.carry_out(&plan).await;
        self.last = Some(plan);
        carried.stopped.map_or(Ok(()), |error| Err(error.to_string()))
    }

    async fn follow_up(&self, now: Timestamp) -> Result<(), String> {
        let open = self.journal.ledger(now).actions.into_iter().filter(|past| past.outcome.is_none());
        let under_way: Vec<Action> = open.map(|past| past.action).collect();
        if self.fault == Fault::SendsAgain {
            let again = Plan { actions: under_way.clone(), ..Plan::default() };
            self.executor.carry_out(&again).await;
        }
        let carried = self.executor.follow_up(&under_way).await;
        carried.stopped.map_or(Ok(()), |error| Err(error.to_string()))
    }

    pub(super) fn note(&self, text: &str, now: Timestamp) -> Result<(), String> {
        self.journal.note("mode", text, now).map_err(|error| error.to_string())?;
        self.tape.mark(Mark::Written(self.journal.head()));
        Ok(())
    }

    /// Passes come at this interval from now on.
    pub(super) fn passes_every(&mut self, interval: Millis) {
        self.gates.interval = interval;
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.tape.mark(Mark::Weather(weather));
        self.world.set_weather(weather);
    }

    /// A person changes what a workload has.
    pub(super) fn interfere(&self, component: &str, replicas: u32) {
        self.tape.mark(Mark::Person { component: component.to_owned(), replicas });
        self.world.set(component, replicas);
    }

    /// What is under way or still to be given back, in words with what the last plan said of it.
    pub(super) fn unsettled(&self, now: Timestamp) -> Vec<String> {
        let ledger = self.journal.ledger(now);
        let under_way = ledger.actions.iter().filter(|past| past.outcome.is_none()).map(|past| &past.action);
        let in_force = ledger.in_force(now).filter(|action| action.undo.is_some());
        let in_words = |action: &Action| {
            let component = &action.target.component;
            let declined = self.last.iter().flat_map(|plan| &plan.declined).find(|one| one.component == *component);
            let why = declined.map_or("nothing is said of it", |declined| &declined.detail);
            format!("{} for {component}, expires at {:?}: {why}", action.id, action.expires_at)
        };
        under_way.chain(in_force).map(in_words).collect()
    }
}
