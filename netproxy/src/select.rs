//! Which endpoints of a service port get traffic.
//!
//! Pure. Ready endpoints; when there is none, those that still serve while they terminate. The rule is applied to the set the
//! policy leaves (all endpoints, or this node's), so that a local set falls back on its own. Hints only narrow the ready ones of the
//! whole cluster; what traffic distribution a service asks for has become hints before.

use crate::diff::MOST_ENDPOINTS;
use crate::model::{Endpoint, Family, Key, ServicePort, Slice};
use crate::ruleset::Backend;
use crate::tables::Tables;
use std::collections::{BTreeMap, BTreeSet};

/// Endpoints of one service port in one family, sorted, each address and port once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub cluster: Vec<Backend>,
    pub local: Vec<Backend>,
}

pub fn select(tables: &Tables, service: &Key, port: &ServicePort, family: Family, zone: &str) -> Selection {
    let mut every = Candidates::default();
    let mut here = Candidates::default();
    for slice in tables.slices_of(service).filter(|s| s.family == family) {
        for number in target_ports(slice, port) {
            for e in &slice.endpoints {
                let backend = Backend { ip: e.ip, port: number };
                every.add(e, backend, zone);
                if e.local {
                    here.add(e, backend, zone);
                }
            }
        }
    }
    every.keep_near();
    Selection { cluster: every.pick(), local: here.pick() }
}

/// A slice may carry a name with its own number: named target ports differ between pods.
fn target_ports<'a>(slice: &'a Slice, port: &'a ServicePort) -> impl Iterator<Item = u16> + 'a {
    slice.ports.iter().filter(|p| p.name == port.name && p.proto == port.proto).map(|p| p.port)
}

#[derive(Default)]
struct Candidates {
    ready: BTreeMap<Backend, Near>,
    leaving: BTreeSet<Backend>,
}

/// What the hints of an endpoint say.
#[derive(Debug, Clone, Copy, Default)]
struct Near {
    any_node: bool,
    this_node: bool,
    any_zone: bool,
    this_zone: bool,
}

impl Candidates {
    fn add(&mut self, e: &Endpoint, backend: Backend, zone: &str) {
        if e.ready {
            let near = self.ready.entry(backend).or_default();
            if let Some(h) = &e.hints {
                near.any_node |= h.nodes;
                near.this_node |= h.this_node;
                near.any_zone |= !h.zones.is_empty();
                near.this_zone |= h.zones.iter().any(|z| **z == *zone);
            }
        } else if e.serving && e.terminating {
            self.leaving.insert(backend);
        }
    }

    /// Only those meant for this node or else its zone, when all ready ones say for whom they are and one is for us.
    fn keep_near(&mut self) {
        let all = |says: fn(&Near) -> bool| self.ready.values().all(says);
        let any = |says: fn(&Near) -> bool| self.ready.values().any(says);
        if all(|n| n.any_node) && any(|n| n.this_node) {
            self.ready.retain(|_, n| n.this_node);
        } else if all(|n| n.any_zone) && any(|n| n.this_zone) {
            self.ready.retain(|_, n| n.this_zone);
        }
    }

    fn pick(self) -> Vec<Backend> {
        match self.ready.is_empty() {
            true => self.leaving.into_iter().take(MOST_ENDPOINTS).collect(),
            false => self.ready.into_keys().take(MOST_ENDPOINTS).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
