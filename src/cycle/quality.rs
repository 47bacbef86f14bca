//! What predictions became, and what each rule is worth.

use std::collections::{BTreeMap, BTreeSet};

use super::predict_rules;
use crate::config::Settings;
use crate::forecast::{Calibration, ChannelName};
use crate::health::{Assessment, Outcomes, PredictRule, Resolution, Said, SignalAssessment, SignalSaid};
use crate::model::{ComponentId, Labels, Timestamp};
use crate::plan::Ledger;

/// The most failures that wait for a pass.
pub const FAILURES_MAX: usize = 10_000;
/// The label by which an alert names a component as it is written here.
const COMPONENT_LABEL: &str = "component";

/// A failure that somebody else's alert tells of.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The alert's labels.
    pub labels: Labels,
    /// When it began.
    pub start: Timestamp,
    /// When it ended; absent while it lasts.
    pub end: Option<Timestamp>,
}

/// What a rule's predictions have been worth.
#[derive(Debug, Clone)]
pub struct RuleQuality {
    /// The rule.
    pub rule: String,
    /// Resolved predictions by what became of them.
    pub counts: Vec<(Resolution, u64)>,
    /// Share of values inside the 95 % interval forecast for them.
    pub coverage: Option<f64>,
    /// Over the last days.
    pub windows: Vec<QualityWindow>,
    /// What each channel's claims have been worth in the last 30 days, by signal.
    pub channels: Vec<ChannelQuality>,
    /// The channels whose claims come true too seldom, so that they do not warn.
    pub muted: Vec<ChannelName>,
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

/// What the claims of one channel about one signal have been worth, whether it was muted or not.
#[derive(Debug, Clone)]
pub struct ChannelQuality {
    /// The signal.
    pub signal: String,
    /// The channel.
    pub channel: ChannelName,
    /// How many claims were resolved.
    pub claims: u64,
    /// Share of them that came true.
    pub precision: Option<f64>,
}

/// The components of which an alert tells, with the rules that foresee them.
///
/// An alert with a label `component` names one as it is written here. Another one tells of the components whose labels it
/// carries, of those with most labels: an alert about a service in a namespace is none about the namespace. A label `kind`
/// narrows the choice.
pub fn components_of<'s>(
    rules: impl Iterator<Item = &'s PredictRule>,
    labels: &Labels,
) -> Vec<(&'s PredictRule, ComponentId)> {
    let kind = labels.get("kind");
    let carries = |rule: &&PredictRule| {
        kind.is_none_or(|kind| kind == rule.kind)
            && !rule.by.is_empty()
            && rule.by.iter().all(|name| labels.get(name).is_some_and(|value| !value.is_empty()))
    };
    let found: Vec<&PredictRule> = rules.filter(carries).collect();
    let most = found.iter().map(|rule| rule.by.len()).max().unwrap_or(0);
    let with_most = found.into_iter().filter(|rule| rule.by.len() == most);
    with_most.map(|rule| (rule, ComponentId::of(&rule.kind, &rule.by, labels))).collect()
}

/// Hands failures to the ledger of outcomes, of each rule that foresees the component.
pub(super) fn note_failures(
    outcomes: &mut Outcomes,
    settings: &Settings,
    assessments: &[Assessment],
    failures: Vec<Failure>,
    now: Timestamp,
) {
    if failures.is_empty() {
        return;
    }
    let known = assessments.iter().map(|assessment| &assessment.component);
    let known: BTreeMap<String, &ComponentId> = known.map(|component| (component.to_string(), component)).collect();
    for Failure { labels, start, end } in failures {
        let told: Vec<(&PredictRule, ComponentId)> = match labels.get(COMPONENT_LABEL).and_then(|name| known.get(name))
        {
            Some(&component) => predict_rules(settings)
                .filter(|rule| rule.kind == component.kind)
                .map(|rule| (rule, component.clone()))
                .collect(),
            None => components_of(predict_rules(settings), &labels),
        };
        for (rule, component) in told {
            outcomes.fail(&rule.name, &component, (start, end), now);
        }
    }
}

/// Hands what each rule says to the ledger of outcomes, which resolves what is over.
pub(super) fn resolve(
    outcomes: &mut Outcomes,
    settings: &Settings,
    assessments: &[Assessment],
    ledger: &Ledger,
    now: Timestamp,
) {
    let acted: BTreeSet<&ComponentId> = ledger.acted_on(now).collect();
    for assessment in assessments {
        for rule in predict_rules(settings).filter(|rule| rule.kind == assessment.component.kind) {
            let of_rule: Vec<&SignalAssessment> =
                assessment.signals.iter().filter(|signal| signal.rule == rule.name).collect();
            if of_rule.is_empty() {
                continue;
            }
            let said = said(&of_rule, acted.contains(&assessment.component));
            outcomes.take((&rule.name, &rule.kind, rule.horizon), &assessment.component, &said, now);
        }
    }
    let known: BTreeSet<&ComponentId> = assessments.iter().map(|assessment| &assessment.component).collect();
    outcomes.prune(|_, component| known.contains(component), now);
}

