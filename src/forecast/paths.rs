//! Future paths of one signal, in its own unit: what the forecast bank expects, how far it was wrong before, and when each
//! path that came of that would cross the threshold.
//!
//! The bank works on steps of about a forty-eighth of the horizon; it is fitted once there are a few of them, and from
//! then on takes each step as it comes. Fits cost milliseconds, so they happen only where [`Paths::refit`] is called.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::bank::{Bank, BankSettings, seasons};
use super::cells::{CellMaker, whole};
use super::lstm::Lesson;
use super::models::Model;
use super::orientation::Orientation;
use super::{Band, BankSize, WatchSettings};
use crate::model::{Millis, Timestamp};

/// Steps to the horizon: the grid is chosen between these.
const STEPS_MIN: i64 = 48;
const STEPS_MAX: i64 = 96;
/// A season of more steps than this is a second season at most: the hour comes first then.
const FIRST_SEASON_MAX: usize = 288;
/// A season of more steps than this is left out.
const SEASON_STEPS_MAX: usize = 2048;
/// Steps from which on a bank is fitted.
const FIRST_FIT: usize = 8;
/// Steps kept while there is no bank, at most; beyond it the oldest quarter goes.
const YOUNG_MAX: usize = 8192;
/// Expectations are kept for judging this many times a horizon.
const EXPECTATIONS_PER_HORIZON: usize = 8;
/// Half of a normal 95 % interval, in standard deviations.
const SIGMAS_OF_95: f64 = 1.96;
/// The quantile levels of the fan.
pub(super) const LEVELS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];

/// What was expected for the last steps of a horizon before they came.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Expectation {
    /// The newest step that was known then.
    at: i64,
    /// The 95 % intervals of the last steps of the horizon: an eighth of it and one more.
    intervals: Vec<(f32, f32)>,
}

/// Whether there is a model that the user named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Yes,
    No,
}

/// What the paths say of the future.
#[derive(Debug, Clone)]
pub(super) struct Fan {
    /// `values[level][step]`, in the signal's unit.
    pub(super) values: Vec<Vec<f64>>,
    /// The step at which each path first crosses the threshold for long enough; absent where it does not.
    pub(super) passages: Vec<Option<usize>>,
    /// The worst value of each path, oriented.
    pub(super) peaks: Vec<f64>,
    /// The members behind the median with their weights, heaviest first.
    pub(super) members: Vec<(String, f64)>,
    /// The newest values do not fit what was foreseen, or the history is young.
    pub(super) is_unsettled: bool,
}

/// History and bank of one signal, on a grid of 48 to 96 steps a horizon.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Paths {
    /// The length of a step.
    pub(super) step: Millis,
    /// Steps to the horizon.
    pub(super) steps: usize,
    seasons: Vec<usize>,
    maker: CellMaker,
    /// The newest step's index, counted from the epoch; meaningless before there is one.
    newest: Option<i64>,
    /// Its value; none where it is missing.
    newest_value: Option<f64>,
    /// What was seen before there was a bank; missing steps are NaN.
    young: Vec<f32>,
    bank: Option<Bank>,
    expectations: VecDeque<Expectation>,
}

/// The longest step that holds whole intervals, fits 48 to 96 times into the horizon, and divides the seasons.
fn step_of(horizon: Millis, interval: Millis, seasons: &[Millis]) -> Millis {
    let (shortest, longest) = (horizon.0 / STEPS_MAX, horizon.0 / STEPS_MIN);
    let candidates = (shortest / interval.0).max(1)..=(longest / interval.0).max(1);
    let divides = |step: i64| seasons.iter().all(|season| season.0 % step == 0);
    // A horizon of thousands of intervals has thousands of candidates: the longest few hundred are enough.
    let mut steps = candidates.rev().take(512).map(|count| count * interval.0);
    let fallback = (longest / interval.0).max(1) * interval.0;
    Millis(steps.find(|step| divides(*step)).unwrap_or(fallback))
}

/// The seasons in steps, ascending: the declared ones, else a day and a week, or an hour and a day where steps are short.
fn seasons_of(step: Millis, declared: &[Millis]) -> Vec<usize> {
    let in_steps = |season: &Millis| {
        let length = season.0 as f64 / step.0 as f64;
        ((length - length.round()).abs() < 0.02).then(|| whole(length))
    };
    let day = in_steps(&Millis::DAY).unwrap_or(usize::MAX);
    let wanted: Vec<Millis> = match declared {
        [] if day <= FIRST_SEASON_MAX => vec![Millis::DAY, Millis::DAY * 7],
        [] => vec![Millis::HOUR, Millis::DAY],
        declared => declared.to_vec(),
    };
    let mut seasons: Vec<usize> = wanted.iter().filter_map(in_steps).collect();
    seasons.retain(|season| (2..=SEASON_STEPS_MAX).contains(season));
    seasons.sort_unstable();
    seasons.dedup();
    seasons.truncate(2);
    seasons
}

