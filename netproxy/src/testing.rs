//! Random clusters and a model of the kernel's sets, for the property tests.

use crate::diff::{Element, Pick, Transaction};
use crate::local::PodTraffic;
use crate::model::{Endpoint, Family, Key, Proto, Service, ServicePort, Slice, SlicePort};
use crate::ruleset::{Backend, Front, Mark, Policy, Ruleset};
use crate::tables::{Tables, Touched};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// One change of the API's objects. Names, addresses and ports come from small pools, so that they meet and collide.
#[derive(Debug, Clone)]
pub enum Change {
    Service(Key, Option<Service>),
    Slice(Key, Option<Slice>),
}

pub fn apply(tables: &mut Tables, change: &Change, touched: &mut Touched) {
    match change.clone() {
        Change::Service(k, s) => tables.set_service(k, s, touched),
        Change::Slice(k, s) => tables.set_slice(k, s, touched),
    }
}

pub fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    vec(change(), 0..most)
}

pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (0..4u8, proptest::option::weighted(0.8, service())).prop_map(|(n, s)| Change::Service(service_key(n), s)),
        3 => (0..6u8, proptest::option::weighted(0.8, slice())).prop_map(|(n, s)| Change::Slice(Key::new("ns", &format!("slice{n}")), s)),
    ]
}

fn service_key(n: u8) -> Key {
    Key::new("ns", &format!("svc{n}"))
}

pub fn vip(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 96, 0, n]),
        Family::V6 => IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

pub fn pod(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 244, 0, n]),
        Family::V6 => IpAddr::from([0xfd00, 0x244, 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

/// One of a few addresses outside of the cluster.
pub fn external(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([203, 0, 113, n]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

fn from_outside() -> impl Strategy<Value = Service> {
    let ips = || vec((any::<bool>(), 0..3u8), 0..2);
    let ranges =
        vec(prop_oneof![Just("198.51.100.0/24"), Just("198.51.0.0/16"), Just("10.0.0.0/8"), Just("2001:db8:1::/48")], 0..3);
    (ips(), ips(), ranges).prop_map(|(external_ips, load_balancer_ips, ranges)| {
        let address = |(v6, n)| external(if v6 { Family::V6 } else { Family::V4 }, n);
        Service {
            external_ips: external_ips.into_iter().map(address).collect(),
            load_balancer_ips: load_balancer_ips.into_iter().map(address).collect(),
            source_ranges: ranges.into_iter().map(|r| r.parse().unwrap()).collect(),
            ..Service::default()
        }
    })
}

fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)]
}

fn service() -> impl Strategy<Value = Service> {
    let port = (proto(), 0..3u16, proptest::option::of(0..3u16));
    let affinity = prop_oneof![2 => Just(None), 1 => Just(Some(10)), 1 => Just(Some(86_400))];
    (
        0..4u8,
        any::<bool>(),
        any::<bool>(),
        vec(port, 0..3),
        any::<bool>(),
        proptest::bool::weighted(0.2),
        affinity,
        from_outside(),
    )
        .prop_map(|(n, v4, v6, ports, external_local, internal_local, affinity, outside)| Service {
            cluster_ips: [(v4 || !v6).then(|| vip(Family::V4, n)), v6.then(|| vip(Family::V6, n))]
                .into_iter()
                .flatten()
                .collect(),
            ports: ports
                .into_iter()
                .map(|(proto, n, node)| ServicePort {
                    name: format!("p{n}").into(),
                    proto,
                    port: 80 + n,
                    node_port: node.map(|n| 30_000 + n),
                })
                .collect(),
            external_local,
            internal_local,
            affinity,
            ..outside
        })
}

fn slice() -> impl Strategy<Value = Slice> {
    let endpoint = (0..6u8, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let port = (proto(), 0..3u16, 0..2u16);
    (0..4u8, any::<bool>(), vec(port, 0..3), vec(endpoint, 0..6)).prop_map(|(of, v6, ports, endpoints)| {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let endpoint = |(n, ready, serving, terminating, local)| Endpoint {
            ip: pod(family, n),
            ready,
            serving,
            terminating,
            local,
            hints: None,
        };
        let port = |(proto, name, number)| SlicePort { name: format!("p{name}").into(), proto, port: 8080 + number };
        Slice {
            service: service_key(of),
            family,
            ports: ports.into_iter().map(port).collect(),
            endpoints: endpoints.into_iter().map(endpoint).collect(),
        }
    })
}

pub fn policy() -> Policy {
    let ranges = vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()];
    Policy { pods: PodTraffic::Sources(ranges), ..Policy::default() }
}

/// Our sets as the kernel would hold them. Refuses what the kernel refuses: adding what is there, removing what is not, and
/// leading to a chain that does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub picks: BTreeSet<Pick>,
    pub counts: BTreeMap<Front, (u32, Option<u32>)>,
    pub slots: BTreeMap<(Front, u32), Backend>,
    pub slot_ids: BTreeMap<(Front, u32), u32>,
    pub ids: BTreeMap<(Front, u32), Backend>,
    pub marks: BTreeSet<Mark>,
}

