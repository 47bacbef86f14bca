//! Compressed samples in bounded memory, with an index.
//!
//! ```text
//! append_batch ─> index: labels ─> series ─> open chunk ─ full ─> sealed chunks, oldest first
//! select ───────> index: postings ─> series ─> decoded straight into the answer
//! expire ───────> whole chunks beyond their retention; a series goes with its last chunk, its texts with their last series
//! ```
//!
//! **Two tiers.** Series whose name starts with `forestall_` are signals and kept for `signal_retention`; all others,
//! and what was forecast ([`FORECAST_METRIC`]), are raw and kept for `raw_retention`. Retention works by whole chunks: a chunk goes when its newest sample is too old.
//!
//! **Order.** A sample older than a series' open chunk is refused unless it is there already; inside the open chunk it
//! is put where it belongs. The first value of a timestamp stays. What comes twice is counted as a duplicate.
//!
//! **Memory** is bounded by accounting: chunks with their spare room exactly, the index by an estimate that is rounded up.
//! What gives way, in this order, each counted under its [`DropReason`]:
//! 1. within a sixteenth of the limit, new raw series are refused;
//! 2. at the limit, the oldest chunks of raw series are dropped, then those of signals, until a sixteenth is free again;
//!    the last ten minutes always stay;
//! 3. where that frees nothing, samples are refused.
//!
//! The limit can be passed by what one series grows by, for each writer, and by what is being read.
//!
//! **Locks.** The index has a lock that writers of known series, for a request, and readers share; only new and vanishing
//! series take it alone, a few hundred at a time. Each series' chunks have a lock of their own that is held while they are decoded.
//! A write is readable once it has returned.
//!
//! **The future** of some series is known to an [`Ahead`], which is asked when they are selected.
//!
//! Deliberately not here: files. Snapshots will be written from sealed chunks.

mod accounts;
mod ahead;
mod cardinality;
mod codec;
mod index;
mod matcher;
mod metadata;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

pub use accounts::{Appended, DropReason, StoreStats};
pub use ahead::Ahead;
pub use cardinality::Cardinality;
pub use index::FORECAST_METRIC;
pub use matcher::{MatchOp, Matcher};
pub use metadata::FamilyMetadata;

use accounts::Accounts;
use index::{Index, bytes_of, tier_of};
use metadata::Families;
use series::{Added, Chunks, Series, Tier};

use crate::ingest::{self, Batch, IngestError, Limits, Protocol, SeriesRef};
use crate::model::{Labels, Millis, Sample, Timestamp};

/// How far beyond `now` a sample may lie: more than clocks are apart.
const FUTURE_MAX: Millis = Millis(10 * Millis::MINUTE.0);

/// What is never dropped to free memory.
const KEPT_MIN: Millis = Millis(10 * Millis::MINUTE.0);

/// How long after a relief that did not help the next one is tried: each looks at all chunks.
const RELIEF_PAUSE: Millis = Millis(10_000);

/// New series that are added under one hold of the index, and series that are looked at under one.
const NEW_PER_HOLD: usize = 256;
const SLOTS_PER_HOLD: usize = 1024;

/// The most that a sample, and a series' chunks besides their samples, can grow by.
const SAMPLE_BYTES_MAX: usize = 20;
/// What a sample takes in a message, at the least where neither its time nor its value is 0.
const SAMPLE_WIRE_BYTES: usize = 13;
const GROWTH_BYTES_MAX: usize = 4096;

/// What is kept, how long, and in how much memory.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long raw samples are kept.
    pub raw_retention: Millis,
    /// How long evaluated signals (`forestall_*` series) are kept.
    pub signal_retention: Millis,
    /// The most memory that samples and index may take, in bytes.
    pub memory_bytes_max: usize,
    /// The most series kept at a time.
    pub series_max: usize,
    /// The most series kept at a time with one value of the label `job`.
    pub series_per_job_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            raw_retention: Millis::HOUR * 6,
            signal_retention: Millis::DAY * 35,
            memory_bytes_max: 1 << 30,
            series_max: 2_000_000,
            series_per_job_max: 1_000_000,
        }
    }
}

