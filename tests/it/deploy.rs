//! What ships beside the binary: alert rules, Alertmanager's configuration, Grafana's dashboard, the compose file. Each is
//! checked with the program that will read it where that can be had, and otherwise for what its reader relies on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value, json};

use crate::real::{Alertmanager, SOON, Suite, eventually, http, parts};

/// Every metric on forestall's `/metrics`: what the rules and the dashboard may build on.
const METRICS: &[&str] = &[
    "forestall_action_duration_seconds",
    "forestall_alerts_total",
    "forestall_breaker_open",
    "forestall_budget_remaining",
    "forestall_build_info",
    "forestall_channel_muted",
    "forestall_channel_precision_ratio",
    "forestall_component_expected_loss_ratio",
    "forestall_component_failure_probability",
    "forestall_component_health_ratio",
    "forestall_component_health_slope_per_hour",
    "forestall_component_impact_ratio",
    "forestall_component_rank",
    "forestall_component_time_to_breach_seconds",
    "forestall_cycle_duration_seconds",
    "forestall_cycle_overruns_total",
    "forestall_decision_blocked",
    "forestall_decisions_total",
    "forestall_forecast_coverage_ratio",
    "forestall_journal_rows",
    "forestall_leader",
    "forestall_model_selected",
    "forestall_paused",
    "forestall_predictions_total",
    "forestall_remote_write_samples_total",
    "forestall_rule_brier_score",
    "forestall_rule_calibration_error_ratio",
    "forestall_rule_lead_time_seconds",
    "forestall_rule_precision_ratio",
    "forestall_rule_recall_ratio",
    "forestall_signal_data_age_seconds",
    "forestall_signal_failure_probability",
    "forestall_signal_forecast",
    "forestall_signal_history_seconds",
    "forestall_signal_outside_interval",
    "forestall_signal_peer_deviation",
    "forestall_signal_threshold",
    "forestall_store_dropped_total",
    "forestall_store_memory_bytes",
    "forestall_store_series",
];
/// Those of [`METRICS`] that have no value until a breach was foreseen or missed, a forecast's time has come, or a rule asks.
const ONLY_WITH_OUTCOMES: &[&str] = &[
    "forestall_channel_muted",
    "forestall_channel_precision_ratio",
    "forestall_signal_peer_deviation",
    "forestall_rule_brier_score",
    "forestall_rule_calibration_error_ratio",
    "forestall_rule_lead_time_seconds",
    "forestall_rule_precision_ratio",
    "forestall_rule_recall_ratio",
];
/// The evaluated signals: series of forestall's own store, read through its query API.
const STORED: &[&str] = &["forestall_signal"];

/// Checks the page of a forestall that has data and has acted: each of [`METRICS`] has a value where there is something to
/// say.
pub(crate) fn every_metric_is_on(page: &str) {
    for metric in METRICS {
        let described = page.lines().any(|line| line.starts_with(&format!("# TYPE {metric} ")));
        let has_value = page.lines().any(|line| line.starts_with(metric));
        let may_be_missing = ONLY_WITH_OUTCOMES.contains(metric);
        assert!(described && has_value || may_be_missing, "{metric} has no value:\n{page}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn path(file: &str) -> String {
    root().join(file).display().to_string()
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// A YAML file with one document, as JSON: one kind of tree for all checks.
pub(crate) fn yaml(file: &Path) -> Value {
    let text = read(file);
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert_eq!(documents.len(), 1, "{}: one document", file.display());
    as_json(&documents[0])
}

fn as_json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => json!(value),
        Yaml::Value(Scalar::Integer(value)) => json!(value),
        Yaml::Value(Scalar::FloatingPoint(value)) => json!(value.into_inner()),
        Yaml::Value(Scalar::String(value)) => json!(value),
        Yaml::Sequence(items) => items.iter().map(as_json).collect(),
        Yaml::Mapping(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let key = key.as_str().unwrap_or_else(|| panic!("a key is text: {key:?}"));
                (key.to_owned(), as_json(value))
            });
            Value::Object(entries.collect::<Map<_, _>>())
        }
        other => panic!("plain YAML, without tags and aliases: {other:?}"),
    }
}

