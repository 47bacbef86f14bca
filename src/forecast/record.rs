//! The record channel: higher than ever in a fortnight, and not far from the threshold.
//!
//! On telemetry whose breaches are single spikes no trend announces them; that the signal has just been higher than in all
//! the days before is the best warning there is (realised precision about a fifth). Everywhere else it is wrong five times in
//! six, so its prior probability is low, and it warns only in rules where its own claims have come true, or for whoever asks
//! for alarms at low probabilities.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::cells::Cell;
use super::drift::Reach;

/// A record below this part of the way to the threshold is no news.
const LEVEL_MIN: f64 = 0.6;
/// The highest values of so many parts of a fortnight are kept.
const PARTS: i64 = 56;
/// A fortnight, in seasons of a day.
const SPAN_SEASONS: f64 = 14.0;
/// So many horizons, and a season, must have been seen: the first hour's record is none.
const HORIZONS_MIN: f64 = 3.0;
/// It claims for so many cells, a twenty-fourth of a horizon and long enough for an alarm to hold, ...
const CLAIMS_CELLS: i64 = 4;
/// ... and then not again for this part of a horizon.
const QUIET_SHARE: f64 = 0.5;

/// The highest values of the last fortnight.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Cells in a part.
    part: i64,
    /// Part and its highest value, at most [`PARTS`] and the newest.
    highest: VecDeque<(i64, f32)>,
    first: Option<i64>,
    /// The cell of the last claim, and its height.
    claimed: Option<(i64, f64)>,
}

impl Record {
    pub(super) fn new(reach: Reach) -> Record {
        let part = super::cells::whole((SPAN_SEASONS * reach.season / PARTS as f64).ceil()).max(1);
        let part = i64::try_from(part).unwrap_or(i64::MAX);
        Record { part, highest: VecDeque::new(), first: None, claimed: None }
    }

    /// Takes a cell that is not missing.
    #[expect(clippy::cast_possible_truncation, reason = "oriented values fit f32")]
    pub(super) fn observe(&mut self, cell: Cell, reach: Reach) {
        let first = *self.first.get_or_insert(cell.index);
        let seen = cell.index.saturating_sub(first) as f64;
        let part = cell.index.div_euclid(self.part);
        while self.highest.front().is_some_and(|(oldest, _)| part.saturating_sub(*oldest) > PARTS) {
            self.highest.pop_front();
        }
        let top = self.highest.iter().map(|(_, value)| f64::from(*value)).fold(f64::NEG_INFINITY, f64::max);
        let is_quiet = self.claimed.is_some_and(|(at, _)| (cell.index - at) as f64 <= QUIET_SHARE * reach.horizon);
        let is_news = (LEVEL_MIN..1.0).contains(&cell.max) && cell.max > top;
        if is_news && !is_quiet && seen >= (HORIZONS_MIN * reach.horizon).max(reach.season) {
            self.claimed = Some((cell.index, cell.max));
        }
        match self.highest.back_mut().filter(|(newest, _)| *newest == part) {
            Some((_, value)) => *value = value.max(cell.max as f32),
            None => self.highest.push_back((part, cell.max as f32)),
        }
    }

    /// How high the record was that is claimed now; 0 where none is.
    pub(super) fn score(&self, now: i64) -> f64 {
        self.claimed.filter(|(at, _)| now.saturating_sub(*at) < CLAIMS_CELLS).map_or(0.0, |(_, height)| height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A season of 8 cells and a horizon of 8: what is claimed after the values, one a cell.
    fn check(values: &[f64], claimed: f64) {
        let reach = Reach { horizon: 8.0, actuation: 0.0, season: 8.0 };
        let mut record = Record::new(reach);
        for (value, index) in values.iter().zip(0i64..) {
            record.observe(Cell { index, mean: *value, max: *value, missing: false }, reach);
        }
        let score = record.score(i64::try_from(values.len()).expect("few") - 1);
        assert!((score - claimed).abs() < 1e-9, "{values:?}: {score}");
    }

    #[test]
    fn claims_a_record_near_the_threshold_once_it_knows_what_is_usual() {
        let calm = [0.4; 30];
        check(&[&calm[..], &[0.8]].concat(), 0.8);
        check(&[&calm[..10], &[0.8]].concat(), 0.0);
        check(&[&calm[..], &[0.5]].concat(), 0.0);
        check(&[&calm[..], &[1.2]].concat(), 0.0);
    }

    #[test]
    fn is_quiet_for_half_a_horizon_and_forgets_after_a_fortnight() {
        let calm = [0.4; 200];
        check(&[&calm[..30], &[0.8, 0.4, 0.4, 0.4, 0.85]].concat(), 0.0);
        check(&[&calm[..30], &[0.8], &calm[..8], &[0.85]].concat(), 0.85);
        check(&[&calm[..30], &[0.9], &calm[..60], &[0.8]].concat(), 0.0);
        check(&[&calm[..30], &[0.9], &calm[..130], &[0.8]].concat(), 0.8);
    }
}
