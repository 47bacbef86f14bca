//! What other predictors say: told over HTTP with the operator's token, and planned like what we foresee ourselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{Refusal, success};
use super::auth::require_operator;
use super::controls::{read, with_journal};
use super::own::newest;
use super::params::{parse_duration, parse_time};
use crate::act::cut;
use crate::audit::{PREDICTION_LIFE_MAX, PREDICTIONS_MAX};
use crate::cycle::Report;
use crate::forecast::Eta;
use crate::health::Prediction;
use crate::model::{ComponentId, Labels, Millis, Timestamp};

/// The longest id or source.
const NAME_CHARS_MAX: usize = 128;
/// The longest reason.
const REASON_CHARS_MAX: usize = 500;
/// The most labels of a component that nobody watches.
const LABELS_MAX: usize = 8;
/// What may be wanted, and the most of it.
const WANTED: [(&str, f64); 4] = [("replicas", 100_000.0), ("cpu", 1e6), ("memory", 1e15), ("disk", 1e18)];

/// A prediction as it is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    id: String,
    source: String,
    component: TellsOf,
    probability: f64,
    probability_low: Option<f64>,
    severity: Option<f64>,
    #[serde(default)]
    eta_seconds: EtaSeconds,
    #[serde(default)]
    wanted: BTreeMap<String, f64>,
    impact: Option<f64>,
    #[serde(default)]
    reason: String,
    /// From now on, as `2h` or in seconds.
    expires_in: Option<String>,
    /// RFC 3339, or seconds since the epoch.
    expires_at: Option<String>,
}

/// A component by its name, or by kind and labels where nobody watches it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TellsOf {
    Name(String),
    Labels(KindAndLabels),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindAndLabels {
    kind: String,
    /// In the order of the component's name.
    labels: serde_json::Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EtaSeconds {
    q10: Option<f64>,
    q50: Option<f64>,
}

/// `POST predictions`: it counts from the next pass on until it expires or something was done for it.
pub(super) async fn tell(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    require_operator(&shared, &headers)?;
    let told: Told = read(&body)?;
    let report = newest(&shared)?;
    let now = shared.clock.now();
    let prediction = prediction(told, &report, now)?;
    tracing::info!(
        prediction = prediction.key(), component = %prediction.component, probability = prediction.probability,
        until = %prediction.expires_at, "told by another predictor"
    );
    let view = view(&prediction, None);
    let taken = with_journal(&shared, move |journal| journal.tell(prediction, now)).await?;
    let mut answer = json!(taken);
    answer["prediction"] = view;
    Ok(success(answer))
}

/// `GET predictions`: what was told and is not over, with the action that was done for it.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let controls = shared.journal.controls();
    let listed = controls.predictions.listed(shared.clock.now()).map(|(told, done)| view(told, done));
    success(json!({"predictions": listed.collect::<Vec<_>>(), "max": PREDICTIONS_MAX}))
}

fn view(told: &Prediction, done: Option<&str>) -> Value {
    json!({
        "id": told.id, "source": told.source, "component": told.component.to_string(),
        "probability": told.probability, "probability_low": told.probability_low, "severity": told.severity,
        "eta_seconds": {"q10": told.eta.q10.map(Millis::as_secs_f64), "q50": told.eta.q50.map(Millis::as_secs_f64)},
        "wanted": told.wanted, "impact": told.impact, "reason": told.reason,
        "received_at": told.received_at.to_string(), "expires_at": told.expires_at.to_string(), "action": done,
    })
}

fn prediction(told: Told, report: &Report, now: Timestamp) -> Result<Prediction, Refusal> {
    let id = name("id", &told.id)?;
    let source = name("source", &told.source)?;
    let component = component(&told.component, report)?;
    let probability = share("probability", told.probability)?;
    let low = told.probability_low.map(|low| share("probability_low", low)).transpose()?.unwrap_or(probability);
    if low > probability {
        return Err(Refusal::bad_data("`probability_low` is above `probability`; it is its lower bound"));
    }
    for (resource, amount) in &told.wanted {
        check_wanted(resource, *amount)?;
    }
    let EtaSeconds { q10, q50 } = told.eta_seconds;
    let eta = Eta { q10: span("q10", q10)?, q50: span("q50", q50)? };
    if let (Some(q10), Some(q50)) = (eta.q10, eta.q50)
        && q10 > q50
    {
        return Err(Refusal::bad_data("`eta_seconds`: q10 is the earlier one and is after q50"));
    }
    let expires_at = end_of(&told, now)?;
    Ok(Prediction {
        id,
        source,
        component,
        probability,
        probability_low: low,
        severity: told.severity.map(|severity| share("severity", severity)).transpose()?.unwrap_or(1.0),
        eta,
        impact: told.impact.map(|impact| share("impact", impact)).transpose()?,
        wanted: told.wanted,
        reason: cut(&told.reason, REASON_CHARS_MAX),
        received_at: now,
        expires_at,
    })
}

