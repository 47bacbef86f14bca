//! What predictions became, and what each rule is worth.

use std::collections::BTreeSet;

use super::predict_rules;
use crate::config::Settings;
use crate::health::{Assessment, Outcomes, Resolution, Said, SignalAssessment};
use crate::model::{ComponentId, Timestamp};
use crate::plan::Ledger;

/// What a rule's predictions have been worth.
#[derive(Debug, Clone)]
pub struct RuleQuality {
    /// The rule.
    pub rule: String,
    /// Resolved predictions since the start, by what became of them.
    pub counts: Vec<(Resolution, u64)>,
    /// Share of values inside the 95 % interval forecast for them, since the start.
    pub coverage: Option<f64>,
    /// Over the last days.
    pub windows: Vec<QualityWindow>,
}

/// What a rule's predictions have been worth in the last days.
#[derive(Debug, Clone)]
pub struct QualityWindow {
    /// How long it is: `1d`, `7d`, `30d`.
    pub name: String,
    /// Share of warnings that came true.
    pub precision: Option<f64>,
    /// Share of predictions before a breach that warned.
    pub recall: Option<f64>,
    /// Mean squared error of the probabilities.
    pub brier: Option<f64>,
    /// Distance of said and realised probabilities.
    pub calibration_error: Option<f64>,
}

/// Hands what each rule says to the ledger of outcomes, which resolves what is over.
pub(super) fn resolve(
    outcomes: &mut Outcomes,
    settings: &Settings,
    assessments: &[Assessment],
    ledger: &Ledger,
    now: Timestamp,
) {
    let acted: BTreeSet<&ComponentId> = ledger.in_force(now).map(|action| &action.target.component).collect();
    for assessment in assessments {
        for rule in predict_rules(settings).filter(|rule| rule.kind == assessment.component.kind) {
            let of_rule: Vec<&SignalAssessment> =
                assessment.signals.iter().filter(|signal| signal.rule == rule.name).collect();
            if of_rule.is_empty() {
                continue;
            }
            let outside = of_rule.iter().filter_map(|signal| signal.foresight.outside_interval);
            let said = Said {
                probability: of_rule.iter().filter_map(|s| s.foresight.probability).reduce(f64::max),
                breached: of_rule.iter().any(|signal| signal.foresight.breached),
                acted: acted.contains(&assessment.component),
                outside_interval: outside.reduce(|a, b| a || b),
            };
            outcomes.take(&rule.name, &assessment.component, rule.horizon, said, now);
        }
    }
    let known: BTreeSet<&ComponentId> = assessments.iter().map(|assessment| &assessment.component).collect();
    outcomes.prune(|_, component| known.contains(component), now);
}

/// What each rule is worth at `now`.
pub(super) fn of_rules(outcomes: &Outcomes, now: Timestamp) -> Vec<RuleQuality> {
    outcomes.rules().map(|rule| quality_of(outcomes, rule, now)).collect()
}

fn quality_of(outcomes: &Outcomes, rule: &str, now: Timestamp) -> RuleQuality {
    let total = outcomes.total(rule);
    let windows = [1, 7, 30].map(|days| {
        let tally = outcomes.last_days(rule, days, now);
        QualityWindow {
            name: format!("{days}d"),
            precision: tally.precision(),
            recall: tally.recall(),
            brier: tally.brier(),
            calibration_error: tally.calibration_error(),
        }
    });
    RuleQuality {
        rule: rule.to_owned(),
        counts: Resolution::ALL.map(|resolution| (resolution, total.count(resolution))).to_vec(),
        coverage: total.coverage(),
        windows: windows.to_vec(),
    }
}
