//! What stands behind a selector: ranges, offsets and moments, and the lengths of time in them.

use super::super::ParseError;
use super::super::ast::{AtModifier, BinaryOperator, Expr, Length, Number, RangeExpr, Subquery, When};
use super::super::lexer::Kind;
use super::{MULTIPLY, Parsed, Parser, precedence_of};
use crate::model::Timestamp;

impl Parser<'_> {
    /// `[5m]` or `[5m:1m]` behind an expression.
    pub(super) fn range(&mut self, expr: Expr) -> Parsed {
        let bracket = self.advance()?;
        let subquery = "subquery selector";
        if !begins_length(self.token.kind) {
            return Err(self.unexpected(subquery, "number or duration"));
        }
        let range = self.positive_length()?;
        match self.token.kind {
            Kind::RightBracket => {
                let end = self.advance()?.end();
                let why = match &expr {
                    Expr::Selector(selector) if selector.when.offset.as_ref().is_some_and(is_not_zero) => {
                        "no offset modifiers allowed before range"
                    }
                    Expr::Selector(selector) if selector.when.at.is_some() => "no @ modifiers allowed before range",
                    Expr::Selector(_) => "",
                    _ => "ranges only allowed for vector selectors",
                };
                match expr {
                    Expr::Selector(selector) if why.is_empty() => {
                        Ok(Expr::Range(Box::new(RangeExpr { selector, range, end })))
                    }
                    _ => Err(ParseError::new(bracket.start, why)),
                }
            }
            Kind::Colon => {
                self.advance()?;
                let step = match self.token.kind {
                    Kind::RightBracket => None,
                    kind if begins_length(kind) => Some(self.positive_length()?),
                    _ => return Err(self.unexpected(subquery, "number or duration or \"]\"")),
                };
                if self.token.kind != Kind::RightBracket {
                    return Err(self.unexpected(subquery, "\"]\""));
                }
                let end = self.advance()?.end();
                let when = When::default();
                Ok(Expr::Subquery(Box::new(Subquery { inner: expr, range, step, when, end })))
            }
            _ => Err(self.unexpected("subquery or range", "\":\" or \"]\"")),
        }
    }

    fn positive_length(&mut self) -> Parsed<Length> {
        let length = self.length(0)?.0;
        if let Length::Number(number) = &length
            && number.value <= 0.0
        {
            self.complain(number.span.start, "duration must be greater than 0");
        }
        Ok(length)
    }

    /// A length with operators that bind at least as tightly as `precedence`.
    fn length(&mut self, precedence: u8) -> Parsed<(Length, usize)> {
        self.depth = self.check_depth(self.depth + 1)?;
        let (mut left, mut depth) = self.length_operand()?;
        while let Kind::Operator(operator) = self.token.kind {
            use BinaryOperator::{Add, Divide, Modulo, Multiply, Power, Subtract};
            let own = precedence_of(operator);
            if own < precedence || !matches!(operator, Add | Subtract | Multiply | Divide | Modulo | Power) {
                break;
            }
            let operator_at = self.advance()?.start;
            let (right, right_depth) = self.length(if operator == BinaryOperator::Power { own } else { own + 1 })?;
            self.complain_of_calculation(left.span().start);
            let is_zero = matches!(&right, Length::Number(number) if number.value == 0.0);
            match operator {
                BinaryOperator::Divide if is_zero => self.complain(operator_at, "division by zero"),
                BinaryOperator::Modulo if is_zero => self.complain(operator_at, "modulo by zero"),
                _ => {}
            }
            depth = self.check_depth(depth.max(right_depth) + 1)?;
            let start = left.span().start;
            let (left_box, right) = (Some(Box::new(left)), Box::new(right));
            left = Length::Operation { operator, left: left_box, right, start, is_wrapped: false };
        }
        self.depth -= 1;
        Ok((left, depth))
    }

    fn length_operand(&mut self) -> Parsed<(Length, usize)> {
        match self.token.kind {
            Kind::Number | Kind::Duration => {
                let number = self.number()?;
                self.check_length(&number, number.span.start);
                Ok((Length::Number(number), 1))
            }
            Kind::Operator(sign @ (BinaryOperator::Add | BinaryOperator::Subtract)) => {
                let start = self.advance()?.start;
                let (inner, depth) = self.length(MULTIPLY + 1)?;
                Ok((self.signed(inner, sign == BinaryOperator::Subtract, start), depth + 1))
            }
            Kind::LeftParen => {
                self.advance()?;
                let (inner, depth) = self.length(0)?;
                self.expect(Kind::RightParen)?;
                self.complain_of_calculation(inner.span().start);
                let inner = match inner {
                    Length::Operation { operator, left, right, start, .. } => {
                        Length::Operation { operator, left, right, start, is_wrapped: true }
                    }
                    number @ Length::Number(_) => number,
                };
                Ok((inner, depth + 1))
            }
            _ => Err(self.unexpected("subquery selector", "number or duration")),
        }
    }

    fn signed(&mut self, inner: Length, is_minus: bool, start: usize) -> Length {
        match inner {
            Length::Number(mut number) => {
                number.value = if is_minus { -number.value } else { number.value };
                self.check_length(&number, start);
                number.span.start = start;
                Length::Number(number)
            }
            operation if is_minus => {
                let operator = BinaryOperator::Subtract;
                Length::Operation { operator, left: None, right: Box::new(operation), start, is_wrapped: false }
            }
            operation => operation,
        }
    }

    fn complain_of_calculation(&mut self, at: usize) {
        if !self.features.duration_expressions {
            self.complain(at, "experimental duration expression is not enabled");
        }
    }

    fn check_length(&mut self, number: &Number, at: usize) {
        const SECONDS_MAX: f64 = 9_223_372_036.854_776;
        if number.value > SECONDS_MAX || number.value < -SECONDS_MAX {
            self.complain(at, "duration out of range");
        }
    }

    pub(super) fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.advance()?;
        let length = match self.token.kind {
            Kind::Number | Kind::Duration => self.length_operand()?.0,
            Kind::Operator(sign @ (BinaryOperator::Add | BinaryOperator::Subtract)) => {
                let start = self.advance()?.start;
                match self.token.kind {
                    Kind::Number | Kind::Duration => {
                        let number = self.length_operand()?.0;
                        self.signed(number, sign == BinaryOperator::Subtract, start)
                    }
                    Kind::LeftParen => {
                        let inner = self.length(MULTIPLY + 1)?.0;
                        self.signed(inner, sign == BinaryOperator::Subtract, start)
                    }
                    _ => return Err(self.unexpected("offset", "number or duration")),
                }
            }
            Kind::LeftParen => self.length(0)?.0,
            _ => return Err(self.unexpected("offset", "number or duration")),
        };
        let at = expr.span().start;
        let end = self.last_end;
        match modifiable(expr) {
            None => {
                let what = "an instant vector selector or range vector selector or a subquery";
                self.complain(at, format!("offset modifier must be preceded by {what}"));
            }
            Some((when, _)) if when.offset.as_ref().is_some_and(is_not_zero) => {
                self.complain(at, "offset may not be set multiple times");
            }
            Some((when, own_end)) => (when.offset, *own_end) = (Some(length), end),
        }
        Ok(())
    }

    pub(super) fn at(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.advance()?;
        let at = expr.span().start;
        let modifier = match self.token.kind {
            Kind::Bound => {
                let is_start = self.advance()?.text.eq_ignore_ascii_case("start");
                if self.token.kind != Kind::LeftParen {
                    return Err(self.unexpected("@", "timestamp"));
                }
                self.advance()?;
                if self.token.kind != Kind::RightParen {
                    return Err(self.unexpected("@", "timestamp"));
                }
                self.advance()?;
                if is_start { AtModifier::Start } else { AtModifier::End }
            }
            Kind::Operator(sign @ (BinaryOperator::Add | BinaryOperator::Subtract)) => {
                self.advance()?;
                let seconds = self.moment()?;
                AtModifier::Moment(
                    self.timestamp(if sign == BinaryOperator::Subtract { -seconds } else { seconds }, at),
                )
            }
            _ => {
                let seconds = self.moment()?;
                AtModifier::Moment(self.timestamp(seconds, at))
            }
        };
        let end = self.last_end;
        match modifiable(expr) {
            None => {
                let what = "an instant vector selector or range vector selector or a subquery";
                self.complain(at, format!("@ modifier must be preceded by {what}"));
            }
            Some((when, _)) if when.at.is_some() => self.complain(at, "@ <timestamp> may not be set multiple times"),
            Some((when, own_end)) => (when.at, *own_end) = (Some(modifier), end),
        }
        Ok(())
    }

    fn moment(&mut self) -> Parsed<f64> {
        if !matches!(self.token.kind, Kind::Number | Kind::Duration) {
            return Err(self.unexpected("@", "timestamp"));
        }
        Ok(self.number()?.value)
    }

    #[expect(clippy::cast_possible_truncation, reason = "what is out of range is refused")]
    fn timestamp(&mut self, seconds: f64, at: usize) -> Timestamp {
        if !seconds.is_finite() || seconds.abs() >= i64::MAX as f64 {
            let written =
                if seconds.is_finite() { format!("{seconds:.6}") } else { crate::query::numbers::format(seconds) };
            self.complain(at, format!("timestamp out of bounds for @ modifier: {written}"));
        }
        Timestamp((seconds * 1000.0).round() as i64)
    }
}

fn begins_length(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Number
            | Kind::Duration
            | Kind::LeftParen
            | Kind::Operator(BinaryOperator::Add | BinaryOperator::Subtract)
    )
}

/// Whether an offset counts as set: one of zero may be set again.
fn is_not_zero(offset: &Length) -> bool {
    !matches!(offset, Length::Number(number) if number.value == 0.0)
}

/// Offset and moment of an expression, and where it ends, if it can have these.
fn modifiable(expr: &mut Expr) -> Option<(&mut When, &mut usize)> {
    match expr {
        Expr::Selector(selector) => Some((&mut selector.when, &mut selector.span.end)),
        Expr::Range(range) => Some((&mut range.selector.when, &mut range.end)),
        Expr::Subquery(subquery) => Some((&mut subquery.when, &mut subquery.end)),
        _ => None,
    }
}
