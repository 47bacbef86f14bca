//! Groups of instances that a cloud keeps at a size: AWS Auto Scaling, Google's managed instance groups, Azure's scale sets.
//!
//! An action names how many there shall be. The group is read first: a size outside its bounds is never asked for, growing
//! never makes it smaller nor shrinking larger, instances that are protected from scale-in stay, and what is so already is left
//! alone. Sizes are absolute, so a request that is sent again changes nothing. It has taken effect when so many instances serve,
//! as the cloud sees it.

mod aws;
mod azure;
mod gcp;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::cloud_settings::{AwsAutoscalingSettings, AzureVmssSettings, CloudSettings, GcpMigSettings};
use super::http::ApiClient;
use super::template::Facts;
use super::{Acceptance, ActError, Actuator, BuildError, Confirmation, Patience};
use crate::model::Timestamp;
use crate::plan::{Action, Change};

pub(super) use aws::words as aws_words;

/// No more of a cloud's answer is read.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A group of instances, as its cloud sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    /// How many there shall be.
    wanted: u32,
    /// How many serve.
    serving: u32,
    /// Whether the cloud is not at work on it, as far as it says so.
    is_settled: bool,
    /// There are never fewer.
    min: u32,
    /// There are never more.
    max: u32,
    /// How many of those that serve are protected from scale-in.
    protected: u32,
    /// Why it cannot be resized by us now.
    hindrance: Option<String>,
    /// Why it will not get to its size.
    failure: Option<String>,
    /// What the cloud needs to know of what was read: a version, a machine type.
    state: serde_json::Value,
}

/// A cloud's groups.
#[derive(Debug)]
enum Groups {
    Aws(aws::Aws),
    Gcp(gcp::Gcp),
    Azure(azure::Azure),
}

impl Groups {
    fn api(&self) -> &ApiClient {
        match self {
            Groups::Aws(aws) => &aws.api,
            Groups::Gcp(gcp) => &gcp.api,
            Groups::Azure(azure) => &azure.api,
        }
    }

    /// Reads a group. An error means that nothing was changed.
    async fn read(&self, name: &str, now: Timestamp) -> Result<Group, ActError> {
        match self {
            Groups::Aws(aws) => aws.group(name, now).await,
            Groups::Gcp(gcp) => gcp.group(name, now).await,
            Groups::Azure(azure) => azure.group(name, now).await,
        }
    }

    /// Sets how many there shall be, for the action of this id.
    async fn resize(&self, group: &Group, to: u32, id: &str, now: Timestamp) -> Result<(), ActError> {
        match self {
            Groups::Aws(aws) => aws.resize(group, to, now).await,
            Groups::Gcp(gcp) => gcp.resize(group, to, id, now).await,
            Groups::Azure(azure) => azure.resize(group, to, now).await,
        }
    }
}

/// Resizes the groups of a cloud.
#[derive(Debug)]
pub struct CloudActuator {
    groups: Groups,
    settings: CloudSettings,
}

/// How an action and its group stand to each other.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// The group is to be set to this size.
    Due(u32),
    /// It has this size already.
    Met(u32),
    /// It cannot be, and why.
    Out(String),
}

impl CloudActuator {
    /// For groups of AWS Auto Scaling.
    ///
    /// # Errors
    /// Where an address must not be called.
    pub fn aws(name: &str, settings: &AwsAutoscalingSettings) -> Result<CloudActuator, BuildError> {
        Ok(CloudActuator { groups: Groups::Aws(aws::Aws::new(name, settings)?), settings: settings.common.clone() })
    }

    /// For managed instance groups of Google Cloud.
    ///
    /// # Errors
    /// Where an address must not be called.
    pub fn gcp(name: &str, settings: &GcpMigSettings) -> Result<CloudActuator, BuildError> {
        Ok(CloudActuator { groups: Groups::Gcp(gcp::Gcp::new(name, settings)?), settings: settings.common.clone() })
    }

    /// For scale sets of Azure.
    ///
    /// # Errors
    /// Where an address must not be called.
    pub fn azure(name: &str, settings: &AzureVmssSettings) -> Result<CloudActuator, BuildError> {
        Ok(CloudActuator {
            groups: Groups::Azure(azure::Azure::new(name, settings)?),
            settings: settings.common.clone(),
        })
    }

