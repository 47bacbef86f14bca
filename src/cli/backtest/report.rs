//! What a replay was worth: figures by rule and in all, as data and as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::replay::{Play, Replayed, Track, TrackKey};
use super::truth::Truth;
use crate::cycle::lead_min;
use crate::health::{Failure, PredictRule, RELIABILITY_BINS, Reliability, Score, Terms};
use crate::model::{ComponentId, Millis, Timestamp};

/// What a backtest found.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    /// The first pass, RFC 3339.
    pub(super) from: String,
    /// The last pass.
    pub(super) to: String,
    /// What began before this counts for nothing.
    pub(super) warm_up_until: String,
    /// The distance of passes.
    pub(super) interval_seconds: f64,
    /// How many passes there were.
    pub(super) passes: u64,
    /// What was replayed.
    pub(super) series: usize,
    /// How many samples it had.
    pub(super) samples: usize,
    /// `rules`, or the name of the file with the failures.
    pub(super) truth: String,
    /// By rule, in the order of the files.
    pub(super) rules: Vec<RuleFindings>,
    /// Over all rules.
    pub(super) all: Figures,
    /// What would have been done in observe mode: actions by kind.
    pub(super) actions: BTreeMap<String, u64>,
    /// What would have been held back, by its reason.
    pub(super) declined: BTreeMap<String, u64>,
    /// What could not be evaluated.
    pub(super) faults: Vec<FaultFound>,
}

/// What one rule was worth.
#[derive(Debug, Serialize)]
pub(super) struct RuleFindings {
    /// Its name.
    pub(super) rule: String,
    /// Its horizon: the longest lead.
    pub(super) horizon_seconds: f64,
    /// The least lead that counts.
    pub(super) lead_min_seconds: f64,
    /// From which probability on its components fire.
    pub(super) fires_from: f64,
    /// The same for a breach that is expected later than half of the horizon.
    pub(super) fires_from_far: f64,
    /// How many components it had.
    pub(super) components: usize,
    /// The figures.
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// The figures of a score; absent where nothing can be said.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    pub(super) failures: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) false_alarms: u64,
    pub(super) precision: Option<f64>,
    pub(super) recall: Option<f64>,
    pub(super) f1: Option<f64>,
    pub(super) component_days: f64,
    pub(super) false_per_component_day: Option<f64>,
    pub(super) lead_seconds: Leads,
    /// Failures warned of with a quarter of the horizon left, as a share of all.
    pub(super) recall_with_a_quarter_left: Option<f64>,
    pub(super) moments: u64,
    pub(super) base_rate: Option<f64>,
    pub(super) brier: Option<f64>,
    pub(super) brier_skill: Option<f64>,
    pub(super) brier_skill_raw: Option<f64>,
    pub(super) calibration_error: Option<f64>,
    pub(super) coverage_95: Option<f64>,
    pub(super) reliability: Vec<ReliabilityRow>,
    /// Every lead, for the page.
    #[serde(skip)]
    pub(super) leads: Vec<Millis>,
}

/// Quartiles of the lead.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Leads {
    pub(super) lower_quartile: Option<f64>,
    pub(super) median: Option<f64>,
    pub(super) upper_quartile: Option<f64>,
}

/// One bin of the reliability table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ReliabilityRow {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) moments: u64,
    /// The mean of what was said.
    pub(super) said: Option<f64>,
    /// The share that came true.
    pub(super) came: Option<f64>,
}

/// Something that could not be evaluated.
#[derive(Debug, Serialize)]
pub(super) struct FaultFound {
    pub(super) what: String,
    pub(super) why: String,
    pub(super) passes: u64,
}

/// What is known of a replay beside what it has shown.
pub(super) struct Frame<'a> {
    pub(super) rules: Vec<&'a PredictRule>,
    pub(super) settings: &'a crate::config::Settings,
    pub(super) play: Play,
    pub(super) lead_min: Option<Millis>,
    pub(super) series: usize,
    pub(super) samples: usize,
    pub(super) truth: Option<&'a Truth>,
}

impl Frame<'_> {
    /// What counts for a rule between two moments: those in which a component was there.
    pub(super) fn terms(&self, span: (Timestamp, Timestamp), rule: &PredictRule) -> Terms {
        let least = self.lead_min.unwrap_or_else(|| lead_min(self.settings, rule)).min(rule.horizon);
        Terms::new(span, (least, rule.horizon))
    }

    /// The failures of a component under a rule: as told, else the rule's own breaches.
    pub(super) fn failures<'t>(&'t self, component: &ComponentId, track: &'t Track) -> &'t [Failure] {
        self.truth.map_or(&track.failures, |truth| truth.of(component))
    }
}

/// The tracks of one rule.
pub(super) fn tracks_of<'r>(
    replayed: &'r Replayed,
    rule: &'r PredictRule,
) -> impl Iterator<Item = (&'r TrackKey, &'r Track)> {
    replayed.tracks.iter().filter(|((name, _), _)| *name == rule.name)
}

