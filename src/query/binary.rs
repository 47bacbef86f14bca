//! Operators between two operands: arithmetic, comparison, and the set operators of vectors.

use std::collections::{BTreeMap, HashMap};

use crate::model::{Labels, METRIC_NAME};

use super::QueryError;
use super::eval::{Grid, Row, SAME_LABELS, merge, without_name};
use super::numbers;
use super::tree::{Binary, Cardinality, Grouping, Operator};

/// A side of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Two scalars; a comparison yields 0 or 1.
pub(super) fn combine_scalars(operator: Operator, left: f64, right: f64) -> f64 {
    if operator.is_comparison() {
        return f64::from(u8::from(holds(operator, left, right)));
    }
    arithmetic(operator, left, right)
}

/// A vector with a scalar, which stands on the side `scalar_side`.
pub(super) fn combine_with_scalar(of: &Binary, rows: Vec<Row>, scalars: &[f64], scalar_side: Side) -> Vec<Row> {
    let combine_one = |value: f64, scalar: f64| match scalar_side {
        Side::Left => combine(of, scalar, value, value),
        Side::Right => combine(of, value, scalar, value),
    };
    let mut rows = rows;
    for row in &mut rows {
        for (value, scalar) in row.values.iter_mut().zip(scalars) {
            *value = value.and_then(|value| combine_one(value, *scalar));
        }
        if drops_name(of) {
            row.labels = without_name(&row.labels);
        }
    }
    rows
}

/// Whether the result is another thing than the metric was.
fn drops_name(of: &Binary) -> bool {
    of.yields_bool || !of.operator.is_comparison()
}

/// The value for two elements; a filtering comparison yields `kept` or nothing.
fn combine(of: &Binary, left: f64, right: f64, kept: f64) -> Option<f64> {
    if of.operator.is_comparison() && !of.yields_bool {
        return holds(of.operator, left, right).then_some(kept);
    }
    Some(combine_scalars(of.operator, left, right))
}

fn holds(operator: Operator, left: f64, right: f64) -> bool {
    match operator {
        Operator::Equal => numbers::same(left, right),
        Operator::NotEqual => !numbers::same(left, right),
        Operator::Greater => left > right,
        Operator::GreaterOrEqual => left >= right,
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        _ => false,
    }
}

fn arithmetic(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
        Operator::Power => left.powf(right),
        Operator::Atan2 => left.atan2(right),
        _ => f64::NAN,
    }
}

/// Rows of both sides that have the same matching labels.
#[derive(Debug, Default)]
struct Group {
    many: Vec<usize>,
    one: Vec<usize>,
}

/// Groups in the order in which their labels are first seen.
fn group(grouping: &Grouping, many: &[Row], one: &[Row]) -> Vec<(Labels, Group)> {
    let mut groups: Vec<(Labels, Group)> = Vec::new();
    let mut places: HashMap<Labels, usize> = HashMap::new();
    for (rows, is_many) in [(many, true), (one, false)] {
        for (index, row) in rows.iter().enumerate() {
            let key = grouping.key(&row.labels);
            let place = *places.entry(key.clone()).or_insert(groups.len());
            if place == groups.len() {
                groups.push((key, Group::default()));
            }
            let group = &mut groups[place].1;
            if is_many { group.many.push(index) } else { group.one.push(index) }
        }
    }
    groups
}

/// For each step whether a row has a value.
fn any_present<'a>(rows: impl Iterator<Item = &'a Row>, grid: Grid) -> Vec<bool> {
    let mut present = vec![false; grid.count];
    for row in rows {
        for (any, value) in present.iter_mut().zip(&row.values) {
            *any |= value.is_some();
        }
    }
    present
}

/// Two vectors, element by element with the same matching labels.
pub(super) fn combine_vectors(
    of: &Binary,
    left: Vec<Row>,
    right: Vec<Row>,
    grid: Grid,
) -> Result<Vec<Row>, QueryError> {
    let (many, one) = match of.matching.cardinality {
        Cardinality::OneToMany => (right, left),
        Cardinality::OneToOne | Cardinality::ManyToOne => (left, right),
    };
    let (many_live, one_live) = (any_present(many.iter(), grid), any_present(one.iter(), grid));
    // Where a side is empty nothing is matched, so nothing is ambiguous either.
    let live: Vec<bool> = many_live.iter().zip(&one_live).map(|(m, o)| *m && *o).collect();
    let mut combined = Vec::new();
    for (key, group) in group(&of.matching.grouping, &many, &one) {
        let owners = owners(of, &key, &group.one, &one, &live)?;
        let mut rows = Vec::new();
        for index in group.many {
            rows.extend(combine_row(of, &many[index], &one, &owners));
        }
        combined.extend(check_unique(of, rows, grid)?);
    }
    merge(combined, SAME_LABELS)
}

