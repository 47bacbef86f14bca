//! Prometheus's read API over our store, so that Grafana, promtool and every Prometheus client can ask us.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::Shared;
use super::answer::{Refusal, SUCCESS, success, success_text};
use super::params::{Params, parse_duration};
use crate::cycle::RecordState;
use crate::health::RecordRule;
use crate::model::{Labels, Millis, Timestamp};
use crate::query::{self, Answer, Interrupt, Query, QueryError, Value};
use crate::store::Store;

/// As Prometheus says it.
const TRUNCATED: &str = "results truncated due to limit";

/// `/api/v1/query`
pub(super) async fn query(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let query = params.query()?;
    let at = params.time("time")?.unwrap_or_else(|| shared.clock.now());
    evaluate(shared, &params, move |store, settings| query::instant(store, &query, at, settings)).await
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
    evaluate(shared, &params, move |store, settings| {
        query::range(store, &query, start, end, step, settings).map_err(|error| match error {
            QueryError::Parse(why) if why.starts_with("invalid expression type") => {
                QueryError::Parse(format!("invalid parameter \"query\": {why}"))
            }
            other => other,
        })
    })
    .await
}

/// Ends an evaluation when its request is dropped: whoever asked has left.
struct CancelOnDrop(Interrupt);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Evaluates off the runtime, within the bounds on concurrent queries and on time.
async fn evaluate(
    shared: Arc<Shared>,
    params: &Params,
    work: impl FnOnce(&Store, &query::Settings) -> Result<Answer, QueryError> + Send + 'static,
) -> Result<Response, Refusal> {
    let mut settings = shared.settings.load().query.clone();
    settings.interrupt = Interrupt::default();
    if let Some(text) = params.get("lookback_delta") {
        let wrong = || format!("error parsing lookback delta duration: cannot parse {text:?} to a valid duration");
        settings.lookback = parse_duration(text).ok_or_else(|| Refusal::bad_data(wrong()))?;
    }
    let limit = params.limit()?;
    let asked = params.duration("timeout")?.map_or(Duration::MAX, Millis::to_std);
    let wants_stats = params.get("stats").is_some();
    let asked_at = Instant::now();
    let until = asked_at + asked.min(shared.options.query.timeout);
    let slot = tokio::time::timeout_at(until, shared.queries.clone().acquire_owned()).await;
    let slot = slot.map_err(|_| Refusal::timed_out("query timed out in query queue"))?.map_err(Refusal::unavailable)?;

    let guard = CancelOnDrop(settings.interrupt.clone());
    let task = tokio::task::spawn_blocking(move || {
        // An evaluation that nobody waits for any more has its slot until it has ended.
        let _slot = slot;
        let began_at = Instant::now();
        work(&shared.store, &settings).map(|mut answer| {
            let stats = wants_stats.then(|| stats(answer.cost, began_at - asked_at, began_at.elapsed()));
            truncate(&mut answer, limit);
            let mut text = SUCCESS.to_owned();
            query::json::write_answer(&answer, &mut text);
            if let Some(stats) = stats {
                text.truncate(text.len() - 1);
                text.push_str(&format!(",\"stats\":{stats}}}"));
            }
            (text, answer.warnings, answer.infos)
        })
    });
    let Ok(ended) = tokio::time::timeout_at(until, task).await else {
        guard.0.time_out();
        return Err(Refusal::timed_out(QueryError::TimedOut));
    };
    match ended.map_err(Refusal::internal)? {
        Ok((text, warnings, infos)) => Ok(success_text(text, &warnings, &infos)),
        Err(error @ QueryError::Parse(_)) => Err(Refusal::bad_data(error)),
        Err(error @ QueryError::Execution(_)) => Err(Refusal::execution(error)),
        Err(error @ QueryError::TimedOut) => Err(Refusal::timed_out(error)),
        Err(error @ QueryError::Canceled) => Err(Refusal::canceled(error)),
    }
}

/// What an evaluation took, under Prometheus's names. It is not divided further here: evaluating is all there is to it.
fn stats(cost: query::Cost, waited: Duration, took: Duration) -> Json {
    json!({
        "timings": {
            "evalTotalTime": took.as_secs_f64(), "resultSortTime": 0, "queryPreparationTime": 0,
            "innerEvalTime": took.as_secs_f64(), "execQueueTime": waited.as_secs_f64(), "execTotalTime": took.as_secs_f64(),
        },
        "samples": {"totalQueryableSamples": cost.samples_looked_at, "peakSamples": cost.samples_held},
    })
}