/// One selected series with its samples in time order.
#[derive(Debug, Clone)]
pub struct Selected {
    /// Its labels.
    pub labels: Labels,
    /// Its samples, stale markers among them.
    pub samples: Vec<Sample>,
}

/// The samples of all series. Shared by reference: readers and writers lock inside.
#[derive(Debug)]
pub struct Store {
    settings: Settings,
    index: RwLock<Index>,
    families: RwLock<Families>,
    accounts: Accounts,
    /// What a new series that is sent must meet: all matchers of one of these; anything where absent.
    selection: RwLock<Option<Arc<[Vec<Matcher>]>>>,
    /// When memory may be relieved again; held by the one writer that does it.
    relief_due: Mutex<Timestamp>,
    /// What is known of the future.
    ahead: RwLock<Option<Arc<dyn Ahead>>>,
}

/// Samples newer than `after`, up to and with `until`, are taken.
#[derive(Debug, Clone, Copy)]
struct Window {
    after: Timestamp,
    until: Timestamp,
}

impl Store {
    /// An empty store.
    pub fn new(settings: Settings) -> Store {
        Store {
            settings,
            index: RwLock::default(),
            families: RwLock::default(),
            accounts: Accounts::default(),
            selection: RwLock::default(),
            relief_due: Mutex::new(Timestamp(i64::MIN)),
            ahead: RwLock::default(),
        }
    }

    /// From now on takes only new series that meet all matchers of one of these; `None` takes all. Series that are there
    /// stay until they are too old.
    pub fn keep_only(&self, selection: Option<Vec<Vec<Matcher>>>) {
        *self.selection.write() = selection.map(Arc::from);
    }

    /// From now on `ahead` says what lies in the future of its metrics.
    pub fn look_ahead(&self, ahead: Arc<dyn Ahead>) {
        *self.ahead.write() = Some(ahead);
    }

    /// Adds one sample to one series, whenever it was taken: for forestall's own signals, which are few. What the
    /// limits or the order of samples do not allow is counted and left out.
    pub fn append(&self, labels: &Labels, sample: Sample) {
        self.append_at(labels, sample, sample.at);
    }

    /// The same at `now`, where the sample is of another time.
    pub fn append_at(&self, labels: &Labels, sample: Sample, now: Timestamp) {
        let window = Window { after: Timestamp(i64::MIN), until: Timestamp(i64::MAX) };
        let mut appended = Appended::default();
        self.make_room(1, now);
        let index = self.index.read();
        let hash = index.hash(bytes_of(labels.iter()));
        if let Some(id) = index.find(hash, bytes_of(labels.iter())) {
            self.add_samples(index.series(id), &[sample], window, &mut appended);
            drop(index);
        } else {
            drop(index);
            self.add_to_new(&mut self.index.write(), hash, labels.iter(), &[sample], window, &mut appended);
        }
        self.accounts.count(&appended);
    }

    /// Adds what a request brought. Samples older than their retention at `now`, or more than ten minutes after it, are
    /// refused. What was stored is readable once this returns.
    pub fn append_batch(&self, batch: &Batch, now: Timestamp) -> Appended {
        assert!(batch.series().all(|series| series.known().is_none()), "ids only hold within `append_message`");
        self.make_room(batch.samples_len(), now);
        self.append_found(self.index.read(), batch, now)
    }

    /// Reads a message into `batch`, whose former content is replaced, and adds what it brought as
    /// [`Store::append_batch`] does; faster than one after the other, since the labels of known series are only compared.
    ///
    /// # Errors
    /// Those of [`ingest::decode`]; nothing is added then.
    pub fn append_message(
        &self,
        protocol: Protocol,
        message: &[u8],
        limits: &Limits,
        batch: &mut Batch,
        now: Timestamp,
    ) -> Result<Appended, IngestError> {
        self.make_room(limits.samples_max.min(message.len() / SAMPLE_WIRE_BYTES), now);
        // The index is held to the end: a series must not vanish between being found and being added to.
        let index = self.index.read();
        let find_known = |labels: ingest::RawLabels<'_>| index.find(index.hash(labels.iter()), labels.iter());
        ingest::decode_known(protocol, message, limits, &find_known, batch)?;
        Ok(self.append_found(index, batch, now))
    }

