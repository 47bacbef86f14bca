//! Pools → what is free to give now, measured by PromQL.

use std::collections::BTreeMap;

use super::observe::Observer;
use crate::config::{PoolSettings, WorkloadSettings};
use crate::health::NumberOrQuery;
use crate::model::ComponentId;
use crate::plan::{Capacity, Node, Resources, Workload};
use crate::query::Query;

/// Measures every pool.
pub(super) fn measure(observer: &mut Observer<'_>, pools: &[PoolSettings]) -> Capacity {
    let mut capacity = Capacity::default();
    for pool in pools.iter().filter(|pool| pool.cluster.is_none()) {
        capacity.pools.insert(pool.name.clone(), nodes(observer, pool));
        for workload in &pool.workloads {
            capacity.workloads.extend(workloads(observer, pool, workload));
        }
    }
    capacity
}

/// Adds what clusters tell of.
pub(super) fn add(capacity: &mut Capacity, told: Capacity) {
    capacity.pools.extend(told.pools);
    capacity.workloads.extend(told.workloads);
    capacity.autoscaled.extend(told.autoscaled);
    capacity.workloads.sort_by(|a, b| a.component.cmp(&b.component));
    capacity.workloads.dedup_by(|a, b| a.component == b.component);
}

fn nodes(observer: &mut Observer<'_>, pool: &PoolSettings) -> Vec<Node> {
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    let mut amounts = |resource: &str, expr: &Query, place: fn(&mut Node) -> &mut Resources| {
        for element in observer.elements(&format!("pool {}, {resource}", pool.name), expr) {
            let name = element.labels.get(&pool.node_label).unwrap_or(&pool.name).to_owned();
            if !element.sample.value.is_finite() {
                continue;
            }
            let node = nodes.entry(name.clone()).or_insert_with(|| Node {
                name,
                allocatable: Resources::new(),
                used: Resources::new(),
                labels: BTreeMap::new(),
            });
            node.labels.extend(element.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())));
            place(node).insert(resource.to_owned(), element.sample.value);
        }
    };
    for (resource, expr) in &pool.capacity {
        amounts(resource, expr, |node| &mut node.allocatable);
    }
    for (resource, expr) in &pool.used {
        amounts(resource, expr, |node| &mut node.used);
    }
    // What a node uses is only room when we know what it has.
    nodes.into_values().filter(|node| !node.allocatable.is_empty()).collect()
}

fn workloads(observer: &mut Observer<'_>, pool: &PoolSettings, settings: &WorkloadSettings) -> Vec<Workload> {
    let what = |part: &str| format!("pool {}, workloads {}, {part}", pool.name, settings.kind);
    let mut values = |part: &str, expr: &Query| observer.by_component(&what(part), &settings.kind, &settings.by, expr);
    let replicas = values("replicas", &settings.replicas);
    let requests: BTreeMap<&String, BTreeMap<ComponentId, f64>> =
        settings.requests.iter().map(|(resource, expr)| (resource, values(resource, expr))).collect();
    let mut numbers = |part: &str, source: &Option<NumberOrQuery>| match source {
        Some(NumberOrQuery::Query(expr)) => (values(part, expr), None),
        Some(NumberOrQuery::Number(number)) => (BTreeMap::new(), Some(*number)),
        None => (BTreeMap::new(), None),
    };
    let (priorities, priority) = numbers("priority", &settings.priority);
    let (minima, minimum) = numbers("replicas_min", &settings.replicas_min);
    let mut on_nodes: BTreeMap<ComponentId, BTreeMap<String, u32>> = BTreeMap::new();
    if let Some(expr) = &settings.placement {
        for element in observer.elements(&what("placement"), expr) {
            let id = ComponentId::of(&settings.kind, &settings.by, &element.labels);
            let node = element.labels.get(&pool.node_label).unwrap_or("").to_owned();
            on_nodes.entry(id).or_default().insert(node, whole(element.sample.value));
        }
    }
    let workload = |(component, count): (ComponentId, f64)| Workload {
        pool: pool.name.clone(),
        replicas: whole(count),
        per_replica: requests
            .iter()
            .filter_map(|(resource, by)| Some(((*resource).clone(), by.get(&component).copied()?)))
            .filter(|(_, amount)| amount.is_finite())
            .collect(),
        priority: rounded(priorities.get(&component).copied().or(priority).unwrap_or(0.0)),
        replicas_min: whole(minima.get(&component).copied().or(minimum).unwrap_or(1.0)),
        on_nodes: on_nodes.get(&component).cloned().unwrap_or_default(),
        component,
    };
    replicas.into_iter().map(workload).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
fn whole(value: f64) -> u32 {
    if value.is_nan() { 0 } else { value.round().clamp(0.0, f64::from(u32::MAX)) as u32 }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range first")]
fn rounded(value: f64) -> i64 {
    if value.is_nan() { 0 } else { value.round().clamp(-1e15, 1e15) as i64 }
}
