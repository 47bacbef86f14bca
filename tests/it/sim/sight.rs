//! What forestall gets to see of the world: a foresight of each component from its load so far, never from its future,
//! and what is free. Weather (outages, NaN, what vanishes) lies between the two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forestall::cycle::Seen;
use forestall::forecast::{Eta, Foresight, Knowledge, Limit, Side};
use forestall::health::{Assessment, HealthTrack, ScalesWith, SignalAssessment, Standing, Subject, assess, rank};
use forestall::model::{Labels, Millis, Timestamp};

use super::chance::Chance;
use super::world::{Kind, Thing, World};

/// How far ahead components are looked at.
pub(crate) const HORIZON: Millis = Millis(45 * Millis::MINUTE.0);
/// The trend is that of the load in so many passes.
const TREND_PASSES: usize = 8;
/// Where a signal begins to be uncomfortable.
pub(crate) const WARN: f64 = 0.75;
/// How much further than its trend a peak may be seen to go.
const PEAK_MAX: f64 = 3.0;

/// What is wrong with what is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Prometheus is away: nothing is known.
    Outage,
    /// What is seen stays as it was when this began, and grows old.
    Frozen,
    /// Figures of some components and machines are no numbers.
    NotANumber,
    /// Half of a kind sends nothing.
    HalfSilent(Kind),
    /// Some components are not seen at all, nor what they run on.
    Vanished,
    /// The first so many of a kind are said to be at risk, and are not.
    AtRisk(Kind, usize),
    /// Nobody knows what is free.
    NoCapacity,
    /// What is free is told of some workloads only.
    PartialCapacity,
}

/// A time in which something is wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spell {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) fault: Fault,
}

/// What has been seen, and what is wrong with what is seen.
#[derive(Debug)]
pub(crate) struct Sight {
    loads: BTreeMap<String, VecDeque<(Timestamp, f64)>>,
    frozen: Option<(Vec<Assessment>, forestall::plan::Capacity)>,
    pub(crate) spells: Vec<Spell>,
    /// Decides who vanishes: the same ones as long as the spell lasts.
    seed: u64,
    chance: Chance,
    /// The share of passes in which a component is seen to be at risk and is not.
    pub(crate) false_alarms: f64,
    alarmed: BTreeMap<String, Timestamp>,
}

impl Sight {
    pub(crate) fn new(seed: u64) -> Sight {
        Sight {
            loads: BTreeMap::new(),
            frozen: None,
            spells: Vec::new(),
            seed,
            chance: Chance::new(seed, "sight"),
            false_alarms: 0.0,
            alarmed: BTreeMap::new(),
        }
    }

    /// What is wrong at a moment of the world.
    pub(crate) fn faults(&self, at: Timestamp) -> Vec<Fault> {
        self.spells.iter().filter(|spell| spell.from <= at && at < spell.to).map(|spell| spell.fault).collect()
    }

    /// What is seen at the world's time, on a clock that says `now`.
    pub(crate) fn see(&mut self, world: &World, now: Timestamp) -> Seen {
        let faults = self.faults(world.now);
        let mut capacity = world.capacity();
        let mut assessments: Vec<Assessment> = Vec::with_capacity(world.things.len());
        for thing in &world.things {
            let loads = self.loads.entry(thing.key.clone()).or_default();
            loads.push_back((world.now, thing.load.at(world.now)));
            if loads.len() > TREND_PASSES {
                loads.pop_front();
            }
            let said = |fault: &Fault| matches!(fault, Fault::AtRisk(kind, first) if *kind == thing.kind && thing.index < *first);
            let alarmed = self.alarm(&thing.key, world.now) || faults.iter().any(said);
            assessments.push(assessment(thing, self.signal(thing, world.now, now, alarmed), now));
        }
        if faults.contains(&Fault::Frozen) {
            let (kept, room) = self.frozen.get_or_insert_with(|| (assessments.clone(), capacity.clone()));
            assessments.clone_from(kept);
            capacity.clone_from(room);
        } else {
            self.frozen = None;
        }
        for fault in faults {
            self.spoil(fault, &mut assessments, &mut capacity, now);
        }
        rank(&mut assessments);
        Seen { assessments, capacity }
    }

    /// Whether a component is wrongly held to be at risk: for ten minutes each time.
    fn alarm(&mut self, key: &str, at: Timestamp) -> bool {
        if self.chance.is(self.false_alarms) {
            self.alarmed.insert(key.to_owned(), at + Millis::MINUTE * 10);
        }
        self.alarmed.get(key).is_some_and(|until| at < *until)
    }

    fn signal(&mut self, thing: &Thing, at: Timestamp, now: Timestamp, alarmed: bool) -> SignalAssessment {
        let loads = &self.loads[&thing.key];
        let mut foresight = Foresight::unknown(now, "");
        foresight.history = Millis::MINUTE * loads.len() as i64;
        foresight.age = Some(Millis::ZERO);
        if loads.len() < 3 {
            foresight.knowledge = Knowledge::Learning { seen: foresight.history, needed: Millis::MINUTE * 3 };
        } else {
            let factor = (1.0 - thing.shifted) / thing.bears();
            let (level, slope) = trend(loads);
            let now_at = thing.utilisation(at);
            let grows = (slope * factor).max(0.0) * HORIZON.as_secs_f64();
            let peak = (level * factor + grows).clamp(now_at, now_at.max(0.1) * PEAK_MAX);
            let unsure = self.chance.between(-0.04, 0.04);
            let probability = if alarmed { 0.9 } else { 1.0 / (1.0 + (-(peak + unsure - 1.0) / 0.05).exp()) };
            foresight.knowledge = Knowledge::Known;
            foresight.current = Some(now_at);
            foresight.breached = now_at >= 1.0;
            foresight.limit = Some(Limit { threshold: 1.0, warn: Some(WARN) });
            foresight.probability = Some(if foresight.breached { 1.0 } else { probability });
            foresight.probability_low = Some(foresight.probability.unwrap_or(0.0) * self.chance.between(0.7, 1.0));
            foresight.peak_q90 = Some(peak);
            foresight.depth = (0.5 + (peak - 1.0)).clamp(0.3, 1.0);
            foresight.eta = eta(now_at, slope * factor);
        }
        SignalAssessment {
            rule: thing.kind.name().to_owned(),
            signal: "load".to_owned(),
            group: "load".to_owned(),
            weight: 1.0,
            side: Side::Above,
            scales_with: if thing.kind == Kind::Node { ScalesWith::None } else { ScalesWith::Replicas },
            severity: foresight.depth,
            foresight,
            peers: None,
        }
    }

