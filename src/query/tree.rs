//! The checked tree: what a parsed expression becomes once types, names and limits have been checked.
//!
//! **Invariant:** each node has the type that its parent needs and regular expressions are compiled. A position is that of a
//! byte in the text, for notes about the answer.

use regex::Regex;

use super::matrix::Grouping;
use super::syntax::{BinaryOperator, Cardinality};
use crate::model::{Labels, Millis, Timestamp};
use crate::store::Matcher;

/// The type of a node's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    Text,
    Vector,
    Range,
}

impl Kind {
    /// The type's name in messages, as in Prometheus.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Scalar => "scalar",
            Kind::Text => "string",
            Kind::Vector => "instant vector",
            Kind::Range => "range vector",
        }
    }
}

/// An expression.
#[derive(Debug)]
pub(super) enum Node {
    Number(f64),
    Text(String),
    /// `time()`: the moment of evaluation in seconds.
    Time,
    Selector(Selector),
    Range(RangeSource),
    /// A unary minus.
    Negate(Box<Node>),
    Binary(Box<Binary>),
    Aggregate(Box<Aggregate>),
    Call(Box<Call>),
}

impl Node {
    /// The type of its value.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Node::Number(_) | Node::Time => Kind::Scalar,
            Node::Text(_) => Kind::Text,
            Node::Range(_) => Kind::Range,
            Node::Selector(_) | Node::Aggregate(_) => Kind::Vector,
            Node::Negate(inner) => inner.kind(),
            Node::Binary(binary) => binary.kind,
            Node::Call(call) => match **call {
                Call::Scalar(_) => Kind::Scalar,
                _ => Kind::Vector,
            },
        }
    }

    /// The nodes right below, those under subqueries among them.
    pub(super) fn children(&self) -> Vec<&Node> {
        match self {
            Node::Number(_) | Node::Text(_) | Node::Time | Node::Selector(_) => Vec::new(),
            Node::Range(range) => range.child().into_iter().collect(),
            Node::Negate(inner) => vec![inner],
            Node::Binary(binary) => vec![&binary.left, &binary.right],
            Node::Aggregate(aggregate) => aggregate.parameter.iter().chain([&aggregate.inner]).collect(),
            Node::Call(call) => call.children(),
        }
    }
}

/// Where in time a selector or subquery looks, seen from the moment of evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    /// How much earlier; negative is later.
    pub(super) offset: Millis,
    /// A fixed moment in the place of that of evaluation.
    pub(super) at: Option<At>,
}

/// The `@` modifier.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    Start,
    End,
    Moment(Timestamp),
}

/// Series by their labels.
#[derive(Debug)]
pub(super) struct Selector {
    pub(super) matchers: Vec<Matcher>,
    pub(super) placement: Placement,
}

/// What yields samples over time.
#[derive(Debug)]
pub(super) enum RangeSource {
    /// `selector[range]`
    Selector { selector: Selector, range: Millis },
    /// `inner[range:step]`
    Subquery { inner: Box<Node>, range: Millis, step: Option<Millis>, placement: Placement },
}

impl RangeSource {
    /// How long its windows are.
    pub(super) fn range(&self) -> Millis {
        match self {
            RangeSource::Selector { range, .. } | RangeSource::Subquery { range, .. } => *range,
        }
    }

    /// Where its windows end.
    pub(super) fn placement(&self) -> Placement {
        match self {
            RangeSource::Selector { selector, .. } => selector.placement,
            RangeSource::Subquery { placement, .. } => *placement,
        }
    }

    fn child(&self) -> Option<&Node> {
        match self {
            RangeSource::Selector { .. } => None,
            RangeSource::Subquery { inner, .. } => Some(inner),
        }
    }
}

/// Two operands.
#[derive(Debug)]
pub(super) struct Binary {
    pub(super) operator: BinaryOperator,
    pub(super) left: Node,
    pub(super) right: Node,
    pub(super) kind: Kind,
    /// Whether a comparison yields 0 or 1 instead of filtering.
    pub(super) yields_bool: bool,
    pub(super) matching: Matching,
}

/// How elements of two vectors find each other.
#[derive(Debug)]
pub(super) struct Matching {
    pub(super) grouping: Grouping,
    pub(super) cardinality: Cardinality,
    /// Labels that `group_left` and `group_right` take from the side with one element.
    pub(super) include: Vec<String>,
}

