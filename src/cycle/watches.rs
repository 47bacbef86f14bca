//! All watches: one for each signal of each component, fed by readings and asked once a cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::observe::{Observed, Reading};
use super::priming;
use crate::config::Settings;
use crate::forecast::{
    Band, BankSize, Calibration, Foresight, Lesson, Limit, ModelChoice, Network, RegimeStart, Watch, WatchSettings,
};
use crate::health::{self, Calibrations, Peer, PeerDistance, PeerTrack, PredictRule, SignalRule};
use crate::model::{ComponentId, Labels, METRIC_NAME, Millis, Sample, Timestamp};
use crate::plan::{Ledger, Outcome};
use crate::store::Store;

/// The metric under which signals are kept: what forecasts learn from after a restart.
pub const SIGNAL_METRIC: &str = "forestall_signal";

/// A watch whose signal has had no value for this long (or for two horizons, if that is longer) is dropped.
const FORGOTTEN_AFTER: Millis = Millis(2 * Millis::HOUR.0);

/// Watches that learn from the past or are fitted in one pass: so many, or this part of all if that is more.
const COSTLY_MIN: usize = 500;
const COSTLY_PARTS: usize = 16;
/// Series from which a network learns in one pass, and windows of them.
const LESSONS: usize = 16;
const LESSON_WINDOWS: usize = 64;
/// With more watches than this, further ones get the small bank: what is watched most closely should be watched first.
const FULL_BANKS_MAX: usize = 20_000;
/// The least lead that is of use, as a part of the horizon, where no policy has a hand.
const LEAD_MIN_PARTS: i64 = 24;

/// Rule and signal.
type SignalKey = (String, String);

/// The watches of one signal, and how they watch.
#[derive(Debug)]
struct Watched {
    settings: Arc<WatchSettings>,
    /// The kind of its components.
    kind: String,
    by_component: BTreeMap<ComponentId, Entry>,
    /// The same settings with the part of the calendar that concerns some components, by the numbers of its events.
    of_events: BTreeMap<Vec<usize>, Arc<WatchSettings>>,
    /// What serves the watches that name the LSTM, once it is trained.
    network: Option<Arc<Network>>,
    /// The same while it learns.
    training: Option<Network>,
    /// What was before the first pass and is not kept as a signal, until a watch has learned from it.
    unkept: BTreeMap<ComponentId, Vec<Sample>>,
    /// Watches of an earlier process that have not been asked for yet.
    restored: BTreeMap<ComponentId, Watch>,
}

/// What an earlier process had learned of one signal.
#[derive(Debug, Default)]
struct RestoredSignal {
    watches: BTreeMap<ComponentId, Watch>,
    network: Option<Network>,
}

#[derive(Debug)]
struct Entry {
    watch: Watch,
    foresight: Foresight,
    /// What siblings are compared with, where the signal asks for it.
    track: PeerTrack,
    peers: Option<PeerDistance>,
    labels: Labels,
    /// What was pushed last.
    newest: (Option<f64>, Option<Limit>),
    /// Whether it has learned from what there was before it was watched.
    is_primed: bool,
    seen_at: Timestamp,
    pushed_at: Timestamp,
}

/// A watch that is asked in this pass, and what it needs for an answer.
struct Due<'a> {
    entry: &'a mut Entry,
    calibration: &'a Calibration,
    network: Option<&'a Arc<Network>>,
    unkept: &'a [Sample],
    is_chosen: bool,
}

/// All watches, by signal and component.
#[derive(Debug, Default)]
pub(super) struct Watches {
    signals: BTreeMap<SignalKey, Watched>,
    /// Up to when our own actions have been taken as regime starts.
    actions_seen_to: Timestamp,
    /// Rule → component → what the rule's expressions of regimes said last.
    regimes: BTreeMap<String, BTreeMap<ComponentId, Vec<Option<u64>>>>,
    /// The place among all watches up to which costly work has been done.
    worked_to: usize,
    /// What an earlier process had learned, until it is asked for.
    restored: BTreeMap<SignalKey, RestoredSignal>,
}

impl Watches {
    /// Takes what was observed of a rule at `now`; `interval` is how often that is.
    pub(super) fn take(
        &mut self,
        store: &Store,
        settings: &Settings,
        (rule, interval): (&PredictRule, Millis),
        observed: Observed<'_>,
        now: Timestamp,
    ) {
        match observed {
            Observed::Regimes(values) => self.take_regimes(rule, values, now),
            Observed::Signal(signal, readings) => {
                self.take_readings(store, settings, (rule, signal, interval), readings, now);
            }
        }
    }