    fn spoil(
        &mut self,
        fault: Fault,
        assessments: &mut Vec<Assessment>,
        capacity: &mut forestall::plan::Capacity,
        now: Timestamp,
    ) {
        let seed = self.seed;
        match fault {
            Fault::Frozen | Fault::AtRisk(..) => {}
            Fault::Outage => {
                assessments.iter_mut().for_each(|assessment| silence(assessment, now));
                *capacity = forestall::plan::Capacity::default();
            }
            Fault::NotANumber => {
                for assessment in assessments.iter_mut() {
                    let junk = self.chance.of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
                    match self.chance.whole(0, 8) {
                        0 => assessment.probability = Some(junk),
                        1 => assessment.probability_low = Some(junk),
                        2 => assessment.expected_loss = junk,
                        3 => assessment.signals[0].foresight.peak_q90 = Some(junk),
                        _ => {}
                    }
                }
                for node in capacity.pools.values_mut().flatten() {
                    if self.chance.is(0.2) {
                        node.used.insert("cpu".to_owned(), f64::NAN);
                    }
                }
            }
            Fault::HalfSilent(kind) => {
                let mut of_kind: Vec<&mut Assessment> =
                    assessments.iter_mut().filter(|a| a.component.kind == kind.name()).collect();
                of_kind.sort_by(|a, b| a.component.cmp(&b.component));
                let half = of_kind.len() / 2;
                of_kind.into_iter().skip(half).for_each(|assessment| silence(assessment, now));
            }
            Fault::Vanished => {
                let gone = chosen(seed, "vanished", assessments, 0.3);
                assessments.retain(|assessment| !gone.contains(&assessment.component.to_string()));
                capacity.workloads.retain(|workload| !gone.contains(&workload.component.to_string()));
            }
            Fault::NoCapacity => *capacity = forestall::plan::Capacity::default(),
            Fault::PartialCapacity => {
                let gone = chosen(seed, "untold", assessments, 0.3);
                capacity.workloads.retain(|workload| !gone.contains(&workload.component.to_string()));
            }
        }
    }
}

/// A share of the components, the same ones each time.
fn chosen(seed: u64, purpose: &str, assessments: &[Assessment], share: f64) -> BTreeSet<String> {
    let names = assessments.iter().map(|assessment| assessment.component.to_string());
    names.filter(|name| Chance::new(seed, &format!("{purpose} {name}")).is(share)).collect()
}

/// Nothing is known of a component any more.
fn silence(assessment: &mut Assessment, now: Timestamp) {
    assessment.standing = Standing::Unknown;
    (assessment.health, assessment.probability, assessment.probability_low) = (None, None, None);
    assessment.eta = Eta::default();
    assessment.expected_loss = 0.0;
    assessment.signals.iter_mut().for_each(|signal| {
        signal.foresight = Foresight::unknown(now, "no data");
        signal.severity = 0.0;
    });
}

fn assessment(thing: &Thing, signal: SignalAssessment, now: Timestamp) -> Assessment {
    let label = |name: &str| thing.id.label(name).unwrap_or("").to_owned();
    let subject = Subject {
        component: thing.id.clone(),
        horizon: HORIZON,
        impact: thing.impact,
        rapid_decline_per_hour: 0.3,
        labels: Labels::default(),
        target_namespace: label("namespace"),
        target_name: label(thing.kind.name()),
    };
    assess(subject, vec![signal], &mut HealthTrack::default(), now)
}

/// The newest level and the slope per second of a straight line through the points, by least squares.
fn trend(points: &VecDeque<(Timestamp, f64)>) -> (f64, f64) {
    let newest = points.back().expect("there are points").0;
    let count = points.len() as f64;
    let seconds = |at: Timestamp| (at - newest).as_secs_f64();
    let mean_x = points.iter().map(|(at, _)| seconds(*at)).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| *y).sum::<f64>() / count;
    let (mut xy, mut xx) = (0.0, 0.0);
    for (at, y) in points {
        xy += (seconds(*at) - mean_x) * (y - mean_y);
        xx += (seconds(*at) - mean_x).powi(2);
    }
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    (mean_y - slope * mean_x, slope)
}

/// The earliest and the median time until a line reaches 1; absent where that lies beyond the horizon.
fn eta(now_at: f64, per_second: f64) -> Eta {
    if now_at >= 1.0 {
        return Eta { q10: Some(Millis::ZERO), q50: Some(Millis::ZERO) };
    }
    if per_second <= 0.0 {
        return Eta::default();
    }
    let seconds = (1.0 - now_at) / per_second;
    let within = |seconds: f64| Some(whole_seconds(seconds)).filter(|eta| *eta <= HORIZON);
    Eta { q10: within(seconds * 0.7), q50: within(seconds) }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to days")]
fn whole_seconds(seconds: f64) -> Millis {
    Millis::from_secs(seconds.clamp(0.0, 1e6) as i64)
}
