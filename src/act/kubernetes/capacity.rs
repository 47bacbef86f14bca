//! What is free in a cluster: what nodes have to give less what pods request, and which workloads run where.
//!
//! Nodes that are not ready, closed, or tainted against new pods are in it, with nothing free. A pod counts from when it is
//! bound to a node until it is over, with the larger of its containers' sum and its largest init container, as the
//! scheduler reckons. A workload belongs to the pool on whose nodes most of its pods run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cluster::{Call, Cluster, Fault, count, list, text};
use super::quantity;
use super::workload::{controller_of, reserved};
use crate::model::{ComponentId, Labels};
use crate::plan::{Capacity, Node, Resources, Workload};

/// The resources that are reckoned with.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// What is to be measured in a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Pool → the labels of its nodes.
    pub pools: BTreeMap<String, BTreeMap<String, String>>,
    /// How components of a kind are named.
    pub names: Vec<Naming>,
}

/// How the components of a kind are made of a namespace and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The kind of the components.
    pub kind: String,
    /// Their labels, in order.
    pub by: Vec<String>,
    /// The label that holds the namespace.
    pub namespace: String,
    /// The label that holds the name.
    pub name: String,
}

impl Naming {
    /// `deployment/shop/api`, by labels called `namespace` and like the kind.
    pub fn plain(kind: &str) -> Naming {
        let by = vec!["namespace".to_owned(), kind.to_owned()];
        Naming { kind: kind.to_owned(), by, namespace: "namespace".to_owned(), name: kind.to_owned() }
    }

    /// Nothing where a label is neither of the two: what it would hold is not known here.
    fn component(&self, namespace: &str, name: &str) -> Option<ComponentId> {
        if self.by.iter().any(|label| *label != self.namespace && *label != self.name) {
            return None;
        }
        let labels = Labels::new([(self.namespace.as_str(), namespace), (self.name.as_str(), name)]);
        Some(ComponentId::of(&self.kind, &self.by, &labels))
    }
}

/// Reads the cluster. All of it or nothing: half a view would promise what is taken.
pub(super) async fn measure(cluster: &Cluster, wanted: &Wanted) -> Result<Capacity, Fault> {
    let all = |path: &str, right: &str| Call::get(path.to_owned(), right);
    let nodes = cluster.list(&all("/api/v1/nodes", "list nodes")).await?;
    let pods = cluster.list(&all("/api/v1/pods", "list pods (of all namespaces)")).await?;
    let deployments = cluster.list(&all("/apis/apps/v1/deployments", "list deployments (of all namespaces)")).await?;
    let stateful = cluster.list(&all("/apis/apps/v1/statefulsets", "list statefulsets (of all namespaces)")).await?;
    let path = "/apis/autoscaling/v2/horizontalpodautoscalers";
    let autoscalers = cluster.list(&all(path, "list horizontalpodautoscalers (of all namespaces)")).await?;
    let scaled = |hpa| {
        let of = |pointer| text(hpa, pointer);
        (of("/spec/scaleTargetRef/kind"), of("/metadata/namespace"), of("/spec/scaleTargetRef/name"))
    };
    let scaled: BTreeSet<(&str, &str, &str)> = autoscalers.iter().map(scaled).collect();
    let view = View::of(&nodes, &pods, wanted);
    let mut capacity = Capacity { pools: view.pools(), ..Capacity::default() };
    for (kind, api_kind, workloads) in
        [("deployment", "Deployment", &deployments), ("statefulset", "StatefulSet", &stateful)]
    {
        let plain = Naming::plain(kind);
        let naming = wanted.names.iter().find(|naming| naming.kind == kind).unwrap_or(&plain);
        for object in workloads {
            let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
            let autoscaled = scaled.contains(&(api_kind, namespace, name));
            let Some(workload) = view.workload(object, kind, naming, autoscaled) else { continue };
            if autoscaled {
                capacity.autoscaled.insert(workload.component.to_string());
            }
            capacity.workloads.push(workload);
        }
    }
    Ok(capacity)
}

/// Nodes and pods, ready to be asked.
struct View {
    /// Node → its pool; and as the plan sees it.
    nodes: BTreeMap<String, (String, Node)>,
    pool_names: BTreeSet<String>,
    /// (`deployment`, namespace, name) → its pods.
    pods: BTreeMap<(&'static str, String, String), Pods>,
}

#[derive(Default)]
struct Pods {
    on_nodes: BTreeMap<String, u32>,
    priority: i64,
    /// The most that one of them takes: what was resized in place differs from the template.
    largest: Resources,
}

impl View {
    fn of(nodes: &[Value], pods: &[Value], wanted: &Wanted) -> View {
        let mut view =
            View { nodes: BTreeMap::new(), pool_names: wanted.pools.keys().cloned().collect(), pods: BTreeMap::new() };
        for object in nodes {
            let node = node_of(object);
            let has = |(label, value): (&String, &String)| node.labels.get(label) == Some(value);
            // The first pool that its labels fit has it: nothing is promised twice.
            if let Some((pool, _)) = wanted.pools.iter().find(|(_, labels)| labels.iter().all(has)) {
                view.nodes.insert(node.name.clone(), (pool.clone(), node));
            }
        }
        for pod in pods {
            view.add_pod(pod);
        }
        for object in nodes.iter().filter(|object| !takes_pods(object)) {
            if let Some((_, node)) = view.nodes.get_mut(text(object, "/metadata/name")) {
                for (resource, amount) in &node.allocatable {
                    let used = node.used.entry(resource.clone()).or_default();
                    *used = used.max(*amount);
                }
            }
        }
        view
    }

