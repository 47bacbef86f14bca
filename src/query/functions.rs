//! Functions of instant vectors: of each value, of labels, of order, of absence.

use regex::Regex;

use super::matrix::{ABSENT, LabelSet, Matrix, is_present};
use super::numbers;
use super::tree::Direction;
use crate::model::Labels;

/// A function of each value there is and its step, which yields [`ABSENT`] for none.
pub(super) fn map_steps(matrix: &mut Matrix, function: impl Fn(usize, f64) -> f64) {
    for row in matrix.values.chunks_mut(matrix.steps.max(1)) {
        for (step, value) in row.iter_mut().enumerate() {
            if is_present(*value) {
                *value = function(step, *value);
            }
        }
    }
}

/// Values held between bounds; nothing where the lower bound is above the upper one.
pub(super) fn clamp(matrix: &mut Matrix, min: Option<&[f64]>, max: Option<&[f64]>) {
    map_steps(matrix, |step, value| {
        let min = min.map_or(f64::NEG_INFINITY, |bounds| bounds[step]);
        let max = max.map_or(f64::INFINITY, |bounds| bounds[step]);
        if max < min { ABSENT } else { numbers::greater(min, numbers::lesser(max, value)) }
    });
}

/// Values rounded to the nearest multiple of `to`; halves go up.
pub(super) fn round(matrix: &mut Matrix, to: &[f64]) {
    // Dividing by the inverse keeps multiples of 0.1 and the like exact.
    map_steps(matrix, |step, value| {
        let inverse = 1.0 / to[step];
        (value * inverse + 0.5).floor() / inverse
    });
}

/// The value of the only element at each step; NaN where there are none or several.
pub(super) fn scalar(matrix: &Matrix) -> Vec<f64> {
    let mut values = vec![f64::NAN; matrix.steps];
    let mut counts = vec![0_usize; matrix.steps];
    for (_, row) in matrix.rows() {
        for (step, value) in row.iter().enumerate().filter(|(_, value)| is_present(**value)) {
            counts[step] += 1;
            values[step] = if counts[step] == 1 { *value } else { f64::NAN };
        }
    }
    values
}

/// An element of the value 1 where no series has a value.
pub(super) fn absent(matrix: &Matrix, labels: &Labels) -> Matrix {
    let mut values = vec![1.0; matrix.steps];
    for (_, row) in matrix.rows() {
        for (absent, value) in values.iter_mut().zip(row) {
            if is_present(*value) {
                *absent = ABSENT;
            }
        }
    }
    let mut answer = Matrix::new(matrix.steps);
    answer.push(LabelSet::new(labels.clone()), &values);
    answer
}

/// Series in another order, each index once.
fn reorder(matrix: &mut Matrix, order: &[usize]) {
    let mut sorted = Matrix::new(matrix.steps);
    for index in order {
        sorted.labels.push(matrix.labels[*index].clone());
        sorted.values.extend_from_slice(matrix.row(*index));
    }
    *matrix = sorted;
}

/// Series in the order of their values, NaN last; only the answer of an instant query has an order.
pub(super) fn sort(matrix: &mut Matrix, direction: Direction) {
    if matrix.steps != 1 {
        return;
    }
    let mut order: Vec<usize> = (0..matrix.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (matrix.values[*a], matrix.values[*b]);
        let by_value = match direction {
            Direction::Ascending => numbers::compare(a, b),
            Direction::Descending => numbers::compare(b, a),
        };
        a.is_nan().cmp(&b.is_nan()).then(by_value)
    });
    reorder(matrix, &order);
}

/// Series in the natural order of the values of labels, then of all labels.
pub(super) fn sort_by_label(matrix: &mut Matrix, names: &[String], direction: Direction) {
    let mut order: Vec<usize> = (0..matrix.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&matrix.labels[*a], &matrix.labels[*b]);
        let by_names = names.iter().map(|name| natural_order(a.get(name), b.get(name)));
        let order = by_names.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then);
        let order = order.then_with(|| a.cmp(b));
        if direction == Direction::Ascending { order } else { order.reverse() }
    });
    reorder(matrix, &order);
}

/// An order in which `a2` comes before `a10`: runs of digits compare as numbers.
fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (digits_a, digits_b) = (digits(a), digits(b));
        if digits_a > 0 && digits_b > 0 {
            let (number_a, number_b) = (a[..digits_a].trim_start_matches('0'), b[..digits_b].trim_start_matches('0'));
            let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
            if order.is_ne() {
                return order;
            }
            (a, b) = (&a[digits_a..], &b[digits_b..]);
            continue;
        }
        let (mut rest_a, mut rest_b) = (a.chars(), b.chars());
        match (rest_a.next(), rest_b.next()) {
            (Some(x), Some(y)) if x == y => (a, b) = (rest_a.as_str(), rest_b.as_str()),
            (x, y) => return x.cmp(&y),
        }
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Sets a label from another one where a regular expression matches all of that.
pub(super) fn label_replace(matrix: &mut Matrix, target: &str, template: &str, source: &str, regex: &Regex) {
    for labels in &mut matrix.labels {
        let Some(captures) = regex.captures(labels.get(source)) else { continue };
        let mut value = String::new();
        captures.expand(template, &mut value);
        *labels = labels.with(target, &value);
    }
}

/// Sets a label to the values of others with a separator between them.
pub(super) fn label_join(matrix: &mut Matrix, target: &str, separator: &str, sources: &[String]) {
    for labels in &mut matrix.labels {
        let values: Vec<&str> = sources.iter().map(|name| labels.get(name)).collect();
        *labels = labels.with(target, &values.join(separator));
    }
}
