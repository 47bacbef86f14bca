//! Our own counters and histograms.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::audit::word;
use crate::ingest::{Batch, Protocol};
use crate::plan::{Action, Outcome};
use crate::store::Appended;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    message: String,
    result: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    action: String,
    outcome: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabel {
    action: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
}

/// Counters and histograms that are not read off the newest report.
#[derive(Debug)]
pub struct Meters {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    samples: Family<ResultLabel, Counter>,
    decisions: Family<DecisionLabels, Counter>,
    action_seconds: Family<ActionLabel, Histogram>,
    lead_seconds: Family<RuleLabel, Histogram>,
    cycle_seconds: Histogram,
    cycle_overruns: Counter,
    reloads: Family<ResultLabel, Counter>,
    alerts: Family<ResultLabel, Counter>,
}

impl Meters {
    /// All at zero.
    pub(super) fn new() -> Meters {
        let mut registry = Registry::with_prefix("forestall");
        let samples = Family::<ResultLabel, Counter>::default();
        let decisions = Family::<DecisionLabels, Counter>::default();
        let action_seconds = Family::<ActionLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.5, 2.0, 12))
        });
        let lead_seconds =
            Family::<RuleLabel, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(15.0, 2.5, 10)));
        let cycle_seconds = Histogram::new(exponential_buckets(0.001, 2.5, 12));
        let cycle_overruns = Counter::default();
        let reloads = Family::<ResultLabel, Counter>::default();
        registry.register(
            "remote_write_samples",
            "Samples that arrived by remote write, by what became of them",
            samples.clone(),
        );
        registry.register("decisions", "Actions decided on, by outcome and, where not done, reason", decisions.clone());
        registry.register(
            "action_duration_seconds",
            "Time from a decision to its confirmation",
            action_seconds.clone(),
        );
        registry.register("rule_lead_time_seconds", "Time from the first warning to the breach", lead_seconds.clone());
        registry.register("cycle_duration_seconds", "Time one pass over all rules takes", cycle_seconds.clone());
        registry.register("cycle_overruns", "Passes that took longer than their interval", cycle_overruns.clone());
        registry.register("config_reloads", "Configuration reloads, by result", reloads.clone());
        let alerts = Family::<ResultLabel, Counter>::default();
        registry.register(
            "alerts",
            "Alerts that were sent to tell of failures, by what became of them",
            alerts.clone(),
        );
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "remote_write_requests",
            "Remote-write requests, by message and what became of them",
            requests.clone(),
        );
        for result in ["taken", "forecast", "unmatched"] {
            drop(alerts.get_or_create(&ResultLabel { result: result.to_owned() }));
        }
        for result in ["stored", "duplicate"] {
            drop(samples.get_or_create(&ResultLabel { result: result.to_owned() }));
        }
        Meters {
            registry,
            requests,
            samples,
            decisions,
            action_seconds,
            lead_seconds,
            cycle_seconds,
            cycle_overruns,
            reloads,
            alerts,
        }
    }

    /// Counts alerts by what became of them.
    pub(super) fn count_alerts(&self, result: &str, count: usize) {
        self.alerts.get_or_create(&ResultLabel { result: result.to_owned() }).inc_by(count as u64);
    }

    /// The registry, for the metrics page.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a remote-write request by its message and what became of it as a whole.
    pub(super) fn count_request(&self, protocol: Option<Protocol>, result: &str) {
        let message = match protocol {
            Some(Protocol::V1) => "1.0",
            Some(Protocol::V2) => "2.0",
            None => "unknown",
        };
        self.requests.get_or_create(&RequestLabels { message: message.to_owned(), result: result.to_owned() }).inc();
    }

    /// Counts what became of a batch's samples.
    pub(super) fn count_appended(&self, batch: &Batch, appended: &Appended) {
        let store = appended.refused_samples.iter().map(|(reason, samples)| (reason.as_str(), *samples));
        let message = batch.refused().iter().map(|refused| (refused.reason.as_str(), refused.samples));
        let taken = [("stored", appended.stored), ("duplicate", appended.duplicates)];
        for (result, count) in taken.into_iter().chain(store).chain(message).filter(|(_, count)| *count > 0) {
            self.samples.get_or_create(&ResultLabel { result: result.to_owned() }).inc_by(count);
        }
    }

    /// Counts an action and what came of it.
    pub fn count_outcome(&self, action: &Action, outcome: Outcome, took_seconds: Option<f64>) {
        let kind = word(&action.kind);
        let labels = DecisionLabels { action: kind.clone(), outcome: word(&outcome), reason: String::new() };
        self.decisions.get_or_create(&labels).inc();
        if let Some(seconds) = took_seconds {
            self.action_seconds.get_or_create(&ActionLabel { action: kind }).observe(seconds);
        }
    }

    /// Counts something that was newly declined.
    pub fn count_declined(&self, declined: &crate::plan::Declined) {
        let labels = DecisionLabels {
            action: declined.action.as_ref().map(word).unwrap_or_default(),
            outcome: "declined".to_owned(),
            reason: word(&declined.reason),
        };
        self.decisions.get_or_create(&labels).inc();
    }

    /// Counts a breach that was warned of, by its lead.
    pub fn observe_lead(&self, rule: &str, seconds: f64) {
        self.lead_seconds.get_or_create(&RuleLabel { rule: rule.to_owned() }).observe(seconds);
    }

    /// Counts a pass; `overran` says that the next was due before it ended.
    pub fn observe_cycle(&self, seconds: f64, overran: bool) {
        self.cycle_seconds.observe(seconds);
        self.cycle_overruns.inc_by(u64::from(overran));
    }

    /// Counts a reload.
    pub fn count_reload(&self, result: &str) {
        self.reloads.get_or_create(&ResultLabel { result: result.to_owned() }).inc();
    }
}
