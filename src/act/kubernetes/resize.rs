//! More of a resource for each replica: in place, pod by pod, so that the same pods go on without a restart.
//!
//! The plan's amounts are what is reserved for a replica in all, its sidecars and overhead among it. The difference goes to
//! its containers: each that requests some gets the same factor more, and its limit with it, so that the quality-of-service
//! class stays. Pods that hold neither what the plan saw nor what it wants were changed by somebody else: then nothing is
//! written. Whether the cluster can do it is asked of the cluster (`pods/resize` in its discovery), not of its version.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::cluster::{Call, Fault, list, text};
use super::workload::{WorkloadKind, autoscaler, kind_of, reserved, running_pods, was_there};
use super::{CONFLICTS_MAX, Step, Task, quantity};
use crate::act::Confirmation;
use crate::plan::Resources;

/// Amounts that differ by no more than this share are the same: they were rounded.
const SAME_AMOUNT: f64 = 0.01;

/// Modes in which a vertical autoscaler changes nothing that runs.
const VPA_QUIET: [&str; 2] = ["Off", "Initial"];

/// How a pod's or a template's amounts stand to what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Wanted,
    Before,
    Else,
}

pub(super) async fn apply(task: &Task<'_>, from: &Resources, to: &Resources) -> Result<Step, Fault> {
    let kind = kind_of(task)?;
    check_resources(task, from, to)?;
    refuse_conflicts(task, kind, to).await?;
    let workload = kind.read(task).await?;
    if !can_resize(task).await? {
        return through_template(task, kind, workload, from, to).await;
    }
    let mut pods = running_pods(task, kind, &workload).await?;
    if pods.is_empty() {
        return Err(Fault::Refused(format!("{} has no running pod", task.subject())));
    }
    if task.action.undoes.is_none()
        && let Some(pod) = pods.iter().find(|pod| holds(&pod["spec"], from, to) == Holds::Else)
    {
        let name = text(pod, "/metadata/name");
        return Err(task.not_owner(&format!("pod {name} requests neither what the plan saw nor what it wants")));
    }
    // What others made of a pod since, and pods that were made since, stay as they are.
    pods.retain(|pod| holds(&pod["spec"], from, to) == Holds::Before);
    if pods.is_empty() {
        return Ok(if task.attempt > 1 { Step::already_ours() } else { Step::unchanged() });
    }
    for pod in pods {
        resize(task, pod, from, to).await?;
    }
    Ok(Step::written(kind.regarding(task, text(&workload, "/metadata/uid"))))
}

/// Kubernetes resizes processors and memory only.
fn check_resources(task: &Task<'_>, from: &Resources, to: &Resources) -> Result<(), Fault> {
    for name in to.keys() {
        if !matches!(name.as_str(), "cpu" | "memory") {
            return Err(Fault::Refused(format!("{}: {name} cannot be resized, only cpu and memory", task.subject())));
        }
        if from.get(name).is_none_or(|amount| *amount <= 0.0) {
            let words = format!("it requests no {name}, so there is nothing to multiply: set a request first");
            return Err(Fault::Refused(format!("{}: {words}", task.subject())));
        }
    }
    Ok(())
}

/// Whoever else would change it back, or scale by it.
async fn refuse_conflicts(task: &Task<'_>, kind: WorkloadKind, to: &Resources) -> Result<(), Fault> {
    let path = format!("/apis/autoscaling.k8s.io/v1/namespaces/{}/verticalpodautoscalers", task.namespace());
    let call = Call::get(path, "list verticalpodautoscalers.autoscaling.k8s.io");
    for vpa in task.cluster.list_if_known(&call).await?.unwrap_or_default() {
        let is_for_it =
            text(&vpa, "/spec/targetRef/kind") == kind.kind && text(&vpa, "/spec/targetRef/name") == task.name();
        let mode = match text(&vpa, "/spec/updatePolicy/updateMode") {
            "" => "Auto",
            mode => mode,
        };
        if is_for_it && !VPA_QUIET.contains(&mode) {
            let name = text(&vpa, "/metadata/name");
            return Err(Fault::Refused(format!(
                "{}: its VerticalPodAutoscaler {name} is in mode {mode} and would resize it back",
                task.subject()
            )));
        }
    }
    if !to.contains_key("cpu") {
        return Ok(());
    }
    let hpa = autoscaler(task, kind).await?;
    let by_share = |metric: &&Value| {
        text(metric, "/resource/name") == "cpu" && text(metric, "/resource/target/type") == "Utilization"
    };
    match hpa.as_ref().filter(|hpa| list(hpa, "/spec/metrics").iter().any(|metric| by_share(&metric))) {
        None => Ok(()),
        Some(hpa) => Err(Fault::Refused(format!(
            "{}: its autoscaler {} scales by the share of the requested cpu, which a resize would change: scale it out \
             instead, or resize memory only",
            task.subject(),
            text(hpa, "/metadata/name")
        ))),
    }
}

