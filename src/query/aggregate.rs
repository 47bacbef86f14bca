//! Aggregations: one value of each group of series, or a choice of a group's series.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::Labels;

use super::QueryError;
use super::eval::{Grid, Row};
use super::histogram::warn_of_quantile;
use super::numbers::{self, Mean, Sum};
use super::tree::{Aggregate, Aggregator, Grouping, Node};

/// The rows of an aggregation. `parameter` is its scalar argument, one value a step.
pub(super) fn aggregate(
    of: &Aggregate,
    rows: Vec<Row>,
    parameter: Option<&[f64]>,
    grid: Grid,
    warnings: &mut BTreeSet<String>,
) -> Result<Vec<Row>, QueryError> {
    let parameter = parameter.unwrap_or(&[]);
    match of.operator {
        Aggregator::Topk | Aggregator::Bottomk | Aggregator::Limitk => choose(of, rows, parameter, grid),
        Aggregator::CountValues => count_values(of, rows, grid),
        Aggregator::Quantile => {
            parameter.iter().for_each(|q| warn_of_quantile(*q, warnings));
            Ok(reduce(of, &rows, parameter, grid))
        }
        _ => Ok(reduce(of, &rows, parameter, grid)),
    }
}

/// Indices of the rows of each group, in the order in which the groups are first seen.
fn group(of: &Aggregate, rows: &[Row]) -> Vec<(Labels, Vec<usize>)> {
    let mut groups: Vec<(Labels, Vec<usize>)> = Vec::new();
    let mut places: HashMap<Labels, usize> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let key = of.grouping.key(&row.labels);
        let place = *places.entry(key.clone()).or_insert(groups.len());
        if place == groups.len() {
            groups.push((key, Vec::new()));
        }
        groups[place].1.push(index);
    }
    groups
}

fn reduce(of: &Aggregate, rows: &[Row], parameter: &[f64], grid: Grid) -> Vec<Row> {
    let mut reduced = Vec::new();
    let mut present: Vec<f64> = Vec::new();
    for (labels, members) in group(of, rows) {
        let mut values = Vec::with_capacity(grid.count);
        for step in 0..grid.count {
            present.clear();
            present.extend(members.iter().filter_map(|member| rows[*member].values[step]));
            let parameter = parameter.get(step).copied().unwrap_or(f64::NAN);
            values.push(if present.is_empty() { None } else { Some(value_of(of.operator, &mut present, parameter)) });
        }
        reduced.push(Row { labels, values });
    }
    reduced
}

/// The value of one group at one step; `values` has at least one.
fn value_of(operator: Aggregator, values: &mut [f64], parameter: f64) -> f64 {
    let (first, rest) = (values[0], &values[1..]);
    let extreme = |beats: fn(f64, f64) -> bool| {
        rest.iter().fold(first, |best, value| if beats(*value, best) || best.is_nan() { *value } else { best })
    };
    match operator {
        Aggregator::Sum => rest.iter().fold(Sum::of(first), |sum, value| sum.plus(*value)).value(),
        Aggregator::Avg => {
            let mut mean = Mean::of(first);
            rest.iter().for_each(|value| mean.add(*value));
            mean.value()
        }
        Aggregator::Min => extreme(|a, b| a < b),
        Aggregator::Max => extreme(|a, b| a > b),
        Aggregator::Count => values.len() as f64,
        Aggregator::Stddev => numbers::variance(values.iter().copied()).sqrt(),
        Aggregator::Stdvar => numbers::variance(values.iter().copied()),
        Aggregator::Quantile => numbers::quantile(parameter, values),
        _ => 1.0,
    }
}

/// The `k` highest, lowest or first elements of each group at each step, with their own labels.
fn choose(of: &Aggregate, rows: Vec<Row>, parameter: &[f64], grid: Grid) -> Result<Vec<Row>, QueryError> {
    let groups = group(of, &rows);
    let mut chosen: Vec<Row> =
        rows.iter().map(|row| Row { labels: row.labels.clone(), values: vec![None; grid.count] }).collect();
    let mut order: Vec<usize> = Vec::with_capacity(rows.len());
    for (_, members) in &groups {
        let mut ranked: Vec<usize> = Vec::new();
        for (step, k) in parameter.iter().enumerate() {
            ranked = members.iter().copied().filter(|member| rows[*member].values[step].is_some()).collect();
            let value = |member: &usize| rows[*member].values[step].unwrap_or(f64::NAN);
            match of.operator {
                Aggregator::Topk => ranked.sort_by(|a, b| numbers::compare(value(b), value(a))),
                // NaN is the worst of both: the lowest for `topk`, the highest for `bottomk`.
                Aggregator::Bottomk => ranked.sort_by(|a, b| {
                    value(a).is_nan().cmp(&value(b).is_nan()).then(numbers::compare(value(a), value(b)))
                }),
                _ => {}
            }
            if !ranked.is_empty() {
                ranked.truncate(limit(*k)?);
            }
            for member in &ranked {
                chosen[*member].values[step] = rows[*member].values[step];
            }
        }
        order.extend(if grid.count == 1 { ranked } else { members.clone() });
    }
    let mut slots: Vec<Option<Row>> = chosen.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| slots[index].take()).collect())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "out of range is refused before")]
fn limit(k: f64) -> Result<usize, QueryError> {
    if k < 1.0 {
        return Ok(0);
    }
    if k < 9_223_372_036_854_775_808.0 {
        return Ok(k as usize);
    }
    Err(QueryError::Execution(format!("Scalar value {} overflows int64", numbers::format_short(k))))
}

/// How many elements of each group have each value; the value becomes a label.
fn count_values(of: &Aggregate, rows: Vec<Row>, grid: Grid) -> Result<Vec<Row>, QueryError> {
    let Some(Node::Text(label)) = &of.parameter else {
        return Err(QueryError::Execution("count_values needs the name of a label".to_owned()));
    };
    // `without` drops the label even where it is the new one.
    let is_dropped = matches!(&of.grouping, Grouping::AllBut(names) if names.contains(label));
    let mut counted = Vec::new();
    for (labels, members) in group(of, &rows) {
        let mut counts: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
        for member in members {
            for (step, value) in rows[member].values.iter().enumerate() {
                let Some(value) = value else { continue };
                let values = counts.entry(numbers::format(*value)).or_insert_with(|| vec![None; grid.count]);
                values[step] = Some(values[step].unwrap_or(0.0) + 1.0);
            }
        }
        for (text, values) in counts {
            let labels = if is_dropped { labels.clone() } else { labels.with(label, &text) };
            counted.push(Row { labels, values });
        }
    }
    Ok(add_up(counted))
}

/// Adds up the counts of groups that the new label has made equal.
fn add_up(rows: Vec<Row>) -> Vec<Row> {
    let mut sums: BTreeMap<Labels, Vec<Option<f64>>> = BTreeMap::new();
    for row in rows {
        match sums.get_mut(&row.labels) {
            None => {
                sums.insert(row.labels, row.values);
            }
            Some(values) => {
                for (sum, value) in values.iter_mut().zip(row.values) {
                    *sum = match (*sum, value) {
                        (Some(a), Some(b)) => Some(a + b),
                        (a, b) => a.or(b),
                    };
                }
            }
        }
    }
    sums.into_iter().map(|(labels, values)| Row { labels, values }).collect()
}
