//! From the channels' scores to a probability that means what it says.
//!
//! The maps ship as a prior. They were fitted by isotonic regression (pool adjacent violators) on simulated fleets with known
//! failures, one with a horizon of a day and one of six hours: after which share of such moments did a breach begin within
//! the horizon? Moments of one horizon count as one case, and each share is drawn by one case towards a half.
//! On two further fleets three votes came true in 0.82 of all moments, six in 0.96, a cycle score above 0.95 in 0.99; cycle
//! scores between 0.44 and 0.95 only in 0.39 to 0.50, though on two cases. Silence was followed by a breach in 0.03: failures
//! without warning, which are not predicted and so left at 0.

/// What is believed of a breach within the horizon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Belief {
    /// The highest score before calibration.
    pub(super) raw: f64,
    pub(super) probability: f64,
    /// The lower end of the one-sided 90 % interval of `probability`.
    pub(super) low: f64,
}

/// A step of a map.
struct Step {
    /// From this score on.
    score: f64,
    probability: f64,
}

/// By votes of the nine windows. Under three votes the channel does not speak: there the fitted shares (0.47 and 0.68 on
/// six cases each) are replaced by their lower bounds.
const BY_VOTES: [Step; 7] = [
    Step { score: 1.0, probability: 0.24 },
    Step { score: 2.0, probability: 0.43 },
    Step { score: 3.0, probability: 0.79 },
    Step { score: 4.0, probability: 0.83 },
    Step { score: 5.0, probability: 0.86 },
    Step { score: 6.0, probability: 0.89 },
    Step { score: 7.0, probability: 0.94 },
];
/// By P(the next peak of a regular cycle breaches) as the line through the peaks has it; it speaks from a half on.
/// Just under that the fitted share (0.65 on two cases) is replaced by its lower bound, as above.
const BY_CYCLE: [Step; 5] = [
    Step { score: 0.1, probability: 0.13 },
    Step { score: 0.4, probability: 0.28 },
    Step { score: 0.5, probability: 0.68 },
    Step { score: 0.88, probability: 0.82 },
    Step { score: 0.99, probability: 0.92 },
];
/// Cases behind the parts of the maps in which the channels speak, pooled.
const CASES_VOTES: f64 = 25.0;
const CASES_CYCLE: f64 = 11.0;
/// One-sided 90 %.
const Z: f64 = 1.2816;

/// The calibrated maximum of both channels. Where neither sees anything, nothing is predicted: 0.
pub(super) fn calibrate(votes: usize, cycle: f64) -> Belief {
    let share = |map: &[Step], score: f64| {
        map.iter().rev().find(|step| step.score <= score).map_or(0.0, |step| step.probability)
    };
    let by_votes = share(&BY_VOTES, votes as f64);
    let by_cycle = share(&BY_CYCLE, cycle);
    let low = wilson_low(by_votes, CASES_VOTES).max(wilson_low(by_cycle, CASES_CYCLE));
    Belief { raw: cycle, probability: by_votes.max(by_cycle), low }
}

/// The lower end of the interval of Wilson (1927) for a share of so many cases.
fn wilson_low(share: f64, cases: f64) -> f64 {
    let square = Z * Z;
    let centre = share + square / (2.0 * cases);
    let half = Z * (share * (1.0 - share) / cases + square / (4.0 * cases * cases)).sqrt();
    ((centre - half) / (1.0 + square / cases)).clamp(0.0, share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_monotone_and_never_below_its_lower_bound() {
        for votes in 0..=9 {
            let mut before = calibrate(votes, 0.0);
            for hundredth in 0..=100 {
                let now = calibrate(votes, f64::from(hundredth) / 100.0);
                let fewer = calibrate(votes.saturating_sub(1), f64::from(hundredth) / 100.0);
                assert!(now.probability >= before.probability.max(fewer.probability), "{votes} {hundredth}: {now:?}");
                assert!(now.low <= now.probability && now.probability < 1.0, "{votes} {hundredth}: {now:?}");
                before = now;
            }
        }
    }

    #[test]
    fn three_votes_or_a_breaching_peak_are_clearly_more_likely_than_not() {
        assert!(calibrate(0, 0.0).probability <= 0.0);
        assert!(calibrate(2, 0.0).probability < 0.5 && calibrate(0, 0.49).probability < 0.5);
        assert!(calibrate(3, 0.0).low > 0.6 && calibrate(0, 0.5).probability > 0.6);
    }
}
