//! What persons say over HTTP and on the command line: it is checked, it counts at once, and it outlives the process.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use forestall::app::App;
use forestall::model::Millis;
use forestall::plan::Reason;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::api::{LEAK_POLICIES, Served, TOKEN, json_of, leaking, leaking_in, leaking_with};
use crate::cli::run;
use crate::real::{Folder, Recorder, http};

const STEP: Millis = Millis(10_000);

async fn post(served: &Served, path: &str, body: &Value) -> (StatusCode, Value) {
    let url = served.url(&format!("/api/v1/forestall/{path}"));
    json_of(http().post(url).bearer_auth(TOKEN).json(body)).await
}

async fn lift(served: &Served, query: &str) -> (StatusCode, Value) {
    let url = served.url(&format!("/api/v1/forestall/pause{query}"));
    json_of(http().delete(url).bearer_auth(TOKEN)).await
}

/// Why nothing is done for `app/shop` in the newest plan.
fn reason(app: &App) -> Option<Reason> {
    let report = app.shared().report.load_full().expect("a pass was made");
    report.plan.declined.iter().find(|d| d.component.to_string() == "app/shop").map(|declined| declined.reason)
}

/// A pass with the leak as it stands.
async fn pass(served: &Served) {
    served.write(&[("leak_ratio job=shop", 0.7), ("leak_ratio job=other", 0.1)]).await;
    served.advance(STEP).await;
}

