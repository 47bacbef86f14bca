//! From text to the checked tree: limits on the text, the parser crate, then types, names and regular expressions.
//!
//! The parser crate recurses, compiles regular expressions without a limit of ours, and panics on a few numbers; so the text
//! is measured before it gets there, and a panic there becomes an error.

use std::time::{Duration, SystemTime};

use promql_parser::label::MatchOp as ParsedOp;
use promql_parser::parser::token::{self, TokenId};
use promql_parser::parser::{
    AggregateExpr, AtModifier, BinaryExpr, Expr, LabelModifier, Offset, SubqueryExpr, UnaryExpr,
    VectorMatchCardinality, VectorSelector,
};
use regex::{Regex, RegexBuilder};

use crate::model::{METRIC_NAME, Millis, Timestamp};
use crate::store::{MatchOp, Matcher};

use super::calls::lower_call;
use super::tree::{
    Aggregate, Aggregator, At, Binary, Cardinality, DEPTH_MAX, Grouping, Kind, Matching, Node, Operator, Placement,
    RangeSource, Selector,
};

/// The longest text of an expression.
const TEXT_BYTES_MAX: usize = 128 << 10;
/// The most operators, which nest without brackets.
const OPERATORS_MAX: usize = 2000;
/// The most regular expressions.
const REGEXES_MAX: usize = 100;
/// The most memory that one compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// What is said where the parser itself failed; [`measure`] is there so that it never is.
pub(super) const PARSER_PANICKED: &str = "the parser failed on this expression";

/// The parser's tree and the checked one.
pub(super) fn parse(text: &str) -> Result<(Expr, Node), String> {
    measure(text)?;
    let parsed = std::panic::catch_unwind(|| promql_parser::parser::parse(text));
    let expr = parsed.unwrap_or_else(|_| Err(PARSER_PANICKED.to_owned()))?;
    let node = lower(&expr, 0)?;
    Ok((expr, node))
}

/// Refuses what the parser might not survive: nesting, operators, regular expressions and durations beyond their limits.
fn measure(text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the expression has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len()));
    }
    let bytes = text.as_bytes();
    let (mut depth, mut operators, mut regexes) = (0_usize, 0_usize, 0_usize);
    // Numbers in square brackets and after `offset` are durations.
    let (mut square_depth, mut after_offset) = (0_usize, false);
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        if is_word(byte) {
            let end = word_end(bytes, index);
            let word = text[index..end].to_ascii_lowercase();
            if square_depth > 0 || after_offset {
                check_seconds(&word)?;
            }
            after_offset = word == "offset";
            operators += usize::from(matches!(&*word, "and" | "or" | "unless" | "atan2"));
            index = end;
            continue;
        }
        match byte {
            b'#' => index += bytes[index..].iter().take_while(|b| **b != b'\n').count(),
            b'"' | b'\'' | b'`' => {
                let end = string_end(bytes, index, byte);
                if is_regex_operator(bytes[..index].trim_ascii_end()) {
                    regexes += 1;
                    check_regex_literal(&text[index..end])?;
                }
                index = end;
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'!' | b'<' | b'>' => operators += 1,
            _ => {}
        }
        square_depth = match byte {
            b'[' => square_depth + 1,
            b']' => square_depth.saturating_sub(1),
            _ => square_depth,
        };
        after_offset &= byte.is_ascii_whitespace() || matches!(byte, b'+' | b'-' | b'#');
        if depth > DEPTH_MAX {
            return Err(format!("the expression is nested more than {DEPTH_MAX} deep"));
        }
        index += 1;
    }
    check_count("operators", operators, OPERATORS_MAX)?;
    check_count("regular expressions", regexes, REGEXES_MAX)
}

fn check_count(what: &str, count: usize, max: usize) -> Result<(), String> {
    if count <= max { Ok(()) } else { Err(format!("the expression has {count} {what}; at most {max} are allowed")) }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')
}

/// The index after a name, number or duration; the sign of an exponent belongs to the number.
fn word_end(bytes: &[u8], start: usize) -> usize {
    let is_number = bytes[start].is_ascii_digit() || bytes[start] == b'.';
    let mut end = start + 1;
    while end < bytes.len() {
        let in_exponent = is_number && matches!(bytes[end - 1], b'e' | b'E') && matches!(bytes[end], b'+' | b'-');
        if !is_word(bytes[end]) && !in_exponent {
            break;
        }
        end += 1;
    }
    end
}

