//! Which series there are, and which have a label: postings.
//!
//! ```text
//! by_labels: labels ─> id                  slots: id ─> series
//! postings:  name ─> value ─> ids          (names and values sorted; their texts are shared by all labels)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;

use super::matcher::{MatchOp, Matcher};
use super::series::{Chunks, Series, Tier};
use crate::model::{Labels, METRIC_NAME};

/// The series whose name starts with this are forestall's own signals.
const SIGNAL_PREFIX: &str = "forestall_";
/// The metric of what is forecast; no signal, since nothing learns from it.
pub const FORECAST_METRIC: &str = "forestall_signal_forecast_path";

/// What one posting, one label of a series, one text and one series take beside their content, in bytes: estimates with
/// the allocator's share, rounded up. 200 000 series with seven labels and two chunks took 1560 bytes of resident memory
/// each, and 1590 by these.
const POSTING_BYTES: usize = 12;
const LABEL_BYTES: usize = size_of::<(Arc<str>, Arc<str>)>();
const TEXT_BYTES: usize = 160;
const SLOT_BYTES: usize = 224;

pub(super) type Postings = BTreeMap<Arc<str>, BTreeMap<Arc<str>, BTreeSet<u32>>>;

/// The index.
///
/// Invariant: a series is in `by_labels`, in its slot, and in the postings of each of its labels, or in none of them.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Option<Arc<Series>>>,
    free: Vec<u32>,
    by_labels: HashTable<u32>,
    /// Seeded for each index, so that no sender can prepare labels with one hash; nothing that is seen outside depends
    /// on it.
    hasher: DefaultHashBuilder,
    postings: Postings,
    len: usize,
}

