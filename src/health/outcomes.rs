//! What became of predictions: each is resolved once its horizon is over, and the sums say what a rule is worth.
//!
//! A prediction is the probability of one component under one rule at one moment. It came true when a breach began
//! within its horizon. Where forestall acted meanwhile nobody can know what would have been: such predictions are
//! counted apart and left out of precision, recall, Brier score and calibration.
//!
//! Predictions are taken every horizon / [`PREDICTIONS_PER_HORIZON`], so that one episode does not count once a cycle.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{ComponentId, Millis, Timestamp};

/// How many predictions are taken within one horizon; bounds what is pending for a component.
pub(super) const PREDICTIONS_PER_HORIZON: i64 = 24;
/// At and above this probability a prediction counts as a warning.
pub(super) const WARNING_AT: f64 = 0.5;
/// How many days of tallies are kept.
const DAYS_KEPT: i64 = 30;
/// How many bins of equal width the calibration error is measured in.
const BINS: usize = 10;

/// What became of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// Warned, and a breach came.
    TruePositive,
    /// Warned, and none came.
    FalsePositive,
    /// Did not warn, and a breach came.
    FalseNegative,
    /// Did not warn, and none came.
    TrueNegative,
    /// We acted, and no breach came: averted or a false alarm, unknowable.
    ActedOk,
    /// We acted, and a breach came all the same.
    ActedFailed,
}

impl Resolution {
    /// All of them.
    pub const ALL: [Resolution; 6] = [
        Resolution::TruePositive,
        Resolution::FalsePositive,
        Resolution::FalseNegative,
        Resolution::TrueNegative,
        Resolution::ActedOk,
        Resolution::ActedFailed,
    ];

    /// As it stands in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Resolution::TruePositive => "tp",
            Resolution::FalsePositive => "fp",
            Resolution::FalseNegative => "fn",
            Resolution::TrueNegative => "tn",
            Resolution::ActedOk => "acted_ok",
            Resolution::ActedFailed => "acted_failed",
        }
    }
}

/// Sums over resolved predictions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    counts: BTreeMap<Resolution, u64>,
    squared_errors: f64,
    bins: [Bin; BINS],
    inside_interval: u64,
    intervals: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Bin {
    count: f64,
    probability: f64,
    came_true: f64,
}

impl Tally {
    /// How many predictions ended so.
    pub fn count(&self, resolution: Resolution) -> u64 {
        self.counts.get(&resolution).copied().unwrap_or(0)
    }

    /// Share of warnings that came true; absent without warnings.
    pub fn precision(&self) -> Option<f64> {
        self.share(Resolution::TruePositive, Resolution::FalsePositive)
    }

    /// Share of predictions before a breach that warned; absent without breaches.
    pub fn recall(&self) -> Option<f64> {
        self.share(Resolution::TruePositive, Resolution::FalseNegative)
    }

    /// Mean squared difference of probability and what came (Brier 1950); absent without predictions.
    pub fn brier(&self) -> Option<f64> {
        let count = self.unacted();
        (count > 0.0).then(|| self.squared_errors / count)
    }

    /// Mean distance of said and realised probability over ten bins, weighted by their predictions.
    pub fn calibration_error(&self) -> Option<f64> {
        let count = self.unacted();
        let distance: f64 = self.bins.iter().map(|bin| (bin.probability - bin.came_true).abs()).sum();
        (count > 0.0).then(|| distance / count)
    }

    /// Share of values inside the 95 % interval that was forecast one horizon before.
    pub fn coverage(&self) -> Option<f64> {
        (self.intervals > 0).then(|| self.inside_interval as f64 / self.intervals as f64)
    }

