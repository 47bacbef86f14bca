//! Sentences for people, filled from typed fields: why, what would change it, what an action does.

use std::fmt::Write as _;

use crate::cycle::RuleQuality;
use crate::forecast::{Channel, Foresight, Knowledge, Side, TurningPoint};
use crate::health::{Assessment, EXTERNAL_RULE, ScalesWith, SignalAssessment};
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

/// Why a component stands as it does, in sentences: what is measured, when it crosses, which channel spoke and what its
/// claims have been worth, which were silent and why, what the forecast says, and what the rule's warnings have been worth.
pub(super) fn why(assessment: &Assessment, quality: &[RuleQuality]) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut rules: Vec<&str> = Vec::new();
    for signal in &assessment.signals {
        let worth_saying = signal.foresight.breached
            || signal.foresight.probability.is_some_and(|p| p >= 0.2)
            || signal.peers.is_some_and(|peers| peers.outlier);
        if signal.rule == EXTERNAL_RULE {
            let (told, low) = (signal.foresight.probability, signal.foresight.probability_low);
            let (told, low) = (percent(told.unwrap_or(0.0)), percent(low.unwrap_or(0.0)));
            let sentence = format!("Another predictor says so ({}): P {told}, at least {low}.", signal.signal);
            // One prediction has a signal for each resource that it wants.
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        } else if worth_saying || sentences.is_empty() {
            let quality = quality.iter().find(|quality| quality.rule == signal.rule);
            why_signal(signal, assessment.horizon, quality, &mut sentences);
            if !rules.contains(&signal.rule.as_str()) {
                rules.push(&signal.rule);
            }
        }
    }
    if let Some(slope) = assessment.slope_per_hour.filter(|_| assessment.rapid_decline) {
        sentences.push(format!("Health falls by {} an hour, which is rapid.", figure(-slope)));
    }
    let known = quality.iter().filter(|quality| rules.contains(&quality.rule.as_str()));
    sentences.extend(known.filter_map(worth_of_rule));
    sentences
}

/// What a rule's warnings have been worth, over the longest window.
fn worth_of_rule(quality: &RuleQuality) -> Option<String> {
    let window = quality.windows.last()?;
    let precision = window.precision?;
    let mut sentence = format!(
        "Of the warnings of {} in the last {}, {} came true",
        quality.rule,
        window.name.replace('d', " days"),
        percent(precision)
    );
    if let Some(recall) = window.recall {
        let _ = write!(sentence, "; {} of what was said before a failure was a warning", percent(recall));
    }
    Some(sentence + ".")
}

fn why_signal(signal: &SignalAssessment, horizon: Millis, quality: Option<&RuleQuality>, sentences: &mut Vec<String>) {
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
    sentences.extend(among_siblings(signal));
    if foresight.breached {
        sentences.push("It is beyond its threshold now.".to_owned());
        return;
    }
    sentences.extend(crossing(foresight, horizon));
    let mut channels: Vec<&Channel> = foresight.channels.iter().collect();
    channels.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.name.cmp(&b.name)));
    sentences.extend(channels.into_iter().map(|channel| of_channel(channel, &signal.signal, quality)));
    sentences.extend(forecast(signal, horizon));
    if foresight.outside_interval == Some(true) {
        sentences.push("The newest value is outside the interval that was forecast for it.".to_owned());
    }
}

/// The probability with the score it comes from, and the times.
fn crossing(foresight: &Foresight, horizon: Millis) -> Option<String> {
    let probability = foresight.probability?;
    let mut crossing = format!("It crosses within {} with a probability of {}", span(horizon), percent(probability));
    let parts = [("a raw score of", foresight.probability_raw), ("at least", foresight.probability_low)];
    let parts = parts.into_iter().filter_map(|(what, share)| Some(format!("{what} {}", percent(share?))));
    let parts: Vec<String> = parts.collect();
    if !parts.is_empty() {
        let _ = write!(crossing, " ({})", parts.join(", "));
    }
    if let (Some(q50), true) = (foresight.eta.q50, probability >= 0.2) {
        let _ = write!(crossing, ", most likely in {}", span(q50));
    }
    if let (Some(q10), true) = (foresight.eta.q10, probability >= 0.2) {
        let _ = write!(crossing, ", in one of ten futures within {}", span(q10));
    }
    Some(crossing + ".")
}

/// What a channel says, and what its claims about this signal have been worth.
fn of_channel(channel: &Channel, signal: &str, quality: Option<&RuleQuality>) -> String {
    let name = crate::audit::word(&channel.name);
    let mut sentence = format!("Channel {name}, {:.2}: {}", channel.score, channel.because.trim_end_matches('.'));
    let worth = quality.into_iter().flat_map(|quality| &quality.channels);
    let worth = worth.filter(|worth| worth.signal == signal && worth.channel == channel.name);
    for (claims, precision) in worth.filter_map(|worth| Some((worth.claims, worth.precision?))) {
        let _ = write!(sentence, "; {} of its {claims} claims in 30 days came true", percent(precision));
    }
    if quality.is_some_and(|quality| quality.muted.contains(&channel.name)) {
        sentence.push_str("; it does not warn for this rule, since too few do");
    }
    sentence + "."
}

