//! What became of predictions: each is resolved once its horizon is over, and the sums say what a rule is worth.
//!
//! A prediction is the probability of one component under one rule at one moment, and for each of its signals what the
//! channels saw. It came true when a failure began within its horizon: a breach, or an alert of somebody else's that fires
//! for the component. Where forestall acted meanwhile nobody can know what would have been: such predictions are counted
//! apart, left out of precision, recall, Brier score and calibration, and never learned from.
//!
//! Predictions are taken every horizon / [`PREDICTIONS_PER_HORIZON`], so that one episode does not count once a cycle.
//! An alert that becomes known after the horizon of a prediction comes too late for it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::tally::{DaySummary, Tally, WARNING_AT};
use crate::forecast::{Calibration, Evidence};
use crate::model::{ComponentId, Millis, Timestamp};

/// How many predictions are taken within one horizon; bounds what is pending for a component.
pub(super) const PREDICTIONS_PER_HORIZON: u8 = 24;
/// How many days of tallies are kept.
const DAYS_KEPT: i64 = 30;
/// An alert that nobody has spoken of for so long is over: its end was lost. Longer than Alertmanager's usual four hours
/// between repetitions.
const ALERT_HELD: Millis = Millis(12 * Millis::HOUR.0);
/// Over a restart, predictions stay open while it was shorter than this part of their horizon.
const BLIND_PART: i64 = 4;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Prediction {
    at: Timestamp,
    probability: f64,
    acted: bool,
}

/// What the channels saw of one signal when a prediction was taken.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Seen {
    at: Timestamp,
    evidence: Evidence,
    acted: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PendingSignal {
    signal: String,
    seen: VecDeque<Seen>,
    breached: bool,
}

/// A failure that an alert tells of.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Alerted {
    start: Timestamp,
    end: Option<Timestamp>,
    heard_at: Timestamp,
    /// Not yet taken account of.
    fresh: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Pending {
    predictions: VecDeque<Prediction>,
    signals: Vec<PendingSignal>,
    alert: Option<Alerted>,
    /// Whether it was failing at the last call, and until when it is known to have been.
    failing: bool,
    failed_to: Option<Timestamp>,
    warned_since: Option<Timestamp>,
    /// Until when an earlier process saw it, where this one has not seen it yet.
    resumed_from: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct RuleOutcomes {
    kind: String,
    pending: BTreeMap<ComponentId, Pending>,
    sums: Sums,
    /// How many summaries have been told, by earlier processes too.
    summaries: u64,
    calibration: Calibration,
    lead_seconds: Vec<f64>,
}

/// The same sums over several times.
#[derive(Debug, Default)]
struct Sums {
    days: BTreeMap<i64, Tally>,
    total: Tally,
    /// By day, what no summary has told yet.
    untold: BTreeMap<i64, Tally>,
}

impl Sums {
    fn add(&mut self, now: Timestamp, add: impl Fn(&mut Tally)) {
        let day = day_of(now);
        add(self.days.entry(day).or_default());
        add(self.untold.entry(day).or_default());
        add(&mut self.total);
    }
}

fn day_of(at: Timestamp) -> i64 {
    at.0.div_euclid(Millis::DAY.0)
}

/// What one rule said of one component at one moment.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// The calibrated probability; absent when unknown or learning.
    pub probability: Option<f64>,
    /// Whether a signal of the rule is in breach.
    pub breached: bool,
    /// Whether an action of ours stands for this component, or is under way.
    pub acted: bool,
    /// Whether the newest value was outside the interval forecast one horizon before.
    pub outside_interval: Option<bool>,
    /// What was seen of each signal.
    pub signals: Vec<SignalSaid>,
}

/// What was seen of one signal.
#[derive(Debug, Clone)]
pub struct SignalSaid {
    /// Its name.
    pub signal: String,
    /// Whether it is in breach.
    pub breached: bool,
    /// What the channels saw; absent when unknown or learning.
    pub evidence: Option<Evidence>,
}

