//! KEDA from its own side: its client asks the external scaler, and its `prometheus` trigger asks the query API.

use std::collections::HashMap;
use std::time::Duration;

use forestall::api::keda::proto::external_scaler_client::ExternalScalerClient;
use forestall::api::keda::proto::{GetMetricsRequest, ScaledObjectRef};
use forestall::api::keda::serve_keda;
use forestall::forecast::Path;
use forestall::model::Millis;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::api::{Served, leaking};
use crate::real::SOON;

const STEP: Millis = Millis(10_000);

/// A client of the scaler of a server.
async fn client(served: &Served) -> ExternalScalerClient<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    tokio::spawn(serve_keda(served.app.shared().clone(), listener, std::future::pending()));
    let endpoint = Endpoint::from_shared(address).expect("an address").timeout(SOON);
    ExternalScalerClient::new(endpoint.connect().await.expect("it listens"))
}

/// What KEDA sends of a trigger with this metadata; it adds `scalerAddress`.
fn object(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let mut all: HashMap<String, String> =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.insert("scalerAddress".to_owned(), "forestall:9798".to_owned());
    ScaledObjectRef { name: "shop".to_owned(), namespace: "prod".to_owned(), scaler_metadata: all }
}

fn leak(more: &[(&str, &str)]) -> ScaledObjectRef {
    object(&[&[("component", "app/shop"), ("signal", "leaks/memory"), ("targetValue", "0.75")], more].concat())
}

async fn metric(client: &mut ExternalScalerClient<Channel>, object: ScaledObjectRef) -> f64 {
    let request = GetMetricsRequest { scaled_object_ref: Some(object), metric_name: "s0-any".to_owned() };
    let answer = client.get_metrics(request).await.expect("a value").into_inner();
    let [value] = &answer.metric_values[..] else { panic!("one value: {answer:?}") };
    assert_eq!(value.metric_name, "s0-any");
    let above = value.metric_value as f64 - value.metric_value_float;
    assert!((0.0..1.0).contains(&above), "the whole number above, for clients that know no others: {value:?}");
    value.metric_value_float
}

/// The path of the signal in the newest report.
fn path(served: &Served) -> Path {
    let report = served.app.shared().report.load_full().expect("a pass was made");
    let shop = report.assessments.iter().find(|a| a.component.to_string() == "app/shop").expect("it is watched");
    shop.signals[0].foresight.path.clone().expect("it has a path")
}

