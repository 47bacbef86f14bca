//! When a probability becomes an alarm: it must hold, so that one strange value does not wake anybody.

use crate::forecast::{ChannelName, Foresight};
use crate::model::{Millis, Timestamp};

/// How many consecutive moments must agree.
const MOMENTS: i64 = 2;
/// Moments are this part of a horizon apart: the cells by which forecasts look.
const MOMENTS_PER_HORIZON: i64 = 96;

/// From which probability on an alarm fires, and how far apart the moments are that must agree on it.
///
/// A breach that is still far away leaves time to be surer of it: there the probability must be higher.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlarmPolicy {
    /// The calibrated probability from which on it fires for a breach that is near.
    pub near: f64,
    /// The same for a breach that is far.
    pub far: f64,
    /// A breach expected later than this is far.
    pub far_from: Millis,
    /// The same while a record high is claimed: for telemetry whose breaches are spikes, where nothing better announces
    /// them. Absent: records alone do not fire.
    pub record: Option<f64>,
    /// The probability must have been high enough for this long.
    pub hold: Millis,
}

/// How well breaches were announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Announced {
    /// Resolved predictions after which a breach began within the horizon.
    pub predictions: u64,
    /// How many of them warned.
    pub warned: u64,
}

impl Announced {
    /// Of both together.
    #[must_use]
    pub fn and(self, other: Announced) -> Announced {
        Announced { predictions: self.predictions + other.predictions, warned: self.warned + other.warned }
    }
}

/// What the newest probability did to an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmChange {
    /// It began to fire now.
    Starts,
    /// It fires, since then.
    Fires(Timestamp),
    /// It fired until now.
    Ends,
    /// It does not fire.
    Silent,
}

/// The alarm of one component.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Alarm {
    /// Since when the probability has been high enough.
    high_since: Option<Timestamp>,
    fires_since: Option<Timestamp>,
    /// When what it told of should have come.
    due_by: Option<Timestamp>,
    /// The median time to it, as it was told.
    told: Option<Millis>,
}

/// The thresholds unless configured otherwise, chosen on simulated fleets: a false alarm repeats until its horizon is over,
/// so that a wrong one costs several times what a right one is worth.
const NEAR: f64 = 0.8;
const FAR: f64 = 0.9;
/// A breach is far beyond this part of the horizon.
const FAR_SHARE: i64 = 2;

/// A rule is blind where fewer predictions before a breach warned than this share, of so many: a few breaches' worth.
const BLIND_BELOW: f64 = 0.25;
const BLIND_FROM: u64 = 72;
/// Records fire from this probability on where a rule is blind.
const RECORD: f64 = 0.08;

/// A breach is overdue once this many times its median time has passed.
const OVERDUE: (i64, i64) = (3, 2);

impl AlarmPolicy {
    /// Fires where P ≥ 0.8 (0.9 beyond half of the horizon) at two consecutive moments, a ninety-sixth of the horizon apart
    /// and no nearer than the interval.
    pub fn new(horizon: Millis, interval: Millis) -> AlarmPolicy {
        let interval = interval.0.max(1);
        let apart = (horizon.0 / MOMENTS_PER_HORIZON + interval / 2) / interval * interval;
        AlarmPolicy {
            near: NEAR,
            far: FAR,
            far_from: horizon / FAR_SHARE,
            record: None,
            hold: Millis(apart.max(interval) * (MOMENTS - 1)),
        }
    }

    /// The same, with record highs where what predictions became shows that nothing else announces a rule's breaches. How
    /// often records come true the rule's calibration knows: below the threshold for them they stay silent. A rule that has
    /// seen few breaches takes over what all rules of its kind have seen, as its calibration does.
    #[must_use]
    pub fn taught(self, rule: Announced, kind: Announced) -> AlarmPolicy {
        let Announced { warned, predictions } = if rule.predictions >= BLIND_FROM { rule } else { kind };
        let blind = predictions >= BLIND_FROM && (warned as f64) < BLIND_BELOW * predictions as f64;
        AlarmPolicy { record: blind.then_some(RECORD), ..self }
    }

    /// In breach is no prediction any more.
    fn is_high(&self, foresight: &Foresight) -> bool {
        let Some(probability) = foresight.probability.filter(|_| !foresight.breached) else { return false };
        let is_far = foresight.eta.q50.is_some_and(|eta| eta > self.far_from);
        let claims_record = foresight.evidence.is_some_and(|evidence| evidence.claims(ChannelName::Record));
        let by_record = self.record.filter(|_| claims_record);
        probability >= by_record.unwrap_or(f64::INFINITY).min(if is_far { self.far } else { self.near })
    }
}