async fn can_resize(task: &Task<'_>) -> Result<bool, Fault> {
    let core = task.cluster.call(&Call::get("/api/v1".to_owned(), "get /api/v1")).await?;
    Ok(list(&core, "/resources").iter().any(|resource| text(resource, "/name") == "pods/resize"))
}

/// Resizes one pod, if it is still the one that was looked at and holds what it did.
async fn resize(task: &Task<'_>, mut pod: Value, from: &Resources, to: &Resources) -> Result<(), Fault> {
    let name = text(&pod, "/metadata/name").to_owned();
    let uid = text(&pod, "/metadata/uid").to_owned();
    let path = format!("/api/v1/namespaces/{}/pods/{name}", task.namespace());
    for _ in 0..CONFLICTS_MAX {
        let containers = multiplied(&pod["spec"], to)
            .map_err(|words| Fault::Refused(format!("{}: pod {name}: {words}", task.subject())))?;
        let patch = json!({
            "metadata": { "uid": uid, "resourceVersion": text(&pod, "/metadata/resourceVersion") },
            "spec": { "containers": containers },
        });
        match task.cluster.call(&Call::strategic(format!("{path}/resize"), patch, "patch pods/resize")).await {
            Err(Fault::Conflict(_)) => {}
            // It went away in the meantime: whoever comes in its place has the template's amounts.
            Err(fault) if fault.is_gone() => return Ok(()),
            answer => return answer.map(drop),
        }
        pod = match task.cluster.call(&Call::get(path.clone(), "get pods")).await {
            Err(fault) if fault.is_gone() => return Ok(()),
            pod => pod?,
        };
        if text(&pod, "/metadata/uid") != uid || holds(&pod["spec"], from, to) != Holds::Before {
            return Ok(());
        }
    }
    Err(Fault::Conflict(format!("pod {name} changed again and again while it was resized")))
}

/// The containers with what they are to have: each that requests some gets the same factor of it, and its limit with it.
fn multiplied(spec: &Value, to: &Resources) -> Result<Vec<Value>, String> {
    let mut changed = Vec::new();
    for container in list(spec, "/containers") {
        let (mut requests, mut limits) = (Map::new(), Map::new());
        for (resource, wanted) in to {
            let before = reserved(spec, resource);
            if before.by_init {
                return Err(format!("an init container asks for more {resource} than all that runs after it"));
            }
            let factor = (before.containers + wanted - before.all) / before.containers;
            if !factor.is_finite() || factor <= 0.0 {
                return Err(format!("its containers request too little {resource} to be changed by so much"));
            }
            let amount = |kind: &str| {
                let amounts = container.pointer(&format!("/resources/{kind}"));
                amounts.and_then(|all| all.get(resource)).and_then(Value::as_str).and_then(quantity::parse)
            };
            let Some(request) = amount("requests") else { continue };
            if must_restart(container, resource) {
                let name = text(container, "/name");
                return Err(format!("container {name} would have to start again for more {resource} (`resizePolicy`)"));
            }
            requests.insert(resource.clone(), json!(quantity::write(resource, request * factor)));
            if let Some(limit) = amount("limits") {
                limits.insert(resource.clone(), json!(quantity::write(resource, limit * factor)));
            }
        }
        if !requests.is_empty() {
            let mut resources = json!({ "requests": requests });
            if !limits.is_empty() {
                resources["limits"] = Value::Object(limits);
            }
            changed.push(json!({ "name": text(container, "/name"), "resources": resources }));
        }
    }
    if changed.is_empty() {
        return Err("none of its containers requests any of it".to_owned());
    }
    Ok(changed)
}

