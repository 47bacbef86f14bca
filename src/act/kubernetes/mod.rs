//! Changes objects of a Kubernetes cluster: exactly what was decided, once, and only the object that is named.
//!
//! ```text
//! Replicas  → `scale.rs`   an autoscaler's minReplicas, else the scale subresource
//! Resources → `resize.rs`  pods/resize, pod by pod; the template only by leave
//! Move      → `drain.rs`   cordon, then the Eviction API
//! Cordon    → `drain.rs`
//! Shift     → `shift.rs`   the weights of Gateway API routes
//! ```
//!
//! Each write is compare-and-swap: it names the version (or the uid) that was looked at, and is made only while the value
//! there is still the one that the plan saw. What was changed by somebody else in the meantime stays. Amounts are absolute,
//! so an answer that is lost costs a look, not a second effect. What is ours is marked where the API keeps a mark:
//! annotations on autoscalers, nodes and routes. Effects are judged by what can be seen, not by the answer.
//!
//! Limits: a call is bounded in time and an answer in size; lists are read in pages of 500; a conflict is looked into five
//! times (ten for nodes, whose version moves with each heartbeat); one pass evicts at most 100 pods of a node. A refused
//! right ends an action at its first refusal.

mod capacity;
mod cluster;
mod drain;
mod lease;
mod quantity;
mod resize;
mod scale;
mod shift;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;

pub use self::capacity::{Naming, Wanted};
use self::cluster::{Cluster, Fault};
pub use self::lease::{Fence, Leadership, LeaseSettings};
use super::{Acceptance, ActError, Actuator, Confirmation, Patience};
use crate::model::{Millis, Timestamp};
use crate::plan::{Action, Capacity, Change};

/// How often a conflict is looked into before the attempt is given up.
const CONFLICTS_MAX: u32 = 5;

/// What is remembered of actions of this process: of so many at most.
const REMEMBERED_MAX: usize = 1000;

/// How a cluster is reached, and what may be done in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// How to get there; as a pod of the cluster, else as `kubectl` finds it, where absent.
    pub kubeconfig: Option<PathBuf>,
    /// Which of its contexts; its current one where absent.
    pub context: Option<String>,
    /// How long one call may take.
    pub timeout: Millis,
    /// How often an action is tried in all.
    pub attempts_max: u32,
    /// How long to wait until the effect of an action can be seen.
    pub confirm_within: Millis,
    /// Whether the template of a workload may be changed where its pods cannot be resized in place: that replaces its pods,
    /// and needs the right to change anything of a workload.
    pub template_patch: bool,
    /// Whether pods may be evicted that nobody will start again.
    pub evict_bare_pods: bool,
}

impl Default for KubernetesSettings {
    fn default() -> KubernetesSettings {
        KubernetesSettings {
            kubeconfig: None,
            context: None,
            timeout: Millis::SECOND * 10,
            attempts_max: 5,
            confirm_within: Millis::MINUTE * 10,
            template_patch: false,
            evict_bare_pods: false,
        }
    }
}

/// Changes objects of one cluster.
#[derive(Debug)]
pub struct KubernetesActuator {
    name: String,
    settings: KubernetesSettings,
    cluster: Cluster,
    memory: Mutex<Memory>,
}

/// What this process knows of its own actions. Nothing that must not be lost: that is in the cluster.
#[derive(Debug, Default)]
struct Memory {
    /// Actions whose change was seen to be in place.
    applied: BTreeSet<String>,
    /// Action → what stands in its way, …
    obstacles: BTreeMap<String, String>,
    /// … and for those the role has no right: they are not tried again.
    barred: BTreeSet<String>,
}

/// What was done in one attempt, and to what.
#[derive(Debug)]
struct Step {
    acceptance: Acceptance,
    /// The object, as an event names it; nothing where nothing was written.
    regarding: Option<Value>,
}

impl Step {
    fn unchanged() -> Step {
        Step { acceptance: Acceptance::Unchanged, regarding: None }
    }

    /// It is as it should be, by an earlier attempt of ours.
    fn already_ours() -> Step {
        Step { acceptance: Acceptance::Accepted, regarding: None }
    }

    fn written(regarding: Value) -> Step {
        Step { acceptance: Acceptance::Accepted, regarding: Some(regarding) }
    }
}

/// One action at work.
#[derive(Debug, Clone, Copy)]
struct Task<'a> {
    cluster: &'a Cluster,
    settings: &'a KubernetesSettings,
    action: &'a Action,
    /// Counting from 1; 0 while only looking.
    attempt: u32,
    now: Timestamp,
    /// Whether an attempt was taken, as far as this process or the journal knows.
    applied: bool,
}