/// The items of a list, or nothing where it is absent.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text is expected: {value}"))
}

/// Parses as PromQL, and reads only metrics that forestall has.
fn check_expression(expr: &str, place: &str) {
    let expr = expr.replace("$__rate_interval", "5m").replace("offset $lead", "offset 15m");
    if let Err(error) = forestall::query::Query::parse(&expr) {
        panic!("{place}: {error}: {expr}");
    }
    let metric = Regex::new(r"\bforestall_[a-z_]+").expect("a valid pattern");
    for name in metric.find_iter(&expr).map(|m| m.as_str()) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(METRICS.contains(&family) || STORED.contains(&name), "{place}: no metric is called {name}");
    }
}

#[test]
fn prometheus_accepts_the_alert_rules_and_their_tests_pass() {
    let Some(parts) = parts() else { return };
    for suite in [Suite::Bookworm, Suite::Sid] {
        parts.run(suite, "promtool", &["check", "rules", &path("deploy/prometheus/forestall.rules.yml")]);
        parts.run(suite, "promtool", &["test", "rules", &path("deploy/prometheus/forestall.test.yml")]);
    }
}

#[test]
fn every_alert_has_a_test_and_reads_metrics_that_exist() {
    let rules = yaml(&root().join("deploy/prometheus/forestall.rules.yml"));
    let tests = yaml(&root().join("deploy/prometheus/forestall.test.yml"));
    let tested: BTreeSet<&str> = list(&tests["tests"])
        .flat_map(|test| list(&test["alert_rule_test"]))
        .filter(|case| list(&case["exp_alerts"]).next().is_some())
        .map(|case| text(&case["alertname"]))
        .collect();
    let mut alerts = BTreeSet::new();
    for rule in list(&rules["groups"]).flat_map(|group| list(&group["rules"])) {
        let alert = text(&rule["alert"]);
        check_expression(text(&rule["expr"]), alert);
        let has_component = rule["labels"]["component"].is_string() || rule["labels"]["forecast"].is_string();
        assert!(has_component && rule["labels"]["severity"].is_string(), "{alert}: component and severity");
        assert!(rule["annotations"]["summary"].is_string(), "{alert}: a summary");
        alerts.insert(alert);
    }
    assert_eq!(alerts, tested);
    assert!(alerts.len() >= 9, "{alerts:?}");
}

#[test]
fn prometheus_accepts_the_shipped_configuration() {
    let Some(parts) = parts() else { return };
    parts.run(Suite::Sid, "promtool", &["check", "config", &path("deploy/prometheus/prometheus.yml")]);
}

