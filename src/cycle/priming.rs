//! What a signal was before it is watched: as an earlier pass kept it, else evaluated over the raw samples there are.

use std::collections::BTreeMap;

use super::SIGNAL_METRIC;
use crate::config::Settings;
use crate::health::{PredictRule, SignalRule};
use crate::model::{ComponentId, Labels, METRIC_NAME, Millis, Sample, Timestamp};
use crate::query::{self, Series, Value};
use crate::store::{Matcher, Store};

/// What a signal was as far as raw samples tell, by component; nothing where it is kept as a series already.
pub(super) fn unkept_past(
    store: &Store,
    settings: &Settings,
    rule: &PredictRule,
    signal: &SignalRule,
    interval: Millis,
    now: Timestamp,
) -> BTreeMap<ComponentId, Vec<Sample>> {
    let kept = [
        Matcher::equal(METRIC_NAME, SIGNAL_METRIC),
        Matcher::equal("rule", &rule.name),
        Matcher::equal("signal", &signal.name),
    ];
    if !store.select(&kept, now - interval * 2, now).is_empty() {
        return BTreeMap::new();
    }
    let start = (now - settings.store.raw_retention).align_down(interval) + interval;
    let answer = query::range(store, &signal.expr, start, now - interval, interval, &settings.query);
    let of = |labels: &Labels| ComponentId::of(&rule.kind, &rule.by, labels);
    match answer.map(|answer| answer.value) {
        Ok(Value::Matrix(all)) => all.into_iter().map(|Series { labels, samples }| (of(&labels), samples)).collect(),
        // The instant evaluation of the same expression reports its error.
        _ => BTreeMap::new(),
    }
}

/// The past of one signal of one component between two moments, ascending: `unkept`, then what is kept under `labels`.
pub(super) fn past(
    store: &Store,
    labels: &Labels,
    unkept: &[Sample],
    (from, to): (Timestamp, Timestamp),
) -> Vec<Sample> {
    let matchers: Vec<Matcher> = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
    let kept = store.select(&matchers, from, to).into_iter().find(|series| series.labels == *labels);
    let kept = kept.map(|series| series.samples).unwrap_or_default();
    let until = kept.first().map_or(to, |first| first.at);
    let mut past: Vec<Sample> = unkept.iter().filter(|sample| sample.at < until).copied().collect();
    past.extend(kept);
    past
}
