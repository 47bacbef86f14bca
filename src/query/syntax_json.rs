//! The tree of an expression as JSON, in the shape of Prometheus's `/api/v1/parse_query`.

use serde_json::{Value, json};

use super::catalog::{self, Last};
use super::check::kind_of;
use super::numbers;
use super::syntax::{AtModifier, BinaryExpr, Cardinality, Expr, Length, Selector, When};
use super::tree::Kind;
use crate::model::METRIC_NAME;
use crate::store::Matcher;

impl Expr {
    /// Itself and what is below it, as Prometheus's `/api/v1/parse_query` gives it.
    pub fn to_json(&self) -> Value {
        match self {
            Expr::Number(number) => json!({"type": "numberLiteral", "val": numbers::format(number.value)}),
            Expr::Text { value, .. } => json!({"type": "stringLiteral", "val": value}),
            Expr::Paren { inner, .. } => json!({"expr": inner.to_json(), "type": "parenExpr"}),
            Expr::Selector(selector) => select(selector, None),
            Expr::Range(range) => select(&range.selector, Some(&range.range)),
            Expr::Subquery(subquery) => {
                let (fixed, moment) = moment(&subquery.when);
                json!({
                    "expr": subquery.inner.to_json(), "offset": offset(&subquery.when), "range": millis(&subquery.range),
                    "startOrEnd": fixed, "step": subquery.step.as_ref().map_or(0, millis), "timestamp": moment,
                    "type": "subquery",
                })
            }
            Expr::Unary { is_minus, inner, .. } => {
                json!({"expr": inner.to_json(), "op": if *is_minus { "-" } else { "+" }, "type": "unaryExpr"})
            }
            Expr::Binary(binary) => json!({
                "bool": binary.yields_bool, "lhs": binary.left.to_json(), "matching": matching(binary),
                "op": binary.operator.as_str(), "rhs": binary.right.to_json(), "type": "binaryExpr",
            }),
            Expr::Aggregate(of) => json!({
                "expr": of.inner.to_json(), "grouping": of.grouping, "op": of.name,
                "param": of.parameter.as_ref().map(Expr::to_json), "type": "aggregation", "without": of.is_without,
            }),
            Expr::Call(call) => {
                let arguments: Vec<Value> = call.arguments.iter().map(Expr::to_json).collect();
                json!({"args": arguments, "func": function(&call.name), "type": "call"})
            }
        }
    }
}

/// How elements of two vectors find each other; nothing where one side is a number.
fn matching(binary: &BinaryExpr) -> Value {
    if [&binary.left, &binary.right].into_iter().any(|side| kind_of(side) != Kind::Vector) {
        return Value::Null;
    }
    let matching = &binary.matching;
    let cardinality = match matching.cardinality {
        _ if binary.operator.is_set() => "many-to-many",
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
    };
    json!({"card": cardinality, "include": matching.include, "labels": matching.labels, "on": matching.is_on})
}

fn function(name: &str) -> Value {
    let function = catalog::function(name).expect("an expression that was checked calls functions that there are");
    let types: Vec<&str> = function.arguments.iter().map(|kind| type_name(*kind)).collect();
    let variadic = match function.last {
        Last::Once => 0,
        Last::OnceOrNot => 1,
        Last::AnyTimes => -1,
    };
    let returned = if catalog::is_scalar(name) { Kind::Scalar } else { Kind::Vector };
    json!({"argTypes": types, "name": name, "returnType": type_name(returned), "variadic": variadic})
}

fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Scalar => "scalar",
        Kind::Text => "string",
        Kind::Vector => "vector",
        Kind::Range => "matrix",
    }
}

fn select(selector: &Selector, range: Option<&Length>) -> Value {
    let name = selector.name.as_deref().unwrap_or("");
    let named = (!name.is_empty()).then(|| Matcher::equal(METRIC_NAME, name));
    let matchers: Vec<Value> = selector.matchers.iter().chain(&named).map(matcher).collect();
    let (fixed, moment) = moment(&selector.when);
    let mut json = json!({"matchers": matchers, "name": name, "offset": offset(&selector.when)});
    if let Some(range) = range {
        json["range"] = json!(millis(range));
    }
    json["startOrEnd"] = fixed;
    json["timestamp"] = moment;
    json["type"] = json!(if range.is_some() { "matrixSelector" } else { "vectorSelector" });
    json
}

fn matcher(matcher: &Matcher) -> Value {
    json!({"name": matcher.name, "type": matcher.op.as_str(), "value": matcher.value})
}

fn offset(when: &When) -> i64 {
    when.offset.as_ref().map_or(0, millis)
}

/// Whether it looks at the start or the end of the query, and the moment at which it looks.
fn moment(when: &When) -> (Value, Value) {
    match when.at {
        None => (Value::Null, Value::Null),
        Some(AtModifier::Start) => (json!("start"), Value::Null),
        Some(AtModifier::End) => (json!("end"), Value::Null),
        Some(AtModifier::Moment(at)) => (Value::Null, json!(at)),
    }
}

/// A length in milliseconds; 0 where it is calculated, as Prometheus has it.
#[expect(clippy::cast_possible_truncation, reason = "saturates, and lengths were checked")]
fn millis(length: &Length) -> i64 {
    match length {
        Length::Number(number) => (number.value * 1000.0).round() as i64,
        Length::Operation { .. } => 0,
    }
}
