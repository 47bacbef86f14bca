//! The webhook from both ends: ten thousand deliveries to a receiver that fails in every way, the shipped receivers in
//! Python and Node against real signatures, and the schema of the body against what is posted.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use forestall::act::{
    ACTION_SCHEMA, Acceptance, ActError, Actuator, ActuatorKind, ActuatorSettings, CallbackHeaders, Callbacks,
    Confirmation, Executor, WebhookActuator, WebhookBody, WebhookSettings, build,
};
use forestall::audit::Journal;
use forestall::clock::Clock;
use forestall::model::{ComponentId, Millis, Timestamp};
use forestall::plan::{Action, ActionKind, Change, Outcome, Plan, Target, Why};
use futures::StreamExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::api::{Served, json_of, leaking_in};
use crate::real::{Folder, Recorder, http};

const NOW: Timestamp = Timestamp::from_secs(1_767_592_800);
const KEY: &str = "a key of the test";

fn action(id: &str, kind: ActionKind, change: Change) -> Action {
    let component = ComponentId {
        kind: "service".to_owned(),
        labels: vec![("namespace".to_owned(), "shop".to_owned()), ("service".to_owned(), "check out/é".to_owned())],
    };
    Action {
        id: id.to_owned(),
        policy: "shop".to_owned(),
        rung: 0,
        kind,
        actuator: "hook".to_owned(),
        target: Target { component, namespace: "shop".to_owned(), name: "checkout".to_owned() },
        undo: None,
        change,
        why: Why {
            probability: 0.9,
            eta: Some(Millis::MINUTE),
            expected_loss: 0.5,
            signal: "saturation/cpu".to_owned(),
            peak: None,
            sentence: "0.9 × 0.8 × 10 > 1".to_owned(),
            predictions: Vec::new(),
        },
        decided_at: NOW,
        expires_at: Some(NOW + Millis::HOUR),
        undoes: None,
        makes_room_for: None,
        dry_run: false,
    }
}

pub(crate) fn scale_out(id: &str) -> Action {
    action(id, ActionKind::ScaleOut, Change::Replicas { from: 3, to: 5 })
}

fn settings(address: &str, keys: Vec<PathBuf>) -> WebhookSettings {
    WebhookSettings {
        url: format!("{address}/act"),
        hmac_secret_files: keys,
        status_url: Some(format!("{address}/status/{{id}}")),
        callback: false,
        timeout: Millis(300),
        attempts_max: 20,
        at_most_once: false,
        confirm_within: Millis::MINUTE * 5,
        allow_local: true,
    }
}

/// How often ids have had their effect, and what is done next to a request.
#[derive(Debug)]
struct World {
    seed: u64,
    /// Whether it knows an id again, and does nothing then.
    knows_ids: bool,
    effects: Mutex<HashMap<String, u32>>,
    bodies: Mutex<HashMap<String, Bytes>>,
    /// Told when forestall is to die in the middle of an id's delivery.
    kills: Mutex<HashMap<String, Arc<Notify>>>,
    requests: AtomicU32,
}

/// What goes wrong with a request, before or after its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Status(u16),
    Silence,
    Cut,
    Kill,
}

impl World {
    /// The same for the same seed, id and attempt. From the sixth attempt on nothing goes wrong.
    fn fault(&self, id: &str, attempt: u32) -> (Fault, bool) {
        let hash = Sha256::digest(format!("{}/{id}/{attempt}", self.seed));
        let fault = match hash[0] {
            _ if attempt > 5 => Fault::None,
            0..=39 => Fault::Status(500),
            40..=47 => Fault::Silence,
            48..=79 => Fault::Cut,
            80..=99 => Fault::Status(503),
            100..=119 => Fault::Kill,
            _ => Fault::None,
        };
        // What says that it is busy has done nothing.
        (fault, hash[1] < 128 && fault != Fault::Status(503))
    }

    fn have_effect(&self, id: &str) {
        let mut effects = self.effects.lock().expect("no test panics with it");
        let count = effects.entry(id.to_owned()).or_default();
        if *count == 0 || !self.knows_ids {
            *count += 1;
        }
    }

