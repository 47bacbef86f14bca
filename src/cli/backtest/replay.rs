//! Plays a record through the server's own passes on a simulated clock, and keeps what was said and what came.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::progress::Progress;
use crate::cli::readers::openmetrics::Labelled;
use crate::config::Settings;
use crate::cycle::{Cycle, Report, RuleQuality, predict_rules};
use crate::forecast::{Foresight, Side};
use crate::health::{
    Alarm, AlarmChange, AlarmPolicy, Announced, Assessment, Episode, Failure, Moment, PredictRule, Resolution,
    SignalAssessment,
};
use crate::model::{ComponentId, Millis, Timestamp};
use crate::plan::{ActionKind, Gates, Ledger, Mode, Outcome, Plan, Reason};
use crate::store::Store;

/// How often what is older than the retention is dropped.
const EXPIRE_EVERY: Millis = Millis(10 * Millis::MINUTE.0);
/// Of so many components under a rule the course is kept for the page; the others are scored all the same.
const COURSES_MAX: usize = 2000;
/// How many different faults are kept.
const FAULTS_MAX: usize = 100;
/// Breaches that are less than so many cells apart are one failure.
const CELLS_BETWEEN_FAILURES: i64 = 2;

/// A rule and one of its components.
pub(super) type TrackKey = (String, ComponentId);

/// A signal at one moment, for the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// When.
    pub(super) at: Timestamp,
    /// The value of the signal that is likeliest to breach.
    pub(super) value: Option<f64>,
    /// The line it is held against.
    pub(super) threshold: Option<f64>,
    /// The probability.
    pub(super) probability: Option<f64>,
}

/// What was said of one component under one rule, and what came.
#[derive(Debug)]
pub(super) struct Track {
    alarm: Alarm,
    beyond_since: BTreeMap<String, Timestamp>,
    breached: bool,
    seen_at: Timestamp,
    /// When it was assessed first and last.
    pub(super) span: (Timestamp, Timestamp),
    next_cell: Timestamp,
    keeps_course: bool,
    /// The times of firing, oldest first.
    pub(super) episodes: Vec<Episode>,
    /// The rule's own breaches, oldest first.
    pub(super) failures: Vec<Failure>,
    /// The probabilities outside of breaches, one for each cell.
    pub(super) moments: Vec<Moment>,
    /// The signal's course, one point for each cell.
    pub(super) course: Vec<Point>,
    /// How many values lay inside the 95 % interval that was forecast for them, and how many there were.
    pub(super) inside: (u64, u64),
}

/// What would have been done.
#[derive(Debug, Default)]
pub(super) struct WouldDo {
    /// Actions by kind.
    pub(super) actions: BTreeMap<ActionKind, u64>,
    /// What was newly held back, by its reason.
    pub(super) declined: BTreeMap<Reason, u64>,
}

/// All that a replay has shown.
#[derive(Debug)]
pub(super) struct Replayed {
    /// The first and the last pass.
    pub(super) span: (Timestamp, Timestamp),
    /// How many passes there were.
    pub(super) passes: u64,
    /// By rule and component.
    pub(super) tracks: BTreeMap<TrackKey, Track>,
    /// What would have been done.
    pub(super) would_do: WouldDo,
    /// What could not be evaluated, and in how many passes.
    pub(super) faults: BTreeMap<(String, String), u64>,
}

/// Why a replay ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted; nothing was written")]
pub(super) struct Interrupted;

/// How a record is played.
#[derive(Debug, Clone, Copy)]
pub(super) struct Play {
    /// There is no pass before this; what lies before it can be looked back at.
    pub(super) start: Option<Timestamp>,
    /// The distance of passes.
    pub(super) interval: Millis,
    /// Components fire at and above this probability; where absent, as the server has it.
    pub(super) fires_from: Option<f64>,
}

