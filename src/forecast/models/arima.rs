//! Seasonal ARIMA of small orders, fitted by conditional sum of squares and chosen by information criterion.
//!
//! Models and fit: Box, Jenkins, Reinsel and Ljung, *Time Series Analysis* (2015), chapters 4, 7 and 9. The search is
//! that of Hyndman and Khandakar, "Automatic Time Series Forecasting" (2008), section 3: how often to difference by the
//! strength of the season and by KPSS, then four simple models and from the best of them step by step to better
//! neighbours. p ≤ 3, q ≤ 2, P ≤ 1, Q ≤ 1, d ≤ 1, D ≤ 1.
//!
//! Coefficients are searched as partial autocorrelations (Monahan 1984), so each guess is stationary and invertible, by
//! damped least squares (Marquardt 1963): the residuals are known one by one, which a search of their sum would waste.

use super::stl::Stl;
use super::{Model, check_history, finite, scale_of};
use crate::forecast::Refusal;

/// Seasonal ARIMA, its orders chosen by itself.
#[derive(Debug)]
pub(super) struct Arima;

/// The fewest values.
const HISTORY_MIN: usize = 5;
/// The highest orders: AR, MA, seasonal AR, seasonal MA.
const ORDERS_MAX: [usize; 4] = [3, 2, 1, 1];
/// How many orders are tried, at most.
const TRIALS_MAX: usize = 40;
/// A season stronger than this is differenced (Hyndman and Athanasopoulos 2021, section 9.1).
const STRENGTH_MIN: f64 = 0.64;
/// KPSS: the critical value at 5 % (Kwiatkowski and others 1992, table 1).
const KPSS_CRITICAL: f64 = 0.463;
/// Roots closer to the unit circle than this are no model but a difference left out: as in Hyndman and Khandakar.
const ROOT_MIN: f64 = 1.01;
/// Steps of the search for coefficients, and how little the last must gain.
const STEPS_MAX: usize = 30;
const GAIN_MIN: f64 = 1e-5;

impl Model for Arima {
    fn name(&self) -> &'static str {
        "arima"
    }

    fn path(&self, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        check_history(self.name(), history, HISTORY_MIN)?;
        let scale = scale_of(history);
        let values: Vec<f64> = history.iter().map(|value| value / scale).collect();
        let season = seasons.iter().copied().find(|season| 2 <= *season && 2 * *season < values.len()).unwrap_or(1);

        let is_seasonal = season > 1 && strength(&values, season) > STRENGTH_MIN;
        let without_season = if is_seasonal { difference(&values, season) } else { values.clone() };
        let is_drifting = !is_level(&without_season);
        let differenced = if is_drifting { difference(&without_season, 1) } else { without_season.clone() };

        // A constant in a series that is differenced twice would be a parabola.
        let series = Series::new(&differenced, season, !(is_seasonal && is_drifting));
        let mut path = series.path(&series.choose(), steps);
        if is_drifting {
            integrate(&mut path, &without_season, 1);
        }
        if is_seasonal {
            integrate(&mut path, &values, season);
        }
        finite(self.name(), path.into_iter().map(|value| value * scale).collect())
    }
}

/// Changes from `lag` steps before.
fn difference(values: &[f64], lag: usize) -> Vec<f64> {
    values[lag..].iter().zip(values).map(|(value, before)| value - before).collect()
}

/// Turns changes from `lag` steps before into values.
fn integrate(path: &mut [f64], history: &[f64], lag: usize) {
    for step in 0..path.len() {
        path[step] += if step < lag { history[history.len() - lag + step] } else { path[step - lag] };
    }
}

fn variance(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
}

/// How much of what varies around the trend is season, 0..1: Wang, Smith and Hyndman (2006).
fn strength(values: &[f64], season: usize) -> f64 {
    let (seasonal, trend) = Stl::new(values.len(), season, 11).decompose(values);
    let detrended: Vec<f64> = values.iter().zip(&trend).map(|(value, trend)| value - trend).collect();
    let rest: Vec<f64> = detrended.iter().zip(&seasonal).map(|(value, seasonal)| value - seasonal).collect();
    let spread = variance(&detrended);
    if spread > 0.0 { 1.0 - variance(&rest) / spread } else { 0.0 }
}

