use super::*;
use crate::compile::update;
use crate::conntrack::Flow;
use crate::diff::{Element, Held, Stray, diff};
use crate::ruleset::{Backend, Claim, Front, Mark};
use crate::tables::Tables;
use crate::testing::{Model, Sets, View, apply, change, changes, pod, policy, vip};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;

/// The model, what it went through, and when it stops answering.
#[derive(Default)]
struct Fake {
    model: Model,
    seen: Vec<Model>,
    /// After so many transactions one is not answered; true: it was taken all the same.
    ends: Option<(usize, bool)>,
    ended: bool,
    /// So many lists are interrupted.
    interrupts: usize,
    why: Option<String>,
}

impl Kernel for Fake {
    fn commit(&mut self, tx: &Transaction) -> Result<(), Error> {
        let ends = self.ends.filter(|(after, _)| *after == self.seen.len());
        if ends.is_none_or(|(_, taken)| taken) {
            self.model.commit(tx).map_err(|why| {
                self.why = Some(why);
                refused()
            })?;
            self.seen.push(self.model.clone());
        }
        if ends.is_some() {
            self.ended = true;
            return Err(Error::NoAnswer { bytes: 0 });
        }
        Ok(())
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), Error> {
        self.model.clone().commit(tx).map_err(|_| refused())
    }

    fn layout(&mut self, place: Place, family: Family) -> Result<Layout, Error> {
        Ok(self.model.layout(place, family))
    }

    fn read(&mut self, family: Family, each: &mut dyn FnMut(Held)) -> Result<bool, Error> {
        let all = self.model.main.held(family);
        if self.interrupts > 0 {
            self.interrupts -= 1;
            // Some twice, some not at all.
            all.iter().step_by(2).chain(all.iter().step_by(3)).cloned().for_each(each);
            return Ok(false);
        }
        all.into_iter().for_each(each);
        Ok(true)
    }

    fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        Ok(Vec::new())
    }

    fn delete_flow(&mut self, _: &Flow) -> Result<(), Error> {
        Ok(())
    }
}

fn refused() -> Error {
    Error::Refused { what: "it".into(), message: String::new(), source: io::Error::from_raw_os_error(nix::libc::EINVAL) }
}

impl Fake {
    /// One try; what it knows afterwards and how many elements and chains it named.
    fn run(&mut self, rules: &Ruleset, most: usize) -> Result<(Installed, usize, usize), TestCaseError> {
        self.seen.clear();
        let mut stats = Stats::default();
        let mut steps = Steps::new(self, &mut stats, most);
        match steps.resync(rules, false) {
            Ok(installed) => Ok((installed, steps.operations, steps.batches)),
            Err(f) => Err(TestCaseError::fail(format!("{}: {:?}", f.error, self.why))),
        }
    }
}

/// What somebody else did to our tables.
#[derive(Debug, Clone)]
enum Damage {
    Remove(usize),
    Alter(usize),
    Add(u8, u32),
    Mark(u8),
    Stray(u8),
    Pick(usize),
    Flush(bool),
    Delete(bool),
    Replace(bool),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => any::<usize>().prop_map(Damage::Remove),
        4 => any::<usize>().prop_map(Damage::Alter),
        2 => (0..6u8, 0..9u32).prop_map(|(n, slot)| Damage::Add(n, slot)),
        1 => any::<u8>().prop_map(Damage::Mark),
        1 => any::<u8>().prop_map(Damage::Stray),
        2 => any::<usize>().prop_map(Damage::Pick),
        1 => any::<bool>().prop_map(Damage::Flush),
        1 => any::<bool>().prop_map(Damage::Delete),
        1 => any::<bool>().prop_map(Damage::Replace),
    ]
}

fn family(v6: bool) -> Family {
    if v6 { Family::V6 } else { Family::V4 }
}

fn do_damage(model: &mut Model, what: &Damage) {
    let any_of = |sets: &Sets, n: usize| sets.elements().get(n % sets.elements().len().max(1)).copied();
    let sets = &mut model.main;
    match what {
        Damage::Remove(n) => drop(any_of(sets, *n).map(|e| sets.remove(&e))),
        Damage::Alter(n) => {
            let Some(e) = any_of(sets, *n) else { return };
            sets.remove(&e);
            let other = |front: Front| Backend { ip: pod(front.family(), 77), port: 1 };
            match e {
                Element::Count { front, count, affinity } => sets.add(&Element::Count { front, count: count + 1, affinity }),
                Element::Slot { front, slot, .. } => sets.add(&Element::Slot { front, slot, backend: other(front) }),
                Element::SlotId { front, slot, id } => sets.add(&Element::SlotId { front, slot, id: id ^ 1 }),
                Element::Id { front, id, .. } => sets.add(&Element::Id { front, id, backend: other(front) }),
                Element::Mark(_) => true,
            };
        }
        Damage::Add(n, slot) => {
            let front = Front::ClusterIp { ip: vip(Family::V4, *n), proto: crate::model::Proto::Tcp, port: 80 };
            if model.layout(Place::Main, Family::V4) == Layout::Ours {
                model.main.slots.entry((front, *slot)).or_insert(Backend { ip: pod(Family::V4, 1), port: 8080 });
                model.main.slot_ids.entry((front, slot + 1)).or_insert(*slot);
            }
        }
        Damage::Mark(n) => {
            let of = family(n % 2 == 0);
            if model.layout(Place::Main, of) == Layout::Ours {
                model.main.marks.insert(Mark::ClusterIp(vip(of, n % 8)));
                model.main.marks.insert(Mark::Hairpin(pod(of, n % 8)));
            }
        }
        Damage::Stray(n) => {
            let of = family(n % 2 == 0);
            if model.layout(Place::Main, of) == Layout::Ours {
                model.main.strays.insert(Stray { family: of, set: "services", key: [*n; 4].into(), end: None });
            }
        }
        Damage::Pick(n) => {
            let gone = sets.picks.iter().nth(n % sets.picks.len().max(1)).copied();
            gone.map(|p| sets.picks.remove(&p));
        }
        Damage::Flush(v6) => sets.chains.retain(|p| p.family != family(*v6)),
        Damage::Delete(v6) => model.drop_table(Place::Main, family(*v6)),
        Damage::Replace(v6) => {
            model.tables.entry((Place::Main, family(*v6))).and_modify(|l| *l = Layout::Other);
        }
    }
}

