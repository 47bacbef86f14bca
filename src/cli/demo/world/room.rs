//! Nodes, what they have to give, and which replica runs where.

use super::fleet::{FLEET, NODES};

/// Cores, bytes of memory, bytes of disk.
pub(super) type Amounts = [f64; 3];
/// Place of cores in [`Amounts`].
pub(super) const CPU: usize = 0;
/// Place of memory in [`Amounts`].
pub(super) const MEMORY: usize = 1;
/// Place of disk in [`Amounts`].
pub(super) const DISK: usize = 2;
/// Names of the resources, in the order of [`Amounts`].
pub(super) const RESOURCES: [&str; 3] = ["cpu", "memory", "disk"];

/// Bytes of a GiB.
pub(super) const GIB: f64 = 1_073_741_824.0;

/// What is asked for may exceed what is there by this share: sums of requests are not exact.
const ROUNDING: f64 = 1e-9;

/// Why there is no way to do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A node and what is promised on it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) pool: &'static str,
    pub(super) allocatable: Amounts,
    pub(super) used: Amounts,
    pub(super) cordoned: bool,
}

impl Node {
    fn fits(&self, need: &Amounts) -> bool {
        (0..3).all(|r| self.used[r] + need[r] <= self.allocatable[r] * (1.0 + ROUNDING))
    }
}

/// What a change did to the processes of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Replicas that are gone, by their place before the change, highest first.
    pub(super) removed: Vec<usize>,
    /// Replicas that started anew, by their place after removals.
    pub(super) restarted: Vec<usize>,
    /// How many came into being.
    pub(super) added: usize,
}

/// Who runs where. Cheap to clone: a change is tried on a copy before it is accepted.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub(super) nodes: Vec<Node>,
    /// The node of each replica, per service of the fleet.
    pub(super) placed: Vec<Vec<usize>>,
    /// What each replica requests, per service of the fleet.
    pub(super) requests: Vec<Amounts>,
}

impl Room {
    /// The fleet as it is at the start.
    pub(super) fn new() -> Room {
        let node = |&(name, pool, [cpu, memory, disk]): &(&'static str, &'static str, Amounts)| {
            let allocatable = [cpu, memory * GIB, disk * GIB];
            Node { name, pool, allocatable, used: [0.0; 3], cordoned: false }
        };
        let mut room = Room {
            nodes: NODES.iter().map(node).collect(),
            placed: vec![Vec::new(); FLEET.len()],
            requests: FLEET.iter().map(|s| [s.cpu, s.memory_gib * GIB, s.disk_gib * GIB]).collect(),
        };
        // Large replicas first: otherwise the small ones leave gaps that nothing fits in.
        let mut order: Vec<usize> = (0..FLEET.len()).collect();
        order.sort_by(|&a, &b| FLEET[b].cpu.total_cmp(&FLEET[a].cpu));
        for service in order {
            room.scale(service, FLEET[service].replicas as usize).expect("the fleet fits on its nodes at the start");
        }
        room
    }

    /// Sets the number of replicas.
    pub(super) fn scale(&mut self, service: usize, replicas: usize) -> Result<Effect, Refusal> {
        let before = self.clone();
        let mut effect = Effect::default();
        let need = self.requests[service];
        while self.placed[service].len() < replicas {
            let Some(node) = self.node_for(service, &need, &[]) else {
                *self = before;
                return Err(Room::no_room(service, &need));
            };
            self.take(node, &need, 1.0);
            self.placed[service].push(node);
            effect.added += 1;
        }
        while self.placed[service].len() > replicas {
            let fullest = |&a: &usize, &b: &usize| {
                let used = |place: usize| self.nodes[self.placed[service][place]].used[CPU];
                used(a).total_cmp(&used(b)).then(a.cmp(&b))
            };
            let place = (0..self.placed[service].len()).max_by(fullest).expect("there is a replica to remove");
            let node = self.placed[service].remove(place);
            self.take(node, &need, -1.0);
            effect.removed.push(place);
        }
        Ok(effect)
    }

    /// Sets what each replica requests: in place where its node has room, otherwise the replica moves and restarts.
    pub(super) fn resize(&mut self, service: usize, to: Amounts) -> Result<Effect, Refusal> {
        let before = self.clone();
        let mut effect = Effect::default();
        let from = self.requests[service];
        for place in 0..self.placed[service].len() {
            let here = self.placed[service][place];
            self.take(here, &from, -1.0);
            let node = if self.nodes[here].fits(&to) { Some(here) } else { self.node_for(service, &to, &[here]) };
            let Some(node) = node else {
                *self = before;
                return Err(Room::no_room(service, &to));
            };
            self.take(node, &to, 1.0);
            if node != here {
                self.placed[service][place] = node;
                effect.restarted.push(place);
            }
        }
        self.requests[service] = to;
        Ok(effect)
    }

    /// Moves the replicas on some nodes to others, where they start anew.
    pub(super) fn leave(&mut self, service: usize, from_nodes: &[usize]) -> Result<Effect, Refusal> {
        let before = self.clone();
        let mut effect = Effect::default();
        let need = self.requests[service];
        for place in 0..self.placed[service].len() {
            let here = self.placed[service][place];
            if !from_nodes.contains(&here) {
                continue;
            }
            self.take(here, &need, -1.0);
            let Some(node) = self.node_for(service, &need, from_nodes) else {
                *self = before;
                return Err(Room::no_room(service, &need));
            };
            self.take(node, &need, 1.0);
            self.placed[service][place] = node;
            effect.restarted.push(place);
        }
        Ok(effect)
    }

    /// The node of the service's pool with the fewest of its replicas, then the most free cores, on which it fits.
    fn node_for(&self, service: usize, need: &Amounts, except: &[usize]) -> Option<usize> {
        let fits = |&index: &usize| {
            let node = &self.nodes[index];
            node.pool == FLEET[service].pool && !node.cordoned && !except.contains(&index) && node.fits(need)
        };
        let here = |index: usize| self.placed[service].iter().filter(|&&node| node == index).count();
        let free = |index: usize| self.nodes[index].allocatable[CPU] - self.nodes[index].used[CPU];
        (0..self.nodes.len())
            .filter(fits)
            .min_by(|&a, &b| here(a).cmp(&here(b)).then(free(b).total_cmp(&free(a))).then(a.cmp(&b)))
    }

    fn take(&mut self, node: usize, amounts: &Amounts, sign: f64) {
        for (used, amount) in self.nodes[node].used.iter_mut().zip(amounts) {
            *used += sign * amount;
        }
    }

    fn no_room(service: usize, need: &Amounts) -> Refusal {
        let [cpu, memory, disk] = *need;
        Refusal(format!(
            "no node of pool {} has room for {}: {cpu} cores, {:.1} GiB of memory, {:.0} GiB of disk",
            FLEET[service].pool,
            FLEET[service].service(),
            memory / GIB,
            disk / GIB,
        ))
    }
}
