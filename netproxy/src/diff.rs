//! From what the kernel holds to what it should hold.
//!
//! Pure. `Installed` remembers which endpoint sits in which slot; a `Transaction` lists the elements to remove, then those to
//! add, and carries the state that is true once the kernel has taken it. A changed endpoint moves at most two slots of each
//! front, whatever the size of the cluster.

mod resync;

use crate::model::{Family, Key};
use crate::ruleset::{Backend, Block, Front, Mark, PickKind, Policy, Ruleset};
use crate::tables::Touched;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use resync::{Found, Held, Resync, Unit};

/// One element of one of our maps or sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// Among how many slots a front's endpoint is drawn (`drawn_from`), and for how many seconds a client stays with one.
    Count {
        front: Front,
        count: u32,
        affinity: Option<u32>,
    },
    Slot {
        front: Front,
        slot: u32,
        backend: Backend,
    },
    /// With affinity a slot leads to an id, and the id to the endpoint.
    SlotId {
        front: Front,
        slot: u32,
        id: u32,
    },
    Id {
        front: Front,
        id: u32,
        backend: Backend,
    },
    Mark(Mark),
}

impl Element {
    pub fn family(&self) -> Family {
        match self {
            Element::Count { front, .. }
            | Element::Slot { front, .. }
            | Element::SlotId { front, .. }
            | Element::Id { front, .. } => front.family(),
            Element::Mark(mark) => mark.family(),
        }
    }
}

/// A chain that draws one of `count` slots, and the element that leads to it. Made before anything needs it and kept until
/// the table goes: kernels before 6.2 still count a removed verdict element as a reference to its chain for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pick {
    pub family: Family,
    pub kind: PickKind,
    pub count: u32,
    pub affinity: Option<u32>,
}

/// Up to here each number of endpoints has a chain of its own.
pub const EXACT: u32 = 16;
/// Chains for so many endpoints are made before anything needs them.
const READY: u32 = 128;

/// Among how many slots one of so many endpoints is drawn: beyond `EXACT` a few more than there are, at most a fourth, so that few
/// chains do for all. Who draws an empty slot draws again. Few, since the kernel looks at each of them for each new element.
pub fn drawn_from(endpoints: u32) -> u32 {
    if endpoints <= EXACT {
        return endpoints;
    }
    endpoints.next_multiple_of((1 << endpoints.ilog2()) / 4).min(MOST_ENDPOINTS as u32)
}

/// So many of the first slots are never empty, and there is a chain for them.
pub fn always_filled(drawn_from: u32) -> u32 {
    if drawn_from <= EXACT { 1 } else { (1 << (drawn_from - 1).ilog2()).min(READY) }
}

/// Without affinity chains lead on to others, and there are those for all usual numbers of endpoints from the first one on: the maps
/// are empty then; later the kernel walks over all their elements for each chain that looks them up.
fn in_company(wanted: &BTreeSet<Pick>) -> BTreeSet<Pick> {
    let mut all = wanted.clone();
    let kinds: BTreeSet<Pick> = wanted.iter().filter(|p| p.affinity.is_none()).map(|p| Pick { count: 1, ..*p }).collect();
    for one in kinds {
        all.extend((1..=READY).map(|n| Pick { count: drawn_from(n), ..one }));
    }
    all
}

/// Endpoint counts and timeouts share 32 bits: the API ends timeouts at 86400, 17 bits.
pub const COUNT_BITS: u32 = 15;
/// No front has more endpoints than this.
pub const MOST_ENDPOINTS: usize = (1 << COUNT_BITS) - 1;

/// The number that stands for a count and a timeout in the kernel's maps.
pub fn code(count: u32, affinity: Option<u32>) -> u32 {
    affinity.unwrap_or(0) << COUNT_BITS | count
}

/// The count and the timeout in such a number.
pub fn code_parts(code: u32) -> (u32, Option<u32>) {
    (code & ((1 << COUNT_BITS) - 1), Some(code >> COUNT_BITS).filter(|seconds| *seconds > 0))
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

/// Each family's table has a second name: under it a table of another version's layout is stood in for while it is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    #[default]
    Main,
    Spare,
}

