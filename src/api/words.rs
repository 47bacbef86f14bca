//! Sentences for people, filled from typed fields: why, what would change it, what an action does.

use std::fmt::Write as _;

use crate::forecast::{Channel, Knowledge, Side};
use crate::health::{Assessment, ScalesWith, SignalAssessment};
use crate::model::Millis;
use crate::plan::{ActionKind, Change};

/// A length of time as people say it: `24 min`, `1 h 35 min`, `2.3 d`.
pub(super) fn span(span: Millis) -> String {
    let minutes = span.0.abs() / Millis::MINUTE.0;
    match minutes {
        0 => format!("{} s", span.0.abs() / Millis::SECOND.0),
        1..60 => format!("{minutes} min"),
        60..2880 if minutes % 60 == 0 => format!("{} h", minutes / 60),
        60..2880 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{:.1} d", span.0.abs() as f64 / Millis::DAY.0 as f64),
    }
}

/// A probability as people say it: whole per cent; 0 and 100 only where exact.
pub(super) fn percent(probability: f64) -> String {
    match probability * 100.0 {
        p if p <= 0.0 => "0 %".to_owned(),
        p if p < 1.0 => "under 1 %".to_owned(),
        p if p >= 100.0 => "100 %".to_owned(),
        p if p > 99.0 => "over 99 %".to_owned(),
        p => format!("{p:.0} %"),
    }
}

/// A value with at most four significant digits.
pub(super) fn figure(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e6).contains(&magnitude) {
        let digits = if magnitude >= 1000.0 {
            0
        } else if magnitude >= 10.0 {
            1
        } else if magnitude >= 1.0 {
            2
        } else {
            3
        };
        format!("{value:.digits$}")
    } else {
        format!("{value:.2e}")
    }
}

/// Why a component stands as it does, in sentences: what is measured, when it crosses, which channel spoke, which were
/// silent and why.
pub(super) fn why(assessment: &Assessment) -> Vec<String> {
    let mut sentences = Vec::new();
    for signal in &assessment.signals {
        let worth_saying = signal.foresight.breached || signal.foresight.probability.is_some_and(|p| p >= 0.2);
        if worth_saying || sentences.is_empty() {
            why_signal(signal, assessment.horizon, &mut sentences);
        }
    }
    sentences
}

fn why_signal(signal: &SignalAssessment, horizon: Millis, sentences: &mut Vec<String>) {
    let foresight = &signal.foresight;
    let name = format!("{}/{}", signal.rule, signal.signal);
    match &foresight.knowledge {
        Knowledge::Known => {}
        Knowledge::Learning { seen, needed } => {
            sentences.push(format!(
                "{name}: {} of {} of history seen; nothing is said before that.",
                span(*seen),
                span(*needed)
            ));
            return;
        }
        Knowledge::Unknown { why } => {
            sentences.push(format!("{name} is unknown: {why}."));
            return;
        }
    }
    let (Some(current), Some(limit)) = (foresight.current, foresight.limit) else { return };
    let side = match signal.side {
        Side::Above => "must stay below",
        Side::Below => "must stay above",
    };
    sentences.push(format!("{name} is {} and {side} {}.", figure(current), figure(limit.threshold)));
    if foresight.breached {
        sentences.push("It is beyond its threshold now.".to_owned());
        return;
    }
    let Some(probability) = foresight.probability else { return };
    let mut crossing = format!("It crosses within {} with a probability of {}", span(horizon), percent(probability));
    if let (Some(q50), true) = (foresight.eta.q50, probability >= 0.2) {
        let _ = write!(crossing, ", most likely in {}", span(q50));
    }
    if let (Some(q10), true) = (foresight.eta.q10, probability >= 0.2) {
        let _ = write!(crossing, ", in one of ten futures within {}", span(q10));
    }
    sentences.push(format!("{crossing}."));
    let mut channels: Vec<&Channel> = foresight.channels.iter().collect();
    channels.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.name.cmp(&b.name)));
    for channel in channels {
        sentences.push(format!(
            "{:?} channel, {:.2}: {}.",
            channel.name,
            channel.score,
            channel.because.trim_end_matches('.')
        ));
    }
    if foresight.outside_interval == Some(true) {
        sentences.push("The newest value is outside the interval that was forecast for it.".to_owned());
    }
}

