//! The functions and aggregations of PromQL: their names, arguments and types.

use super::tree::Kind;

/// What a function takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    /// The types of its arguments.
    pub(super) arguments: &'static [Kind],
    /// How often the last argument may stand.
    pub(super) last: Last,
    /// Whether it must be allowed by a flag.
    pub(super) is_experimental: bool,
}

/// How often the last argument may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Once,
    OnceOrNot,
    AnyTimes,
}

use Kind::{Range, Scalar, Text, Vector};

/// A function by its name.
pub(super) fn function(name: &str) -> Option<Function> {
    let (arguments, last, is_experimental): (&'static [Kind], Last, bool) = match name {
        "abs" | "absent" | "acos" | "acosh" | "asin" | "asinh" | "atan" | "atanh" | "ceil" | "cos" | "cosh" | "deg"
        | "exp" | "floor" | "histogram_avg" | "histogram_count" | "histogram_stddev" | "histogram_stdvar"
        | "histogram_sum" | "ln" | "log10" | "log2" | "rad" | "scalar" | "sgn" | "sin" | "sinh" | "sort"
        | "sort_desc" | "sqrt" | "tan" | "tanh" | "timestamp" => (&[Vector], Last::Once, false),
        "absent_over_time" | "avg_over_time" | "changes" | "count_over_time" | "delta" | "deriv" | "idelta"
        | "increase" | "irate" | "last_over_time" | "max_over_time" | "min_over_time" | "present_over_time"
        | "rate" | "resets" | "stddev_over_time" | "stdvar_over_time" | "sum_over_time" => {
            (&[Range], Last::Once, false)
        }
        "first_over_time"
        | "mad_over_time"
        | "ts_of_first_over_time"
        | "ts_of_last_over_time"
        | "ts_of_max_over_time"
        | "ts_of_min_over_time" => (&[Range], Last::Once, true),
        "day_of_month" | "day_of_week" | "day_of_year" | "days_in_month" | "hour" | "minute" | "month" | "year" => {
            (&[Vector], Last::OnceOrNot, false)
        }
        "clamp" => (&[Vector, Scalar, Scalar], Last::Once, false),
        "clamp_max" | "clamp_min" => (&[Vector, Scalar], Last::Once, false),
        "double_exponential_smoothing" => (&[Range, Scalar, Scalar], Last::Once, true),
        "histogram_fraction" => (&[Scalar, Scalar, Vector], Last::Once, false),
        "histogram_quantile" => (&[Scalar, Vector], Last::Once, false),
        "info" => (&[Vector, Vector], Last::OnceOrNot, true),
        "label_join" => (&[Vector, Text, Text, Text], Last::AnyTimes, false),
        "label_replace" => (&[Vector, Text, Text, Text, Text], Last::Once, false),
        "pi" | "time" => (&[], Last::Once, false),
        "predict_linear" => (&[Range, Scalar], Last::Once, false),
        "quantile_over_time" => (&[Scalar, Range], Last::Once, false),
        "round" => (&[Vector, Scalar], Last::OnceOrNot, false),
        "sort_by_label" | "sort_by_label_desc" => (&[Vector, Text], Last::AnyTimes, true),
        "vector" => (&[Scalar], Last::Once, false),
        _ => return None,
    };
    Some(Function { arguments, last, is_experimental })
}

/// Whether the answer of a function is a number rather than a vector.
pub(super) fn is_scalar(name: &str) -> bool {
    matches!(name, "pi" | "scalar" | "time")
}

/// Whether an aggregation has a parameter before what it aggregates.
pub(super) fn has_parameter(name: &str) -> bool {
    matches!(name, "topk" | "bottomk" | "count_values" | "quantile" | "limitk" | "limit_ratio")
}

/// Whether an aggregation must be allowed by a flag.
pub(super) fn is_experimental_aggregation(name: &str) -> bool {
    matches!(name, "limitk" | "limit_ratio")
}
