//! How much: the smallest change after which the predicted peak is comfortable again, with its arithmetic in words.
//!
//! A signal is taken to shrink in proportion to what it scales with, so what is needed is
//! `peak × what there is ÷ goal`; the peak is the 0.9 quantile of the worst value within the horizon, the goal is `warn`
//! or else 90 % of the threshold. A signal that is bad when low grows in the same proportion. Where earlier actions
//! brought only a part of what was reckoned, the addition is divided by that part.

use super::words::{amount, figure, percent, whole};
use super::{Change, Policy, Resources, Rung};
use crate::forecast::{Knowledge, Side};
use crate::health::{Assessment, ScalesWith, SignalAssessment};

/// Without a declared `warn`, the peak must come under this share of the threshold.
const GOAL_SHARE: f64 = 0.9;
/// No action adds more replicas than this, whatever the arithmetic says.
const ADDED_MAX: u32 = 10_000;
/// At most this share of the traffic is shifted.
const SHIFT_MAX: f64 = 0.9;

/// What a signal at risk asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Need {
    /// `rule/signal`.
    pub(super) signal: String,
    /// How many times what there is now is needed; absent where it cannot be computed (a sign that proportion does not
    /// hold for, or no forecast of the peak).
    times: Option<f64>,
    peak: f64,
    goal: f64,
    side: Side,
}

/// A new amount and how it was reckoned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sized<T> {
    pub(super) to: T,
    pub(super) arithmetic: String,
}

/// The 0.9 quantile of the worst value within the horizon, or the present value where that is worse.
pub(super) fn peak(signal: &SignalAssessment) -> Option<f64> {
    let foresight = &signal.foresight;
    let worst = |a: f64, b: f64| if signal.side == Side::Above { a.max(b) } else { a.min(b) };
    let values = [foresight.peak_q90, foresight.current];
    values.into_iter().flatten().filter(|value| value.is_finite()).reduce(worst)
}

/// Whether a signal is known and itself at risk.
pub(super) fn is_at_risk(signal: &SignalAssessment, policy: &Policy) -> bool {
    signal.foresight.knowledge == Knowledge::Known
        && (signal.foresight.breached || signal.foresight.probability.is_some_and(|p| p >= policy.exit_below))
}

/// The signal that speaks loudest: by probability, then severity, then name.
pub(super) fn loudest(assessment: &Assessment) -> Option<&SignalAssessment> {
    let probability = |signal: &SignalAssessment| signal.foresight.probability.unwrap_or(-1.0);
    assessment.signals.iter().min_by(|a, b| {
        (probability(b).total_cmp(&probability(a)))
            .then(b.severity.total_cmp(&a.severity))
            .then((&a.rule, &a.signal).cmp(&(&b.rule, &b.signal)))
    })
}

/// The largest need among the signals at risk that scale with one of `with`; all signals where `with` is empty.
pub(super) fn largest_need(assessment: &Assessment, policy: &Policy, with: &[ScalesWith]) -> Option<Need> {
    let mut at_risk: Vec<&SignalAssessment> =
        assessment.signals.iter().filter(|signal| is_at_risk(signal, policy)).collect();
    if at_risk.is_empty() {
        // Many small probabilities can add up to one component at risk.
        at_risk.extend(loudest(assessment));
    }
    let needs = at_risk.into_iter().filter(|s| with.is_empty() || with.contains(&s.scales_with)).map(need);
    needs.min_by(|a, b| b.times.unwrap_or(0.0).total_cmp(&a.times.unwrap_or(0.0)).then_with(|| a.signal.cmp(&b.signal)))
}

fn need(signal: &SignalAssessment) -> Need {
    let limit = signal.foresight.limit;
    let threshold = limit.map_or(f64::NAN, |limit| limit.threshold);
    let fallback = if signal.side == Side::Above { threshold * GOAL_SHARE } else { threshold / GOAL_SHARE };
    let goal = limit.and_then(|limit| limit.warn).unwrap_or(fallback);
    let peak = peak(signal).unwrap_or(f64::NAN);
    let times = if signal.side == Side::Above { peak / goal } else { goal / peak };
    Need {
        signal: format!("{}/{}", signal.rule, signal.signal),
        times: Some(times).filter(|times| times.is_finite() && peak > 0.0 && goal > 0.0),
        peak,
        goal,
        side: signal.side,
    }
}

impl Need {
    /// `1.03 × 6 ÷ 0.75`: what there is, times how much too large the signal gets.
    fn product(&self, from: &str) -> String {
        let (above, below) = if self.side == Side::Above { (self.peak, self.goal) } else { (self.goal, self.peak) };
        format!("{} × {from} ÷ {}", figure(above), figure(below))
    }

