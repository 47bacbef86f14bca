//! What lies ahead: series whose future somebody knows.

use std::fmt;

use super::{Matcher, Selected};
use crate::model::{METRIC_NAME, Timestamp};

/// Knows what some series will be. The store asks it whenever one of its metrics is selected: nothing is stored of what
/// it says.
pub trait Ahead: Send + Sync + fmt::Debug {
    /// The metrics of which it knows.
    fn metrics(&self) -> &'static [&'static str];

    /// When it was told: its samples are later than that. Stored samples of its metrics that are later do not count.
    fn told_at(&self) -> Timestamp;

    /// The series of a metric that meet all matchers, with their samples newer than `after`, up to and with `until`; those
    /// without a sample there are left out. In any order.
    fn select(&self, metric: &str, matchers: &[Matcher], after: Timestamp, until: Timestamp) -> Vec<Selected>;
}

/// The metrics of `ahead` that are wanted.
fn wanted(ahead: &dyn Ahead, matchers: &[Matcher]) -> Vec<&'static str> {
    let of_name: Vec<&Matcher> = matchers.iter().filter(|matcher| matcher.name == METRIC_NAME).collect();
    ahead.metrics().iter().copied().filter(|metric| of_name.iter().all(|matcher| matcher.matches(metric))).collect()
}

/// Whether something of what is selected up to `until` lies ahead.
pub(super) fn concerns(ahead: &dyn Ahead, matchers: &[Matcher], until: Timestamp) -> bool {
    ahead.told_at() < until && !wanted(ahead, matchers).is_empty()
}

/// Puts what lies ahead to what is stored.
pub(super) fn extend(
    selected: &mut Vec<Selected>,
    ahead: &dyn Ahead,
    matchers: &[Matcher],
    (after, until): (Timestamp, Timestamp),
) {
    if !concerns(ahead, matchers, until) {
        return;
    }
    let (told_at, metrics) = (ahead.told_at(), wanted(ahead, matchers));
    for series in selected.iter_mut().filter(|s| metrics.contains(&s.labels.metric_name())) {
        series.samples.truncate(series.samples.partition_point(|sample| sample.at <= told_at));
    }
    let after = after.max(told_at);
    selected.extend(metrics.iter().flat_map(|metric| ahead.select(metric, matchers, after, until)));
    // A stable sort: what is stored comes before what lies ahead.
    selected.sort_by(|a, b| a.labels.cmp(&b.labels));
    selected.dedup_by(|later, earlier| {
        let same = later.labels == earlier.labels;
        if same {
            earlier.samples.append(&mut later.samples);
        }
        same
    });
    selected.retain(|series| !series.samples.is_empty());
}
