//! What warnings and probabilities were worth over a record whose failures are known.
//!
//! A *notification* is the start of an episode of firing, and then one every min(4 h, half of `lead_max`) while it lasts.
//! With a failure at T it is
//!
//! ```text
//!  false, unless a hit follows    hit                     late: neutral
//!  ───────────────────────┬───────────────────────┬──────────────────┬──────▶
//!                    T − lead_max            T − lead_min    T    its end
//! ```
//!
//! In the last `lead_max` of the record what is no hit is undecided: its failure may lie beyond the end. The first
//! fifth of the record is warm-up: what begins there counts for nothing, and an episode that goes on is notified anew.
//!
//! Probabilities are judged at moments that are not in or just after a failure and whose horizon lies within the record.
//! Pure: the same record gives the same figures.

use crate::model::{Millis, Timestamp};

/// The share of a record that is warm-up.
const WARM_UP_PARTS: i64 = 5;
/// The longest time until a notification is repeated.
const REPEAT_MAX: Millis = Millis(4 * Millis::HOUR.0);
/// So long after a failure its aftermath lasts at most, and as a share of `lead_max`.
const AFTERMATH_MAX: Millis = Millis(2 * Millis::HOUR.0);
const AFTERMATH_PARTS: i64 = 12;
/// How many bins of equal width reliability is measured in.
pub const RELIABILITY_BINS: usize = 10;

/// Which part of a record counts, and which lead is a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A warning later than this before its failure comes too late to act on.
    pub lead_min: Millis,
    /// The horizon: a warning earlier than this is not of this failure.
    pub lead_max: Millis,
    /// Where the warm-up ends.
    pub warm_until: Timestamp,
    /// Where the record ends.
    pub end: Timestamp,
}

/// A failure: a breach that really came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// When it began.
    pub at: Timestamp,
    /// When it was over; absent where it lasts to the end of the record.
    pub until: Option<Timestamp>,
}

/// A time in which a component fires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Episode {
    /// From when.
    pub start: Timestamp,
    /// Until when; absent where it still fires at the end of the record.
    pub end: Option<Timestamp>,
    /// The highest probability in it.
    pub probability: f64,
    /// The time to the breach as it was foreseen at its start.
    pub eta: Option<Millis>,
}

/// What was said at a moment outside of a breach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// The calibrated probability.
    pub probability: f64,
    /// The probability before calibration.
    pub raw: f64,
}

/// What a notification was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A failure came, in time.
    Hit,
    /// Too late to act on, or at a failure's own time; or early, with a hit of the same episode after it.
    Neutral,
    /// The record ends before it can be known.
    Undecided,
    /// No failure came.
    False,
}

impl Terms {
    /// The terms of a record from `start` to `end`: its first fifth is warm-up.
    pub fn new((start, end): (Timestamp, Timestamp), (lead_min, lead_max): (Millis, Millis)) -> Terms {
        Terms { lead_min, lead_max, warm_until: start + (end - start) / WARM_UP_PARTS, end }
    }

    fn repeat_every(&self) -> Millis {
        Millis(REPEAT_MAX.0.min(self.lead_max.0 / 2).max(1))
    }

    /// The notifications of an episode after the warm-up.
    pub fn notifications(&self, episode: &Episode) -> Vec<Timestamp> {
        // One that fires at the end of the record fires there, too.
        let until = episode.end.unwrap_or(self.end + Millis(1));
        let mut at = episode.start.max(self.warm_until);
        let mut all = Vec::new();
        while at < until {
            all.push(at);
            at = at + self.repeat_every();
        }
        all
    }

    /// The notifications of an episode with what each of them was.
    pub fn verdicts(&self, episode: &Episode, failures: &[Failure]) -> Vec<(Timestamp, Verdict)> {
        let notifications = self.notifications(episode);
        let last_hit = notifications.iter().copied().filter(|at| self.is_hit(*at, failures)).max();
        let verdict = |at: Timestamp| {
            if self.is_hit(at, failures) {
                Verdict::Hit
            } else if last_hit.is_some_and(|hit| at < hit) || self.is_late(at, failures) {
                Verdict::Neutral
            } else if at + self.lead_max > self.end {
                Verdict::Undecided
            } else {
                Verdict::False
            }
        };
        notifications.into_iter().map(|at| (at, verdict(at))).collect()
    }

