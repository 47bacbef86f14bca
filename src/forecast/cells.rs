//! Time cut into cells: means and maxima of what was pushed, with what is missing marked as such.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::{Millis, Timestamp};

/// A cell with less than this share of its values counts as missing.
const SHARE_MIN: f64 = 0.8;

/// One finished cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Cell {
    /// Counted from the epoch in cells.
    pub(super) index: i64,
    pub(super) mean: f64,
    pub(super) max: f64,
    /// Too few values; `mean` and `max` repeat the cell before.
    pub(super) missing: bool,
}

/// Gathers values into cells of one length.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CellMaker {
    length: Millis,
    /// How many values a whole cell has.
    expected: u32,
    open: Option<Open>,
    last: Option<Cell>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Open {
    index: i64,
    pushes: u32,
    values: u32,
    sum: f64,
    max: f64,
}

impl CellMaker {
    pub(super) fn new(length: Millis, interval: Millis) -> CellMaker {
        assert!(length >= interval && interval > Millis::ZERO, "cells of {length} hold no value each {interval}");
        let expected = u32::try_from((length.0 + interval.0 / 2) / interval.0).unwrap_or(u32::MAX);
        CellMaker { length, expected: expected.max(1), open: None, last: None }
    }

    /// Takes one value and returns the cells that it finishes: none, one, or a cut-off one and the next.
    ///
    /// A cell is finished by its last expected value already, so that cells of one value are not a step late.
    pub(super) fn push(&mut self, at: Timestamp, value: Option<f64>) -> Vec<Cell> {
        let index = at.0.div_euclid(self.length.0);
        let mut finished = Vec::new();
        if self.last.is_some_and(|last| index <= last.index) {
            return finished;
        }
        if let Some(open) = self.open.filter(|open| open.index < index) {
            finished.extend(self.finish(open));
        }
        let fresh = Open { index, pushes: 0, values: 0, sum: 0.0, max: f64::NEG_INFINITY };
        let mut open = self.open.take().unwrap_or(fresh);
        open.pushes += 1;
        if let Some(value) = value {
            open.values += 1;
            open.sum += value;
            open.max = open.max.max(value);
        }
        self.open = Some(open);
        if open.pushes >= self.expected {
            finished.extend(self.finish(open));
        }
        finished
    }

    /// Nothing before the first cell that holds a value.
    fn finish(&mut self, open: Open) -> Option<Cell> {
        self.open = None;
        let whole = f64::from(open.values) >= SHARE_MIN * f64::from(self.expected);
        let cell = match self.last {
            _ if whole => {
                let mean = open.sum / f64::from(open.values);
                Cell { index: open.index, mean, max: open.max, missing: false }
            }
            Some(last) => Cell { index: open.index, missing: true, ..last },
            None => return None,
        };
        self.last = Some(cell);
        Some(cell)
    }
}

/// Makes one cell of several neighbours.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Coarsen {
    ratio: i64,
    index: i64,
    count: i64,
    missing: i64,
    sum: f64,
    max: f64,
}

impl Coarsen {
    pub(super) fn new(ratio: i64) -> Coarsen {
        assert!(ratio >= 1, "cannot make one cell of {ratio}");
        Coarsen { ratio, index: i64::MIN, count: 0, missing: 0, sum: 0.0, max: f64::NEG_INFINITY }
    }

    /// Takes one cell and returns the coarse cell that it finishes.
    pub(super) fn push(&mut self, cell: Cell) -> Option<Cell> {
        let index = cell.index.div_euclid(self.ratio);
        if index != self.index {
            *self = Coarsen { index, ..Coarsen::new(self.ratio) };
        }
        self.count += 1;
        self.missing += i64::from(cell.missing);
        self.sum += cell.mean;
        self.max = self.max.max(cell.max);
        let last = cell.index.rem_euclid(self.ratio) == self.ratio - 1;
        last.then(|| Cell {
            index,
            mean: self.sum / self.count as f64,
            max: self.max,
            missing: ((self.count - self.missing) as f64) < SHARE_MIN * self.ratio as f64,
        })
    }
}

