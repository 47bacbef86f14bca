//! Carries a plan's actions out, and learns what came of them.
//!
//! An actuator makes one kind of change on one kind of target. The executor writes each intent to the journal before
//! the first call and each attempt and outcome after it (`audit` hands it the means as a trait, since `act` stands
//! above `audit`).
//!
//! Limits: an answer counts up to 64 KiB, its words in errors up to 300 characters; attempts, waits between them and
//! waits for a confirmation are bounded by [`Patience`]. Redirects are never followed, link-local addresses never
//! called (but the machine's metadata service, where the settings say that credentials come from it). Nothing here decides: an action is sent as it stands in the plan, or not at all. Right before each attempt it
//! is asked once more whether it still may be: not when it is old or has expired, nor when a person has said no.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::model::{Millis, Timestamp};
use crate::plan::{Action, Capacity, Outcome};

mod auth;
mod callbacks;
#[cfg(feature = "cloud")]
mod cloud;
mod cloud_settings;
mod dry_run;
mod executor;
mod http;
mod kubernetes;
mod request;
mod sign;
#[cfg(feature = "cloud")]
mod sigv4;
mod template;
mod webhook;

pub use auth::AuthSettings;
pub use callbacks::{CallbackBody, CallbackHeaders, CallbackState, Callbacks};
#[cfg(feature = "cloud")]
pub use cloud::CloudActuator;
pub use cloud_settings::{
    AwsAutoscalingSettings, AwsCredentials, AzureCredentials, AzureVmssSettings, CloudAuth, CloudSettings,
    GcpCredentials, GcpMigSettings, GcpPlace,
};
pub use dry_run::DryRunActuator;
pub use executor::{CarriedOut, Done, Executor};
pub use kubernetes::{Fence, KubernetesActuator, KubernetesSettings, Leadership, LeaseSettings, Naming, Wanted};
pub use request::{ConfirmSettings, HeaderText, HttpActuator, HttpSettings};
pub use sign::{SignError, Signer};
pub use template::{StatusExpr, TextTemplate, UrlTemplate, placeholder};
pub use webhook::{ACTION_SCHEMA, WebhookActuator, WebhookBody, WebhookTarget, WebhookWhy};

pub(crate) use executor::wait_before_retry;
pub(crate) use http::{ApiClient, cut};
pub(crate) use kubernetes::is_dns_label;

/// What is said of clouds in a build that knows none.
pub(crate) const WITHOUT_CLOUDS: &str = "this forestall was built without the feature `cloud`";

/// A configured actuator.
#[derive(Debug, Clone, PartialEq)]
pub struct ActuatorSettings {
    /// The name that policies use.
    pub name: String,
    /// What it is.
    pub kind: ActuatorKind,
}

/// The kinds of actuators.
#[derive(Debug, Clone, PartialEq)]
pub enum ActuatorKind {
    /// POSTs each action to a URL.
    Webhook(WebhookSettings),
    /// Changes objects of a Kubernetes cluster.
    Kubernetes(KubernetesSettings),
    /// Sends each action as a request of the user's own shape.
    Http(Box<HttpSettings>),
    /// Resizes groups of AWS Auto Scaling.
    AwsAutoscaling(Box<AwsAutoscalingSettings>),
    /// Resizes managed instance groups of Google Cloud.
    GcpMig(Box<GcpMigSettings>),
    /// Resizes scale sets of Azure.
    AzureVmss(Box<AzureVmssSettings>),
    /// Writes each action down and does nothing.
    DryRun,
}

/// How a webhook is called.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSettings {
    /// Where actions are posted to.
    pub url: String,
    /// Files with the HMAC keys, the one to sign with first; more than one during a rotation.
    pub hmac_secret_files: Vec<std::path::PathBuf>,
    /// Where to ask whether an action has taken effect; `{id}` is replaced by the action's id.
    pub status_url: Option<String>,
    /// Whether the receiver says by itself what has become of an action.
    pub callback: bool,
    /// How long one call may take.
    pub timeout: Millis,
    /// How often a call is tried in all.
    pub attempts_max: u32,
    /// Whether the target does not recognise an id that it has seen: what may have got there is not sent again.
    pub at_most_once: bool,
    /// How long to wait for a confirmation.
    pub confirm_within: Millis,
    /// Whether loopback addresses may be called; link-local ones never are.
    pub allow_local: bool,
}