/// Whether the values keep to one level: the test of Kwiatkowski, Phillips, Schmidt and Shin (1992).
fn is_level(values: &[f64]) -> bool {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let errors: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let mut sum = 0.0;
    let walked: f64 = errors
        .iter()
        .map(|error| {
            sum += error;
            sum * sum
        })
        .sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
    let lags = (3.0 * count.sqrt() / 13.0) as usize;
    let product = |lag: usize| errors[lag..].iter().zip(&errors).map(|(a, b)| a * b).sum::<f64>();
    let tapered: f64 = (1..=lags).map(|lag| 2.0 * (1.0 - lag as f64 / (lags as f64 + 1.0)) * product(lag)).sum();
    let spread = product(0) + tapered;
    spread <= 0.0 || walked / (count * spread) < KPSS_CRITICAL
}

/// Orders of AR, MA, seasonal AR and seasonal MA, and whether the mean is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Orders {
    lags: [usize; 4],
    mean: bool,
}

impl Orders {
    fn count(&self) -> usize {
        self.lags.iter().sum::<usize>() + usize::from(self.mean)
    }

    /// Parameters before those of one of the four polynomials.
    fn offset(&self, kind: usize) -> usize {
        self.lags[..kind].iter().sum()
    }
}

/// Orders with their best coefficients.
#[derive(Debug, Clone)]
struct Fitted {
    orders: Orders,
    /// Partial autocorrelations through `atanh`, in the order of the four polynomials, then the mean.
    parameters: Vec<f64>,
    /// Akaike's, corrected.
    criterion: f64,
}

/// A differenced series, scaled to a deviation of 1.
#[derive(Debug)]
struct Series {
    values: Vec<f64>,
    season: usize,
    scale: f64,
    may_have_mean: bool,
}

/// The polynomials multiplied out: coefficients by lag, ascending.
#[derive(Debug)]
struct Coefficients {
    autoregressive: Vec<(usize, f64)>,
    moving: Vec<(usize, f64)>,
    mean: f64,
}

impl Series {
    fn new(values: &[f64], season: usize, may_have_mean: bool) -> Series {
        let deviation = variance(values).sqrt();
        let scale = if deviation > 1e-12 { deviation } else { 1.0 };
        Series { values: values.iter().map(|value| value / scale).collect(), season, scale, may_have_mean }
    }

    /// The search of Hyndman and Khandakar (2008, section 3.2).
    fn choose(&self) -> Fitted {
        let seasonal = usize::from(self.season > 1);
        let orders = |lags| Orders { lags, mean: self.may_have_mean };
        let mut tried = Vec::new();
        let mut best = self.fit(Orders { lags: [0; 4], mean: false }, None, &mut tried);
        for lags in [[0; 4], [2, 2, seasonal, seasonal], [1, 0, seasonal, 0], [0, 1, 0, seasonal]] {
            if !tried.contains(&orders(lags)) {
                best = better(best, self.fit(orders(lags), None, &mut tried));
            }
        }
        loop {
            let before = best.orders;
            for neighbour in self.neighbours(before) {
                if tried.len() < TRIALS_MAX && !tried.contains(&neighbour) {
                    let fitted = self.fit(neighbour, Some(&best), &mut tried);
                    best = better(best, fitted);
                    if best.orders != before {
                        break;
                    }
                }
            }
            if best.orders == before {
                return best;
            }
        }
    }

    /// Orders one step aside: a seasonal one, both of them, an ordinary one, both of them, the mean.
    fn neighbours(&self, orders: Orders) -> Vec<Orders> {
        let mut found = Vec::new();
        for (ar, ma) in [(2, 3), (0, 1)] {
            if ar == 2 && self.season == 1 {
                continue;
            }
            for (ar_step, ma_step) in [(-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)] {
                let mut lags = orders.lags;
                let stepped = |kind: usize, step: isize| {
                    lags[kind].checked_add_signed(step).filter(|lag| *lag <= ORDERS_MAX[kind])
                };
                if let (Some(ar_lag), Some(ma_lag)) = (stepped(ar, ar_step), stepped(ma, ma_step)) {
                    (lags[ar], lags[ma]) = (ar_lag, ma_lag);
                    found.push(Orders { lags, ..orders });
                }
            }
        }
        if self.may_have_mean {
            found.push(Orders { mean: !orders.mean, ..orders });
        }
        found
    }

