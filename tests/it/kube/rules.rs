//! What a Kubernetes API server answers, as far as the actuator and its tests need it: measured on 1.36.2.
//!
//! Objects are JSON by path. Controllers run when [`Rules::tick`] is called, not by time: replicas appear and become
//! ready, resizes are carried out, evicted pods vanish and their successors start elsewhere, autoscalers set replicas.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// What the API server answers: a status and a body, and after how many seconds to come again.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Value,
    pub(super) retry_after: Option<u32>,
}

impl Answer {
    fn ok(body: Value) -> Answer {
        Answer { code: 200, body, retry_after: None }
    }

    pub(super) fn no(code: u16, message: &str) -> Answer {
        Answer::with_causes(code, message, &[])
    }

    fn with_causes(code: u16, message: &str, causes: &[&str]) -> Answer {
        let causes: Vec<Value> = causes.iter().map(|reason| json!({ "reason": reason })).collect();
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code,
            "details": { "causes": causes },
        });
        Answer { code, body, retry_after: None }
    }
}

/// One request, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) body: Value,
}

impl Asked {
    fn is_dry_run(&self) -> bool {
        self.query.get("dryRun").is_some_and(|all| all == "All")
    }

    fn is_strict(&self) -> bool {
        self.query.get("fieldValidation").is_some_and(|how| how == "Strict")
    }

    /// The path's parts: group and version, namespace, plural, name, subresource.
    pub(super) fn parts(&self) -> Parts {
        let mut words = self.path.trim_matches('/').split('/').map(str::to_owned);
        let mut parts = Parts::default();
        let root = words.next().unwrap_or_default();
        let count = if root == "api" { 1 } else { 2 };
        let api: Vec<String> = words.by_ref().take(count).collect();
        parts.base = format!("/{root}/{}", api.join("/"));
        let rest: Vec<String> = words.collect();
        let rest = match rest.split_first() {
            Some((first, rest)) if first == "namespaces" && rest.len() > 1 => {
                parts.namespace = rest[0].clone();
                &rest[1..]
            }
            _ => &rest[..],
        };
        let mut rest = rest.iter().cloned();
        parts.plural = rest.next().unwrap_or_default();
        parts.name = rest.next().unwrap_or_default();
        parts.sub = rest.next().unwrap_or_default();
        parts
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    /// `/apis/apps/v1`
    pub(super) base: String,
    pub(super) namespace: String,
    pub(super) plural: String,
    pub(super) name: String,
    pub(super) sub: String,
}

impl Parts {
    /// The object's own path.
    pub(super) fn object(&self) -> String {
        match self.namespace.as_str() {
            "" => format!("{}/{}/{}", self.base, self.plural, self.name),
            namespace => format!("{}/namespaces/{namespace}/{}/{}", self.base, self.plural, self.name),
        }
    }

    /// `deployments/scale`
    pub(super) fn resource(&self) -> String {
        if self.sub.is_empty() { self.plural.clone() } else { format!("{}/{}", self.plural, self.sub) }
    }
}

/// The objects and their rules.
#[derive(Debug)]
pub(super) struct Rules {
    objects: BTreeMap<String, Value>,
    version: u64,
    made: u64,
    /// API groups that there are besides the core.
    pub(super) groups: BTreeSet<&'static str>,
    /// Whether nodes move their version each time that they are read.
    pub(super) heartbeats: bool,
    /// Namespace → how many pods its quota allows.
    pub(super) pods_max: BTreeMap<String, usize>,
    /// The most cpu that a container's limit range allows.
    pub(super) cpu_max: Option<f64>,
    /// Autoscaler's path → what its metrics ask for.
    pub(super) load: BTreeMap<String, u32>,
    /// When pods are made that are made now.
    pub(super) created_at: String,
    /// Whether resizes are carried out: nodes may be too full for the moment.
    pub(super) carries_out: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            objects: BTreeMap::new(),
            version: 100,
            made: 0,
            groups: ["apps", "autoscaling", "policy", "events.k8s.io", "coordination.k8s.io", "authorization.k8s.io"]
                .into(),
            heartbeats: false,
            pods_max: BTreeMap::new(),
            cpu_max: None,
            load: BTreeMap::new(),
            created_at: "2020-01-01T00:00:00Z".to_owned(),
            carries_out: true,
        }
    }
}

