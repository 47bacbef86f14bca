//! One series: sealed chunks, oldest first, and the open one that samples are added to.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::codec::{Decoder, Encoder};
use crate::model::{Labels, Millis, Sample, Timestamp};

/// Samples in a chunk: what Prometheus uses too; one decodes in two microseconds.
const CHUNK_SAMPLES_MAX: u32 = 120;

/// A series of the store. Its labels never change; its samples have a lock of their own.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    pub(super) hash: u64,
    pub(super) tier: Tier,
    pub(super) chunks: Mutex<Chunks>,
}

/// Which of the two retentions holds for a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// What was scraped.
    Raw,
    /// What forestall evaluated: series whose name starts with `forestall_`.
    Signal,
}

/// A finished chunk.
#[derive(Debug)]
struct Chunk {
    first_at: Timestamp,
    last_at: Timestamp,
    count: u32,
    bytes: Box<[u8]>,
}

/// The chunks of a series.
///
/// Invariant: chunks do not overlap and stand in time order; inside a chunk timestamps rise strictly.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    sealed: VecDeque<Chunk>,
    sealed_bytes: usize,
    open: Encoder,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    Stored,
    /// The same sample is there already.
    Duplicate,
    /// Another value is there for this timestamp.
    Conflict,
    /// It is older than the open chunk.
    OutOfOrder,
}

impl Chunks {
    /// Adds a sample; a chunk is sealed when it is full or spans `span_max`.
    pub(super) fn add(&mut self, sample: Sample, span_max: Millis) -> Added {
        if self.open.count() == 0 && self.sealed.back().is_none_or(|last| last.last_at < sample.at) {
            self.open.push(sample);
            return Added::Stored;
        }
        if self.open.count() > 0 && self.open.last_at() < sample.at {
            if self.open.count() >= CHUNK_SAMPLES_MAX || sample.at - self.open.first_at() >= span_max {
                self.seal();
            }
            self.open.push(sample);
            return Added::Stored;
        }
        self.add_late(sample)
    }

    fn seal(&mut self) {
        let open = std::mem::take(&mut self.open);
        let (first_at, last_at, count) = (open.first_at(), open.last_at(), open.count());
        let bytes = open.into_bytes();
        self.sealed_bytes += bytes.len();
        self.sealed.push_back(Chunk { first_at, last_at, count, bytes });
    }

    /// A sample that is not newer than the last one: known already, or put into the open chunk where it belongs.
    fn add_late(&mut self, sample: Sample) -> Added {
        if self.open.count() > 0 && self.open.last_at() == sample.at {
            return same_or_other(self.open.last_value(), sample.value);
        }
        if self.open.count() == 0 || sample.at < self.open.first_at() {
            let index = self.sealed.partition_point(|chunk| chunk.last_at < sample.at);
            let known = self.sealed.get(index).and_then(|chunk| chunk.samples().find(|s| s.at == sample.at));
            return known.map_or(Added::OutOfOrder, |known| same_or_other(known.value, sample.value));
        }
        let mut samples: Vec<Sample> = self.open_samples().collect();
        let index = samples.partition_point(|s| s.at < sample.at);
        if samples[index].at == sample.at {
            return same_or_other(samples[index].value, sample.value);
        }
        samples.insert(index, sample);
        self.open = Encoder::default();
        samples.into_iter().for_each(|sample| self.open.push(sample));
        Added::Stored
    }

