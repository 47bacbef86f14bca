//! Annotation texts of rules: `{{ $labels.component }} will saturate in {{ $eta }}`, in Prometheus's way of writing.

use std::collections::BTreeMap;

use minijinja::{Environment, context};

use crate::act::cut;
use crate::model::{Labels, Millis};

/// Longer templates are not rendered.
const TEMPLATE_BYTES_MAX: usize = 16 * 1024;

/// No more of a text is kept.
const TEXT_CHARS_MAX: usize = 4096;

/// No more of a label's value is put in.
const LABEL_CHARS_MAX: usize = 500;

/// How many instructions a text may take (about 64 bytes of memory each at most).
const FUEL: u64 = 20_000;

/// What a template may name.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateValues {
    /// `$labels`, with `component` and `kind` among them.
    pub labels: Labels,
    /// `$probability`, and `$value` as in Prometheus's alerts: the failure probability, 0..1.
    pub probability: Option<f64>,
    /// `$eta`: the time to breach, as `1h30m`; `unknown` where absent.
    pub eta: Option<Millis>,
}

/// A template's text. `$labels.x`, `$value`, `$probability` and `$eta` stand for their values, `humanizePercentage`
/// and `humanizeDuration` are there as filters; an absent label is empty. Values of labels are put in as one line of at most
/// 500 characters, otherwise as they are: who shows the text escapes it.
///
/// A template that cannot be rendered stays as it was written, and the log says why.
pub fn render(template: &str, values: &TemplateValues) -> String {
    if !template.contains("{{") && !template.contains("{%") {
        return template.chars().take(TEXT_CHARS_MAX).collect();
    }
    try_render(template, values).unwrap_or_else(|reason| {
        tracing::warn!(template, reason, "an annotation cannot be rendered");
        template.chars().take(TEXT_CHARS_MAX).collect()
    })
}

fn try_render(template: &str, values: &TemplateValues) -> Result<String, String> {
    if template.len() > TEMPLATE_BYTES_MAX {
        return Err(format!("it has {} bytes; at most {TEMPLATE_BYTES_MAX} are rendered", template.len()));
    }
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(16);
    environment.add_filter("humanizePercentage", humanize_percentage);
    environment.add_filter("humanizeDuration", |seconds: f64| duration_text(seconds * 1000.0));
    let labels: BTreeMap<String, String> =
        values.labels.iter().map(|(name, value)| (name.to_owned(), cut(value, LABEL_CHARS_MAX))).collect();
    let eta = values.eta.map_or("unknown".to_owned(), |eta| rounded(eta).to_string());
    let context = context! { labels, value => values.probability, probability => values.probability, eta };
    let text = environment.render_str(&without_dollars(template), context).map_err(|error| format!("{error:#}"))?;
    Ok(text.chars().take(TEXT_CHARS_MAX).collect())
}

/// `$name` → `name` inside of `{{ … }}` and `{% … %}`, outside of quotes; the rest is text.
fn without_dollars(template: &str) -> String {
    let mut plain = String::with_capacity(template.len());
    let mut rest = template;
    let mut is_inside = false;
    let mut quote = None;
    while let Some(c) = rest.chars().next() {
        let opens = rest.starts_with("{{") || rest.starts_with("{%");
        let closes = rest.starts_with("}}") || rest.starts_with("%}");
        match (is_inside, quote) {
            (false, _) => is_inside = opens,
            (true, None) if closes => is_inside = false,
            (true, None) if c == '"' || c == '\'' => quote = Some(c),
            (true, Some(open)) if c == open => quote = None,
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
        let is_variable = c == '$' && rest.starts_with(|next: char| next.is_ascii_alphabetic());
        if !(is_inside && quote.is_none() && is_variable) {
            plain.push(c);
        }
    }
    plain
}

/// To whole minutes above five minutes, else to whole seconds: nobody reads `1h30m12s345ms`.
pub(super) fn rounded(span: Millis) -> Millis {
    let step = if span.0 >= 5 * Millis::MINUTE.0 { Millis::MINUTE } else { Millis::SECOND };
    Millis((span.0 + step.0 / 2).div_euclid(step.0) * step.0)
}

/// `0.8731` → `87.31%`, as Prometheus writes it (four significant digits).
fn humanize_percentage(share: f64) -> String {
    let percent = share * 100.0;
    if !percent.is_finite() {
        return format!("{percent}%");
    }
    let decimals = match percent.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 1.0 => 3,
        _ => 4,
    };
    let text = format!("{percent:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}

fn duration_text(millis: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, NaN becomes 0")]
    let millis = Millis(millis as i64);
    rounded(millis).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, wanted: &str) {
        let values = TemplateValues {
            labels: Labels::new([("component", "deployment/shop/<check&out>"), ("namespace", "shop")]),
            probability: Some(0.8731),
            eta: Some(Millis(5_412_345)),
        };
        assert_eq!(render(template, &values), wanted, "{template}");
    }

    #[test]
    fn writes_labels_and_values_as_they_are() {
        check(
            "{{ $labels.component }} will saturate in {{ $eta }}",
            "deployment/shop/<check&out> will saturate in 1h30m",
        );
        check("{{$value}} {{ $probability }}", "0.8731 0.8731");
        check("{{ $value | humanizePercentage }} {{ 90 | humanizeDuration }}", "87.31% 1m30s");
        check("{{ $labels['namespace'] }}{{ $labels.absent }}.", "shop.");
        check("costs $labels, {{ \"$5\" }}", "costs $labels, $5");
        check("no template at all: 50% {", "no template at all: 50% {");
        check("ünïcode {{ $labels.namespace }} ✓", "ünïcode shop ✓");
    }

    #[test]
    fn a_template_that_cannot_be_rendered_stays_as_it_is() {
        for wrong in [
            "{{ $labels.component",
            "{{ if $value }}",
            "{{ 5 | humanise }}",
            "{{ $ }}",
            "{{ 'a",
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
            "{% include 'x' %}",
        ] {
            check(wrong, wrong);
        }
        let long = "{{ $eta }}".repeat(5000);
        assert_eq!(
            render(&long, &TemplateValues { labels: Labels::default(), probability: None, eta: None }).len(),
            4096
        );
    }

    #[test]
    fn percentages_have_four_significant_digits() {
        for (share, wanted) in [(1.0, "100%"), (0.5, "50%"), (0.123_456, "12.35%"), (0.0, "0%"), (12.5, "1250%")] {
            assert_eq!(humanize_percentage(share), wanted);
        }
    }
}
