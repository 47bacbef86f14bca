//! PromQL beside a real Prometheus 3: the same data in both, the same expressions asked of both over HTTP, instants and ranges.
//! Values, labels, order, result types, errors, warnings and infos must be the same.
//!
//! `FORESTALL_PROMQL_SEEDS=0..20000` chooses which generated expressions are asked; a difference is told with its seed and the
//! smallest expression that still shows one. `FORESTALL_PROMQL_EXPRESSIONS=FILE` asks the lines of a file instead of the corpus.

mod compare;
mod data;
mod generate;

use std::fmt::Write as _;
use std::ops::Range;

use forestall::ingest::encode_v1;
use forestall::model::{Labels, Sample, Timestamp};
use futures::StreamExt as _;
use reqwest::Client;
use serde_json::Value;

use crate::real::{Folder, Forestall, Prometheus, Suite, http, parts};
use compare::{difference, order_of};
use generate::{Random, Tree, expression};

/// Expressions that are asked whenever all tests are.
const SEEDS: Range<u64> = 0..1500;
/// How many requests are under way at a time.
const REQUESTS_AT_A_TIME: usize = 6;
/// How many differences are told before it is enough.
const TOLD_MAX: usize = 12;
/// The moments of instant queries, and the ranges, in seconds after the first sample.
const INSTANTS: [&str; 3] = ["2700", "3333.3", "5100"];
const RANGES: [(i64, i64, &str); 4] = [(1800, 2400, "60"), (2600, 3900, "131.5"), (0, 5700, "600"), (5000, 5130, "13")];

/// Both servers with the same data.
struct Both {
    prometheus: Prometheus,
    forestall: Forestall,
    client: Client,
}

/// How an expression is asked: at a moment or over a range.
#[derive(Debug, Clone)]
struct Ask {
    path: &'static str,
    times: Vec<(&'static str, String)>,
}

impl Both {
    async fn start() -> Option<Both> {
        let parts = parts()?;
        let flag = "--enable-feature=promql-experimental-functions,promql-duration-expr";
        let folder = Folder::new("prometheus");
        let prometheus = Prometheus::start_with(&parts, Suite::Sid, "", folder, &[flag]).await;
        let folder = Folder::new("forestall");
        folder.write("forestall.yml", "storage: { keep: all, raw_retention: 080000h, signal_retention: 080000h }\n");
        let forestall = Forestall::start_with(folder, &[flag]).await;
        let both = Both { prometheus, forestall, client: http() };
        both.load().await;
        Some(both)
    }

    /// Writes all samples to both, in the order of time and labels.
    async fn load(&self) {
        let all = data::series();
        let end = all.iter().flat_map(|(_, samples)| samples.last()).map(|sample| sample.at).max().expect("samples");
        let mut from = data::START;
        while from <= end {
            let to = Timestamp(from.0 + 20 * data::INTERVAL);
            let inside = |sample: &&Sample| from <= sample.at && sample.at < to;
            let part: Vec<(Labels, Vec<Sample>)> = all
                .iter()
                .map(|(labels, samples)| (labels.clone(), samples.iter().filter(inside).copied().collect()))
                .filter(|(_, samples): &(Labels, Vec<Sample>)| !samples.is_empty())
                .collect();
            let body = encode_v1(&part);
            for url in [self.prometheus.url("/api/v1/write"), self.forestall.url("/api/v1/write")] {
                let request = self.client.post(&url).body(body.clone());
                let request =
                    request.header("content-type", "application/x-protobuf").header("content-encoding", "snappy");
                let answer = request.send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
                let status = answer.status();
                assert!(status.is_success(), "{url}: {status}: {}", answer.text().await.unwrap_or_default());
            }
            from = to;
        }
    }

    async fn answer(&self, url: &str, text: &str, ask: &Ask) -> (u16, Value) {
        let mut form: Vec<(&str, &str)> = vec![("query", text)];
        form.extend(ask.times.iter().map(|(name, value)| (*name, value.as_str())));
        let answer = self.client.post(url).form(&form).send().await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let status = answer.status().as_u16();
        let body = answer.text().await.unwrap_or_else(|error| panic!("{text}: {error}"));
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{text}: {error}: {body}")))
    }

    /// How the answers to one question differ.
    async fn difference(&self, text: &str, ask: &Ask) -> Option<String> {
        let theirs = self.answer(&self.prometheus.url(ask.path), text, ask).await;
        let ours = self.answer(&self.forestall.url(ask.path), text, ask).await;
        difference(&theirs, &ours, order_of(text))
    }

