//! Making room: which lower-priority replicas give way, as few as close the gap.
//!
//! Per missing slot the node is chosen whose replicas to take are of the lowest priority, then fewest. At the end each
//! replica is put back that turned out not to be needed, the most important first; so taking any less would not do.
//!
//! Where it is not known on which of several nodes a workload runs, nothing is taken from it: it could be in vain. An
//! eviction says by how many replicas a workload shrinks; which of them go is up to its controller and the actuator.
//!
//! What one more slot costs at least on each node, whoever asks, is kept in order ([`Bounds`]). A search works out the exact
//! cost only of nodes whose bound is no worse than the best cost it knows, so it finds what a look at all of them would.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Workload;
use super::decide::finite;
use super::room::{Demand, Freed, Ground, Room, Row, Site, TABLES_MAX, TableKey, table_key};
use super::size;
use super::words::whole;
use crate::health::Assessment;

/// A bound is reckoned as if this share less was wanted: sums in another order round otherwise.
const BOUND_SLACK: f64 = 1e-6;

/// A workload of which something could be taken.
#[derive(Debug)]
pub(super) struct Victim<'a> {
    pub(super) workload: &'a Workload,
    pub(super) key: &'a str,
    /// Its own expected loss.
    pub(super) loss: f64,
    /// How much its failure would hurt.
    pub(super) impact: f64,
    size: Row,
    weight: f64,
    /// Replicas beyond its minimum.
    left: u32,
    /// Of those, replicas that it does not need for what is foreseen of it.
    spare: u32,
    /// It was given to or taken from just now or in this plan.
    touched: bool,
}

/// All victims, of the lowest priority first, and where they run.
#[derive(Debug)]
pub(super) struct Victims<'a> {
    pub(super) all: Vec<Victim<'a>>,
    /// Pool → node → victims there with their replicas, in the order of `all`.
    on_nodes: BTreeMap<&'a str, Vec<Vec<(usize, u32)>>>,
    /// Pool → victims with replicas beyond their minimum, in the order of `all`.
    may_shrink: BTreeMap<&'a str, Vec<usize>>,
    /// Only asked, never walked through.
    by_key: HashMap<&'a str, usize>,
    /// Pool → nodes on which a victim was touched in this plan, in that order.
    changed: BTreeMap<&'a str, Vec<usize>>,
    bounds: RefCell<BTreeMap<TableKey, Bounds>>,
    found: RefCell<HashMap<Sought, Found>>,
}

/// What a search was for; see [`Victims::make_room`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sought {
    on: TableKey,
    except: Vec<usize>,
    pieces: u32,
    below: i64,
    may_take: MayTake,
}

/// What a search found, and how things stood.
#[derive(Debug)]
struct Found {
    /// How often the room of the pool, and what may be taken there, had changed.
    state: (usize, usize),
    loss: f64,
    taken: Option<Vec<Taken>>,
}

/// What a choice of replicas on a node is chosen by: the highest priority among them, how many they are, whether the node
/// is none to fill first, the node.
type Cost = (i64, usize, bool, usize);

/// The least that one more slot of one size costs on each node of a ground, whoever asks.
#[derive(Debug, Default)]
struct Bounds {
    /// How many of the pool's changes in room are in it, and …
    seen_room: Option<usize>,
    /// … how many of those in what may be taken.
    seen_touched: usize,
    /// Per node of the pool; nothing where all that may be taken does not make one more slot.
    of: Vec<Option<Cost>>,
    order: BTreeSet<Cost>,
}

/// One replica taken from a victim on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Taken {
    pub(super) victim: usize,
    pub(super) node: usize,
}

