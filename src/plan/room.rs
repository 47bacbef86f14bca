//! Where there is room: free capacity per node, with what this plan has promised already.
//!
//! All resources are indexed once, so that a node is a short row of numbers. Identical replicas fit a node
//! independently of one another: so many fit a pool as fit its nodes in all, and no search is needed to know it.
//!
//! How many pieces of one size fit each node of a [`Ground`] is kept in a table. A pool writes down which of its nodes
//! changed; a table reads on from where it left, so that a decision costs what it changes and not the size of the pool.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use super::words::{amount, count, whole};
use super::{Capacity, Constraints, Resources};

/// Amounts may exceed a limit by this share of it: sums of decimal fractions are not exact.
const ROUNDING: f64 = 1e-9;

/// So many tables are kept; at more, all are made anew as they are asked for.
pub(super) const TABLES_MAX: usize = 256;

/// One amount per resource, in the order of `Room::resources`.
pub(super) type Row = Vec<f64>;

/// Free capacity of all pools.
#[derive(Debug, Clone)]
pub(super) struct Room {
    resources: Vec<String>,
    pools: Vec<PoolRoom>,
    by_name: BTreeMap<String, usize>,
    grounds: RefCell<Grounds>,
    tables: RefCell<BTreeMap<TableKey, Table>>,
}

/// A ground's number and the bits of a size.
pub(super) type TableKey = (usize, Vec<u64>);

/// The grounds that were asked for, until a node is closed.
#[derive(Debug, Clone, Default)]
struct Grounds {
    all: Vec<Rc<Ground>>,
    /// How many there have been, the number of the next.
    made: usize,
}

/// How many pieces of one size fit the nodes of a ground.
#[derive(Debug, Clone)]
struct Table {
    /// How many of the pool's changes are in it.
    seen: usize,
    /// Per node of the pool; none where it is not of the ground.
    slots: Vec<u32>,
    /// Per node of the pool: see [`Room::slack`].
    slack: Vec<f64>,
    /// The sum of `slots`.
    fitting: u64,
}