    /// Starts a regime for the signals of each component for which a value is not what it was. A value that is absent says
    /// nothing.
    fn take_regimes(&mut self, rule: &PredictRule, values: BTreeMap<ComponentId, Vec<Option<u64>>>, now: Timestamp) {
        if rule.regimes.is_empty() {
            self.regimes.remove(&rule.name);
            return;
        }
        let known = self.regimes.entry(rule.name.clone()).or_default();
        for (component, values) in values {
            let before = known.entry(component.clone()).or_default();
            before.resize(values.len(), None);
            let mut changed = false;
            for (before, value) in before.iter_mut().zip(values).filter(|(_, value)| value.is_some()) {
                changed |= before.is_some() && *before != value;
                *before = value;
            }
            let signals = self.signals.iter_mut().filter(|((of, _), _)| changed && *of == rule.name);
            for entry in signals.filter_map(|(_, watched)| watched.by_component.get_mut(&component)) {
                entry.watch.start_regime(now, RegimeStart::Told);
            }
        }
        let watched: Vec<&Watched> =
            self.signals.iter().filter(|((of, _), _)| *of == rule.name).map(|(_, watched)| watched).collect();
        // Before the first readings there is nothing watched yet.
        if !watched.is_empty() {
            known.retain(|component, _| watched.iter().any(|watched| watched.by_component.contains_key(component)));
        }
    }

    /// Feeds one signal's readings: known components that are not among them get a gap.
    fn take_readings(
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
        let size = if self.len() < FULL_BANKS_MAX { BankSize::Full } else { BankSize::Lite };
        let restored = self.restored.remove(&key).unwrap_or_default();
        let mut watched = known.unwrap_or_else(|| {
            let unkept = priming::unkept_past(store, settings, rule, signal, interval, now);
            Watched::new(Arc::new(wanted), &rule.kind, unkept, restored)
        });
        watched.kind.clone_from(&rule.kind);
        for Reading { component, value, limit } in readings {
            let Watched { settings, by_component, of_events, restored, network, .. } = &mut watched;
            let entry = by_component.entry(component).or_insert_with_key(|component| {
                let settings = with_events_of(settings, of_events, component, &rule.labels);
                let known = restored.remove(component);
                let known = known.and_then(|watch| watch.resumed(&settings, network.as_ref()));
                let fresh = || Watch::sized(settings.clone(), seed_of(rule, signal, component), size);
                Entry { is_primed: known.is_some(), ..Entry::new(rule, signal, component, known.unwrap_or_else(fresh)) }
            });
            entry.push(now, value, limit);
            if signal.peers.is_some() {
                entry.track.note(now, value, rule.horizon);
            }
            if let Some(value) = value {
                store.append(&entry.labels, Sample { at: now, value });
            }
        }
        for entry in watched.by_component.values_mut().filter(|entry| entry.pushed_at < now) {
            // The line is where it was: one value that is missing must not end what is foreseen.
            let (_, limit) = entry.newest;
            entry.push(now, None, limit);
            entry.track = PeerTrack::default();
        }
        watched.compare_peers(rule, signal);
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
        self.regimes.retain(|rule, _| wanted.iter().any(|(wanted, _)| wanted == rule));
    }

    /// Asks every watch that was fed at `now`, on all cores; the others keep what they said. `calibrations` say what the
    /// evidence means under each rule. What costs milliseconds, learning from the past and fitting, is spread: a pass does
    /// it for a share of the watches at most, each in its turn.
    pub(super) fn foresee(&mut self, store: &Store, settings: &Settings, calibrations: &Calibrations, now: Timestamp) {
        let from = now - settings.store.signal_retention;
        let all = self.signals.iter_mut().flat_map(|((rule, _), watched)| {
            let calibration = calibrations.of(rule, &watched.kind);
            let Watched { by_component, unkept, network, .. } = watched;
            let (network, unkept) = (network.as_ref(), &*unkept);
            by_component.iter_mut().map(move |(component, entry)| {
                let unkept = unkept.get(component).map_or(&[][..], Vec::as_slice);
                Due { entry, calibration, network, unkept, is_chosen: false }
            })
        });
        let mut due: Vec<Due<'_>> = all.filter(|due| due.entry.pushed_at == now).collect();
        self.worked_to = choose(&mut due, self.worked_to);
        due.par_iter_mut().for_each(|due| {
            if due.is_chosen && !due.entry.is_primed {
                due.entry.prime(store, from, due.unkept);
            }
            if due.is_chosen && due.entry.watch.wants_refit(due.network) {
                due.entry.watch.refit(due.network);
            }
            due.entry.foresight = due.entry.watch.foresee(now, due.calibration);
        });
        for watched in self.signals.values_mut() {
            watched.unkept.retain(|id, _| watched.by_component.get(id).is_some_and(|entry| !entry.is_primed));
            watched.train(now);
        }
    }

