//! One forecast of a bank: medians, and quantiles at any level.

use super::conformal::{Adaption, Scores};

/// The next steps of a series.
#[derive(Debug, Clone)]
pub(crate) struct Forecast {
    /// By step, in the signal's unit.
    pub(crate) median: Vec<f64>,
    /// How wide errors are, by step, in the signal's unit.
    pub(crate) shape: Vec<f64>,
    floor: f64,
    ceiling: f64,
    adaption: Adaption,
    scores: Scores,
}

/// A forecast that was made earlier, in the signal's unit.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    /// The index of its first step.
    pub(crate) start: i64,
    /// By step.
    pub(crate) median: Vec<f64>,
    /// How wide errors are, by step.
    pub(crate) shape: Vec<f64>,
}

impl Forecast {
    pub(super) fn new(
        mut median: Vec<f64>,
        shape: Vec<f64>,
        floor: Option<f64>,
        ceiling: Option<f64>,
        learnt: (Adaption, Scores),
    ) -> Forecast {
        let (floor, ceiling) = (floor.unwrap_or(-f64::MAX), ceiling.unwrap_or(f64::MAX));
        // Where they contradict each other, the ceiling holds.
        let floor = floor.min(ceiling);
        median.iter_mut().for_each(|value| *value = value.clamp(floor, ceiling));
        Forecast { median, shape, floor, ceiling, adaption: learnt.0, scores: learnt.1 }
    }

    /// The quantile of a level, 0 to 1, by step: as far from the median as the quantile of the opposite level, which makes the narrowest
    /// intervals.
    pub(crate) fn quantile(&self, level: f64) -> Vec<f64> {
        let level = level.clamp(0.0, 1.0);
        let miss = 2.0 * level.min(1.0 - level);
        let width = self.scores.half_width(self.adaption.asked(miss));
        self.moved(if level < 0.5 {
            -width
        } else if level > 0.5 {
            width
        } else {
            0.0
        })
    }

    /// The quantile of a level, by step, from the errors on its own side: the one to ask whether a line will be crossed.
    pub(crate) fn one_sided(&self, level: f64) -> Vec<f64> {
        let level = level.clamp(0.0, 1.0);
        let miss = self.adaption.asked(2.0 * level.min(1.0 - level)) / 2.0;
        self.moved(if level < 0.5 {
            self.scores.below(miss)
        } else if level > 0.5 {
            self.scores.above(miss)
        } else {
            0.0
        })
    }

    fn moved(&self, shapes: f64) -> Vec<f64> {
        let value = |(median, shape): (&f64, &f64)| (median + shapes * shape).clamp(self.floor, self.ceiling);
        self.median.iter().zip(&self.shape).map(value).collect()
    }

    /// The path on which every step misses by its score.
    pub(super) fn path_of(&self, scores: &[f64]) -> Vec<f64> {
        let value = |(step, score): (usize, &f64)| {
            (self.median[step] + score * self.shape[step]).clamp(self.floor, self.ceiling)
        };
        scores.iter().enumerate().map(value).collect()
    }
}