impl<'a> Victims<'a> {
    /// `assessed` tells a workload's own expected loss, impact and need; `busy` are components that must not be taken
    /// from now. Workloads come by key.
    pub(super) fn of(
        workloads: &[(&'a str, &'a Workload)],
        room: &Room,
        assessed: &BTreeMap<&str, &Assessment>,
        busy: &BTreeSet<&str>,
    ) -> Victims<'a> {
        let mut all: Vec<Victim<'a>> = Vec::with_capacity(workloads.len());
        let mut scales: BTreeMap<&str, Row> = BTreeMap::new();
        let mut assessed = assessed.iter().peekable();
        for (key, workload) in workloads.iter().copied() {
            while assessed.next_if(|(other, _)| **other < key).is_some() {}
            let assessment = assessed.peek().filter(|(other, _)| **other == key).map(|(_, assessment)| **assessment);
            let loss = assessment.map_or(0.0, |a| finite(a.expected_loss));
            let impact = assessment.map_or(0.0, |a| finite(a.impact).clamp(0.0, 1.0));
            let size = room.row(&workload.per_replica);
            let scale = scales.entry(&workload.pool).or_insert_with(|| room.unit_weights(&workload.pool));
            let weight = size.iter().zip(scale.iter()).map(|(size, unit)| size * unit).fold(0.0, f64::max);
            let left = workload.replicas.saturating_sub(workload.replicas_min);
            let needed = assessment.map_or(0, |a| size::replicas_needed(a, workload.replicas));
            let spare = workload.replicas.saturating_sub(needed).min(left);
            let touched = busy.contains(key);
            all.push(Victim { workload, key, loss, impact, size, weight, left, spare, touched });
        }
        // A stable sort: those that are alike stay in the order of their keys.
        all.sort_by(|a, b| {
            (a.workload.priority.cmp(&b.workload.priority))
                .then(a.loss.total_cmp(&b.loss))
                .then(b.weight.total_cmp(&a.weight))
        });
        let mut victims = Victims {
            by_key: all.iter().enumerate().map(|(index, victim)| (victim.key, index)).collect(),
            all,
            on_nodes: BTreeMap::new(),
            may_shrink: BTreeMap::new(),
            changed: BTreeMap::new(),
            bounds: RefCell::default(),
            found: RefCell::default(),
        };
        victims.place(room);
        victims
    }

    /// Notes where the victims run.
    fn place(&mut self, room: &Room) {
        for (index, victim) in self.all.iter().enumerate().filter(|(_, victim)| victim.left > 0) {
            let workload: &'a Workload = victim.workload;
            self.may_shrink.entry(&workload.pool).or_default().push(index);
            let Some(pool) = room.pool(&workload.pool) else { continue };
            let nodes = self.on_nodes.entry(&workload.pool).or_insert_with(|| vec![Vec::new(); pool.nodes.len()]);
            runs_on(workload, room, |node, replicas| nodes[node].push((index, replicas)));
        }
    }

    /// Nothing more is taken from a victim in this plan.
    pub(super) fn touch(&mut self, victim: usize, room: &Room) {
        let victim = &mut self.all[victim];
        if !std::mem::replace(&mut victim.touched, true) {
            let changed = self.changed.entry(&victim.workload.pool).or_default();
            runs_on(victim.workload, room, |node, _| changed.push(node));
        }
    }

    /// Nothing more is taken from a component in this plan.
    pub(super) fn touch_component(&mut self, key: &str, room: &Room) {
        if let Some(victim) = self.by_key.get(key) {
            self.touch(*victim, room);
        }
    }

    /// Brings the bounds of a size up to date.
    fn refresh(&self, bounds: &mut Bounds, room: &Room, ground: &Ground, size: &[f64]) {
        let Some(pool) = room.pool(ground.pool()) else { return };
        let touched = self.changed.get(ground.pool()).map_or(&[][..], Vec::as_slice);
        let mut set = |node: usize| {
            let bound = self.bound(room, ground, node, size);
            let before = std::mem::replace(&mut bounds.of[node], bound);
            if before != bound {
                before.map(|before| bounds.order.remove(&before));
                bounds.order.extend(bound);
            }
        };
        match bounds.seen_room {
            Some(seen) => {
                let news = pool.changed[seen..].iter().chain(&touched[bounds.seen_touched..]).copied();
                news.filter(|node| ground.allows(*node)).for_each(&mut set);
            }
            None => ground.nodes().iter().copied().for_each(&mut set),
        }
        (bounds.seen_room, bounds.seen_touched) = (Some(pool.changed.len()), touched.len());
    }

    /// The least that one more slot costs on a node, with a little to spare for rounding: all that runs there and may be
    /// taken by someone, of the lowest priorities that are enough together; of those, as many as the largest would be.
    fn bound(&self, room: &Room, ground: &Ground, node: usize, size: &[f64]) -> Option<Cost> {
        let here = self.on_nodes.get(ground.pool())?.get(node)?;
        let measured = &room.pool(ground.pool())?.measured;
        let none = Freed::new();
        let wanted = times(size, room.slots_on(ground, node, size, &none).saturating_add(1));
        let free = room.free(ground, node, &none);
        let mut missing: Row =
            free.iter().zip(&wanted).map(|(free, wanted)| wanted - free - wanted * BOUND_SLACK).collect();
        for (resource, amount) in missing.iter_mut().enumerate() {
            *amount = if measured[resource] && wanted[resource] > 0.0 { *amount } else { 0.0 };
        }
        let mut rest = missing.clone();
        let mut largest = vec![0.0; size.len()];
        let mut enough: Option<i64> = None;
        for (victim, replicas) in here {
            let victim = &self.all[*victim];
            if enough.is_some_and(|priority| victim.workload.priority > priority) {
                break;
            }
            if victim.touched {
                continue;
            }
            let gives = f64::from(victim.left.min(*replicas));
            rest.iter_mut().zip(&victim.size).for_each(|(rest, size)| *rest -= size * gives);
            largest
                .iter_mut()
                .zip(&victim.size)
                .for_each(|(largest, size): (&mut f64, _)| *largest = largest.max(*size));
            if rest.iter().all(|rest| *rest <= 0.0) {
                enough = enough.or(Some(victim.workload.priority));
            }
        }
        let pieces = missing.iter().zip(&largest).filter(|(missing, _)| **missing > 0.0);
        let fewest = pieces.map(|(missing, largest)| whole((missing / largest).ceil())).max().unwrap_or(1);
        Some((enough?, fewest.max(1) as usize, !ground.is_preferred(node), node))
    }

    /// Whether anything of a pool could shrink, was it not for the claim's limits.
    pub(super) fn others_could_shrink(&self, pool: &str, claim: &Claim<'_>) -> bool {
        // From the most important: that is what a claim cannot touch.
        self.may_shrink.get(pool).is_some_and(|victims| {
            victims.iter().rev().any(|victim| {
                let victim = &self.all[*victim];
                victim.key != claim.key && (victim.workload.priority >= claim.below || victim.loss >= claim.loss)
            })
        })
    }

    /// The smallest set of allowed replicas that makes a demand fit; nothing where none does.
    ///
    /// On a bad day many ask for the same, one after the other, each with less to lose. As long as nothing has changed since
    /// the last one asked, what was not enough for that one is not for this one, and what was is, where it still may be taken.
    pub(super) fn make_room(&self, room: &Room, site: &Site, demand: &Demand, claim: &Claim<'_>) -> Option<Vec<Taken>> {
        let Demand::Anywhere { pieces, size } = demand else { return self.search(room, site, demand, claim) };
        let touched = self.changed.get(site.pool()).map_or(0, Vec::len);
        let state = (room.pool(site.pool())?.changed.len(), touched);
        let (on, except) = (table_key(&site.ground, size), site.left_out().to_vec());
        let sought = Sought { on, except, pieces: *pieces, below: claim.below, may_take: claim.may_take };
        let mut found = self.found.borrow_mut();
        let serves = |found: &&Found| {
            let mut taken = found.taken.iter().flatten().map(|one| &self.all[one.victim]);
            found.state == state && claim.loss <= found.loss && taken.all(|v| v.loss < claim.loss && v.key != claim.key)
        };
        if let Some(found) = found.get(&sought).filter(serves) {
            return found.taken.clone();
        }
        let taken = self.search(room, site, demand, claim);
        if found.len() >= TABLES_MAX {
            found.clear();
        }
        found.insert(sought, Found { state, loss: claim.loss, taken: taken.clone() });
        taken
    }

    fn search(&self, room: &Room, site: &Site, demand: &Demand, claim: &Claim<'_>) -> Option<Vec<Taken>> {
        let mut search = Search { victims: self, room, site, claim, taken: Vec::new(), freed: Freed::new() };
        let fitting = match demand {
            Demand::Anywhere { pieces, size } => search.free_slots(*pieces, size),
            Demand::OnNodes(needs) => search.free_in_place(needs),
        };
        fitting.map(|fitting| {
            search.put_back_surplus(demand, fitting);
            search.taken.sort_unstable();
            search.taken
        })
    }

    /// What a set of taken replicas frees.
    pub(super) fn freed(&self, taken: &[Taken]) -> Freed {
        let mut freed = Freed::new();
        for one in taken {
            add(&mut freed, one.node, &self.all[one.victim].size, 1.0);
        }
        freed
    }
}

