//! From the tree as it was written to the checked one: types, arguments, matchers and lengths of time.
//!
//! What is wrong is looked for in Prometheus's order, so that of several mistakes the same one is told.

use super::QueryError;
use super::calls::check_call;
use super::catalog;
use super::matrix::Grouping;
use super::syntax::{
    AggregateExpr, AtModifier, BinaryExpr, BinaryOperator, CallExpr, Cardinality, Expr, Length, ParseError,
    Selector as ParsedSelector, Subquery, When, quoted,
};
use super::tree::{Aggregate, Aggregator, At, Binary, Kind, Matching, Node, Placement, RangeSource, Selector};
use crate::model::{METRIC_NAME, Millis};
use crate::store::Matcher;

/// The longest that an offset or a range may be, in milliseconds, so that sums of a few of them cannot overflow.
const LENGTH_MAX: Millis = Millis(290 * 365 * Millis::DAY.0);

/// Why an expression is refused.
#[derive(Debug)]
pub(super) enum CheckError {
    /// At a place in the text.
    At(ParseError),
    /// Without one.
    Other(QueryError),
}

impl From<ParseError> for CheckError {
    fn from(error: ParseError) -> CheckError {
        CheckError::At(error)
    }
}

pub(super) type Checked<T> = Result<T, CheckError>;

pub(super) fn refuse<T>(at: usize, message: impl Into<String>) -> Checked<T> {
    Err(CheckError::At(ParseError::new(at, message)))
}

/// The type of an expression as it was written; of a call as its name has it, whatever is wrong with its arguments.
pub(super) fn kind_of(expr: &Expr) -> Kind {
    match expr {
        Expr::Number(_) => Kind::Scalar,
        Expr::Text { .. } => Kind::Text,
        Expr::Paren { inner, .. } | Expr::Unary { inner, .. } => kind_of(inner),
        Expr::Selector(_) | Expr::Aggregate(_) => Kind::Vector,
        Expr::Range(_) | Expr::Subquery(_) => Kind::Range,
        Expr::Binary(binary) => match (kind_of(&binary.left), kind_of(&binary.right)) {
            (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
            _ => Kind::Vector,
        },
        Expr::Call(call) if catalog::is_scalar(&call.name) => Kind::Scalar,
        Expr::Call(_) => Kind::Vector,
    }
}

/// Checks an expression and all below it.
pub(super) fn check(expr: &Expr) -> Checked<Node> {
    match expr {
        Expr::Number(number) => Ok(Node::Number(number.value)),
        Expr::Text { value, .. } => Ok(Node::Text(value.clone())),
        Expr::Paren { inner, .. } => check(inner),
        Expr::Selector(selector) => Ok(Node::Selector(check_selector(selector, EmptyMatchers::Refused)?)),
        Expr::Range(range) => {
            let selector = check_selector(&range.selector, EmptyMatchers::Refused)?;
            let range = positive(&range.range)?;
            Ok(Node::Range(RangeSource::Selector { selector, range }))
        }
        Expr::Subquery(subquery) => check_subquery(subquery),
        Expr::Unary { is_minus, inner, start } => {
            let node = check(inner)?;
            match node.kind() {
                Kind::Scalar | Kind::Vector if *is_minus => Ok(Node::Negate(Box::new(node))),
                Kind::Scalar | Kind::Vector => Ok(node),
                other => refuse(
                    *start,
                    format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {}",
                        quoted(other.name())
                    ),
                ),
            }
        }
        Expr::Binary(binary) => check_binary(binary),
        Expr::Aggregate(aggregate) => check_aggregate(aggregate),
        Expr::Call(call) => check_call(call),
    }
}

/// Checks an expression that must be of one type; `place` says where it stands.
pub(super) fn check_as(expr: &Expr, kind: Kind, place: &str) -> Checked<Node> {
    let node = check(expr)?;
    if node.kind() == kind {
        return Ok(node);
    }
    let (wanted, got) = (kind.name(), node.kind().name());
    refuse(expr.span().start, format!("expected type {wanted} in {place}, got {got}"))
}

/// Whether a selector may select everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmptyMatchers {
    Refused,
    Allowed,
}

