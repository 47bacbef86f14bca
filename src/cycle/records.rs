//! Recording rules: what they gave, as series, and how it went with each.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Settings;
use crate::health::{RecordRule, RuleGroup};
use crate::model::{Labels, METRIC_NAME, STALE_MARKER_BITS, Sample, Timestamp};
use crate::query::Element;
use crate::store::Store;

/// As Prometheus says it.
const SAME_LABELS: &str = "vector contains metrics with the same labelset after applying rule labels";

/// What tells a recording rule from others: its group, its name, its expression, and the labels that it adds.
type Key = (String, String, String, BTreeMap<String, String>);

/// How the newest evaluation of a recording rule went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordState {
    /// When it was evaluated.
    pub at: Timestamp,
    /// Why it gave nothing, if it failed.
    pub error: Option<String>,
}

/// What all recording rules gave last.
#[derive(Debug, Default)]
pub(super) struct Records {
    rules: BTreeMap<Key, Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    state: RecordState,
    series: BTreeSet<Labels>,
}

impl Records {
    /// Writes what a rule gave. Series that it gave before and does not give now end here, as in Prometheus; where it failed,
    /// nothing ends.
    pub(super) fn keep(
        &mut self,
        store: &Store,
        (group, rule): (&RuleGroup, &RecordRule),
        given: Result<Vec<Element>, String>,
        now: Timestamp,
    ) -> Result<(), String> {
        let recorded = self.rules.entry(key(group, rule)).or_default();
        let series = given.and_then(|elements| named(rule, elements));
        recorded.state = RecordState { at: now, error: series.as_ref().err().cloned() };
        let series = series?;
        for (labels, value) in &series {
            store.append(labels, Sample { at: now, value: *value });
        }
        let before = std::mem::replace(&mut recorded.series, series.into_keys().collect());
        end(store, before.difference(&recorded.series), now);
        Ok(())
    }

    /// Ends the series of rules that are no longer there.
    pub(super) fn retain(&mut self, store: &Store, settings: &Settings, now: Timestamp) {
        let known: BTreeSet<Key> = rules(settings).map(|(group, rule)| key(group, rule)).collect();
        self.rules.retain(|key, recorded| {
            let stays = known.contains(key);
            if !stays {
                end(store, recorded.series.iter(), now);
            }
            stays
        });
    }

    /// How it went with each rule that has been evaluated, in the order of the files.
    pub(super) fn states(&self, settings: &Settings) -> Vec<Option<RecordState>> {
        rules(settings).map(|(group, rule)| Some(self.rules.get(&key(group, rule))?.state.clone())).collect()
    }
}

/// All recording rules with their groups, in the order of the files.
fn rules(settings: &Settings) -> impl Iterator<Item = (&RuleGroup, &RecordRule)> {
    settings.groups.iter().flat_map(|group| group.records().map(move |record| (group, record)))
}

fn key(group: &RuleGroup, rule: &RecordRule) -> Key {
    (group.name.clone(), rule.record.clone(), rule.expr.text().to_owned(), rule.labels.clone())
}

/// The elements under the rule's name and with its labels over theirs.
fn named(rule: &RecordRule, elements: Vec<Element>) -> Result<BTreeMap<Labels, f64>, String> {
    let mut series = BTreeMap::new();
    for element in elements {
        let named = element.labels.with(METRIC_NAME, &rule.record);
        let labels = rule.labels.iter().fold(named, |labels, (name, value)| labels.with(name, value));
        if series.insert(labels, element.sample.value).is_some() {
            return Err(SAME_LABELS.to_owned());
        }
    }
    Ok(series)
}

fn end<'l>(store: &Store, series: impl Iterator<Item = &'l Labels>, now: Timestamp) {
    let marker = Sample { at: now, value: f64::from_bits(STALE_MARKER_BITS) };
    series.for_each(|labels| store.append(labels, marker));
}
