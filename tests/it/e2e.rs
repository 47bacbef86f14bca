//! The main job with real programs: an application leaks, Prometheus writes what it scrapes to forestall, which foresees
//! the breach, acts once through a signed webhook, and tells Alertmanager and Grafana; nothing of it is lost or repeated
//! when forestall is killed in the middle.

use std::process::Command;
use std::time::Duration;

use axum::http::Method;
use base64::Engine as _;
use forestall::clock::Clock;
use forestall::model::{Millis, Timestamp};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::real::{
    ALONE, Alertmanager, Folder, Forestall, Leak, LeakingApp, NodeExporter, Parts, Prometheus, Recorded, Recorder,
    SOON, Suite, eventually, get_json, http, parts, scrape_every_second,
};

const LEAK: Leak = Leak { start_bytes: 0.0, bytes_per_second: 6.25e5, limit_bytes: 1e8 };
/// The share of its limit that the application should not reach.
const THRESHOLD: f64 = 0.9;
/// When it would be there.
const BREACH_AFTER: Millis = Millis(144_000);
/// How long before the breach it must be foreseen at the latest.
const LEAD_MIN: Millis = Millis(30_000);
/// The longest that anything may take that waits for the leak.
const LEAK_TIME_MAX: Duration = Duration::from_secs(150);
const COMPONENT: &str = "app/shop";
const HMAC_KEY: &str = "a key that only the test and forestall know";
const GRAFANA_TOKEN: &str = "a token for annotations";
const PROBABILITY: &str = r#"forestall_component_failure_probability{job="forestall",component="app/shop"}"#;

/// Everything that runs.
struct World {
    parts: Parts,
    message: &'static str,
    hook: Recorder,
    grafana: Recorder,
    alertmanager: Alertmanager,
    forestall: Forestall,
    app: LeakingApp,
    breach_at: Timestamp,
    _node: NodeExporter,
    prometheus: Prometheus,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leak_is_foreseen_prevented_once_and_written_down_with_both_remote_write_messages() {
    let _alone = ALONE.lock().await;
    let Some(parts) = parts() else { return };
    tokio::join!(
        check(&parts, "prometheus.WriteRequest", "1.0"),
        check(&parts, "io.prometheus.write.v2.Request", "2.0"),
    );
}

async fn check(parts: &Parts, message: &'static str, version: &str) {
    let mut world = World::start(parts, message).await;
    world.foresees_the_breach(version).await;
    let action = world.acts().await;
    world.alerts().await;
    world.annotates(&action).await;

    // The action is under way: it was sent, and its target has not said that it is done.
    world.forestall.kill();
    world.app.restart();
    world.hook.answer_with(json!({"state": "done"}));
    world.forestall.start_again().await;

    world.confirms(&action).await;
    world.does_not_act_again().await;
    world.metrics_are_well_formed().await;
    world.never_breaches().await;
    world.journal_is_whole(&action).await;
}

impl World {
    async fn start(parts: &Parts, message: &'static str) -> World {
        let hook = Recorder::start().await;
        hook.answer_with(json!({"state": "pending"}));
        let grafana = Recorder::start().await;
        let config = include_str!("../../deploy/alertmanager/forestall.yml");
        let alertmanager = Alertmanager::start(parts, Suite::Sid, config).await;
        let forestall = Forestall::start(configuration(&hook, &grafana, &alertmanager)).await;
        let node = NodeExporter::start(parts).await;
        let app = LeakingApp::start(LEAK).await;
        let breach_at = Clock::wall().now() + BREACH_AFTER;

        let jobs = [("shop", app.address()), ("node", node.address()), ("forestall", forestall.address())];
        let more = format!(
            "  - {{ job_name: forestall-text, scrape_protocols: [PrometheusText0.0.4], \
                    static_configs: [ {{ targets: ['{forestall}'] }} ] }}\n\
             remote_write: [ {{ url: 'http://{forestall}/api/v1/write', protobuf_message: {message}, \
                                queue_config: {{ batch_send_deadline: 1s }} }} ]\n\
             rule_files: ['{rules}']\n\
             alerting: {{ alertmanagers: [ {{ static_configs: [ {{ targets: ['{alertmanager}'] }} ] }} ] }}\n",
            forestall = forestall.address(),
            rules = repository("deploy/prometheus/forestall.rules.yml"),
            alertmanager = alertmanager.address(),
        );
        let prometheus = Prometheus::start(parts, Suite::Sid, &scrape_every_second(&jobs, &more)).await;
        let parts = parts.clone();
        World { parts, message, hook, grafana, alertmanager, forestall, app, breach_at, _node: node, prometheus }
    }

