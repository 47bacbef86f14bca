//! The model pool: each member makes a path of expected values from the history. Cheap ones run at every origin;
//! AutoETS and MSTL (augurs) are fitted now and then and their paths reused between.

use std::panic::{AssertUnwindSafe, catch_unwind};

use augurs::ets::AutoETS;
use augurs::ets::trend::AutoETSTrendModel;
use augurs::mstl::MSTLModel;
use augurs::{Fit, Predict};

use super::ModelChoice;
use super::cells::Ring;

/// A member of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    Level,
    Drift,
    Damped,
    SeasonalFirst,
    SeasonalSecond,
    Ets,
    Mstl,
}

/// All members; ties in error go to the earlier, which is the simpler.
pub(super) const MEMBERS: [Member; 7] = [
    Member::Level,
    Member::Drift,
    Member::Damped,
    Member::SeasonalFirst,
    Member::SeasonalSecond,
    Member::Ets,
    Member::Mstl,
];

impl Member {
    pub(super) fn name(self) -> &'static str {
        match self {
            Member::Level => "level",
            Member::Drift => "drift",
            Member::Damped => "damped",
            Member::SeasonalFirst | Member::SeasonalSecond => "seasonal-naive",
            Member::Ets => "ets",
            Member::Mstl => "mstl",
        }
    }

    /// Whether the user's choice admits it.
    pub(super) fn is_admitted(self, choice: ModelChoice) -> bool {
        choice == ModelChoice::Auto
            || match self {
                Member::Level => choice == ModelChoice::Level,
                Member::Drift => choice == ModelChoice::Drift,
                Member::Damped => choice == ModelChoice::Damped,
                Member::SeasonalFirst | Member::SeasonalSecond => choice == ModelChoice::SeasonalNaive,
                Member::Ets => choice == ModelChoice::Ets,
                Member::Mstl => choice == ModelChoice::Mstl,
            }
    }
}

/// Points from which a line is drawn, at most.
const LINE_POINTS: usize = 24;
/// Points of history that ETS sees, at most: a fit stays within milliseconds.
const ETS_POINTS: usize = 96;
const ETS_POINTS_MIN: usize = 12;
/// MSTL needs this many seasons.
const MSTL_SEASONS_MIN: f64 = 2.5;
/// Older seasons cost time and say little.
const MSTL_SEASONS_MAX: usize = 4;
/// How much of its slope a damped trend keeps from step to step, for a horizon of 48 steps.
const DAMPING: f64 = 0.96;
/// How fast the level follows.
const LEVEL_GAIN: f64 = 0.3;

/// The mean of the newest points, weighted towards the newest: simple exponential smoothing (Brown 1959) with a fixed gain.
pub(super) fn level(ring: &Ring) -> Option<f64> {
    ring.latest(LINE_POINTS).reduce(|level, value| level + LEVEL_GAIN * (value - level))
}

/// Least squares through the newest points of the regime: its end and its slope per step.
fn line(ring: &Ring, in_regime: usize) -> Option<(f64, f64)> {
    let points: Vec<f64> = ring.latest(LINE_POINTS.min(in_regime)).collect();
    if points.len() < 4 {
        return None;
    }
    let middle = (points.len() as f64 - 1.0) / 2.0;
    let mean = points.iter().sum::<f64>() / points.len() as f64;
    let products = points.iter().enumerate().map(|(i, y)| (i as f64 - middle) * (y - mean)).sum::<f64>();
    let squares = (0..points.len()).map(|i| (i as f64 - middle).powi(2)).sum::<f64>();
    let slope = products / squares;
    Some((mean + slope * middle, slope))
}

/// The newest level, for ever.
pub(super) fn level_path(ring: &Ring, steps: usize) -> Option<Vec<f64>> {
    level(ring).map(|level| vec![level; steps])
}

/// A straight line on.
pub(super) fn drift_path(ring: &Ring, in_regime: usize, steps: usize) -> Option<Vec<f64>> {
    let (end, slope) = line(ring, in_regime)?;
    Some((1..=steps).map(|step| end + slope * step as f64).collect())
}

/// A line whose slope dies away: the damped trend of Gardner and McKenzie (1985).
pub(super) fn damped_path(ring: &Ring, in_regime: usize, steps: usize) -> Option<Vec<f64>> {
    let (end, slope) = line(ring, in_regime)?;
    let (mut value, mut slope) = (end, slope);
    Some(
        (0..steps)
            .map(|_| {
                slope *= DAMPING;
                value += slope;
                value
            })
            .collect(),
    )
}

/// Runs a fit of somebody else's code: an error, a panic, or a value that is no number is no forecast.
fn guarded(steps: usize, fit: impl FnOnce() -> Option<Vec<f64>>) -> Option<Vec<f64>> {
    let path = catch_unwind(AssertUnwindSafe(fit)).ok().flatten()?;
    (path.len() == steps && path.iter().all(|value| value.is_finite())).then_some(path)
}

/// Centres and scales points to a deviation of 1; absent where they do not differ.
fn standardise(points: &mut [f64]) -> Option<(f64, f64)> {
    let mean = points.iter().sum::<f64>() / points.len() as f64;
    let variance = points.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / points.len() as f64;
    let deviation = variance.sqrt();
    if !deviation.is_finite() || deviation <= 1e-9 * mean.abs().max(1e-6) {
        return None;
    }
    points.iter_mut().for_each(|value| *value = (*value - mean) / deviation);
    Some((mean, deviation))
}

/// Exponential smoothing chosen by information criterion, over the present regime. augurs' is without seasons.
pub(super) fn ets_path(ring: &Ring, in_regime: usize, steps: usize) -> Option<Vec<f64>> {
    let mut points: Vec<f64> = ring.latest(ETS_POINTS.min(in_regime)).collect();
    if points.len() < ETS_POINTS_MIN {
        return None;
    }
    let (mean, deviation) = standardise(&mut points)?;
    guarded(steps, || {
        let forecast = AutoETS::new(1, "ZZN").ok()?.fit(&points).ok()?.predict(steps, None).ok()?;
        Some(forecast.point.iter().map(|value| mean + deviation * value).collect())
    })
}

/// Seasonal-trend decomposition (Bandara and others 2021) with an ETS trend; `periods` in steps, ascending.
pub(super) fn mstl_path(ring: &Ring, periods: &[usize], steps: usize) -> Option<Vec<f64>> {
    let fitting = |period: &&usize| **period >= 4 && **period as f64 * MSTL_SEASONS_MIN <= ring.len() as f64;
    let periods: Vec<usize> = periods.iter().filter(fitting).copied().collect();
    let longest = *periods.last()?;
    let mut points: Vec<f64> = ring.latest(MSTL_SEASONS_MAX * longest).collect();
    let (mean, deviation) = standardise(&mut points)?;
    guarded(steps, || {
        let trend = AutoETSTrendModel::from(AutoETS::new(1, "ZZN").ok()?);
        let forecast = MSTLModel::new(periods, trend).fit(&points).ok()?.predict(steps, None).ok()?;
        Some(forecast.point.iter().map(|value| mean + deviation * value).collect())
    })
}