    /// What is foreseen for one signal, by component, and how far each is from its siblings.
    pub(super) fn foresights(
        &self,
        rule: &PredictRule,
        signal: &SignalRule,
    ) -> impl Iterator<Item = (&ComponentId, &Foresight, Option<PeerDistance>)> + use<'_> {
        let watched = self.signals.get(&(rule.name.clone(), signal.name.clone()));
        let entries = watched.into_iter().flat_map(|watched| &watched.by_component);
        entries.map(|(component, entry)| (component, &entry.foresight, entry.peers))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.signals.values().map(|watched| watched.by_component.len()).sum()
    }
}

impl Watched {
    fn new(
        settings: Arc<WatchSettings>,
        kind: &str,
        unkept: BTreeMap<ComponentId, Vec<Sample>>,
        restored: RestoredSignal,
    ) -> Watched {
        let (trained, training) = match restored.network {
            Some(network) if network.is_trained() => (Some(Arc::new(network)), None),
            other => (None, other),
        };
        Watched {
            settings,
            kind: kind.to_owned(),
            by_component: BTreeMap::new(),
            of_events: BTreeMap::new(),
            network: trained,
            training,
            unkept,
            restored: restored.watches,
        }
    }

    /// Lets the network of a signal that names the LSTM learn a little, from a few components at a time, until more no longer
    /// helps: the work of a pass is bounded, and the same on every replica.
    fn train(&mut self, now: Timestamp) {
        if self.settings.model != ModelChoice::Lstm || self.network.is_some() || self.by_component.is_empty() {
            return;
        }
        let count = self.by_component.len();
        let pass = usize::try_from(now.0 / self.settings.interval.0.max(1)).unwrap_or(0);
        let turn = self.by_component.values().cycle().skip(pass.wrapping_mul(LESSONS) % count).take(count.min(LESSONS));
        let lessons: Vec<Lesson> = turn.filter_map(|entry| entry.watch.lesson()).collect();
        let Some(first) = lessons.first() else { return };
        let mut network = self.training.take().unwrap_or_else(|| Network::for_lessons(first, 1));
        network.study(&lessons, LESSON_WINDOWS);
        if network.is_trained() {
            self.network = Some(Arc::new(network));
        } else {
            self.training = Some(network);
        }
    }

    /// Compares all components that have a value with each other, where the signal asks for it.
    fn compare_peers(&mut self, rule: &PredictRule, signal: &SignalRule) {
        let Some(settings) = signal.peers else {
            self.by_component.values_mut().for_each(|entry| entry.peers = None);
            return;
        };
        let tracks = self.by_component.iter();
        let peers: BTreeMap<ComponentId, Peer> = tracks
            .filter_map(|(component, entry)| Some((component.clone(), entry.track.peer(rule.horizon)?)))
            .collect();
        let mut distances = health::compare_peers(settings, &peers);
        for (component, entry) in &mut self.by_component {
            entry.peers = distances.remove(component);
        }
    }
}

