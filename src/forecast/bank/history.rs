//! The values of a bank on both scales, with the gaps that were filled.

use serde::{Deserialize, Serialize};

use super::scale::Scale;

/// Values are dropped from the front this many at a time: whole words of [`History::filled`].
const DROP: usize = 256;
const WORD: usize = u64::BITS as usize;

/// A regular history; index `first + i` holds entry `i`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct History {
    first: i64,
    /// On the plain scale.
    pub(super) plain: Vec<f32>,
    /// On the log scale; empty where there is none.
    pub(super) log: Vec<f32>,
    /// A bit a value: it was missing, and a forecast stands in for it.
    filled: Vec<u64>,
    /// Values kept, at most; a little more between two drops.
    keep: usize,
}

impl History {
    pub(super) fn new(first: i64, expected: usize, keep: usize, has_log: bool) -> History {
        let room = expected.min(keep + DROP);
        History {
            first,
            plain: Vec::with_capacity(room),
            log: Vec::with_capacity(if has_log { room } else { 0 }),
            filled: Vec::with_capacity(room.div_ceil(WORD)),
            keep,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.plain.len()
    }

    /// The index of the oldest value.
    pub(super) fn first(&self) -> i64 {
        self.first
    }

    /// The index of the next value.
    pub(super) fn next(&self) -> i64 {
        self.first + i64::try_from(self.plain.len()).unwrap_or(i64::MAX)
    }

    /// Where an index is kept; none where it is too old or not there yet.
    pub(super) fn position(&self, index: i64) -> Option<usize> {
        usize::try_from(index - self.first).ok().filter(|position| *position < self.plain.len())
    }

    pub(super) fn push(&mut self, plain: f32, log: f32, filled: bool, has_log: bool) {
        if self.plain.len() >= self.keep + DROP {
            self.plain.drain(..DROP);
            self.log.drain(..DROP.min(self.log.len()));
            self.filled.drain(..DROP / WORD);
            self.first += i64::try_from(DROP).unwrap_or(0);
        }
        // One value at a time, so that no room is kept for values that never come.
        grow(&mut self.plain, plain);
        if has_log {
            grow(&mut self.log, log);
        }
        let bit = (self.plain.len() - 1) % WORD;
        if bit == 0 {
            self.filled.push(0);
        }
        if filled && let Some(word) = self.filled.last_mut() {
            *word |= 1 << bit;
        }
    }

    pub(super) fn is_filled(&self, position: usize) -> bool {
        self.filled[position / WORD] >> (position % WORD) & 1 == 1
    }

    /// How many of the newest `count` values stand in for missing ones.
    pub(super) fn filled_among(&self, count: usize) -> usize {
        (self.len().saturating_sub(count)..self.len()).filter(|position| self.is_filled(*position)).count()
    }

    /// The values in the signal's unit; NaN where one was missing.
    pub(super) fn values(&self, scale: &Scale) -> Vec<f64> {
        let value = |(position, plain): (usize, &f32)| {
            if self.is_filled(position) { f64::NAN } else { scale.value(f64::from(*plain)) }
        };
        self.plain.iter().enumerate().map(value).collect()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.plain.capacity() + self.log.capacity()) * size_of::<f32>() + self.filled.capacity() * size_of::<u64>()
    }
}

/// Appends and keeps no more than an eighth of room to spare: half of a doubled vector would be memory for nothing.
fn grow(values: &mut Vec<f32>, value: f32) {
    if values.len() == values.capacity() {
        values.reserve_exact((values.len() / 8).max(16));
    }
    values.push(value);
}
