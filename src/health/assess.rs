//! From the foresights of a component's signals to its health, its standing, and its place in the ranking.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use super::{Assessment, PeerDistance, PredictRule, SignalAssessment, SignalRule, Standing};
use crate::forecast::{Eta, Foresight, Knowledge, theil_sen};
use crate::model::{ComponentId, Labels, Millis, Timestamp};

/// From this probability on a component is at risk.
pub const AT_RISK_FROM: f64 = 0.5;
/// Above this probability it is worth an eye, and its time to breach is told.
pub const WATCH_ABOVE: f64 = 0.2;
/// Health that falls by more than this in an hour declines rapidly, unless configured otherwise.
pub const RAPID_DECLINE_PER_HOUR: f64 = 0.3;

/// Decline is the slope over this long.
const DECLINE_WINDOW: Millis = Millis(15 * 60_000);
/// Points of health are kept this far apart at least: at most 31 in all.
const DECLINE_SPACING: Millis = Millis(30_000);
/// A slope over less than this says nothing.
const DECLINE_SPAN_MIN: Millis = Millis(5 * 60_000);

/// What is assessed, and what is known of it besides its signals.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The component.
    pub component: ComponentId,
    /// The longest horizon among its rules.
    pub horizon: Millis,
    /// 0..1, with what depends on it (see [`super::impacts`]).
    pub impact: f64,
    /// Health that falls by more than this in an hour declines rapidly; positive.
    pub rapid_decline_per_hour: f64,
    /// Labels from the rules.
    pub labels: Labels,
    /// The namespace to act in.
    pub target_namespace: String,
    /// The name to act on.
    pub target_name: String,
}

/// The health of one component over the last 15 minutes.
#[derive(Debug, Clone, Default)]
pub struct HealthTrack {
    /// At most 32 points, at least half a minute apart but for the newest.
    points: VecDeque<(Timestamp, f64)>,
}

impl HealthTrack {
    /// Notes the health at one moment. Times must ascend; one that does not is ignored.
    pub fn note(&mut self, at: Timestamp, health: f64) {
        if self.points.back().is_some_and(|(newest, _)| at <= *newest) || !health.is_finite() {
            return;
        }
        // The newest point gives way to one that is too close to the point before it.
        let before_newest = self.points.len().checked_sub(2).map(|index| self.points[index].0);
        if before_newest.is_some_and(|before| at - before < DECLINE_SPACING) {
            self.points.pop_back();
        }
        self.points.push_back((at, health));
        while self.points.front().is_some_and(|(oldest, _)| at - *oldest > DECLINE_WINDOW) {
            self.points.pop_front();
        }
    }

    /// How fast health changes, per hour; absent before five minutes of it are known.
    pub fn slope_per_hour(&self) -> Option<f64> {
        let (first, last) = (self.points.front()?.0, self.points.back()?.0);
        if last - first < DECLINE_SPAN_MIN || self.points.len() < 3 {
            return None;
        }
        let hours: Vec<f64> = self.points.iter().map(|(at, _)| (*at - first).as_secs_f64() / 3600.0).collect();
        let health: Vec<f64> = self.points.iter().map(|(_, health)| *health).collect();
        Some(theil_sen(&hours, &health))
    }
}

impl SignalAssessment {
    /// The assessment of one signal: severity = weight × depth.
    pub fn new(
        rule: &PredictRule,
        signal: &SignalRule,
        foresight: Foresight,
        peers: Option<PeerDistance>,
    ) -> SignalAssessment {
        let weight = signal.weight.clamp(0.0, 1.0);
        SignalAssessment {
            rule: rule.name.clone(),
            signal: signal.name.clone(),
            group: signal.group.clone(),
            weight,
            side: signal.side,
            scales_with: signal.scales_with,
            severity: weight * foresight.depth.clamp(0.0, 1.0),
            foresight,
            peers,
        }
    }

    /// The probability, where the foresight is known.
    fn probability(&self) -> Option<f64> {
        let known = self.foresight.knowledge == Knowledge::Known;
        self.foresight.probability.filter(|probability| known && probability.is_finite())
    }
}

