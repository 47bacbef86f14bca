//! Series from a server with Prometheus's query API: Prometheus, Thanos, Mimir, VictoriaMetrics, forestall.

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::openmetrics::Labelled;
use super::{SAMPLES_MAX, settle};
use crate::model::{Labels, Millis, Sample, Timestamp};

/// How long an answer may take.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(120);
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// The most points of a series in one answer: what Prometheus gives.
const POINTS_MAX: i64 = 11_000;
/// How long a stretch of samples is asked for at a time.
pub(in crate::cli) const SAMPLES_AT_A_TIME: Millis = Millis(6 * Millis::HOUR.0);

/// A server that is asked.
#[derive(Debug)]
pub(in crate::cli) struct Server {
    url: String,
    client: reqwest::Client,
    samples: usize,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    #[serde(default)]
    result: Value,
}

#[derive(Debug, Deserialize)]
struct Row {
    metric: Labels,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Server {
    /// A server at a URL, such as `http://127.0.0.1:9090`.
    ///
    /// # Errors
    /// Where no client can be built.
    pub(in crate::cli) fn new(url: &str) -> anyhow::Result<Server> {
        let client = reqwest::Client::builder().timeout(ANSWER_TIME_MAX).build()?;
        Ok(Server { url: url.trim_end_matches('/').to_owned(), client, samples: 0 })
    }

    /// An expression's values from `start` to `end`, `step` apart, in as many answers as it takes.
    ///
    /// # Errors
    /// Where nobody answers, the server refuses, or the answer is beyond a limit.
    pub(in crate::cli) async fn range(
        &mut self,
        expr: &str,
        (start, end, step): (Timestamp, Timestamp, Millis),
    ) -> anyhow::Result<Labelled> {
        let mut all = Vec::new();
        let mut from = start;
        while from <= end {
            let to = end.min(from + step * (POINTS_MAX - 1));
            let params = [
                ("query", expr.to_owned()),
                ("start", seconds(from)),
                ("end", seconds(to)),
                ("step", format!("{}", step.as_secs_f64())),
            ];
            self.ask("query_range", &params, &mut all).await?;
            from = to + step;
        }
        Ok(merged(all))
    }

    /// The samples themselves of the series that a selector selects, newer than `start`, up to and with `end`; `told` is
    /// called after each answer.
    ///
    /// # Errors
    /// As [`Server::range`].
    pub(in crate::cli) async fn samples(
        &mut self,
        selector: &str,
        start: Timestamp,
        end: Timestamp,
        told: impl Fn(),
    ) -> anyhow::Result<Labelled> {
        let mut all = Vec::new();
        let mut from = start;
        while from < end {
            let to = end.min(from + SAMPLES_AT_A_TIME);
            // The range is left-open: what lies on `from` came with the answer before.
            let params = [("query", format!("{selector}[{}ms]", (to - from).0)), ("time", seconds(to))];
            self.ask("query", &params, &mut all).await?;
            told();
            from = to;
        }
        Ok(merged(all))
    }

    async fn ask(&mut self, path: &str, params: &[(&str, String)], all: &mut Labelled) -> anyhow::Result<()> {
        let full = format!("{}/api/v1/{path}", self.url);
        let response = self.client.post(&full).form(params).send().await;
        let mut response = response.with_context(|| format!("no server answers at {}", self.url))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.with_context(|| format!("{full} broke off its answer"))? {
            ensure!(body.len() + chunk.len() <= ANSWER_BYTES_MAX, "{full} answers with more than 1 GiB: ask for less");
            body.extend_from_slice(&chunk);
        }
        let answer: Answer = serde_json::from_slice(&body).with_context(|| {
            format!("{full} answers {status} without the JSON of Prometheus's query API: is it a Prometheus?")
        })?;
        let Some(data) = answer.data.filter(|_| status.is_success()) else {
            bail!("{} refuses: {}", self.url, answer.error.as_deref().unwrap_or(status.as_str()));
        };
        ensure!(data.result_type == "matrix", "the expression gives a {}, not series over time", data.result_type);
        let rows: Vec<Row> = serde_json::from_value(data.result).with_context(|| format!("{full} answers oddly"))?;
        for row in rows {
            let samples: Option<Vec<Sample>> = row.values.iter().map(|(at, text)| sample(*at, text)).collect();
            let samples = samples.with_context(|| format!("{full} answers with a value that is no number"))?;
            self.samples += samples.len();
            ensure!(self.samples <= SAMPLES_MAX, "more than {SAMPLES_MAX} samples: ask for less");
            // A series of native histograms has no values.
            if !samples.is_empty() {
                all.push((row.metric, samples));
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a time of a server, in milliseconds; beyond i64 it saturates")]
fn sample(at_seconds: f64, text: &str) -> Option<Sample> {
    let value = text.parse().ok()?;
    Some(Sample { at: Timestamp((at_seconds * 1000.0).round() as i64), value })
}

fn seconds(at: Timestamp) -> String {
    format!("{:.3}", at.as_secs_f64())
}

/// The parts of each series as one, in time order, each time once.
fn merged(mut parts: Labelled) -> Labelled {
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let mut all: Labelled = Vec::new();
    for (labels, samples) in parts {
        match all.last_mut().filter(|(last, _)| *last == labels) {
            Some((_, known)) => known.extend(samples),
            None => all.push((labels, samples)),
        }
    }
    all.iter_mut().for_each(|(_, samples)| {
        settle(samples);
    });
    all
}