impl Victim<'_> {
    /// What losing so many replicas costs it, in the unit of expected losses: the share of its impact, and all of its
    /// impact where it is left with less than it needs for what is foreseen of it.
    pub(super) fn harm(&self, replicas: u32) -> f64 {
        let share = f64::from(replicas) / f64::from(self.workload.replicas.max(1));
        if replicas > self.spare { self.impact } else { self.impact * share.min(1.0) }
    }

    /// What so many of its replicas take.
    pub(super) fn size_of(&self, replicas: u32) -> Row {
        times(&self.size, replicas)
    }

    fn gives(&self, may_take: MayTake) -> u32 {
        match may_take {
            MayTake::DownToMinimum => self.left,
            MayTake::Spare => self.spare,
        }
    }
}

/// How much of a workload may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum MayTake {
    /// Down to the fewest replicas it must have.
    DownToMinimum,
    /// Only what it does not need for what is foreseen of it.
    Spare,
}

/// For whom something is taken, and from whom it may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'k> {
    pub(super) key: &'k str,
    /// Only from a priority strictly below this.
    pub(super) below: i64,
    /// Only from an expected loss strictly below this.
    pub(super) loss: f64,
    pub(super) may_take: MayTake,
}

/// One search for replicas to take.
struct Search<'s, 'a> {
    victims: &'s Victims<'a>,
    room: &'s Room,
    site: &'s Site,
    claim: &'s Claim<'s>,
    taken: Vec<Taken>,
    freed: Freed,
}

