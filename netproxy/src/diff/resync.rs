//! From what was read of the kernel to what it should hold, in steps of bounded size.
//!
//! Pure. A step is made of whole units: all that differs in one service (and in what it took over), or in one address or node
//! port that no service has any more. So between two steps a packet meets each service as it was or as it is to be. Endpoints
//! keep the slots in which they were found; where nothing differs, nothing is written.

use super::{Base, Element, Pick, Place, Placed, Stray, Transaction, arrange, drawn_from, endpoint_ids, in_company};
use crate::model::{Family, Key};
use crate::ruleset::{Backend, Block, Claim, Front, Mark, Ruleset};
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::net::IpAddr;
use std::sync::Arc;

/// One element as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    Element(Element),
    Pick(Pick),
    Stray(Stray),
}

/// What tables of the right layout hold.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pools: BTreeMap<Front, Pool>,
    marks: BTreeSet<Mark>,
    picks: BTreeSet<Pick>,
    strays: Vec<Stray>,
}

/// The elements of one front, in no order, as somebody may have left them.
#[derive(Debug, Clone, Default)]
struct Pool {
    count: Option<(u32, Option<u32>)>,
    slots: Vec<(u32, Backend)>,
    slot_ids: Vec<(u32, u32)>,
    ids: Vec<(u32, Backend)>,
}

impl Found {
    pub fn add(&mut self, held: Held) {
        match held {
            Held::Element(Element::Count { front, count, affinity }) => self.pool(front).count = Some((count, affinity)),
            Held::Element(Element::Slot { front, slot, backend }) => self.pool(front).slots.push((slot, backend)),
            Held::Element(Element::SlotId { front, slot, id }) => self.pool(front).slot_ids.push((slot, id)),
            Held::Element(Element::Id { front, id, backend }) => self.pool(front).ids.push((id, backend)),
            Held::Element(Element::Mark(mark)) => drop(self.marks.insert(mark)),
            Held::Pick(pick) => drop(self.picks.insert(pick)),
            Held::Stray(stray) => self.strays.push(stray),
        }
    }

    fn pool(&mut self, front: Front) -> &mut Pool {
        self.pools.entry(front).or_default()
    }
}

impl Pool {
    /// Sorted, and once each: a list that was interrupted may tell an element twice.
    fn tidy(&mut self) {
        self.slots.sort_unstable();
        self.slots.dedup_by_key(|(n, _)| *n);
        self.slot_ids.sort_unstable();
        self.slot_ids.dedup_by_key(|(n, _)| *n);
        self.ids.sort_unstable();
        self.ids.dedup_by_key(|(n, _)| *n);
    }

    /// The slots for the endpoints wanted: those found in a good one stay there.
    fn place(&self, wanted: &Arc<[Backend]>, affinity: Option<u32>) -> Arc<[Backend]> {
        let mut slots = vec![None; wanted.len()];
        let mut used = BTreeSet::new();
        let mut keep = |slot: u32, b: Backend| {
            if let Some(at) = slots.get_mut(slot as usize)
                && wanted.binary_search(&b).is_ok()
                && used.insert(b)
            {
                *at = Some(b);
            }
        };
        if affinity.is_none() {
            self.slots.iter().for_each(|(slot, b)| keep(*slot, *b));
        } else {
            for (slot, id) in &self.slot_ids {
                if let Ok(at) = self.ids.binary_search_by_key(id, |(id, _)| *id) {
                    keep(*slot, self.ids[at].1);
                }
            }
        }
        if used.is_empty() {
            return wanted.clone();
        }
        let slots = arrange(slots, wanted);
        if slots[..] == wanted[..] { wanted.clone() } else { slots.into() }
    }
}

/// All that differs in one service. With nothing in it, it still tells where the endpoints are.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// `None`: an address or port that no service has.
    pub key: Option<Key>,
    remove: Vec<Element>,
    add: Vec<Element>,
    placed: Option<Placed>,
}

