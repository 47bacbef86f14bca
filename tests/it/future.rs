//! What PromQL cannot give elsewhere: forecasts at moments to come, and what was forecast for those that are over. And
//! recording rules.

use axum::http::StatusCode;
use forestall::model::{Millis, Timestamp};
use serde_json::{Value, json};

use crate::api::{Served, leaking};

fn encoded(expr: &str) -> String {
    form_urlencoded::byte_serialize(expr.as_bytes()).collect()
}

/// The samples of the only series of a range query, as unix seconds and value.
async fn range(served: &Served, expr: &str, (start, end): (Timestamp, Timestamp), step: i64) -> Vec<(i64, f64)> {
    let (start, end) = (start.0 / 1000, end.0 / 1000);
    let path = format!("/api/v1/query_range?query={}&start={start}&end={end}&step={step}", encoded(expr));
    let data = served.data(&path).await;
    let result = data["result"].as_array().expect("a matrix");
    assert!(result.len() <= 1, "{expr}: {data}");
    let values = result.first().map_or(&[][..], |series| series["values"].as_array().expect("values"));
    values.iter().map(|pair| (pair[0].as_i64().expect("whole seconds"), number(&pair[1]))).collect()
}

/// The value of the only element of an instant query; nothing where there is none.
async fn instant(served: &Served, expr: &str, at: Timestamp) -> Option<f64> {
    let path = format!("/api/v1/query?query={}&time={}", encoded(expr), at.0 / 1000);
    let data = served.data(&path).await;
    let result = data["result"].as_array().expect("a vector");
    assert!(result.len() <= 1, "{expr}: {data}");
    result.first().map(|element| number(&element["value"][1]))
}

