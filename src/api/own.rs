//! Our own API under `/api/v1/forestall/`: components, plan, decisions, rules, gates. What changes something is in
//! `controls.rs`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Refusal, success};
use super::params::Params;
use super::{Shared, views};
use crate::audit::{Filter, JournalError, word};
use crate::cycle::{Report, predict_rules};
use crate::health::{Assessment, NumberOrQuery};

/// The most rows of one answer.
const ROWS_MAX: usize = 1000;

pub(super) fn newest(shared: &Shared) -> Result<Arc<Report>, Refusal> {
    shared.report.load_full().ok_or_else(|| Refusal::unavailable("no pass has been made yet"))
}

/// `components?limit=&kind=&find=`: ranked by expected loss.
pub(super) async fn components(State(shared): State<Arc<Shared>>, params: Params) -> Result<Response, Refusal> {
    let limit = params.number("limit")?.unwrap_or(100).min(ROWS_MAX);
    let Some(report) = shared.report.load_full() else {
        let frame = frame(&shared, None);
        return Ok(success(json!({"frame": frame, "components": [], "total": 0})));
    };
    let wanted = |assessment: &&Assessment| {
        params.get("kind").is_none_or(|kind| kind == assessment.component.kind)
            && params.get("find").is_none_or(|part| assessment.component.to_string().contains(part))
            && params.get("standing").is_none_or(|standing| standing == word(&assessment.standing))
    };
    let found: Vec<&Assessment> = report.assessments.iter().filter(wanted).collect();
    let rows = found.iter().take(limit).map(|assessment| views::component(&report, &shared.store, assessment));
    let rows: Vec<Value> = rows.collect();
    Ok(success(json!({"frame": frame(&shared, Some(&report)), "components": rows, "total": found.len()})))
}

