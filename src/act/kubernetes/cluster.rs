//! Calls to an API server: bounded in time and size, each refusal told apart, nothing repeated on its own.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::super::http::words_of;
use super::super::{ActError, cut};
use super::KubernetesSettings;
use super::lease::Fence;
use crate::model::Millis;

/// No more of an answer is read: a page of 500 pods has a few megabytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// No more of the server's words is kept.
const WORDS_CHARS_MAX: usize = 300;
/// How many objects a list brings at once, …
const PAGE: usize = 500;
/// … and how many pages are read at most.
const PAGES_MAX: usize = 200;
/// Who writes, in `managedFields`.
pub(super) const MANAGER: &str = "forestall";

/// Why a call did not bring what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// 404: there is no such object, or no such kind.
    Gone(String),
    /// 409: it is not the object, or not the version of it, that was meant.
    Conflict(String),
    /// 403 by the cluster's roles: what must be granted.
    Forbidden {
        /// `patch deployments/scale`
        right: String,
        words: String,
    },
    /// 403 for lack of room: a quota, a limit, the size of a node.
    Insufficient(String),
    /// 429: by the server's fairness, or a closed disruption budget.
    Later { words: String, retry_after: Option<Millis>, budget: bool },
    /// Another clear no.
    Refused(String),
    /// It was not sent, or not taken.
    Unavailable(String),
    /// It was sent, and nobody knows what came of it.
    Unanswered(String),
}

impl Fault {
    /// Whether there is no such object.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Fault::Gone(_))
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<(&'static str, Value)>,
    /// `patch deployments/scale`: for the one who must grant it.
    right: String,
}

impl Call {
    /// Reads an object or a list; `right` is what a role must grant for it.
    pub(super) fn get(path: String, right: &str) -> Call {
        Call { method: Method::GET, path, query: Vec::new(), body: None, right: right.to_owned() }
    }

    /// A JSON merge patch (RFC 7396) as the field manager `forestall`, refused where it names an unknown field.
    pub(super) fn merge(path: String, patch: Value, right: &str) -> Call {
        Call::write(Method::PATCH, path, "application/merge-patch+json", patch, right)
    }

    /// The same, with lists merged by their keys.
    pub(super) fn strategic(path: String, patch: Value, right: &str) -> Call {
        Call::write(Method::PATCH, path, "application/strategic-merge-patch+json", patch, right)
    }

    /// Creates an object.
    pub(super) fn post(path: String, object: Value, right: &str) -> Call {
        Call::write(Method::POST, path, "application/json", object, right)
    }

    /// Replaces an object, if it is still the version that it names.
    pub(super) fn put(path: String, object: Value, right: &str) -> Call {
        Call::write(Method::PUT, path, "application/json", object, right)
    }

    fn write(method: Method, path: String, kind: &'static str, body: Value, right: &str) -> Call {
        let query = vec![("fieldManager", MANAGER.to_owned()), ("fieldValidation", "Strict".to_owned())];
        Call { method, path, query, body: Some((kind, body)), right: right.to_owned() }
    }

    /// The same with one more parameter.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.query.push((name, value.into()));
        self
    }

    fn request(&self) -> Result<Request<Body>, Fault> {
        let mut uri = self.path.clone();
        if !self.query.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
            uri = format!("{uri}?{query}");
        }
        let mut request = Request::builder().method(&self.method).uri(uri).header("accept", "application/json");
        let body = match &self.body {
            None => Body::empty(),
            Some((kind, body)) => {
                request = request.header("content-type", *kind);
                Body::from(body.to_string().into_bytes())
            }
        };
        request.body(body).map_err(|error| Fault::Refused(format!("the request cannot be made: {error}")))
    }
}

/// One cluster's API server.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Who is called, in messages: the actuator's name.
    name: String,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    timeout: Millis,
    /// Made at the first call and anew when its token is refused.
    client: tokio::sync::Mutex<Option<Connected>>,
    /// The role allows no events: then none is tried any more.
    events_forbidden: AtomicBool,
    /// Whether this replica may write; it may where nobody set one.
    fence: OnceLock<Fence>,
}

#[derive(Clone)]
struct Connected(Client);

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connected")
    }
}

