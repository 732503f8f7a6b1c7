//! From what the kernel holds to what it should hold.
//!
//! Pure. `Installed` remembers which endpoint sits in which slot; a `Transaction` lists the elements to remove, then those to
//! add, and carries the state that is true once the kernel has taken it. A changed endpoint moves at most two slots of each
//! front, whatever the size of the cluster.

use crate::model::{Family, Key};
use crate::ruleset::{Backend, Block, Front, Mark, PickKind, Policy, Ruleset};
use crate::tables::Touched;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// One element of one of our maps or sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// How many endpoints a front has.
    Count {
        front: Front,
        count: u32,
    },
    Slot {
        front: Front,
        slot: u32,
        backend: Backend,
    },
    Mark(Mark),
}

impl Element {
    pub fn family(&self) -> Family {
        match self {
            Element::Count { front, .. } | Element::Slot { front, .. } => front.family(),
            Element::Mark(mark) => mark.family(),
        }
    }
}

/// A chain that picks one of `count` endpoints, and the element that leads to it. Made before anything needs it and kept until
/// the table goes: kernels before 6.2 still count a removed verdict element as a reference to its chain for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pick {
    pub family: Family,
    pub kind: PickKind,
    pub count: u32,
}

/// A service's block with the slots its endpoints have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    block: Arc<Block>,
    /// As many as the block has fronts. Shared with the block where the order is the sorted one.
    slots: Box<[Arc<[Backend]>]>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    blocks: BTreeMap<Key, Placed>,
    hairpin: BTreeMap<IpAddr, u32>,
    picks: BTreeSet<Pick>,
}

/// What to do to the kernel, in this order: picks, removals, additions; `reset` first replaces the tables by empty ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub reset: Option<Policy>,
    pub picks: Vec<Pick>,
    pub remove: Vec<Element>,
    pub add: Vec<Element>,
    after: Vec<(Key, Option<Placed>)>,
    hairpin: BTreeMap<IpAddr, u32>,
}

impl Transaction {
    /// Nothing to tell the kernel.
    pub fn is_empty(&self) -> bool {
        self.reset.is_none() && self.picks.is_empty() && self.remove.is_empty() && self.add.is_empty()
    }

    /// Number of elements and chains named.
    pub fn len(&self) -> usize {
        self.picks.len() + self.remove.len() + self.add.len()
    }
}

impl Installed {
    /// The kernel has taken the transaction.
    pub fn apply(&mut self, tx: Transaction) {
        if tx.reset.is_some() {
            *self = Installed::default();
        }
        self.picks.extend(tx.picks);
        for (key, placed) in tx.after {
            match placed {
                Some(p) => self.blocks.insert(key, p),
                None => self.blocks.remove(&key),
            };
        }
        for (ip, uses) in tx.hairpin {
            match uses {
                0 => self.hairpin.remove(&ip),
                _ => self.hairpin.insert(ip, uses),
            };
        }
    }

    /// The endpoints of a front, by slot.
    pub fn slots(&self, key: &Key, front: &Front) -> Option<&[Backend]> {
        let placed = self.blocks.get(key)?;
        let at = placed.block.fronts.iter().position(|(f, _)| f == front)?;
        placed.slots.get(at).map(|s| &**s)
    }

    /// The block of a service as the kernel has it.
    pub fn block(&self, key: &Key) -> Option<&Arc<Block>> {
        self.blocks.get(key).map(|p| &p.block)
    }
}

/// Everything, into new tables.
pub fn full(ruleset: &Ruleset) -> Transaction {
    let mut tx = diff(&Installed::default(), ruleset);
    tx.reset = Some(ruleset.policy.clone());
    tx
}

pub fn diff(installed: &Installed, ruleset: &Ruleset) -> Transaction {
    let mut work = Work::new(installed);
    let mut keys: Vec<&Key> = installed.blocks.keys().chain(ruleset.blocks().map(|(k, _)| k)).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        work.service(key, ruleset.block(key));
    }
    work.finish()
}

/// Only the services named: the caller knows that no other differs.
pub fn diff_of(installed: &Installed, ruleset: &Ruleset, touched: &Touched) -> Transaction {
    let mut work = Work::new(installed);
    for key in touched {
        work.service(key, ruleset.block(key));
    }
    work.finish()
}

struct Work<'a> {
    installed: &'a Installed,
    tx: Transaction,
    picks: BTreeSet<Pick>,
    hairpin: BTreeMap<IpAddr, i64>,
}

impl<'a> Work<'a> {
    fn new(installed: &'a Installed) -> Self {
        Work { installed, tx: Transaction::default(), picks: BTreeSet::new(), hairpin: BTreeMap::new() }
    }