    /// The group that an action is for, and the sizes between which it leads.
    async fn read(&self, action: &Action, now: Timestamp) -> Result<(Group, u32, u32), ActError> {
        let api = self.groups.api();
        let Change::Replicas { from, to } = action.change else {
            return Err(api.refused("a group of instances has a size and nothing else to change".to_owned()));
        };
        let name = self.settings.group.fill(&Facts::of(action)).map_err(|reason| api.refused(reason))?;
        if name.is_empty() {
            return Err(api.refused("the action names no group".to_owned()));
        }
        Ok((self.groups.read(&name, now).await?, from, to))
    }

    async fn resize(&self, action: &Action, attempt: u32, now: Timestamp) -> Result<Acceptance, ActError> {
        let (group, from, to) = self.read(action, now).await.map_err(ActError::with_nothing_sent)?;
        let api = self.groups.api();
        if let Some(hindrance) = &group.hindrance {
            return Err(api.refused(format!("{}: {hindrance}", group.name)));
        }
        let expected = from.clamp(group.min, group.max.max(group.min));
        if action.undoes.is_some() && attempt == 1 && group.wanted != expected && group.wanted != to {
            let now = group.wanted;
            return Err(api.refused(format!("{}: somebody else set {now} instances, and that stays", group.name)));
        }
        match standing(&group, from, to) {
            Standing::Out(why) => Err(api.refused(format!("{}: {why}", group.name))),
            // An attempt whose answer got lost may have made it so.
            Standing::Met(_) if attempt > 1 => Ok(Acceptance::Accepted),
            Standing::Met(_) => Ok(Acceptance::Unchanged),
            Standing::Due(size) => {
                self.groups.resize(&group, size, &action.id, now).await?;
                Ok(Acceptance::Accepted)
            }
        }
    }

    async fn ask(&self, action: &Action, now: Timestamp) -> Result<Confirmation, ActError> {
        let (group, from, to) = self.read(action, now).await?;
        Ok(match (standing(&group, from, to), &group.failure) {
            (Standing::Due(_), _) => Confirmation::NeverHeard,
            (Standing::Out(why), _) => Confirmation::Failed(why),
            (Standing::Met(_), Some(failure)) => Confirmation::Failed(failure.clone()),
            (Standing::Met(size), None) => {
                let is_there =
                    if to > from { group.serving >= size } else { group.is_settled && group.serving <= group.wanted };
                if is_there { Confirmation::Done } else { Confirmation::Pending }
            }
        })
    }
}

/// What an action asks of a group, within its bounds.
fn standing(group: &Group, from: u32, to: u32) -> Standing {
    let Group { wanted, min, max, protected, .. } = *group;
    if to > from {
        let size = to.max(min).min(max);
        return match () {
            () if wanted < size => Standing::Due(size),
            () if wanted < to => Standing::Out(format!("its maximum is {max}, and it has {wanted} instances already")),
            () => Standing::Met(size),
        };
    }
    let size = to.max(min).max(protected);
    match () {
        () if size < wanted => Standing::Due(size),
        () if to < wanted && min >= wanted => Standing::Out(format!("its minimum is {min}")),
        () if to < wanted && protected >= wanted => {
            Standing::Out(format!("{protected} of its instances are protected from scale-in"))
        }
        () => Standing::Met(size),
    }
}

impl Actuator for CloudActuator {
    fn apply<'a>(
        &'a self,
        action: &'a Action,
        attempt: u32,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Acceptance, ActError>> {
        self.resize(action, attempt, now).boxed()
    }

    fn confirm<'a>(&'a self, action: &'a Action, now: Timestamp) -> BoxFuture<'a, Result<Confirmation, ActError>> {
        self.ask(action, now).boxed()
    }

    fn patience(&self) -> Patience {
        Patience { attempts_max: self.settings.attempts_max, confirm_within: self.settings.confirm_within }
    }
}

/// A whole number of an answer; 0 where it is none.
fn count(value: Option<&serde_json::Value>) -> u32 {
    value.and_then(serde_json::Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