/// How far the signal is from that of the component's siblings.
fn among_siblings(signal: &SignalAssessment) -> Option<String> {
    let peers = signal.peers.filter(|peers| peers.outlier)?;
    let side = if peers.value >= 0.0 { "above" } else { "below" };
    let value = format!(
        "is {:.1} robust deviations {side} the median {} of its {} siblings",
        peers.value.abs(),
        figure(peers.median),
        peers.siblings
    );
    let slope = peers.slope.filter(|slope| slope.abs() > peers.value.abs()).map(|slope| {
        let pace = if slope >= 0.0 { "faster" } else { "slower" };
        format!(" and rises {:.1} {pace} than most of them", slope.abs())
    });
    Some(format!("It {value}{}.", slope.unwrap_or_default()))
}

/// The quantiles at a few leads, by which model.
fn forecast(signal: &SignalAssessment, horizon: Millis) -> Option<String> {
    let foresight = &signal.foresight;
    let path = foresight.path.as_ref().filter(|path| path.step > Millis::ZERO)?;
    let (low, median, high) = (path.level(0.1)?, path.level(0.5)?, path.level(0.9)?);
    let at = |lead: Millis| {
        // The first step is one step ahead.
        let index = usize::try_from((lead.0 + path.step.0 / 2) / path.step.0).ok()?.checked_sub(1)?;
        let (low, median, high) = (low.get(index)?, median.get(index)?, high.get(index)?);
        Some(format!("{} in {} ({} to {})", figure(*median), span(lead), figure(*low), figure(*high)))
    };
    let leads = [horizon / 4, horizon / 2, horizon].into_iter().filter_map(at).collect::<Vec<_>>();
    if leads.is_empty() {
        return None;
    }
    let members: Vec<String> =
        foresight.members.iter().map(|member| format!("{} of {}", percent(member.weight), member.model)).collect();
    let by = if members.is_empty() { foresight.model.clone() } else { members.join(", ") };
    let threshold = foresight.limit.map_or(0.0, |limit| limit.threshold);
    Some(format!("Forecast by {by}: {}, against {}.", leads.join(", "), figure(threshold)))
}

