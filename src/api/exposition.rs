//! `/metrics`: our own counters, the newest report, and the store, as OpenMetrics or Prometheus text.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Shared;
use super::answer::Refusal;
use crate::audit::word;
use crate::cycle::{Report, component_labels, signal_labels};
use crate::health::{Assessment, EXTERNAL_RULE, SignalAssessment};
use crate::model::{Labels, Millis};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How far ahead the forecast is exposed, where the horizon reaches.
const LEADS: [(&str, Millis); 5] = [
    ("5m", Millis(5 * 60_000)),
    ("15m", Millis(15 * 60_000)),
    ("1h", Millis(3_600_000)),
    ("6h", Millis(6 * 3_600_000)),
    ("24h", Millis(24 * 3_600_000)),
];

/// `/metrics`
pub(super) async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let open = accepts.contains("application/openmetrics-text");
    let text = exposition(&shared).map_err(|error| Refusal::internal(format!("cannot write metrics: {error}")))?;
    let (content_type, text) = if open { (OPENMETRICS, text) } else { (TEXT, as_prometheus_text(&text)) };
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

fn exposition(shared: &Arc<Shared>) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let mut own = Registry::with_prefix("forestall");
    own.register_collector(Box::new(StateCollector { shared: shared.clone() }));
    prometheus_client::encoding::text::encode_registry(&mut text, shared.meters.registry())?;
    prometheus_client::encoding::text::encode_registry(&mut text, &own)?;
    prometheus_client::encoding::text::encode_eof(&mut text)?;
    Ok(text)
}

/// OpenMetrics text as Prometheus's older format has it: counters are named with their `_total`, there is no `# EOF`.
fn as_prometheus_text(open: &str) -> String {
    let counters: std::collections::HashSet<&str> = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")))
        .collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        let about = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match about.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) if counters.contains(name) => {
                text.push_str(&line[..7]);
                text.push_str(&format!("{name}_total {rest}\n"));
            }
            _ if line == "# EOF" || line.starts_with("# UNIT ") => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// Reads the store and the newest report when the page is asked for.
struct StateCollector {
    shared: Arc<Shared>,
}

impl fmt::Debug for StateCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl Collector for StateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        encode_store(&self.shared, &mut encoder)?;
        let Some(report) = self.shared.report.load_full() else { return Ok(()) };
        encode_components(&report, &mut encoder)?;
        encode_signals(&report, &mut encoder)?;
        encode_rules(&report, &mut encoder)?;
        encode_plan(&report, &mut encoder)
    }
}

/// One sample of a family.
type Row = (Vec<(String, String)>, f64);

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = Row>,
) -> fmt::Result {
    family(encoder, name, help, MetricType::Gauge, rows)
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    rows: impl IntoIterator<Item = Row>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in rows {
        let encoder = family.encode_family(&labels)?;
        match kind {
            MetricType::Counter => ConstCounter::new(value).encode(encoder)?,
            _ => ConstGauge::new(value).encode(encoder)?,
        }
    }
    Ok(())
}

fn pairs(labels: &Labels) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn one(name: &str, value: impl Into<String>) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.into())]
}

