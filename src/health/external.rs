//! What another predictor says of a component, as signals beside our own.
//!
//! A prediction counts as a signal of the rule [`EXTERNAL_RULE`] while it lasts: with its probability as it was told, its time
//! to breach counted down, and, for each resource that is wanted, the sizing arithmetic of our own signals with what is wanted in
//! the place of the peak. All signals of one prediction are views of one cause.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ScalesWith, SignalAssessment};
use crate::forecast::{Eta, Foresight, Knowledge, Limit, Side};
use crate::model::{ComponentId, Millis, Timestamp};

/// The rule under whose name predictions of others count.
pub const EXTERNAL_RULE: &str = "external";

/// The impact of a component of which no rule says one.
pub const EXTERNAL_IMPACT: f64 = 0.5;

/// Another predictor's verdict on a component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Its id, unique for its source: once something was done for it, nothing is done for it again.
    pub id: String,
    /// Who says so.
    pub source: String,
    /// Of what.
    pub component: ComponentId,
    /// Of a failure, 0..1.
    pub probability: f64,
    /// Its lower bound: what acting is decided on.
    pub probability_low: f64,
    /// How bad the failure would be, 0..1.
    pub severity: f64,
    /// When, counted from `received_at`.
    pub eta: Eta,
    /// How much is wanted: `replicas`, and `cpu` in cores, `memory` and `disk` in bytes for each replica.
    pub wanted: BTreeMap<String, f64>,
    /// How much a failure hurts, 0..1, where no rule says so.
    pub impact: Option<f64>,
    /// Why, in its words.
    pub reason: String,
    /// When it was told.
    pub received_at: Timestamp,
    /// From then on it counts for nothing.
    pub expires_at: Timestamp,
}

impl Prediction {
    /// Its name among all predictions: `source/id`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.source, self.id)
    }

    /// What it comes to at `now`, for a component that has so much of each resource as far as that is known.
    pub fn signals(&self, has: &BTreeMap<String, f64>, now: Timestamp) -> Vec<SignalAssessment> {
        let mut signals: Vec<SignalAssessment> = Vec::new();
        for (name, wanted) in &self.wanted {
            let scales_with = match name.as_str() {
                "replicas" => ScalesWith::Replicas,
                "cpu" => ScalesWith::Cpu,
                "memory" => ScalesWith::Memory,
                "disk" => ScalesWith::Disk,
                _ => continue,
            };
            let has = has.get(name).copied().filter(|has| *has > 0.0);
            // What is there already is not wanted any more.
            if has.is_none_or(|has| has < *wanted) {
                let limit = has.map(|has| Limit { threshold: has, warn: Some(has) });
                signals.push(self.signal(scales_with, Some(*wanted), limit, now));
            }
        }
        if signals.is_empty() {
            // Who does not say how much gets the smallest step.
            let scales_with = if self.wanted.is_empty() { ScalesWith::Replicas } else { ScalesWith::None };
            signals.push(self.signal(scales_with, None, None, now));
        }
        signals
    }

    fn signal(
        &self,
        scales_with: ScalesWith,
        peak: Option<f64>,
        limit: Option<Limit>,
        now: Timestamp,
    ) -> SignalAssessment {
        let passed = now - self.received_at;
        let left = |eta: Option<Millis>| eta.map(|eta| (eta - passed).max(Millis::ZERO));
        let foresight = Foresight {
            knowledge: Knowledge::Known,
            age: Some(Millis::ZERO),
            limit,
            probability_raw: Some(self.probability),
            probability: Some(self.probability),
            probability_low: Some(self.probability_low),
            eta: Eta { q10: left(self.eta.q10), q50: left(self.eta.q50) },
            depth: self.severity,
            peak_q90: peak,
            ..Foresight::unknown(now, "")
        };
        SignalAssessment {
            rule: EXTERNAL_RULE.to_owned(),
            signal: self.key(),
            group: format!("{EXTERNAL_RULE}/{}", self.key()),
            weight: 1.0,
            side: Side::Above,
            scales_with,
            severity: self.severity,
            foresight,
            peers: None,
        }
    }
}

/// The predictions of others among some signals, each once, in order.
pub fn predictions_among(signals: &[SignalAssessment]) -> Vec<String> {
    let external = signals.iter().filter(|signal| signal.rule == EXTERNAL_RULE);
    external.map(|signal| signal.signal.clone()).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Timestamp = Timestamp(1_700_000_000_000);

    fn prediction(wanted: &[(&str, f64)]) -> Prediction {
        Prediction {
            id: "p-1".to_owned(),
            source: "oracle".to_owned(),
            component: ComponentId { kind: "service".to_owned(), labels: vec![] },
            probability: 0.9,
            probability_low: 0.7,
            severity: 0.5,
            eta: Eta { q10: Some(Millis::MINUTE * 10), q50: Some(Millis::MINUTE * 20) },
            wanted: wanted.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect(),
            impact: None,
            reason: String::new(),
            received_at: TOLD,
            expires_at: TOLD + Millis::HOUR,
        }
    }

    #[test]
    fn asks_for_what_is_wanted_and_not_there_yet() {
        let has: BTreeMap<String, f64> = [("replicas".to_owned(), 5.0), ("cpu".to_owned(), 2.0)].into();
        for (wanted, asked) in [
            (vec![], vec![(ScalesWith::Replicas, None, None)]),
            (vec![("replicas", 8.0)], vec![(ScalesWith::Replicas, Some(8.0), Some(5.0))]),
            (vec![("replicas", 5.0)], vec![(ScalesWith::None, None, None)]),
            (vec![("replicas", 4.0), ("cpu", 3.0)], vec![(ScalesWith::Cpu, Some(3.0), Some(2.0))]),
            (vec![("memory", 1e9)], vec![(ScalesWith::Memory, Some(1e9), None)]),
        ] {
            let signals = prediction(&wanted).signals(&has, TOLD);
            let found: Vec<_> = signals
                .iter()
                .map(|s| (s.scales_with, s.foresight.peak_q90, s.foresight.limit.and_then(|limit| limit.warn)))
                .collect();
            assert_eq!(found, asked, "{wanted:?}");
            assert!(signals.iter().all(|signal| signal.group == "external/oracle/p-1" && signal.severity <= 0.5));
            assert_eq!(predictions_among(&signals), ["oracle/p-1"]);
        }
    }

    #[test]
    fn its_time_to_breach_runs_down() {
        for (minutes, q10, q50) in [(0, 10, 20), (4, 6, 16), (15, 0, 5), (50, 0, 0)] {
            let signals = prediction(&[]).signals(&BTreeMap::new(), TOLD + Millis::MINUTE * minutes);
            let eta = signals[0].foresight.eta;
            assert_eq!((eta.q10, eta.q50), (Some(Millis::MINUTE * q10), Some(Millis::MINUTE * q50)), "{minutes}");
        }
    }
}
