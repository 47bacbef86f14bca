//! Operators between two operands: arithmetic, comparison, and the set operators of vectors.

use super::QueryError;
use super::matrix::{ABSENT, Groups, LabelSet, Matrix, SAME_LABELS, is_of_metric, is_present};
use super::numbers;
use super::syntax::{BinaryOperator, Cardinality, quoted};
use super::tree::Binary;
use crate::model::Labels;

/// A side of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Two scalars; a comparison yields 0 or 1.
pub(super) fn combine_scalars(operator: BinaryOperator, left: f64, right: f64) -> f64 {
    if operator.is_comparison() {
        return f64::from(u8::from(holds(operator, left, right)));
    }
    arithmetic(operator, left, right)
}

/// A vector with a scalar, which stands on the side `scalar_side`.
pub(super) fn combine_with_scalar(of: &Binary, matrix: &mut Matrix, scalars: &[f64], scalar_side: Side) {
    for row in matrix.values.chunks_mut(matrix.steps.max(1)) {
        for (value, scalar) in row.iter_mut().zip(scalars).filter(|(value, _)| is_present(**value)) {
            *value = match scalar_side {
                Side::Left => combine(of, *scalar, *value, *value),
                Side::Right => combine(of, *value, *scalar, *value),
            };
        }
    }
}

/// Whether the result is another thing than the metric was.
pub(super) fn drops_name(of: &Binary) -> bool {
    of.yields_bool || !of.operator.is_comparison()
}

/// The value for two elements; a filtering comparison yields `kept` or nothing.
fn combine(of: &Binary, left: f64, right: f64, kept: f64) -> f64 {
    if of.operator.is_comparison() && !of.yields_bool {
        return if holds(of.operator, left, right) { kept } else { ABSENT };
    }
    combine_scalars(of.operator, left, right)
}

fn holds(operator: BinaryOperator, left: f64, right: f64) -> bool {
    match operator {
        BinaryOperator::Equal => numbers::same(left, right),
        BinaryOperator::NotEqual => !numbers::same(left, right),
        BinaryOperator::Greater => left > right,
        BinaryOperator::GreaterOrEqual => left >= right,
        BinaryOperator::Less => left < right,
        BinaryOperator::LessOrEqual => left <= right,
        _ => false,
    }
}

/// What an operator calculates.
pub(super) fn arithmetic(operator: BinaryOperator, left: f64, right: f64) -> f64 {
    match operator {
        BinaryOperator::Add => left + right,
        BinaryOperator::Subtract => left - right,
        BinaryOperator::Multiply => left * right,
        BinaryOperator::Divide => left / right,
        BinaryOperator::Modulo => left % right,
        BinaryOperator::Power => left.powf(right),
        BinaryOperator::Atan2 => left.atan2(right),
        _ => f64::NAN,
    }
}

/// The groups of the series of two matrices, one behind the other.
fn group(of: &Binary, first: &Matrix, second: &Matrix) -> Groups {
    let all: Vec<LabelSet> = first.labels.iter().chain(&second.labels).cloned().collect();
    of.matching.grouping.groups(&all)
}

/// For each step whether a series has a value.
fn any_present<'a>(rows: impl Iterator<Item = &'a [f64]>, steps: usize) -> Vec<bool> {
    let mut present = vec![false; steps];
    for row in rows {
        for (any, value) in present.iter_mut().zip(row) {
            *any |= is_present(*value);
        }
    }
    present
}

/// Two vectors, element by element with the same matching labels.
pub(super) fn combine_vectors(of: &Binary, left: &Matrix, right: &Matrix) -> Result<Matrix, QueryError> {
    let (many, one) = match of.matching.cardinality {
        Cardinality::OneToMany => (right, left),
        Cardinality::OneToOne | Cardinality::ManyToOne => (left, right),
    };
    let steps = left.steps;
    let (many_live, one_live) =
        (any_present(many.rows().map(|(_, row)| row), steps), any_present(one.rows().map(|(_, row)| row), steps));
    // Where a side is empty nothing is matched, so nothing is ambiguous either.
    let live: Vec<bool> = many_live.iter().zip(&one_live).map(|(m, o)| *m && *o).collect();
    let groups = group(of, many, one);
    let mut pairing = Pairing { of, one, owners: vec![NOBODY; groups.count() * steps], steps };
    for index in 0..one.len() {
        pairing.own(groups.of[many.len() + index], index, &live)?;
    }
    let mut results: Vec<Vec<usize>> = vec![Vec::new(); groups.count()];
    let mut combined = Matrix::new(steps);
    for index in 0..many.len() {
        let group = groups.of[index];
        let before = combined.len();
        pairing.combine_row(group, &many.labels[index], many.row(index), &mut combined);
        results[group].extend(before..combined.len());
    }
    for members in results.iter().filter(|members| members.len() > 1) {
        check_unique(of, &combined, members)?;
    }
    combined.merge_same(SAME_LABELS)?;
    Ok(combined)
}

/// No series of the one side.
const NOBODY: usize = usize::MAX;

/// Which series of the one side stands for each group at each step.
struct Pairing<'a> {
    of: &'a Binary,
    one: &'a Matrix,
    owners: Vec<usize>,
    steps: usize,
}