/// Assesses one component from the foresights of its signals.
///
/// Signals of which nothing is known count neither as health nor as failure: they are left out, and a component of which
/// no signal is known has no health. Signals of one group are views of one cause: the worst counts.
pub fn assess(
    subject: Subject,
    mut signals: Vec<SignalAssessment>,
    track: &mut HealthTrack,
    at: Timestamp,
) -> Assessment {
    signals.sort_by(worse_first);
    let known = signals.iter().any(|signal| signal.probability().is_some());
    let low = |signal: &SignalAssessment| {
        signal
            .foresight
            .probability_low
            .filter(|low| low.is_finite())
            .unwrap_or(0.0)
            .min(signal.probability().unwrap_or(0.0))
    };
    let probability = known.then(|| any_of_groups(&signals, |signal| signal.probability().unwrap_or(0.0)));
    let probability_low = known.then(|| any_of_groups(&signals, low));
    let damage = any_of_groups(&signals, |signal| signal.severity * signal.probability().unwrap_or(0.0));
    let health = known.then_some(1.0 - damage);
    if let Some(health) = health {
        track.note(at, health);
    }
    let slope_per_hour = health.and_then(|_| track.slope_per_hour());
    let rapid = slope_per_hour.is_some_and(|slope| slope < -subject.rapid_decline_per_hour);
    let impact = if subject.impact.is_finite() { subject.impact.clamp(0.0, 1.0) } else { 0.0 };
    Assessment {
        standing: standing(&signals, probability, rapid),
        at,
        horizon: subject.horizon,
        health,
        slope_per_hour,
        rapid_decline: rapid,
        probability,
        probability_low,
        eta: earliest(&signals),
        impact,
        expected_loss: health.map_or(0.0, |health| (1.0 - health) * impact),
        rank: 0,
        signals,
        labels: subject.labels,
        target_namespace: subject.target_namespace,
        target_name: subject.target_name,
        component: subject.component,
    }
}

/// `1 − Π over groups (1 − the highest of the group)`, multiplied in the order of the groups' names: the same however the
/// signals are ordered, bit for bit.
fn any_of_groups(signals: &[SignalAssessment], of: impl Fn(&SignalAssessment) -> f64) -> f64 {
    let mut highest: BTreeMap<&str, f64> = BTreeMap::new();
    for signal in signals {
        let group = highest.entry(&signal.group).or_insert(0.0);
        *group = group.max(of(signal).clamp(0.0, 1.0));
    }
    1.0 - highest.values().map(|one| 1.0 - one).product::<f64>()
}

fn standing(signals: &[SignalAssessment], probability: Option<f64>, rapid: bool) -> Standing {
    let Some(probability) = probability else {
        let learning = |signal: &SignalAssessment| matches!(signal.foresight.knowledge, Knowledge::Learning { .. });
        return if signals.iter().any(learning) { Standing::Learning } else { Standing::Unknown };
    };
    let known = || signals.iter().filter(|signal| signal.probability().is_some());
    if known().any(|signal| signal.foresight.breached) {
        Standing::Failing
    } else if probability >= AT_RISK_FROM {
        Standing::AtRisk
    } else if probability > WATCH_ABOVE
        || rapid
        || known().any(|signal| signal.foresight.outside_interval == Some(true))
        || known().any(|signal| signal.peers.is_some_and(|peers| peers.outlier))
    {
        Standing::Watch
    } else {
        Standing::Steady
    }
}

/// The earliest of the signals that are worth an eye at least.
fn earliest(signals: &[SignalAssessment]) -> Eta {
    let at_risk =
        || signals.iter().filter(|signal| signal.probability().is_some_and(|probability| probability > WATCH_ABOVE));
    Eta {
        q10: at_risk().filter_map(|signal| signal.foresight.eta.q10).min(),
        q50: at_risk().filter_map(|signal| signal.foresight.eta.q50).min(),
    }
}

/// The greater expected damage first, then the names.
fn worse_first(a: &SignalAssessment, b: &SignalAssessment) -> Ordering {
    let damage = |signal: &SignalAssessment| signal.severity * signal.probability().unwrap_or(0.0);
    let likely = |signal: &SignalAssessment| signal.probability().unwrap_or(-1.0);
    (damage(b).total_cmp(&damage(a)))
        .then_with(|| likely(b).total_cmp(&likely(a)))
        .then_with(|| (&a.rule, &a.signal).cmp(&(&b.rule, &b.signal)))
}

/// Orders assessments by expected loss, then time to breach, then name, and numbers the known ones from 1. Unknown and
/// learning ones come last, with rank 0.
pub fn rank(assessments: &mut [Assessment]) {
    assessments.sort_by(by_rank);
    for (index, assessment) in assessments.iter_mut().enumerate() {
        assessment.rank = if assessment.health.is_some() { index + 1 } else { 0 };
    }
}

/// A total order: two assessments are equal only where their components are.
fn by_rank(a: &Assessment, b: &Assessment) -> Ordering {
    let eta = |assessment: &Assessment| {
        let never = Millis(i64::MAX);
        (assessment.eta.q50.unwrap_or(never), assessment.eta.q10.unwrap_or(never))
    };
    (b.health.is_some().cmp(&a.health.is_some()))
        .then_with(|| b.expected_loss.total_cmp(&a.expected_loss))
        .then_with(|| eta(a).cmp(&eta(b)))
        .then_with(|| a.component.cmp(&b.component))
}
