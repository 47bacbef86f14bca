//! Finds the moment from which a series lives on another level, so that its history can be moved to it.
//!
//! Members and weights need two horizons to follow a shift. Moving the history follows it at once, and is harmless only when it is certain:
//! the newest forecasts must have missed in one direction, far beyond what is usual, and all by nearly the same amount. Where we are told of
//! a restart, less proof is needed.

use serde::{Deserialize, Serialize};

use super::history::History;
use super::record::Record;
use crate::forecast::cycles::median;

/// A miss beyond this many typical errors may belong to a shift.
const MISS: f64 = 3.0;
/// A shift is at least this many typical errors.
const SHIFT: f64 = 6.0;
/// The misses differ from each other by less than this part of the shift.
const SPREAD: f64 = 0.25;

/// The part of a history that may be moved below what can be.
const BELOW_MAX: f64 = 0.02;
/// A shift lasts for at least this part of a horizon before it is believed.
const RUN: usize = 6;
/// Shifts that earlier forecasts met by themselves are below this part of it.
const PRECEDENT: f64 = 0.33;

/// Every value before index `on` lies `by` away from where it would lie now, on the plain scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Shift {
    pub(super) on: i64,
    pub(super) by: f64,
}

/// Whether hardly any value before `on` would be moved below the lowest that can be: what is more than a shift is not undone by one.
fn keeps_above(history: &History, on: i64, by: f64, lowest: f64) -> bool {
    let before = &history.plain[..history.position(on).unwrap_or(0)];
    let below = before.iter().filter(|value| f64::from(**value) + by < lowest).count();
    below as f64 <= BELOW_MAX * before.len() as f64
}

/// The largest median miss over any `run` steps that a forecast had which had ended before `on`.
fn usual_shift(history: &History, record: &Record, on: i64, run: usize) -> f64 {
    let ended = record.all_errors(history, |_| 1.0);
    let ended = ended.iter().filter(|origin| origin.at + i64::try_from(origin.errors.len()).unwrap_or(0) <= on);
    let windows = ended.flat_map(|origin| origin.errors.chunks_exact(run));
    windows.fold(0.0, |largest, errors| {
        let mut known: Vec<f64> =
            errors.iter().filter(|error| !error.is_nan()).map(|error| f64::from(*error)).collect();
        largest.max(median(&mut known).abs())
    })
}

/// What is known of the present level.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Regime {
    /// The first index of a regime that we were told of, until its level is known.
    told: Option<i64>,
    /// Whether its first value was taken as its level already.
    taken: bool,
    shift: Option<Shift>,
    unsettled_until: Option<i64>,
}

/// The misses of the newest forecast made at `on` or before it, from `on` on.
fn misses(history: &History, record: &Record, on: i64) -> Vec<f64> {
    let Some(origin) = record.before(on) else { return Vec::new() };
    let miss = |(step, path): (usize, &f32)| {
        let index = origin.at + i64::try_from(step).unwrap_or(0);
        let position = history.position(index).filter(|position| index >= on && !history.is_filled(*position));
        position.map(|position| f64::from(history.plain[position] - path))
    };
    origin.path.iter().enumerate().filter_map(miss).collect()
}

impl Regime {
    /// The next value begins a new regime.
    pub(super) fn start(&mut self, next: i64, patience: i64) {
        self.told = Some(next);
        self.taken = false;
        self.unsettled_until = Some(next + patience);
    }

    /// Looks at the newest value; `typical` is the 75 % quantile of errors, on the plain scale.
    pub(super) fn watch(&mut self, history: &History, record: &Record, typical: f64, steps: usize, lowest: f64) {
        self.shift = None;
        let newest = history.next() - 1;
        if history.position(newest).is_none_or(|position| history.is_filled(position)) {
            return;
        }
        if let Some(on) = self.told {
            self.watch_told(history, record, on, (steps / 8).max(2));
            return;
        }
        self.shift = onset(history, record, MISS * typical, steps).and_then(|(on, run)| {
            if run < (steps / RUN).max(2) || run > steps {
                return None;
            }
            let mut misses = misses(history, record, on);
            let by = median(&mut misses);
            let mut spreads: Vec<f64> = misses.iter().map(|miss| (miss - by).abs()).collect();
            let is_clear = by.abs() > SHIFT * typical
                && median(&mut spreads) < SPREAD * by.abs()
                && keeps_above(history, on, by, lowest)
                && usual_shift(history, record, on, run) < PRECEDENT * by.abs();
            is_clear.then_some(Shift { on, by })
        });
    }

    /// The first value of a told regime is its level for now; its first `enough` values settle it.
    fn watch_told(&mut self, history: &History, record: &Record, on: i64, enough: usize) {
        let mut misses = misses(history, record, on);
        let is_settled = misses.len() >= enough;
        if misses.is_empty() || self.taken && !is_settled {
            return;
        }
        self.taken = true;
        self.shift = Some(Shift { on, by: median(&mut misses) });
        if is_settled {
            self.told = None;
        }
    }

    /// The history was fitted anew.
    pub(super) fn was_mended(&mut self, next: i64, patience: i64) {
        if self.shift.take().is_some() {
            self.unsettled_until = Some(next + patience);
        }
    }

    pub(super) fn shift(&self) -> Option<Shift> {
        self.shift
    }

    pub(super) fn is_unsettled(&self, next: i64) -> bool {
        self.shift.is_some() || self.unsettled_until.is_some_and(|until| next < until)
    }
}

/// The first index and the length of the newest run of misses beyond `far` in one direction.
fn onset(history: &History, record: &Record, far: f64, steps: usize) -> Option<(i64, usize)> {
    let newest = history.next() - 1;
    let miss = |index: i64| {
        let position = history.position(index).filter(|position| !history.is_filled(*position))?;
        record.foreseen(index).map(|(path, _)| f64::from(history.plain[position] - path))
    };
    let sign = miss(newest).filter(|miss| miss.abs() > far)?.signum();
    let mut on = newest;
    let mut run = 1;
    while run <= steps && miss(on - 1).is_some_and(|miss| miss * sign > far) {
        on -= 1;
        run += 1;
    }
    Some((on, run))
}