/// The ledger of outcomes of all rules.
#[derive(Debug, Default)]
pub struct Outcomes {
    rules: BTreeMap<String, RuleOutcomes>,
}

/// What of a rule's outcomes no summary holds: open predictions, and what was resolved and learned since the last one.
#[derive(Debug, Serialize, Deserialize)]
pub struct UntoldOutcomes {
    rule: String,
    kind: String,
    pending: BTreeMap<ComponentId, Pending>,
    untold: BTreeMap<i64, Tally>,
    summaries: u64,
    calibration: Calibration,
}

/// What evidence means under each rule.
#[derive(Debug, Default)]
pub struct Calibrations {
    rules: BTreeMap<String, Calibration>,
    kinds: BTreeMap<String, Calibration>,
    all: Calibration,
}

impl Calibrations {
    /// What it means under a rule; what its kind or all have learned where the rule has said nothing yet.
    pub fn of(&self, rule: &str, kind: &str) -> &Calibration {
        self.rules.get(rule).or_else(|| self.kinds.get(kind)).unwrap_or(&self.all)
    }
}

/// Which days are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Those that are over.
    Past,
    /// Today too: the process ends.
    All,
}

/// Taking predictions and what became of them.
impl Outcomes {
    /// Takes what a rule said of a component, and resolves what is over.
    pub fn take(
        &mut self,
        (rule, kind, horizon): (&str, &str, Millis),
        component: &ComponentId,
        said: &Said,
        now: Timestamp,
    ) {
        let outcomes = match self.rules.get_mut(rule) {
            Some(outcomes) => outcomes,
            None => self.rules.entry(rule.to_owned()).or_default(),
        };
        if outcomes.kind != kind {
            kind.clone_into(&mut outcomes.kind);
        }
        let RuleOutcomes { pending, sums, calibration, lead_seconds, .. } = outcomes;
        if !pending.contains_key(component) {
            pending.insert(component.clone(), Pending::default());
        }
        let Some(pending) = pending.get_mut(component) else { return };
        if let Some(outside) = said.outside_interval {
            sums.add(now, |tally| tally.add_interval(!outside));
        }
        if said.acted {
            pending.mark_acted();
        }
        pending.resume(horizon, now);
        let alerted = pending.alert_begins(now);
        let begins = alerted.or((said.breached && !pending.failing).then_some(now));
        pending.resolve(begins, horizon, now, sums);
        pending.resolve_signals(said, alerted, horizon, now, (sums, calibration));
        if let Some(lead) = pending.lead(begins) {
            lead_seconds.push(lead.as_secs_f64());
            sums.add(now, |tally| tally.add_lead(lead));
        }
        pending.note_failing(said.breached, now);
        pending.take(said, horizon, now);
    }

    /// Takes a failure that an alert tells of: when it began, and its end where it is over. Answers whether the component is
    /// known under the rule. One that is told again is not another one.
    pub fn fail(
        &mut self,
        rule: &str,
        component: &ComponentId,
        (start, end): (Timestamp, Option<Timestamp>),
        now: Timestamp,
    ) -> bool {
        let of_rule = self.rules.get_mut(rule);
        let Some(pending) = of_rule.and_then(|outcomes| outcomes.pending.get_mut(component)) else { return false };
        let start = start.min(now);
        let known = pending.alert.filter(|alert| alert.start == start);
        let fresh = known.is_none_or(|alert| alert.fresh);
        pending.alert = Some(Alerted { start, end, heard_at: now, fresh });
        true
    }

    /// Forgets components that are gone, and days that are too old.
    pub fn prune(&mut self, keep: impl Fn(&str, &ComponentId) -> bool, now: Timestamp) {
        let oldest = day_of(now) - DAYS_KEPT;
        for (rule, outcomes) in &mut self.rules {
            outcomes.pending.retain(|component, _| keep(rule, component));
            outcomes.sums.days.retain(|day, _| *day > oldest);
        }
    }
}

