//! Where there is room: free capacity per node, with what this plan has promised already.
//!
//! All resources are indexed once, so that a node is a short row of numbers. Identical replicas fit a node
//! independently of one another: so many fit a pool as fit its nodes in all, and no search is needed to know it.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{amount, count, whole};
use super::{Capacity, Constraints, Resources};

/// Amounts may exceed a limit by this share of it: sums of decimal fractions are not exact.
const ROUNDING: f64 = 1e-9;

/// One amount per resource, in the order of `Room::resources`.
pub(super) type Row = Vec<f64>;

/// Free capacity of all pools.
#[derive(Debug, Clone)]
pub(super) struct Room {
    resources: Vec<String>,
    pools: Vec<PoolRoom>,
    by_name: BTreeMap<String, usize>,
}

#[derive(Debug, Clone)]
pub(super) struct PoolRoom {
    pub(super) nodes: Vec<NodeRoom>,
    /// Which resources some node of the pool reports; the others cannot be checked and do not limit.
    pub(super) measured: Vec<bool>,
}

#[derive(Debug, Clone)]
pub(super) struct NodeRoom {
    pub(super) name: String,
    labels: BTreeMap<String, String>,
    allocatable: Row,
    used: Row,
    at_risk: bool,
    /// Quarantined or left in this plan.
    closed: bool,
}

/// The part of a pool in which one policy may place something.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Site {
    pub(super) pool: String,
    index: usize,
    /// Indexes of the nodes that may get something, ascending.
    pub(super) nodes: Vec<usize>,
    /// Of those, the ones to fill first, ascending; all where the policy prefers none.
    preferred: Vec<usize>,
    /// The share of allocatable that may be promised, per resource.
    share: Row,
}

/// What is to be placed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Demand {
    /// So many pieces of one size, each on any node of the site.
    Anywhere { pieces: u32, size: Row },
    /// So much on each of these nodes.
    OnNodes(Vec<(usize, Row)>),
}

/// What evictions free on nodes of one pool, before it is really taken.
pub(super) type Freed = BTreeMap<usize, Row>;

impl Room {
    /// The room in a capacity; nodes of these names are at risk themselves.
    pub(super) fn of(capacity: &Capacity, nodes_at_risk: &BTreeSet<&str>) -> Room {
        let nodes = capacity.pools.values().flatten();
        let named = nodes.flat_map(|node| node.allocatable.keys()).collect::<BTreeSet<_>>();
        let resources: Vec<String> = named.into_iter().cloned().collect();
        let row = |amounts: &Resources, unknown: f64| -> Row {
            let known = |name| amounts.get(name).map(|a| if a.is_finite() { a.max(0.0) } else { unknown });
            resources.iter().map(|name| known(name).unwrap_or(0.0)).collect()
        };
        let mut pools = Vec::new();
        for nodes in capacity.pools.values() {
            let mut rooms: Vec<NodeRoom> = nodes
                .iter()
                .map(|node| NodeRoom {
                    name: node.name.clone(),
                    labels: node.labels.clone(),
                    allocatable: row(&node.allocatable, 0.0),
                    // What is not a number could be anything: nothing is promised of it.
                    used: row(&node.used, f64::MAX),
                    at_risk: nodes_at_risk.contains(node.name.as_str()),
                    closed: false,
                })
                .collect();
            rooms.sort_by(|a, b| a.name.cmp(&b.name));
            let measured = resources.iter().map(|r| nodes.iter().any(|n| n.allocatable.contains_key(r))).collect();
            pools.push(PoolRoom { nodes: rooms, measured });
        }
        let by_name = capacity.pools.keys().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        Room { resources, pools, by_name }
    }

    pub(super) fn pool(&self, name: &str) -> Option<&PoolRoom> {
        self.by_name.get(name).map(|index| &self.pools[*index])
    }

    /// Amounts as a row; resources that no node reports are left out, what is not a number counts as nothing.
    pub(super) fn row(&self, amounts: &Resources) -> Row {
        let amount = |name| amounts.get(name).copied().filter(|a| a.is_finite()).unwrap_or(0.0).max(0.0);
        self.resources.iter().map(amount).collect()
    }