    fn effects_of(&self, id: &str) -> u32 {
        self.effects.lock().expect("no test panics with it").get(id).copied().unwrap_or(0)
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("any key");
    mac.update(format!("{}.{}.", text(headers, "webhook-id"), text(headers, "webhook-timestamp")).as_bytes());
    mac.update(body);
    let wanted = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    text(headers, "webhook-signature") == format!("v1,{wanted}")
}

async fn receive(
    State(world): State<Arc<World>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    world.requests.fetch_add(1, Ordering::Relaxed);
    if !is_signed(&headers, &body) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if method == Method::GET {
        let id = uri.path().rsplit('/').next().unwrap_or_default();
        let state = if world.effects_of(id) > 0 { "done" } else { "unknown" };
        return axum::Json(json!({"state": state})).into_response();
    }
    let id = text(&headers, "idempotency-key").to_owned();
    let attempt = text(&headers, "forestall-attempt").parse().expect("a number");
    let first = world.bodies.lock().expect("no test panics with it").entry(id.clone()).or_insert(body.clone()).clone();
    assert!(first == body && text(&headers, "webhook-id") == id, "an attempt says what the first has said");
    let (fault, has_effect) = world.fault(&id, attempt);
    if has_effect || fault == Fault::None {
        world.have_effect(&id);
    }
    match fault {
        Fault::None if id.len().is_multiple_of(2) => axum::Json(json!({"state": "done"})).into_response(),
        Fault::None => StatusCode::ACCEPTED.into_response(),
        Fault::Status(code) => StatusCode::from_u16(code).expect("a status").into_response(),
        Fault::Silence => futures::future::pending().await,
        Fault::Cut => {
            let parts = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("cut"))];
            ([("content-length", "100")], Body::from_stream(futures::stream::iter(parts))).into_response()
        }
        Fault::Kill => {
            let kill = world.kills.lock().expect("no test panics with it").get(&id).cloned();
            kill.expect("every delivery can be killed").notify_one();
            futures::future::pending().await
        }
    }
}

/// Delivers one action, as a process that dies in the middle of it where the world says so, and another that follows up.
/// Gives what the journal has of it, and whether it was killed.
async fn deliver(world: &World, settings: &WebhookSettings, journal: &Arc<Journal>, id: &str) -> (Outcome, bool) {
    let process = |clock: Clock| {
        let kind = ActuatorKind::Webhook(settings.clone());
        let actuators = build(&[ActuatorSettings { name: "hook".to_owned(), kind }], &Callbacks::default())
            .expect("right settings");
        Executor { actuators, record: journal.clone(), clock, fence: None }
    };
    let kill = Arc::new(Notify::new());
    world.kills.lock().expect("no test panics with it").insert(id.to_owned(), kill.clone());
    let actions = vec![scale_out(id)];
    let clock = Clock::simulated(NOW);
    let plan = Plan { at: NOW, actions: actions.clone(), ..Plan::default() };
    let (mut carried, was_killed) = {
        let executor = process(clock.clone());
        tokio::select! {
            carried = executor.carry_out(&plan) => (carried, false),
            () = kill.notified() => (Default::default(), true),
        }
    };
    let executor = process(clock.clone());
    for _ in 0..40 {
        if let Some(done) = carried.done.first() {
            return (done.outcome, was_killed);
        }
        clock.advance_to(clock.now() + Millis::SECOND * 15);
        carried = executor.follow_up(&actions).await;
        assert!(carried.stopped.is_none(), "{:?}", carried.stopped);
    }
    panic!("{id} has no outcome after ten minutes");
}

