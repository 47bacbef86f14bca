//! Scores foresight on fleets with known failures.
//!
//! The ordinary test scores a small fleet of ours and asserts floors. `FORESTALL_FLEETS=101,102` scores whole fleets of ours of
//! both profiles; `FORESTALL_FAILURE_DATA` names folders of recorded ones, separated by `:` (see `fleets`). With either,
//! `FORESTALL_LEARN=1` teaches each component's calibration on the way, as the server does, and
//! `FORESTALL_RECORD=0.1` lets record highs fire from that probability on, and
//! `FORESTALL_PRINT=errors` or `prior` prints every miss and false alarm, or what the prior is made of.
//!
//! Rules: a component fires as `AlarmPolicy` says. A notification is the start of firing, and then one every
//! min(4 h, `lead_max` / 2). It is a hit inside [T − `lead_max`, T − `lead_min`] of a failure at T; later is neutral; earlier is false
//! unless a hit of the same firing follows; in the last `lead_max` of the record it is undecided; all else is false.
//! The first 20 % of the span is warm-up.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measurement for people: it prints, and stops at files of another shape"
)]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use forestall::forecast::{Calibration, Evidence, Foresight, Watch};
use forestall::health::{Alarm, AlarmChange, AlarmPolicy};
use forestall::model::{Millis, Timestamp};
use rayon::prelude::*;

use crate::fleets::{Component, Profile, make_fleet, read_fleet};

/// Evidence is taken so often in a horizon, and stands for as small a part of a case.
const TAUGHT_PER_HORIZON: i64 = 24;
/// After a failure the present is judged by its past for so many seconds.
const AFTERMATH: i64 = 7200;

/// Whether outcomes are learned on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Learning {
    Off,
    On,
}

/// What one moment said, for calibration.
#[derive(Clone, Copy)]
struct Moment {
    raw: f64,
    probability: f64,
    /// Whether a breach began within the horizon.
    came: bool,
    /// The part of a horizon it stands for: moments of one horizon are one case, not many.
    weight: f64,
    evidence: Option<Evidence>,
}

#[derive(Default)]
struct Score {
    failures: usize,
    /// Failures that announce themselves.
    predictable: usize,
    hits: usize,
    predictable_hits: usize,
    early: usize,
    false_alarms: usize,
    component_days: f64,
    leads: Vec<f64>,
    moments: Vec<Moment>,
    /// Breaches that were not before the time told: how many of how many.
    eta_q10_kept: (usize, usize),
    eta_q50_kept: (usize, usize),
    /// By class: failures, hits, false alarms.
    classes: BTreeMap<String, (usize, usize, usize)>,
    errors: Vec<String>,
}

/// Learns what became of evidence once its horizon is over.
struct Teacher {
    calibration: Calibration,
    pending: VecDeque<(i64, Evidence)>,
}

impl Teacher {
    fn take(&mut self, component: &Component, time: i64, foresight: &Foresight) {
        let spacing = (component.lead_max / TAUGHT_PER_HORIZON).max(component.settings.interval.0 / 1000);
        while let Some((at, evidence)) = self.pending.front().copied().filter(|(at, _)| at + component.lead_max < time)
        {
            self.pending.pop_front();
            let came = component.failures.iter().any(|(fail, _)| (at..=at + component.lead_max).contains(fail));
            self.calibration.learn(&evidence, came, spacing as f64 / component.lead_max as f64);
        }
        let due = self.pending.back().is_none_or(|(at, _)| time - at >= spacing);
        if let Some(evidence) = foresight.evidence.filter(|_| due && !foresight.breached) {
            self.pending.push_back((time, evidence));
        }
    }
}

/// The warm-up ends here.
fn warm_from(component: &Component) -> i64 {
    let (start, end) = (component.times[0], component.times[component.times.len() - 1]);
    start + (end - start) / 5
}

/// The alarm policy that ships, with records where they were asked for.
fn policy(component: &Component) -> AlarmPolicy {
    let policy = AlarmPolicy::new(component.settings.horizon, component.settings.interval);
    AlarmPolicy { record: asked("FORESTALL_RECORD").map(|from| from.parse().unwrap()), ..policy }
}