    /// The smallest expression that can be reached from one whose answers differ and whose answers differ too.
    async fn shrink(&self, tree: Tree, ask: &Ask) -> (Tree, String) {
        let difference = self.difference(&tree.text(), ask).await.unwrap_or_default();
        let mut found = (tree, difference);
        'smaller: loop {
            for smaller in found.0.smaller() {
                if let Some(difference) = self.difference(&smaller.text(), ask).await {
                    found = (smaller, difference);
                    continue 'smaller;
                }
            }
            return found;
        }
    }
}

fn instant_at(seconds: &str) -> Ask {
    let after: f64 = seconds.parse().expect("a number");
    let time = format!("{:.3}", data::START.as_secs_f64() + after);
    Ask { path: "/api/v1/query", times: vec![("time", time)] }
}

fn range_over((start, end, step): (i64, i64, &str)) -> Ask {
    let at = |seconds: i64| (data::START.0 / 1000 + seconds).to_string();
    let times = vec![("start", at(start)), ("end", at(end)), ("step", step.to_owned())];
    Ask { path: "/api/v1/query_range", times }
}

/// Differences between the answers to a text, asked in these ways, each in words.
async fn differences(both: &Both, text: &str, asks: &[Ask]) -> Vec<(Ask, String)> {
    let mut found = Vec::new();
    for ask in asks {
        if let Some(difference) = both.difference(text, ask).await {
            found.push((ask.clone(), difference));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_corpus_is_answered_as_prometheus_answers_it() {
    let Some(both) = Both::start().await else {
        return;
    };
    let file = asked("FORESTALL_PROMQL_EXPRESSIONS")
        .unwrap_or_else(|| format!("{}/tests/query/corpus.txt", env!("CARGO_MANIFEST_DIR")));
    let corpus = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let lines: Vec<String> = corpus
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("# "))
        .map(|line| line.replace("\\n", "\n"))
        .collect();
    let asks = [instant_at(INSTANTS[1]), range_over(RANGES[0]), range_over(RANGES[2])];
    let told: Vec<String> = futures::stream::iter(&lines)
        .map(|line| async {
            differences(&both, line, &asks).await.into_iter().map(|d| told(line, &d)).collect::<Vec<_>>()
        })
        .buffered(REQUESTS_AT_A_TIME)
        .collect::<Vec<_>>()
        .await
        .concat();
    let asked = lines.len() * asks.len();
    assert!(told.is_empty(), "{} of {asked} questions are answered otherwise:\n{}", told.len(), told.join("\n"));
}

fn told(text: &str, (ask, difference): &(Ask, String)) -> String {
    let times: Vec<String> = ask.times.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{text}\n  {} {}\n  {difference}", ask.path, times.join(" "))
}

/// What whoever runs the tests asks for beyond the ordinary.
fn asked(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok()
}

fn seeds() -> Range<u64> {
    let Some(text) = asked("FORESTALL_PROMQL_SEEDS") else { return SEEDS };
    let bounds = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or_else(|| panic!("FORESTALL_PROMQL_SEEDS={text} is not FROM..TO"))
}

/// The expression of a seed and how it is asked.
fn question(seed: u64) -> (Tree, [Ask; 2]) {
    let mut random = Random::new(seed);
    let tree = expression(&mut random);
    let asks = [instant_at(INSTANTS[random.below(INSTANTS.len())]), range_over(RANGES[random.below(RANGES.len())])];
    (tree, asks)
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_expressions_are_answered_as_prometheus_answers_them() {
    let Some(both) = Both::start().await else {
        return;
    };
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let mut different: Vec<(u64, Ask)> = futures::stream::iter(seeds)
        .map(|seed| {
            let both = &both;
            async move {
                let (tree, asks) = question(seed);
                let found = differences(both, &tree.text(), &asks).await;
                found.into_iter().next().map(|(ask, _)| (seed, ask))
            }
        })
        .buffered(REQUESTS_AT_A_TIME)
        .filter_map(async |found| found)
        .collect()
        .await;
    let total = different.len();
    different.truncate(TOLD_MAX);
    let mut report = String::new();
    for (seed, ask) in different {
        let (tree, _) = question(seed);
        let whole = tree.text();
        let (smallest, difference) = both.shrink(tree, &ask).await;
        let _ = writeln!(report, "seed {seed}: {}\n  of {whole}", told(&smallest.text(), &(ask, difference)));
    }
    assert!(total == 0, "{total} of {count} expressions are answered otherwise:\n{report}");
}