impl Pending {
    /// After a long time of which nobody knows anything, what was predicted before it is dropped.
    fn resume(&mut self, horizon: Millis, now: Timestamp) {
        let from = self.resumed_from.take();
        if from.is_some_and(|from| now - from > horizon / BLIND_PART) {
            *self = Pending { alert: self.alert, ..Pending::default() };
        }
    }

    /// What an action may have changed is no longer evidence about what was predicted.
    fn mark_acted(&mut self) {
        self.predictions.iter_mut().for_each(|prediction| prediction.acted = true);
        self.signals.iter_mut().flat_map(|signal| &mut signal.seen).for_each(|seen| seen.acted = true);
    }

    /// When the failure began that an alert newly tells of; nothing where it is one that was known.
    fn alert_begins(&mut self, now: Timestamp) -> Option<Timestamp> {
        let alert = self.alert.as_mut().filter(|alert| alert.fresh && alert.start <= now)?;
        alert.fresh = false;
        let known = self.failing || self.failed_to.is_some_and(|to| alert.start <= to);
        (!known).then_some(alert.start)
    }

    fn alert_holds(&self, now: Timestamp) -> bool {
        self.alert.is_some_and(|alert| {
            alert.start <= now && alert.end.is_none_or(|end| now < end) && now - alert.heard_at < ALERT_HELD
        })
    }

    fn note_failing(&mut self, breached: bool, now: Timestamp) {
        self.failing = breached || self.alert_holds(now);
        if self.failing {
            self.failed_to = Some(now);
        } else if let Some(end) = self.alert.and_then(|alert| alert.end).filter(|end| *end <= now) {
            self.failed_to = self.failed_to.max(Some(end));
        }
    }

    /// Resolves the predictions whose horizon is over, and all of them where a failure begins.
    fn resolve(&mut self, begins: Option<Timestamp>, horizon: Millis, now: Timestamp, sums: &mut Sums) {
        while let Some(Prediction { at, probability, acted }) = self.predictions.front().copied() {
            let Some(came) = came_true(at, horizon, begins, now) else { break };
            self.predictions.pop_front();
            if let Some(came) = came {
                sums.add(now, |tally| tally.add(probability, came, acted));
            }
        }
    }

    /// The same for what was seen of each signal: its own breach counts, and a failure that an alert tells of.
    fn resolve_signals(
        &mut self,
        said: &Said,
        alerted: Option<Timestamp>,
        horizon: Millis,
        now: Timestamp,
        (sums, calibration): (&mut Sums, &mut Calibration),
    ) {
        for pending in &mut self.signals {
            let breached = said.signals.iter().any(|signal| signal.signal == pending.signal && signal.breached);
            let begins = alerted.or((breached && !pending.breached).then_some(now));
            pending.breached = breached;
            while let Some(Seen { at, evidence, acted }) = pending.seen.front().copied() {
                let Some(came) = came_true(at, horizon, begins, now) else { break };
                pending.seen.pop_front();
                let Some(came) = came.filter(|_| !acted) else { continue };
                calibration.learn(&evidence, came, 1.0 / f64::from(PREDICTIONS_PER_HORIZON));
                for channel in evidence.claiming() {
                    sums.add(now, |tally| tally.add_claim(&pending.signal, channel, came));
                }
            }
        }
    }

    /// From the first warning to the failure that begins.
    fn lead(&mut self, begins: Option<Timestamp>) -> Option<Millis> {
        let begins = begins?;
        let since = self.warned_since.take()?;
        (since < begins).then(|| begins - since)
    }