fn encode_store(shared: &Shared, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let stats = shared.store.stats();
    let works = f64::from(u8::from(shared.journal_works()));
    gauges(encoder, "store_series", "Series in the store", [(vec![], stats.series as f64)])?;
    gauges(encoder, "store_samples", "Samples in the store", [(vec![], stats.samples as f64)])?;
    gauges(encoder, "store_memory_bytes", "Memory that the store accounts for", [(vec![], stats.memory_bytes as f64)])?;
    let limit = shared.settings.load().store.memory_bytes_max as f64;
    gauges(encoder, "store_memory_limit_bytes", "The most memory that the store may take", [(vec![], limit)])?;
    let dropped = stats.dropped.iter().map(|(reason, count)| (one("reason", reason.as_str()), *count as f64));
    family(encoder, "store_dropped", "Samples and series that were not kept, by reason", MetricType::Counter, dropped)?;
    gauges(
        encoder,
        "journal_writable",
        "Whether the journal can be written; nothing is acted on otherwise",
        [(vec![], works)],
    )?;
    let leads = f64::from(u8::from(shared.leads()));
    gauges(encoder, "leader", "Whether this replica acts; always where there is no election", [(vec![], leads)])?;
    let witness = shared.journal.witness();
    let rows = [(vec![], witness.rows as f64)];
    gauges(encoder, "journal_rows", "The number of the journal's last row", rows)?;
    let head = [(vec![], witness.value as f64)];
    gauges(encoder, "journal_head", "The first 48 bits of the hash of the journal's last row", head)?;
    let pauses = shared.journal.controls().pauses_at(shared.clock.now());
    let scopes = ["all", "policy", "kind", "component"].map(|scope| {
        let count = pauses.iter().filter(|pause| pause.scope.word() == scope).count();
        (one("scope", scope), count as f64)
    });
    gauges(encoder, "paused", "Pauses that hold now, by what they are for", scopes)?;
    let mut notices = Vec::new();
    for sink in shared.notifier.status() {
        for (result, count) in [("sent", sink.sent), ("failed", sink.failed), ("dropped", sink.dropped)] {
            notices.push(([one("sink", &*sink.name), one("result", result)].concat(), count as f64));
        }
    }
    let help = "Notices to people, by where to and what became of them";
    family(encoder, "notifications", help, MetricType::Counter, notices)?;
    let build = one("version", env!("CARGO_PKG_VERSION"));
    gauges(encoder, "build_info", "The version, as a label; always 1", [(build, 1.0)])
}

fn encode_components(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let rows = |value: fn(&Assessment) -> Option<f64>| {
        let rows = report.assessments.iter().filter_map(move |a| Some((pairs(&component_labels(a)), value(a)?)));
        rows.collect::<Vec<Row>>()
    };
    gauges(encoder, "component_health_ratio", "Health of the component, 1 is well", rows(|a| a.health))?;
    let slopes = rows(|a| a.slope_per_hour);
    gauges(encoder, "component_health_slope_per_hour", "Robust slope of health over 15 minutes", slopes)?;
    let probabilities = rows(|a| a.probability);
    let help = "Calibrated probability that a breach begins within the horizon";
    gauges(encoder, "component_failure_probability", help, probabilities)?;
    let mut etas = Vec::new();
    for assessment in report.assessments.iter().filter(|a| a.probability.is_some()) {
        for (quantile, eta) in [("0.1", assessment.eta.q10), ("0.5", assessment.eta.q50)] {
            if let Some(eta) = eta {
                let labels = component_labels(assessment).with("quantile", quantile);
                etas.push((pairs(&labels), eta.as_secs_f64()));
            }
        }
    }
    let help = "Quantiles of the time until a breach begins; absent beyond the horizon";
    gauges(encoder, "component_time_to_breach_seconds", help, etas)?;
    gauges(encoder, "component_impact_ratio", "How much a failure of the component hurts", rows(|a| Some(a.impact)))?;
    let losses = rows(|a| a.health.map(|_| a.expected_loss));
    gauges(encoder, "component_expected_loss_ratio", "Damage times impact; orders the ranking", losses)?;
    let ranks = rows(|a| (a.rank > 0).then_some(a.rank as f64));
    gauges(encoder, "component_rank", "Place in the ranking by expected loss, from 1", ranks)
}