    /// In Prometheus itself, from forestall's metrics, and in time; from samples that came in the message asked for.
    async fn foresees_the_breach(&self, version: &str) {
        let what = format!("{}: the breach is foreseen", self.message);
        let likely = format!("{PROBABILITY} >= 0.6");
        eventually(&what, LEAK_TIME_MAX, async || self.prometheus.value(&likely).await).await;
        let lead = self.breach_at - Clock::wall().now();
        assert!(lead >= LEAD_MIN, "{}: foreseen only {lead} before the breach", self.message);

        let requests = r#"sum by (message) (forestall_remote_write_requests_total{job="forestall"})"#;
        let requests = self.prometheus.query(requests).await;
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert_eq!(requests[0].0, json!({"message": version}));
        let host = r#"count(forestall_component_impact_ratio{job="forestall",kind="host"})"#;
        eventually("the shipped rules see node_exporter", SOON, async || self.prometheus.value(host).await).await;
    }

    /// Waits for the call of the webhook, and checks its signature as a receiver would.
    async fn acts(&self) -> Value {
        let what = format!("{}: the webhook is called", self.message);
        let call = eventually(&what, LEAK_TIME_MAX, async || self.actions().into_iter().next()).await;
        let id = call.header("webhook-id");
        let signed = [id.as_bytes(), b".", call.header("webhook-timestamp").as_bytes(), b".", &call.body].concat();
        let mut hmac = Hmac::<Sha256>::new_from_slice(HMAC_KEY.as_bytes()).expect("a key of any length will do");
        hmac.update(&signed);
        let signature = base64::engine::general_purpose::STANDARD.encode(hmac.finalize().into_bytes());
        assert_eq!(call.header("webhook-signature"), format!("v1,{signature}"));

        let action = call.json();
        assert_eq!(action["id"], id);
        assert_eq!(call.header("idempotency-key"), id);
        assert_eq!(action["type"], "forestall.action");
        assert_eq!(action["action"], "migrate");
        assert_eq!(action["target"]["component"], COMPONENT);
        assert_eq!(action["target"]["labels"], json!({"job": "shop"}));
        action
    }

    /// What was posted to the webhook; questions after the state of an action are GETs.
    fn actions(&self) -> Vec<Recorded> {
        self.hook.requests("/actions").into_iter().filter(|call| call.method == Method::POST).collect()
    }

    /// The shipped alert, by Prometheus, and forestall's own notice are both in Alertmanager.
    async fn alerts(&self) {
        for name in ["PredictedFailure", "ForestallPredictedFailure"] {
            let what = format!("{}: Alertmanager has {name}", self.message);
            eventually(&what, SOON, async || {
                let alerts = self.alertmanager.alerts().await;
                let wanted = |a: &&Value| a["labels"]["alertname"] == name && a["labels"]["component"] == COMPONENT;
                alerts.iter().find(wanted).map(drop)
            })
            .await;
        }
    }

    async fn annotates(&self, action: &Value) {
        let annotation = self.annotation("acted").await;
        assert_eq!(annotation.header("authorization"), format!("Bearer {GRAFANA_TOKEN}"));
        let body = annotation.json();
        assert_eq!(body["tags"], json!(["forestall", "acted", COMPONENT]));
        assert_eq!(body["time"], millis(&action["decided_at"]));
        // Moving elsewhere is not given back, so it has no end.
        assert_eq!(action["expires_at"], Value::Null);
        assert_eq!(body["timeEnd"], body["time"]);
        let sentence = action["why"]["sentence"].as_str().expect("a sentence");
        assert!(body["text"].as_str().is_some_and(|text| text.contains(&escaped(sentence))), "{body} {sentence}");
    }