    /// Adds a batch whose known series have ids of this index, held since they were found.
    fn append_found(&self, index: RwLockReadGuard<'_, Index>, batch: &Batch, now: Timestamp) -> Appended {
        let mut appended = Appended::default();
        let mut unknown: Vec<(u64, SeriesRef<'_>)> = Vec::new();
        for series in batch.series() {
            let mut hash = 0;
            let id = series.known().or_else(|| {
                hash = index.hash(bytes_of(series.labels()));
                index.find(hash, bytes_of(series.labels()))
            });
            match id.map(|id| index.series(id)) {
                Some(known) => {
                    let window = self.window(known.tier, now);
                    self.add_samples(known, series.samples(), window, &mut appended);
                }
                None => unknown.push((hash, series)),
            }
        }
        drop(index);
        let selection = self.selection.read().clone();
        unknown.retain(|(_, series)| {
            let wanted = selection.as_ref().is_none_or(|sets| is_selected(sets, series.labels()));
            if !wanted {
                appended.refused_series += 1;
                appended.refuse(DropReason::NotSelected, series.samples().len() as u64);
            }
            wanted
        });
        for group in unknown.chunks(NEW_PER_HOLD) {
            let mut index = self.index.write();
            for (hash, series) in group {
                let window = self.window(tier_of(series.labels()), now);
                self.add_to_new(&mut index, *hash, series.labels(), series.samples(), window, &mut appended);
            }
        }
        self.add_metadata(batch);
        self.accounts.count(&appended);
        appended
    }

    /// The series that meet all matchers, sorted by labels, with their samples newer than `from`, up to and with `to`.
    /// Series without a sample in that range are left out. What lies [ahead](Ahead) is among the samples.
    pub fn select(&self, matchers: &[Matcher], from: Timestamp, to: Timestamp) -> Vec<Selected> {
        let found = self.index.read().select(matchers);
        let mut selected = Vec::with_capacity(found.len());
        for series in found {
            let mut samples = Vec::new();
            series.chunks.lock().read(from, to, &mut samples);
            if !samples.is_empty() {
                selected.push(Selected { labels: series.labels.clone(), samples });
            }
        }
        selected.sort_by(|a, b| a.labels.cmp(&b.labels));
        let ahead = self.ahead.read().clone();
        if let Some(ahead) = ahead {
            ahead::extend(&mut selected, &*ahead, matchers, (from, to));
        }
        selected
    }

    /// Calls `visit` with labels and samples of each series that meets all matchers and has a sample newer than `from`, up to
    /// and with `to`, in the order in which the series were first seen. The samples are in a buffer that is used again.
    ///
    /// # Errors
    /// The first error of `visit`, which ends it.
    pub fn each_selected<E>(
        &self,
        matchers: &[Matcher],
        from: Timestamp,
        to: Timestamp,
        mut visit: impl FnMut(&Labels, &[Sample]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.lies_ahead(matchers, to) {
            let mut selected = self.select(matchers, from, to).into_iter();
            return selected.try_for_each(|series| visit(&series.labels, &series.samples));
        }
        let mut samples = Vec::new();
        // The index is free again while the samples are looked at.
        let found = self.index.read().select(matchers);
        for series in found {
            samples.clear();
            series.chunks.lock().read(from, to, &mut samples);
            if !samples.is_empty() {
                visit(&series.labels, &samples)?;
            }
        }
        Ok(())
    }

    /// The same with only the newest sample in that range of each series.
    ///
    /// # Errors
    /// The first error of `visit`, which ends it.
    pub fn each_latest<E>(
        &self,
        matchers: &[Matcher],
        from: Timestamp,
        to: Timestamp,
        mut visit: impl FnMut(&Labels, Sample) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.lies_ahead(matchers, to) {
            let mut selected = self.select(matchers, from, to).into_iter();
            return selected
                .try_for_each(|series| series.samples.last().map_or(Ok(()), |latest| visit(&series.labels, *latest)));
        }
        let mut samples = Vec::new();
        let found = self.index.read().select(matchers);
        for series in found {
            let latest = series.chunks.lock().latest(from, to, &mut samples);
            if let Some(sample) = latest {
                visit(&series.labels, sample)?;
            }
        }
        Ok(())
    }

    /// Whether what is selected up to `to` is not only what is stored.
    fn lies_ahead(&self, matchers: &[Matcher], to: Timestamp) -> bool {
        self.ahead.read().as_ref().is_some_and(|ahead| ahead::concerns(&**ahead, matchers, to))
    }

    /// The labels of the series that meet all matchers and have a sample newer than `from`, up to and with `to`; sorted.
    pub fn series(&self, matchers: &[Matcher], from: Timestamp, to: Timestamp) -> Vec<Labels> {
        let mut labels: Vec<_> = self.found(matchers, from, to).map(|series| series.labels.clone()).collect();
        labels.sort();
        labels
    }

    /// The names of all labels of such series, sorted.
    pub fn label_names(&self, matchers: &[Matcher], from: Timestamp, to: Timestamp) -> Vec<Arc<str>> {
        let mut names = BTreeSet::new();
        for series in self.found(matchers, from, to) {
            for (name, _) in series.labels.pairs() {
                if !names.contains(name) {
                    names.insert(Arc::clone(name));
                }
            }
        }
        names.into_iter().collect()
    }

    /// The values that a label has among such series, sorted; the series without it add nothing.
    pub fn label_values(&self, name: &str, matchers: &[Matcher], from: Timestamp, to: Timestamp) -> Vec<Arc<str>> {
        let mut values = BTreeSet::new();
        for series in self.found(matchers, from, to) {
            let value = series.labels.pairs().iter().find(|(label, _)| &**label == name).map(|(_, value)| value);
            if let Some(value) = value.filter(|value| !values.contains(*value)) {
                values.insert(Arc::clone(value));
            }
        }
        values.into_iter().collect()
    }

    /// What is known of metric families, by name.
    pub fn metadata(&self) -> BTreeMap<String, FamilyMetadata> {
        self.families.read().all()
    }

    /// What the store holds, and what it could not.
    pub fn stats(&self) -> StoreStats {
        self.accounts.stats(self.index.read().len())
    }

    /// Where the series come from: of each list the first `most`.
    pub fn cardinality(&self, most: usize) -> Cardinality {
        Cardinality::of(self.index.read().postings(), most)
    }

    /// The times of the oldest and of the newest sample; nothing where there is none.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let mut span: Option<(Timestamp, Timestamp)> = None;
        self.each_series(|_, series| {
            if let Some((first, last)) = series.chunks.lock().span() {
                span = Some(span.map_or((first, last), |(from, to)| (from.min(first), to.max(last))));
            }
        });
        span
    }

    /// Drops what is older than its retention at `now`.
    pub fn expire(&self, now: Timestamp) {
        self.drop_chunks(|tier| Some(now - self.retention(tier)));
    }

    fn retention(&self, tier: Tier) -> Millis {
        match tier {
            Tier::Raw => self.settings.raw_retention,
            Tier::Signal => self.settings.signal_retention,
        }
    }

    fn window(&self, tier: Tier, now: Timestamp) -> Window {
        Window { after: now - self.retention(tier), until: now + FUTURE_MAX }
    }

    fn found(&self, matchers: &[Matcher], from: Timestamp, to: Timestamp) -> impl Iterator<Item = Arc<Series>> {
        let found = self.index.read().select(matchers);
        found.into_iter().filter(move |series| series.chunks.lock().has_sample_in(from, to))
    }

    /// Adds samples to a series that was not there a moment ago, within the limits.
    fn add_to_new<'a>(
        &self,
        index: &mut Index,
        hash: u64,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
        samples: &[Sample],
        window: Window,
        appended: &mut Appended,
    ) {
        // Another writer, or an earlier series of the same request, may have added it meanwhile.
        if let Some(id) = index.find(hash, bytes_of(labels.clone())) {
            self.add_samples(index.series(id), samples, window, appended);
            return;
        }
        // A series begins with a sample that can be stored.
        if !samples.iter().any(|sample| window.after < sample.at && sample.at <= window.until) {
            appended.refused_series += 1;
            samples.iter().for_each(|sample| appended.refuse(reason_outside(*sample, window), 1));
            return;
        }
        let cost = index.cost_of_new(labels.clone());
        if let Some(reason) = self.reason_against_new(index, labels.clone(), cost) {
            appended.refused_series += 1;
            appended.refuse(reason, samples.len() as u64);
            return;
        }
        let series = index.insert(hash, labels);
        self.accounts.add_memory(0, cost);
        self.add_samples(&series, samples, window, appended);
    }

