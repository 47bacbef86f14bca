//! Expressions as text, as Prometheus writes them on one line.

use std::fmt;

use super::ast::{AggregateExpr, AtModifier, BinaryExpr, Cardinality, Expr, Length, Selector, Subquery, When};
use super::quoted;
use crate::model::METRIC_NAME;
use crate::query::numbers;
use crate::store::MatchOp;

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Number(number) => f.write_str(&seconds_or_number(number.value, number.is_duration)),
            Expr::Text { value, .. } => f.write_str(&quoted(value)),
            Expr::Paren { inner, .. } => write!(f, "({inner})"),
            Expr::Selector(selector) => write!(f, "{}{}", series(selector), when(&selector.when)),
            Expr::Range(range) => {
                write!(f, "{}[{}]{}", series(&range.selector), length(&range.range), when(&range.selector.when))
            }
            Expr::Subquery(subquery) => write!(f, "{}{}", subquery.inner, subquery_suffix(subquery)),
            Expr::Unary { is_minus, inner, .. } => write!(f, "{}{inner}", if *is_minus { "-" } else { "+" }),
            Expr::Binary(binary) => write!(f, "{} {} {}", binary.left, operator(binary), binary.right),
            Expr::Aggregate(aggregate) => {
                f.write_str(&aggregate_prefix(aggregate))?;
                match &aggregate.parameter {
                    Some(parameter) => write!(f, "({parameter}, {})", aggregate.inner),
                    None => write!(f, "({})", aggregate.inner),
                }
            }
            Expr::Call(call) => {
                let arguments: Vec<String> = call.arguments.iter().map(Expr::to_string).collect();
                write!(f, "{}({})", call.name, arguments.join(", "))
            }
        }
    }
}

/// `sum by (a, b) `, or just `sum`.
pub(super) fn aggregate_prefix(aggregate: &AggregateExpr) -> String {
    let AggregateExpr { name, grouping, is_without, .. } = aggregate;
    let labels: Vec<String> = grouping.iter().map(|label| label_name(label)).collect();
    match (is_without, labels.is_empty()) {
        (true, _) => format!("{name} without ({}) ", labels.join(", ")),
        (false, false) => format!("{name} by ({}) ", labels.join(", ")),
        (false, true) => name.clone(),
    }
}

fn label_name(name: &str) -> String {
    let is_plain = name.bytes().enumerate().all(|(index, byte)| {
        byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':') || (index > 0 && byte.is_ascii_digit())
    });
    if is_plain && !name.is_empty() { name.to_owned() } else { quoted(name) }
}

/// An operator with its modifiers.
pub(super) fn operator(binary: &BinaryExpr) -> String {
    let matching = &binary.matching;
    let mut text = binary.operator.as_str().to_owned();
    if binary.yields_bool {
        text.push_str(" bool");
    }
    if matching.is_on || !matching.labels.is_empty() {
        let tag = if matching.is_on { "on" } else { "ignoring" };
        text.push_str(&format!(" {tag} ({})", matching.labels.join(", ")));
        let side = match matching.cardinality {
            Cardinality::OneToOne => return text,
            Cardinality::ManyToOne => "left",
            Cardinality::OneToMany => "right",
        };
        text.push_str(&format!(" group_{side} ({})", matching.include.join(", ")));
    }
    text
}

/// A selector without offset and moment.
fn series(selector: &Selector) -> String {
    let mut parts: Vec<String> = Vec::new();
    for matcher in &selector.matchers {
        let names_the_same = matcher.name == METRIC_NAME && Some(&matcher.value) == selector.name.as_ref();
        if names_the_same && matches!(matcher.op, MatchOp::Equal) {
            continue;
        }
        let is_plain =
            matcher.name.bytes().enumerate().all(|(index, byte)| {
                byte.is_ascii_alphabetic() || byte == b'_' || (index > 0 && byte.is_ascii_digit())
            });
        let name = if is_plain { matcher.name.clone() } else { quoted(&matcher.name) };
        parts.push(format!("{name}{}{}", matcher.op.as_str(), quoted(&matcher.value)));
    }
    parts.sort();
    let name = selector.name.as_deref().unwrap_or("");
    if parts.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", parts.join(",")) }
}

fn when(when: &When) -> String {
    let mut text = String::new();
    match when.at {
        None => {}
        Some(AtModifier::Start) => text.push_str(" @ start()"),
        Some(AtModifier::End) => text.push_str(" @ end()"),
        Some(AtModifier::Moment(moment)) => text.push_str(&format!(" @ {:.3}", moment.as_secs_f64())),
    }
    match &when.offset {
        None => {}
        Some(Length::Number(number)) if number.value == 0.0 => {}
        Some(Length::Number(number)) => text.push_str(&format!(" offset {}", seconds_or_number(number.value, true))),
        Some(operation) => text.push_str(&format!(" offset {}", length(operation))),
    }
    text
}

/// `[1h:5m] offset 1d`
pub(super) fn subquery_suffix(subquery: &Subquery) -> String {
    let step = subquery.step.as_ref().map(length).unwrap_or_default();
    format!("[{}:{step}]{}", length(&subquery.range), when(&subquery.when))
}

fn length(of: &Length) -> String {
    match of {
        Length::Number(number) => seconds_or_number(number.value, true),
        Length::Operation { .. } => operation(of),
    }
}

/// A calculation; its numbers stand as they were written.
fn operation(of: &Length) -> String {
    match of {
        Length::Number(number) => seconds_or_number(number.value, number.is_duration),
        Length::Operation { operator, left, right, is_wrapped, .. } => {
            let (sign, right) = (operator.as_str(), operation(right));
            let text = match left {
                Some(left) => format!("{} {sign} {right}", operation(left)),
                None => format!("{sign}{right}"),
            };
            if *is_wrapped { format!("({text})") } else { text }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and lengths were checked")]
fn seconds_or_number(value: f64, is_duration: bool) -> String {
    if !is_duration {
        return numbers::format(value);
    }
    let millis = (value * 1000.0).round() as i64;
    if millis < 0 { format!("-{}", format_duration(-millis)) } else { format_duration(millis) }
}

/// Milliseconds as Prometheus writes a duration: `1h30m`; weeks and years where nothing is left over.
fn format_duration(millis: i64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut rest = millis;
    let units: [(&str, i64, bool); 7] = [
        ("y", 365 * 86_400_000, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1000, false),
        ("ms", 1, false),
    ];
    for (unit, length, is_only_whole) in units {
        if is_only_whole && rest % length != 0 {
            continue;
        }
        if rest / length > 0 {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    text
}
