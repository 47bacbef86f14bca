//! Nodes: nothing new on them, and what runs there elsewhere, through the Eviction API.
//!
//! Emptying a node takes many passes. What must not be lost of it is on the node itself: one mark says that we closed it,
//! one that an action empties it. So a process that starts anew goes on with what an earlier one began, and with nothing
//! else. The Eviction API keeps the floors of disruption budgets; a pod that may not go now is tried again in the next pass.
//! Pods of daemon sets and mirror pods stay, and pods that nobody would start again unless the settings give leave.

use serde_json::{Value, json};

use super::cluster::{Call, Fault, annotation, text};
use super::workload::{controller_of, is_ending, kind_of, running_pods, was_there};
use super::{Step, Task};
use crate::act::Confirmation;

/// The action that closed the node: only what it closed is opened again.
const CLOSED_BY: &str = "forestall.io/cordoned-by";
/// The action that empties the node.
const DRAINED_BY: &str = "forestall.io/drained-by";
/// A node's version moves with each heartbeat.
const CONFLICTS_MAX: u32 = 10;
/// One pass evicts no more pods.
const EVICTIONS_MAX: usize = 100;
/// So many errors of the server end a round.
const UNANSWERED_MAX: u32 = 3;
/// No more pods are named.
const NAMED_MAX: usize = 5;

pub(super) async fn cordon(task: &Task<'_>) -> Result<Step, Fault> {
    check_node(task)?;
    close(task, task.name(), CLOSED_BY).await
}

/// Opens a node that the undone action closed, unless somebody else has a say in it now.
pub(super) async fn uncordon(task: &Task<'_>) -> Result<Step, Fault> {
    check_node(task)?;
    let undone = task.action.undoes.as_deref().unwrap_or_default();
    for _ in 0..CONFLICTS_MAX {
        let node = read(task, task.name()).await?;
        if annotation(&node, CLOSED_BY) != undone || undone.is_empty() {
            return Ok(Step::unchanged());
        }
        let patch = json!({
            "metadata": { "resourceVersion": version(&node), "annotations": { CLOSED_BY: Value::Null } },
            "spec": { "unschedulable": Value::Null },
        });
        match task.cluster.call(&Call::merge(path(task.name()), patch, "patch nodes")).await {
            Err(Fault::Conflict(_)) => {}
            answer => return answer.map(|node| Step::written(regarding(&node))),
        }
    }
    Err(Fault::Conflict(format!("node {} changed again and again while it was written", task.name())))
}

pub(super) async fn confirm_cordon(task: &Task<'_>) -> Result<Confirmation, Fault> {
    let node = read(task, task.name()).await?;
    let closed = is_closed(&node);
    if let Some(undone) = &task.action.undoes {
        let stands = annotation(&node, CLOSED_BY) == undone;
        return Ok(if stands { Confirmation::NeverHeard } else { Confirmation::Done });
    }
    Ok(match (annotation(&node, CLOSED_BY) == task.action.id, closed) {
        (true, true) => Confirmation::Done,
        (true, false) => Confirmation::Failed(format!("somebody else opened node {} again", task.name())),
        (false, _) => Confirmation::NeverHeard,
    })
}

/// Closes the nodes and begins to empty them; of a workload only its own pods go. Also says what stands in the way.
pub(super) async fn apply(task: &Task<'_>, from_nodes: &[String]) -> Result<(Step, Option<String>), Fault> {
    if task.action.target.component.kind != "node" {
        let obstacle = evict(task, from_nodes).await?;
        return Ok((Step::written(owner(task).await?), obstacle));
    }
    check_node(task)?;
    // A node that is closed and cannot be emptied helps nobody.
    if let Some(pod) = left_on(task, from_nodes).await?.first() {
        task.cluster.check_right("create", "pods", "eviction", text(pod, "/metadata/namespace")).await?;
    }
    let mut step = Step::unchanged();
    for node in from_nodes {
        let closed = close(task, node, DRAINED_BY).await?;
        if step.regarding.is_none() {
            step = closed;
        }
    }
    Ok((step, evict(task, from_nodes).await?))
}

/// Evicts what is left, where that was begun.
pub(super) async fn carry_on(task: &Task<'_>, from_nodes: &[String]) -> Result<Option<String>, Fault> {
    match progress(task, from_nodes).await? {
        Progress::Begun => evict(task, from_nodes).await,
        Progress::Never | Progress::CalledOff(_) => Ok(None),
    }
}

