//! Expressions as text on several lines where one would be too long, as Prometheus's `format_query` writes them.

use super::ast::Expr;
use super::print::{aggregate_prefix, operator, subquery_suffix};

/// What fits on a line, in bytes.
const LINE_BYTES_MAX: usize = 100;

impl Expr {
    /// The expression with a line for each part that would not fit on one.
    pub fn prettify(&self) -> String {
        self.pretty(0)
    }

    fn pretty(&self, level: usize) -> String {
        let indent = "  ".repeat(level);
        let line = self.to_string();
        let is_short = line.len() <= LINE_BYTES_MAX;
        match self {
            Expr::Unary { is_minus, inner, .. } => {
                let sign = if *is_minus { "-" } else { "+" };
                format!("{indent}{sign}{}", inner.pretty(level).trim())
            }
            Expr::Subquery(_) if is_short => line,
            Expr::Subquery(subquery) => format!("{}{}", subquery.inner.pretty(level), subquery_suffix(subquery)),
            Expr::Aggregate(aggregate) if !is_short => {
                let parameter = aggregate.parameter.as_ref().map(|p| format!("{},\n", p.pretty(level + 1)));
                let inner = aggregate.inner.pretty(level + 1);
                let prefix = aggregate_prefix(aggregate);
                format!("{indent}{prefix}(\n{}{inner}\n{indent})", parameter.unwrap_or_default())
            }
            Expr::Binary(binary) if !is_short => {
                let (left, right) = (binary.left.pretty(level + 1), binary.right.pretty(level + 1));
                format!("{left}\n{indent}{}\n{right}", operator(binary))
            }
            Expr::Call(call) if !is_short => {
                let arguments: Vec<String> = call.arguments.iter().map(|a| a.pretty(level + 1)).collect();
                format!("{indent}{}(\n{}\n{indent})", call.name, arguments.join(",\n"))
            }
            Expr::Paren { inner, .. } if !is_short => format!("{indent}(\n{}\n{indent})", inner.pretty(level + 1)),
            _ => format!("{indent}{line}"),
        }
    }
}