/// Marks the watches that have something costly to do and may do it in this pass, from place `from` on and around; returns
/// the place to go on from.
fn choose(due: &mut [Due<'_>], from: usize) -> usize {
    let count = due.len();
    let budget = COSTLY_MIN.max(count / COSTLY_PARTS);
    let mut chosen = 0;
    for offset in 0..count {
        let place = (from + offset) % count;
        let Due { entry, network, .. } = &due[place];
        if !entry.is_primed || entry.watch.wants_refit(*network) {
            due[place].is_chosen = true;
            chosen += 1;
            if chosen == budget {
                return (place + 1) % count;
            }
        }
    }
    0
}

/// The settings for a component: the shared ones, or those with the part of the calendar that concerns it.
fn with_events_of(
    shared: &Arc<WatchSettings>,
    of_events: &mut BTreeMap<Vec<usize>, Arc<WatchSettings>>,
    component: &ComponentId,
    labels: &Labels,
) -> Arc<WatchSettings> {
    let concerning = shared.calendar.concerning(component, labels);
    if concerning.len() == shared.calendar.events().len() {
        return shared.clone();
    }
    let narrowed = of_events.entry(concerning).or_insert_with_key(|numbers| {
        Arc::new(WatchSettings { calendar: Arc::new(shared.calendar.only(numbers)), ..WatchSettings::clone(shared) })
    });
    narrowed.clone()
}

impl Entry {
    fn new(rule: &PredictRule, signal: &SignalRule, component: &ComponentId, watch: Watch) -> Entry {
        let own = [
            (METRIC_NAME, SIGNAL_METRIC),
            ("rule", &rule.name),
            ("signal", &signal.name),
            ("kind", &rule.kind),
            ("component", &component.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let long_ago = Timestamp(i64::MIN);
        Entry {
            watch,
            foresight: Foresight::unknown(long_ago, "not yet assessed"),
            track: PeerTrack::default(),
            peers: None,
            labels: Labels::new(component.labels.iter().cloned().chain(own)),
            newest: (None, None),
            is_primed: false,
            seen_at: long_ago,
            pushed_at: long_ago,
        }
    }

    /// Learns from what is kept of the signal, and from `unkept` before that.
    fn prime(&mut self, store: &Store, from: Timestamp, unkept: &[Sample]) {
        let (value, limit) = self.newest;
        self.watch.prime(priming::past(store, &self.labels, unkept, (from, self.pushed_at)), limit);
        self.watch.push(self.pushed_at, value, limit);
        self.is_primed = true;
    }

    fn push(&mut self, now: Timestamp, value: Option<f64>, limit: Option<Limit>) {
        self.watch.push(now, value, limit);
        self.newest = (value, limit);
        self.pushed_at = now;
        if value.is_some() {
            self.seen_at = now;
        }
    }
}

/// The least lead at which a warning is still of use: the actuation time of the fastest hand there is for a rule's kind,
/// where no policy has one a 24th of the horizon.
pub fn lead_min(settings: &Settings, rule: &PredictRule) -> Millis {
    let policies = settings.policies.iter();
    let policies = policies.filter(|policy| policy.selector.kind.as_ref().is_none_or(|kind| *kind == rule.kind));
    let fastest = policies.flat_map(|policy| policy.ladder.iter().map(|rung| rung.actuation_time)).min();
    fastest.unwrap_or(rule.horizon / LEAD_MIN_PARTS)
}

fn watch_settings(settings: &Settings, rule: &PredictRule, signal: &SignalRule, interval: Millis) -> WatchSettings {
    let seasons = signal.baseline.as_ref().map(|baseline| baseline.seasons.clone()).unwrap_or_default();
    WatchSettings {
        horizon: rule.horizon,
        interval,
        side: signal.side,
        lasting: signal.lasting,
        seasons,
        band: signal.baseline.as_ref().map(|b| Band { deviation: b.deviation, min_abs: b.min_abs }),
        model: signal.model,
        // A crossing nearer than that belongs to the ordinary alert.
        actuation_time: lead_min(settings, rule),
        floor: signal.floor,
        ceiling: signal.ceiling,
        calendar: settings.calendar.clone(),
    }
}

/// FNV-1a over rule, signal and component: the same on every replica and in every run.
fn seed_of(rule: &PredictRule, signal: &SignalRule, component: &ComponentId) -> u64 {
    let text = format!("{}\0{}\0{component}", rule.name, signal.name);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Snapshots.
impl Watches {
    /// Every watch with where it belongs.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str, &ComponentId, &Watch)> {
        self.signals.iter().flat_map(|((rule, signal), watched)| {
            let primed = watched.by_component.iter().filter(|(_, entry)| entry.is_primed);
            primed.map(move |(component, entry)| (rule.as_str(), signal.as_str(), component, &entry.watch))
        })
    }

    /// Every network, trained or learning, with its rule and signal.
    pub(super) fn networks(&self) -> impl Iterator<Item = (&str, &str, &Network)> {
        self.signals.iter().filter_map(|((rule, signal), watched)| {
            let network = watched.network.as_deref().or(watched.training.as_ref())?;
            Some((rule.as_str(), signal.as_str(), network))
        })
    }

    /// Takes a watch of an earlier process; it is used when its component is first seen.
    pub(super) fn restore_watch(&mut self, key: SignalKey, component: ComponentId, watch: Watch) {
        self.restored.entry(key).or_default().watches.insert(component, watch);
    }

    /// The same of a network.
    pub(super) fn restore_network(&mut self, key: SignalKey, network: Network) {
        self.restored.entry(key).or_default().network = Some(network);
    }
}