    /// Finds the coefficients; begins at those of a neighbour where there is one.
    fn fit(&self, orders: Orders, neighbour: Option<&Fitted>, tried: &mut Vec<Orders>) -> Fitted {
        tried.push(orders);
        let mut parameters = self.start(orders, neighbour);
        let hopeless = |parameters| Fitted { orders, parameters, criterion: f64::INFINITY };
        let used = self.values.len().saturating_sub(orders.lags[0] + orders.lags[2] * self.season);
        if used < 2 * orders.count() + 5 {
            return hopeless(parameters);
        }
        let mut residuals = self.residuals(orders, &parameters);
        let mut squares = sum_of_squares(&residuals);
        let mut damping = 1e-3;
        for _ in 0..STEPS_MAX {
            if orders.count() == 0 {
                break;
            }
            let before = squares;
            let system = self.normal_equations(orders, &parameters, &residuals);
            while damping < 1e6 {
                let stepped = system.step(&parameters, damping);
                let errors = self.residuals(orders, &stepped);
                let sum = sum_of_squares(&errors);
                if sum < squares {
                    (parameters, residuals, squares) = (stepped, errors, sum);
                    damping *= 0.2;
                    break;
                }
                damping *= 5.0;
            }
            if squares > before * (1.0 - GAIN_MIN) {
                break;
            }
        }
        if !squares.is_finite() || self.has_unit_root(orders, &parameters) {
            return hopeless(parameters);
        }
        // All orders are compared over the same number of values.
        let (count, all) = ((orders.count() + 1) as f64, self.values.len() as f64);
        let variance = (squares / used as f64).max(1e-24);
        let criterion = all * variance.ln() + 2.0 * count + 2.0 * count * (count + 1.0) / (all - count - 1.0);
        Fitted { orders, parameters, criterion }
    }

    fn start(&self, orders: Orders, neighbour: Option<&Fitted>) -> Vec<f64> {
        let mut parameters = vec![0.0; orders.count()];
        for kind in 0..4 {
            for lag in 0..orders.lags[kind] {
                let known = neighbour.filter(|known| lag < known.orders.lags[kind]);
                // Not all zero: AR and MA would look alike.
                let guess = if kind % 2 == 0 { 0.1 } else { -0.1 };
                parameters[orders.offset(kind) + lag] =
                    known.map_or(guess, |known| known.parameters[known.orders.offset(kind) + lag]);
            }
        }
        if orders.mean {
            let mean = self.values.iter().sum::<f64>() / self.values.len() as f64;
            let known = neighbour.filter(|known| known.orders.mean).and_then(|known| known.parameters.last());
            *parameters.last_mut().expect("the mean is a parameter") = known.copied().unwrap_or(mean);
        }
        parameters
    }

    /// The four polynomials `1 − c₁B − …`, each from its partial autocorrelations.
    fn polynomial(orders: Orders, parameters: &[f64], kind: usize) -> Vec<f64> {
        let offset = orders.offset(kind);
        let mut coefficients: Vec<f64> = Vec::new();
        for parameter in &parameters[offset..offset + orders.lags[kind]] {
            // Durbin and Levinson's recursion.
            let partial = parameter.tanh();
            let before = coefficients.clone();
            for (at, value) in coefficients.iter_mut().enumerate() {
                *value -= partial * before[before.len() - 1 - at];
            }
            coefficients.push(partial);
        }
        coefficients
    }

    fn coefficients(&self, orders: Orders, parameters: &[f64]) -> Coefficients {
        let product = |ordinary: usize, seasonal: usize| {
            let short = Series::polynomial(orders, parameters, ordinary);
            let long = Series::polynomial(orders, parameters, seasonal);
            let mut terms: Vec<(usize, f64)> = short.iter().enumerate().map(|(at, value)| (at + 1, *value)).collect();
            for (season, factor) in long.iter().enumerate() {
                let lag = (season + 1) * self.season;
                terms.push((lag, *factor));
                terms.extend(short.iter().enumerate().map(|(at, value)| (lag + at + 1, -factor * value)));
            }
            terms
        };
        let mean = if orders.mean { *parameters.last().expect("the mean is a parameter") } else { 0.0 };
        Coefficients { autoregressive: product(0, 2), moving: product(1, 3), mean }
    }

    /// One-step errors from where all autoregressive terms are known, errors before that taken as 0.
    fn residuals(&self, orders: Orders, parameters: &[f64]) -> Vec<f64> {
        let Coefficients { autoregressive, moving, mean } = self.coefficients(orders, parameters);
        let first = orders.lags[0] + orders.lags[2] * self.season;
        let offset = mean * (1.0 - autoregressive.iter().map(|(_, value)| value).sum::<f64>());
        let mut errors: Vec<f64> = self.values[first..].iter().map(|value| value - offset).collect();
        for (lag, coefficient) in &autoregressive {
            let before = &self.values[first - lag..self.values.len() - lag];
            errors.iter_mut().zip(before).for_each(|(error, value)| *error -= coefficient * value);
        }
        for at in 0..errors.len() {
            let known = moving.iter().filter(|(lag, _)| *lag <= at);
            let sum: f64 = known.map(|(lag, coefficient)| coefficient * errors[at - lag]).sum();
            errors[at] += sum;
        }
        errors
    }