#[test]
fn alertmanager_accepts_the_shipped_configuration_and_routes_forecasts() {
    let Some(parts) = parts() else { return };
    let config = path("deploy/alertmanager/forestall.yml");
    for suite in [Suite::Bookworm, Suite::Sid] {
        parts.run(suite, "amtool", &["check-config", &config]);
        for (labels, receiver) in [
            (["alertname=PredictedFailure", "forecast=true", "severity=critical"], "forecasts"),
            (["alertname=PreventionBlocked", "forecast=true", "severity=warning"], "forecasts"),
            (["alertname=HighLatency", "component=host/a", "severity=critical"], "default"),
        ] {
            let file = format!("--config.file={config}");
            let expected = format!("--verify.receivers={receiver}");
            let args = [&["config", "routes", "test", file.as_str(), expected.as_str()], labels.as_slice()].concat();
            parts.run(suite, "amtool", &args);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_alert_silences_the_forecast_of_its_own_component_only() {
    let Some(parts) = parts() else { return };
    let config = read(&root().join("deploy/alertmanager/forestall.yml"));
    let alertmanager = Alertmanager::start(&parts, Suite::Sid, &config).await;
    let forecast = |component: &str, severity: &str| {
        json!({"labels": {
            "alertname": "PredictedFailure", "forecast": "true", "severity": severity, "component": component,
        }})
    };
    let alerts = json!([
        forecast("deployment/shop/cart", "warning"),
        forecast("deployment/shop/web", "warning"),
        forecast("host/a", "warning"),
        forecast("host/a", "critical"),
        {"labels": {"alertname": "CartDown", "severity": "critical", "component": "deployment/shop/cart"}},
        // Two without a component have that in common, and nothing else.
        {"labels": {"alertname": "NobodyKnowsWhat", "severity": "critical"}},
        {"labels": {"alertname": "PredictedFailure", "severity": "warning", "forecast": "true"}},
    ]);
    let url = format!("http://{}/api/v2/alerts", alertmanager.address());
    let answer = http().post(url).json(&alerts).send().await.expect("Alertmanager answers");
    assert!(answer.status().is_success(), "{}", answer.status());

    let expected = BTreeSet::from(["deployment/shop/cart warning".to_owned(), "host/a warning".to_owned()]);
    let what = format!("of all forecasts just these are silenced: {expected:?}");
    eventually(&what, SOON, async || {
        let alerts = alertmanager.alerts().await;
        let silenced: BTreeSet<String> = alerts
            .iter()
            .filter(|alert| list(&alert["status"]["inhibitedBy"]).next().is_some())
            .map(|alert| format!("{} {}", text(&alert["labels"]["component"]), text(&alert["labels"]["severity"])))
            .collect();
        (alerts.len() == 7 && silenced == expected).then_some(())
    })
    .await;
}

#[test]
fn the_dashboard_asks_only_what_can_be_answered() {
    let dashboard: Value = serde_json::from_str(&read(&root().join("grafana/forestall.json"))).expect("valid JSON");
    assert_eq!(dashboard["uid"], "forestall");
    let variables: Vec<&str> = list(&dashboard["templating"]["list"]).map(|v| text(&v["name"])).collect();
    assert_eq!(variables, ["datasource", "store", "kind", "component", "rule", "signal", "lead"]);

    let mut ids = BTreeSet::new();
    let mut expressions = 0;
    for panel in list(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: the id is taken");
        assert_eq!(panel["type"] == "row", panel["targets"].is_null(), "{title}: a row, or something asked");
        for target in list(&panel["targets"]) {
            check_expression(text(&target["expr"]), title);
            let source = text(&target["datasource"]["uid"]);
            assert!(matches!(source, "${datasource}" | "${store}"), "{title}: {source}");
            let signals_are_stored = STORED.iter().any(|name| text(&target["expr"]).starts_with(&format!("{name}{{")));
            assert_eq!(signals_are_stored, source == "${store}", "{title}: only forestall has the signals");
            expressions += 1;
        }
        for variable in panel_variables(panel) {
            let known = variables.contains(&variable.as_str()) || variable == "__rate_interval";
            assert!(known, "{title}: no variable ${variable}");
        }
    }
    assert!(expressions >= 20, "{expressions}");
    for annotation in list(&dashboard["annotations"]["list"]) {
        check_expression(text(&annotation["expr"]), "annotation");
    }
}

fn panel_variables(panel: &Value) -> BTreeSet<String> {
    let variable = Regex::new(r"\$\{?([a-z_]+)").expect("a valid pattern");
    variable.captures_iter(&panel.to_string()).map(|found| found[1].to_owned()).collect()
}

#[test]
fn panels_of_the_dashboard_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&read(&root().join("grafana/forestall.json"))).expect("valid JSON");
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        let place = |side: &str| panel["gridPos"][side].as_u64().expect("a place on the grid");
        assert!(place("x") + place("w") <= 24, "{}: wider than the grid", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{}: over another at {x}, {y}", panel["title"]);
            }
        }
    }
}