/// The newest cells, at most `capacity`, without holes: consecutive indices.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ring {
    capacity: usize,
    newest: i64,
    // f32 halves the memory; sums over them are made in f64.
    means: VecDeque<f32>,
    maxima: VecDeque<f32>,
    missing: VecDeque<bool>,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Ring {
        Ring { capacity, newest: 0, means: VecDeque::new(), maxima: VecDeque::new(), missing: VecDeque::new() }
    }

    /// Adds a cell. Cells left out before it are filled with the one before; a hole longer than the ring empties it.
    pub(super) fn push(&mut self, cell: Cell) {
        let hole = cell.index.saturating_sub(self.newest).saturating_sub(1);
        if hole < 0 || usize::try_from(hole).is_ok_and(|hole| hole >= self.capacity) {
            self.clear();
        }
        if let (Some(mean), Some(max)) = (self.mean(self.newest), self.max(self.newest)) {
            for index in self.newest + 1..cell.index {
                self.add(Cell { index, mean, max, missing: true });
            }
        }
        self.add(cell);
    }

    #[expect(clippy::cast_possible_truncation, reason = "values are clamped to what f32 holds before they come here")]
    fn add(&mut self, cell: Cell) {
        if self.len() == self.capacity {
            self.means.pop_front();
            self.maxima.pop_front();
            self.missing.pop_front();
        }
        self.newest = cell.index;
        self.means.push_back(cell.mean as f32);
        self.maxima.push_back(cell.max as f32);
        self.missing.push_back(cell.missing);
    }

    pub(super) fn clear(&mut self) {
        self.means.clear();
        self.maxima.clear();
        self.missing.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.means.len()
    }

    /// The index of the newest cell; meaningless where there is none.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    fn offset(&self, index: i64) -> Option<usize> {
        let back = usize::try_from(self.newest - index).ok()?;
        (self.len().checked_sub(1)?).checked_sub(back)
    }

    pub(super) fn mean(&self, index: i64) -> Option<f64> {
        self.offset(index).map(|offset| f64::from(self.means[offset]))
    }

    pub(super) fn max(&self, index: i64) -> Option<f64> {
        self.offset(index).map(|offset| f64::from(self.maxima[offset]))
    }

    /// The means of the newest `count` cells, oldest first; of all where there are fewer.
    pub(super) fn latest(&self, count: usize) -> impl DoubleEndedIterator<Item = f64> + '_ {
        self.means.range(self.len().saturating_sub(count)..).map(|mean| f64::from(*mean))
    }

    /// How many of the newest `count` cells are missing.
    pub(super) fn missing(&self, count: usize) -> usize {
        self.missing.range(self.len().saturating_sub(count)..).filter(|missing| **missing).count()
    }

    /// The lowest mean and the highest maximum of the newest `count` cells.
    pub(super) fn extremes(&self, count: usize) -> Option<(f64, f64)> {
        let from = self.len().saturating_sub(count);
        let lowest = self.means.range(from..).copied().reduce(f32::min)?;
        let highest = self.maxima.range(from..).copied().reduce(f32::max)?;
        Some((f64::from(lowest), f64::from(highest)))
    }

    /// The mean at a time counted in cells from the epoch (the middle of cell 5 is 5.5), between cells in proportion.
    /// In the cell after the newest, which is still being filled, the newest mean stands.
    pub(super) fn between(&self, time: f64) -> Option<f64> {
        let position = time - 0.5 - self.newest as f64 + (self.len() as f64 - 1.0);
        if !(-0.5..=self.len() as f64 + 0.5).contains(&position) || self.len() == 0 {
            return None;
        }
        let position = position.clamp(0.0, self.len() as f64 - 1.0);
        let before = whole(position.floor());
        let share = position - before as f64;
        let low = f64::from(self.means[before]);
        let high = f64::from(self.means[(before + 1).min(self.len() - 1)]);
        Some(low + share * (high - low))
    }
}

/// How much a signal shakes from cell to cell.
///
/// Clipped exponential average of |second difference| / √6: first differences of a smooth daily curve are its slope, not noise.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Noise {
    seen: u32,
    level: f64,
}

/// Cells after which a cell counts half in [`Noise`].
const NOISE_HALF_LIFE: f64 = 96.0;
/// Below this a signal is taken as noiseless.
const NOISE_MIN: f64 = 1e-4;

impl Noise {
    pub(super) fn observe(&mut self, ring: &Ring) {
        let newest = ring.newest();
        let (Some(a), Some(b), Some(c)) = (ring.mean(newest - 2), ring.mean(newest - 1), ring.mean(newest)) else {
            return;
        };
        let mut size = (a - 2.0 * b + c).abs() / 6f64.sqrt();
        // One jump must not pass for noise.
        if self.seen >= 16 {
            size = size.min(3.0 * self.level.max(NOISE_MIN));
        }
        self.seen = self.seen.saturating_add(1);
        let weight = (1.0 / f64::from(self.seen)).max(1.0 - 0.5f64.powf(1.0 / NOISE_HALF_LIFE));
        self.level += weight * (size - self.level);
    }

    pub(super) fn level(&self) -> f64 {
        self.level
    }
}

/// Rounded to the nearest whole number; 0 for what is negative or no number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates, and NaN becomes 0"
)]
pub(super) fn whole(value: f64) -> usize {
    value.round() as usize
}