/// Why an action did not work.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// It was not taken, and may be later: nobody there, or a 429 or 503.
    #[error("{target} is not available: {reason}")]
    Unavailable {
        /// Who.
        target: String,
        /// What happened.
        reason: String,
        /// How long to wait before the next attempt, where the target says so.
        retry_after: Option<Millis>,
    },
    /// It was sent, and nobody knows what came of it: no answer in time, a connection that broke, or another 5xx.
    #[error("{target} did not answer: {reason}")]
    Unanswered {
        /// Who.
        target: String,
        /// What happened.
        reason: String,
        /// How long to wait before the next attempt, where the target says so.
        retry_after: Option<Millis>,
    },
    /// A clear no.
    #[error("{target} refused: {reason}")]
    Refused {
        /// Who.
        target: String,
        /// Its words, cut to a bounded length.
        reason: String,
    },
    /// There is no room for it: a quota, a limit or a node's size forbids it.
    #[error("{target} has no room for it: {reason}")]
    Insufficient {
        /// Who.
        target: String,
        /// Its words, cut to a bounded length.
        reason: String,
    },
    /// A mistake of ours inside an actuator.
    #[error("the actuator {target} panicked: {reason}")]
    Panicked {
        /// Which one.
        target: String,
        /// Its last words.
        reason: String,
    },
}

impl ActError {
    /// Whether the same request may work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, ActError::Unavailable { .. } | ActError::Unanswered { .. })
    }

    /// Whether the request may have had its effect all the same.
    pub fn may_have_worked(&self) -> bool {
        matches!(self, ActError::Unanswered { .. } | ActError::Panicked { .. })
    }

    /// The same error of a call that came before the request itself: whatever became of it, the request was not sent.
    fn with_nothing_sent(self) -> ActError {
        match self {
            ActError::Unanswered { target, reason, retry_after } => {
                ActError::Unavailable { target, reason, retry_after }
            }
            other => other,
        }
    }

    /// How long to wait before the next attempt, where the target says so.
    pub fn retry_after(&self) -> Option<Millis> {
        match self {
            ActError::Unavailable { retry_after, .. } | ActError::Unanswered { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What an actuator or a sink was configured with cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct BuildError {
    /// Which one.
    pub name: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// How a target took an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// It will see to it.
    Accepted,
    /// It has taken effect already.
    Done,
    /// It was so before.
    Unchanged,
}

/// How long an actuator may be tried and waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often a call is tried in all; at least once.
    pub attempts_max: u32,
    /// How long to wait for a confirmation.
    pub confirm_within: Millis,
}

/// What a target says about an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmation {
    /// It has taken effect.
    Done,
    /// Not yet.
    Pending,
    /// It will not, and why.
    Failed(String),
    /// It was taken, and there is no room for all of it, in words.
    Insufficient(String),
    /// The target has never heard of it.
    NeverHeard,
    /// Nobody can be asked.
    CannotAsk,
}

/// Carries out actions on one kind of target.
pub trait Actuator: std::fmt::Debug + Send + Sync {
    /// Makes one attempt. Repeating it must not repeat the effect, unless [`Actuator::at_most_once`] says so: the
    /// action's id is the idempotency key.
    fn apply<'a>(
        &'a self,
        action: &'a Action,
        attempt: u32,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Acceptance, ActError>>;

    /// Asks whether the action has taken effect.
    fn confirm<'a>(&'a self, action: &'a Action, now: Timestamp) -> BoxFuture<'a, Result<Confirmation, ActError>>;

    /// The journal says that an attempt at this action was taken, by this process or an earlier one.
    fn recall(&self, _action_id: &str) {}

    /// Goes on with what takes more calls than one and has begun, such as emptying a node: called each pass until there is
    /// an outcome, after a restart too. What never began must not begin here.
    fn carry_on<'a>(&'a self, _action: &'a Action, _now: Timestamp) -> BoxFuture<'a, Result<(), ActError>> {
        Box::pin(async { Ok(()) })
    }

    /// What is free where it acts; nothing where it cannot tell.
    fn measure<'a>(&'a self, _wanted: &'a Wanted) -> BoxFuture<'a, Result<Capacity, ActError>> {
        Box::pin(async { Ok(Capacity::default()) })
    }

    /// Hands over what says whether this replica leads, for actuators whose attempts have several writes.
    fn set_fence(&self, _fence: &Fence) {}

    /// How long it may be tried and waited for.
    fn patience(&self) -> Patience;

    /// Whether it only writes down: then the outcome says so.
    fn is_dry_run(&self) -> bool {
        false
    }

    /// Whether the target repeats the effect when it gets an action again: then none is sent again that may have got
    /// there.
    fn at_most_once(&self) -> bool {
        false
    }
}

/// Builds the configured actuators, by name. `callbacks` is where receivers of webhooks say what has become of actions.
///
/// # Errors
/// Where an address cannot be called; says which and why.
pub fn build(
    settings: &[ActuatorSettings],
    callbacks: &Callbacks,
) -> Result<BTreeMap<String, Arc<dyn Actuator>>, BuildError> {
    let mut actuators: BTreeMap<String, Arc<dyn Actuator>> = BTreeMap::new();
    for one in settings {
        let actuator: Arc<dyn Actuator> = match &one.kind {
            ActuatorKind::Webhook(webhook) => Arc::new(WebhookActuator::new(&one.name, webhook, callbacks)?),
            ActuatorKind::Kubernetes(kubernetes) => Arc::new(KubernetesActuator::new(&one.name, kubernetes)),
            ActuatorKind::Http(http) => Arc::new(HttpActuator::new(&one.name, http)?),
            #[cfg(feature = "cloud")]
            ActuatorKind::AwsAutoscaling(aws) => Arc::new(CloudActuator::aws(&one.name, aws)?),
            #[cfg(feature = "cloud")]
            ActuatorKind::GcpMig(gcp) => Arc::new(CloudActuator::gcp(&one.name, gcp)?),
            #[cfg(feature = "cloud")]
            ActuatorKind::AzureVmss(azure) => Arc::new(CloudActuator::azure(&one.name, azure)?),
            #[cfg(not(feature = "cloud"))]
            ActuatorKind::AwsAutoscaling(_) | ActuatorKind::GcpMig(_) | ActuatorKind::AzureVmss(_) => {
                return Err(BuildError { name: one.name.clone(), reason: WITHOUT_CLOUDS.to_owned() });
            }
            ActuatorKind::DryRun => Arc::new(DryRunActuator),
        };
        if actuators.insert(one.name.clone(), actuator).is_some() {
            return Err(BuildError { name: one.name.clone(), reason: "two actuators have this name".to_owned() });
        }
    }
    Ok(actuators)
}

/// One attempt, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counting from 1.
    pub number: u32,
    /// When.
    pub at: Timestamp,
    /// What came back; nothing where it worked.
    pub error: Option<String>,
}