    /// Takes a new prediction, where something is predicted and the last one is old enough.
    fn take(&mut self, said: &Said, horizon: Millis, now: Timestamp) {
        let Some(probability) = said.probability.filter(|p| p.is_finite() && !self.failing) else {
            self.warned_since = None;
            return;
        };
        self.warned_since = (probability >= WARNING_AT).then(|| self.warned_since.unwrap_or(now));
        let spacing = horizon / i64::from(PREDICTIONS_PER_HORIZON);
        if self.predictions.back().is_some_and(|last| now - last.at < spacing) {
            return;
        }
        let acted = said.acted;
        self.predictions.push_back(Prediction { at: now, probability: probability.clamp(0.0, 1.0), acted });
        self.signals.retain(|pending| said.signals.iter().any(|signal| signal.signal == pending.signal));
        for SignalSaid { signal, breached, evidence } in &said.signals {
            let Some(evidence) = evidence.filter(|_| !breached) else { continue };
            let known = self.signals.iter().position(|pending| pending.signal == *signal);
            let index = known.unwrap_or_else(|| {
                self.signals.push(PendingSignal { signal: signal.clone(), seen: VecDeque::new(), breached: false });
                self.signals.len() - 1
            });
            self.signals[index].seen.push_back(Seen { at: now, evidence, acted });
        }
    }
}

/// What became of something predicted at `at`: nothing while it is open; no answer where the failure had begun already.
fn came_true(at: Timestamp, horizon: Millis, begins: Option<Timestamp>, now: Timestamp) -> Option<Option<bool>> {
    match begins {
        Some(begins) if at >= begins => Some(None),
        Some(begins) => Some(Some(begins <= at + horizon)),
        None => (now > at + horizon).then_some(Some(false)),
    }
}

/// What is known of rules.
impl Outcomes {
    /// The names of the rules that have said something.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// All that was resolved, before the last start too where [`Outcomes::recover`] was told of it.
    pub fn total(&self, rule: &str) -> Tally {
        self.rules.get(rule).map(|outcomes| outcomes.sums.total.clone()).unwrap_or_default()
    }

    /// What was resolved in the last `days` days (UTC), today among them; at most 30.
    pub fn last_days(&self, rule: &str, days: i64, now: Timestamp) -> Tally {
        let oldest = day_of(now) - days;
        let mut sum = Tally::default();
        if let Some(outcomes) = self.rules.get(rule) {
            outcomes.sums.days.range(oldest + 1..).for_each(|(_, tally)| sum.merge(tally));
        }
        sum
    }

    /// What evidence means: for each rule what it has learned, over what its kind has, over what all have, over the prior
    /// that ships.
    pub fn calibrations(&self) -> Calibrations {
        let mut all = Calibration::prior();
        let mut kinds: BTreeMap<String, Calibration> = BTreeMap::new();
        for outcomes in self.rules.values() {
            all.absorb(&outcomes.calibration);
            kinds.entry(outcomes.kind.clone()).or_default().absorb(&outcomes.calibration);
        }
        kinds.values_mut().for_each(|kind| *kind = kind.under(&all));
        let of_rule = |outcomes: &RuleOutcomes| outcomes.calibration.under(&kinds[&outcomes.kind]);
        let rules = self.rules.iter().map(|(rule, outcomes)| (rule.clone(), of_rule(outcomes))).collect();
        Calibrations { rules, kinds, all }
    }

    /// What no summary has told of yet, by rule and day. It stays untold until [`Outcomes::told`].
    pub fn untold(&self, which: Told, now: Timestamp) -> Vec<DaySummary> {
        let of_rule = |(rule, outcomes): (&String, &RuleOutcomes)| -> Vec<DaySummary> {
            let days = outcomes.sums.untold.iter().filter(|(day, _)| which == Told::All || **day < day_of(now));
            let summary = |(day, tally): (&i64, &Tally)| DaySummary {
                rule: rule.clone(),
                kind: outcomes.kind.clone(),
                day: *day,
                tally: tally.clone(),
                calibration: outcomes.calibration.clone(),
            };
            days.map(summary).collect()
        };
        self.rules.iter().flat_map(of_rule).collect()
    }

