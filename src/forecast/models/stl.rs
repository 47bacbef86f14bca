//! Seasonal-trend decomposition by LOESS, for one season.
//!
//! Cleveland, Cleveland, McRae and Terpenning, "STL: A Seasonal-Trend Decomposition Procedure Based on Loess" (1990),
//! without its outer loop: no weights for robustness. LOESS on a regular grid is linear in the values, and its weights
//! depend only on where in its window a point stands; so they are made once ([`Loess`]) and each pass is dot products.

use std::collections::BTreeMap;

/// Passes of the inner loop: Cleveland's are 2 with the robust outer loop, 5 without.
const PASSES: usize = 5;

/// Takes one season of a length off series of one length.
#[derive(Debug)]
pub(super) struct Stl {
    period: usize,
    length: usize,
    trend: Loess,
    low_pass: Loess,
    /// One for each length that a phase's values may have: `length / period` and, unless it divides, one more.
    phases: Vec<PhaseLoess>,
}

impl Stl {
    /// For series of `length` values, more than two seasons of `period` ≥ 2. The `seasonal` window, in seasons, says
    /// how fast the season may change; trend and low-pass windows follow from it (Cleveland and others, section 3).
    pub(super) fn new(length: usize, period: usize, seasonal: usize) -> Stl {
        // The smallest odd number above 1.5 × period / (1 − 1.5 / seasonal), in whole numbers.
        let trend = (3 * period * seasonal / (2 * seasonal - 3) + 1) | 1;
        let low_pass = (period + 1) | 1;
        let shortest = length / period;
        let phases = (shortest..=shortest + 1).map(|count| PhaseLoess::new(count, seasonal)).collect();
        Stl { period, length, trend: Loess::new(length, trend), low_pass: Loess::new(length, low_pass), phases }
    }

    /// The season's part of each value, and the trend's.
    pub(super) fn decompose(&self, values: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let mut trend = vec![0.0; self.length];
        let mut season = vec![0.0; self.length];
        for _ in 0..PASSES {
            let detrended: Vec<f64> = values.iter().zip(&trend).map(|(value, trend)| value - trend).collect();
            let cycle = self.smooth_phases(&detrended);
            let averaged = moving_average(&moving_average(&moving_average(&cycle, self.period), self.period), 3);
            let low = self.low_pass.smooth(&averaged);
            for at in 0..self.length {
                season[at] = cycle[self.period + at] - low[at];
            }
            let without: Vec<f64> = values.iter().zip(&season).map(|(value, season)| value - season).collect();
            trend = self.trend.smooth(&without);
        }
        (season, trend)
    }

    /// Each phase smoothed over the seasons, with one season more at either end.
    fn smooth_phases(&self, values: &[f64]) -> Vec<f64> {
        let mut smoothed = vec![0.0; self.length + 2 * self.period];
        for phase in 0..self.period {
            let of_phase: Vec<f64> = values.iter().skip(phase).step_by(self.period).copied().collect();
            let loess = &self.phases[of_phase.len() - self.length / self.period];
            for (season, value) in loess.smooth(&of_phase).into_iter().enumerate() {
                smoothed[season * self.period + phase] = value;
            }
        }
        smoothed
    }
}

/// Means of `window` neighbours: `window − 1` fewer than there are values.
fn moving_average(values: &[f64], window: usize) -> Vec<f64> {
    let mut sum: f64 = values[..window].iter().sum();
    let mut means = vec![sum / window as f64];
    for at in window..values.len() {
        sum += values[at] - values[at - window];
        means.push(sum / window as f64);
    }
    means
}

/// A window wider than this is not moved step by step: between fewer points the smooth line is drawn straight.
const WINDOW_DENSE: usize = 400;

/// Local lines through a window around each point, closer points weighing more.
#[derive(Debug)]
struct Loess {
    length: usize,
    /// The points at which the line is found, ascending, from the first to the last: place, begin of the window, and
    /// which weights.
    points: Vec<(usize, usize, usize)>,
    weights: Vec<Vec<f64>>,
}

impl Loess {
    fn new(length: usize, span: usize) -> Loess {
        let window = span.min(length);
        let half = (window - 1) / 2;
        let jump = window.div_ceil(WINDOW_DENSE);
        let mut loess = Loess { length, points: Vec::new(), weights: Vec::new() };
        // Away from both ends, all points stand in the middle of their windows.
        let mut known: BTreeMap<usize, usize> = BTreeMap::new();
        for at in (0..length - 1).step_by(jump).chain([length - 1]) {
            let left = at.saturating_sub(half).min(length - window);
            let place = at - left;
            let weights = *known.entry(place).or_insert_with(|| {
                loess.weights.push(local_weights(place as f64, window, span, Degree::Line));
                loess.weights.len() - 1
            });
            loess.points.push((at, left, weights));
        }
        loess
    }