    fn add_pod(&mut self, pod: &Value) {
        if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
            return;
        }
        let on = text(pod, "/spec/nodeName");
        if let Some((_, node)) = self.nodes.get_mut(on) {
            for resource in RESOURCES {
                *node.used.entry(resource.to_owned()).or_default() += reserved(&pod["spec"], resource).all;
            }
        }
        let Some((kind, name)) = workload_of(pod) else { return };
        let pods = self.pods.entry((kind, text(pod, "/metadata/namespace").to_owned(), name)).or_default();
        pods.priority = pods.priority.max(pod.pointer("/spec/priority").and_then(Value::as_i64).unwrap_or(0));
        for resource in RESOURCES {
            let largest = pods.largest.entry(resource.to_owned()).or_default();
            *largest = largest.max(reserved(&pod["spec"], resource).all);
        }
        if !on.is_empty() {
            *pods.on_nodes.entry(on.to_owned()).or_default() += 1;
        }
    }

    fn pools(&self) -> BTreeMap<String, Vec<Node>> {
        let mut pools: BTreeMap<String, Vec<Node>> =
            self.pool_names.iter().map(|name| (name.clone(), Vec::new())).collect();
        for (pool, node) in self.nodes.values() {
            pools.entry(pool.clone()).or_default().push(node.clone());
        }
        pools
    }

    /// Nothing where none of its pods runs in any of the pools: then it is not known where its next one would.
    fn workload(&self, object: &Value, kind: &'static str, naming: &Naming, autoscaled: bool) -> Option<Workload> {
        let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        let pods = self.pods.get(&(kind, namespace.to_owned(), name.to_owned()))?;
        let mut by_pool: BTreeMap<&str, u32> = BTreeMap::new();
        for (node, count) in &pods.on_nodes {
            if let Some((pool, _)) = self.nodes.get(node) {
                *by_pool.entry(pool).or_default() += count;
            }
        }
        let pool = by_pool.iter().max_by_key(|(_, count)| **count)?.0;
        let in_pool = |node: &String| self.nodes.get(node).is_some_and(|(of, _)| of == pool);
        let replicas = count(object, "/spec/replicas", 1);
        let spec = &object["spec"]["template"]["spec"];
        let amount =
            |resource: &str| reserved(spec, resource).all.max(pods.largest.get(resource).copied().unwrap_or(0.0));
        let amounts = RESOURCES.iter().map(|resource| ((*resource).to_owned(), amount(resource)));
        Some(Workload {
            component: naming.component(namespace, name)?,
            pool: (*pool).to_owned(),
            replicas,
            per_replica: amounts.filter(|(_, amount)| *amount > 0.0).collect(),
            priority: pods.priority,
            // What an autoscaler keeps cannot be taken: it would be back at once.
            replicas_min: if autoscaled { replicas } else { 1 },
            on_nodes: pods.on_nodes.iter().filter(|(node, _)| in_pool(node)).map(|(n, c)| (n.clone(), *c)).collect(),
        })
    }
}

fn node_of(object: &Value) -> Node {
    let amount = |resource: &str| quantity::parse(text(object, &format!("/status/allocatable/{resource}")));
    let allocatable = RESOURCES.iter().filter_map(|resource| Some(((*resource).to_owned(), amount(resource)?)));
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    Node {
        name: text(object, "/metadata/name").to_owned(),
        allocatable: allocatable.collect(),
        used: Resources::new(),
        labels: labels
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    }
}

/// Whether new pods may start on a node: ready, open, without a taint against it.
fn takes_pods(node: &Value) -> bool {
    let ready = list(node, "/status/conditions")
        .iter()
        .any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True");
    let closed = node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false);
    let tainted =
        list(node, "/spec/taints").iter().any(|taint| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute"));
    ready && !closed && !tainted
}

/// The workload that a pod is of.
fn workload_of(pod: &Value) -> Option<(&'static str, String)> {
    let (kind, owner) = controller_of(pod)?;
    match kind {
        "StatefulSet" => Some(("statefulset", owner.to_owned())),
        "ReplicaSet" => {
            let hash = text(pod, "/metadata/labels/pod-template-hash");
            let name = owner.strip_suffix(hash)?.strip_suffix('-')?;
            Some(("deployment", name.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn closed_tainted_and_unready_nodes_take_no_pods() {
        let node = |spec: Value, ready: &str| json!({ "spec": spec, "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
        for (object, takes) in [
            (node(json!({}), "True"), true),
            (node(json!({}), "Unknown"), false),
            (node(json!({ "unschedulable": true }), "True"), false),
            (node(json!({ "taints": [{ "key": "gpu", "effect": "NoSchedule" }] }), "True"), false),
            (node(json!({ "taints": [{ "key": "slow", "effect": "PreferNoSchedule" }] }), "True"), true),
            (json!({}), false),
        ] {
            assert_eq!(takes_pods(&object), takes, "{object}");
        }
    }

    #[test]
    fn components_are_named_as_the_rules_name_them_or_not_at_all() {
        let naming = |by: &[&str]| Naming {
            by: by.iter().map(|label| (*label).to_owned()).collect(),
            ..Naming::plain("deployment")
        };
        for (by, wanted) in [
            (vec!["namespace", "deployment"], Some("deployment/shop/api")),
            (vec!["deployment", "namespace"], Some("deployment/api/shop")),
            (vec!["cluster", "namespace", "deployment"], None),
        ] {
            let component = naming(&by).component("shop", "api").map(|component| component.to_string());
            assert_eq!(component.as_deref(), wanted, "{by:?}");
        }
    }
}
