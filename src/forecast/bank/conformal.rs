//! Intervals from what earlier forecasts of the same bank got wrong.
//!
//! Split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei and others 2018) on errors that are first divided by a *shape*: how errors
//! usually grow with the horizon, with the phase of the day, and with the level. Adaptive levels after Gibbs and Candès (2021,
//! *Adaptive conformal inference under distribution shift*).

use serde::{Deserialize, Serialize};

use super::scale::stored;
use super::smooth::phase_of;
use crate::forecast::paths::normal_quantile;

/// Phases of the day that are told apart, at most.
const PHASES_MAX: usize = 24;
/// How many errors of ordinary size each phase is credited with.
const PHASE_PSEUDO: f64 = 3.0;
/// How much of the width at a step is its own; the rest is that of all steps.
const STEP_OWN: f64 = 0.9;
/// Errors of one origin hang together: each counts as this many independent ones.
const SAMPLES_PER_ORIGIN: f64 = 2.0;
/// Fewer origins with errors say nothing of widths.
const ORIGINS_MIN: usize = 3;
/// Where nothing is known of widths, the normal distribution is stretched so that 95 % are within 4 shapes.
const WIDTH_UNKNOWN: f64 = 4.0 / 1.96;
/// Entries of a table of quantiles less one; denser towards the end.
const TABLE: usize = 64;
/// Below any error that matters, on the plain scale.
const SHAPE_MIN: f64 = 1e-12;
/// Shares of misses whose levels adapt.
pub(super) const TARGETS: [f64; 5] = [0.02, 0.05, 0.1, 0.2, 0.5];
/// The one that `coverage` tells of: 95 %.
pub(super) const TARGET_95: usize = 1;
/// A share that is asked for may fall below nothing: then intervals are wider than the largest error, by [`BEYOND`] of the share.
const ASKED_MIN: f64 = -0.1;
const BEYOND: f64 = 20.0;
const MISS_MIN: f64 = 0.001;
/// How fast a level follows the misses.
const ADAPTION: f64 = 0.02;

/// The errors of one origin: `error[k] = value − forecast`, NaN where it is not known; and its forecasts.
#[derive(Debug)]
pub(super) struct Errors {
    /// The index of the first step.
    pub(super) at: i64,
    pub(super) errors: Vec<f32>,
    pub(super) noise: Vec<f32>,
}

/// How wide errors are, relative to each other, and how they are distributed once made equal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Conformal {
    /// By step; empty while there are too few errors.
    steps: Vec<f32>,
    /// By phase of the day; empty without one.
    phases: Vec<f32>,
    day: usize,
    pub(super) scores: Scores,
    /// The 75 % quantile of |error| or its mean, whichever is larger, on the plain scale.
    pub(super) typical: f64,
}

/// How errors are distributed once they are divided by their shape; of a normal distribution where too few are known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Scores {
    /// Quantiles of |score|, of scores above and below their median, at [`table_level`].
    size: Vec<f32>,
    above: Vec<f32>,
    below: Vec<f32>,
    origins: usize,
}

/// Sums over prefixes of steps: of |error| and of how many there are.
struct Sums(Vec<(f64, f64)>);

impl Sums {
    fn of(values: impl Iterator<Item = (f64, f64)>) -> Sums {
        let mut sums = Vec::with_capacity(values.size_hint().0 + 1);
        sums.push((0.0, 0.0));
        let mut total = (0.0, 0.0);
        for (value, count) in values {
            total = (total.0 + value, total.1 + count);
            sums.push(total);
        }
        Sums(sums)
    }

    /// The sums around a step.
    fn around(&self, step: usize, half: usize) -> (f64, f64) {
        let (from, to) = (step.saturating_sub(half), (step + half + 1).min(self.0.len() - 1));
        (self.0[to].0 - self.0[from].0, self.0[to].1 - self.0[from].1)
    }

    fn total(&self) -> (f64, f64) {
        *self.0.last().expect("prefix sums begin with the empty one")
    }
}

/// |error| with the noise of its level taken out; NaN where it is not known.
fn evened(origin: &Errors, step: usize) -> f64 {
    f64::from(origin.errors[step].abs()) / f64::from(origin.noise[step])
}