/// Delivers so many actions with these settings; each outcome with how often its id has had its effect, and whether forestall
/// was killed in the middle.
async fn deliver_all(count: u32, knows_ids: bool, at_most_once: bool) -> Vec<(String, Outcome, u32, bool)> {
    let world = Arc::new(World {
        seed: 20_260_105,
        knows_ids,
        effects: Mutex::default(),
        bodies: Mutex::default(),
        kills: Mutex::default(),
        requests: AtomicU32::new(0),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let app = Router::new().fallback(receive).with_state(world.clone());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).expect("the file can be written");
    let settings = WebhookSettings { at_most_once, ..settings(&address, vec![key]) };
    let journal = Arc::new(Journal::in_memory());
    let (world, settings, journal) = (&*world, &settings, &journal);
    let deliveries = futures::stream::iter(0..count).map(|number| async move {
        let id = format!("action-{number}");
        let (outcome, was_killed) = deliver(world, settings, journal, &id).await;
        (id.clone(), outcome, world.effects_of(&id), was_killed)
    });
    let outcomes = deliveries.buffer_unordered(64).collect().await;
    let requests = world.requests.load(Ordering::Relaxed);
    assert!(requests > count + count / 2, "a good part is tried again or asked for: {requests} requests");
    server.abort();
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_actions_have_exactly_one_effect_each_whatever_goes_wrong() {
    let outcomes = deliver_all(10_000, true, false).await;
    assert_eq!(outcomes.len(), 10_000);
    let killed = outcomes.iter().filter(|(.., was_killed)| *was_killed).count();
    assert!(killed > 500, "forestall died in the middle of {killed}");
    for (id, outcome, effects, was_killed) in &outcomes {
        // What the receiver has never heard of when forestall comes back is not sent again: its plan is old.
        let wanted = if *effects == 1 { Outcome::Confirmed } else { Outcome::Failed };
        assert_eq!(*outcome, wanted, "{id}: {effects} effects");
        assert!(*effects == 1 || (*effects == 0 && *was_killed), "{id}: {effects} effects, {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_action_has_two_effects_at_a_receiver_that_repeats_them_when_it_is_told_so() {
    for (id, outcome, effects, _) in deliver_all(2000, false, true).await {
        assert!(effects <= 1, "{id}: {effects} effects, {outcome:?}");
        let wanted = if effects == 1 { Outcome::Confirmed } else { Outcome::Failed };
        assert_eq!(outcome, wanted, "{id}: {effects} effects");
    }
}

/// A shipped receiver that runs.
struct Shipped {
    child: Child,
    address: String,
    lines: Receiver<String>,
}

impl Shipped {
    /// Starts one; nothing where its interpreter is not on this machine.
    fn start(program: &str, file: &str, keys: &[PathBuf], more: &[&str]) -> Option<Shipped> {
        let mut command = Command::new(program);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/webhook").join(file));
        for key in keys {
            command.arg("--key-file").arg(key);
        }
        let spawned = command.args(["--port", "0"]).args(more).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                let message = format!("{program} cannot be started: {error}");
                assert!(std::env::var_os("FORESTALL_NO_SKIP").is_none_or(|v| v != "1"), "{message}");
                let _ = writeln!(std::io::stderr(), "skipped: {message}");
                return None;
            }
        };
        let (sender, lines) = channel();
        let printed = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in printed.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let first = lines.recv_timeout(Duration::from_secs(30)).expect("the receiver says where it listens");
        let port = first.strip_prefix("listening on ").expect("its first line");
        Some(Shipped { child, address: format!("http://127.0.0.1:{port}"), lines })
    }
}

impl Drop for Shipped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn check_shipped(program: &str, file: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = |name: &str, secret: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, secret).expect("the file can be written");
        path
    };
    // The same key twice: as it is, and in base64.
    let (old, new, same_as_new) = (key("old", "first\n"), key("new", "second"), key("b64", "whsec_c2Vjb25k"));
    let stranger = key("other", "third");
    let Some(shipped) = Shipped::start(program, file, &[same_as_new, old.clone()], &[]) else { return };
    let hook = |keys: &[&PathBuf]| {
        let keys = keys.iter().map(|&key| key.clone()).collect();
        let settings = WebhookSettings { timeout: Millis::SECOND * 20, ..settings(&shipped.address, keys) };
        WebhookActuator::new("hook", &settings, &Callbacks::default()).expect("right settings")
    };
    let now = Clock::wall().now();
    let refused = |answer: Result<Acceptance, ActError>| matches!(&answer, Err(ActError::Refused { reason, .. }) if reason.contains("401"));
    assert_eq!(hook(&[&new]).confirm(&scale_out("a"), now).await.expect("it answers"), Confirmation::NeverHeard);
    for (id, keys) in [("a", vec![&new]), ("a", vec![&old]), ("b", vec![&stranger, &old]), ("a", vec![&new, &old])] {
        let answer = hook(&keys).apply(&scale_out(id), 1, now).await;
        assert_eq!(answer.expect("it is signed"), Acceptance::Done, "{program} {id} {keys:?}");
    }
    assert!(refused(hook(&[&stranger]).apply(&scale_out("c"), 1, now).await), "a wrong key");
    assert!(refused(hook(&[]).apply(&scale_out("c"), 1, now).await), "no signature");
    assert!(refused(hook(&[&new]).apply(&scale_out("c"), 1, now - Millis::MINUTE * 6).await), "an old one");
    assert!(refused(hook(&[&new]).apply(&scale_out("c"), 1, now + Millis::MINUTE * 6).await), "one from the future");
    assert_eq!(hook(&[&new]).confirm(&scale_out("b"), now).await.expect("it answers"), Confirmation::Done);
    assert_eq!(hook(&[&old]).confirm(&scale_out("c"), now).await.expect("it answers"), Confirmation::NeverHeard);
    // The lines come through a pipe: the last effect is there once it was answered.
    let component = scale_out("a").target.component;
    for id in ["a", "b"] {
        let line = shipped.lines.recv_timeout(Duration::from_secs(30)).expect("an effect");
        assert_eq!(line, format!("effect {id} scale_out {component}"));
    }
    assert!(shipped.lines.try_recv().is_err(), "no other effect");
}