impl Task<'_> {
    fn namespace(&self) -> &str {
        &self.action.target.namespace
    }

    fn name(&self) -> &str {
        &self.action.target.name
    }

    /// `deployment shop/checkout`
    fn subject(&self) -> String {
        let kind = &self.action.target.component.kind;
        match self.namespace() {
            "" => format!("{kind} {}", self.name()),
            namespace => format!("{kind} {namespace}/{}", self.name()),
        }
    }

    /// Whether its time for an effect is over.
    fn is_overdue(&self) -> bool {
        self.now - self.action.decided_at >= self.settings.confirm_within
    }

    /// Somebody else changed what the plan saw: theirs stays.
    fn not_owner(&self, words: &str) -> Fault {
        Fault::Refused(format!("{}: {words}: somebody else changed it, and theirs stays", self.subject()))
    }

    /// The change was in place, and it is no longer.
    fn reverted(&self, what: &str) -> Confirmation {
        Confirmation::Failed(format!(
            "{}: {what} was set back by another controller; if a GitOps tool applies it, name the field in its \
             `ignoreDifferences`",
            self.subject()
        ))
    }
}

impl KubernetesActuator {
    /// An actuator called `name`. The cluster is first called when there is something to do.
    pub fn new(name: &str, settings: &KubernetesSettings) -> KubernetesActuator {
        KubernetesActuator {
            name: name.to_owned(),
            settings: settings.clone(),
            cluster: Cluster::new(name, settings),
            memory: Mutex::default(),
        }
    }

    fn task<'a>(&'a self, action: &'a Action, attempt: u32, now: Timestamp) -> Task<'a> {
        let applied = self.memory.lock().applied.contains(&action.id);
        Task { cluster: &self.cluster, settings: &self.settings, action, attempt, now, applied }
    }

    async fn make(&self, action: &Action, attempt: u32, now: Timestamp) -> Result<Acceptance, ActError> {
        if let Err(reason) = check_target(action) {
            return Err(ActError::Refused { target: self.name.clone(), reason });
        }
        let task = self.task(action, attempt, now);
        let made = match &action.change {
            Change::Replicas { from, to } => scale::apply(&task, *from, *to).await,
            Change::Resources { from, to } => resize::apply(&task, from, to).await,
            Change::Move { from_nodes } => drain::apply(&task, from_nodes).await.map(|(step, obstacle)| {
                self.note(action, obstacle);
                step
            }),
            Change::Cordon => drain::cordon(&task).await,
            Change::Uncordon => drain::uncordon(&task).await,
            Change::Shift { share } => shift::apply(&task, *share).await,
        };
        let step = made.map_err(|fault| self.cluster.error(fault))?;
        if step.acceptance == Acceptance::Accepted {
            remember(&mut self.memory.lock().applied, &action.id);
        }
        if let Some(regarding) = &step.regarding {
            self.cluster.tell(regarding, action, now).await;
        }
        Ok(step.acceptance)
    }

    async fn look(&self, action: &Action, now: Timestamp) -> Result<Confirmation, ActError> {
        if let Err(reason) = check_target(action) {
            return Ok(Confirmation::Failed(reason));
        }
        let task = self.task(action, 0, now);
        let seen = match &action.change {
            Change::Replicas { from, to } => scale::confirm(&task, *from, *to).await,
            Change::Resources { to, .. } => resize::confirm(&task, to).await,
            Change::Move { from_nodes } => {
                let (obstacle, barred) = {
                    let memory = self.memory.lock();
                    (memory.obstacles.get(&action.id).cloned(), memory.barred.contains(&action.id))
                };
                if let Some(words) = obstacle.clone().filter(|_| barred) {
                    return Ok(Confirmation::Failed(words));
                }
                drain::confirm(&task, from_nodes, obstacle).await
            }
            Change::Cordon | Change::Uncordon => drain::confirm_cordon(&task).await,
            Change::Shift { .. } => shift::confirm(&task).await,
        };
        match seen {
            // What is gone cannot take effect any more, …
            Err(Fault::Gone(words)) => Ok(Confirmation::Failed(format!("{} is gone: {words}", task.subject()))),
            // … and what may not be looked at tells nothing.
            Err(fault @ Fault::Forbidden { .. }) => {
                tracing::warn!(action = %action.id, reason = %self.cluster.error(fault), "its effect cannot be seen");
                Ok(Confirmation::CannotAsk)
            }
            seen => seen.map_err(|fault| self.cluster.error(fault)),
        }
    }