impl Play {
    /// From which probability on a rule's components fire.
    pub(super) fn policy(&self, rule: &PredictRule) -> AlarmPolicy {
        let usual = AlarmPolicy::new(rule.horizon, self.interval);
        self.fires_from.map_or(usual, |from| AlarmPolicy { near: from, far: from, ..usual })
    }
}

/// Plays all series, while `stop` is down.
///
/// # Errors
/// Where `stop` goes up.
pub(super) fn replay(
    settings: &Settings,
    series: &Labelled,
    play: Play,
    stop: &AtomicBool,
) -> Result<Replayed, Interrupted> {
    let interval = play.interval;
    let span = span(series, play);
    let passes = (span.1 - span.0).0 / interval.0 + 1;
    let progress = Progress::new(usize::try_from(passes).unwrap_or(0), "replaying");
    let store = Store::new(settings.store.clone());
    let mut cycle = Cycle::new();
    let mut ledger = Ledger::default();
    let mut fed: Vec<usize> = vec![0; series.len()];
    let mut replayed =
        Replayed { span, passes: 0, tracks: BTreeMap::new(), would_do: WouldDo::default(), faults: BTreeMap::new() };
    let policies = predict_rules(settings).map(|rule| (rule.name.clone(), play.policy(rule))).collect();
    let mut recorder = Recorder { settings, policies, held_back: BTreeMap::new() };
    let mut expired_at = span.0;
    let mut now = span.0;
    while now <= span.1 {
        if stop.load(Ordering::Relaxed) {
            progress.end();
            return Err(Interrupted);
        }
        for ((labels, samples), fed) in series.iter().zip(&mut fed) {
            while let Some(sample) = samples.get(*fed).filter(|sample| sample.at <= now) {
                store.append(labels, *sample);
                *fed += 1;
            }
        }
        if now - expired_at >= EXPIRE_EVERY {
            store.expire(now);
            expired_at = now;
        }
        let gates = Gates { mode: Mode::Observe, journal_ok: true, interval, ..Gates::default() };
        let report = cycle.run(&store, settings, ledger.clone(), gates, now);
        write_down(&mut ledger, &report.plan, now);
        recorder.take(&report, &mut replayed, now);
        replayed.passes += 1;
        progress.step();
        now = now + interval;
    }
    progress.end();
    Ok(replayed)
}

/// The first and the last pass: aligned as the server's are, so that the first sees a sample and the last sees all.
fn span(series: &Labelled, Play { start, interval, .. }: Play) -> (Timestamp, Timestamp) {
    let first = series.iter().filter_map(|(_, samples)| samples.first()).map(|sample| sample.at).min();
    let last = series.iter().filter_map(|(_, samples)| samples.last()).map(|sample| sample.at).max();
    let up = |at: Timestamp| {
        let down = at.align_down(interval);
        if down < at { down + interval } else { down }
    };
    let (first, last) = (up(first.max(start).unwrap_or_default()), up(last.unwrap_or_default()));
    (first, last.max(first))
}

/// In observe mode actions are written down and nothing else: as the executor does it.
fn write_down(ledger: &mut Ledger, plan: &Plan, now: Timestamp) {
    ledger.note(plan);
    for action in &plan.actions {
        ledger.record_intent(action);
        ledger.record_outcome(&action.id, Outcome::DryRun, None, now);
    }
    ledger.prune(now);
}

/// Takes out of each report what is scored.
struct Recorder<'a> {
    settings: &'a Settings,
    /// When each rule's components fire, as far as it has been taught.
    policies: BTreeMap<String, AlarmPolicy>,
    /// What the last plan held back, and why.
    held_back: BTreeMap<ComponentId, Reason>,
}