fn encode_signals(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    // The predictions of others have ids, which are no labels: they show in the component's own metrics.
    let signals = || {
        let all = report.assessments.iter().flat_map(|a| a.signals.iter().map(move |s| (a, s)));
        all.filter(|(_, signal)| signal.rule != EXTERNAL_RULE)
    };
    let mut probabilities = Vec::new();
    let mut thresholds = Vec::new();
    let mut forecasts = Vec::new();
    for (assessment, signal) in signals() {
        let labels = signal_labels(assessment, signal);
        let foresight = &signal.foresight;
        for (calibrated, value) in [("true", foresight.probability), ("false", foresight.probability_raw)] {
            probabilities.extend(value.map(|value| (pairs(&labels.with("calibrated", calibrated)), value)));
        }
        if let Some(limit) = &foresight.limit {
            for (level, value) in [("breach", Some(limit.threshold)), ("warn", limit.warn)] {
                thresholds.extend(value.map(|value| (pairs(&labels.with("level", level)), value)));
            }
        }
        forecast_rows(&labels, signal, &mut forecasts);
    }
    let help = "Probability of a breach of this signal, calibrated or raw";
    gauges(encoder, "signal_failure_probability", help, probabilities)?;
    gauges(encoder, "signal_forecast", "Quantiles of the signal so far ahead, in its own unit", forecasts)?;
    gauges(encoder, "signal_threshold", "The lines the signal is held against, in its own unit", thresholds)?;
    let rows = |value: fn(&SignalAssessment) -> Option<f64>| {
        let rows = signals().filter_map(move |(a, s)| Some((pairs(&signal_labels(a, s)), value(s)?)));
        rows.collect::<Vec<Row>>()
    };
    let outside = rows(|s| s.foresight.outside_interval.map(|outside| f64::from(u8::from(outside))));
    gauges(encoder, "signal_outside_interval", "Whether the newest value left the interval forecast for it", outside)?;
    let mut peers = Vec::new();
    for (assessment, signal) in signals() {
        let Some(distance) = signal.peers else { continue };
        let labels = signal_labels(assessment, signal);
        for (of, deviations) in [("value", Some(distance.value)), ("slope", distance.slope)] {
            peers.extend(deviations.map(|deviations| (pairs(&labels.with("of", of)), deviations)));
        }
    }
    gauges(encoder, "signal_peer_deviation", "Robust deviations from the median of the component's siblings", peers)?;
    let ages = rows(|s| s.foresight.age.map(Millis::as_secs_f64));
    gauges(encoder, "signal_data_age_seconds", "Age of the signal's newest value", ages)?;
    let histories = rows(|s| Some(s.foresight.history.as_secs_f64()));
    gauges(encoder, "signal_history_seconds", "How much history the signal's forecasts learn from", histories)
}

fn forecast_rows(labels: &Labels, signal: &SignalAssessment, rows: &mut Vec<Row>) {
    let Some(path) = &signal.foresight.path else { return };
    for (name, lead) in LEADS {
        let step = usize::try_from((lead.0 + path.step.0 / 2) / path.step.0).unwrap_or(0);
        for (level, values) in path.levels.iter().zip(&path.values) {
            // The first step is one step ahead.
            if let Some(value) = step.checked_sub(1).and_then(|index| values.get(index)) {
                rows.push((pairs(&labels.with("lead", name).with("quantile", &level.to_string())), *value));
            }
        }
    }
}

fn encode_rules(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut predictions = Vec::new();
    let mut coverage = Vec::new();
    let mut windows: [Vec<Row>; 4] = Default::default();
    for quality in &report.quality {
        for (resolution, count) in &quality.counts {
            let labels = [one("rule", &quality.rule), one("outcome", resolution.name())].concat();
            predictions.push((labels, *count as f64));
        }
        let level = [one("rule", &quality.rule), one("level", "0.95")].concat();
        coverage.extend(quality.coverage.map(|share| (level, share)));
        for window in &quality.windows {
            let labels = [one("rule", &quality.rule), one("window", &*window.name)].concat();
            let values = [window.precision, window.recall, window.brier, window.calibration_error];
            for (rows, value) in windows.iter_mut().zip(values) {
                rows.extend(value.map(|value| (labels.clone(), value)));
            }
        }
    }
    let [precision, recall, brier, calibration] = windows;
    family(encoder, "predictions", "Resolved predictions, by what became of them", MetricType::Counter, predictions)?;
    gauges(encoder, "rule_precision_ratio", "Share of warnings that came true", precision)?;
    gauges(encoder, "rule_recall_ratio", "Share of predictions before a breach that warned", recall)?;
    gauges(encoder, "rule_brier_score", "Mean squared error of the probabilities", brier)?;
    gauges(encoder, "rule_calibration_error_ratio", "Distance of said and realised probabilities", calibration)?;
    gauges(encoder, "forecast_coverage_ratio", "Share of values inside the interval forecast for them", coverage)?;
    encode_channels(report, encoder)?;
    let mut models: std::collections::BTreeMap<(&str, &str), f64> = std::collections::BTreeMap::new();
    for signal in report.assessments.iter().flat_map(|a| &a.signals).filter(|s| !s.foresight.model.is_empty()) {
        *models.entry((&signal.rule, &signal.foresight.model)).or_default() += 1.0;
    }
    let models =
        models.into_iter().map(|((rule, model), count)| ([one("rule", rule), one("model", model)].concat(), count));
    gauges(encoder, "model_selected", "Signals of the rule whose path this model makes", models)?;
    gauges(encoder, "signals", "Signals that are watched", [(vec![], report.signals as f64)])?;
    let faults = [(vec![], report.faults.len() as f64)];
    gauges(encoder, "cycle_faults", "Expressions that could not be evaluated in the newest pass", faults)
}