fn number(value: &Value) -> f64 {
    value.as_str().expect("a value is a string").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_over_now_draws_what_was_forecast_and_what_is() {
    let served = leaking("approve").await;
    let now = served.clock.now();
    let path = r#"forestall_signal_forecast_path{component="app/shop",quantile="0.5"}"#;
    let drawn = range(&served, path, (now - Millis::MINUTE * 10, now + Millis::HOUR), 60).await;
    let report = served.app.shared().report.load_full().expect("a pass was made");
    let shop = report.assessments.iter().find(|a| a.component.to_string() == "app/shop").expect("it is watched");
    let fan = shop.signals[0].foresight.path.as_ref().expect("it is forecast");

    let ahead: Vec<(i64, f64)> = drawn.iter().copied().filter(|(at, _)| *at > now.0 / 1000).collect();
    let end = fan.start + fan.step * (fan.values[0].len() as i64 - 1);
    assert_eq!(ahead.len() as i64, (end - now).0 / 60_000, "a value each minute up to the horizon, none after it");
    let median = fan.level(0.5).expect("a median");
    let last = ahead.last().expect("values").1;
    assert!((last - median[median.len() - 1]).abs() < 0.03, "{last} is the last of {median:?}");
    assert!(ahead.windows(2).all(|two| two[0].1 <= two[1].1 + 1e-9), "it rises: {ahead:?}");

    // 0.003 each ten seconds: what was forecast for a moment a quarter of the horizon earlier is near what came.
    let past: Vec<(i64, f64)> = drawn.iter().copied().filter(|(at, _)| *at <= now.0 / 1000).collect();
    assert!(past.len() >= 8, "{past:?}");
    for (at, forecast) in &past {
        let moment = Timestamp(at * 1000);
        let came = instant(&served, r#"forestall_signal{component="app/shop"}"#, moment).await.expect("it was kept");
        assert!((forecast - came).abs() < 0.1, "{forecast} was forecast for {at}, and {came} came");
    }

    // An offset looks at another moment of the same line, as with any series.
    let moment = now + Millis::MINUTE * 20;
    let plain = instant(&served, path, moment).await;
    assert!(plain.is_some());
    let shifted = instant(&served, &format!("{path} offset 5m"), moment + Millis::MINUTE * 5).await;
    let fixed = instant(&served, &format!("{path} @ {}", moment.0 / 1000), now).await;
    assert_eq!((shifted, fixed), (plain, plain));
    let low = instant(&served, &path.replace("0.5", "0.1"), moment).await.expect("a low quantile");
    let high = instant(&served, &path.replace("0.5", "0.9"), moment).await.expect("a high quantile");
    assert!(low <= plain.expect("checked") && plain.expect("checked") <= high, "{low} {plain:?} {high}");
    let over = r#"count(forestall_signal_forecast_path{component="app/shop"} > 0.9)"#;
    assert!(instant(&served, over, end).await.is_some(), "functions and comparisons work on what is to come");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_probability_hold_to_the_horizon() {
    let served = leaking("approve").await;
    let now = served.clock.now();
    for metric in ["health_ratio", "failure_probability", "expected_loss_ratio"] {
        let expr = format!("forestall_component_{metric}{{component=\"app/shop\"}}");
        let said = instant(&served, &expr, now).await;
        assert!(said.is_some(), "{metric}");
        assert_eq!(instant(&served, &expr, now + Millis::MINUTE * 30).await, said, "{metric} at the horizon");
        assert_eq!(instant(&served, &expr, now + Millis::MINUTE * 31).await, None, "{metric} beyond it");
    }
    // The next pass says something else: what the one before it said of the future is gone.
    let expr = r#"forestall_signal_forecast_path{component="app/shop",quantile="0.9"}"#;
    let before = instant(&served, expr, now + Millis::MINUTE * 20).await.expect("it is forecast");
    for _ in 0..12 {
        served.write(&[("leak_ratio job=shop", 0.05), ("leak_ratio job=other", 0.1)]).await;
        served.advance(Millis::SECOND * 10).await;
    }
    let after = instant(&served, expr, now + Millis::MINUTE * 20).await.expect("it is forecast");
    assert!((before - after).abs() > 0.05, "{before} became {after}");
}

const RECORDING: &str = r#"groups: [ { name: g, interval: 10s, labels: { team: shop }, rules: [
    { record: "job:hits:sum", expr: "sum by (job, zone) (hits)", labels: { zone: "", by: recorded } },
    { record: "all:hits:sum", expr: "sum(job:hits:sum)" },
    { record: "same:hits", expr: "hits", labels: { job: one, zone: one } } ] } ]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn recording_rules_see_each_other_end_their_series_and_say_how_it_went() {
    let main = "global: { evaluation_interval: 10s }\nstorage: { keep: all }\nrule_files: [rules.yml]\n";
    let served = Served::start(&[("forestall.yml", main), ("rules.yml", RECORDING)]).await;
    let states = served.data("/api/v1/rules").await;
    assert_eq!(states["groups"][0]["rules"][0]["health"], "unknown");
    served.write(&[("hits job=a zone=x", 1.0), ("hits job=b zone=y", 2.0)]).await;
    served.advance(Millis::SECOND * 10).await;
    let now = served.clock.now();
    assert_eq!(instant(&served, "all:hits:sum", now).await, Some(3.0), "a rule sees what the one before it recorded");
    let query = format!("/api/v1/query?query={}&time={}", encoded(r#"job:hits:sum{job="a"}"#), now.0 / 1000);
    let metric = json!({"__name__": "job:hits:sum", "job": "a", "by": "recorded", "team": "shop"});
    assert_eq!(served.data(&query).await["result"][0]["metric"], metric, "an empty label is taken away");

    let states = served.data("/api/v1/rules").await;
    let rules = states["groups"][0]["rules"].as_array().expect("rules");
    assert_eq!((&rules[0]["health"], &rules[0]["lastEvaluation"]), (&json!("ok"), &json!(now.to_string())));
    assert_eq!((&rules[2]["health"], rules[2]["labels"]["job"].as_str()), (&json!("err"), Some("one")));
    let why = "vector contains metrics with the same labelset after applying rule labels";
    assert_eq!(rules[2]["lastError"], why);
    assert_eq!(instant(&served, "count(same:hits)", now).await, None, "a rule that fails records nothing");
    let one = served.data("/api/v1/rules?rule_name[]=all:hits:sum").await;
    assert_eq!(one["groups"][0]["rules"].as_array().map(Vec::len), Some(1), "{one}");
    assert_eq!(served.data("/api/v1/rules?type=alert").await, json!({"groups": []}));
    assert_eq!(served.get("/api/v1/rules?type=other").await.0, StatusCode::BAD_REQUEST);

    // A series that the expression no longer gives ends with that evaluation, not five minutes later.
    served.write(&[("hits job=a zone=x", 5.0), ("hits job=b zone=y", f64::from_bits(0x7ff0_0000_0000_0002))]).await;
    served.advance(Millis::SECOND * 10).await;
    let now = served.clock.now();
    assert_eq!(instant(&served, r#"job:hits:sum{job="b"}"#, now).await, None);
    assert_eq!(instant(&served, "all:hits:sum", now).await, Some(5.0));
}