impl Model {
    pub fn commit(&mut self, tx: &Transaction) -> Result<(), String> {
        let mut next = if tx.reset.is_some() { Model::default() } else { self.clone() };
        for pick in &tx.picks {
            next.picks.insert(*pick);
        }
        for e in &tx.remove {
            let was = match e {
                Element::Count { front, count, affinity } => next.counts.remove(front) == Some((*count, *affinity)),
                Element::Slot { front, slot, backend } => next.slots.remove(&(*front, *slot)) == Some(*backend),
                Element::SlotId { front, slot, id } => next.slot_ids.remove(&(*front, *slot)) == Some(*id),
                Element::Id { front, id, backend } => next.ids.remove(&(*front, *id)) == Some(*backend),
                Element::Mark(m) => next.marks.remove(m),
            };
            if !was {
                return Err(format!("removes {e:?}, which is not there"));
            }
        }
        for e in &tx.add {
            let new = match e {
                Element::Count { front, count, affinity } => {
                    let pick = Pick { family: front.family(), kind: front.kind(), count: *count, affinity: *affinity };
                    next.picks.contains(&pick) && next.counts.insert(*front, (*count, *affinity)).is_none()
                }
                Element::Slot { front, slot, backend } => next.slots.insert((*front, *slot), *backend).is_none(),
                Element::SlotId { front, slot, id } => next.slot_ids.insert((*front, *slot), *id).is_none(),
                Element::Id { front, id, backend } => next.ids.insert((*front, *id), *backend).is_none(),
                Element::Mark(m) => next.marks.insert(*m),
            };
            if !new {
                return Err(format!("adds {e:?}, which is there or leads nowhere"));
            }
        }
        next.resolves()?;
        *self = next;
        Ok(())
    }

    /// Every count has all its slots, and no slot is beyond its count.
    fn resolves(&self) -> Result<(), String> {
        for (front, (count, _)) in &self.counts {
            if let Some(n) = (0..*count).find(|n| self.endpoint(front, *n).is_none()) {
                return Err(format!("{front:?} has no slot {n} of {count}"));
            }
        }
        if let Some(id) = self.ids.keys().find(|(f, id)| !self.slot_ids.iter().any(|((g, _), i)| (g, i) == (f, id))) {
            return Err(format!("no slot leads to {id:?}"));
        }
        let out = |(f, n): &(Front, u32), stays: bool| self.counts.get(f).is_none_or(|(c, t)| n >= c || t.is_some() != stays);
        let plain = self.slots.keys().find(|k| out(k, false));
        match plain.or_else(|| self.slot_ids.keys().find(|k| out(k, true))) {
            Some(slot) => Err(format!("{slot:?} is out of reach")),
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
    pub fn holds(&self, rules: &Ruleset) -> Result<(), String> {
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
