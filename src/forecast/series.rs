//! One series of samples → its forecast: what `forestall forecast` prints.
//!
//! ```text
//! samples ─▶ slots, one a step (NaN: missing) ─▶ cells of `ratio` slots ─▶ bank ─▶ cells ahead ─▶ steps ahead
//! ```
//!
//! A horizon of up to 96 steps is forecast step by step. A longer one is forecast in cells of several steps, which costs less and
//! loses a hundredth of accuracy; between cells the path is drawn straight, and widths come from what such lines got wrong at single steps.

use std::cmp::Ordering;
use std::sync::Arc;

use super::bank::{Bank, BankSettings, BankSize, Earlier, Forecast, STEPS_MIN, seasons};
use super::cells::whole;
use super::lstm::{Lesson, Network};
use super::models::{Model, model_of};
use super::paths::{normal_quantile, quantile};
use super::{ModelChoice, Refusal};
use crate::model::{Millis, Sample, Timestamp};

/// Cells to the horizon, at least and at most, where it has more steps.
const CELLS: (usize, usize) = (48, 96);
/// Steps of a forecast, at most.
const STEPS_MAX: usize = 100_000;
/// Seasons of the clock are left where another makes an error of at most this part of theirs over so many forecasts.
const SWITCH: f64 = 0.9;
const SWITCH_ORIGINS: usize = 8;
/// Cells of history: the larger of this many and of four times the longest season.
const HISTORY_CELLS: usize = 4000;
/// Cells whose inside tells how far values lie from the line between cells.
const INSIDE_CELLS: usize = 960;
/// The standard deviation of normal values whose mean size is 1.
const MEAN_TO_DEVIATION: f64 = 1.253;

/// Windows that a network learns from between two looks whether it is trained.
const TRAINED_AT_ONCE: usize = 4096;

/// How one series is forecast.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSettings {
    /// The distance between values; samples are put on multiples of it.
    pub step: Millis,
    /// How far ahead.
    pub horizon: Millis,
    /// Season lengths; empty: found.
    pub seasons: Vec<Millis>,
    /// The model.
    pub model: ModelChoice,
    /// The quantile levels wanted, ascending, each strictly between 0 and 1.
    pub levels: Vec<f64>,
    /// Values are never below.
    pub floor: Option<f64>,
    /// Values are never above.
    pub ceiling: Option<f64>,
    /// What serves the model `lstm`: see [`train_network`].
    pub network: Option<Arc<Network>>,
}

/// The future of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesForecast {
    /// The time of the first step.
    pub start: Timestamp,
    /// The distance between steps.
    pub step: Millis,
    /// The quantile levels, ascending.
    pub levels: Vec<f64>,
    /// `values[level][step]`.
    pub values: Vec<Vec<f64>>,
    /// The members that made it, with their weights, heaviest first; one where a model was named.
    pub members: Vec<(String, f64)>,
    /// The season lengths that were used.
    pub seasons: Vec<Millis>,
    /// How many values the history has, and how many of them were missing.
    pub history: usize,
    /// See `history`.
    pub missing: usize,
}

/// A regular history; the slot of index `first + i` holds entry `i`, NaN where nothing was measured.
#[derive(Debug)]
struct Grid {
    first: i64,
    slots: Vec<f64>,
}