    /// Where in a pool a policy may place something, these nodes left out. Nothing where the pool is not known.
    pub(super) fn site(&self, pool: &str, constraints: &Constraints, except: &[String]) -> Option<Site> {
        let index = *self.by_name.get(pool)?;
        let room = &self.pools[index];
        let allowed = |node: &NodeRoom| {
            let shunned = node.closed || except.contains(&node.name) || (constraints.avoid_at_risk && node.at_risk);
            !shunned && has_labels(node, &constraints.node_selector)
        };
        let nodes: Vec<usize> = (0..room.nodes.len()).filter(|index| allowed(&room.nodes[*index])).collect();
        let is_preferred = |index: &usize| has_labels(&room.nodes[*index], &constraints.node_preferred);
        let preferred = nodes.iter().copied().filter(is_preferred).collect();
        let share = |name| constraints.max_per_node.get(name).copied().filter(|s| s.is_finite()).unwrap_or(1.0);
        Some(Site { pool: pool.to_owned(), index, nodes, preferred, share: self.resources.iter().map(share).collect() })
    }

    /// Whether a node of the site is one to fill first.
    pub(super) fn is_preferred(&self, site: &Site, node: usize) -> bool {
        site.preferred.binary_search(&node).is_ok()
    }

    /// How many pieces of a size fit on the nodes to fill first.
    pub(super) fn fitting_preferred(&self, site: &Site, size: &[f64]) -> u64 {
        let none = Freed::new();
        site.preferred.iter().map(|node| u64::from(self.slots_on(site, *node, size, &none))).sum()
    }

    /// How much more of each resource a node may get.
    pub(super) fn free(&self, site: &Site, node: usize, freed: &Freed) -> Row {
        let back = freed.get(&node);
        (0..self.resources.len()).map(|resource| self.free_of(site, node, back, resource)).collect()
    }

    fn free_of(&self, site: &Site, node: usize, back: Option<&Row>, resource: usize) -> f64 {
        let node = &self.pools[site.index].nodes[node];
        let limit = node.allocatable[resource] * site.share[resource] * (1.0 + ROUNDING);
        limit - node.used[resource] + back.map_or(0.0, |row| row[resource])
    }

    /// How many pieces of a size fit on a node.
    pub(super) fn slots_on(&self, site: &Site, node: usize, size: &[f64], freed: &Freed) -> u32 {
        let back = freed.get(&node);
        self.slots(site, size, |resource| self.free_of(site, node, back, resource))
    }

    /// Whether one piece of a size fits into what is free.
    pub(super) fn fits(&self, site: &Site, free: &[f64], size: &[f64]) -> bool {
        self.slots(site, size, |resource| free[resource]) > 0
    }

    fn slots(&self, site: &Site, size: &[f64], free: impl Fn(usize) -> f64) -> u32 {
        let measured = &self.pools[site.index].measured;
        let wanted = (0..size.len()).filter(|resource| measured[*resource] && size[*resource] > 0.0);
        let slots = wanted.map(|resource| whole((free(resource) / size[resource] + ROUNDING).floor())).min();
        slots.unwrap_or(u32::MAX)
    }

    /// How many of a demand's pieces would fit, and how many there are.
    pub(super) fn fitting(&self, site: &Site, demand: &Demand, freed: &Freed) -> (u64, u64) {
        match demand {
            Demand::Anywhere { pieces, size } => {
                let slots = site.nodes.iter().map(|node| self.slots_on(site, *node, size, freed));
                let fitting = slots.map(u64::from).sum::<u64>();
                (fitting, u64::from(*pieces))
            }
            Demand::OnNodes(needs) => {
                let fits = |(node, size): &&(usize, Row)| self.slots_on(site, *node, size, freed) > 0;
                (needs.iter().filter(fits).count() as u64, needs.len() as u64)
            }
        }
    }

    /// Promises what fits of a demand: preferred nodes first, and of those the tightest, so that large gaps stay for large
    /// replicas.
    pub(super) fn reserve(&mut self, site: &Site, demand: &Demand) {
        match demand {
            Demand::OnNodes(needs) => needs.iter().for_each(|(node, size)| self.change_used(site, *node, size, 1.0)),
            Demand::Anywhere { pieces, size } => {
                let none = Freed::new();
                let mut candidates: Vec<(bool, f64, usize, u32)> = Vec::new();
                for node in site.nodes.iter().copied() {
                    let slots = self.slots_on(site, node, size, &none);
                    if slots > 0 {
                        let shunned = !self.is_preferred(site, node);
                        candidates.push((shunned, self.slack(site, node, size), node, slots));
                    }
                }
                candidates.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
                let mut left = *pieces;
                for (.., node, slots) in candidates {
                    let placed = slots.min(left);
                    self.change_used(site, node, size, f64::from(placed));
                    left -= placed;
                }
            }
        }
    }