    fn is_hit(&self, at: Timestamp, failures: &[Failure]) -> bool {
        failures.iter().any(|failure| self.catches(at, failure))
    }

    fn catches(&self, at: Timestamp, failure: &Failure) -> bool {
        failure.at - self.lead_max <= at && at <= failure.at - self.lead_min
    }

    fn is_late(&self, at: Timestamp, failures: &[Failure]) -> bool {
        let over = |failure: &Failure| failure.until.unwrap_or(self.end);
        failures.iter().any(|failure| failure.at - self.lead_min <= at && at <= over(failure))
    }

    /// Whether a moment counts for the probabilities, and whether a failure came within its horizon.
    fn came(&self, at: Timestamp, failures: &[Failure]) -> Option<bool> {
        if at < self.warm_until || at + self.lead_max > self.end {
            return None;
        }
        let aftermath = AFTERMATH_MAX.min(self.lead_max / AFTERMATH_PARTS);
        let over = |failure: &Failure| failure.until.unwrap_or(self.end) + aftermath;
        if failures.iter().any(|failure| failure.at <= at && at <= over(failure)) {
            return None;
        }
        Some(failures.iter().any(|failure| at <= failure.at && failure.at <= at + self.lead_max))
    }
}

/// Probabilities held against what came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reliability {
    bins: [Bin; RELIABILITY_BINS],
    squared_errors: f64,
}

/// The moments whose probability lies in one tenth of 0..1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    /// How many moments there were.
    pub count: u64,
    /// The sum of what was said.
    pub said: f64,
    /// After how many of them a failure came.
    pub came: u64,
}

impl Reliability {
    /// Takes a probability, 0..1, and whether a failure came.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability times ten is 0 to 10")]
    pub fn add(&mut self, probability: f64, came: bool) {
        let bin = &mut self.bins[((probability * RELIABILITY_BINS as f64) as usize).min(RELIABILITY_BINS - 1)];
        bin.count += 1;
        bin.said += probability;
        bin.came += u64::from(came);
        self.squared_errors += (probability - f64::from(u8::from(came))).powi(2);
    }

    /// Takes over what another has seen.
    pub fn merge(&mut self, other: &Reliability) {
        for (bin, more) in self.bins.iter_mut().zip(&other.bins) {
            bin.count += more.count;
            bin.said += more.said;
            bin.came += more.came;
        }
        self.squared_errors += other.squared_errors;
    }

    /// The bins, from the lowest probability to the highest.
    pub fn bins(&self) -> &[Bin; RELIABILITY_BINS] {
        &self.bins
    }

    /// How many moments there were.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|bin| bin.count).sum()
    }

    /// The share of moments after which a failure came; absent without moments.
    pub fn base_rate(&self) -> Option<f64> {
        let came: u64 = self.bins.iter().map(|bin| bin.came).sum();
        (self.count() > 0).then(|| came as f64 / self.count() as f64)
    }

    /// Mean squared difference of probability and what came (Brier 1950); absent without moments.
    pub fn brier(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.squared_errors / self.count() as f64)
    }

    /// 1 − Brier score ÷ that of always saying the base rate; absent where all or none came.
    pub fn brier_skill(&self) -> Option<f64> {
        let base = self.base_rate()?;
        let reference = base * (1.0 - base);
        (reference > 0.0).then(|| self.brier().map(|brier| 1.0 - brier / reference)).flatten()
    }

    /// Mean distance of what was said from what came over the bins, weighted by their moments; absent without moments.
    pub fn calibration_error(&self) -> Option<f64> {
        let distance: f64 = self.bins.iter().map(|bin| (bin.said - bin.came as f64).abs()).sum();
        (self.count() > 0).then(|| distance / self.count() as f64)
    }
}

/// What warnings and probabilities were worth.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Score {
    /// Failures after the warm-up.
    pub failures: u64,
    /// Those among them that were warned of in time.
    pub hits: u64,
    /// Those among the hits that were warned of with a quarter of the longest lead left.
    pub early_hits: u64,
    /// Notifications that no failure followed.
    pub false_alarms: u64,
    /// Days that components were watched after the warm-up, summed.
    pub component_days: f64,
    /// From the first notification that was a hit to the failure, for each hit.
    pub leads: Vec<Millis>,
    /// The calibrated probabilities.
    pub calibrated: Reliability,
    /// The probabilities before calibration.
    pub raw: Reliability,
}

