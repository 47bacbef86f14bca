//! What the main file says of Kubernetes clusters.

use crate::act::{ActuatorKind, ActuatorSettings, KubernetesSettings, LeaseSettings, is_dns_label};
use crate::model::Millis;

use super::actuators::{Tries, read_tries};
use super::files::Files;
use super::problem::Report;
use super::reader::{Fields, suggestion};
use super::tree::Node;

/// The settings of a `kubernetes` actuator.
pub(super) fn read_kubernetes(report: &mut Report, files: Files<'_>, node: &Node) -> Option<KubernetesSettings> {
    const KNOWN: [&str; 7] =
        ["kubeconfig", "context", "timeout", "attempts", "confirm_within", "template_patch", "evict_bare_pods"];
    let fields = report.fields(node, "a Kubernetes actuator", &KNOWN)?;
    let Tries { timeout, attempts_max, confirm_within } = read_tries(report, fields, 10, Millis::MINUTE * 10);
    let mut settings = KubernetesSettings {
        timeout,
        attempts_max,
        confirm_within,
        kubeconfig: fields.get("kubeconfig").and_then(|n| files.secret(report, n)),
        context: fields.get("context").and_then(|n| report.text(n, "the name of a context")),
        ..KubernetesSettings::default()
    };
    for (key, leave) in
        [("template_patch", &mut settings.template_patch), ("evict_bare_pods", &mut settings.evict_bare_pods)]
    {
        if let Some(given) = fields.get(key).and_then(|n| report.truth(n)) {
            *leave = given;
        }
    }
    Some(settings)
}

/// The shortest lease: below it a slow answer would be a change of leaders.
const LEASE_MIN: Millis = Millis(3000);

/// `leader_election: { lease: { namespace, name }, duration, actuator }`
pub(super) fn read_leader_election(
    report: &mut Report,
    actuators: &[ActuatorSettings],
    node: &Node,
) -> Option<LeaseSettings> {
    let fields = report.fields(node, "`leader_election`", &["lease", "duration", "actuator"])?;
    let lease = report
        .required(fields, "`leader_election`", "lease")
        .and_then(|n| report.fields(n, "`lease`", &["namespace", "name"]));
    let namespace = lease.and_then(|lease| read_name(report, lease, "namespace"));
    let name = lease.and_then(|lease| read_name(report, lease, "name"));
    let duration = fields.get("duration").and_then(|n| report.duration(n, LEASE_MIN)).unwrap_or(Millis::SECOND * 15);
    let cluster = read_cluster(report, actuators, fields, "policy/no-cluster")?;
    Some(LeaseSettings { cluster, namespace: namespace?, name: name?, duration })
}

fn read_name(report: &mut Report, lease: Fields<'_>, key: &str) -> Option<String> {
    let node = report.required(lease, "`lease`", key)?;
    let name = report.text(node, "a name of Kubernetes")?;
    if is_dns_label(&name) {
        return Some(name);
    }
    let help = "at most 63 of a-z, 0-9 and `-`, neither beginning nor ending with `-`";
    report.error(node.at, "config/wrong-type", format!("`{name}` is no name of Kubernetes"), help);
    None
}

/// The cluster of the actuator that is named, else of the only one.
fn read_cluster(
    report: &mut Report,
    actuators: &[ActuatorSettings],
    fields: Fields<'_>,
    code: &'static str,
) -> Option<KubernetesSettings> {
    let clusters: Vec<(&str, &KubernetesSettings)> = actuators
        .iter()
        .filter_map(|actuator| match &actuator.kind {
            ActuatorKind::Kubernetes(settings) => Some((actuator.name.as_str(), settings)),
            _ => None,
        })
        .collect();
    let names: Vec<&str> = clusters.iter().map(|(name, _)| *name).collect();
    if let Some(node) = fields.get("actuator") {
        let wanted = report.text(node, "an actuator's name")?;
        let found = clusters.iter().find(|(name, _)| *name == wanted);
        if found.is_none() {
            let message = format!("there is no Kubernetes actuator `{wanted}`");
            report.error(node.at, code, message, suggestion(&wanted, &names));
        }
        return found.map(|(_, settings)| (*settings).clone());
    }
    match clusters[..] {
        [(_, settings)] => Some(settings.clone()),
        [] => {
            let help = "add one: `actuators: { cluster: { kubernetes: {} } }`";
            report.error(fields.at, code, "there is no Kubernetes actuator whose cluster could hold the lease", help);
            None
        }
        _ => {
            let help = format!("name one: `actuator: {}`", names[0]);
            report.error(fields.at, code, "there are several Kubernetes actuators", help);
            None
        }
    }
}
