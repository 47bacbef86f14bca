//! The Theta method as four state-space models, of which the one with the smallest one-step errors speaks.
//!
//! Assimakopoulos and Nikolopoulos, "The theta model" (2000): the forecast is that of a line whose curvature is taken
//! away, averaged with smoothing of one whose curvature is stretched by θ. Fiorucci and others, "Models for optimising
//! the theta method and their relationship to state space models" (2016), write it as one recursion:
//! standard (θ = 2) or optimised θ, the line drawn once through all values or drawn anew with each. A season is taken
//! off before by classical decomposition where the autocorrelation at its length is significant, and put back after.

use super::search::{Cost, LANES, Lanes, Simplex};
use super::seasonal::{Blend, seasonal_indices};
use super::{Model, check_history, finite, scale_of};
use crate::forecast::Refusal;

/// The best of four Theta models.
#[derive(Debug)]
pub(super) struct Theta;

/// The fewest values.
const HISTORY_MIN: usize = 5;
/// One-step errors before this are those of the start.
const WARM_UP: usize = 3;
/// The gains that are searched.
const GAIN: (f64, f64) = (0.1, 0.99);
/// The standard stretch, and the first guess of the others.
const STRETCH: f64 = 2.0;
const STEPS: usize = 1000;
/// The search's tolerance is meant for values of about this size.
const SIZE: f64 = 1000.0;
/// One-sided 5 % of the normal distribution: a season must be that significant.
const SIGNIFICANT: f64 = 1.645;
/// Seasons shorter than this are not looked for.
const SEASON_MIN: usize = 4;
/// Factors smaller than this are no factors: the season is added instead.
const FACTOR_MIN: f64 = 0.01;

impl Model for Theta {
    fn name(&self) -> &'static str {
        "theta"
    }

    fn path(&self, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        check_history(self.name(), history, HISTORY_MIN)?;
        let last = history[history.len() - 1];
        if history.iter().all(|value| value.total_cmp(&last).is_eq()) {
            return Ok(vec![last; steps]);
        }
        let scale = scale_of(history) / SIZE;
        let values: Vec<f64> = history.iter().map(|value| value / scale).collect();
        let season = seasons.iter().copied().find(|season| SEASON_MIN <= *season && 2 * *season <= values.len());
        let (adjusted, put_back) = match season.filter(|season| is_significant(&values, *season)) {
            None => (values, None),
            Some(season) => {
                let (indices, blend) = indices(&values, season);
                let adjust = |(at, value): (usize, &f64)| match blend {
                    Blend::Sum => value - indices[at % season],
                    Blend::Product => value / indices[at % season],
                };
                (values.iter().enumerate().map(adjust).collect(), Some((indices, blend)))
            }
        };
        let kinds = [(false, false), (false, true), (true, false), (true, true)];
        let fits = kinds.map(|(follows, stretches)| Fit::new(&adjusted, follows, stretches));
        let best = fits.iter().min_by(|a, b| a.cost.total_cmp(&b.cost)).expect("there are four");
        let mut path = best.path(steps);
        if let Some((indices, blend)) = put_back {
            for (step, value) in path.iter_mut().enumerate() {
                let index = indices[(adjusted.len() + step) % indices.len()];
                match blend {
                    Blend::Sum => *value += index,
                    Blend::Product => *value *= index,
                }
            }
        }
        finite(self.name(), path.into_iter().map(|value| value * scale).collect())
    }
}

/// Whether values one season apart go together: the test that the M3 competition and Fiorucci and others (2016) use.
fn is_significant(values: &[f64], season: usize) -> bool {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let errors: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let product = |lag: usize| errors[lag..].iter().zip(&errors).map(|(a, b)| a * b).sum::<f64>();
    let spread = product(0);
    let squares: f64 = (1..season).map(|lag| (product(lag) / spread).powi(2)).sum();
    (product(season) / spread).abs() > SIGNIFICANT * ((1.0 + 2.0 * squares) / count).sqrt()
}

/// Factors where all values are positive and no factor is next to none; else what is added.
fn indices(values: &[f64], season: usize) -> (Vec<f64>, Blend) {
    if values.iter().all(|value| *value > 0.0) {
        let factors = seasonal_indices(values, season, Blend::Product);
        if factors.iter().all(|factor| *factor >= FACTOR_MIN) {
            return (factors, Blend::Product);
        }
    }
    (seasonal_indices(values, season, Blend::Sum), Blend::Sum)
}

/// One of the four models with its best parameters.
#[derive(Debug)]
struct Fit<'a> {
    recursion: Recursion<'a>,
    point: Vec<f64>,
    cost: f64,
}