    /// These summaries are kept by someone now.
    pub fn told(&mut self, summaries: &[DaySummary]) {
        for summary in summaries {
            if let Some(outcomes) = self.rules.get_mut(&summary.rule) {
                outcomes.sums.untold.remove(&summary.day);
                outcomes.summaries += 1;
            }
        }
    }

    /// Takes over the summaries that were kept before a restart, the oldest first.
    pub fn recover(&mut self, summaries: Vec<DaySummary>) {
        for DaySummary { rule, kind, day, tally, calibration } in summaries {
            let outcomes = self.rules.entry(rule).or_default();
            outcomes.kind = kind;
            outcomes.sums.days.entry(day).or_default().merge(&tally);
            outcomes.sums.total.merge(&tally);
            outcomes.calibration = calibration;
            outcomes.summaries += 1;
        }
    }

    /// What the summaries that were told do not hold, by rule: for the file of what was learned.
    pub fn untold_by_rule(&self) -> impl Iterator<Item = UntoldOutcomes> {
        self.rules.iter().map(|(rule, outcomes)| UntoldOutcomes {
            rule: rule.clone(),
            kind: outcomes.kind.clone(),
            pending: outcomes.pending.clone(),
            untold: outcomes.sums.untold.clone(),
            summaries: outcomes.summaries,
            calibration: outcomes.calibration.clone(),
        })
    }

    /// Goes on with what an earlier process had not told up to `at`, once its summaries are recovered. Sums that a later
    /// summary holds already are not counted again.
    pub fn resume(&mut self, untold: UntoldOutcomes, at: Timestamp) {
        let outcomes = self.rules.entry(untold.rule).or_default();
        outcomes.kind = untold.kind;
        outcomes.pending = untold.pending;
        outcomes.pending.values_mut().for_each(|pending| pending.resumed_from = Some(at));
        if outcomes.summaries != untold.summaries {
            return;
        }
        outcomes.calibration = untold.calibration;
        for (day, tally) in untold.untold {
            outcomes.sums.days.entry(day).or_default().merge(&tally);
            outcomes.sums.untold.entry(day).or_default().merge(&tally);
            outcomes.sums.total.merge(&tally);
        }
    }

    /// Takes the lead times of breaches that came since the last call, in seconds: rule and lead.
    pub fn drain_leads(&mut self) -> Vec<(String, f64)> {
        let drain = self.rules.iter_mut().flat_map(|(rule, outcomes)| {
            std::mem::take(&mut outcomes.lead_seconds).into_iter().map(move |lead| (rule.clone(), lead))
        });
        drain.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::ChannelName;
    use crate::health::Resolution;

    const HORIZON: Millis = Millis(24 * Millis::MINUTE.0);

    fn component() -> ComponentId {
        ComponentId { kind: "node".to_owned(), labels: Vec::new() }
    }

    fn minute(minute: usize) -> Timestamp {
        Timestamp(Millis::MINUTE.0 * i64::try_from(minute).expect("a small number"))
    }

    /// Plays one component: a probability a minute (`!` = in breach, `a0.9` = acted, `d0.9` = the drift channel claims it),
    /// `F3` = an alert tells of a failure that began three minutes ago, `F3-1` = and ended one ago.
    fn play(script: &str) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let mut minutes = 0;
        for word in script.split_whitespace() {
            if let Some(alert) = word.strip_prefix('F') {
                let ago = |text: &str| minute(minutes) - Millis::MINUTE * text.parse().expect("minutes");
                let (start, end) = alert.split_once('-').map_or((alert, None), |(start, end)| (start, Some(end)));
                assert!(outcomes.fail("r", &component(), (ago(start), end.map(ago)), minute(minutes)), "it is known");
                continue;
            }
            let breached = word == "!";
            let claims = word.starts_with('d');
            let evidence = Evidence::of_drift(if claims { 1.0 } else { 0.0 });
            let said = Said {
                probability: word.trim_start_matches(['a', 'd']).parse().ok(),
                breached,
                acted: word.starts_with('a'),
                outside_interval: None,
                signals: vec![SignalSaid { signal: "s".to_owned(), breached, evidence: Some(evidence) }],
            };
            outcomes.take(("r", "node", HORIZON), &component(), &said, minute(minutes));
            minutes += 1;
        }
        outcomes
    }