impl Search<'_, '_> {
    /// Takes until so many pieces fit, and says how many then do.
    fn free_slots(&mut self, pieces: u32, size: &[f64]) -> Option<u64> {
        let (victims, room, site) = (self.victims, self.room, self.site);
        let mut fitting = room.slots_in(site, size);
        let mut all = victims.bounds.borrow_mut();
        let key = table_key(&site.ground, size);
        if all.len() >= TABLES_MAX && !all.contains_key(&key) {
            all.clear();
        }
        let bounds =
            all.entry(key).or_insert_with(|| Bounds { of: vec![None; room.nodes_of(site)], ..Bounds::default() });
        victims.refresh(bounds, room, &site.ground, size);
        let affordable = bounds.order.range(..(self.claim.below, 0, false, 0));
        let mut ahead = affordable.filter(|bound| !site.leaves_out(bound.3)).peekable();
        // Nodes do not depend on one another but for how much a victim may give in all: so what one more slot costs is
        // worked out once per node, and again for the node that was chosen.
        let mut options: BTreeMap<Cost, Vec<Taken>> = BTreeMap::new();
        while fitting < u64::from(pieces) {
            while let Some(bound) =
                ahead.next_if(|bound| options.first_key_value().is_none_or(|(best, _)| *bound < best))
            {
                let wanted = times(size, room.slots_on(&site.ground, bound.3, size, &self.freed).saturating_add(1));
                options.extend(self.option(bound.3, &wanted, &[]));
            }
            let ((.., node), units) = options.pop_first()?;
            let before = room.slots_on(&site.ground, node, size, &self.freed);
            if self.may_take(&units) {
                self.take(&units);
            }
            let now = room.slots_on(&site.ground, node, size, &self.freed);
            fitting = fitting - u64::from(before) + u64::from(now);
            options.extend(self.option(node, &times(size, now.saturating_add(1)), &self.taken));
        }
        Some(fitting)
    }

    /// What to take on a node until so much is free there, and its cost: the lowest priority first, then the fewest replicas;
    /// then a preferred node, then the first.
    fn option(&self, node: usize, wanted: &[f64], taken: &[Taken]) -> Option<(Cost, Vec<Taken>)> {
        let units = self.units_for(node, wanted, taken)?;
        let priority = units.iter().map(|one| self.victims.all[one.victim].workload.priority).max()?;
        Some(((priority, units.len(), !self.site.ground.is_preferred(node), node), units))
    }

    /// Whether no victim gives more than it may, with what was taken on other nodes in the meantime.
    fn may_take(&self, units: &[Taken]) -> bool {
        let of = |taken: &[Taken], victim: usize| taken.iter().filter(|one| one.victim == victim).count();
        units.iter().all(|one| {
            let gives = self.victims.all[one.victim].gives(self.claim.may_take);
            of(&self.taken, one.victim) + of(units, one.victim) <= gives as usize
        })
    }

    fn free_in_place(&mut self, needs: &[(usize, Row)]) -> Option<u64> {
        for (node, size) in needs {
            if self.room.slots_on(&self.site.ground, *node, size, &self.freed) == 0 {
                let units = self.units_for(*node, size, &self.taken)?;
                self.take(&units);
            }
        }
        let fits = |(node, size): &&(usize, Row)| self.room.slots_on(&self.site.ground, *node, size, &self.freed) > 0;
        Some(needs.iter().filter(fits).count() as u64)
    }

