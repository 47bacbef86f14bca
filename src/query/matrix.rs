//! Series of an instant vector with their values at all steps, side by side in one long column, and what they are called.

use std::sync::Arc;

use hashbrown::HashMap;

use super::QueryError;
use crate::model::{Labels, METRIC_NAME, STALE_MARKER_BITS};

/// The value of a step at which a series has none: the stale marker, which no calculation yields.
pub(super) const ABSENT: f64 = f64::from_bits(STALE_MARKER_BITS);

/// The message for two elements that cannot be told apart.
pub(super) const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// Whether there is a value.
pub(super) fn is_present(value: f64) -> bool {
    value.to_bits() != STALE_MARKER_BITS
}

/// Labels that go with the metric's name: what the series measures, and in what.
pub(super) fn is_of_metric(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// Labels, with or without those of the metric: a name is dropped without copying the others.
#[derive(Debug, Clone)]
pub(super) struct LabelSet {
    labels: Labels,
    is_nameless: bool,
}

impl LabelSet {
    pub(super) fn new(labels: Labels) -> LabelSet {
        LabelSet { labels, is_nameless: false }
    }

    /// The labels as they are seen.
    pub(super) fn into_labels(self) -> Labels {
        if self.is_nameless && self.labels.pairs().iter().any(|(name, _)| is_of_metric(name)) {
            return self.labels.without(is_of_metric);
        }
        self.labels
    }

    /// The value of a label; empty where it is absent.
    pub(super) fn get(&self, name: &str) -> &str {
        if self.is_nameless && is_of_metric(name) {
            return "";
        }
        match self.labels.pairs().first() {
            // The first label is mostly the metric's name, and that is mostly what is asked for.
            Some((first, value)) if &**first == name => value,
            _ => self.labels.get(name).unwrap_or(""),
        }
    }

    /// The shared texts of the labels as they are seen, by name.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        let is_nameless = self.is_nameless;
        self.labels.pairs().iter().filter(move |(name, _)| !(is_nameless && is_of_metric(name)))
    }

    /// These labels with one added or replaced; an empty value removes it.
    pub(super) fn with(&self, name: &str, value: &str) -> LabelSet {
        LabelSet::new(self.clone().into_labels().with(name, value))
    }
}

impl PartialEq for LabelSet {
    fn eq(&self, other: &LabelSet) -> bool {
        same_pairs(self.pairs(), other.pairs())
    }
}

impl Eq for LabelSet {}

impl Ord for LabelSet {
    fn cmp(&self, other: &LabelSet) -> std::cmp::Ordering {
        self.pairs().cmp(other.pairs())
    }
}

impl PartialOrd for LabelSet {
    fn partial_cmp(&self, other: &LabelSet) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether two lists of labels are the same. Texts of the store are shared, so that their addresses mostly tell.
fn same_pairs<'a>(
    mut left: impl Iterator<Item = &'a (Arc<str>, Arc<str>)>,
    mut right: impl Iterator<Item = &'a (Arc<str>, Arc<str>)>,
) -> bool {
    let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if same(&a.1, &b.1) && same(&a.0, &b.0) => {}
            _ => return false,
        }
    }
}

/// Series with their values.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    pub(super) labels: Vec<LabelSet>,
    /// A row of `steps` values for each series; [`ABSENT`] where there is none.
    pub(super) values: Vec<f64>,
    pub(super) steps: usize,
}

impl Matrix {
    pub(super) fn new(steps: usize) -> Matrix {
        Matrix { labels: Vec::new(), values: Vec::new(), steps }
    }