    /// How much is needed of what there are `from` of, corrected by what earlier actions brought, and the words so far.
    fn needed(
        &self,
        from: f64,
        from_text: &str,
        proportion: f64,
        unit: impl Fn(f64) -> String,
    ) -> Option<(f64, String)> {
        // Where the peak is comfortable already, another view of the signal spoke: the smallest step is taken.
        let needed = self.times.filter(|times| *times > 1.0)? * from;
        let product = self.product(from_text);
        if proportion >= 1.0 {
            return Some((needed, format!("{product} = {}", unit(needed))));
        }
        let corrected = from + (needed - from) / proportion;
        let words = format!(
            "{product} = {}; earlier actions of this kind brought {} of what was reckoned, which makes it {}",
            unit(needed),
            percent(proportion),
            unit(corrected)
        );
        Some((corrected, words))
    }
}

/// How many replicas; nothing where the rung allows no more than there are.
pub(super) fn replicas(rung: &Rung, need: &Need, from: u32, proportion: f64) -> Option<Sized<u32>> {
    let (wanted, words) = match rung.step {
        Some(step) => (from.saturating_add(step), format!("a fixed step of {step}")),
        None => match need.needed(f64::from(from), &from.to_string(), proportion, figure) {
            Some((needed, words)) => (whole((needed - 1e-9).ceil()), words),
            None => (from.saturating_add(1), "the smallest step".to_owned()),
        },
    };
    let wanted = wanted.max(from.saturating_add(1));
    let by_factor = || whole(f64::from(from.max(1)) * rung.factor_max.max(1.0)).max(from.saturating_add(1));
    let limit = rung.replicas_max.unwrap_or_else(by_factor).min(from.saturating_add(ADDED_MAX));
    let to = wanted.min(limit);
    if to <= from {
        return None;
    }
    let clamped = if to < wanted { format!("{wanted}, but never more than {limit}: ") } else { String::new() };
    Some(Sized { to, arithmetic: format!("{words}, so {clamped}{to}") })
}

/// With how many of its replicas a workload stays below the thresholds of its signals that scale with replicas, by the
/// worst that is foreseen of them; as many as it has where one is beyond its threshold already, none where none scales.
pub(super) fn replicas_needed(assessment: &Assessment, replicas: u32) -> u32 {
    let signals = assessment
        .signals
        .iter()
        .filter(|signal| signal.scales_with == ScalesWith::Replicas && signal.foresight.knowledge == Knowledge::Known);
    let needed = signals.filter_map(|signal| {
        let (peak, threshold) = (peak(signal)?, signal.foresight.limit?.threshold);
        let times = if signal.side == Side::Above { peak / threshold } else { threshold / peak };
        let proportional = times.is_finite() && peak > 0.0 && threshold > 0.0;
        proportional.then(|| whole((times * f64::from(replicas) + 1e-9).floor()).saturating_add(1).min(replicas))
    });
    needed.max().unwrap_or(0)
}

/// How much of one resource for each replica, never less than a step more; nothing where the rung allows no more.
pub(super) fn resource(rung: &Rung, need: &Need, name: &str, from: f64, proportion: f64) -> Option<Sized<f64>> {
    let unit = |value: f64| amount(name, value);
    let step = resource_step(name, from);
    let (needed, words) = need
        .needed(from, &unit(from), proportion, unit)
        .unwrap_or_else(|| (from + step, "the smallest step".to_owned()));
    let wanted = ((needed / step - 1e-9).ceil() * step).max(from + step);
    let limit = from * rung.factor_max;
    // The limit is rounded down to a step: never more than the policy says.
    let to = wanted.min((limit / step + 1e-9).floor() * step);
    // A NaN (from the policy or from the capacity) refuses, as too little does.
    let grows = to > from + step * 1e-6;
    grows.then(|| {
        let clamped = if to < wanted {
            format!("{}, but never more than {}: ", unit(wanted), unit(limit))
        } else {
            String::new()
        };
        Sized { to, arithmetic: format!("{words}, so {clamped}{} of {name}", unit(to)) }
    })
}

/// Amounts are rounded up to this: 50 millicores, whole MiB; a hundredth of anything else.
fn resource_step(name: &str, from: f64) -> f64 {
    match name {
        "cpu" => 0.05,
        "memory" | "disk" => 1_048_576.0,
        _ => from / 100.0,
    }
}

/// What share of the traffic goes elsewhere, in steps of 5 %.
pub(super) fn shift(need: &Need, proportion: f64) -> Sized<f64> {
    let Some(times) = need.times.filter(|times| *times > 1.0) else {
        return Sized { to: 0.05, arithmetic: "the smallest step: 5 % of the traffic".to_owned() };
    };
    let needed = (1.0 - 1.0 / times) / proportion;
    let to = ((needed * 20.0 - 1e-9).ceil() / 20.0).clamp(0.05, SHIFT_MAX);
    let (small, large) = if need.side == Side::Above { (need.goal, need.peak) } else { (need.peak, need.goal) };
    let arithmetic =
        format!("1 − {} ÷ {} = {}, so {} of the traffic", figure(small), figure(large), percent(needed), percent(to));
    Sized { to, arithmetic }
}