impl Rules {
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        self.objects.get(path)
    }

    /// Puts an object there as it is, with a version and a uid.
    pub(super) fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        self.made += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object.pointer("/metadata/uid").is_none() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.made));
        }
        self.objects.insert(path.to_owned(), object);
    }

    /// Changes an object as somebody else would.
    pub(super) fn change(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.objects.get(path).unwrap_or_else(|| panic!("there is no {path}")).clone();
        let before = object["spec"].clone();
        change(&mut object);
        self.store(path, object, &before);
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.objects.remove(path);
    }

    /// Paths of a kind's objects.
    pub(super) fn paths(&self, plural: &str) -> Vec<String> {
        let part = format!("/{plural}/");
        self.objects.keys().filter(|path| path.contains(&part)).cloned().collect()
    }

    fn store(&mut self, path: &str, mut object: Value, spec_before: &Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["spec"] != *spec_before && object.pointer("/metadata/generation").is_some() {
            let generation = object["metadata"]["generation"].as_u64().unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        self.objects.insert(path.to_owned(), object);
    }

    /// Answers a request.
    pub(super) fn answer(&mut self, asked: &Asked) -> Answer {
        let parts = asked.parts();
        if let Some(group) = parts.base.strip_prefix("/apis/").and_then(|rest| rest.split('/').next())
            && !self.groups.contains(group)
        {
            return Answer::no(404, "the server could not find the requested resource");
        }
        match (asked.method.as_str(), parts.plural.as_str(), parts.sub.as_str()) {
            ("GET", "", _) => Rules::discovery(&parts),
            ("POST", "events", _) => self.event(asked, &parts),
            ("POST", "pods", "eviction") => self.evict(asked, &parts),
            ("POST", ..) => self.create(asked, &parts),
            ("PUT", ..) => self.replace(asked, &parts),
            ("GET", _, "scale") => self.with_object(&parts, |_, object| Answer::ok(scale_of(&parts, object))),
            ("GET", ..) if parts.name.is_empty() => self.list(asked, &parts),
            ("GET", ..) => self.read(&parts),
            ("PATCH", _, "scale") => self.scale(asked, &parts),
            ("PATCH", "pods", "resize") => self.resize(asked, &parts),
            ("PATCH", ..) => self.patch(asked, &parts),
            _ => Answer::no(405, "the server does not allow this method on the requested resource"),
        }
    }

    fn discovery(parts: &Parts) -> Answer {
        let names = ["pods", "pods/eviction", "pods/resize", "nodes"];
        let resources: Vec<Value> = names.into_iter().map(|name| json!({ "name": name })).collect();
        Answer::ok(json!({ "kind": "APIResourceList", "groupVersion": parts.base, "resources": resources }))
    }

    fn with_object(&mut self, parts: &Parts, answer: impl FnOnce(&mut Rules, &Value) -> Answer) -> Answer {
        // A daemon set has no scale.
        let has_sub = parts.sub != "scale" || matches!(parts.plural.as_str(), "deployments" | "statefulsets");
        match self.objects.get(&parts.object()).filter(|_| has_sub).cloned() {
            Some(object) => answer(self, &object),
            None if !has_sub => Answer::no(404, "the server could not find the requested resource"),
            None => Answer::no(404, &format!("{} \"{}\" not found", parts.resource(), parts.name)),
        }
    }

    fn read(&mut self, parts: &Parts) -> Answer {
        let answer = self.with_object(parts, |_, object| Answer::ok(object.clone()));
        if parts.plural == "nodes" && self.heartbeats && answer.code == 200 {
            // The status is written between a look and the next write: the version moves, the rest stays. Not each time,
            // or nobody would ever get a word in.
            self.version += 1;
            if !self.version.is_multiple_of(3) {
                let version = json!(self.version.to_string());
                if let Some(node) = self.objects.get_mut(&parts.object()) {
                    node["metadata"]["resourceVersion"] = version;
                }
            }
        }
        answer
    }

    fn list(&self, asked: &Asked, parts: &Parts) -> Answer {
        let selector = asked.query.get("labelSelector").map_or("", String::as_str);
        let field = asked.query.get("fieldSelector").map_or("", String::as_str);
        let inside = |path: &String| {
            let one = format!("/{}/", parts.plural);
            let scope = match parts.namespace.as_str() {
                "" => format!("{}/", parts.base),
                namespace => format!("{}/namespaces/{namespace}/", parts.base),
            };
            path.starts_with(&scope) && path.contains(&one)
        };
        let found: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, object)| inside(path) && selects(selector, object) && is_on(field, object))
            .map(|(_, object)| object)
            .collect();
        let limit = asked.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        let from = asked.query.get("continue").and_then(|from| from.parse().ok()).unwrap_or(0);
        let page: Vec<&Value> = found.iter().skip(from).take(limit).copied().collect();
        let mut metadata = json!({ "resourceVersion": self.version.to_string() });
        if from + page.len() < found.len() {
            metadata["continue"] = json!((from + page.len()).to_string());
        }
        Answer::ok(json!({ "kind": "List", "metadata": metadata, "items": page }))
    }

    fn event(&mut self, asked: &Asked, parts: &Parts) -> Answer {
        let event = &asked.body;
        let time = event["eventTime"].as_str().unwrap_or_default();
        if !is_micro_time(time) {
            return Answer::no(422, "eventTime: Invalid value: parsing time as micro time");
        }
        for wanted in ["reportingController", "reportingInstance", "action", "reason", "type"] {
            if event[wanted].as_str().unwrap_or_default().is_empty() {
                return Answer::no(422, &format!("{wanted}: Required value"));
            }
        }
        let regarding = event.pointer("/regarding/namespace").and_then(Value::as_str).unwrap_or("default");
        if regarding != parts.namespace {
            return Answer::no(422, "involvedObject.namespace: does not match event.namespace");
        }
        self.made += 1;
        let name = format!("forestall-{}", self.made);
        self.put(&format!("{}/namespaces/{}/events/{name}", parts.base, parts.namespace), event.clone());
        Answer { code: 201, ..Answer::ok(event.clone()) }
    }

    fn create(&mut self, asked: &Asked, parts: &Parts) -> Answer {
        let name = asked.body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let path = Parts { name, ..parts.clone() }.object();
        if self.objects.contains_key(&path) {
            return Answer::no(409, "already exists");
        }
        if let Some(no) = wrong_lease(&parts.plural, &asked.body) {
            return no;
        }
        self.put(&path, asked.body.clone());
        Answer { code: 201, ..Answer::ok(self.objects[&path].clone()) }
    }

    fn replace(&mut self, asked: &Asked, parts: &Parts) -> Answer {
        self.with_object(parts, |rules, object| {
            if let Some(no) = stale(object, &asked.body) {
                return no;
            }
            if let Some(no) = wrong_lease(&parts.plural, &asked.body) {
                return no;
            }
            let before = object["spec"].clone();
            rules.store(&parts.object(), asked.body.clone(), &before);
            Answer::ok(rules.objects[&parts.object()].clone())
        })
    }

    fn scale(&mut self, asked: &Asked, parts: &Parts) -> Answer {
        self.with_object(parts, |rules, object| {
            if let Some(no) = stale(object, &asked.body) {
                return no;
            }
            let spec = asked.body.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
            if let Some(unknown) = spec.keys().find(|key| key.as_str() != "replicas").filter(|_| asked.is_strict()) {
                return Answer::no(422, &format!("strict decoding error: unknown field \"spec.{unknown}\""));
            }
            let Some(replicas) = spec.get("replicas").and_then(Value::as_i64) else {
                return Answer::ok(scale_of(parts, object));
            };
            if replicas < 0 {
                return Answer::no(422, "spec.replicas: Invalid value: must be greater than or equal to 0");
            }
            let mut after = object.clone();
            // Annotations in the body are dropped.
            after["spec"]["replicas"] = json!(replicas);
            if !asked.is_dry_run() {
                rules.store(&parts.object(), after.clone(), &object["spec"]);
                after = rules.objects[&parts.object()].clone();
            }
            Answer::ok(scale_of(parts, &after))
        })
    }

    fn patch(&mut self, asked: &Asked, parts: &Parts) -> Answer {
        self.with_object(parts, |rules, object| {
            if let Some(no) = stale(object, &asked.body) {
                return no;
            }
            if parts.plural == "pods" && asked.body.pointer("/spec/containers").is_some() {
                return Answer::no(422, "spec: Forbidden: pod updates may not change fields other than ...");
            }
            let mut after = object.clone();
            if asked.content_type.contains("strategic") {
                strategic(&mut after, &asked.body);
            } else {
                merge(&mut after, &asked.body);
            }
            after["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
            if after.pointer("/metadata/annotations") == Some(&json!({})) {
                after["metadata"].as_object_mut().map(|metadata| metadata.remove("annotations"));
            }
            if parts.plural == "horizontalpodautoscalers" {
                let (min, max) = (after.pointer("/spec/minReplicas"), after.pointer("/spec/maxReplicas"));
                match min.and_then(Value::as_i64) {
                    // Nothing stands for 1.
                    None => after["spec"]["minReplicas"] = json!(1),
                    Some(min) if min < 1 => {
                        return Answer::no(422, "spec.minReplicas: Invalid value: must be greater than or equal to 1");
                    }
                    Some(min) if max.and_then(Value::as_i64).is_some_and(|max| min > max) => {
                        return Answer::no(
                            422,
                            "spec.maxReplicas: Invalid value: must be greater than or equal to `minReplicas`",
                        );
                    }
                    Some(_) => {}
                }
            }
            if after.pointer("/spec/template/spec/containers").is_some_and(|all| {
                all.as_array().into_iter().flatten().any(|container| container.get("image").is_none())
            }) {
                return Answer::no(422, "spec.template.spec.containers[0].image: Required value");
            }
            if !asked.is_dry_run() {
                rules.store(&parts.object(), after.clone(), &object["spec"]);
                after = rules.objects[&parts.object()].clone();
            }
            Answer::ok(after)
        })
    }

    fn resize(&mut self, asked: &Asked, parts: &Parts) -> Answer {
        self.with_object(parts, |rules, object| {
            let uid = asked.body.pointer("/metadata/uid");
            if uid.is_some_and(|uid| *uid != object["metadata"]["uid"]) {
                return Answer::no(422, "metadata.uid: Invalid value: field is immutable");
            }
            if let Some(no) = stale(object, &asked.body) {
                return no;
            }
            let annotations = object.pointer("/metadata/annotations/kubernetes.io~1config.mirror");
            if annotations.is_some() {
                return Answer::no(422, "static pods may not be resized");
            }
            let mut after = object.clone();
            let patch = asked.body.pointer("/spec/containers").cloned().unwrap_or(json!([]));
            if !asked.content_type.contains("strategic")
                && list(&patch, "").len() != list(object, "/spec/containers").len()
            {
                return Answer::no(422, "spec.containers: Forbidden: containers may not be added or removed on resize");
            }
            // Only resources count: all else is dropped.
            for container in list(&patch, "") {
                let resources = json!({ "spec": { "containers": [
                    { "name": container["name"], "resources": container["resources"] } ] } });
                strategic(&mut after, &resources);
            }
            if let Some(no) = rules.refused_resize(object, &after) {
                return no;
            }
            if !asked.is_dry_run() {
                rules.store(&parts.object(), after.clone(), &object["spec"]);
                after = rules.objects[&parts.object()].clone();
            }
            Answer::ok(after)
        })
    }

    fn refused_resize(&self, before: &Value, after: &Value) -> Option<Answer> {
        for (old, new) in list(before, "/spec/containers").iter().zip(list(after, "/spec/containers")) {
            for resource in ["cpu", "memory"] {
                let of = |container: &Value, kind: &str| {
                    container.pointer(&format!("/resources/{kind}/{resource}")).and_then(Value::as_str).map(amount)
                };
                let (request, limit) = (of(new, "requests"), of(new, "limits"));
                if request.zip(limit).is_some_and(|(request, limit)| request > limit) {
                    let words = format!("requests: Invalid value: must be less than or equal to {resource} limit of 1");
                    return Some(Answer::no(422, &words));
                }
                if of(old, "limits").is_some() && limit.is_none() {
                    return Some(Answer::no(
                        422,
                        "spec.containers[0].resources.limits: resource limits cannot be removed",
                    ));
                }
                if resource == "cpu" && limit.zip(self.cpu_max).is_some_and(|(limit, max)| limit > max) {
                    return Some(Answer::no(
                        403,
                        "pods \"x\" is forbidden: maximum cpu usage per Container is 2, but limit is 4",
                    ));
                }
            }
        }
        if quality(before) != quality(after) {
            return Some(Answer::no(422, "spec: Invalid value: Pod QOS Class may not change as a result of resizing"));
        }
        let node = self.objects.get(&format!("/api/v1/nodes/{}", text(after, "/spec/nodeName")))?;
        let too_large = ["cpu", "memory"].iter().any(|resource| {
            let has = amount(text(node, &format!("/status/allocatable/{resource}")));
            requested(after, resource) > has
        });
        too_large.then(|| {
            Answer::with_causes(
                403,
                "pod is forbidden: the node does not have enough allocatable resources",
                &["NodeCapacity"],
            )
        })
    }

    fn evict(&mut self, asked: &Asked, parts: &Parts) -> Answer {
        let pod = Parts { sub: String::new(), ..parts.clone() };
        self.with_object(&pod, |rules, object| {
            let uid = asked.body.pointer("/deleteOptions/preconditions/uid");
            if uid.is_some_and(|uid| *uid != object["metadata"]["uid"]) {
                return Answer::no(409, "the UID in the precondition does not match the UID in record");
            }
            if asked.body.pointer("/metadata/name").and_then(Value::as_str) != Some(&parts.name) {
                return Answer::no(400, "name in URL does not match name in Eviction object");
            }
            let done =
                || Answer { code: 201, ..Answer::ok(json!({ "kind": "Status", "status": "Success", "code": 201 })) };
            if is_ending(object) {
                return done();
            }
            if text(object, "/status/phase") == "Running"
                && let Some(no) = rules.budget_refuses(&parts.namespace, object)
            {
                return no;
            }
            let in_body = asked.body.pointer("/deleteOptions/dryRun").is_some();
            if !asked.is_dry_run() && !in_body {
                let mut after = object.clone();
                after["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                after["status"]["conditions"] =
                    json!([{ "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI" }]);
                rules.store(&pod.object(), after, &object["spec"]);
            }
            done()
        })
    }

    fn budget_refuses(&self, namespace: &str, pod: &Value) -> Option<Answer> {
        let scope = format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/");
        let budgets: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, budget)| {
                path.starts_with(&scope) && matches_labels(&budget["spec"]["selector"]["matchLabels"], pod)
            })
            .map(|(_, budget)| budget)
            .collect();
        if budgets.len() > 1 {
            let words =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Some(Answer::no(500, words));
        }
        let budget = budgets.first()?;
        let words = "Cannot evict pod as it would violate the pod's disruption budget.";
        if budget.pointer("/status/observedGeneration").is_none() {
            let mut answer = Answer::with_causes(429, words, &["DisruptionBudget"]);
            answer.body["details"]["retryAfterSeconds"] = json!(10);
            answer.retry_after = Some(10);
            return Some(answer);
        }
        let ready = self.healthy(namespace, &budget["spec"]["selector"]["matchLabels"]);
        let floor = budget.pointer("/spec/minAvailable").and_then(Value::as_u64).unwrap_or(0);
        (ready <= floor).then(|| Answer::with_causes(429, words, &["DisruptionBudget"]))
    }

    /// Ready pods with these labels that are not being ended.
    pub(super) fn healthy(&self, namespace: &str, labels: &Value) -> u64 {
        let scope = format!("/api/v1/namespaces/{namespace}/pods/");
        let is_up =
            |pod: &Value| text(pod, "/status/phase") == "Running" && !is_ending(pod) && matches_labels(labels, pod);
        self.objects.iter().filter(|(path, pod)| path.starts_with(&scope) && is_up(pod)).count() as u64
    }

    /// The controllers do what they do, once.
    pub(super) fn tick(&mut self) {
        for path in self.paths("horizontalpodautoscalers") {
            self.autoscale(&path);
        }
        for path in self.paths("pods") {
            if is_ending(&self.objects[&path]) {
                self.objects.remove(&path);
            } else if self.carries_out {
                self.carry_out_resize(&path);
            }
        }
        for plural in ["deployments", "statefulsets"] {
            for path in self.paths(plural) {
                self.reconcile(&path, plural == "deployments");
            }
        }
    }

    fn autoscale(&mut self, path: &str) {
        let hpa = self.objects[path].clone();
        let namespace = path.split('/').nth(5).unwrap_or_default();
        let plural =
            if text(&hpa, "/spec/scaleTargetRef/kind") == "StatefulSet" { "statefulsets" } else { "deployments" };
        let target =
            format!("/apis/apps/v1/namespaces/{namespace}/{plural}/{}", text(&hpa, "/spec/scaleTargetRef/name"));
        let Some(workload) = self.objects.get(&target) else { return };
        let now = workload["spec"]["replicas"].as_u64().unwrap_or(1);
        if now == 0 {
            // Nothing scales what somebody switched off.
            return;
        }
        let (min, max) =
            (hpa["spec"]["minReplicas"].as_u64().unwrap_or(1), hpa["spec"]["maxReplicas"].as_u64().unwrap_or(1));
        let wanted = self.load.get(path).map_or(min, |load| u64::from(*load)).clamp(min, max);
        if wanted != now {
            self.change(&target, |workload| workload["spec"]["replicas"] = json!(wanted));
        }
    }

    fn carry_out_resize(&mut self, path: &str) {
        let mut pod = self.objects[path].clone();
        let statuses: Vec<Value> = list(&pod, "/spec/containers")
            .iter()
            .map(|container| json!({ "name": container["name"], "resources": container["resources"], "restartCount": 0 }))
            .collect();
        if pod["status"]["containerStatuses"] != json!(statuses) {
            pod["status"]["containerStatuses"] = json!(statuses);
            let spec = pod["spec"].clone();
            self.store(path, pod, &spec);
        }
    }

    fn reconcile(&mut self, path: &str, is_deployment: bool) {
        let mut workload = self.objects[path].clone();
        let namespace = path.split('/').nth(5).unwrap_or_default().to_owned();
        let name = text(&workload, "/metadata/name").to_owned();
        let wanted = workload["spec"]["replicas"].as_u64().unwrap_or(1);
        let scope = format!("/api/v1/namespaces/{namespace}/pods/");
        let owner = if is_deployment { format!("{name}-5d8f") } else { name.clone() };
        let own = |rules: &Rules| -> Vec<String> {
            let is_own = |pod: &Value| text(pod, "/metadata/ownerReferences/0/name") == owner && !is_ending(pod);
            rules
                .objects
                .iter()
                .filter(|(path, pod)| path.starts_with(&scope) && is_own(pod))
                .map(|(path, _)| path.clone())
                .collect()
        };
        let mut pods = own(self);
        while pods.len() as u64 > wanted {
            if let Some(last) = pods.pop() {
                self.objects.remove(&last);
            }
        }
        let mut failure = Value::Null;
        while (pods.len() as u64) < wanted {
            let in_namespace = self.objects.keys().filter(|path| path.starts_with(&scope)).count();
            if self.pods_max.get(&namespace).is_some_and(|max| in_namespace >= *max) {
                failure = json!([{ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                    "message": format!("pods \"{owner}-x\" is forbidden: exceeded quota: pods, requested: pods=1") }]);
                break;
            }
            self.start_pod(&scope, &owner, is_deployment, &workload);
            pods = own(self);
        }
        let ready = pods.iter().filter(|path| text(&self.objects[*path], "/status/phase") == "Running").count();
        workload["status"] = json!({
            "observedGeneration": workload["metadata"]["generation"],
            "replicas": pods.len(), "readyReplicas": ready, "updatedReplicas": pods.len(), "conditions": failure,
        });
        let spec = workload["spec"].clone();
        self.store(path, workload, &spec);
    }

    fn start_pod(&mut self, scope: &str, owner: &str, is_deployment: bool, workload: &Value) {
        self.made += 1;
        let name = format!("{owner}-{:05}", self.made);
        let mut spec = workload["spec"]["template"]["spec"].clone();
        let open = |node: &Value| node.pointer("/spec/unschedulable") != Some(&json!(true));
        let nodes = self.objects.iter().filter(|(path, node)| path.starts_with("/api/v1/nodes/") && open(node));
        let loads: Vec<(usize, String)> = nodes
            .map(|(_, node)| {
                let name = text(node, "/metadata/name").to_owned();
                let here = self.objects.values().filter(|pod| text(pod, "/spec/nodeName") == name).count();
                (here, name)
            })
            .collect();
        let node = loads.into_iter().min();
        let phase = if node.is_some() { "Running" } else { "Pending" };
        if let Some((_, node)) = node {
            spec["nodeName"] = json!(node);
        }
        let mut labels = workload["spec"]["selector"]["matchLabels"].clone();
        if is_deployment {
            labels["pod-template-hash"] = json!("5d8f");
        }
        let kind = if is_deployment { "ReplicaSet" } else { "StatefulSet" };
        let statuses: Vec<Value> = list(&spec, "/containers")
            .iter()
            .map(|container| json!({ "name": container["name"], "resources": container["resources"], "restartCount": 0 }))
            .collect();
        let namespace = scope.split('/').nth(4).unwrap_or_default();
        let pod = json!({
            "metadata": { "name": name, "namespace": namespace, "labels": labels, "creationTimestamp": self.created_at,
                "ownerReferences": [{ "kind": kind, "name": owner, "controller": true }] },
            "spec": spec,
            "status": { "phase": phase, "containerStatuses": statuses },
        });
        self.put(&format!("{scope}{name}"), pod);
    }
}