    /// Takes what evictions free off the books.
    pub(super) fn release(&mut self, site: &Site, freed: &Freed) {
        for (node, row) in freed {
            self.change_used(site, *node, row, -1.0);
        }
    }

    /// Nothing more is placed on these nodes in this plan.
    pub(super) fn close(&mut self, names: &[String]) {
        for node in self.pools.iter_mut().flat_map(|pool| &mut pool.nodes) {
            node.closed |= names.contains(&node.name);
        }
    }

    /// The nodes at risk among these, by name.
    pub(super) fn at_risk_among(&self, pool: &str, names: &BTreeMap<String, u32>) -> Vec<String> {
        let Some(room) = self.pool(pool) else { return Vec::new() };
        let at_risk = room.nodes.iter().filter(|node| node.at_risk && names.contains_key(&node.name));
        at_risk.map(|node| node.name.clone()).collect()
    }

    /// The fullest node among these: by the largest used share of any resource, then by name.
    pub(super) fn fullest_among(&self, pool: &str, names: &BTreeMap<String, u32>) -> Option<String> {
        let nodes = self.pool(pool)?.nodes.iter().filter(|node| names.contains_key(&node.name));
        let fullness = |node: &NodeRoom| {
            let shares = node.used.iter().zip(&node.allocatable).filter(|(_, a)| **a > 0.0).map(|(u, a)| u / a);
            shares.fold(0.0, f64::max)
        };
        nodes
            .min_by(|a, b| fullness(b).total_cmp(&fullness(a)).then_with(|| a.name.cmp(&b.name)))
            .map(|n| n.name.clone())
    }

    /// One over what a pool can give of each resource in all: what makes amounts of different resources comparable.
    pub(super) fn unit_weights(&self, pool: &str) -> Row {
        let Some(room) = self.pool(pool) else { return vec![0.0; self.resources.len()] };
        let total = |resource: usize| room.nodes.iter().map(|node| node.allocatable[resource]).sum::<f64>();
        (0..self.resources.len())
            .map(|resource| if total(resource) > 0.0 { 1.0 / total(resource) } else { 0.0 })
            .collect()
    }

    /// A row in words: `1.5 cores and 2 GiB of memory`.
    pub(super) fn say(&self, row: &[f64]) -> String {
        let amounts = self.resources.iter().zip(row).filter(|(_, value)| **value > 0.0);
        let said: Vec<String> = amounts
            .map(|(name, value)| match name.as_str() {
                "cpu" => amount(name, *value),
                _ => format!("{} of {name}", amount(name, *value)),
            })
            .collect();
        if said.is_empty() { "an unknown size".to_owned() } else { said.join(" and ") }
    }

    /// What is missing, in words.
    pub(super) fn gap(&self, site: &Site, demand: &Demand) -> String {
        let (fitting, _) = self.fitting(site, demand, &Freed::new());
        let nodes = count(site.nodes.len() as u64, "node");
        match demand {
            Demand::Anywhere { pieces, size } => format!(
                "{} of {} each asked for room on {nodes} of pool {}, and {fitting} fit",
                count(u64::from(*pieces), "replica"),
                self.say(size),
                site.pool
            ),
            Demand::OnNodes(needs) => {
                format!(
                    "{} of pool {} must give more in place, and {fitting} of them can",
                    count(needs.len() as u64, "node"),
                    site.pool
                )
            }
        }
    }

    /// The largest share of the node that would be left of any resource.
    fn slack(&self, site: &Site, node: usize, size: &[f64]) -> f64 {
        let free = self.free(site, node, &Freed::new());
        let allocatable = &self.pools[site.index].nodes[node].allocatable;
        let left = free.iter().zip(size).zip(allocatable).filter(|(_, a)| **a > 0.0).map(|((f, s), a)| (f - s) / a);
        left.fold(0.0, f64::max)
    }

    fn change_used(&mut self, site: &Site, node: usize, row: &[f64], times: f64) {
        for (used, amount) in self.pools[site.index].nodes[node].used.iter_mut().zip(row) {
            *used = (*used + amount * times).max(0.0);
        }
    }
}

fn has_labels(node: &NodeRoom, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| node.labels.get(name) == Some(value))
}

impl Site {
    /// The index of a node of the pool, whether or not it may get something.
    pub(super) fn node_index(&self, room: &Room, name: &str) -> Option<usize> {
        room.pool(&self.pool)?.nodes.binary_search_by(|node| node.name.as_str().cmp(name)).ok()
    }
}
