//! Where the series come from: which metrics and labels there is most of.

use super::index::Postings;
use crate::model::METRIC_NAME;

/// What there is most of, the most first: at most so many of each as were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// How many pairs of a label and a value there are.
    pub label_pairs: usize,
    /// Metric → its series.
    pub series_by_metric: Vec<(String, u64)>,
    /// Label → its different values.
    pub values_by_label: Vec<(String, u64)>,
    /// Label → the bytes of its values, as often as series have them.
    pub bytes_by_label: Vec<(String, u64)>,
    /// `label=value` → its series.
    pub series_by_pair: Vec<(String, u64)>,
}

impl Cardinality {
    pub(super) fn of(postings: &Postings, most: usize) -> Cardinality {
        let label_pairs = postings.values().map(|values| values.len()).sum();
        let mut found = Cardinality { label_pairs, ..Cardinality::default() };
        for (name, values) in postings {
            let counts = || values.iter().map(|(value, ids)| (value, ids.len() as u64));
            found.values_by_label.push((name.to_string(), values.len() as u64));
            let bytes = counts().map(|(value, count)| value.len() as u64 * count).sum();
            found.bytes_by_label.push((name.to_string(), bytes));
            for (value, count) in counts() {
                if **name == *METRIC_NAME {
                    found.series_by_metric.push((value.to_string(), count));
                }
                found.series_by_pair.push((format!("{name}={value}"), count));
            }
        }
        let Cardinality { series_by_metric, values_by_label, bytes_by_label, series_by_pair, .. } = &mut found;
        for list in [series_by_metric, values_by_label, bytes_by_label, series_by_pair] {
            list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            list.truncate(most);
        }
        found
    }
}
