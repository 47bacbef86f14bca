//! What can only be checked over all files: whether each rule has a policy, whether there is any rule.

use crate::health::{PredictRule, Rule};
use crate::plan::Selector;

use super::main_file::MainFile;
use super::policies::PolicyFiles;
use super::problem::Report;
use super::reader::anchored;
use super::rules::RuleFiles;
use super::tree::Place;

/// Checks what rules and policies say together.
pub(super) fn check_all(report: &mut Report, main: &MainFile, rules: &RuleFiles, policies: &PolicyFiles) {
    let predict: Vec<&PredictRule> = rules
        .groups
        .iter()
        .flat_map(|group| &group.rules)
        .filter_map(|rule| match rule {
            Rule::Predict(rule) => Some(&**rule),
            Rule::Record(_) => None,
        })
        .collect();
    if rules.names.is_empty() && !report.has_errors() {
        let at = Place { file: 0, line: 0, column: 0, len: 0 };
        let help = "add `rule_files` with a `predict:` rule";
        report.warning(at, "rule/none", "no rule foresees anything", help);
    }
    // Where a policy could not be read, whom it is for is not known: nothing is said of rules without one.
    if policies.incomplete {
        return;
    }
    for rule in predict {
        if policies.policies.iter().any(|policy| may_select(&policy.selector, rule)) {
            continue;
        }
        let Some(at) = rules.names.get(&rule.name) else { continue };
        let message = format!("no policy matches the components of rule `{}` (kind `{}`)", rule.name, rule.kind);
        if main.policy_files.is_empty() {
            let help = "it is observed only; to act, add `policy_files`";
            report.warning(*at, "rule/without-policy", message, help);
        } else {
            let help = format!("add a policy with `match: {{ kind: {} }}`; `mode: observe` acts on nothing", rule.kind);
            report.error(*at, "rule/without-policy", message, help);
        }
    }
}

/// Whether a selector can match a component of a rule. What a component's own labels hold is not known before there is
/// data; the rule's labels are, and a label that neither has is empty.
fn may_select(selector: &Selector, rule: &PredictRule) -> bool {
    if selector.kind.as_ref().is_some_and(|kind| *kind != rule.kind) {
        return false;
    }
    selector.labels.iter().all(|(name, pattern)| {
        rule.by.contains(name)
            || anchored(pattern).is_some_and(|regex| regex.is_match(rule.labels.get(name).unwrap_or("")))
    })
}
