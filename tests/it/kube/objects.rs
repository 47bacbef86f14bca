//! Objects of a real control plane, as a test puts them there, and what kubelets would make of them.

use std::collections::BTreeMap;
use std::path::Path;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};

use super::plane::{ADMIN, Answered, Plane, USER};
use super::rules::{list, text};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const KUBELETS_AT_ONCE: usize = 16;
/// The namespaces that tests use, besides those that are always there.
const NAMESPACES: [&str; 2] = ["shop", "forestall"];
/// What a test may leave, those first that would make others again.
const LEFT: [(&str, &str); 14] = [
    ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    ("/apis/apps/v1", "deployments"),
    ("/apis/apps/v1", "statefulsets"),
    ("/apis/apps/v1", "daemonsets"),
    ("/apis/apps/v1", "replicasets"),
    ("/apis/policy/v1", "poddisruptionbudgets"),
    ("/api/v1", "resourcequotas"),
    ("/api/v1", "limitranges"),
    ("/apis/coordination.k8s.io/v1", "leases"),
    ("/apis/events.k8s.io/v1", "events"),
    ("/api/v1", "pods"),
    ("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings"),
    ("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies"),
    ("/api/v1", "nodes"),
];
/// Kinds that have no namespace.
const WIDE: [&str; 3] = ["validatingadmissionpolicybindings", "validatingadmissionpolicies", "nodes"];
/// The roles that ship and are in force unless a test says otherwise.
const ROLES: [&str; 5] = ["observer.yaml", "leader.yaml", "capacity.yaml", "actor.yaml", "nodes.yaml"];

/// Group, plural and kind of the definitions that are added on demand.
const DEFINITIONS: [(&str, &str, &str, &str); 2] = [
    ("autoscaling.k8s.io", "v1", "verticalpodautoscalers", "VerticalPodAutoscaler"),
    ("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"),
];

impl Plane {
    pub(super) fn prepare(&self) {
        for name in NAMESPACES {
            let namespace = json!({ "metadata": { "name": name } });
            self.must("POST", "/api/v1/namespaces", &namespace);
        }
        for name in ["default", "kube-system"] {
            self.until("the namespaces are there", || self.object(&format!("/api/v1/namespaces/{name}")).is_some());
        }
    }