/// Forecasts one series from its samples, in any order; the forecast begins one step after the newest sample.
///
/// # Errors
/// See [`Refusal`].
pub fn forecast_series(samples: &[Sample], settings: &SeriesSettings) -> Result<SeriesForecast, Refusal> {
    let steps = check_settings(settings)?;
    let ratio = ratio_of(steps, settings);
    let cell = ratio.saturating_mul(usize::try_from(settings.step.0).unwrap_or(usize::MAX));
    let cell = i64::try_from(cell).unwrap_or(i64::MAX);
    let longest = settings.seasons.iter().map(|season| season.0 / cell).max().unwrap_or(0);
    let keep = HISTORY_CELLS.max(4 * usize::try_from(longest).unwrap_or(0).min(HISTORY_CELLS));
    let grid = Grid::of(samples, settings.step, keep * ratio).ok_or(Refusal::NoNumber(samples.len()))?;
    let (first, cells) = grid.cells(ratio);
    let fit = |seasons: Vec<usize>| {
        let settings = BankSettings {
            steps: steps.div_ceil(ratio).max(STEPS_MIN),
            seasons,
            size: BankSize::Full,
            model: named(settings)?,
            floor: settings.floor,
            ceiling: settings.ceiling,
        };
        Bank::fit(settings, first, &cells)
    };
    let bank = if settings.seasons.is_empty() {
        fit_to_found(&fit, seasons::of_clock(cell, cells.len()), first, &cells)?
    } else {
        fit(given_seasons(settings, cell)?)?
    };
    let ahead = Ahead::new(&grid, first, &cells, &bank, ratio, settings);
    let in_time = |season: usize| Millis(cell.saturating_mul(i64::try_from(season).unwrap_or(i64::MAX)));
    Ok(SeriesForecast {
        start: Timestamp(grid.next().saturating_mul(settings.step.0)),
        step: settings.step,
        levels: settings.levels.clone(),
        values: settings.levels.iter().map(|level| ahead.quantile(*level, steps)).collect(),
        members: bank.members(),
        seasons: bank.seasons().into_iter().map(in_time).collect(),
        history: grid.slots.len(),
        missing: grid.slots.iter().filter(|value| value.is_nan()).count(),
    })
}

/// Trains a network on all series at once, to serve the model `lstm` for each of them. Absent where none is long enough or
/// the settings cannot be.
pub fn train_network(all: &[&[Sample]], settings: &SeriesSettings) -> Option<Arc<Network>> {
    let steps = check_settings(settings).ok()?;
    let ratio = ratio_of(steps, settings);
    let cell = i64::try_from(ratio).ok()?.checked_mul(settings.step.0)?;
    let lesson = |samples: &&[Sample]| {
        let grid = Grid::of(samples, settings.step, HISTORY_CELLS * ratio)?;
        let (_, cells) = grid.cells(ratio);
        let of_clock = || seasons::of_clock(cell, cells.len());
        let seasons = if settings.seasons.is_empty() { of_clock() } else { given_seasons(settings, cell).ok()? };
        Lesson::new(cells, seasons, steps.div_ceil(ratio).max(STEPS_MIN))
    };
    let lessons: Vec<Lesson> = all.iter().filter_map(lesson).collect();
    let mut network = Network::for_lessons(lessons.first()?, 1);
    while !network.is_trained() {
        if network.study(&lessons, TRAINED_AT_ONCE) == 0 {
            return None;
        }
    }
    Some(Arc::new(network))
}

/// The number of steps to the horizon, if the settings can be.
fn check_settings(settings: &SeriesSettings) -> Result<usize, Refusal> {
    let refuse = |why: String| Err(Refusal::Settings(why));
    if settings.step.0 <= 0 {
        return refuse(format!("a step is longer than nothing, not {}", settings.step));
    }
    let steps = usize::try_from(settings.horizon.0 / settings.step.0).unwrap_or(0);
    if !(1..=STEPS_MAX).contains(&steps) {
        return refuse(format!("a horizon has 1 to {STEPS_MAX} steps, not {steps}"));
    }
    let within = |level: &f64| 0.0 < *level && *level < 1.0;
    if !settings.levels.iter().all(within) || !settings.levels.is_sorted() {
        return refuse("quantile levels are ascending and between 0 and 1".to_owned());
    }
    if settings.seasons.iter().any(|season| season.0 <= 0) {
        return refuse("a season is longer than nothing".to_owned());
    }
    Ok(steps)
}

/// The model to ask; none for the bank's own members.
fn named(settings: &SeriesSettings) -> Result<Option<Box<dyn Model>>, Refusal> {
    match (settings.model, model_of(settings.model), &settings.network) {
        (ModelChoice::Auto, _, _) => Ok(None),
        (_, Some(model), _) => Ok(Some(model)),
        (_, None, Some(network)) => Ok(Some(Box::new(network.clone()))),
        (_, None, None) => Err(Refusal::Settings("this model needs to be trained beforehand".to_owned())),
    }
}

