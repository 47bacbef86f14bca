//! Exponential smoothing in state-space form, its kind chosen by information criterion.
//!
//! Hyndman, Koehler, Ord and Snyder, *Forecasting with Exponential Smoothing* (2008): chapter 2 has the models and
//! their recursions, chapter 5 the likelihood, the start and the bounds of its parameters, chapter 7 the choice by
//! AICc. Level, trend (none, additive, damped) and season (none, additive, multiplicative), with additive or relative
//! errors: fifteen kinds. Left out as unstable, like everywhere: multiplicative trends, and multiplicative seasons with
//! additive errors. Starting states are parameters like gains, so a daily season of hours has 29 of them.
//!
//! Seasons of more than 24 steps would have too many. They are taken off beforehand by [`super::stl`] and put
//! back afterwards; statsforecast ignores them instead.

use super::mstl::deseasonalised_path;
use super::search::{Cost, LANES, Lanes, Simplex};
use super::seasonal::{Blend, seasonal_indices};
use super::{Model, check_history, finite, scale_of};
use crate::forecast::Refusal;

/// Exponential smoothing of the kind that the information criterion prefers.
#[derive(Debug)]
pub(super) struct Ets;

/// Additive smoothing with a damped trend (Gardner and McKenzie 1985): `AAdN`.
#[derive(Debug)]
pub(super) struct Damped;

/// The longest season that has states of its own.
const SEASON_MAX: usize = 24;
/// The fewest values from which the simplest kind can be chosen.
const HISTORY_MIN: usize = 5;
/// The fewest for a damped trend.
const DAMPED_HISTORY_MIN: usize = 8;
/// The bounds of all gains, and of the damping.
const GAIN: (f64, f64) = (1e-4, 0.9999);
const DAMPING: (f64, f64) = (0.8, 0.98);
/// How many steps the search for one kind's parameters has, as in statsforecast, and after how many the field is
/// thinned.
const STEPS: usize = 1000;
const STEPS_ROUND: usize = 50;
/// How far behind the best a kind with a season may be, in units of the criterion, for each step it still has: the best
/// of those with one, which are as slow, and of those without, which settle early. On 207 hourly series this costs a
/// third of fitting all kinds to the end, and 0.1 of 17.05 points of sMAPE more.
const BEHIND_PER_STEP: f64 = 0.4;
const BEHIND_PLAIN_PER_STEP: f64 = 0.8;

/// One kind of model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// Errors relative to the forecast, instead of absolute.
    relative: bool,
    trend: Trend,
    season: Option<Blend>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trend {
    None,
    Additive,
    Damped,
}

impl Model for Ets {
    fn name(&self) -> &'static str {
        "ets"
    }

    fn path(&self, history: &[f64], seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        check_history(self.name(), history, HISTORY_MIN)?;
        let season = seasons.iter().copied().find(|season| 2 <= *season && 2 * *season < history.len());
        match season {
            Some(season) if season > SEASON_MAX => deseasonalised_path(self.name(), history, &[season], steps),
            _ => smoothed_path(self.name(), history, season, steps),
        }
    }
}

impl Model for Damped {
    fn name(&self) -> &'static str {
        "damped"
    }

    fn path(&self, history: &[f64], _seasons: &[usize], steps: usize) -> Result<Vec<f64>, Refusal> {
        check_history(self.name(), history, DAMPED_HISTORY_MIN)?;
        let kinds = [Kind { relative: false, trend: Trend::Damped, season: None }];
        best_path(self.name(), history, 1, &kinds, steps)
    }
}

/// The path of the best kind for a history of at least `HISTORY_MIN` values; the season has at most `SEASON_MAX` steps.
pub(super) fn smoothed_path(
    model: &'static str,
    history: &[f64],
    season: Option<usize>,
    steps: usize,
) -> Result<Vec<f64>, Refusal> {
    let is_positive = history.iter().all(|value| *value > 0.0);
    let mut kinds = Vec::new();
    for relative in [false, true] {
        for blend in [None, Some(Blend::Sum), Some(Blend::Product)] {
            // Factors ask for positive values, and for errors that grow with them.
            let is_sound = (is_positive || !relative) && (relative || blend != Some(Blend::Product));
            if is_sound && (blend.is_none() || season.is_some()) {
                kinds.extend([Trend::None, Trend::Damped, Trend::Additive].map(|trend| Kind {
                    relative,
                    trend,
                    season: blend,
                }));
            }
        }
    }
    best_path(model, history, season.unwrap_or(1), &kinds, steps)
}

