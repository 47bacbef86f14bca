//! Alerts of others as failures: what Alertmanager's webhook sends tells which components really failed.
//!
//! The body is that of Alertmanager's webhook, version 4 (prometheus.io/docs/alerting/latest/configuration, "webhook_config").
//! Fields that are not needed are not looked at. A firing alert is a failure that lasts, a resolved one a failure that is over.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::answer::{Refusal, success};
use super::auth::require_operator;
use crate::cycle::{FAILURES_MAX, Failure, components_of, predict_rules};
use crate::model::{Labels, Timestamp};

/// The largest body, in bytes: some thousand alerts.
const BODY_BYTES_MAX: usize = 4 << 20;
/// The most alerts of one body.
const ALERTS_MAX: usize = 5000;
/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);
/// The label of alerts that are forecasts: those are no failures.
const FORECAST_LABEL: &str = "forecast";

#[derive(Debug, Deserialize)]
struct Message {
    version: Option<String>,
    alerts: Vec<Alert>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: Status,
    labels: BTreeMap<String, String>,
    starts_at: String,
    ends_at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

/// What a body holds.
#[derive(Debug, PartialEq)]
struct Read {
    failures: Vec<Failure>,
    /// How many alerts were forecasts.
    forecasts: usize,
}

/// `POST alerts`: the next pass counts the failures.
pub(super) async fn alerts(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    require_operator(&shared, &headers)?;
    let body = match tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let message = format!("the body broke off or is larger than {BODY_BYTES_MAX} bytes: set `max_alerts`");
            return Err(Refusal::bad_data(message));
        }
        Err(_) => return Err(Refusal::bad_data("the body took too long to arrive")),
    };
    // Finding components among all that are watched is work for many alerts.
    let task_shared = shared.clone();
    let sorted = tokio::task::spawn_blocking(move || read(&body).map(|read| sort_out(&task_shared, read)));
    let Sorted { known, unmatched, forecasts } = sorted.await.map_err(Refusal::internal)?.map_err(Refusal::bad_data)?;
    let taken = known.len();
    {
        let mut waiting = shared.failures.lock();
        if waiting.len() + taken > FAILURES_MAX {
            return Err(Refusal::unavailable("too many failures wait for the next pass; send them again"));
        }
        waiting.extend(known);
    }
    for (result, count) in [("taken", taken), ("forecast", forecasts), ("unmatched", unmatched)] {
        shared.meters.count_alerts(result, count);
    }
    Ok(success(json!({"taken": taken, "forecasts": forecasts, "unmatched": unmatched})))
}

/// What becomes of the alerts of a body.
struct Sorted {
    known: Vec<Failure>,
    /// How many name no component that is watched.
    unmatched: usize,
    forecasts: usize,
}

fn sort_out(shared: &Shared, Read { failures, forecasts }: Read) -> Sorted {
    let report = shared.report.load_full();
    let settings = shared.settings.load();
    let assessments = report.iter().flat_map(|report| &report.assessments);
    let watched: HashSet<String> = assessments.map(|assessment| assessment.component.to_string()).collect();
    let is_watched = |failure: &Failure| {
        failure.labels.get("component").is_some_and(|name| watched.contains(name))
            || components_of(predict_rules(&settings), &failure.labels)
                .iter()
                .any(|(_, component)| watched.contains(&component.to_string()))
    };
    let (known, unknown): (Vec<Failure>, Vec<Failure>) = failures.into_iter().partition(is_watched);
    Sorted { known, unmatched: unknown.len(), forecasts }
}

/// Reads a body; says what is wrong with it.
fn read(body: &[u8]) -> Result<Read, String> {
    let message: Message = serde_json::from_slice(body).map_err(|error| format!("no Alertmanager webhook: {error}"))?;
    if let Some(version) = message.version.filter(|version| version != "4") {
        return Err(format!("version {version:?} of Alertmanager's webhook is not known; this is for version 4"));
    }
    if message.alerts.len() > ALERTS_MAX {
        return Err(format!("{} alerts are more than {ALERTS_MAX}: set `max_alerts`", message.alerts.len()));
    }
    let mut read = Read { failures: Vec::new(), forecasts: 0 };
    for (number, alert) in message.alerts.into_iter().enumerate() {
        if alert.labels.get(FORECAST_LABEL).is_some_and(|value| value == "true") {
            read.forecasts += 1;
            continue;
        }
        read.failures.push(failure_of(alert).map_err(|what| format!("alert {}: {what}", number + 1))?);
    }
    Ok(read)
}