/// Leaves out what is beyond the `limit` that was asked for, and says so.
fn truncate(answer: &mut Answer, limit: usize) {
    let left_out = match &mut answer.value {
        Value::Vector(elements) => elements.drain(limit.min(elements.len())..).len(),
        Value::Matrix(series) => series.drain(limit.min(series.len())..).len(),
        Value::Scalar(_) | Value::String(..) => 0,
    };
    if left_out > 0 {
        answer.warnings.push(TRUNCATED.to_owned());
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
    limited(all.into_iter().map(|labels| json!(labels)), &params)
}

/// `/api/v1/labels`
pub(super) async fn labels(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let (from, to) = range_of(&params)?;
    let names = over_sets(&params, |set| shared.store.label_names(set, from, to))?;
    limited(names.into_iter().map(|name| json!(name)), &params)
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
    limited(values.into_iter().map(|value| json!(value)), &params)
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

/// As many of the values as the `limit` allows; where it leaves some out, a warning says so.
fn limited(values: impl Iterator<Item = Json>, params: &Params) -> Result<Response, Refusal> {
    let mut values: Vec<Json> = values.collect();
    let limit = params.limit()?;
    let warnings = if values.len() > limit { vec![TRUNCATED.to_owned()] } else { Vec::new() };
    values.truncate(limit);
    Ok(success_text(format!("{SUCCESS}{}", Json::Array(values)), &warnings, &[]))
}

/// `/api/v1/metadata`: what was remote-written.
pub(super) async fn metadata(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let wanted = params.get("metric");
    let number = |name: &str| {
        let wrong = || Refusal::bad_data(format!("{name} must be a number"));
        params.get(name).map(|text| text.parse::<i64>().map_err(|_| wrong())).transpose()
    };
    // As in Prometheus: what is below nothing is everything, and a family has one entry here.
    let limit = number("limit")?.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let shows_any = number("limit_per_metric")? != Some(0);
    let families = shared.store.metadata();
    let families = families.iter().filter(|(family, _)| shows_any && wanted.is_none_or(|wanted| wanted == *family));
    let map: serde_json::Map<String, Json> = families
        .take(limit)
        .map(|(family, m)| (family.clone(), json!([{"type": m.kind.as_str(), "unit": m.unit, "help": m.help}])))
        .collect();
    Ok(success(Json::Object(map)))
}

/// `/api/v1/rules`: our recording rules; what predict rules say is under `/api/v1/forestall/rules`.
pub(super) async fn rules(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let wanted = |name: &str, value: &str| {
        let mut asked = params.all(name).peekable();
        asked.peek().is_none() || asked.any(|asked| asked == value)
    };
    let kind = params.get("type").unwrap_or("record");
    if !["record", "alert"].contains(&kind) {
        return Err(Refusal::bad_data(format!("invalid parameter \"type\": not supported value {kind:?}")));
    }
    let settings = shared.settings.load();
    let report = shared.report.load();
    let mut states = report.as_ref().map_or(&[][..], |report| &report.records).iter();
    let groups = settings.groups.iter().filter_map(|group| {
        let records: Vec<&RecordRule> = group.records().collect();
        let states: Vec<Option<RecordState>> = records.iter().map(|_| states.next().cloned().flatten()).collect();
        let last = states.iter().flatten().map(|state| state.at).max();
        let asked = |record: &&RecordRule| kind == "record" && wanted("rule_name[]", &record.record);
        let rules = records.into_iter().zip(&states).filter(|(record, _)| asked(record));
        let rules: Vec<Json> = rules.map(|(record, state)| rule_json(record, state.as_ref())).collect();
        let is_whole = params.all("rule_name[]").next().is_none() && kind == "record";
        let shown = wanted("rule_group[]", &group.name) && (is_whole || !rules.is_empty());
        shown.then(|| {
            json!({"name": group.name, "file": "", "interval": group.interval.as_secs_f64(), "limit": 0,
                   "rules": rules, "evaluationTime": 0, "lastEvaluation": time_or_never(last)})
        })
    });
    Ok(success(json!({"groups": groups.collect::<Vec<_>>()})))
}

/// A recording rule as Prometheus shows it. How long it took is not known: the core has no clock.
fn rule_json(record: &RecordRule, state: Option<&RecordState>) -> Json {
    let error = state.and_then(|state| state.error.as_deref());
    let health = state.map_or("unknown", |_| if error.is_some() { "err" } else { "ok" });
    let mut rule = json!({
        "type": "recording", "name": record.record, "query": record.expr.text(), "health": health,
        "evaluationTime": 0, "lastEvaluation": time_or_never(state.map(|state| state.at)),
    });
    if !record.labels.is_empty() {
        rule["labels"] = json!(record.labels);
    }
    if let Some(error) = error {
        rule["lastError"] = json!(error);
    }
    rule
}

fn time_or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string())
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

/// `/api/v1/parse_query`
pub(super) async fn parse_query(params: Params) -> Result<Response, Refusal> {
    Ok(success(params.query()?.expr().to_json()))
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
    let flags: serde_json::Map<String, Json> =
        shared.options.flags.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    success(Json::Object(flags))
}

/// `/api/v1/status/tsdb`
pub(super) async fn tsdb(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let most = params.number("limit")?.filter(|most| *most > 0).unwrap_or(10);
    // It looks at all series.
    let looked = tokio::task::spawn_blocking(move || {
        (shared.store.stats(), shared.store.cardinality(most), shared.store.span())
    });
    let (stats, found, span) = looked.await.map_err(Refusal::internal)?;
    // As Prometheus says that there is nothing.
    let (first, last) = span.unwrap_or((Timestamp(i64::MAX), Timestamp(i64::MIN)));
    let list = |list: &[(String, u64)]| -> Vec<Json> {
        list.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    Ok(success(json!({
        "headStats": {
            "numSeries": stats.series, "numLabelPairs": found.label_pairs, "chunkCount": stats.chunks,
            "minTime": first.0, "maxTime": last.0,
        },
        "seriesCountByMetricName": list(&found.series_by_metric),
        "labelValueCountByLabelName": list(&found.values_by_label),
        "memoryInBytesByLabelName": list(&found.bytes_by_label),
        "seriesCountByLabelValuePair": list(&found.series_by_pair),
    })))
}