fn best_path(
    model: &'static str,
    history: &[f64],
    season: usize,
    kinds: &[Kind],
    steps: usize,
) -> Result<Vec<f64>, Refusal> {
    let last = history[history.len() - 1];
    if history.iter().all(|value| value.total_cmp(&last).is_eq()) {
        return Ok(vec![last; steps]);
    }
    let scale = scale_of(history);
    let values: Vec<f64> = history.iter().map(|value| value / scale).collect();
    let fits = kinds.iter().filter_map(|kind| Fit::start(*kind, &values, season)).collect();
    let best = compete(fits).ok_or(Refusal::NoFit(model))?;
    finite(model, best.path(steps).into_iter().map(|value| value * scale).collect())
}

/// Lets the kinds be fitted side by side, giving up those that fall behind: the one with the smallest criterion.
fn compete(mut fits: Vec<Fit<'_>>) -> Option<Fit<'_>> {
    for taken in (STEPS_ROUND..=STEPS).step_by(STEPS_ROUND) {
        for fit in &mut fits {
            fit.simplex.search(STEPS_ROUND, &fit.recursion);
        }
        let best = |fits: &[Fit<'_>]| fits.iter().map(Fit::criterion).min_by(f64::total_cmp);
        let (mut seasonal, plain): (Vec<Fit<'_>>, _) =
            fits.into_iter().partition(|fit| fit.recursion.kind.season.is_some());
        let left = (STEPS - taken) as f64;
        let ahead = best(&plain).map_or(f64::INFINITY, |best| best + BEHIND_PLAIN_PER_STEP * left);
        let bound = best(&seasonal).map_or(ahead, |best| ahead.min(best + BEHIND_PER_STEP * left));
        seasonal.retain(|fit| fit.criterion() <= bound);
        // Kinds without a season are cheap, and soon as good as they get.
        fits = plain;
        fits.extend(seasonal);
    }
    let best = fits.into_iter().min_by(|a, b| a.criterion().total_cmp(&b.criterion()))?;
    best.criterion().is_finite().then_some(best)
}

/// A kind on its way to its best parameters.
#[derive(Debug)]
struct Fit<'a> {
    recursion: Recursion<'a>,
    simplex: Simplex,
}

impl<'a> Fit<'a> {
    /// Begins where Hyndman, Koehler, Snyder and Grose (2002) begin; absent where the history is too short for the
    /// kind.
    fn start(kind: Kind, values: &'a [f64], season: usize) -> Option<Fit<'a>> {
        let (least, most) = GAIN;
        // A trend that follows faster than the level's first guess would run after the season.
        let trend_gain_max = least + 0.2 * (most - least) / season as f64;
        let season = if kind.season.is_some() { season } else { 1 };
        let recursion = Recursion { kind, values, season };
        let (start, lower, upper) = recursion.start(trend_gain_max);
        // The criterion divides by what is left of the history.
        if values.len() < start.len() + 3 {
            return None;
        }
        Some(Fit { simplex: Simplex::new(&start, lower, upper, &recursion), recursion })
    }

    /// Akaike's criterion, corrected for small samples (Hurvich and Tsai 1989).
    fn criterion(&self) -> f64 {
        let (point, likelihood) = self.simplex.best();
        // The variance is a parameter too.
        let count = (point.len() + 1) as f64;
        likelihood + 2.0 * count + 2.0 * count * (count + 1.0) / (self.recursion.values.len() as f64 - count - 1.0)
    }

    fn path(&self, steps: usize) -> Vec<f64> {
        let point: Vec<Lanes> = self.simplex.best().0.iter().map(|value| [*value; LANES]).collect();
        let mut state = self.recursion.state(&point);
        self.recursion.run(&mut state);
        let (mut base, mut growth) = (state.base[0], state.growth[0]);
        (0..steps)
            .map(|step| {
                let expected = base;
                growth *= state.damping[0];
                base += growth;
                let phase = (self.recursion.values.len() + step) % self.recursion.season;
                match self.recursion.kind.season {
                    None => expected,
                    Some(Blend::Sum) => expected + state.season[phase][0],
                    Some(Blend::Product) => expected * state.season[phase][0],
                }
            })
            .collect()
    }
}

/// The recursion of one kind over one history: what the search asks for its cost.
#[derive(Debug)]
struct Recursion<'a> {
    kind: Kind,
    values: &'a [f64],
    /// 1 without a season.
    season: usize,
}

/// Gains and states of all lanes.
#[derive(Debug)]
struct State {
    level_gain: Lanes,
    trend_gain: Lanes,
    season_gain: Lanes,
    damping: Lanes,
    level: Lanes,
    trend: Lanes,
    /// What is expected of the next step without its season, and the growth within it: known after the run.
    base: Lanes,
    growth: Lanes,
    /// By phase: the first value has phase 0.
    season: Vec<Lanes>,
}

impl Recursion<'_> {
    /// The first guess of all parameters, and their bounds: gains (level, trend, season), damping, level, trend, and
    /// the season's states but the first, which follows from the others.
    fn start(&self, trend_gain_max: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (least, most) = GAIN;
        let level_gain = least + 0.2 * (most - least) / self.season as f64;
        let mut bounded = vec![(level_gain, least, most)];
        if self.kind.trend != Trend::None {
            bounded.push((least + 0.1 * (trend_gain_max - least), least, trend_gain_max));
        }
        if self.kind.season.is_some() {
            let season_most = most.min(1.0 - level_gain);
            bounded.push((least + 0.05 * (season_most - least), least, season_most));
        }
        if self.kind.trend == Trend::Damped {
            bounded.push((DAMPING.0 + 0.99 * (DAMPING.1 - DAMPING.0), DAMPING.0, DAMPING.1));
        }
        let states = self.first_states();
        bounded.extend(states.into_iter().map(|state| (state, f64::NEG_INFINITY, f64::INFINITY)));
        let start = bounded.iter().map(|(value, ..)| *value).collect();
        let lower = bounded.iter().map(|(_, lower, _)| *lower).collect();
        (start, lower, bounded.iter().map(|(_, _, upper)| *upper).collect())
    }

    /// Level and trend from the first seasons without their season; the season from the whole history.
    fn first_states(&self) -> Vec<f64> {
        let mut indices = match self.kind.season {
            None => Vec::new(),
            Some(blend) => seasonal_indices(self.values, self.season, blend),
        };
        if self.kind.season == Some(Blend::Product) {
            indices.iter_mut().for_each(|index| *index = index.max(0.01));
        }
        let count = self.values.len().min(10.max(2 * self.season));
        let adjusted = self.values[..count].iter().enumerate().map(|(at, value)| match self.kind.season {
            None => *value,
            Some(Blend::Sum) => value - indices[at % self.season],
            Some(Blend::Product) => value / indices[at % self.season],
        });
        let adjusted: Vec<f64> = adjusted.collect();
        let mean = adjusted.iter().sum::<f64>() / count as f64;
        let mut states = Vec::new();
        if self.kind.trend == Trend::None {
            states.push(mean);
        } else {
            let middle = (count as f64 + 1.0) / 2.0;
            let position = |at: usize| (at + 1) as f64 - middle;
            let products: f64 = adjusted.iter().enumerate().map(|(at, value)| position(at) * (value - mean)).sum();
            let slope = products / (0..count).map(|at| position(at).powi(2)).sum::<f64>();
            states.extend([mean - slope * middle, slope]);
        }
        states.extend(indices.iter().skip(1).rev());
        states
    }

    /// Parameters taken apart.
    fn state(&self, point: &[Lanes]) -> State {
        let mut rest = point.iter().copied();
        let mut next = || rest.next().expect("the point has as many parameters as the kind");
        let has_trend = self.kind.trend != Trend::None;
        let level_gain = next();
        let trend_gain = if has_trend { next() } else { [0.0; LANES] };
        let season_gain = if self.kind.season.is_some() { next() } else { [0.0; LANES] };
        let damping = if self.kind.trend == Trend::Damped { next() } else { [1.0; LANES] };
        let level = next();
        let trend = if has_trend { next() } else { [0.0; LANES] };
        let mut season = vec![[0.0; LANES]; self.season];
        if let Some(blend) = self.kind.season {
            let mut first = [if blend == Blend::Product { self.season as f64 } else { 0.0 }; LANES];
            for phase in (1..self.season).rev() {
                season[phase] = next();
                (0..LANES).for_each(|lane| first[lane] -= season[phase][lane]);
            }
            season[0] = first;
        }
        let unknown = [0.0; LANES];
        State { level_gain, trend_gain, season_gain, damping, level, trend, base: unknown, growth: unknown, season }
    }

    /// Runs over the history and leaves the state after it: −2 log likelihood, up to a constant that all kinds share.
    fn run(&self, state: &mut State) -> Lanes {
        match (self.kind.season, self.kind.relative) {
            (None, false) => self.run_as::<0, false>(state),
            (None, true) => self.run_as::<0, true>(state),
            (Some(Blend::Sum), false) => self.run_as::<1, false>(state),
            (Some(Blend::Sum), true) => self.run_as::<1, true>(state),
            (Some(Blend::Product), false) => self.run_as::<2, false>(state),
            (Some(Blend::Product), true) => self.run_as::<2, true>(state),
        }
    }

    /// `SEASON`: 0 none, 1 sum, 2 product. One body for all kinds, so that none can differ by accident; the constants
    /// let each be compiled without branches.
    ///
    /// The recursions of the book, put so that each value waits for little of the one before: with `e` the error as the
    /// level sees it, the next expected level is `base + φ·growth + (α + φβ)·e` and the next growth `φ·growth + φβ·e`.
    fn run_as<const SEASON: u8, const RELATIVE: bool>(&self, state: &mut State) -> Lanes {
        let each = |of: fn(&State, usize) -> f64| -> Lanes { std::array::from_fn(|lane| of(state, lane)) };
        let season_gain = state.season_gain;
        let damping = state.damping;
        let growth_gain = each(|state, lane| state.damping[lane] * state.trend_gain[lane]);
        let base_gain = each(|state, lane| state.level_gain[lane] + state.damping[lane] * state.trend_gain[lane]);
        let mut growth = each(|state, lane| state.damping[lane] * state.trend[lane]);
        let mut base: Lanes = std::array::from_fn(|lane| state.level[lane] + growth[lane]);
        let mut squares = [0.0; LANES];
        let mut logarithms = [0.0; LANES];
        let mut product = [1.0_f64; LANES];
        let mut phase = 0;
        for (at, value) in self.values.iter().enumerate() {
            let season = &mut state.season[phase];
            for lane in 0..LANES {
                let part = season[lane];
                // The value as the level would have it without the season.
                let adjusted = match SEASON {
                    0 => *value,
                    1 => value - part,
                    _ => value / part,
                };
                let error = adjusted - base[lane];
                let counted = if RELATIVE {
                    let expected = if SEASON == 1 { base[lane] + part } else { base[lane] };
                    // With factors, both sides of the quotient are divided by the same one.
                    product[lane] *= if SEASON == 2 { expected * part } else { expected };
                    error / expected
                } else {
                    error
                };
                squares[lane] += counted * counted;
                match SEASON {
                    0 => {}
                    1 => season[lane] = part + season_gain[lane] * error,
                    // Only relative errors go with factors.
                    _ => season[lane] = part + season_gain[lane] * part * counted,
                }
                growth[lane] *= damping[lane];
                base[lane] += growth[lane] + base_gain[lane] * error;
                growth[lane] += growth_gain[lane] * error;
            }
            phase = if phase + 1 == self.season { 0 } else { phase + 1 };
            // A logarithm of eight factors costs as much as one of one.
            if RELATIVE && at % 8 == 7 {
                (0..LANES).for_each(|lane| logarithms[lane] += product[lane].abs().ln());
                product = [1.0; LANES];
            }
        }
        (state.base, state.growth) = (base, growth);
        let count = self.values.len() as f64;
        std::array::from_fn(|lane| {
            let scale = if RELATIVE { logarithms[lane] + product[lane].abs().ln() } else { 0.0 };
            let likelihood = count * squares[lane].max(f64::MIN_POSITIVE).ln() + 2.0 * scale;
            if likelihood.is_finite() { likelihood } else { f64::INFINITY }
        })
    }
}

impl Cost for Recursion<'_> {
    fn costs(&self, points: &[Lanes]) -> Lanes {
        let mut state = self.state(points);
        let is_negative: [bool; LANES] = std::array::from_fn(|lane| {
            self.kind.season == Some(Blend::Product) && state.season.iter().any(|part| part[lane] < 0.0)
        });
        let likelihoods = self.run(&mut state);
        std::array::from_fn(|lane| if is_negative[lane] { f64::INFINITY } else { likelihoods[lane] })
    }
}