    /// The replicas to take on a node, with what was taken already, until so much is free there.
    fn units_for(&self, node: usize, wanted: &[f64], taken: &[Taken]) -> Option<Vec<Taken>> {
        let here = &self.victims.on_nodes.get(self.site.pool())?[node];
        // Most nodes have nothing to give; the lists begin with the lowest priority.
        here.first().filter(|(victim, _)| self.victims.all[*victim].workload.priority < self.claim.below)?;
        let measured = &self.room.pool(self.site.pool())?.measured;
        let mut free = self.room.free(&self.site.ground, node, &self.freed);
        let mut units: Vec<Taken> = Vec::new();
        for (victim, replicas) in here {
            let whom = &self.victims.all[*victim];
            if whom.workload.priority >= self.claim.below {
                break;
            }
            let gives = whom.gives(self.claim.may_take);
            if whom.touched || gives == 0 || whom.loss >= self.claim.loss || whom.key == self.claim.key {
                continue;
            }
            let here = taken.iter().filter(|one| one.victim == *victim && one.node == node).count();
            let in_all = taken.iter().filter(|one| one.victim == *victim).count();
            let to_give = (*replicas as usize).saturating_sub(here).min((gives as usize).saturating_sub(in_all));
            for _ in 0..to_give {
                let short = |r: usize| measured[r] && free[r] < wanted[r] && whom.size[r] > 0.0;
                if !(0..wanted.len()).any(short) {
                    break;
                }
                free.iter_mut().zip(&whom.size).for_each(|(free, size)| *free += size);
                units.push(Taken { victim: *victim, node });
            }
            if self.room.fits(&self.site.ground, &free, wanted) {
                return Some(self.without_surplus(units, free, wanted));
            }
        }
        None
    }

    /// The same units without those that later ones made needless, the most important first.
    fn without_surplus(&self, mut units: Vec<Taken>, mut free: Row, wanted: &[f64]) -> Vec<Taken> {
        for index in (0..units.len()).rev() {
            let size = &self.victims.all[units[index].victim].size;
            let less: Row = free.iter().zip(size).map(|(free, size)| free - size).collect();
            if self.room.fits(&self.site.ground, &less, wanted) {
                free = less;
                units.remove(index);
            }
        }
        units
    }

    fn take(&mut self, units: &[Taken]) {
        for one in units {
            add(&mut self.freed, one.node, &self.victims.all[one.victim].size, 1.0);
            self.taken.push(*one);
        }
    }

    /// Puts back what turned out not to be needed, the most important first.
    fn put_back_surplus(&mut self, demand: &Demand, mut fitting: u64) {
        self.taken.sort_unstable();
        let of = demand.pieces();
        for index in (0..self.taken.len()).rev() {
            let one = self.taken[index];
            let before = self.fitting_on(one.node, demand);
            add(&mut self.freed, one.node, &self.victims.all[one.victim].size, -1.0);
            let without = (fitting + self.fitting_on(one.node, demand)).saturating_sub(before);
            if without >= of {
                self.taken.remove(index);
                fitting = without;
            } else {
                add(&mut self.freed, one.node, &self.victims.all[one.victim].size, 1.0);
            }
        }
    }

    fn fitting_on(&self, node: usize, demand: &Demand) -> u64 {
        match demand {
            Demand::Anywhere { size, .. } => self.room.slots_on(&self.site.ground, node, size, &self.freed).into(),
            Demand::OnNodes(needs) => {
                let fits = |(on, size): &&(usize, Row)| {
                    *on == node && self.room.slots_on(&self.site.ground, node, size, &self.freed) > 0
                };
                needs.iter().filter(fits).count() as u64
            }
        }
    }
}

/// Calls `each` with the nodes that a workload is known to run on, and with how many replicas.
fn runs_on(workload: &Workload, room: &Room, mut each: impl FnMut(usize, u32)) {
    let Some(pool) = room.pool(&workload.pool) else { return };
    if let [_] = pool.nodes[..] {
        // A whole pool seen as one node: whatever runs in it runs there.
        return each(0, workload.replicas);
    }
    for (name, replicas) in &workload.on_nodes {
        if let Ok(node) = pool.nodes.binary_search_by(|node| node.name.cmp(name)) {
            each(node, *replicas);
        }
    }
}

fn times(size: &[f64], pieces: u32) -> Row {
    size.iter().map(|amount| amount * f64::from(pieces)).collect()
}

fn add(freed: &mut Freed, node: usize, size: &[f64], times: f64) {
    let row = freed.entry(node).or_insert_with(|| vec![0.0; size.len()]);
    row.iter_mut().zip(size).for_each(|(sum, amount)| *sum += amount * times);
}
