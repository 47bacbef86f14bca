//! Autoregressions on a few seasonal lags, solved by ridge regression from a Gram matrix that forgets.
//!
//! Recursive least squares with exponential forgetting (Ljung 1999, *System Identification*, §11.2), kept as normal equations so that a new
//! value costs one rank-1 update, and ridge-penalised (Hoerl and Kennard 1970). A level autoregression with seasonal lags is a seasonal
//! ARIMA model fitted by least squares.

use serde::{Deserialize, Serialize};

/// Before this many effective samples there is no fit.
const SAMPLES_MIN: f64 = 30.0;
/// The intercept's penalty, as a part of the others'.
const INTERCEPT_PENALTY: f64 = 0.2;
/// A pivot below this part of the diagonal means that the penalty was too small.
const PIVOT_MIN: f64 = 1e-12;
/// Coefficients at most: ten lags, two more of the second week, an intercept, and one to spare.
const COEFFICIENTS_MAX: usize = 16;

/// Which lags, of what, and how strongly they are held back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ridge {
    /// In steps, ascending, without repetition.
    lags: Vec<u32>,
    /// What is regressed is `g[t] − g[t − difference]`; the value itself where 0.
    difference: u32,
    penalty: f64,
    forget: f64,
    intercept: bool,
    /// The lower triangle of the Gram matrix, row by row.
    gram: Vec<f64>,
    products: Vec<f64>,
    squares: f64,
    samples: f64,
    /// Empty before the first fit.
    coefficients: Vec<f64>,
}

/// A kind of autoregression; which lags it has follows from the seasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RidgeKind {
    Week,
    TwoWeeks,
    Day,
    WeekDifference,
    DayDifference,
    Difference,
}

pub(super) const RIDGE_KINDS: [RidgeKind; 6] = [
    RidgeKind::Week,
    RidgeKind::TwoWeeks,
    RidgeKind::Day,
    RidgeKind::WeekDifference,
    RidgeKind::DayDifference,
    RidgeKind::Difference,
];

impl RidgeKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            RidgeKind::Week => "ar-week",
            RidgeKind::TwoWeeks => "ar-two-weeks",
            RidgeKind::Day => "ar-day",
            RidgeKind::WeekDifference => "ar-week-difference",
            RidgeKind::DayDifference => "ar-day-difference",
            RidgeKind::Difference => "ar-difference",
        }
    }
}

impl Ridge {
    /// `day` and `week` are the two season lengths, in steps.
    pub(super) fn new(kind: RidgeKind, day: usize, week: usize) -> Ridge {
        let (d, w) = (day, week);
        let (lags, difference, forget) = match kind {
            RidgeKind::Week => (vec![1, 2, 3, d - 1, d, d + 1, 2 * d, 2 * d + 1, w - 1, w, w + 1], 0, 0.998),
            RidgeKind::TwoWeeks => {
                let far = [2 * w - 1, 2 * w, 2 * w + 1];
                ([1, 2, d - 1, d, d + 1, 2 * d, 2 * d + 1, w - 1, w, w + 1].into_iter().chain(far).collect(), 0, 0.9995)
            }
            RidgeKind::Day => (vec![1, 2, 3, d - 1, d, d + 1, 2 * d], 0, 0.998),
            RidgeKind::WeekDifference => (vec![1, 2, 3, d, d + 1, 2 * d, w], w, 0.998),
            RidgeKind::DayDifference => (vec![1, 2, 3, d, d + 1, 2 * d, w - d, w, w + 1], d, 0.998),
            RidgeKind::Difference => (vec![1, 2, 3, d - 1, d, d + 1, w], 1, 0.998),
        };
        let mut lags: Vec<u32> =
            lags.into_iter().filter(|lag| *lag > 0).filter_map(|lag| u32::try_from(lag).ok()).collect();
        lags.sort_unstable();
        lags.dedup();
        lags.shrink_to_fit();
        let intercept = difference == 0;
        let count = lags.len() + usize::from(intercept);
        assert!(
            count <= COEFFICIENTS_MAX,
            "an autoregression has at most {COEFFICIENTS_MAX} coefficients, not {count}"
        );
        Ridge {
            lags,
            difference: u32::try_from(difference).expect("seasons are lengths within a history"),
            penalty: if intercept { 1e-4 } else { 0.1 },
            forget,
            intercept,
            gram: vec![0.0; count * (count + 1) / 2],
            products: vec![0.0; count],
            squares: 0.0,
            samples: 0.0,
            coefficients: Vec::new(),
        }
    }

    /// How many values it looks back.
    pub(super) fn reach(&self) -> usize {
        (self.lags.last().copied().unwrap_or(0) + self.difference) as usize
    }

    /// Learns the newest of `values`, whose mean is `centre`.
    pub(super) fn learn(&mut self, values: &[f32], centre: f64) {
        let Some(newest) = values.len().checked_sub(1).filter(|newest| *newest >= self.reach()) else { return };
        let difference = self.difference as usize;
        let at = |position: usize| f64::from(values[position]);
        let target = |position: usize| {
            if difference == 0 { at(position) - centre } else { at(position) - at(position - difference) }
        };
        let mut x = [0.0; COEFFICIENTS_MAX];
        for (x, lag) in x.iter_mut().zip(&self.lags) {
            *x = target(newest - *lag as usize);
        }
        if self.intercept {
            x[self.lags.len()] = 1.0;
        }
        let z = target(newest);
        let mut rest = self.gram.as_mut_slice();
        for (row, product) in self.products.iter_mut().enumerate() {
            let (cells, after) = rest.split_at_mut(row + 1);
            for (cell, other) in cells.iter_mut().zip(&x) {
                *cell = self.forget * *cell + x[row] * other;
            }
            *product = self.forget * *product + x[row] * z;
            rest = after;
        }
        self.squares = self.forget * self.squares + z * z;
        self.samples = self.forget * self.samples + 1.0;
    }

