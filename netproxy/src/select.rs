//! Which endpoints of a service port get traffic.
//!
//! Pure. Ready endpoints; when there is none, those that still serve while they terminate. The rule is applied to the set the
//! policy leaves (all endpoints, or this node's), so that a local set falls back on its own. Topology has its place here.

use crate::diff::MOST_ENDPOINTS;
use crate::model::{Endpoint, Family, Key, ServicePort, Slice};
use crate::ruleset::Backend;
use crate::tables::Tables;
use std::collections::BTreeSet;

/// Endpoints of one service port in one family, sorted, each address and port once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub cluster: Vec<Backend>,
    pub local: Vec<Backend>,
}

pub fn select(tables: &Tables, service: &Key, port: &ServicePort, family: Family) -> Selection {
    let mut every = Candidates::default();
    let mut here = Candidates::default();
    for slice in tables.slices_of(service).filter(|s| s.family == family) {
        for number in target_ports(slice, port) {
            for e in &slice.endpoints {
                let backend = Backend { ip: e.ip, port: number };
                every.add(e, backend);
                if e.local {
                    here.add(e, backend);
                }
            }
        }
    }
    Selection { cluster: every.pick(), local: here.pick() }
}

/// A slice may carry a name with its own number: named target ports differ between pods.
fn target_ports<'a>(slice: &'a Slice, port: &'a ServicePort) -> impl Iterator<Item = u16> + 'a {
    slice.ports.iter().filter(|p| p.name == port.name && p.proto == port.proto).map(|p| p.port)
}

#[derive(Default)]
struct Candidates {
    ready: BTreeSet<Backend>,
    leaving: BTreeSet<Backend>,
}

impl Candidates {
    fn add(&mut self, e: &Endpoint, backend: Backend) {
        if e.ready {
            self.ready.insert(backend);
        } else if e.serving && e.terminating {
            self.leaving.insert(backend);
        }
    }

    fn pick(self) -> Vec<Backend> {
        let chosen = if self.ready.is_empty() { self.leaving } else { self.ready };
        chosen.into_iter().take(MOST_ENDPOINTS).collect()
    }
}

#[cfg(test)]
mod tests;
