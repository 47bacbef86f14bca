//! The API server over HTTP: who may do what, what is written down of it, and what goes wrong on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::behind::{Behind, answer_of, with_query};
use super::objects::touch;
use super::plane::{self, ADMIN, Plane, USER};
use super::rules::{Answer, Asked};

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
    rules: Behind,
    audit: Vec<Entry>,
    denied: BTreeSet<String>,
    troubles: VecDeque<(String, Trouble)>,
    token: String,
    /// Whether the cluster is one that cannot resize pods in place.
    old: bool,
    /// How many objects somebody else has touched.
    touched: u64,
}

/// An API server for one test.
#[derive(Debug, Clone)]
pub(super) struct Server {
    inner: Arc<Mutex<Inner>>,
    /// To the real control plane.
    client: reqwest::Client,
    pub(super) folder: Arc<tempfile::TempDir>,
}

impl Server {
    /// Starts one, with a kubeconfig in its folder.
    pub(super) async fn start() -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let inner = Inner {
            rules: Behind::new().await,
            audit: Vec::new(),
            denied: BTreeSet::new(),
            troubles: VecDeque::new(),
            token: "first".to_owned(),
            old: false,
            touched: 0,
        };
        let folder = tempfile::tempdir().expect("a folder");
        let inner = Arc::new(Mutex::new(inner));
        let server = Server { inner, client: plane::client(), folder: Arc::new(folder) };
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
        let mut inner = self.inner.lock();
        inner.denied.insert(right.to_owned());
        if let Some(real) = inner.rules.real() {
            real.plane.deny(&inner.denied.iter().cloned().collect::<Vec<_>>());
        }
    }

    /// The cluster cannot resize pods in place.
    pub(super) fn cannot_resize(&self) {
        self.inner.lock().old = true;
    }

    /// The real control plane, where it is one.
    pub(super) fn plane(&self) -> Option<&'static Plane> {
        self.inner.lock().rules.real().map(|real| real.plane)
    }

    /// The next request for this right fares so.
    pub(super) fn trouble(&self, right: &str, trouble: Trouble) {
        self.inner.lock().troubles.push_back((right.to_owned(), trouble));
    }

    pub(super) fn rules(&self) -> parking_lot::MappedMutexGuard<'_, Behind> {
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
        let writes: Vec<Entry> = self.audit().into_iter().filter(is_one).collect();
        self.check_audit_log(&writes);
        writes
    }

    /// What the real control plane wrote down is what we say.
    fn check_audit_log(&self, writes: &[Entry]) {
        let inner = self.inner.lock();
        let Some(real) = inner.rules.real() else { return };
        let logged: Vec<String> = real
            .plane
            .audited(real.audit_from)
            .into_iter()
            .filter(plane::Audited::is_effect)
            .map(|a| a.right)
            .collect();
        let ours: Vec<&String> = writes.iter().map(|entry| &entry.right).collect();
        assert_eq!(logged.iter().collect::<Vec<_>>(), ours, "the audit log");
    }

    /// How many requests the role refused.
    pub(super) fn refused(&self) -> usize {
        self.audit().iter().filter(|entry| entry.code == 403).count()
    }

    /// An object as it is now.
    pub(super) fn get(&self, path: &str) -> Value {
        self.rules().get(path).unwrap_or_else(|| panic!("there is no {path}"))
    }

    /// What becomes of a request before the objects are asked.
    fn meets(&self, asked: &Asked, token: &str) -> (Option<Trouble>, Option<Answer>) {
        let mut inner = self.inner.lock();
        let right = right_of(asked);
        let trouble = inner.troubles.iter().position(|(of, _)| *of == right).and_then(|at| inner.troubles.remove(at));
        let trouble = trouble.map(|(_, trouble)| trouble);
        let answer = match trouble {
            _ if token != inner.token => Some(Answer::no(401, "Unauthorized")),
            Some(Trouble::Answers(code)) => Some(Answer::no(code, "injected")),
            _ if inner.old && right == "patch pods/resize" => Some(Answer::no(404, "the server could not find it")),
            _ if inner.rules.real().is_some() => None,
            _ if inner.denied.contains(&right) => Some(Answer::no(403, &rbac_words(&right, asked))),
            _ if right == "create selfsubjectaccessreviews" => Some(own_rights(&inner.denied, &asked.body)),
            _ => None,
        };
        (trouble, answer)
    }

    /// Answers one request, as over the wire; nothing where the connection ends.
    async fn answer(&self, asked: &Asked, token: &str) -> Option<Answer> {
        let (trouble, met) = self.meets(asked, token);
        if trouble == Some(Trouble::CutBefore) {
            return None;
        }
        if trouble == Some(Trouble::Overtaken) {
            self.overtake(&asked.parts().object()).await;
        }
        let answer = match (met, self.plane()) {
            (Some(answer), _) => answer,
            (None, None) => self.rules().answer(asked, token),
            (None, Some(plane)) => self.forward(plane, asked, token).await,
        };
        let answer = self.without_resize(asked, answer);
        self.inner.lock().audit.push(Entry {
            right: right_of(asked),
            path: asked.path.clone(),
            query: asked.query.clone(),
            content_type: asked.content_type.clone(),
            body: asked.body.clone(),
            code: answer.code,
        });
        (trouble != Some(Trouble::CutAfter)).then_some(answer)
    }

    /// The same without the way there; `admin` may do everything.
    pub(super) fn answer_now(&self, asked: &Asked, token: &str) -> Answer {
        let (_, met) = self.meets(asked, if token == ADMIN { "first" } else { token });
        let answer = met.unwrap_or_else(|| self.rules().answer(asked, token));
        self.without_resize(asked, answer)
    }

    async fn forward(&self, plane: &Plane, asked: &Asked, token: &str) -> Answer {
        let (method, path) = (&asked.method, with_query(asked));
        let request =
            plane::request(&self.client, plane.base(), token, method, &path, &asked.content_type, &asked.body);
        let answer = answer_of(plane::answered(request).await);
        let beats = self.inner.lock().rules.real().is_some_and(|real| real.heartbeats);
        if beats && asked.method == "GET" && asked.parts().plural == "nodes" && !asked.parts().name.is_empty() {
            let count = self.count();
            // Not each time, or nobody would ever get a word in.
            if !count.is_multiple_of(3) {
                let (path, body) = Plane::heartbeat(&asked.path, count);
                let kind = "application/strategic-merge-patch+json";
                plane::answered(plane::request(&self.client, plane.base(), ADMIN, "PATCH", &path, kind, &body)).await;
            }
        }
        answer
    }

    fn count(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.touched += 1;
        inner.touched
    }

    /// Somebody else writes an object.
    async fn overtake(&self, path: &str) {
        let count = self.count();
        let Some(plane) = self.plane() else {
            self.rules().change(path, |object| object["metadata"]["labels"]["touched"] = json!(count.to_string()));
            return;
        };
        let (kind, body) = touch(count);
        let request = plane::request(&self.client, plane.base(), ADMIN, "PATCH", path, kind, &body);
        let answer = plane::answered(request).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.body);
    }

    /// The discovery of an old cluster.
    fn without_resize(&self, asked: &Asked, mut answer: Answer) -> Answer {
        if self.inner.lock().old
            && asked.path == "/api/v1"
            && let Some(all) = answer.body["resources"].as_array_mut()
        {
            all.retain(|resource| resource["name"] != "pods/resize");
        }
        answer
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
    let Some(answer) = server.answer(&asked, token.trim_start_matches("Bearer ").trim()).await else {
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
