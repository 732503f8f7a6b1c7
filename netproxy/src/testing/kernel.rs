//! A model of the kernel's tables. It refuses what the kernel refuses: adding what is there, removing what is not, leading to a
//! chain that does not exist, writing into a table that is not ours.

use crate::diff::{Element, Held, Pick, Place, Stray, Transaction, drawn_from};
use crate::model::Family;
use crate::proxy::Layout;
use crate::ruleset::{Backend, Claim, Front, Mark, Ruleset};
use std::collections::{BTreeMap, BTreeSet};

/// The elements under one name, both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sets {
    pub picks: BTreeSet<Pick>,
    /// Chains that pick and have their rules.
    pub chains: BTreeSet<Pick>,
    pub counts: BTreeMap<Front, (u32, Option<u32>)>,
    pub slots: BTreeMap<(Front, u32), Backend>,
    pub slot_ids: BTreeMap<(Front, u32), u32>,
    pub ids: BTreeMap<(Front, u32), Backend>,
    pub marks: BTreeSet<Mark>,
    pub strays: BTreeSet<Stray>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub main: Sets,
    pub spare: Sets,
    pub tables: BTreeMap<(Place, Family), Layout>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balanced {
    affinity: Option<u32>,
    /// By slot.
    endpoints: Vec<Option<Backend>>,
}

/// What packets to an address or a node port meet: its fronts with their endpoints, and its marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub fronts: BTreeMap<Front, Balanced>,
    pub marks: BTreeSet<Mark>,
}

impl Model {
    pub fn layout(&self, place: Place, family: Family) -> Layout {
        self.tables.get(&(place, family)).copied().unwrap_or(Layout::Absent)
    }

    pub fn sets(&mut self, place: Place) -> &mut Sets {
        match place {
            Place::Main => &mut self.main,
            Place::Spare => &mut self.spare,
        }
    }

    pub fn drop_table(&mut self, place: Place, family: Family) {
        self.tables.remove(&(place, family));
        self.sets(place).clear(family);
    }

    pub fn commit(&mut self, tx: &Transaction) -> Result<(), String> {
        let mut next = self.clone();
        for family in &tx.delete {
            next.drop_table(tx.place, *family);
        }
        if let Some(base) = &tx.base {
            for family in &base.make {
                next.drop_table(tx.place, *family);
                next.tables.insert((tx.place, *family), Layout::Ours);
            }
            for family in &base.keep {
                if next.layout(tx.place, *family) != Layout::Ours {
                    return Err(format!("the table of {family:?} is to be kept, and is not ours"));
                }
                next.sets(tx.place).chains.retain(|p| p.family != *family);
            }
            next.sets(tx.place).chains.extend(base.picks.iter().copied());
        }
        let ours: BTreeSet<Family> = Family::ALL.into_iter().filter(|f| next.layout(tx.place, *f) == Layout::Ours).collect();
        next.sets(tx.place).change(tx, &ours)?;
        *self = next;
        Ok(())
    }

    /// Of the first table that has anything to say.
    pub fn view(&self, claim: &Claim) -> View {
        let main = self.main.view(claim);
        if main == View::default() { self.spare.view(claim) } else { main }
    }

    pub fn holds(&self, rules: &Ruleset) -> Result<(), String> {
        if let Some(left) = self.tables.iter().find(|((place, _), layout)| *place == Place::Spare || **layout != Layout::Ours) {
            return Err(format!("{left:?} is there"));
        }
        self.main.whole()?;
        self.main.holds(rules)
    }
}

impl Sets {
    fn clear(&mut self, family: Family) {
        self.picks.retain(|p| p.family != family);
        self.chains.retain(|p| p.family != family);
        self.counts.retain(|f, _| f.family() != family);
        self.slots.retain(|(f, _), _| f.family() != family);
        self.slot_ids.retain(|(f, _), _| f.family() != family);
        self.ids.retain(|(f, _), _| f.family() != family);
        self.marks.retain(|m| m.family() != family);
        self.strays.retain(|s| s.family != family);
    }

