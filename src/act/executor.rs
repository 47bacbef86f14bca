//! Carries out a plan's actions one after the other, and writes down each step before and after it.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;

use super::{Acceptance, ActError, Actuator, Attempt, Confirmation, Fence, Record, RecordError, cut};
use crate::clock::Clock;
use crate::model::Millis;
use crate::plan::{Action, ActionKind, Outcome, Plan};

/// The wait before the second attempt; it doubles from one to the next.
const RETRY_WAIT_FIRST: Millis = Millis(500);

/// The longest wait between attempts, also where the target asks for a longer one.
const RETRY_WAIT_MAX: Millis = Millis(60_000);

/// What was decided longer ago is not sent any more.
const DECIDED_AGE_MAX: Millis = Millis(5 * Millis::MINUTE.0);

/// A target is believed that it has never heard of an action so long after the decision, or once it must have confirmed it.
const NEVER_HEARD_AFTER: Millis = Millis::MINUTE;

/// What is known of whether a target took an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It said so.
    Accepted,
    /// It may have been sent, and no answer is known.
    Unknown,
}

impl Taken {
    /// What came of it where the target does not tell.
    fn when_nobody_tells(self) -> Outcome {
        match self {
            Taken::Accepted => Outcome::Applied,
            Taken::Unknown => Outcome::Unknown,
        }
    }

    fn words(self, rest: &str) -> String {
        match self {
            Taken::Accepted => format!("accepted; {rest}"),
            Taken::Unknown => format!("sent or not, nobody knows; {rest}"),
        }
    }
}

/// Carries plans out.
#[derive(Debug, Clone)]
pub struct Executor {
    /// By the name that policies use.
    pub actuators: BTreeMap<String, Arc<dyn Actuator>>,
    /// Where each step is written.
    pub record: Arc<dyn Record>,
    /// What time it is.
    pub clock: Clock,
    /// Whether this replica leads; it always does where there is none.
    pub fence: Option<Fence>,
}

/// What came of one action.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The action.
    pub action_id: String,
    /// What came of it.
    pub outcome: Outcome,
    /// In words.
    pub detail: String,
    /// From the decision to the confirmation, where there was one.
    pub took: Option<Millis>,
}

/// What came of a plan.
#[derive(Debug, Clone, Default)]
pub struct CarriedOut {
    /// In the plan's order.
    pub done: Vec<Done>,
    /// Why the rest was left: the journal could not be written. An action whose outcome could not be written is not
    /// among `done`; the journal still has its intent, and [`Executor::follow_up`] asks for it later.
    pub stopped: Option<RecordError>,
}

impl Executor {
    /// Carries out a plan's actions in its order. Each intent is durable before its first call.
    pub async fn carry_out(&self, plan: &Plan) -> CarriedOut {
        let mut carried = CarriedOut::default();
        for action in &plan.actions {
            let blocked = missing_room(action, &plan.actions, &carried.done);
            match self.carry_out_one(action, blocked).await {
                Ok(done) => carried.done.extend(done),
                Err(error) => {
                    tracing::error!(action = %action.id, %error, "acting stops");
                    carried.stopped = Some(error);
                    break;
                }
            }
        }
        carried
    }

    /// Asks for actions that were sent, or may have been, and have no outcome yet, each once: called every pass, and at
    /// the start for those that were under way when forestall stopped. Nothing is sent again. Where nobody can be asked,
    /// or no answer comes in time, an action that was accepted counts as applied, any other as unknown; either way budgets
    /// and cool-downs hold and it is given back in time. What the target has never heard of was never sent.
    pub async fn follow_up(&self, under_way: &[Action]) -> CarriedOut {
        let mut carried = CarriedOut::default();
        for action in under_way {
            match self.follow_up_one(action).await {
                Ok(done) => carried.done.extend(done),
                Err(error) => {
                    carried.stopped = Some(error);
                    break;
                }
            }
        }
        carried
    }

    async fn follow_up_one(&self, action: &Action) -> Result<Option<Done>, RecordError> {
        let answer = if action.dry_run {
            Some((Outcome::DryRun, String::new()))
        } else {
            let taken = self.how_it_was_taken(action).await?;
            match self.actuators.get(&action.actuator) {
                Some(actuator) => {
                    if taken == Taken::Accepted {
                        actuator.recall(&action.id);
                    }
                    self.carry_on(&**actuator, action).await;
                    self.ask(&**actuator, action, taken).await
                }
                None => Some((taken.when_nobody_tells(), self.unknown_actuator(action))),
            }
        };
        match answer {
            Some((outcome, detail)) => self.settle(action, outcome, detail).await.map(Some),
            None => Ok(None),
        }
    }

