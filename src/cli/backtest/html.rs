//! The backtest's report as one page that needs nothing else: style and plots are in it, and no script.

use std::fmt::Write as _;

use super::plots;
use super::replay::{Replayed, Track, TrackKey};
use super::report::{Figures, Findings, Frame, RuleFindings, share, span, tracks_of};
use crate::health::{Failure, PredictRule, Score, Terms};
use crate::model::Millis;

/// The page's style.
const STYLE: &str = include_str!("page.css");
/// How many components are drawn.
const TIMELINES_MAX: usize = 30;

/// A text inside HTML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Characters that no document may hold.
            c if c.is_control() && !matches!(c, '\n' | '\t' | '\r') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The page.
pub(super) fn page(findings: &Findings, replayed: &Replayed, frame: &Frame<'_>) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/><title>forestall backtest</title><style>{STYLE}</style></head>\n\
         <body><main>\n<h1>What forestall would have foreseen</h1>\n"
    );
    let _ = writeln!(
        out,
        "<p>{} to {}, evaluated every {}: {} series, {} samples. What began before {} is warm-up and counts for nothing. \
         Failures are {}.</p>",
        escape(&findings.from),
        escape(&findings.to),
        span(Some(findings.interval_seconds)),
        findings.series,
        findings.samples,
        escape(&findings.warm_up_until),
        if frame.truth.is_some() {
            format!("those of {}", escape(&findings.truth))
        } else {
            "the breaches of the rules themselves".to_owned()
        },
    );
    headline(&mut out, &findings.all);
    rules(&mut out, findings);
    let longest = frame.rules.iter().map(|rule| rule.horizon).max().unwrap_or(Millis::HOUR);
    let _ = writeln!(
        out,
        "<section class=\"plots\"><figure><figcaption>Do probabilities mean what they say?</figcaption>{}</figure>\
         <figure><figcaption>How early did warnings come?</figcaption>{}</figure></section>",
        plots::reliability(&findings.all.reliability),
        plots::leads(&findings.all.leads, longest)
    );
    reliability(&mut out, &findings.all);
    would_do(&mut out, findings);
    timelines(&mut out, replayed, frame);
    out.push_str("</main></body></html>\n");
    out
}

fn headline(out: &mut String, all: &Figures) {
    let rate = all.false_per_component_day.map_or("-".to_owned(), |rate| format!("{rate:.4}"));
    let figures = [
        ("precision", share(all.precision), "share of warnings that came true"),
        ("recall", share(all.recall), "share of failures that were warned of in time"),
        ("F1", share(all.f1), "harmonic mean of the two"),
        ("median lead", span(all.lead_seconds.median), "from the first warning to the failure"),
        ("false a component-day", rate, "warnings that nothing followed"),
        ("Brier skill", share(all.brier_skill), "1 is perfect, 0 is always saying the base rate"),
        ("calibration error", all.calibration_error.map_or("-".to_owned(), |e| format!("{e:.4}")), "0 is perfect"),
        ("95 % interval", share(all.coverage_95), "share of values inside the interval forecast for them"),
    ];
    out.push_str("<section class=\"headline\">");
    for (name, value, meaning) in figures {
        let _ = write!(out, "<div title=\"{meaning}\"><b>{value}</b><span>{name}</span></div>");
    }
    out.push_str("</section>\n");
}

fn rules(out: &mut String, findings: &Findings) {
    let head = [
        "rule",
        "horizon",
        "least lead",
        "fires from",
        "components",
        "failures",
        "hits",
        "misses",
        "false",
        "precision",
        "recall",
        "F1",
        "median lead",
        "Brier skill",
        "calibration error",
    ];
    out.push_str("<h2>By rule</h2>\n<div class=\"wide\"><table><thead><tr>");
    head.iter().for_each(|name| {
        let _ = write!(out, "<th>{name}</th>");
    });
    out.push_str("</tr></thead><tbody>");
    for rule in &findings.rules {
        let figures = &rule.figures;
        let cells = [
            escape(&rule.rule),
            span(Some(rule.horizon_seconds)),
            span(Some(rule.lead_min_seconds)),
            fires_from(rule),
            rule.components.to_string(),
            figures.failures.to_string(),
            figures.hits.to_string(),
            figures.misses.to_string(),
            figures.false_alarms.to_string(),
            share(figures.precision),
            share(figures.recall),
            share(figures.f1),
            span(figures.lead_seconds.median),
            share(figures.brier_skill),
            share(figures.calibration_error),
        ];
        row(out, &cells);
    }
    out.push_str("</tbody></table></div>\n");
}

