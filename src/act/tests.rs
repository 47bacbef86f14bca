//! The webhook actuator and the executor against a local server that misbehaves on demand.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use futures::FutureExt;
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;

use super::*;
use crate::clock::Clock;
use crate::model::ComponentId;
use crate::plan::{ActionKind, Change, Plan, Target, Why};

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// One request, as the server got it.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16, &'static str),
    Header(u16, &'static str, &'static str),
    /// Says nothing until the client goes away.
    Silence,
    /// Breaks the connection off in the middle of the body.
    Cut,
}

/// A server that answers from a list; the last answer is given again and again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    got: Arc<Mutex<Vec<Got>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    pub(crate) address: String,
}

impl Server {
    pub(crate) async fn start(replies: &[Reply]) -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let server =
            Server { replies: Arc::new(Mutex::new(replies.iter().cloned().collect())), address, ..Server::default() };
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }
}

async fn answer(State(server): State<Server>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    server.got.lock().push(Got { method, path: uri.to_string(), headers, body });
    let reply = {
        let mut replies = server.replies.lock();
        if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() }
    };
    let status = |code: u16| axum::http::StatusCode::from_u16(code).expect("a status of the test");
    match reply.expect("the test gives at least one answer") {
        Reply::Status(code, body) => (status(code), body).into_response(),
        Reply::Header(code, name, value) => (status(code), [(name, value)]).into_response(),
        Reply::Silence => futures::future::pending().await,
        Reply::Cut => {
            let parts = [Ok(Bytes::from_static(b"{\"state\":")), Err(std::io::Error::other("cut"))];
            let body = axum::body::Body::from_stream(futures::stream::iter(parts));
            ([("content-length", "100")], body).into_response()
        }
    }
}

pub(crate) fn action(id: &str) -> Action {
    let component = ComponentId {
        kind: "deployment".to_owned(),
        labels: vec![("namespace".to_owned(), "shop".to_owned()), ("deployment".to_owned(), "checkout".to_owned())],
    };
    Action {
        id: id.to_owned(),
        policy: "shop".to_owned(),
        rung: 0,
        kind: ActionKind::ScaleOut,
        actuator: "hook".to_owned(),
        target: Target { component, namespace: "shop".to_owned(), name: "checkout".to_owned() },
        change: Change::Replicas { from: 3, to: 5 },
        why: Why {
            probability: 0.9,
            eta: Some(Millis(1_200_000)),
            expected_loss: 0.5,
            signal: "saturation/cpu".to_owned(),
            peak: None,
            sentence: "0.9 × 0.8 × 10 > 1".to_owned(),
            predictions: Vec::new(),
        },
        decided_at: NOW - Millis::SECOND,
        expires_at: Some(NOW + Millis::HOUR),
        undo: Some(Change::Replicas { from: 5, to: 3 }),
        undoes: None,
        makes_room_for: None,
        dry_run: false,
    }
}

fn settings(url: &str, keys: Vec<PathBuf>) -> WebhookSettings {
    WebhookSettings {
        url: format!("{url}/act"),
        hmac_secret_files: keys,
        status_url: None,
        callback: false,
        timeout: Millis(5000),
        attempts_max: 4,
        at_most_once: false,
        confirm_within: Millis::MINUTE,
        allow_local: true,
    }
}

/// A record that keeps lines, fails from the call on that it is told to, and has somebody pause everything once it has so
/// many lines.
#[derive(Debug, Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    full_after: Option<usize>,
    paused_after: Option<usize>,
    attempts: Mutex<Vec<Attempt>>,
}

impl Lines {
    fn add(&self, line: String) -> Result<(), RecordError> {
        let mut lines = self.lines.lock();
        if self.full_after.is_some_and(|calls| lines.len() >= calls) {
            return Err(RecordError("the disk is full".to_owned()));
        }
        lines.push(line);
        Ok(())
    }
}

