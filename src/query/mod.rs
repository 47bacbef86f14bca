//! PromQL as Prometheus 3 evaluates it: float samples and classic histograms.
//!
//! ```text
//! text ── lower (parser crate, limits) ──▶ tree (checked) ── eval ──▶ Answer ── json ──▶ Prometheus's `data`
//!                                               │              ├ binary, aggregate
//!                                        reach, matcher_sets   └ windows, functions, histogram
//! ```
//!
//! An expression is evaluated node by node, each for all steps at once: a selector reads the store once a query.
//! Ranges and the lookback are open on the left. Any text either fails to parse or evaluates or fails; nothing panics.
//!
//! Not here: native histograms and their functions, `info()`, `limit_ratio`, `fill` modifiers, `or` between matchers. They are
//! refused when parsed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::{Labels, Millis, Sample, Timestamp};
use crate::store::{Matcher, Store};

mod aggregate;
mod binary;
mod calls;
mod eval;
mod functions;
mod histogram;
pub mod json;
mod lower;
mod numbers;
#[cfg(test)]
mod tests;
mod tree;
mod windows;

use eval::{Evaluator, Grid, Row};
use tree::{Call, Kind, Node, RangeSource};

/// How far back an instant selector looks, unless [`Settings::lookback`] says otherwise.
const LOOKBACK: Millis = Millis(5 * Millis::MINUTE.0);

/// A parsed and checked PromQL expression. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    text: String,
    expr: promql_parser::parser::Expr,
    node: Arc<Node>,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({:?})", self.text)
    }
}

impl Query {
    /// Parses an expression and checks its types.
    ///
    /// # Errors
    /// What is wrong, where the text is no PromQL, mixes types, uses what is not supported, or is beyond the limits on
    /// length, nesting, and the size and number of regular expressions.
    pub fn parse(text: &str) -> Result<Query, QueryError> {
        let (expr, node) = lower::parse(text).map_err(QueryError::Parse)?;
        Ok(Query { text: text.to_owned(), expr, node: Arc::new(node) })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parser's tree.
    pub fn expr(&self) -> &promql_parser::parser::Expr {
        &self.expr
    }

    /// How far before the moment of evaluation it looks: the longest sum of ranges, offsets and subqueries down to a
    /// selector, and the default lookback for an instant selector. A fixed moment (`@`) counts as that of evaluation.
    /// Zero where it selects nothing.
    pub fn reach(&self) -> Millis {
        reach(&self.node).max(Millis::ZERO)
    }

    /// The matchers of each selector, the metric's name among them, in the order in which they are written.
    pub fn matcher_sets(&self) -> Vec<Vec<Matcher>> {
        let mut sets = Vec::new();
        collect_matchers(&self.node, &mut sets);
        sets
    }
}

fn reach(node: &Node) -> Millis {
    let own = match node {
        Node::Selector(selector) => LOOKBACK + selector.placement.offset,
        Node::Range(range) => range_reach(range),
        Node::Call(call) => call.range().map_or(Millis(i64::MIN), range_reach),
        _ => Millis(i64::MIN),
    };
    // What is under a subquery has been counted with it.
    let below: Vec<&Node> = match node {
        Node::Range(_) => Vec::new(),
        Node::Call(call) => match &**call {
            Call::OverTime { parameters, .. } => parameters.iter().collect(),
            _ if call.range().is_some() => Vec::new(),
            _ => node.children(),
        },
        _ => node.children(),
    };
    below.into_iter().map(reach).fold(own, Ord::max)
}

fn range_reach(range: &RangeSource) -> Millis {
    let below = match range {
        RangeSource::Selector { .. } => Millis::ZERO,
        RangeSource::Subquery { inner, .. } => reach(inner),
    };
    below + range.range() + range.placement().offset
}

fn collect_matchers(node: &Node, sets: &mut Vec<Vec<Matcher>>) {
    let range = match node {
        Node::Range(range) => Some(range),
        Node::Call(call) => call.range(),
        _ => None,
    };
    match (node, range) {
        (Node::Selector(selector), _) | (_, Some(RangeSource::Selector { selector, .. })) => {
            sets.push(selector.matchers.clone());
        }
        _ => {}
    }
    for child in node.children() {
        collect_matchers(child, sets);
    }
}

/// Limits of evaluation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How far back an instant selector looks for a sample.
    pub lookback: Millis,
    /// The most samples and values that one query may hold at a time.
    pub samples_max: usize,
    /// The most samples and values that one query may look at in all, those of overlapping windows again for each window:
    /// some ten nanoseconds each.
    pub visits_max: u64,
    /// The most steps of a range query.
    pub steps_max: usize,
    /// The step of a subquery that names none.
    pub subquery_step: Millis,
    /// Ends evaluations from outside.
    pub stop: Stop,
}

/// Ends evaluations: they fail with [`QueryError::Stopped`] soon after it is set.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends what is evaluated with it, now and from now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lookback: LOOKBACK,
            samples_max: 50_000_000,
            visits_max: 5_000_000_000,
            steps_max: 11_000,
            subquery_step: Millis::MINUTE,
            stop: Stop::default(),
        }
    }
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is no valid expression (`bad_data`).
    #[error("{0}")]
    Parse(String),
    /// The expression cannot be evaluated over these series, or goes beyond a limit (`execution`).
    #[error("{0}")]
    Execution(String),
    /// It was stopped from outside.
    #[error("query was canceled in expression evaluation")]
    Stopped,
}

