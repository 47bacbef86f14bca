//! What the main file says of Kubernetes clusters.

use crate::act::KubernetesSettings;
use crate::model::Millis;

use super::files::Files;
use super::problem::Report;
use super::tree::Node;

/// The settings of a `kubernetes` actuator.
pub(super) fn read_kubernetes(report: &mut Report, files: Files<'_>, node: &Node) -> Option<KubernetesSettings> {
    const KNOWN: [&str; 7] =
        ["kubeconfig", "context", "timeout", "attempts", "confirm_within", "template_patch", "evict_bare_pods"];
    let fields = report.fields(node, "a Kubernetes actuator", &KNOWN)?;
    let mut settings = KubernetesSettings::default();
    settings.kubeconfig = fields.get("kubeconfig").and_then(|n| files.secret(report, n));
    settings.context = fields.get("context").and_then(|n| report.text(n, "the name of a context"));
    if let Some(timeout) = fields.get("timeout").and_then(|n| report.duration(n, Millis(100))) {
        settings.timeout = timeout;
    }
    if let Some(attempts) = fields.get("attempts").and_then(|n| report.count(n, 1, 10)) {
        settings.attempts_max = attempts;
    }
    if let Some(within) = fields.get("confirm_within").and_then(|n| report.duration(n, Millis::SECOND)) {
        settings.confirm_within = within;
    }
    for (key, leave) in
        [("template_patch", &mut settings.template_patch), ("evict_bare_pods", &mut settings.evict_bare_pods)]
    {
        if let Some(given) = fields.get(key).and_then(|n| report.truth(n)) {
            *leave = given;
        }
    }
    Some(settings)
}
