//! The functions of PromQL: their names, arguments and types.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::parser::{Call as ParsedCall, Expr};

use crate::model::{Labels, METRIC_NAME};
use crate::store::{MatchOp, Matcher};

use super::lower::{anchored_regex, lower, lower_as};
use super::numbers;
use super::tree::{Bound, Call, Direction, Kind, Node, RangeFunction, RangeSource};

/// The arguments of a call, taken one by one.
struct Arguments<'a> {
    call: &'a ParsedCall,
    depth: usize,
}

impl Arguments<'_> {
    fn len(&self) -> usize {
        self.call.args.args.len()
    }

    fn get(&self, index: usize, kind: Kind) -> Result<Node, String> {
        let name = self.call.func.name;
        let Some(expr) = self.call.args.args.get(index) else {
            return Err(format!(
                "expected at least {} argument(s) in call to \"{name}\", got {}",
                index + 1,
                self.len()
            ));
        };
        lower_as(expr, kind, &format!("call to function \"{name}\""), self.depth)
    }

    fn scalar(&self, index: usize) -> Result<Node, String> {
        self.get(index, Kind::Scalar)
    }

    fn vector(&self, index: usize) -> Result<Node, String> {
        self.get(index, Kind::Vector)
    }

    fn text(&self, index: usize) -> Result<String, String> {
        match self.get(index, Kind::Text)? {
            Node::Text(text) => Ok(text),
            _ => Err(format!("expected a string literal in call to \"{}\"", self.call.func.name)),
        }
    }

    fn range(&self, index: usize) -> Result<RangeSource, String> {
        match self.get(index, Kind::Range)? {
            Node::Range(range) => Ok(range),
            _ => Err(format!("expected a range vector in call to \"{}\"", self.call.func.name)),
        }
    }
}

/// Checks a call and all below it.
pub(super) fn lower_call(parsed: &ParsedCall, depth: usize) -> Result<Node, String> {
    let args = Arguments { call: parsed, depth };
    check_count(parsed)?;
    match parsed.func.name {
        "time" => return Ok(Node::Time),
        "pi" => return Ok(Node::Number(std::f64::consts::PI)),
        "start" => return Ok(Node::Bound(Bound::Start)),
        "end" => return Ok(Node::Bound(Bound::End)),
        "step" => return Ok(Node::Bound(Bound::Step)),
        "range" => return Ok(Node::Bound(Bound::Span)),
        _ => {}
    }
    if let Some(function) = math_function(parsed.func.name) {
        return Ok(Node::Call(Box::new(Call::Map(function, args.vector(0)?))));
    }
    if let Some(function) = calendar_function(parsed.func.name) {
        let of = if args.len() == 0 { Node::Call(Box::new(Call::Vector(Node::Time))) } else { args.vector(0)? };
        return Ok(Node::Call(Box::new(Call::Map(function, of))));
    }
    if let Some(function) = range_function(parsed.func.name) {
        return Ok(Node::Call(Box::new(lower_range_call(function, &args)?)));
    }
    let call = match parsed.func.name {
        "clamp" => Call::Clamp { inner: args.vector(0)?, min: Some(args.scalar(1)?), max: Some(args.scalar(2)?) },
        "clamp_min" => Call::Clamp { inner: args.vector(0)?, min: Some(args.scalar(1)?), max: None },
        "clamp_max" => Call::Clamp { inner: args.vector(0)?, min: None, max: Some(args.scalar(1)?) },
        "round" => {
            let to = if args.len() > 1 { args.scalar(1)? } else { Node::Number(1.0) };
            Call::Round { inner: args.vector(0)?, to }
        }
        "timestamp" => Call::Timestamp(args.vector(0)?),
        "scalar" => Call::Scalar(args.vector(0)?),
        "vector" => Call::Vector(args.scalar(0)?),
        "absent" => Call::Absent { inner: args.vector(0)?, labels: absent_labels(parsed, depth)? },
        "absent_over_time" => Call::AbsentOverTime { range: args.range(0)?, labels: absent_labels(parsed, depth)? },
        "sort" => Call::Sort { inner: args.vector(0)?, direction: Direction::Ascending },
        "sort_desc" => Call::Sort { inner: args.vector(0)?, direction: Direction::Descending },
        "sort_by_label" => lower_sort_by_label(&args, Direction::Ascending)?,
        "sort_by_label_desc" => lower_sort_by_label(&args, Direction::Descending)?,
        "label_replace" => lower_label_replace(&args)?,
        "label_join" => lower_label_join(&args)?,
        "histogram_quantile" => Call::HistogramQuantile { quantile: args.scalar(0)?, inner: args.vector(1)? },
        "histogram_fraction" => {
            Call::HistogramFraction { lower: args.scalar(0)?, upper: args.scalar(1)?, inner: args.vector(2)? }
        }
        name => return Err(format!("function \"{name}\" is not supported")),
    };
    Ok(Node::Call(Box::new(call)))
}

