//! From the channels' scores to a probability that means what it says.
//!
//! Each channel has a map from its score to the share of such moments after which a breach began within the horizon: counts
//! in bins, made monotone by pooling adjacent violators (Ayer et al. 1955). Moments of one horizon are one case, not many:
//! whoever teaches says which share of a case a moment is. Where no channel sees anything, the probability is the share of
//! breaches that came without warning.
//!
//! Counts are pooled hierarchically, rule under kind under the prior that ships: a parent counts like a few cases in each bin
//! of its child, so that a young rule believes what held elsewhere and an old one what held for itself. A channel whose
//! claims do not come true in a rule sinks under one half there and no longer warns; since what it would have said goes on
//! being learned, it comes back when it is right again.

use serde::{Deserialize, Serialize};

use super::ChannelName;
use super::cells::whole;

/// Bins of a map: a bin is a tenth of a score.
const BINS: usize = 10;
/// What a parent counts for in each bin of its child, in cases, at most: about eighty for all claims of a channel. With six,
/// a rule of a few dozen components believed its own first week: alarms on simulated fleets lost 0.02 to 0.12 of their F1.
const PARENT_CASES: f64 = 12.0;
/// The same of a channel that errs in this rule: about six for all of its claims, so that it is muted soon.
const PARENT_CASES_OF_ERRING: f64 = 0.85;
/// A map holds so many cases at most; beyond it older ones count less, so that what has changed is learned.
const CASES_MAX: f64 = 300.0;
/// A channel that warns less often rightly than this says nothing for the rule.
const MUTED_BELOW: f64 = 0.5;
/// What a parent knows of silence counts for so many cases: far more moments are silent than not.
const SILENCE_PARENT_CASES: f64 = 100.0;
/// Scores below this are as good as none.
const SILENT_BELOW: f64 = 0.1;
/// One-sided 90 %.
const Z: f64 = 1.2816;

/// The prior: for each tenth of a score the share that came true, and on how many cases.
const PRIOR_DRIFT: [(f64, f64); BINS] = [
    (0.00, 0.0),
    (0.54, 20.0),
    (0.86, 20.0),
    (0.96, 8.0),
    (0.97, 8.0),
    (0.98, 8.0),
    (0.98, 8.0),
    (0.98, 8.0),
    (0.98, 8.0),
    (0.98, 8.0),
];
const PRIOR_BRIEF_DRIFT: [(f64, f64); BINS] = [
    (0.00, 0.0),
    (0.40, 15.0),
    (0.78, 17.0),
    (0.82, 8.0),
    (0.84, 8.0),
    (0.91, 8.0),
    (0.95, 8.0),
    (0.96, 8.0),
    (0.97, 8.0),
    (0.97, 8.0),
];
const PRIOR_CYCLE: [(f64, f64); BINS] = [
    (0.00, 0.0),
    (0.04, 9.0),
    (0.15, 7.0),
    (0.28, 6.0),
    (0.42, 4.0),
    (0.52, 3.0),
    (0.65, 5.0),
    (0.65, 4.0),
    (0.75, 5.0),
    (0.92, 20.0),
];
const PRIOR_RECORD: [(f64, f64); BINS] = [
    (0.00, 0.0),
    (0.00, 0.0),
    (0.00, 0.0),
    (0.00, 0.0),
    (0.00, 0.0),
    (0.00, 0.0),
    (0.12, 3.0),
    (0.12, 3.0),
    (0.15, 3.0),
    (0.20, 3.0),
];
const PRIOR_SILENCE: (f64, f64) = (0.02, 200.0);

/// What the channels saw of one signal at one moment, as scores from 0 (nothing) to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub(super) drift: f32,
    /// The drift channel's score where its windows are shorter than a season: it knows the season less well then.
    pub(super) brief_drift: f32,
    pub(super) cycle: f32,
    pub(super) record: f32,
}