    fn change(&mut self, tx: &Transaction, ours: &BTreeSet<Family>) -> Result<(), String> {
        for stray in &tx.strays {
            if !self.strays.remove(stray) {
                return Err(format!("removes {stray:?}, which is not there"));
            }
        }
        for pick in &tx.picks {
            self.picks.insert(*pick);
            self.chains.insert(*pick);
        }
        let elements = tx.remove.iter().chain(&tx.add);
        if let Some(e) = elements.clone().find(|e| !ours.contains(&e.family())) {
            return Err(format!("{e:?} is of a table that is not ours"));
        }
        if let Some(e) = tx.remove.iter().find(|e| !self.remove(e)) {
            return Err(format!("removes {e:?}, which is not there"));
        }
        if let Some(e) = tx.add.iter().find(|e| !self.add(e)) {
            return Err(format!("adds {e:?}, which is there"));
        }
        elements.filter_map(front).collect::<BTreeSet<Front>>().iter().try_for_each(|f| self.resolves(f))
    }

    pub fn remove(&mut self, e: &Element) -> bool {
        match e {
            Element::Count { front, count, affinity } => self.counts.remove(front) == Some((*count, *affinity)),
            Element::Slot { front, slot, backend } => self.slots.remove(&(*front, *slot)) == Some(*backend),
            Element::SlotId { front, slot, id } => self.slot_ids.remove(&(*front, *slot)) == Some(*id),
            Element::Id { front, id, backend } => self.ids.remove(&(*front, *id)) == Some(*backend),
            Element::Mark(m) => self.marks.remove(m),
        }
    }

    pub fn add(&mut self, e: &Element) -> bool {
        match e {
            Element::Count { front, count, affinity } => self.counts.insert(*front, (*count, *affinity)).is_none(),
            Element::Slot { front, slot, backend } => self.slots.insert((*front, *slot), *backend).is_none(),
            Element::SlotId { front, slot, id } => self.slot_ids.insert((*front, *slot), *id).is_none(),
            Element::Id { front, id, backend } => self.ids.insert((*front, *id), *backend).is_none(),
            Element::Mark(m) => self.marks.insert(*m),
        }
    }

    pub fn elements(&self) -> Vec<Element> {
        let counts = self.counts.iter().map(|(front, (count, affinity))| Element::Count {
            front: *front,
            count: *count,
            affinity: *affinity,
        });
        let slots = self.slots.iter().map(|((front, slot), b)| Element::Slot { front: *front, slot: *slot, backend: *b });
        let slot_ids = self.slot_ids.iter().map(|((front, slot), id)| Element::SlotId { front: *front, slot: *slot, id: *id });
        let ids = self.ids.iter().map(|((front, id), b)| Element::Id { front: *front, id: *id, backend: *b });
        counts.chain(slots).chain(slot_ids).chain(ids).chain(self.marks.iter().map(|m| Element::Mark(*m))).collect()
    }

    /// As the kernel would list a family's table.
    pub fn held(&self, family: Family) -> Vec<Held> {
        let elements = self.elements().into_iter().filter(|e| e.family() == family).map(Held::Element);
        let picks = self.picks.iter().filter(|p| p.family == family).map(|p| Held::Pick(*p));
        let strays = self.strays.iter().filter(|s| s.family == family).cloned().map(Held::Stray);
        elements.chain(picks).chain(strays).collect()
    }

    /// A count leads to a chain with rules.
    pub fn reachable(&self, front: &Front) -> bool {
        self.counts.get(front).is_some_and(|(count, affinity)| {
            let pick = Pick { family: front.family(), kind: front.kind(), count: *count, affinity: *affinity };
            self.picks.contains(&pick) && self.chains.contains(&pick)
        })
    }