impl Cluster {
    pub(super) fn new(name: &str, settings: &KubernetesSettings) -> Cluster {
        Cluster {
            name: name.to_owned(),
            kubeconfig: settings.kubeconfig.clone(),
            context: settings.context.clone(),
            timeout: settings.timeout,
            client: tokio::sync::Mutex::default(),
            events_forbidden: AtomicBool::new(false),
            fence: OnceLock::new(),
        }
    }

    /// From now on nothing is written but while the fence is open.
    pub(super) fn set_fence(&self, fence: &Fence) {
        // Set once, when the app is built.
        let _ = self.fence.set(fence.clone());
    }

    /// Makes one call. Where the token is refused it is read again, and the call made once more.
    pub(super) async fn call(&self, call: &Call) -> Result<Value, Fault> {
        let client = self.client().await?;
        self.check_fence(call)?;
        match self.once(&client, call).await? {
            Some(answer) => Ok(answer),
            None => {
                *self.client.lock().await = None;
                let client = self.client().await?;
                self.check_fence(call)?;
                let refused = || Fault::Refused("401 Unauthorized, with the token read again too".to_owned());
                self.once(&client, call).await?.ok_or_else(refused)
            }
        }
    }

    /// All objects of a list, page by page.
    pub(super) async fn list(&self, call: &Call) -> Result<Vec<Value>, Fault> {
        let (mut objects, mut next) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let mut page = call.clone().with("limit", PAGE.to_string());
            if !next.is_empty() {
                page = page.with("continue", std::mem::take(&mut next));
            }
            let mut answer = self.call(&page).await?;
            if let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) {
                objects.extend(items);
            }
            next = text(&answer, "/metadata/continue").to_owned();
            if next.is_empty() {
                return Ok(objects);
            }
        }
        Err(Fault::Refused(format!("the list {} has more than {} objects", call.path, PAGE * PAGES_MAX)))
    }

    /// The same; nothing where the cluster does not know the kind.
    pub(super) async fn list_if_known(&self, call: &Call) -> Result<Option<Vec<Value>>, Fault> {
        match self.list(call).await {
            Ok(objects) => Ok(Some(objects)),
            Err(fault) if fault.is_gone() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Asks whether a role grants something, without trying it.
    pub(super) async fn check_right(
        &self,
        verb: &str,
        resource: &str,
        sub: &str,
        namespace: &str,
    ) -> Result<(), Fault> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "verb": verb, "resource": resource, "subresource": sub, "namespace": namespace } },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let answer = self.call(&Call::post(path, review, "create selfsubjectaccessreviews")).await?;
        if answer.pointer("/status/allowed") == Some(&json!(true)) {
            return Ok(());
        }
        let right = format!("{verb} {resource}/{sub}");
        let words = format!("it cannot {verb} resource \"{resource}/{sub}\" in the namespace \"{namespace}\"");
        Err(Fault::Forbidden { right, words })
    }

    /// Puts an event beside an object: for those who look there. Nothing depends on it.
    pub(super) async fn tell(&self, regarding: &Value, action: &crate::plan::Action, now: crate::model::Timestamp) {
        if self.events_forbidden.load(Ordering::Relaxed) {
            return;
        }
        let namespace = match text(regarding, "/namespace") {
            "" => "default",
            namespace => namespace,
        };
        let kind = serde_json::to_value(action.kind).unwrap_or_default();
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "generateName": "forestall-", "namespace": namespace },
            "eventTime": micro_time(now),
            "reportingController": "forestall",
            "reportingInstance": self.name,
            "action": kind,
            "reason": "ForestallActed",
            "type": "Normal",
            "note": cut(&format!("{}: {}", action.id, action.why.sentence), 1000),
            "regarding": regarding,
        });
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        match self.call(&Call::post(path, event, "create events.events.k8s.io")).await {
            Ok(_) => {}
            Err(fault @ Fault::Forbidden { .. }) => {
                self.events_forbidden.store(true, Ordering::Relaxed);
                tracing::warn!(reason = %self.error(fault), "no more events are tried");
            }
            Err(fault) => tracing::debug!(reason = %self.error(fault), "an event was not taken"),
        }
    }

    /// What is wrong, for the executor.
    pub(super) fn error(&self, fault: Fault) -> ActError {
        let target = self.name.clone();
        match fault {
            Fault::Gone(reason) | Fault::Refused(reason) => ActError::Refused { target, reason },
            Fault::Forbidden { right, words } => {
                let reason = format!("forbidden: the role must grant `{right}`: {words}");
                ActError::Refused { target, reason }
            }
            Fault::Insufficient(reason) => ActError::Insufficient { target, reason },
            Fault::Conflict(reason) | Fault::Unavailable(reason) => {
                ActError::Unavailable { target, reason, retry_after: None }
            }
            Fault::Later { words, retry_after, .. } => ActError::Unavailable { target, reason: words, retry_after },
            Fault::Unanswered(reason) => ActError::Unanswered { target, reason, retry_after: None },
        }
    }

    fn check_fence(&self, call: &Call) -> Result<(), Fault> {
        if call.method != Method::GET && self.fence.get().is_some_and(|fence| !fence.is_open()) {
            return Err(Fault::Refused("not sent: this replica does not lead any more".to_owned()));
        }
        Ok(())
    }

    async fn client(&self) -> Result<Client, Fault> {
        let mut held = self.client.lock().await;
        if let Some(Connected(client)) = &*held {
            return Ok(client.clone());
        }
        let mut config = self.config().await?;
        // The executor repeats what may be repeated.
        config.default_retry = false;
        config.connect_timeout = Some(self.timeout.to_std());
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        *held = Some(Connected(client.clone()));
        Ok(client)
    }

    /// From the file that is named; else as a pod of the cluster, else as `kubectl` finds it.
    async fn config(&self) -> Result<Config, Fault> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let Some(file) = self.kubeconfig.clone() else {
            return match Config::incluster() {
                Ok(config) => Ok(config),
                Err(_) => Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error)),
            };
        };
        let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(file)).await;
        let kubeconfig = read.map_err(|error| unusable(&error))?.map_err(|error| unusable(&error))?;
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error))
    }

    /// Nothing where the token was refused.
    async fn once(&self, client: &Client, call: &Call) -> Result<Option<Value>, Fault> {
        let request = call.request()?;
        let answered = tokio::time::timeout(self.timeout.to_std(), async {
            let response = client.send(request).await.map_err(|error| broken(&error))?;
            let (head, body) = response.into_parts();
            let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            Ok::<_, Fault>((head, bytes.map_err(|error| words_of(&*error)).map(|bytes| bytes.to_bytes())))
        });
        let Ok(answered) = answered.await else {
            return Err(Fault::Unanswered(format!("no answer within {}", self.timeout)));
        };
        let (head, bytes) = answered?;
        if head.status == StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // An answer that broke off may stand for anything.
            Err(words) => return Err(Fault::Unanswered(format!("{}, and then {words}", head.status))),
        };
        if head.status.is_success() {
            return serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Fault::Unanswered(format!("{}, but its answer is no JSON: {error}", head.status)));
        }
        let retry_after = head.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        let status = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(fault_of(head.status, &status, retry_after, &call.right))
    }
}