/// What is believed of a breach within the horizon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Belief {
    /// The highest score before calibration.
    pub raw: f64,
    /// Calibrated, 0..1.
    pub probability: f64,
    /// The lower end of the one-sided 90 % interval of `probability`; 0 where no channel sees anything.
    pub low: f64,
}

/// So many cases, and after how many of them a breach came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Count {
    cases: f64,
    came: f64,
}

/// Learned map from evidence to probability, of one rule or kind, over what is believed of its parent.
///
/// Takes about 500 bytes, whatever is learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    own: Maps,
    parent: Maps,
}

/// One map a channel, and what is known of silence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Maps {
    channels: [[Count; BINS]; CHANNELS.len()],
    silence: Count,
}

/// The channels that have a map, in the order of [`Evidence::scores`].
const CHANNELS: [ChannelName; 4] = [ChannelName::Drift, ChannelName::Drift, ChannelName::Cycle, ChannelName::Record];
/// The place of the record channel among them.
const RECORD: usize = 3;
/// So many claims of a record would fill a horizon.
const CLAIMS_PER_HORIZON: f64 = 24.0;
/// The score from which on each of them claims that a breach comes.
const CLAIMS_FROM: [f64; 4] = [3.0 / 9.0, 3.0 / 9.0, 0.5, 0.5];

/// Whether the drift channel's longest window is as long as a season.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeesSeason {
    Yes,
    No,
}

impl Evidence {
    /// Of the drift channel alone.
    #[cfg(test)]
    pub(crate) fn of_drift(score: f64) -> Evidence {
        Evidence::of(score, SeesSeason::Yes, 0.0, 0.0)
    }

    /// Scores of the channels; `sees_season`: whether the longest window of the drift channel is as long as a season.
    #[expect(clippy::cast_possible_truncation, reason = "shares between 0 and 1")]
    pub(super) fn of(drift: f64, sees_season: SeesSeason, cycle: f64, record: f64) -> Evidence {
        let (whole, brief) = if sees_season == SeesSeason::Yes { (drift, 0.0) } else { (0.0, drift) };
        Evidence { drift: whole as f32, brief_drift: brief as f32, cycle: cycle as f32, record: record as f32 }
    }

    fn scores(&self) -> [f64; CHANNELS.len()] {
        [self.drift, self.brief_drift, self.cycle, self.record].map(|score| f64::from(score).clamp(0.0, 1.0))
    }

    /// The channels that claim that a breach comes, muted or not; each once.
    pub fn claiming(&self) -> Vec<ChannelName> {
        let mut claiming: Vec<ChannelName> = CHANNELS.into_iter().filter(|channel| self.claims(*channel)).collect();
        claiming.dedup();
        claiming
    }

    /// Whether a channel claims that a breach comes.
    pub fn claims(&self, channel: ChannelName) -> bool {
        let scores = self.scores();
        (0..CHANNELS.len()).any(|index| CHANNELS[index] == channel && scores[index] >= CLAIMS_FROM[index])
    }

    /// How high the record is that is claimed; beyond 1 where it was beyond the threshold.
    pub(super) fn record(&self) -> f64 {
        f64::from(self.record).clamp(0.0, f64::from(f32::MAX))
    }

    /// Each channel's higher score of both.
    pub(super) fn or(self, other: Evidence) -> Evidence {
        Evidence {
            drift: self.drift.max(other.drift),
            brief_drift: self.brief_drift.max(other.brief_drift),
            cycle: self.cycle.max(other.cycle),
            record: self.record.max(other.record),
        }
    }
}

impl Calibration {
    /// What ships: shares over simulated fleets with known failures.
    pub fn prior() -> Calibration {
        let map = |shares: [(f64, f64); BINS]| shares.map(|(share, cases)| Count { cases, came: share * cases });
        let parent = Maps {
            channels: [map(PRIOR_DRIFT), map(PRIOR_BRIEF_DRIFT), map(PRIOR_CYCLE), map(PRIOR_RECORD)],
            silence: Count { cases: PRIOR_SILENCE.1, came: PRIOR_SILENCE.0 * PRIOR_SILENCE.1 },
        };
        Calibration { own: Maps::empty(), parent }
    }