#[derive(Debug, Clone)]
pub(super) struct PoolRoom {
    pub(super) nodes: Vec<NodeRoom>,
    /// Which resources some node of the pool reports; the others cannot be checked and do not limit.
    pub(super) measured: Vec<bool>,
    has_nodes_at_risk: bool,
    /// Nodes whose room changed in this plan, in that order.
    pub(super) changed: Vec<usize>,
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

/// The nodes of a pool on which the same constraints allow to place something.
#[derive(Debug)]
pub(super) struct Ground {
    /// One for each set of constraints and pool.
    pub(super) number: usize,
    pool: String,
    index: usize,
    avoid_at_risk: bool,
    selector: BTreeMap<String, String>,
    prefer: BTreeMap<String, String>,
    /// Indexes of the nodes that may get something, ascending.
    nodes: Vec<usize>,
    /// Per node of the pool: whether it is among `nodes`, and …
    allowed: Vec<bool>,
    /// … whether it is to be filled first; all are where the policy prefers none.
    preferred: Vec<bool>,
    /// The share of allocatable that may be promised, per resource.
    share: Row,
}

/// The part of a pool in which something may be placed: a ground, some nodes left out.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) ground: Rc<Ground>,
    /// Nodes of the ground that are left out, ascending.
    except: Vec<usize>,
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
            let has_nodes_at_risk = rooms.iter().any(|node| node.at_risk);
            pools.push(PoolRoom { nodes: rooms, measured, has_nodes_at_risk, changed: Vec::new() });
        }
        let by_name = capacity.pools.keys().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        Room { resources, pools, by_name, grounds: RefCell::default(), tables: RefCell::default() }
    }

    pub(super) fn pool(&self, name: &str) -> Option<&PoolRoom> {
        self.by_name.get(name).map(|index| &self.pools[*index])
    }

    /// How many nodes the pool of a site has.
    pub(super) fn nodes_of(&self, site: &Site) -> usize {
        self.pools[site.ground.index].nodes.len()
    }

    /// Amounts as a row; resources that no node reports are left out, what is not a number counts as nothing.
    pub(super) fn row(&self, amounts: &Resources) -> Row {
        let amount = |name| amounts.get(name).copied().filter(|a| a.is_finite()).unwrap_or(0.0).max(0.0);
        self.resources.iter().map(amount).collect()
    }

    /// Where in a pool a policy may place something, these nodes left out. Nothing where the pool is not known.
    pub(super) fn site(&self, pool: &str, constraints: &Constraints, except: &[String]) -> Option<Site> {
        let index = *self.by_name.get(pool)?;
        let ground = self.ground(index, pool, constraints);
        let left_out = except.iter().flat_map(|name| self.pools[index].named(name));
        let left_out: BTreeSet<usize> = left_out.filter(|node| ground.allowed[*node]).collect();
        Some(Site { ground, except: left_out.into_iter().collect() })
    }

    fn ground(&self, index: usize, pool: &str, constraints: &Constraints) -> Rc<Ground> {
        let share = |name| constraints.max_per_node.get(name).copied().filter(|s| s.is_finite()).unwrap_or(1.0);
        let share: Row = self.resources.iter().map(share).collect();
        let mut grounds = self.grounds.borrow_mut();
        let same = |ground: &&Rc<Ground>| {
            ground.index == index
                && ground.avoid_at_risk == constraints.avoid_at_risk
                && ground.share == share
                && ground.selector == constraints.node_selector
                && ground.prefer == constraints.node_preferred
        };
        if let Some(ground) = grounds.all.iter().find(same) {
            return Rc::clone(ground);
        }
        let nodes = &self.pools[index].nodes;
        let allowed = |node: &NodeRoom| {
            let shunned = node.closed || (constraints.avoid_at_risk && node.at_risk);
            !shunned && has_labels(node, &constraints.node_selector)
        };
        let allowed: Vec<bool> = nodes.iter().map(allowed).collect();
        let ground = Rc::new(Ground {
            number: grounds.made,
            pool: pool.to_owned(),
            index,
            avoid_at_risk: constraints.avoid_at_risk,
            selector: constraints.node_selector.clone(),
            prefer: constraints.node_preferred.clone(),
            nodes: (0..nodes.len()).filter(|node| allowed[*node]).collect(),
            preferred: nodes.iter().map(|node| has_labels(node, &constraints.node_preferred)).collect(),
            allowed,
            share,
        });
        grounds.made += 1;
        grounds.all.push(Rc::clone(&ground));
        ground
    }

    /// How many pieces of a size fit on the nodes to fill first.
    pub(super) fn fitting_preferred(&self, site: &Site, size: &[f64]) -> u64 {
        let preferred = site.nodes().filter(|node| site.ground.preferred[*node]);
        self.with_table(&site.ground, size, |table| preferred.map(|node| u64::from(table.slots[node])).sum())
    }

    /// Reads the table of a size, brought up to date.
    fn with_table<T>(&self, ground: &Ground, size: &[f64], read: impl FnOnce(&Table) -> T) -> T {
        let mut tables = self.tables.borrow_mut();
        let key = table_key(ground, size);
        if tables.len() >= TABLES_MAX && !tables.contains_key(&key) {
            tables.clear();
        }
        let nodes = self.pools[ground.index].nodes.len();
        let table = tables.entry(key).or_insert_with(|| Table {
            seen: usize::MAX,
            slots: vec![0; nodes],
            slack: vec![0.0; nodes],
            fitting: 0,
        });
        let changed = &self.pools[ground.index].changed;
        match changed.get(table.seen..) {
            Some(news) if news.len() < ground.nodes.len() => {
                news.iter()
                    .filter(|node| ground.allowed[**node])
                    .for_each(|node| self.refresh(table, ground, *node, size));
            }
            _ => ground.nodes.iter().for_each(|node| self.refresh(table, ground, *node, size)),
        }
        table.seen = changed.len();
        read(table)
    }

    fn refresh(&self, table: &mut Table, ground: &Ground, node: usize, size: &[f64]) {
        let slots = self.slots(ground, size, |resource| self.free_of(ground, node, None, resource));
        table.fitting = table.fitting - u64::from(table.slots[node]) + u64::from(slots);
        table.slots[node] = slots;
        table.slack[node] = if slots > 0 { self.slack(ground, node, size) } else { 0.0 };
    }

    /// How much more of each resource a node may get.
    pub(super) fn free(&self, ground: &Ground, node: usize, freed: &Freed) -> Row {
        let back = freed.get(&node);
        (0..self.resources.len()).map(|resource| self.free_of(ground, node, back, resource)).collect()
    }

    fn free_of(&self, ground: &Ground, node: usize, back: Option<&Row>, resource: usize) -> f64 {
        let node = &self.pools[ground.index].nodes[node];
        let limit = node.allocatable[resource] * ground.share[resource] * (1.0 + ROUNDING);
        limit - node.used[resource] + back.map_or(0.0, |row| row[resource])
    }

    /// How many pieces of a size fit on a node.
    pub(super) fn slots_on(&self, ground: &Ground, node: usize, size: &[f64], freed: &Freed) -> u32 {
        let back = freed.get(&node);
        self.slots(ground, size, |resource| self.free_of(ground, node, back, resource))
    }

    /// Whether one piece of a size fits into what is free.
    pub(super) fn fits(&self, ground: &Ground, free: &[f64], size: &[f64]) -> bool {
        self.slots(ground, size, |resource| free[resource]) > 0
    }

    fn slots(&self, ground: &Ground, size: &[f64], free: impl Fn(usize) -> f64) -> u32 {
        let measured = &self.pools[ground.index].measured;
        let wanted = (0..size.len()).filter(|resource| measured[*resource] && size[*resource] > 0.0);
        let slots = wanted.map(|resource| whole((free(resource) / size[resource] + ROUNDING).floor())).min();
        slots.unwrap_or(u32::MAX)
    }

    /// How many of a demand's pieces would fit, and how many there are.
    pub(super) fn fitting(&self, site: &Site, demand: &Demand) -> (u64, u64) {
        match demand {
            Demand::Anywhere { pieces, size } => (self.slots_in(site, size), u64::from(*pieces)),
            Demand::OnNodes(needs) => {
                let none = Freed::new();
                let fits = |(node, size): &&(usize, Row)| self.slots_on(&site.ground, *node, size, &none) > 0;
                (needs.iter().filter(fits).count() as u64, needs.len() as u64)
            }
        }
    }

    /// How many pieces of a size fit on a site.
    pub(super) fn slots_in(&self, site: &Site, size: &[f64]) -> u64 {
        self.with_table(&site.ground, size, |table| {
            table.fitting - site.except.iter().map(|node| u64::from(table.slots[*node])).sum::<u64>()
        })
    }

    /// Promises what fits of a demand: preferred nodes first, and of those the tightest, so that large gaps stay for large
    /// replicas.
    pub(super) fn reserve(&mut self, site: &Site, demand: &Demand) {
        match demand {
            Demand::OnNodes(needs) => {
                needs.iter().for_each(|(node, size)| self.change_used(&site.ground, *node, size, 1.0));
            }
            Demand::Anywhere { pieces, size } => {
                let mut left = *pieces;
                for (.., node, slots) in self.tightest(site, size, left as usize) {
                    let placed = slots.min(left);
                    self.change_used(&site.ground, node, size, f64::from(placed));
                    left -= placed;
                }
            }
        }
    }

    /// So many nodes on which something of a size fits, the first to fill first: shunned, slack, node, slots.
    fn tightest(&self, site: &Site, size: &[f64], most: usize) -> Vec<(bool, f64, usize, u32)> {
        if most == 0 {
            return Vec::new();
        }
        let order = |a: &(bool, f64, usize, u32), b: &(bool, f64, usize, u32)| {
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2))
        };
        let mut fitting: Vec<(bool, f64, usize, u32)> = self.with_table(&site.ground, size, |table| {
            let with_room = site.nodes().filter(|node| table.slots[*node] > 0);
            with_room.map(|node| (!site.ground.preferred[node], table.slack[node], node, table.slots[node])).collect()
        });
        if most < fitting.len() {
            fitting.select_nth_unstable_by(most, order);
            fitting.truncate(most);
        }
        fitting.sort_by(order);
        fitting
    }

    /// Takes what evictions free off the books.
    pub(super) fn release(&mut self, site: &Site, freed: &Freed) {
        for (node, row) in freed {
            self.change_used(&site.ground, *node, row, -1.0);
        }
    }

    /// Nothing more is placed on these nodes in this plan.
    pub(super) fn close(&mut self, names: &[String]) {
        for pool in &mut self.pools {
            for name in names {
                let named = pool.named(name);
                if !named.is_empty() {
                    pool.nodes[named].iter_mut().for_each(|node| node.closed = true);
                    self.grounds.get_mut().all.clear();
                }
            }
        }
    }

    /// The nodes at risk among these, by name.
    pub(super) fn at_risk_among(&self, pool: &str, names: &BTreeMap<String, u32>) -> Vec<String> {
        // There seldom is one, and many ask.
        if !self.pool(pool).is_some_and(|pool| pool.has_nodes_at_risk) {
            return Vec::new();
        }
        let at_risk = self.among(pool, names).filter(|node| node.at_risk);
        at_risk.map(|node| node.name.clone()).collect()
    }

    fn among<'r>(&'r self, pool: &str, names: &'r BTreeMap<String, u32>) -> impl Iterator<Item = &'r NodeRoom> {
        let pool = self.pool(pool).into_iter();
        pool.flat_map(|pool| names.keys().flat_map(|name| &pool.nodes[pool.named(name)]))
    }

    /// The fullest node among these: by the largest used share of any resource, then by name.
    pub(super) fn fullest_among(&self, pool: &str, names: &BTreeMap<String, u32>) -> Option<String> {
        let fullness = |node: &NodeRoom| {
            let shares = node.used.iter().zip(&node.allocatable).filter(|(_, a)| **a > 0.0).map(|(u, a)| u / a);
            shares.fold(0.0, f64::max)
        };
        let fullest = self
            .among(pool, names)
            .min_by(|a, b| fullness(b).total_cmp(&fullness(a)).then_with(|| a.name.cmp(&b.name)));
        fullest.map(|node| node.name.clone())
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
        let (fitting, _) = self.fitting(site, demand);
        let nodes = count((site.ground.nodes.len() - site.except.len()) as u64, "node");
        match demand {
            Demand::Anywhere { pieces, size } => format!(
                "{} of {} each asked for room on {nodes} of pool {}, and {fitting} fit",
                count(u64::from(*pieces), "replica"),
                self.say(size),
                site.pool()
            ),
            Demand::OnNodes(needs) => {
                format!(
                    "{} of pool {} must give more in place, and {fitting} of them can",
                    count(needs.len() as u64, "node"),
                    site.pool()
                )
            }
        }
    }

    /// The largest share of the node that would be left of any resource.
    fn slack(&self, ground: &Ground, node: usize, size: &[f64]) -> f64 {
        let allocatable = &self.pools[ground.index].nodes[node].allocatable;
        let sized = (0..size.len()).filter(|resource| allocatable[*resource] > 0.0);
        let left = sized.map(|r| (self.free_of(ground, node, None, r) - size[r]) / allocatable[r]);
        left.fold(0.0, f64::max)
    }

    fn change_used(&mut self, ground: &Ground, node: usize, row: &[f64], times: f64) {
        let pool = &mut self.pools[ground.index];
        for (used, amount) in pool.nodes[node].used.iter_mut().zip(row) {
            *used = (*used + amount * times).max(0.0);
        }
        pool.changed.push(node);
    }
}

