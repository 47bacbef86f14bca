//! Text to tree, with Prometheus's grammar, positions and words.

mod ast;
mod lexer;
mod numerals;
mod parser;
mod pretty;
mod print;
mod quote;
mod pattern;

pub use ast::{
    AggregateExpr, AtModifier, BinaryExpr, BinaryOperator, CallExpr, Cardinality, Expr, Length, Number, RangeExpr,
    Selector, Span, Subquery, VectorMatching, When,
};
pub(super) use parser::{Features, parse};

pub(super) use pattern::anchored;
pub(super) use quote::quoted;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParseError {
    pub(super) at: usize,
    pub(super) message: String,
}

impl ParseError {
    pub(super) fn new(at: usize, message: impl Into<String>) -> ParseError {
        ParseError { at, message: message.into() }
    }
}

/// A position as line and column, both from 1, the column in bytes.
pub(super) fn position(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = at - before.rfind('\n').map_or(0, |index| index + 1) + 1;
    format!("{line}:{column}")
}
