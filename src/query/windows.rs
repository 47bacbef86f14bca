//! Functions of the samples in a window that moves along a series: `rate`, `*_over_time` and their like.
//!
//! A window is open on the left and closed on the right, as since Prometheus 3. Its bounds move along with the steps, so that
//! only the functions themselves look at samples again and again.

use std::ops::Range;

use super::eval::Grid;
use super::matrix::ABSENT;
use super::numbers::{self, Mean, Sum, Times};
use super::tree::RangeFunction;
use crate::model::{Millis, Sample, Timestamp};

/// The windows of a call and its other arguments.
#[derive(Debug)]
pub(super) struct Moves {
    pub(super) function: RangeFunction,
    /// Where the window ends at each step.
    pub(super) ends: Vec<Timestamp>,
    pub(super) range: Millis,
    pub(super) grid: Grid,
    /// The scalar arguments, one value a step.
    pub(super) parameters: Vec<Vec<f64>>,
}

/// One window of one series.
struct Window<'a> {
    samples: &'a [Sample],
    /// From where a counter fell at its resets in the window, in order.
    falls: &'a [f64],
    start: Timestamp,
    end: Timestamp,
    /// The moment of evaluation, which `offset` and `@` do not move.
    at: Timestamp,
}

impl Moves {
    /// Appends the values of the function at all steps for one series; gives how many samples its windows hold together.
    pub(super) fn apply(&self, samples: &[Sample], scratch: &mut Scratch, values: &mut Vec<f64>) -> u64 {
        let mut visits = 0;
        let is_counter = matches!(self.function, RangeFunction::Rate | RangeFunction::Increase);
        let Scratch { resets, falls, kept } = scratch;
        resets.clear();
        falls.clear();
        if is_counter {
            for (before, _) in samples.windows(2).enumerate().filter(|(_, pair)| pair[1].value < pair[0].value) {
                resets.push(before + 1);
                falls.push(samples[before].value);
            }
        }
        let (mut first, mut last) = (0, 0);
        each_window(samples, &self.ends, self.range, |step, bounds, end| {
            visits += bounds.len() as u64;
            while resets.get(last).is_some_and(|reset| *reset < bounds.end) {
                last += 1;
            }
            while first < last && resets[first] <= bounds.start {
                first += 1;
            }
            let window = Window {
                falls: &falls[first..last],
                samples: &samples[bounds],
                start: end - self.range,
                end,
                at: self.grid.at(step),
            };
            let parameter = |index: usize| self.parameters[index][step];
            values.push(value_of(self.function, &window, parameter, kept).unwrap_or(ABSENT));
        });
        visits
    }
}

/// Room that is used again for each series.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Where a counter is lower than before, and from where it fell.
    resets: Vec<usize>,
    falls: Vec<f64>,
    kept: Kept,
}

/// What is kept from one window to the next.
#[derive(Debug, Default)]
struct Kept {
    room: Vec<f64>,
    extent: Extent,
    times: Times,
}

/// Appends for each step 1 where there is a sample in the window.
pub(super) fn presence(samples: &[Sample], ends: &[Timestamp], range: Millis, values: &mut Vec<f64>) {
    each_window(samples, ends, range, |_, bounds, _| values.push(if bounds.is_empty() { ABSENT } else { 1.0 }));
}

/// Calls `visit` with step, samples and end of each window. The ends never go back, so that the window's bounds only move on.
fn each_window(
    samples: &[Sample],
    ends: &[Timestamp],
    range: Millis,
    mut visit: impl FnMut(usize, Range<usize>, Timestamp),
) {
    let (mut from, mut to) = (0, 0);
    for (step, end) in ends.iter().enumerate() {
        while to < samples.len() && samples[to].at <= *end {
            to += 1;
        }
        while from < to && samples[from].at <= *end - range {
            from += 1;
        }
        visit(step, from..to, *end);
    }
}

/// The value of a function for one window.
fn value_of(
    function: RangeFunction,
    window: &Window<'_>,
    parameter: impl Fn(usize) -> f64,
    kept: &mut Kept,
) -> Option<f64> {
    use RangeFunction as F;
    let samples = window.samples;
    let (first, last) = (samples.first()?, samples.last()?);
    let values = || samples.iter().map(|sample| sample.value);
    let Kept { room, extent, times } = kept;
    let mut quantile = |q: f64, values: &mut dyn Iterator<Item = f64>| {
        room.clear();
        room.extend(values);
        numbers::quantile(q, room)
    };
    Some(match function {
        F::Rate => extrapolated(window, Growth::Counter, (window.end - window.start).as_secs_f64(), extent)?,
        F::Increase => extrapolated(window, Growth::Counter, 1.0, extent)?,
        F::Delta => extrapolated(window, Growth::Gauge, 1.0, extent)?,
        F::Irate => last_two(samples, Growth::Counter)?,
        F::Idelta => last_two(samples, Growth::Gauge)?,
        F::Deriv if samples.len() > 1 => numbers::regression(samples, first.at, times).0,
        F::PredictLinear if samples.len() > 1 => {
            let (slope, now) = numbers::regression(samples, window.at, times);
            slope * parameter(0) + now
        }
        F::Deriv | F::PredictLinear => return None,
        F::Smoothing => smoothed(samples, parameter(0), parameter(1))?,
        F::Changes => count_pairs(samples, |a, b| !(numbers::same(a, b) || a.is_nan() && b.is_nan())),
        F::Resets => count_pairs(samples, |a, b| b < a),
        F::Avg => mean(samples),
        F::Sum => samples.iter().fold(Sum::default(), |sum, sample| sum.plus(sample.value)).value(),
        F::Min => extreme(samples, |a, b| a < b).value,
        F::Max => extreme(samples, |a, b| a > b).value,
        F::Count => samples.len() as f64,
        F::First => first.value,
        F::Last => last.value,
        F::Present => 1.0,
        F::Quantile => quantile(parameter(0), &mut values()),
        F::Stddev => numbers::variance(values()).sqrt(),
        F::Stdvar => numbers::variance(values()),
        F::Mad => {
            let median = quantile(0.5, &mut values());
            quantile(0.5, &mut values().map(|value| (value - median).abs()))
        }
        F::TimeOfFirst => first.at.as_secs_f64(),
        F::TimeOfLast => last.at.as_secs_f64(),
        F::TimeOfMin => extreme(samples, |a, b| a <= b).at.as_secs_f64(),
        F::TimeOfMax => extreme(samples, |a, b| a >= b).at.as_secs_f64(),
    })
}

