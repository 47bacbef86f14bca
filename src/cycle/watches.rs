//! All watches: one for each signal of each component, fed by readings and asked once a cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::observe::Reading;
use crate::config::Settings;
use crate::forecast::{Band, Foresight, Limit, RegimeStart, Watch, WatchSettings};
use crate::health::{PredictRule, SignalRule};
use crate::model::{ComponentId, Labels, METRIC_NAME, Millis, Sample, Timestamp};
use crate::plan::{Ledger, Outcome};
use crate::query::{self, Series, Value};
use crate::store::{Matcher, Store};

/// The metric under which signals are kept: what forecasts learn from after a restart.
pub const SIGNAL_METRIC: &str = "forestall_signal";

/// A watch whose signal has had no value for this long (or for two horizons, if that is longer) is dropped.
const FORGOTTEN_AFTER: Millis = Millis(2 * Millis::HOUR.0);

/// Rule and signal.
type SignalKey = (String, String);

/// The watches of one signal, and how they watch.
#[derive(Debug)]
struct Watched {
    settings: Arc<WatchSettings>,
    by_component: BTreeMap<ComponentId, Entry>,
}

#[derive(Debug)]
struct Entry {
    watch: Watch,
    foresight: Foresight,
    labels: Labels,
    seen_at: Timestamp,
    pushed_at: Timestamp,
}

/// All watches, by signal and component.
#[derive(Debug, Default)]
pub(super) struct Watches {
    signals: BTreeMap<SignalKey, Watched>,
    /// Up to when our own actions have been taken as regime starts.
    actions_seen_to: Timestamp,
}

impl Watches {
    /// Feeds one signal's readings: known components that are not among them get a gap.
    pub(super) fn take(
        &mut self,
        store: &Store,
        settings: &Settings,
        (rule, signal, interval): (&PredictRule, &SignalRule, Millis),
        readings: Vec<Reading>,
        now: Timestamp,
    ) {
        let wanted = watch_settings(settings, rule, signal, interval);
        let key = (rule.name.clone(), signal.name.clone());
        // Changed settings mean new watches; they learn again from the signal that was kept.
        let known = self.signals.remove(&key).filter(|watched| *watched.settings == wanted);
        let mut past = BTreeMap::new();
        let mut watched = known.unwrap_or_else(|| {
            past = past_of(store, settings, rule, signal, interval, now);
            Watched { settings: Arc::new(wanted), by_component: BTreeMap::new() }
        });
        for Reading { component, value, limit } in readings {
            let entry = watched.by_component.entry(component).or_insert_with_key(|component| {
                let samples = past.remove(component).unwrap_or_default();
                Entry::new(rule, signal, component, watched.settings.clone(), &samples, limit, now)
            });
            entry.push(now, value, limit);
            if let Some(value) = value {
                store.append(&entry.labels, Sample { at: now, value });
            }
        }
        for entry in watched.by_component.values_mut().filter(|entry| entry.pushed_at < now) {
            entry.push(now, None, None);
        }
        let forgotten_before = now - FORGOTTEN_AFTER.max(rule.horizon * 2);
        watched.by_component.retain(|_, entry| entry.seen_at >= forgotten_before);
        self.signals.insert(key, watched);
    }

    /// Takes the actions that came into effect since the last call as regime starts of their components' signals.
    pub(super) fn mark_own_actions(&mut self, ledger: &Ledger, now: Timestamp) {
        let since = std::mem::replace(&mut self.actions_seen_to, now);
        for past in ledger.actions.iter().filter(|past| past.outcome.is_some_and(Outcome::took_effect)) {
            let Some(at) = past.settled_at.filter(|at| since < *at && *at <= now) else { continue };
            let component = &past.action.target.component;
            for entry in self.signals.values_mut().filter_map(|watched| watched.by_component.get_mut(component)) {
                entry.watch.start_regime(at, RegimeStart::OwnAction);
            }
        }
    }