fn must_restart(container: &Value, resource: &str) -> bool {
    list(container, "/resizePolicy")
        .iter()
        .any(|policy| text(policy, "/resourceName") == resource && text(policy, "/restartPolicy") == "RestartContainer")
}

/// How what a pod's or a template's containers request stands to a change.
fn holds(spec: &Value, from: &Resources, to: &Resources) -> Holds {
    let near = |amounts: &Resources| {
        amounts
            .iter()
            .all(|(resource, amount)| (reserved(spec, resource).all - amount).abs() <= SAME_AMOUNT * amount.abs())
    };
    if near(to) {
        return Holds::Wanted;
    }
    if near(from) { Holds::Before } else { Holds::Else }
}

/// The template is changed, which replaces the pods: only where the settings give leave.
async fn through_template(
    task: &Task<'_>,
    kind: WorkloadKind,
    mut workload: Value,
    from: &Resources,
    to: &Resources,
) -> Result<Step, Fault> {
    if !task.settings.template_patch {
        return Err(Fault::Refused(format!(
            "{}: this cluster cannot resize pods in place; `template_patch: true` lets the template be changed instead, \
             which replaces the pods",
            task.subject()
        )));
    }
    for _ in 0..CONFLICTS_MAX {
        let spec = &workload["spec"]["template"]["spec"];
        match holds(spec, from, to) {
            Holds::Wanted if task.attempt > 1 => return Ok(Step::already_ours()),
            Holds::Wanted => return Ok(Step::unchanged()),
            Holds::Else if task.action.undoes.is_some() => return Ok(Step::unchanged()),
            Holds::Else => {
                return Err(task.not_owner("its template requests neither what the plan saw nor what it wants"));
            }
            Holds::Before => {}
        }
        let containers =
            multiplied(spec, to).map_err(|words| Fault::Refused(format!("{}: {words}", task.subject())))?;
        let patch = json!({
            "metadata": { "resourceVersion": text(&workload, "/metadata/resourceVersion") },
            "spec": { "template": { "spec": { "containers": containers } } },
        });
        match task.cluster.call(&Call::strategic(kind.path(task), patch, &format!("patch {}", kind.plural))).await {
            Err(Fault::Conflict(_)) => workload = kind.read(task).await?,
            answer => {
                answer?;
                return Ok(Step::written(kind.regarding(task, text(&workload, "/metadata/uid"))));
            }
        }
    }
    Err(Fault::Conflict(format!("{} changed again and again while it was written", task.subject())))
}

pub(super) async fn confirm(task: &Task<'_>, to: &Resources) -> Result<Confirmation, Fault> {
    let kind = kind_of(task)?;
    let workload = kind.read(task).await?;
    let template =
        holds(&workload["spec"]["template"]["spec"], &Resources::new(), to) == Holds::Wanted && !to.is_empty();
    let pods = running_pods(task, kind, &workload).await?;
    let before = BTreeMap::new();
    let wanted = |pod: &&Value| holds(&pod["spec"], &before, to) == Holds::Wanted;
    let resized: Vec<&Value> = pods.iter().filter(wanted).collect();
    if resized.is_empty() && !template {
        return Ok(if task.applied { task.reverted("what its pods request") } else { Confirmation::NeverHeard });
    }
    for pod in &resized {
        let name = text(pod, "/metadata/name");
        let pending = list(pod, "/status/conditions")
            .iter()
            .find(|condition| text(condition, "/type") == "PodResizePending" && text(condition, "/status") == "True");
        if let Some(pending) = pending {
            let (reason, words) = (text(pending, "/reason"), super::super::cut(text(pending, "/message"), 300));
            if reason == "Infeasible" || task.is_overdue() {
                return Ok(Confirmation::Insufficient(format!("pod {name}: {reason}: {words}")));
            }
            return Ok(Confirmation::Pending);
        }
    }
    let all = resized.len() == pods.len() && !pods.is_empty();
    // A pod that was made in the meantime has the template's amounts: that is not for the resize to wait for.
    let replaced_since = |pod: &&Value| !wanted(pod) && is_younger(pod, task);
    let settled = all || (!template && pods.iter().all(|pod| wanted(&pod) || replaced_since(&pod)));
    Ok(if settled && resized.iter().all(|pod| is_carried_out(pod)) {
        Confirmation::Done
    } else {
        Confirmation::Pending
    })
}

