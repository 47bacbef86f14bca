//! The demo's files say the same as the world they are for.

use std::collections::BTreeSet;

use saphyr::{LoadableYamlNode, Yaml};

use super::world::{FLEET, SIGNALS, World};
use super::{MAIN_FILE, POLICY_FILE, RULE_FILE};
use crate::model::{METRIC_NAME, Millis, Timestamp};
use crate::query::Query;

fn load(text: &str) -> Yaml<'_> {
    let mut documents = Yaml::load_from_str(text).expect("the file is YAML");
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// The metrics that expressions select.
struct Metrics(BTreeSet<String>);

/// Parses all texts that are PromQL: those that aggregate, anywhere in the document.
fn metrics_selected(node: &Yaml<'_>, metrics: &mut Metrics) {
    if let Some(text) = node.as_str().filter(|text| text.contains("by (")) {
        let query = Query::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        for matchers in query.matcher_sets() {
            let name = matchers.into_iter().find(|matcher| matcher.name == METRIC_NAME);
            metrics.0.insert(name.expect("every selector of the demo names its metric").value);
        }
    }
    for child in node.as_sequence().into_iter().flatten() {
        metrics_selected(child, metrics);
    }
    for (_, child) in node.as_mapping().into_iter().flatten() {
        metrics_selected(child, metrics);
    }
}

#[test]
fn rules_and_pools_select_just_the_metrics_that_the_world_has() {
    let mut selected = Metrics(BTreeSet::new());
    metrics_selected(&load(RULE_FILE), &mut selected);
    metrics_selected(&load(POLICY_FILE), &mut selected);
    let world = World::new(1, Timestamp(0));
    let scraped: BTreeSet<String> = world.samples().iter().map(|(labels, _)| labels.metric_name().to_owned()).collect();
    assert_eq!(selected.0, scraped);
}

#[test]
fn the_rules_breach_where_the_world_says_that_a_service_fails() {
    let rules = load(RULE_FILE);
    let mut found = Vec::new();
    for rule in rules["groups"][0]["rules"].as_sequence().expect("rules are a list") {
        let horizon = Millis::parse(rule["horizon"].as_str().expect("a horizon")).expect("a duration");
        for signal in rule["signals"].as_sequence().expect("signals are a list") {
            let breach = &signal["breach"];
            let lasting = Millis::parse(breach["for"].as_str().expect("a for")).expect("a duration");
            let threshold = breach["above"].as_floating_point().expect("a threshold");
            let name = signal["name"].as_str().expect("a name").to_owned();
            found.push((name, threshold.to_string(), lasting, horizon));
        }
    }
    let expected =
        SIGNALS.map(|s| (s.name.to_owned(), s.threshold.to_string(), Millis::MINUTE * s.lasting_minutes, s.horizon));
    assert_eq!(found, expected);
}

#[test]
fn every_service_has_exactly_one_policy() {
    let policies = load(POLICY_FILE);
    let policies = policies["policies"].as_sequence().expect("policies are a list");
    for spec in FLEET {
        let matches = |policy: &&Yaml<'_>| {
            let pattern = policy["match"].as_mapping_get("namespace").and_then(Yaml::as_str).unwrap_or("-");
            regex::Regex::new(&format!("^(?:{pattern})$")).expect("a pattern").is_match(spec.namespace)
        };
        assert_eq!(policies.iter().filter(matches).count(), 1, "{spec:?}");
    }
}

#[test]
fn the_main_file_has_the_places_that_the_demo_fills() {
    let main = load(MAIN_FILE);
    let webhook = &main["actuators"]["fleet"]["webhook"];
    assert_eq!(webhook["url"].as_str(), Some("@URL@/actions"));
    assert_eq!(webhook["status_url"].as_str(), Some("@URL@/actions/{id}"));
    assert_eq!(webhook["hmac_secret_file"].as_str(), Some("@SECRET_FILE@"));
}
