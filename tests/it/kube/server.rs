//! The API server over HTTP: who may do what, what is written down of it, and what goes wrong on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use super::rules::{Answer, Asked, Rules};

/// The user that the tests act as.
const USER: &str = "system:serviceaccount:ops:forestall";

/// One request, as the audit log keeps it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `patch deployments/scale`
    pub(super) right: String,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) body: Value,
    pub(super) code: u16,
}

impl Entry {
    /// Whether it asked for a change.
    pub(super) fn is_write(&self) -> bool {
        !self.right.starts_with("get ") && !self.right.starts_with("list ")
    }
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It answers so and does nothing.
    Answers(u16),
    /// The connection ends before anything is done.
    CutBefore,
    /// It is done, and the connection ends before the answer.
    CutAfter,
    /// Somebody else writes the object between the look and this write.
    Overtaken,
}

#[derive(Debug)]
struct Inner {
    rules: Rules,
    audit: Vec<Entry>,
    denied: BTreeSet<String>,
    troubles: VecDeque<(String, Trouble)>,
    token: String,
}

/// An API server for one test.
#[derive(Debug, Clone)]
pub(super) struct Server {
    inner: Arc<Mutex<Inner>>,
    pub(super) folder: Arc<tempfile::TempDir>,
}

impl Server {
    /// Starts one, with a kubeconfig in its folder.
    pub(super) async fn start() -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let inner = Inner {
            rules: Rules::default(),
            audit: Vec::new(),
            denied: BTreeSet::new(),
            troubles: VecDeque::new(),
            token: "first".to_owned(),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server { inner: Arc::new(Mutex::new(inner)), folder: Arc::new(folder) };
        server.write_token("first");
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- {{ name: test, cluster: {{ server: 'http://{address}' }} }}\n\
             users:\n- {{ name: test, user: {{ tokenFile: '{}' }} }}\n\
             contexts:\n- {{ name: test, context: {{ cluster: test, user: test }} }}\n",
            server.folder.path().join("token").display()
        );
        std::fs::write(server.kubeconfig(), kubeconfig).expect("the folder can be written");
        let app = Router::new().fallback(serve).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    pub(super) fn kubeconfig(&self) -> std::path::PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn write_token(&self, token: &str) {
        std::fs::write(self.folder.path().join("token"), token).expect("the folder can be written");
    }

    /// The token is replaced, in the file and for the server.
    pub(super) fn rotate_token(&self, token: &str) {
        self.write_token(token);
        self.inner.lock().token = token.to_owned();
    }

    /// The server accepts another token than the one in the file.
    pub(super) fn expect_token(&self, token: &str) {
        self.inner.lock().token = token.to_owned();
    }

    /// The role no longer grants this: `patch deployments/scale`.
    pub(super) fn deny(&self, right: &str) {
        self.inner.lock().denied.insert(right.to_owned());
    }

    /// The next request for this right fares so.
    pub(super) fn trouble(&self, right: &str, trouble: Trouble) {
        self.inner.lock().troubles.push_back((right.to_owned(), trouble));
    }

    pub(super) fn rules(&self) -> parking_lot::MappedMutexGuard<'_, Rules> {
        MutexGuard::map(self.inner.lock(), |inner| &mut inner.rules)
    }

    pub(super) fn audit(&self) -> Vec<Entry> {
        self.inner.lock().audit.clone()
    }

    /// Requests for changes, without events, that were not refused.
    pub(super) fn writes(&self) -> Vec<Entry> {
        let is_one = |entry: &Entry| {
            entry.is_write()
                && entry.code < 300
                && !matches!(entry.right.as_str(), "create events" | "create selfsubjectaccessreviews")
        };
        self.audit().into_iter().filter(is_one).collect()
    }

    /// How many requests the role refused.
    pub(super) fn refused(&self) -> usize {
        self.audit().iter().filter(|entry| entry.code == 403).count()
    }

    /// An object as it is now.
    pub(super) fn get(&self, path: &str) -> Value {
        self.rules().get(path).unwrap_or_else(|| panic!("there is no {path}")).clone()
    }

    /// Answers one request, as over the wire.
    pub(super) fn answer(&self, asked: &Asked, token: &str) -> Option<Answer> {
        let mut inner = self.inner.lock();
        let right = right_of(asked);
        let trouble = inner.troubles.iter().position(|(of, _)| *of == right).and_then(|at| inner.troubles.remove(at));
        let trouble = trouble.map(|(_, trouble)| trouble);
        if trouble == Some(Trouble::CutBefore) {
            return None;
        }
        if trouble == Some(Trouble::Overtaken) {
            let path = asked.parts().object();
            inner.rules.change(&path, |object| object["metadata"]["labels"]["touched"] = "yes".into());
        }
        let answer = match trouble {
            _ if token != inner.token => Answer::no(401, "Unauthorized"),
            Some(Trouble::Answers(code)) => Answer::no(code, "injected"),
            _ if inner.denied.contains(&right) => Answer::no(403, &rbac_words(&right, asked)),
            _ if right == "create selfsubjectaccessreviews" => own_rights(&inner.denied, &asked.body),
            _ => inner.rules.answer(asked),
        };
        inner.audit.push(Entry {
            right,
            path: asked.path.clone(),
            query: asked.query.clone(),
            content_type: asked.content_type.clone(),
            body: asked.body.clone(),
            code: answer.code,
        });
        (trouble != Some(Trouble::CutAfter)).then_some(answer)
    }
}

/// `patch deployments/scale`; a list of all namespaces is the same right.
fn right_of(asked: &Asked) -> String {
    let parts = asked.parts();
    let verb = match asked.method.as_str() {
        "GET" if parts.name.is_empty() && !parts.plural.is_empty() => "list",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        _ => "delete",
    };
    format!("{verb} {}", parts.resource())
}

/// Whether a role grants what a `SelfSubjectAccessReview` asks for.
fn own_rights(denied: &BTreeSet<String>, review: &Value) -> Answer {
    let of = |key: &str| {
        review.pointer(&format!("/spec/resourceAttributes/{key}")).and_then(Value::as_str).unwrap_or_default()
    };
    let resource = match of("subresource") {
        "" => of("resource").to_owned(),
        sub => format!("{}/{sub}", of("resource")),
    };
    let mut body = review.clone();
    body["status"]["allowed"] = (!denied.contains(&format!("{} {resource}", of("verb")))).into();
    Answer { code: 201, body, retry_after: None }
}

fn rbac_words(right: &str, asked: &Asked) -> String {
    let parts = asked.parts();
    let (verb, resource) = right.split_once(' ').unwrap_or_default();
    let group = parts.base.strip_prefix("/apis/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    format!(
        "{} \"{}\" is forbidden: User \"{USER}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" in the \
         namespace \"{}\"",
        parts.plural, parts.name, parts.namespace
    )
}

async fn serve(State(server): State<Server>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let asked = Asked {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query,
        content_type: header("content-type"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let token = header("authorization");
    let Some(answer) = server.answer(&asked, token.trim_start_matches("Bearer ").trim()) else {
        // The connection ends without a word.
        std::panic::resume_unwind(Box::new("cut"));
    };
    let code = StatusCode::from_u16(answer.code).expect("a status of the rules");
    let mut response = (code, [("content-type", "application/json")], answer.body.to_string()).into_response();
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}