impl Record for Lines {
    fn intent(&self, action: &Action, _now: Timestamp) -> Result<(), RecordError> {
        self.add(format!("intent {}", action.id))
    }
    fn attempt(&self, action_id: &str, attempt: &Attempt) -> Result<(), RecordError> {
        self.attempts.lock().push(attempt.clone());
        self.add(format!("attempt {action_id} {} {}", attempt.number, attempt.error.as_deref().unwrap_or("ok")))
    }
    fn outcome(
        &self,
        action_id: &str,
        outcome: Outcome,
        _detail: &str,
        took: Option<Millis>,
        _now: Timestamp,
    ) -> Result<(), RecordError> {
        self.add(format!("outcome {action_id} {outcome:?} {}", took.map_or("-".to_owned(), |took| took.to_string())))
    }
    fn attempts(&self, _action_id: &str) -> Result<Vec<Attempt>, RecordError> {
        Ok(self.attempts.lock().clone())
    }
    fn forbids(&self, _action: &Action, _now: Timestamp) -> Option<String> {
        let paused = self.paused_after.is_some_and(|lines| self.lines.lock().len() >= lines);
        paused.then(|| "ada paused forestall".to_owned())
    }
}

/// Carries out actions against one webhook and gives what came of them, with the lines written.
async fn carry_out(settings: &WebhookSettings, actions: Vec<Action>) -> (CarriedOut, Vec<String>) {
    let actuators = build(
        &[
            ActuatorSettings { name: "hook".to_owned(), kind: ActuatorKind::Webhook(settings.clone()) },
            ActuatorSettings { name: "paper".to_owned(), kind: ActuatorKind::DryRun },
        ],
        &Callbacks::default(),
    );
    carry_out_with(actuators.expect("the settings of the test are right"), Lines::default(), actions).await
}

async fn carry_out_with(
    actuators: BTreeMap<String, Arc<dyn Actuator>>,
    lines: Lines,
    actions: Vec<Action>,
) -> (CarriedOut, Vec<String>) {
    let lines = Arc::new(lines);
    let executor = Executor {
        actuators,
        record: Arc::clone(&lines) as Arc<dyn Record>,
        clock: Clock::simulated(NOW),
        fence: None,
    };
    let carried = executor.carry_out(&Plan { at: NOW, actions, ..Plan::default() }).await;
    let lines = lines.lines.lock().clone();
    (carried, lines)
}

/// One action against a server with these answers: its outcome, a part of its detail, and how often it was called.
async fn check(replies: &[Reply], outcome: Outcome, detail: &str, calls: usize) -> Vec<Got> {
    let server = Server::start(replies).await;
    let (carried, lines) = carry_out(&settings(&server.address, Vec::new()), vec![action("a1")]).await;
    let done = &carried.done[0];
    assert_eq!(done.outcome, outcome, "{replies:?}: {}", done.detail);
    assert!(done.detail.contains(detail), "{replies:?}: {}", done.detail);
    assert!(done.detail.chars().count() < 450, "{} characters", done.detail.chars().count());
    assert_eq!(lines.len(), calls + 2, "an intent, each attempt, an outcome: {lines:?}");
    let got = server.got();
    assert_eq!(got.len(), calls, "{replies:?}");
    got
}

/// An independent reading of the signature: openly from the Standard Webhooks text.
pub(crate) fn verify(got: &Got, key: &str) -> bool {
    let header = |name: &str| got.headers[name].to_str().expect("headers are text");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).expect("any key");
    let body = String::from_utf8(got.body.to_vec()).expect("the body is text");
    mac.update(format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    let wanted = mac.finalize().into_bytes();
    header("webhook-signature").split(' ').any(|one| {
        let encoded = one.strip_prefix("v1,").expect("version 1");
        base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64") == wanted.as_slice()
    })
}