/// A bind mount of a service of the compose file: where from, where to.
struct Mount {
    from: PathBuf,
    to: String,
}

fn mounts(service: &Value) -> Vec<Mount> {
    let volumes = list(&service["volumes"]).map(text).filter(|volume| volume.starts_with(['.', '/']));
    let mount = |volume: &str| {
        let (from, rest) = volume.split_once(':').expect("from:to");
        let to = rest.split(':').next().expect("a first part");
        Mount { from: root().join("deploy").join(from), to: to.to_owned() }
    };
    volumes.map(mount).collect()
}

/// The file on this side of a path inside a service.
fn mounted(service: &Value, inside: &str) -> Option<PathBuf> {
    mounts(service).into_iter().find_map(|mount| {
        let rest = inside.strip_prefix(&mount.to)?;
        Some(if rest.is_empty() { mount.from } else { mount.from.join(rest.trim_start_matches('/')) })
    })
}

#[test]
fn the_compose_file_refers_to_what_exists() {
    let compose = yaml(&root().join("deploy/compose.yaml"));
    let services = compose["services"].as_object().expect("services");
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["alertmanager", "forestall", "grafana", "node-exporter", "prometheus"]);
    for (name, service) in services {
        for mount in mounts(service) {
            assert!(mount.from.exists(), "{name}: {} is not there", mount.from.display());
        }
        for volume in list(&service["volumes"]).map(text).filter(|volume| !volume.starts_with(['.', '/'])) {
            let volume = volume.split(':').next().expect("a first part");
            assert!(compose["volumes"].get(volume).is_some(), "{name}: the volume {volume} is not declared");
        }
        for argument in list(&service["command"]).map(text) {
            let Some(inside) = argument.strip_prefix("--config.file=") else { continue };
            let file = mounted(service, inside).unwrap_or_else(|| panic!("{name}: nothing is mounted for {inside}"));
            assert!(file.is_file(), "{name}: {} is not there", file.display());
        }
        let waits_for = service["depends_on"].as_object().into_iter().flat_map(Map::keys);
        for other in waits_for {
            assert!(services.contains_key(other), "{name}: waits for {other}");
        }
    }
    let context = root().join("deploy").join(text(&services["forestall"]["build"]["context"]));
    assert!(context.join("Dockerfile").is_file());
}

#[test]
fn the_compose_file_lets_nobody_in_and_gives_nobody_more_than_is_needed() {
    let compose = yaml(&root().join("deploy/compose.yaml"));
    let pinned = Regex::new(r":v?[0-9]+\.[0-9]+\.[0-9]+$").expect("a valid pattern");
    for (name, service) in compose["services"].as_object().expect("services") {
        if let Some(image) = service["image"].as_str() {
            assert!(pinned.is_match(image), "{name}: {image} is not pinned");
        }
        let user = text(&service["user"]);
        assert!(!user.starts_with("0:") && user != "0" && user != "root", "{name}: runs as root");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        for port in list(&service["ports"]).map(text) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the network");
        }
    }
}

#[test]
fn grafana_finds_its_data_sources_and_its_dashboard() {
    let compose = yaml(&root().join("deploy/compose.yaml"));
    let grafana = &compose["services"]["grafana"];
    let provisioning = mounted(grafana, "/etc/grafana/provisioning").expect("provisioning is mounted");

    let sources = yaml(&provisioning.join("datasources/prometheus.yml"));
    for source in list(&sources["datasources"]) {
        let host = text(&source["url"]).trim_start_matches("http://").split(':').next().expect("a host");
        assert!(compose["services"].get(host).is_some(), "{source}: no service is called {host}");
    }
    let providers = yaml(&provisioning.join("dashboards/forestall.yml"));
    let folder = text(&providers["providers"][0]["options"]["path"]);
    let dashboard = mounted(grafana, &format!("{folder}/forestall.json")).expect("the dashboard is mounted");
    assert!(dashboard.is_file());
}
