//! Prometheus's read API over our store, so that Grafana, promtool and every Prometheus client can ask us.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{Refusal, success, success_text};
use super::params::{Params, parse_duration};
use crate::health::Rule;
use crate::model::{Labels, Millis, Timestamp};
use crate::query::{self, Answer, Interrupt, Query, QueryError};

/// `/api/v1/query`
pub(super) async fn query(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let query = params.query()?;
    let at = params.time("time")?.unwrap_or_else(|| shared.clock.now());
    let (settings, limit) = (query_settings(&shared, &params)?, time_limit(&params)?);
    let interrupt = settings.interrupt.clone();
    evaluate(shared, interrupt, limit, move |shared| query::instant(&shared.store, &query, at, &settings)).await
}

/// `/api/v1/query_range`
pub(super) async fn query_range(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let (start, end) = (params.required_time("start")?, params.required_time("end")?);
    let missing = || Refusal::bad_data("invalid parameter \"step\": cannot parse \"\" to a valid duration");
    let step = params.duration("step")?.ok_or_else(missing)?;
    if end < start {
        return Err(Refusal::bad_data("invalid parameter \"end\": end timestamp must not be before start time"));
    }
    if step <= Millis::ZERO {
        return Err(Refusal::bad_data(
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. \
             Try a positive integer",
        ));
    }
    let query = params.query()?;
    let (settings, limit) = (query_settings(&shared, &params)?, time_limit(&params)?);
    let interrupt = settings.interrupt.clone();
    evaluate(shared, interrupt, limit, move |shared| {
        query::range(&shared.store, &query, start, end, step, &settings).map_err(|error| match error {
            QueryError::Parse(why) if why.starts_with("invalid expression type") => {
                QueryError::Parse(format!("invalid parameter \"query\": {why}"))
            }
            other => other,
        })
    })
    .await
}

fn query_settings(shared: &Shared, params: &Params) -> Result<query::Settings, Refusal> {
    let mut settings = query::Settings { interrupt: Interrupt::default(), ..shared.settings.load().query.clone() };
    if let Some(text) = params.get("lookback_delta") {
        let wrong = || format!("error parsing lookback delta duration: cannot parse {text:?} to a valid duration");
        settings.lookback = parse_duration(text).ok_or_else(|| Refusal::bad_data(wrong()))?;
    }
    Ok(settings)
}

/// How long a query may take: what it says, within Prometheus's default.
fn time_limit(params: &Params) -> Result<Millis, Refusal> {
    const LIMIT: Millis = Millis(2 * Millis::MINUTE.0);
    Ok(params.duration("timeout")?.map_or(LIMIT, |asked| asked.min(LIMIT)))
}

/// Ends an evaluation when its request is dropped: the client has left.
struct CancelOnDrop(Interrupt);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Evaluates off the runtime, within the bound on concurrent queries and on time.
async fn evaluate(
    shared: Arc<Shared>,
    interrupt: Interrupt,
    limit: Millis,
    work: impl FnOnce(&Shared) -> Result<Answer, QueryError> + Send + 'static,
) -> Result<Response, Refusal> {
    let slot = shared.clone();
    let _slot = slot.queries.acquire().await.map_err(Refusal::unavailable)?;
    let task = tokio::task::spawn_blocking(move || {
        work(&shared).map(|answer| {
            let mut text = String::new();
            query::json::write_answer(&answer, &mut text);
            (text, answer.warnings, answer.infos)
        })
    });
    let guard = CancelOnDrop(interrupt);
    let mut task = task;
    let finished = match tokio::time::timeout(limit.to_std(), &mut task).await {
        Ok(finished) => finished,
        Err(_) => {
            guard.0.time_out();
            task.await
        }
    };
    match finished.map_err(Refusal::internal)? {
        Ok((text, warnings, infos)) => Ok(success_text(&text, &warnings, &infos)),
        Err(error @ QueryError::Parse(_)) => Err(Refusal::bad_data(error)),
        Err(error @ QueryError::Execution(_)) => Err(Refusal::execution(error)),
        Err(error @ QueryError::TimedOut) => Err(Refusal::timed_out(error)),
        Err(error @ QueryError::Canceled) => Err(Refusal::canceled(error)),
    }
}

/// The time range of a request; all of it where it is not said.
fn range_of(params: &Params) -> Result<(Timestamp, Timestamp), Refusal> {
    let start = params.time("start")?.unwrap_or(Timestamp(i64::MIN));
    let end = params.time("end")?.unwrap_or(Timestamp(i64::MAX));
    if end < start {
        return Err(Refusal::bad_data("invalid parameter \"end\": end timestamp must not be before start time"));
    }
    // Both ends count here, unlike in the store's left-open ranges.
    Ok((start - Millis(1), end))
}

/// `/api/v1/series`
pub(super) async fn series(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let wrong = |why| Refusal::bad_data(format!("invalid parameter \"match[]\": {why}"));
    let sets = params.matchers().map_err(wrong)?;
    if sets.is_empty() {
        return Err(Refusal::bad_data("no match[] parameter provided"));
    }
    let (from, to) = range_of(&params)?;
    let mut all: Vec<Labels> = sets.iter().flat_map(|set| shared.store.series(set, from, to)).collect();
    all.sort();
    all.dedup();
    Ok(success(limited(all.into_iter().map(|labels| json!(labels)), &params)?))
}

