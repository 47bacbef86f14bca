//! What answers behind [`super::server::Server`]: the rules of `rules.rs`, or a real control plane.

use serde_json::{Value, json};

use super::plane::{Answered, Plane};
use super::rules::{Answer, Asked, Rules};

/// Either of the two, with what a test does to it.
#[derive(Debug)]
pub(super) enum Behind {
    Rules(Box<Rules>),
    Plane(Real),
}

/// A real control plane, and what a test has asked of it.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) plane: &'static Plane,
    pub(super) heartbeats: bool,
    /// Whether kubelets carry resizes out.
    carries_out: bool,
    /// How long the audit log was when the test began.
    pub(super) audit_from: usize,
}

impl Behind {
    pub(super) async fn new() -> Behind {
        match Plane::get() {
            None => Behind::Rules(Box::default()),
            Some(plane) => {
                plane.empty().await;
                let audit_from = plane.audit_len();
                Behind::Plane(Real { plane, heartbeats: false, carries_out: true, audit_from })
            }
        }
    }

    pub(super) fn real(&self) -> Option<&Real> {
        match self {
            Behind::Rules(_) => None,
            Behind::Plane(real) => Some(real),
        }
    }

    /// The rules; only for what no real server does on demand.
    pub(super) fn fake(&mut self) -> Option<&mut Rules> {
        match self {
            Behind::Rules(rules) => Some(rules),
            Behind::Plane(_) => None,
        }
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        match self {
            Behind::Rules(rules) => rules.get(path).cloned(),
            Behind::Plane(real) => real.plane.object(path),
        }
    }

    pub(super) fn put(&mut self, path: &str, object: Value) {
        match self {
            Behind::Rules(rules) => rules.put(path, object),
            Behind::Plane(real) => real.plane.put(path, object),
        }
    }

    pub(super) fn change(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        match self {
            Behind::Rules(rules) => rules.change(path, change),
            Behind::Plane(real) => real.plane.change(path, change),
        }
    }

    pub(super) fn remove(&mut self, path: &str) {
        match self {
            Behind::Rules(rules) => rules.remove(path),
            Behind::Plane(real) => real.plane.remove(path),
        }
    }

    pub(super) fn paths(&self, plural: &str) -> Vec<String> {
        match self {
            Behind::Rules(rules) => rules.paths(plural),
            Behind::Plane(real) => real.plane.paths(plural),
        }
    }

    pub(super) fn healthy(&self, namespace: &str, labels: &Value) -> u64 {
        match self {
            Behind::Rules(rules) => rules.healthy(namespace, labels),
            Behind::Plane(real) => real.plane.healthy(namespace, labels),
        }
    }

    /// Controllers and kubelets do what they do.
    pub(super) fn tick(&mut self) {
        match self {
            Behind::Rules(rules) => rules.tick(),
            Behind::Plane(real) => real.plane.tick(real.carries_out),
        }
    }

    /// A request with a token.
    pub(super) fn answer(&mut self, asked: &Asked, token: &str) -> Answer {
        match self {
            Behind::Rules(rules) => rules.answer(asked),
            Behind::Plane(real) => {
                let path = with_query(asked);
                let sent = real.plane.send(token, &asked.method, &path, &asked.content_type, &asked.body);
                answer_of(real.plane.wait(sent))
            }
        }
    }

    /// Kinds that are no part of Kubernetes itself are known from now on.
    pub(super) fn know(&mut self, group: &'static str) {
        match self {
            Behind::Rules(rules) => drop(rules.groups.insert(group)),
            Behind::Plane(real) => real.plane.know(group),
        }
    }

    /// A namespace may hold no more pods.
    pub(super) fn quota(&mut self, namespace: &str, pods_max: usize) {
        match self {
            Behind::Rules(rules) => drop(rules.pods_max.insert(namespace.to_owned(), pods_max)),
            Behind::Plane(real) => {
                let path = format!("/api/v1/namespaces/{namespace}/resourcequotas/q");
                real.plane.put(&path, json!({ "metadata": {}, "spec": { "hard": { "pods": pods_max.to_string() } } }));
                real.plane.until("the quota is counted", || {
                    real.plane.object(&path).is_some_and(|quota| quota.pointer("/status/used/pods").is_some())
                });
            }
        }
    }

    /// A container may have no more cpu.
    pub(super) fn cpu_max(&mut self, max: f64) {
        match self {
            Behind::Rules(rules) => rules.cpu_max = Some(max),
            Behind::Plane(real) => {
                let limits = json!([{ "type": "Container", "max": { "cpu": max.to_string() } }]);
                let range = json!({ "metadata": {}, "spec": { "limits": limits } });
                real.plane.put("/api/v1/namespaces/shop/limitranges/l", range);
            }
        }
    }

    /// Nodes carry no resize out any more.
    pub(super) fn stop_resizing(&mut self) {
        match self {
            Behind::Rules(rules) => rules.carries_out = false,
            Behind::Plane(real) => real.carries_out = false,
        }
    }

    /// Nodes move their version again and again.
    pub(super) fn start_heartbeats(&mut self) {
        match self {
            Behind::Rules(rules) => rules.heartbeats = true,
            Behind::Plane(real) => real.heartbeats = true,
        }
    }
}

pub(super) fn with_query(asked: &Asked) -> String {
    if asked.query.is_empty() {
        return asked.path.clone();
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&asked.query).finish();
    format!("{}?{query}", asked.path)
}

pub(super) fn answer_of(answered: Answered) -> Answer {
    Answer { code: answered.code, body: answered.body, retry_after: answered.retry_after }
}