impl Pairing<'_> {
    /// Makes a series stand for its group wherever it has a value; two at a step are an error.
    fn own(&mut self, group: usize, index: usize, live: &[bool]) -> Result<(), QueryError> {
        let row = self.one.row(index);
        for (step, value) in row.iter().enumerate().filter(|(step, value)| live[*step] && is_present(**value)) {
            debug_assert!(is_present(*value));
            let owner = &mut self.owners[group * self.steps + step];
            if *owner != NOBODY {
                let other = &self.one.labels[*owner];
                return Err(ambiguous(self.of, &self.one.labels[index], other));
            }
            *owner = index;
        }
        Ok(())
    }

    /// One series of the many side with whichever series stands for its group at each step: a result for each of these.
    fn combine_row(&self, group: usize, labels: &LabelSet, row: &[f64], combined: &mut Matrix) {
        let owners = &self.owners[group * self.steps..(group + 1) * self.steps];
        let mut done: Vec<usize> = Vec::new();
        for owner in owners.iter().copied().filter(|owner| *owner != NOBODY) {
            if done.contains(&owner) {
                continue;
            }
            done.push(owner);
            let other = self.one.row(owner);
            let values: Vec<f64> = (0..self.steps)
                .map(|step| if owners[step] == owner { self.value(row[step], other[step]) } else { ABSENT })
                .collect();
            if values.iter().any(|value| is_present(*value)) {
                combined.push(self.labels(labels, &self.one.labels[owner]), &values);
            }
        }
    }

    fn value(&self, many: f64, one: f64) -> f64 {
        if !is_present(many) || !is_present(one) {
            return ABSENT;
        }
        match self.of.matching.cardinality {
            Cardinality::OneToMany => combine(self.of, one, many, one),
            Cardinality::OneToOne | Cardinality::ManyToOne => combine(self.of, many, one, many),
        }
    }

    fn labels(&self, many: &LabelSet, one: &LabelSet) -> LabelSet {
        let of = self.of;
        let mut labels = many.clone().into_labels();
        if !of.operator.is_comparison() {
            labels = labels.without(is_of_metric);
        }
        if of.matching.cardinality == Cardinality::OneToOne {
            let grouping = &of.matching.grouping;
            labels = labels.without(|name| match grouping.is_by() {
                true => !grouping.names_label(name),
                // Unlike the matching labels themselves, the result keeps the name where the operator does.
                false => name != crate::model::METRIC_NAME && grouping.names_label(name),
            });
        }
        for name in &of.matching.include {
            labels = labels.with(name, one.get(name));
        }
        LabelSet::new(if of.yields_bool { labels.without(is_of_metric) } else { labels })
    }
}

fn ambiguous(of: &Binary, one: &LabelSet, other: &LabelSet) -> QueryError {
    let side = if of.matching.cardinality == Cardinality::OneToMany { "left" } else { "right" };
    QueryError::Execution(format!(
        "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
         many-to-many matching not allowed: matching labels must be unique on one side",
        braced(&of.matching.grouping.key(one)),
        braced(&one.clone().into_labels()),
        braced(&other.clone().into_labels()),
    ))
}

/// Labels as Prometheus writes them in errors: the name is one label of all.
fn braced(labels: &Labels) -> String {
    let is_plain = |name: &str| {
        name.bytes()
            .enumerate()
            .all(|(at, byte)| byte.is_ascii_alphabetic() || byte == b'_' || (at > 0 && byte.is_ascii_digit()))
    };
    let pair = |(name, value): (&str, &str)| {
        let name = if is_plain(name) { name.to_owned() } else { quoted(name) };
        format!("{name}={}", quoted(value))
    };
    let pairs: Vec<String> = labels.iter().map(pair).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// Refuses two results of one group at the same step, unless the many side tells them apart.
fn check_unique(of: &Binary, combined: &Matrix, members: &[usize]) -> Result<(), QueryError> {
    if of.matching.cardinality != Cardinality::OneToOne {
        let mut rows = Matrix::new(combined.steps);
        members.iter().for_each(|index| rows.push(combined.labels[*index].clone(), combined.row(*index)));
        return rows.merge_same("multiple matches for labels: grouping labels must ensure unique matches");
    }
    let mut taken = vec![false; combined.steps];
    for index in members {
        for (taken, value) in taken.iter_mut().zip(combined.row(*index)) {
            if *taken && is_present(*value) {
                let what = "many-to-one matching must be explicit (group_left/group_right)";
                return Err(QueryError::Execution(format!("multiple matches for labels: {what}")));
            }
            *taken |= is_present(*value);
        }
    }
    Ok(())
}

/// `and`, `or`, `unless`: elements of the left side that have, or have not, a partner; and with `or` those without from the right.
pub(super) fn combine_sets(of: &Binary, left: Matrix, right: Matrix) -> Result<Matrix, QueryError> {
    let (mut left, mut right) = (left, right);
    let groups = group(of, &left, &right);
    let steps = left.steps;
    let mut partners = vec![false; groups.count() * steps];
    let (kept, others, kept_from, others_from) = match of.operator {
        BinaryOperator::Or => (&mut right, &left, left.len(), 0),
        _ => {
            let offset = left.len();
            (&mut left, &right, 0, offset)
        }
    };
    for (index, (_, row)) in others.rows().enumerate() {
        let group = groups.of[others_from + index];
        for (partner, value) in partners[group * steps..(group + 1) * steps].iter_mut().zip(row) {
            *partner |= is_present(*value);
        }
    }
    let keeps_partnered = of.operator == BinaryOperator::And;
    for index in 0..kept.len() {
        let group = groups.of[kept_from + index];
        let partners = &partners[group * steps..(group + 1) * steps];
        for (value, has_partner) in kept.row_mut(index).iter_mut().zip(partners) {
            if *has_partner != keeps_partnered {
                *value = ABSENT;
            }
        }
    }
    if of.operator == BinaryOperator::Or {
        left.labels.append(&mut right.labels);
        left.values.append(&mut right.values);
    }
    left.drop_empty();
    left.merge_same(SAME_LABELS)?;
    Ok(left)
}