/// How many steps make one cell: 1 up to 96 steps; else so many that there are 48 to 96 cells, a whole number of them a day if that can be.
fn ratio_of(steps: usize, settings: &SeriesSettings) -> usize {
    if steps <= CELLS.1 {
        return 1;
    }
    let season = settings.seasons.first().copied().unwrap_or(Millis::DAY);
    let (least, most) = (steps.div_ceil(CELLS.1), steps / CELLS.0);
    let divides = |ratio: &usize| i64::try_from(*ratio).is_ok_and(|ratio| season.0 % (ratio * settings.step.0) == 0);
    (least..=most).find(divides).unwrap_or(least)
}

/// A bank with the seasons of the clock, or with the one that the values show where earlier forecasts were clearly better with it.
fn fit_to_found(
    fit: &impl Fn(Vec<usize>) -> Result<Bank, Refusal>,
    of_clock: Vec<usize>,
    first: i64,
    cells: &[f64],
) -> Result<Bank, Refusal> {
    let shown = seasons::of_values(cells).filter(|season| !of_clock.contains(season));
    // Without a season of the clock, one that is not needed costs nothing.
    let switch = if of_clock.is_empty() { 1.0 } else { SWITCH };
    let usual = fit(of_clock)?;
    let Some(season) = shown else { return Ok(usual) };
    let other = fit(vec![season])?;
    let is_better = match (error_of(&usual, first, cells), error_of(&other, first, cells)) {
        (Some(error), Some(other_error)) => other_error <= switch * error,
        _ => usual.seasons().is_empty(),
    };
    Ok(if is_better { other } else { usual })
}

/// The mean error of the newest forecasts that a fit made on the way; none where there are none.
fn error_of(bank: &Bank, first: i64, cells: &[f64]) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for forecast in bank.earlier().iter().rev().take(SWITCH_ORIGINS) {
        let from = usize::try_from(forecast.start - first).ok()?;
        for (value, median) in cells[from..].iter().zip(&forecast.median).filter(|(value, _)| !value.is_nan()) {
            sum += (value - median).abs();
            count += 1.0;
        }
    }
    (count > 0.0).then(|| sum / count)
}

/// The seasons that were given, in cells.
fn given_seasons(settings: &SeriesSettings, cell: i64) -> Result<Vec<usize>, Refusal> {
    let in_cells = |season: &Millis| whole(season.0 as f64 / cell as f64);
    let mut given: Vec<usize> = settings.seasons.iter().map(in_cells).filter(|season| *season >= 2).collect();
    given.sort_unstable();
    given.dedup();
    if given.len() > 2 {
        return Err(Refusal::Settings("at most two seasons".to_owned()));
    }
    Ok(given)
}

impl Grid {
    /// The newest `keep` slots, each the mean of its samples; of samples of one time the last counts. None without a number.
    fn of(samples: &[Sample], step: Millis, keep: usize) -> Option<Grid> {
        let slot = |at: Timestamp| at.0.saturating_add(step.0 / 2).div_euclid(step.0);
        let known = || samples.iter().filter(|sample| sample.value.is_finite());
        let newest = known().map(|sample| slot(sample.at)).max()?;
        let oldest = known().map(|sample| slot(sample.at)).min()?;
        let first = oldest.max(newest.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX) - 1));
        let mut kept: Vec<&Sample> = known().filter(|sample| slot(sample.at) >= first).collect();
        // The sort is stable: of equal times the last in the input stays last.
        kept.sort_by_key(|sample| sample.at);
        let length = usize::try_from(newest - first).ok()? + 1;
        let mut sums = vec![(0.0, 0.0); length];
        for (place, sample) in kept.iter().enumerate() {
            if kept.get(place + 1).is_some_and(|next| next.at == sample.at) {
                continue;
            }
            let (mean, count) = &mut sums[usize::try_from(slot(sample.at) - first).ok()?];
            *count += 1.0;
            *mean += sample.value / *count - *mean / *count;
        }
        let slots = sums.into_iter().map(|(mean, count)| if count > 0.0 { mean } else { f64::NAN }).collect();
        Some(Grid { first, slots })
    }

    /// The index of the slot after the newest.
    fn next(&self) -> i64 {
        self.first.saturating_add(i64::try_from(self.slots.len()).unwrap_or(i64::MAX))
    }

    /// Means of `ratio` slots each, the newest cell ending with the newest slot, and the index of the first.
    fn cells(&self, ratio: usize) -> (i64, Vec<f64>) {
        let cells: Vec<f64> = self.slots.rchunks(ratio).rev().map(mean_of_known).collect();
        let length = i64::try_from(cells.len()).unwrap_or(i64::MAX);
        (self.next().div_euclid(i64::try_from(ratio).unwrap_or(i64::MAX)) - length, cells)
    }
}

