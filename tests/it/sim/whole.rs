//! The whole way, for a few seeds: what the world measures goes as remote-write bytes through ingest, store, query and
//! forecast before anything is planned.

use std::fmt::Write as _;

use forestall::api::Shared;
use forestall::ingest::{self, Batch, Protocol};
use forestall::model::{Labels, METRIC_NAME, Millis, Sample, Timestamp};

use super::chance::Chance;
use super::run::{Run, Wanted, runtime};
use super::script::{Eyes, Rules, Script};
use super::sight::{Fault, HORIZON, WARN};
use super::world::{Kind, START, Thing, World};

/// So many seeds run the whole way.
const SEEDS: std::ops::Range<u64> = 0..20;
/// What Prometheus has sent before a process begins.
const HISTORY: Millis = Millis(8 * Millis::HOUR.0);

/// Rules as a user would write them.
pub(crate) fn rule_file(rules: &[Rules], interval: Millis) -> String {
    let mut text = format!("groups:\n  - name: sim\n    interval: {interval}\n    rules:\n");
    for kind in rules.iter().map(|rules| rules.kind) {
        let (name, by) = (kind.name(), by(kind));
        let _ = write!(
            text,
            "      - predict: {name}\n        component:\n          kind: {name}\n          by: [{by}]\n          \
             impact: max by ({by}) (impact_ratio{{kind=\"{name}\"}})\n        horizon: {HORIZON}\n        signals:\n          \
             - name: load\n            expr: max by ({by}) (load_ratio{{kind=\"{name}\"}})\n            \
             breach: {{ above: 1, warn: {WARN} }}\n"
        );
        if kind != Kind::Node {
            text.push_str("            scales_with: replicas\n");
        }
    }
    text
}

/// The pools of a policy file.
pub(crate) fn pools(rules: &[Rules]) -> String {
    let mut text = String::new();
    for (pool, kind) in [("general", Kind::Deployment), ("workers", Kind::Queue)] {
        if !rules.iter().any(|rules| rules.kind == kind) {
            continue;
        }
        let (name, by) = (kind.name(), by(kind));
        let of = |metric: &str| format!("max by ({by}) ({metric}{{kind=\"{name}\"}})");
        let _ = write!(
            text,
            "  - name: {pool}\n    capacity:\n      cpu: max by (node) (machine_cores{{pool=\"{pool}\"}})\n      \
             used: {{ cpu: 'max by (node) (machine_cores_used{{pool=\"{pool}\"}})' }}\n    node_label: node\n    \
             workloads:\n      - kind: {name}\n        by: [{by}]\n        replicas: {}\n        \
             requests: {{ cpu: '{}' }}\n        priority: {}\n        replicas_min: {}\n        \
             placement: max by ({by}, node) (replicas_on{{kind=\"{name}\"}} > 0)\n",
            of("replicas"),
            of("cores"),
            of("priority"),
            of("replicas_min"),
        );
    }
    if text.is_empty() { text } else { format!("pools:\n{text}") }
}

fn by(kind: Kind) -> &'static str {
    match kind {
        Kind::Deployment => "namespace, deployment",
        Kind::Queue => "queue",
        Kind::Node => "node",
    }
}

fn labels(thing: &Thing, metric: &str) -> Labels {
    let own = thing.id.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Labels::new(own.chain([("kind", thing.kind.name()), (METRIC_NAME, metric)]))
}

