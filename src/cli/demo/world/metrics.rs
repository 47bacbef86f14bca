//! What a Prometheus would scrape from the fleet: names as kube-state-metrics, cAdvisor, kubelet and HTTP services
//! have them, aggregated to deployments as a recording rule would, so that the whole fleet is about 600 series.

use std::collections::BTreeMap;

use crate::model::Labels;

use super::World;
use super::fleet::{FLEET, NODES, Spec};
use super::room::{CPU, DISK, MEMORY, RESOURCES};
use super::service::{BUCKETS, HEADROOM};

/// How many messages fit in a queue.
const QUEUE_LIMIT: f64 = 100_000.0;

/// Memory that a node's own processes take, GiB.
const SYSTEM_MEMORY_GIB: f64 = 2.0;

/// The labels of all series, made once.
#[derive(Debug, Clone)]
pub(super) struct Series {
    services: Vec<ServiceSeries>,
    nodes: Vec<NodeSeries>,
    /// By place of service and node: added when a service first runs there, and kept (with 0) when it has left.
    placements: BTreeMap<(usize, usize), Labels>,
}

#[derive(Debug, Clone)]
struct ServiceSeries {
    cpu_seconds: Labels,
    memory: Labels,
    limits: [Labels; 2],
    requests: Vec<Labels>,
    replicas: Labels,
    priority: Labels,
    impact: Labels,
    disk: [Labels; 2],
    queue: [Labels; 2],
    buckets: Vec<Labels>,
}

#[derive(Debug, Clone)]
struct NodeSeries {
    allocatable: [Labels; 3],
    available: Labels,
}

impl Series {
    pub(super) fn new() -> Series {
        Series {
            services: FLEET.iter().map(ServiceSeries::new).collect(),
            nodes: NODES.iter().map(|&(name, pool, _)| NodeSeries::new(name, pool)).collect(),
            placements: BTreeMap::new(),
        }
    }

    /// Sees to it that each place where something runs has its series.
    pub(super) fn note_placements(&mut self, placed: &[Vec<usize>]) {
        for (service, nodes) in placed.iter().enumerate() {
            for &node in nodes {
                self.placements.entry((service, node)).or_insert_with(|| {
                    labels(
                        "namespace_deployment_node:kube_pod_info:count",
                        &FLEET[service],
                        &[("pool", FLEET[service].pool), ("node", NODES[node].0)],
                    )
                });
            }
        }
    }
}

impl ServiceSeries {
    fn new(spec: &Spec) -> ServiceSeries {
        let kube = |name: &str, more: &[(&str, &str)]| {
            let mut more = more.to_vec();
            more.push(("pool", spec.pool));
            labels(name, spec, &more)
        };
        let of = |name: &str, resource: usize| kube(name, &[("resource", RESOURCES[resource])]);
        let requested = if spec.disk_gib > 0.0 { 3 } else { 2 };
        let bound = |index: usize| BUCKETS.get(index).map_or("+Inf".to_owned(), f64::to_string);
        let bucket =
            |index: usize| labels("http_request_duration_seconds_bucket", spec, &[("le", bound(index).as_str())]);
        ServiceSeries {
            cpu_seconds: labels("container_cpu_usage_seconds_total", spec, &[]),
            memory: labels("container_memory_working_set_bytes", spec, &[]),
            limits: [CPU, MEMORY].map(|r| of("kube_pod_container_resource_limits", r)),
            requests: (0..requested).map(|r| of("kube_pod_container_resource_requests", r)).collect(),
            replicas: kube("kube_deployment_status_replicas", &[]),
            priority: kube("kube_deployment_priority", &[]),
            impact: labels("business_impact_ratio", spec, &[]),
            disk: ["used", "capacity"].map(|of| labels(&format!("kubelet_volume_stats_{of}_bytes"), spec, &[])),
            queue: ["ready", "limit"].map(|of| labels(&format!("queue_messages_{of}"), spec, &[])),
            buckets: (0..=BUCKETS.len()).map(bucket).collect(),
        }
    }
}

impl NodeSeries {
    fn new(name: &str, pool: &str) -> NodeSeries {
        let of = |metric: &str, resource: &str| {
            Labels::new([("__name__", metric), ("node", name), ("pool", pool), ("resource", resource)])
        };
        NodeSeries {
            allocatable: RESOURCES.map(|resource| of("kube_node_status_allocatable", resource)),
            available: of("node_memory_MemAvailable_bytes", ""),
        }
    }
}

fn labels(name: &str, spec: &Spec, more: &[(&str, &str)]) -> Labels {
    let own = [("__name__", name), ("namespace", spec.namespace), ("deployment", spec.name)];
    Labels::new(own.into_iter().chain(more.iter().copied()))
}

/// All samples of the present minute, always in the same order.
pub(super) fn samples(world: &World) -> Vec<(Labels, f64)> {
    let mut samples = Vec::with_capacity(700);
    for (index, series) in world.series.services.iter().enumerate() {
        sample_service(world, index, series, &mut samples);
    }
    for (&(service, node), labels) in &world.series.placements {
        let here = world.room.placed[service].iter().filter(|&&n| n == node).count();
        samples.push((labels.clone(), here as f64));
    }
    for (index, series) in world.series.nodes.iter().enumerate() {
        let node = &world.room.nodes[index];
        for (labels, amount) in series.allocatable.iter().zip(node.allocatable) {
            samples.push((labels.clone(), amount));
        }
        samples.push((series.available.clone(), memory_available(world, index)));
    }
    samples
}

fn sample_service(world: &World, index: usize, series: &ServiceSeries, samples: &mut Vec<(Labels, f64)>) {
    let service = &world.services[index];
    let requests = &world.room.requests[index];
    let mut push = |labels: &Labels, value: f64| samples.push((labels.clone(), value));
    push(&series.cpu_seconds, service.cpu_seconds);
    push(&series.memory, service.memory_bytes(requests[MEMORY]));
    push(&series.limits[CPU], requests[CPU] * HEADROOM);
    push(&series.limits[MEMORY], requests[MEMORY] * HEADROOM);
    for (labels, amount) in series.requests.iter().zip(requests) {
        push(labels, *amount);
    }
    push(&series.replicas, world.room.placed[index].len() as f64);
    push(&series.priority, service.spec.priority as f64);
    push(&series.impact, service.spec.impact);
    if service.levels.disk.is_some() {
        push(&series.disk[0], service.disk_bytes(requests[DISK]));
        push(&series.disk[1], requests[DISK]);
    }
    if let Some(share) = service.levels.queue {
        push(&series.queue[0], (share * QUEUE_LIMIT).round());
        push(&series.queue[1], QUEUE_LIMIT);
    }
    if service.spec.has_latency() {
        for (labels, count) in series.buckets.iter().zip(service.requests) {
            push(labels, count.floor());
        }
    }
}

/// What is left of a node's memory when all that runs on it has its working set.
fn memory_available(world: &World, node: usize) -> f64 {
    let mut used = SYSTEM_MEMORY_GIB * super::room::GIB;
    for (index, placed) in world.room.placed.iter().enumerate() {
        let here = placed.iter().filter(|&&n| n == node).count() as f64;
        if here > 0.0 {
            used += here * world.services[index].memory_bytes(world.room.requests[index][MEMORY]);
        }
    }
    (world.room.nodes[node].allocatable[MEMORY] - used).max(0.0)
}
