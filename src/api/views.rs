//! What the page and the command line see of assessments and plans: numbers in seconds and ratios, times in ms since
//! the epoch, absent what is unknown.

use serde_json::{Value, json};

use super::words;
use crate::audit::{DecisionSummary, word};
use crate::cycle::{Report, SIGNAL_METRIC};
use crate::forecast::{Foresight, Knowledge};
use crate::health::{Assessment, SignalAssessment};
use crate::model::{METRIC_NAME, Millis, Sample, Timestamp};
use crate::plan::{Action, Declined, PastAction, Plan};
use crate::store::{Matcher, Store};

/// How many points of the past a spark line has.
const SPARK_PAST: usize = 96;
/// How many points of the future it has.
const SPARK_AHEAD: usize = 48;
/// How many points of the past a component's own view has.
const PAST_POINTS: usize = 600;
/// How much of what a plan holds back is shown.
const DECLINED_MAX: usize = 1000;
/// How many of its earlier actions it shows.
const ACTIONS_MAX: usize = 50;

fn seconds(span: Option<Millis>) -> Option<f64> {
    span.map(Millis::as_secs_f64)
}

/// A component in the ranked list.
pub(super) fn component(report: &Report, store: &Store, assessment: &Assessment) -> Value {
    let worst = assessment.signals.first();
    json!({
        "id": assessment.component.to_string(),
        "kind": assessment.component.kind,
        "labels": labels_of(assessment),
        "standing": word(&assessment.standing),
        "why_unknown": worst.and_then(|signal| why_unknown(&signal.foresight)),
        "health": assessment.health,
        "slope_per_hour": assessment.slope_per_hour,
        "rapid_decline": assessment.rapid_decline,
        "probability": assessment.probability,
        "eta_seconds": {"q10": seconds(assessment.eta.q10), "q50": seconds(assessment.eta.q50)},
        "horizon_seconds": assessment.horizon.as_secs_f64(),
        "impact": assessment.impact,
        "expected_loss": assessment.health.map(|_| assessment.expected_loss),
        "rank": (assessment.rank > 0).then_some(assessment.rank),
        "worst": worst.map(|signal| json!({
            "rule": signal.rule, "signal": signal.signal, "current": signal.foresight.current,
            "threshold": signal.foresight.limit.map(|limit| limit.threshold), "side": word(&signal.side),
        })),
        "spark": worst.map(|signal| spark(store, assessment, signal)),
        "decision": standing_decision(report, assessment),
    })
}

/// Everything about one component.
pub(super) fn component_detail(report: &Report, store: &Store, assessment: &Assessment) -> Value {
    let mut view = component(report, store, assessment);
    let signals = assessment.signals.iter().map(|signal| signal_detail(store, assessment, signal));
    let declined = report.plan.declined.iter().filter(|declined| declined.component == assessment.component);
    let actions =
        report.input.ledger.actions.iter().filter(|past| past.action.target.component == assessment.component);
    let more = json!({
        "at": report.at,
        "target": {"namespace": assessment.target_namespace, "name": assessment.target_name},
        "probability_low": assessment.probability_low,
        "signals": signals.collect::<Vec<_>>(),
        "why": words::why(assessment, &report.quality),
        "would_change": words::would_change(assessment),
        "declined": declined.map(self::declined).collect::<Vec<_>>(),
        "actions": actions.rev().take(ACTIONS_MAX).map(past_action).collect::<Vec<_>>(),
        "quality": report.quality.iter()
            .filter(|quality| assessment.signals.iter().any(|signal| signal.rule == quality.rule))
            .map(quality).collect::<Vec<_>>(),
    });
    if let (Value::Object(view), Value::Object(more)) = (&mut view, more) {
        view.extend(more);
    }
    view
}