impl PoolRoom {
    /// The nodes of a name: one, where the capacity is right.
    fn named(&self, name: &str) -> Range<usize> {
        let from = self.nodes.partition_point(|node| node.name.as_str() < name);
        let same = self.nodes[from..].iter().take_while(|node| node.name == name).count();
        from..from + same
    }
}

/// What tells the table of a size on a ground from others.
pub(super) fn table_key(ground: &Ground, size: &[f64]) -> TableKey {
    (ground.number, size.iter().map(|amount| amount.to_bits()).collect())
}

fn has_labels(node: &NodeRoom, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| node.labels.get(name) == Some(value))
}

impl Demand {
    /// How many pieces it has.
    pub(super) fn pieces(&self) -> u64 {
        match self {
            Demand::Anywhere { pieces, .. } => u64::from(*pieces),
            Demand::OnNodes(needs) => needs.len() as u64,
        }
    }
}

impl Ground {
    /// The nodes that may get something, ascending.
    pub(super) fn nodes(&self) -> &[usize] {
        &self.nodes
    }

    pub(super) fn allows(&self, node: usize) -> bool {
        self.allowed[node]
    }

    /// Whether a node is one to fill first.
    pub(super) fn is_preferred(&self, node: usize) -> bool {
        self.preferred[node]
    }

    pub(super) fn pool(&self) -> &str {
        &self.pool
    }
}

impl Site {
    pub(super) fn pool(&self) -> &str {
        &self.ground.pool
    }

    fn nodes(&self) -> impl Iterator<Item = usize> {
        self.ground.nodes.iter().copied().filter(|node| !self.leaves_out(*node))
    }

    /// The nodes of the ground that are left out, ascending.
    pub(super) fn left_out(&self) -> &[usize] {
        &self.except
    }

    /// Whether a node of the ground is left out.
    pub(super) fn leaves_out(&self, node: usize) -> bool {
        self.except.binary_search(&node).is_ok()
    }

    /// The index of a node of the pool, whether or not it may get something.
    pub(super) fn node_index(&self, room: &Room, name: &str) -> Option<usize> {
        room.pool(self.pool())?.nodes.binary_search_by(|node| node.name.as_str().cmp(name)).ok()
    }
}