/// Refuses a number of seconds that is no length of time.
fn check_seconds(word: &str) -> Result<(), String> {
    const SECONDS_MAX: f64 = 1e10;
    match word.parse::<f64>() {
        Ok(seconds) if !(0.0..=SECONDS_MAX).contains(&seconds) => {
            Err(format!("duration out of range: {word} s; at most {SECONDS_MAX:e} s"))
        }
        _ => Ok(()),
    }
}

/// The index after the quoted text that begins at `start`.
fn string_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut index = start + 1;
    while index < bytes.len() && bytes[index] != quote {
        index += if bytes[index] == b'\\' && quote != b'`' { 2 } else { 1 };
    }
    let mut end = (index + 1).min(bytes.len());
    // An escape at the very end may point into a character: strings are cut at character bounds only.
    while end < bytes.len() && bytes[end] & 0b1100_0000 == 0b1000_0000 {
        end += 1;
    }
    end
}

fn is_regex_operator(before: &[u8]) -> bool {
    before.ends_with(b"=~") || before.ends_with(b"!~")
}

fn check_regex_literal(literal: &str) -> Result<(), String> {
    // What is no valid string is the parser's to refuse.
    let Ok(pattern) = promql_parser::util::unquote_string(literal) else { return Ok(()) };
    match RegexBuilder::new(&pattern).size_limit(REGEX_BYTES_MAX).build() {
        Err(regex::Error::CompiledTooBig(_)) => Err(format!("the regular expression `{pattern}` is too big")),
        // The parser repairs what Go's syntax allows and ours does not, so it has the last word.
        _ => Ok(()),
    }
}

/// Checks an expression and all below it.
pub(super) fn lower(expr: &Expr, depth: usize) -> Result<Node, String> {
    if depth > DEPTH_MAX {
        return Err(format!("the expression is nested more than {DEPTH_MAX} deep"));
    }
    match expr {
        Expr::NumberLiteral(number) => Ok(Node::Number(number.val)),
        Expr::StringLiteral(text) => Ok(Node::Text(text.val.clone())),
        Expr::Paren(paren) => lower(&paren.expr, depth + 1),
        Expr::VectorSelector(selector) => Ok(Node::Selector(lower_selector(selector)?)),
        Expr::MatrixSelector(matrix) => {
            let selector = lower_selector(&matrix.vs)?;
            Ok(Node::Range(RangeSource::Selector { selector, range: positive(matrix.range)? }))
        }
        Expr::Subquery(subquery) => lower_subquery(subquery, depth),
        Expr::Unary(unary) => lower_unary(unary, depth),
        Expr::Binary(binary) => lower_binary(binary, depth),
        Expr::Aggregate(aggregate) => lower_aggregate(aggregate, depth),
        Expr::Call(call) => lower_call(call, depth),
        Expr::Extension(_) => Err("extensions of the language are not supported".to_owned()),
    }
}

/// Checks an expression that must be of one type; `place` says where it stands.
pub(super) fn lower_as(expr: &Expr, kind: Kind, place: &str, depth: usize) -> Result<Node, String> {
    let node = lower(expr, depth + 1)?;
    if node.kind() == kind {
        return Ok(node);
    }
    Err(format!("expected type {} in {place}, got {}", kind.name(), node.kind().name()))
}

/// A compiled regular expression that must match a whole text; a dot matches line breaks too.
pub(super) fn anchored_regex(pattern: &str) -> Result<Regex, regex::Error> {
    let pattern = &ascii_classes(pattern);
    // The pattern alone must be valid: a lone bracket must not close our group.
    let build = |text: &str| RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX * 2).build();
    build(pattern)?;
    build(&format!("^(?s:{pattern})$"))
}

/// A pattern with the classes `\d`, `\w`, `\s` and the bound `\b` as Go has them: of ASCII only. It also compiles much smaller.
fn ascii_classes(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        // A class in brackets may also stand within brackets.
        match characters.next() {
            Some('d') => text.push_str("[0-9]"),
            Some('D') => text.push_str("[^0-9]"),
            Some('w') => text.push_str("[0-9A-Za-z_]"),
            Some('W') => text.push_str("[^0-9A-Za-z_]"),
            Some('s') => text.push_str("[\\t\\n\\f\\r ]"),
            Some('S') => text.push_str("[^\\t\\n\\f\\r ]"),
            Some('b') => text.push_str("(?-u:\\b)"),
            Some(other) => text.extend(['\\', other]),
            None => text.push('\\'),
        }
    }
    text
}