fn signal_detail(store: &Store, assessment: &Assessment, signal: &SignalAssessment) -> Value {
    let foresight = &signal.foresight;
    let past = past_of(store, assessment, signal, assessment.at - assessment.horizon * 2);
    json!({
        "rule": signal.rule, "signal": signal.signal, "group": signal.group, "weight": signal.weight,
        "side": word(&signal.side), "scales_with": word(&signal.scales_with),
        "knowledge": foresight.knowledge, "why_unknown": why_unknown(foresight),
        "current": foresight.current,
        "age_seconds": seconds(foresight.age), "history_seconds": foresight.history.as_secs_f64(),
        "threshold": foresight.limit.map(|limit| limit.threshold), "warn": foresight.limit.and_then(|limit| limit.warn),
        "breached": foresight.breached,
        "probability": foresight.probability, "probability_raw": foresight.probability_raw,
        "probability_low": foresight.probability_low,
        "eta_seconds": {"q10": seconds(foresight.eta.q10), "q50": seconds(foresight.eta.q50)},
        "severity": signal.severity, "peak_q90": foresight.peak_q90,
        "outside_interval": foresight.outside_interval,
        "peers": signal.peers,
        "channels": foresight.channels, "model": foresight.model, "members": foresight.members,
        "turning": if foresight.breached { &[][..] } else { &foresight.turning[..] },
        "path": foresight.path.as_ref().map(|path| json!({
            "start": path.start, "step_seconds": path.step.as_secs_f64(), "levels": path.levels, "values": path.values,
        })),
        "past": thinned(&past, PAST_POINTS).iter().map(|sample| json!([sample.at, sample.value])).collect::<Vec<_>>(),
    })
}

/// What a rule's predictions have been worth.
pub(super) fn quality(quality: &crate::cycle::RuleQuality) -> Value {
    let counts: serde_json::Map<String, Value> =
        quality.counts.iter().map(|(resolution, count)| (resolution.name().to_owned(), json!(count))).collect();
    let windows = quality.windows.iter().map(|window| {
        json!({"window": window.name, "precision": window.precision, "recall": window.recall, "brier": window.brier,
               "calibration_error": window.calibration_error})
    });
    let channels = quality.channels.iter().map(|channel| {
        json!({"signal": channel.signal, "channel": word(&channel.channel), "claims": channel.claims,
               "precision": channel.precision, "muted": quality.muted.contains(&channel.channel)})
    });
    json!({"rule": quality.rule, "predictions": counts, "coverage": quality.coverage,
           "windows": windows.collect::<Vec<_>>(), "channels": channels.collect::<Vec<_>>()})
}

/// What is done, what waits for a person, and what is held back.
pub(super) fn plan(plan: &Plan) -> Value {
    json!({
        "at": plan.at,
        "actions": plan.actions.iter().map(action).collect::<Vec<_>>(),
        "waiting": plan.waiting.iter().map(action).collect::<Vec<_>>(),
        "declined": plan.declined.iter().take(DECLINED_MAX).map(declined).collect::<Vec<_>>(),
        "declined_total": plan.declined.len(),
    })
}

/// An action as people see it.
pub(super) fn action(action: &Action) -> Value {
    json!({
        "id": action.id, "policy": action.policy, "rung": action.rung, "kind": word(&action.kind),
        "actuator": action.actuator, "component": action.target.component.to_string(),
        "change": action.change, "sentence": words::change(action.kind, &action.change, action.undoes.as_deref()),
        "probability": action.why.probability, "eta_seconds": seconds(action.why.eta),
        "expected_loss": action.why.expected_loss, "why": action.why.sentence,
        "decided_at": action.decided_at, "expires_at": action.expires_at, "undoes": action.undoes,
        "makes_room_for": action.makes_room_for, "dry_run": action.dry_run,
    })
}

/// An action that was decided on earlier, with what came of it.
fn past_action(past: &PastAction) -> Value {
    let mut view = action(&past.action);
    let more = json!({
        "outcome": past.outcome, "settled_at": past.settled_at, "given_back": past.undone_by.is_some(),
        "effective": past.effective, "disowned": past.disowned,
    });
    if let (Value::Object(view), Value::Object(more)) = (&mut view, more) {
        view.extend(more);
    }
    view
}

/// A line of the list of decisions.
pub(super) fn decision_summary(decision: &DecisionSummary) -> Value {
    let actions = decision.actions.iter().map(|action| {
        json!({
            "id": action.id, "component": action.component, "kind": word(&action.kind), "why": action.why,
            "outcome": action.outcome, "change": action.change, "undoes": action.undoes,
            "sentence": words::change(action.kind, &action.change, action.undoes.as_deref()),
        })
    });
    json!({
        "seq": decision.seq, "id": decision.id, "at": decision.at, "actions": actions.collect::<Vec<_>>(),
        "declined": decision.declined,
    })
}