    /// Solves for the coefficients; none before there are enough samples.
    pub(super) fn solve(&mut self) {
        if self.samples < SAMPLES_MIN {
            self.coefficients.clear();
            return;
        }
        let mut penalty = self.penalty * (self.squares / self.samples).max(1e-9);
        let mut solution = [0.0; COEFFICIENTS_MAX];
        for _ in 0..6 {
            if self.solve_with(penalty, &mut solution) {
                self.coefficients.clear();
                self.coefficients.reserve_exact(self.products.len());
                self.coefficients.extend_from_slice(&solution[..self.products.len()]);
                return;
            }
            penalty *= 100.0;
        }
        self.coefficients.clear();
    }

    /// Cholesky's decomposition, forward and back; false where a pivot vanishes.
    fn solve_with(&self, penalty: f64, solution: &mut [f64; COEFFICIENTS_MAX]) -> bool {
        let count = self.products.len();
        let mut lower = [[0.0; COEFFICIENTS_MAX]; COEFFICIENTS_MAX];
        for row in 0..count {
            let start = row * (row + 1) / 2;
            for column in 0..=row {
                let dot: f64 = (0..column).map(|k| lower[row][k] * lower[column][k]).sum();
                let mut cell = self.gram[start + column] - dot;
                if column < row {
                    lower[row][column] = cell / lower[column][column];
                    continue;
                }
                let is_intercept = self.intercept && row + 1 == count;
                cell += if is_intercept { INTERCEPT_PENALTY * penalty } else { penalty };
                if cell.is_nan() || cell <= PIVOT_MIN * self.gram[start + row] {
                    return false;
                }
                lower[row][row] = cell.sqrt();
            }
        }
        for row in 0..count {
            let known: f64 = (0..row).map(|k| lower[row][k] * solution[k]).sum();
            solution[row] = (self.products[row] - known) / lower[row][row];
        }
        for row in (0..count).rev() {
            let known: f64 = (row + 1..count).map(|k| lower[k][row] * solution[k]).sum();
            solution[row] = (solution[row] - known) / lower[row][row];
        }
        solution[..count].iter().all(|value| value.is_finite())
    }

    /// Iterates the recursion: `values[..known]` are known and centred, the rest is written, each within `within`. False where there is no fit
    /// or too little history.
    pub(super) fn extend(&self, values: &mut [f64], known: usize, within: (f64, f64)) -> bool {
        if self.coefficients.is_empty() || known < self.reach() {
            return false;
        }
        let difference = self.difference as usize;
        let constant = if self.intercept { self.coefficients[self.lags.len()] } else { 0.0 };
        for at in known..values.len() {
            // The nearest lag comes last: only it waits for the step before.
            let terms = self.lags.iter().zip(&self.coefficients).rev();
            let next = if difference == 0 {
                terms.fold(constant, |sum, (lag, c)| sum + c * values[at - *lag as usize])
            } else {
                let before = |lag: u32| values[at - lag as usize] - values[at - lag as usize - difference];
                terms.fold(0.0, |sum, (lag, c)| sum + c * before(*lag)) + values[at - difference]
            };
            values[at] = next.clamp(within.0, within.1);
        }
        true
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.lags.capacity() * size_of::<u32>()
            + (self.gram.capacity() + self.products.capacity() + self.coefficients.capacity()) * size_of::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    fn learnt(kind: RidgeKind, values: &[f32]) -> Ridge {
        let mut ridge = Ridge::new(kind, 6, 18);
        (1..=values.len()).for_each(|count| ridge.learn(&values[..count], 0.0));
        ridge.solve();
        ridge
    }

    #[test]
    fn finds_the_coefficients_that_made_a_series() {
        let mut values = vec![0.0_f32; 3];
        for e in noise(4000, 31) {
            let next = 0.6 * f64::from(values[values.len() - 1]) - 0.3 * f64::from(values[values.len() - 3]) + e + 1.0;
            values.push(super::super::scale::stored(next));
        }
        let ridge = learnt(RidgeKind::Day, &values);
        let expected = [(1, 0.6), (2, 0.0), (3, -0.3), (5, 0.0)];
        for (lag, coefficient) in expected {
            let place = ridge.lags.iter().position(|l| *l == lag).expect("a lag of the kind");
            assert!((ridge.coefficients[place] - coefficient).abs() < 0.15, "{lag}: {:?}", ridge.coefficients);
        }
    }

    #[test]
    fn a_perfect_season_is_continued_by_every_kind() {
        let values: Vec<f32> = (0..300_u16).map(|i| f32::from(i % 6) - 2.5).collect();
        for kind in RIDGE_KINDS {
            let ridge = learnt(kind, &values);
            let mut path: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
            path.resize(312, 0.0);
            assert!(ridge.extend(&mut path, 300, (-10.0, 10.0)), "{kind:?}");
            let worst = (300..312).map(|i| (path[i] - f64::from(values[i - 60])).abs()).fold(0.0, f64::max);
            assert!(worst < 0.05, "{kind:?}: {worst}");
        }
    }

    #[test]
    fn without_enough_samples_there_is_no_path() {
        let ridge = learnt(RidgeKind::TwoWeeks, &[1.0; 60]);
        assert!(!ridge.extend(&mut [0.0; 70], 60, (-1.0, 1.0)));
    }
}
