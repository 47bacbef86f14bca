//! Workloads as the API shows them: their paths, autoscalers and pods.

use serde_json::{Value, json};

use super::cluster::{Call, Fault, list, text};
use super::{Task, quantity};
use crate::model::Timestamp;

/// The annotation with which KEDA marks its autoscalers.
const KEDA_LABEL: &str = "/metadata/labels/scaledobject.keda.sh~1name";

/// A kind of workload that has replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkloadKind {
    /// `deployments`
    pub(super) plural: &'static str,
    /// `Deployment`
    pub(super) kind: &'static str,
}

/// The workload an action is for.
pub(super) fn kind_of(task: &Task<'_>) -> Result<WorkloadKind, Fault> {
    match task.action.target.component.kind.to_ascii_lowercase().as_str() {
        "deployment" => Ok(WorkloadKind { plural: "deployments", kind: "Deployment" }),
        "statefulset" => Ok(WorkloadKind { plural: "statefulsets", kind: "StatefulSet" }),
        kind => Err(Fault::Refused(format!("a {kind} is no deployment and no statefulset: this cannot be done to it"))),
    }
}

impl WorkloadKind {
    pub(super) fn path(self, task: &Task<'_>) -> String {
        format!("/apis/apps/v1/namespaces/{}/{}/{}", task.namespace(), self.plural, task.name())
    }

    /// Reads the workload.
    pub(super) async fn read(self, task: &Task<'_>) -> Result<Value, Fault> {
        task.cluster.call(&Call::get(self.path(task), &format!("get {}", self.plural))).await
    }

    /// As an event names it.
    pub(super) fn regarding(self, task: &Task<'_>, uid: &str) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": self.kind, "namespace": task.namespace(), "name": task.name(), "uid": uid })
    }
}

/// The autoscaler of a workload; nothing where it has none.
pub(super) async fn autoscaler(task: &Task<'_>, kind: WorkloadKind) -> Result<Option<Value>, Fault> {
    let path = format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers", task.namespace());
    let all = task.cluster.list(&Call::get(path, "list horizontalpodautoscalers.autoscaling")).await?;
    let is_for_it = |hpa: &&Value| {
        text(hpa, "/spec/scaleTargetRef/kind") == kind.kind
            && text(hpa, "/spec/scaleTargetRef/name") == task.name()
            && text(hpa, "/spec/scaleTargetRef/apiVersion").starts_with("apps/")
    };
    let mut own: Vec<&Value> = all.iter().filter(is_for_it).collect();
    if own.len() > 1 {
        let names: Vec<&str> = own.iter().map(|hpa| text(hpa, "/metadata/name")).collect();
        return Err(Fault::Refused(format!("{} has several autoscalers: {}", task.subject(), names.join(", "))));
    }
    let Some(hpa) = own.pop().cloned() else { return Ok(None) };
    match text(&hpa, KEDA_LABEL) {
        "" => Ok(Some(hpa)),
        owner => Err(Fault::Refused(format!(
            "{} is scaled by KEDA, which would set it back: let its ScaledObject {owner} ask forestall instead",
            task.subject()
        ))),
    }
}

/// Pods of a workload that run and are not being ended.
pub(super) async fn running_pods(task: &Task<'_>, kind: WorkloadKind, workload: &Value) -> Result<Vec<Value>, Fault> {
    let selector = selector_of(workload)?;
    let path = format!("/api/v1/namespaces/{}/pods", task.namespace());
    let mut pods = task.cluster.list(&Call::get(path, "list pods").with("labelSelector", selector)).await?;
    pods.retain(|pod| belongs_to(pod, kind, task.name()) && !is_ending(pod) && text(pod, "/status/phase") == "Running");
    pods.sort_by(|a, b| text(a, "/metadata/name").cmp(text(b, "/metadata/name")));
    Ok(pods)
}

/// Whether a pod was there for sure when something was decided: its time of creation has no fractions of a second, so one
/// of the same second may have been made after it. Nothing where it does not say.
pub(super) fn was_there(pod: &Value, decided_at: Timestamp) -> Option<bool> {
    let made = text(pod, "/metadata/creationTimestamp").parse::<jiff::Timestamp>().ok()?;
    Some(made.as_second() < decided_at.0.div_euclid(1000))
}

/// Whether it was deleted and has not gone yet.
pub(super) fn is_ending(pod: &Value) -> bool {
    !text(pod, "/metadata/deletionTimestamp").is_empty()
}

/// The label selector as a query writes it.
fn selector_of(workload: &Value) -> Result<String, Fault> {
    let mut parts = Vec::new();
    let labels = workload.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for wanted in list(workload, "/spec/selector/matchExpressions") {
        let key = text(wanted, "/key");
        let values: Vec<&str> = list(wanted, "/values").iter().filter_map(Value::as_str).collect();
        parts.push(match text(wanted, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            other => return Err(Fault::Refused(format!("its selector has the unknown operator `{other}`"))),
        });
    }
    if parts.is_empty() {
        // An empty selector would be all pods of the namespace.
        return Err(Fault::Refused("it has no selector: its pods cannot be told from others".to_owned()));
    }
    Ok(parts.join(","))
}