/// The share in all that goes elsewhere once a share of what stays does too, in steps of 5 %.
pub(super) fn shift_on_top(away: f64, share: f64) -> f64 {
    let in_all = 1.0 - (1.0 - away) * (1.0 - share);
    ((in_all * 20.0 - 1e-9).ceil() / 20.0).min(SHIFT_MAX)
}

/// The resource that a signal scales with, by its name in capacities and policies.
pub(super) fn resource_of(scales_with: ScalesWith) -> Option<&'static str> {
    match scales_with {
        ScalesWith::Cpu => Some("cpu"),
        ScalesWith::Memory => Some("memory"),
        ScalesWith::Disk => Some("disk"),
        ScalesWith::Replicas | ScalesWith::None => None,
    }
}

/// By which factor the signal is expected to shrink after a change, 0..1. What gives it back says how it was before.
pub(super) fn shrinks_to(change: &Change, undo: Option<&Change>) -> Option<f64> {
    let ratio = match change {
        Change::Replicas { from, to } => f64::from(*from) / f64::from(*to),
        Change::Resources { from, to } => resources_ratio(from, to)?,
        Change::Shift { share } => match undo {
            Some(Change::Shift { share: before }) => (1.0 - share) / (1.0 - before),
            _ => 1.0 - share,
        },
        _ => return None,
    };
    Some(ratio).filter(|ratio| *ratio > 0.0 && *ratio < 1.0)
}