/// What would lower the risk, and until when acting is useful.
pub(super) fn would_change(assessment: &Assessment) -> Vec<String> {
    let mut sentences = Vec::new();
    for signal in assessment.signals.iter().filter(|signal| signal.foresight.probability.is_some_and(|p| p >= 0.2)) {
        let (Some(peak), Some(limit)) = (signal.foresight.peak_q90, signal.foresight.limit) else { continue };
        let wanted = limit.warn.unwrap_or(limit.threshold * 0.9);
        let factor = peak / wanted;
        if signal.side == Side::Above && factor > 1.0 && factor.is_finite() {
            let more = match signal.scales_with {
                ScalesWith::None => continue,
                ScalesWith::Replicas => "replicas",
                ScalesWith::Cpu => "CPU",
                ScalesWith::Memory => "memory",
                ScalesWith::Disk => "disk",
            };
            sentences.push(format!(
                "{} peaks at {} in nine of ten futures; {factor:.2} times the {more} would keep it under {}.",
                signal.signal,
                figure(peak),
                figure(wanted),
            ));
        }
    }
    if let Some(q10) = assessment.eta.q10.filter(|q10| *q10 > Millis::ZERO) {
        sentences.push(format!("An action that takes longer than {} comes too late.", span(q10)));
    }
    sentences
}

/// What an action does, in a few words: `scale out 6 to 9`; `give back scale out 9 to 6` where it undoes another.
pub(super) fn change(kind: ActionKind, change: &Change, undoes: Option<&str>) -> String {
    let name = crate::audit::word(&kind).replace('_', " ");
    let kind = if undoes.is_some() { format!("give back {name}") } else { name };
    match change {
        Change::Replicas { from, to } => format!("{kind} {from} to {to}"),
        Change::Resources { from, to } => {
            let parts = to.iter().map(|(resource, amount)| {
                let before = from.get(resource).map_or_else(|| "?".to_owned(), |amount| figure(*amount));
                format!("{resource} {before} to {}", figure(*amount))
            });
            format!("{kind}: {}", parts.collect::<Vec<_>>().join(", "))
        }
        Change::Move { from_nodes } if from_nodes.is_empty() => kind,
        Change::Move { from_nodes } => format!("{kind} away from {}", from_nodes.join(", ")),
        Change::Shift { share } => format!("{kind}: {} of its traffic elsewhere", percent(*share)),
        Change::Cordon => kind,
        Change::Uncordon => format!("{kind}: takes new work again"),
    }
}

/// A component's state as text for a terminal.
pub fn explain(view: &serde_json::Value) -> String {
    let text = |path: &str| view.pointer(path).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    let number = |path: &str| view.pointer(path).and_then(serde_json::Value::as_f64);
    let mut out = format!("{}  {}\n", text("/id"), text("/standing").replace('_', " "));
    for (name, path) in [("health", "/health"), ("impact", "/impact"), ("expected loss", "/expected_loss")] {
        let value = number(path).map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"));
        let _ = writeln!(out, "  {name:<14}{value}");
    }
    if let Some(probability) = number("/probability") {
        let low = number("/probability_low").map_or_else(String::new, |low| format!(" (at least {})", percent(low)));
        let _ = writeln!(out, "  {:<14}{}{low}", "probability", percent(probability));
    }
    for (title, path) in [("Why", "/why"), ("What would change it", "/would_change")] {
        let sentences = view.pointer(path).and_then(|v| v.as_array()).cloned().unwrap_or_default();
        if !sentences.is_empty() {
            let _ = writeln!(out, "\n{title}");
        }
        for sentence in sentences.iter().filter_map(|sentence| sentence.as_str()) {
            let _ = writeln!(out, "  {sentence}");
        }
    }
    let declined = view.pointer("/declined").and_then(|v| v.as_array()).cloned().unwrap_or_default();
    if !declined.is_empty() {
        out.push_str("\nHeld back\n");
    }
    for held in &declined {
        let part = |name: &str| held.get(name).and_then(|v| v.as_str()).unwrap_or("");
        let _ = writeln!(out, "  {}: {}; released when {}", part("reason"), part("detail"), part("released_when"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_durations_and_probabilities_as_people_do() {
        for (millis, said) in [
            (42_000, "42 s"),
            (1_440_000, "24 min"),
            (5_700_000, "1 h 35 min"),
            (7_200_000, "2 h"),
            (198_720_000, "2.3 d"),
        ] {
            assert_eq!(span(Millis(millis)), said);
        }
        for (p, said) in [(0.0, "0 %"), (0.004, "under 1 %"), (0.5, "50 %"), (0.995, "over 99 %"), (1.0, "100 %")] {
            assert_eq!(percent(p), said);
        }
    }
}
