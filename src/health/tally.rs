//! Sums over predictions whose outcome is known: what a rule, and each channel in it, is worth.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::forecast::{Calibration, ChannelName};
use crate::model::{Millis, Timestamp};

/// At and above this probability a prediction counts as a warning.
pub(super) const WARNING_AT: f64 = 0.5;
/// How many bins of equal width the calibration error is measured in.
const BINS: usize = 10;

/// What became of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Resolution {
    /// Warned, and a breach came.
    #[serde(rename = "tp")]
    TruePositive,
    /// Warned, and none came.
    #[serde(rename = "fp")]
    FalsePositive,
    /// Did not warn, and a breach came.
    #[serde(rename = "fn")]
    FalseNegative,
    /// Did not warn, and none came.
    #[serde(rename = "tn")]
    TrueNegative,
    /// We acted, and no breach came: averted or a false alarm, unknowable.
    #[serde(rename = "acted_ok")]
    ActedOk,
    /// We acted, and a breach came all the same.
    #[serde(rename = "acted_failed")]
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

    /// As it stands in metrics and in the journal.
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

/// Claims of one channel that a breach comes, counted whether or not the channel was muted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Those that came true.
    pub came: u64,
    /// Those that did not.
    pub failed: u64,
}

impl Claims {
    /// Share of claims that came true; absent without claims.
    pub fn precision(self) -> Option<f64> {
        let all = self.came + self.failed;
        (all > 0).then(|| self.came as f64 / all as f64)
    }
}

/// Sums over resolved predictions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    counts: BTreeMap<Resolution, u64>,
    squared_errors: f64,
    bins: [Bin; BINS],
    inside_interval: u64,
    intervals: u64,
    /// Breaches that were warned of, and by how many seconds in all.
    leads: u64,
    lead_seconds: f64,
    /// Signal → channel → its claims.
    claims: BTreeMap<String, BTreeMap<ChannelName, Claims>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
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

    /// Mean squared difference of probability and what came (Brier 1950, "Verification of forecasts expressed in terms of
    /// probability"); absent without predictions.
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

    /// Mean time from the first warning to the breach, over the breaches that were warned of.
    pub fn lead(&self) -> Option<f64> {
        (self.leads > 0).then(|| self.lead_seconds / self.leads as f64)
    }

    /// The claims of each channel, by signal.
    pub fn claims(&self) -> impl Iterator<Item = (&str, ChannelName, Claims)> {
        let channels = |(signal, channels)| -> Vec<(&str, ChannelName, Claims)> {
            let (signal, channels): (&String, &BTreeMap<ChannelName, Claims>) = (signal, channels);
            channels.iter().map(|(channel, claims)| (signal.as_str(), *channel, *claims)).collect()
        };
        self.claims.iter().flat_map(channels)
    }

    /// Whether nothing was resolved.
    pub fn is_empty(&self) -> bool {
        *self == Tally::default()
    }

    fn share(&self, hit: Resolution, miss: Resolution) -> Option<f64> {
        let (hits, misses) = (self.count(hit), self.count(miss));
        (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
    }

    fn unacted(&self) -> f64 {
        self.bins.iter().map(|bin| bin.count).sum()
    }

    /// Adds a prediction of the probability `said` (0..1). Where we acted, it only counts as that.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability times ten is 0 to 10")]
    pub(super) fn add(&mut self, said: f64, came_true: bool, acted: bool) {
        let resolution = match (acted, said >= WARNING_AT, came_true) {
            (true, _, false) => Resolution::ActedOk,
            (true, _, true) => Resolution::ActedFailed,
            (false, true, true) => Resolution::TruePositive,
            (false, true, false) => Resolution::FalsePositive,
            (false, false, true) => Resolution::FalseNegative,
            (false, false, false) => Resolution::TrueNegative,
        };
        *self.counts.entry(resolution).or_default() += 1;
        if acted {
            return;
        }
        let truth = f64::from(u8::from(came_true));
        self.squared_errors += (said - truth).powi(2);
        let bin = &mut self.bins[((said * BINS as f64) as usize).min(BINS - 1)];
        bin.count += 1.0;
        bin.probability += said;
        bin.came_true += truth;
    }

    pub(super) fn add_interval(&mut self, inside: bool) {
        self.intervals += 1;
        self.inside_interval += u64::from(inside);
    }

    pub(super) fn add_lead(&mut self, lead: Millis) {
        self.leads += 1;
        self.lead_seconds += lead.as_secs_f64();
    }

    pub(super) fn add_claim(&mut self, signal: &str, channel: ChannelName, came_true: bool) {
        let of_signal = match self.claims.get_mut(signal) {
            Some(channels) => channels,
            None => self.claims.entry(signal.to_owned()).or_default(),
        };
        let claims = of_signal.entry(channel).or_default();
        if came_true {
            claims.came += 1;
        } else {
            claims.failed += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &Tally) {
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
        self.leads += other.leads;
        self.lead_seconds += other.lead_seconds;
        for (signal, channel, more) in other.claims() {
            let claims = self.claims.entry(signal.to_owned()).or_default().entry(channel).or_default();
            claims.came += more.came;
            claims.failed += more.failed;
        }
    }
}

/// What was resolved of one rule's predictions on one day since the last summary of that day, and what has been learned.
/// All summaries of a rule together are what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaySummary {
    /// The rule.
    pub rule: String,
    /// The kind of its components.
    pub kind: String,
    /// The day (UTC), counted from the epoch.
    pub day: i64,
    /// What was resolved.
    pub tally: Tally,
    /// What evidence has meant so far; the newest summary of a rule counts.
    #[serde(default, deserialize_with = "readable_or_prior")]
    pub calibration: Calibration,
}

/// What another version has learned may have another shape: then it is learned anew, and the tallies are taken all the same.
fn readable_or_prior<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Calibration, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

impl DaySummary {
    /// The day as people write it: `2026-01-09`.
    pub fn date(&self) -> String {
        let text = Timestamp(self.day.saturating_mul(Millis::DAY.0)).to_string();
        text.split('T').next().unwrap_or_default().to_owned()
    }
}
