//! Tokens to tree: operators by precedence, everything else by descent.
//!
//! The first thing that is wrong is what is told, as in Prometheus: some mistakes are noticed and parsing goes on until the
//! text ends or cannot be read any further.
//!
//! **Invariant:** a tree is at most [`DEPTH_MAX`] deep, and so is the recursion here, in evaluation, and when it is dropped.

mod lengths;

use std::collections::VecDeque;

use super::ast::{
    AggregateExpr, BinaryExpr, BinaryOperator, CallExpr, Cardinality, Expr, Number, Selector, Span, VectorMatching,
    When,
};
use super::lexer::{Keyword, Kind, LexError, Lexer, Token};
use super::{ParseError, numerals, pattern, quote};
use crate::model::METRIC_NAME;
use crate::query::catalog;
use crate::store::{MatchOp, Matcher};

/// The deepest nesting of a tree: everything that recurses over it does so within the stack of an ordinary thread.
pub(in crate::query) const DEPTH_MAX: usize = 256;
/// The longest text of an expression, in bytes.
const TEXT_BYTES_MAX: usize = 128 << 10;
/// The most regular expressions in one expression.
const REGEXES_MAX: usize = 100;

/// What of the language is allowed beyond what is stable.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::query) struct Features {
    /// Functions and aggregations that Prometheus calls experimental.
    pub(in crate::query) experimental_functions: bool,
    /// Arithmetic in ranges and offsets.
    pub(in crate::query) duration_expressions: bool,
}

/// Parses a whole text.
pub(in crate::query) fn parse(text: &str, features: Features) -> Result<Expr, ParseError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the expression has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(ParseError::new(0, message));
    }
    let mut parser = Parser {
        lexer: Lexer::new(text),
        token: Token { kind: Kind::End, start: 0, text: "" },
        last_end: 0,
        closed: VecDeque::new(),
        text,
        depth: 0,
        aggregations: 0,
        regexes: 0,
        features,
        first_error: None,
    };
    let parsed = parser.whole();
    match (parser.first_error, parsed) {
        (Some(first), _) => Err(first),
        (None, parsed) => parsed,
    }
}

type Parsed<T = Expr> = Result<T, ParseError>;

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token that is looked at.
    token: Token<'a>,
    /// Where the token before it ended.
    last_end: usize,
    /// Where the closing parentheses ended that no expression has taken for its own end. As in Prometheus, those of lists of
    /// labels are among them, and an expression takes the first: it only matters for where some errors are said to be.
    closed: VecDeque<usize>,
    text: &'a str,
    /// How deep the expression is nested here.
    depth: usize,
    /// How many aggregations are open here.
    aggregations: usize,
    regexes: usize,
    features: Features,
    first_error: Option<ParseError>,
}

impl<'a> Parser<'a> {
    fn whole(&mut self) -> Parsed {
        self.advance()?;
        if self.token.kind == Kind::End {
            return Err(ParseError::new(0, "no expression found in input"));
        }
        let expr = self.expr(0)?.0;
        if self.token.kind != Kind::End {
            return Err(self.unexpected("", ""));
        }
        Ok(expr)
    }