    fn service(&mut self, key: &Key, new: Option<&Arc<Block>>) {
        let old = self.installed.blocks.get(key);
        match (old, new) {
            (None, None) => return,
            (Some(o), Some(n)) if Arc::ptr_eq(&o.block, n) || o.block == *n => return,
            _ => {}
        }
        self.marks(old.map(|p| &*p.block.marks).unwrap_or_default(), new.map(|b| &*b.marks).unwrap_or_default());
        let none: &[(Front, Arc<[Backend]>)] = &[];
        let before = old.map_or(none, |p| &p.block.fronts);
        for (at, (front, _)) in before.iter().enumerate() {
            if new.is_none_or(|b| b.endpoints(front).is_none()) {
                self.front(front, old.map_or(&[], |p| &p.slots[at]), &[]);
            }
        }
        let mut slots = Vec::new();
        for (front, wanted) in new.map_or(none, |b| &b.fronts) {
            let at = before.iter().position(|(f, _)| f == front);
            let had = match (old, at) {
                (Some(p), Some(at)) => Some(&p.slots[at]),
                _ => None,
            };
            let placed = place(had, wanted);
            self.front(front, had.map_or(&[], |h| h), &placed);
            slots.push(placed);
        }
        let placed = new.map(|b| Placed { block: b.clone(), slots: slots.into_boxed_slice() });
        self.tx.after.push((key.clone(), placed));
    }

    fn marks(&mut self, before: &[Mark], after: &[Mark]) {
        for mark in before.iter().filter(|m| !after.contains(m)) {
            match mark {
                Mark::Hairpin(ip) => *self.hairpin.entry(*ip).or_default() -= 1,
                _ => self.tx.remove.push(Element::Mark(*mark)),
            }
        }
        for mark in after.iter().filter(|m| !before.contains(m)) {
            match mark {
                Mark::Hairpin(ip) => *self.hairpin.entry(*ip).or_default() += 1,
                _ => self.tx.add.push(Element::Mark(*mark)),
            }
        }
    }

    fn front(&mut self, front: &Front, before: &[Backend], after: &[Backend]) {
        let front = *front;
        for slot in 0..before.len().max(after.len()) {
            let (old, new) = (before.get(slot), after.get(slot));
            if old == new {
                continue;
            }
            if let Some(backend) = old {
                self.tx.remove.push(Element::Slot { front, slot: slot as u32, backend: *backend });
            }
            if let Some(backend) = new {
                self.tx.add.push(Element::Slot { front, slot: slot as u32, backend: *backend });
            }
        }
        let (old, new) = (before.len() as u32, after.len() as u32);
        if old == new {
            return;
        }
        if old > 0 {
            self.tx.remove.push(Element::Count { front, count: old });
        }
        if new > 0 {
            self.tx.add.push(Element::Count { front, count: new });
            self.picks.insert(Pick { family: front.family(), kind: front.kind(), count: new });
        }
    }

    fn finish(mut self) -> Transaction {
        for (ip, change) in self.hairpin {
            let before = self.installed.hairpin.get(&ip).copied().unwrap_or(0);
            let after = (i64::from(before) + change).max(0) as u32;
            match (before, after) {
                (0, 1..) => self.tx.add.push(Element::Mark(Mark::Hairpin(ip))),
                (1.., 0) => self.tx.remove.push(Element::Mark(Mark::Hairpin(ip))),
                _ => {}
            }
            self.tx.hairpin.insert(ip, after);
        }
        self.tx.picks = self.picks.difference(&self.installed.picks).copied().collect();
        self.tx
    }
}

/// Gives every endpoint a slot, without gaps, moving as few as can be: those that stay keep theirs, new ones take the places of
/// those that went, and the last ones fill what is still empty.
fn place(before: Option<&Arc<[Backend]>>, wanted: &Arc<[Backend]>) -> Arc<[Backend]> {
    let Some(before) = before else { return wanted.clone() };
    let had: BTreeSet<&Backend> = before.iter().collect();
    let mut fresh = wanted.iter().filter(|b| !had.contains(b)).copied();
    let mut slots: Vec<Option<Backend>> = before.iter().map(|b| wanted.binary_search(b).is_ok().then_some(*b)).collect();
    for hole in slots.iter_mut().filter(|s| s.is_none()) {
        *hole = fresh.next();
    }
    slots.extend(fresh.map(Some));
    let mut at = 0;
    while at < slots.len() {
        if slots[at].is_some() {
            at += 1;
            continue;
        }
        match slots.pop() {
            Some(Some(last)) => slots[at] = Some(last),
            _ => continue,
        }
    }
    let slots: Vec<Backend> = slots.into_iter().flatten().collect();
    if slots[..] == before[..] {
        before.clone()
    } else if slots[..] == wanted[..] {
        wanted.clone()
    } else {
        slots.into()
    }
}

#[cfg(test)]
mod tests;
