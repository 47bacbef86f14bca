//! Functions of instant vectors: of each value, of labels, of order, of absence.

use regex::Regex;

use crate::model::Labels;

use super::eval::{Grid, Row, without_name};
use super::numbers;
use super::tree::Direction;

/// A function of each value; the metric's name goes.
pub(super) fn map(rows: Vec<Row>, function: impl Fn(f64) -> f64) -> Vec<Row> {
    map_steps(rows, |_, value| Some(function(value)))
}

fn map_steps(rows: Vec<Row>, function: impl Fn(usize, f64) -> Option<f64>) -> Vec<Row> {
    let mut rows = rows;
    for row in &mut rows {
        row.labels = without_name(&row.labels);
        for (step, value) in row.values.iter_mut().enumerate() {
            *value = value.and_then(|value| function(step, value));
        }
    }
    rows
}

/// Values held between bounds; nothing where the lower bound is above the upper one.
pub(super) fn clamp(rows: Vec<Row>, min: Option<&[f64]>, max: Option<&[f64]>) -> Vec<Row> {
    map_steps(rows, |step, value| {
        let (min, max) = (min.map(|bounds| bounds[step]), max.map(|bounds| bounds[step]));
        if let (Some(min), Some(max)) = (min, max)
            && max < min
        {
            return None;
        }
        let capped = max.map_or(value, |max| numbers::lesser(max, value));
        Some(min.map_or(capped, |min| numbers::greater(min, capped)))
    })
}

/// Values rounded to the nearest multiple of `to`; halves go up.
pub(super) fn round(rows: Vec<Row>, to: &[f64]) -> Vec<Row> {
    // Dividing by the inverse keeps multiples of 0.1 and the like exact.
    map_steps(rows, |step, value| {
        let inverse = 1.0 / to[step];
        Some((value * inverse + 0.5).floor() / inverse)
    })
}

/// The value of the only element at each step; NaN where there are none or several.
pub(super) fn scalar(rows: &[Row], grid: Grid) -> Vec<f64> {
    let only = |step: usize| {
        let mut present = rows.iter().filter_map(|row| row.values[step]);
        match (present.next(), present.next()) {
            (Some(value), None) => value,
            _ => f64::NAN,
        }
    };
    (0..grid.count).map(only).collect()
}

/// An element of the value 1 where no row has a value.
pub(super) fn absent(rows: &[Row], labels: &Labels, grid: Grid) -> Vec<Row> {
    let is_absent = |step: usize| rows.iter().all(|row| row.values[step].is_none());
    let values = (0..grid.count).map(|step| is_absent(step).then_some(1.0)).collect();
    vec![Row { labels: labels.clone(), values }]
}

/// Rows in the order of their values, NaN last; only the answer of an instant query has an order.
pub(super) fn sort(rows: Vec<Row>, direction: Direction, grid: Grid) -> Vec<Row> {
    let mut rows = rows;
    if grid.count == 1 {
        let value = |row: &Row| row.values[0].unwrap_or(f64::NAN);
        rows.sort_by(|a, b| {
            let (a, b) = (value(a), value(b));
            let by_value = match direction {
                Direction::Ascending => numbers::compare(a, b),
                Direction::Descending => numbers::compare(b, a),
            };
            a.is_nan().cmp(&b.is_nan()).then(by_value)
        });
    }
    rows
}

/// Rows in the natural order of the values of labels, then of all labels.
pub(super) fn sort_by_label(rows: Vec<Row>, names: &[String], direction: Direction) -> Vec<Row> {
    let mut rows = rows;
    rows.sort_by(|a, b| {
        let by_names =
            names.iter().map(|name| natural_order(a.labels.get(name).unwrap_or(""), b.labels.get(name).unwrap_or("")));
        let order = by_names.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then);
        let order = order.then_with(|| a.labels.cmp(&b.labels));
        if direction == Direction::Ascending { order } else { order.reverse() }
    });
    rows
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
pub(super) fn label_replace(rows: Vec<Row>, target: &str, template: &str, source: &str, regex: &Regex) -> Vec<Row> {
    let mut rows = rows;
    for row in &mut rows {
        let Some(captures) = regex.captures(row.labels.get(source).unwrap_or("")) else { continue };
        let mut value = String::new();
        captures.expand(template, &mut value);
        row.labels = row.labels.with(target, &value);
    }
    rows
}

/// Sets a label to the values of others with a separator between them.
pub(super) fn label_join(rows: Vec<Row>, target: &str, separator: &str, sources: &[String]) -> Vec<Row> {
    let mut rows = rows;
    for row in &mut rows {
        let values: Vec<&str> = sources.iter().map(|name| row.labels.get(name).unwrap_or("")).collect();
        row.labels = row.labels.with(target, &values.join(separator));
    }
    rows
}
