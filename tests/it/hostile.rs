//! What must never be shown, and what must never be believed: secrets, and texts that break lines, colour terminals, carry
//! HTML or are a megabyte long. One life of the real program that logs everything, with targets that repeat what they are
//! given; then everything that it has written or answered is looked through.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use forestall::clock::Clock;
use forestall::ingest::encode_v1;
use forestall::model::{Labels, METRIC_NAME, Millis, Sample};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::api::LEAK_RULES;
use crate::cli::run;
use crate::real::{Folder, Forestall, SOON, eventually, http};

/// The secrets: name of the file, content.
const CANARIES: [(&str, &str); 5] = [
    ("operator", "canary-operator-4f1a"),
    ("hmac", "canary-hmac-77c0"),
    ("grafana", "canary-grafana-b25e"),
    ("alertmanager", "canary-alertmanager-9d3b"),
    ("notify-hmac", "canary-notify-hmac-01fe"),
];
/// What somebody guesses instead of the operator's token: it may be nearly right.
const GUESS: &str = "canary-operator-guess";

const EVIL: &str = "evil\n2026-01-01T00:00:00Z  INFO forged line\u{1b}[31mred\r<script>alert(1)</script>\u{202e}";

/// Repeats to whoever calls what they sent, and keeps it.
#[derive(Debug, Default)]
struct Parrot {
    heard: Mutex<String>,
}

async fn repeat(State(parrot): State<Arc<Parrot>>, uri: Uri, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let heard = format!("{uri} {headers:?} {}", String::from_utf8_lossy(&body));
    parrot.heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&heard);
    let long = format!("{EVIL}{}", "x".repeat(30_000));
    match uri.path() {
        "/actions" => (StatusCode::ACCEPTED, heard),
        path if path.starts_with("/status") => {
            (StatusCode::OK, json!({"state": "failed", "reason": format!("{long} {heard}")}).to_string())
        }
        _ => (StatusCode::UNAUTHORIZED, format!("no: {heard} {long}")),
    }
}

/// All that the program has written and answered.
struct Traces {
    /// Where from, and what.
    texts: Vec<(String, String)>,
    heard: String,
}

/// A leak of these jobs over the last half hour and more, as Prometheus would have sent it.
fn leak(jobs: &[String]) -> Vec<u8> {
    let now = Clock::wall().now();
    let series: Vec<_> = jobs
        .iter()
        .map(|job| {
            let labels = Labels::new([(METRIC_NAME, "leak_ratio"), ("job", job)]);
            let sample = |step: i32| Sample {
                at: now - Millis::SECOND * 2 * i64::from(1200 - step),
                value: 0.00058 * f64::from(step),
            };
            (labels, (0..=1200).map(sample).collect())
        })
        .collect();
    encode_v1(&series)
}