    fn smooth(&self, values: &[f64]) -> Vec<f64> {
        let mut smoothed = Vec::with_capacity(self.length);
        for (at, left, weights) in &self.points {
            let weights = &self.weights[*weights];
            let found = dot(weights, &values[*left..left + weights.len()]);
            if let Some(before) = smoothed.last().copied() {
                let (first, gap) = (smoothed.len(), at + 1 - smoothed.len());
                let between = |place: usize| before + (found - before) * (place + 1 - first) as f64 / gap as f64;
                smoothed.extend((first..*at).map(between));
            }
            smoothed.push(found);
        }
        smoothed
    }
}

/// Local means over the values of one phase, and one step beyond either end.
#[derive(Debug)]
struct PhaseLoess {
    /// For each point, where its window begins and its weights.
    rows: Vec<(usize, Vec<f64>)>,
}

impl PhaseLoess {
    fn new(count: usize, span: usize) -> PhaseLoess {
        let window = span.min(count);
        let half = (window - 1) / 2;
        let rows = (0..count + 2)
            .map(|row| {
                // Row 0 is the point before the first.
                let left = row.saturating_sub(1 + half).min(count - window);
                (left, local_weights(row as f64 - 1.0 - left as f64, window, span, Degree::Mean))
            })
            .collect();
        PhaseLoess { rows }
    }

    fn smooth(&self, values: &[f64]) -> Vec<f64> {
        self.rows.iter().map(|(left, weights)| dot(weights, &values[*left..left + weights.len()])).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Degree {
    Mean,
    Line,
}

/// What each point of a window weighs in the estimate at a place, which may lie outside: tricube weights (Cleveland and
/// others 1990, section 2). A span wider than the window widens the weights.
fn local_weights(place: f64, window: usize, span: usize, degree: Degree) -> Vec<f64> {
    let reach = place.max(window as f64 - 1.0 - place) + ((span - window) / 2) as f64;
    let tricube = |at: usize| {
        let distance = (at as f64 - place).abs();
        if distance > 0.999 * reach && distance > 0.0 {
            0.0
        } else {
            (1.0 - (distance / reach.max(1.0)).powi(3)).powi(3)
        }
    };
    let mut weights: Vec<f64> = (0..window).map(tricube).collect();
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        // Only a single point at the edge of its own reach: it speaks for itself.
        return vec![1.0 / window as f64; window];
    }
    weights.iter_mut().for_each(|weight| *weight /= sum);
    if degree == Degree::Line {
        let centre: f64 = weights.iter().enumerate().map(|(at, weight)| at as f64 * weight).sum();
        let spread: f64 = weights.iter().enumerate().map(|(at, weight)| (at as f64 - centre).powi(2) * weight).sum();
        if spread.sqrt() > 0.001 * (window as f64 - 1.0) {
            let tilt = (place - centre) / spread;
            weights.iter_mut().enumerate().for_each(|(at, weight)| *weight *= 1.0 + tilt * (at as f64 - centre));
        }
    }
    weights
}

/// In eight parts, so that the processor need not wait for each sum.
fn dot(left: &[f64], right: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (left_parts, right_parts) = (left.chunks_exact(8), right.chunks_exact(8));
    let rest: f64 = left_parts.remainder().iter().zip(right_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left_parts.zip(right_parts) {
        (0..8).for_each(|lane| sums[lane] += a[lane] * b[lane]);
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line with a season of some length, and how far the parts found may be from those put in.
    fn check(period: usize, seasons: usize, tolerance: f64) {
        let part = |at: usize| (at as f64 * std::f64::consts::TAU / period as f64).sin();
        let line = |at: usize| 5.0 + 0.01 * at as f64;
        let length = seasons * period + 3;
        let values: Vec<f64> = (0..length).map(|at| line(at) + part(at)).collect();
        let (season, trend) = Stl::new(length, period, 11).decompose(&values);
        for at in 0..length {
            assert!((season[at] - part(at)).abs() < tolerance, "season at {at} of {length}: {}", season[at]);
            assert!((trend[at] - line(at)).abs() < tolerance, "trend at {at} of {length}: {}", trend[at]);
        }
    }

    #[test]
    fn takes_a_line_and_a_season_apart() {
        check(2, 20, 1e-6);
        check(7, 9, 0.01);
        check(24, 5, 0.02);
    }

    #[test]
    fn a_wide_window_needs_not_every_point() {
        check(400, 4, 0.02);
    }

    #[test]
    fn a_line_stays_a_line_however_wide_the_window() {
        let values: Vec<f64> = (0..900).map(|at| 3.0 - 0.5 * f64::from(at)).collect();
        for span in [3, 25, 281, 601, 899, 2001] {
            for (value, smooth) in values.iter().zip(Loess::new(values.len(), span).smooth(&values)) {
                assert!((value - smooth).abs() < 1e-6, "{span}: {value} became {smooth}");
            }
        }
    }
}
