//! The main file: what holds for all, where rules and policies are, who acts, who is told.

use crate::act::{ActuatorSettings, LeaseSettings};
use crate::audit::{AlertmanagerSettings, GrafanaSettings, NotifySettings, NotifyWebhookSettings, SegmentSettings};
use crate::model::Millis;
use crate::plan::Mode;
use crate::{ingest, store};

use super::actuators::{ACTUATOR_KINDS, Local, read_hmac_files, read_kind, read_url};
use super::files::Files;
use super::problem::Report;
use super::reader::{Fields, quoted};
use super::rules::rapid_decline;
use super::tree::{Node, Place};
use super::{Global, Keep, Web};

/// The memory below which nothing useful can be stored.
const MEMORY_BYTES_MIN: usize = 16 << 20;
/// The shortest interval between evaluations.
pub(super) const INTERVAL_MIN: Millis = Millis::SECOND;
/// The words for modes.
pub(super) const MODES: [(&str, Mode); 3] =
    [("observe", Mode::Observe), ("approve", Mode::Approve), ("act", Mode::Act)];

/// What was learned is not written more often.
const SNAPSHOT_INTERVAL_MIN: Millis = Millis(10_000);

/// Rows are kept for longer than any budget, latch or summary of a rule looks back.
const JOURNAL_RETENTION_MIN: Millis = Millis(31 * Millis::DAY.0);

/// What the main file says.
#[derive(Debug, Default)]
pub(super) struct MainFile {
    pub(super) global: Global,
    pub(super) store: store::Settings,
    pub(super) keep: Keep,
    pub(super) snapshot_interval: Option<Millis>,
    pub(super) journal: SegmentSettings,
    pub(super) limits: ingest::Limits,
    pub(super) actuators: Vec<ActuatorSettings>,
    /// The names of all actuators, those among them that are wrong.
    pub(super) actuator_names: Vec<String>,
    /// Actuators may have any name: there is no main file that could name them.
    pub(super) any_actuator: bool,
    pub(super) leader_election: Option<LeaseSettings>,
    pub(super) notify: NotifySettings,
    pub(super) web: Web,
    /// Rule files or patterns, with where they are named.
    pub(super) rule_files: Vec<(String, Place)>,
    /// Policy files or patterns, with where they are named.
    pub(super) policy_files: Vec<(String, Place)>,
    /// Calendar files or patterns, with where they are named.
    pub(super) calendar_files: Vec<(String, Place)>,
}

/// Reads the main file's tree.
pub(super) fn read_main(report: &mut Report, files: Files<'_>, root: &Node) -> MainFile {
    const KNOWN: [&str; 11] = [
        "global",
        "leader_election",
        "storage",
        "ingest",
        "rule_files",
        "policy_files",
        "calendar_files",
        "actuators",
        "notify",
        "web",
        "backfill",
    ];
    let mut main = MainFile::default();
    let Some(fields) = report.fields(root, "the main file", &KNOWN) else { return main };
    not_yet(report, fields, "backfill", "history is learned from what is received");
    if let Some(node) = fields.get("global") {
        read_global(report, node, &mut main.global);
    }
    if let Some(node) = fields.get("storage") {
        read_storage(report, node, &mut main);
    }
    if let Some(node) = fields.get("ingest") {
        read_limits(report, node, &mut main.limits);
    }
    main.rule_files = named_files(report, fields.get("rule_files"));
    main.policy_files = named_files(report, fields.get("policy_files"));
    main.calendar_files = named_files(report, fields.get("calendar_files"));
    if let Some(node) = fields.get("actuators") {
        read_actuators(report, files, node, &mut main);
    }
    if let Some(node) = fields.get("leader_election") {
        main.leader_election = super::kubernetes::read_leader_election(report, &main.actuators, node);
    }
    if let Some(node) = fields.get("notify") {
        main.notify = read_notify(report, files, node);
    }
    if let Some(node) = fields.get("web")
        && let Some(web) = report.fields(node, "`web`", &["operator_token_file"])
    {
        main.web.operator_token_file = web.get("operator_token_file").and_then(|path| files.secret(report, path));
    }
    main
}

/// Says of a field that is described in the documentation but not built that it is not.
pub(super) fn not_yet(report: &mut Report, fields: Fields<'_>, key: &str, help: &str) {
    if let Some(at) = fields.key_at(key) {
        report.error(at, "config/not-yet", format!("`{key}` is not in this version"), format!("remove it; {help}"));
    }
}