/// Works the findings out.
pub(super) fn find(replayed: &Replayed, frame: &Frame<'_>) -> Findings {
    let (mut all, mut inside_all) = (Score::default(), (0, 0));
    let mut rules = Vec::new();
    for rule in &frame.rules {
        let (terms, policy) = (frame.terms(replayed.span, rule), frame.play.policy(rule));
        let (mut score, mut inside, mut components) = (Score::default(), (0, 0), 0);
        for ((_, component), track) in tracks_of(replayed, rule) {
            let terms = frame.terms(track.span, rule);
            score.add(&terms, &track.episodes, frame.failures(component, track), &track.moments);
            inside = (inside.0 + track.inside.0, inside.1 + track.inside.1);
            components += 1;
        }
        all.merge(&score);
        inside_all = (inside_all.0 + inside.0, inside_all.1 + inside.1);
        rules.push(RuleFindings {
            rule: rule.name.clone(),
            horizon_seconds: rule.horizon.as_secs_f64(),
            lead_min_seconds: terms.lead_min.as_secs_f64(),
            fires_from: policy.near,
            fires_from_far: policy.far,
            components,
            figures: figures(&score, inside),
        });
    }
    let (from, to) = replayed.span;
    let warm_until = Terms::new(replayed.span, (Millis::ZERO, Millis::ZERO)).warm_until;
    let faults = replayed.faults.iter().map(|((what, why), passes)| FaultFound {
        what: what.clone(),
        why: why.clone(),
        passes: *passes,
    });
    Findings {
        from: from.to_string(),
        to: to.to_string(),
        warm_up_until: warm_until.to_string(),
        interval_seconds: frame.play.interval.as_secs_f64(),
        passes: replayed.passes,
        series: frame.series,
        samples: frame.samples,
        truth: frame.truth.map_or("rules".to_owned(), |truth| truth.file.clone()),
        rules,
        all: figures(&all, inside_all),
        actions: replayed.would_do.actions.iter().map(|(kind, count)| (word(kind), *count)).collect(),
        declined: replayed.would_do.declined.iter().map(|(reason, count)| (word(reason), *count)).collect(),
        faults: faults.collect(),
    }
}

/// A variant's name as it stands in files.
fn word(variant: &impl Serialize) -> String {
    let value = serde_json::to_value(variant).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn figures(score: &Score, inside: (u64, u64)) -> Figures {
    let seconds = |quantile: f64| score.lead(quantile).map(Millis::as_secs_f64);
    Figures {
        failures: score.failures,
        hits: score.hits,
        misses: score.failures - score.hits,
        false_alarms: score.false_alarms,
        precision: score.precision(),
        recall: score.recall(),
        f1: score.f1(),
        component_days: score.component_days,
        false_per_component_day: score.false_per_component_day(),
        lead_seconds: Leads { lower_quartile: seconds(0.25), median: seconds(0.5), upper_quartile: seconds(0.75) },
        recall_with_a_quarter_left: score.early_recall(),
        moments: score.calibrated.count(),
        base_rate: score.calibrated.base_rate(),
        brier: score.calibrated.brier(),
        brier_skill: score.calibrated.brier_skill(),
        brier_skill_raw: score.raw.brier_skill(),
        calibration_error: score.calibrated.calibration_error(),
        coverage_95: (inside.1 > 0).then(|| inside.0 as f64 / inside.1 as f64),
        reliability: reliability(&score.calibrated),
        leads: score.leads.clone(),
    }
}

fn reliability(said: &Reliability) -> Vec<ReliabilityRow> {
    let edge = |bin: usize| bin as f64 / RELIABILITY_BINS as f64;
    let rows = said.bins().iter().enumerate().map(|(index, bin)| {
        let share = |sum: f64| (bin.count > 0).then(|| sum / bin.count as f64);
        ReliabilityRow {
            from: edge(index),
            to: edge(index + 1),
            moments: bin.count,
            said: share(bin.said),
            came: share(bin.came as f64),
        }
    });
    rows.collect()
}

/// A share, or a dash where there is none.
pub(super) fn share(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.3}"))
}

/// A span of seconds as people say it, or a dash.
pub(super) fn span(seconds: Option<f64>) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a lead, which is at most a horizon")]
    let whole = |seconds: f64| Millis((seconds / 60.0).round() as i64 * 60_000);
    seconds.map_or(
        "-".to_owned(),
        |seconds| {
            if seconds < 60.0 { format!("{seconds:.0}s") } else { whole(seconds).to_string() }
        },
    )
}