pub(super) fn check_selector(selector: &ParsedSelector, empty: EmptyMatchers) -> Checked<Selector> {
    let at = selector.span.start;
    let mut matchers: Vec<Matcher> = Vec::with_capacity(selector.matchers.len() + 1);
    for parsed in &selector.matchers {
        if let (Some(name), METRIC_NAME) = (&selector.name, &*parsed.name) {
            let (name, other) = (quoted(name), quoted(&parsed.value));
            return refuse(at, format!("metric name must not be set twice: {name} or {other}"));
        }
        matchers.push(parsed.clone());
    }
    if let Some(name) = &selector.name {
        matchers.insert(0, Matcher::equal(METRIC_NAME, name));
    } else if empty == EmptyMatchers::Refused && matchers.iter().all(|m| m.matches("")) {
        return refuse(at, "vector selector must contain at least one non-empty matcher");
    }
    Ok(Selector { matchers, placement: placement(&selector.when)? })
}

fn check_subquery(subquery: &Subquery) -> Checked<Node> {
    let inner = check(&subquery.inner)?;
    if inner.kind() != Kind::Vector {
        let got = match inner.kind() {
            Kind::Scalar => "scalar",
            Kind::Text => "string",
            _ => "matrix",
        };
        let at = subquery.inner.span().start;
        return refuse(at, format!("subquery is only allowed on instant vector, got {got} instead"));
    }
    let placement = placement(&subquery.when)?;
    let step = subquery.step.as_ref().map(positive).transpose()?;
    let range = positive(&subquery.range)?;
    Ok(Node::Range(RangeSource::Subquery { inner: Box::new(inner), range, step, placement }))
}

fn check_binary(binary: &BinaryExpr) -> Checked<Node> {
    let BinaryExpr { operator, operator_at, yields_bool, matching, .. } = binary;
    let left = check(&binary.left)?;
    let right = check(&binary.right)?;
    let at = binary.left.span().start;
    let both = (left.kind(), right.kind());
    if *yields_bool && !operator.is_comparison() {
        return refuse(*operator_at, "bool modifier can only be used on comparison operators");
    }
    if operator.is_comparison() && !yields_bool && both == (Kind::Scalar, Kind::Scalar) {
        return refuse(*operator_at, "comparisons between scalars must use BOOL modifier");
    }
    if let Some(twice) = matching.labels.iter().find(|name| matching.is_on && matching.include.contains(name)) {
        let twice = quoted(twice);
        return refuse(*operator_at, format!("label {twice} must not occur in ON and GROUP clause at once"));
    }
    for (kind, side) in [(both.0, &binary.left), (both.1, &binary.right)] {
        if !matches!(kind, Kind::Scalar | Kind::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return refuse(side.span().start, message);
        }
    }
    if both != (Kind::Vector, Kind::Vector) {
        if !matching.labels.is_empty() {
            return refuse(at, "vector matching only allowed between instant vectors");
        }
        if operator.is_set() {
            let name = quoted(operator.as_str());
            return refuse(at, format!("set operator {name} not allowed in binary scalar expression"));
        }
    } else if operator.is_set() && matching.cardinality != Cardinality::OneToOne {
        return refuse(at, format!("no grouping allowed for {} operation", quoted(operator.as_str())));
    }
    let kind = if both == (Kind::Scalar, Kind::Scalar) { Kind::Scalar } else { Kind::Vector };
    let matching = Matching {
        grouping: Grouping::new(&matching.labels, matching.is_on),
        cardinality: matching.cardinality,
        include: matching.include.clone(),
    };
    Ok(Node::Binary(Box::new(Binary { operator: *operator, left, right, kind, yields_bool: *yields_bool, matching })))
}

fn check_aggregate(aggregate: &AggregateExpr) -> Checked<Node> {
    let Some(operator) = aggregator(&aggregate.name) else {
        return refuse(aggregate.span.start, format!("aggregation {} is not supported", quoted(&aggregate.name)));
    };
    let inner = check_as(&aggregate.inner, Kind::Vector, "aggregation expression")?;
    let kind = if operator == Aggregator::CountValues { Kind::Text } else { Kind::Scalar };
    let parameter = match &aggregate.parameter {
        Some(parameter) => Some(check_as(parameter, kind, "aggregation parameter")?),
        None => None,
    };
    let parameter_at = aggregate.parameter.as_ref().map_or(0, |parameter| parameter.without_parens().span().start);
    let grouping = Grouping::new(&aggregate.grouping, !aggregate.is_without);
    let is_step_invariant = is_step_invariant(&aggregate.inner);
    let aggregate = Aggregate { operator, inner, parameter, parameter_at, grouping, is_step_invariant };
    Ok(Node::Aggregate(Box::new(aggregate)))
}