fn read_global(report: &mut Report, node: &Node, global: &mut Global) {
    const KNOWN: [&str; 4] = ["evaluation_interval", "mode", "start_hold", "rapid_decline_per_hour"];
    let Some(fields) = report.fields(node, "`global`", &KNOWN) else { return };
    if let Some(interval) = fields.get("evaluation_interval").and_then(|n| report.duration(n, INTERVAL_MIN)) {
        global.evaluation_interval = interval;
    }
    if let Some(mode) = fields.get("mode").and_then(|n| report.word(n, "a mode", &MODES, &[])) {
        global.mode = mode;
    }
    if let Some(hold) = fields.get("start_hold").and_then(|n| report.duration(n, Millis::ZERO)) {
        global.start_hold = hold;
    }
    if let Some(decline) = fields.get("rapid_decline_per_hour").and_then(|n| rapid_decline(report, n)) {
        global.rapid_decline_per_hour = decline;
    }
}

fn read_storage(report: &mut Report, node: &Node, main: &mut MainFile) {
    const KNOWN: [&str; 8] =
        ["keep", "allowlist", "raw_retention", "signal_retention", "memory_limit", "max_series", "snapshot", "journal"];
    let Some(fields) = report.fields(node, "`storage`", &KNOWN) else { return };
    if let Some(fields) = fields.get("snapshot").and_then(|n| report.fields(n, "`snapshot`", &["interval"]))
        && let Some(interval) = fields.get("interval").and_then(|n| report.duration(n, SNAPSHOT_INTERVAL_MIN))
    {
        main.snapshot_interval = Some(interval);
    }
    if let Some(node) = fields.get("journal") {
        read_journal(report, node, &mut main.journal);
    }
    if let Some(span) = fields.get("raw_retention").and_then(|n| report.duration(n, Millis::MINUTE)) {
        main.store.raw_retention = span;
    }
    if let Some(span) = fields.get("signal_retention").and_then(|n| report.duration(n, Millis::MINUTE)) {
        main.store.signal_retention = span;
    }
    if let Some(bytes) = fields.get("memory_limit").and_then(|n| report.bytes(n, MEMORY_BYTES_MIN, usize::MAX)) {
        main.store.memory_bytes_max = bytes;
    }
    if let Some(series) = fields.get("max_series").and_then(|n| report.count(n, 1, 1_000_000_000)) {
        main.store.series_max = series as usize;
    }
    let all =
        fields.get("keep").and_then(|n| report.word(n, "a value of `keep`", &[("rules", false), ("all", true)], &[]));
    let mut allowlist = Vec::new();
    if let Some(node) = fields.get("allowlist") {
        for item in report.list(node, "series selectors") {
            allowlist.extend(report.selector(item));
        }
        if all == Some(true) {
            let help = "remove one of the two";
            report.warning(node.at, "config/unused", "`keep: all` keeps what the allowlist names anyway", help);
        }
    }
    main.keep = if all == Some(true) { Keep::All } else { Keep::Rules { allowlist } };
}

fn read_journal(report: &mut Report, node: &Node, journal: &mut SegmentSettings) {
    const KNOWN: [&str; 3] = ["segment_size", "retention", "max_size"];
    let Some(fields) = report.fields(node, "`journal`", &KNOWN) else { return };
    for (key, low, bytes) in
        [("segment_size", 1 << 20, &mut journal.segment_bytes), ("max_size", 1 << 20, &mut journal.closed_bytes_max)]
    {
        if let Some(given) = fields.get(key).and_then(|n| report.bytes(n, low, 1 << 40)) {
            *bytes = given as u64;
        }
    }
    if let Some(span) = fields.get("retention").and_then(|n| report.duration(n, JOURNAL_RETENTION_MIN)) {
        journal.retention = span;
    }
}

fn read_limits(report: &mut Report, node: &Node, limits: &mut ingest::Limits) {
    const KNOWN: [&str; 7] = [
        "max_wire_size",
        "max_decoded_size",
        "max_series",
        "max_samples",
        "max_labels",
        "max_label_name_size",
        "max_label_value_size",
    ];
    let Some(fields) = report.fields(node, "`ingest`", &KNOWN) else { return };
    for (key, low, limit) in [
        ("max_wire_size", 1 << 16, &mut limits.wire_bytes_max),
        ("max_decoded_size", 1 << 16, &mut limits.decoded_bytes_max),
        ("max_label_name_size", 16, &mut limits.label_name_bytes_max),
        ("max_label_value_size", 16, &mut limits.label_value_bytes_max),
    ] {
        if let Some(bytes) = fields.get(key).and_then(|n| report.bytes(n, low, 1 << 30)) {
            *limit = bytes;
        }
    }
    for (key, limit) in [
        ("max_series", &mut limits.series_max),
        ("max_samples", &mut limits.samples_max),
        ("max_labels", &mut limits.labels_max),
    ] {
        if let Some(count) = fields.get(key).and_then(|n| report.count(n, 1, 10_000_000)) {
            *limit = count as usize;
        }
    }
}

