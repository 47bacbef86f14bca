//! Models without a fit worth the name: the smoothed level, the drift, last season's values.

use super::{Model, check_history, finite, scale_of};
use crate::forecast::Refusal;

/// Simple exponential smoothing (Brown 1959) whose gain has the smallest one-step error.
#[derive(Debug)]
pub(super) struct Level;

/// The random walk with drift: on from the last value by the mean step (Hyndman and Athanasopoulos 2021, section 5.2).
#[derive(Debug)]
pub(super) struct Drift;

/// Last season's values, of the shortest season; the last value where there is no season that fits.
#[derive(Debug)]
pub(super) struct SeasonalNaive;

/// The gains that are searched: as in statsforecast's `SimpleExponentialSmoothingOptimized`.
const GAIN: (f64, f64) = (0.01, 0.99);
/// How exactly a gain is searched.
const GAIN_TOLERANCE: f64 = 1e-6;

impl Model for Level {
    fn name(&self) -> &'static str {
        "level"
    }

    fn path(&self, history: &[f64], _seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        check_history(self.name(), history, 1)?;
        // Scaled, so that squares of the largest values stay finite.
        let scale = scale_of(history);
        let scaled: Vec<f64> = history.iter().map(|value| value / scale).collect();
        let gain = golden_section(GAIN, |gain| smooth(&scaled, gain).1);
        finite(self.name(), vec![smooth(&scaled, gain).0 * scale; steps])
    }
}

impl Model for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn path(&self, history: &[f64], _seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        check_history(self.name(), history, 2)?;
        let (first, last) = (history[0], history[history.len() - 1]);
        // Divided before subtracting, so that the largest values do not overflow.
        let count = (history.len() - 1) as f64;
        let slope = last / count - first / count;
        finite(self.name(), (1..=steps).map(|step| last + slope * step as f64).collect())
    }
}

impl Model for SeasonalNaive {
    fn name(&self) -> &'static str {
        "seasonal-naive"
    }

    fn path(&self, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        check_history(self.name(), history, 1)?;
        let season = seasons.iter().copied().find(|season| 1 <= *season && *season <= history.len()).unwrap_or(1);
        let last = &history[history.len() - season..];
        Ok(last.iter().copied().cycle().take(steps).collect())
    }
}

/// The level after the last value, and the sum of squared one-step errors.
fn smooth(values: &[f64], gain: f64) -> (f64, f64) {
    let mut level = values[0];
    let mut squares = 0.0;
    for value in &values[1..] {
        let error = value - level;
        squares += error * error;
        level += gain * error;
    }
    (level, squares)
}

/// Where a function of one valley is smallest, by golden-section search (Kiefer 1953).
fn golden_section((mut lower, mut upper): (f64, f64), cost: impl Fn(f64) -> f64) -> f64 {
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (upper - ratio * (upper - lower), lower + ratio * (upper - lower));
    let (mut left_cost, mut right_cost) = (cost(left), cost(right));
    while upper - lower > GAIN_TOLERANCE {
        if left_cost < right_cost {
            (upper, right, right_cost) = (right, left, left_cost);
            left = upper - ratio * (upper - lower);
            left_cost = cost(left);
        } else {
            (lower, left, left_cost) = (left, right, right_cost);
            right = lower + ratio * (upper - lower);
            right_cost = cost(right);
        }
    }
    f64::midpoint(lower, upper)
}
