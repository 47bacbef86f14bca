//! What another predictor says: checked, planned like our own, done once, forgotten when it is over.

use axum::http::StatusCode;
use forestall::model::Millis;
use serde_json::{Value, json};

use crate::api::{Served, TOKEN, json_of};
use crate::real::{Recorder, http};

const STEP: Millis = Millis(10_000);

const POLICIES: &str = "
policies:
  - name: services
    match: { kind: service }
    mode: act
    enter: { probability_above: 0.6, for: 2 }
    cooldown: 1m
    budget: { per: 1h, max_actions: 20 }
    ladder: [ { action: scale_out, actuator: fleet, max_replicas: 20, actuation_time: 1m } ]
pools:
  - name: machines
    node_label: node
    capacity: { cpu: sum by (node) (node_cpu), used: { cpu: 0 * sum by (node) (node_cpu) } }
    workloads:
      - kind: service
        by: [namespace, service]
        replicas: sum by (namespace, service) (replicas)
        requests: { cpu: 'max by (namespace, service) (replica_cpu)' }
";

/// A server with a pool of one service that nobody foresees, and a target that takes every request.
async fn served() -> (Served, Recorder) {
    let target = Recorder::start().await;
    target.answer_with(json!({}));
    let main = format!(
        "global: {{ evaluation_interval: 10s, mode: act, start_hold: 0s }}\nstorage: {{ keep: all }}\n\
         policy_files: [policies.yml]\nweb: {{ operator_token_file: token }}\n\
         actuators: {{ fleet: {{ http: {{ url: '{}', method: PUT, allow_local: true, \
         body: {{ to: '{{change.to}}', why: '{{why.sentence}}' }} }} }} }}\n",
        target.url("/size/{target.name}")
    );
    let files = [("forestall.yml", main.as_str()), ("policies.yml", POLICIES), ("token", TOKEN)];
    let served = Served::start(&files).await;
    pass(&served, 5.0, 1).await;
    (served, target)
}

/// So many passes, with so many replicas of the service.
async fn pass(served: &Served, replicas: f64, count: u32) {
    for _ in 0..count {
        served
            .write(&[
                ("node_cpu node=n1", 64.0),
                ("replicas namespace=shop service=checkout", replicas),
                ("replica_cpu namespace=shop service=checkout", 1.0),
            ])
            .await;
        served.advance(STEP).await;
    }
}

async fn tell(served: &Served, body: &Value) -> (StatusCode, Value) {
    let url = served.url("/api/v1/forestall/predictions");
    json_of(http().post(url).bearer_auth(TOKEN).json(body)).await
}

fn prediction(id: &str) -> Value {
    json!({
        "id": id, "source": "oracle", "component": "service/shop/checkout", "probability": 0.9, "probability_low": 0.8,
        "severity": 0.7, "eta_seconds": {"q10": 1200, "q50": 2400}, "wanted": {"replicas": 8}, "reason": "a sale\nbegins",
        "expires_in": "1h",
    })
}