/// What stands around every view: the time of the data, mode, what is waiting and what is wrong.
fn frame(shared: &Shared, report: Option<&Report>) -> Value {
    let settings = shared.settings.load();
    let count = |standing: &str| {
        report.map_or(0, |report| report.assessments.iter().filter(|a| word(&a.standing) == standing).count())
    };
    json!({
        "at": report.map(|report| report.at),
        "now": shared.clock.now(),
        "interval_seconds": settings.global.evaluation_interval.as_secs_f64(),
        "mode": word(&settings.global.mode),
        "hold_until": shared.started_at + settings.global.start_hold,
        "journal_ok": shared.journal_works(),
        "journal_fault": shared.journal_fault.load().as_deref(),
        "pauses": shared.journal.controls().pauses_at(shared.clock.now()),
        "last_write_at": shared.last_write_at.load(std::sync::atomic::Ordering::Relaxed),
        "rules": predict_rules(&settings).count(),
        "series": shared.store.stats().series,
        "standings": {
            "failing": count("failing"), "at_risk": count("at_risk"), "watch": count("watch"), "steady": count("steady"),
            "learning": count("learning"), "unknown": count("unknown"),
        },
        "waiting": report.map_or(0, |report| report.plan.waiting.len()),
        "declined": report.map_or(0, |report| report.plan.declined.len()),
        "breakers": report.map(breakers).unwrap_or_default(),
        "faults": report.map(|report| report.faults.iter().take(20)
            .map(|fault| json!({"what": fault.what, "why": fault.why})).collect::<Vec<_>>()),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

fn breakers(report: &Report) -> Vec<Value> {
    let open = report.plan.carry.breakers.iter().filter(|(_, breaker)| !breaker.released);
    open.map(|(kind, breaker)| {
        json!({"kind": kind, "opened_at": breaker.opened_at, "at_risk": breaker.at_risk, "of": breaker.of})
    })
    .collect()
}

/// `components/{id}`: everything about one; the id is written as in metrics, `deployment/shop/checkout`.
pub(super) async fn component(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let report = newest(&shared)?;
    let found = report.assessments.iter().find(|assessment| assessment.component.to_string() == id);
    // The router has decoded the path once; an id that was sent undecoded is fine too.
    let found = found.or_else(|| {
        report.assessments.iter().find(|a| a.component.to_string().replace("%2F", "/").replace("%25", "%") == id)
    });
    let assessment = found.ok_or_else(|| Refusal::not_found(format!("no component {id:?} is watched")))?;
    let mut view = views::component_detail(&report, &shared.store, assessment);
    view["frame"] = frame(&shared, Some(&report));
    Ok(success(view))
}

/// `plan`: what would be done now, and what holds the rest back.
pub(super) async fn plan(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let report = newest(&shared)?;
    let pools = report.input.capacity.pools.iter().map(|(name, nodes)| json!({"pool": name, "nodes": nodes}));
    let mut view = views::plan(&report.plan);
    view["frame"] = frame(&shared, Some(&report));
    view["in_force"] = report.input.ledger.in_force(report.at).map(views::action).collect();
    view["pools"] = pools.collect();
    Ok(success(view))
}

/// Filters of `decisions`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionParams {
    component: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    /// Only decisions at or after this time, in ms since the epoch.
    since: Option<i64>,
    /// Only decisions at or before this time, in ms since the epoch.
    until: Option<i64>,
    /// Only decisions older than this `seq`.
    before: Option<i64>,
    limit: Option<usize>,
}

/// `decisions`: the newest first.
pub(super) async fn decisions(
    State(shared): State<Arc<Shared>>,
    Query(params): Query<DecisionParams>,
) -> Result<Response, Refusal> {
    let filter = Filter {
        component: params.component,
        outcome: one_of("outcome", params.outcome)?,
        reason: one_of("reason", params.reason)?,
        since: params.since.map(crate::model::Timestamp),
        until: params.until.map(crate::model::Timestamp),
        before: params.before,
        limit: Some(params.limit.unwrap_or(50).min(ROWS_MAX)),
    };
    let journal = shared.journal.clone();
    let found = tokio::task::spawn_blocking(move || journal.decisions(&filter)).await;
    let found = found.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    let decisions: Vec<Value> = found.iter().map(views::decision_summary).collect();
    Ok(success(json!({"frame": frame(&shared, shared.report.load().as_deref()), "decisions": decisions})))
}

/// A word that must be one of a fixed set.
fn one_of<T: serde::de::DeserializeOwned>(name: &str, text: Option<String>) -> Result<Option<T>, Refusal> {
    let parse = |text| serde_json::from_value(Value::String(text));
    text.map(parse).transpose().map_err(|error| Refusal::bad_data(format!("invalid {name}: {error}")))
}

/// `decisions/{id}`: the plan as it was, attempts, outcomes, and whether a replay gives the same.
pub(super) async fn decision(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let journal = shared.journal.clone();
    let wanted = id.clone();
    let found = tokio::task::spawn_blocking(move || {
        let record = journal.decision(&wanted)?;
        // What it was decided from is kept for a while only; without it the decision can still be shown.
        let replay = match record.as_ref().map(|_| journal.replay(&wanted)).transpose() {
            Err(JournalError::InputGone(_)) => None,
            replay => replay?,
        };
        Ok::<_, JournalError>(record.map(|record| (record, replay)))
    });
    let found = found.await.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    let (record, replay) = found.ok_or_else(|| Refusal::not_found(format!("no decision {id:?}")))?;
    let frame = frame(&shared, shared.report.load().as_deref());
    Ok(success(json!({"frame": frame, "shown": views::plan(&record.plan), "decision": record, "replay": replay})))
}

/// `rules`: each predict rule with what its predictions have been worth.
pub(super) async fn rules(State(shared): State<Arc<Shared>>) -> Response {
    let settings = shared.settings.load();
    let report = shared.report.load_full();
    let rules = predict_rules(&settings).map(|rule| {
        let quality = report.iter().flat_map(|report| &report.quality).find(|quality| quality.rule == rule.name);
        let signals = rule.signals.iter().map(|signal| {
            let shown = |value: &NumberOrQuery| match value {
                NumberOrQuery::Number(number) => json!(number),
                NumberOrQuery::Query(query) => json!(query.text()),
            };
            json!({"signal": signal.name, "expr": signal.expr.text(), "side": word(&signal.side),
                   "threshold": shown(&signal.threshold), "warn": signal.warn.as_ref().map(shown), "group": signal.group, "weight": signal.weight})
        });
        json!({
            "rule": rule.name, "kind": rule.kind, "by": rule.by, "horizon_seconds": rule.horizon.as_secs_f64(),
            "signals": signals.collect::<Vec<_>>(), "labels": rule.labels, "quality": quality.map(views::quality),
        })
    });
    let rules: Vec<Value> = rules.collect();
    success(json!({"frame": frame(&shared, report.as_deref()), "rules": rules}))
}

/// `gates`: mode, hold, breakers, budgets, latches.
pub(super) async fn gates(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let report = newest(&shared)?;
    Ok(success(json!({
        "frame": frame(&shared, Some(&report)),
        "gates": report.input.gates,
        "breakers": breakers(&report),
        "usage": report.plan.usage,
        "leader": shared.leads(),
    })))
}
