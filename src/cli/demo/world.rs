//! A fleet that lives, ails, and obeys: services on nodes with finite room, on a simulated clock.
//!
//! ```text
//! seed ─► load, noise, trouble ─┐
//!                               ├─► levels ─► samples, failures
//! actions ─► room, replicas ────┘
//! ```
//!
//! Load, noise and trouble depend on (seed, service, minute) only. So a second world with the same seed that nobody
//! acts on is a true twin: every difference between the two comes from actions.

mod failures;
mod fleet;
mod metrics;
mod noise;
mod room;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::{Labels, Millis, Timestamp};
use crate::plan::{Action, ActionKind, Change, Resources};

pub use failures::{Failure, SIGNALS, Signal};
pub use fleet::{Class, FLEET, Spec};
pub use room::Refusal;

use failures::Watcher;
use room::{Amounts, DISK, Effect, MEMORY, RESOURCES, Room};
use service::Service;

/// One step of a world.
pub const STEP: Millis = Millis::MINUTE;

/// How many days all of the trouble takes; nothing fails on the first four.
pub const DAYS: i64 = 8;

/// A change that finds no room is tried for so many minutes before it fails.
const GIVE_UP_MINUTES: i64 = 15;

/// At most so many changes are under way at once; more are refused.
const PENDING_MAX: usize = 256;

/// No service may have more replicas than this.
const REPLICAS_MAX: u32 = 100;

/// A volume or a memory limit shrinks only as far as what is in it, with this share to spare.
const SHRINK_SPARE: f64 = 0.05;

/// How an action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It has taken effect.
    Done,
    /// It will take effect.
    Pending,
    /// It will not.
    Failed,
}

/// A simulated fleet.
#[derive(Debug, Clone)]
pub struct World {
    seed: u64,
    start: Timestamp,
    minute: i64,
    room: Room,
    services: Vec<Service>,
    watchers: Vec<Watcher>,
    pending: Vec<Pending>,
    statuses: BTreeMap<String, Status>,
    failures: Vec<Failure>,
    evicted_replica_minutes: u64,
    series: metrics::Series,
}

/// An accepted change that has not taken effect yet.
#[derive(Debug, Clone)]
struct Pending {
    action_id: String,
    subject: Subject,
    change: Change,
    kind: ActionKind,
    undoes: bool,
    due_minute: i64,
}

/// What a change is for.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Service(usize),
    Node(usize),
}

impl World {
    /// The fleet at its first minute.
    pub fn new(seed: u64, start: Timestamp) -> World {
        let episodes = fleet::episodes(seed);
        let services = FLEET.iter().zip(&episodes).map(|(spec, &episode)| Service::new(seed, spec, episode)).collect();
        let mut world = World {
            seed,
            start,
            minute: 0,
            room: Room::new(),
            services,
            watchers: vec![Watcher::default(); FLEET.len()],
            pending: Vec::new(),
            statuses: BTreeMap::new(),
            failures: Vec::new(),
            evicted_replica_minutes: 0,
            series: metrics::Series::new(),
        };
        world.live();
        world
    }

    /// Lives on until `at`, minute by minute; nothing happens where `at` is not at least a minute later than
    /// [`World::now`].
    pub fn step(&mut self, at: Timestamp) {
        while self.now() + STEP <= at {
            self.minute += 1;
            self.carry_out_due();
            self.live();
        }
    }

    /// The minute the world has lived through last.
    pub fn now(&self) -> Timestamp {
        self.start + STEP * self.minute
    }

    /// What a Prometheus would have scraped at this minute. The order is fixed; a series, once there, stays.
    pub fn samples(&self) -> Vec<(Labels, f64)> {
        metrics::samples(self)
    }

    /// Accepts an action, which takes effect one to four minutes later. The action's id is an idempotency key: told
    /// twice, done once, and a refused action stays refused.
    ///
    /// # Errors
    /// In words: an unknown target, a change that does not fit the target, no room on the nodes (what is
    /// already accepted counts), or a volume or limit that would become smaller than what is in it.
    pub fn apply(&mut self, action: &Action) -> Result<(), Refusal> {
        match self.statuses.get(&action.id) {
            Some(Status::Failed) => return Err(Refusal(format!("action {} has failed already", action.id))),
            Some(_) => return Ok(()),
            None => {}
        }
        let accepted = self.check(action);
        let status = if accepted.is_ok() { Status::Pending } else { Status::Failed };
        self.statuses.insert(action.id.clone(), status);
        self.pending.push(accepted?);
        Ok(())
    }

    /// How an action stands; nothing where nobody has told of it.
    pub fn status(&self, action_id: &str) -> Option<Status> {
        self.statuses.get(action_id).copied()
    }

    /// All failures so far, in the order in which they were noticed.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Replicas that evictions took, times the minutes they were missing.
    pub fn evicted_replica_minutes(&self) -> u64 {
        self.evicted_replica_minutes
    }

    /// Whether some node has promised more than it has; never, or the world is wrong.
    pub fn is_overcommitted(&self) -> bool {
        let over = |node: &room::Node| (0..3).any(|r| node.used[r] > node.allocatable[r] * 1.000_001);
        self.room.nodes.iter().any(over)
    }

    fn check(&self, action: &Action) -> Result<Pending, Refusal> {
        if self.pending.len() >= PENDING_MAX {
            return Err(Refusal(format!("{PENDING_MAX} changes are under way, try again later")));
        }
        let delay = noise::between(self.seed, noise::stream(&action.id), 0, 0.0, 4.0);
        let pending = Pending {
            action_id: action.id.clone(),
            subject: subject(action)?,
            change: action.change.clone(),
            kind: action.kind,
            undoes: action.undoes.is_some(),
            due_minute: self.minute + (1..=4).rfind(|&m| (m - 1) as f64 <= delay).unwrap_or(1),
        };
        // What is accepted already will be so by then: an eviction makes room for what is asked after it.
        let mut room = self.room.clone();
        for earlier in &self.pending {
            // One that finds no room at this point may find it later; its own time will tell.
            self.try_change(&mut room, earlier).ok();
        }
        self.try_change(&mut room, &pending)?;
        Ok(pending)
    }