/// An aggregation.
#[derive(Debug)]
pub(super) struct Aggregate {
    pub(super) operator: Aggregator,
    pub(super) inner: Node,
    pub(super) parameter: Option<Node>,
    pub(super) parameter_at: usize,
    pub(super) grouping: Grouping,
    /// Whether what is aggregated is the same at each step.
    pub(super) is_step_invariant: bool,
}

/// What an aggregation computes of each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregator {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Quantile,
    Topk,
    Bottomk,
    Limitk,
    LimitRatio,
    CountValues,
}

/// A call of a function.
#[derive(Debug)]
pub(super) enum Call {
    /// A function of each value on its own.
    Map(fn(f64) -> f64, Node),
    Clamp {
        inner: Node,
        min: Option<Node>,
        max: Option<Node>,
    },
    Round {
        inner: Node,
        to: Node,
    },
    Timestamp(Node),
    Scalar(Node),
    Vector(Node),
    Absent {
        inner: Node,
        labels: Labels,
    },
    AbsentOverTime {
        range: RangeSource,
        labels: Labels,
    },
    Sort {
        inner: Node,
        direction: Direction,
    },
    SortByLabel {
        inner: Node,
        names: Vec<String>,
        direction: Direction,
    },
    LabelReplace(LabelReplace),
    LabelJoin {
        inner: Node,
        target: String,
        separator: String,
        sources: Vec<String>,
    },
    /// What is not of classic histograms: nothing comes of floats.
    NothingOf(Node),
    HistogramQuantile {
        quantile: Node,
        quantile_at: usize,
        inner: Node,
        inner_at: usize,
    },
    HistogramFraction {
        lower: Node,
        upper: Node,
        inner: Node,
        inner_at: usize,
    },
    Info {
        inner: Node,
        /// The labels to add, and which info metrics to take them from.
        matchers: Vec<Matcher>,
    },
    OverTime(OverTime),
}

/// `label_replace`; what is wrong with its texts is told when it is evaluated.
#[derive(Debug)]
pub(super) struct LabelReplace {
    pub(super) inner: Node,
    pub(super) target: String,
    pub(super) template: String,
    pub(super) source: String,
    pub(super) pattern: String,
    pub(super) regex: Option<Regex>,
}

/// A function of the samples in windows.
#[derive(Debug)]
pub(super) struct OverTime {
    pub(super) function: RangeFunction,
    pub(super) range: RangeSource,
    pub(super) parameters: Vec<Node>,
    /// Where its first argument stands.
    pub(super) at: usize,
}

impl Call {
    fn children(&self) -> Vec<&Node> {
        match self {
            Call::Map(_, inner)
            | Call::Timestamp(inner)
            | Call::Scalar(inner)
            | Call::Vector(inner)
            | Call::NothingOf(inner) => vec![inner],
            Call::Absent { inner, .. }
            | Call::Sort { inner, .. }
            | Call::SortByLabel { inner, .. }
            | Call::LabelReplace(LabelReplace { inner, .. })
            | Call::LabelJoin { inner, .. }
            | Call::Info { inner, .. } => vec![inner],
            Call::Clamp { inner, min, max } => [inner].into_iter().chain(min).chain(max).collect(),
            Call::Round { inner, to } => vec![inner, to],
            Call::HistogramQuantile { quantile, inner, .. } => vec![quantile, inner],
            Call::HistogramFraction { lower, upper, inner, .. } => vec![lower, upper, inner],
            Call::AbsentOverTime { range, .. } => range.child().into_iter().collect(),
            Call::OverTime(of) => of.parameters.iter().chain(of.range.child()).collect(),
        }
    }

    /// The range that it looks at, if it looks at one.
    pub(super) fn range(&self) -> Option<&RangeSource> {
        match self {
            Call::AbsentOverTime { range, .. } | Call::OverTime(OverTime { range, .. }) => Some(range),
            _ => None,
        }
    }
}

/// An order of sorting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

/// A function of the samples of one series in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RangeFunction {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Deriv,
    PredictLinear,
    Smoothing,
    Changes,
    Resets,
    Avg,
    Sum,
    Min,
    Max,
    Count,
    First,
    Last,
    Present,
    Quantile,
    Stddev,
    Stdvar,
    Mad,
    TimeOfFirst,
    TimeOfLast,
    TimeOfMax,
    TimeOfMin,
}

impl RangeFunction {
    /// Whether the answer is one of the series' own values, so that it keeps the metric's name.
    pub(super) fn keeps_name(self) -> bool {
        matches!(self, RangeFunction::First | RangeFunction::Last)
    }
}
