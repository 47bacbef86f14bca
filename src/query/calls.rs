//! The functions of PromQL: a call's arguments, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{self, Last};
use super::check::{
    Checked, EmptyMatchers, check, check_as, check_selector, is_call_step_invariant, is_step_invariant, kind_of, refuse,
};
use super::numbers;
use super::syntax::{CallExpr, Expr, anchored, quoted};
use super::tree::{Call, Direction, Kind, LabelReplace, Node, OverTime, RangeFunction, RangeSource};
use crate::model::{Labels, METRIC_NAME};
use crate::store::{MatchOp, Matcher};

/// The checked arguments of a call, taken one by one.
struct Arguments<'a> {
    call: &'a CallExpr,
    nodes: Vec<Option<Node>>,
}

impl Arguments<'_> {
    fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Takes an argument. The types were checked, so that there is one.
    fn node(&mut self, index: usize) -> Node {
        self.nodes.get_mut(index).and_then(Option::take).unwrap_or(Node::Number(f64::NAN))
    }

    fn text(&mut self, index: usize) -> String {
        match self.node(index) {
            Node::Text(text) => text,
            _ => String::new(),
        }
    }

    fn range(&mut self, index: usize) -> Checked<RangeSource> {
        match self.node(index) {
            Node::Range(range) => Ok(range),
            _ => {
                refuse(self.call.span.start, format!("expected a range vector in call to {}", quoted(&self.call.name)))
            }
        }
    }

    /// Where an argument stands in notes: within parentheses, unless what is in them never changes.
    fn at(&self, index: usize) -> usize {
        let Some(argument) = self.call.arguments.get(index) else { return self.call.span.start };
        let inner = argument.without_parens();
        if matches!(inner, Expr::Subquery(_)) {
            return 0;
        }
        let is_kept = is_step_invariant(argument) && !is_call_step_invariant(self.call);
        if is_kept { argument.span().start } else { inner.span().start }
    }
}

/// Checks a call and all below it.
pub(super) fn check_call(call: &CallExpr) -> Checked<Node> {
    let mut args = Arguments { call, nodes: check_arguments(call)? };
    match &*call.name {
        "time" => return Ok(Node::Time),
        "pi" => return Ok(Node::Number(std::f64::consts::PI)),
        _ => {}
    }
    if let Some(function) = math_function(&call.name) {
        return Ok(Node::Call(Box::new(Call::Map(function, args.node(0)))));
    }
    if let Some(function) = calendar_function(&call.name) {
        let of = if args.len() == 0 { Node::Call(Box::new(Call::Vector(Node::Time))) } else { args.node(0) };
        return Ok(Node::Call(Box::new(Call::Map(function, of))));
    }
    if let Some(function) = range_function(&call.name) {
        return Ok(Node::Call(Box::new(range_call(function, &mut args)?)));
    }
    Ok(Node::Call(Box::new(other_call(&mut args)?)))
}