/// Replays one component and scores it.
fn replay(component: &Component, learning: Learning) -> Score {
    let mut score = Score::default();
    let mut watch = Watch::new(component.settings.clone(), 7);
    let mut teacher = Teacher { calibration: Calibration::prior(), pending: VecDeque::new() };
    let policy = policy(component);
    let mut alarm = Alarm::default();
    let mut firings: Vec<Vec<i64>> = Vec::new();
    let warm = warm_from(component);
    let renotify = (4 * 3600).min(component.lead_max / 2);
    let mut firing_before = false;
    for (time, value) in component.times.iter().zip(&component.values) {
        let at = Timestamp::from_secs(*time);
        watch.push(at, *value, Some(component.limit));
        if watch.wants_refit(None) {
            watch.refit(None);
        }
        let foresight = watch.foresee(at, &teacher.calibration);
        assert!(foresight.depth.is_finite(), "{} at {time}: {foresight:?}", component.name);
        if learning == Learning::On {
            teacher.take(component, *time, &foresight);
        }
        let change = alarm.take(&foresight, &policy, at);
        let firing = matches!(change, AlarmChange::Starts | AlarmChange::Fires(_)) && *time >= warm;
        match firings.last_mut().filter(|_| firing_before) {
            Some(notes) if firing && time - notes[notes.len() - 1] >= renotify => notes.push(*time),
            None if firing => firings.push(vec![*time]),
            _ => {}
        }
        firing_before = firing;
        score.note(component, *time, &foresight, firing);
    }
    score.judge(component, &firings);
    score
}

impl Score {
    /// Takes one moment for calibration, where its outcome is known and it does not lie in or just after a failure.
    fn note(&mut self, component: &Component, time: i64, foresight: &Foresight, firing: bool) {
        let end = component.times[component.times.len() - 1];
        let clear = component.failures.iter().all(|(fail, over)| time < *fail || time > over + AFTERMATH);
        if time < warm_from(component) || time + component.lead_max > end || !clear || foresight.breached {
            return;
        }
        let leads = component.failures.iter().map(|(fail, _)| fail - time);
        let next = leads.filter(|lead| (0..=component.lead_max).contains(lead)).min();
        self.moments.push(Moment {
            raw: foresight.probability_raw.unwrap_or(0.0),
            probability: foresight.probability.unwrap_or(0.0),
            came: next.is_some(),
            weight: (component.settings.interval.0 / 1000) as f64 / component.lead_max as f64,
            evidence: foresight.evidence,
        });
        if let (Some(lead), true) = (next, firing) {
            let count = |eta: Option<Millis>, kept: &mut (usize, usize)| {
                kept.0 += usize::from(eta.is_some_and(|eta| lead * 1000 >= eta.0));
                kept.1 += usize::from(eta.is_some());
            };
            count(foresight.eta.q10, &mut self.eta_q10_kept);
            count(foresight.eta.q50, &mut self.eta_q50_kept);
        }
    }

    fn judge(&mut self, component: &Component, firings: &[Vec<i64>]) {
        let (warm, end) = (warm_from(component), component.times[component.times.len() - 1]);
        let (lead_min, lead_max) = (component.lead_min, component.lead_max);
        let by_class = self.classes.entry(component.class.clone()).or_default();
        for (fail, _) in component.failures.iter().filter(|(fail, _)| *fail >= warm) {
            let within = fail - lead_max..=fail - lead_min;
            let first = firings.iter().flatten().filter(|at| within.contains(at)).min();
            self.failures += 1;
            self.predictable += usize::from(component.predictable);
            by_class.0 += 1;
            let Some(first) = first else {
                self.errors.push(format!("missed: {} at {fail}", component.name));
                continue;
            };
            self.hits += 1;
            self.predictable_hits += usize::from(component.predictable);
            by_class.1 += 1;
            self.leads.push((fail - first) as f64 / 3600.0);
            self.early += usize::from(fail - first >= lead_max / 4);
        }
        let is_hit =
            |at: i64| component.failures.iter().any(|(fail, _)| (fail - lead_max..=fail - lead_min).contains(&at));
        let is_late = |at: i64| component.failures.iter().any(|(fail, over)| (fail - lead_min..=*over).contains(&at));
        for notes in firings {
            for (index, at) in notes.iter().enumerate() {
                let hit_follows = notes[index..].iter().any(|at| is_hit(*at));
                if !hit_follows && !is_late(*at) && *at + lead_max <= end {
                    self.false_alarms += 1;
                    by_class.2 += 1;
                    self.errors.push(format!("false: {} at {at}", component.name));
                }
            }
        }
        self.component_days += (end - warm) as f64 / 86_400.0;
    }