    /// Has the actuator go on with what has begun, unless somebody forbids it now. What went wrong shows in what the target
    /// says afterwards, and the next pass tries again.
    async fn carry_on(&self, actuator: &dyn Actuator, action: &Action) {
        let now = self.clock.now();
        if let Some(said) = self.record.forbids(action, now) {
            tracing::info!(action = %action.id, said, "it does not go on for now");
            return;
        }
        if let Err(error) = caught(&action.actuator, async { actuator.carry_on(action, now).await }).await {
            tracing::warn!(action = %action.id, %error, "it could not go on; the next pass tries again");
        }
    }

    async fn how_it_was_taken(&self, action: &Action) -> Result<Taken, RecordError> {
        let id = action.id.clone();
        let attempts = self.write(move |record| record.attempts(&id)).await?;
        Ok(if attempts.iter().any(|attempt| attempt.error.is_none()) { Taken::Accepted } else { Taken::Unknown })
    }

    /// Nothing where the action was accepted and has not taken effect yet, or may have been sent and still may.
    async fn carry_out_one(&self, action: &Action, blocked: Option<String>) -> Result<Option<Done>, RecordError> {
        let now = self.clock.now();
        let intent = action.clone();
        self.write(move |record| record.intent(&intent, now)).await?;
        let came = if action.dry_run {
            Some((Outcome::DryRun, "observe mode: written down only".to_owned()))
        } else if let Some(reason) = blocked {
            Some((Outcome::Failed, reason))
        } else {
            self.perform(action).await?
        };
        match came {
            Some((outcome, detail)) => self.settle(action, outcome, detail).await.map(Some),
            None => Ok(None),
        }
    }

    async fn perform(&self, action: &Action) -> Result<Option<(Outcome, String)>, RecordError> {
        let Some(actuator) = self.actuators.get(&action.actuator) else {
            return Ok(Some((Outcome::Failed, self.unknown_actuator(action))));
        };
        let attempts_max = actuator.patience().attempts_max.max(1);
        let mut number = 1;
        let mut may_have_worked = false;
        loop {
            if let Some(hindrance) = self.hindrance(action) {
                return Ok(if may_have_worked {
                    self.ask(&**actuator, action, Taken::Unknown).await
                } else {
                    Some(hindrance)
                });
            }
            let error = match self.attempt(&**actuator, action, number).await? {
                Ok(acceptance) => return Ok(self.accepted(&**actuator, action, acceptance).await),
                Err(error) => error,
            };
            may_have_worked |= error.may_have_worked();
            let repeats = error.may_have_worked() && actuator.at_most_once();
            if error.is_transient() && number < attempts_max && !repeats {
                self.wait(wait_before_retry(number, error.retry_after())).await;
                number += 1;
                continue;
            }
            let detail = format!("{error} (attempt {number} of {attempts_max})");
            if matches!(error, ActError::Insufficient { .. }) {
                return Ok(Some((Outcome::Insufficient, detail)));
            }
            if !may_have_worked {
                return Ok(Some((Outcome::Failed, detail)));
            }
            let answer = self.ask(&**actuator, action, Taken::Unknown).await;
            return Ok(answer.map(|(outcome, words)| (outcome, format!("{detail}; {words}"))));
        }
    }

    /// Makes one attempt, and writes it down.
    async fn attempt(
        &self,
        actuator: &dyn Actuator,
        action: &Action,
        number: u32,
    ) -> Result<Result<Acceptance, ActError>, RecordError> {
        let at = self.clock.now();
        let answer = caught(&action.actuator, async { actuator.apply(action, number, at).await }).await;
        let attempt = Attempt { number, at, error: answer.as_ref().err().map(ToString::to_string) };
        let id = action.id.clone();
        self.write(move |record| record.attempt(&id, &attempt)).await?;
        Ok(answer)
    }

    /// What forbids sending an action at this moment.
    fn hindrance(&self, action: &Action) -> Option<(Outcome, String)> {
        let now = self.clock.now();
        let age = now - action.decided_at;
        if action.expires_at.is_some_and(|at| at <= now) {
            return Some((Outcome::Expired, "its time was over before it could be sent".to_owned()));
        }
        if age > DECIDED_AGE_MAX {
            let detail = format!("decided {age} ago: what it was decided on is old, at most {DECIDED_AGE_MAX} is not");
            return Some((Outcome::Expired, detail));
        }
        let said = match &self.fence {
            Some(fence) if !fence.is_open() => Some("this replica does not lead any more".to_owned()),
            _ => self.record.forbids(action, now),
        }?;
        Some((Outcome::Cancelled, format!("not sent: {said}")))
    }

    async fn accepted(
        &self,
        actuator: &dyn Actuator,
        action: &Action,
        acceptance: Acceptance,
    ) -> Option<(Outcome, String)> {
        match acceptance {
            _ if actuator.is_dry_run() => Some((Outcome::DryRun, "the actuator only writes down".to_owned())),
            Acceptance::Done => Some((Outcome::Confirmed, "done at once".to_owned())),
            Acceptance::Unchanged => Some((Outcome::Unchanged, "it was so already".to_owned())),
            Acceptance::Accepted => self.ask(actuator, action, Taken::Accepted).await,
        }
    }