/// The report for people.
pub(super) fn text(findings: &Findings) -> String {
    let mut out = String::new();
    let interval = span(Some(findings.interval_seconds));
    let _ = writeln!(
        out,
        "{} to {}, every {interval}: {} series, {} samples\nwhat began before {} is warm-up and counts for nothing\n",
        findings.from, findings.to, findings.series, findings.samples, findings.warm_up_until
    );
    let header = ["rule", "components", "failures", "hits", "misses", "false", "precision", "recall", "F1", "lead"];
    let row = |name: &str, components: usize, figures: &Figures| {
        [
            name.to_owned(),
            components.to_string(),
            figures.failures.to_string(),
            figures.hits.to_string(),
            figures.misses.to_string(),
            figures.false_alarms.to_string(),
            share(figures.precision),
            share(figures.recall),
            share(figures.f1),
            span(figures.lead_seconds.median),
        ]
    };
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(findings.rules.iter().map(|rule| row(&rule.rule, rule.components, &rule.figures)));
    let components = findings.rules.iter().map(|rule| rule.components).sum();
    rows.push(row("all", components, &findings.all));
    write_columns(&mut out, &rows);
    let all = &findings.all;
    let _ = writeln!(
        out,
        "\nlead              {} (quartiles {} and {}); {} of failures with a quarter of the horizon left\n\
         false alarms      {} a component-day, over {:.1} component-days",
        span(all.lead_seconds.median),
        span(all.lead_seconds.lower_quartile),
        span(all.lead_seconds.upper_quartile),
        share(all.recall_with_a_quarter_left),
        all.false_per_component_day.map_or("-".to_owned(), |rate| format!("{rate:.4}")),
        all.component_days,
    );
    let _ = writeln!(
        out,
        "probabilities     Brier score {}, skill {} (raw {}), calibration error {}; {} moments, {} of them before a failure\n\
         95 % interval     {} of values inside",
        all.brier.map_or("-".to_owned(), |brier| format!("{brier:.4}")),
        share(all.brier_skill),
        share(all.brier_skill_raw),
        all.calibration_error.map_or("-".to_owned(), |error| format!("{error:.4}")),
        all.moments,
        share(all.base_rate),
        share(all.coverage_95),
    );
    write_reliability(&mut out, all);
    write_would_do(&mut out, findings);
    for fault in &findings.faults {
        let _ = writeln!(out, "not evaluated in {} passes: {}: {}", fault.passes, fault.what, fault.why);
    }
    out.trim_end().to_owned() + "\n"
}

/// Columns as wide as they need to be, the first to the left and the others to the right.
fn write_columns<const N: usize>(out: &mut String, rows: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn write_reliability(out: &mut String, figures: &Figures) {
    if figures.moments == 0 {
        return;
    }
    let mut rows = vec![["said".to_owned(), "moments".to_owned(), "mean".to_owned(), "came true".to_owned()]];
    rows.extend(figures.reliability.iter().filter(|row| row.moments > 0).map(|row| {
        [format!("{:.1}-{:.1}", row.from, row.to), row.moments.to_string(), share(row.said), share(row.came)]
    }));
    out.push('\n');
    write_columns(out, &rows);
}

fn write_would_do(out: &mut String, findings: &Findings) {
    let list = |counts: &BTreeMap<String, u64>| {
        let items: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
    };
    let _ = writeln!(out, "\nwould have done   {}", list(&findings.actions));
    let _ = writeln!(out, "held back         {}", list(&findings.declined));
}

/// What a gate demands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gate {
    pub(super) precision: Option<f64>,
    pub(super) recall: Option<f64>,
    pub(super) lead: Option<Millis>,
}

impl Gate {
    /// What was demanded and not reached, in sentences.
    pub(super) fn missed(&self, all: &Figures) -> Vec<String> {
        let mut missed = Vec::new();
        let shares = [("precision", self.precision, all.precision), ("recall", self.recall, all.recall)];
        for (name, least, got) in shares {
            let Some(least) = least.filter(|least| got.is_none_or(|got| got < *least)) else { continue };
            missed.push(match got {
                Some(got) => format!("{name} is {got:.3}, and --min-{name} is {least}"),
                None => format!("{name} is not known, for there was nothing to measure it on; --min-{name} is {least}"),
            });
        }
        let lead = all.lead_seconds.median;
        if let Some(least) = self.lead.filter(|least| lead.is_none_or(|lead| lead < least.as_secs_f64())) {
            missed.push(match lead {
                Some(_) => format!("the median lead is {}, and --min-lead is {least}", span(lead)),
                None => format!("the median lead is not known, for nothing was hit; --min-lead is {least}"),
            });
        }
        missed
    }
}

/// The episodes of all components as CSV, by component, rule and start.
///
/// # Errors
/// None that memory does not give.
pub(super) fn alerts(replayed: &Replayed) -> anyhow::Result<String> {
    let seconds = |at: Timestamp| crate::cli::readers::TimeForm::Seconds.write(at);
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(["component", "rule", "start", "end", "probability", "eta_seconds"])?;
    let mut tracks: Vec<(&TrackKey, &Track)> = replayed.tracks.iter().collect();
    tracks.sort_by_key(|((rule, component), _)| (component.to_string(), rule.clone()));
    for ((rule, component), track) in tracks {
        for episode in &track.episodes {
            writer.write_record([
                &component.to_string(),
                rule,
                &seconds(episode.start),
                &episode.end.map(seconds).unwrap_or_default(),
                &format!("{:.4}", episode.probability),
                &episode.eta.map(|eta| format!("{:.0}", eta.as_secs_f64())).unwrap_or_default(),
            ])?;
        }
    }
    Ok(String::from_utf8(writer.into_inner().map_err(|error| error.into_error())?)?)
}