pub(super) async fn confirm(
    task: &Task<'_>,
    from_nodes: &[String],
    obstacle: Option<String>,
) -> Result<Confirmation, Fault> {
    match progress(task, from_nodes).await? {
        Progress::Begun => {}
        // Whether any of its pods was evicted before this process began nobody can tell.
        Progress::Never if task.action.target.component.kind != "node" => return Ok(Confirmation::CannotAsk),
        Progress::Never => return Ok(Confirmation::NeverHeard),
        Progress::CalledOff(node) => {
            return Ok(Confirmation::Failed(format!(
                "somebody else opened node {node} again: the rest of its pods stay"
            )));
        }
    }
    let left = left_on(task, from_nodes).await?;
    if left.is_empty() {
        return Ok(Confirmation::Done);
    }
    if !task.is_overdue() {
        return Ok(Confirmation::Pending);
    }
    let names: Vec<&str> = left.iter().map(|pod| text(pod, "/metadata/name")).take(NAMED_MAX).collect();
    let why = obstacle.unwrap_or_else(|| "they have not ended yet".to_owned());
    let words = format!("{} of its pods have not moved within {}", left.len(), task.settings.confirm_within);
    Ok(Confirmation::Failed(format!("{}: {words} ({}): {why}", task.subject(), names.join(", "))))
}

/// How far the emptying of nodes is.
enum Progress {
    Never,
    Begun,
    /// Somebody else opened this node again.
    CalledOff(String),
}

/// Of a node its mark tells, also after a restart; of a workload the journal.
async fn progress(task: &Task<'_>, from_nodes: &[String]) -> Result<Progress, Fault> {
    if task.action.target.component.kind != "node" {
        return Ok(if task.applied { Progress::Begun } else { Progress::Never });
    }
    for name in from_nodes {
        match read(task, name).await {
            Ok(node) if annotation(&node, DRAINED_BY) != task.action.id => return Ok(Progress::Never),
            Ok(node) if !is_closed(&node) => return Ok(Progress::CalledOff(name.clone())),
            // A node that is gone has nothing left on it.
            Err(fault) if !fault.is_gone() => return Err(fault),
            _ => {}
        }
    }
    Ok(Progress::Begun)
}

fn is_closed(node: &Value) -> bool {
    node.pointer("/spec/unschedulable") == Some(&json!(true))
}

/// The nodes of a node's action are the node itself.
fn check_node(task: &Task<'_>) -> Result<(), Fault> {
    let named = match &task.action.change {
        crate::plan::Change::Move { from_nodes } => from_nodes.iter().all(|node| node == task.name()),
        _ => true,
    };
    if task.action.target.component.kind == "node" && named {
        return Ok(());
    }
    Err(Fault::Refused(format!("{} is not the node that would be closed", task.subject())))
}

/// Closes a node under `mark`. One that somebody else closed stays theirs.
async fn close(task: &Task<'_>, name: &str, mark: &str) -> Result<Step, Fault> {
    for _ in 0..CONFLICTS_MAX {
        let node = read(task, name).await?;
        if annotation(&node, mark) == task.action.id {
            return Ok(Step::already_ours());
        }
        let closed = is_closed(&node);
        if closed && mark == CLOSED_BY {
            return Ok(Step::unchanged());
        }
        let mut patch = json!({
            "metadata": { "resourceVersion": version(&node), "annotations": { mark: task.action.id } },
        });
        if !closed {
            patch["spec"] = json!({ "unschedulable": true });
            patch["metadata"]["annotations"][CLOSED_BY] = json!(task.action.id);
        }
        match task.cluster.call(&Call::merge(path(name), patch, "patch nodes")).await {
            Err(Fault::Conflict(_)) => {}
            answer => return answer.map(|node| Step::written(regarding(&node))),
        }
    }
    Err(Fault::Conflict(format!("node {name} changed again and again while it was written")))
}

/// One round of evictions; says what stands in the way of the rest.
async fn evict(task: &Task<'_>, from_nodes: &[String]) -> Result<Option<String>, Fault> {
    let pods = left_on(task, from_nodes).await?;
    let (mut kept, mut last, mut unanswered) = (Vec::new(), String::new(), 0);
    for pod in pods.iter().filter(|pod| !is_ending(pod)).take(EVICTIONS_MAX) {
        match evict_one(task, pod).await {
            Ok(()) => {}
            // Two budgets for one pod are an error of the server too: the others may go all the same.
            Err(Fault::Unanswered(words)) if unanswered < UNANSWERED_MAX => {
                unanswered += 1;
                kept.push(text(pod, "/metadata/name").to_owned());
                last = words;
            }
            Err(Fault::Later { words, budget: true, .. } | Fault::Refused(words)) => {
                kept.push(text(pod, "/metadata/name").to_owned());
                last = words;
            }
            // The server is busy, or the role forbids it: the next one would fare no better.
            Err(fault) => return Err(fault),
        }
    }
    kept.truncate(NAMED_MAX);
    Ok((!kept.is_empty()).then(|| format!("{} may not go now: {last}", kept.join(", "))))
}