impl Paths {
    pub(super) fn new(settings: &WatchSettings) -> Paths {
        let interval = Millis(settings.interval.0.max(1));
        let horizon = Millis(settings.horizon.0.max(interval.0 * 4));
        let day_and_hour = [Millis::DAY, Millis::HOUR];
        let wanted = if settings.seasons.is_empty() { &day_and_hour[..] } else { &settings.seasons };
        let mut step = step_of(horizon, interval, wanted);
        if horizon >= Millis::HOUR * 48 && settings.seasons.is_empty() {
            step = step_of(horizon, interval, &day_and_hour[..1]);
        }
        Paths {
            step,
            steps: whole((horizon.0 as f64 / step.0 as f64).ceil()).max(4),
            seasons: seasons_of(step, &settings.seasons),
            maker: CellMaker::new(step, interval),
            newest: None,
            newest_value: None,
            young: Vec::new(),
            bank: None,
            expectations: VecDeque::new(),
        }
    }

    /// The newest step's index.
    pub(super) fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// What was learned of level and trend no longer holds; seasons do.
    pub(super) fn start_regime(&mut self) {
        self.expectations.clear();
        if let Some(bank) = &mut self.bank {
            bank.start_regime();
        }
    }

    /// Takes the value of one interval. True where it finished a step.
    pub(super) fn push(&mut self, at: Timestamp, value: Option<f64>) -> bool {
        let cells = self.maker.push(at, value);
        for cell in &cells {
            let value = (!cell.missing).then_some(cell.mean);
            let hole = self.newest.map_or(0, |newest| (cell.index - newest - 1).max(0));
            if usize::try_from(hole).is_ok_and(|hole| hole > self.history_max()) {
                self.forget();
            } else {
                (0..hole).for_each(|_| self.take(None));
            }
            self.newest = Some(cell.index);
            self.newest_value = value;
            self.take(value);
            self.expect();
        }
        !cells.is_empty()
    }

    fn history_max(&self) -> usize {
        self.seasons.last().map_or(8 * self.steps, |season| 2 * season)
    }

    fn forget(&mut self) {
        self.young.clear();
        self.bank = None;
        self.expectations.clear();
    }

    #[expect(clippy::cast_possible_truncation, reason = "values are clamped to what f32 holds before they come here")]
    fn take(&mut self, value: Option<f64>) {
        match &mut self.bank {
            Some(bank) => bank.push(value),
            None if value.is_none() && self.young.is_empty() => {}
            None => {
                if self.young.len() >= YOUNG_MAX {
                    self.young.drain(..YOUNG_MAX / 4);
                }
                self.young.push(value.map_or(f32::NAN, |value| value as f32));
            }
        }
    }

    /// Notes now and then what is expected a horizon from now.
    #[expect(clippy::cast_possible_truncation, reason = "forecasts stay near the history, which fits f32")]
    fn expect(&mut self) {
        let (Some(newest), Some(bank)) = (self.newest, &mut self.bank) else { return };
        let apart = i64::try_from((self.steps / EXPECTATIONS_PER_HORIZON).max(1)).unwrap_or(1);
        let steps = i64::try_from(self.steps).unwrap_or(i64::MAX);
        while self.expectations.front().is_some_and(|old| newest - old.at > steps) {
            self.expectations.pop_front();
        }
        if newest.rem_euclid(apart) != 0 {
            return;
        }
        let forecast = bank.forecast();
        let (low, high) = (forecast.quantile(0.025), forecast.quantile(0.975));
        let last = self.steps - (self.steps / EXPECTATIONS_PER_HORIZON + 1).min(self.steps);
        let intervals = low.iter().zip(&high).skip(last).map(|(low, high)| (*low as f32, *high as f32));
        self.expectations.push_back(Expectation { at: newest, intervals: intervals.collect() });
    }

    /// Whether a fit is due: the first one, or because what was learned no longer fits. `named`: whether there is a model
    /// that was named; a bank that was fitted before it was there is fitted anew.
    pub(super) fn wants_refit(&self, named: Named) -> bool {
        match &self.bank {
            Some(bank) => bank.needs_refit() || (named == Named::Yes && !bank.is_named()),
            None => self.young.len() >= FIRST_FIT,
        }
    }