async fn live() -> Traces {
    let parrot = Arc::new(Parrot::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let router = Router::new().fallback(repeat).with_state(parrot.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let folder = Folder::new("hostile");
    for (name, secret) in CANARIES {
        folder.write(name, secret);
    }
    folder.write("rules.yml", &LEAK_RULES.replace("interval: 10s", "interval: 2s"));
    let policies = "policies: [ { name: apps, match: { kind: app }, mode: act, budget: { per: 1h, max_actions: 5 },
        enter: { probability_above: 0.3, for: 1 }, ladder: [ { action: migrate, actuator: hook, actuation_time: 10s } ] } ]";
    folder.write("policies.yml", policies);
    let main = format!(
        "global: {{ evaluation_interval: 2s, mode: act, start_hold: 0s }}\n\
         ingest: {{ max_label_value_size: 2MiB }}\nrule_files: [rules.yml]\npolicy_files: [policies.yml]\n\
         web: {{ operator_token_file: operator }}\n\
         actuators: {{ hook: {{ webhook: {{ url: '{target}/actions', status_url: '{target}/status/{{id}}',\n\
         \x20 hmac_secret_file: hmac, allow_local: true }} }} }}\n\
         notify:\n  alertmanagers: [ {{ url: '{target}', token_file: alertmanager }} ]\n\
         \x20 grafana: {{ url: '{target}', token_file: grafana }}\n\
         \x20 webhooks: [ {{ url: '{target}/notices', hmac_secret_file: notify-hmac, allow_local: true }} ]\n"
    );
    folder.write("forestall.yml", &main);
    let mut forestall = Forestall::start_with(folder, &["--log.level=trace"]).await;
    let jobs = [EVIL.to_owned(), format!("long{}", "x".repeat(1_000_000))];
    let request = http().post(forestall.url("/api/v1/write")).header("content-type", "application/x-protobuf");
    let answer = request.header("content-encoding", "snappy").body(leak(&jobs)).send().await.expect("it answers");
    assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{}", answer.text().await.expect("text"));
    let url = forestall.url("/api/v1/forestall/decisions?outcome=failed");
    eventually("an action has failed", SOON, async || {
        let answer: Value = http().get(&url).send().await.ok()?.json().await.ok()?;
        (!answer["data"]["decisions"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let parrot_said = || parrot.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    eventually("all are told", SOON, async || {
        let heard = parrot_said();
        ["/notices", "/api/annotations", "/api/v2/alerts"].iter().all(|path| heard.contains(path)).then_some(())
    })
    .await;
    let mut texts = answers(&forestall).await;
    texts.extend(files(&mut forestall).await);
    Traces { texts, heard: parrot_said() }
}

/// What it answers to questions and to those who have no right to ask.
async fn answers(forestall: &Forestall) -> Vec<(String, String)> {
    let own = |path: &str| format!("/api/v1/forestall/{path}");
    let mut texts = Vec::new();
    let mut paths: Vec<String> =
        ["components", "plan", "decisions", "rules", "gates", "approvals", "pause"].map(own).to_vec();
    paths.extend(["/metrics", "/-/ready", "/api/v1/status/config", "/api/v1/status/flags"].map(str::to_owned));
    let listed: Value =
        http().get(forestall.url(&own("components"))).send().await.expect("it answers").json().await.expect("JSON");
    for component in listed["data"]["components"].as_array().expect("a list") {
        let id = component["id"].as_str().expect("an id").replace('%', "%25");
        paths.push(own(&format!("components/{id}")));
    }
    let listed: Value =
        http().get(forestall.url(&own("decisions"))).send().await.expect("it answers").json().await.expect("JSON");
    for decision in listed["data"]["decisions"].as_array().expect("a list") {
        paths.push(own(&format!("decisions/{}", decision["id"].as_str().expect("an id"))));
    }
    for path in paths {
        let answer = http().get(forestall.url(&path)).send().await.expect("it answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        texts.push((path, answer.text().await.expect("text")));
    }
    let pause = json!({"reason": format!("{EVIL}{}", "x".repeat(100_000)), "by": EVIL, "scope": {"policy": "apps"}});
    for (path, token) in
        [("pause", CANARIES[0].1), ("pause", GUESS), ("approvals/x", GUESS), ("approvals/x", CANARIES[0].1)]
    {
        let request = http().post(forestall.url(&own(path))).bearer_auth(token).json(&pause);
        texts.push((format!("POST {path}"), request.send().await.expect("it answers").text().await.expect("text")));
    }
    texts
}

/// What it logs, and what it leaves behind.
async fn files(forestall: &mut Forestall) -> Vec<(String, String)> {
    assert!(forestall.stop().await.success());
    let journal = forestall.path("data/journal.sqlite");
    let (code, export, error) = run(&["decisions", "--journal", &journal, "--export"]);
    assert_eq!(code, 0, "{error}");
    let mut texts = vec![("export".to_owned(), export)];
    let lossy = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("it is there")).into_owned();
    texts.push(("log".to_owned(), lossy(Path::new(&forestall.path("log")))));
    for entry in std::fs::read_dir(forestall.path("data")).expect("a folder") {
        let path = entry.expect("an entry").path();
        texts.push((format!("file {}", path.display()), lossy(&path)));
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_hostile_texts_go_no_further_than_they_must() {
    let Traces { texts, heard } = live().await;
    for (name, secret) in [CANARIES[2], CANARIES[3]] {
        assert!(heard.contains(secret), "the {name} token was sent and repeated, so it could have been kept");
    }
    assert!(heard.contains("webhook-signature"), "{}", &heard[..1000]);
    for (place, text) in &texts {
        for secret in CANARIES.map(|(_, secret)| secret).iter().chain(&[GUESS]) {
            if let Some(at) = text.find(secret) {
                let from = (0..=at.saturating_sub(200)).rev().find(|from| text.is_char_boundary(*from)).unwrap_or(0);
                panic!("{place} has {secret}: {}", &text[from..at + secret.len()]);
            }
        }
        assert!(!text.contains(&"x".repeat(5000)), "{place} has all of a text of a megabyte");
    }
    let of = |name: &str| &texts.iter().find(|(place, _)| place == name).expect("it was looked at").1;
    for (number, line) in of("export").lines().enumerate() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "row {number} is no JSON: {line}");
        assert!(!line.contains(|c: char| c.is_control()), "row {number} has control characters");
    }
    assert!(of("export").contains("\"kind\":\"outcome\"") && of("export").contains("%0A2026-01-01T00:00:00Z"));
    for line in of("log").lines() {
        let is_ours = line.starts_with("20") && line.as_bytes().get(10) == Some(&b'T');
        assert!(is_ours && !line.starts_with("2026-01-01T00:00:00Z"), "a line that nobody logged: {line:?}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
    for line in of("/metrics").lines() {
        assert!(line.starts_with("forestall_") || line.starts_with("# "), "a line that is no sample: {line:?}");
    }
}