fn scale_of(parts: &Parts, object: &Value) -> Value {
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": parts.name, "namespace": parts.namespace, "uid": object["metadata"]["uid"],
            "resourceVersion": object["metadata"]["resourceVersion"] },
        "spec": { "replicas": object["spec"]["replicas"] },
        "status": { "replicas": object["status"]["replicas"] },
    })
}

/// Whether a body names another version than the object has.
fn stale(object: &Value, body: &Value) -> Option<Answer> {
    let wanted = body.pointer("/metadata/resourceVersion")?;
    (*wanted != object["metadata"]["resourceVersion"]).then(|| {
        Answer::no(409, "the object has been modified; please apply your changes to the latest version and try again")
    })
}

fn wrong_lease(plural: &str, body: &Value) -> Option<Answer> {
    let renewed = body.pointer("/spec/renewTime").and_then(Value::as_str)?;
    (plural == "leases" && !is_micro_time(renewed))
        .then(|| Answer::no(400, "parsing time as \"2006-01-02T15:04:05.000000Z07:00\""))
}

fn is_micro_time(time: &str) -> bool {
    time.split_once('.').is_some_and(|(_, rest)| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits == 6 && rest.ends_with('Z')
    })
}

/// A JSON merge patch (RFC 7396).
pub(super) fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(object) = object.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// A strategic merge patch, as far as containers go: they are told apart by their names.
fn strategic(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    object.remove(key);
                } else {
                    strategic(object.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(items), Value::Array(patches)) if patches.iter().all(|patch| patch.get("name").is_some()) => {
            for patch in patches {
                match items.iter_mut().find(|item| item["name"] == patch["name"]) {
                    Some(item) => strategic(item, patch),
                    None => items.push(patch.clone()),
                }
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

fn selects(selector: &str, object: &Value) -> bool {
    selector.split(',').filter(|part| !part.is_empty()).all(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        object.pointer("/metadata/labels").and_then(|labels| labels.get(key)) == Some(&json!(value))
    })
}

fn is_on(field: &str, object: &Value) -> bool {
    field.strip_prefix("spec.nodeName=").is_none_or(|node| text(object, "/spec/nodeName") == node)
}

fn matches_labels(labels: &Value, pod: &Value) -> bool {
    labels.as_object().into_iter().flatten().all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value))
}