impl Unit {
    pub fn len(&self) -> usize {
        self.remove.len() + self.add.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Brings one front from what was found to what is wanted. Returns the slots.
    fn settle(&mut self, front: Front, mut had: Pool, want: Option<(&Arc<[Backend]>, Option<u32>)>) -> Arc<[Backend]> {
        had.tidy();
        let placed = want.map_or_else(|| Arc::from([]), |(pool, affinity)| had.place(pool, affinity));
        let affinity = want.and_then(|(_, affinity)| affinity);
        let count = want.map(|_| (drawn_from(placed.len() as u32), affinity));
        if had.count != count {
            let element = |(count, affinity)| Element::Count { front, count, affinity };
            self.remove.extend(had.count.map(element));
            self.add.extend(count.map(element));
        }
        let (mut slots, mut slot_ids, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        if affinity.is_none() {
            slots.extend((0..).zip(placed.iter().copied()));
        } else {
            let of = endpoint_ids(&placed);
            slot_ids.extend((0..).zip(placed.iter().map(|b| of[b])));
            ids.extend(of.iter().map(|(b, id)| (*id, *b)));
            ids.sort_unstable();
        }
        self.compare(&had.slots, &slots, |slot, backend| Element::Slot { front, slot, backend });
        self.compare(&had.slot_ids, &slot_ids, |slot, id| Element::SlotId { front, slot, id });
        self.compare(&had.ids, &ids, |id, backend| Element::Id { front, id, backend });
        placed
    }

    /// Both sorted by number.
    fn compare<T: Copy + PartialEq>(&mut self, had: &[(u32, T)], want: &[(u32, T)], element: impl Fn(u32, T) -> Element) {
        let (mut old, mut new) = (had.iter().peekable(), want.iter().peekable());
        loop {
            let (o, n) = (old.peek().copied(), new.peek().copied());
            let Some(least) = o.into_iter().chain(n).map(|(number, _)| *number).min() else { return };
            let o = old.next_if(|(number, _)| *number == least);
            let n = new.next_if(|(number, _)| *number == least);
            if o != n {
                self.remove.extend(o.map(|(number, data)| element(*number, *data)));
                self.add.extend(n.map(|(number, data)| element(*number, *data)));
            }
        }
    }
}

impl Transaction {
    /// The changes of some units together.
    pub fn of(place: Place, units: Vec<Unit>) -> Transaction {
        let mut tx = Transaction { place, ..Transaction::default() };
        for unit in units {
            tx.remove.extend(unit.remove);
            tx.add.extend(unit.add);
            if let (Some(key), placed) = (unit.key, unit.placed) {
                tx.after.push((key, placed));
            }
        }
        tx
    }
}

/// What was found of one owner that is not wanted any more.
#[derive(Debug, Default)]
struct Extra {
    fronts: Vec<Front>,
    marks: Vec<Mark>,
}

/// The way from what was found to a ruleset: `first`, `units` until there are none, `last`.
pub struct Resync<'a> {
    ruleset: &'a Ruleset,
    place: Place,
    families: BTreeSet<Family>,
    found: Found,
    blocks: btree_map::Iter<'a, Key, Arc<Block>>,
    owned: BTreeMap<Key, Extra>,
    orphans: BTreeMap<Claim, Extra>,
    hairpin: BTreeMap<IpAddr, u32>,
}

impl<'a> Resync<'a> {
    /// In tables of these families only; `found` is what was read of those that are kept.
    pub fn new(place: Place, ruleset: &'a Ruleset, families: BTreeSet<Family>, found: Found) -> Self {
        let mut owned = BTreeMap::<Key, Extra>::new();
        let mut orphans = BTreeMap::<Claim, Extra>::new();
        let mut extra = |claim: Claim, put: &dyn Fn(&mut Extra)| match ruleset.owner(&claim) {
            Some(key) if ruleset.block(key).is_some() => put(owned.entry(key.clone()).or_default()),
            _ => put(orphans.entry(claim).or_default()),
        };
        for front in found.pools.keys().filter(|f| ruleset.endpoints(f).is_none()) {
            extra(front.claim(), &|e| e.fronts.push(*front));
        }
        for mark in &found.marks {
            if let Some(claim) = mark.claim().filter(|_| !ruleset.has_mark(mark)) {
                extra(claim, &|e| e.marks.push(*mark));
            }
        }
        let mut hairpin = BTreeMap::new();
        for ip in
            ruleset.blocks().flat_map(|(_, b)| &b.marks).filter_map(|m| if let Mark::Hairpin(ip) = m { Some(ip) } else { None })
        {
            *hairpin.entry(*ip).or_default() += 1;
        }
        Resync { ruleset, place, blocks: ruleset.blocks.iter(), families, found, owned, orphans, hairpin }
    }

