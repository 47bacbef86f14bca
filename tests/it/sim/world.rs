//! The fleet: what runs where, with how much load, and who else changes it. It has its own time, which nobody sets.

use std::collections::{BTreeMap, BTreeSet};

use forestall::model::{ComponentId, Millis, Timestamp};
use forestall::plan::{Action, Capacity, Change, Node, Resources, Workload};

use super::chance::{Chance, noise};

/// The world begins on a Monday, 2026-03-02 08:00 UTC.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_772_438_400);

/// The kinds of components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Replicas on nodes, in a pool of several.
    Deployment,
    /// Replicas in a pool that is seen as one node.
    Queue,
    /// A machine of the pool of several.
    Node,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Deployment, Kind::Queue, Kind::Node];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Deployment => "deployment",
            Kind::Queue => "queue",
            Kind::Node => "node",
        }
    }

    pub(crate) fn pool(self) -> &'static str {
        match self {
            Kind::Deployment => "general",
            Kind::Queue => "workers",
            Kind::Node => "",
        }
    }

    fn id(self, index: usize) -> ComponentId {
        let labels = match self {
            Kind::Deployment => vec![("namespace", "shop".to_owned()), ("deployment", format!("d{index:02}"))],
            Kind::Queue => vec![("queue", format!("q{index:02}"))],
            Kind::Node => vec![("node", format!("n{index}"))],
        };
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        ComponentId { kind: self.name().to_owned(), labels }
    }
}

/// Who else changes a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Other {
    Nobody,
    /// Scales by itself towards a utilisation of 70 %.
    Autoscaler,
    /// Sets what is declared again each so often.
    GitOps,
}

/// Load grows, stays, and falls again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Episode {
    pub(crate) start: Timestamp,
    pub(crate) rise: Millis,
    pub(crate) hold: Millis,
    pub(crate) fall: Millis,
    /// In shares of the base load.
    pub(crate) height: f64,
}

impl Episode {
    fn height_at(&self, at: Timestamp) -> f64 {
        let since = at - self.start;
        if since < Millis::ZERO {
            return 0.0;
        }
        let share = if since < self.rise {
            since.as_secs_f64() / self.rise.as_secs_f64()
        } else if since < self.rise + self.hold {
            1.0
        } else {
            1.0 - (since - self.rise - self.hold).as_secs_f64() / self.fall.as_secs_f64()
        };
        self.height * share.clamp(0.0, 1.0)
    }
}

/// How much is asked of a component: the same whatever anybody does about it.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    /// In cores.
    pub(crate) base: f64,
    pub(crate) noise: f64,
    pub(crate) episodes: Vec<Episode>,
    /// From here on there is next to nothing to do: what was given is needed by nobody.
    pub(crate) calm_from: Timestamp,
}

impl Load {
    pub(crate) fn at(&self, at: Timestamp) -> f64 {
        if at >= self.calm_from {
            return self.base * 0.02;
        }
        let episodes: f64 = self.episodes.iter().map(|episode| episode.height_at(at)).sum();
        let minute = u64::try_from(at.0.div_euclid(15_000)).unwrap_or(0);
        let noise = self.noise * (2.0 * noise(self.seed, minute) - 1.0);
        self.base * (1.0 + episodes) * (1.0 + noise)
    }
}

/// A component.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    pub(crate) kind: Kind,
    /// Its place among those of its kind.
    pub(crate) index: usize,
    pub(crate) id: ComponentId,
    pub(crate) key: String,
    pub(crate) priority: i64,
    pub(crate) impact: f64,
    pub(crate) replicas_min: u32,
    /// As it is declared; what runs may be fewer.
    pub(crate) replicas: u32,
    /// In the declaration that GitOps goes back to.
    pub(crate) declared: u32,
    /// Cores of a replica.
    pub(crate) cpu: f64,
    pub(crate) on: BTreeMap<String, u32>,
    /// The share of its traffic that goes elsewhere.
    pub(crate) shifted: f64,
    pub(crate) cordoned: bool,
    /// More replicas do not help: the load is on something that they share.
    pub(crate) stubborn: bool,
    pub(crate) other: Other,
    pub(crate) load: Load,
}

impl Thing {
    /// Load over what can be borne; 1 is the breach.
    pub(crate) fn utilisation(&self, at: Timestamp) -> f64 {
        self.load.at(at) * (1.0 - self.shifted) / self.bears()
    }