fn is_ending(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_some()
}

fn quality(pod: &Value) -> &'static str {
    let containers = list(pod, "/spec/containers");
    let has = |container: &Value, kind: &str, resource: &str| {
        container.pointer(&format!("/resources/{kind}/{resource}")).cloned()
    };
    let any = containers.iter().any(|container| {
        ["cpu", "memory"]
            .iter()
            .any(|r| has(container, "requests", r).is_some() || has(container, "limits", r).is_some())
    });
    let guaranteed = containers.iter().all(|container| {
        ["cpu", "memory"].iter().all(|r| {
            let (request, limit) = (has(container, "requests", r), has(container, "limits", r));
            request.is_some() && request == limit
        })
    });
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn requested(pod: &Value, resource: &str) -> f64 {
    let of = |container: &Value| amount(text(container, &format!("/resources/requests/{resource}")));
    list(pod, "/spec/containers").iter().map(of).sum()
}

/// A quantity, as far as the tests write them.
pub(super) fn amount(text: &str) -> f64 {
    let units = [("m", 1e-3), ("Mi", 1_048_576.0), ("Gi", 1_073_741_824.0)];
    for (unit, factor) in units {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().map_or(0.0, |number| number * factor);
        }
    }
    text.parse().unwrap_or(0.0)
}

pub(super) fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