    async fn annotation(&self, tag: &str) -> Recorded {
        let what = format!("{}: the annotation {tag}", self.message);
        let is_meant = |call: &Recorded| {
            let body = call.json();
            let tags = body["tags"].as_array().expect("tags");
            call.method == Method::POST && tags.contains(&json!(tag)) && tags.contains(&json!(COMPONENT))
        };
        eventually(&what, SOON, async || self.grafana.requests("/api/annotations").into_iter().find(is_meant)).await
    }

    /// After the restart: the target is asked, and what it says is written down and told.
    async fn confirms(&self, action: &Value) {
        let what = format!("{}: the outcome is in the journal", self.message);
        let decision = eventually(&what, SOON, async || {
            let found = get_json(&self.forestall.url("/api/v1/forestall/decisions?outcome=confirmed")).await;
            found["data"]["decisions"].get(0).cloned()
        })
        .await;
        let done = &decision["actions"][0];
        assert_eq!(done["id"], action["id"]);
        assert_eq!(done["component"], COMPONENT);
        assert_eq!(done["kind"], "migrate");
        assert_eq!(done["why"], action["why"]["sentence"]);
        assert_eq!(decision["at"], millis(&action["decided_at"]));
        let outcome = self.annotation("outcome").await.json();
        assert!(outcome["text"].as_str().is_some_and(|text| text.contains("confirmed")), "{outcome}");

        let id = decision["id"].as_str().expect("an id");
        let whole = get_json(&self.forestall.url(&format!("/api/v1/forestall/decisions/{id}"))).await;
        assert_eq!(whole["data"]["replay"]["same"], true, "{whole}");
    }

    /// Prometheus reads both formats, and promtool finds nothing to mend.
    async fn metrics_are_well_formed(&self) {
        for job in ["forestall", "forestall-text"] {
            let up = format!("sum_over_time(up{{job=\"{job}\"}}[3s]) >= 2");
            eventually(&up, SOON, async || self.prometheus.value(&up).await).await;
        }
        let confirmed = "forestall_decisions_total{job=\"forestall\",action=\"migrate\",outcome=\"confirmed\"} == 1";
        eventually(confirmed, SOON, async || self.prometheus.value(confirmed).await).await;
        let page = http().get(self.forestall.url("/metrics")).send().await.expect("it answers");
        let page = page.text().await.expect("it is text");
        self.parts.run_with(Suite::Sid, "promtool", &["check", "metrics"], &page);
    }

    /// The restarted forestall knows what it has done, plans on beyond its start hold, and sends nothing again.
    async fn does_not_act_again(&self) {
        let what = format!("{}: samples arrive and plans are made again", self.message);
        eventually(&what, SOON, async || {
            let plan = get_json(&self.forestall.url("/api/v1/forestall/plan")).await;
            let (at, frame) = (plan["data"]["at"].as_i64(), &plan["data"]["frame"]);
            (at > frame["hold_until"].as_i64() && frame["series"].as_u64() > Some(0)).then_some(())
        })
        .await;
        assert_eq!(self.actions().len(), 1, "{:?}", self.actions());
    }

    async fn never_breaches(&self) {
        let after = (self.breach_at.0 + 5_000) as f64 / 1000.0;
        let what = format!("{}: the time of the breach has passed", self.message);
        let passed = format!("vector(time()) > {after}");
        eventually(&what, LEAK_TIME_MAX, async || self.prometheus.value(&passed).await).await;
        let highest = "max_over_time((max(leak_bytes) / max(leak_limit_bytes))[5m:1s])";
        let highest = self.prometheus.value(highest).await.expect("the app is scraped");
        assert!(highest < THRESHOLD, "{}: {highest}", self.message);
    }

