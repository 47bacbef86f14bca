//! What the signal did one season ago: coarse cells over a week, so that short horizons know the daily curve too.

use super::cells::Ring;
use super::drift::{Line, Reach};

/// Yesterday must have risen by this part of today's rise to explain it.
const EXPLAINS_MIN: f64 = 0.5;

/// Cells of a ninety-sixth of a season, a little more than a week of days.
#[derive(Debug)]
pub(super) struct Season {
    pub(super) ring: Ring,
    /// How many drift cells make one of these.
    ratio: f64,
}

impl Season {
    pub(super) fn new(capacity: usize, ratio: f64) -> Season {
        Season { ring: Ring::new(capacity), ratio }
    }

    /// The value at the middle of a drift cell (or between two), where it is known.
    pub(super) fn at(&self, cell: f64) -> Option<f64> {
        self.ring.between((cell + 0.5) / self.ratio)
    }

    /// The highest value between two drift cells.
    fn highest(&self, from: f64, to: f64) -> Option<f64> {
        let mut highest = self.at(from)?;
        let mut cell = from;
        while cell < to {
            cell = (cell + self.ratio).min(to);
            highest = highest.max(self.at(cell).unwrap_or(highest));
        }
        Some(highest)
    }

    /// Whether yesterday rose likewise and then stayed under the threshold: then so will today.
    ///
    /// A ramp that never happened before is untouched, since yesterday did not rise: this is a veto on explained
    /// rises, not a condition on all.
    pub(super) fn explains(&self, line: &Line, newest: i64, now: f64, reach: Reach) -> bool {
        let length = reach.season;
        // Rises are compared over no less than one coarse cell.
        let window = (line.window as f64).max(self.ratio);
        if window > length {
            return false;
        }
        let today = newest as f64;
        let rise_today = line.rise * window / line.window as f64;
        let (Some(then), Some(before)) = (self.at(today - length), self.at(today - length - window)) else {
            return false;
        };
        let rise_then = then - before;
        if rise_today <= 0.0 || rise_then <= EXPLAINS_MIN * rise_today {
            return false;
        }
        let Some(highest) = self.highest(today - length, today - length + reach.horizon.min(length)) else {
            return false;
        };
        let growth = (rise_today / rise_then).clamp(1.0, 1.5);
        now + growth * (highest - then).max(0.0) + 0.5 * line.residual < 1.0
    }
}