impl Score {
    /// Takes one component under one rule: its episodes and moments in time order, and its failures.
    pub fn add(&mut self, terms: &Terms, episodes: &[Episode], failures: &[Failure], moments: &[Moment]) {
        let verdicts: Vec<(Timestamp, Verdict)> =
            episodes.iter().flat_map(|episode| terms.verdicts(episode, failures)).collect();
        for failure in failures.iter().filter(|failure| failure.at >= terms.warm_until) {
            self.failures += 1;
            let first = verdicts.iter().map(|(at, _)| *at).filter(|at| terms.catches(*at, failure)).min();
            if let Some(first) = first {
                let lead = failure.at - first;
                self.hits += 1;
                self.early_hits += u64::from(lead >= terms.lead_max / 4);
                self.leads.push(lead);
            }
        }
        self.false_alarms += verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::False).count() as u64;
        self.component_days += (terms.end - terms.warm_until).0 as f64 / Millis::DAY.0 as f64;
        for moment in moments {
            if let Some(came) = terms.came(moment.at, failures) {
                self.calibrated.add(moment.probability, came);
                self.raw.add(moment.raw, came);
            }
        }
    }

    /// Takes over another score.
    pub fn merge(&mut self, other: &Score) {
        self.failures += other.failures;
        self.hits += other.hits;
        self.early_hits += other.early_hits;
        self.false_alarms += other.false_alarms;
        self.component_days += other.component_days;
        self.leads.extend_from_slice(&other.leads);
        self.calibrated.merge(&other.calibrated);
        self.raw.merge(&other.raw);
    }

    /// Hits ÷ (hits + false alarms); absent where nothing was warned of.
    pub fn precision(&self) -> Option<f64> {
        ratio(self.hits, self.hits + self.false_alarms)
    }

    /// Hits ÷ failures; absent without failures.
    pub fn recall(&self) -> Option<f64> {
        ratio(self.hits, self.failures)
    }

    /// The harmonic mean of precision and recall; absent where there is neither failure nor warning.
    pub fn f1(&self) -> Option<f64> {
        // 2PR/(P+R) in counts, so that it is 0 and not absent where one of them is.
        ratio(2 * self.hits, 2 * self.hits + self.false_alarms + (self.failures - self.hits))
    }

    /// Hits with a quarter of the longest lead left ÷ failures; absent without failures.
    pub fn early_recall(&self) -> Option<f64> {
        ratio(self.early_hits, self.failures)
    }

    /// False alarms for each component and day; absent where no time was watched.
    pub fn false_per_component_day(&self) -> Option<f64> {
        (self.component_days > 0.0).then(|| self.false_alarms as f64 / self.component_days)
    }

    /// A quantile, 0..1, of the leads (linear between neighbours); absent without hits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within the list")]
    pub fn lead(&self, quantile: f64) -> Option<Millis> {
        let mut sorted = self.leads.clone();
        sorted.sort_unstable();
        let place = quantile.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        Some(below + Millis(((above - below).0 as f64 * place.fract()).round() as i64))
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = Millis::HOUR;

    fn hour(hours: i64) -> Timestamp {
        Timestamp(0) + HOUR * hours
    }

    /// A record of 100 hours, so that the first 20 are warm-up; a lead of 1 h to 12 h, so that notifications come every
    /// 4 h.
    fn terms() -> Terms {
        Terms::new((hour(0), hour(100)), (HOUR, HOUR * 12))
    }

    fn episode(start: i64, end: Option<i64>) -> Episode {
        Episode { start: hour(start), end: end.map(hour), probability: 0.7, eta: None }
    }

    fn failures(times: &[(i64, i64)]) -> Vec<Failure> {
        times.iter().map(|(at, until)| Failure { at: hour(*at), until: Some(hour(*until)) }).collect()
    }

    #[test]
    fn notifications_are_judged_by_when_the_failure_comes() {
        use Verdict::{False, Hit, Neutral, Undecided};
        let check = |(start, end): (i64, Option<i64>), broken: &[(i64, i64)], expected: &[(i64, Verdict)]| {
            let expected: Vec<_> = expected.iter().map(|(at, verdict)| (hour(*at), *verdict)).collect();
            assert_eq!(
                terms().verdicts(&episode(start, end), &failures(broken)),
                expected,
                "{start} {end:?} {broken:?}"
            );
        };
        check((40, Some(41)), &[(50, 51)], &[(40, Hit)]);
        check((40, Some(45)), &[(50, 51)], &[(40, Hit), (44, Hit)]);
        // The edges of the window belong to it.
        check((38, Some(39)), &[(50, 51)], &[(38, Hit)]);
        check((49, Some(50)), &[(50, 51)], &[(49, Hit)]);
        check((50, Some(51)), &[(50, 51)], &[(50, Neutral)]);
        check((52, Some(53)), &[(50, 51)], &[(52, False)]);
        // Too early, but the episode goes on until it is not.
        check((37, Some(38)), &[(50, 51)], &[(37, False)]);
        check((37, Some(42)), &[(50, 51)], &[(37, Neutral), (41, Hit)]);
        // After the last hit it is false again.
        check((46, Some(56)), &[(50, 51)], &[(46, Hit), (50, Neutral), (54, False)]);
        // In the warm-up nothing is notified; an episode that goes on is notified at its end.
        check((10, Some(15)), &[], &[]);
        check((10, Some(21)), &[], &[(20, False)]);
        // In the last 12 hours nobody can know.
        check((88, Some(89)), &[], &[(88, False)]);
        check((89, None), &[], &[(89, Undecided), (93, Undecided), (97, Undecided)]);
        check((89, Some(90)), &[(95, 96)], &[(89, Hit)]);
    }

    #[test]
    fn a_score_counts_failures_false_alarms_and_leads() {
        let mut score = Score::default();
        let broken = failures(&[(10, 11), (50, 51), (70, 71)]);
        let episodes = [episode(45, Some(50)), episode(60, Some(61)), episode(80, Some(81)), episode(99, None)];
        score.add(&terms(), &episodes, &broken, &[]);
        assert_eq!((score.failures, score.hits, score.early_hits, score.false_alarms), (2, 2, 2, 1));
        assert_eq!(
            (score.lead(0.0), score.lead(0.5), score.lead(1.0)),
            (Some(HOUR * 5), Some(HOUR * 15 / 2), Some(HOUR * 10))
        );
        assert_eq!(score.precision(), Some(2.0 / 3.0));
        assert_eq!(score.recall(), Some(1.0));
        assert_eq!(score.f1(), Some(0.8));
        assert_eq!(score.false_per_component_day(), Some(0.3));
        let mut both = score.clone();
        both.merge(&score);
        assert_eq!((both.failures, both.hits, both.false_alarms, both.leads.len()), (4, 4, 2, 4));
        let nothing = Score::default();
        assert_eq!((nothing.precision(), nothing.recall(), nothing.f1(), nothing.lead(0.5)), (None, None, None, None));
    }

    #[test]
    fn probabilities_are_held_against_what_came() {
        let mut score = Score::default();
        let moment = |at: i64, probability: f64| Moment { at: hour(at), probability, raw: 0.0 };
        let moments = [
            moment(10, 0.9), // warm-up
            moment(37, 0.0), // nothing comes within 12 hours
            moment(38, 1.0), // it does
            moment(51, 1.0), // in the failure
            moment(52, 1.0), // just after it
            moment(53, 0.0),
            moment(89, 0.5), // its horizon is not over
        ];
        score.add(&terms(), &[], &failures(&[(50, 51)]), &moments);
        assert_eq!(score.calibrated.count(), 3);
        assert_eq!(score.calibrated.brier(), Some(0.0));
        assert_eq!(score.calibrated.brier_skill(), Some(1.0));
        assert_eq!(score.calibrated.calibration_error(), Some(0.0));
        assert_eq!(score.raw.brier(), Some(1.0 / 3.0));
        assert_eq!(score.raw.bins()[0], Bin { count: 3, said: 0.0, came: 1 });
        let mut sharp = Reliability::default();
        [(0.72, true), (0.78, false), (0.1, false), (0.1, false)].iter().for_each(|(p, came)| sharp.add(*p, *came));
        let error = sharp.calibration_error().expect("there are moments");
        assert!((error - (0.5 + 0.2) / 4.0).abs() < 1e-12, "{error}");
        assert_eq!(Reliability::default().calibration_error(), None);
    }
}