    /// What it can bear, in the load's unit.
    pub(crate) fn bears(&self) -> f64 {
        if self.kind == Kind::Node {
            return 1.0;
        }
        let replicas = if self.stubborn { self.declared } else { self.on.values().sum() };
        (f64::from(replicas) * self.cpu).max(0.05)
    }
}

/// A machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) pool: &'static str,
    pub(crate) name: String,
    pub(crate) cpu: f64,
}

/// What a call changed.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) action_id: String,
    pub(crate) component: String,
    pub(crate) change: Change,
}

/// A call on its way.
#[derive(Debug, Clone)]
struct Delivery {
    due: Timestamp,
    action: Action,
    dedupes: bool,
    compares: bool,
}

/// How a call that a target has heard of stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    OnItsWay,
    Done,
    Refused(String),
}

/// Everything that there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) things: Vec<Thing>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) effects: Vec<Effect>,
    /// Component → when somebody other than forestall changed it the last time.
    pub(crate) changed_by_others: BTreeMap<String, Timestamp>,
    deliveries: Vec<Delivery>,
    heard: BTreeMap<String, Heard>,
    taken: BTreeSet<String>,
    people: Chance,
}

/// How large a world is, and how much happens in it.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    pub(crate) deployments: usize,
    pub(crate) queues: usize,
    pub(crate) machines: usize,
    /// Machines are components too.
    pub(crate) watches_machines: bool,
    /// What is free on machines at the start, as a share of what is used.
    pub(crate) spare: (f64, f64),
    /// The share of components that have an episode.
    pub(crate) troubled: f64,
    /// When episodes begin, counted from the start.
    pub(crate) begins: (Millis, Millis),
    /// The share of episodes without a warning.
    pub(crate) sudden: f64,
    /// How much the load varies by itself: between these shares of it.
    pub(crate) noise: (f64, f64),
    /// The share of components on which others act, and which no action helps.
    pub(crate) others: f64,
    pub(crate) stubborn: f64,
    pub(crate) calm_from: Timestamp,
}

impl World {
    pub(crate) fn new(seed: u64, scale: &Scale) -> World {
        let mut chance = Chance::new(seed, "world");
        let mut things = Vec::new();
        for (kind, count) in [(Kind::Deployment, scale.deployments), (Kind::Queue, scale.queues)] {
            things.extend((0..count).map(|index| thing(&mut chance, kind, index, scale)));
        }
        if scale.watches_machines {
            things.extend((0..scale.machines).map(|index| thing(&mut chance, Kind::Node, index, scale)));
        }
        let mut world = World {
            now: START,
            things,
            machines: Vec::new(),
            effects: Vec::new(),
            changed_by_others: BTreeMap::new(),
            deliveries: Vec::new(),
            heard: BTreeMap::new(),
            taken: BTreeSet::new(),
            people: Chance::new(seed, "people"),
        };
        world.build_machines(&mut chance, scale);
        for index in 0..world.things.len() {
            world.place(index);
        }
        world
    }

    fn build_machines(&mut self, chance: &mut Chance, scale: &Scale) {
        for (kind, count) in [(Kind::Deployment, scale.machines), (Kind::Queue, 1)] {
            let used: f64 = self.things.iter().filter(|t| t.kind == kind).map(|t| f64::from(t.replicas) * t.cpu).sum();
            for index in 0..count {
                let spare = chance.between(scale.spare.0, scale.spare.1);
                let cpu = (used / count as f64 * (1.0 + spare)).ceil().max(2.0);
                let name = if kind == Kind::Queue { "workers".to_owned() } else { format!("n{index}") };
                self.machines.push(Machine { pool: kind.pool(), name, cpu });
            }
        }
    }

    pub(crate) fn thing(&self, key: &str) -> Option<&Thing> {
        self.things.iter().find(|thing| thing.key == key)
    }

    fn used(&self, machine: &str) -> f64 {
        self.things.iter().map(|t| f64::from(t.on.get(machine).copied().unwrap_or(0)) * t.cpu).sum()
    }

    fn is_closed(&self, machine: &str) -> bool {
        self.things.iter().any(|t| t.kind == Kind::Node && t.cordoned && t.id.label("node") == Some(machine))
    }