    /// Nothing of an earlier test is left, and the roles are those that ship.
    pub(super) fn reset(&self) {
        for (base, plural) in LEFT {
            if WIDE.contains(&plural) {
                self.ask("DELETE", &format!("{base}/{plural}"), "application/json", &Value::Null);
                continue;
            }
            for namespace in NAMESPACES.iter().chain(&["default", "kube-system"]) {
                let keep = match (plural, *namespace) {
                    // The API server's own.
                    ("leases" | "events", "kube-system" | "default") => continue,
                    _ => "?gracePeriodSeconds=0&propagationPolicy=Background",
                };
                self.ask("DELETE", &format!("{base}/namespaces/{namespace}/{plural}{keep}"), "", &Value::Null);
            }
        }
        for (group, _, plural, _) in DEFINITIONS {
            let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}");
            if self.object(&path).is_some() {
                self.ask("DELETE", &path, "", &Value::Null);
                self.until("its definition is gone", || {
                    self.ask("GET", &format!("/apis/{group}"), "", &Value::Null).code == 404
                });
            }
        }
        for object in documents("template-patch.yaml") {
            self.ask("DELETE", &path_of(&object), "", &Value::Null);
        }
        self.until("the plane is empty", || {
            for path in self.paths("pods") {
                self.ask("DELETE", &format!("{path}?gracePeriodSeconds=0"), "", &Value::Null);
            }
            ["pods", "replicasets", "nodes"].iter().all(|plural| self.paths(plural).is_empty())
        });
        for file in ROLES {
            self.apply(file, &[]);
        }
    }

    /// Applies a file of `deploy/kubernetes`, without the rights that are denied.
    pub(super) fn apply(&self, file: &str, denied: &[String]) {
        for mut object in documents(file) {
            if text(&object, "/kind").ends_with("Role") {
                object["rules"] = Value::Array(without(&object["rules"], denied));
            }
            let path = path_of(&object);
            let found = self.object(&path);
            if let Some(found) = found {
                object["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
                self.must("PUT", &path, &object);
            } else {
                let folder = path.rsplit_once('/').expect("a path has a folder").0;
                self.must("POST", folder, &object);
            }
        }
    }

    /// The roles that ship, without some rights (`patch deployments/scale`); returns once the server knows.
    pub(super) fn deny(&self, denied: &[String]) {
        for file in ROLES {
            self.apply(file, denied);
        }
        for right in denied {
            let (verb, resource) = right.split_once(' ').expect("two words");
            self.until("the role is in force", || !self.may(verb, resource));
        }
    }

    /// Some of the files without a right, whatever others grant.
    pub(super) fn deny_in(&self, files: &[&str], right: &str) {
        for file in files {
            self.apply(file, &[right.to_owned()]);
        }
    }

    /// Whether forestall may do this in `shop`.
    pub(super) fn may(&self, verb: &str, resource: &str) -> bool {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        let group = match resource {
            "deployments" | "statefulsets" => "apps",
            "horizontalpodautoscalers" => "autoscaling",
            "events" => "events.k8s.io",
            "leases" => "coordination.k8s.io",
            "httproutes" => "gateway.networking.k8s.io",
            "verticalpodautoscalers" => "autoscaling.k8s.io",
            _ => "",
        };
        let review = json!({ "spec": { "user": USER, "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": sub, "namespace": "shop" } } });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        self.must("POST", path, &review).pointer("/status/allowed") == Some(&json!(true))
    }

    /// A kind that is no part of Kubernetes itself.
    pub(super) fn know(&self, group: &str) {
        let (group, version, plural, kind) =
            DEFINITIONS.into_iter().find(|known| known.0 == group).expect("a group that tests use");
        let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
        let definition = json!({
            "metadata": { "name": format!("{plural}.{group}"),
                "annotations": { "api-approved.kubernetes.io": "unapproved, for tests" } },
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind },
                "versions": [{ "name": version, "served": true, "storage": true, "schema": schema }],
            },
        });
        self.must("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition);
        let path = format!("/apis/{group}/{version}/namespaces/shop/{plural}");
        self.until("the definition is served", || self.ask("GET", &path, "", &Value::Null).code == 200);
    }

    /// A daemon set with one pod, on this node.
    pub(super) fn daemon(&self, name: &str, node: &str) -> String {
        let mut set = super::world::deployment(name, 1);
        set["metadata"]["namespace"] = json!("kube-system");
        set["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
        set["spec"]["template"]["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
        self.put(&format!("/apis/apps/v1/namespaces/kube-system/daemonsets/{name}"), set);
        let mut found = None;
        self.until("the daemon set has its pod", || {
            self.tick(true);
            found = self.paths("pods").into_iter().find(|path| path.contains(&format!("/pods/{name}-")));
            found.is_some()
        });
        found.expect("it was waited for")
    }

    pub(super) fn object(&self, path: &str) -> Option<Value> {
        let answer = self.ask("GET", path, "", &Value::Null);
        (answer.code == 200).then_some(answer.body)
    }

    /// Puts an object there, with its status.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let folder = path.rsplit_once('/').expect("a path has a folder").0;
        complete(path, &mut object);
        let made = self.must("POST", folder, &object);
        // What a budget allows its controller says.
        if object["status"].is_object() && !path.contains("/poddisruptionbudgets/") {
            self.set_status(path, made, &object["status"]);
        }
    }

    /// Changes an object as somebody else would.
    pub(super) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let before = self.object(path).unwrap_or_else(|| panic!("there is no {path}"));
        let mut after = before.clone();
        change(&mut after);
        // Whoever else writes it meanwhile changes something else.
        if let Some(metadata) = after["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        if after["spec"] != before["spec"] || after["metadata"] != strip(&before["metadata"]) {
            let sub = if path.contains("/pods/") { "/resize" } else { "" };
            self.must("PUT", &format!("{path}{sub}"), &after);
        }
        if after["status"] != before["status"] {
            self.set_status(path, before, &after["status"]);
        }
    }

    fn set_status(&self, path: &str, mut object: Value, status: &Value) {
        object["status"] = status.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        self.must("PUT", &format!("{path}/status"), &object);
    }

    pub(super) fn remove(&self, path: &str) {
        let answer = self.ask("DELETE", &format!("{path}?gracePeriodSeconds=0"), "", &Value::Null);
        assert!(answer.code < 300 || answer.code == 404, "{path}: {}", answer.body);
    }

    /// All objects of a kind.
    pub(super) fn all(&self, plural: &str) -> Vec<Value> {
        let base = base_of(plural);
        let answer = self.ask("GET", &format!("{base}/{plural}"), "", &Value::Null);
        list(&answer.body, "/items").to_vec()
    }

    pub(super) fn paths(&self, plural: &str) -> Vec<String> {
        let base = base_of(plural);
        let path = |object: &Value| {
            let name = text(object, "/metadata/name");
            match text(object, "/metadata/namespace") {
                "" => format!("{base}/{plural}/{name}"),
                namespace => format!("{base}/namespaces/{namespace}/{plural}/{name}"),
            }
        };
        let mut paths: Vec<String> = self.all(plural).iter().map(path).collect();
        paths.sort();
        paths
    }

    /// The status of a node moves, as with a heartbeat.
    pub(super) fn heartbeat(path: &str, count: u64) -> (String, Value) {
        let beat =
            json!({ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": format!("beat {count}") });
        (format!("{path}/status"), json!({ "status": { "conditions": [beat] } }))
    }

    /// Kubelets do what they do, until the controllers have nothing more to do about it.
    pub(super) fn tick(&self, resizes: bool) {
        let mut why = String::new();
        let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.until("the controllers are done", || {
                let moved = self.kubelets(resizes);
                match self.unsettled() {
                    None => moved == 0,
                    Some(words) => {
                        why = words;
                        false
                    }
                }
            });
        }));
        assert!(settled.is_ok(), "the controllers are not done: {why}");
    }

    /// One round of all kubelets: how many pods they changed.
    pub(super) fn kubelets(&self, resizes: bool) -> usize {
        let pods = self.all("pods");
        let work: Vec<(String, &str, &str, Value)> = pods.iter().filter_map(|pod| of_kubelet(pod, resizes)).collect();
        let count = work.len();
        for some in work.chunks(KUBELETS_AT_ONCE) {
            let mut asked: Vec<futures::future::BoxFuture<'_, Answered>> = Vec::new();
            for (path, method, kind, body) in some {
                asked.push(Box::pin(self.send(ADMIN, method, path, kind, body)));
            }
            for answer in self.wait(futures::future::join_all(asked)) {
                assert!(answer.code < 300 || matches!(answer.code, 404 | 409), "a kubelet: {}", answer.body);
            }
        }
        count
    }

    /// What a controller still has to do.
    fn unsettled(&self) -> Option<String> {
        let pods = self.all("pods");
        let unscheduled = |pod: &&Value| {
            let conditions = list(pod, "/status/conditions");
            text(pod, "/spec/nodeName").is_empty()
                && !conditions.iter().any(|c| text(c, "/type") == "PodScheduled" && text(c, "/status") == "False")
        };
        if let Some(pod) = pods.iter().find(unscheduled) {
            return Some(format!("{} waits for a node", text(pod, "/metadata/name")));
        }
        let deployments = self.all("deployments");
        for workload in deployments.iter().chain(&self.all("statefulsets")) {
            if let Some(words) = unsettled_workload(workload, &pods) {
                return Some(words);
            }
        }
        for hpa in self.all("horizontalpodautoscalers") {
            let name = text(&hpa, "/spec/scaleTargetRef/name").to_owned();
            let replicas =
                deployments.iter().find(|d| text(d, "/metadata/name") == name).map(|d| number(d, "/spec/replicas", 1));
            let (min, max) = (number(&hpa, "/spec/minReplicas", 1), number(&hpa, "/spec/maxReplicas", 1));
            if replicas.is_some_and(|now| now > 0 && !(min..=max).contains(&now)) {
                return Some(format!("the autoscaler of {name}"));
            }
        }
        for budget in self.all("poddisruptionbudgets") {
            let labels = &budget["spec"]["selector"]["matchLabels"];
            let healthy = healthy(&pods, text(&budget, "/metadata/namespace"), labels);
            let seen = number(&budget, "/status/observedGeneration", 0) >= number(&budget, "/metadata/generation", 0);
            if !seen || number(&budget, "/status/currentHealthy", 0) != healthy {
                return Some(format!("budget {}", text(&budget, "/metadata/name")));
            }
        }
        let tainted = |node: &Value| {
            list(node, "/spec/taints").iter().any(|taint| text(taint, "/key") == "node.kubernetes.io/unschedulable")
        };
        let nodes = self.all("nodes");
        let wrong =
            nodes.iter().find(|node| tainted(node) != (node.pointer("/spec/unschedulable") == Some(&json!(true))));
        wrong.map(|node| format!("node {}", text(node, "/metadata/name")))
    }

    pub(super) fn healthy(&self, namespace: &str, labels: &Value) -> u64 {
        healthy(&self.all("pods"), namespace, labels)
    }
}