fn sizes(target: &Recorder) -> Vec<Value> {
    target.requests("/size/checkout").iter().map(|request| request.json()["to"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_of_another_is_planned_like_our_own_and_done_once() {
    let (served, target) = served().await;
    let (status, answer) = tell(&served, &prediction("p-1")).await;
    assert_eq!((status, &answer["data"]["state"]), (StatusCode::OK, &json!("taken")), "{answer}");
    assert_eq!(answer["data"]["prediction"]["reason"], "a sale begins");
    pass(&served, 5.0, 1).await;
    assert!(sizes(&target).is_empty(), "hysteresis holds for it too");
    pass(&served, 5.0, 1).await;
    assert_eq!(sizes(&target), [json!(8)]);
    let why = target.requests("/size/checkout")[0].json()["why"].as_str().expect("a text").to_owned();
    assert!(why.contains("prediction oracle/p-1 says that it fails") && why.contains("so 8 replicas"), "{why}");
    let listed = served.data("/api/v1/forestall/predictions").await;
    let action = listed["predictions"][0]["action"].as_str().expect("it was done").to_owned();
    let decisions = served.data("/api/v1/forestall/decisions").await.to_string();
    assert!(decisions.contains(&action) && decisions.contains("oracle/p-1"), "{decisions}");

    // Told again, also with other figures, it never acts again: not now, not after the cool-down, not after a restart.
    let more = json!({"wanted": {"replicas": 12}});
    let mut again = prediction("p-1");
    again["wanted"] = more["wanted"].clone();
    let (_, answer) = tell(&served, &again).await;
    assert_eq!((&answer["data"]["state"], &answer["data"]["action"]), (&json!("done"), &json!(action)), "{answer}");
    pass(&served, 8.0, 12).await;
    assert_eq!(sizes(&target), [json!(8)]);
    let restarted = served.restarted();
    assert!(restarted.shared().journal.controls().predictions.at(served.clock.now()).is_empty());
    for _ in 0..4 {
        served.clock.advance_to(served.clock.now() + STEP);
        restarted.pass(served.clock.now()).await;
    }
    assert_eq!(sizes(&target), [json!(8)]);

    let (_, answer) = tell(&served, &{
        let mut other = prediction("p-2");
        other["wanted"] = more["wanted"].clone();
        other
    })
    .await;
    assert_eq!(answer["data"]["state"], "taken", "another id is another prediction: {answer}");
    pass(&served, 8.0, 2).await;
    let shown = served.data("/api/v1/forestall/components/service/shop/checkout").await.to_string();
    assert!(shown.contains("Another predictor says so (oracle/p-2)") || sizes(&target).len() == 2, "{shown}");
    pass(&served, 8.0, 2).await;
    assert_eq!(sizes(&target), [json!(8), json!(12)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_that_is_over_counts_for_nothing() {
    let (served, target) = served().await;
    let mut short = prediction("p-1");
    short["expires_in"] = json!("15s");
    assert_eq!(tell(&served, &short).await.0, StatusCode::OK);
    pass(&served, 5.0, 1).await;
    let shown = served.data("/api/v1/forestall/components/service/shop/checkout").await;
    assert!(shown.to_string().contains("Another predictor says so (oracle/p-1): P 90 %, at least 80 %."), "{shown}");
    let metrics = served.text("/metrics").await.1;
    let probability = "forestall_component_failure_probability{component=\"service/shop/checkout\"";
    assert!(metrics.contains(probability) && !metrics.contains("oracle"), "{metrics}");
    pass(&served, 5.0, 3).await;
    assert!(sizes(&target).is_empty());
    assert_eq!(served.data("/api/v1/forestall/predictions").await["predictions"], json!([]));
    assert_eq!(served.get("/api/v1/forestall/components/service/shop/checkout").await.0, StatusCode::NOT_FOUND);
    // It may be told again, since nothing was done for it.
    assert_eq!(tell(&served, &prediction("p-1")).await.1["data"]["state"], "taken");
    pass(&served, 5.0, 2).await;
    assert_eq!(sizes(&target), [json!(8)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_nobody_knows_is_described() {
    let (served, _target) = served().await;
    let mut other = prediction("p-1");
    other["component"] = json!({"kind": "database", "labels": {"namespace": "shop", "database": "orders/main"}});
    assert_eq!(tell(&served, &other).await.0, StatusCode::OK);
    pass(&served, 5.0, 1).await;
    let report = served.app.shared().report.load_full().expect("a pass was made");
    let told = report.assessments.iter().find(|a| a.component.kind == "database").expect("it is assessed");
    assert_eq!(told.component.to_string(), "database/shop/orders%2Fmain");
    assert_eq!((told.target_namespace.as_str(), told.target_name.as_str()), ("shop", "orders/main"));
    assert_eq!((told.probability, told.probability_low), (Some(0.9), Some(0.8)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_that_means_nothing_is_refused_with_what_would_be_right() {
    let (served, _target) = served().await;
    for (field, value, part) in [
        ("id", json!(""), "`id` \"\": 1 to 128 letters"),
        ("id", json!("a/b"), "`id` \"a/b\""),
        ("source", json!("x".repeat(129)), "`source`"),
        ("component", json!("service/shop/chekout"), "no component \"service/shop/chekout\" is watched"),
        ("component", json!({"kind": "", "labels": {"a": "b"}}), "a kind and 1 to 8 labels"),
        ("component", json!({"kind": "x", "labels": {}}), "a kind and 1 to 8 labels"),
        ("component", json!({"kind": "x", "labels": {"a": 1}}), "a label's value is a text"),
        ("probability", json!(1.1), "`probability` 1.1 is out of range"),
        ("probability", json!("high"), "the body cannot be read"),
        ("probability_low", json!(0.95), "is above `probability`"),
        ("severity", json!(-1), "`severity` -1 is out of range"),
        ("impact", json!(2), "`impact` 2 is out of range"),
        ("eta_seconds", json!({"q10": 100, "q50": 50}), "q10 is the earlier one"),
        ("eta_seconds", json!({"q10": -1}), "q10 -1 is out of range"),
        ("eta_seconds", json!({"q99": 1}), "unknown field `q99`"),
        ("wanted", json!({"gpus": 1}), "there is no \"gpus\"; there are replicas, cpu, memory, disk"),
        ("wanted", json!({"replicas": 2.5}), "2.5 replicas are no whole number"),
        ("wanted", json!({"cpu": 0}), "cpu 0 is out of range"),
        ("wanted", json!({"replicas": 1e6}), "out of range"),
        ("expires_in", json!("soon"), "\"soon\" is no duration"),
        ("expires_in", json!("0"), "which has passed"),
        ("expires_in", json!("4d"), "3d is the most"),
        ("expires_at", json!("2026-01-09T12:00:00Z"), "one of `expires_in` and `expires_at`"),
        ("horizon", json!("1h"), "unknown field `horizon`"),
    ] {
        let mut body = prediction("p-1");
        body[field] = value.clone();
        let (status, answer) = tell(&served, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{field} {value}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(part)), "{field} {value}: {answer}");
    }
    let url = served.url("/api/v1/forestall/predictions");
    let guessed = http().post(&url).bearer_auth("guessed").json(&prediction("p-1"));
    assert_eq!(json_of(guessed).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(served.data("/api/v1/forestall/predictions").await, json!({"predictions": [], "max": 1000}));
}