    fn carry_out_due(&mut self) {
        let (due, later) = std::mem::take(&mut self.pending).into_iter().partition(|p| p.due_minute <= self.minute);
        self.pending = later;
        for pending in due {
            let mut room = self.room.clone();
            match self.try_change(&mut room, &pending) {
                Ok(effect) => {
                    self.room = room;
                    self.settle(&pending, &effect);
                    self.statuses.insert(pending.action_id, Status::Done);
                }
                Err(_) if self.minute < pending.due_minute + GIVE_UP_MINUTES => self.pending.push(pending),
                Err(_) => {
                    self.statuses.insert(pending.action_id, Status::Failed);
                }
            }
        }
    }

    /// Makes a change on a copy of the room, if it can be made.
    fn try_change(&self, room: &mut Room, pending: &Pending) -> Result<Effect, Refusal> {
        match (pending.subject, &pending.change) {
            (Subject::Node(node), _) if pending.kind == ActionKind::Quarantine => {
                room.nodes[node].cordoned = !pending.undoes;
                Ok(Effect::default())
            }
            (Subject::Node(_), _) => Err(Refusal("a node can only be cordoned".to_owned())),
            (Subject::Service(service), Change::Replicas { to, .. }) => {
                if !(1..=REPLICAS_MAX).contains(to) {
                    return Err(Refusal(format!("{to} replicas; between 1 and {REPLICAS_MAX} can be had")));
                }
                room.scale(service, *to as usize)
            }
            (Subject::Service(service), Change::Resources { to, .. }) => {
                let to = self.wanted_amounts(service, room.requests[service], to)?;
                room.resize(service, to)
            }
            (Subject::Service(service), Change::Move { from_nodes }) => {
                let leaves = |index: &usize| from_nodes.iter().any(|name| name == room.nodes[*index].name);
                let from: Vec<usize> = (0..room.nodes.len()).filter(leaves).collect();
                room.leave(service, &from)
            }
            (Subject::Service(_), Change::Shift { share }) if (0.0..=1.0).contains(share) => Ok(Effect::default()),
            (Subject::Service(_), Change::Shift { share }) => {
                Err(Refusal(format!("a share of {share} is not in 0..1")))
            }
            (Subject::Service(_), _) => Err(Refusal("only a node can be cordoned".to_owned())),
        }
    }

    /// What each replica is to request: what the change names, and for the rest what it has.
    fn wanted_amounts(&self, service: usize, now: Amounts, to: &Resources) -> Result<Amounts, Refusal> {
        let mut wanted = now;
        for (name, &amount) in to {
            let Some(resource) = RESOURCES.iter().position(|r| r == name) else {
                return Err(Refusal(format!("unknown resource {name:?}; there are cpu, memory and disk")));
            };
            if !(amount.is_finite() && amount > 0.0) {
                return Err(Refusal(format!("{amount} of {name} cannot be given")));
            }
            wanted[resource] = amount;
        }
        let requests = &self.room.requests[service];
        let disk_bytes = self.services[service].disk_bytes(requests[DISK]);
        if wanted[DISK] < now[DISK] && wanted[DISK] < disk_bytes * (1.0 + SHRINK_SPARE) {
            return Err(Refusal("the volume holds more than that; it cannot shrink".to_owned()));
        }
        let memory_bytes = self.services[service].memory_bytes(requests[MEMORY]);
        if wanted[MEMORY] < now[MEMORY] && wanted[MEMORY] * service::HEADROOM < memory_bytes * (1.0 + SHRINK_SPARE) {
            return Err(Refusal("the processes use more memory than that; the limit cannot shrink".to_owned()));
        }
        Ok(wanted)
    }

    /// What a change that has been made in the room does to the service.
    fn settle(&mut self, pending: &Pending, effect: &Effect) {
        let Subject::Service(index) = pending.subject else { return };
        let service = &mut self.services[index];
        service.take_effect(effect);
        if let Change::Shift { share } = pending.change {
            service.shifted = share;
        }
        if pending.kind == ActionKind::Evict && !pending.undoes {
            service.evicted += effect.removed.len();
        }
        service.evicted = service.evicted.saturating_sub(effect.added);
    }

    fn live(&mut self) {
        self.series.note_placements(&self.room.placed);
        for (index, service) in self.services.iter_mut().enumerate() {
            service.live(self.minute, &self.room.requests[index]);
            self.evicted_replica_minutes += service.evicted as u64;
            let (spec, levels) = (service.spec, &service.levels);
            self.watchers[index].look(spec, levels, self.minute, self.start, &mut self.failures);
        }
    }
}

fn subject(action: &Action) -> Result<Subject, Refusal> {
    let target = &action.target;
    if target.component.kind == "node" {
        let node = fleet::NODES.iter().position(|(name, ..)| *name == target.name);
        return node.map(Subject::Node).ok_or_else(|| Refusal(format!("there is no node {:?}", target.name)));
    }
    let is_target = |spec: &Spec| spec.namespace == target.namespace && spec.name == target.name;
    let service = FLEET.iter().position(is_target);
    service
        .map(Subject::Service)
        .ok_or_else(|| Refusal(format!("there is no deployment {:?} in namespace {:?}", target.name, target.namespace)))
}