    fn reason_against_new<'a>(
        &self,
        index: &Index,
        mut labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        cost: usize,
    ) -> Option<DropReason> {
        if index.len() >= self.settings.series_max {
            return Some(DropReason::SeriesLimit);
        }
        let memory_max = match tier_of(labels.clone()) {
            Tier::Raw => self.memory_mark(),
            Tier::Signal => self.settings.memory_bytes_max,
        };
        if self.accounts.memory_bytes() + cost + GROWTH_BYTES_MAX > memory_max {
            return Some(DropReason::MemoryNewSeries);
        }
        let job = labels.find(|(name, _)| *name == "job").map(|(_, job)| job)?;
        (index.count("job", job) >= self.settings.series_per_job_max).then_some(DropReason::JobSeriesLimit)
    }

    fn add_samples(&self, series: &Series, samples: &[Sample], window: Window, appended: &mut Appended) {
        let growth_max = samples.len() * SAMPLE_BYTES_MAX + GROWTH_BYTES_MAX;
        if self.accounts.memory_bytes() + growth_max > self.settings.memory_bytes_max {
            appended.refuse(DropReason::MemorySamples, samples.len() as u64);
            return;
        }
        // A slow series must not hold old samples for long in a chunk that does not fill.
        let span_max = self.retention(series.tier) / 4;
        let stored_before = appended.stored;
        let mut chunks = series.chunks.lock();
        self.accounted(&mut chunks, |chunks| {
            for &sample in samples {
                if sample.at <= window.after || window.until < sample.at {
                    appended.refuse(reason_outside(sample, window), 1);
                    continue;
                }
                match chunks.add(sample, span_max) {
                    Added::Stored => appended.stored += 1,
                    Added::Duplicate => appended.duplicates += 1,
                    Added::Conflict => appended.refuse(DropReason::Conflict, 1),
                    Added::OutOfOrder => appended.refuse(DropReason::OutOfOrder, 1),
                }
            }
        });
        self.accounts.add_samples(appended.stored - stored_before);
    }

    /// Does something to chunks and keeps the accounts of their number and memory right.
    fn accounted<R>(&self, chunks: &mut Chunks, work: impl FnOnce(&mut Chunks) -> R) -> R {
        let (len_before, bytes_before) = (chunks.len(), chunks.bytes());
        let result = work(chunks);
        self.accounts.add_chunks(len_before, chunks.len());
        self.accounts.add_memory(bytes_before, chunks.bytes());
        result
    }

    fn add_metadata(&self, batch: &Batch) {
        let families = self.families.read();
        if batch.metadata().all(|metadata| families.knows(&metadata)) {
            return;
        }
        drop(families);
        let mut families = self.families.write();
        for metadata in batch.metadata() {
            let before = families.memory_bytes();
            let room = self.memory_mark().saturating_sub(self.accounts.memory_bytes());
            if !families.set(&metadata, room) {
                self.accounts.drop_one(DropReason::MetadataLimit);
            }
            self.accounts.add_memory(before, families.memory_bytes());
        }
    }

    /// The memory beyond which new series are refused, and down to which the oldest chunks are dropped.
    fn memory_mark(&self) -> usize {
        self.settings.memory_bytes_max - self.settings.memory_bytes_max / 16
    }

    /// Drops the oldest chunks where the limit would be passed by so many samples more.
    fn make_room(&self, samples_len: usize, now: Timestamp) {
        let memory_max = self.settings.memory_bytes_max;
        let target = memory_max.saturating_sub(samples_len * SAMPLE_BYTES_MAX + GROWTH_BYTES_MAX);
        if self.accounts.memory_bytes() <= target {
            return;
        }
        // One writer is enough; the others go on and are refused where there is no room yet.
        let Some(mut due) = self.relief_due.try_lock() else { return };
        if now < *due {
            return;
        }
        for tier in [Tier::Raw, Tier::Signal] {
            if self.accounts.memory_bytes() > target {
                self.drop_oldest_chunks(tier, now, target.min(self.memory_mark()));
            }
        }
        if self.accounts.memory_bytes() > target {
            *due = now + RELIEF_PAUSE;
        }
    }

    /// Drops chunks of a tier, oldest first, until no more than `target` bytes or only the last minutes are left.
    fn drop_oldest_chunks(&self, tier: Tier, now: Timestamp, target: usize) {
        const BUCKETS: usize = 256;

        // How much ends when, in a fixed number of steps from the retention to what must stay: a list of all chunks would
        // take memory just when there is none.
        let oldest = now - self.retention(tier);
        let buckets = i64::try_from(BUCKETS).expect("a small number");
        let newest = (now - KEPT_MIN).max(oldest + Millis(buckets));
        let step = (newest - oldest) / buckets;
        let mut bytes_ending = [0; BUCKETS];
        self.each_series(|_, series| {
            if series.tier == tier {
                for (end, bytes) in series.chunks.lock().ends().take_while(|(end, _)| *end <= now - KEPT_MIN) {
                    let bucket = ((end - oldest).0 / step.0).clamp(0, buckets - 1);
                    bytes_ending[usize::try_from(bucket).expect("clamped to the buckets")] += bytes;
                }
            }
        });
        let excess = self.accounts.memory_bytes().saturating_sub(target);
        let (mut freed, mut until) = (0, oldest);
        for bytes in bytes_ending {
            if freed >= excess {
                break;
            }
            freed += bytes;
            until = until + step;
        }
        let until = until.min(now - KEPT_MIN);
        let samples = self.drop_chunks(|other| (other == tier).then_some(until));
        self.accounts.drop(DropReason::MemoryChunks, samples);
    }

    /// Drops the chunks that end no later than `oldest` says for their tier, and the series that have none left; tells
    /// how many samples went.
    fn drop_chunks(&self, oldest: impl Fn(Tier) -> Option<Timestamp>) -> u64 {
        let mut dropped = 0;
        let mut emptied = Vec::new();
        self.each_series(|id, series| {
            let Some(oldest) = oldest(series.tier) else { return };
            let mut chunks = series.chunks.lock();
            dropped += self.accounted(&mut chunks, |chunks| chunks.drop_until(oldest));
            if chunks.is_empty() {
                emptied.push(id);
            }
        });
        self.accounts.remove_samples(dropped);
        for group in emptied.chunks(NEW_PER_HOLD) {
            let mut index = self.index.write();
            for &id in group {
                // It may have got a sample since, or its id may be another series' by now.
                let still_empty = index.slots(id as usize..id as usize + 1).any(|(_, s)| s.chunks.lock().is_empty());
                if still_empty {
                    self.accounts.add_memory(index.remove(id), 0);
                }
            }
        }
        dropped
    }

    /// Calls `work` for each series with its id, with the index free for others every now and then.
    fn each_series(&self, mut work: impl FnMut(u32, &Series)) {
        let mut start = 0;
        loop {
            let index = self.index.read();
            if start >= index.slots_len() {
                return;
            }
            index.slots(start..start + SLOTS_PER_HOLD).for_each(|(id, series)| work(id, series));
            start += SLOTS_PER_HOLD;
        }
    }
}

fn reason_outside(sample: Sample, window: Window) -> DropReason {
    if sample.at <= window.after { DropReason::TooOld } else { DropReason::Future }
}

/// Whether a series meets all matchers of one of the sets.
fn is_selected<'a>(sets: &[Vec<Matcher>], labels: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> bool {
    let value = |name: &str| labels.clone().find(|(n, _)| *n == name).map_or("", |(_, value)| value);
    sets.iter().any(|set| set.iter().all(|matcher| matcher.matches(value(&matcher.name))))
}

#[cfg(test)]
mod tests;
