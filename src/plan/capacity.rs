//! What is free to give, as it comes from Kubernetes or from PromQL.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Resources;
use crate::model::ComponentId;

/// A node, or a whole pool seen as one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it can give in all.
    pub allocatable: Resources,
    /// What is promised or used.
    pub used: Resources,
    /// Its labels, for node selectors.
    pub labels: BTreeMap<String, String>,
}

/// Something that runs: how much it has, and whether some of it may be taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The component.
    pub component: ComponentId,
    /// The pool it runs in.
    pub pool: String,
    /// How many replicas it has.
    pub replicas: u32,
    /// What each replica is promised.
    pub per_replica: Resources,
    /// Higher matters more.
    pub priority: i64,
    /// Fewer replicas than this it must not have.
    pub replicas_min: u32,
    /// How many replicas run on which node, where known.
    pub on_nodes: BTreeMap<String, u32>,
}

/// What is free to give now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Pool → its nodes, sorted by name.
    pub pools: BTreeMap<String, Vec<Node>>,
    /// What runs where, sorted by component.
    pub workloads: Vec<Workload>,
    /// Components whose replicas an autoscaler sets: another number than ours there is no sign that somebody took it over.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub autoscaled: BTreeSet<String>,
}