#[tokio::test]
async fn the_receiver_in_python_takes_what_we_sign_and_nothing_else() {
    check_shipped("python3", "receiver.py").await;
}

#[tokio::test]
async fn the_receiver_in_node_takes_what_we_sign_and_nothing_else() {
    check_shipped("node", "receiver.mjs").await;
}

/// What is wrong with a value by a schema, of which as much is understood as ours uses; anything else in it is a mistake too.
/// A field that the schema does not describe is wrong: the schema allows it for later versions, ours must know it.
fn problems(schema: &Value, value: &Value, root: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut wrong = |what: String| found.push(format!("{at}: {what}"));
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).expect("a local reference");
                let target = root.pointer(pointer).expect("a reference leads somewhere");
                problems(target, value, root, at).into_iter().for_each(&mut wrong);
            }
            "const" if rule != value => wrong(format!("{value} is not {rule}")),
            "enum" if !rule.as_array().expect("a list").contains(value) => wrong(format!("{value} is none of {rule}")),
            "type" => {
                let types = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                let fits = |one: &Value| match one.as_str().expect("a type is a word") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "null" => value.is_null(),
                    other => panic!("{at}: type {other}"),
                };
                if !types.iter().any(fits) {
                    wrong(format!("{value} is no {rule}"));
                }
            }
            "minimum" if value.as_f64() < rule.as_f64() => wrong(format!("{value} is below {rule}")),
            "maximum" if value.as_f64() > rule.as_f64() => wrong(format!("{value} is above {rule}")),
            "minLength" if value.as_str().is_some_and(str::is_empty) => wrong("empty".to_owned()),
            "required" => {
                for name in rule.as_array().expect("a list").iter().filter_map(Value::as_str) {
                    if value.get(name).is_none() {
                        wrong(format!("`{name}` is missing"));
                    }
                }
            }
            "properties" | "additionalProperties" => {
                let described = schema.get("properties");
                for (name, field) in value.as_object().into_iter().flatten() {
                    let own = described.and_then(|all| all.get(name));
                    match own.or_else(|| schema.get("additionalProperties")) {
                        Some(rules) => {
                            problems(rules, field, root, &format!("{at}/{name}")).into_iter().for_each(&mut wrong);
                        }
                        None => wrong(format!("`{name}` is not described")),
                    }
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    problems(rule, item, root, &format!("{at}/items")).into_iter().for_each(&mut wrong);
                }
            }
            "oneOf" => {
                let options = rule.as_array().expect("a list");
                let fitting = options.iter().filter(|one| problems(one, value, root, at).is_empty()).count();
                if fitting != 1 {
                    wrong(format!("{value} fits {fitting} of the {} forms", options.len()));
                }
            }
            "const" | "enum" | "minimum" | "maximum" | "minLength" => {}
            other => panic!("{at}: the test does not know the keyword {other}"),
        }
    }
    found
}