/// An answer with what is remarkable about it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Prometheus's `warnings`.
    pub warnings: Vec<String>,
    /// Prometheus's `infos`.
    pub infos: Vec<String>,
}

/// A value of PromQL.
#[derive(Debug, Clone)]
pub enum Value {
    /// A number.
    Scalar(Sample),
    /// A text.
    String(Timestamp, String),
    /// One sample for each series, all at the time of evaluation.
    Vector(Vec<Element>),
    /// Samples over time for each series.
    Matrix(Vec<Series>),
}

/// An element of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// Its labels.
    pub labels: Labels,
    /// Its value, at the time of evaluation.
    pub sample: Sample,
}

/// An element of a range vector, or of the answer to a range query.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its samples in time order.
    pub samples: Vec<Sample>,
}

/// Evaluates an expression at one moment.
///
/// A vector is in the order of evaluation: that of labels, unless `sort` or `topk` made another.
///
/// # Errors
/// Where series cannot be matched, an argument is wrong, or a limit is reached.
pub fn instant(store: &Store, query: &Query, at: Timestamp, settings: &Settings) -> Result<Answer, QueryError> {
    check_time(at)?;
    let grid = Grid { start: at, step: Millis(1), count: 1 };
    let mut evaluator = Evaluator::new(store, settings, grid, at);
    let value = match (&*query.node, query.node.kind()) {
        (Node::Text(text), _) => Value::String(at, text.clone()),
        (Node::Range(range), _) => Value::Matrix(evaluator.range_vector(range, grid)?),
        (node, Kind::Scalar) => {
            let values = evaluator.scalar(node, grid)?;
            Value::Scalar(Sample { at, value: values[0] })
        }
        (node, _) => Value::Vector(elements(evaluator.vector(node, grid)?, at)),
    };
    Ok(answer(value, evaluator))
}

/// Evaluates an expression at `start`, `start + step`, … up to and with `end`; the answer is a matrix sorted by labels.
///
/// # Errors
/// As [`instant`]; and where there are too many steps, `step` is not positive, `end` is before `start`, or the expression is a
/// string or a range vector.
pub fn range(
    store: &Store,
    query: &Query,
    start: Timestamp,
    end: Timestamp,
    step: Millis,
    settings: &Settings,
) -> Result<Answer, QueryError> {
    check_time(start)?;
    check_time(end)?;
    check_steps(start, end, step, settings)?;
    let grid = Grid::new(start, end, step);
    let mut evaluator = Evaluator::new(store, settings, grid, end);
    let rows = match query.node.kind() {
        Kind::Vector => evaluator.vector(&query.node, grid)?,
        Kind::Scalar => {
            let values = evaluator.scalar(&query.node, grid)?.into_iter().map(Some).collect();
            vec![Row { labels: Labels::default(), values }]
        }
        kind => {
            let name = kind.name();
            return Err(QueryError::Parse(format!(
                "invalid expression type \"{name}\" for range query, must be Scalar or instant Vector"
            )));
        }
    };
    let mut all: Vec<Series> = rows.into_iter().map(|row| series(row, grid)).collect();
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(answer(Value::Matrix(all), evaluator))
}

/// Refuses times so far away that offsets and ranges could overflow.
fn check_time(at: Timestamp) -> Result<(), QueryError> {
    const TIME_MAX: i64 = i64::MAX / 4;
    if at.0.unsigned_abs() <= TIME_MAX.unsigned_abs() {
        return Ok(());
    }
    Err(QueryError::Parse(format!("time out of range: {at}; at most {TIME_MAX} ms from 1970 are allowed")))
}

fn check_steps(start: Timestamp, end: Timestamp, step: Millis, settings: &Settings) -> Result<(), QueryError> {
    let refuse = |message: String| Err(QueryError::Parse(message));
    if step <= Millis::ZERO {
        return refuse(
            "zero or negative query resolution step widths are not accepted. Try a positive integer".to_owned(),
        );
    }
    if end < start {
        return refuse("end timestamp must not be before start time".to_owned());
    }
    // As Prometheus counts: one point more than intervals is within the limit.
    let intervals = usize::try_from((end - start).0 / step.0).unwrap_or(usize::MAX);
    if intervals > settings.steps_max {
        let limit = with_thousands(settings.steps_max);
        return refuse(format!(
            "exceeded maximum resolution of {limit} points per timeseries. Try decreasing the query resolution (?step=XX)"
        ));
    }
    Ok(())
}

/// A number with a comma between thousands.
fn with_thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn elements(rows: Vec<Row>, at: Timestamp) -> Vec<Element> {
    let element = |row: Row| row.values[0].map(|value| Element { labels: row.labels, sample: Sample { at, value } });
    rows.into_iter().filter_map(element).collect()
}

fn series(row: Row, grid: Grid) -> Series {
    let values = row.values.into_iter().zip(grid.times());
    let samples = values.filter_map(|(value, at)| value.map(|value| Sample { at, value })).collect();
    Series { labels: row.labels, samples }
}

fn answer(value: Value, evaluator: Evaluator<'_>) -> Answer {
    let (warnings, infos) = (evaluator.warnings.into_iter().collect(), evaluator.infos.into_iter().collect());
    Answer { value, warnings, infos }
}