    fn add(mut self, other: Score) -> Score {
        self.failures += other.failures;
        self.predictable += other.predictable;
        self.hits += other.hits;
        self.predictable_hits += other.predictable_hits;
        self.early += other.early;
        self.false_alarms += other.false_alarms;
        self.component_days += other.component_days;
        self.leads.extend(other.leads);
        self.moments.extend(other.moments);
        for (own, others) in
            [(&mut self.eta_q10_kept, other.eta_q10_kept), (&mut self.eta_q50_kept, other.eta_q50_kept)]
        {
            *own = (own.0 + others.0, own.1 + others.1);
        }
        for (class, (failures, hits, false_alarms)) in other.classes {
            let own = self.classes.entry(class).or_default();
            *own = (own.0 + failures, own.1 + hits, own.2 + false_alarms);
        }
        self.errors.extend(other.errors);
        self
    }

    fn precision(&self) -> f64 {
        ratio(self.hits, self.hits + self.false_alarms)
    }

    fn recall(&self) -> f64 {
        ratio(self.hits, self.failures)
    }

    fn f1(&self) -> f64 {
        2.0 * self.precision() * self.recall() / (self.precision() + self.recall()).max(1e-9)
    }

    fn false_a_day(&self) -> f64 {
        self.false_alarms as f64 / self.component_days
    }

    /// Mean distance of the probability from the share that came true, over ten bins.
    fn calibration_error(&self) -> f64 {
        let mut bins = [(0.0, 0.0); 10];
        for moment in &self.moments {
            let bin = &mut bins[((moment.probability * 10.0) as usize).min(9)];
            *bin = (bin.0 + moment.probability, bin.1 + f64::from(u8::from(moment.came)));
        }
        bins.iter().map(|(expected, came)| (expected - came).abs()).sum::<f64>() / self.moments.len() as f64
    }

    /// How much smaller the mean squared error is than that of always saying the base rate (Brier 1950).
    fn brier_skill(&self, of: fn(&Moment) -> f64) -> f64 {
        let count = self.moments.len() as f64;
        let came = |moment: &Moment| f64::from(u8::from(moment.came));
        let base = self.moments.iter().map(came).sum::<f64>() / count;
        let error = self.moments.iter().map(|moment| (of(moment) - came(moment)).powi(2)).sum::<f64>() / count;
        1.0 - error / (base * (1.0 - base))
    }

    fn print(&mut self, name: &str) {
        self.leads.sort_by(f64::total_cmp);
        let lead = self.leads.get(self.leads.len() / 2).copied().unwrap_or(0.0);
        println!(
            "{name}: F1 {:.3} precision {:.3} recall {:.3} ({} of {} failures), of predictable ones {:.3}",
            self.f1(),
            self.precision(),
            self.recall(),
            self.hits,
            self.failures,
            ratio(self.predictable_hits, self.predictable)
        );
        println!(
            "  false {} = {:.4} a component-day; median lead {lead:.2} h; a quarter of the lead left {:.2}",
            self.false_alarms,
            self.false_a_day(),
            ratio(self.early, self.failures)
        );
        println!(
            "  Brier skill raw {:.3} calibrated {:.3}; calibration error {:.4}",
            self.brier_skill(|m| m.raw),
            self.brier_skill(|m| m.probability),
            self.calibration_error()
        );
        println!(
            "  breach not before eta q10: {:.2} of {}; q50: {:.2}",
            ratio(self.eta_q10_kept.0, self.eta_q10_kept.1),
            self.eta_q10_kept.1,
            ratio(self.eta_q50_kept.0, self.eta_q50_kept.1)
        );
        for (class, (failures, hits, false_alarms)) in &self.classes {
            println!("  {class:34} failures {failures:3} hits {hits:3} false {false_alarms:3}");
        }
    }
}