#[test]
fn the_schema_describes_every_field_of_every_body() {
    let schema: Value = serde_json::from_str(ACTION_SCHEMA).expect("the schema is JSON");
    let amounts = |cpu: f64| BTreeMap::from([("cpu".to_owned(), cpu), ("memory".to_owned(), 1e9)]);
    let changes = [
        Change::Replicas { from: 3, to: 5 },
        Change::Resources { from: amounts(0.5), to: amounts(1.0) },
        Change::Move { from_nodes: vec!["n1".to_owned()] },
        Change::Shift { share: 0.25 },
        Change::Cordon,
        Change::Uncordon,
    ];
    let kinds = [
        ActionKind::ScaleOut,
        ActionKind::ScaleUp,
        ActionKind::Migrate,
        ActionKind::ShiftLoad,
        ActionKind::Quarantine,
        ActionKind::Evict,
    ];
    let mut good = Value::Null;
    for (kind, change) in kinds.into_iter().zip(changes) {
        for (undoes, expires_at) in [(None, None), (Some("other".to_owned()), Some(NOW))] {
            let action = Action { undoes, expires_at, ..action("id", kind, change.clone()) };
            good = serde_json::to_value(WebhookBody::of(&action)).expect("a body is JSON");
            assert_eq!(problems(&schema, &good, &schema, ""), Vec::<String>::new());
        }
    }
    for (field, bad) in [
        ("/version", json!(2)),
        ("/id", json!("")),
        ("/action", json!("explode")),
        ("/change", json!({"change": "replicas", "from": 1, "to": -1})),
        ("/change", json!({"change": "cordon", "more": 1})),
        ("/target/labels", json!({"a": 1})),
        ("/why/probability", json!(1.5)),
        ("/expires_at", json!(7)),
    ] {
        let mut body = good.clone();
        *body.pointer_mut(field).expect("a field of the body") = bad;
        assert_ne!(problems(&schema, &body, &schema, ""), Vec::<String>::new(), "{field}: {body}");
    }
}

#[test]
fn the_command_line_prints_the_schema() {
    let output = Command::new(env!("CARGO_BIN_EXE_forestall")).arg("schema").output().expect("it starts");
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).expect("text").trim_end(), ACTION_SCHEMA.trim_end());
}

const CALLBACK_KEY: &str = "the key of a webhook that is called back";

/// A forestall that has just posted an action, whose receiver says by itself what becomes of it, and the action's id.
async fn posted() -> (Served, Recorder, String) {
    let target = Recorder::start().await;
    target.answer_with(json!({"state": "pending"}));
    let folder = Folder::new("served");
    let key = folder.write("key", CALLBACK_KEY);
    let url = target.url("/actions");
    let actuator =
        format!("{{ webhook: {{ url: '{url}', allow_local: true, hmac_secret_file: '{key}', callback: true }} }}");
    let served = leaking_in(folder, "act", &actuator).await;
    let id = target.first("/actions").await.json()["id"].as_str().expect("an id").to_owned();
    (served, target, id)
}

