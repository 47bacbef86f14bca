//! PromQL as Prometheus 3.5 evaluates it: float samples and classic histograms.
//!
//! ```text
//! text ── syntax ──▶ Expr ── check, calls ──▶ tree ── eval ──▶ Answer ── json ──▶ Prometheus's `data`
//!         (as it was written)    (checked)     │ ├ binary, aggregate, choice
//!                              reach, matcher_sets └ windows, functions, histogram, info
//! ```
//!
//! An expression is evaluated node by node, each for all steps at once, series by series in one column of numbers
//! (`matrix`): a selector reads the store once a query. Ranges and the lookback are open on the left. Any text either fails to
//! parse or evaluates or fails; nothing panics. Errors, warnings and infos have Prometheus's words and places.
//!
//! Not here: native histograms, of which there are none in the store.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::model::{Labels, Millis, Sample, Timestamp};
use crate::store::{Matcher, Store};

mod aggregate;
mod binary;
mod calls;
mod catalog;
mod check;
mod choice;
mod eval;
mod functions;
mod histogram;
mod info;
pub mod json;
mod matrix;
mod notes;
mod numbers;
pub mod syntax;
mod syntax_json;
#[cfg(test)]
mod tests;
mod tree;
mod windows;

use check::CheckError;
use eval::{Evaluator, Grid};
use matrix::{Matrix, is_present};
use syntax::{Features, ParseError};
use tree::{Call, Kind, Node, OverTime, RangeSource};

/// How far back an instant selector looks, unless [`Settings::lookback`] says otherwise.
const LOOKBACK: Millis = Millis(5 * Millis::MINUTE.0);