/// `/api/v1/labels`
pub(super) async fn labels(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let (from, to) = range_of(&params)?;
    let names = over_sets(&params, |set| shared.store.label_names(set, from, to))?;
    Ok(success(limited(names.into_iter().map(|name| json!(name)), &params)?))
}

/// `/api/v1/label/<name>/values`
pub(super) async fn label_values(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Refusal> {
    if name.is_empty() {
        return Err(Refusal::bad_data("invalid label name: \"\""));
    }
    let (from, to) = range_of(&params)?;
    let values = over_sets(&params, |set| shared.store.label_values(&name, set, from, to))?;
    Ok(success(limited(values.into_iter().map(|value| json!(value)), &params)?))
}

/// The union over all `match[]`; over everything where there is none.
fn over_sets(
    params: &Params,
    ask: impl Fn(&[crate::store::Matcher]) -> Vec<Arc<str>>,
) -> Result<Vec<Arc<str>>, Refusal> {
    let sets = params.matchers().map_err(Refusal::bad_data)?;
    if sets.is_empty() {
        return Ok(ask(&[]));
    }
    let mut all: Vec<Arc<str>> = sets.iter().flat_map(|set| ask(set)).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

fn limited(values: impl Iterator<Item = Value>, params: &Params) -> Result<Value, Refusal> {
    let limit = params.number("limit")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    Ok(Value::Array(values.take(limit).collect()))
}

/// `/api/v1/metadata`: what was remote-written.
pub(super) async fn metadata(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let wanted = params.get("metric");
    let limit = params.number("limit")?.unwrap_or(usize::MAX);
    let families = shared.store.metadata();
    let families = families.iter().filter(|(family, _)| wanted.is_none_or(|wanted| wanted == *family)).take(limit);
    let map: serde_json::Map<String, Value> = families
        .map(|(family, m)| (family.clone(), json!([{"type": m.kind.as_str(), "help": m.help, "unit": m.unit}])))
        .collect();
    Ok(success(Value::Object(map)))
}

/// `/api/v1/rules`: our recording rules; what predict rules say is under `/api/v1/forestall/rules`.
pub(super) async fn rules(State(shared): State<Arc<Shared>>) -> Response {
    let settings = shared.settings.load();
    let groups = settings.groups.iter().map(|group| {
        let records = group.rules.iter().filter_map(|rule| match rule {
            Rule::Record(record) => Some(json!({
                "type": "recording", "name": record.record, "query": record.expr.text(), "labels": record.labels,
                "health": "ok", "evaluationTime": 0, "lastEvaluation": "0001-01-01T00:00:00Z",
            })),
            Rule::Predict(_) => None,
        });
        json!({"name": group.name, "file": "", "interval": group.interval.as_secs_f64(), "limit": 0,
               "rules": records.collect::<Vec<_>>(), "evaluationTime": 0, "lastEvaluation": "0001-01-01T00:00:00Z"})
    });
    success(json!({"groups": groups.collect::<Vec<_>>()}))
}

/// `/api/v1/alerts`: none; alerts are Prometheus's, over our metrics.
pub(super) async fn alerts() -> Response {
    success(json!({"alerts": []}))
}

/// `/api/v1/targets`: none; forestall scrapes nothing.
pub(super) async fn targets() -> Response {
    success(json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}}))
}

/// `/api/v1/query_exemplars`: none are kept.
pub(super) async fn query_exemplars(params: Params) -> Result<Response, Refusal> {
    params.query()?;
    Ok(success(json!([])))
}

/// `/api/v1/format_query`
pub(super) async fn format_query(params: Params) -> Result<Response, Refusal> {
    let query: Query = params.query()?;
    Ok(success(json!(query.expr().prettify())))
}

/// `/api/v1/status/buildinfo`: the features of the Prometheus whose API this is, under our own version.
pub(super) async fn buildinfo() -> Response {
    success(json!({
        "version": env!("CARGO_PKG_VERSION"), "application": "forestall",
        "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    }))
}

/// `/api/v1/status/runtimeinfo`
pub(super) async fn runtimeinfo(State(shared): State<Arc<Shared>>) -> Response {
    let settings = shared.settings.load();
    success(json!({
        "startTime": shared.started_at.to_string(),
        "serverTime": shared.clock.now().to_string(),
        "timeSeriesCount": shared.store.stats().series,
        "storageRetention": settings.store.raw_retention.to_string(),
        "configHash": format!("{:016x}", settings.hash),
    }))
}

/// `/api/v1/status/config`: the main file as it was read. Secrets stand in files of their own.
pub(super) async fn config(State(shared): State<Arc<Shared>>) -> Response {
    success(json!({"yaml": shared.settings.load().text}))
}

/// `/api/v1/status/flags`
pub(super) async fn flags(State(shared): State<Arc<Shared>>) -> Response {
    let flags: serde_json::Map<String, Value> =
        shared.options.flags.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    success(Value::Object(flags))
}

/// `/api/v1/status/tsdb`
pub(super) async fn tsdb(State(shared): State<Arc<Shared>>) -> Response {
    let stats = shared.store.stats();
    success(json!({
        "headStats": {"numSeries": stats.series, "chunkCount": stats.chunks, "numSamples": stats.samples},
        "memoryBytes": stats.memory_bytes,
        "seriesCountByMetricName": [], "labelValueCountByLabelName": [],
        "memoryInBytesByLabelName": [], "seriesCountByLabelValuePair": [],
    }))
}
