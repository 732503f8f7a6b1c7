//! Which flows of connectionless protocols are stale.
//!
//! Pure. TCP is left alone: its connections end by themselves. A UDP client keeps sending to where its first packet went, for as
//! long as the conntrack entry lives; so an entry must go when its endpoint or service goes, and when a service gets its first
//! endpoint while an entry says "not translated".

use crate::diff::{Element, Held, Installed};
use crate::model::{Family, Key, Proto, ServicePort};
use crate::ruleset::{Backend, Front, Ruleset};
use crate::select::serving;
use crate::tables::{Tables, Touched};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub proto: Proto,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// Where replies come from: the endpoint, if the flow was translated.
    pub reply_src: SocketAddr,
    pub zone: Option<u16>,
    /// The kernel's id of the entry, so that not another one with the same addresses is hit.
    pub id: Option<u32>,
}

/// What the last changes took from the frontends, and which frontends they opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    backends: BTreeMap<Front, BTreeSet<Backend>>,
    opened: BTreeSet<Front>,
}

impl Gone {
    /// `None` if no flow can have become stale. What an earlier purge left undone is kept.
    pub fn of(
        installed: &Installed,
        ruleset: &Ruleset,
        tables: &Tables,
        touched: &Touched,
        earlier: Option<Gone>,
    ) -> Option<Gone> {
        let mut gone = earlier.clone().unwrap_or_default();
        for key in touched {
            let old = installed.block(key).map_or(&[][..], |b| &b.fronts);
            let new = ruleset.block(key).map_or(&[][..], |b| &b.fronts);
            for (front, before) in old.iter().filter(|(f, _)| f.proto().connectionless()) {
                let living = living(front, ruleset, tables);
                let lost: BTreeSet<Backend> = before.iter().filter(|b| !living.contains(b)).copied().collect();
                if !lost.is_empty() {
                    gone.backends.entry(*front).or_default().extend(lost);
                }
            }
            let had = |front: &Front| old.iter().any(|(f, _)| f == front);
            gone.opened.extend(new.iter().map(|(f, _)| *f).filter(|f| f.proto().connectionless() && !had(f)));
        }
        (earlier.is_some() || gone != Gone::default()).then_some(gone)
    }

    /// An element that the kernel held when nobody knew why: where it led may be gone since, and its service too.
    pub fn held(&mut self, held: &Held, ruleset: &Ruleset) {
        let (Held::Element(Element::Slot { front, backend, .. }) | Held::Element(Element::Id { front, backend, .. })) = held
        else {
            return;
        };
        let leads = |pool: &Arc<[Backend]>| pool.binary_search(backend).is_ok();
        if front.proto().connectionless() && !ruleset.endpoints(front).is_some_and(leads) {
            self.backends.entry(*front).or_default().insert(*backend);
        }
    }

    pub fn join(&mut self, other: Gone) {
        for (front, backends) in other.backends {
            self.backends.entry(front).or_default().extend(backends);
        }
        self.opened.extend(other.opened);
    }
}

/// Endpoints that get nothing new and may still have flows. When one of them goes, no frontend changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<Key, BTreeMap<Front, BTreeSet<Backend>>>);

impl Kept {
    /// Looks at these services again; what serves no more goes to `gone`. A frontend that has lost all it led to may still have flows.
    pub fn update<'a>(
        &mut self,
        services: impl Iterator<Item = &'a Key>,
        installed: Option<&Installed>,
        ruleset: &Ruleset,
        tables: &Tables,
        gone: &mut Option<Gone>,
    ) {
        for key in services {
            let mut had = self.0.remove(key).unwrap_or_default();
            let blocks = [installed.and_then(|i| i.block(key)), ruleset.block(key)];
            let now = blocks.into_iter().flatten().flat_map(|b| b.fronts.iter().map(|(f, _)| *f));
            let fronts: BTreeSet<Front> = now.filter(|f| f.proto().connectionless()).chain(had.keys().copied()).collect();
            for front in fronts {
                let mut living = living(&front, ruleset, tables);
                let lost: BTreeSet<Backend> = had.remove(&front).into_iter().flatten().filter(|b| !living.contains(b)).collect();
                if !lost.is_empty() {
                    gone.get_or_insert_default().backends.entry(front).or_default().extend(lost);
                }
                let pool = ruleset.endpoints(&front);
                living.retain(|b| pool.is_none_or(|pool| pool.binary_search(b).is_err()));
                // Another service may have it now.
                if let Some(owner) = ruleset.owner(&front.claim()).filter(|_| !living.is_empty()) {
                    self.0.entry(owner.clone()).or_default().insert(front, living);
                }
            }
        }
    }
}