fn other_call(args: &mut Arguments<'_>) -> Checked<Call> {
    let call = args.call;
    Ok(match &*call.name {
        "clamp" => Call::Clamp { inner: args.node(0), min: Some(args.node(1)), max: Some(args.node(2)) },
        "clamp_min" => Call::Clamp { inner: args.node(0), min: Some(args.node(1)), max: None },
        "clamp_max" => Call::Clamp { inner: args.node(0), min: None, max: Some(args.node(1)) },
        "round" => {
            let to = if args.len() > 1 { args.node(1) } else { Node::Number(1.0) };
            Call::Round { inner: args.node(0), to }
        }
        "timestamp" => Call::Timestamp(args.node(0)),
        "scalar" => Call::Scalar(args.node(0)),
        "vector" => Call::Vector(args.node(0)),
        "absent" => Call::Absent { inner: args.node(0), labels: absent_labels(call) },
        "absent_over_time" => Call::AbsentOverTime { range: args.range(0)?, labels: absent_labels(call) },
        "sort" => Call::Sort { inner: args.node(0), direction: Direction::Ascending },
        "sort_desc" => Call::Sort { inner: args.node(0), direction: Direction::Descending },
        "sort_by_label" => sort_by_label(args, Direction::Ascending),
        "sort_by_label_desc" => sort_by_label(args, Direction::Descending),
        "label_replace" => {
            let pattern = args.text(4);
            let regex = anchored(&pattern).ok();
            let (target, template, source) = (args.text(1), args.text(2), args.text(3));
            Call::LabelReplace(LabelReplace { inner: args.node(0), target, template, source, pattern, regex })
        }
        "label_join" => {
            let sources = (3..args.len()).map(|index| args.text(index)).collect();
            Call::LabelJoin { inner: args.node(0), target: args.text(1), separator: args.text(2), sources }
        }
        "histogram_quantile" => {
            let (quantile_at, inner_at) = (args.at(0), args.at(1));
            Call::HistogramQuantile { quantile: args.node(0), quantile_at, inner: args.node(1), inner_at }
        }
        "histogram_fraction" => {
            let inner_at = args.at(2);
            Call::HistogramFraction { lower: args.node(0), upper: args.node(1), inner: args.node(2), inner_at }
        }
        "info" => Call::Info { inner: args.node(0), matchers: info_matchers(call)? },
        // histogram_avg, histogram_count, …: of native histograms alone.
        _ => Call::NothingOf(args.node(0)),
    })
}

/// Checks how many arguments there are, and their types.
fn check_arguments(call: &CallExpr) -> Checked<Vec<Option<Node>>> {
    let (name, at, actual) = (quoted(&call.name), call.span.start, call.arguments.len());
    let Some(function) = catalog::function(&call.name) else {
        return refuse(at, format!("unknown function with name {name}"));
    };
    let types = function.arguments.len();
    let few = match function.last {
        Last::Once if actual != types => Some(format!("expected {types} argument(s) in call to {name}, got {actual}")),
        Last::OnceOrNot | Last::AnyTimes if actual + 1 < types => {
            Some(format!("expected at least {} argument(s) in call to {name}, got {actual}", types - 1))
        }
        Last::OnceOrNot if actual > types => {
            Some(format!("expected at most {types} argument(s) in call to {name}, got {actual}"))
        }
        _ => None,
    };
    if let Some(message) = few {
        return refuse(at, message);
    }
    let place = format!("call to function {name}");
    if call.name == "info" && actual > 1 {
        return check_info(call, &place);
    }
    let mut nodes = Vec::with_capacity(actual);
    for (index, argument) in call.arguments.iter().enumerate() {
        let kind = function.arguments[index.min(types.saturating_sub(1))];
        nodes.push(Some(check_as(argument, kind, &place)?));
    }
    Ok(nodes)
}

/// The second argument of `info` is a selector without a name, which may select everything.
fn check_info(call: &CallExpr, place: &str) -> Checked<Vec<Option<Node>>> {
    let selector = &call.arguments[1];
    let (at, got) = (call.span.start, kind_of(selector));
    if got != Kind::Vector {
        return refuse(at, format!("expected type instant vector in {place}, got {}", got.name()));
    }
    let Expr::Selector(parsed) = selector else {
        return refuse(selector.span().start, "expected label selectors only");
    };
    if parsed.name.is_some() {
        return refuse(parsed.span.start, "expected label selectors only, got vector selector instead");
    }
    Ok(vec![Some(check_as(&call.arguments[0], Kind::Vector, place)?)])
}

fn info_matchers(call: &CallExpr) -> Checked<Vec<Matcher>> {
    match call.arguments.get(1) {
        Some(Expr::Selector(selector)) => Ok(check_selector(selector, EmptyMatchers::Allowed)?.matchers),
        _ => Ok(Vec::new()),
    }
}