impl Alarm {
    /// Takes what is foreseen at `now`. Nothing that is unknown or already in breach fires.
    pub fn take(&mut self, foresight: &Foresight, policy: &AlarmPolicy, now: Timestamp) -> AlarmChange {
        if !policy.is_high(foresight) {
            self.high_since = None;
            self.due_by = None;
            return if self.fires_since.take().is_some() { AlarmChange::Ends } else { AlarmChange::Silent };
        }
        let since = *self.high_since.get_or_insert(now);
        if let Some(fires_since) = self.fires_since {
            if self.due_by.is_none_or(|due_by| now <= due_by) {
                return AlarmChange::Fires(fires_since);
            }
            self.fires_since = None;
            return AlarmChange::Ends;
        }
        // What was told of and did not come is not told again, unless it has come much nearer, or it has been quiet.
        if self.due_by.is_some() && !self.is_much_nearer(foresight.eta.q50) {
            return AlarmChange::Silent;
        }
        if now - since < policy.hold {
            return AlarmChange::Silent;
        }
        self.fires_since = Some(now);
        self.told = foresight.eta.q50;
        self.due_by =
            foresight.eta.q50.map(|eta| now + Millis(eta.0.saturating_mul(OVERDUE.0) / OVERDUE.1) + policy.hold);
        AlarmChange::Starts
    }

    fn is_much_nearer(&self, eta: Option<Millis>) -> bool {
        self.told.zip(eta).is_some_and(|(told, eta)| eta <= told / 2)
    }

    /// Since when it fires.
    pub fn fires_since(&self) -> Option<Timestamp> {
        self.fires_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a probability a minute (`.` = none, `!` = in breach, `0.9f` = of a breach that is far) under a horizon of 192 minutes, moments of
    /// two minutes; says when it started (`s`), fired (`f`), ended (`e`) and was silent (`-`).
    fn check(script: &str, expected: &str) {
        let policy = AlarmPolicy::new(Millis::MINUTE * 192, Millis::MINUTE);
        let mut alarm = Alarm::default();
        let minutes = script.split_whitespace().zip(0i64..);
        let said = minutes.map(|(word, minute)| {
            let now = Timestamp::from_secs(minute * 60);
            let mut foresight = Foresight::unknown(now, "");
            foresight.eta.q50 = word.ends_with('f').then_some(Millis::MINUTE * 100);
            foresight.probability = word.trim_end_matches('f').parse().ok();
            foresight.breached = word == "!";
            match alarm.take(&foresight, &policy, now) {
                AlarmChange::Starts => 's',
                AlarmChange::Fires(_) => 'f',
                AlarmChange::Ends => 'e',
                AlarmChange::Silent => '-',
            }
        });
        assert_eq!(said.collect::<String>(), expected, "{script}");
    }

    #[test]
    fn fires_once_two_moments_agree_and_ends_with_the_first_that_does_not() {
        check("0.1 0.8 0.8 0.8 0.9 0.4 0.8 0.4", "---sfe--");
    }

    #[test]
    fn a_breach_that_is_far_must_be_surer() {
        check("0.85f 0.85f 0.85f 0.85f 0.95f 0.95f 0.95f 0.85", "------sf");
    }

    #[test]
    fn what_is_unknown_or_in_breach_holds_nothing() {
        check("0.8 0.8 ! 0.8 0.8 0.8 . . NaN", "-----se--");
    }

    #[test]
    fn what_is_overdue_ends_until_it_is_much_nearer() {
        let policy = AlarmPolicy::new(Millis::MINUTE * 192, Millis::MINUTE);
        let mut alarm = Alarm::default();
        let mut said = Vec::new();
        for minute in 0..60i64 {
            let now = Timestamp::from_secs(minute * 60);
            let mut foresight = Foresight::unknown(now, "");
            foresight.probability = Some(0.95);
            // Always in twenty minutes, and from the fiftieth minute on in eight.
            foresight.eta.q50 = Some(Millis::MINUTE * if minute < 50 { 20 } else { 8 });
            said.push(alarm.take(&foresight, &policy, now));
        }
        let at = |change: AlarmChange| said.iter().position(|one| *one == change);
        assert_eq!(at(AlarmChange::Ends), Some(35));
        assert_eq!(said.iter().rposition(|one| *one == AlarmChange::Starts), Some(50));
    }

    /// Warned and all predictions before breaches: whether a rule, and one without any under such a kind, is blind.
    fn check_blind(warned: u64, predictions: u64, blind: bool) {
        let policy = AlarmPolicy::new(Millis::DAY, Millis::MINUTE);
        let (known, sure) = (Announced { predictions, warned }, Announced { predictions: 720, warned: 720 });
        assert_eq!(policy.taught(known, sure).record.is_some(), blind, "{known:?}");
        assert_eq!(policy.taught(Announced::default(), known).record.is_some(), blind, "a kind of {known:?}");
    }

    #[test]
    fn a_rule_is_blind_where_few_of_enough_predictions_before_breaches_warned() {
        check_blind(0, 71, false);
        check_blind(0, 72, true);
        check_blind(17, 72, true);
        check_blind(18, 72, false);
    }

    #[test]
    fn a_rule_that_has_seen_enough_itself_does_not_ask_its_kind() {
        let policy = AlarmPolicy::new(Millis::DAY, Millis::MINUTE);
        let (sure, blind) = (Announced { predictions: 72, warned: 72 }, Announced { predictions: 720, warned: 0 });
        assert_eq!(policy.taught(sure, blind), policy);
        assert_eq!(
            policy.taught(Announced::default(), blind).taught(sure, blind),
            policy,
            "what is learned later counts"
        );
    }

    #[test]
    fn moments_are_no_nearer_than_the_interval() {
        assert_eq!(AlarmPolicy::new(Millis::HOUR, Millis::HOUR).hold, Millis::HOUR);
    }
}