fn said(signals: &[&SignalAssessment], acted: bool) -> Said {
    let outside = signals.iter().filter_map(|signal| signal.foresight.outside_interval);
    let of_signal = |signal: &&SignalAssessment| SignalSaid {
        signal: signal.signal.clone(),
        breached: signal.foresight.breached,
        evidence: signal.foresight.evidence,
    };
    Said {
        probability: signals.iter().filter_map(|s| s.foresight.probability).reduce(f64::max),
        breached: signals.iter().any(|signal| signal.foresight.breached),
        acted,
        outside_interval: outside.reduce(|a, b| a || b),
        signals: signals.iter().map(of_signal).collect(),
    }
}

/// What each rule is worth at `now`. Rules that were only recovered, and are no longer among the settings, are left out.
pub(super) fn of_rules(outcomes: &Outcomes, settings: &Settings, now: Timestamp) -> Vec<RuleQuality> {
    let calibrations = outcomes.calibrations();
    let known: BTreeSet<&str> = outcomes.rules().collect();
    let rules = predict_rules(settings).filter(|rule| known.contains(rule.name.as_str()));
    let mut quality: Vec<RuleQuality> =
        rules.map(|rule| quality_of(outcomes, rule, calibrations.of(&rule.name, &rule.kind), now)).collect();
    quality.sort_by(|a, b| a.rule.cmp(&b.rule));
    quality
}

fn quality_of(outcomes: &Outcomes, rule: &PredictRule, calibration: &Calibration, now: Timestamp) -> RuleQuality {
    let total = outcomes.total(&rule.name);
    let windows = [1, 7, 30].map(|days| {
        let tally = outcomes.last_days(&rule.name, days, now);
        QualityWindow {
            name: format!("{days}d"),
            precision: tally.precision(),
            recall: tally.recall(),
            brier: tally.brier(),
            calibration_error: tally.calibration_error(),
        }
    });
    let month = outcomes.last_days(&rule.name, 30, now);
    let channels = month.claims().map(|(signal, channel, claims)| ChannelQuality {
        signal: signal.to_owned(),
        channel,
        claims: claims.came + claims.failed,
        precision: claims.precision(),
    });
    RuleQuality {
        rule: rule.name.clone(),
        counts: Resolution::ALL.map(|resolution| (resolution, total.count(resolution))).to_vec(),
        coverage: total.coverage(),
        windows: windows.to_vec(),
        channels: channels.collect(),
        muted: calibration.muted(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_str;

    /// Which components an alert with these labels tells of, where there are rules for namespaces, services and nodes.
    fn check(labels: &[(&str, &str)], told: &[&str]) {
        let rule = |name: &str, kind: &str, by: &str| {
            format!(
                "      - predict: {name}\n        component: {{ kind: {kind}, by: [{by}] }}\n        horizon: 1h\n        \
                 signals: [{{ name: s, expr: x, breach: {{ above: 1 }} }}]\n"
            )
        };
        let rules = ["groups:\n  - name: g\n    rules:\n".to_owned()]
            .into_iter()
            .chain([rule("a", "namespace", "namespace"), rule("b", "service", "namespace, service")])
            .chain([rule("c", "node", "node"), rule("d", "host", "node")])
            .collect::<String>();
        let files = [("forestall.yml", "rule_files: [rules.yml]\n"), ("rules.yml", &rules)];
        let (settings, _) = load_str(&files).unwrap_or_else(|problems| panic!("{problems}"));
        let labels = Labels::new(labels.iter().copied());
        let found = components_of(predict_rules(&settings), &labels);
        let found: Vec<String> = found.iter().map(|(rule, id)| format!("{} {id}", rule.name)).collect();
        assert_eq!(found, told, "{labels:?}");
    }

    #[test]
    fn an_alert_tells_of_the_components_whose_labels_it_carries() {
        check(&[("namespace", "shop")], &["a namespace/shop"]);
        check(&[("namespace", "shop"), ("service", "cart"), ("severity", "page")], &["b service/shop/cart"]);
        check(&[("node", "n1")], &["c node/n1", "d host/n1"]);
        check(&[("node", "n1"), ("kind", "host")], &["d host/n1"]);
        check(&[("namespace", "")], &[]);
        check(&[("pod", "p")], &[]);
    }
}