#[tokio::test]
async fn posts_typed_json_with_the_action_s_id_as_idempotency_key() {
    let got = check(&[Reply::Status(200, "")], Outcome::Applied, "nobody can be asked", 1).await;
    let body: WebhookBody = serde_json::from_slice(&got[0].body).expect("a webhook body");
    assert_eq!(body, WebhookBody::of(&action("a1")));
    let json: serde_json::Value = serde_json::from_slice(&got[0].body).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["type"], "forestall.action");
    assert_eq!(json["action"], "scale_out");
    assert_eq!(json["target"]["component"], "deployment/shop/checkout");
    assert_eq!(json["change"], serde_json::json!({ "change": "replicas", "from": 3, "to": 5 }));
    assert_eq!(json["why"]["eta_seconds"], 1200.0);
    assert_eq!(json["decided_at"], "2023-11-14T22:13:19.000Z");
    let headers = &got[0].headers;
    assert_eq!(headers["idempotency-key"], "a1");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!((got[0].method.as_str(), got[0].path.as_str()), ("POST", "/act"));
    assert!(headers.get("webhook-signature").is_none(), "there is no key to sign with");
}

#[tokio::test]
async fn retries_what_may_pass_and_nothing_else() {
    let ok = Reply::Status(204, "");
    check(&[Reply::Status(500, "oops"), Reply::Status(503, ""), ok.clone()], Outcome::Applied, "", 3).await;
    check(&[Reply::Header(429, "retry-after", "3"), ok.clone()], Outcome::Applied, "", 2).await;
    check(&[Reply::Cut, ok.clone()], Outcome::Applied, "", 2).await;
    let unsure = "500 Internal Server Error: oops (attempt 4 of 4); sent or not, nobody knows";
    check(&[Reply::Status(500, "oops\u{7}")], Outcome::Unknown, unsure, 4).await;
    check(&[Reply::Status(500, ""), Reply::Status(409, "it is there")], Outcome::Unknown, "409", 2).await;
    check(&[Reply::Status(503, "busy")], Outcome::Failed, "is not available: 503 Service Unavailable: busy", 4).await;
    check(&[Reply::Status(400, "no such thing")], Outcome::Failed, "400 Bad Request: no such thing", 1).await;
    check(&[Reply::Status(404, "")], Outcome::Failed, "refused: 404", 1).await;
    check(
        &[Reply::Header(302, "location", "http://169.254.169.254/")],
        Outcome::Failed,
        "redirects are not followed",
        1,
    )
    .await;
    let long: &'static str = Box::leak("x".repeat(200_000).into_boxed_str());
    check(&[Reply::Status(422, long)], Outcome::Failed, "xxx", 1).await;
    check(&[Reply::Status(200, long)], Outcome::Applied, "", 1).await;
}