fn is_younger(pod: &Value, task: &Task<'_>) -> bool {
    was_there(pod, task.action.decided_at) == Some(false)
}

/// Whether the node has given what is requested: it says so for each container.
fn is_carried_out(pod: &Value) -> bool {
    let conditions = list(pod, "/status/conditions");
    let in_progress = conditions
        .iter()
        .any(|condition| text(condition, "/type") == "PodResizeInProgress" && text(condition, "/status") == "True");
    let given = |container: &Value| {
        let statuses = list(pod, "/status/containerStatuses");
        let status = statuses.iter().find(|status| text(status, "/name") == text(container, "/name"));
        let requests = container.pointer("/resources/requests").and_then(Value::as_object);
        requests.is_none_or(|requests| {
            requests.iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")).all(|(name, wanted)| {
                let has = status.and_then(|status| status.pointer("/resources/requests")).and_then(|all| all.get(name));
                let amount = |value: Option<&Value>| value.and_then(Value::as_str).and_then(quantity::parse);
                amount(has).is_some() && amount(has) == amount(Some(wanted))
            })
        })
    };
    !in_progress && list(pod, "/spec/containers").iter().all(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(cpu: f64) -> Resources {
        Resources::from([("cpu".to_owned(), cpu)])
    }

    #[test]
    fn each_container_gets_the_same_factor_and_its_limit_with_it() {
        let spec = json!({ "containers": [
            { "name": "web", "resources": { "requests": { "cpu": "300m", "memory": "1Gi" }, "limits": { "cpu": "600m" } } },
            { "name": "proxy", "resources": { "requests": { "cpu": "100m" } } },
            { "name": "idle" },
        ] });
        let containers = multiplied(&spec, &resources(0.6)).expect("it can be resized");
        let wanted = json!([
            { "name": "web", "resources": { "requests": { "cpu": "450m" }, "limits": { "cpu": "900m" } } },
            { "name": "proxy", "resources": { "requests": { "cpu": "150m" } } },
        ]);
        assert_eq!(Value::Array(containers), wanted);
    }

    #[test]
    fn what_sidecars_take_stays_and_the_containers_get_the_difference() {
        let spec = json!({
            "containers": [{ "name": "web", "resources": { "requests": { "cpu": "300m" } } }],
            "initContainers": [
                { "name": "mesh", "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } },
            ],
        });
        assert_eq!(holds(&spec, &resources(0.4), &resources(0.6)), Holds::Before);
        let containers = multiplied(&spec, &resources(0.6)).expect("it can be resized");
        assert_eq!(containers, [json!({ "name": "web", "resources": { "requests": { "cpu": "500m" } } })]);
        let mut by_init = spec;
        by_init["initContainers"][0] = json!({ "name": "setup", "resources": { "requests": { "cpu": "2" } } });
        let words = multiplied(&by_init, &resources(3.0)).expect_err("it would not show");
        assert!(words.contains("init container"), "{words}");
    }

    #[test]
    fn a_container_that_would_start_again_is_left_alone() {
        let spec = json!({ "containers": [{
            "name": "db",
            "resources": { "requests": { "memory": "1Gi" } },
            "resizePolicy": [{ "resourceName": "memory", "restartPolicy": "RestartContainer" }],
        }] });
        let gib = |n: f64| Resources::from([("memory".to_owned(), n * 1_073_741_824.0)]);
        let words = multiplied(&spec, &gib(2.0)).expect_err("it would restart");
        assert!(words.contains("db") && words.contains("resizePolicy"), "{words}");
    }
}