    /// Takes what became of one moment: whether a breach began within the horizon. `weight`: which share of an independent
    /// case the moment is; with moments each twenty-fourth of a horizon, a twenty-fourth. Anything but 0..1 is brought there.
    pub fn learn(&mut self, evidence: &Evidence, came: bool, weight: f64) {
        let weight = if weight.is_finite() { weight.clamp(0.0, 1.0) } else { 0.0 };
        let one = Count { cases: weight, came: if came { weight } else { 0.0 } };
        let scores = evidence.scores();
        let claims: Vec<bool> = scores.iter().zip(CLAIMS_FROM).map(|(score, from)| *score >= from).collect();
        for (channel, map) in self.own.channels.iter_mut().enumerate() {
            // What a channel half sees is not to be credited with what another one saw.
            let alone = claims.iter().enumerate().all(|(other, claims)| other == channel || !claims);
            if let Some(bin) = bin(scores[channel]).filter(|_| claims[channel] || alone) {
                // A record is a case of its own, short as its claim is.
                let share = if channel == RECORD { CLAIMS_PER_HORIZON.min(1.0 / weight.max(1e-9)) } else { 1.0 };
                map[bin].add(Count { cases: one.cases * share, came: one.came * share });
                forget(map);
            }
        }
        if scores.iter().all(|score| bin(*score).is_none()) {
            self.own.silence.add(one);
            forget(std::slice::from_mut(&mut self.own.silence));
        }
    }

    /// Takes over what another one learned, as if it had been taught the same: a kind learns what its rules do.
    pub fn absorb(&mut self, other: &Calibration) {
        for (map, more) in self.own.channels.iter_mut().zip(&other.own.channels) {
            map.iter_mut().zip(more).for_each(|(count, more)| count.add(*more));
            forget(map);
        }
        self.own.silence.add(other.own.silence);
        forget(std::slice::from_mut(&mut self.own.silence));
    }

    /// The same with what `parent` believes as its prior.
    #[must_use]
    pub fn under(&self, parent: &Calibration) -> Calibration {
        Calibration { own: self.own.clone(), parent: parent.pooled() }
    }

    /// What the evidence means.
    pub fn believe(&self, evidence: &Evidence) -> Belief {
        let pooled = self.pooled();
        let scores = evidence.scores();
        let silence = pooled.silence.share();
        // The record's score is a height, not a share.
        let raw = scores[..RECORD].iter().copied().fold(0.0, f64::max);
        let mut belief = Belief { raw, probability: silence, low: 0.0 };
        for (channel, score) in scores.into_iter().enumerate() {
            let Some(own) = bin(score) else { continue };
            let map = &pooled.channels[channel];
            let probability = isotonic(map)[own].share();
            // Bins know of one another: a share is as sure as all claims (or all lesser scores) together make it.
            let claim = bin(CLAIMS_FROM[channel]).unwrap_or(0);
            let known = if own >= claim { &map[claim..] } else { &map[..claim] };
            let cases = known.iter().map(|count| count.cases).sum();
            belief.probability = belief.probability.max(probability);
            belief.low = belief.low.max(wilson_low(probability, cases));
        }
        belief
    }

    /// The channels whose claims come true too seldom for this rule, so that they do not warn.
    pub fn muted(&self) -> Vec<ChannelName> {
        let pooled = self.pooled();
        let is_muted = |channel: &usize| isotonic(&pooled.channels[*channel])[BINS - 1].share() < MUTED_BELOW;
        (0..CHANNELS.len()).filter(is_muted).map(|channel| CHANNELS[channel]).collect()
    }