fn mean_of_known(values: &[f64]) -> f64 {
    let known = values.iter().filter(|value| !value.is_nan());
    let count = known.clone().count() as f64;
    if count > 0.0 { known.map(|value| value / count).sum() } else { f64::NAN }
}

/// A forecast in cells, with what turns it into steps.
#[derive(Debug)]
struct Ahead {
    forecast: Forecast,
    ratio: usize,
    /// The newest cell that is known.
    before: f64,
    /// How far values usually lie from the line between cells.
    inside: f64,
    /// |error| of earlier forecasts at single steps, in widths: sorted.
    scores: Vec<f64>,
    /// `(n + 1) / n` of the independent ones among them.
    caution: f64,
    bounds: (f64, f64),
}

impl Ahead {
    fn new(grid: &Grid, first: i64, cells: &[f64], bank: &Bank, ratio: usize, settings: &SeriesSettings) -> Ahead {
        let lowest = grid.slots.iter().copied().fold(f64::INFINITY, f64::min);
        let floor = settings.floor.unwrap_or(if lowest >= 0.0 { 0.0 } else { -f64::MAX });
        let ceiling = settings.ceiling.unwrap_or(f64::MAX);
        let earlier = if ratio == 1 { Vec::new() } else { bank.earlier() };
        let mut ahead = Ahead {
            forecast: bank.forecast(),
            ratio,
            before: known_before(cells, cells.len()),
            inside: if ratio == 1 { 0.0 } else { inside(grid, cells, ratio) },
            scores: Vec::new(),
            caution: 1.0 + 0.5 / earlier.len().max(1) as f64,
            bounds: (floor.min(ceiling), ceiling),
        };
        for forecast in &earlier {
            ahead.judge(grid, forecast, usize::try_from(forecast.start - first).unwrap_or(0), cells);
        }
        ahead.scores.sort_by(f64::total_cmp);
        ahead
    }

    /// Holds the values of single steps against an earlier forecast, whose first cell is the one at `place`.
    fn judge(&mut self, grid: &Grid, forecast: &Earlier, place: usize, cells: &[f64]) {
        let Some(from) = grid.slots.len().checked_sub((cells.len() - place) * self.ratio) else { return };
        let steps = (grid.slots.len() - from).min(forecast.median.len() * self.ratio);
        let median = drawn(known_before(cells, place), &forecast.median, self.ratio, steps);
        let shape = drawn(forecast.shape[0], &forecast.shape, self.ratio, steps);
        for (step, value) in grid.slots[from..from + steps].iter().enumerate() {
            let score = (value - median[step]).abs() / shape[step].hypot(self.inside);
            if score.is_finite() {
                self.scores.push(score);
            }
        }
    }

