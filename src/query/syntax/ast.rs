//! The tree that a text is parsed to, as it was written: parentheses, positions and all.

use crate::model::Timestamp;
use crate::store::Matcher;

/// Where something stands in the text, in bytes; the end is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte behind the last.
    pub end: usize,
}

/// An expression as it was written.
#[derive(Debug, Clone)]
pub enum Expr {
    /// `1.5`, `5m`
    Number(Number),
    /// `"text"`
    Text {
        /// The text without quotes and escapes.
        value: String,
        /// Where it stands.
        span: Span,
    },
    /// `(…)`
    Paren {
        /// What stands between.
        inner: Box<Expr>,
        /// Where it stands.
        span: Span,
    },
    /// `up{job="a"} offset 5m @ 0`
    Selector(Selector),
    /// `up[5m]`
    Range(Box<RangeExpr>),
    /// `up[5m:1m]`
    Subquery(Box<Subquery>),
    /// `-up`
    Unary {
        /// Whether the sign is a minus.
        is_minus: bool,
        /// What it stands before.
        inner: Box<Expr>,
        /// Where the sign stands.
        start: usize,
    },
    /// `a + b`
    Binary(Box<BinaryExpr>),
    /// `sum by (a) (b)`
    Aggregate(Box<AggregateExpr>),
    /// `rate(a[5m])`
    Call(Box<CallExpr>),
}

impl Expr {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Expr::Number(number) => number.span,
            Expr::Text { span, .. } | Expr::Paren { span, .. } => *span,
            Expr::Selector(selector) => selector.span,
            Expr::Range(range) => Span { start: range.selector.span.start, end: range.end },
            Expr::Subquery(subquery) => Span { start: subquery.inner.span().start, end: subquery.end },
            Expr::Unary { inner, start, .. } => Span { start: *start, end: inner.span().end },
            Expr::Binary(binary) => Span { start: binary.left.span().start, end: binary.right.span().end },
            Expr::Aggregate(aggregate) => aggregate.span,
            Expr::Call(call) => call.span,
        }
    }

    /// What is left without parentheses around it.
    pub fn without_parens(&self) -> &Expr {
        let mut expr = self;
        while let Expr::Paren { inner, .. } = expr {
            expr = inner;
        }
        expr
    }
}

/// A number; a duration is one of seconds.
#[derive(Debug, Clone)]
pub struct Number {
    /// Its value.
    pub value: f64,
    /// Whether it was written as a duration.
    pub is_duration: bool,
    /// Where it stands.
    pub span: Span,
}

/// A length of time: a number, or a calculation with them.
#[derive(Debug, Clone)]
pub enum Length {
    /// In seconds.
    Number(Number),
    /// `5m + 1h`; without a left side a minus before the right one.
    Operation {
        /// The operator.
        operator: BinaryOperator,
        /// What stands before it.
        left: Option<Box<Length>>,
        /// What stands behind it.
        right: Box<Length>,
        /// Where it begins.
        start: usize,
        /// Whether it stands in parentheses.
        is_wrapped: bool,
    },
}

impl Length {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Length::Number(number) => number.span,
            Length::Operation { left, right, start, .. } => {
                let start = left.as_ref().map_or(*start, |left| left.span().start);
                Span { start, end: right.span().end }
            }
        }
    }
}

/// The `@` modifier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AtModifier {
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
    /// `@ 1700000000`
    Moment(Timestamp),
}

/// When a selector or a subquery looks.
#[derive(Debug, Clone, Default)]
pub struct When {
    /// `offset`
    pub offset: Option<Length>,
    /// `@`
    pub at: Option<AtModifier>,
}

/// Series by their labels.
#[derive(Debug, Clone)]
pub struct Selector {
    /// The metric's name, where it stands before the braces.
    pub name: Option<String>,
    /// What stands in the braces.
    pub matchers: Vec<Matcher>,
    /// Offset and moment.
    pub when: When,
    /// Where it stands.
    pub span: Span,
}

/// A selector with a range.
#[derive(Debug, Clone)]
pub struct RangeExpr {
    /// The series.
    pub selector: Selector,
    /// How far back.
    pub range: Length,
    /// Where it ends.
    pub end: usize,
}

/// An expression, evaluated at steps over a range.
#[derive(Debug, Clone)]
pub struct Subquery {
    /// What is evaluated.
    pub inner: Expr,
    /// How far back.
    pub range: Length,
    /// How far apart, where it says so.
    pub step: Option<Length>,
    /// Offset and moment.
    pub when: When,
    /// Where it ends.
    pub end: usize,
}

/// An operator between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOperator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `^`
    Power,
    /// `atan2`
    Atan2,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

impl BinaryOperator {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOperator::Add => "+",
            BinaryOperator::Subtract => "-",
            BinaryOperator::Multiply => "*",
            BinaryOperator::Divide => "/",
            BinaryOperator::Modulo => "%",
            BinaryOperator::Power => "^",
            BinaryOperator::Atan2 => "atan2",
            BinaryOperator::Equal => "==",
            BinaryOperator::NotEqual => "!=",
            BinaryOperator::Greater => ">",
            BinaryOperator::GreaterOrEqual => ">=",
            BinaryOperator::Less => "<",
            BinaryOperator::LessOrEqual => "<=",
            BinaryOperator::And => "and",
            BinaryOperator::Or => "or",
            BinaryOperator::Unless => "unless",
        }
    }

    /// Whether it compares.
    pub fn is_comparison(self) -> bool {
        use BinaryOperator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        matches!(self, Equal | NotEqual | Greater | GreaterOrEqual | Less | LessOrEqual)
    }

    /// Whether it is one of sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Unless)
    }
}

/// Which side may have several elements with the same matching labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    /// Neither.
    OneToOne,
    /// The left one: `group_left`.
    ManyToOne,
    /// The right one: `group_right`.
    OneToMany,
}

/// How elements of two vectors find each other.
#[derive(Debug, Clone)]
pub struct VectorMatching {
    /// `on`, and not `ignoring`.
    pub is_on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Which side may have several.
    pub cardinality: Cardinality,
    /// The labels that `group_left` and `group_right` take from the other side.
    pub include: Vec<String>,
}

/// Two operands.
#[derive(Debug, Clone)]
pub struct BinaryExpr {
    /// The operator.
    pub operator: BinaryOperator,
    /// Where the operator stands.
    pub operator_at: usize,
    /// What stands before it.
    pub left: Expr,
    /// What stands behind it.
    pub right: Expr,
    /// Whether `bool` was said.
    pub yields_bool: bool,
    /// How elements find each other.
    pub matching: VectorMatching,
}

/// An aggregation.
#[derive(Debug, Clone)]
pub struct AggregateExpr {
    /// Its name, in lower case.
    pub name: String,
    /// What is aggregated.
    pub inner: Expr,
    /// What stands before it in the parentheses.
    pub parameter: Option<Expr>,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether it was `without`.
    pub is_without: bool,
    /// Where it stands.
    pub span: Span,
}

/// A call of a function.
#[derive(Debug, Clone)]
pub struct CallExpr {
    /// Its name.
    pub name: String,
    /// What stands in the parentheses.
    pub arguments: Vec<Expr>,
    /// Where it stands.
    pub span: Span,
}
