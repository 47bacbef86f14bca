//! Making room: which lower-priority replicas give way, as few as close the gap.
//!
//! Per missing slot the node is chosen whose replicas to take are of the lowest priority, then fewest. At the end each
//! replica is put back that turned out not to be needed, the most important first; so taking any less would not do.
//!
//! Where it is not known on which of several nodes a workload runs, nothing is taken from it: it could be in vain. An
//! eviction says by how many replicas a workload shrinks; which of them go is up to its controller and the actuator.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::finite;
use super::room::{Demand, Freed, Room, Row, Site};
use super::size;
use super::{Capacity, Workload};
use crate::health::Assessment;

/// A workload of which something could be taken.
#[derive(Debug)]
pub(super) struct Victim<'a> {
    pub(super) workload: &'a Workload,
    pub(super) key: String,
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
    pub(super) touched: bool,
}

/// All victims, of the lowest priority first, and where they run.
#[derive(Debug)]
pub(super) struct Victims<'a> {
    pub(super) all: Vec<Victim<'a>>,
    /// Pool → node → victims there with their replicas, in the order of `all`.
    on_nodes: BTreeMap<&'a str, Vec<Vec<(usize, u32)>>>,
    /// Pool → victims with replicas beyond their minimum, in the order of `all`.
    may_shrink: BTreeMap<&'a str, Vec<usize>>,
    by_key: BTreeMap<String, usize>,
}

/// One replica taken from a victim on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Taken {
    pub(super) victim: usize,
    pub(super) node: usize,
}