    /// Takes the token that is looked at.
    fn advance(&mut self) -> Parsed<Token<'a>> {
        let taken = self.token;
        self.last_end = taken.end();
        self.token = self.lexer.next().map_err(|LexError { at, message }| ParseError::new(at, message))?;
        if self.token.kind == Kind::RightParen {
            self.closed.push_back(self.token.end());
        }
        Ok(taken)
    }

    /// Where an expression ends with a parenthesis.
    fn take_closed(&mut self) -> usize {
        self.closed.pop_front().unwrap_or(self.last_end)
    }

    /// The first byte that is no space, from a place on.
    fn skip_spaces(&self, at: usize) -> usize {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        at + self.text.as_bytes()[at..].iter().take_while(|byte| is_space(byte)).count()
    }

    /// Notes a mistake and goes on.
    fn complain(&mut self, at: usize, message: impl Into<String>) {
        if self.first_error.is_none() {
            self.first_error = Some(ParseError::new(at, message));
        }
    }

    fn unexpected(&self, place: &str, expected: &str) -> ParseError {
        let mut message = format!("unexpected {}", self.token.describe());
        let place = if place.is_empty() && self.aggregations > 0 { "aggregation" } else { place };
        if !place.is_empty() {
            message.push_str(&format!(" in {place}"));
        }
        if !expected.is_empty() {
            message.push_str(&format!(", expected {expected}"));
        }
        ParseError::new(self.token.start, message)
    }

    fn expect(&mut self, kind: Kind) -> Parsed<Token<'a>> {
        if self.token.kind == kind { self.advance() } else { Err(self.unexpected("", "")) }
    }

    fn check_depth(&self, depth: usize) -> Parsed<usize> {
        if depth <= DEPTH_MAX {
            return Ok(depth);
        }
        Err(ParseError::new(self.token.start, format!("the expression is nested more than {DEPTH_MAX} deep")))
    }

    /// An expression of operators that bind at least as tightly as `precedence`, and how deep it is.
    fn expr(&mut self, precedence: u8) -> Parsed<(Expr, usize)> {
        self.depth = self.check_depth(self.depth + 1)?;
        let (mut left, mut depth) = self.operand()?;
        while let Kind::Operator(operator) = self.token.kind {
            let own = precedence_of(operator);
            if own < precedence {
                break;
            }
            let operator_at = self.skip_spaces(left.span().end);
            self.advance()?;
            let (yields_bool, matching) = self.modifiers()?;
            // `^` groups to the right, all others to the left.
            let (right, right_depth) = self.expr(if operator == BinaryOperator::Power { own } else { own + 1 })?;
            depth = self.check_depth(depth.max(right_depth) + 1)?;
            left = Expr::Binary(Box::new(BinaryExpr { operator, operator_at, left, right, yields_bool, matching }));
        }
        self.depth -= 1;
        Ok((left, depth))
    }

    fn modifiers(&mut self) -> Parsed<(bool, VectorMatching)> {
        let mut matching = VectorMatching {
            is_on: false,
            labels: Vec::new(),
            cardinality: Cardinality::OneToOne,
            include: Vec::new(),
        };
        let yields_bool = self.token.kind == Kind::Keyword(Keyword::Bool);
        if yields_bool {
            self.advance()?;
        }
        let Kind::Keyword(keyword @ (Keyword::On | Keyword::Ignoring)) = self.token.kind else {
            return Ok((yields_bool, matching));
        };
        self.advance()?;
        matching.is_on = keyword == Keyword::On;
        matching.labels = self.labels()?;
        matching.cardinality = match self.token.kind {
            Kind::Keyword(Keyword::GroupLeft) => Cardinality::ManyToOne,
            Kind::Keyword(Keyword::GroupRight) => Cardinality::OneToMany,
            _ => return Ok((yields_bool, matching)),
        };
        self.advance()?;
        if self.token.kind == Kind::LeftParen {
            matching.include = self.labels()?;
        }
        Ok((yields_bool, matching))
    }

    /// `(a, b)`
    fn labels(&mut self) -> Parsed<Vec<String>> {
        let place = "grouping opts";
        if self.token.kind != Kind::LeftParen {
            return Err(self.unexpected(place, "\"(\""));
        }
        self.advance()?;
        let mut labels = Vec::new();
        while self.token.kind != Kind::RightParen {
            labels.push(self.label()?);
            match self.token.kind {
                Kind::Comma => self.advance()?,
                Kind::RightParen => break,
                _ => return Err(self.unexpected(place, "\",\" or \")\"")),
            };
        }
        self.advance()?;
        Ok(labels)
    }

    fn label(&mut self) -> Parsed<String> {
        let token = self.token;
        let name = match token.kind {
            Kind::Text => self.unquote(token),
            Kind::Identifier | Kind::MetricIdentifier | Kind::Aggregator | Kind::Bound => token.text.to_owned(),
            Kind::Keyword(keyword) if keyword != Keyword::Without => token.text.to_owned(),
            Kind::Operator(
                BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Unless | BinaryOperator::Atan2,
            ) => token.text.to_owned(),
            _ => return Err(self.unexpected("grouping opts", "label")),
        };
        if name.is_empty() {
            self.complain(token.start, "invalid label name for grouping: \"\"");
        }
        self.advance()?;
        Ok(name)
    }

    /// An operand with its sign, range, offset and moment.
    fn operand(&mut self) -> Parsed<(Expr, usize)> {
        if let Kind::Operator(sign @ (BinaryOperator::Add | BinaryOperator::Subtract)) = self.token.kind {
            let start = self.advance()?.start;
            // A sign binds as tightly as `*`: `-2 ^ 2` is −4.
            let (inner, depth) = self.expr(MULTIPLY + 1)?;
            let is_minus = sign == BinaryOperator::Subtract;
            if let Expr::Number(mut number) = inner {
                number.value = if is_minus { -number.value } else { number.value };
                number.span.start = start;
                return Ok((Expr::Number(number), depth));
            }
            let depth = self.check_depth(depth + 1)?;
            return Ok((Expr::Unary { is_minus, inner: Box::new(inner), start }, depth));
        }
        let (mut expr, mut depth) = self.primary()?;
        loop {
            match self.token.kind {
                Kind::LeftBracket => {
                    expr = self.range(expr)?;
                    depth = self.check_depth(depth + 1)?;
                }
                Kind::Keyword(Keyword::Offset) => self.offset(&mut expr)?,
                Kind::At => self.at(&mut expr)?,
                _ => return Ok((expr, depth)),
            }
        }
    }

    fn primary(&mut self) -> Parsed<(Expr, usize)> {
        let token = self.token;
        match token.kind {
            Kind::Number | Kind::Duration => Ok((Expr::Number(self.number()?), 1)),
            Kind::Text => {
                let value = self.unquote(token);
                self.advance()?;
                Ok((Expr::Text { value, span: Span { start: token.start, end: token.end() } }, 1))
            }
            Kind::LeftParen => {
                self.advance()?;
                let (inner, depth) = self.expr(0)?;
                let end = self.expect(Kind::RightParen)?.end();
                self.take_closed();
                let depth = self.check_depth(depth + 1)?;
                Ok((Expr::Paren { inner: Box::new(inner), span: Span { start: token.start, end } }, depth))
            }
            Kind::LeftBrace => {
                let (matchers, span) = self.matchers()?;
                Ok((Expr::Selector(Selector { name: None, matchers, when: When::default(), span }), 1))
            }
            Kind::Aggregator => self.aggregate_or_metric(),
            Kind::Identifier => {
                self.advance()?;
                if self.token.kind == Kind::LeftParen { self.call(token) } else { self.metric(token) }
            }
            Kind::MetricIdentifier
            | Kind::Bound
            | Kind::Operator(BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Unless)
            | Kind::Keyword(Keyword::By | Keyword::Offset | Keyword::Without) => {
                self.advance()?;
                self.metric(token)
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    fn number(&mut self) -> Parsed<Number> {
        let token = self.token;
        let is_duration = token.kind == Kind::Duration;
        let read = if is_duration { numerals::duration(token.text) } else { numerals::number(token.text) };
        let value = read.unwrap_or_else(|message| {
            self.complain(token.start, message);
            0.0
        });
        self.advance()?;
        Ok(Number { value, is_duration, span: Span { start: token.start, end: token.end() } })
    }

    fn unquote(&mut self, token: Token<'a>) -> String {
        quote::unquoted(token.text).unwrap_or_else(|| {
            let message = format!("error unquoting string {}: invalid syntax", super::quoted(token.text));
            self.complain(token.start, message);
            String::new()
        })
    }

    /// A selector whose name is taken already.
    fn metric(&mut self, name: Token<'a>) -> Parsed<(Expr, usize)> {
        let mut span = Span { start: name.start, end: name.end() };
        let mut matchers = Vec::new();
        if self.token.kind == Kind::LeftBrace {
            let (listed, braces) = self.matchers()?;
            matchers = listed;
            span.end = braces.end;
        }
        let name = Some(name.text.to_owned());
        Ok((Expr::Selector(Selector { name, matchers, when: When::default(), span }), 1))
    }

    /// `{a="b", c=~"d"}`
    fn matchers(&mut self) -> Parsed<(Vec<Matcher>, Span)> {
        let start = self.advance()?.start;
        let mut matchers = Vec::new();
        while self.token.kind != Kind::RightBrace {
            matchers.extend(self.matcher()?);
            match self.token.kind {
                Kind::Comma => self.advance()?,
                Kind::RightBrace => break,
                _ => return Err(self.unexpected("label matching", "\",\" or \"}\"")),
            };
        }
        let end = self.advance()?.end();
        Ok((matchers, Span { start, end }))
    }

    fn matcher(&mut self) -> Parsed<Option<Matcher>> {
        let place = "label matching";
        let token = self.token;
        let name = match token.kind {
            Kind::Identifier => token.text.to_owned(),
            Kind::Text => self.unquote(token),
            _ => return Err(self.unexpected(place, "identifier or \"}\"")),
        };
        self.advance()?;
        let sign = self.token.kind;
        let is_operator =
            matches!(sign, Kind::Equals | Kind::Operator(BinaryOperator::NotEqual) | Kind::Matches | Kind::MatchesNot);
        if !is_operator && token.kind == Kind::Text {
            return Ok(Some(Matcher::equal(METRIC_NAME, &name)));
        }
        if !is_operator {
            return Err(self.unexpected(place, "label matching operator"));
        }
        self.advance()?;
        if self.token.kind != Kind::Text {
            return Err(self.unexpected(place, "string"));
        }
        let literal = self.token;
        let value = self.unquote(literal);
        self.advance()?;
        let op = match sign {
            Kind::Equals => MatchOp::Equal,
            Kind::Operator(BinaryOperator::NotEqual) => MatchOp::NotEqual,
            _ => match self.pattern(&value, token.start) {
                None => return Ok(None),
                Some(pattern) if sign == Kind::Matches => MatchOp::Matches(pattern),
                Some(pattern) => MatchOp::NotMatches(pattern),
            },
        };
        Ok(Some(Matcher { name, op, value }))
    }

    fn pattern(&mut self, text: &str, at: usize) -> Option<regex::Regex> {
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            self.complain(at, format!("the expression has more than {REGEXES_MAX} regular expressions"));
            return None;
        }
        pattern::anchored(text).map_err(|message| self.complain(at, message)).ok()
    }

    fn call(&mut self, name: Token<'a>) -> Parsed<(Expr, usize)> {
        let (arguments, depth) = self.arguments()?;
        let span = Span { start: name.start, end: self.take_closed() };
        match catalog::function(name.text) {
            None => self.complain(name.start, format!("unknown function with name {}", super::quoted(name.text))),
            Some(function) if function.is_experimental && !self.features.experimental_functions => {
                self.complain(name.start, format!("function {} is not enabled", super::quoted(name.text)));
            }
            Some(_) => {}
        }
        let depth = self.check_depth(depth + 1)?;
        Ok((Expr::Call(Box::new(CallExpr { name: name.text.to_owned(), arguments, span })), depth))
    }

    /// `(a, b)`
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, usize)> {
        self.expect(Kind::LeftParen)?;
        let (mut arguments, mut depth) = (Vec::new(), 0);
        while self.token.kind != Kind::RightParen {
            let (argument, own) = self.expr(0)?;
            arguments.push(argument);
            depth = depth.max(own);
            match self.token.kind {
                Kind::Comma => {
                    let at = self.advance()?.start;
                    if matches!(self.token.kind, Kind::RightParen | Kind::Comma) {
                        self.complain(at, "trailing commas not allowed in function call args");
                    }
                }
                Kind::RightParen => break,
                _ => return Err(self.unexpected("", "")),
            }
        }
        self.expect(Kind::RightParen)?;
        Ok((arguments, depth))
    }

    fn aggregate_or_metric(&mut self) -> Parsed<(Expr, usize)> {
        let name = self.advance()?;
        let begins = matches!(self.token.kind, Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without));
        if begins {
            return self.aggregate(name);
        }
        self.metric(name)
    }

    fn aggregate(&mut self, name: Token<'a>) -> Parsed<(Expr, usize)> {
        self.aggregations += 1;
        let mut modifier = self.grouping()?;
        let (arguments, depth) = self.arguments()?;
        self.aggregations -= 1;
        if modifier.is_none() {
            modifier = self.grouping()?;
        }
        if modifier.is_some() && self.closed.len() > 1 {
            self.closed.pop_front();
        }
        let span = Span { start: name.start, end: self.take_closed() };
        let (is_without, grouping) = modifier.unwrap_or_default();
        let name = name.text.to_ascii_lowercase();
        let depth = self.check_depth(depth + 1)?;
        let (inner, parameter) = self.aggregated(&name, arguments, span)?;
        let aggregate = AggregateExpr { name, inner, parameter, grouping, is_without, span };
        Ok((Expr::Aggregate(Box::new(aggregate)), depth))
    }

    fn grouping(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let Kind::Keyword(keyword @ (Keyword::By | Keyword::Without)) = self.token.kind else { return Ok(None) };
        self.advance()?;
        Ok(Some((keyword == Keyword::Without, self.labels()?)))
    }

    /// What is aggregated, and the parameter before it.
    fn aggregated(&mut self, name: &str, arguments: Vec<Expr>, span: Span) -> Parsed<(Expr, Option<Expr>)> {
        let count = arguments.len();
        let has_parameter = catalog::has_parameter(name);
        let wanted = 1 + usize::from(has_parameter);
        if count == 0 {
            return Err(ParseError::new(span.start, "no arguments for aggregate expression provided"));
        }
        if catalog::is_experimental_aggregation(name) && !self.features.experimental_functions {
            let flag = "--enable-feature=promql-experimental-functions";
            let message = format!("{name}() is experimental and must be enabled with {flag}");
            return Err(ParseError::new(span.start, message));
        }
        let mut arguments = arguments.into_iter();
        let parameter = if has_parameter { arguments.next() } else { None };
        match arguments.next() {
            Some(inner) if count == wanted => Ok((inner, parameter)),
            _ => {
                let what = "wrong number of arguments for aggregate expression provided";
                Err(ParseError::new(span.start, format!("{what}, expected {wanted}, got {count}")))
            }
        }
    }
}

/// How tightly `*` and signs bind.
const MULTIPLY: u8 = 5;

/// How tightly an operator binds.
fn precedence_of(operator: BinaryOperator) -> u8 {
    match operator {
        BinaryOperator::Or => 1,
        BinaryOperator::And | BinaryOperator::Unless => 2,
        BinaryOperator::Equal
        | BinaryOperator::NotEqual
        | BinaryOperator::Greater
        | BinaryOperator::GreaterOrEqual
        | BinaryOperator::Less
        | BinaryOperator::LessOrEqual => 3,
        BinaryOperator::Add | BinaryOperator::Subtract => 4,
        BinaryOperator::Multiply | BinaryOperator::Divide | BinaryOperator::Modulo | BinaryOperator::Atan2 => MULTIPLY,
        BinaryOperator::Power => MULTIPLY + 1,
    }
}