/// How a series grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// It only rises; a fall is a restart from zero.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// The growth over the window, extrapolated to its bounds as Prometheus does: as far as half an interval where samples end
/// early, and for a counter no further back than where it was zero. It is divided by `length`.
fn extrapolated(window: &Window<'_>, growth: Growth, length: f64, extent: &mut Extent) -> Option<f64> {
    let samples = window.samples;
    let (first, last) = (samples.first()?, samples.last()?);
    if samples.len() < 2 {
        return None;
    }
    let mut difference = last.value - first.value;
    if growth == Growth::Counter {
        for from in window.falls {
            difference += from;
        }
    }
    let key = (first.at - window.start, last.at - first.at, window.end - last.at, samples.len());
    if extent.key != key {
        *extent = Extent::new(key, length);
    }
    if growth == Growth::Counter && difference > 0.0 && first.value >= 0.0 {
        let to_zero = extent.sampled * (first.value / difference);
        if to_zero < extent.to_start {
            return Some(difference * extent.factor_from(to_zero, length));
        }
    }
    Some(difference * extent.factor)
}

/// How far the samples of a window reach and how far they are extrapolated, in seconds: mostly the same for one window after
/// the other and one series after the other of a query, and several divisions.
#[derive(Debug, Default)]
struct Extent {
    /// From the window's start to the first sample, on to the last, and on to the window's end; how many samples there are.
    key: (Millis, Millis, Millis, usize),
    sampled: f64,
    to_start: f64,
    to_end: f64,
    /// By what the growth is multiplied where it is extrapolated as far as `to_start`.
    factor: f64,
}

impl Extent {
    fn new(key: (Millis, Millis, Millis, usize), length: f64) -> Extent {
        let (to_start, sampled, to_end, count) = key;
        let sampled = sampled.as_secs_f64();
        let interval = sampled / (count - 1) as f64;
        let reach = |to_bound: Millis| {
            let seconds = to_bound.as_secs_f64();
            if seconds >= interval * 1.1 { interval / 2.0 } else { seconds }
        };
        let extent = Extent { key, sampled, to_start: reach(to_start), to_end: reach(to_end), factor: 0.0 };
        Extent { factor: extent.factor_from(extent.to_start, length), ..extent }
    }

    fn factor_from(&self, to_start: f64, length: f64) -> f64 {
        (self.sampled + to_start + self.to_end) / self.sampled / length
    }
}

/// The growth between the last two samples; of a counter, a second.
fn last_two(samples: &[Sample], growth: Growth) -> Option<f64> {
    let [.., before, last] = samples else { return None };
    if growth == Growth::Gauge {
        return Some(last.value - before.value);
    }
    let difference = if last.value < before.value { last.value } else { last.value - before.value };
    Some(difference / (last.at - before.at).as_secs_f64())
}

/// Double exponential smoothing: level and trend, each with its factor; the level at the last sample.
fn smoothed(samples: &[Sample], level_factor: f64, trend_factor: f64) -> Option<f64> {
    let [first, second, ..] = samples else { return None };
    let (mut level, mut trend) = (first.value, second.value - first.value);
    let mut level_before = 0.0;
    for (index, sample) in samples[1..].iter().enumerate() {
        if index > 0 {
            trend = trend_factor * (level - level_before) + (1.0 - trend_factor) * trend;
        }
        level_before = level;
        level = level_factor * sample.value + (1.0 - level_factor) * (level + trend);
    }
    Some(level)
}

fn count_pairs(samples: &[Sample], counts: impl Fn(f64, f64) -> bool) -> f64 {
    samples.windows(2).filter(|pair| counts(pair[0].value, pair[1].value)).count() as f64
}

fn mean(samples: &[Sample]) -> f64 {
    let mut mean = Mean::of(samples[0].value);
    for sample in &samples[1..] {
        mean.add(sample.value);
    }
    mean.value()
}

/// The most extreme sample; NaN only if there is nothing else.
fn extreme(samples: &[Sample], beats: impl Fn(f64, f64) -> bool) -> Sample {
    let mut best = samples[0];
    for sample in samples {
        if beats(sample.value, best.value) || best.value.is_nan() {
            best = *sample;
        }
    }
    best
}