fn counted(value: f64) -> (f64, f64) {
    if value.is_nan() { (0.0, 0.0) } else { (value, 1.0) }
}

/// How wide errors are at a step: those around it, and a tenth of all.
fn step_width(all: &Sums, own: Option<&Sums>, step: usize, steps: usize) -> f64 {
    let half = (steps / 8).min(1 + step / 2);
    let less = |all: (f64, f64), own: (f64, f64)| (all.0 - own.0, all.1 - own.1);
    let own_around = own.map_or((0.0, 0.0), |own| own.around(step, half));
    let (sum, count) = less(all.around(step, half), own_around);
    let (total, total_count) = less(all.total(), own.map_or((0.0, 0.0), Sums::total));
    let overall = total.max(0.0) / total_count.max(1.0);
    let near = if count >= 1.0 { sum.max(0.0) / count } else { overall };
    STEP_OWN * near + (1.0 - STEP_OWN) * overall + SHAPE_MIN
}

/// Relative widths by phase: shrunk, smoothed and of mean 1.
fn phase_widths(sums: &[(f64, f64)]) -> Vec<f64> {
    let total = sums.iter().fold((0.0, 0.0), |total, sum| (total.0 + sum.0, total.1 + sum.1));
    let overall = total.0.max(0.0) / f64::max(total.1, 1.0) + SHAPE_MIN;
    let shrunk: Vec<f64> = sums
        .iter()
        .map(|(sum, count)| (sum.max(0.0) + PHASE_PSEUDO * overall) / (count.max(0.0) + PHASE_PSEUDO))
        .collect();
    let count = shrunk.len();
    let around = |phase: usize| {
        0.25 * shrunk[(phase + count - 1) % count] + 0.5 * shrunk[phase] + 0.25 * shrunk[(phase + 1) % count]
    };
    let smooth: Vec<f64> = (0..count).map(around).collect();
    let mean = smooth.iter().sum::<f64>() / count as f64;
    smooth.into_iter().map(|width| width / mean).collect()
}

/// The level of a table's entry: 0 to 1, denser towards 1.
fn table_level(entry: usize) -> f64 {
    let rest = 1.0 - entry as f64 / TABLE as f64;
    1.0 - rest * rest
}

/// The quantiles of sorted values at the levels `level_of(table_level)`, in proportion between neighbours.
fn table(sorted: &[f32], level_of: impl Fn(f64) -> f64) -> Vec<f32> {
    (0..=TABLE).map(|entry| stored(quantile(sorted, level_of(table_level(entry))))).collect()
}

/// A quantile of sorted values (type 7 of Hyndman and Fan 1996).
fn quantile(sorted: &[f32], level: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let (before, share) = split(level * last as f64, last);
    let at = |position: usize| f64::from(sorted[position.min(last)]);
    at(before) + share * (at(before + 1) - at(before))
}

/// A position as a whole place, at most `last`, and what is left over.
fn split(position: f64, last: usize) -> (usize, f64) {
    let position = position.clamp(0.0, last as f64);
    let before = crate::forecast::cells::whole(position.floor());
    (before, position - before as f64)
}

/// Looks up a table of quantiles.
fn look_up(table: &[f32], level: f64) -> f64 {
    if table.is_empty() {
        return 0.0;
    }
    let (before, share) = split(TABLE as f64 * (1.0 - (1.0 - level.clamp(0.0, 1.0)).sqrt()), TABLE);
    let at = |entry: usize| f64::from(table[entry.min(TABLE)]);
    at(before) + share * (at(before + 1) - at(before))
}