type Views = BTreeMap<Claim, View>;

fn views(model: &Model, claims: &BTreeSet<Claim>) -> Views {
    claims.iter().map(|c| (*c, model.view(c))).collect()
}

fn claims(model: &Model) -> BTreeSet<Claim> {
    let sets = &model.main;
    sets.counts.keys().map(Front::claim).chain(sets.marks.iter().filter_map(Mark::claim)).collect()
}

/// Every address and port was at each step what it had been or what it is now, and none that was served lost its chain.
fn old_or_new(seen: &[Model], before: &Model, after: &Model) -> Result<(), TestCaseError> {
    let all: BTreeSet<Claim> = claims(before).union(&claims(after)).copied().collect();
    let (old, new) = (views(before, &all), views(after, &all));
    for (n, step) in seen.iter().enumerate() {
        for (claim, view) in views(step, &all) {
            prop_assert!(
                view == old[&claim] || view == new[&claim],
                "step {}: {:?} is {:?}, was {:?}, is to be {:?}",
                n,
                claim,
                view,
                old[&claim],
                new[&claim]
            );
            for front in view.fronts.keys().filter(|f| before.main.reachable(f) || old[&claim] != view) {
                prop_assert!(step.main.reachable(front) || step.spare.reachable(front), "step {}: {:?} leads nowhere", n, front);
            }
        }
    }
    Ok(())
}

fn ruleset(changes: &[crate::testing::Change], tables: &mut Tables, rules: &mut Ruleset) {
    let mut touched = Touched::new();
    changes.iter().for_each(|c| apply(tables, c, &mut touched));
    update(rules, tables, &touched, &BTreeSet::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever somebody did to the tables and wherever a try ended: the next one reaches the whole, on the way each address and
    /// port is as it was or as it is to be, and a further try finds nothing to do.
    #[test]
    fn every_state_leads_to_the_whole(
        had in changes(12),
        wanted in vec(change(), 0..6),
        done in vec(damage(), 0..6),
        ends in proptest::option::of((0..6usize, any::<bool>())),
        most in 1..12usize,
        interrupts in 0..3usize,
    ) {
        let (mut tables, mut rules, mut kernel) = (Tables::default(), Ruleset::new(policy()), Fake::default());
        ruleset(&had, &mut tables, &mut rules);
        kernel.run(&rules, most)?;
        kernel.model.holds(&rules).map_err(TestCaseError::fail)?;

        ruleset(&wanted, &mut tables, &mut rules);
        done.iter().for_each(|d| do_damage(&mut kernel.model, d));
        let before = kernel.model.clone();
        kernel.ends = ends;
        kernel.interrupts = interrupts;
        let first = kernel.run(&rules, most);
        let mut seen = std::mem::take(&mut kernel.seen);
        if let Err(e) = first && !kernel.ended {
            return Err(e);
        }
        kernel.ends = None;
        let (installed, ..) = kernel.run(&rules, most)?;
        kernel.model.holds(&rules).map_err(TestCaseError::fail)?;
        seen.append(&mut kernel.seen);
        old_or_new(&seen, &before, &kernel.model)?;

        prop_assert!(diff(&installed, &rules).is_empty());
        for (key, block) in rules.blocks() {
            for (front, _) in &block.fronts {
                let slots: Vec<_> = installed.slots(key, front).unwrap().iter().copied().map(Some).collect();
                prop_assert_eq!(slots, (0..block.endpoints(front).unwrap().len() as u32).map(|n| kernel.model.main.endpoint(front, n)).collect::<Vec<_>>());
            }
        }
        let now = kernel.model.clone();
        let (again, operations, batches) = kernel.run(&rules, most)?;
        prop_assert_eq!((&again, operations, batches), (&installed, 0, 1));
        prop_assert_eq!(&now, &kernel.model);
    }
}