    /// Starts and stops replicas until as many run as are declared, as far as there is room.
    fn place(&mut self, index: usize) {
        let pool = self.things[index].kind.pool();
        if pool.is_empty() {
            return;
        }
        loop {
            let thing = &self.things[index];
            let running: u32 = thing.on.values().sum();
            if running > thing.replicas {
                let fullest = thing.on.iter().max_by_key(|(_, replicas)| **replicas).map(|(name, _)| name.clone());
                let Some(name) = fullest else { return };
                let left = self.things[index].on.get_mut(&name).expect("it runs there");
                *left -= 1;
                if *left == 0 {
                    self.things[index].on.remove(&name);
                }
                continue;
            }
            if running == thing.replicas {
                return;
            }
            let free = |machine: &Machine| machine.cpu - self.used(&machine.name);
            let machines = self.machines.iter().filter(|m| m.pool == pool && !self.is_closed(&m.name));
            let roomiest = machines.max_by(|a, b| free(a).total_cmp(&free(b)).then(b.name.cmp(&a.name)));
            let Some(name) = roomiest.filter(|m| free(m) + 1e-9 >= thing.cpu).map(|m| m.name.clone()) else { return };
            *self.things[index].on.entry(name).or_default() += 1;
        }
    }

    /// Time passes: what is on its way arrives, replicas start, others do what they do.
    pub(crate) fn advance(&mut self, to: Timestamp) {
        let mut due: Vec<Delivery> = Vec::new();
        self.deliveries.retain(|delivery| {
            let comes = delivery.due <= to;
            if comes {
                due.push(delivery.clone());
            }
            !comes
        });
        due.sort_by(|a, b| a.due.cmp(&b.due).then_with(|| a.action.id.cmp(&b.action.id)));
        for delivery in due {
            self.arrive(&delivery);
        }
        self.now = to;
        for index in 0..self.things.len() {
            self.place(index);
        }
    }

    /// Sends a call on its way to its target.
    pub(crate) fn send(&mut self, action: &Action, after: Millis, dedupes: bool, compares: bool) {
        self.heard.entry(action.id.clone()).or_insert(Heard::OnItsWay);
        let delivery = Delivery { due: self.now + after, action: action.clone(), dedupes, compares };
        if after > Millis::ZERO {
            self.deliveries.push(delivery);
        } else {
            self.arrive(&delivery);
        }
    }

    /// How a call stands; nothing where the target has not heard of it.
    pub(crate) fn heard(&self, action_id: &str) -> Option<&Heard> {
        self.heard.get(action_id)
    }

    fn arrive(&mut self, delivery: &Delivery) {
        let action = &delivery.action;
        if delivery.dedupes && !self.taken.insert(action.id.clone()) {
            return;
        }
        let component = action.target.component.to_string();
        let Some(index) = self.things.iter().position(|thing| thing.key == component) else {
            self.heard.insert(action.id.clone(), Heard::Refused("there is no such component".to_owned()));
            return;
        };
        if let Change::Replicas { from, .. } = action.change
            && delivery.compares
            && self.things[index].replicas != from
        {
            let words = format!("it has {} replicas, not {from}", self.things[index].replicas);
            self.heard.insert(action.id.clone(), Heard::Refused(words));
            return;
        }
        self.change(index, &action.change);
        self.heard.insert(action.id.clone(), Heard::Done);
        self.effects.push(Effect { action_id: action.id.clone(), component, change: action.change.clone() });
    }

    fn change(&mut self, index: usize, change: &Change) {
        let thing = &mut self.things[index];
        match change {
            Change::Replicas { to, .. } => thing.replicas = *to,
            Change::Resources { to, .. } => thing.cpu = to.get("cpu").copied().unwrap_or(thing.cpu),
            Change::Move { from_nodes } => from_nodes.iter().for_each(|name| {
                thing.on.remove(name);
            }),
            Change::Shift { share } => thing.shifted = *share,
            Change::Cordon => thing.cordoned = true,
            Change::Uncordon => thing.cordoned = false,
        }
        self.place(index);
    }

    /// Whether a component is as a change wants it.
    pub(crate) fn is_so(&self, component: &str, change: &Change) -> bool {
        let Some(thing) = self.thing(component) else { return false };
        match change {
            Change::Replicas { to, .. } => thing.replicas == *to,
            Change::Resources { to, .. } => to.get("cpu").is_none_or(|cpu| (cpu - thing.cpu).abs() < 1e-6),
            Change::Move { .. } => false,
            Change::Shift { share } => (share - thing.shifted).abs() < 1e-9,
            Change::Cordon => thing.cordoned,
            Change::Uncordon => !thing.cordoned,
        }
    }