/// What a refusal means. `status` is the API server's `Status` object, or nothing.
fn fault_of(code: StatusCode, status: &Value, retry_after: Option<u32>, right: &str) -> Fault {
    let message = text(status, "/message");
    let words = cut(&if message.is_empty() { code.to_string() } else { format!("{code}: {message}") }, WORDS_CHARS_MAX);
    let cause = |reason: &str| {
        let causes = status.pointer("/details/causes").and_then(Value::as_array);
        causes.into_iter().flatten().any(|cause| text(cause, "/reason") == reason)
    };
    match code {
        StatusCode::NOT_FOUND => Fault::Gone(words),
        StatusCode::CONFLICT => Fault::Conflict(words),
        StatusCode::FORBIDDEN if cause("NodeCapacity") || names_a_limit(message) => Fault::Insufficient(words),
        StatusCode::FORBIDDEN if message.contains(" cannot ") && message.contains(" resource ") => {
            Fault::Forbidden { right: right.to_owned(), words }
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let in_body = status.pointer("/details/retryAfterSeconds").and_then(Value::as_i64);
            let seconds = retry_after.map(i64::from).or(in_body.filter(|seconds| *seconds > 0));
            Fault::Later { words, retry_after: seconds.map(Millis::from_secs), budget: cause("DisruptionBudget") }
        }
        StatusCode::SERVICE_UNAVAILABLE => Fault::Unavailable(words),
        code if code.is_server_error() => Fault::Unanswered(words),
        _ => Fault::Refused(words),
    }
}