fn failure_of(alert: Alert) -> Result<Failure, String> {
    let start = time("startsAt", &alert.starts_at)?;
    // While it fires, Alertmanager's `endsAt` is the year 1 or when it would time out: not an end that is known.
    let end = match (alert.status, alert.ends_at) {
        (Status::Firing, _) => None,
        (Status::Resolved, Some(end)) => Some(time("endsAt", &end)?),
        (Status::Resolved, None) => return Err("resolved without `endsAt`".to_owned()),
    };
    if end.is_some_and(|end| end < start) {
        return Err("it ends before it starts".to_owned());
    }
    Ok(Failure { labels: Labels::new(&alert.labels), start, end })
}

fn time(field: &str, text: &str) -> Result<Timestamp, String> {
    let shown: String = text.chars().take(64).collect();
    let parsed =
        text.parse::<jiff::Timestamp>().map_err(|_| format!("`{field}` {shown:?} is not a time (RFC 3339)"))?;
    Ok(Timestamp(parsed.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body with these alerts, as Alertmanager 0.28 writes it.
    fn body(alerts: &str) -> String {
        format!(
            r#"{{"receiver":"forestall","status":"firing","alerts":[{alerts}],"groupLabels":{{}},"commonLabels":{{}},
            "commonAnnotations":{{}},"externalURL":"http://a","version":"4","groupKey":"{{}}:{{}}","truncatedAlerts":0}}"#
        )
    }

    fn alert(status: &str, labels: &str, start: &str, end: &str) -> String {
        format!(
            r#"{{"status":"{status}","labels":{{{labels}}},"annotations":{{}},"startsAt":"{start}","endsAt":"{end}",
            "generatorURL":"","fingerprint":"f"}}"#
        )
    }

    #[test]
    fn reads_firing_and_resolved_alerts_and_leaves_forecasts_out() {
        let firing = alert("firing", r#""job":"shop""#, "2026-01-01T00:00:00.5Z", "0001-01-01T00:00:00Z");
        let resolved = alert("resolved", r#""job":"a""#, "2026-01-01T01:00:00+01:00", "2026-01-01T00:01:00Z");
        let own = alert("firing", r#""forecast":"true""#, "2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z");
        let read = read(body(&[firing, resolved, own].join(",")).as_bytes()).expect("a good body");
        let at = Timestamp(1_767_225_600_000);
        let failure = |job: &str, start: i64, end: Option<i64>| Failure {
            labels: Labels::new([("job", job)]),
            start: Timestamp(at.0 + start),
            end: end.map(|end| Timestamp(at.0 + end)),
        };
        assert_eq!(
            read,
            Read { failures: vec![failure("shop", 500, None), failure("a", 0, Some(60_000))], forecasts: 1 }
        );
    }

    #[test]
    fn says_what_is_wrong_with_a_body() {
        let start = "2026-01-01T00:00:00Z";
        for (text, part) in [
            ("no JSON".to_owned(), "no Alertmanager webhook"),
            ("{}".to_owned(), "missing field `alerts`"),
            (r#"{"version":"3","alerts":[]}"#.to_owned(), "version \"3\""),
            (body(r#"{"status":"firing"}"#), "missing field `labels`"),
            (body(&alert("gone", "", start, start)), "unknown variant `gone`"),
            (body(&alert("firing", "", "yesterday", start)), "alert 1: `startsAt` \"yesterday\" is not a time"),
            (body(&alert("resolved", "", start, "2025-01-01T00:00:00Z")), "alert 1: it ends before it starts"),
            (
                body(&vec![alert("firing", "", start, start); ALERTS_MAX + 1].join(",")),
                "5001 alerts are more than 5000",
            ),
        ] {
            let message = read(text.as_bytes()).expect_err("the body is wrong");
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
