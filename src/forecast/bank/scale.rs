//! How a bank sees values: centred and scaled, as they are and as logarithms.
//!
//! Members work on values of about unit size: byte counts (1e12) would ruin their normal equations. Two scales stand side by side, *plain*
//! and *log*: noise that grows with the level is even on the second. Both are fixed when a bank is fitted.

use serde::{Deserialize, Serialize};

/// A stored value is never larger than this, in units of the scale: squares of it still add up.
const STORED_MAX: f64 = 1e10;
/// The unit is at least this part of the mean: below it, differences are rounding.
const UNIT_PER_MEAN_MIN: f64 = 1e-9;
const UNIT_MIN: f64 = 1e-12;
/// Values this many units away from zero are stored as their distance from the mean, so that 32 bits are enough.
const CENTRED_FROM: f64 = 30.0;
/// What is added before a logarithm is taken where there are zeros, as a part of the median of what is above zero.
const LOG_OFFSET: f64 = 0.1;

/// A value as it is stored: enough for what is scaled to about 1.
#[expect(
    clippy::cast_possible_truncation,
    reason = "values are scaled to about 1 and clamped far within the range of f32"
)]
pub(super) fn stored(value: f64) -> f32 {
    value as f32
}

/// A logarithmic scale: `g = (ln(y + offset) − mean) / unit`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct LogScale {
    offset: f64,
    mean: f64,
    /// Of one step of `g`, in natural logarithms.
    pub(super) unit: f64,
}

/// The plain scale, `v = (y − base) / unit`, and the logarithmic one where it exists.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Scale {
    base: f64,
    unit: f64,
    /// The mean of `v`: what members subtract.
    pub(super) centre: f64,
    pub(super) log: Option<LogScale>,
    /// No value of the history was below zero, so none of the future is.
    pub(super) non_negative: bool,
}

/// Mean and standard deviation; both finite whatever finite values come in.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let largest = values.clone().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if largest <= 0.0 {
        return (0.0, 0.0);
    }
    let count = values.clone().count() as f64;
    let mean = values.clone().map(|value| value / largest / count).sum::<f64>();
    let variance = values.map(|value| (value / largest - mean).powi(2) / count).sum::<f64>();
    (mean * largest, (variance.sqrt() * largest).min(f64::MAX))
}

impl LogScale {
    /// Exists where no value is negative and some are positive.
    fn of(known: &[f64]) -> Option<LogScale> {
        let lowest = known.iter().copied().fold(f64::INFINITY, f64::min);
        let mut positive: Vec<f64> = known.iter().copied().filter(|value| *value > 0.0).collect();
        if lowest < 0.0 || positive.is_empty() {
            return None;
        }
        let middle = positive.len() / 2;
        let offset =
            if lowest > 0.0 { 0.0 } else { LOG_OFFSET * *positive.select_nth_unstable_by(middle, f64::total_cmp).1 };
        let (mean, deviation) = moments(known.iter().map(|value| (value + offset).ln()));
        Some(LogScale { offset, mean, unit: deviation.max(UNIT_PER_MEAN_MIN * mean.abs()).max(UNIT_PER_MEAN_MIN) })
    }

    fn of_value(&self, value: f64) -> f64 {
        let shifted = (value + self.offset).max(f64::MIN_POSITIVE);
        (shifted.ln() - self.mean) / self.unit
    }

    fn value(&self, g: f64) -> f64 {
        ((self.mean + self.unit * g).exp() - self.offset).clamp(0.0, f64::MAX)
    }
}

impl Scale {
    /// The scale of a history of finite values; of nothing, the unit scale.
    pub(super) fn of(known: &[f64]) -> Scale {
        let (mean, deviation) = moments(known.iter().copied());
        let unit = deviation.max(UNIT_PER_MEAN_MIN * mean.abs()).max(UNIT_MIN);
        let base = if mean.abs() > CENTRED_FROM * unit { mean } else { 0.0 };
        Scale {
            base,
            unit,
            centre: (mean - base) / unit,
            log: LogScale::of(known),
            non_negative: known.iter().all(|value| *value >= 0.0),
        }
    }

    /// A value on the plain scale.
    pub(super) fn plain(&self, value: f64) -> f32 {
        stored((value / self.unit - self.base / self.unit).clamp(-STORED_MAX, STORED_MAX))
    }

    /// The value of a point on the plain scale.
    pub(super) fn value(&self, plain: f64) -> f64 {
        (self.base + self.unit * plain).clamp(-f64::MAX, f64::MAX)
    }

    /// A value on the log scale; 0 where there is none.
    pub(super) fn log(&self, value: f64) -> f32 {
        self.log.map_or(0.0, |log| stored(log.of_value(value).clamp(-STORED_MAX, STORED_MAX)))
    }

    /// From the log scale to the plain one.
    pub(super) fn plain_of_log(&self, g: f64) -> f64 {
        let value = self.log.map_or(0.0, |log| log.value(g));
        (value / self.unit - self.base / self.unit).clamp(-STORED_MAX, STORED_MAX)
    }

    /// What one step on the plain scale is, in the signal's unit.
    pub(super) fn unit(&self) -> f64 {
        self.unit
    }

    /// Whether a value can be put on both scales as the history could.
    pub(super) fn admits(&self, value: f64) -> bool {
        let log_ends = self.log.is_some_and(|log| value + log.offset <= 0.0);
        !(log_ends || self.non_negative && value < 0.0)
    }
}