    fn view(&self, claim: &Claim) -> View {
        let of = |(front, (count, affinity)): (&Front, &(u32, Option<u32>))| {
            let endpoints = (0..*count).map(|n| self.endpoint(front, n)).collect();
            (*front, Balanced { affinity: *affinity, endpoints })
        };
        View {
            fronts: self.counts.iter().filter(|(f, _)| f.claim() == *claim).map(of).collect(),
            marks: self.marks.iter().filter(|m| m.claim() == Some(*claim)).copied().collect(),
        }
    }

    /// A count has a chain and all its slots, no slot is beyond it, and every id is used.
    fn resolves(&self, front: &Front) -> Result<(), String> {
        let (count, stays) = self.counts.get(front).map_or((0, None), |(count, affinity)| (*count, Some(affinity.is_some())));
        if count > 0 && !self.reachable(front) {
            return Err(format!("{front:?} leads to no chain for {count}"));
        }
        let filled = (0..count).take_while(|n| self.endpoint(front, *n).is_some()).count() as u32;
        if drawn_from(filled) != count {
            return Err(format!("{front:?} has {filled} slots of {count}"));
        }
        let here = |at: &&(Front, u32)| at.0 == *front;
        let out = |at: &&(Front, u32), wanted: bool| at.1 >= filled || stays != Some(wanted);
        let plain = self.slots.keys().filter(here).find(|at| out(at, false));
        if let Some(at) = plain.or_else(|| self.slot_ids.keys().filter(here).find(|at| out(at, true))) {
            return Err(format!("{at:?} is out of reach"));
        }
        let used: BTreeSet<u32> = self.slot_ids.iter().filter(|(at, _)| at.0 == *front).map(|(_, id)| *id).collect();
        match self.ids.keys().filter(here).find(|at| !used.contains(&at.1)) {
            Some(id) => Err(format!("no slot leads to {id:?}")),
            None => Ok(()),
        }
    }

    pub fn whole(&self) -> Result<(), String> {
        let all: BTreeSet<Front> = self.elements().iter().filter_map(front).collect();
        all.iter().try_for_each(|f| self.resolves(f))?;
        match self.strays.first() {
            Some(stray) => Err(format!("{stray:?} is there")),
            None => Ok(()),
        }
    }

    /// What a slot leads to.
    pub fn endpoint(&self, front: &Front, slot: u32) -> Option<Backend> {
        match self.counts.get(front)?.1 {
            None => self.slots.get(&(*front, slot)).copied(),
            Some(_) => self.ids.get(&(*front, *self.slot_ids.get(&(*front, slot))?)).copied(),
        }
    }

    /// What a ruleset asks for, slots as sets.
    fn holds(&self, rules: &Ruleset) -> Result<(), String> {
        let mut fronts = BTreeMap::<Front, BTreeSet<Backend>>::new();
        for (front, (count, _)) in &self.counts {
            fronts.insert(*front, (0..*count).filter_map(|n| self.endpoint(front, n)).collect());
        }
        let mut wanted = BTreeMap::<Front, BTreeSet<Backend>>::new();
        let mut marks = BTreeSet::new();
        for (_, block) in rules.blocks() {
            marks.extend(block.marks.iter().copied());
            for (front, pool) in &block.fronts {
                if self.counts.get(front).is_some_and(|(_, affinity)| *affinity != block.affinity) {
                    return Err(format!("{front:?} has not the affinity {:?}", block.affinity));
                }
                if wanted.insert(*front, pool.iter().copied().collect()).is_some() {
                    return Err(format!("two services have {front:?}"));
                }
            }
        }
        if fronts != wanted || marks != self.marks {
            return Err(format!("holds {fronts:?} {:?}, should {wanted:?} {marks:?}", self.marks));
        }
        Ok(())
    }
}

fn front(e: &Element) -> Option<Front> {
    match e {
        Element::Count { front, .. }
        | Element::Slot { front, .. }
        | Element::SlotId { front, .. }
        | Element::Id { front, .. } => Some(*front),
        Element::Mark(_) => None,
    }
}