    /// What came of an action as far as its target says; nothing while it may still take effect.
    async fn ask(&self, actuator: &dyn Actuator, action: &Action, taken: Taken) -> Option<(Outcome, String)> {
        let now = self.clock.now();
        let waited = now - action.decided_at;
        let within = actuator.patience().confirm_within;
        let pending = match caught(&action.actuator, async { actuator.confirm(action, now).await }).await {
            Ok(Confirmation::Done) => return Some((Outcome::Confirmed, "the target says that it is done".to_owned())),
            Ok(Confirmation::Failed(reason)) => return Some((Outcome::Failed, reason)),
            Ok(Confirmation::Insufficient(reason)) => return Some((Outcome::Insufficient, reason)),
            Ok(Confirmation::CannotAsk) => {
                return Some((taken.when_nobody_tells(), taken.words("nobody can be asked")));
            }
            Ok(Confirmation::NeverHeard) => match taken {
                // What was sent just now may still be on its way.
                Taken::Unknown if waited >= within.min(NEVER_HEARD_AFTER) => {
                    return Some((Outcome::Failed, "never sent: the target has never heard of it".to_owned()));
                }
                Taken::Accepted if waited >= within => {
                    return Some((Outcome::Failed, "the target took it and has never heard of it since".to_owned()));
                }
                Taken::Accepted | Taken::Unknown => "the target has never heard of it".to_owned(),
            },
            Ok(Confirmation::Pending) => "still pending".to_owned(),
            Err(error) => error.to_string(),
        };
        // It may still take effect later. Whether it helps is judged by what the signals do.
        let told = || taken.words(&format!("not confirmed within {within}: {pending}"));
        (waited >= within).then(|| (taken.when_nobody_tells(), told()))
    }

    async fn settle(&self, action: &Action, outcome: Outcome, detail: String) -> Result<Done, RecordError> {
        let now = self.clock.now();
        let took = (outcome == Outcome::Confirmed).then(|| now - action.decided_at);
        let done = Done { action_id: action.id.clone(), outcome, detail, took };
        let written = done.clone();
        self.write(move |record| record.outcome(&written.action_id, outcome, &written.detail, took, now)).await?;
        tracing::info!(
            action = %done.action_id, component = %action.target.component, kind = ?action.kind, policy = %action.policy,
            probability = action.why.probability, outcome = ?done.outcome, detail = %done.detail, "action"
        );
        Ok(done)
    }

    /// Writing and reading wait for the disk, which must not hold up the runtime.
    async fn write<T, F>(&self, write: F) -> Result<T, RecordError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Record) -> Result<T, RecordError> + Send + 'static,
    {
        let record = Arc::clone(&self.record);
        let written = tokio::task::spawn_blocking(move || write(&*record)).await;
        written.unwrap_or_else(|error| Err(RecordError(format!("the writer broke: {error}"))))
    }

    async fn wait(&self, span: Millis) {
        if self.clock.is_simulated() {
            tokio::task::yield_now().await;
        } else {
            self.clock.sleep(span).await;
        }
    }

    fn unknown_actuator(&self, action: &Action) -> String {
        let known: Vec<&str> = self.actuators.keys().map(String::as_str).collect();
        format!("there is no actuator `{}`; there are: {}", action.actuator, known.join(", "))
    }
}

/// How long to wait after attempt `number` (from 1) before the next: what the target asks for, else a wait that
/// doubles; one minute at most.
pub(crate) fn wait_before_retry(number: u32, retry_after: Option<Millis>) -> Millis {
    let doubled = RETRY_WAIT_FIRST * (1_i64 << number.saturating_sub(1).min(20));
    retry_after.unwrap_or(doubled).min(RETRY_WAIT_MAX)
}

/// Why there is no room for an action: an eviction that was to make it did not work.
fn missing_room(action: &Action, all: &[Action], done: &[Done]) -> Option<String> {
    let makes_room = |id: &str| {
        all.iter().any(|other| {
            other.id == id
                && other.kind == ActionKind::Evict
                && other.makes_room_for.as_deref() == Some(action.id.as_str())
        })
    };
    let failed = |done: &&Done| {
        !matches!(done.outcome, Outcome::Confirmed | Outcome::Applied | Outcome::Unchanged | Outcome::DryRun)
            && makes_room(&done.action_id)
    };
    let evict = done.iter().find(failed)?;
    Some(format!("not sent: {} was to make room and did not: {}", evict.action_id, evict.detail))
}

/// A panic inside an actuator is that action's failure, not ours.
async fn caught<T>(name: &str, call: impl Future<Output = Result<T, ActError>>) -> Result<T, ActError> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(answer) => answer,
        Err(panic) => Err(ActError::Panicked { target: name.to_owned(), reason: last_words(&*panic) }),
    }
}

fn last_words(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    cut(words.unwrap_or("without a word"), 300)
}