    fn pooled(&self) -> Maps {
        let mut pooled = self.own.clone();
        for (map, parent) in pooled.channels.iter_mut().zip(&self.parent.channels) {
            // Where a channel errs, the rule's own few outcomes say so; where it does not, they refine what is known.
            let quick = over(map, parent, PARENT_CASES_OF_ERRING);
            let errs = isotonic(&quick)[BINS - 1].share() < MUTED_BELOW;
            *map = if errs { quick } else { over(map, parent, PARENT_CASES) };
        }
        pooled.silence.add(self.parent.silence.at_most(SILENCE_PARENT_CASES));
        pooled
    }
}

/// A map with what its parent knows of each bin, which counts for so many cases at most.
fn over(own: &[Count; BINS], parent: &[Count; BINS], cases: f64) -> [Count; BINS] {
    let mut map = *own;
    for (count, prior) in map.iter_mut().zip(isotonic(parent)) {
        count.add(prior.at_most(cases));
    }
    map
}

impl Default for Calibration {
    /// Nothing learned, over the prior that ships.
    fn default() -> Calibration {
        Calibration::prior()
    }
}

impl Maps {
    fn empty() -> Maps {
        Maps { channels: [[Count::default(); BINS]; CHANNELS.len()], silence: Count::default() }
    }
}

impl Count {
    fn add(&mut self, other: Count) {
        self.cases += other.cases;
        self.came += other.came;
    }

    fn share(&self) -> f64 {
        if self.cases > 0.0 { (self.came / self.cases).clamp(0.0, 1.0) } else { 0.0 }
    }

    fn at_most(&self, cases: f64) -> Count {
        let factor = if self.cases > cases { cases / self.cases } else { 1.0 };
        Count { cases: self.cases * factor, came: self.came * factor }
    }
}

/// The bin of a score; absent for scores that are as good as nothing.
fn bin(score: f64) -> Option<usize> {
    (score >= SILENT_BELOW).then(|| whole((score * BINS as f64).floor()).min(BINS - 1))
}

/// Makes what is old count less where a map is full.
fn forget(map: &mut [Count]) {
    let cases: f64 = map.iter().map(|count| count.cases).sum();
    if cases > CASES_MAX {
        for count in map {
            *count = Count { cases: count.cases * CASES_MAX / cases, came: count.came * CASES_MAX / cases };
        }
    }
}

/// Pools adjacent violators: shares that do not fall from bin to bin. Each bin gets the share and the cases of its block.
fn isotonic(map: &[Count; BINS]) -> [Count; BINS] {
    // Blocks of bins: what is in each, and the bin after its last.
    let mut blocks = [(Count::default(), 0); BINS];
    let mut count = 0;
    for (bin, one) in map.iter().enumerate() {
        blocks[count] = (*one, bin + 1);
        count += 1;
        while count >= 2 {
            let (before, last) = (blocks[count - 2].0, blocks[count - 1].0);
            if last.cases > 0.0 && before.cases > 0.0 && before.share() < last.share() {
                break;
            }
            count -= 1;
            blocks[count - 1].0.add(last);
            blocks[count - 1].1 = bin + 1;
        }
    }
    let mut pooled = [Count::default(); BINS];
    let mut from = 0;
    for (one, end) in &blocks[..count] {
        pooled[from..*end].fill(*one);
        from = *end;
    }
    pooled
}