/// The owner that will start another pod in its place: kind and name.
pub(super) fn controller_of(pod: &Value) -> Option<(&str, &str)> {
    let owner =
        list(pod, "/metadata/ownerReferences").iter().find(|owner| owner.get("controller") == Some(&json!(true)))?;
    Some((text(owner, "/kind"), text(owner, "/name")))
}

/// Whether a pod is of a workload: a deployment's replica sets are called like it and the hash of the template.
fn belongs_to(pod: &Value, kind: WorkloadKind, name: &str) -> bool {
    let Some((owner_kind, owner)) = controller_of(pod) else { return false };
    if kind.kind == "StatefulSet" {
        return owner_kind == "StatefulSet" && owner == name;
    }
    let hash = text(pod, "/metadata/labels/pod-template-hash");
    owner_kind == "ReplicaSet" && !hash.is_empty() && owner == format!("{name}-{hash}")
}

/// What the scheduler reserves of a resource for a pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reserved {
    /// In all.
    pub(super) all: f64,
    /// Of that, for its containers.
    pub(super) containers: f64,
    /// Whether an init container asks for more than all that runs later: then that is what counts.
    pub(super) by_init: bool,
}

/// What the scheduler reserves for a pod, or for one of a template: its containers and sidecars together, at least its
/// largest init container, and its overhead.
pub(super) fn reserved(spec: &Value, resource: &str) -> Reserved {
    let of = |container: &Value| {
        let requests = container.pointer("/resources/requests").and_then(|all| all.get(resource));
        requests.and_then(Value::as_str).and_then(quantity::parse).unwrap_or(0.0)
    };
    let is_sidecar = |container: &&Value| text(container, "/restartPolicy") == "Always";
    let inits = list(spec, "/initContainers");
    let sidecars: f64 = inits.iter().filter(is_sidecar).map(of).sum();
    let containers: f64 = list(spec, "/containers").iter().map(of).sum();
    let largest = inits.iter().filter(|container| !is_sidecar(container)).map(of).fold(0.0, f64::max);
    let overhead = spec.pointer("/overhead").and_then(|all| all.get(resource)).and_then(Value::as_str);
    let running = containers + sidecars;
    let all = running.max(largest) + overhead.and_then(quantity::parse).unwrap_or(0.0);
    Reserved { all, containers, by_init: largest > running }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_written_as_a_query_wants_it_and_an_empty_one_refused() {
        let check = |selector: Value, wanted: Option<&str>| {
            let written = selector_of(&json!({ "spec": { "selector": selector } })).ok();
            assert_eq!(written.as_deref(), wanted, "{selector}");
        };
        check(json!({ "matchLabels": { "app": "api" } }), Some("app=api"));
        let expressions = json!([
            { "key": "tier", "operator": "In", "values": ["a", "b"] },
            { "key": "old", "operator": "DoesNotExist" },
        ]);
        check(
            json!({ "matchLabels": { "app": "api" }, "matchExpressions": expressions }),
            Some("app=api,tier in (a,b),!old"),
        );
        check(json!({}), None);
        check(json!({ "matchExpressions": [{ "key": "a", "operator": "Like" }] }), None);
    }

    #[test]
    fn a_pod_of_the_second_of_the_decision_counts_as_made_after_it() {
        let pod = json!({ "metadata": { "creationTimestamp": "2026-01-09T12:00:05Z" } });
        let at = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_millisecond());
        for (decided, there) in
            [("2026-01-09T12:00:05Z", false), ("2026-01-09T12:00:05.9Z", false), ("2026-01-09T12:00:06Z", true)]
        {
            assert_eq!(was_there(&pod, at(decided)), Some(there), "{decided}");
        }
        assert_eq!(was_there(&json!({}), at("2026-01-09T12:00:06Z")), None);
    }

    #[test]
    fn a_pod_of_another_workload_with_the_same_labels_is_not_its_own() {
        let deployment = WorkloadKind { plural: "deployments", kind: "Deployment" };
        let pod = |owner: &str, hash: &str| {
            json!({ "metadata": {
                "labels": { "pod-template-hash": hash },
                "ownerReferences": [{ "kind": "ReplicaSet", "name": owner, "controller": true }],
            } })
        };
        for (owner, hash, own) in
            [("api-5d8f", "5d8f", true), ("api-canary-5d8f", "5d8f", false), ("api-5d8f", "", false)]
        {
            assert_eq!(belongs_to(&pod(owner, hash), deployment, "api"), own, "{owner} {hash}");
        }
    }

    #[test]
    fn a_pod_takes_what_the_scheduler_reserves_for_it() {
        let requests = |cpu: &str| json!({ "requests": { "cpu": cpu } });
        for (spec, wanted) in [
            (json!({ "containers": [{ "resources": requests("500m") }, { "resources": requests("1") }] }), 1.5),
            (
                json!({ "containers": [{ "resources": requests("1") }], "initContainers": [{ "resources": requests("3") }] }),
                3.0,
            ),
            (
                json!({ "containers": [{ "resources": requests("1") }],
                    "initContainers": [{ "resources": requests("500m"), "restartPolicy": "Always" }] }),
                1.5,
            ),
            (json!({ "containers": [{ "resources": requests("1") }], "overhead": { "cpu": "250m" } }), 1.25),
            (json!({ "containers": [{}] }), 0.0),
        ] {
            let all = reserved(&spec, "cpu").all;
            assert!((all - wanted).abs() < 1e-9, "{spec}: {all}");
        }
    }
}