fn unsettled_workload(workload: &Value, pods: &[Value]) -> Option<String> {
    let name = text(workload, "/metadata/name");
    let labels = &workload["spec"]["selector"]["matchLabels"];
    let namespace = text(workload, "/metadata/namespace");
    let own: Vec<&Value> = pods.iter().filter(|pod| is_of(pod, namespace, labels)).collect();
    let there = own.iter().filter(|pod| text(pod, "/metadata/deletionTimestamp").is_empty()).count() as u64;
    let ready = healthy(pods, namespace, labels);
    let failed = list(workload, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "ReplicaFailure" && text(c, "/status") == "True");
    let wanted = number(workload, "/spec/replicas", 1);
    let seen = number(workload, "/status/observedGeneration", 0) >= number(workload, "/metadata/generation", 0);
    let in_order = text(workload, "/spec/podManagementPolicy") == "OrderedReady" && there > ready;
    let complete = there == wanted || (failed && there < wanted) || in_order;
    let counted =
        number(workload, "/status/readyReplicas", 0) == ready && number(workload, "/status/replicas", 0) == there;
    (!seen || !complete || !counted || own.len() as u64 != there)
        .then(|| format!("{name}: {there} of {wanted} pods, {ready} ready: {}", workload["status"]))
}

fn number(object: &Value, pointer: &str, default: u64) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(default)
}