/// What is measured at the world's time, stamped with forestall's clock, as far as it gets through.
pub(crate) fn samples(
    world: &World,
    at: Timestamp,
    faults: &[Fault],
    chance: &mut Chance,
) -> Vec<(Labels, Vec<Sample>)> {
    let mut samples = Vec::new();
    if faults.contains(&Fault::Outage) || faults.contains(&Fault::Frozen) {
        return samples;
    }
    let no_capacity = faults.contains(&Fault::NoCapacity);
    let mut junk = |value: f64| if faults.contains(&Fault::NotANumber) && chance.is(0.2) { f64::NAN } else { value };
    let mut add = |labels: Labels, value: f64| samples.push((labels, vec![Sample { at, value }]));
    for thing in world.things.iter().filter(|thing| !is_lost(world, thing, faults)) {
        add(labels(thing, "load_ratio"), junk(thing.utilisation(world.now)));
        add(labels(thing, "impact_ratio"), thing.impact);
        let untold = no_capacity || (faults.contains(&Fault::PartialCapacity) && thing.index % 3 == 1);
        if thing.kind == Kind::Node || untold {
            continue;
        }
        add(labels(thing, "replicas"), f64::from(thing.replicas));
        add(labels(thing, "replicas_min"), f64::from(thing.replicas_min));
        add(labels(thing, "cores"), thing.cpu);
        add(labels(thing, "priority"), thing.priority as f64);
        for machine in world.machines.iter().filter(|machine| machine.pool == thing.kind.pool()) {
            let here = thing.on.get(&machine.name).copied().unwrap_or(0);
            add(labels(thing, "replicas_on").with("node", &machine.name), f64::from(here));
        }
    }
    for (pool, nodes) in world.capacity().pools.iter().filter(|_| !no_capacity) {
        for node in nodes {
            let of = |metric| Labels::new([("pool", pool.as_str()), ("node", &node.name), (METRIC_NAME, metric)]);
            add(of("machine_cores"), node.allocatable["cpu"]);
            add(of("machine_cores_used"), junk(node.used["cpu"]));
        }
    }
    samples
}

/// Whether nothing of a component gets through.
fn is_lost(world: &World, thing: &Thing, faults: &[Fault]) -> bool {
    let half = world.things.iter().filter(|other| other.kind == thing.kind).count() / 2;
    faults.iter().any(|fault| match fault {
        Fault::HalfSilent(kind) => *kind == thing.kind && thing.index >= half,
        Fault::Vanished => thing.index.is_multiple_of(3),
        _ => false,
    })
}

/// What was measured before a process began.
pub(crate) fn history(world: &World, until: Timestamp, step: Millis) -> Vec<(Labels, Vec<Sample>)> {
    let series = world.things.iter().map(|thing| {
        let mut samples = Vec::new();
        let mut at = until - HISTORY;
        while at < until {
            samples.push(Sample { at, value: thing.utilisation(world.now - (until - at)) });
            at = at + step;
        }
        (labels(thing, "load_ratio"), samples)
    });
    series.collect()
}

/// Writes series as Prometheus does: bytes, which are decompressed, decoded and stored.
pub(crate) fn write(shared: &Shared, series: &[(Labels, Vec<Sample>)]) {
    let body = ingest::encode_v1(series);
    let (mut message, mut batch) = (Vec::new(), Batch::default());
    ingest::decompress(&body, &shared.limits, &mut message).expect("what was compressed can be decompressed");
    let now = shared.clock.now();
    let stored = shared.store.append_message(Protocol::V1, &message, &shared.limits, &mut batch, now);
    stored.expect("what was encoded can be decoded");
}

/// A script for the whole way: longer, since a forecast needs something to go by.
fn script(seed: u64) -> Script {
    let drawn = Script::draw(seed);
    let passes = drawn.passes.max(60);
    let interval = drawn.interval.max(Millis::MINUTE);
    let mut scale = drawn.scale;
    scale.begins = (Millis::MINUTE * 5, interval * i64::from(passes / 2));
    scale.calm_from = START + interval * i64::from(passes);
    (scale.troubled, scale.sudden) = (scale.troubled.max(0.9), 0.0);
    Script { passes, interval, scale, kills: drawn.kills / 5.0, eyes: Eyes::Forestalls, ..drawn }
}

#[test]
fn twenty_seeds_go_the_whole_way() {
    let runtime = runtime();
    let (mut broken, mut acts, mut given_back) = (Vec::new(), 0, 0);
    for seed in SEEDS {
        let ran = runtime.block_on(async { Run::begin(seed, script(seed)).whole(Wanted::Nothing).await });
        broken.extend(ran.broken.into_iter().map(|broken| (seed, broken)));
        acts += ran.tally.acts;
        given_back += ran.tally.given_back;
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(acts >= 20 && given_back >= 10, "{acts} actions, {given_back} of them given back: nothing was shown");
}
