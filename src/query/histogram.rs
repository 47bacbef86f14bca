//! Quantiles and shares from classic histograms: cumulative counts under the label `le`.

use std::collections::{BTreeSet, HashMap};

use crate::model::{Labels, METRIC_NAME};

use super::eval::{Row, without_name};
use super::numbers;

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
    name: String,
    labels: Labels,
    /// Bounds with their row, lowest first.
    buckets: Vec<(f64, usize)>,
}

/// Warns of a quantile that is none.
pub(super) fn warn_of_quantile(quantile: f64, warnings: &mut BTreeSet<String>) {
    if !(0.0..=1.0).contains(&quantile) {
        let text = numbers::format(quantile);
        warnings.insert(format!("PromQL warning: quantile value should be between 0 and 1, got {text}"));
    }
}

/// `histogram_quantile`: a row for each histogram.
pub(super) fn quantiles(
    rows: Vec<Row>,
    quantiles: &[f64],
    warnings: &mut BTreeSet<String>,
    infos: &mut BTreeSet<String>,
) -> Vec<Row> {
    quantiles.iter().for_each(|quantile| warn_of_quantile(*quantile, warnings));
    let histograms = group(&rows, warnings);
    let mut answer = Vec::with_capacity(histograms.len());
    for histogram in histograms {
        let value = |(step, quantile): (usize, &f64)| {
            let buckets = buckets_at(&histogram, &rows, step)?;
            let (value, repaired) = quantile_of(*quantile, buckets);
            if repaired {
                infos.insert(format!(
                    "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
                     https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name {:?}",
                    histogram.name
                ));
            }
            Some(value)
        };
        let values = quantiles.iter().enumerate().map(value).collect();
        answer.push(Row { labels: histogram.labels.clone(), values });
    }
    answer
}

/// `histogram_fraction`: the share of observations between two bounds, for each histogram.
pub(super) fn fractions(rows: Vec<Row>, lower: &[f64], upper: &[f64], warnings: &mut BTreeSet<String>) -> Vec<Row> {
    let histograms = group(&rows, warnings);
    let mut answer = Vec::with_capacity(histograms.len());
    for histogram in histograms {
        let bounds = lower.iter().zip(upper).enumerate();
        let value = |(step, (lower, upper)): (usize, (&f64, &f64))| {
            buckets_at(&histogram, &rows, step).map(|buckets| fraction_of(*lower, *upper, buckets))
        };
        answer.push(Row { labels: histogram.labels.clone(), values: bounds.map(value).collect() });
    }
    answer
}

/// The histograms among rows, each by its labels but for the bound.
fn group(rows: &[Row], warnings: &mut BTreeSet<String>) -> Vec<Histogram> {
    let mut histograms: Vec<Histogram> = Vec::new();
    let mut places: HashMap<Labels, usize> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let text = row.labels.get(BOUND).unwrap_or("");
        let Some(bound) = numbers::parse(text) else {
            warnings.insert(format!(
                "PromQL warning: bucket label {BOUND:?} is missing or has a malformed value of {text:?} for metric name {:?}",
                row.labels.metric_name()
            ));
            continue;
        };
        let key = row.labels.without(|name| name == BOUND);
        let place = *places.entry(key.clone()).or_insert(histograms.len());
        if place == histograms.len() {
            let name = key.get(METRIC_NAME).unwrap_or("").to_owned();
            histograms.push(Histogram { name, labels: without_name(&key), buckets: Vec::new() });
        }
        histograms[place].buckets.push((bound, index));
    }
    for histogram in &mut histograms {
        histogram.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    histograms
}

/// The buckets that have a value at a step; those with the same bound are one. Nothing where there are none.
fn buckets_at(histogram: &Histogram, rows: &[Row], step: usize) -> Option<Vec<Bucket>> {
    let mut buckets: Vec<Bucket> = Vec::with_capacity(histogram.buckets.len());
    for (bound, row) in &histogram.buckets {
        let Some(count) = rows[*row].values[step] else { continue };
        match buckets.last_mut() {
            Some(last) if numbers::same(last.bound, *bound) => last.count += count,
            _ => buckets.push(Bucket { bound: *bound, count }),
        }
    }
    if buckets.is_empty() { None } else { Some(buckets) }
}

/// The quantile by linear interpolation in the bucket where it lies, and whether falling counts had to be repaired.
fn quantile_of(quantile: f64, mut buckets: Vec<Bucket>) -> (f64, bool) {
    if !(0.0..=1.0).contains(&quantile) {
        return (if quantile < 0.0 { f64::NEG_INFINITY } else { quantile * f64::INFINITY }, false);
    }
    if !is_complete(&buckets) {
        return (f64::NAN, false);
    }
    let repaired = make_monotonic(&mut buckets);
    let highest = buckets.len() - 1;
    let observations = buckets[highest].count;
    if highest == 0 || numbers::same(observations, 0.0) {
        return (f64::NAN, repaired);
    }
    let rank = quantile * observations;
    let place = buckets[..highest].partition_point(|bucket| bucket.count.is_nan() || bucket.count < rank);
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
fn fraction_of(lower: f64, upper: f64, mut buckets: Vec<Bucket>) -> f64 {
    if !is_complete(&buckets) || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    make_monotonic(&mut buckets);
    let count = buckets[buckets.len() - 1].count;
    if numbers::same(count, 0.0) {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    if buckets.len() < 2 {
        return f64::NAN;
    }
    (rank_of(upper, &buckets) - rank_of(lower, &buckets)) / count
}

/// How many observations are at or below a value.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    let place = buckets.partition_point(|bucket| bucket.bound <= value);
    let Some(bucket) = buckets.get(place) else { return buckets[buckets.len() - 1].count };
    let below = match place {
        0 if bucket.bound > 0.0 => Bucket { bound: 0.0, count: 0.0 },
        0 => Bucket { bound: f64::NEG_INFINITY, count: 0.0 },
        _ => buckets[place - 1],
    };
    if value <= below.bound || below.bound.is_infinite() || bucket.bound.is_infinite() {
        return below.count;
    }
    below.count + (bucket.count - below.count) * (value - below.bound) / (bucket.bound - below.bound)
}