    fn normal_equations(&self, orders: Orders, parameters: &[f64], residuals: &[f64]) -> NormalEquations {
        const ASIDE: f64 = 1e-5;
        let slopes: Vec<Vec<f64>> = (0..parameters.len())
            .map(|at| {
                let mut moved = parameters.to_vec();
                moved[at] += ASIDE;
                let errors = self.residuals(orders, &moved);
                errors.iter().zip(residuals).map(|(moved, error)| (moved - error) / ASIDE).collect()
            })
            .collect();
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        NormalEquations {
            matrix: slopes.iter().map(|a| slopes.iter().map(|b| product(a, b)).collect()).collect(),
            right: slopes.iter().map(|slope| -product(slope, residuals)).collect(),
        }
    }

    /// Whether a root lies within `ROOT_MIN`; seasonal polynomials count in steps, not in seasons.
    fn has_unit_root(&self, orders: Orders, parameters: &[f64]) -> bool {
        (0..4).any(|kind| {
            let step = if kind < 2 { 1.0 } else { self.season as f64 };
            let polynomial = Series::polynomial(orders, parameters, kind);
            let grown = polynomial.iter().enumerate().map(|(at, value)| value * ROOT_MIN.powf(step * (at + 1) as f64));
            !is_stationary(grown.collect())
        })
    }

    /// Expected values, errors to come being 0; in the unit of the differenced series.
    fn path(&self, fitted: &Fitted, steps: usize) -> Vec<f64> {
        let Coefficients { autoregressive, moving, mean } = self.coefficients(fitted.orders, &fitted.parameters);
        let mut errors = self.residuals(fitted.orders, &fitted.parameters);
        let mut values: Vec<f64> = self.values.iter().map(|value| value - mean).collect();
        for _ in 0..steps {
            let past = |of: &[f64], lag: usize| if lag <= of.len() { of[of.len() - lag] } else { 0.0 };
            let from_values: f64 = autoregressive.iter().map(|(lag, value)| value * past(&values, *lag)).sum();
            let from_errors: f64 = moving.iter().map(|(lag, value)| value * past(&errors, *lag)).sum();
            values.push(from_values - from_errors);
            errors.push(0.0);
        }
        values[self.values.len()..].iter().map(|value| (value + mean) * self.scale).collect()
    }
}

fn better(one: Fitted, other: Fitted) -> Fitted {
    if other.criterion < one.criterion { other } else { one }
}

fn sum_of_squares(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().map(|value| value * value).sum();
    if sum.is_finite() { sum } else { f64::INFINITY }
}

/// Whether `1 − c₁B − …` has all roots outside the unit circle: Durbin and Levinson's recursion backwards.
fn is_stationary(mut coefficients: Vec<f64>) -> bool {
    while let Some(partial) = coefficients.pop() {
        if partial.abs() >= 1.0 {
            return false;
        }
        let count = coefficients.len();
        let before = coefficients.clone();
        for (at, value) in coefficients.iter_mut().enumerate() {
            *value = (*value + partial * before[count - 1 - at]) / (1.0 - partial * partial);
        }
    }
    true
}

/// What a step of least squares solves.
#[derive(Debug)]
struct NormalEquations {
    matrix: Vec<Vec<f64>>,
    right: Vec<f64>,
}

impl NormalEquations {
    /// The next parameters; the larger the damping, the smaller the step and the steeper its way (Marquardt 1963).
    fn step(&self, parameters: &[f64], damping: f64) -> Vec<f64> {
        let count = self.right.len();
        let mut rows: Vec<Vec<f64>> = self.matrix.clone();
        for (at, row) in rows.iter_mut().enumerate() {
            row[at] += damping * row[at] + 1e-9;
            row.push(self.right[at]);
        }
        // The matrix is positive definite: no pivots are needed.
        for at in 0..count {
            let (above, below) = rows.split_at_mut(at + 1);
            for row in below {
                let factor = row[at] / above[at][at];
                row.iter_mut().zip(&above[at]).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
        let mut solution = vec![0.0; count];
        for at in (0..count).rev() {
            let known: f64 = (at + 1..count).map(|other| rows[at][other] * solution[other]).sum();
            solution[at] = (rows[at][count] - known) / rows[at][at];
        }
        // A step of 1 in atanh is long; farther off the slopes say nothing.
        parameters.iter().zip(&solution).map(|(value, step)| value + step.clamp(-1.0, 1.0)).collect()
    }
}