    async fn go_on(&self, action: &Action, now: Timestamp) -> Result<(), ActError> {
        let Change::Move { from_nodes } = &action.change else { return Ok(()) };
        if check_target(action).is_err() || self.memory.lock().barred.contains(&action.id) {
            return Ok(());
        }
        match drain::carry_on(&self.task(action, 0, now), from_nodes).await {
            Ok(obstacle) => self.note(action, obstacle),
            Err(fault) => {
                let forbidden = matches!(fault, Fault::Forbidden { .. });
                let error = self.cluster.error(fault);
                if forbidden {
                    self.note(action, Some(error.to_string()));
                    remember(&mut self.memory.lock().barred, &action.id);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn note(&self, action: &Action, obstacle: Option<String>) {
        let obstacles = &mut self.memory.lock().obstacles;
        match obstacle {
            Some(words) => {
                if obstacles.len() >= REMEMBERED_MAX {
                    obstacles.pop_first();
                }
                obstacles.insert(action.id.clone(), words);
            }
            None => drop(obstacles.remove(&action.id)),
        }
    }
}

impl Actuator for KubernetesActuator {
    fn apply<'a>(
        &'a self,
        action: &'a Action,
        attempt: u32,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Acceptance, ActError>> {
        self.make(action, attempt, now).boxed()
    }

    fn confirm<'a>(&'a self, action: &'a Action, now: Timestamp) -> BoxFuture<'a, Result<Confirmation, ActError>> {
        self.look(action, now).boxed()
    }

    fn recall(&self, action_id: &str) {
        remember(&mut self.memory.lock().applied, action_id);
    }

    fn carry_on<'a>(&'a self, action: &'a Action, now: Timestamp) -> BoxFuture<'a, Result<(), ActError>> {
        self.go_on(action, now).boxed()
    }

    fn measure<'a>(&'a self, wanted: &'a Wanted) -> BoxFuture<'a, Result<Capacity, ActError>> {
        let measured = capacity::measure(&self.cluster, wanted);
        measured.map(|capacity| capacity.map_err(|fault| self.cluster.error(fault))).boxed()
    }

    fn set_fence(&self, fence: &Fence) {
        self.cluster.set_fence(fence);
    }

    fn patience(&self) -> Patience {
        Patience { attempts_max: self.settings.attempts_max, confirm_within: self.settings.confirm_within }
    }
}

fn remember(ids: &mut BTreeSet<String>, id: &str) {
    if ids.len() >= REMEMBERED_MAX {
        ids.pop_first();
    }
    ids.insert(id.to_owned());
}

/// Names come from labels of series: none may lead elsewhere than to the object that it names.
fn check_target(action: &Action) -> Result<(), String> {
    let (namespace, name) = (&action.target.namespace, &action.target.name);
    if action.target.component.kind != "node" && !is_dns_label(namespace) {
        return Err(format!("`{namespace}` is no namespace: at most 63 of a-z, 0-9 and `-`, ends are no `-`"));
    }
    if name.len() > 253 || !name.split('.').all(is_dns_label) {
        return Err(format!("`{name}` is no name of an object: a-z, 0-9, `-` and `.`, at most 253"));
    }
    if let Change::Move { from_nodes } = &action.change
        && let Some(node) = from_nodes.iter().find(|node| node.len() > 253 || !node.split('.').all(is_dns_label))
    {
        return Err(format!("`{node}` is no name of a node"));
    }
    Ok(())
}

/// A label of RFC 1123, as Kubernetes wants it.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::tests::action;

    #[test]
    fn names_lead_nowhere_else() {
        for (namespace, name, fits) in [
            ("shop", "checkout", true),
            ("shop", "checkout.v2", true),
            ("", "checkout", false),
            ("shop", "", false),
            ("shop/../kube-system", "checkout", false),
            ("shop", "../../kube-system/deployments/coredns", false),
            ("shop", "a?dryRun=All", false),
            ("shop", "a%2fb", false),
            ("Shop", "checkout", false),
            ("shop", "-a", false),
            ("shop", "a..b", false),
        ] {
            let mut action = action("a");
            action.target.namespace = namespace.to_owned();
            action.target.name = name.to_owned();
            assert_eq!(check_target(&action).is_ok(), fits, "{namespace} {name}");
        }
    }
}