fn is_of(pod: &Value, namespace: &str, labels: &Value) -> bool {
    text(pod, "/metadata/namespace") == namespace
        && labels
            .as_object()
            .into_iter()
            .flatten()
            .all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value))
}

fn healthy(pods: &[Value], namespace: &str, labels: &Value) -> u64 {
    let up = |pod: &&Value| {
        is_of(pod, namespace, labels)
            && text(pod, "/metadata/deletionTimestamp").is_empty()
            && list(pod, "/status/conditions")
                .iter()
                .any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
    };
    pods.iter().filter(up).count() as u64
}

/// What a kubelet would write about a pod now: path, method, content type and body.
fn of_kubelet(pod: &Value, resizes: bool) -> Option<(String, &'static str, &'static str, Value)> {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": text(pod, "/metadata/uid") } });
        return Some((path, "DELETE", "application/json", options));
    }
    if text(pod, "/spec/nodeName").is_empty() || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return None;
    }
    let running = text(pod, "/status/phase") == "Running";
    let of = |container: &Value| {
        json!({
            "name": container["name"], "image": "x", "imageID": "x", "containerID": "test://x", "ready": true,
            "started": true, "restartCount": 0, "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
            "resources": container["resources"], "allocatedResources": container["resources"]["requests"],
        })
    };
    let statuses: Vec<Value> = list(pod, "/spec/containers").iter().map(of).collect();
    let same = |(status, wanted): (&Value, &Value)| {
        let amounts = |kind: &str| {
            let of = |value: &Value| value.pointer(&format!("/resources/{kind}")).cloned().unwrap_or(json!({}));
            of(status) == of(wanted)
        };
        amounts("requests") && amounts("limits")
    };
    let given = list(pod, "/status/containerStatuses");
    if running && (!resizes || (given.len() == statuses.len() && given.iter().zip(&statuses).all(same))) {
        return None;
    }
    let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .map(|kind| json!({ "type": kind, "status": "True" }))
        .into();
    let status = json!({ "phase": "Running", "conditions": conditions, "containerStatuses": statuses,
        "podIP": "10.1.0.1", "podIPs": [{ "ip": "10.1.0.1" }] });
    Some((format!("{path}/status"), "PATCH", STRATEGIC, json!({ "status": status })))
}