    /// Drops the watches of rules and signals that are no longer there.
    pub(super) fn retain_rules<'r>(&mut self, rules: impl Iterator<Item = &'r PredictRule>) {
        let wanted: BTreeSet<(&str, &str)> =
            rules.flat_map(|rule| rule.signals.iter().map(|s| (rule.name.as_str(), s.name.as_str()))).collect();
        self.signals.retain(|(rule, signal), _| wanted.contains(&(rule.as_str(), signal.as_str())));
    }

    /// Asks every watch that was fed at `now`, on all cores; the others keep what they said.
    pub(super) fn foresee(&mut self, now: Timestamp) {
        let all = self.signals.values_mut().flat_map(|watched| watched.by_component.values_mut());
        let mut due: Vec<&mut Entry> = all.filter(|entry| entry.pushed_at == now).collect();
        due.par_iter_mut().for_each(|entry| entry.foresight = entry.watch.foresee(now));
    }

    /// What is foreseen for one signal, by component.
    pub(super) fn foresights(
        &self,
        rule: &PredictRule,
        signal: &SignalRule,
    ) -> impl Iterator<Item = (&ComponentId, &Foresight)> + use<'_> {
        let watched = self.signals.get(&(rule.name.clone(), signal.name.clone()));
        let entries = watched.into_iter().flat_map(|watched| &watched.by_component);
        entries.map(|(component, entry)| (component, &entry.foresight))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.signals.values().map(|watched| watched.by_component.len()).sum()
    }
}

impl Entry {
    fn new(
        rule: &PredictRule,
        signal: &SignalRule,
        component: &ComponentId,
        settings: Arc<WatchSettings>,
        past: &[Sample],
        limit: Option<Limit>,
        now: Timestamp,
    ) -> Entry {
        let mut watch = Watch::new(settings, seed_of(rule, signal, component));
        for sample in past.iter().filter(|sample| sample.at < now) {
            watch.push(sample.at, Some(sample.value).filter(|value| value.is_finite()), limit);
        }
        let own = [
            (METRIC_NAME, SIGNAL_METRIC),
            ("rule", &rule.name),
            ("signal", &signal.name),
            ("kind", &rule.kind),
            ("component", &component.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let labels = Labels::new(component.labels.iter().cloned().chain(own));
        let foresight = Foresight::unknown(now, "not yet assessed");
        Entry { watch, foresight, labels, seen_at: now, pushed_at: Timestamp(i64::MIN) }
    }

    fn push(&mut self, now: Timestamp, value: Option<f64>, limit: Option<Limit>) {
        self.watch.push(now, value, limit);
        self.pushed_at = now;
        if value.is_some() {
            self.seen_at = now;
        }
    }
}

fn watch_settings(settings: &Settings, rule: &PredictRule, signal: &SignalRule, interval: Millis) -> WatchSettings {
    let seasons = signal.baseline.as_ref().map(|baseline| baseline.seasons.clone()).unwrap_or_default();
    // The fastest hand there is for this kind: a crossing nearer than that belongs to the ordinary alert.
    let actuation_time = settings
        .policies
        .iter()
        .filter(|policy| policy.selector.kind.as_ref().is_none_or(|kind| *kind == rule.kind))
        .flat_map(|policy| policy.ladder.iter().map(|rung| rung.actuation_time))
        .min()
        .unwrap_or(interval);
    WatchSettings {
        horizon: rule.horizon,
        interval,
        side: signal.side,
        lasting: signal.lasting,
        seasons,
        band: signal.baseline.as_ref().map(|b| Band { deviation: b.deviation, min_abs: b.min_abs }),
        model: signal.model,
        actuation_time,
    }
}

/// What a signal was before it was first watched: as kept by an earlier run, else evaluated over the raw samples there are.
fn past_of(
    store: &Store,
    settings: &Settings,
    rule: &PredictRule,
    signal: &SignalRule,
    interval: Millis,
    now: Timestamp,
) -> BTreeMap<ComponentId, Vec<Sample>> {
    let of = |labels: &Labels| ComponentId::of(&rule.kind, &rule.by, labels);
    let kept = [
        Matcher::equal(METRIC_NAME, SIGNAL_METRIC),
        Matcher::equal("rule", &rule.name),
        Matcher::equal("signal", &signal.name),
    ];
    let kept = store.select(&kept, now - settings.store.signal_retention, now);
    if !kept.is_empty() {
        return kept.into_iter().map(|series| (of(&series.labels), series.samples)).collect();
    }
    let start = (now - settings.store.raw_retention).align_down(interval) + interval;
    let answer = query::range(store, &signal.expr, start, now - interval, interval, &settings.query);
    match answer.map(|answer| answer.value) {
        Ok(Value::Matrix(all)) => all.into_iter().map(|Series { labels, samples }| (of(&labels), samples)).collect(),
        // The instant evaluation of the same expression reports its error.
        _ => BTreeMap::new(),
    }
}

/// FNV-1a over rule, signal and component: the same on every replica and in every run.
fn seed_of(rule: &PredictRule, signal: &SignalRule, component: &ComponentId) -> u64 {
    let text = format!("{}\0{}\0{component}", rule.name, signal.name);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
