//! The HTTP API of a server in this process: what it answers to good and bad requests, compared with a real Prometheus
//! where it does the same job.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use forestall::api::{QueryOptions, WebOptions};
use forestall::app::{App, Options};
use forestall::clock::Clock;
use forestall::ingest::{compress, encode_v1, encode_v2};
use forestall::model::{Labels, Millis, Sample, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::real::{Alertmanager, Folder, Prometheus, Recorder, SOON, Suite, eventually, http, parts};

/// When the simulated clocks start: a multiple of a minute.
pub(crate) const START: Timestamp = Timestamp(1_767_225_600_000);
const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
pub(crate) const TOKEN: &str = "the operator's token";
const KEEP_ALL: &str = "global: { evaluation_interval: 10s }\nstorage: { keep: all }\n";

/// A forestall in this process, with its clock in our hands.
pub(crate) struct Served {
    pub(crate) app: Arc<App>,
    pub(crate) clock: Clock,
    base: String,
    pub(crate) folder: Folder,
    _stop: watch::Sender<bool>,
}

impl Served {
    /// One with these files, the first of them the main file. It makes a pass when [`Served::advance`] is called.
    pub(crate) async fn start(files: &[(&str, &str)]) -> Served {
        Served::start_in(Folder::new("served"), files).await
    }

    /// The same in a folder that may have something in it.
    pub(crate) async fn start_in(folder: Folder, files: &[(&str, &str)]) -> Served {
        Served::start_with(folder, files, WebOptions::default()).await
    }

    async fn start_with(folder: Folder, files: &[(&str, &str)], web: WebOptions) -> Served {
        let (served, listener, _) = Served::build(folder, files, web).await;
        let router = forestall::api::router(served.app.shared().clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        served
    }

    /// The same with everything that `forestall serve` runs, and with reload over HTTP; its clock stands.
    async fn start_whole(files: &[(&str, &str)]) -> Served {
        let web = WebOptions { enable_lifecycle: true, ..WebOptions::default() };
        let (served, listener, stopped) = Served::build(Folder::new("served"), files, web).await;
        tokio::spawn(served.app.clone().serve(listener, stopped));
        served
    }

    async fn build(
        folder: Folder,
        files: &[(&str, &str)],
        web: WebOptions,
    ) -> (Served, TcpListener, watch::Receiver<bool>) {
        for (name, text) in files {
            folder.write(name, text);
        }
        let clock = Clock::simulated(START);
        let options = Options {
            config_file: Some(folder.path(files[0].0).into()),
            storage_path: Some(folder.path("data").into()),
            web,
            clock: clock.clone(),
        };
        let app = Arc::new(App::build(options).unwrap_or_else(|error| panic!("{error}")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let (stop, stopped) = watch::channel(false);
        (Served { app, clock, base, folder, _stop: stop }, listener, stopped)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Another app over the same files, as after a restart; nobody serves it.
    pub(crate) fn restarted(&self) -> App {
        let options = Options {
            config_file: Some(self.folder.path("forestall.yml").into()),
            storage_path: Some(self.folder.path("data").into()),
            web: WebOptions::default(),
            clock: self.clock.clone(),
        };
        App::build(options).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Moves the clock, and makes a pass.
    pub(crate) async fn advance(&self, span: Millis) {
        self.clock.advance_to(self.clock.now() + span);
        self.app.pass(self.clock.now()).await;
    }

    /// Writes a value of each of some series now.
    pub(crate) async fn write(&self, values: &[(&str, f64)]) {
        let at = self.clock.now();
        let series: Vec<_> =
            values.iter().map(|(text, value)| (labels(text), vec![Sample { at, value: *value }])).collect();
        let (status, text, _) = self.post(V1, "snappy", encode_v1(&series)).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    }

    async fn post(&self, content_type: &str, encoding: &str, body: Vec<u8>) -> (StatusCode, String, Vec<String>) {
        let mut request = http().post(self.url("/api/v1/write")).body(body);
        for (name, value) in [("content-type", content_type), ("content-encoding", encoding)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.expect("it answers");
        let written = ["samples", "histograms", "exemplars"].map(|what| {
            let value = answer.headers().get(format!("x-prometheus-remote-write-{what}-written"));
            value.map_or("", |v| v.to_str().expect("a number")).to_owned()
        });
        (answer.status(), answer.text().await.expect("text"), written.to_vec())
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        json_of(http().get(self.url(path))).await
    }

    /// The data of an answer that must be a success.
    pub(crate) async fn data(&self, path: &str) -> Value {
        let (status, mut answer) = self.get(path).await;
        assert_eq!((status, &answer["status"]), (StatusCode::OK, &json!("success")), "{path}: {answer}");
        answer["data"].take()
    }

    pub(crate) async fn text(&self, path: &str) -> (StatusCode, String) {
        let answer = http().get(self.url(path)).send().await.expect("it answers");
        (answer.status(), answer.text().await.expect("text"))
    }
}

pub(crate) async fn json_of(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.expect("it answers");
    let status = answer.status();
    let text = answer.text().await.expect("text");
    (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

/// `name a=1 b=2`
fn labels(text: &str) -> Labels {
    let mut parts = text.split(' ');
    let name = parts.next().filter(|name| !name.is_empty()).map(|name| ("__name__".to_owned(), name.to_owned()));
    let pairs = parts.map(|pair| pair.split_once('=').expect("name=value"));
    Labels::new(name.into_iter().chain(pairs.map(|(n, v)| (n.to_owned(), v.to_owned()))))
}

fn one(text: &str, at: Timestamp, value: f64) -> (Labels, Vec<Sample>) {
    (labels(text), vec![Sample { at, value }])
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_good_writes_and_refuses_bad_ones_with_the_reason() {
    let limited = format!("{KEEP_ALL}ingest: {{ max_wire_size: 64KiB, max_decoded_size: 128KiB, max_series: 100 }}\n");
    let served = Served::start(&[("forestall.yml", &limited)]).await;
    let many: Vec<_> = (0..101).map(|i| one(&format!("many i={i}"), START, 1.0)).collect();
    let mixed = [one("kept job=a", START, 1.0), one(" job=nameless", START, 2.0)];
    let good = [one("hits job=a", START, 1.0), one("hits job=b", START, 2.0)];
    let noise: Vec<u8> = (0..70_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let cases: &[(&str, &str, Vec<u8>, u16, &str)] = &[
        (V1, "snappy", encode_v1(&good), 204, ""),
        (V1, "snappy", encode_v1(&good), 204, ""),
        (V1, "snappy", b"no snappy at all".to_vec(), 400, "snappy"),
        (V1, "snappy", compress(b"no protobuf at all"), 400, "message"),
        (V2, "snappy", compress(b"no protobuf at all"), 400, "message"),
        (V1, "snappy", encode_v1(&mixed), 400, "no metric name (label `__name__`): 1 series with 1 samples refused"),
        (V1, "snappy", noise, 413, "the body is larger than 65536 bytes: send fewer samples a request"),
        (V1, "snappy", compress(&[0; 200_000]), 413, "131072"),
        (V1, "snappy", encode_v1(&many), 413, "100"),
        ("application/json", "snappy", b"{}".to_vec(), 415, "content type `application/json` is not supported; send"),
        ("", "snappy", encode_v1(&good), 415, "content type"),
        (V1, "gzip", encode_v1(&good), 415, "content encoding `gzip` is not supported; send `snappy`"),
        (V1, "", encode_v1(&good), 415, "content encoding"),
        ("application/x-protobuf;proto=a.b.C", "snappy", encode_v1(&good), 415, "is not supported"),
    ];
    for (content_type, encoding, body, status, part) in cases {
        let (got, text, _) = served.post(content_type, encoding, body.clone()).await;
        assert_eq!(got.as_u16(), *status, "{content_type} {encoding} {part}: {text}");
        assert!(
            text.contains(part) && text.is_empty() == part.is_empty(),
            "{status}: {text:?} says nothing of {part:?}"
        );
    }
    let time = START.0 / 1000;
    let kept = served.data(&format!("/api/v1/query?query=kept&time={time}")).await;
    assert_eq!(kept["result"][0]["value"], json!([time, "1"]), "the good samples of a mixed batch are kept");
    assert_eq!(served.data(&format!("/api/v1/query?query=many&time={time}")).await["result"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn says_in_remote_write_2_how_much_was_written() {
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    let good = [one("hits job=a", START, 1.0), one("hits job=b", START, 2.0)];
    let mixed = [one("hits job=c", START, 1.0), one(" job=nameless", START, 2.0)];
    for (body, status, samples) in [(encode_v2(&good), 204, "2"), (encode_v2(&mixed), 400, "1")] {
        let (got, text, written) = served.post(V2, "snappy", body).await;
        assert_eq!(got.as_u16(), status, "{text}");
        assert_eq!(written, [samples, "0", "0"]);
    }
    let (_, _, written) = served.post(V1, "snappy", encode_v1(&good)).await;
    assert_eq!(written, ["", "", ""], "1.0 has no such headers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_readable_once_it_is_answered() {
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    for i in 0..50 {
        served.clock.advance_to(START + Millis(i * 100));
        served.write(&[("counter job=a", i as f64)]).await;
        let found = served.data("/api/v1/query?query=counter").await;
        assert_eq!(found["result"][0]["value"][1], i.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_test_of_grafanas_data_source() {
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    let form = [("query", "1+1"), ("time", "4")];
    let (status, answer) = json_of(http().post(served.url("/api/v1/query")).form(&form)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer, json!({"status": "success", "data": {"resultType": "scalar", "result": [4, "2"]}}));
    assert!(served.data("/api/v1/status/buildinfo").await["version"].is_string());
    assert_eq!(served.data("/api/v1/labels").await, json!([]));
    assert_eq!(served.data("/api/v1/rules").await, json!({"groups": []}));
    assert_eq!(served.data("/api/v1/metadata").await, json!({}));
    let form = [("match[]", "up"), ("start", "0"), ("end", "5")];
    let (status, answer) = json_of(http().post(served.url("/api/v1/series")).form(&form)).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"status": "success", "data": []})));
}

/// Requests that both answer with the same status and, apart from the place of a PromQL error, the same words.
const SAME_AS_PROMETHEUS: &[&str] = &[
    "query?query=hits&time=T",
    "query?query=hits{job=\"a\"}[2m]&time=T",
    "query?query=sum by (job) (rate(hits[1m]))&time=T",
    "query?query=1%2B1&time=4",
    "query?query=\"text\"&time=4.25",
    "query?query=hits&time=T&lookback_delta=1s",
    "query?query=hits offset 1y&time=T",
    "query?query=1/0&time=4",
    "query?query=-1e30*hits&time=T",
    "query_range?query=hits&start=F&end=T&step=15",
    "query_range?query=hits*2&start=F&end=T&step=30s",
    "query_range?query=1&start=F&end=T&step=1m",
    "query_range?query=absent(nothing)&start=F&end=F&step=1m",
    "series?match[]=hits",
    "series?match[]=hits&match[]={job=\"b\"}",
    "series?match[]=hits&limit=1",
    "series?match[]=nothing",
    "series?match[]=hits&start=0&end=1",
    "labels",
    "labels?match[]=gauge",
    "labels?start=F&end=T",
    "label/job/values",
    "label/job/values?match[]=gauge",
    "label/__name__/values",
    "label/nothing/values",
    "format_query?query=sum(hits)by(job)",
    "parse_query?query=sum by (job) (rate(hits{job=~\"a.*\",z!=\"\"}[5m] offset -1m @ start()))",
    "parse_query?query=topk(3, hits / on(job) group_left(z) gauge > bool 1)",
    "parse_query?query=-(max_over_time(hits[1h:1m] @ 5)) + 1e30",
    "parse_query?query={__name__=\"hits\",z!~\"b\"} and label_join(gauge, \"a\", \"b\", \"c\") unless round(hits, 5) or minute()",
    "parse_query?query=quantile without (a, b) (0.9, {\"a.b\"} offset 1h30m) - NaN * -Inf",
    "parse_query?query=hits * ignoring(job) group_right gauge == 2 ^ (1 atan2 3)",
    "parse_query?query=\"text\"",
    "parse_query?query=sum(",
    "metadata?limit=x",
    "metadata?limit_per_metric=x",
    "metadata?metric=nothing&limit=-1",
    "rules?type=other",
    "rules",
    "alerts",
    "query_exemplars?query=hits&start=F&end=T",
    "query",
    "query?query=sum(",
    "query?query=hits&time=yesterday",
    "query?query=hits&timeout=soon",
    "query?query=hits&lookback_delta=soon",
    "query?query=rate(hits)&time=T",
    "query?query=hits%2Bgauge[1m]&time=T",
    "query?query=hits*on(job)(gauge or hits)&time=T",
    "query_range?query=hits",
    "query_range?query=hits&start=F",
    "query_range?query=hits&start=F&end=T",
    "query_range?query=hits&start=T&end=F&step=15",
    "query_range?query=hits&start=F&end=T&step=0",
    "query_range?query=hits&start=F&end=T&step=-1",
    "query_range?query=hits&start=F&end=T&step=soon",
    "query_range?query=hits&start=0&end=T&step=1",
    "query_range?query=hits[1m]&start=F&end=T&step=15",
    "series",
    "series?match[]={}",
    "series?match[]={job=~\".*\"}",
    "series?match[]=sum(",
    "series?match[]=hits&start=yesterday",
    "series?match[]=hits&limit=-1",
    "labels?match[]={}",
    "labels?start=yesterday",
    "label/job/values?match[]={}",
    "label/job/values?end=tomorrow",
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_queries_good_and_bad_as_prometheus_does() {
    let Some(parts) = parts() else { return };
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    let prometheus = Prometheus::start(&parts, Suite::Sid, "global: {}\n").await;
    let from = START - Millis::MINUTE * 2;
    let samples =
        |slope: f64| (0..=12).map(|i| Sample { at: from + Millis(i * 10_000), value: i as f64 * slope }).collect();
    let series: Vec<(Labels, Vec<Sample>)> = vec![
        (labels("hits job=a"), samples(1.0)),
        (labels("hits job=b"), samples(2.5)),
        (labels("gauge job=a z=ü"), samples(-1.0)),
    ];
    let body = encode_v1(&series);
    let (status, text, _) = served.post(V1, "snappy", body.clone()).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    let request =
        http().post(prometheus.url("/api/v1/write")).header("content-type", V1).header("content-encoding", "snappy");
    let answer = request.body(body).send().await.expect("Prometheus answers");
    assert!(answer.status().is_success(), "{answer:?}");

    let mut different = String::new();
    for request in SAME_AS_PROMETHEUS {
        let seconds = |at: Timestamp| (at.0 / 1000).to_string();
        let path = request.replace("=T", &format!("={}", seconds(START))).replace("=F", &format!("={}", seconds(from)));
        let path =
            format!("/api/v1/{}", path.replace(' ', "%20").replace('{', "%7B").replace('}', "%7D").replace('"', "%22"));
        let theirs = comparable(json_of(http().get(prometheus.url(&path))).await);
        let ours = comparable(served.get(&path).await);
        if ours != theirs {
            different.push_str(&format!("{request}\n  Prometheus: {theirs}\n  forestall:  {ours}\n"));
        }
    }
    assert!(different.is_empty(), "\n{different}");
}

/// What counts of an answer: its status and its data, or its kind of error and its words. An instant vector has no order,
/// and what is wrong with a PromQL expression is each parser's to say.
fn comparable((status, mut answer): (StatusCode, Value)) -> String {
    if let Some(result) = answer.pointer_mut("/data/result").and_then(Value::as_array_mut) {
        result.sort_by_key(ToString::to_string);
    }
    let mut error = answer["error"].as_str().unwrap_or("").to_owned();
    if let Some(at) = error.find("parse error") {
        // `invalid parameter "query": 1:2: parse error: …`
        error = error[..at].split(": ").next().unwrap_or("").to_owned();
    }
    format!("{} {} {error} {}", status.as_u16(), answer["errorType"], answer["data"])
}

/// Half a second of work and more, and few samples.
const SLOW: &str = "/api/v1/query_range?query=sum_over_time(vector(1)[10h:1s])&start=0&end=30000&step=5";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_ended_when_its_time_is_over_and_others_wait_for_a_slot() {
    let query = QueryOptions { concurrency_max: 1, ..QueryOptions::default() };
    let web = WebOptions { query, ..WebOptions::default() };
    let served = Served::start_with(Folder::new("served"), &[("forestall.yml", KEEP_ALL)], web).await;
    let (status, answer) = served.get(&format!("{SLOW}&timeout=10ms")).await;
    let late = json!({"status": "error", "errorType": "timeout", "error": "query timed out in expression evaluation"});
    assert_eq!((status, answer), (StatusCode::SERVICE_UNAVAILABLE, late));
    // What nobody waits for any more ends, and gives its slot back.
    assert_eq!(served.data("/api/v1/query?query=1&time=4").await["result"], json!([4, "1"]));

    // Whoever leaves ends what was asked.
    let slow = http().get(served.url(SLOW)).timeout(Duration::from_millis(50)).send().await;
    assert!(slow.is_err_and(|error| error.is_timeout()));
    assert_eq!(served.data("/api/v1/query?query=1&time=4").await["result"], json!([4, "1"]));

    let (running, url) = (http().get(served.url(SLOW)).send(), served.url("/api/v1/query?query=1&timeout=1ms"));
    // The slow one may not have its slot yet, and on a busy machine a millisecond is short for the other, too.
    let waiting = async { while json_of(http().get(&url)).await.1["error"] != "query timed out in query queue" {} };
    let mut running = std::pin::pin!(running);
    tokio::select! {
        slow = &mut running => panic!("nobody waited for {slow:?}"),
        () = waiting => {}
    }
    assert_eq!(running.await.expect("it answers").status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_a_query_took_where_it_is_asked_to() {
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    served.write(&[("hits job=a", 1.0), ("hits job=b", 2.0)]).await;
    let at = START.0 / 1000;
    let data = served.data(&format!("/api/v1/query?query=sum(hits)&time={at}&stats=all")).await;
    assert_eq!(data["result"][0]["value"], json!([at, "3"]));
    assert!(data["stats"]["samples"]["totalQueryableSamples"].as_u64() >= Some(2), "{data}");
    assert!(data["stats"]["samples"]["peakSamples"].as_u64() >= Some(2), "{data}");
    assert!(data["stats"]["timings"]["execTotalTime"].as_f64() >= Some(0.0), "{data}");
    let plain = served.data(&format!("/api/v1/query?query=sum(hits)&time={at}")).await;
    assert_eq!(plain["stats"], Value::Null);
    let found = served.data("/api/v1/status/tsdb?limit=1").await;
    assert_eq!(found["seriesCountByMetricName"], json!([{"name": "hits", "value": 2}]));
    assert_eq!((&found["headStats"]["numLabelPairs"], &found["headStats"]["minTime"]), (&json!(3), &json!(START.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_beyond_the_limit_are_left_out_with_a_warning() {
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    served.write(&[("hits job=a", 1.0), ("hits job=b", 2.0), ("hits job=c", 3.0)]).await;
    let at = START.0 / 1000;
    let range = format!("query_range?query=hits&start={at}&end={at}&step=1");
    for request in [&format!("query?query=hits&time={at}"), &range, "series?match[]=hits", "label/job/values"] {
        let separator = if request.contains('?') { '&' } else { '?' };
        for (limit, left, warns) in [(2, 2, true), (3, 3, false), (0, 3, false)] {
            let (status, answer) = served.get(&format!("/api/v1/{request}{separator}limit={limit}")).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            let data = answer["data"].get("result").unwrap_or(&answer["data"]);
            assert_eq!(data.as_array().map(Vec::len), Some(left), "{request}, {limit}: {answer}");
            let warnings = if warns { json!(["results truncated due to limit"]) } else { Value::Null };
            assert_eq!(answer["warnings"], warnings, "{request}, {limit}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_can_query() {
    let Some(parts) = parts() else { return };
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    served.write(&[("hits job=a", 1.0), ("hits job=b", 2.0)]).await;
    let (from, to) = (format!("--start={}", START.0 / 1000 - 60), format!("--end={}", START.0 / 1000));
    let time = format!("--time={}", START.0 / 1000);
    let url = &served.base;
    let run = |args: &[&str]| parts.run(Suite::Sid, "promtool", &[&["query"], args].concat());
    let instant = run(&["instant", &time, url, "sum(hits)"]);
    assert!(instant.contains("=> 3 @"), "{instant}");
    let range = run(&["range", &from, &to, "--step=30s", url, "hits{job=\"a\"}"]);
    assert!(range.contains("hits{job=\"a\"} =>\n1 @"), "{range}");
    let series = run(&["series", "--match=hits", &from, &to, url]);
    assert!(series.contains("{__name__=\"hits\", job=\"a\"}") && series.contains("job=\"b\""), "{series}");
    let values = run(&["labels", &from, &to, url, "job"]);
    assert_eq!(values.trim(), "a\nb");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_say_what_is_the_matter() {
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    assert_eq!(served.text("/-/healthy").await, (StatusCode::OK, "forestall is healthy.\n".to_owned()));
    let starting = (StatusCode::SERVICE_UNAVAILABLE, "forestall is starting.\n".to_owned());
    assert_eq!(served.text("/-/ready").await, starting);
    served.advance(Millis::SECOND * 10).await;
    let ready = (StatusCode::OK, "forestall is ready.\n".to_owned());
    assert_eq!(served.text("/-/ready").await, ready);

    let (status, answer) = served.get("/api/v1/nothing").await;
    assert_eq!((status, &answer["errorType"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{answer}");
    let (status, _) = served.text("/-/reload").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "nothing changes on GET");
}

/// A leak that is foreseen within half an hour, and a policy that waits for a person.
pub(crate) const LEAK_RULES: &str = "groups: [ { name: g, interval: 10s, rules: [ {
    predict: leaks, component: { kind: app, by: [job], impact: 0.6, target: { name: job } }, horizon: 30m,
    signals: [ { name: memory, expr: max by (job) (leak_ratio), breach: { above: 0.9, for: 10s } } ] } ] } ]\n";
pub(crate) const LEAK_POLICIES: &str = "policies: [ { name: apps, match: { kind: app }, mode: MODE,
    ladder: [ { action: migrate, actuator: paper, actuation_time: 30s } ] } ]\n";

/// A server that foresees the breach of `app/shop` and would migrate it.
pub(crate) async fn leaking(mode: &str) -> Served {
    leaking_with(mode, "{ dry_run: {} }").await
}

pub(crate) async fn leaking_with(mode: &str, actuator: &str) -> Served {
    leaking_in(Folder::new("served"), mode, actuator).await
}

pub(crate) async fn leaking_in(folder: Folder, mode: &str, actuator: &str) -> Served {
    let main = format!(
        "global: {{ evaluation_interval: 10s, mode: act, start_hold: 0s }}\nrule_files: [rules.yml]\n\
         policy_files: [policies.yml]\nactuators: {{ paper: {actuator} }}\nweb: {{ operator_token_file: token }}\n"
    );
    let policies = LEAK_POLICIES.replace("MODE", mode);
    let files =
        [("forestall.yml", main.as_str()), ("rules.yml", LEAK_RULES), ("policies.yml", &policies), ("token", TOKEN)];
    let served = Served::start_in(folder, &files).await;
    for step in 0..230 {
        served.write(&[("leak_ratio job=shop", 0.003 * f64::from(step)), ("leak_ratio job=other", 0.1)]).await;
        served.advance(Millis::SECOND * 10).await;
        let report = served.app.shared().report.load_full().expect("a pass was made");
        if !report.plan.waiting.is_empty() || !report.plan.actions.is_empty() {
            return served;
        }
    }
    let report = served.app.shared().report.load_full().expect("a pass was made");
    panic!("nothing is foreseen: {:?}", report.plan.declined);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_on_the_page_once_there_is_data_and_something_was_done() {
    let target = Recorder::start().await;
    target.answer_with(json!({"state": "done"}));
    let actuator = format!("{{ webhook: {{ url: '{}', allow_local: true }} }}", target.url("/actions"));
    let served = leaking_with("act", &actuator).await;
    let values = [("leak_ratio job=shop", 0.7), ("leak_ratio job=other", 0.1)];
    for _ in 0..3 {
        served.write(&values).await;
        served.advance(Millis::SECOND * 10).await;
    }
    assert_eq!(target.requests("/actions").len(), 1);
    let (_, page) = served.text("/metrics").await;
    // How good forecasts were is known once a horizon has passed since the first.
    for _ in 0..60 {
        served.write(&values).await;
        served.advance(Millis::SECOND * 10).await;
    }
    let (_, later) = served.text("/metrics").await;
    crate::deploy::every_metric_is_on(&format!("{page}{later}"));
    for row in [
        "forestall_decisions_total{action=\"migrate\",outcome=\"confirmed\",reason=\"\"} 1",
        "forestall_action_duration_seconds_count{action=\"migrate\"} 1",
        "forestall_leader{} 1.0",
    ] {
        assert!(page.lines().any(|line| line == row), "{row} is not on the page:\n{page}");
    }
    let open = http().get(served.url("/metrics")).header("accept", "application/openmetrics-text; version=1.0.0");
    let open = open.send().await.expect("it answers");
    assert!(open.headers()["content-type"].to_str().is_ok_and(|t| t.starts_with("application/openmetrics-text")));
    let open = open.text().await.expect("text");
    assert!(open.contains("# TYPE forestall_decisions counter\n") && open.ends_with("\n# EOF\n"), "{open}");
    assert!(page.contains("# TYPE forestall_decisions_total counter\n") && !page.contains("# EOF"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_waits_for_a_person_with_the_token() {
    let served = leaking("approve").await;
    let waiting = served.data("/api/v1/forestall/approvals").await["waiting"].take();
    let id = waiting[0]["id"].as_str().expect("an action waits").to_owned();
    assert_eq!(waiting[0]["component"], "app/shop");
    assert_eq!(waiting[0]["approved"], false);
    let approve = async |id: &str, token: &str| {
        let url = served.url(&format!("/api/v1/forestall/approvals/{id}"));
        json_of(http().post(url).bearer_auth(token).json(&json!({"approve": true, "reason": "go on"}))).await
    };
    for (id, token, status, kind) in [
        (id.as_str(), "guessed", StatusCode::UNAUTHORIZED, "forbidden"),
        ("no-such-action", TOKEN, StatusCode::NOT_FOUND, "not_found"),
    ] {
        let (got, answer) = approve(id, token).await;
        assert_eq!((got, &answer["errorType"]), (status, &json!(kind)), "{answer}");
    }
    let (status, answer) = approve(&id, TOKEN).await;
    assert_eq!((status, &answer["data"]["approved"]), (StatusCode::OK, &json!(true)), "{answer}");
    served.write(&[("leak_ratio job=shop", 0.7)]).await;
    served.advance(Millis::SECOND * 10).await;
    let done = "/api/v1/forestall/decisions?component=app/shop&outcome=dry_run";
    let decision = served.data(done).await["decisions"][0].take();
    assert_eq!(decision["actions"][0]["kind"], "migrate", "{decision}");
    assert_eq!(served.data("/api/v1/forestall/approvals").await["waiting"], json!([]));
}

/// How many of the leak rule's predictions ended so.
fn resolved(served: &App, outcome: &str) -> u64 {
    let report = served.shared().report.load_full().expect("a pass was made");
    let quality = report.quality.iter().find(|quality| quality.rule == "leaks").expect("the rule has said something");
    quality.counts.iter().find(|(resolution, _)| resolution.name() == outcome).map_or(0, |(_, count)| *count)
}

fn alert(labels: Value, start: Timestamp) -> Value {
    json!({"status": "firing", "labels": labels, "startsAt": start.to_string(), "endsAt": "0001-01-01T00:00:00Z"})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_a_failure_that_was_foreseen_and_what_that_is_worth_survives_a_restart() {
    let served = leaking("observe").await;
    let tell = async |token: &str, body: &Value| {
        let url = served.url("/api/v1/forestall/alerts");
        json_of(http().post(url).bearer_auth(token).json(body)).await
    };
    let now = served.clock.now();
    let known = alert(json!({"alertname": "Down", "job": "shop"}), now);
    let body = json!({"version": "4", "alerts": [
        known,
        alert(json!({"alertname": "PredictedFailure", "forecast": "true", "job": "shop"}), now),
        alert(json!({"alertname": "Down", "job": "nowhere"}), now),
    ]});
    for (token, body, status, part) in [
        ("guessed", &body, StatusCode::UNAUTHORIZED, "token"),
        (TOKEN, &json!({"version": "4"}), StatusCode::BAD_REQUEST, "missing field `alerts`"),
        (TOKEN, &json!([]), StatusCode::BAD_REQUEST, "no Alertmanager webhook"),
    ] {
        let (got, answer) = tell(token, body).await;
        assert_eq!(got, status, "{answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(part)), "{answer}");
    }
    assert_eq!(resolved(&served.app, "tp"), 0);
    let (status, answer) = tell(TOKEN, &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["data"], json!({"taken": 1, "forecasts": 1, "unmatched": 1}));
    served.advance(Millis::SECOND * 10).await;
    let hits = resolved(&served.app, "tp");
    assert!(hits > 0, "what was foreseen came");
    let page = served.text("/metrics").await.1;
    assert!(page.contains("\nforestall_alerts_total{result=\"taken\"} 1\n"), "{page}");
    assert!(page.contains("\nforestall_channel_precision_ratio{rule=\"leaks\",signal=\"memory\",channel=\"drift\"}"));

    // A summary a day, when the day is over.
    let rows = |kind: &str| {
        let journal = rusqlite::Connection::open(served.folder.path("data/journal.sqlite")).expect("it is a file");
        let count = "SELECT count(*) FROM journal WHERE kind = ?";
        journal.query_row(count, [kind], |row| row.get::<_, i64>(0)).expect("the journal can be read")
    };
    assert_eq!(rows("quality"), 0);
    served.advance(Millis::DAY).await;
    assert_eq!(rows("quality"), 1);
    served.advance(Millis::SECOND * 10).await;
    assert_eq!(rows("quality"), 1);
    assert!(served.app.shared().journal.verify().is_ok());

    let again = served.restarted();
    again.pass(served.clock.now() + Millis::SECOND * 10).await;
    assert_eq!(resolved(&again, "tp"), hits);
}

const SIBLING_RULES: &str = "groups: [ { name: g, interval: 10s, rules: [ {
    predict: siblings, component: { kind: app, by: [job] }, horizon: 30m, regimes: [ max by (job) (generation) ],
    signals: [ { name: load, expr: max by (job) (load_ratio), breach: { above: 0.9, warn: max by (job) (soft) },
                 bounds: [0, 1], peers: { deviation: 6, min_abs: 0.1 } } ] } ] } ]\n";

#[tokio::test(flavor = "multi_thread")]
async fn warns_by_promql_and_sees_who_is_unlike_its_siblings_and_where_a_regime_begins() {
    let main = "global: { evaluation_interval: 10s }\nrule_files: [rules.yml]\n";
    let served = Served::start(&[("forestall.yml", main), ("rules.yml", SIBLING_RULES)]).await;
    for step in 0..140 {
        for (number, job) in (0..).zip(["a", "b", "c", "d", "e", "f", "g"]) {
            let load = if job == "g" && step >= 120 { 0.6 } else { 0.2 + 0.002 * f64::from((number + step) % 5) };
            let generation = if job == "a" && step >= 130 { 2.0 } else { 1.0 };
            let series = ["load_ratio", "soft", "generation"].map(|name| format!("{name} job={job}"));
            served.write(&[(&series[0], load), (&series[1], 0.7), (&series[2], generation)]).await;
        }
        served.advance(Millis::SECOND * 10).await;
    }
    let signal = async |job: &str| served.data(&format!("/api/v1/forestall/components/app/{job}")).await;
    let (unlike, new, other) = (signal("g").await, signal("a").await, signal("b").await);
    assert_eq!(unlike["signals"][0]["warn"], 0.7, "{unlike}");
    assert_eq!(unlike["signals"][0]["peers"]["outlier"], true, "{unlike}");
    assert_eq!((&unlike["standing"], &other["standing"]), (&json!("watch"), &json!("steady")), "{unlike} {other}");
    assert!(unlike["why"].to_string().contains("robust deviations above the median"), "{}", unlike["why"]);
    let drift = |view: &Value| view["signals"][0]["channels"][0]["because"].as_str().unwrap_or("").to_owned();
    assert!(drift(&new).contains("no time scale lies wholly after"), "{new}");
    assert!(!drift(&other).contains("no time scale lies wholly after"), "{other}");
    let page = served.text("/metrics").await.1;
    let row = page.lines().find(|line| line.starts_with("forestall_signal_peer_deviation{") && line.contains("app/g"));
    let deviations = row.and_then(|row| row.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(deviations.is_some_and(|deviations| deviations >= 6.0), "{row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_alertmanager_configuration_tells_of_failures() {
    let Some(parts) = parts() else { return };
    let served = leaking("observe").await;
    let shipped =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alertmanager/forestall.yml"));
    let mut config = String::new();
    let mut taken_in = 0;
    for line in shipped.expect("it ships").lines() {
        let is_route = ["    # - matchers:", "    #   "].iter().any(|start| line.starts_with(start));
        taken_in += usize::from(is_route);
        config.push_str(&if is_route { line.replacen("# ", "", 1) } else { line.to_owned() });
        config.push('\n');
    }
    assert_eq!(taken_in, 4, "{config}");
    let config = config
        .replace("http://forestall:9797", &served.base)
        .replace("/etc/alertmanager/forestall-token", &served.folder.path("token"));
    for suite in [Suite::Bookworm, Suite::Sid] {
        let alertmanager = Alertmanager::start(&parts, suite, &config).await;
        let job = format!("{suite:?}").to_lowercase();
        let start = served.clock.now().to_string();
        let alerts = json!([
            {"labels": {"alertname": "Down", "job": "shop"}, "startsAt": start},
            // In a group of its own: a group that was told of once is silent for minutes.
            {"labels": {"alertname": "Gone", "job": job}, "startsAt": start},
            {"labels": {"alertname": "PredictedFailure", "job": "shop", "forecast": "true"}, "startsAt": start},
        ]);
        let url = format!("http://{}/api/v2/alerts", alertmanager.address());
        let answer = http().post(url).json(&alerts).send().await.expect("Alertmanager answers");
        assert!(answer.status().is_success(), "{}", answer.status());
        let count = if suite == Suite::Bookworm { 1 } else { 2 };
        let rows =
            ["taken", "unmatched"].map(|result| format!("forestall_alerts_total{{result=\"{result}\"}} {count}"));
        eventually("the alerts have arrived, and no forecast among them", SOON, async || {
            let page = served.text("/metrics").await.1;
            rows.iter().all(|row| page.lines().any(|line| line == row)).then_some(())
        })
        .await;
    }
    served.advance(Millis::SECOND * 10).await;
    assert!(resolved(&served.app, "tp") > 0, "what was foreseen came");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_in_the_configuration_nobody_may_approve() {
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    let request =
        http().post(served.url("/api/v1/forestall/approvals/x")).bearer_auth("").json(&json!({"approve": true}));
    let (status, answer) = json_of(request).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("operator_token_file")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acted_on_while_the_journal_cannot_be_written() {
    let served = leaking("observe").await;
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    let journal = rusqlite::Connection::open(served.folder.path("data/journal.sqlite")).expect("the journal is a file");
    journal.busy_timeout(Duration::from_secs(10)).expect("a bound");
    journal.execute_batch(refuse).expect("the journal is open to others");
    let approval =
        http().post(served.url("/api/v1/forestall/approvals/x")).bearer_auth(TOKEN).json(&json!({"approve": true}));
    assert_eq!(json_of(approval).await.0, StatusCode::NOT_FOUND);
    // What is in force has changed by then, so the next decision is worth keeping.
    let degraded = "forestall is ready, degraded: the journal cannot be written: the disk is full; nothing is acted on until \
                    it can be.\n";
    pass_until(&served, degraded).await;
    let page = served.text("/metrics").await.1;
    assert!(page.contains("\nforestall_journal_writable{} 0.0\n"), "{page}");
    assert_eq!(served.data("/api/v1/forestall/plan").await["frame"]["journal_ok"], false);

    journal.execute_batch("DROP TRIGGER full").expect("the journal is open to others");
    pass_until(&served, "forestall is ready.\n").await;
}

/// Passes with a signal that breaches and recovers, so that decisions change, until the readiness is as wanted.
async fn pass_until(served: &Served, readiness: &str) {
    for step in 0..60 {
        let value = if step % 20 < 10 { 0.95 } else { 0.1 };
        served.write(&[("leak_ratio job=shop", value)]).await;
        served.advance(Millis::SECOND * 10).await;
        if served.text("/-/ready").await == (StatusCode::OK, readiness.to_owned()) {
            return;
        }
    }
    panic!("never {readiness:?}: {:?}", served.text("/-/ready").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_last_good_configuration() {
    let served = Served::start_whole(&[("forestall.yml", KEEP_ALL)]).await;
    let reload = async || {
        let answer = http().post(served.url("/-/reload")).send().await.expect("it answers");
        (answer.status(), answer.text().await.expect("text"))
    };
    served.folder.write("forestall.yml", "global: { evaluation_interval: 10s, moed: act }\n");
    let (status, problems) = reload().await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(problems.contains("forestall.yml:1:37: ") && problems.contains("moed"), "{problems}");
    assert_eq!(served.data("/api/v1/status/config").await, json!({"yaml": KEEP_ALL}));

    let better = "global: { evaluation_interval: 20s }\nstorage: { keep: all }\n";
    served.folder.write("forestall.yml", better);
    assert_eq!(reload().await, (StatusCode::OK, String::new()));
    assert_eq!(served.data("/api/v1/status/config").await, json!({"yaml": better}));
    assert_eq!(served.app.pass_interval(), Millis::SECOND * 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_needs_its_flag() {
    let served = Served::start(&[("forestall.yml", KEEP_ALL)]).await;
    for path in ["/-/reload", "/-/quit"] {
        let (status, answer) = json_of(http().post(served.url(path))).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
        assert!(answer["error"].as_str().is_some_and(|e| e.contains("--web.enable-lifecycle")), "{answer}");
    }
    assert!(Path::new(&served.folder.path("data/journal.sqlite")).exists());
}