    fn share(&self, hit: Resolution, miss: Resolution) -> Option<f64> {
        let (hits, misses) = (self.count(hit), self.count(miss));
        (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
    }

    fn unacted(&self) -> f64 {
        self.bins.iter().map(|bin| bin.count).sum()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability times ten is 0 to 10")]
    fn add(&mut self, prediction: &Prediction, came_true: bool) {
        let warned = prediction.probability >= WARNING_AT;
        let resolution = match (prediction.acted, warned, came_true) {
            (true, _, false) => Resolution::ActedOk,
            (true, _, true) => Resolution::ActedFailed,
            (false, true, true) => Resolution::TruePositive,
            (false, true, false) => Resolution::FalsePositive,
            (false, false, true) => Resolution::FalseNegative,
            (false, false, false) => Resolution::TrueNegative,
        };
        *self.counts.entry(resolution).or_default() += 1;
        if prediction.acted {
            return;
        }
        let truth = f64::from(u8::from(came_true));
        self.squared_errors += (prediction.probability - truth).powi(2);
        let bin = &mut self.bins[((prediction.probability * BINS as f64) as usize).min(BINS - 1)];
        bin.count += 1.0;
        bin.probability += prediction.probability;
        bin.came_true += truth;
    }

    fn merge(&mut self, other: &Tally) {
        for (resolution, count) in &other.counts {
            *self.counts.entry(*resolution).or_default() += count;
        }
        self.squared_errors += other.squared_errors;
        for (bin, more) in self.bins.iter_mut().zip(&other.bins) {
            bin.count += more.count;
            bin.probability += more.probability;
            bin.came_true += more.came_true;
        }
        self.inside_interval += other.inside_interval;
        self.intervals += other.intervals;
    }
}

#[derive(Debug, Clone, Copy)]
struct Prediction {
    at: Timestamp,
    probability: f64,
    acted: bool,
}

#[derive(Debug, Default)]
struct Pending {
    predictions: VecDeque<Prediction>,
    breached: bool,
    warned_since: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct RuleOutcomes {
    pending: BTreeMap<ComponentId, Pending>,
    days: BTreeMap<i64, Tally>,
    total: Tally,
    lead_seconds: Vec<f64>,
}

/// What one rule said of one component at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// The calibrated probability; absent when unknown or learning.
    pub probability: Option<f64>,
    /// Whether a signal of the rule is in breach.
    pub breached: bool,
    /// Whether an action of ours stands for this component.
    pub acted: bool,
    /// Whether the newest value was outside the interval forecast one horizon before.
    pub outside_interval: Option<bool>,
}

/// The ledger of outcomes of all rules.
#[derive(Debug, Default)]
pub struct Outcomes {
    rules: BTreeMap<String, RuleOutcomes>,
}

impl Outcomes {
    /// Takes what a rule said of a component, and resolves what is over.
    pub fn take(&mut self, rule: &str, component: &ComponentId, horizon: Millis, said: Said, now: Timestamp) {
        let outcomes = self.rules.entry(rule.to_owned()).or_default();
        let pending = outcomes.pending.entry(component.clone()).or_default();
        let day = outcomes.days.entry(now.0.div_euclid(Millis::DAY.0)).or_default();
        if let Some(outside) = said.outside_interval {
            for tally in [&mut *day, &mut outcomes.total] {
                tally.intervals += 1;
                tally.inside_interval += u64::from(!outside);
            }
        }
        let begins = said.breached && !pending.breached;
        pending.breached = said.breached;
        if said.acted {
            // What an action may have changed is no longer evidence about what was predicted.
            pending.predictions.iter_mut().for_each(|prediction| prediction.acted = true);
        }
        while let Some(prediction) = pending.predictions.front().copied() {
            let over = now > prediction.at + horizon;
            if !over && !begins {
                break;
            }
            pending.predictions.pop_front();
            day.add(&prediction, begins && !over);
            outcomes.total.add(&prediction, begins && !over);
        }
        if begins && let Some(since) = pending.warned_since.take() {
            outcomes.lead_seconds.push((now - since).as_secs_f64());
        }
        let Some(probability) = said.probability.filter(|_| !said.breached) else {
            pending.warned_since = None;
            return;
        };
        pending.warned_since = (probability >= WARNING_AT).then(|| pending.warned_since.unwrap_or(now));
        let spacing = horizon / PREDICTIONS_PER_HORIZON;
        if pending.predictions.back().is_none_or(|last| now - last.at >= spacing) {
            pending.predictions.push_back(Prediction { at: now, probability, acted: said.acted });
        }
    }

    /// Forgets rules and components that are gone, and days that are too old.
    pub fn prune(&mut self, keep: impl Fn(&str, &ComponentId) -> bool, now: Timestamp) {
        let oldest = now.0.div_euclid(Millis::DAY.0) - DAYS_KEPT;
        for (rule, outcomes) in &mut self.rules {
            outcomes.pending.retain(|component, _| keep(rule, component));
            outcomes.days.retain(|day, _| *day > oldest);
        }
    }

    /// The names of the rules that have said something.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// All that was resolved since the start.
    pub fn total(&self, rule: &str) -> Tally {
        self.rules.get(rule).map(|outcomes| outcomes.total.clone()).unwrap_or_default()
    }

    /// What was resolved in the last `days` days (UTC), today among them; at most 30.
    pub fn last_days(&self, rule: &str, days: i64, now: Timestamp) -> Tally {
        let oldest = now.0.div_euclid(Millis::DAY.0) - days;
        let mut sum = Tally::default();
        if let Some(outcomes) = self.rules.get(rule) {
            outcomes.days.range(oldest + 1..).for_each(|(_, tally)| sum.merge(tally));
        }
        sum
    }

    /// Takes the lead times of breaches that came since the last call, in seconds: rule and lead.
    pub fn drain_leads(&mut self) -> Vec<(String, f64)> {
        let drain = self.rules.iter_mut().flat_map(|(rule, outcomes)| {
            std::mem::take(&mut outcomes.lead_seconds).into_iter().map(move |lead| (rule.clone(), lead))
        });
        drain.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HORIZON: Millis = Millis(24 * Millis::MINUTE.0);

    /// Plays one component: a probability a minute (`!` = in breach, `a0.9` = acted), and counts tp fp fn tn ok failed.
    fn check(script: &str, expected: [u64; 6]) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let component = ComponentId { kind: "node".to_owned(), labels: Vec::new() };
        for (minute, word) in script.split_whitespace().enumerate() {
            let acted = word.starts_with('a');
            let breached = word == "!";
            let probability = word.trim_start_matches('a').parse().ok();
            let now = Timestamp(Millis::MINUTE.0 * i64::try_from(minute).unwrap());
            outcomes.take("r", &component, HORIZON, Said { probability, breached, acted, outside_interval: None }, now);
        }
        let total = outcomes.total("r");
        assert_eq!(Resolution::ALL.map(|resolution| total.count(resolution)), expected, "{script}");
        outcomes
    }

    #[test]
    fn predictions_before_a_breach_are_hits_or_misses() {
        let mut outcomes = check("0.1 0.9 0.9 ! ! !", [2, 0, 1, 0, 0, 0]);
        assert_eq!(outcomes.drain_leads(), [("r".to_owned(), 120.0)]);
        assert_eq!(outcomes.total("r").precision(), Some(1.0));
    }

    #[test]
    fn predictions_whose_horizon_is_over_are_resolved_as_not_come_true() {
        let script = format!("0.9 0.1 {}", "u ".repeat(25));
        check(&script, [0, 1, 0, 1, 0, 0]);
    }

    #[test]
    fn predictions_that_were_acted_on_are_counted_apart() {
        let outcomes = check("0.9 a0.9 !", [0, 0, 0, 0, 0, 2]);
        assert_eq!(outcomes.total("r").brier(), None);
    }

    #[test]
    fn a_breach_long_after_a_prediction_does_not_make_it_true() {
        let script = format!("0.9 {} !", "u ".repeat(25));
        check(&script, [0, 1, 0, 0, 0, 0]);
    }
}
