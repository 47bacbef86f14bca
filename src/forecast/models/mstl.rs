//! Decomposition for several seasons, and a forecast of what is left without them.
//!
//! Bandara, Hyndman and Bergmeir, "MSTL: A Seasonal-Trend Decomposition Algorithm for Time Series with Multiple
//! Seasonal Patterns" (2021): STL takes the seasons off one after the other, the shortest first, and again. The rest
//! goes on as non-seasonal exponential smoothing says, each season as it was last.

use super::ets::smoothed_path;
use super::stl::Stl;
use super::{Model, check_history, finite, scale_of};
use crate::forecast::Refusal;

/// Decomposition for several seasons with smoothing of the rest.
#[derive(Debug)]
pub(super) struct Mstl;

/// The fewest values from which the rest can be smoothed.
const HISTORY_MIN: usize = 5;
/// How often each season is taken off where there are several.
const ROUNDS: usize = 2;

impl Model for Mstl {
    fn name(&self) -> &'static str {
        "mstl"
    }

    fn path(&self, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        deseasonalised_path(self.name(), history, seasons, steps)
    }
}

/// The path of a history whose seasons are taken off and put back; those of which the history has no two are left out.
pub(super) fn deseasonalised_path(
    model: &'static str,
    history: &[f64],
    seasons: &[usize],
    steps: usize,
) -> Result<Vec<f64>, Refusal> {
    check_history(model, history, HISTORY_MIN)?;
    let scale = scale_of(history);
    let mut rest: Vec<f64> = history.iter().map(|value| value / scale).collect();
    let periods: Vec<usize> =
        seasons.iter().copied().filter(|season| 2 <= *season && 2 * *season < history.len()).collect();
    // The k-th season may change over 7 + 4k of its lengths: the default of their implementation.
    let decompositions: Vec<Stl> =
        periods.iter().enumerate().map(|(index, period)| Stl::new(history.len(), *period, 11 + 4 * index)).collect();
    let mut parts = vec![vec![0.0; history.len()]; periods.len()];
    for _ in 0..if periods.len() > 1 { ROUNDS } else { 1 } {
        for (decomposition, part) in decompositions.iter().zip(&mut parts) {
            rest.iter_mut().zip(&*part).for_each(|(value, part)| *value += part);
            (*part, _) = decomposition.decompose(&rest);
            rest.iter_mut().zip(&*part).for_each(|(value, part)| *value -= part);
        }
    }
    let mut path = smoothed_path(model, &rest, None, steps)?;
    for (period, part) in periods.iter().zip(&parts) {
        let last = part[part.len() - period..].iter().cycle();
        path.iter_mut().zip(last).for_each(|(value, part)| *value += part);
    }
    finite(model, path.into_iter().map(|value| value * scale).collect())
}