    /// The quantile of one level at each of `steps` steps.
    fn quantile(&self, level: f64, steps: usize) -> Vec<f64> {
        if self.ratio == 1 {
            return self.forecast.quantile(level)[..steps].to_vec();
        }
        let side = match level.total_cmp(&0.5) {
            Ordering::Less => -1.0,
            Ordering::Equal => 0.0,
            Ordering::Greater => 1.0,
        };
        let median = drawn(self.before, &self.forecast.median, self.ratio, steps);
        let half = if self.scores.is_empty() {
            // Nothing was judged yet: as wide as the cells say, and as wide as values lie about in one.
            let cells = self.forecast.quantile(level);
            let apart: Vec<f64> = cells.iter().zip(&self.forecast.median).map(|(cell, median)| cell - median).collect();
            let inside = MEAN_TO_DEVIATION * self.inside * normal_quantile(level);
            drawn(apart[0], &apart, self.ratio, steps).into_iter().map(|apart| apart.hypot(inside)).collect()
        } else {
            let width = quantile(&self.scores, ((2.0 * level - 1.0).abs() * self.caution).min(1.0));
            let shape = drawn(self.forecast.shape[0], &self.forecast.shape, self.ratio, steps);
            shape.into_iter().map(|shape| width * shape.hypot(self.inside)).collect::<Vec<f64>>()
        };
        let value = |(median, half): (&f64, &f64)| (median + side * half).clamp(self.bounds.0, self.bounds.1);
        median.iter().zip(&half).map(value).collect()
    }
}

/// The newest known cell before one; 0 where there is none.
fn known_before(cells: &[f64], place: usize) -> f64 {
    cells[..place].iter().rev().copied().find(|value| !value.is_nan()).unwrap_or(0.0)
}

/// Draws a straight line from the middle of each cell to that of the next and reads it at the steps; `before` is the cell before the first.
fn drawn(before: f64, cells: &[f64], ratio: usize, steps: usize) -> Vec<f64> {
    let at = |cell: usize| if cell == 0 { before } else { cells[(cell - 1).min(cells.len() - 1)] };
    (0..steps)
        .map(|step| {
            // In cells, from the middle of the cell before the first.
            let place = (step as f64 + 0.5) / ratio as f64 + 0.5;
            let cell = whole(place.floor());
            let share = place - cell as f64;
            at(cell) * (1.0 - share) + at(cell + 1) * share
        })
        .collect()
}

