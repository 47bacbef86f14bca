//! Quantiles and shares from classic histograms: cumulative counts under the label `le`.

use super::matrix::{ABSENT, Groups, LabelSet, Matrix, is_present};
use super::notes::Notes;
use super::numbers;
use crate::model::METRIC_NAME;

/// The label of a bucket's upper bound.
const BOUND: &str = "le";
/// Falls of a cumulative count up to this share of it are rounding, not a fault of the data.
const TOLERANCE: f64 = 1e-12;

/// One bucket: how many observations are at or below the bound.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// The buckets of one histogram.
struct Histogram {
    labels: LabelSet,
    /// Bounds with their series, lowest first.
    buckets: Vec<(f64, usize)>,
}

/// `histogram_quantile`: a series for each histogram. The positions are those of the quantile and of the buckets.
pub(super) fn quantiles(matrix: &Matrix, quantiles: &[f64], at: (usize, usize), notes: &mut Notes) -> Matrix {
    quantiles.iter().for_each(|quantile| notes.check_quantile(*quantile, at.0));
    each_histogram(matrix, at.1, notes, |histogram, notes, values| {
        // As in Prometheus the metric's name is known at the first step alone.
        let mut name = histogram.labels.get(METRIC_NAME);
        let mut buckets = Vec::new();
        for (step, quantile) in quantiles.iter().enumerate() {
            collect_buckets(histogram, matrix, step, &mut buckets);
            if buckets.is_empty() {
                values.push(ABSENT);
                continue;
            }
            let (value, repaired) = quantile_of(*quantile, &mut buckets);
            if repaired {
                notes.inform_of_repair(name, at.1);
            }
            name = "";
            values.push(value);
        }
    })
}

/// `histogram_fraction`: the share of observations between two bounds, for each histogram.
pub(super) fn fractions(matrix: &Matrix, lower: &[f64], upper: &[f64], at: usize, notes: &mut Notes) -> Matrix {
    each_histogram(matrix, at, notes, |histogram, _, values| {
        let mut buckets = Vec::new();
        for (step, (lower, upper)) in lower.iter().zip(upper).enumerate() {
            collect_buckets(histogram, matrix, step, &mut buckets);
            values.push(if buckets.is_empty() { ABSENT } else { fraction_of(*lower, *upper, &buckets) });
        }
    })
}

fn each_histogram(
    matrix: &Matrix,
    at: usize,
    notes: &mut Notes,
    evaluate: impl Fn(&Histogram, &mut Notes, &mut Vec<f64>),
) -> Matrix {
    let mut answer = Matrix::new(matrix.steps);
    for histogram in histograms(matrix, at, notes) {
        evaluate(&histogram, notes, &mut answer.values);
        answer.labels.push(histogram.labels);
    }
    answer
}

/// The histograms among series, each by its labels but for the bound.
fn histograms(matrix: &Matrix, at: usize, notes: &mut Notes) -> Vec<Histogram> {
    let others =
        |labels: &'_ LabelSet| labels.pairs().filter(|(name, _)| &**name != BOUND).cloned().collect::<Vec<_>>();
    let groups = Groups::by(&matrix.labels, |name| name != BOUND);
    let first = |index: &usize| LabelSet::new(crate::model::Labels::from_sorted(others(&matrix.labels[*index])));
    let mut histograms: Vec<Histogram> =
        groups.first.iter().map(|index| Histogram { labels: first(index), buckets: Vec::new() }).collect();
    for (index, (labels, group)) in matrix.labels.iter().zip(&groups.of).enumerate() {
        let text = labels.get(BOUND);
        match numbers::parse(text) {
            Some(bound) => histograms[*group].buckets.push((bound, index)),
            None => notes.warn_of_bucket(labels.get(METRIC_NAME), text, at),
        }
    }
    histograms.retain(|histogram| !histogram.buckets.is_empty());
    histograms.iter_mut().for_each(|histogram| histogram.buckets.sort_by(|a, b| a.0.total_cmp(&b.0)));
    histograms
}

