//! `info()`: adds the labels of info series, such as `target_info`, to the series of the same instance and job.

use std::collections::{BTreeMap, BTreeSet};

use super::QueryError;
use super::matrix::{ABSENT, LabelSet, Matrix, is_present};
use crate::model::METRIC_NAME;
use crate::store::{MatchOp, Matcher};

/// The metric that is looked at where none is named.
const TARGET_INFO: &str = "target_info";
/// The labels by which series find each other.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The matchers of the info series for these series; nothing where none of these can be told apart.
pub(super) fn info_matchers(matrix: &Matrix, own: &[Matcher]) -> Option<Vec<Matcher>> {
    let mut matchers = own.to_vec();
    if !own.iter().any(|matcher| matcher.name == METRIC_NAME) {
        matchers.push(Matcher::equal(METRIC_NAME, TARGET_INFO));
    }
    let is_named = |labels: &&LabelSet| IDENTIFYING.iter().any(|name| !labels.get(name).is_empty());
    let is_enriched = |labels: &&LabelSet| !is_info(labels, own);
    matrix.labels.iter().filter(is_enriched).any(|labels| is_named(&labels)).then_some(matchers)
}

/// Whether a series is itself an info series, which stays as it is.
fn is_info(labels: &LabelSet, own: &[Matcher]) -> bool {
    let name = labels.get(METRIC_NAME);
    let mut of_names = own.iter().filter(|matcher| matcher.name == METRIC_NAME).peekable();
    match of_names.peek() {
        None if own.is_empty() => name == TARGET_INFO,
        _ => of_names.any(|matcher| matcher.matches(name)),
    }
}

/// What tells which info series belong to a series.
fn identity(labels: &LabelSet) -> [String; 2] {
    IDENTIFYING.map(|name| labels.get(name).to_owned())
}

/// The series with the labels of their info series. The values of `infos` are the times of their samples, in milliseconds;
/// nothing where none was looked for.
pub(super) fn enrich(matrix: &Matrix, infos: Option<&Matrix>, own: &[Matcher]) -> Result<Matrix, QueryError> {
    // As in Prometheus, the name counts for what must match only where no info series was looked for.
    let counts = |matcher: &&Matcher| infos.is_none() || matcher.name != METRIC_NAME;
    let must_match = own.iter().filter(counts).any(|matcher| !matcher.matches(""));
    let none = Matrix::new(matrix.steps);
    let infos = infos.unwrap_or(&none);
    let wanted: BTreeMap<&str, Vec<&Matcher>> =
        own.iter().filter(|matcher| matcher.name != METRIC_NAME).fold(BTreeMap::new(), |mut wanted, matcher| {
            wanted.entry(matcher.name.as_str()).or_insert_with(Vec::new).push(matcher);
            wanted
        });
    let mut answer = Matrix::new(matrix.steps);
    for step in 0..matrix.steps {
        let newest = newest_infos(infos, step)?;
        for (labels, row) in matrix.rows().filter(|(_, row)| is_present(row[step])) {
            let mut values = vec![ABSENT; matrix.steps];
            values[step] = row[step];
            if is_info(labels, own) {
                answer.push(labels.clone(), &values);
                continue;
            }
            let added = labels_to_add(labels, &newest, infos, &wanted)?;
            if added.is_empty() && must_match {
                continue;
            }
            let enriched = added.iter().fold(labels.clone(), |labels, (name, value)| labels.with(name, value));
            answer.push(enriched, &values);
        }
    }
    answer.merge_same(super::matrix::SAME_LABELS)?;
    Ok(answer)
}

/// The newest info series of each name and identity at a step.
fn newest_infos(infos: &Matrix, step: usize) -> Result<BTreeMap<(String, [String; 2]), usize>, QueryError> {
    let mut newest: BTreeMap<(String, [String; 2]), usize> = BTreeMap::new();
    for (index, (labels, row)) in infos.rows().enumerate().filter(|(_, (_, row))| is_present(row[step])) {
        let name = labels.get(METRIC_NAME).to_owned();
        let place = newest.entry((name, identity(labels))).or_insert(index);
        if *place == index {
            continue;
        }
        let (known, new) = (infos.row(*place)[step], row[step]);
        if known < new {
            *place = index;
        } else if super::numbers::same(known, new) {
            let name = labels.get(METRIC_NAME);
            return Err(QueryError::Execution(format!("found duplicate series for info metric {name}")));
        }
    }
    Ok(newest)
}

fn labels_to_add(
    labels: &LabelSet,
    newest: &BTreeMap<(String, [String; 2]), usize>,
    infos: &Matrix,
    wanted: &BTreeMap<&str, Vec<&Matcher>>,
) -> Result<BTreeMap<String, String>, QueryError> {
    let mut added: BTreeMap<String, String> = BTreeMap::new();
    let names: BTreeSet<&String> = newest.keys().map(|(name, _)| name).collect();
    for name in names {
        let Some(index) = newest.get(&(name.clone(), identity(labels))) else { continue };
        for (name, value) in infos.labels[*index].pairs() {
            if &**name == METRIC_NAME || (!wanted.is_empty() && !wanted.contains_key(&**name)) {
                continue;
            }
            if added.get(&**name).is_some_and(|known| **known != **value) {
                return Err(QueryError::Execution(format!("conflicting label: {name}")));
            }
            if labels.get(name).is_empty() {
                added.insert(name.to_string(), value.to_string());
            }
        }
    }
    Ok(added)
}

/// Matchers for the identities of series, so that only their info series are read.
pub(super) fn identity_matchers(matrix: &Matrix) -> Vec<Matcher> {
    IDENTIFYING
        .iter()
        .filter_map(|name| {
            let values: BTreeSet<&str> = matrix.labels.iter().map(|labels| labels.get(name)).collect();
            let values: Vec<String> = values.into_iter().filter(|v| !v.is_empty()).map(regex::escape).collect();
            let pattern = values.join("|");
            let regex = super::syntax::anchored(&pattern).ok().filter(|_| !values.is_empty())?;
            Some(Matcher { name: (*name).to_owned(), op: MatchOp::Matches(regex), value: pattern })
        })
        .collect()
}