    /// Counts tp fp fn tn ok failed.
    fn check(script: &str, expected: [u64; 6]) -> Outcomes {
        let outcomes = play(script);
        let total = outcomes.total("r");
        assert_eq!(Resolution::ALL.map(|resolution| total.count(resolution)), expected, "{script}");
        outcomes
    }

    #[test]
    fn predictions_before_a_breach_are_hits_or_misses() {
        let mut outcomes = check("0.1 0.9 0.9 ! ! !", [2, 0, 1, 0, 0, 0]);
        assert_eq!(outcomes.drain_leads(), [("r".to_owned(), 120.0)]);
        assert_eq!(outcomes.total("r").precision(), Some(1.0));
        assert_eq!(outcomes.total("r").lead(), Some(120.0));
    }

    #[test]
    fn predictions_whose_horizon_is_over_are_resolved_as_not_come_true() {
        let script = format!("0.9 0.1 {}", "u ".repeat(25));
        check(&script, [0, 1, 0, 1, 0, 0]);
    }

    #[test]
    fn predictions_that_were_acted_on_are_counted_apart() {
        let outcomes = check("0.9 a0.9 !", [0, 0, 0, 0, 0, 2]);
        assert_eq!(outcomes.total("r").brier(), None);
    }

    #[test]
    fn a_breach_long_after_a_prediction_does_not_make_it_true() {
        let script = format!("0.9 {} !", "u ".repeat(25));
        check(&script, [0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn an_alert_is_a_failure_from_its_own_start_on() {
        // What was said before it began came true; what was said after, before anybody told us, counts as neither.
        let mut outcomes = check("0.1 0.9 0.9 0.9 F1 0.9 0.9", [2, 0, 1, 0, 0, 0]);
        assert_eq!(outcomes.drain_leads(), [("r".to_owned(), 120.0)]);
        // While it fires nothing is predicted, and the breach that follows is the same failure.
        check("0.9 F0 0.9 0.9 ! ! 0.9", [1, 0, 0, 0, 0, 0]);
        check("0.9 F0 0.9 F1 0.9 F2 0.9", [1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_alert_about_a_breach_that_is_known_is_no_second_failure() {
        check("0.9 ! ! F1 ! ! F3-0 0.9 0.9", [1, 0, 0, 0, 0, 0]);
        check("0.9 ! ! 0.9 0.1 F3-1 0.1", [1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_alert_that_is_over_when_it_is_told_counts_all_the_same() {
        check("0.9 0.9 0.1 F1-0 0.1 0.1", [2, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn channels_are_judged_by_their_claims_and_teach_what_evidence_means() {
        let came = play(&"d0.9 d0.9 ! u ".repeat(30));
        let claims: Vec<_> = came.total("r").claims().map(|(s, c, claims)| (s.to_owned(), c, claims)).collect();
        assert_eq!(claims.len(), 1);
        assert_eq!((claims[0].1, claims[0].2.precision()), (ChannelName::Drift, Some(1.0)), "{claims:?}");
        let in_vain = play(&format!("{} {}", "d0.9 ".repeat(400), "u ".repeat(30)));
        assert_eq!(in_vain.total("r").claims().next().and_then(|(_, _, claims)| claims.precision()), Some(0.0));
        let seen = Evidence::of_drift(1.0);
        let believed = |outcomes: &Outcomes| outcomes.calibrations().of("r", "node").believe(&seen).probability;
        assert!(believed(&came) > 0.9 && believed(&in_vain) < 0.5, "{} {}", believed(&came), believed(&in_vain));
        assert!(in_vain.calibrations().of("r", "node").muted().contains(&ChannelName::Drift));
        // A rule that has said nothing believes what its kind has learned.
        assert!(in_vain.calibrations().of("other", "node").believe(&seen).probability < 0.6);
    }

    /// A process that takes over from one that was killed after `before`, so many minutes later, and plays `after`.
    fn taken_over(before: &str, minutes_later: usize, after: &str) -> [u64; 6] {
        let killed = play(before);
        let end = minute(before.split_whitespace().count() - 1);
        let bytes = postcard::to_allocvec(&killed.untold_by_rule().collect::<Vec<_>>()).expect("plain data");
        let mut outcomes = Outcomes::default();
        for untold in postcard::from_bytes::<Vec<UntoldOutcomes>>(&bytes).expect("as written") {
            outcomes.resume(untold, end);
        }
        for (word, at) in after.split_whitespace().zip(before.split_whitespace().count() + minutes_later..) {
            let said = Said { probability: word.parse().ok(), breached: word == "!", ..Said::default() };
            outcomes.take(("r", "node", HORIZON), &component(), &said, minute(at));
        }
        Resolution::ALL.map(|resolution| outcomes.total("r").count(resolution))
    }

    #[test]
    fn what_was_open_when_a_process_was_killed_is_resolved_by_the_next() {
        assert_eq!(taken_over("0.9 ! u 0.9 0.1", 2, "0.9 !"), [3, 0, 1, 0, 0, 0]);
        // Nobody knows what came of it while nobody looked.
        assert_eq!(taken_over("0.9 ! u 0.9 0.1", 10, "0.9 !"), [2, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_a_later_summary_holds_is_not_counted_again() {
        let killed = play("0.9 0.9 !");
        let mut outcomes = Outcomes::default();
        let kept: Vec<UntoldOutcomes> = killed.untold_by_rule().collect();
        outcomes.recover(killed.untold(Told::All, minute(3)));
        kept.into_iter().for_each(|untold| outcomes.resume(untold, minute(3)));
        assert_eq!(Resolution::ALL.map(|resolution| outcomes.total("r").count(resolution)), [2, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_was_acted_on_teaches_nothing() {
        let acted = play(&format!("{} {}", "a0.9 ".repeat(60), "u ".repeat(30)));
        assert_eq!(acted.total("r").claims().count(), 0);
        let seen = Evidence::of_drift(1.0);
        let believed = |outcomes: &Outcomes| outcomes.calibrations().of("r", "node").believe(&seen);
        let (after, before) = (believed(&acted), believed(&Outcomes::default()));
        assert!((after.probability - before.probability).abs() < 1e-9 && (after.low - before.low).abs() < 1e-9);
    }

    #[test]
    fn what_was_told_is_recovered_and_counts_once() {
        let mut outcomes = play(&"d0.9 d0.9 0.1 ! u ".repeat(20));
        assert_eq!(outcomes.untold(Told::Past, minute(100)), []);
        let first = outcomes.untold(Told::All, minute(100));
        outcomes.told(&first);
        assert_eq!(outcomes.untold(Told::All, minute(100)), []);
        let text = serde_json::to_string(&first).expect("a summary is JSON");
        let mut recovered = Outcomes::default();
        recovered.recover(serde_json::from_str(&text).expect("and can be read back"));
        assert_eq!(recovered.total("r"), outcomes.total("r"));
        assert_eq!(recovered.last_days("r", 7, minute(100)), outcomes.last_days("r", 7, minute(100)));
        let believed = |outcomes: &Outcomes| {
            outcomes.calibrations().of("r", "node").believe(&Evidence::of_drift(1.0)).probability.to_bits()
        };
        assert_eq!(believed(&recovered), believed(&outcomes));
    }
}