fn aggregator(name: &str) -> Option<Aggregator> {
    Some(match name {
        "sum" => Aggregator::Sum,
        "avg" => Aggregator::Avg,
        "min" => Aggregator::Min,
        "max" => Aggregator::Max,
        "count" => Aggregator::Count,
        "group" => Aggregator::Group,
        "stddev" => Aggregator::Stddev,
        "stdvar" => Aggregator::Stdvar,
        "quantile" => Aggregator::Quantile,
        "topk" => Aggregator::Topk,
        "bottomk" => Aggregator::Bottomk,
        "limitk" => Aggregator::Limitk,
        "limit_ratio" => Aggregator::LimitRatio,
        "count_values" => Aggregator::CountValues,
        _ => return None,
    })
}

fn placement(when: &When) -> Checked<Placement> {
    let offset = when.offset.as_ref().map_or(Ok(Millis::ZERO), millis)?;
    let at = when.at.map(|at| match at {
        AtModifier::Start => At::Start,
        AtModifier::End => At::End,
        AtModifier::Moment(moment) => At::Moment(moment),
    });
    Ok(Placement { offset, at })
}

/// A length that must be more than nothing.
fn positive(length: &Length) -> Checked<Millis> {
    let millis = millis(length)?;
    if millis > Millis::ZERO || matches!(length, Length::Number(_)) {
        return Ok(millis);
    }
    let span = length.span();
    Err(calculated(format!("{}:{}: duration must be greater than 0", span.start, span.end)))
}

/// An error in a calculated length, which Prometheus tells by bytes.
fn calculated(message: String) -> CheckError {
    CheckError::Other(QueryError::Parse(message))
}

#[expect(clippy::cast_possible_truncation, reason = "what is out of range is refused")]
fn millis(length: &Length) -> Checked<Millis> {
    let seconds = match length {
        Length::Number(number) => (number.value * 1e9).round() / 1e9,
        operation => seconds(operation)?,
    };
    let millis = (seconds * 1000.0).trunc();
    if millis.abs() <= LENGTH_MAX.0 as f64 {
        // A nanosecond is lost now and then on the way through floats.
        let rounded = (seconds * 1e6).round() / 1000.0;
        return Ok(Millis(rounded.trunc() as i64));
    }
    if let Length::Number(number) = length {
        return refuse(number.span.start, "duration out of range");
    }
    let span = length.span();
    Err(calculated(format!("{}:{}: duration is out of range", span.start, span.end)))
}

/// The seconds that a calculation yields.
fn seconds(length: &Length) -> Checked<f64> {
    let (operator, left, right) = match length {
        Length::Number(number) => return Ok(number.value),
        Length::Operation { operator, left, right, .. } => (*operator, left, right),
    };
    let left = left.as_ref().map_or(Ok(0.0), |left| seconds(left))?;
    let right = seconds(right)?;
    let is_zero = super::numbers::same(right, 0.0);
    let span = length.span();
    match operator {
        BinaryOperator::Divide if is_zero => Err(calculated(format!("{}:{}: division by zero", span.start, span.end))),
        BinaryOperator::Modulo if is_zero => Err(calculated(format!("{}:{}: modulo by zero", span.start, span.end))),
        operator => Ok(super::binary::arithmetic(operator, left, right)),
    }
}

/// Whether an expression yields the same at each step of a range query.
pub(super) fn is_step_invariant(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::Text { .. } => true,
        Expr::Paren { inner, .. } | Expr::Unary { inner, .. } => is_step_invariant(inner),
        Expr::Selector(selector) => selector.when.at.is_some(),
        Expr::Range(range) => range.selector.when.at.is_some(),
        Expr::Subquery(subquery) => subquery.when.at.is_some(),
        Expr::Binary(binary) => is_step_invariant(&binary.left) && is_step_invariant(&binary.right),
        Expr::Aggregate(aggregate) => is_step_invariant(&aggregate.inner),
        Expr::Call(call) => is_call_step_invariant(call),
    }
}

/// Whether a call is; what depends on the time of evaluation is not.
pub(super) fn is_call_step_invariant(call: &CallExpr) -> bool {
    let depends_on_time = matches!(
        &*call.name,
        "days_in_month"
            | "day_of_month"
            | "day_of_week"
            | "day_of_year"
            | "hour"
            | "minute"
            | "month"
            | "year"
            | "predict_linear"
            | "time"
            | "timestamp"
    );
    !depends_on_time && call.arguments.iter().all(is_step_invariant)
}