/// The id of what waits for a person.
async fn waiting(served: &Served) -> String {
    let waiting = served.data("/api/v1/forestall/approvals").await;
    waiting["waiting"][0]["id"].as_str().expect("an action waits").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_means_nothing_is_refused_with_what_would_be_right() {
    let served = leaking("approve").await;
    let reason = "a deploy";
    for (body, status, part) in [
        (json!({"reason": reason, "scope": {"policy": "app"}}), 400, "there is no policy \"app\"; there are: apps"),
        (json!({"reason": reason, "scope": {"kind": "node"}}), 400, "there is no kind \"node\"; there are: app"),
        (json!({"reason": reason, "scope": {"component": "shop"}}), 400, "\"shop\"; there are: app"),
        (json!({"reason": reason, "scope": "some"}), 400, "unknown variant `some`"),
        (json!({"reason": " "}), 400, "`reason` is missing"),
        (json!({}), 400, "`reason` is missing"),
        (json!({"reason": reason, "expires_in": "soon"}), 400, "\"soon\" is no duration; write 2h"),
        (json!({"reason": reason, "expires_in": "0"}), 400, "has passed"),
        (json!({"reason": reason, "until": "2020-01-01T00:00:00Z"}), 400, "has passed"),
        (json!({"reason": reason, "until": "tomorrow"}), 400, "\"tomorrow\" is no time"),
        (json!({"reason": reason, "until": "2030-01-01T00:00:00Z", "expires_in": "1h"}), 400, "exclude each other"),
        (json!({"reason": reason, "fro": "1h"}), 400, "unknown field `fro`"),
        (json!(["all"]), 400, "the body cannot be read"),
    ] {
        let (got, answer) = post(&served, "pause", &body).await;
        assert_eq!(got.as_u16(), status, "{body}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(part)), "{body}: {answer}");
    }
    for (query, status, part) in [
        ("", 404, "nothing of the scope \"all\" is paused"),
        ("?policy=apps", 404, "{\"policy\":\"apps\"}"),
        ("?policy=apps&kind=app", 400, "exclude each other"),
    ] {
        let (got, answer) = lift(&served, query).await;
        assert_eq!(got.as_u16(), status, "{query}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(part)), "{query}: {answer}");
    }
    let url = served.url("/api/v1/forestall/pause");
    for request in [http().post(&url).json(&json!({"reason": reason})), http().delete(&url)] {
        assert_eq!(json_of(request.bearer_auth("guessed")).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(served.data("/api/v1/forestall/pause").await, json!({"pauses": [], "max": 100}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_until_it_is_lifted_or_over_also_after_a_restart() {
    let served = leaking("approve").await;
    pass(&served).await;
    assert_eq!(reason(&served.app), Some(Reason::Approval));
    let component = json!({"component": "app/shop"});
    let body = json!({"scope": component, "reason": "a\ndeploy", "by": "ada", "expires_in": "25s"});
    let (status, answer) = post(&served, "pause", &body).await;
    assert_eq!((status, &answer["data"]["pause"]["by"]), (StatusCode::OK, &json!("ada")), "{answer}");
    let (status, answer) = post(&served, "pause", &json!({"scope": {"component": "app/new"}, "reason": "x"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["data"]["warning"], "no component \"app/new\" is watched now");
    pass(&served).await;
    assert_eq!(reason(&served.app), Some(Reason::Paused));
    let page = served.text("/metrics").await.1;
    for row in ["forestall_paused{scope=\"component\"} 2.0", "forestall_paused{scope=\"all\"} 0.0"] {
        assert!(page.lines().any(|line| line == row), "{row} is not on the page:\n{page}");
    }
    let shown = served.data("/api/v1/forestall/pause").await;
    assert_eq!(shown["pauses"][0]["reason"], "a deploy");
    assert_eq!(served.data("/api/v1/forestall/plan").await["frame"]["pauses"], shown["pauses"]);

    let again = served.restarted().shared().journal.controls();
    assert_eq!(json!(again.pauses_at(served.clock.now())), shown["pauses"], "it survives a restart");
    pass(&served).await;
    assert_eq!(reason(&served.app), Some(Reason::Paused));
    pass(&served).await;
    assert_eq!(reason(&served.app), Some(Reason::Approval), "its time is over");

    let (status, _) = post(&served, "pause", &json!({"scope": {"policy": "apps"}, "reason": "x"})).await;
    assert_eq!(status, StatusCode::OK);
    pass(&served).await;
    assert_eq!(reason(&served.app), Some(Reason::Paused));
    let (status, answer) = lift(&served, "?policy=apps&by=ada&reason=done").await;
    assert_eq!((status, &answer["data"]["lifted"]), (StatusCode::OK, &json!(true)), "{answer}");
    pass(&served).await;
    assert_eq!(reason(&served.app), Some(Reason::Approval));
    assert!(served.app.shared().journal.verify().is_ok());
}

/// A target that is never ready, and whose third caller is told off by a person: everything is paused.
#[derive(Debug, Default)]
struct Target {
    calls: AtomicUsize,
    pause_url: OnceLock<String>,
}

async fn call(State(target): State<Arc<Target>>) -> StatusCode {
    if target.calls.fetch_add(1, Ordering::SeqCst) == 2 {
        let url = target.pause_url.get().expect("the test has set it");
        let request = http().post(url).bearer_auth(TOKEN).json(&json!({"reason": "stop", "by": "ada"}));
        assert_eq!(json_of(request).await.0, StatusCode::OK);
    }
    StatusCode::SERVICE_UNAVAILABLE
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_from_the_next_attempt_of_an_action_on() {
    let target = Arc::new(Target::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let router = Router::new().fallback(call).with_state(target.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let actuator = format!("{{ webhook: {{ url: 'http://{address}/', allow_local: true, attempts: 20 }} }}");
    let served = leaking_with("approve", &actuator).await;
    target.pause_url.set(served.url("/api/v1/forestall/pause")).expect("once");
    let id = waiting(&served).await;
    assert_eq!(post(&served, &format!("approvals/{id}"), &json!({"approve": true})).await.0, StatusCode::OK);
    pass(&served).await;
    assert_eq!(target.calls.load(Ordering::SeqCst), 3, "no attempt after the pause");
    let decision = served.data("/api/v1/forestall/decisions?outcome=cancelled").await["decisions"][0].take();
    assert_eq!(decision["actions"][0]["id"], json!(id), "{decision}");
    assert_eq!(decision["actions"][0]["outcome"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_approved_is_still_approved_after_a_restart() {
    let served = leaking("approve").await;
    let id = waiting(&served).await;
    let (status, answer) = post(&served, &format!("approvals/{id}"), &json!({"approve": true, "by": "ada"})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let again = served.restarted();
    again.pass(served.clock.now() + STEP).await;
    let report = again.shared().report.load_full().expect("a pass was made");
    assert!(report.input.gates.approved.contains(&id), "{:?}", report.input.gates);
    assert_eq!(report.plan.carry.waiting["app/shop"][0].id, id, "the offer still stands");
    assert!(report.plan.actions.is_empty(), "nothing is known yet, so nothing is done");
    assert!(again.shared().journal.controls().approved.contains(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_offer_is_kept_as_declined_and_an_answer_can_be_changed() {
    let served = leaking("approve").await;
    let id = waiting(&served).await;
    let path = format!("approvals/{id}");
    for (approve, field, other) in [(true, "approved", "declined"), (false, "declined", "approved")] {
        let (status, answer) = post(&served, &path, &json!({"approve": approve, "reason": "r"})).await;
        assert_eq!((status, &answer["data"]["approved"]), (StatusCode::OK, &json!(approve)), "{answer}");
        let waiting = served.data("/api/v1/forestall/approvals").await["waiting"][0].take();
        assert_eq!((&waiting[field], &waiting[other]), (&json!(true), &json!(false)));
    }
    assert_eq!(served.restarted().shared().journal.controls().declined, [id].into());
    pass(&served).await;
    let report = served.app.shared().report.load_full().expect("a pass was made");
    assert!(report.plan.actions.is_empty(), "{:?}", report.plan.actions);
}

/// Runs a command against a server, and checks its exit code and a part of what it prints.
fn check(served: &Served, args: &[&str], code: i32, part: &str) {
    let (url, token) = (served.url(""), served.folder.path("token"));
    let mut all = args.to_vec();
    all.extend(["--url", &url]);
    if !args.contains(&"--list") && args != ["approve"] {
        all.extend(["--token-file", &token]);
    }
    let (got, out, error) = run(&all);
    assert_eq!(got, code, "{args:?}: {out}{error}");
    assert!(format!("{out}{error}").contains(part), "{args:?} does not say {part:?}:\n{out}{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_pauses_and_lifts_on_the_command_line() {
    let served = leaking("approve").await;
    let check = |args: &[&str], code: i32, part: &str| check(&served, args, code, part);
    check(&["pause", "--list"], 0, "Nothing is paused.");
    check(&["pause"], 1, "--reason is missing");
    check(&["pause", "--policy", "app", "--reason", "x"], 1, "there are: apps");
    check(&["pause", "--policy", "apps", "--kind", "app", "--reason", "x"], 2, "cannot be used with");
    check(&["pause", "--for", "soon", "--reason", "x"], 1, "no duration");
    check(&["pause", "--for", "2h", "--reason", "a deploy", "--by", "ada"], 0, "Paused: everything  until 2026-");
    check(&["pause", "--policy", "apps", "--reason", "x"], 0, "Paused: policy apps  until lifted, by operator: x");
    check(&["pause", "--component", "app/new", "--reason", "x"], 0, "But: no component \"app/new\" is watched now");
    check(&["pause", "--list"], 0, "component app/new  until lifted");
    check(&["pause", "--list", "--output", "json"], 0, "\"policy\": \"apps\"");
    check(&["pause", "--lift", "--policy", "apps"], 0, "Lifted: policy apps");
    check(&["pause", "--lift"], 0, "Lifted: everything");
    check(&["pause", "--lift"], 1, "nothing of the scope \"all\" is paused");
    let (code, _, error) = run(&["pause", "--reason", "x", "--url", &served.url("")]);
    assert_eq!(code, 1);
    assert!(error.contains("--token-file is missing"), "{error}");
    assert_eq!(served.data("/api/v1/forestall/pause").await["pauses"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_answers_offers_on_the_command_line() {
    let served = leaking("approve").await;
    let id = waiting(&served).await;
    let check = |args: &[&str], code: i32, part: &str| check(&served, args, code, part);
    check(&["approve"], 0, &format!("{id}  app/shop"));
    check(&["approve", "no-such"], 1, "no action \"no-such\" waits");
    check(&["approve", "--decline"], 2, "required");
    check(&["approve", &id, "--decline", "--reason", "not now"], 0, "Declined: ");
    check(&["approve"], 0, "(declined)");
    check(&["approve", &id, "--by", "ada"], 0, "Approved: ");
    check(&["approve"], 0, "(approved)");
    pass(&served).await;
    check(&["approve"], 0, "Nothing waits for a person.");
}

/// The rows of a kind in a journal, as they are exported.
fn rows(app: &App, kind: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    app.shared().journal.export(&mut lines).expect("memory takes everything");
    let lines = String::from_utf8(lines).expect("the export is text");
    let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    rows.filter(|row| row["kind"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_may_go_further_is_written_down_before_it_does_at_a_start_too() {
    let served = leaking("approve").await;
    let policies = |mode: &str| {
        served.folder.write("policies.yml", &LEAK_POLICIES.replace("mode: MODE", mode));
    };
    let change = |row: &Value| (row["id"].clone(), row["body"]["from"].clone(), row["body"]["to"].clone());
    let changes = |app: &App| rows(app, "mode").iter().map(change).collect::<Vec<_>>();
    let told = |from: &str, to: &str| (json!("apps"), json!(from), json!(to));
    assert_eq!(changes(&served.app), [told("observe", "approve")], "what was never seen counts as having observed");
    let at = served.clock.now() + STEP;
    let restart = async || {
        let again = served.restarted();
        again.pass(at).await;
        again
    };
    assert_eq!(changes(&restart().await), [told("observe", "approve")], "what is so already is not news");
    // Somebody edits the file while forestall is away.
    policies("mode: act");
    let again = restart().await;
    assert_eq!(changes(&again)[1..], [told("approve", "act")]);
    let acts = rows(&again, "intent").len();
    // A policy without a mode observes, whatever it did before and whatever the ceiling is.
    policies("cooldown: 1m");
    let again = restart().await;
    assert_eq!(changes(&again)[2..], [told("act", "observe")]);
    assert_eq!(rows(&again, "intent").len(), acts);
    policies("mode: act");
    again.reload().expect("the file is good");
    again.pass(at + STEP).await;
    assert_eq!(changes(&again)[3..], [told("observe", "act")], "also at a reload");
    assert!(again.shared().journal.verify().is_ok());
}

/// A disk of its own, of so many bytes; gone with its mount.
struct Disk(String);

impl Disk {
    /// Nothing where this process may not mount anything.
    fn mount(path: &str, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(path).expect("the folder is writable");
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", path]).output();
        mounted.is_ok_and(|done| done.status.success()).then(|| Disk(path.to_owned()))
    }

    /// Takes all the room that there is; gives the file that has it.
    fn fill(&self) -> std::path::PathBuf {
        let path = Path::new(&self.0).join("filler");
        let mut file = std::fs::File::create(&path).expect("there is room for a name");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").args(["-l", &self.0]).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_really_full_stops_acting_and_nothing_else() {
    let folder = Folder::new("full");
    let Some(disk) = Disk::mount(&folder.path("data"), "3m") else {
        eprintln!("skipped: a file system can be mounted by root only");
        return;
    };
    let target = Recorder::start().await;
    target.answer_with(json!({"state": "done"}));
    let actuator = format!("{{ webhook: {{ url: '{}', allow_local: true }} }}", target.url("/actions"));
    let served = leaking_in(folder, "approve", &actuator).await;
    let id = waiting(&served).await;
    let filler = disk.fill();
    let (status, answer) = post(&served, &format!("approvals/{id}"), &json!({"approve": true})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("disk is full")), "{answer}");
    let (status, answer) = post(&served, "pause", &json!({"scope": {"kind": "app"}, "reason": "full"})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert!(answer["error"].as_str().is_some_and(|error| error.starts_with("the pause holds now")), "{answer}");
    // What is small may still find room for a while.
    for _ in 0..20 {
        pass(&served).await;
        let report = served.app.shared().report.load_full().expect("a pass was made");
        if !report.input.gates.journal_ok {
            break;
        }
    }
    let (status, ready) = served.text("/-/ready").await;
    assert_eq!(status, StatusCode::OK, "samples are taken and rules evaluated");
    assert!(ready.contains("degraded: the journal cannot be written: database or disk is full"), "{ready}");
    assert_eq!(reason(&served.app), Some(Reason::Paused), "the pause holds, though it cannot be written");
    let report = served.app.shared().report.load_full().expect("a pass was made");
    assert!(!report.input.gates.journal_ok, "so nothing is acted on, paused or not");
    assert!(report.at == served.clock.now() && report.assessments[0].probability.is_some(), "it foresees on");
    assert_eq!(served.text("/metrics").await.0, StatusCode::OK);
    assert!(target.requests("/actions").is_empty());

    std::fs::remove_file(filler).expect("gone");
    pass(&served).await;
    assert_eq!(served.text("/-/ready").await.1, "forestall is ready.\n");
    pass(&served).await;
    assert_eq!(reason(&served.app), Some(Reason::Paused), "the pause was written when it could be");
    assert_eq!(served.restarted().shared().journal.controls().pauses.len(), 1);
    assert_eq!(lift(&served, "?kind=app").await.0, StatusCode::OK);
    pass(&served).await;
    let id = waiting(&served).await;
    assert_eq!(post(&served, &format!("approvals/{id}"), &json!({"approve": true})).await.0, StatusCode::OK);
    pass(&served).await;
    assert_eq!(target.requests("/actions").len(), 1, "and it acts again");
    assert!(served.app.shared().journal.verify().is_ok());
    // Its folder can be removed once nothing is mounted there.
    drop(disk);
}