    /// One series without labels.
    pub(super) fn single(values: Vec<f64>) -> Matrix {
        Matrix { labels: vec![LabelSet::new(Labels::default())], steps: values.len(), values }
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(super) fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.steps..(index + 1) * self.steps]
    }

    pub(super) fn row_mut(&mut self, index: usize) -> &mut [f64] {
        &mut self.values[index * self.steps..(index + 1) * self.steps]
    }

    /// Labels and values of each series.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&LabelSet, &[f64])> {
        self.labels.iter().zip(self.values.chunks(self.steps.max(1)))
    }

    /// Adds a series, unless it has no value at all.
    pub(super) fn push(&mut self, labels: LabelSet, row: &[f64]) {
        if row.iter().any(|value| is_present(*value)) {
            self.labels.push(labels);
            self.values.extend_from_slice(row);
        }
    }

    /// Takes the series that have no value at all away.
    pub(super) fn drop_empty(&mut self) {
        let mut kept = 0;
        for index in 0..self.len() {
            let from = index * self.steps;
            if self.values[from..from + self.steps].iter().any(|value| is_present(*value)) {
                if kept != index {
                    self.labels.swap(kept, index);
                    self.values.copy_within(from..from + self.steps, kept * self.steps);
                }
                kept += 1;
            }
        }
        self.labels.truncate(kept);
        self.values.truncate(kept * self.steps);
    }

    /// Replaces each value there is.
    pub(super) fn map(&mut self, function: impl Fn(f64) -> f64) {
        for value in &mut self.values {
            if is_present(*value) {
                *value = function(*value);
            }
        }
    }

    /// Drops the metric's name everywhere; says whether series may have become the same.
    pub(super) fn drop_names(&mut self) -> bool {
        // Series that had one name, or none, are told apart by the rest.
        let mut first: Option<&str> = None;
        let mut is_mixed = false;
        for labels in &self.labels {
            let name = labels.get(METRIC_NAME);
            let first = *first.get_or_insert(name);
            is_mixed |= !(std::ptr::eq(first, name) || first == name);
            // Labels are sorted by name: what belongs to the metric is not behind this.
            let mut pairs = labels.pairs().take_while(|(name, _)| &**name <= "__unit__");
            is_mixed |= pairs.any(|(name, _)| &**name != METRIC_NAME && is_of_metric(name));
        }
        self.labels.iter_mut().for_each(|labels| labels.is_nameless = true);
        is_mixed
    }

    /// Refuses series that cannot be told apart, even where they have no step in common.
    pub(super) fn refuse_same(&self) -> Result<(), QueryError> {
        let groups = Groups::by(&self.labels, |_| true);
        if groups.count() == self.len() { Ok(()) } else { Err(QueryError::Execution(SAME_LABELS.to_owned())) }
    }

    /// Joins series with the same labels into one; two that have a value at the same step are an error with this `message`.
    pub(super) fn merge_same(&mut self, message: &str) -> Result<(), QueryError> {
        let groups = Groups::by(&self.labels, |_| true);
        if groups.count() == self.len() {
            return Ok(());
        }
        let mut merged = Matrix::new(self.steps);
        for (index, (labels, row)) in self.rows().enumerate() {
            let group = groups.of[index];
            if group == merged.len() {
                merged.labels.push(labels.clone());
                merged.values.extend_from_slice(row);
                continue;
            }
            for (kept, added) in merged.row_mut(group).iter_mut().zip(row) {
                if is_present(*added) {
                    if is_present(*kept) {
                        return Err(QueryError::Execution(message.to_owned()));
                    }
                    *kept = *added;
                }
            }
        }
        *self = merged;
        Ok(())
    }
}

/// Which of some series belong together.
#[derive(Debug)]
pub(super) struct Groups {
    /// The group of each series, from 0 in the order in which they are first seen.
    pub(super) of: Vec<usize>,
    /// The first series of each group.
    pub(super) first: Vec<usize>,
}

impl Groups {
    /// Groups by the labels whose names are kept.
    pub(super) fn by(all: &[LabelSet], keeps: impl Fn(&str) -> bool) -> Groups {
        // Texts of the store are shared: what stands at the same addresses is the same, and only the rest has to be read.
        let mut known: HashMap<Box<[usize]>, usize> = HashMap::new();
        let mut addresses = Vec::new();
        let mut by_text: HashMap<Labels, usize> = HashMap::new();
        let mut groups = Groups { of: Vec::with_capacity(all.len()), first: Vec::new() };
        for (index, labels) in all.iter().enumerate() {
            addresses.clear();
            for (name, value) in labels.pairs().filter(|(name, _)| keeps(name)) {
                addresses.extend([name.as_ptr().addr(), value.as_ptr().addr()]);
            }
            let group = match known.get(&*addresses) {
                Some(group) => *group,
                None => {
                    let kept = labels.clone().into_labels().without(|name| !keeps(name));
                    let group = *by_text.entry(kept).or_insert(groups.first.len());
                    if group == groups.first.len() {
                        groups.first.push(index);
                    }
                    known.insert(Box::from(&*addresses), group);
                    group
                }
            };
            groups.of.push(group);
        }
        groups
    }

    pub(super) fn count(&self) -> usize {
        self.first.len()
    }

    /// The series of each group.
    pub(super) fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.count()];
        self.of.iter().enumerate().for_each(|(index, group)| members[*group].push(index));
        members
    }
}

/// Labels that tell groups apart.
#[derive(Debug, Clone)]
pub(super) struct Grouping {
    /// By `by` and `on` these alone, by `without` and `ignoring` all but these and the metric's name.
    names: Vec<String>,
    is_by: bool,
}

impl Grouping {
    pub(super) fn new(names: &[String], is_by: bool) -> Grouping {
        let mut names = names.to_vec();
        if !is_by {
            names.push(METRIC_NAME.to_owned());
        }
        names.sort();
        names.dedup();
        Grouping { names, is_by }
    }

    fn keeps(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name) == self.is_by
    }

    /// What is left of labels.
    pub(super) fn key(&self, labels: &LabelSet) -> Labels {
        labels.clone().into_labels().without(|name| !self.keeps(name))
    }

    pub(super) fn groups(&self, all: &[LabelSet]) -> Groups {
        if self.is_by && self.names.is_empty() {
            return Groups { of: vec![0; all.len()], first: all.first().map(|_| 0).into_iter().collect() };
        }
        Groups::by(all, |name| self.keeps(name))
    }

    /// Whether a label is one of those named.
    pub(super) fn names_label(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Whether these labels alone count.
    pub(super) fn is_by(&self) -> bool {
        self.is_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_texts_are_one_group_wherever_they_stand() {
        // Each has texts of its own.
        let all = [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2")]
            .map(|(job, part)| LabelSet::new(Labels::new([("job", job), ("part", part)])));
        let groups = Groups::by(&all, |name| name == "job");
        assert_eq!((groups.of, groups.first), (vec![0, 1, 0, 1], vec![0, 1]));
        assert_eq!(Groups::by(&all, |_| true).count(), 4);
    }
}