/// Something that is not done.
pub(super) fn declined(declined: &Declined) -> Value {
    json!({
        "component": declined.component.to_string(), "policy": declined.policy,
        "action": declined.action.as_ref().map(word), "reason": word(&declined.reason),
        "detail": declined.detail, "released_when": declined.released_when,
    })
}

/// The component's newest decision in this plan: an action in it, or the first reason against one.
fn standing_decision(report: &Report, assessment: &Assessment) -> Value {
    let ours = |action: &&Action| action.target.component == assessment.component;
    if let Some(action) = report.plan.actions.iter().find(ours) {
        return json!({"kind": word(&action.kind), "outcome": if action.dry_run { "dry_run" } else { "acting" }});
    }
    if let Some(action) = report.plan.waiting.iter().find(ours) {
        return json!({"kind": word(&action.kind), "outcome": "waiting"});
    }
    if let Some(past) = report.input.ledger.in_force(report.at).find(ours) {
        return json!({"kind": word(&past.kind), "outcome": "in_force", "since": past.decided_at});
    }
    let reason = report.plan.declined.iter().find(|declined| declined.component == assessment.component);
    reason.map_or(Value::Null, |declined| json!({"outcome": "declined", "reason": word(&declined.reason)}))
}

fn labels_of(assessment: &Assessment) -> Value {
    let all = assessment.component.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let all: serde_json::Map<String, Value> =
        assessment.labels.iter().chain(all).map(|(name, value)| (name.to_owned(), json!(value))).collect();
    Value::Object(all)
}

/// What is missing, where nothing can be said.
fn why_unknown(foresight: &Foresight) -> Option<String> {
    match &foresight.knowledge {
        Knowledge::Known => None,
        Knowledge::Learning { seen, needed } => {
            Some(format!("{} of {} seen", words::span(*seen), words::span(*needed)))
        }
        Knowledge::Unknown { why } => Some(why.clone()),
    }
}

fn spark(store: &Store, assessment: &Assessment, signal: &SignalAssessment) -> Value {
    let from = assessment.at - assessment.horizon * 2;
    let past = past_of(store, assessment, signal, from);
    let ahead = signal.foresight.path.as_ref().map(|path| {
        let every = path.values.first().map_or(1, |values| values.len().div_ceil(SPARK_AHEAD)).max(1);
        let level = |level: f64| -> Vec<f64> {
            path.level(level).unwrap_or_default().iter().copied().skip(every - 1).step_by(every).collect()
        };
        let step = path.step * i64::try_from(every).unwrap_or(1);
        json!({"start": path.start + path.step * (i64::try_from(every).unwrap_or(1) - 1), "step_seconds": step.as_secs_f64(),
               "low": level(0.1), "values": level(0.5), "high": level(0.9)})
    });
    json!({
        "from": from, "at": assessment.at,
        "past": thinned(&past, SPARK_PAST).iter().map(|sample| json!([sample.at, sample.value])).collect::<Vec<_>>(),
        "ahead": ahead, "threshold": signal.foresight.limit.map(|limit| limit.threshold),
    })
}

/// The signal as it was kept, newer than `from`.
fn past_of(store: &Store, assessment: &Assessment, signal: &SignalAssessment, from: Timestamp) -> Vec<Sample> {
    let matchers = [
        Matcher::equal(METRIC_NAME, SIGNAL_METRIC),
        Matcher::equal("rule", &signal.rule),
        Matcher::equal("signal", &signal.signal),
        Matcher::equal("component", &assessment.component.to_string()),
    ];
    let mut series = store.select(&matchers, from, assessment.at);
    let mut samples = series.pop().map(|series| series.samples).unwrap_or_default();
    samples.retain(|sample| sample.value.is_finite());
    samples
}

/// At most `points` of the samples, evenly spread, the newest among them.
fn thinned(samples: &[Sample], points: usize) -> Vec<Sample> {
    let every = samples.len().div_ceil(points).max(1);
    let mut kept: Vec<Sample> = samples.iter().rev().step_by(every).copied().collect();
    kept.reverse();
    kept
}