    fn open_samples(&self) -> Decoder<'_> {
        Decoder::new(self.open.bytes(), self.open.count())
    }

    /// Adds the samples newer than `from`, up to and with `to`, to `samples`.
    pub(super) fn read(&self, from: Timestamp, to: Timestamp, samples: &mut Vec<Sample>) {
        let start = self.sealed.partition_point(|chunk| chunk.last_at <= from);
        let end = self.sealed.partition_point(|chunk| chunk.first_at <= to);
        let open = (self.open.count() > 0 && from < self.open.last_at() && self.open.first_at() <= to).then_some(());
        let sealed = self.sealed.range(start..end.max(start));
        let count = sealed.clone().map(|chunk| chunk.count).chain(open.map(|()| self.open.count())).sum::<u32>();
        samples.reserve(count as usize);
        sealed.for_each(|chunk| push_between(chunk.samples(), from, to, samples));
        if open.is_some() {
            push_between(self.open.samples_after(from), from, to, samples);
        }
    }

    /// The newest sample that is newer than `from`, up to and with `to`. `samples` is room to decode into.
    pub(super) fn latest(&self, from: Timestamp, to: Timestamp, samples: &mut Vec<Sample>) -> Option<Sample> {
        if self.open.count() > 0 && self.open.last_at() <= to {
            let newest = Sample { at: self.open.last_at(), value: self.open.last_value() };
            return (from < newest.at).then_some(newest);
        }
        samples.clear();
        self.read(from, to, samples);
        samples.last().copied()
    }

    /// The times of the oldest and of the newest sample.
    pub(super) fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let first = self.sealed.front().map(|chunk| chunk.first_at);
        let first = first.or_else(|| (self.open.count() > 0).then(|| self.open.first_at()))?;
        let last = if self.open.count() > 0 { self.open.last_at() } else { self.sealed.back()?.last_at };
        Some((first, last))
    }

    /// Whether there is a sample newer than `from`, up to and with `to`.
    pub(super) fn has_sample_in(&self, from: Timestamp, to: Timestamp) -> bool {
        let index = self.sealed.partition_point(|chunk| chunk.last_at <= from);
        let (first_at, last_at) = match self.sealed.get(index) {
            Some(chunk) => (chunk.first_at, chunk.last_at),
            None if self.open.count() > 0 => (self.open.first_at(), self.open.last_at()),
            None => return false,
        };
        if last_at <= from || to < first_at {
            return false;
        }
        if from < first_at || last_at <= to {
            return true;
        }
        // The range lies inside one chunk: only its samples tell.
        let mut samples = Vec::new();
        self.read(from, to, &mut samples);
        !samples.is_empty()
    }

    /// The end and the memory of each chunk, oldest first.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Timestamp, usize)> + '_ {
        let open = (self.open.count() > 0).then(|| (self.open.last_at(), self.open.capacity()));
        self.sealed.iter().map(|chunk| (chunk.last_at, chunk.bytes.len() + size_of::<Chunk>())).chain(open)
    }

    /// Drops the chunks whose newest sample is not newer than `oldest`; tells how many samples went.
    pub(super) fn drop_until(&mut self, oldest: Timestamp) -> u64 {
        let mut samples = 0;
        while self.sealed.front().is_some_and(|chunk| chunk.last_at <= oldest) {
            let dropped = self.sealed.pop_front().expect("there is a front");
            self.sealed_bytes -= dropped.bytes.len();
            samples += u64::from(dropped.count);
        }
        if self.sealed.is_empty() || self.sealed.len() < self.sealed.capacity() / 4 {
            self.sealed.shrink_to_fit();
        }
        if self.sealed.is_empty() && self.open.count() > 0 && self.open.last_at() <= oldest {
            samples += u64::from(self.open.count());
            self.open = Encoder::default();
        }
        samples
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.count() == 0
    }

    /// The memory held, in bytes, besides the series itself.
    pub(super) fn bytes(&self) -> usize {
        self.sealed_bytes + self.sealed.capacity() * size_of::<Chunk>() + self.open.capacity()
    }

    /// How many chunks there are.
    pub(super) fn len(&self) -> u64 {
        self.sealed.len() as u64 + u64::from(self.open.count() > 0)
    }
}

impl Chunk {
    fn samples(&self) -> Decoder<'_> {
        Decoder::new(&self.bytes, self.count)
    }
}

/// Adds the samples newer than `from`, up to and with `to`.
fn push_between(decoder: Decoder<'_>, from: Timestamp, to: Timestamp, samples: &mut Vec<Sample>) {
    for sample in decoder {
        if to < sample.at {
            return;
        }
        if from < sample.at {
            samples.push(sample);
        }
    }
}

fn same_or_other(known: f64, new: f64) -> Added {
    if known.to_bits() == new.to_bits() { Added::Duplicate } else { Added::Conflict }
}