    /// The fixed part, what nobody wrote, all chains that pick, and the hairpins that are missing: having one too many harms
    /// nobody, so they come first and go last. `keep` are the tables that were read; all others are made.
    pub fn first(&mut self, keep: &BTreeSet<Family>) -> Transaction {
        let mut wanted = BTreeSet::new();
        for (_, block) in self.ruleset.blocks() {
            let pick = |(front, pool): &(Front, Arc<[Backend]>)| {
                let (family, kind, count) = (front.family(), front.kind(), drawn_from(pool.len() as u32));
                Pick { family, kind, count, affinity: block.affinity }
            };
            wanted.extend(block.fronts.iter().map(pick).filter(|p| self.families.contains(&p.family)));
        }
        let missing = self.hairpin.keys().map(|ip| Mark::Hairpin(*ip));
        let missing = missing.filter(|m| self.families.contains(&m.family()) && !self.found.marks.contains(m));
        Transaction {
            place: self.place,
            picks: in_company(&wanted).difference(&self.found.picks).copied().collect(),
            add: missing.map(Element::Mark).collect(),
            strays: std::mem::take(&mut self.found.strays),
            base: Some(Base {
                policy: self.ruleset.policy.clone(),
                keep: keep.clone(),
                make: self.families.difference(keep).copied().collect(),
                picks: self.found.picks.iter().copied().collect(),
            }),
            ..Transaction::default()
        }
    }

    /// The next units, until together they have `most` elements or more. None: done.
    pub fn units(&mut self, most: usize) -> Vec<Unit> {
        // Where nothing differs, units are empty: their number has to end too.
        const MOST_UNITS: usize = 4096;
        let (mut units, mut elements) = (Vec::new(), 0);
        while elements < most && units.len() < MOST_UNITS {
            let Some(unit) = self.service().or_else(|| self.orphan()) else { break };
            elements += unit.len();
            units.push(unit);
        }
        units
    }

    fn service(&mut self) -> Option<Unit> {
        let (key, block) = self.blocks.next()?;
        let mut unit = Unit { key: Some(key.clone()), ..Unit::default() };
        let mut slots = Vec::with_capacity(block.fronts.len());
        for (front, pool) in &block.fronts {
            slots.push(if self.families.contains(&front.family()) {
                let had = self.found.pools.remove(front).unwrap_or_default();
                unit.settle(*front, had, Some((pool, block.affinity)))
            } else {
                pool.clone()
            });
        }
        let missing = |m: &&Mark| m.claim().is_some() && self.families.contains(&m.family()) && !self.found.marks.contains(m);
        unit.add.extend(block.marks.iter().filter(missing).map(|m| Element::Mark(*m)));
        if let Some(extra) = self.owned.remove(key) {
            self.remove(&mut unit, extra);
        }
        unit.placed = Some(Placed { block: block.clone(), slots: slots.into_boxed_slice() });
        Some(unit)
    }

    fn orphan(&mut self) -> Option<Unit> {
        let (_, extra) = self.orphans.pop_first()?;
        let mut unit = Unit::default();
        self.remove(&mut unit, extra);
        Some(unit)
    }

    fn remove(&mut self, unit: &mut Unit, extra: Extra) {
        for front in extra.fronts {
            let had = self.found.pools.remove(&front).unwrap_or_default();
            unit.settle(front, had, None);
        }
        unit.remove.extend(extra.marks.into_iter().map(Element::Mark));
    }

    /// Hairpins that are not wanted any more.
    pub fn last(self) -> Transaction {
        let hairpins = self.found.marks.iter().filter(|m| matches!(m, Mark::Hairpin(ip) if !self.hairpin.contains_key(ip)));
        Transaction {
            place: self.place,
            remove: hairpins.map(|m| Element::Mark(*m)).collect(),
            hairpin: self.hairpin,
            ..Transaction::default()
        }
    }
}