fn named_files(report: &mut Report, node: Option<&Node>) -> Vec<(String, Place)> {
    let Some(node) = node else { return Vec::new() };
    let items = report.list(node, "files");
    items.iter().filter_map(|item| report.text(item, "a path").map(|path| (path, item.at))).collect()
}

fn read_actuators(report: &mut Report, files: Files<'_>, node: &Node, main: &mut MainFile) {
    let Some(fields) = report.mapping(node, "`actuators`") else { return };
    for (key, value) in fields.entries() {
        main.actuator_names.push(key.text.clone());
        let Some(kind) = report.mapping(value, "an actuator") else { continue };
        let kinds: Vec<_> = kind.entries().collect();
        let [(kind_key, kind_node)] = kinds[..] else {
            let message = format!("actuator `{}` names {} kinds", key.text, kinds.len());
            let help = format!("name one: {}", quoted(&ACTUATOR_KINDS));
            report.error(key.at, "config/wrong-type", message, help);
            continue;
        };
        let kind = read_kind(report, files, &kind_key.text, kind_key.at, kind_node);
        main.actuators.extend(kind.map(|kind| ActuatorSettings { name: key.text.clone(), kind }));
    }
}

fn read_notify(report: &mut Report, files: Files<'_>, node: &Node) -> NotifySettings {
    let mut notify = NotifySettings::default();
    let Some(fields) = report.fields(node, "`notify`", &["alertmanagers", "grafana", "webhooks"]) else {
        return notify;
    };
    if let Some(list) = fields.get("alertmanagers") {
        for item in report.list(list, "Alertmanagers") {
            let Some(settings) = read_alertmanager(report, files, item) else { continue };
            if notify.alertmanagers.iter().any(|known| known.url == settings.url) {
                let message = format!("Alertmanager {} is listed twice", settings.url);
                report.error(item.at, "config/duplicate-name", message, "list each once");
            }
            notify.alertmanagers.push(settings);
        }
    }
    notify.grafana = fields.get("grafana").and_then(|n| read_grafana(report, files, n));
    if let Some(list) = fields.get("webhooks") {
        for item in report.list(list, "webhooks") {
            notify.webhooks.extend(read_notify_webhook(report, files, item));
        }
    }
    notify
}

fn notice_timeout(report: &mut Report, fields: Fields<'_>) -> Millis {
    fields.get("timeout").and_then(|n| report.duration(n, Millis(100))).unwrap_or(Millis::SECOND * 10)
}

fn read_alertmanager(report: &mut Report, files: Files<'_>, node: &Node) -> Option<AlertmanagerSettings> {
    let fields = report.fields(node, "an Alertmanager", &["url", "token_file", "timeout"])?;
    let url = report.required(fields, "an Alertmanager", "url").and_then(|n| read_url(report, n, Local::Allowed));
    let token_file = fields.get("token_file").and_then(|n| files.secret(report, n));
    let timeout = notice_timeout(report, fields);
    Some(AlertmanagerSettings { url: url?, token_file, timeout })
}

fn read_grafana(report: &mut Report, files: Files<'_>, node: &Node) -> Option<GrafanaSettings> {
    let fields = report.fields(node, "`grafana`", &["url", "token_file", "tags", "timeout"])?;
    let url = report.required(fields, "`grafana`", "url").and_then(|n| read_url(report, n, Local::Allowed));
    let token_file = fields.get("token_file").and_then(|n| files.secret(report, n));
    let tags = fields.get("tags").map_or_else(|| vec!["forestall".to_owned()], |n| report.texts(n, "a tag"));
    let timeout = notice_timeout(report, fields);
    Some(GrafanaSettings { url: url?, token_file, tags, timeout })
}

fn read_notify_webhook(report: &mut Report, files: Files<'_>, node: &Node) -> Option<NotifyWebhookSettings> {
    const KNOWN: [&str; 5] = ["url", "hmac_secret_file", "hmac_secret_files", "timeout", "allow_local"];
    let fields = report.fields(node, "a webhook", &KNOWN)?;
    let allow_local = fields.get("allow_local").and_then(|n| report.truth(n)).unwrap_or(false);
    let local = if allow_local { Local::Allowed } else { Local::Refused };
    let url = report.required(fields, "a webhook", "url").and_then(|n| read_url(report, n, local));
    let hmac_secret_files = read_hmac_files(report, files, fields);
    let timeout = notice_timeout(report, fields);
    Some(NotifyWebhookSettings { url: url?, hmac_secret_files, timeout, allow_local })
}
