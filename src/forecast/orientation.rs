//! One scale for all signals: 0 is about full health, 1 is the threshold, and the breach comes from below.

use serde::{Deserialize, Serialize};

use super::{Limit, Side};

/// Oriented values are kept within ± this: enough to say "far off", and f32 holds it.
const ORIENTED_MAX: f64 = 1e6;
/// A value may be this many scales away on the healthy side before the scale doubles.
const DISTANCE_MAX: f64 = 2.0;
/// The scale to start from where a threshold of 0 gives none.
const SCALE_MIN: f64 = 1e-12;
/// Thresholds are kept within ± this, as values are, and scales between its inverse and it.
const THRESHOLD_MAX: f64 = 1e30;

/// How values of one signal are oriented under the limit of the moment.
///
/// Above: `u = v / threshold`. Below: `u = 1 − (v − threshold) / scale`, where the scale is the way from the threshold to
/// full health: `1 − threshold` of a share, the threshold itself otherwise, doubled as often as the signal is seen further away.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Orientation {
    side: Side,
    threshold: f64,
    scale: f64,
    doubled: i32,
}

impl Orientation {
    pub(super) fn new(side: Side) -> Orientation {
        Orientation { side, threshold: 0.0, scale: SCALE_MIN, doubled: 0 }
    }

    /// Takes the limit of the moment (the last one stays where there is none). True where the scale grew, so that what
    /// was oriented before can no longer be compared.
    #[must_use]
    pub(super) fn follow(&mut self, limit: Option<Limit>, value: Option<f64>) -> bool {
        let limit = limit
            .filter(|limit| limit.threshold.is_finite())
            .unwrap_or(Limit { threshold: self.threshold, warn: None });
        self.threshold = limit.threshold.clamp(-THRESHOLD_MAX, THRESHOLD_MAX);
        let base = self.base(limit).clamp(1.0 / THRESHOLD_MAX, THRESHOLD_MAX);
        let healthy_side_is_open = self.side == Side::Below || limit.threshold <= 0.0;
        let distance = value.map_or(0.0, |value| self.sign() * (self.threshold - value));
        let before = self.doubled;
        while healthy_side_is_open && distance > DISTANCE_MAX * base * 2f64.powi(self.doubled) {
            self.doubled += 1;
        }
        self.scale = (base * 2f64.powi(self.doubled)).min(THRESHOLD_MAX);
        self.doubled > before
    }

    fn base(&self, limit: Limit) -> f64 {
        let threshold = limit.threshold;
        let warn_way = limit.warn.map_or(0.0, |warn| 10.0 * (threshold - warn).abs());
        if self.side == Side::Below && 0.0 < threshold && threshold < 1.0 {
            1.0 - threshold
        } else if threshold != 0.0 {
            threshold.abs()
        } else if warn_way > 0.0 && warn_way.is_finite() {
            warn_way
        } else {
            SCALE_MIN
        }
    }

    fn sign(&self) -> f64 {
        if self.side == Side::Above { 1.0 } else { -1.0 }
    }

    /// From the signal's unit.
    pub(super) fn orient(&self, value: f64) -> f64 {
        (1.0 + self.sign() * (value - self.threshold) / self.scale).clamp(-ORIENTED_MAX, ORIENTED_MAX)
    }

    /// Back to the signal's unit.
    pub(super) fn restore(&self, oriented: f64) -> f64 {
        self.threshold + self.sign() * (oriented - 1.0) * self.scale
    }

    /// A difference in the signal's unit, with its sign.
    pub(super) fn restore_difference(&self, oriented: f64) -> f64 {
        self.sign() * oriented * self.scale
    }

    /// The margin of the limit as oriented: threshold − warn, else a tenth of the threshold; absent for a threshold of 0.
    pub(super) fn margin(&self, limit: Limit) -> Option<f64> {
        let margin = match limit.warn {
            Some(warn) if warn.is_finite() => (self.threshold - warn).abs(),
            _ => self.threshold.abs() / 10.0,
        };
        (margin > 0.0).then(|| margin / self.scale).filter(|margin| margin.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(side: Side, threshold: f64, value: f64, oriented: f64) {
        let mut orientation = Orientation::new(side);
        let _ = orientation.follow(Some(Limit { threshold, warn: None }), Some(value));
        let got = orientation.orient(value);
        assert!((got - oriented).abs() < 1e-12, "{side:?} {threshold}: {value} became {got}, not {oriented}");
        assert!((orientation.restore(got) - value).abs() <= 1e-9 * value.abs(), "{side:?} {threshold}: {value}");
    }

    #[test]
    fn orients_so_that_a_breach_comes_from_below_at_1() {
        check(Side::Above, 200.0, 50.0, 0.25);
        check(Side::Above, -5.0, -10.0, 0.0);
        check(Side::Below, 0.03, 1.0, 0.0);
        check(Side::Below, 10.0, 10.0, 1.0);
        check(Side::Below, 10.0, 20.0, 0.0);
        // 990 away at a scale of 10: doubled until no more than two scales away.
        check(Side::Below, 10.0, 1000.0, 1.0 - 990.0 / 640.0);
    }
}