    /// Other controllers, and people who change something by hand.
    pub(crate) fn others_act(&mut self, people_share: f64) {
        for index in 0..self.things.len() {
            let thing = &self.things[index];
            if thing.kind == Kind::Node {
                if thing.cordoned && self.people.is(people_share) {
                    self.set_by_others(index, |thing| thing.cordoned = false);
                }
                continue;
            }
            let replicas = thing.replicas;
            let wanted = match thing.other {
                Other::Autoscaler if self.people.is(0.3) => {
                    let exact = thing.load.at(self.now) / (0.7 * thing.cpu);
                    rounded_up(exact).clamp(thing.replicas_min.max(1), thing.declared.max(1) * 3)
                }
                Other::GitOps if self.people.is(0.1) => thing.declared,
                _ if self.people.is(people_share) => self.people.whole(1, thing.declared * 2 + 2),
                _ => replicas,
            };
            if wanted != replicas {
                self.set_by_others(index, |thing| thing.replicas = wanted);
            }
        }
    }

    fn set_by_others(&mut self, index: usize, set: impl Fn(&mut Thing)) {
        set(&mut self.things[index]);
        self.changed_by_others.insert(self.things[index].key.clone(), self.now);
        self.place(index);
    }

    /// What a pool's owner would tell.
    pub(crate) fn capacity(&self) -> Capacity {
        let cores = |cpu: f64| Resources::from([("cpu".to_owned(), cpu)]);
        let mut capacity = Capacity::default();
        for machine in &self.machines {
            let closed = self.is_closed(&machine.name);
            let node = Node {
                name: machine.name.clone(),
                allocatable: cores(if closed { 0.0 } else { machine.cpu }),
                used: cores(self.used(&machine.name)),
                labels: BTreeMap::new(),
            };
            capacity.pools.entry(machine.pool.to_owned()).or_default().push(node);
        }
        for thing in self.things.iter().filter(|thing| thing.kind != Kind::Node) {
            capacity.workloads.push(Workload {
                component: thing.id.clone(),
                pool: thing.kind.pool().to_owned(),
                replicas: thing.replicas,
                per_replica: cores(thing.cpu),
                priority: thing.priority,
                replicas_min: thing.replicas_min,
                on_nodes: thing.on.clone(),
            });
        }
        capacity
    }
}

fn thing(chance: &mut Chance, kind: Kind, index: usize, scale: &Scale) -> Thing {
    let replicas = if kind == Kind::Node { 1 } else { chance.whole(1, 6) };
    let cpu = if kind == Kind::Node { 1.0 } else { chance.of(&[0.5, 1.0, 1.5, 2.0]) };
    let base = f64::from(replicas) * cpu * chance.between(0.4, 0.65);
    let stubborn = chance.is(scale.stubborn);
    let other = match chance.unit() / scale.others.max(1e-9) {
        share if share < 0.5 => Other::Autoscaler,
        share if share < 1.0 => Other::GitOps,
        _ => Other::Nobody,
    };
    let episodes = if chance.is(scale.troubled) { vec![episode(chance, scale)] } else { Vec::new() };
    let id = kind.id(index);
    Thing {
        kind,
        index,
        key: id.to_string(),
        id,
        priority: i64::from(chance.whole(0, 4)) * 100,
        impact: chance.between(0.1, 1.0),
        replicas_min: chance.whole(0, replicas + 1).max(1),
        replicas,
        declared: replicas,
        cpu,
        on: BTreeMap::new(),
        shifted: 0.0,
        cordoned: false,
        stubborn,
        other,
        load: Load {
            seed: u64::from(chance.whole(0, u32::MAX)),
            base,
            noise: chance.between(scale.noise.0, scale.noise.1),
            episodes,
            calm_from: scale.calm_from,
        },
    }
}

fn episode(chance: &mut Chance, scale: &Scale) -> Episode {
    let minutes = |chance: &mut Chance, from: f64, to: f64| whole_minutes(chance.between(from, to));
    let (first, last) = scale.begins;
    let start = START + whole_minutes(chance.between(first.as_secs_f64() / 60.0, last.as_secs_f64() / 60.0));
    let rise = if chance.is(scale.sudden) { Millis::SECOND } else { minutes(chance, 15.0, 60.0) };
    Episode {
        start,
        rise,
        hold: minutes(chance, 20.0, 120.0),
        fall: minutes(chance, 5.0, 30.0),
        height: chance.between(0.5, 2.0),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "hours at most")]
fn whole_minutes(minutes: f64) -> Millis {
    Millis::MINUTE * (minutes.round() as i64)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of replicas")]
fn rounded_up(value: f64) -> u32 {
    value.ceil().clamp(0.0, 1000.0) as u32
}