impl<'a> Fit<'a> {
    fn new(values: &'a [f64], follows: bool, stretches: bool) -> Fit<'a> {
        let recursion = Recursion::new(values, follows);
        let mut start = vec![values[0] / 2.0, 0.5];
        let (mut lower, mut upper) = (vec![f64::NEG_INFINITY, GAIN.0], vec![f64::INFINITY, GAIN.1]);
        if stretches {
            start.push(STRETCH);
            lower.push(1.0);
            upper.push(f64::INFINITY);
        }
        let mut simplex = Simplex::new(&start, lower, upper, &recursion);
        simplex.search(STEPS, &recursion);
        let (point, cost) = simplex.best();
        Fit { point: point.to_vec(), cost, recursion }
    }

    fn path(&self, steps: usize) -> Vec<f64> {
        let point: Vec<Lanes> = self.point.iter().map(|value| [*value; LANES]).collect();
        let (mut state, _) = self.recursion.run(&point);
        (0..steps)
            .map(|_| {
                let expected = state.expected();
                // What is expected is taken for what happens.
                state.take(expected, self.recursion.follows);
                expected[0]
            })
            .collect()
    }
}

/// One model over one history.
#[derive(Debug)]
struct Recursion<'a> {
    values: &'a [f64],
    /// Whether the line is drawn anew with each value.
    follows: bool,
    /// Start and slope of the line at first.
    line: (f64, f64),
    size: f64,
}

/// The state of all lanes after some values.
#[derive(Debug)]
struct State {
    gain: Lanes,
    /// 1 − 1/θ: how much of the line is in the forecast.
    share: Lanes,
    level: Lanes,
    mean: Lanes,
    start: Lanes,
    slope: Lanes,
    /// (1 − gain) to the power of the count.
    decay: Lanes,
    count: f64,
}

impl State {
    fn expected(&self) -> Lanes {
        std::array::from_fn(|lane| {
            let slope_part = self.slope[lane] * (1.0 - self.decay[lane] * (1.0 - self.gain[lane])) / self.gain[lane];
            self.level[lane] + self.share[lane] * (self.start[lane] * self.decay[lane] + slope_part)
        })
    }

    /// The recursion of Fiorucci and others (2016).
    fn take(&mut self, value: Lanes, follows: bool) {
        let count = self.count;
        for (lane, value) in value.into_iter().enumerate() {
            self.level[lane] += self.gain[lane] * (value - self.level[lane]);
            self.decay[lane] *= 1.0 - self.gain[lane];
            if follows {
                let aside = value - self.mean[lane];
                self.mean[lane] += aside / (count + 1.0);
                self.slope[lane] = ((count - 1.0) * self.slope[lane] + 6.0 * aside / (count + 1.0)) / (count + 2.0);
                self.start[lane] = self.mean[lane] - self.slope[lane] * (count + 2.0) / 2.0;
            }
        }
        self.count += 1.0;
    }
}

impl<'a> Recursion<'a> {
    fn new(values: &'a [f64], follows: bool) -> Recursion<'a> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let weighted = values.iter().enumerate().map(|(at, value)| (at + 1) as f64 * value).sum::<f64>() / count;
        let slope = 6.0 * (2.0 * weighted - (count + 1.0) * mean) / (count * count - 1.0);
        let line = if follows { (values[0], 0.0) } else { (mean - (count + 1.0) * slope / 2.0, slope) };
        let size = values.iter().map(|value| value.abs()).sum::<f64>() / count;
        Recursion { values, follows, line, size }
    }

    /// Runs over the history: the state after it and the sum of squared one-step errors.
    fn run(&self, point: &[Lanes]) -> (State, Lanes) {
        let (before, gain) = (point[0], point[1]);
        let stretch = point.get(2).copied().unwrap_or([STRETCH; LANES]);
        let first = self.values[0];
        let mut state = State {
            gain,
            share: stretch.map(|stretch| 1.0 - 1.0 / stretch),
            level: std::array::from_fn(|lane| gain[lane] * first + (1.0 - gain[lane]) * before[lane]),
            mean: [first; LANES],
            start: [self.line.0; LANES],
            slope: [self.line.1; LANES],
            decay: gain.map(|gain| 1.0 - gain),
            count: 1.0,
        };
        let mut squares = [0.0; LANES];
        for (at, value) in self.values.iter().enumerate().skip(1) {
            let expected = state.expected();
            if at >= WARM_UP {
                (0..LANES).for_each(|lane| squares[lane] += (value - expected[lane]).powi(2));
            }
            state.take([*value; LANES], self.follows);
        }
        (state, squares)
    }
}

impl Cost for Recursion<'_> {
    fn costs(&self, points: &[Lanes]) -> Lanes {
        let (_, squares) = self.run(points);
        squares.map(|sum| if sum.is_finite() { sum / self.size.max(f64::MIN_POSITIVE) } else { f64::INFINITY })
    }
}