/// Where the executor writes before and after it acts. `audit::Journal` is the real one.
pub trait Record: std::fmt::Debug + Send + Sync {
    /// Makes the intent durable; only then may the action be sent.
    ///
    /// # Errors
    /// Where it could not be written: then nothing is sent.
    fn intent(&self, action: &Action, now: Timestamp) -> Result<(), RecordError>;
    /// Keeps one attempt.
    ///
    /// # Errors
    /// Where it could not be written.
    fn attempt(&self, action_id: &str, attempt: &Attempt) -> Result<(), RecordError>;
    /// Keeps what came of it. `took` is the time from the decision to the confirmation.
    ///
    /// # Errors
    /// Where it could not be written.
    fn outcome(
        &self,
        action_id: &str,
        outcome: Outcome,
        detail: &str,
        took: Option<Millis>,
        now: Timestamp,
    ) -> Result<(), RecordError>;

    /// The attempts that were kept of an action, in order; none where nobody knows.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn attempts(&self, _action_id: &str) -> Result<Vec<Attempt>, RecordError> {
        Ok(Vec::new())
    }

    /// What a person has said that forbids sending an action now, in words: asked right before each attempt, so it must
    /// not wait for the disk.
    fn forbids(&self, _action: &Action, _now: Timestamp) -> Option<String> {
        None
    }
}

/// The journal could not be written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the journal cannot be written: {0}")]
pub struct RecordError(pub String);

#[cfg(test)]
pub(crate) mod tests;