impl<'a> Victims<'a> {
    /// `assessed` tells a workload's own expected loss, impact and need; `busy` are components that must not be taken
    /// from now.
    pub(super) fn of(
        capacity: &'a Capacity,
        room: &Room,
        assessed: &BTreeMap<String, &Assessment>,
        busy: &BTreeSet<String>,
    ) -> Victims<'a> {
        let mut all: Vec<Victim<'a>> = Vec::new();
        let mut scales: BTreeMap<&str, Row> = BTreeMap::new();
        for workload in &capacity.workloads {
            let key = workload.component.to_string();
            let assessment = assessed.get(&key).copied();
            let loss = assessment.map_or(0.0, |a| finite(a.expected_loss));
            let impact = assessment.map_or(0.0, |a| finite(a.impact).clamp(0.0, 1.0));
            let size = room.row(&workload.per_replica);
            let scale = scales.entry(&workload.pool).or_insert_with(|| room.unit_weights(&workload.pool));
            let weight = size.iter().zip(scale.iter()).map(|(size, unit)| size * unit).fold(0.0, f64::max);
            let left = workload.replicas.saturating_sub(workload.replicas_min);
            let needed = assessment.map_or(0, |a| size::replicas_needed(a, workload.replicas));
            let spare = workload.replicas.saturating_sub(needed).min(left);
            let touched = busy.contains(&key);
            all.push(Victim { workload, key, loss, impact, size, weight, left, spare, touched });
        }
        all.sort_by(|a, b| {
            (a.workload.priority.cmp(&b.workload.priority))
                .then(a.loss.total_cmp(&b.loss))
                .then(b.weight.total_cmp(&a.weight))
                .then_with(|| a.key.cmp(&b.key))
        });
        let mut on_nodes: BTreeMap<&str, Vec<Vec<(usize, u32)>>> = BTreeMap::new();
        let mut may_shrink: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, victim) in all.iter().enumerate().filter(|(_, victim)| victim.left > 0) {
            may_shrink.entry(&victim.workload.pool).or_default().push(index);
            let Some(pool) = room.pool(&victim.workload.pool) else { continue };
            let nodes = on_nodes.entry(&victim.workload.pool).or_insert_with(|| vec![Vec::new(); pool.nodes.len()]);
            if let [_] = pool.nodes[..] {
                // A whole pool seen as one node: whatever runs in it runs there.
                nodes[0].push((index, victim.workload.replicas));
                continue;
            }
            for (name, replicas) in &victim.workload.on_nodes {
                if let Ok(node) = pool.nodes.binary_search_by(|node| node.name.cmp(name)) {
                    nodes[node].push((index, *replicas));
                }
            }
        }
        let by_key = all.iter().enumerate().map(|(index, victim)| (victim.key.clone(), index)).collect();
        Victims { all, on_nodes, may_shrink, by_key }
    }

    /// Nothing more is taken from a component in this plan.
    pub(super) fn touch(&mut self, key: &str) {
        if let Some(victim) = self.by_key.get(key) {
            self.all[*victim].touched = true;
        }
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
    pub(super) fn make_room(&self, room: &Room, site: &Site, demand: &Demand, claim: &Claim<'_>) -> Option<Vec<Taken>> {
        let mut search = Search { victims: self, room, site, claim, taken: Vec::new(), freed: Freed::new() };
        let found = match demand {
            Demand::Anywhere { pieces, size } => search.free_slots(*pieces, size),
            Demand::OnNodes(needs) => search.free_in_place(needs),
        };
        found.then(|| {
            search.put_back_surplus(demand);
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

    fn gives(&self, may_take: MayTake) -> u32 {
        match may_take {
            MayTake::DownToMinimum => self.left,
            MayTake::Spare => self.spare,
        }
    }
}

/// How much of a workload may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    fn free_slots(&mut self, pieces: u32, size: &[f64]) -> bool {
        // Nodes do not depend on one another but for how much a victim may give in all: so what one more slot costs is
        // worked out once per node, and again for the node that was chosen.
        let mut slots: Vec<u32> = Vec::with_capacity(self.site.nodes.len());
        for node in &self.site.nodes {
            slots.push(self.room.slots_on(self.site, *node, size, &self.freed));
        }
        let mut fitting: u64 = slots.iter().copied().map(u64::from).sum();
        let mut options: Vec<Option<Vec<Taken>>> = Vec::with_capacity(slots.len());
        for (place, node) in self.site.nodes.iter().enumerate() {
            options.push(self.units_for(*node, &times(size, slots[place].saturating_add(1))));
        }
        while fitting < u64::from(pieces) {
            let best = options
                .iter()
                .enumerate()
                .filter_map(|(place, units)| {
                    let shunned = !self.room.is_preferred(self.site, self.site.nodes[place]);
                    Some((self.cost(units.as_ref()?), shunned, place))
                })
                .min();
            let Some((.., place)) = best else { return false };
            let node = self.site.nodes[place];
            let units = options[place].take().unwrap_or_default();
            if self.may_take(&units) {
                self.take(&units);
                let now = self.room.slots_on(self.site, node, size, &self.freed);
                fitting += u64::from(now.saturating_sub(slots[place]));
                slots[place] = now;
            }
            options[place] = self.units_for(node, &times(size, slots[place].saturating_add(1)));
        }
        true
    }

    /// The lowest priority first, then the fewest replicas; then a preferred node, then the first.
    fn cost(&self, units: &[Taken]) -> (Option<i64>, usize) {
        (units.iter().map(|one| self.victims.all[one.victim].workload.priority).max(), units.len())
    }

    /// Whether no victim gives more than it may, with what was taken on other nodes in the meantime.
    fn may_take(&self, units: &[Taken]) -> bool {
        let of = |taken: &[Taken], victim: usize| taken.iter().filter(|one| one.victim == victim).count();
        units.iter().all(|one| {
            let gives = self.victims.all[one.victim].gives(self.claim.may_take);
            of(&self.taken, one.victim) + of(units, one.victim) <= gives as usize
        })
    }

    fn free_in_place(&mut self, needs: &[(usize, Row)]) -> bool {
        for (node, size) in needs {
            if self.room.slots_on(self.site, *node, size, &self.freed) > 0 {
                continue;
            }
            let Some(units) = self.units_for(*node, size) else { return false };
            self.take(&units);
        }
        true
    }

    /// The replicas to take on a node until so much is free there.
    fn units_for(&self, node: usize, wanted: &[f64]) -> Option<Vec<Taken>> {
        let here = &self.victims.on_nodes.get(self.site.pool.as_str())?[node];
        // Most nodes have nothing to give; the lists begin with the lowest priority.
        here.first().filter(|(victim, _)| self.victims.all[*victim].workload.priority < self.claim.below)?;
        let measured = &self.room.pool(&self.site.pool)?.measured;
        let mut free = self.room.free(self.site, node, &self.freed);
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
            let here = self.taken.iter().filter(|one| one.victim == *victim && one.node == node).count();
            let in_all = self.taken.iter().filter(|one| one.victim == *victim).count();
            let to_give = (*replicas as usize).saturating_sub(here).min((gives as usize).saturating_sub(in_all));
            for _ in 0..to_give {
                let short = |r: usize| measured[r] && free[r] < wanted[r] && whom.size[r] > 0.0;
                if !(0..wanted.len()).any(short) {
                    break;
                }
                free.iter_mut().zip(&whom.size).for_each(|(free, size)| *free += size);
                units.push(Taken { victim: *victim, node });
            }
            if self.room.fits(self.site, &free, wanted) {
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
            if self.room.fits(self.site, &less, wanted) {
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
    fn put_back_surplus(&mut self, demand: &Demand) {
        self.taken.sort_unstable();
        let (mut fitting, of) = self.room.fitting(self.site, demand, &self.freed);
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
            Demand::Anywhere { size, .. } => self.room.slots_on(self.site, node, size, &self.freed).into(),
            Demand::OnNodes(needs) => {
                let fits = |(on, size): &&(usize, Row)| {
                    *on == node && self.room.slots_on(self.site, node, size, &self.freed) > 0
                };
                needs.iter().filter(fits).count() as u64
            }
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