fn lower_selector(selector: &VectorSelector) -> Result<Selector, String> {
    if !selector.matchers.or_matchers.is_empty() {
        return Err("`or` between label matchers is not supported; use a regular expression".to_owned());
    }
    let mut matchers = Vec::new();
    if let Some(name) = &selector.name {
        matchers.push(Matcher::equal(METRIC_NAME, name));
    }
    for parsed in &selector.matchers.matchers {
        let regex = |compiled: &Regex| {
            // The parser has escaped what Go's syntax allows and ours does not; its text is `^(?:…)$`.
            let text = compiled.as_str();
            let pattern = text.strip_prefix("^(?:").and_then(|t| t.strip_suffix(")$")).unwrap_or(text);
            anchored_regex(pattern).map_err(|_| format!("invalid regular expression `{}`", parsed.value))
        };
        let op = match &parsed.op {
            ParsedOp::Equal => MatchOp::Equal,
            ParsedOp::NotEqual => MatchOp::NotEqual,
            ParsedOp::Re(compiled) => MatchOp::Matches(regex(compiled)?),
            ParsedOp::NotRe(compiled) => MatchOp::NotMatches(regex(compiled)?),
        };
        matchers.push(Matcher { name: parsed.name.clone(), op, value: parsed.value.clone() });
    }
    if matchers.iter().all(|m| m.matches("")) {
        return Err("vector selector must contain at least one non-empty matcher".to_owned());
    }
    Ok(Selector { matchers, placement: placement(selector.offset.as_ref(), selector.at.as_ref())? })
}

fn lower_subquery(subquery: &SubqueryExpr, depth: usize) -> Result<Node, String> {
    let inner = lower_as(&subquery.expr, Kind::Vector, "subquery", depth)?;
    Ok(Node::Range(RangeSource::Subquery {
        inner: Box::new(inner),
        range: positive(subquery.range)?,
        step: subquery.step.map(positive).transpose()?,
        placement: placement(subquery.offset.as_ref(), subquery.at.as_ref())?,
    }))
}

fn lower_unary(unary: &UnaryExpr, depth: usize) -> Result<Node, String> {
    let inner = lower(&unary.expr, depth + 1)?;
    match inner.kind() {
        Kind::Scalar | Kind::Vector => Ok(Node::Negate(Box::new(inner))),
        other => Err(format!(
            "unary expression only allowed on expressions of type scalar or instant vector, got {}",
            other.name()
        )),
    }
}

fn lower_binary(binary: &BinaryExpr, depth: usize) -> Result<Node, String> {
    let operator = operator(binary.op.id()).ok_or_else(|| format!("unknown operator `{}`", binary.op))?;
    let left = lower(&binary.lhs, depth + 1)?;
    let right = lower(&binary.rhs, depth + 1)?;
    let yields_bool = binary.return_bool();
    let kind = match (left.kind(), right.kind()) {
        (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
        (Kind::Scalar | Kind::Vector, Kind::Scalar | Kind::Vector) => Kind::Vector,
        _ => return Err("binary expression must contain only scalar and instant vector types".to_owned()),
    };
    if yields_bool && !operator.is_comparison() {
        return Err("bool modifier can only be used on comparison operators".to_owned());
    }
    if kind == Kind::Scalar && operator.is_comparison() && !yields_bool {
        return Err("comparisons between scalars must use BOOL modifier".to_owned());
    }
    if operator.is_set() && (left.kind(), right.kind()) != (Kind::Vector, Kind::Vector) {
        return Err(format!("set operator {} not allowed in binary scalar expression", binary.op));
    }
    Ok(Node::Binary(Box::new(Binary { operator, left, right, kind, yields_bool, matching: matching(binary)? })))
}

fn matching(binary: &BinaryExpr) -> Result<Matching, String> {
    let mut matching =
        Matching { grouping: Grouping::AllBut(Vec::new()), cardinality: Cardinality::OneToOne, include: Vec::new() };
    let Some(modifier) = &binary.modifier else { return Ok(matching) };
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err("fill modifiers are not supported; use `or` to fill in values".to_owned());
    }
    if let Some(labels) = &modifier.matching {
        matching.grouping = grouping(labels);
    }
    let (cardinality, include) = match &modifier.card {
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => return Ok(matching),
        VectorMatchCardinality::ManyToOne(labels) => (Cardinality::ManyToOne, labels),
        VectorMatchCardinality::OneToMany(labels) => (Cardinality::OneToMany, labels),
    };
    if let Grouping::These(on) = &matching.grouping
        && let Some(twice) = include.labels.iter().find(|name| on.contains(name))
    {
        return Err(format!("label \"{twice}\" must not occur in ON and GROUP clause at once"));
    }
    matching.cardinality = cardinality;
    matching.include.clone_from(&include.labels);
    Ok(matching)
}

fn grouping(modifier: &LabelModifier) -> Grouping {
    match modifier {
        LabelModifier::Include(labels) => Grouping::These(labels.labels.clone()),
        LabelModifier::Exclude(labels) => Grouping::AllBut(labels.labels.clone()),
    }
}