/// A series' name and value texts as bytes.
pub(super) fn bytes_of<'a>(
    labels: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone {
    labels.map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

impl Index {
    /// The hash by which a set of labels, sorted by name, is found.
    pub(super) fn hash<'a>(&self, labels: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for (name, value) in labels {
            hasher.write(name);
            hasher.write(value);
        }
        hasher.finish()
    }

    /// The series of each label's values.
    pub(super) fn postings(&self) -> &Postings {
        &self.postings
    }

    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many ids there are, of series that are gone too.
    pub(super) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    /// The series of some slots with their ids.
    pub(super) fn slots(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (u32, &Arc<Series>)> {
        let end = range.end.min(self.slots.len());
        (range.start..end).filter_map(|slot| self.slots[slot].as_ref().map(|series| (id_of(slot), series)))
    }

    /// The id of the series with exactly these labels, sorted by name, whose hash is `hash`.
    pub(super) fn find<'a>(
        &self,
        hash: u64,
        labels: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Option<u32> {
        let is_same = |id: &u32| {
            let series = self.series(*id);
            let pairs = series.labels.pairs();
            series.hash == hash
                && pairs.len() == labels.len()
                && pairs.iter().zip(labels.clone()).all(|(own, (n, v))| own.0.as_bytes() == n && own.1.as_bytes() == v)
        };
        self.by_labels.find(hash, is_same).copied()
    }

    /// The series with an id that is in use.
    pub(super) fn series(&self, id: u32) -> &Arc<Series> {
        self.slots[id as usize].as_ref().expect("a series is in its slot as long as its id is in use")
    }

    /// How many series have this label.
    pub(super) fn count(&self, name: &str, value: &str) -> usize {
        self.postings.get(name).and_then(|values| values.get(value)).map_or(0, BTreeSet::len)
    }

    /// What a new series with these labels takes, in bytes, texts that are not there yet included.
    pub(super) fn cost_of_new<'a>(&self, labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> usize {
        let fixed = series_bytes(labels.len());
        let texts = labels.map(|(name, value)| match self.postings.get(name) {
            None => name.len() + value.len() + 2 * TEXT_BYTES,
            Some(values) if !values.contains_key(value) => value.len() + TEXT_BYTES,
            Some(_) => 0,
        });
        fixed + texts.sum::<usize>()
    }

    /// Adds a series that is not there yet, whose hash is `hash`.
    pub(super) fn insert<'a>(
        &mut self,
        hash: u64,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) -> Arc<Series> {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            id_of(self.slots.len() - 1)
        });
        let pairs: Vec<_> = labels.map(|(name, value)| self.post(name, value, id)).collect();
        let labels = Labels::from_sorted(pairs);
        let tier = tier_of(labels.iter());
        let series = Arc::new(Series { labels, hash, tier, chunks: Mutex::new(Chunks::default()) });
        self.slots[id as usize] = Some(Arc::clone(&series));
        let slots = &self.slots;
        let hash_of = |id: &u32| slots[*id as usize].as_ref().map_or(0, |series| series.hash);
        self.by_labels.insert_unique(hash, id, hash_of);
        self.len += 1;
        series
    }

    /// Adds a posting and gives the shared texts.
    fn post(&mut self, name: &str, value: &str, id: u32) -> (Arc<str>, Arc<str>) {
        let name = self.postings.get_key_value(name).map_or_else(|| Arc::from(name), |(known, _)| Arc::clone(known));
        let values = self.postings.entry(Arc::clone(&name)).or_default();
        let value = values.get_key_value(value).map_or_else(|| Arc::from(value), |(known, _)| Arc::clone(known));
        values.entry(Arc::clone(&value)).or_default().insert(id);
        (name, value)
    }

    /// Removes a series, if it is there, and gives the bytes that it took.
    pub(super) fn remove(&mut self, id: u32) -> usize {
        let Some(series) = self.slots[id as usize].take() else { return 0 };
        self.free.push(id);
        self.len -= 1;
        if let Ok(entry) = self.by_labels.find_entry(series.hash, |&other| other == id) {
            entry.remove();
        }
        let mut freed = series_bytes(series.labels.len());
        for (name, value) in series.labels.iter() {
            let values = self.postings.get_mut(name).expect("a series is in the postings of its labels");
            let ids = values.get_mut(value).expect("a series is in the postings of its labels");
            ids.remove(&id);
            if ids.is_empty() {
                values.remove(value);
                freed += value.len() + TEXT_BYTES;
            }
            if values.is_empty() {
                self.postings.remove(name);
                freed += name.len() + TEXT_BYTES;
            }
        }
        freed
    }

    /// The series that meet all matchers, in the order of their ids.
    pub(super) fn select(&self, matchers: &[Matcher]) -> Vec<Arc<Series>> {
        let narrowing = self.narrowest(matchers);
        // What the postings have said already needs not be asked of each series again.
        let others = || matchers.iter().enumerate().filter(|(index, _)| Some(*index) != narrowing).map(|(_, m)| m);
        let meets_others = |series: &&Arc<Series>| others().all(|m| m.matches_labels(&series.labels));
        let Some(matcher) = narrowing.map(|index| &matchers[index]) else {
            return self.slots.iter().flatten().filter(meets_others).cloned().collect();
        };
        let values = self.postings.get(matcher.name.as_str());
        let of = |id: &u32| self.slots[*id as usize].as_ref();
        if matches!(matcher.op, MatchOp::Equal) {
            let ids = values.and_then(|values| values.get(matcher.value.as_str()));
            return ids.into_iter().flatten().filter_map(of).filter(meets_others).cloned().collect();
        }
        let met = values.into_iter().flatten().filter(|(value, _)| matcher.matches(value));
        let mut ids: Vec<u32> = met.flat_map(|(_, ids)| ids.iter().copied()).collect();
        ids.sort_unstable();
        ids.iter().filter_map(of).filter(meets_others).cloned().collect()
    }

    /// The matcher whose postings are looked at; nothing where that is all series. Only a matcher that an absent label does
    /// not meet narrows the choice: the `=` with the fewest series, else the first regular expression.
    fn narrowest(&self, matchers: &[Matcher]) -> Option<usize> {
        let numbered = || matchers.iter().enumerate();
        let equal = numbered().filter(|(_, m)| matches!(m.op, MatchOp::Equal) && !m.value.is_empty());
        let rarest = equal.min_by_key(|(_, m)| self.count(&m.name, &m.value));
        let matching = || numbered().find(|(_, m)| matches!(m.op, MatchOp::Matches(_)) && !m.matches(""));
        rarest.or_else(matching).map(|(index, _)| index)
    }
}

/// The tier of a series with these labels.
pub(super) fn tier_of<'a>(mut labels: impl Iterator<Item = (&'a str, &'a str)>) -> Tier {
    let own = |metric: &str| metric.starts_with(SIGNAL_PREFIX) && metric != FORECAST_METRIC;
    let is_signal = labels.any(|(name, value)| name == METRIC_NAME && own(value));
    if is_signal { Tier::Signal } else { Tier::Raw }
}

/// What a series takes without its chunks and without the texts that it shares.
fn series_bytes(labels_len: usize) -> usize {
    size_of::<Series>() + SLOT_BYTES + labels_len * (LABEL_BYTES + POSTING_BYTES)
}

fn id_of(slot: usize) -> u32 {
    u32::try_from(slot).expect("the series limit is far below 4 billion")
}