fn ratio(a: usize, b: usize) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn score(fleet: &[Component], learning: Learning) -> Score {
    let scores: Vec<Score> = fleet.par_iter().map(|component| replay(component, learning)).collect();
    scores.into_iter().fold(Score::default(), Score::add)
}

#[expect(clippy::disallowed_methods, reason = "what is measured beyond the ordinary is chosen by who measures")]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn foresees_the_failures_of_a_small_fleet() {
    // Every third component of two fleets: one of each class.
    for (profile, f1, false_a_day) in [(Profile::Five, 0.85, 0.02), (Profile::Minute, 0.7, 0.05)] {
        let fleet: Vec<Component> = make_fleet(profile, 7).into_iter().step_by(3).collect();
        let mut score = score(&fleet, Learning::Off);
        score.print(&format!("{profile:?}, a third of fleet 7"));
        assert!(score.f1() >= f1 && score.false_a_day() <= false_a_day, "{profile:?}: {:#?}", score.errors);
        assert!(score.calibration_error() <= 0.04, "{profile:?}: {}", score.calibration_error());
    }
}

#[test]
fn foresees_the_failures_of_the_fleets_that_are_named() {
    let mut fleets: Vec<(String, Vec<Component>)> = Vec::new();
    for folder in asked("FORESTALL_FAILURE_DATA").iter().flat_map(|folders| folders.split(':')) {
        fleets.push((folder.to_owned(), read_fleet(Path::new(folder))));
    }
    if let Some(seeds) = asked("FORESTALL_FLEETS") {
        for profile in [Profile::Five, Profile::Minute] {
            let made = seeds.split(',').flat_map(|seed| make_fleet(profile, seed.parse().unwrap())).collect();
            fleets.push((format!("{profile:?} {seeds}"), made));
        }
    }
    if fleets.is_empty() {
        println!("skipped: neither FORESTALL_FLEETS nor FORESTALL_FAILURE_DATA names a fleet");
    }
    let learning = if asked("FORESTALL_LEARN").is_some() { Learning::On } else { Learning::Off };
    let print = asked("FORESTALL_PRINT").unwrap_or_default();
    let mut all = Vec::new();
    for (name, fleet) in fleets {
        let mut score = score(&fleet, learning);
        score.print(&name);
        if print == "errors" {
            score.errors.iter().for_each(|error| println!("  {error}"));
        }
        all.append(&mut score.moments);
    }
    if print == "prior" {
        print_prior(&all);
    }
}

/// For each channel and tenth of its score: the share that came, and on how many cases, where no other channel saw more.
fn print_prior(moments: &[Moment]) {
    let mut bins: BTreeMap<String, [(f64, f64); 10]> = BTreeMap::new();
    let mut silence = (0.0, 0.0);
    for moment in moments {
        let Some(evidence) = moment.evidence else { continue };
        let scores = serde_json::to_value(evidence).unwrap();
        let scores: Vec<(&String, f64)> =
            scores.as_object().unwrap().iter().map(|(channel, score)| (channel, score.as_f64().unwrap())).collect();
        let came = if moment.came { moment.weight } else { 0.0 };
        let highest = scores.iter().map(|(_, score)| *score).fold(0.0, f64::max);
        if highest < 0.1 {
            silence = (silence.0 + came, silence.1 + moment.weight);
        }
        for (channel, score) in scores.into_iter().filter(|(_, score)| *score >= highest.max(0.1)) {
            let bin = &mut bins.entry(channel.clone()).or_default()[((score * 10.0) as usize).min(9)];
            *bin = (bin.0 + came, bin.1 + moment.weight);
        }
    }
    println!("silence: {:.4} of {:.0} cases", silence.0 / silence.1, silence.1);
    for (channel, bins) in bins {
        let shares = bins.map(|(came, cases)| format!("{:.2} of {cases:.0}", came / f64::max(cases, 1e-9)));
        println!("{channel}: {}", shares.join(", "));
    }
}