    /// Fits the bank, or the one model that was named. Costs milliseconds.
    pub(super) fn refit(&mut self, settings: &WatchSettings, model: Option<Box<dyn Model>>, size: BankSize) {
        let history = match &mut self.bank {
            Some(bank)
                if model.is_some() == bank.is_named() && !(self.seasons.is_empty() && bank.seasons().is_empty()) =>
            {
                bank.refit();
                return;
            }
            Some(bank) => bank.values(),
            None => self.young.iter().map(|value| f64::from(*value)).collect(),
        };
        let Some(newest) = self.newest else { return };
        let first = newest + 1 - i64::try_from(history.len()).unwrap_or(0);
        // Where steps are so short that no season of the clock fits, the values may show one.
        let found = self.seasons.is_empty().then(|| seasons::of_values(&history)).flatten();
        let of = |model| BankSettings {
            steps: self.steps,
            seasons: if let Some(found) = found { vec![found] } else { self.seasons.clone() },
            size,
            model,
            floor: settings.floor,
            ceiling: settings.ceiling,
        };
        // A model that needs more history than there is leaves the forecast to the bank until it has it.
        let fitted = Bank::fit(of(model), first, &history).or_else(|_| Bank::fit(of(None), first, &history));
        if let Ok(bank) = fitted {
            self.bank = Some(bank);
            self.young = Vec::new();
        }
    }

    /// Gives a bank that was read from a snapshot its model back.
    pub(super) fn name_model(&mut self, model: Option<Box<dyn Model>>) {
        if let (Some(bank), Some(model)) = (&mut self.bank, model) {
            bank.name_model(model);
        }
    }

    /// The history, regular and without holes, with its seasons: what a network learns from. Absent before the first fit.
    pub(super) fn lesson(&self) -> Option<Lesson> {
        let bank = self.bank.as_ref()?;
        Lesson::new(bank.values(), self.seasons.clone(), self.steps)
    }

    /// Whether the forecasts are those of the model that the user named.
    pub(super) fn is_named(&self) -> bool {
        self.bank.as_ref().is_some_and(Bank::is_named)
    }

    /// The future as it looks now. `lasting`: steps beyond the threshold that make a breach. `exceptions`: by how much a
    /// calendar moves each step from what the season says; empty where it knows of none.
    pub(super) fn fan(&mut self, orientation: &Orientation, lasting: usize, exceptions: &[f64]) -> Option<Fan> {
        let bank = self.bank.as_mut()?;
        let forecast = bank.forecast();
        let moved = |path: Vec<f64>| {
            let by = exceptions.iter().copied().chain(std::iter::repeat(0.0));
            path.into_iter().zip(by).map(|(value, by)| value + by).collect::<Vec<f64>>()
        };
        let values = LEVELS.map(|level| moved(forecast.one_sided(level))).to_vec();
        let futures: Vec<Vec<f64>> = bank
            .futures(&forecast)
            .into_iter()
            .map(|future| moved(future).into_iter().map(|value| orientation.orient(value)).collect())
            .collect();
        Some(Fan {
            values,
            passages: futures.iter().map(|future| first_passage(future, lasting)).collect(),
            peaks: futures.iter().map(|future| future.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect(),
            members: bank.members(),
            is_unsettled: bank.is_unsettled(),
        })
    }

    /// Whether the newest step lies outside the 95 % interval that was forecast for it a horizon ago, or outside a band
    /// around its middle.
    pub(super) fn is_outside(&self, band: Option<Band>) -> Option<bool> {
        let value = self.newest_value?;
        let oldest = self.expectations.front()?;
        let lead = usize::try_from(self.newest? - oldest.at).ok()?;
        // Expectations are an eighth of a horizon apart: the oldest is between seven eighths of a horizon and a whole one old.
        let before_end = self.steps.checked_sub(lead)?;
        let place = oldest.intervals.len().checked_sub(before_end + 1)?;
        let (low, high) = oldest.intervals.get(place).copied()?;
        let (low, high) = (f64::from(low), f64::from(high));
        let half = (high - low) / 2.0;
        let allowed = band.map_or(half, |band| (band.deviation * half / SIGMAS_OF_95).max(band.min_abs));
        Some((value - (low + half)).abs() > allowed)
    }
}

/// The first step at which a path is beyond 1 and stays there for `lasting` steps (or to its end).
fn first_passage(path: &[f64], lasting: usize) -> Option<usize> {
    (0..path.len()).find(|&from| path[from..path.len().min(from + lasting)].iter().all(|value| *value >= 1.0))
}

/// A quantile of sorted values, in proportion between neighbours (type 7 of Hyndman and Fan 1996).
pub(super) fn quantile(sorted: &[f64], level: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = level * last as f64;
    let before = whole(position.floor()).min(last);
    let after = (before + 1).min(last);
    sorted[before] + (position - before as f64) * (sorted[after] - sorted[before])
}

/// The standard normal quantile, to 4.5e-4 (Abramowitz and Stegun 1964, formula 26.2.23).
pub(super) fn normal_quantile(share: f64) -> f64 {
    let tail = share.min(1.0 - share).max(1e-12);
    let t = (-2.0 * tail.ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = t - above / below;
    if share < 0.5 { -z } else { z }
}