async fn evict_one(task: &Task<'_>, pod: &Value) -> Result<(), Fault> {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "name": name, "namespace": namespace },
        "deleteOptions": { "preconditions": { "uid": text(pod, "/metadata/uid") } },
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction");
    match task.cluster.call(&Call::post(path, eviction, "create pods/eviction")).await {
        // It is gone, or another one has its name.
        Err(Fault::Gone(_) | Fault::Conflict(_)) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Pods that have to go and are still there, those among them that are ending.
async fn left_on(task: &Task<'_>, from_nodes: &[String]) -> Result<Vec<Value>, Fault> {
    let target = &task.action.target;
    let mut left = Vec::new();
    if target.component.kind == "node" {
        for node in from_nodes {
            let call = Call::get("/api/v1/pods".to_owned(), "list pods (of all namespaces)");
            left.extend(task.cluster.list(&call.with("fieldSelector", format!("spec.nodeName={node}"))).await?);
        }
    } else if target.component.kind == "pod" {
        let path = format!("/api/v1/namespaces/{}/pods/{}", target.namespace, target.name);
        match task.cluster.call(&Call::get(path, "get pods")).await {
            Err(fault) if fault.is_gone() => {}
            pod => left.push(pod?),
        }
        left.retain(|pod| is_from_before(pod, task));
    } else {
        let kind = kind_of(task)?;
        let workload = kind.read(task).await?;
        left.extend(running_pods(task, kind, &workload).await?);
        let there =
            |pod: &Value| from_nodes.is_empty() || from_nodes.iter().any(|node| node == text(pod, "/spec/nodeName"));
        left.retain(|pod| there(pod) && is_from_before(pod, task));
    }
    left.retain(|pod| may_be_evicted(pod, task.settings.evict_bare_pods));
    left.sort_by(|a, b| name_of(a).cmp(&name_of(b)));
    Ok(left)
}

fn name_of(pod: &Value) -> (&str, &str) {
    (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"))
}

/// Whether a pod is one of those that were meant: what was started since is not moved again.
fn is_from_before(pod: &Value, task: &Task<'_>) -> bool {
    was_there(pod, task.action.decided_at) == Some(true)
}

fn may_be_evicted(pod: &Value, bare_too: bool) -> bool {
    let is_over = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    let is_mirror = !annotation(pod, "kubernetes.io/config.mirror").is_empty();
    let owned = match controller_of(pod) {
        Some(("DaemonSet" | "Node", _)) => false,
        Some(_) => true,
        None => bare_too,
    };
    !is_over && !is_mirror && owned
}

async fn read(task: &Task<'_>, name: &str) -> Result<Value, Fault> {
    task.cluster.call(&Call::get(path(name), "get nodes")).await
}

/// What an event about moved pods is put beside.
async fn owner(task: &Task<'_>) -> Result<Value, Fault> {
    let target = &task.action.target;
    if target.component.kind == "pod" {
        return Ok(json!({ "apiVersion": "v1", "kind": "Pod", "namespace": target.namespace, "name": target.name }));
    }
    let kind = kind_of(task)?;
    Ok(kind.regarding(task, text(&kind.read(task).await?, "/metadata/uid")))
}

fn path(name: &str) -> String {
    format!("/api/v1/nodes/{name}")
}

fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

fn regarding(node: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "name": text(node, "/metadata/name"), "uid": text(node, "/metadata/uid") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_mirror_and_bare_pods_stay_unless_there_is_leave() {
        let owned = |kind: &str| json!([{ "kind": kind, "name": "x", "controller": true }]);
        let mirror = json!({ "kubernetes.io/config.mirror": "abc" });
        for (owners, annotations, phase, bare_too, goes) in [
            (owned("ReplicaSet"), json!({}), "Running", false, true),
            (owned("Job"), json!({}), "Pending", false, true),
            (owned("DaemonSet"), json!({}), "Running", true, false),
            (owned("Node"), mirror.clone(), "Running", true, false),
            (json!([]), mirror, "Running", true, false),
            (json!([]), json!({}), "Running", false, false),
            (json!([]), json!({}), "Running", true, true),
            (owned("Job"), json!({}), "Succeeded", true, false),
        ] {
            let pod = json!({
                "metadata": { "ownerReferences": owners, "annotations": annotations },
                "status": { "phase": phase },
            });
            assert_eq!(may_be_evicted(&pod, bare_too), goes, "{pod}");
        }
    }
}