#[tokio::test(flavor = "multi_thread")]
async fn values_follow_the_forecast() {
    let served = leaking("observe").await;
    let mut client = client(&served).await;
    let spec = client.get_metric_spec(leak(&[])).await.expect("a spec").into_inner();
    let [spec] = &spec.metric_specs[..] else { panic!("one metric: {spec:?}") };
    assert_eq!(spec.metric_name, "forestall-leaks-memory");
    assert_eq!((spec.target_size, spec.target_size_float.to_bits()), (1, 0.75_f64.to_bits()));

    let now = served.data("/api/v1/query?query=leak_ratio{job=\"shop\"}").await;
    let now: f64 = now["result"][0]["value"][1].as_str().expect("a value").parse().expect("a number");
    let path = path(&served);
    for (lead, seconds, quantile) in [("10m", 600, 0.9), ("10m", 600, 0.5), ("25m", 1500, 0.9)] {
        let object = leak(&[("lead", lead), ("quantile", &quantile.to_string())]);
        let value = metric(&mut client, object).await;
        let steps = usize::try_from(seconds * 1000 / path.step.0).expect("a count");
        let level = path.level(quantile).expect("the forecast has it");
        let wanted = level[..steps].iter().copied().fold(now, f64::max);
        assert!((value - wanted).abs() < 1e-9, "{lead} {quantile}: {value} is not {wanted}");
        assert!(value > now, "it grows: {value} after {now}");
    }
    let near = metric(&mut client, leak(&[("lead", "5m")])).await;
    let far = metric(&mut client, leak(&[("lead", "25m")])).await;
    assert!(near < far, "the farther, the more: {near}, {far}");

    for (activation, wanted) in [("0.1", true), ("0.99", false)] {
        let object = leak(&[("activationTargetValue", activation), ("lead", "5m"), ("quantile", "0.5")]);
        assert_eq!(client.is_active(object).await.expect("known").into_inner().result, wanted, "{activation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_at_once_and_when_it_changes() {
    let served = leaking("observe").await;
    let mut client = client(&served).await;
    let far = metric(&mut client, leak(&[("lead", "5m")])).await;
    let object = leak(&[("activationTargetValue", &(far * 1.2).to_string()), ("lead", "5m")]);
    let mut stream = client.stream_is_active(object).await.expect("a stream").into_inner();
    assert!(!stream.message().await.expect("it holds").expect("a first word").result);
    let mut growing = far;
    let changed = async {
        loop {
            tokio::select! {
                word = stream.message() => return word.expect("it holds").expect("a second word").result,
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    growing += 0.02;
                    served.write(&[("leak_ratio job=shop", growing)]).await;
                    served.advance(STEP).await;
                }
            }
        }
    };
    assert!(tokio::time::timeout(SOON, changed).await.expect("it grows beyond the level"));
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_wrong_with_a_trigger_and_tells_no_zero_for_what_is_not_known() {
    let served = leaking("observe").await;
    let mut client = client(&served).await;
    for (object, code, part) in [
        (object(&[]), Code::InvalidArgument, "has no `targetValue`"),
        (object(&[("targetValue", "1")]), Code::InvalidArgument, "has no `component`"),
        (leak(&[("targetValue", "0")]), Code::InvalidArgument, "`targetValue` \"0\" is no number above 0"),
        (leak(&[("targetValue", "much")]), Code::InvalidArgument, "\"much\" is no number above 0"),
        (leak(&[("lead", "soon")]), Code::InvalidArgument, "`lead` \"soon\" is no duration like 15m"),
        (leak(&[("quantile", "90")]), Code::InvalidArgument, "`quantile` \"90\" is no share"),
        (leak(&[("signal", "leaks/cpu")]), Code::InvalidArgument, "must be one of \"app/shop\": leaks/memory"),
        (leak(&[("component", "app/shp")]), Code::NotFound, "no component \"app/shp\" is watched"),
    ] {
        let request = GetMetricsRequest { scaled_object_ref: Some(object.clone()), metric_name: String::new() };
        let error = client.get_metrics(request).await.expect_err(part);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(part), "{error}");
    }
    let mut big = leak(&[]);
    big.name = "x".repeat(100_000);
    assert_eq!(client.is_active(big).await.expect_err("too large").code(), Code::OutOfRange);
    // Without data it is unknown, not healthy.
    for _ in 0..60 {
        served.advance(STEP).await;
    }
    let error = client.is_active(leak(&[])).await.expect_err("nothing is known");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    served.clock.advance_to(served.clock.now() + Millis::MINUTE * 6);
    let error = client.is_active(leak(&[])).await.expect_err("nobody looks");
    assert!(error.message().contains("the newest pass was made 6m ago"), "{error}");
}

/// What KEDA's `prometheus` trigger sends for a query: a GET with `query` and `time` in RFC 3339, and reads the one value.
#[tokio::test(flavor = "multi_thread")]
async fn the_prometheus_trigger_reads_the_forecast() {
    let served = leaking("observe").await;
    let now = served.clock.now();
    let time = now.to_string().replace(":", "%3A");
    let query = "forestall_component_failure_probability%7Bcomponent%3D%22app%2Fshop%22%7D";
    let (status, answer) = served.get(&format!("/api/v1/query?query={query}&time={time}")).await;
    assert_eq!((status.as_u16(), &answer["status"]), (200, &json!("success")), "{answer}");
    assert_eq!(answer["data"]["resultType"], "vector");
    let result = answer["data"]["result"].as_array().expect("a vector");
    assert_eq!(result.len(), 1, "KEDA refuses several values");
    let value: f64 = result[0]["value"][1].as_str().expect("text").parse().expect("a number");
    let report = served.app.shared().report.load_full().expect("a pass was made");
    let shop = report.assessments.iter().find(|a| a.component.to_string() == "app/shop").expect("it is watched");
    assert!((value - shop.probability.expect("known")).abs() < 1e-9);
}