fn operator(id: TokenId) -> Option<Operator> {
    Some(match id {
        token::T_ADD => Operator::Add,
        token::T_SUB => Operator::Subtract,
        token::T_MUL => Operator::Multiply,
        token::T_DIV => Operator::Divide,
        token::T_MOD => Operator::Modulo,
        token::T_POW => Operator::Power,
        token::T_ATAN2 => Operator::Atan2,
        token::T_EQLC => Operator::Equal,
        token::T_NEQ => Operator::NotEqual,
        token::T_GTR => Operator::Greater,
        token::T_GTE => Operator::GreaterOrEqual,
        token::T_LSS => Operator::Less,
        token::T_LTE => Operator::LessOrEqual,
        token::T_LAND => Operator::And,
        token::T_LOR => Operator::Or,
        token::T_LUNLESS => Operator::Unless,
        _ => return None,
    })
}

fn lower_aggregate(aggregate: &AggregateExpr, depth: usize) -> Result<Node, String> {
    let name = aggregate.op.to_string();
    let operator = aggregator(aggregate.op.id()).ok_or_else(|| format!("aggregation `{name}` is not supported"))?;
    let place = "aggregation expression";
    let parameter_kind = match operator {
        Aggregator::Topk | Aggregator::Bottomk | Aggregator::Limitk | Aggregator::Quantile => Some(Kind::Scalar),
        Aggregator::CountValues => Some(Kind::Text),
        _ => None,
    };
    let parameter = match (parameter_kind, &aggregate.param) {
        (Some(kind), Some(expr)) => Some(lower_as(expr, kind, place, depth)?),
        (None, None) => None,
        _ => return Err(format!("wrong number of arguments for aggregation `{name}`")),
    };
    if let Some(Node::Text(label)) = &parameter
        && label.is_empty()
    {
        return Err("invalid label name \"\" in count_values()".to_owned());
    }
    let grouping = aggregate.modifier.as_ref().map_or(Grouping::These(Vec::new()), grouping);
    let inner = lower_as(&aggregate.expr, Kind::Vector, place, depth)?;
    Ok(Node::Aggregate(Box::new(Aggregate { operator, inner, parameter, grouping })))
}

fn aggregator(id: TokenId) -> Option<Aggregator> {
    Some(match id {
        token::T_SUM => Aggregator::Sum,
        token::T_AVG => Aggregator::Avg,
        token::T_MIN => Aggregator::Min,
        token::T_MAX => Aggregator::Max,
        token::T_COUNT => Aggregator::Count,
        token::T_GROUP => Aggregator::Group,
        token::T_STDDEV => Aggregator::Stddev,
        token::T_STDVAR => Aggregator::Stdvar,
        token::T_QUANTILE => Aggregator::Quantile,
        token::T_TOPK => Aggregator::Topk,
        token::T_BOTTOMK => Aggregator::Bottomk,
        token::T_LIMITK => Aggregator::Limitk,
        token::T_COUNT_VALUES => Aggregator::CountValues,
        _ => return None,
    })
}

fn placement(offset: Option<&Offset>, at: Option<&AtModifier>) -> Result<Placement, String> {
    let offset = match offset {
        None => Millis::ZERO,
        Some(Offset::Pos(length)) => millis(*length)?,
        Some(Offset::Neg(length)) => millis(*length)? * -1,
    };
    let at = match at {
        None => None,
        Some(AtModifier::Start) => Some(At::Start),
        Some(AtModifier::End) => Some(At::End),
        Some(AtModifier::At(moment)) => Some(At::Moment(timestamp(*moment)?)),
    };
    Ok(Placement { offset, at })
}

fn timestamp(moment: SystemTime) -> Result<Timestamp, String> {
    match moment.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Ok(Timestamp(millis(after)?.0)),
        Err(before) => Ok(Timestamp(-millis(before.duration())?.0)),
    }
}

fn positive(length: Duration) -> Result<Millis, String> {
    let millis = millis(length)?;
    if millis > Millis::ZERO { Ok(millis) } else { Err("duration must be greater than 0".to_owned()) }
}

/// A length in milliseconds; at most 290 years, so that sums of a few of them cannot overflow.
fn millis(length: Duration) -> Result<Millis, String> {
    const LENGTH_MAX: Millis = Millis(290 * 365 * Millis::DAY.0);
    match i64::try_from(length.as_millis()) {
        Ok(millis) if millis <= LENGTH_MAX.0 => Ok(Millis(millis)),
        _ => Err(format!("duration out of range: {length:?}; at most {LENGTH_MAX}")),
    }
}