fn encode_channels(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (mut precision, mut muted) = (Vec::new(), Vec::new());
    for quality in &report.quality {
        for channel in &quality.channels {
            let labels =
                [one("rule", &quality.rule), one("signal", &channel.signal), one("channel", word(&channel.channel))];
            precision.extend(channel.precision.map(|share| (labels.concat(), share)));
        }
        let channels: std::collections::BTreeSet<_> = quality.channels.iter().map(|channel| channel.channel).collect();
        for channel in channels {
            let labels = [one("rule", &quality.rule), one("channel", word(&channel))].concat();
            muted.push((labels, f64::from(u8::from(quality.muted.contains(&channel)))));
        }
    }
    let help = "Share of the channel's claims that came true in the last 30 days, muted or not";
    gauges(encoder, "channel_precision_ratio", help, precision)?;
    let help = "Whether the channel does not warn for the rule because its claims come true too seldom";
    gauges(encoder, "channel_muted", help, muted)
}

fn encode_plan(report: &Report, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let blocked = report.plan.declined.iter().filter(|declined| declined.reason != crate::plan::Reason::BelowEntry);
    let blocked: std::collections::BTreeSet<(String, String)> =
        blocked.map(|declined| (declined.component.to_string(), word(&declined.reason))).collect();
    let rows = blocked
        .into_iter()
        .map(|(component, reason)| ([one("component", component), one("reason", reason)].concat(), 1.0));
    gauges(encoder, "decision_blocked", "What would be done and is not, by reason; 1 while it holds", rows)?;
    let left = |usage: &crate::plan::Usage| usage.budget.saturating_sub(usage.spent) as f64;
    let budgets = report.plan.usage.iter().map(|(policy, usage)| (one("policy", &**policy), left(usage)));
    gauges(encoder, "budget_remaining", "Actions that the policy may still take in its window", budgets)?;
    let open = |kind: &str| report.plan.carry.breakers.get(kind).is_some_and(|breaker| !breaker.released);
    let kinds: std::collections::BTreeSet<&str> =
        report.assessments.iter().map(|a| a.component.kind.as_str()).collect();
    let mut breakers = Vec::new();
    for policy in &report.input.policies {
        for kind in kinds.iter().filter(|kind| policy.selector.kind.as_ref().is_none_or(|wanted| wanted == *kind)) {
            let labels = [one("policy", &*policy.name), one("kind", *kind)].concat();
            breakers.push((labels, f64::from(u8::from(open(kind)))));
        }
    }
    gauges(encoder, "breaker_open", "Whether too much of the kind is at risk at once for the policy to act", breakers)
}

#[cfg(test)]
mod tests {
    use super::as_prometheus_text;

    #[test]
    fn the_older_format_names_counters_with_their_suffix() {
        let open = "# HELP a_hits Hits.\n# TYPE a_hits counter\na_hits_total 1\n# TYPE b gauge\nb 2\n# EOF\n";
        let text = "# HELP a_hits_total Hits.\n# TYPE a_hits_total counter\na_hits_total 1\n# TYPE b gauge\nb 2\n";
        assert_eq!(as_prometheus_text(open), text);
    }
}