/// The words of the quota and of the limit-range admission: what is wanted is more than there may be.
fn names_a_limit(message: &str) -> bool {
    let limits = ["exceeded quota", "usage per Container", "usage per Pod", "limit to request ratio per"];
    limits.iter().any(|words| message.contains(words))
}

fn unusable(error: &dyn std::error::Error) -> Fault {
    Fault::Unavailable(format!("the cluster cannot be called: {}", words_of(error)))
}

/// Without a connection nothing was sent.
fn broken(error: &kube::Error) -> Fault {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let refused = |io: &std::io::Error| io.kind() == std::io::ErrorKind::ConnectionRefused;
        if error.downcast_ref::<std::io::Error>().is_some_and(refused) {
            return Fault::Unavailable(words_of(error));
        }
        cause = error.source();
    }
    Fault::Unanswered(words_of(error))
}

/// The text at a place of an object; empty where there is none.
pub(super) fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The count at a place of an object; `default` where there is none.
pub(super) fn count(object: &Value, pointer: &str, default: u32) -> u32 {
    let found = object.pointer(pointer).and_then(Value::as_u64);
    found.map_or(default, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// The list at a place of an object; empty where there is none.
pub(super) fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// An annotation of an object; empty where it has none.
pub(super) fn annotation<'v>(object: &'v Value, key: &str) -> &'v str {
    object.pointer("/metadata/annotations").and_then(|all| all.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// `MicroTime`: the API server takes no fewer than six digits after the second.
pub(super) fn micro_time(at: crate::model::Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    format!("{at:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_micro_time_has_six_digits_whatever_the_moment() {
        for (at, wanted) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20.000000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123000Z"),
        ] {
            assert_eq!(micro_time(Timestamp(at)), wanted);
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let rbac = "deployments.apps \"api\" is forbidden: User \"system:serviceaccount:ops:forestall\" cannot patch resource \
                    \"deployments/scale\" in API group \"apps\" in the namespace \"shop\"";
        let check = |code: u16, status: Value, header: Option<u32>, wanted: &str| {
            let fault = fault_of(StatusCode::from_u16(code).expect("a status"), &status, header, "patch x");
            let said = format!("{fault:?}");
            assert!(said.starts_with(wanted), "{code} {status}: {said}");
        };
        check(403, json!({ "message": rbac }), None, "Forbidden { right: \"patch x\"");
        check(
            403,
            json!({ "message": "pods \"a\" is forbidden: exceeded quota: q, requested: cpu=2" }),
            None,
            "Insufficient",
        );
        check(403, json!({ "message": "maximum cpu usage per Container is 2, but limit is 4" }), None, "Insufficient");
        let node = json!({ "message": "too large", "details": { "causes": [{ "reason": "NodeCapacity" }] } });
        check(403, node, None, "Insufficient");
        check(403, json!({ "message": "admission webhook \"w\" denied the request" }), None, "Refused");
        check(404, json!({}), None, "Gone");
        check(409, json!({}), None, "Conflict");
        check(422, json!({ "message": "Invalid value" }), None, "Refused");
        check(
            429,
            json!({}),
            Some(1),
            "Later { words: \"429 Too Many Requests\", retry_after: Some(Millis(1000)), budget: false",
        );
        let closed = json!({ "details": { "causes": [{ "reason": "DisruptionBudget" }], "retryAfterSeconds": 10 } });
        check(
            429,
            closed,
            None,
            "Later { words: \"429 Too Many Requests\", retry_after: Some(Millis(10000)), budget: true",
        );
        check(500, json!({}), None, "Unanswered");
        check(503, json!({}), None, "Unavailable");
    }
}
