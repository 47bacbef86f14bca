//! What is remarkable about an answer: Prometheus's warnings and infos, with the place in the text that they are about.

use std::collections::BTreeMap;

use super::numbers;
use super::syntax::{position, quoted};

/// The most warnings, and the most infos, that an answer tells.
const NOTES_MAX: usize = 10;

/// Notes by their words. Two with the same words are one, which stands where the later was made.
#[derive(Debug, Default)]
pub(super) struct Notes {
    warnings: BTreeMap<String, usize>,
    infos: BTreeMap<String, usize>,
}

impl Notes {
    /// A quantile that is none.
    pub(super) fn check_quantile(&mut self, quantile: f64, at: usize) {
        if !(0.0..=1.0).contains(&quantile) {
            let got = numbers::format_general(quantile);
            self.warn(format!("quantile value should be between 0 and 1, got {got}"), at);
        }
    }

    /// A ratio beyond −1 and 1.
    pub(super) fn warn_of_ratio(&mut self, ratio: f64, capped: f64, at: usize) {
        let (got, to) = (numbers::format_general(ratio), numbers::format_general(capped));
        self.warn(format!("ratio value should be between -1 and 1, got {got}, capping to {to}"), at);
    }

    /// A bucket without a bound.
    pub(super) fn warn_of_bucket(&mut self, metric: &str, bound: &str, at: usize) {
        let (bound, metric) = (quoted(bound), quoted(metric));
        self.warn(
            format!("bucket label \"le\" is missing or has a malformed value of {bound} for metric name {metric}"),
            at,
        );
    }

    /// A rate of what is not called as a counter should be.
    pub(super) fn inform_of_non_counter(&mut self, metric: &str, at: usize) {
        let is_counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| metric.ends_with(suffix));
        if !metric.is_empty() && !is_counter {
            let what = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket";
            self.inform(format!("{what}: {}", quoted(metric)), at);
        }
    }

    /// A histogram whose counts had to be made to rise.
    pub(super) fn inform_of_repair(&mut self, metric: &str, at: usize) {
        let page = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile";
        let what = "input to histogram_quantile needed to be fixed for monotonicity";
        self.inform(format!("{what} (see {page}) for metric name {}", quoted(metric)), at);
    }

    fn warn(&mut self, words: String, at: usize) {
        self.warnings.insert(words, at);
    }

    fn inform(&mut self, words: String, at: usize) {
        self.infos.insert(words, at);
    }

    /// Warnings and infos as they are told, for an expression with this text.
    pub(super) fn told(self, text: &str) -> (Vec<String>, Vec<String>) {
        let tell = |notes: BTreeMap<String, usize>, kind: &str| {
            let omitted = notes.len().saturating_sub(NOTES_MAX);
            let words = notes.into_iter().take(NOTES_MAX);
            let mut told: Vec<String> =
                words.map(|(words, at)| format!("PromQL {kind}: {words} ({})", position(text, at))).collect();
            if omitted > 0 {
                told.push(format!("{omitted} more {kind} annotations omitted"));
            }
            told
        };
        (tell(self.warnings, "warning"), tell(self.infos, "info"))
    }
}