    async fn journal_is_whole(&mut self, action: &Value) {
        let listed = get_json(&self.forestall.url("/api/v1/forestall/decisions?outcome=confirmed")).await;
        assert!(self.forestall.stop().await.success(), "forestall stops well on SIGTERM");
        let journal = self.forestall.path("data/journal.sqlite");
        let verified = forestall(&["decisions", "--journal", &journal, "--verify"]);
        assert!(verified.starts_with("whole: "), "{verified}");
        let args = ["decisions", "--journal", &journal, "--outcome", "confirmed", "--output", "json"];
        let printed: Value = serde_json::from_str(&forestall(&args)).expect("JSON");
        let mut listed = listed["data"]["decisions"].clone();
        for action in
            listed.as_array_mut().expect("a list").iter_mut().flat_map(|d| d["actions"].as_array_mut()).flatten()
        {
            // The API adds what the page shows; the rest is the journal's.
            action.as_object_mut().expect("an action").remove("sentence").expect("the page's sentence");
        }
        assert_eq!(printed, listed);
        let export = forestall(&["decisions", "--journal", &journal, "--export"]);
        let id = action["id"].as_str().expect("an id");
        let sent = export.lines().filter(|line| line.contains("\"attempt\"") && line.contains(id)).count();
        assert_eq!(sent, 1, "attempts at {id} in:\n{export}");
    }
}

/// A folder with everything that forestall reads.
fn configuration(hook: &Recorder, grafana: &Recorder, alertmanager: &Alertmanager) -> Folder {
    let folder = Folder::new("configuration");
    let hmac = folder.write("hmac", HMAC_KEY);
    let token = folder.write("token", GRAFANA_TOKEN);
    folder.write(
        "rules.yml",
        "groups: [ { name: apps, interval: 1s, rules: [ {
            predict: leaks,
            component: { kind: app, by: [job], impact: 0.6, target: { name: job } },
            horizon: 2m,
            signals: [ {
              name: memory,
              expr: max by (job) (leak_bytes) / max by (job) (leak_limit_bytes),
              breach: { above: 0.9, for: 2s },
              scales_with: memory } ] } ] } ]",
    );
    folder.write(
        "policies.yml",
        "policies: [ { name: apps, match: { kind: app }, mode: act,
            enter: { probability_above: 0.6, for: 5 }, exit: { probability_below: 0.2, for: 10 },
            ladder: [ { action: migrate, actuator: hook, actuation_time: 5s } ] } ]",
    );
    folder.write(
        "forestall.yml",
        &format!(
            "global: {{ evaluation_interval: 1s, mode: act, start_hold: 5s }}\n\
             rule_files: [rules.yml, '{rules}']\n\
             policy_files: [policies.yml, '{policies}']\n\
             actuators:\n\
             \x20 hook: {{ webhook: {{ url: '{hook}', status_url: '{status}', hmac_secret_file: '{hmac}', allow_local: true }} }}\n\
             \x20 written-down: {{ dry_run: {{}} }}\n\
             notify:\n\
             \x20 alertmanagers: [ {{ url: 'http://{alertmanager}' }} ]\n\
             \x20 grafana: {{ url: '{grafana}', token_file: '{token}', tags: [forestall] }}\n",
            rules = repository("deploy/forestall/rules/hosts.yml"),
            policies = repository("deploy/forestall/policies/hosts.yml"),
            hook = hook.url("/actions"),
            status = hook.url("/actions/{id}"),
            alertmanager = alertmanager.address(),
            grafana = grafana.url(""),
        ),
    );
    folder
}

fn repository(file: &str) -> String {
    format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs the program to its end, and gives back what it printed.
fn forestall(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_forestall")).args(args).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}: {error}", output.status);
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A time in RFC 3339 as ms since the epoch.
fn millis(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("a time is text: {time}"));
    text.parse::<jiff::Timestamp>().unwrap_or_else(|e| panic!("{text}: {e}")).as_millisecond()
}

/// Text as Grafana shows it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