fn base_of(plural: &str) -> &'static str {
    match plural {
        "deployments" | "statefulsets" | "daemonsets" | "replicasets" => "/apis/apps/v1",
        "horizontalpodautoscalers" => "/apis/autoscaling/v2",
        "poddisruptionbudgets" => "/apis/policy/v1",
        "events" => "/apis/events.k8s.io/v1",
        "leases" => "/apis/coordination.k8s.io/v1",
        _ => "/api/v1",
    }
}

/// What the API server asks of an object and a test does not say.
fn complete(path: &str, object: &mut Value) {
    let name = path.rsplit('/').next().unwrap_or_default();
    object["metadata"]["name"] = json!(name);
    for version in ["resourceVersion", "uid", "generation"] {
        object["metadata"].as_object_mut().expect("metadata is an object").remove(version);
    }
    if path.contains("/pods/") && object.pointer("/spec/containers").is_none() {
        object["spec"]["containers"] = json!([{ "name": "main", "image": "x" }]);
    }
    if path.contains("/verticalpodautoscalers/") {
        (object["apiVersion"], object["kind"]) = (json!("autoscaling.k8s.io/v1"), json!("VerticalPodAutoscaler"));
    }
    if path.contains("/httproutes/") {
        (object["apiVersion"], object["kind"]) = (json!("gateway.networking.k8s.io/v1"), json!("HTTPRoute"));
    }
}

fn strip(metadata: &Value) -> Value {
    let mut stripped = metadata.clone();
    stripped.as_object_mut().map(|all| all.remove("resourceVersion"));
    stripped
}

/// The rules of a role with one verb each, without those that are denied.
fn without(rules: &Value, denied: &[String]) -> Vec<Value> {
    let mut left = Vec::new();
    for rule in list(rules, "") {
        for resource in list(rule, "/resources") {
            let verbs: Vec<&Value> = list(rule, "/verbs")
                .iter()
                .filter(|verb| {
                    let right = format!("{} {}", verb.as_str().unwrap_or(""), resource.as_str().unwrap_or(""));
                    !denied.contains(&right)
                })
                .collect();
            if !verbs.is_empty() {
                left.push(json!({ "apiGroups": rule["apiGroups"], "resources": [resource], "verbs": verbs }));
            }
        }
    }
    left
}

/// The objects of a file of `deploy/kubernetes`.
pub(super) fn documents(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Yaml::load_from_str(&text).expect("the file is YAML").iter().map(json_of).collect()
}

fn json_of(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Mapping(map) => {
            let entry = |(key, value): (&Yaml<'_>, &Yaml<'_>)| (key.as_str().unwrap_or("").to_owned(), json_of(value));
            Value::Object(map.iter().map(entry).collect::<Map<_, _>>())
        }
        Yaml::Sequence(items) => items.iter().map(json_of).collect(),
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Value(Scalar::Integer(number)) => json!(number),
        Yaml::Value(Scalar::Boolean(truth)) => json!(truth),
        _ => Value::Null,
    }
}

/// Where an object of those files is.
pub(super) fn path_of(object: &Value) -> String {
    let plurals = BTreeMap::from([
        ("Role", "roles"),
        ("ClusterRole", "clusterroles"),
        ("RoleBinding", "rolebindings"),
        ("ClusterRoleBinding", "clusterrolebindings"),
        ("ServiceAccount", "serviceaccounts"),
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
    ]);
    let plural = plurals[text(object, "/kind")];
    let version = text(object, "/apiVersion");
    let base = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let name = text(object, "/metadata/name");
    match text(object, "/metadata/namespace") {
        "" => format!("{base}/{plural}/{name}"),
        namespace => format!("{base}/namespaces/{namespace}/{plural}/{name}"),
    }
}

/// Touches an object as somebody else would who changes nothing that matters.
pub(super) fn touch(count: u64) -> (&'static str, Value) {
    (MERGE, json!({ "metadata": { "labels": { "touched": format!("{count}") } } }))
}