impl Recorder<'_> {
    fn take(&mut self, report: &Report, replayed: &mut Replayed, now: Timestamp) {
        self.teach(report);
        for assessment in &report.assessments {
            for rule in predict_rules(self.settings).filter(|rule| rule.kind == assessment.component.kind) {
                self.take_rule(rule, assessment, &mut replayed.tracks, now);
            }
        }
        // A component that is no longer assessed says nothing any more.
        for ((rule, _), track) in replayed.tracks.iter_mut().filter(|(_, track)| track.seen_at < now) {
            if let Some(policy) = self.policies.get(rule) {
                track.note(&Foresight::unknown(now, "it is over"), policy, now);
            }
            track.seen_at = now;
        }
        for action in &report.plan.actions {
            *replayed.would_do.actions.entry(action.kind).or_default() += 1;
        }
        let mut held_back = BTreeMap::new();
        for declined in report.plan.declined.iter().filter(|declined| declined.reason != Reason::Observe) {
            if self.held_back.get(&declined.component) != Some(&declined.reason) {
                *replayed.would_do.declined.entry(declined.reason).or_default() += 1;
            }
            held_back.insert(declined.component.clone(), declined.reason);
        }
        self.held_back = held_back;
        for fault in &report.faults {
            let key = (fault.what.clone(), fault.why.clone());
            if replayed.faults.len() < FAULTS_MAX || replayed.faults.contains_key(&key) {
                *replayed.faults.entry(key).or_default() += 1;
            }
        }
    }

    /// Lets each rule's alarms know how well its predictions, and those of its kind, have announced breaches.
    fn teach(&mut self, report: &Report) {
        let of_rule: BTreeMap<&str, Announced> =
            report.quality.iter().map(|quality| (quality.rule.as_str(), announced(quality))).collect();
        let of_rule = |rule: &PredictRule| of_rule.get(rule.name.as_str()).copied().unwrap_or_default();
        let mut of_kind: BTreeMap<&str, Announced> = BTreeMap::new();
        for rule in predict_rules(self.settings) {
            let kind = of_kind.entry(&rule.kind).or_default();
            *kind = kind.and(of_rule(rule));
        }
        for rule in predict_rules(self.settings) {
            if let (Some(policy), Some(kind)) = (self.policies.get_mut(&rule.name), of_kind.get(rule.kind.as_str())) {
                *policy = policy.taught(of_rule(rule), *kind);
            }
        }
    }

    fn take_rule(
        &self,
        rule: &PredictRule,
        assessment: &Assessment,
        tracks: &mut BTreeMap<TrackKey, Track>,
        now: Timestamp,
    ) {
        let signals: Vec<&SignalAssessment> =
            assessment.signals.iter().filter(|signal| signal.rule == rule.name).collect();
        if signals.is_empty() {
            return;
        }
        let Some(policy) = self.policies.get(&rule.name) else { return };
        let keeps_course = tracks.len() < COURSES_MAX;
        let key = (rule.name.clone(), assessment.component.clone());
        let track = tracks.entry(key).or_insert_with(|| Track::new(keeps_course));
        track.take(&signals, policy, now);
    }
}

fn announced(quality: &RuleQuality) -> Announced {
    let count =
        |of: Resolution| quality.counts.iter().filter(|(one, _)| *one == of).map(|(_, count)| *count).sum::<u64>();
    let warned = count(Resolution::TruePositive);
    Announced { predictions: warned + count(Resolution::FalseNegative), warned }
}

impl Track {
    fn new(keeps_course: bool) -> Track {
        Track {
            alarm: Alarm::default(),
            beyond_since: BTreeMap::new(),
            breached: false,
            seen_at: Timestamp(i64::MIN),
            span: (Timestamp(i64::MAX), Timestamp(i64::MIN)),
            next_cell: Timestamp(i64::MIN),
            keeps_course,
            episodes: Vec::new(),
            failures: Vec::new(),
            moments: Vec::new(),
            course: Vec::new(),
            inside: (0, 0),
        }
    }