fn math_function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sgn" => numbers::sign,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |degrees| degrees * std::f64::consts::PI / 180.0,
        "deg" => |radians| radians * 180.0 / std::f64::consts::PI,
        _ => return None,
    })
}

fn calendar_function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "minute" => numbers::minute,
        "hour" => numbers::hour,
        "day_of_week" => numbers::day_of_week,
        "day_of_month" => numbers::day_of_month,
        "day_of_year" => numbers::day_of_year,
        "days_in_month" => numbers::days_in_month,
        "month" => numbers::month,
        "year" => numbers::year,
        _ => return None,
    })
}

fn range_function(name: &str) -> Option<RangeFunction> {
    Some(match name {
        "rate" => RangeFunction::Rate,
        "increase" => RangeFunction::Increase,
        "delta" => RangeFunction::Delta,
        "irate" => RangeFunction::Irate,
        "idelta" => RangeFunction::Idelta,
        "deriv" => RangeFunction::Deriv,
        "predict_linear" => RangeFunction::PredictLinear,
        "double_exponential_smoothing" => RangeFunction::Smoothing,
        "changes" => RangeFunction::Changes,
        "resets" => RangeFunction::Resets,
        "avg_over_time" => RangeFunction::Avg,
        "sum_over_time" => RangeFunction::Sum,
        "min_over_time" => RangeFunction::Min,
        "max_over_time" => RangeFunction::Max,
        "count_over_time" => RangeFunction::Count,
        "first_over_time" => RangeFunction::First,
        "last_over_time" => RangeFunction::Last,
        "present_over_time" => RangeFunction::Present,
        "quantile_over_time" => RangeFunction::Quantile,
        "stddev_over_time" => RangeFunction::Stddev,
        "stdvar_over_time" => RangeFunction::Stdvar,
        "mad_over_time" => RangeFunction::Mad,
        "ts_of_first_over_time" => RangeFunction::TimeOfFirst,
        "ts_of_last_over_time" => RangeFunction::TimeOfLast,
        "ts_of_max_over_time" => RangeFunction::TimeOfMax,
        "ts_of_min_over_time" => RangeFunction::TimeOfMin,
        _ => return None,
    })
}

fn range_call(function: RangeFunction, args: &mut Arguments<'_>) -> Checked<Call> {
    let at = args.at(0);
    let (range, parameters) = match function {
        RangeFunction::Quantile => (args.range(1)?, vec![args.node(0)]),
        RangeFunction::PredictLinear => (args.range(0)?, vec![args.node(1)]),
        RangeFunction::Smoothing => (args.range(0)?, vec![args.node(1), args.node(2)]),
        _ => (args.range(0)?, Vec::new()),
    };
    Ok(Call::OverTime(OverTime { function, range, parameters, at }))
}

fn sort_by_label(args: &mut Arguments<'_>, direction: Direction) -> Call {
    let names = (1..args.len()).map(|index| args.text(index)).collect();
    Call::SortByLabel { inner: args.node(0), names, direction }
}

/// What is known of the labels of series that are absent: those that the selector asks for by equality, once.
fn absent_labels(call: &CallExpr) -> Labels {
    let Some(argument) = call.arguments.first() else { return Labels::default() };
    // As in Prometheus, parentheses around what never changes hide the selector.
    let is_hidden =
        matches!(argument, Expr::Paren { .. }) && is_step_invariant(argument) && !is_call_step_invariant(call);
    let node = if is_hidden { None } else { check(argument).ok() };
    let (Some(Node::Selector(selector)) | Some(Node::Range(RangeSource::Selector { selector, .. }))) = &node else {
        return Labels::default();
    };
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for Matcher { name, op, value } in selector.matchers.iter().filter(|m| m.name != METRIC_NAME) {
        if matches!(op, MatchOp::Equal) && seen.insert(name) {
            known.insert(name, value);
        } else {
            known.remove(name.as_str());
        }
    }
    Labels::new(known)
}