/// The lower end of the interval of Wilson (1927) for a share of so many cases.
fn wilson_low(share: f64, cases: f64) -> f64 {
    if cases <= 0.0 {
        return 0.0;
    }
    let square = Z * Z;
    let centre = share + square / (2.0 * cases);
    let half = Z * (share * (1.0 - share) / cases + square / (4.0 * cases * cases)).sqrt();
    ((centre - half) / (1.0 + square / cases)).clamp(0.0, share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(drift: f32, cycle: f32, record: f32) -> Evidence {
        Evidence { drift, brief_drift: 0.0, cycle, record }
    }

    #[test]
    fn more_evidence_is_never_believed_less_and_never_less_than_its_lower_bound() {
        let prior = Calibration::prior();
        for ninths in 0..=9u8 {
            let drift = f32::from(ninths) / 9.0;
            let mut before = prior.believe(&seen(drift, 0.0, 0.0));
            for hundredth in 0..=100u8 {
                let cycle = f32::from(hundredth) / 100.0;
                let now = prior.believe(&seen(drift, cycle, 0.0));
                let fewer = prior.believe(&seen((drift - 0.12).max(0.0), cycle, 0.0));
                assert!(now.probability >= before.probability.max(fewer.probability), "{drift} {cycle}: {now:?}");
                assert!(now.low <= now.probability && now.probability < 1.0, "{drift} {cycle}: {now:?}");
                before = now;
            }
        }
    }

    #[test]
    fn three_votes_or_a_peak_sure_to_breach_are_clearly_more_likely_than_not_and_silence_is_no_risk() {
        let prior = Calibration::prior();
        assert!(prior.believe(&seen(1.0 / 9.0, 0.49, 0.0)).probability < 0.6);
        assert!(prior.believe(&seen(3.0 / 9.0, 0.0, 0.0)).low > 0.6);
        assert!(prior.believe(&seen(0.0, 0.95, 0.0)).probability > 0.8);
        let silence = prior.believe(&seen(0.0, 0.0, 0.0));
        assert!(0.0 < silence.probability && silence.probability < 0.2 && silence.low <= 0.0, "{silence:?}");
        assert_eq!(prior.muted(), [ChannelName::Record]);
    }

    /// Teaches so many cases, of which a share comes, each in 24 moments.
    fn teach(calibration: &mut Calibration, evidence: Evidence, cases: u32, share: f64) {
        for case in 0..cases {
            let came = f64::from(case % 10) < 10.0 * share;
            (0..24).for_each(|_| calibration.learn(&evidence, came, 1.0 / 24.0));
        }
    }

    #[test]
    fn a_channel_that_errs_is_muted_where_it_errs_and_comes_back() {
        let mut rule = Calibration::prior();
        let speaks = seen(0.0, 0.95, 0.0);
        teach(&mut rule, speaks, 20, 0.1);
        assert_eq!(rule.muted(), [ChannelName::Cycle, ChannelName::Record]);
        let believed = rule.believe(&speaks);
        assert!(believed.probability < 0.4, "{believed:?}");
        assert!(rule.believe(&seen(0.5, 0.0, 0.0)).probability > 0.7, "the other channel is believed as before");
        teach(&mut rule, speaks, 60, 0.9);
        assert_eq!(rule.muted(), [ChannelName::Record]);
    }

    #[test]
    fn a_young_rule_believes_its_kind_and_an_old_one_itself() {
        let (mut kind, mut rule) = (Calibration::prior(), Calibration::prior());
        let speaks = seen(0.0, 0.0, 1.0);
        teach(&mut kind, speaks, 40, 0.8);
        assert!(rule.believe(&speaks).probability < 0.5);
        assert!(rule.under(&kind).believe(&speaks).probability > 0.6);
        teach(&mut rule, speaks, 40, 0.1);
        assert!(rule.under(&kind).believe(&speaks).probability < 0.35);
    }

    #[test]
    fn what_is_learned_survives_being_written_down_and_nonsense_does_no_harm() {
        let mut rule = Calibration::prior();
        for weight in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            rule.learn(&seen(f32::NAN, 2.0, -1.0), true, weight);
        }
        let written = serde_json::to_string(&rule).expect("plain data");
        assert_eq!(serde_json::from_str::<Calibration>(&written).expect("as written"), rule);
        let believed = rule.believe(&seen(f32::NAN, f32::INFINITY, -1.0));
        assert!((0.0..=1.0).contains(&believed.probability), "{believed:?}");
    }
}