#[tokio::test]
async fn understands_what_the_answer_says() {
    check(&[Reply::Status(200, r#"{"state":"unchanged"}"#)], Outcome::Unchanged, "so already", 1).await;
    check(&[Reply::Status(200, r#"{"state":"done"}"#)], Outcome::Confirmed, "", 1).await;
    check(&[Reply::Status(200, r#"{"state":"failed","reason":"quota"}"#)], Outcome::Failed, "quota", 1).await;
    check(&[Reply::Status(200, r#"{"state":7}"#)], Outcome::Applied, "", 1).await;
}

#[tokio::test]
async fn gives_up_on_a_target_that_says_nothing() {
    let server = Server::start(&[Reply::Silence]).await;
    let quick = WebhookSettings { timeout: Millis(100), attempts_max: 2, ..settings(&server.address, Vec::new()) };
    let (carried, lines) = carry_out(&quick, vec![action("a1")]).await;
    assert_eq!(carried.done[0].outcome, Outcome::Unknown, "it may have had its effect");
    assert!(carried.done[0].detail.contains("no answer within 100ms (attempt 2 of 2)"), "{}", carried.done[0].detail);
    assert_eq!((server.got().len(), lines.len()), (2, 4));
}

#[tokio::test]
async fn signs_with_every_key_and_reads_them_anew_for_each_call() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = vec![folder.path().join("new"), folder.path().join("old")];
    std::fs::write(&keys[0], "key-2\n").expect("written");
    std::fs::write(&keys[1], "key-1\n").expect("written");
    let server = Server::start(&[Reply::Status(503, ""), Reply::Status(200, "")]).await;
    let signed = settings(&server.address, keys.clone());
    carry_out(&signed, vec![action("a1")]).await;
    for got in server.got() {
        assert!(verify(&got, "key-1") && verify(&got, "key-2") && !verify(&got, "key-3"));
        assert_eq!(
            (&got.headers["webhook-id"], &got.headers["webhook-timestamp"]),
            (&"a1".parse().expect("ascii"), &"1700000000".parse().expect("ascii"))
        );
    }
    std::fs::write(&keys[0], "key-3").expect("written");
    carry_out(&signed, vec![action("a2")]).await;
    let got = server.got();
    let last = got.last().expect("three calls");
    assert!(verify(last, "key-3") && !verify(last, "key-2"));
    let tampered = Got { body: Bytes::from_static(b"{}"), ..last.clone() };
    assert!(!verify(&tampered, "key-3"));
    std::fs::remove_file(&keys[0]).expect("removed");
    let (carried, _) = carry_out(&signed, vec![action("a3")]).await;
    assert!(carried.done[0].detail.contains("not found"), "{}", carried.done[0].detail);
    assert_eq!(server.got().len(), 3, "nothing is sent unsigned");
}

#[tokio::test]
async fn a_key_never_shows_in_what_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "s3cr3t").expect("written");
    let server = Server::start(&[Reply::Status(400, "no")]).await;
    let signed = WebhookSettings { url: format!("{}/t0k3n?x=t0k3n", server.address), ..settings("", vec![key]) };
    let (carried, lines) = carry_out(&signed, vec![action("a1")]).await;
    let closed = WebhookSettings { url: "http://127.0.0.1:1/t0k3n".to_owned(), ..signed };
    let (refused, more) = carry_out(&closed, vec![action("a1")]).await;
    let written = format!("{carried:?} {lines:?} {refused:?} {more:?}");
    assert!(!written.contains("s3cr3t") && !written.contains("t0k3n"), "{written}");
}

#[tokio::test]
async fn asks_for_the_status_once_a_pass_until_it_is_settled() {
    let pending = Reply::Status(200, r#"{"state":"pending"}"#);
    let done = Reply::Status(200, r#"{"state":"done"}"#);
    let failed = Reply::Status(200, r#"{"state":"failed","reason":"no nodes"}"#);
    for (replies, outcome, detail, asked) in [
        (vec![done.clone()], Outcome::Confirmed, "done", 1),
        (vec![pending.clone(), Reply::Status(500, ""), pending.clone(), done], Outcome::Confirmed, "done", 4),
        (vec![pending.clone(), failed], Outcome::Failed, "no nodes", 2),
        (vec![pending], Outcome::Applied, "not confirmed within 1m: still pending", 5),
        (vec![Reply::Status(200, "<html>")], Outcome::Applied, "cannot be read", 5),
        (vec![Reply::Status(200, r#"{"state":"maybe"}"#)], Outcome::Applied, "`maybe`", 5),
    ] {
        let server = Server::start(&[&[Reply::Status(202, "")], replies.as_slice()].concat()).await;
        let status_url = Some(format!("{}/status/{{id}}?x=1", server.address));
        let kind = ActuatorKind::Webhook(WebhookSettings { status_url, ..settings(&server.address, Vec::new()) });
        let lines = Arc::new(Lines::default());
        let executor = Executor {
            actuators: build(&[ActuatorSettings { name: "hook".to_owned(), kind }], &Callbacks::default())
                .expect("right settings"),
            record: lines.clone(),
            clock: Clock::simulated(NOW),
            fence: None,
        };
        let actions = vec![Action { decided_at: NOW, ..action("a/1") }];
        let mut carried = executor.carry_out(&Plan { at: NOW, actions: actions.clone(), ..Plan::default() }).await;
        let mut passes = 1;
        while carried.done.is_empty() && passes < 20 {
            executor.clock.advance_to(executor.clock.now() + Millis::SECOND * 15);
            carried = executor.follow_up(&actions).await;
            passes += 1;
        }
        let first = &carried.done[0];
        assert_eq!(first.outcome, outcome, "{replies:?}: {}", first.detail);
        assert!(first.detail.contains(detail), "{}", first.detail);
        let took = Millis::SECOND * 15 * (i64::try_from(asked).unwrap() - 1);
        assert_eq!(first.took, (outcome == Outcome::Confirmed).then_some(took));
        let got = server.got();
        assert_eq!((passes, got.len()), (asked, 1 + asked), "{replies:?}");
        assert_eq!((got[1].method.as_str(), got[1].path.as_str()), ("GET", "/status/a%2F1?x=1"));
        assert_eq!(lines.lines.lock().len(), 3);
    }
}

#[tokio::test]
async fn follows_names_to_no_forbidden_address() {
    let server = Server::start(&[Reply::Status(200, "")]).await;
    let port = server.address.rsplit(':').next().expect("a port").to_owned();
    let named = WebhookSettings {
        url: format!("http://localhost:{port}/act"),
        allow_local: false,
        ..settings(&server.address, Vec::new())
    };
    let (carried, _) = carry_out(&named, vec![action("a1")]).await;
    assert!(carried.done[0].detail.contains("allow_local"), "{}", carried.done[0].detail);
    assert!(carried.done[0].detail.contains("attempt 1 of 4"), "a clear no: {}", carried.done[0].detail);
    assert!(server.got().is_empty());
    let (carried, _) = carry_out(&WebhookSettings { allow_local: true, ..named }, vec![action("a1")]).await;
    assert_eq!(carried.done[0].outcome, Outcome::Applied);
}

#[test]
fn refuses_settings_that_cannot_work() {
    let base = settings("http://example.org", Vec::new());
    for (settings, wanted) in [
        (WebhookSettings { url: "http://127.0.0.1/".to_owned(), allow_local: false, ..base.clone() }, "allow_local"),
        (WebhookSettings { url: "gopher://x/".to_owned(), ..base.clone() }, "http or https"),
        (WebhookSettings { timeout: Millis::ZERO, ..base.clone() }, "no time for an answer"),
        (WebhookSettings { status_url: Some("http://example.org/s".to_owned()), ..base.clone() }, "`{id}` is missing"),
        (
            WebhookSettings { status_url: Some("http://{id}.example.org/".to_owned()), ..base.clone() },
            "path or the query",
        ),
        (WebhookSettings { status_url: Some("http://169.254.1.1/{id}".to_owned()), ..base }, "link-local"),
    ] {
        let error = WebhookActuator::new("hook", &settings, &Callbacks::default()).expect_err(wanted);
        assert!(error.to_string().starts_with("hook: ") && error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn sends_nothing_that_is_not_to_be_sent() {
    let server = Server::start(&[Reply::Status(200, "")]).await;
    let actions = vec![
        Action { dry_run: true, ..action("observed") },
        Action { actuator: "paper".to_owned(), ..action("paper") },
        Action { actuator: "nobody".to_owned(), ..action("unknown") },
        Action { expires_at: Some(NOW), ..action("late") },
    ];
    let (carried, lines) = carry_out(&settings(&server.address, Vec::new()), actions).await;
    let outcomes: Vec<Outcome> = carried.done.iter().map(|done| done.outcome).collect();
    assert_eq!(outcomes, [Outcome::DryRun, Outcome::DryRun, Outcome::Failed, Outcome::Expired]);
    assert_eq!(carried.done[2].detail, "there is no actuator `nobody`; there are: hook, paper");
    assert!(server.got().is_empty());
    assert_eq!(lines[0..2], ["intent observed", "outcome observed DryRun -"]);
}

#[tokio::test]
async fn an_action_without_its_room_is_not_sent() {
    let evict = Action { kind: ActionKind::Evict, makes_room_for: Some("grow".to_owned()), ..action("evict") };
    let plan = vec![evict, action("grow"), action("other")];
    let server = Server::start(&[Reply::Status(409, "protected"), Reply::Status(200, "")]).await;
    let (carried, lines) = carry_out(&settings(&server.address, Vec::new()), plan.clone()).await;
    let outcomes: Vec<Outcome> = carried.done.iter().map(|done| done.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Failed, Outcome::Applied]);
    assert!(carried.done[1].detail.starts_with("not sent: evict was to make room"), "{}", carried.done[1].detail);
    assert_eq!(lines[3..5], ["intent grow", "outcome grow Failed -"]);
    assert_eq!(server.got().len(), 2);

    let server = Server::start(&[Reply::Status(200, "")]).await;
    let (carried, _) = carry_out(&settings(&server.address, Vec::new()), plan).await;
    assert!(carried.done.iter().all(|done| done.outcome == Outcome::Applied));
}

#[tokio::test]
async fn acts_on_nothing_that_cannot_be_written_down() {
    // Calls per action: intent, attempt, outcome.
    for (full_after, calls, done) in [(0, 0, 0), (1, 1, 0), (2, 1, 0), (3, 1, 1), (4, 2, 1)] {
        let server = Server::start(&[Reply::Status(200, "")]).await;
        let kind = ActuatorKind::Webhook(settings(&server.address, Vec::new()));
        let actuators = build(&[ActuatorSettings { name: "hook".to_owned(), kind }], &Callbacks::default())
            .expect("right settings");
        let lines = Lines { full_after: Some(full_after), ..Lines::default() };
        let (carried, _) = carry_out_with(actuators, lines, vec![action("a"), action("b")]).await;
        assert_eq!((server.got().len(), carried.done.len()), (calls, done), "full after {full_after}");
        assert_eq!(carried.stopped.expect("it stops").to_string(), "the journal cannot be written: the disk is full");
    }
}

/// Panics where it is told to.
#[derive(Debug)]
struct Broken {
    panics_in_apply: bool,
}

impl Actuator for Broken {
    fn apply<'a>(&'a self, _: &'a Action, _: u32, _: Timestamp) -> BoxFuture<'a, Result<Acceptance, ActError>> {
        assert!(!self.panics_in_apply, "lost my hammer");
        async { Ok(Acceptance::Accepted) }.boxed()
    }
    fn confirm<'a>(&'a self, _: &'a Action, _: Timestamp) -> BoxFuture<'a, Result<Confirmation, ActError>> {
        async { panic!("lost my glasses") }.boxed()
    }
    fn patience(&self) -> Patience {
        Patience { attempts_max: 0, confirm_within: Millis::ZERO }
    }
}

#[tokio::test]
async fn a_panic_in_an_actuator_ends_that_action_only() {
    for (panics_in_apply, outcome, words) in
        [(true, Outcome::Unknown, "lost my hammer"), (false, Outcome::Applied, "lost my glasses")]
    {
        let broken: Arc<dyn Actuator> = Arc::new(Broken { panics_in_apply });
        let actuators = BTreeMap::from([("hook".to_owned(), broken)]);
        let (carried, _) = carry_out_with(actuators, Lines::default(), vec![action("a"), action("b")]).await;
        assert_eq!(carried.done.len(), 2, "the next one is tried all the same");
        assert_eq!(carried.done[0].outcome, outcome, "it may have been sent");
        assert!(carried.done[0].detail.contains(words), "{}", carried.done[0].detail);
    }
}

#[tokio::test]
async fn recovery_asks_and_sends_nothing_again() {
    let server = Server::start(&[Reply::Status(200, r#"{"state":"done"}"#)]).await;
    let status_url = Some(format!("{}/status/{{id}}", server.address));
    let kind = ActuatorKind::Webhook(WebhookSettings { status_url, ..settings(&server.address, Vec::new()) });
    let mut executor = Executor {
        actuators: build(&[ActuatorSettings { name: "hook".to_owned(), kind }], &Callbacks::default())
            .expect("right settings"),
        record: Arc::new(Lines::default()),
        clock: Clock::simulated(NOW),
        fence: None,
    };
    let unfinished = [action("a"), Action { dry_run: true, ..action("b") }];
    let outcomes: Vec<Outcome> = executor.follow_up(&unfinished).await.done.iter().map(|done| done.outcome).collect();
    assert_eq!(outcomes, [Outcome::Confirmed, Outcome::DryRun]);
    executor.actuators.clear();
    assert_eq!(executor.follow_up(&unfinished[..1]).await.done[0].outcome, Outcome::Unknown);
    let methods: Vec<Method> = server.got().into_iter().map(|got| got.method).collect();
    assert_eq!(methods, [Method::GET]);
}

#[test]
fn waits_double_and_are_bounded() {
    let waits: Vec<i64> = [1, 2, 3, 4, 100].iter().map(|&n| wait_before_retry(n, None).0).collect();
    assert_eq!(waits, [500, 1000, 2000, 4000, 60_000]);
    assert_eq!(wait_before_retry(1, Some(Millis(7000))), Millis(7000));
    assert_eq!(wait_before_retry(1, Some(Millis::DAY)), Millis::MINUTE);
    assert_eq!(wait_before_retry(1, Some(Millis::ZERO)), Millis::ZERO);
}

#[tokio::test]
async fn retry_after_reaches_the_executor() {
    let server = Server::start(&[Reply::Header(429, "retry-after", "7")]).await;
    let hook = WebhookActuator::new("hook", &settings(&server.address, Vec::new()), &Callbacks::default())
        .expect("right settings");
    let error = hook.apply(&action("a"), 1, NOW).await.expect_err("429");
    assert_eq!(error.retry_after(), Some(Millis(7000)));
}

/// What recovery makes of an intent with these attempts, so long after the decision, when the target answers so; nothing
/// while it waits.
async fn check_recovery(
    answer: Option<&'static str>,
    attempts: &[Option<&str>],
    after: Millis,
    wanted: Option<Outcome>,
) {
    let server = Server::start(&[Reply::Status(200, answer.unwrap_or(""))]).await;
    let status_url = answer.map(|_| format!("{}/status/{{id}}", server.address));
    let kind = ActuatorKind::Webhook(WebhookSettings { status_url, ..settings(&server.address, Vec::new()) });
    let attempts =
        (1..).zip(attempts).map(|(number, error)| Attempt { number, at: NOW, error: error.map(str::to_owned) });
    let executor = Executor {
        actuators: build(&[ActuatorSettings { name: "hook".to_owned(), kind }], &Callbacks::default())
            .expect("right settings"),
        record: Arc::new(Lines { attempts: Mutex::new(attempts.collect()), ..Lines::default() }),
        clock: Clock::simulated(NOW + after),
        fence: None,
    };
    let carried = executor.follow_up(&[Action { decided_at: NOW, ..action("a") }]).await;
    let what = format!("{answer:?} {:?} after {after}: {:?}", executor.record, carried.done);
    assert_eq!(carried.done.first().map(|done| done.outcome), wanted, "{what}");
    assert!(server.got().iter().all(|got| got.method == Method::GET), "nothing is sent again: {what}");
}

#[tokio::test]
async fn what_nobody_knows_of_is_unknown_and_what_the_target_never_heard_of_was_never_sent() {
    const NEVER: Option<&str> = Some(r#"{"state":"unknown"}"#);
    const PENDING: Option<&str> = Some(r#"{"state":"pending"}"#);
    let (second, minute) = (Millis::SECOND, Millis::MINUTE);
    for (answer, attempts, after, wanted) in [
        (None, vec![], second, Some(Outcome::Unknown)),
        (None, vec![Some("no answer")], second, Some(Outcome::Unknown)),
        (None, vec![Some("no answer"), None], second, Some(Outcome::Applied)),
        (NEVER, vec![], second, None),
        (NEVER, vec![], minute, Some(Outcome::Failed)),
        (NEVER, vec![None], second, None),
        (PENDING, vec![], second, None),
        (PENDING, vec![], minute, Some(Outcome::Unknown)),
        (PENDING, vec![None], minute, Some(Outcome::Applied)),
        (Some(r#"{"state":"failed"}"#), vec![], second, Some(Outcome::Failed)),
        (Some(r#"{"state":"done"}"#), vec![], second, Some(Outcome::Confirmed)),
        (Some("<html>"), vec![], minute, Some(Outcome::Unknown)),
    ] {
        check_recovery(answer, &attempts, after, wanted).await;
    }
}

#[tokio::test]
async fn what_may_have_got_there_is_not_sent_again_to_a_target_that_repeats_effects() {
    for (replies, calls, outcome) in [
        (vec![Reply::Status(500, "")], 1, Outcome::Unknown),
        (vec![Reply::Cut], 1, Outcome::Unknown),
        (vec![Reply::Status(503, ""), Reply::Status(200, "")], 2, Outcome::Applied),
        (vec![Reply::Status(503, ""), Reply::Status(502, "")], 2, Outcome::Unknown),
    ] {
        let server = Server::start(&replies).await;
        let once = WebhookSettings { at_most_once: true, ..settings(&server.address, Vec::new()) };
        let (carried, _) = carry_out(&once, vec![action("a1")]).await;
        assert_eq!((server.got().len(), carried.done[0].outcome), (calls, outcome), "{replies:?}");
    }
}

#[tokio::test]
async fn a_pause_holds_from_the_next_attempt_on_in_the_middle_of_a_plan() {
    // Lines of the first action: intent, attempt 1, attempt 2, outcome.
    for (reply, paused_after, calls, outcomes) in [
        (Reply::Status(503, ""), 0, 0, [Outcome::Cancelled, Outcome::Cancelled]),
        (Reply::Status(503, ""), 2, 1, [Outcome::Cancelled, Outcome::Cancelled]),
        (Reply::Status(500, ""), 2, 1, [Outcome::Unknown, Outcome::Cancelled]),
        (Reply::Status(200, ""), 3, 1, [Outcome::Applied, Outcome::Cancelled]),
    ] {
        let server = Server::start(&[reply]).await;
        let kind = ActuatorKind::Webhook(settings(&server.address, Vec::new()));
        let actuators = build(&[ActuatorSettings { name: "hook".to_owned(), kind }], &Callbacks::default())
            .expect("right settings");
        let lines = Lines { paused_after: Some(paused_after), ..Lines::default() };
        let (carried, lines) = carry_out_with(actuators, lines, vec![action("a"), action("b")]).await;
        let got: Vec<Outcome> = carried.done.iter().map(|done| done.outcome).collect();
        assert_eq!((server.got().len(), got), (calls, outcomes.to_vec()), "paused after {paused_after}: {lines:?}");
        assert!(carried.done[1].detail.contains("ada paused forestall"), "{}", carried.done[1].detail);
    }
}

#[tokio::test]
async fn what_was_decided_long_ago_is_not_sent() {
    let server = Server::start(&[Reply::Status(200, "")]).await;
    let actions = vec![
        Action { decided_at: NOW - Millis::MINUTE * 5, ..action("just") },
        Action { decided_at: NOW - Millis::MINUTE * 5 - Millis(1), ..action("old") },
    ];
    let (carried, _) = carry_out(&settings(&server.address, Vec::new()), actions).await;
    assert_eq!((carried.done[0].outcome, carried.done[1].outcome), (Outcome::Applied, Outcome::Expired));
    assert!(carried.done[1].detail.contains("decided 5m1ms ago"), "{}", carried.done[1].detail);
    assert_eq!(server.got().len(), 1);
}