/// A name without `/`: source and id together are written with one.
fn name(field: &str, text: &str) -> Result<String, Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@');
    if !text.is_empty() && text.len() <= NAME_CHARS_MAX && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    let shown = cut(text, 40);
    Err(Refusal::bad_data(format!(
        "`{field}` {shown:?}: 1 to {NAME_CHARS_MAX} letters, digits, `_`, `-`, `.`, `:` and `@` are wanted"
    )))
}

fn share(field: &str, value: f64) -> Result<f64, Refusal> {
    let wrong = || Refusal::bad_data(format!("`{field}` {value} is out of range: a share lies between 0 and 1"));
    (0.0..=1.0).contains(&value).then_some(value).ok_or_else(wrong)
}

fn span(field: &str, seconds: Option<f64>) -> Result<Option<Millis>, Refusal> {
    let Some(seconds) = seconds else { return Ok(None) };
    let most = 366.0 * 86_400.0;
    if !(0.0..=most).contains(&seconds) {
        let message = format!("`eta_seconds`: {field} {seconds} is out of range: seconds from now on, a year at most");
        return Err(Refusal::bad_data(message));
    }
    let millis = std::time::Duration::from_secs_f64(seconds).as_millis();
    Ok(i64::try_from(millis).ok().map(Millis))
}

fn check_wanted(resource: &str, amount: f64) -> Result<(), Refusal> {
    let known: Vec<&str> = WANTED.iter().map(|(name, _)| *name).collect();
    let Some((_, most)) = WANTED.iter().find(|(name, _)| *name == resource) else {
        let shown = cut(resource, 40);
        return Err(Refusal::bad_data(format!("`wanted`: there is no {shown:?}; there are {}", known.join(", "))));
    };
    if !(amount > 0.0 && amount <= *most) {
        return Err(Refusal::bad_data(format!(
            "`wanted`: {resource} {amount} is out of range: above 0, at most {most}"
        )));
    }
    if resource == "replicas" && amount.fract() > 0.0 {
        return Err(Refusal::bad_data(format!("`wanted`: {amount} replicas are no whole number")));
    }
    Ok(())
}

fn end_of(told: &Told, now: Timestamp) -> Result<Timestamp, Refusal> {
    let until = match (&told.expires_in, &told.expires_at) {
        (Some(span), None) => {
            let wrong =
                || Refusal::bad_data(format!("`expires_in`: {span:?} is no duration; write 2h, 90m or seconds"));
            now + parse_duration(span).ok_or_else(wrong)?
        }
        (None, Some(at)) => {
            let wrong = || Refusal::bad_data(format!("`expires_at`: {at:?} is no time; write 2026-01-09T12:00:00Z"));
            parse_time(at).ok_or_else(wrong)?
        }
        _ => {
            return Err(Refusal::bad_data(
                "one of `expires_in` and `expires_at` is needed: no prediction lasts for ever",
            ));
        }
    };
    if until <= now {
        return Err(Refusal::bad_data(format!("it would expire at {until}, which has passed")));
    }
    if until - now > PREDICTION_LIFE_MAX {
        return Err(Refusal::bad_data(format!("it would last until {until}; {PREDICTION_LIFE_MAX} is the most")));
    }
    Ok(until)
}

/// The component that is meant: one that is watched or that a pool knows, or one that is described.
fn component(tells_of: &TellsOf, report: &Report) -> Result<ComponentId, Refusal> {
    match tells_of {
        TellsOf::Name(wanted) => {
            let watched = report.assessments.iter().map(|assessment| &assessment.component);
            let known = watched.chain(report.input.capacity.workloads.iter().map(|workload| &workload.component));
            let found = known.into_iter().find(|component| component.to_string() == *wanted);
            found.cloned().ok_or_else(|| {
                let shown = cut(wanted, 200);
                Refusal::bad_data(format!(
                    "no component {shown:?} is watched and no pool knows it; describe it: \
                     {{\"kind\": \"deployment\", \"labels\": {{\"namespace\": \"shop\", \"deployment\": \"checkout\"}}}}"
                ))
            })
        }
        TellsOf::Labels(KindAndLabels { kind, labels }) => {
            let is_name = |name: &str| {
                let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
                starts && name.len() <= NAME_CHARS_MAX && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            };
            if !is_name(kind)
                || labels.is_empty()
                || labels.len() > LABELS_MAX
                || !labels.keys().all(|name| is_name(name))
            {
                let message =
                    format!("`component`: a kind and 1 to {LABELS_MAX} labels with names of labels are wanted");
                return Err(Refusal::bad_data(message));
            }
            let values: Option<Vec<(&str, &str)>> =
                labels.iter().map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect();
            let values = values.ok_or_else(|| Refusal::bad_data("`component`: a label's value is a text"))?;
            let names: Vec<String> = labels.keys().cloned().collect();
            Ok(ComponentId::of(kind, &names, &Labels::new(values)))
        }
    }
}
