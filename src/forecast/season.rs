//! What the signal did one season ago: coarse cells over a week, so that short horizons know the daily curve too.

use serde::{Deserialize, Serialize};

use super::cells::{Ring, whole};
use super::drift::{Line, Reach};

/// Yesterday must have risen by this part of today's rise to explain it.
const EXPLAINS_MIN: f64 = 0.5;

/// Rises over at least this part of a season may be the season's.
const SEASONAL_SHARE: f64 = 1.0 / 12.0;
/// Today is compared with yesterday over this part of a season.
const COMPARED_SHARE: f64 = 0.25;
/// How far ahead the comparison holds, in lengths of what was compared: as far as any window may look.
const OUTLOOK_REACH: f64 = 1.5;
/// Today must follow yesterday this closely, as a part of yesterday's rise, to be foretold by it.
const MISFIT_MAX: f64 = 0.1;
/// So much of yesterday's rise must have come today too: one curve that was seen once is no season.
const RISEN_MIN: f64 = 0.3;
/// A day more than this many times as high as the one before is another kind of day.
const GROWTH_MAX: f64 = 1.3;
/// A rise must be worth the name.
const RISE_MIN: f64 = 0.05;
/// Days differ by this much at least, relative to their height.
const RATIO_DEVIATION_MIN: f64 = 0.012;

/// What yesterday's rest says of today's, grown as today has grown over yesterday so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Outlook {
    /// The highest value to come, and how uncertain it is.
    pub(super) height: f64,
    pub(super) deviation: f64,
    /// Drift cells until it, 0 where it is over, and until 1 is crossed; the same where it is not.
    pub(super) due: f64,
    pub(super) crossing: f64,
    /// Yesterday's.
    pub(super) last: f64,
}

/// Cells of a ninety-sixth of a season, a little more than a week of days.
#[derive(Debug, Serialize, Deserialize)]
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

    /// Whether a rise over so many drift cells may be the season's own, of which too little has been seen to tell: it takes
    /// hours, and there is no yesterday yet.
    pub(super) fn is_unknown(&self, window: f64, newest: i64, reach: Reach) -> bool {
        let may_be_its_own = window >= SEASONAL_SHARE * reach.season && window < reach.season;
        may_be_its_own && self.at(newest as f64 - reach.season).is_none()
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

    /// How high today goes, if it goes on being to yesterday what it has been for the last quarter of a season.
    ///
    /// Only where today follows yesterday closely and yesterday still rose from this hour on. The ratio of both days is that
    /// of least squares through 0; its uncertainty is how much it moved from the older half of what was compared to the
    /// newer one, and never less than days differ anyway.
    pub(super) fn outlook(&self, newest: i64, reach: Reach) -> Option<Outlook> {
        let today = newest as f64;
        let count = whole((COMPARED_SHARE * reach.season / self.ratio).round()).max(4);
        let pairs: Vec<(f64, f64)> = (0..count)
            .map(|back| {
                let at = today - back as f64 * self.ratio;
                Some((self.at(at - reach.season)?, self.at(at)?))
            })
            .collect::<Option<_>>()?;
        let ratio = ratio_of(&pairs)?;
        let newer = ratio_of(&pairs[..count / 2])?;
        let squares: f64 = pairs.iter().map(|(then, now)| (now - ratio * then).powi(2)).sum();
        let misfit = (squares / count as f64).sqrt();
        let ahead = reach.horizon.min(OUTLOOK_REACH * COMPARED_SHARE * reach.season);
        let (mut last, mut due) = (pairs[0].0, 0.0);
        let mut crossing = None;
        let mut cells = 0.0;
        while cells < ahead {
            cells += self.ratio;
            let then = self.at(today - reach.season + cells)?;
            if then > last {
                (last, due) = (then, cells);
            }
            if newer * then >= 1.0 {
                crossing = crossing.or(Some(cells));
            }
        }
        let whole_rise = last - lowest(&pairs);
        let is_season = whole_rise >= RISE_MIN
            && (1.0 / GROWTH_MAX..=GROWTH_MAX).contains(&newer)
            && last - pairs[0].0 <= (1.0 - RISEN_MIN) * whole_rise
            && misfit <= MISFIT_MAX * whole_rise;
        if due >= ahead || !is_season {
            return None;
        }
        let deviation = last * (newer - ratio).abs().max(RATIO_DEVIATION_MIN) + misfit;
        // Noise crosses first.
        Some(Outlook { height: newer * last + 0.5 * misfit, deviation, due, crossing: crossing.unwrap_or(due), last })
    }
}

/// The factor from then to now, by least squares through 0; absent where then was nothing.
fn ratio_of(pairs: &[(f64, f64)]) -> Option<f64> {
    let product: f64 = pairs.iter().map(|(then, now)| then * now).sum();
    let squares: f64 = pairs.iter().map(|(then, _)| then * then).sum();
    (squares > 1e-6 * pairs.len() as f64).then(|| product / squares)
}

fn lowest(pairs: &[(f64, f64)]) -> f64 {
    pairs.iter().map(|(then, _)| *then).fold(f64::INFINITY, f64::min)
}