/// The fixed part of tables: chains and their rules, and empty sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub policy: Policy,
    /// Tables of the right layout: their rules are written anew, their elements stay.
    pub keep: BTreeSet<Family>,
    /// Tables that are deleted if they are there, and made.
    pub make: BTreeSet<Family>,
    /// The elements that lead to these are there, in the tables kept; only their rules are to be written.
    pub picks: Vec<Pick>,
}

/// An element in one of our sets that this program never wrote, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stray {
    pub family: Family,
    pub set: &'static str,
    pub key: Box<[u8]>,
    /// Of an interval.
    pub end: Option<Box<[u8]>>,
}

/// What to do to the kernel, in this order: `delete`, `base`, strays, picks, removals, additions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub place: Place,
    /// Tables that are to go; nothing there is no error.
    pub delete: BTreeSet<Family>,
    pub base: Option<Base>,
    pub strays: Vec<Stray>,
    pub picks: Vec<Pick>,
    pub remove: Vec<Element>,
    pub add: Vec<Element>,
    after: Vec<(Key, Option<Placed>)>,
    hairpin: BTreeMap<IpAddr, u32>,
}

impl Transaction {
    /// These tables are to go.
    pub fn without(place: Place, families: BTreeSet<Family>) -> Transaction {
        Transaction { place, delete: families, ..Transaction::default() }
    }

    /// Nothing to tell the kernel.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.delete.is_empty() && self.len() == 0
    }

    /// Number of elements and chains named.
    pub fn len(&self) -> usize {
        self.strays.len() + self.picks.len() + self.remove.len() + self.add.len()
    }
}