impl Conformal {
    /// Learns from the errors of all origins. `day` is the season whose phases have widths of their own; 0: none.
    pub(super) fn learn(origins: &[Errors], steps: usize, day: usize) -> Conformal {
        let sums_of = |origin: &Errors| Sums::of((0..steps).map(|step| counted(evened(origin, step))));
        let own: Vec<Sums> = origins.iter().map(sums_of).collect();
        let column = |step: usize| own.iter().map(move |sums| sums.around(step, 0));
        let all = Sums::of((0..steps).map(|step| column(step).fold((0.0, 0.0), |t, c| (t.0 + c.0, t.1 + c.1))));
        let widths: Vec<f64> = (0..steps).map(|step| step_width(&all, None, step, steps)).collect();
        let bins = day.min(PHASES_MAX);
        let bin = |at: i64, step: usize| phase_bin(at, step, day, bins);
        let by_phase: Vec<Vec<(f64, f64)>> = origins
            .iter()
            .map(|origin| {
                let mut sums = vec![(0.0, 0.0); bins];
                for step in 0..if bins > 0 { steps } else { 0 } {
                    let (value, count) = counted(evened(origin, step) / widths[step]);
                    let sum = &mut sums[bin(origin.at, step)];
                    *sum = (sum.0 + value, sum.1 + count);
                }
                sums
            })
            .collect();
        let total: Vec<(f64, f64)> =
            (0..bins).map(|b| by_phase.iter().fold((0.0, 0.0), |t, sums| (t.0 + sums[b].0, t.1 + sums[b].1))).collect();
        let mut scores = Vec::with_capacity(origins.len() * steps);
        for (place, origin) in origins.iter().enumerate() {
            let others: Vec<(f64, f64)> =
                total.iter().zip(&by_phase[place]).map(|(all, own)| (all.0 - own.0, all.1 - own.1)).collect();
            let phases = phase_widths(&others);
            for step in 0..steps {
                let error = f64::from(origin.errors[step]);
                if error.is_nan() {
                    continue;
                }
                // The shape an origin is held against does not know that origin, as the next one will not.
                let phase = if bins > 0 { phases[bin(origin.at, step)] } else { 1.0 };
                let shape = step_width(&all, Some(&own[place]), step, steps) * phase * f64::from(origin.noise[step]);
                scores.push(stored((error / shape).clamp(-1e12, 1e12)));
            }
        }
        let mut errors: Vec<f32> =
            origins.iter().flat_map(|o| o.errors.iter().map(|e| e.abs())).filter(|e| !e.is_nan()).collect();
        let typical = match errors.len() {
            0 => 0.0,
            count => {
                // Where most errors are 0, the quantile says nothing of the rest.
                let mean = errors.iter().map(|error| f64::from(*error)).sum::<f64>() / count as f64;
                f64::from(*errors.select_nth_unstable_by(count * 3 / 4, f32::total_cmp).1).max(mean)
            }
        };
        let phases = if bins > 0 { phase_widths(&total) } else { Vec::new() };
        Conformal {
            steps: widths.into_iter().map(stored).collect(),
            phases: phases.into_iter().map(stored).collect(),
            day,
            scores: Scores::of(scores, origins.len()),
            typical,
        }
    }

    /// How wide errors are at a step of the forecast made for `at`, but for the noise of its level.
    pub(super) fn shape(&self, at: i64, step: usize) -> f64 {
        let phase = match self.phases.len() {
            0 => 1.0,
            bins => f64::from(self.phases[phase_bin(at, step, self.day, bins)]),
        };
        f64::from(self.steps[step]) * phase
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let tables = self.scores.size.capacity() + self.scores.above.capacity() + self.scores.below.capacity();
        (self.steps.capacity() + self.phases.capacity() + tables) * size_of::<f32>()
    }
}

impl Scores {
    fn of(mut signed: Vec<f32>, origins: usize) -> Scores {
        signed.sort_unstable_by(f32::total_cmp);
        let negative = signed.partition_point(|score| *score < 0.0);
        let mut size: Vec<f32> = Vec::with_capacity(signed.len());
        let (mut low, mut high) = (negative, negative);
        while low > 0 || high < signed.len() {
            let from_below = low > 0 && (high == signed.len() || -signed[low - 1] < signed[high]);
            if from_below {
                low -= 1;
                size.push(-signed[low]);
            } else {
                size.push(signed[high]);
                high += 1;
            }
        }
        Scores {
            size: table(&size, |u| u),
            above: table(&signed, |u| 0.5 + 0.5 * u),
            below: table(&signed, |u| 0.5 - 0.5 * u),
            origins,
        }
    }