/// Tells an outcome, signed with a key and at a time.
async fn tell(served: &Served, id: &str, body: &Value, key: &str, at: Timestamp) -> (StatusCode, Value) {
    let (text, seconds) = (body.to_string(), at.0.div_euclid(1000).to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length will do");
    mac.update(format!("{id}.{seconds}.{text}").as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    let url = served.url(&format!("/api/v1/forestall/actions/{id}/outcome"));
    let request = http().post(url).body(text).header("webhook-id", id).header("webhook-timestamp", seconds);
    json_of(request.header("webhook-signature", format!("v1,bm9uc2Vuc2U= v1,{signature}"))).await
}

async fn settled(served: &Served, id: &str) -> Value {
    let decisions = served.data("/api/v1/forestall/decisions").await;
    let actions =
        decisions["decisions"].as_array().expect("a list").iter().flat_map(|d| d["actions"].as_array()).flatten();
    actions.clone().find(|action| action["id"] == id).expect("it was decided")["outcome"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_says_by_itself_what_has_become_of_an_action() {
    for (body, outcome) in
        [(json!({"state": "done"}), "confirmed"), (json!({"state": "failed", "reason": "no room"}), "failed")]
    {
        let (served, _target, id) = posted().await;
        served.advance(Millis::SECOND * 10).await;
        assert_eq!(settled(&served, &id).await, Value::Null, "it is waited for");
        let now = served.clock.now();
        let (status, answer) = tell(&served, &id, &body, CALLBACK_KEY, now).await;
        assert_eq!((status, &answer["data"]["state"]), (StatusCode::ACCEPTED, &json!("heard")), "{answer}");
        // The first word counts, however often and whatever is said.
        let again = tell(&served, &id, &json!({"state": "failed"}), CALLBACK_KEY, now).await;
        assert_eq!(again.0, StatusCode::ACCEPTED, "{}", again.1);
        served.advance(Millis::SECOND * 10).await;
        assert_eq!(settled(&served, &id).await, outcome);
        let (status, answer) = tell(&served, &id, &json!({"state": "failed"}), CALLBACK_KEY, served.clock.now()).await;
        assert_eq!((status, &answer["data"]["outcome"]), (StatusCode::OK, &json!(outcome)), "{answer}");
        let ledger = served.restarted().shared().journal.ledger(served.clock.now());
        assert!(ledger.actions.iter().any(|past| past.action.id == id && past.outcome.is_some()), "it is written down");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_the_key_says_what_has_become_of_an_action() {
    let (served, target, id) = posted().await;
    let (now, done) = (served.clock.now(), json!({"state": "done"}));
    let late = now + Millis::MINUTE * 6;
    for (what, id, body, key, at, wanted) in [
        ("another key", id.as_str(), &done, "guessed", now, StatusCode::UNAUTHORIZED),
        ("an old signature", &id, &done, CALLBACK_KEY, Timestamp(now.0 - 301_000), StatusCode::UNAUTHORIZED),
        ("one of tomorrow", &id, &done, CALLBACK_KEY, late, StatusCode::UNAUTHORIZED),
        ("an id that nobody knows", "5f3c9a1be07d", &done, CALLBACK_KEY, now, StatusCode::NOT_FOUND),
        ("another state", &id, &json!({"state": "perhaps"}), CALLBACK_KEY, now, StatusCode::BAD_REQUEST),
        ("an unknown field", &id, &json!({"state": "done", "id": "x"}), CALLBACK_KEY, now, StatusCode::BAD_REQUEST),
        ("nothing", &id, &json!({}), CALLBACK_KEY, now, StatusCode::BAD_REQUEST),
        (
            "too much",
            &id,
            &json!({"state": "done", "reason": "x".repeat(20_000)}),
            CALLBACK_KEY,
            now,
            StatusCode::BAD_REQUEST,
        ),
    ] {
        let (status, answer) = tell(&served, id, body, key, at).await;
        assert_eq!(status, wanted, "{what}: {answer}");
    }
    let url = served.url(&format!("/api/v1/forestall/actions/{id}/outcome"));
    let unsigned = json_of(http().post(url).json(&done)).await;
    assert_eq!(unsigned.0, StatusCode::UNAUTHORIZED, "{}", unsigned.1);
    // What forestall itself has signed is no word of the receiver's.
    let sent = target.first("/actions").await;
    let mut copied =
        http().post(served.url(&format!("/api/v1/forestall/actions/{id}/outcome"))).body(sent.body.clone());
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        copied = copied.header(name, sent.header(name));
    }
    assert_eq!(json_of(copied).await.0, StatusCode::BAD_REQUEST);
    served.advance(Millis::SECOND * 10).await;
    assert_eq!(settled(&served, &id).await, Value::Null);
    // A receiver that never says anything is waited for only so long.
    for _ in 0..33 {
        served.advance(Millis::SECOND * 10).await;
    }
    assert_eq!(settled(&served, &id).await, "applied");
}

async fn check_calls_back(program: &str, file: &str) {
    let forestall = Recorder::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("key");
    std::fs::write(&key, CALLBACK_KEY).expect("the file can be written");
    let callback = forestall.url("/actions/{id}/outcome");
    let Some(shipped) = Shipped::start(program, file, std::slice::from_ref(&key), &["--callback", &callback]) else {
        return;
    };
    let settings = WebhookSettings { timeout: Millis::SECOND * 20, ..settings(&shipped.address, vec![key]) };
    let hook = WebhookActuator::new("hook", &settings, &Callbacks::default()).expect("right settings");
    let taken = Actuator::apply(&hook, &scale_out("a1"), 1, Clock::wall().now()).await.expect("it takes it");
    assert_eq!(taken, Acceptance::Accepted);
    let told = forestall.first("/actions/a1/outcome").await;
    assert_eq!(told.json(), json!({"state": "done"}));
    let headers = CallbackHeaders {
        id: told.header("webhook-id"),
        timestamp: told.header("webhook-timestamp"),
        signature: told.header("webhook-signature"),
    };
    let signed = settings.has_signed("a1", headers, &told.body, Clock::wall().now()).await;
    assert_eq!(signed, Ok(true), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_receivers_call_back() {
    check_calls_back("python3", "receiver.py").await;
    check_calls_back("node", "receiver.mjs").await;
}
