//! Aggregations: one value of each group of series, or a choice of a group's series.

use std::collections::BTreeMap;

use super::QueryError;
use super::choice;
use super::matrix::{ABSENT, Groups, LabelSet, Matrix, is_present};
use super::notes::Notes;
use super::numbers::{self, Mean, Sum, Variance};
use super::tree::{Aggregate, Aggregator, Node};
use crate::model::METRIC_NAME;

/// The series of an aggregation. `parameter` is its scalar argument, one value a step.
pub(super) fn aggregate(
    of: &Aggregate,
    matrix: &Matrix,
    parameter: &[f64],
    notes: &mut Notes,
) -> Result<Matrix, QueryError> {
    match of.operator {
        Aggregator::Topk | Aggregator::Bottomk | Aggregator::Limitk | Aggregator::LimitRatio => {
            return choice::choose(of, matrix, parameter, notes);
        }
        Aggregator::CountValues => return count_values(of, matrix),
        Aggregator::Quantile => check_quantiles(parameter, of.parameter_at, notes),
        _ => {}
    }
    let groups = of.grouping.groups(&matrix.labels);
    let values = reduce(of.operator, matrix, &groups, parameter);
    let mut answer = Matrix { labels: Vec::with_capacity(groups.count()), values, steps: matrix.steps };
    for first in &groups.first {
        answer.labels.push(LabelSet::new(of.grouping.key(&matrix.labels[*first])));
    }
    Ok(answer)
}

/// The least and the greatest of the parameters; NaN where one is NaN.
pub(super) fn bounds(parameters: &[f64]) -> (f64, f64) {
    let start = (f64::MAX, -f64::MAX);
    parameters.iter().fold(start, |(min, max), value| (numbers::lesser(min, *value), numbers::greater(max, *value)))
}

fn check_quantiles(parameters: &[f64], at: usize, notes: &mut Notes) {
    let (min, max) = bounds(parameters);
    if parameters.iter().any(|value| value.is_nan()) {
        notes.check_quantile(f64::NAN, at);
    }
    if max > 1.0 {
        notes.check_quantile(max, at);
    }
    if min < 0.0 {
        notes.check_quantile(min, at);
    }
}

fn reduce(operator: Aggregator, matrix: &Matrix, groups: &Groups, parameter: &[f64]) -> Vec<f64> {
    match operator {
        Aggregator::Sum => fold(matrix, groups, Sum::of, |sum, value| *sum = sum.plus(value), |_, sum| sum.value()),
        Aggregator::Avg => fold(matrix, groups, Mean::of, Mean::add, |_, mean| mean.value()),
        Aggregator::Min => extreme(matrix, groups, |new, best| new < best),
        Aggregator::Max => extreme(matrix, groups, |new, best| new > best),
        Aggregator::Count => fold(matrix, groups, |_| 1.0, |count, _| *count += 1.0, |_, count| count),
        Aggregator::Stddev => fold(matrix, groups, Variance::of, Variance::add, |_, variance| variance.value().sqrt()),
        Aggregator::Stdvar => fold(matrix, groups, Variance::of, Variance::add, |_, variance| variance.value()),
        Aggregator::Quantile => fold(
            matrix,
            groups,
            |value| vec![value],
            Vec::push,
            |step, mut values| numbers::quantile(parameter.get(step).copied().unwrap_or(f64::NAN), &mut values),
        ),
        _ => fold(matrix, groups, |_| (), |(), _| (), |_, ()| 1.0),
    }
}

fn extreme(matrix: &Matrix, groups: &Groups, beats: impl Fn(f64, f64) -> bool) -> Vec<f64> {
    let add = |best: &mut f64, value: f64| {
        if beats(value, *best) || best.is_nan() {
            *best = value;
        }
    };
    fold(matrix, groups, |value| value, add, |_, best| best)
}

/// Folds the values of each group at each step, in the order of the series.
fn fold<A: Clone>(
    matrix: &Matrix,
    groups: &Groups,
    first: impl Fn(f64) -> A,
    add: impl Fn(&mut A, f64),
    finish: impl Fn(usize, A) -> f64,
) -> Vec<f64> {
    let steps = matrix.steps;
    let mut cells: Vec<Option<A>> = vec![None; groups.count() * steps];
    for ((_, row), group) in matrix.rows().zip(&groups.of) {
        for (cell, value) in cells[group * steps..(group + 1) * steps].iter_mut().zip(row) {
            if !is_present(*value) {
                continue;
            }
            match cell {
                Some(state) => add(state, *value),
                None => *cell = Some(first(*value)),
            }
        }
    }
    let finish_cell = |(index, cell): (usize, Option<A>)| cell.map_or(ABSENT, |cell| finish(index % steps, cell));
    cells.into_iter().enumerate().map(finish_cell).collect()
}

/// How many elements of each group have each value; the value becomes a label.
fn count_values(of: &Aggregate, matrix: &Matrix) -> Result<Matrix, QueryError> {
    let Some(Node::Text(label)) = &of.parameter else {
        return Err(QueryError::Execution("count_values needs the name of a label".to_owned()));
    };
    if label.is_empty() {
        return Err(QueryError::Execution("invalid label name \"\"".to_owned()));
    }
    // The value is a label before anything is grouped: it may hide one that tells groups apart, and `without` may drop it.
    let is_dropped = !of.grouping.is_by() && of.grouping.names_label(label);
    let mut counts: BTreeMap<LabelSet, Vec<f64>> = BTreeMap::new();
    for (labels, row) in matrix.rows() {
        for (step, value) in row.iter().enumerate().filter(|(_, value)| is_present(**value)) {
            let text = numbers::format(*value);
            let named = labels.with(label, &text);
            let mut key = LabelSet::new(of.grouping.key(&named));
            if !is_dropped && label != METRIC_NAME {
                key = key.with(label, &text);
            } else if of.grouping.is_by() && label == METRIC_NAME {
                key = key.with(METRIC_NAME, &text);
            }
            let count = &mut counts.entry(key).or_insert_with(|| vec![ABSENT; matrix.steps])[step];
            *count = if is_present(*count) { *count + 1.0 } else { 1.0 };
        }
    }
    let mut answer = Matrix::new(matrix.steps);
    counts.into_iter().for_each(|(labels, row)| answer.push(labels, &row));
    Ok(answer)
}