impl Installed {
    /// The kernel has taken the transaction.
    pub fn apply(&mut self, tx: Transaction) {
        if let Some(base) = tx.base {
            // What is not in the base stays only where the table does; a base begins a resync, which tells all the rest.
            *self = Installed { picks: base.picks.into_iter().collect(), ..Installed::default() };
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

    /// Chains that pick, whether anything leads to them or not.
    pub fn picks(&self) -> usize {
        self.picks.len()
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

/// Everything into new tables, in one transaction.
pub fn full(ruleset: &Ruleset) -> Transaction {
    let mut tx = diff(&Installed::default(), ruleset);
    let policy = ruleset.policy.clone();
    tx.base = Some(Base { make: policy.families.clone(), policy, keep: BTreeSet::new(), picks: Vec::new() });
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
        let stays = (old.and_then(|p| p.block.affinity), new.and_then(|b| b.affinity));
        for (at, (front, _)) in before.iter().enumerate() {
            if new.is_none_or(|b| b.endpoints(front).is_none()) {
                self.front(front, old.map_or(&[], |p| &p.slots[at]), &[], stays);
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
            self.front(front, had.map_or(&[], |h| h), &placed, stays);
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

    fn front(&mut self, front: &Front, before: &[Backend], after: &[Backend], stays: (Option<u32>, Option<u32>)) {
        let front = *front;
        match stays {
            (None, None) => self.slots(front, before, after),
            (Some(_), Some(_)) => self.ids(front, before, after),
            (None, Some(_)) => {
                self.slots(front, before, &[]);
                self.ids(front, &[], after);
            }
            (Some(_), None) => {
                self.ids(front, before, &[]);
                self.slots(front, &[], after);
            }
        }
        let among = |slots: &[Backend]| drawn_from(slots.len() as u32);
        let (old, new) = ((among(before), stays.0), (among(after), stays.1));
        if old == new {
            return;
        }
        if old.0 > 0 {
            self.tx.remove.push(Element::Count { front, count: old.0, affinity: old.1 });
        }
        if new.0 > 0 {
            self.tx.add.push(Element::Count { front, count: new.0, affinity: new.1 });
            self.picks.insert(Pick { family: front.family(), kind: front.kind(), count: new.0, affinity: new.1 });
        }
    }

    fn slots(&mut self, front: Front, before: &[Backend], after: &[Backend]) {
        changed(before, after, |slot, old, new| {
            self.tx.remove.extend(old.map(|backend| Element::Slot { front, slot, backend }));
            self.tx.add.extend(new.map(|backend| Element::Slot { front, slot, backend }));
        });
    }

    fn ids(&mut self, front: Front, before: &[Backend], after: &[Backend]) {
        let (had, has) = (endpoint_ids(before), endpoint_ids(after));
        let in_order = |of: &BTreeMap<Backend, u32>, all: &[Backend]| -> Vec<u32> { all.iter().map(|b| of[b]).collect() };
        changed(&in_order(&had, before), &in_order(&has, after), |slot, old, new| {
            self.tx.remove.extend(old.map(|id| Element::SlotId { front, slot, id }));
            self.tx.add.extend(new.map(|id| Element::SlotId { front, slot, id }));
        });
        let other = |of: &BTreeMap<Backend, u32>, b: &Backend, id: u32| of.get(b) != Some(&id);
        let gone = had.iter().filter(|(b, id)| other(&has, b, **id));
        self.tx.remove.extend(gone.map(|(backend, id)| Element::Id { front, id: *id, backend: *backend }));
        let come = has.iter().filter(|(b, id)| other(&had, b, **id));
        self.tx.add.extend(come.map(|(backend, id)| Element::Id { front, id: *id, backend: *backend }));
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
        let missing: BTreeSet<Pick> = self.picks.difference(&self.installed.picks).copied().collect();
        if !missing.is_empty() {
            self.tx.picks = in_company(&missing).difference(&self.installed.picks).copied().collect();
        }
        self.tx
    }
}

/// Gives every endpoint a slot, without gaps, moving as few as can be: those that stay keep theirs, new ones take the places of
/// those that went, and the last ones fill what is still empty.
fn place(before: Option<&Arc<[Backend]>>, wanted: &Arc<[Backend]>) -> Arc<[Backend]> {
    let Some(before) = before else { return wanted.clone() };
    let slots = arrange(before.iter().map(|b| wanted.binary_search(b).is_ok().then_some(*b)).collect(), wanted);
    if slots[..] == before[..] {
        before.clone()
    } else if slots[..] == wanted[..] {
        wanted.clone()
    } else {
        slots.into()
    }
}

/// The same with those that keep their slots given. No two of them are equal, and all are wanted.
fn arrange(mut slots: Vec<Option<Backend>>, wanted: &[Backend]) -> Vec<Backend> {
    let kept: BTreeSet<Backend> = slots.iter().flatten().copied().collect();
    let mut fresh = wanted.iter().filter(|b| !kept.contains(b)).copied();
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
    slots.into_iter().flatten().collect()
}

/// Calls for every place in which the two differ.
fn changed<T: Copy + PartialEq>(before: &[T], after: &[T], mut each: impl FnMut(u32, Option<T>, Option<T>)) {
    for at in 0..before.len().max(after.len()) {
        let (old, new) = (before.get(at).copied(), after.get(at).copied());
        if old != new {
            each(at as u32, old, new);
        }
    }
}

/// A number for each endpoint that does not depend on the others, on the order or on a run of this program, unless two of them
/// would have the same: then the later one by address has the next.
pub(crate) fn endpoint_ids(pool: &[Backend]) -> BTreeMap<Backend, u32> {
    let sorted: BTreeSet<Backend> = pool.iter().copied().collect();
    let mut taken = BTreeSet::new();
    let number = |b: Backend| {
        let mut id = hash(&b);
        while !taken.insert(id) {
            id = id.wrapping_add(1);
        }
        (b, id)
    };
    sorted.into_iter().map(number).collect()
}

/// FNV-1a, and a last stirring since addresses differ in few bits. Never to change: clients of a restarted agent keep their
/// endpoints by it.
fn hash(b: &Backend) -> u32 {
    let address = match b.ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let bytes = address.into_iter().chain(b.port.to_be_bytes());
    let mut h = bytes.fold(0x811c_9dc5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^ (h >> 13)
}

#[cfg(test)]
mod tests;
