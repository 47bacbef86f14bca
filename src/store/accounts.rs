//! What the store holds and what it could not keep, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Why something was not kept. What is older than its retention is not among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// A sample older than its series' open chunk, and not known already.
    OutOfOrder,
    /// Another value is there for the timestamp.
    Conflict,
    /// More than ten minutes after now.
    Future,
    /// Older than the retention.
    TooOld,
    /// A new series beyond the limit in all.
    SeriesLimit,
    /// A new series beyond the limit for one value of `job`.
    JobSeriesLimit,
    /// A new series while memory is nearly full.
    MemoryNewSeries,
    /// A sample while memory is full and nothing old is left to drop.
    MemorySamples,
    /// A sample in a chunk that was dropped, before its retention was over, to free memory.
    MemoryChunks,
    /// A series that no rule, pool or allowlist selects (`keep: rules`).
    NotSelected,
    /// A metric family beyond the limit of what is remembered of them.
    MetadataLimit,
}

impl DropReason {
    /// All of them, in the order of declaration.
    pub const ALL: [DropReason; 11] = [
        DropReason::OutOfOrder,
        DropReason::Conflict,
        DropReason::Future,
        DropReason::TooOld,
        DropReason::SeriesLimit,
        DropReason::JobSeriesLimit,
        DropReason::MemoryNewSeries,
        DropReason::MemorySamples,
        DropReason::MemoryChunks,
        DropReason::NotSelected,
        DropReason::MetadataLimit,
    ];

    /// The reason in metrics and messages, in `snake_case`.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::OutOfOrder => "out_of_order",
            DropReason::Conflict => "conflict",
            DropReason::Future => "future",
            DropReason::TooOld => "too_old",
            DropReason::SeriesLimit => "series_limit",
            DropReason::JobSeriesLimit => "job_series_limit",
            DropReason::MemoryNewSeries => "memory_new_series",
            DropReason::MemorySamples => "memory_samples",
            DropReason::MemoryChunks => "memory_chunks",
            DropReason::NotSelected => "not_selected",
            DropReason::MetadataLimit => "metadata_limit",
        }
    }
}

impl fmt::Display for DropReason {
    /// What is wrong, for the sender.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::OutOfOrder => "older than what the series has",
            DropReason::Conflict => "another value is there for the timestamp",
            DropReason::Future => "more than ten minutes in the future",
            DropReason::TooOld => "older than the retention",
            DropReason::SeriesLimit => "too many series",
            DropReason::JobSeriesLimit => "too many series of one job",
            DropReason::MemoryNewSeries => "new series while memory is nearly full",
            DropReason::MemorySamples => "memory is full",
            DropReason::MemoryChunks => "dropped to free memory",
            DropReason::NotSelected => "selected by no rule",
            DropReason::MetadataLimit => "too many metric families",
        })
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// Samples that are stored now.
    pub stored: u64,
    /// Samples that were there already, bit by bit: not stored again, and no error.
    pub duplicates: u64,
    /// Series that are not there and were not made.
    pub refused_series: u64,
    /// Samples that were not stored, by reason; no entry is 0.
    pub refused_samples: BTreeMap<DropReason, u64>,
}

impl Appended {
    /// Whether every sample is in the store now.
    pub fn is_complete(&self) -> bool {
        self.refused_samples.is_empty()
    }

    /// How many samples were refused for a reason.
    pub fn refused(&self, reason: DropReason) -> u64 {
        self.refused_samples.get(&reason).copied().unwrap_or(0)
    }

    pub(super) fn refuse(&mut self, reason: DropReason, samples: u64) {
        *self.refused_samples.entry(reason).or_default() += samples;
    }
}

impl fmt::Display for Appended {
    /// What was stored and what was refused, for the sender.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples stored, {} there already", self.stored, self.duplicates)?;
        for (reason, samples) in &self.refused_samples {
            write!(f, ", {samples} refused: {reason}")?;
        }
        Ok(())
    }
}

/// What the store holds, and what it could not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Chunks, open ones among them.
    pub chunks: u64,
    /// Memory by the store's accounts, in bytes.
    pub memory_bytes: u64,
    /// Samples that were there already when they came, since the start.
    pub duplicates: u64,
    /// What was not kept since the start, by reason: samples, for [`DropReason::MetadataLimit`] families. Each reason
    /// has an entry.
    pub dropped: BTreeMap<DropReason, u64>,
}

/// The running counts. They are figures, not guards: no order between them is promised.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    memory_bytes: AtomicUsize,
    samples: AtomicU64,
    chunks: AtomicU64,
    duplicates: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Accounts {
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Something that took `before` bytes takes `after` now. Wraps on the way down, which cancels out.
    pub(super) fn add_memory(&self, before: usize, after: usize) {
        if before != after {
            self.memory_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Something that had `before` chunks has `after` now.
    pub(super) fn add_chunks(&self, before: u64, after: u64) {
        if before != after {
            self.chunks.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    pub(super) fn add_samples(&self, samples: u64) {
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub(super) fn remove_samples(&self, samples: u64) {
        self.samples.fetch_sub(samples, Ordering::Relaxed);
    }

    pub(super) fn drop(&self, reason: DropReason, samples: u64) {
        self.dropped[reason as usize].fetch_add(samples, Ordering::Relaxed);
    }

    pub(super) fn drop_one(&self, reason: DropReason) {
        self.drop(reason, 1);
    }

    /// Adds what was refused of a batch.
    pub(super) fn count(&self, appended: &Appended) {
        self.duplicates.fetch_add(appended.duplicates, Ordering::Relaxed);
        for (reason, samples) in &appended.refused_samples {
            self.drop(*reason, *samples);
        }
    }

    pub(super) fn stats(&self, series: usize) -> StoreStats {
        let dropped = DropReason::ALL.map(|reason| (reason, self.dropped[reason as usize].load(Ordering::Relaxed)));
        StoreStats {
            series: series as u64,
            samples: self.samples.load(Ordering::Relaxed),
            chunks: self.chunks.load(Ordering::Relaxed),
            memory_bytes: self.memory_bytes() as u64,
            duplicates: self.duplicates.load(Ordering::Relaxed),
            dropped: dropped.into(),
        }
    }
}
