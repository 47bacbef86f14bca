//! What would have to be different for a channel that speaks to fall silent: computed from what it saw, not guessed.
//!
//! A window of the drift channel votes while its line reaches the threshold within the horizon and within what the window
//! may say (see `drift.rs`). How much flatter or lower its line could be and still reach it follows from the same
//! inequalities; with [`VOTES_MIN`] votes needed, the channel falls silent with the third most lenient of its windows.
//! The cycle channel speaks while the expected peak is at or above the threshold, so it turns at that height.

use serde::{Deserialize, Serialize};

use super::ChannelName;
use super::cycles::NextPeak;
use super::drift::{Line, REACH, Reach, VOTES_MIN, VOTES_WITHIN, Vote};
use super::orientation::Orientation;

/// Where one channel that speaks would fall silent, everything else being as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurningPoint {
    /// The channel.
    pub channel: ChannelName,
    /// With a slope of less than this share of the present one.
    pub slope_share: Option<f64>,
    /// With the signal as far back as this value, in its own unit.
    pub value: Option<f64>,
    /// With the threshold beyond this, in the signal's unit.
    pub threshold: Option<f64>,
}

/// How much of what a window sees could be missing while it votes all the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Lenience {
    /// The smallest share of its slope.
    share: f64,
    /// How much lower the line could be, oriented.
    spare: f64,
}

impl Lenience {
    /// Of a line that crosses: `gap ≤ share · slope · reach`, `share · slope · window > 2 residuals`, and where growth dies,
    /// `gap ≤ share · rise to come`.
    pub(super) fn of(line: &Line, reach: Reach) -> Lenience {
        let window = line.window as f64;
        let gap = line.gap().max(0.0);
        let reached = line.slope * (VOTES_WITHIN * reach.horizon).min(REACH * window);
        let within = reached.min(line.to_come.unwrap_or(f64::INFINITY));
        let significant = 2.0 * line.residual / (line.slope * window);
        Lenience { share: (gap / within).max(significant).clamp(0.0, 1.0), spare: (within - gap).max(0.0) }
    }
}

/// Where the channels that speak would fall silent. `silenced`: the drift channel's votes do not count now.
pub(super) fn turning_points(
    votes: &[Vote],
    silenced: bool,
    cycle: Option<NextPeak>,
    orientation: &Orientation,
    current: Option<f64>,
) -> Vec<TurningPoint> {
    let mut points = Vec::new();
    if votes.len() >= VOTES_MIN && !silenced {
        let mut shares: Vec<f64> = votes.iter().map(|vote| vote.lenience.share).collect();
        shares.sort_by(f64::total_cmp);
        let mut spares: Vec<f64> = votes.iter().map(|vote| vote.lenience.spare).collect();
        spares.sort_by(|a, b| b.total_cmp(a));
        let spare = orientation.restore_difference(spares[VOTES_MIN - 1]);
        points.push(TurningPoint {
            channel: ChannelName::Drift,
            slope_share: Some(shares[VOTES_MIN - 1]),
            value: current.map(|current| current - spare),
            threshold: Some(orientation.restore(1.0) + spare),
        });
    }
    if let Some(peak) = cycle.filter(|peak| peak.height >= 1.0) {
        let threshold = Some(orientation.restore(peak.height));
        points.push(TurningPoint { channel: ChannelName::Cycle, slope_share: None, value: None, threshold });
    }
    let finite = |number: &mut Option<f64>| *number = number.filter(|number| number.is_finite());
    for point in &mut points {
        [&mut point.slope_share, &mut point.value, &mut point.threshold].into_iter().for_each(finite);
    }
    points
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::forecast::{Calibration, ChannelName, Foresight, Limit, ModelChoice, Side, Watch, WatchSettings};
    use crate::model::{Millis, Timestamp};

    const RAMP_MINUTES: i64 = 600;
    const MINUTES: i64 = 2100;

    /// What is foreseen when a signal has been flat for a day and then a line for ten hours that passes 0.7 now, a value a
    /// minute, under a horizon of six hours.
    fn foresee(side: Side, slope: f64, shift: f64, threshold: f64) -> Foresight {
        let settings = WatchSettings {
            horizon: Millis::HOUR * 6,
            interval: Millis::MINUTE,
            side,
            lasting: Millis::ZERO,
            seasons: Vec::new(),
            band: None,
            model: ModelChoice::Level,
            actuation_time: Millis::ZERO,
            floor: None,
            ceiling: None,
            calendar: Arc::default(),
        };
        let mut watch = Watch::new(Arc::new(settings), 1);
        for minute in 0..=MINUTES {
            // A ripple, so that the line is not exact.
            let ripple = if minute % 2 == 0 { 0.001 } else { -0.001 };
            let value = 0.7 + shift + slope * (minute - MINUTES).max(-RAMP_MINUTES) as f64 + ripple;
            watch.push(Timestamp(minute * 60_000), Some(value), Some(Limit { threshold, warn: None }));
        }
        watch.foresee(Timestamp(MINUTES * 60_000), &Calibration::prior())
    }

    fn speaks(foresight: &Foresight) -> bool {
        foresight.turning.iter().any(|point| point.channel == ChannelName::Drift)
    }

    /// On either side of each turning point the drift channel speaks or is silent as was said.
    fn check(side: Side, slope: f64, threshold: f64) {
        let foresight = foresee(side, slope, 0.0, threshold);
        let [point] = &foresight.turning[..] else { panic!("one channel speaks: {:?}", foresight.channels) };
        let numbers = [point.threshold, point.value, point.slope_share].map(|number| number.expect("it is known"));
        let [threshold_to, value_to, share] = numbers;
        let current = foresight.current.expect("there is a value");
        for (away, speaking) in [(0.93, true), (1.07, false)] {
            let further = threshold + (threshold_to - threshold) * away;
            let case = format!("{side:?} {away}: {point:?}");
            assert_eq!(speaks(&foresee(side, slope, 0.0, further)), speaking, "a threshold of {further}, {case}");
            let shift = (value_to - current) * away;
            assert_eq!(speaks(&foresee(side, slope, shift, threshold)), speaking, "shifted by {shift}, {case}");
            let flatter = slope * (1.0 + (share - 1.0) * away);
            assert_eq!(speaks(&foresee(side, flatter, 0.0, threshold)), speaking, "a slope of {flatter}, {case}");
        }
    }

    #[test]
    fn a_channel_falls_silent_where_its_turning_points_say() {
        check(Side::Above, 0.0005, 0.76);
        check(Side::Below, -0.0005, 0.62);
    }

    #[test]
    fn what_is_silent_has_no_turning_points() {
        assert_eq!(foresee(Side::Above, 0.0, 0.0, 0.9).turning, []);
    }
}