    fn take(&mut self, signals: &[&SignalAssessment], policy: &AlarmPolicy, now: Timestamp) {
        self.seen_at = now;
        self.span = (self.span.0.min(now), now);
        for signal in signals {
            self.note_line(signal, now);
        }
        for outside in signals.iter().filter_map(|signal| signal.foresight.outside_interval) {
            self.inside.0 += u64::from(!outside);
            self.inside.1 += 1;
        }
        self.note_breach(signals, policy, now);
        // The likeliest to breach; the first in the order of the report where they are alike.
        let said = |signal: &SignalAssessment| signal.foresight.probability.unwrap_or(-1.0);
        let Some(worst) = signals.iter().rev().max_by(|a, b| said(a).total_cmp(&said(b))) else { return };
        let foresight = &worst.foresight;
        let probability = foresight.probability;
        self.note(foresight, policy, now);
        if now >= self.next_cell {
            self.next_cell = now + policy.hold;
            if let Some(probability) = probability.filter(|_| !self.breached) {
                let raw = signals.iter().filter_map(|signal| signal.foresight.probability_raw).fold(0.0, f64::max);
                self.moments.push(Moment { at: now, probability, raw });
            }
            if self.keeps_course {
                let fresh = foresight.age.is_some_and(|age| age < policy.hold.max(Millis(1)));
                self.course.push(Point {
                    at: now,
                    value: foresight.current.filter(|_| fresh),
                    threshold: foresight.limit.map(|limit| limit.threshold),
                    probability,
                });
            }
        }
    }

    /// Hands what is foreseen to the alarm. While a signal of the component is in breach, nothing is.
    fn note(&mut self, foresight: &Foresight, policy: &AlarmPolicy, now: Timestamp) {
        let nothing = Foresight::unknown(now, "in breach");
        let foresight = if self.breached { &nothing } else { foresight };
        let probability = foresight.probability;
        match self.alarm.take(foresight, policy, now) {
            AlarmChange::Starts => {
                let probability = probability.unwrap_or(0.0);
                let eta = foresight.eta.q50.or(foresight.eta.q10);
                self.episodes.push(Episode { start: now, end: None, probability, eta });
            }
            AlarmChange::Fires(_) => {
                if let (Some(episode), Some(probability)) = (self.episodes.last_mut(), probability) {
                    episode.probability = episode.probability.max(probability);
                }
            }
            AlarmChange::Ends => {
                if let Some(episode) = self.episodes.last_mut() {
                    episode.end = Some(now);
                }
            }
            AlarmChange::Silent => {}
        }
    }

    /// Since when a signal has been beyond its line; a missing value changes nothing.
    fn note_line(&mut self, signal: &SignalAssessment, now: Timestamp) {
        let (Some(value), Some(limit)) = (signal.foresight.current, signal.foresight.limit) else { return };
        let beyond = match signal.side {
            Side::Above => value >= limit.threshold,
            Side::Below => value <= limit.threshold,
        };
        if !beyond {
            self.beyond_since.remove(&signal.signal);
        } else if !self.beyond_since.contains_key(&signal.signal) {
            let measured_at = now - signal.foresight.age.unwrap_or_default();
            self.beyond_since.insert(signal.signal.clone(), measured_at);
        }
    }

    fn note_breach(&mut self, signals: &[&SignalAssessment], policy: &AlarmPolicy, now: Timestamp) {
        let breached: Vec<&SignalAssessment> =
            signals.iter().filter(|signal| signal.foresight.breached).copied().collect();
        let began = breached.iter().filter_map(|signal| self.beyond_since.get(&signal.signal)).min().copied();
        match (self.breached, !breached.is_empty()) {
            (false, true) => {
                let at = began.unwrap_or(now);
                let close = policy.hold * CELLS_BETWEEN_FAILURES;
                match self.failures.last_mut().filter(|last| last.until.is_some_and(|until| at - until < close)) {
                    Some(last) => last.until = None,
                    None => self.failures.push(Failure { at, until: None }),
                }
            }
            (true, false) => {
                if let Some(last) = self.failures.last_mut() {
                    last.until = Some(now);
                }
            }
            _ => {}
        }
        self.breached = !breached.is_empty();
    }
}