fn check_count(parsed: &ParsedCall) -> Result<(), String> {
    let (name, types, actual) = (parsed.func.name, parsed.func.arg_types.len(), parsed.args.args.len());
    let (min, max) = match parsed.func.variadic {
        0 => (types, types),
        // `variadic` counts the optional arguments, which begin with the last type.
        optional if optional > 0 => (types - 1, types - 1 + usize::try_from(optional).unwrap_or(0)),
        _ => (types - 1, usize::MAX),
    };
    if actual < min {
        return Err(format!("expected at least {min} argument(s) in call to \"{name}\", got {actual}"));
    }
    if actual > max {
        return Err(format!("expected at most {max} argument(s) in call to \"{name}\", got {actual}"));
    }
    Ok(())
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

fn lower_range_call(function: RangeFunction, args: &Arguments<'_>) -> Result<Call, String> {
    let (range, parameters) = match function {
        RangeFunction::Quantile => (args.range(1)?, vec![args.scalar(0)?]),
        RangeFunction::PredictLinear => (args.range(0)?, vec![args.scalar(1)?]),
        RangeFunction::Smoothing => (args.range(0)?, vec![args.scalar(1)?, args.scalar(2)?]),
        _ => (args.range(0)?, Vec::new()),
    };
    Ok(Call::OverTime { function, range, parameters })
}

fn lower_sort_by_label(args: &Arguments<'_>, direction: Direction) -> Result<Call, String> {
    let names = (1..args.len()).map(|index| args.text(index)).collect::<Result<Vec<_>, _>>()?;
    Ok(Call::SortByLabel { inner: args.vector(0)?, names, direction })
}

fn lower_label_replace(args: &Arguments<'_>) -> Result<Call, String> {
    let (target, pattern) = (args.text(1)?, args.text(4)?);
    if target.is_empty() {
        return Err("invalid destination label name in label_replace(): \"\"".to_owned());
    }
    let regex =
        anchored_regex(&pattern).map_err(|_| format!("invalid regular expression in label_replace(): {pattern}"))?;
    Ok(Call::LabelReplace { inner: args.vector(0)?, target, template: args.text(2)?, source: args.text(3)?, regex })
}

fn lower_label_join(args: &Arguments<'_>) -> Result<Call, String> {
    let target = args.text(1)?;
    if target.is_empty() {
        return Err("invalid destination label name in label_join(): \"\"".to_owned());
    }
    let sources = (3..args.len()).map(|index| args.text(index)).collect::<Result<Vec<_>, _>>()?;
    if sources.iter().any(String::is_empty) {
        return Err("invalid source label name in label_join(): \"\"".to_owned());
    }
    Ok(Call::LabelJoin { inner: args.vector(0)?, target, separator: args.text(2)?, sources })
}

/// What is known of the labels of series that are absent: those that the selector asks for by equality, once.
fn absent_labels(parsed: &ParsedCall, depth: usize) -> Result<Labels, String> {
    let node = match parsed.args.args.first().map(|argument| &**argument) {
        Some(expr @ (Expr::VectorSelector(_) | Expr::MatrixSelector(_) | Expr::Paren(_))) => lower(expr, depth + 1)?,
        _ => return Ok(Labels::default()),
    };
    let (Node::Selector(selector) | Node::Range(RangeSource::Selector { selector, .. })) = &node else {
        return Ok(Labels::default());
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
    Ok(Labels::new(known))
}