/// The buckets that have a value at a step; those with the same bound are one.
fn collect_buckets(histogram: &Histogram, matrix: &Matrix, step: usize, buckets: &mut Vec<Bucket>) {
    buckets.clear();
    for (bound, series) in &histogram.buckets {
        let count = matrix.values[series * matrix.steps + step];
        if !is_present(count) {
            continue;
        }
        match buckets.last_mut() {
            Some(last) if numbers::same(last.bound, *bound) => last.count += count,
            _ => buckets.push(Bucket { bound: *bound, count }),
        }
    }
}

/// The quantile by linear interpolation in the bucket where it lies, and whether falling counts had to be repaired.
fn quantile_of(quantile: f64, buckets: &mut [Bucket]) -> (f64, bool) {
    if !(0.0..=1.0).contains(&quantile) {
        return (if quantile < 0.0 { f64::NEG_INFINITY } else { quantile * f64::INFINITY }, false);
    }
    if !is_complete(buckets) {
        return (f64::NAN, false);
    }
    let repaired = make_monotonic(buckets);
    let highest = buckets.len() - 1;
    if highest == 0 {
        return (f64::NAN, false);
    }
    let observations = buckets[highest].count;
    if numbers::same(observations, 0.0) {
        return (f64::NAN, false);
    }
    let rank = quantile * observations;
    let place = first_with(highest, |index| buckets[index].count >= rank);
    if place == highest {
        return (buckets[highest - 1].bound, repaired);
    }
    let bucket = buckets[place];
    if place == 0 && bucket.bound <= 0.0 {
        return (bucket.bound, repaired);
    }
    let below = if place == 0 { Bucket { bound: 0.0, count: 0.0 } } else { buckets[place - 1] };
    let share = (rank - below.count) / (bucket.count - below.count);
    (below.bound + (bucket.bound - below.bound) * share, repaired)
}

/// The first index for which something holds, by bisection, or `len`; where it holds now and then, the one that Go finds.
fn first_with(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut from, mut to) = (0, len);
    while from < to {
        let middle = usize::midpoint(from, to);
        if holds(middle) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}

/// Whether the highest bucket takes everything.
fn is_complete(buckets: &[Bucket]) -> bool {
    buckets.last().is_some_and(|last| numbers::same(last.bound, f64::INFINITY))
}

/// Makes cumulative counts never fall: they may where buckets were scraped or rated at different times. Says whether a fall
/// was more than rounding.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut repaired = false;
    let mut highest = buckets[0].count;
    for bucket in &mut buckets[1..] {
        if nearly_same(highest, bucket.count) {
            bucket.count = highest;
        } else if bucket.count < highest {
            bucket.count = highest;
            repaired = true;
        } else {
            highest = bucket.count;
        }
    }
    repaired
}

fn nearly_same(a: f64, b: f64) -> bool {
    if numbers::same(a, b) || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (difference, size) = ((a - b).abs(), a.abs() + b.abs());
    if numbers::same(a, 0.0) || numbers::same(b, 0.0) || size < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / size.min(f64::MAX) < TOLERANCE
}

/// The share of observations between two bounds, by linear interpolation within buckets.
fn fraction_of(lower: f64, upper: f64, buckets: &[Bucket]) -> f64 {
    if !is_complete(buckets) || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if numbers::same(count, 0.0) {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets, count) - rank_of(lower, buckets, count)) / count
}

/// How many observations are at or below a value, of `count` in all.
fn rank_of(value: f64, buckets: &[Bucket], count: f64) -> f64 {
    let mut below = Bucket { bound: f64::NEG_INFINITY, count: 0.0 };
    for bucket in buckets {
        if below.bound >= value {
            return if below.count > count { count } else { below.count };
        }
        if bucket.bound > value {
            let share = (value - below.bound) / (bucket.bound - below.bound);
            let rank = below.count + (bucket.count - below.count) * share;
            return if rank > count { count } else { rank };
        }
        below = *bucket;
    }
    count
}