/// The endpoints a frontend leads to, and all others of its service that serve.
fn living(front: &Front, ruleset: &Ruleset, tables: &Tables) -> BTreeSet<Backend> {
    let pool = ruleset.endpoints(front).into_iter().flat_map(|pool| pool.iter().copied());
    pool.chain(behind(front, ruleset, tables)).collect()
}

/// The endpoints that serve of the service that has the frontend, whether it leads to them or not.
fn behind<'a>(front: &Front, ruleset: &'a Ruleset, tables: &'a Tables) -> impl Iterator<Item = Backend> + 'a {
    let front = *front;
    let owner = ruleset.owner(&front.claim()).and_then(|key| Some((key, tables.service(key)?)));
    owner.into_iter().flat_map(move |(key, service)| {
        let meant = move |p: &&ServicePort| match front {
            Front::ClusterIp { proto, port, .. }
            | Front::External { proto, port, .. }
            | Front::LocalExternal { proto, port, .. } => (p.proto, p.port) == (proto, port),
            Front::NodePort { proto, port, .. } | Front::LocalNodePort { proto, port, .. } => {
                (p.proto, p.node_port) == (proto, Some(port))
            }
        };
        service.ports.iter().filter(meant).flat_map(move |port| serving(tables, key, port, front.family()))
    })
}

/// Whether the flow goes where no service sends it any more. An endpoint that serves keeps its flows, also when a policy, a hint or
/// its termination gives it no new ones: as with TCP.
pub fn stale(flow: &Flow, ruleset: &Ruleset, tables: &Tables, node_addresses: &BTreeSet<IpAddr>, gone: &Gone) -> bool {
    let (proto, port) = (flow.proto, flow.dst.port());
    let ip = flow.dst.ip();
    let family = Family::of(&ip);
    let now = Backend { ip: flow.reply_src.ip(), port: flow.reply_src.port() };
    let translated = flow.reply_src != flow.dst;
    let served = |f: &Front| ruleset.endpoints(f).is_some();
    let leads = |f: &Front| ruleset.endpoints(f).is_some_and(|pool| pool.binary_search(&now).is_ok());
    let live = |f: &Front| leads(f) || behind(f, ruleset, tables).any(|b| b == now);
    let lost = |f: &Front| gone.backends.get(f).is_some_and(|b| b.contains(&now)) && !live(f);
    // Of an address that only a service can mean, whatever happened before: what is counts.
    let judge = |fronts: &[Front]| if translated { !fronts.iter().any(live) } else { fronts.iter().any(served) };

    let front = Front::ClusterIp { ip, proto, port };
    if ruleset.owner(&front.claim()).is_some() {
        return judge(&[front]);
    }
    let fronts = [Front::External { ip, proto, port }, Front::LocalExternal { ip, proto, port }];
    if ruleset.owner(&fronts[0].claim()).is_some() {
        return judge(&fronts);
    }
    if lost(&front) || fronts.iter().any(lost) {
        return true;
    }
    // The port alone does not say that the destination is this node's: only what was ours is judged.
    let ports = [Front::NodePort { family, proto, port }, Front::LocalNodePort { family, proto, port }];
    if translated && node_addresses.contains(&ip) && ruleset.owner(&ports[0].claim()).is_some() {
        return judge(&ports);
    }
    match translated {
        true => ports.iter().any(lost) && !ports.iter().any(live),
        false => ports.iter().any(|f| gone.opened.contains(f)),
    }
}

#[cfg(test)]
mod tests;