/// For each step the one row of a group that has a value there; two are an error.
fn owners(
    of: &Binary,
    key: &Labels,
    candidates: &[usize],
    one: &[Row],
    live: &[bool],
) -> Result<Vec<Option<usize>>, QueryError> {
    let mut owners: Vec<Option<usize>> = vec![None; live.len()];
    for candidate in candidates {
        for (step, owner) in owners.iter_mut().enumerate().filter(|(step, _)| live[*step]) {
            if one[*candidate].values[step].is_none() {
                continue;
            }
            if let Some(other) = owner {
                let side = if of.matching.cardinality == Cardinality::OneToMany { "left" } else { "right" };
                return Err(QueryError::Execution(format!(
                    "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
                     many-to-many matching not allowed: matching labels must be unique on one side",
                    braced(key),
                    braced(&one[*candidate].labels),
                    braced(&one[*other].labels),
                )));
            }
            *owner = Some(*candidate);
        }
    }
    Ok(owners)
}

/// Labels as Prometheus writes them in errors: the name is one label of all.
fn braced(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// One row of the many side with whichever row of the other side is there at each step: a row for each of these.
fn combine_row(of: &Binary, many: &Row, one: &[Row], owners: &[Option<usize>]) -> Vec<Row> {
    let mut by_owner: BTreeMap<usize, Vec<Option<f64>>> = BTreeMap::new();
    for (step, (value, owner)) in many.values.iter().zip(owners).enumerate() {
        let (Some(value), Some(owner)) = (*value, *owner) else { continue };
        let Some(other) = one[owner].values[step] else { continue };
        let (left, right) = match of.matching.cardinality {
            Cardinality::OneToMany => (other, value),
            Cardinality::OneToOne | Cardinality::ManyToOne => (value, other),
        };
        if let Some(result) = combine(of, left, right, left) {
            by_owner.entry(owner).or_insert_with(|| vec![None; owners.len()])[step] = Some(result);
        }
    }
    let row = |(owner, values): (usize, Vec<Option<f64>>)| Row {
        labels: result_labels(of, &many.labels, &one[owner].labels),
        values,
    };
    by_owner.into_iter().map(row).collect()
}

fn result_labels(of: &Binary, many: &Labels, one: &Labels) -> Labels {
    let mut labels = if drops_name(of) { without_name(many) } else { many.clone() };
    if of.matching.cardinality == Cardinality::OneToOne {
        labels = match &of.matching.grouping {
            Grouping::These(_) => of.matching.grouping.key(&labels),
            // Unlike the matching labels themselves, the result keeps the name where the operator does.
            Grouping::AllBut(names) => labels.without(|name| names.iter().any(|n| n == name)),
        };
    }
    for name in &of.matching.include {
        let value = one.get(name).unwrap_or("");
        labels = labels.with(name, value);
    }
    if of.yields_bool { labels.without(|name| name == METRIC_NAME) } else { labels }
}

/// Refuses two results of one group at the same step, unless the many side tells them apart.
fn check_unique(of: &Binary, rows: Vec<Row>, grid: Grid) -> Result<Vec<Row>, QueryError> {
    if of.matching.cardinality != Cardinality::OneToOne {
        return merge(rows, "multiple matches for labels: grouping labels must ensure unique matches");
    }
    let mut taken = vec![false; grid.count];
    for row in &rows {
        for (taken, value) in taken.iter_mut().zip(&row.values) {
            if *taken && value.is_some() {
                return Err(QueryError::Execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                        .to_owned(),
                ));
            }
            *taken |= value.is_some();
        }
    }
    Ok(rows)
}

/// `and`, `or`, `unless`: elements of the left side that have, or have not, a partner; and with `or` those without from the right.
pub(super) fn combine_sets(of: &Binary, left: Vec<Row>, right: Vec<Row>, grid: Grid) -> Result<Vec<Row>, QueryError> {
    let (mut left, mut right) = (left, right);
    for (_, group) in group(&of.matching.grouping, &left, &right) {
        let in_left = any_present(group.many.iter().map(|index| &left[*index]), grid);
        let in_right = any_present(group.one.iter().map(|index| &right[*index]), grid);
        match of.operator {
            Operator::And => keep(&mut left, &group.many, |step| in_right[step]),
            Operator::Unless => keep(&mut left, &group.many, |step| !in_right[step]),
            _ => keep(&mut right, &group.one, |step| !in_left[step]),
        }
    }
    if of.operator == Operator::Or {
        left.extend(right);
    }
    merge(left, SAME_LABELS)
}

fn keep(rows: &mut [Row], indices: &[usize], keeps: impl Fn(usize) -> bool) {
    for index in indices {
        for (step, value) in rows[*index].values.iter_mut().enumerate() {
            if !keeps(step) {
                *value = None;
            }
        }
    }
}