/// How far the newest values lie from lines between cells: the mean.
fn inside(grid: &Grid, cells: &[f64], ratio: usize) -> f64 {
    let whole_cells = (grid.slots.len() / ratio).min(INSIDE_CELLS);
    if whole_cells < 2 {
        return 0.0;
    }
    let (known, slots) = (&cells[cells.len() - whole_cells..], &grid.slots[grid.slots.len() - whole_cells * ratio..]);
    let line = drawn(known[0], &known[1..], ratio, (whole_cells - 1) * ratio);
    let apart =
        slots[ratio..].iter().zip(&line).map(|(value, line)| (value - line).abs()).filter(|apart| apart.is_finite());
    let (sum, count) = apart.fold((0.0, 0.0), |(sum, count), apart| (sum + apart, count + 1.0));
    (sum / f64::max(count, 1.0)).min(f64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(step: i64, horizon: i64) -> SeriesSettings {
        SeriesSettings {
            step: Millis(step),
            horizon: Millis(horizon),
            seasons: Vec::new(),
            model: ModelChoice::Auto,
            levels: vec![0.05, 0.5, 0.95],
            floor: None,
            ceiling: None,
            network: None,
        }
    }

    fn sample(at: i64, value: f64) -> Sample {
        Sample { at: Timestamp(at), value }
    }

    /// A wave of one day, a value each `step`, with noise of ± 2.
    fn wave(step: i64, count: i64) -> Vec<Sample> {
        let value = |i: i64| {
            let day = (i * step) as f64 / Millis::DAY.0 as f64;
            50.0 + 20.0 * (2.0 * std::f64::consts::PI * day).sin() + (i * i * 7919 % 1009) as f64 / 252.0 - 2.0
        };
        (0..count).map(|i| sample(i * step, value(i))).collect()
    }

    #[test]
    fn samples_fall_into_slots() {
        let check = |samples: &[(i64, f64)], first: i64, slots: &str| {
            let samples: Vec<Sample> = samples.iter().map(|(at, value)| sample(*at, *value)).collect();
            let grid = Grid::of(&samples, Millis(10), 5).expect("there are numbers");
            assert_eq!((grid.first, format!("{:?}", grid.slots)), (first, slots.to_owned()));
        };
        check(&[(0, 1.0), (10, 2.0), (20, 3.0)], 0, "[1.0, 2.0, 3.0]");
        // In any order, and with gaps.
        check(&[(30, 3.0), (0, 1.0)], 0, "[1.0, NaN, NaN, 3.0]");
        // Off the grid: the nearest slot; several: their mean; of one time the last counts.
        check(&[(4, 1.0), (6, 2.0), (12, 4.0)], 0, "[1.0, 3.0]");
        check(&[(10, 1.0), (10, 5.0), (20, 2.0)], 1, "[5.0, 2.0]");
        // No number: as if it were not there.
        check(&[(0, f64::NAN), (10, 1.0), (20, f64::INFINITY)], 1, "[1.0]");
        // Before the epoch, and more than is kept.
        check(&[(-20, 1.0), (-10, 2.0)], -2, "[1.0, 2.0]");
        check(&[(0, 1.0), (10_000, 2.0)], 996, "[NaN, NaN, NaN, NaN, 2.0]");
    }

    #[test]
    fn a_long_horizon_is_forecast_in_cells() {
        let check = |steps: usize, ratio: usize| {
            assert_eq!(ratio_of(steps, &settings(300_000, 0)), ratio, "{steps} steps");
        };
        check(1, 1);
        check(96, 1);
        check(97, 2);
        check(288, 3);
        // 1000 / 96 = 10.4: the next that divides a day of 288 steps is 12.
        check(1000, 12);
        // None of 157 to 312 but 288 divides.
        check(15_000, 288);
    }

    #[test]
    fn cells_end_with_the_newest_slot() {
        let grid = Grid { first: 10, slots: vec![1.0, 2.0, 3.0, f64::NAN, 5.0, f64::NAN, f64::NAN] };
        let (first, cells) = grid.cells(3);
        assert_eq!((first, format!("{cells:?}")), (2, "[1.0, 2.5, 5.0]".to_owned()));
    }

    #[test]
    fn lines_are_drawn_from_middle_to_middle() {
        assert_eq!(drawn(0.0, &[3.0, 6.0], 3, 6), [2.0, 3.0, 4.0, 5.0, 6.0, 6.0]);
    }

    #[test]
    fn an_hourly_series_is_forecast_with_the_seasons_of_the_clock() {
        let all = wave(Millis::HOUR.0, 500 + 48);
        let forecast = forecast_series(&all[..500], &settings(Millis::HOUR.0, 48 * Millis::HOUR.0)).expect("numbers");
        assert_eq!((forecast.start, forecast.history, forecast.missing), (all[500].at, 500, 0));
        assert_eq!(forecast.seasons, [Millis::DAY, Millis(7 * Millis::DAY.0)]);
        assert_eq!(forecast.values.iter().map(Vec::len).collect::<Vec<_>>(), [48; 3]);
        let inside = (0..48).filter(|step| {
            let value = all[500 + step].value;
            forecast.values[0][*step] <= value && value <= forecast.values[2][*step]
        });
        assert!(inside.count() >= 40);
    }

    #[test]
    fn a_day_of_five_minutes_is_covered_step_by_step() {
        let step = 300_000;
        let all = wave(step, 2300);
        let mut history = all[..2012].to_vec();
        history.retain(|sample| sample.at.0 / step % 50 != 3);
        let forecast = forecast_series(&history, &settings(step, Millis::DAY.0)).expect("numbers");
        assert_eq!((forecast.values[1].len(), forecast.start), (288, all[2012].at));
        assert!(forecast.missing > 30);
        let steps = || all[2012..].iter().zip(&forecast.values[0]).zip(&forecast.values[2]);
        let inside = steps().filter(|((sample, low), high)| **low <= sample.value && sample.value <= **high).count();
        assert!(inside >= 245, "{inside} of 288");
        let width = steps().map(|((_, low), high)| high - low).sum::<f64>() / 288.0;
        assert!(width < 8.0, "the noise is 4 wide, the interval {width}");
    }

    #[test]
    fn a_season_that_no_clock_has_is_found_where_it_forecasts_better() {
        let check = |name: &str, value: &dyn Fn(i64) -> f64, seasons: &[i64]| {
            let samples: Vec<Sample> = wave(Millis::HOUR.0, 700)
                .into_iter()
                .enumerate()
                .map(|(i, noisy)| sample(noisy.at.0, value(i as i64) + (i * i * 7919 % 1009) as f64 / 504.0))
                .collect();
            let forecast = forecast_series(&samples, &settings(Millis::HOUR.0, 48 * Millis::HOUR.0)).expect("numbers");
            let hours: Vec<i64> = forecast.seasons.iter().map(|season| season.0 / Millis::HOUR.0).collect();
            assert_eq!(hours, seasons, "{name}");
        };
        check("a job every 37 hours", &|i| if i % 37 < 5 { 30.0 } else { 0.0 }, &[37]);
        check("a day", &|i| if i % 24 < 5 { 30.0 } else { 0.0 }, &[24, 168]);
        check("none", &|_| 0.0, &[24, 168]);
    }

    #[test]
    fn bounds_and_levels_hold() {
        let all = wave(Millis::HOUR.0, 400);
        let wanted = SeriesSettings {
            levels: vec![0.001, 0.2, 0.5, 0.8, 0.999],
            floor: Some(45.0),
            ceiling: Some(60.0),
            seasons: vec![Millis::DAY],
            ..settings(Millis::HOUR.0, 24 * Millis::HOUR.0)
        };
        let forecast = forecast_series(&all, &wanted).expect("numbers");
        assert_eq!(forecast.seasons, [Millis::DAY]);
        assert!(forecast.values.iter().flatten().all(|value| (45.0..=60.0).contains(value)));
        for pair in forecast.values.windows(2) {
            assert!(pair[0].iter().zip(&pair[1]).all(|(low, high)| low <= high));
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let check = |change: &dyn Fn(&mut SeriesSettings), words: &str| {
            let mut settings = settings(1000, 10_000);
            change(&mut settings);
            let refusal = forecast_series(&wave(1000, 50), &settings).expect_err(words);
            assert!(refusal.to_string().contains(words), "{refusal}");
        };
        check(&|s| s.step = Millis(0), "a step is longer than nothing");
        check(&|s| s.horizon = Millis(999), "1 to 100000 steps, not 0");
        check(&|s| s.horizon = Millis(i64::MAX), "1 to 100000 steps");
        check(&|s| s.levels = vec![0.5, 0.1], "ascending");
        check(&|s| s.levels = vec![1.0], "between 0 and 1");
        check(&|s| s.levels = vec![f64::NAN], "between 0 and 1");
        check(&|s| s.seasons = vec![Millis(-5)], "a season is longer than nothing");
        check(&|s| s.seasons = vec![Millis(2000), Millis(3000), Millis(4000)], "at most two seasons");
        check(&|s| s.model = ModelChoice::Lstm, "trained beforehand");
        check(&|s| s.floor = Some(f64::NAN), "a bound is a number");
        assert_eq!(forecast_series(&[], &settings(1000, 5000)), Err(Refusal::NoNumber(0)));
        assert_eq!(forecast_series(&[sample(0, f64::NAN)], &settings(1000, 5000)), Err(Refusal::NoNumber(1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn any_samples_give_finite_quantiles_in_order_or_a_refusal(
            samples in proptest::collection::vec(
                (prop_oneof![9 => 0..2_000_000_i64, 1 => any::<i64>()], prop_oneof![9 => -1e6..1e6, 1 => any::<f64>()]),
                0..300,
            ),
            step in prop_oneof![Just(1000_i64), Just(15_000), Just(7)],
            steps in 1..300_i64,
            season in proptest::option::of(1..100_000_i64),
        ) {
            let samples: Vec<Sample> = samples.into_iter().map(|(at, value)| sample(at, value)).collect();
            let settings = SeriesSettings { seasons: season.map(Millis).into_iter().collect(), ..settings(step, step * steps) };
            if let Ok(forecast) = forecast_series(&samples, &settings) {
                prop_assert!(forecast.values.iter().flatten().all(|value| value.is_finite()));
                for pair in forecast.values.windows(2) {
                    prop_assert!(pair[0].iter().zip(&pair[1]).all(|(low, high)| low <= high));
                }
            }
        }
    }
}