/// A parsed and checked PromQL expression. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    text: Arc<str>,
    expr: Arc<syntax::Expr>,
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
    /// What is wrong and where, where the text is no PromQL, mixes types, uses what is not enabled ([`enable`]), or is beyond the
    /// limits on length, nesting, and the size and number of regular expressions.
    pub fn parse(text: &str) -> Result<Query, QueryError> {
        Query::parse_with(text, enabled())
    }

    fn parse_with(text: &str, features: Features) -> Result<Query, QueryError> {
        let placed = |ParseError { at, message }: ParseError| {
            let place = if text.is_empty() { "unknown position".to_owned() } else { syntax::position(text, at) };
            QueryError::Parse(format!("{place}: parse error: {message}"))
        };
        let expr = syntax::parse(text, features).map_err(placed)?;
        let node = check::check(&expr).map_err(|error| match error {
            CheckError::At(error) => placed(error),
            CheckError::Other(error) => error,
        })?;
        Ok(Query { text: Arc::from(text), expr: Arc::new(expr), node: Arc::new(node) })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expression as it was written.
    pub fn expr(&self) -> &syntax::Expr {
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
            Call::OverTime(OverTime { parameters, .. }) => parameters.iter().collect(),
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

/// What of the language is enabled beyond what is stable, for all of this process.
static ENABLED: AtomicU8 = AtomicU8::new(0);
const EXPERIMENTAL_FUNCTIONS: u8 = 1;
const DURATION_EXPRESSIONS: u8 = 2;

/// Enables a feature of the language by Prometheus's name for it, for all expressions that are parsed from now on:
/// `promql-experimental-functions` or `promql-duration-expr`. Says whether there is one of this name.
pub fn enable(feature: &str) -> bool {
    let flag = match feature {
        "promql-experimental-functions" => EXPERIMENTAL_FUNCTIONS,
        "promql-duration-expr" => DURATION_EXPRESSIONS,
        _ => return false,
    };
    ENABLED.fetch_or(flag, Ordering::Relaxed);
    true
}

fn enabled() -> Features {
    let flags = ENABLED.load(Ordering::Relaxed);
    Features {
        experimental_functions: flags & EXPERIMENTAL_FUNCTIONS != 0,
        duration_expressions: flags & DURATION_EXPRESSIONS != 0,
    }
}

/// Ends evaluations from outside: by a timeout, or because nobody waits for the answer any more.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicU8>);

impl Interrupt {
    /// The evaluation took too long.
    pub fn time_out(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// Nobody waits for it.
    pub fn cancel(&self) {
        self.0.store(2, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), QueryError> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(QueryError::TimedOut),
            _ => Err(QueryError::Canceled),
        }
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
    /// What ends an evaluation from outside.
    pub interrupt: Interrupt,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lookback: LOOKBACK,
            samples_max: 50_000_000,
            visits_max: 5_000_000_000,
            steps_max: 11_000,
            subquery_step: Millis::MINUTE,
            interrupt: Interrupt::default(),
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
    /// It took too long (`timeout`).
    #[error("query timed out in expression evaluation")]
    TimedOut,
    /// Nobody waits for the answer any more (`canceled`).
    #[error("query was canceled in expression evaluation")]
    Canceled,
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
    /// What it took.
    pub cost: Cost,
}

/// What an evaluation took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Samples and values that were looked at, those of overlapping windows again for each window.
    pub samples_looked_at: u64,
    /// The most samples and values that were held at a time.
    pub samples_held: usize,
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
/// A vector is in the order of evaluation: that in which the series were first seen, unless `sort` or `topk` made another.
///
/// # Errors
/// Where series cannot be matched, an argument is wrong, or a limit is reached.
pub fn instant(store: &Store, query: &Query, at: Timestamp, settings: &Settings) -> Result<Answer, QueryError> {
    check_time(at)?;
    let grid = Grid { start: at, step: Millis(1), count: 1, until: at };
    let mut evaluator = Evaluator::new(store, settings, (at, at));
    let value = match (&*query.node, query.node.kind()) {
        (Node::Text(text), _) => Value::String(at, text.clone()),
        (Node::Range(range), _) => Value::Matrix(evaluator.range_vector(range, grid)?),
        (node, Kind::Scalar) => {
            let values = evaluator.scalar(node, grid)?;
            Value::Scalar(Sample { at, value: values[0] })
        }
        (node, _) => Value::Vector(elements(evaluator.vector(node, grid)?, at)),
    };
    Ok(answer(value, evaluator, query))
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
    let mut evaluator = Evaluator::new(store, settings, (start, end));
    let matrix = match query.node.kind() {
        Kind::Vector => evaluator.vector(&query.node, grid)?,
        Kind::Scalar => Matrix::single(evaluator.scalar(&query.node, grid)?),
        kind => {
            let name = kind.name();
            return Err(QueryError::Parse(format!(
                "invalid expression type \"{name}\" for range query, must be Scalar or instant Vector"
            )));
        }
    };
    let mut all = all_series(matrix, grid);
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(answer(Value::Matrix(all), evaluator, query))
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

fn elements(matrix: Matrix, at: Timestamp) -> Vec<Element> {
    let elements = matrix.labels.into_iter().zip(matrix.values).filter(|(_, value)| is_present(*value));
    elements.map(|(labels, value)| Element { labels: labels.into_labels(), sample: Sample { at, value } }).collect()
}

fn all_series(matrix: Matrix, grid: Grid) -> Vec<Series> {
    let mut all = Vec::with_capacity(matrix.len());
    for (labels, row) in matrix.labels.into_iter().zip(matrix.values.chunks(matrix.steps.max(1))) {
        let mut samples = Vec::with_capacity(row.iter().filter(|value| is_present(**value)).count());
        let present = row.iter().zip(grid.times()).filter(|(value, _)| is_present(**value));
        samples.extend(present.map(|(value, at)| Sample { at, value: *value }));
        all.push(Series { labels: labels.into_labels(), samples });
    }
    all
}

fn answer(value: Value, evaluator: Evaluator<'_>, query: &Query) -> Answer {
    let cost = evaluator.cost();
    let (warnings, infos) = evaluator.notes.told(&query.text);
    Answer { value, warnings, infos, cost }
}