fn resources_ratio(from: &Resources, to: &Resources) -> Option<f64> {
    to.iter().filter_map(|(name, to)| Some(from.get(name)? / to)).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::{Eta, Foresight, Limit};
    use crate::health::Standing;
    use crate::model::{ComponentId, Labels, Timestamp};
    use crate::plan::ActionKind;

    fn signal(
        name: &str,
        side: Side,
        with: ScalesWith,
        peak: f64,
        threshold: f64,
        warn: Option<f64>,
    ) -> SignalAssessment {
        let mut foresight = Foresight::unknown(Timestamp(0), "");
        foresight.knowledge = Knowledge::Known;
        foresight.probability = Some(0.8);
        foresight.peak_q90 = Some(peak);
        foresight.limit = Some(Limit { threshold, warn });
        let (rule, group) = ("rule".to_owned(), name.to_owned());
        SignalAssessment {
            rule,
            signal: name.to_owned(),
            group,
            weight: 1.0,
            side,
            scales_with: with,
            severity: 0.5,
            foresight,
            peers: None,
        }
    }

    fn assessment(signals: Vec<SignalAssessment>) -> Assessment {
        Assessment {
            component: ComponentId { kind: "queue".to_owned(), labels: Vec::new() },
            at: Timestamp(0),
            horizon: crate::model::Millis::HOUR,
            standing: Standing::AtRisk,
            health: Some(0.4),
            slope_per_hour: None,
            rapid_decline: false,
            probability: Some(0.8),
            probability_low: Some(0.7),
            eta: Eta::default(),
            impact: 0.5,
            expected_loss: 0.3,
            rank: 1,
            signals,
            labels: Labels::default(),
            target_namespace: String::new(),
            target_name: String::new(),
        }
    }

    fn rung() -> Rung {
        Rung { replicas_max: Some(20), ..Rung::new(ActionKind::ScaleOut, "pager") }
    }

    fn policy() -> Policy {
        Policy { name: "queues".to_owned(), ladder: vec![rung()], ..Policy::default() }
    }

    /// The replicas and the arithmetic for signals of a component that has `from` replicas.
    fn check(signals: Vec<SignalAssessment>, rung: &Rung, from: u32, to: u32, arithmetic: &str) {
        let need = largest_need(&assessment(signals), &policy(), &[ScalesWith::Replicas]).expect("a signal scales");
        let sized = replicas(rung, &need, from, 1.0).expect("there is a size");
        assert_eq!((sized.to, sized.arithmetic.as_str()), (to, arithmetic));
    }

    #[test]
    fn brings_the_peak_back_under_warn_or_ninety_per_cent_of_the_threshold() {
        let cpu = |peak, warn| vec![signal("cpu", Side::Above, ScalesWith::Replicas, peak, 0.9, warn)];
        check(cpu(1.03, Some(0.75)), &rung(), 6, 9, "1.03 × 6 ÷ 0.75 = 8.24, so 9");
        check(cpu(0.81 * 1.5, None), &rung(), 6, 9, "1.22 × 6 ÷ 0.81 = 9, so 9");
        check(cpu(0.5, Some(0.75)), &rung(), 6, 7, "the smallest step, so 7");
        check(cpu(1.03, Some(0.75)), &rung(), 0, 1, "1.03 × 0 ÷ 0.75 = 0, so 1");
    }

    #[test]
    fn a_signal_that_is_bad_when_low_grows_in_proportion() {
        let free = vec![signal("free", Side::Below, ScalesWith::Replicas, 0.1, 0.18, None)];
        check(free, &rung(), 3, 6, "0.2 × 3 ÷ 0.1 = 6, so 6");
    }

    #[test]
    fn what_proportion_does_not_hold_for_gets_the_smallest_step() {
        let below_zero = vec![signal("cold", Side::Above, ScalesWith::Replicas, -1.0, -2.0, Some(-3.0))];
        check(below_zero, &rung(), 3, 4, "the smallest step, so 4");
        let nothing_left = vec![signal("free", Side::Below, ScalesWith::Replicas, 0.0, 0.1, None)];
        check(nothing_left, &rung(), 3, 4, "the smallest step, so 4");
    }

    #[test]
    fn the_largest_need_of_the_signals_that_it_helps_wins() {
        let signals = vec![
            signal("cpu", Side::Above, ScalesWith::Replicas, 1.0, 1.0, Some(0.8)),
            signal("queue", Side::Above, ScalesWith::Replicas, 200.0, 100.0, None),
            signal("disk", Side::Above, ScalesWith::Disk, 9.0, 1.0, None),
        ];
        check(signals, &rung(), 3, 7, "200 × 3 ÷ 90 = 6.67, so 7");
    }

    #[test]
    fn steps_and_limits_are_the_rungs() {
        let cpu = || vec![signal("cpu", Side::Above, ScalesWith::Replicas, 9.0, 1.0, Some(1.0))];
        check(cpu(), &Rung { step: Some(2), ..rung() }, 3, 5, "a fixed step of 2, so 5");
        check(cpu(), &rung(), 3, 20, "9 × 3 ÷ 1 = 27, so 27, but never more than 20: 20");
        check(cpu(), &Rung { replicas_max: None, ..rung() }, 3, 6, "9 × 3 ÷ 1 = 27, so 27, but never more than 6: 6");
        let need = largest_need(&assessment(cpu()), &policy(), &[ScalesWith::Replicas]).expect("a signal scales");
        assert_eq!(replicas(&rung(), &need, 20, 1.0), None, "it has as many as it may");
        assert_eq!(replicas(&rung(), &need, u32::MAX, 1.0), None);
    }

    #[test]
    fn what_earlier_actions_did_not_bring_is_added() {
        let cpu = vec![signal("cpu", Side::Above, ScalesWith::Replicas, 1.5, 1.0, Some(1.0))];
        let need = largest_need(&assessment(cpu), &policy(), &[ScalesWith::Replicas]).expect("a signal scales");
        let sized = replicas(&rung(), &need, 4, 0.5).expect("there is a size");
        assert_eq!(sized.to, 8, "6 are needed; of the 2 more only half would come about");
    }

    #[test]
    fn resources_are_rounded_up_to_what_people_write() {
        let cpu = vec![signal("cpu", Side::Above, ScalesWith::Cpu, 1.03, 1.0, Some(0.75))];
        let need = largest_need(&assessment(cpu), &policy(), &[ScalesWith::Cpu]).expect("a signal scales");
        let to = |name: &str, from: f64| resource(&rung(), &need, name, from, 1.0).map(|sized| sized.to);
        assert!((to("cpu", 0.5).expect("more") - 0.7).abs() < 1e-9);
        assert_eq!(to("memory", 1_073_741_824.0).map(|bytes| bytes % 1_048_576.0), Some(0.0));
        assert_eq!(to("cpu", 0.0), None, "twice nothing is nothing");
        assert_eq!(to("cpu", f64::NAN), None);
        let far = Need { times: Some(50.0), ..need.clone() };
        let limited = resource(&rung(), &far, "cpu", 1.0, 1.0).expect("more");
        assert!((limited.to - 2.0).abs() < 1e-9, "{limited:?}");
    }

    #[test]
    fn shifts_what_is_too_much_in_steps_of_five_per_cent() {
        let cpu = vec![signal("cpu", Side::Above, ScalesWith::None, 1.0, 1.0, Some(0.78))];
        let need = largest_need(&assessment(cpu), &policy(), &[]).expect("any signal");
        let sized = shift(&need, 1.0);
        assert!((sized.to - 0.25).abs() < 1e-9);
        assert_eq!(sized.arithmetic, "1 − 0.78 ÷ 1 = 22 %, so 25 % of the traffic");
    }
}