    /// Whether there are enough errors to speak of.
    pub(super) fn are_known(&self) -> bool {
        self.origins >= ORIGINS_MIN
    }

    /// The half-width, in shapes, outside which `miss` of the values lie.
    pub(super) fn half_width(&self, miss: f64) -> f64 {
        let (miss, beyond) = beyond(miss);
        beyond
            * if self.are_known() {
                look_up(&self.size, (1.0 - miss) * self.caution())
            } else {
                WIDTH_UNKNOWN * normal_quantile(1.0 - miss / 2.0)
            }
    }

    /// The score above which `miss` of the values lie; never negative.
    pub(super) fn above(&self, miss: f64) -> f64 {
        let (miss, beyond) = beyond(miss);
        if !self.are_known() {
            return beyond * WIDTH_UNKNOWN * normal_quantile(1.0 - miss).max(0.0);
        }
        beyond * look_up(&self.above, 2.0 * ((1.0 - miss) * self.caution()) - 1.0).max(0.0)
    }

    /// The score below which `miss` of the values lie; never positive.
    pub(super) fn below(&self, miss: f64) -> f64 {
        if !self.are_known() {
            return -self.above(miss);
        }
        let (miss, beyond) = beyond(miss);
        beyond * look_up(&self.below, 2.0 * ((1.0 - miss) * self.caution()) - 1.0).min(0.0)
    }

    /// `(n + 1) / n` of the independent samples: a quantile of few is too small.
    fn caution(&self) -> f64 {
        let samples = SAMPLES_PER_ORIGIN * self.origins.max(1) as f64;
        (samples + 1.0) / samples
    }
}

/// A share of misses that can be, and by how much its interval is wider where less than none was asked for.
fn beyond(miss: f64) -> (f64, f64) {
    if miss < MISS_MIN { (MISS_MIN, 1.0 + BEYOND * (MISS_MIN - miss)) } else { (miss, 1.0) }
}

fn phase_bin(at: i64, step: usize, day: usize, bins: usize) -> usize {
    phase_of(at + i64::try_from(step).unwrap_or(0), day) * bins / day
}

/// Shares of misses that are asked for so that the wished ones come true.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Adaption {
    asked: [f64; TARGETS.len()],
    /// Steps that were inside the 95 % interval, and steps at all.
    inside: u64,
    seen: u64,
}

impl Adaption {
    pub(super) fn new() -> Adaption {
        Adaption { asked: TARGETS, inside: 0, seen: 0 }
    }

    /// An origin has ended: of `seen` steps this many were missed, for each target.
    pub(super) fn learn(&mut self, misses: &[u16; TARGETS.len()], seen: u16) {
        if seen == 0 {
            return;
        }
        for ((asked, target), missed) in self.asked.iter_mut().zip(TARGETS).zip(misses) {
            let share = f64::from(*missed) / f64::from(seen);
            *asked = (*asked + ADAPTION * (target - share)).clamp(ASKED_MIN, (1.0 + target) / 2.0);
        }
        // Wider intervals stay wider.
        for place in 1..self.asked.len() {
            self.asked[place] = self.asked[place].max(self.asked[place - 1]);
        }
        self.seen += u64::from(seen);
        self.inside += u64::from(seen - misses[TARGET_95].min(seen));
    }

    /// What to ask for to miss a share; in proportion between the targets.
    pub(super) fn asked(&self, miss: f64) -> f64 {
        let (mut from, mut from_asked) = (0.0, self.asked[0].min(0.0));
        for (to, to_asked) in TARGETS.into_iter().zip(self.asked).chain([(1.0, 1.0)]) {
            if miss <= to {
                return from_asked + (to_asked - from_asked) * (miss - from) / (to - from);
            }
            (from, from_asked) = (to, to_asked);
        }
        1.0
    }

    /// The share of steps that were inside the 95 % interval; none before there were any.
    #[cfg(test)]
    pub(super) fn coverage(&self) -> Option<f64> {
        (self.seen > 0).then(|| self.inside as f64 / self.seen as f64)
    }
}
