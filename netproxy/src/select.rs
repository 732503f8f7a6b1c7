//! Which endpoints of a service port get traffic.
//!
//! Pure. Ready endpoints; when there is none, those that still serve while they terminate. The rule is applied to the set the
//! policy leaves (all endpoints, or this node's), so that a local set falls back on its own. Hints only narrow the ready ones of the
//! whole cluster; what traffic distribution a service asks for has become hints before.

use crate::diff::MOST_ENDPOINTS;
use crate::model::{Endpoint, Family, Key, ServicePort, Slice};
use crate::ruleset::Backend;
use crate::tables::Tables;
use std::collections::BTreeMap;

/// Endpoints of one service port in one family, sorted, each address and port once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub cluster: Vec<Backend>,
    pub local: Vec<Backend>,
    /// Those of `cluster` whose node is not told.
    pub unplaced: Vec<Backend>,
}

pub fn select(tables: &Tables, service: &Key, port: &ServicePort, family: Family, zone: &str) -> Selection {
    let mut all = BTreeMap::<Backend, Seen>::new();
    for slice in tables.slices_of(service).filter(|s| s.family == family) {
        for number in target_ports(slice, port) {
            for e in &slice.endpoints {
                let new = Seen::of(e, zone);
                all.entry(Backend { ip: e.ip, port: number }).and_modify(|seen| seen.join(&new)).or_insert(new);
            }
        }
    }
    let near = Nearness::of(all.values());
    let cluster = usable(&all, |s| near.has(s));
    let unplaced = cluster.iter().filter(|b| !all[b].placed).copied().collect();
    Selection { cluster, local: usable(&all, |s| s.local), unplaced }
}

/// Endpoints that serve, whatever policies, hints and their termination say: flows that they have need not end.
pub fn serving<'a>(
    tables: &'a Tables,
    service: &'a Key,
    port: &'a ServicePort,
    family: Family,
) -> impl Iterator<Item = Backend> + 'a {
    let slices = tables.slices_of(service).filter(move |s| s.family == family);
    slices.flat_map(move |s| {
        let serve = |e: &&Endpoint| e.serving || e.ready;
        target_ports(s, port).flat_map(move |port| s.endpoints.iter().filter(serve).map(move |e| Backend { ip: e.ip, port }))
    })
}

/// A slice may carry a name with its own number: named target ports differ between pods.
fn target_ports<'a>(slice: &'a Slice, port: &'a ServicePort) -> impl Iterator<Item = u16> + 'a {
    slice.ports.iter().filter(|p| p.name == port.name && p.proto == port.proto).map(|p| p.port)
}

/// The ready ones that are wanted, or else those that still serve.
fn usable(all: &BTreeMap<Backend, Seen>, wanted: impl Fn(&Seen) -> bool) -> Vec<Backend> {
    let pick = |want: &dyn Fn(&Seen) -> bool| -> Vec<Backend> {
        all.iter().filter(|(_, s)| want(s)).map(|(b, _)| *b).take(MOST_ENDPOINTS).collect()
    };
    let ready = pick(&|s| s.ready && wanted(s));
    match ready.is_empty() {
        true => pick(&|s| !s.ready && s.serving && s.terminating && wanted(s)),
        false => ready,
    }
}

/// What the slices say of one address and port.
#[derive(Debug, Clone, Copy)]
struct Seen {
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
    placed: bool,
    any_node: bool,
    this_node: bool,
    any_zone: bool,
    this_zone: bool,
}

impl Seen {
    fn of(e: &Endpoint, zone: &str) -> Seen {
        let hints = e.hints.as_deref();
        Seen {
            ready: e.ready,
            serving: e.serving,
            terminating: e.terminating,
            local: e.local,
            placed: e.placed,
            any_node: hints.is_some_and(|h| h.nodes),
            this_node: hints.is_some_and(|h| h.this_node),
            any_zone: hints.is_some_and(|h| !h.zones.is_empty()),
            this_zone: hints.is_some_and(|h| h.zones.iter().any(|z| **z == *zone)),
        }
    }

    /// An endpoint is in two slices while it moves from one to the other. Or it is two: a pod that ends and the next one that has
    /// its address already; then the living one counts.
    fn join(&mut self, other: &Seen) {
        if self.terminating != other.terminating {
            if self.terminating {
                *self = *other;
            }
            return;
        }
        self.ready |= other.ready;
        self.serving |= other.serving;
        self.local |= other.local;
        self.placed |= other.placed;
        self.any_node |= other.any_node;
        self.this_node |= other.this_node;
        self.any_zone |= other.any_zone;
        self.this_zone |= other.this_zone;
    }
}

/// For whom the endpoints are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nearness {
    ThisNode,
    ThisZone,
    Everybody,
}

impl Nearness {
    /// Those meant for this node or else its zone, when all ready ones say for whom they are and one is for us.
    fn of<'a>(all: impl Iterator<Item = &'a Seen> + Clone) -> Nearness {
        let ready = all.filter(|s| s.ready);
        let every = |says: fn(&Seen) -> bool| ready.clone().all(says);
        let any = |says: fn(&Seen) -> bool| ready.clone().any(says);
        if any(|s| s.this_node) && every(|s| s.any_node) {
            Nearness::ThisNode
        } else if any(|s| s.this_zone) && every(|s| s.any_zone) {
            Nearness::ThisZone
        } else {
            Nearness::Everybody
        }
    }

    fn has(self, s: &Seen) -> bool {
        match self {
            Nearness::ThisNode => s.this_node,
            Nearness::ThisZone => s.this_zone,
            Nearness::Everybody => true,
        }
    }
}

#[cfg(test)]
mod tests;