/// One probability, or the one for breaches that are near and that for those that are far.
fn fires_from(rule: &RuleFindings) -> String {
    if rule.fires_from < rule.fires_from_far {
        return format!("{} ({} far)", rule.fires_from, rule.fires_from_far);
    }
    rule.fires_from.to_string()
}

fn row(out: &mut String, cells: &[String]) {
    out.push_str("<tr>");
    cells.iter().for_each(|cell| {
        let _ = write!(out, "<td>{cell}</td>");
    });
    out.push_str("</tr>");
}

fn reliability(out: &mut String, all: &Figures) {
    out.push_str(
        "<h2>Reliability</h2>\n<div class=\"wide\"><table><thead><tr><th>said</th><th>moments</th><th>mean</th>\
         <th>came true</th></tr></thead><tbody>",
    );
    for bin in all.reliability.iter().filter(|bin| bin.moments > 0) {
        let said = format!("{:.1} to {:.1}", bin.from, bin.to);
        row(out, &[said, bin.moments.to_string(), share(bin.said), share(bin.came)]);
    }
    out.push_str("</tbody></table></div>\n");
}

fn would_do(out: &mut String, findings: &Findings) {
    out.push_str("<h2>What would have been done</h2>\n<ul>");
    let lists = [("written down", &findings.actions), ("held back", &findings.declined)];
    for (what, counts) in lists {
        for (name, count) in counts {
            let _ = write!(out, "<li>{} {what} {count} times</li>", escape(name));
        }
    }
    if findings.actions.is_empty() && findings.declined.is_empty() {
        out.push_str("<li>nothing: no policy has a hand here</li>");
    }
    for fault in &findings.faults {
        let (what, why) = (escape(&fault.what), escape(&fault.why));
        let _ = write!(out, "<li>not evaluated in {} passes: {what}: {why}</li>", fault.passes);
    }
    out.push_str("</ul>\n");
}

/// A component with what makes it worth a look.
struct Candidate<'a> {
    key: &'a TrackKey,
    rule: &'a PredictRule,
    track: &'a Track,
    failures: &'a [Failure],
    terms: Terms,
    score: Score,
}

impl Candidate<'_> {
    /// The worst first: misses, false alarms, then hits, then what was feared most.
    fn worth(&self) -> (u64, u64, u64) {
        let highest = self.track.moments.iter().map(|moment| moment.probability).fold(0.0, f64::max);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability in thousandths")]
        let feared = (highest * 1000.0) as u64;
        (2 * (self.score.failures - self.score.hits) + self.score.false_alarms, self.score.hits, feared)
    }
}

fn timelines(out: &mut String, replayed: &Replayed, frame: &Frame<'_>) {
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for rule in &frame.rules {
        for (key, track) in tracks_of(replayed, rule).filter(|(_, track)| !track.course.is_empty()) {
            let failures = frame.failures(&key.1, track);
            let terms = frame.terms(track.span, rule);
            let mut score = Score::default();
            score.add(&terms, &track.episodes, failures, &[]);
            candidates.push(Candidate { key, rule, track, failures, terms, score });
        }
    }
    let all = candidates.len();
    candidates.sort_by(|a, b| b.worth().cmp(&a.worth()).then_with(|| a.key.cmp(b.key)));
    candidates.truncate(TIMELINES_MAX);
    let _ = writeln!(
        out,
        "<h2>Components</h2>\n<p>{} of {all}, the worst first. <i class=\"key signal\"></i> signal <i class=\"key \
         threshold\"></i> threshold <i class=\"key failure\"></i> failure <i class=\"key probability\"></i> probability \
         <i class=\"key hit\"></i> fired, in time <i class=\"key neutral\"></i> fired, late or undecided <i class=\"key \
         false\"></i> fired for nothing</p>",
        candidates.len()
    );
    for candidate in &candidates {
        let name = escape(&candidate.key.1.to_string());
        let score = &candidate.score;
        let _ = writeln!(
            out,
            "<figure class=\"course\"><figcaption><b>{name}</b> {}: {} failures, {} hits, {} false</figcaption>{}</figure>",
            escape(&candidate.rule.name),
            score.failures,
            score.hits,
            score.false_alarms,
            plots::timeline(
                &candidate.key.1.to_string(),
                candidate.track,
                candidate.failures,
                &candidate.terms,
                replayed.span.0
            )
        );
    }
}