/// What would lower the risk, where each channel that speaks would fall silent, and until when acting is useful.
pub(super) fn would_change(assessment: &Assessment) -> Vec<String> {
    let mut sentences = Vec::new();
    for signal in assessment.signals.iter().filter(|signal| signal.foresight.probability.is_some_and(|p| p >= 0.2)) {
        sentences.extend(turning(signal));
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

/// Where the channels that speak for a breach would fall silent.
fn turning(signal: &SignalAssessment) -> Vec<String> {
    if signal.foresight.breached {
        return Vec::new();
    }
    let (back, beyond) = match signal.side {
        Side::Above => ("below", "above"),
        Side::Below => ("above", "below"),
    };
    let points = &signal.foresight.turning;
    let sentence = |point: &TurningPoint| {
        let slope = point.slope_share.map(|share| format!("with less than {} of its slope", percent(share)));
        let value = point.value.map(|value| format!("were it {back} {} now", figure(value)));
        let threshold = point.threshold.map(|threshold| format!("with a threshold {beyond} {}", figure(threshold)));
        let conditions: Vec<String> = [slope, value, threshold].into_iter().flatten().collect();
        let name = crate::audit::word(&point.channel);
        format!("{}: channel {name} falls silent {}.", signal.signal, conditions.join(", or "))
    };
    let mut sentences: Vec<String> = points.iter().map(sentence).collect();
    if points.len() > 1 {
        let furthest = points.iter().filter_map(|point| point.threshold).reduce(|a, b| match signal.side {
            Side::Above => a.max(b),
            Side::Below => a.min(b),
        });
        sentences.extend(furthest.map(|threshold| {
            format!("{}: no channel speaks with a threshold {beyond} {}.", signal.signal, figure(threshold))
        }));
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
    use crate::cycle::{ChannelQuality, QualityWindow};
    use crate::forecast::{ChannelName, Eta, Limit, Member, Path};
    use crate::health::{PeerDistance, Standing};
    use crate::model::{ComponentId, Labels, Timestamp};

    /// A component at risk, with everything there is to say of it.
    fn at_risk() -> Assessment {
        let mut foresight = Foresight::unknown(Timestamp(0), "");
        foresight.knowledge = Knowledge::Known;
        foresight.current = Some(0.62);
        foresight.limit = Some(Limit { threshold: 0.9, warn: Some(0.75) });
        foresight.probability_raw = Some(0.67);
        foresight.probability = Some(0.83);
        foresight.probability_low = Some(0.6);
        foresight.eta = Eta { q10: Some(Millis::MINUTE * 24), q50: Some(Millis::MINUTE * 40) };
        foresight.peak_q90 = Some(1.03);
        foresight.outside_interval = Some(true);
        let channel = |name, score, because: &str| Channel { name, score, because: because.to_owned() };
        foresight.channels = vec![
            channel(ChannelName::Cycle, 0.0, "silent: no regular cycle"),
            channel(ChannelName::Drift, 0.67, "rises 0.3 an hour over the last 40 min"),
        ];
        foresight.path = Some(Path {
            start: Timestamp(60_000),
            step: Millis::MINUTE * 15,
            levels: vec![0.1, 0.5, 0.9],
            values: vec![vec![0.6, 0.65, 0.7, 0.75], vec![0.65, 0.72, 0.8, 0.88], vec![0.7, 0.8, 0.9, 1.03]],
        });
        foresight.model = "auto".to_owned();
        foresight.members =
            [("mstl", 0.6), ("ets", 0.4)].map(|(model, weight)| Member { model: model.to_owned(), weight }).to_vec();
        let point = |channel, slope_share, value, threshold| TurningPoint { channel, slope_share, value, threshold };
        foresight.turning = vec![
            point(ChannelName::Drift, Some(0.62), Some(0.51), Some(1.01)),
            point(ChannelName::Cycle, None, None, Some(0.95)),
        ];
        let peers = PeerDistance { value: 8.2, slope: Some(1.5), median: 0.4, siblings: 11, outlier: true };
        Assessment {
            component: ComponentId { kind: "service".to_owned(), labels: vec![("service".to_owned(), "a".to_owned())] },
            at: Timestamp(0),
            horizon: Millis::HOUR,
            standing: Standing::AtRisk,
            health: Some(0.4),
            slope_per_hour: Some(-0.42),
            rapid_decline: true,
            probability: Some(0.83),
            probability_low: Some(0.6),
            eta: foresight.eta,
            impact: 0.6,
            expected_loss: 0.36,
            rank: 1,
            signals: vec![SignalAssessment {
                rule: "saturation".to_owned(),
                signal: "cpu".to_owned(),
                group: "cpu".to_owned(),
                weight: 1.0,
                side: Side::Above,
                scales_with: ScalesWith::Replicas,
                severity: 0.5,
                foresight,
                peers: Some(peers),
            }],
            labels: Labels::default(),
            target_namespace: String::new(),
            target_name: "a".to_owned(),
        }
    }

    fn quality() -> RuleQuality {
        let month = QualityWindow {
            name: "30d".to_owned(),
            precision: Some(0.8),
            recall: Some(0.9),
            brier: Some(0.1),
            calibration_error: Some(0.02),
        };
        let channel = |channel, claims, precision| ChannelQuality {
            signal: "cpu".to_owned(),
            channel,
            claims,
            precision: Some(precision),
        };
        RuleQuality {
            rule: "saturation".to_owned(),
            counts: Vec::new(),
            coverage: None,
            windows: vec![month],
            channels: vec![channel(ChannelName::Drift, 41, 0.83), channel(ChannelName::Cycle, 5, 0.2)],
            muted: vec![ChannelName::Cycle],
        }
    }

    #[test]
    fn explains_drivers_channels_forecast_and_what_would_change_the_verdict() {
        let assessment = at_risk();
        let said = [why(&assessment, &[quality()]), would_change(&assessment)].map(|part| part.join("\n")).join("\n\n");
        insta::assert_snapshot!(said, @r"
        saturation/cpu is 0.620 and must stay below 0.900.
        It is 8.2 robust deviations above the median 0.400 of its 11 siblings.
        It crosses within 1 h with a probability of 83 % (a raw score of 67 %, at least 60 %), most likely in 40 min, in one of ten futures within 24 min.
        Channel drift, 0.67: rises 0.3 an hour over the last 40 min; 83 % of its 41 claims in 30 days came true.
        Channel cycle, 0.00: silent: no regular cycle; 20 % of its 5 claims in 30 days came true; it does not warn for this rule, since too few do.
        Forecast by 60 % of mstl, 40 % of ets: 0.650 in 15 min (0.600 to 0.700), 0.720 in 30 min (0.650 to 0.800), 0.880 in 1 h (0.750 to 1.03), against 0.900.
        The newest value is outside the interval that was forecast for it.
        Health falls by 0.420 an hour, which is rapid.
        Of the warnings of saturation in the last 30 days, 80 % came true; 90 % of what was said before a failure was a warning.

        cpu: channel drift falls silent with less than 62 % of its slope, or were it below 0.510 now, or with a threshold above 1.01.
        cpu: channel cycle falls silent with a threshold above 0.950.
        cpu: no channel speaks with a threshold above 1.01.
        cpu peaks at 1.03 in nine of ten futures; 1.37 times the replicas would keep it under 0.750.
        An action that takes longer than 24 min comes too late.
        ");
    }

    #[test]
    fn explains_a_breach_without_a_forecast_of_it() {
        let mut assessment = at_risk();
        let foresight = &mut assessment.signals[0].foresight;
        (foresight.breached, foresight.probability) = (true, Some(1.0));
        assessment.signals[0].side = Side::Below;
        assessment.signals[0].peers = None;
        assessment.rapid_decline = false;
        assert_eq!(
            why(&assessment, &[]),
            ["saturation/cpu is 0.620 and must stay above 0.900.", "It is beyond its threshold now."]
        );
        assert_eq!(would_change(&assessment), ["An action that takes longer than 24 min comes too late."]);
    }

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
