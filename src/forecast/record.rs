//! The record channel: higher than in all of a fortnight, near the threshold or for a moment beyond it.
//!
//! On telemetry whose breaches are single spikes no trend announces them; that the signal has just been higher than in all
//! the days before is the best warning there is (realised precision about a quarter). A record may lie beyond the threshold:
//! one that came back at once was no incident yet, and tells of one as those just below the line do. Everywhere else a record
//! is wrong five times in six, so its prior probability is low, and it warns only in rules where its own claims have come
//! true, or for whoever asks for alarms at low probabilities.

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
/// ... and then not again for this part of a horizon: it is the same claim.
const QUIET_SHARE: f64 = 1.0;
/// What stays beyond the threshold for more cells than this is an incident, and its height foretells none.
const BRIEF_CELLS: u32 = 2;

/// The highest values of the last fortnight.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Cells in a part.
    part: i64,
    /// Part and its highest value, at most [`PARTS`] and the newest.
    highest: VecDeque<(i64, f32)>,
    first: Option<i64>,
    /// For how many cells it has been beyond the threshold, and how high the record was that it set there.
    beyond: u32,
    record_beyond: Option<f64>,
    /// The cell of the last claim, and its height.
    claimed: Option<(i64, f64)>,
}

impl Record {
    pub(super) fn new(reach: Reach) -> Record {
        let part = super::cells::whole((SPAN_SEASONS * reach.season / PARTS as f64).ceil()).max(1);
        let part = i64::try_from(part).unwrap_or(i64::MAX);
        Record { part, highest: VecDeque::new(), first: None, beyond: 0, record_beyond: None, claimed: None }
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
        let is_usual_known = seen >= (HORIZONS_MIN * reach.horizon).max(reach.season);
        let record = (cell.max >= LEVEL_MIN && cell.max > top && is_usual_known).then_some(cell.max);
        if let Some(height) = self.came_back(cell.max, record).filter(|_| !is_quiet) {
            self.claimed = Some((cell.index, height));
        }
        match self.highest.back_mut().filter(|(newest, _)| *newest == part) {
            Some((_, value)) => *value = value.max(cell.max as f32),
            None => self.highest.push_back((part, cell.max as f32)),
        }
    }

    /// The record that a cell sets below the threshold, or that was set beyond it by what has come back with this cell.
    fn came_back(&mut self, max: f64, record: Option<f64>) -> Option<f64> {
        if max >= 1.0 {
            self.beyond = self.beyond.saturating_add(1);
            self.record_beyond = record.or(self.record_beyond);
            return None;
        }
        let cells = std::mem::take(&mut self.beyond);
        let beyond = self.record_beyond.take().filter(|_| cells <= BRIEF_CELLS);
        if cells > 0 { beyond } else { record }
    }

    /// How high the record was that is claimed now, 1 being the threshold; 0 where none is.
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
    }

    #[test]
    fn claims_what_was_beyond_the_threshold_for_a_moment_once_it_has_come_back() {
        let calm = [0.4; 30];
        check(&[&calm[..], &[1.2]].concat(), 0.0);
        check(&[&calm[..], &[1.2, 0.5]].concat(), 1.2);
        check(&[&calm[..], &[1.2, 1.3, 0.5]].concat(), 1.3);
        check(&[&calm[..], &[1.2, 1.3, 1.1, 0.5]].concat(), 0.0);
        check(&[&calm[..10], &[1.2, 0.5]].concat(), 0.0);
        check(&[&calm[..], &[1.2, 0.5], &calm[..20], &[1.1, 0.5]].concat(), 0.0);
    }

    #[test]
    fn is_quiet_for_a_horizon_and_forgets_after_a_fortnight() {
        let calm = [0.4; 200];
        check(&[&calm[..30], &[0.8, 0.4, 0.4, 0.4, 0.85]].concat(), 0.0);
        check(&[&calm[..30], &[0.8], &calm[..7], &[0.85]].concat(), 0.0);
        check(&[&calm[..30], &[0.8], &calm[..8], &[0.85]].concat(), 0.85);
        check(&[&calm[..30], &[0.9], &calm[..60], &[0.8]].concat(), 0.0);
        check(&[&calm[..30], &[0.9], &calm[..130], &[0.8]].concat(), 0.8);
    }
}
