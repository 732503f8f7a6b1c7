//! Which flows of connectionless protocols are stale.
//!
//! Pure. TCP is left alone: its connections end by themselves. A UDP client keeps sending to where its first packet went, for as
//! long as the conntrack entry lives; so an entry must go when its endpoint or service goes, and when a service gets its first
//! endpoint while an entry says "not translated".

use crate::diff::Installed;
use crate::model::{Family, Proto, ServicePort};
use crate::ruleset::{Backend, Front, Ruleset};
use crate::select;
use crate::tables::{Tables, Touched};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

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
    pub fn of(installed: &Installed, ruleset: &Ruleset, touched: &Touched, earlier: Option<Gone>) -> Option<Gone> {
        let mut gone = earlier.clone().unwrap_or_default();
        for key in touched {
            let old = installed.block(key).map_or(&[][..], |b| &b.fronts);
            let new = ruleset.block(key).map_or(&[][..], |b| &b.fronts);
            for (front, before) in old.iter().filter(|(f, _)| f.proto().connectionless()) {
                let after = ruleset.endpoints(front);
                let lost = before.iter().filter(|b| after.is_none_or(|a| a.binary_search(b).is_err()));
                let lost: BTreeSet<Backend> = lost.copied().collect();
                if !lost.is_empty() {
                    gone.backends.entry(*front).or_default().extend(lost);
                }
            }
            let had = |front: &Front| old.iter().any(|(f, _)| f == front);
            gone.opened.extend(new.iter().map(|(f, _)| *f).filter(|f| f.proto().connectionless() && !had(f)));
        }
        (earlier.is_some() || gone != Gone::default()).then_some(gone)
    }
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
    let live =
        |f: &Front| ruleset.endpoints(f).is_some_and(|pool| pool.binary_search(&now).is_ok()) || serves(f, &now, ruleset, tables);
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

/// Whether an endpoint of the service that has the frontend serves.
fn serves(front: &Front, to: &Backend, ruleset: &Ruleset, tables: &Tables) -> bool {
    let Some((key, service)) = ruleset.owner(&front.claim()).and_then(|key| Some((key, tables.service(key)?))) else {
        return false;
    };
    let meant = |p: &&ServicePort| match front {
        Front::ClusterIp { proto, port, .. } | Front::External { proto, port, .. } | Front::LocalExternal { proto, port, .. } => {
            (p.proto, p.port) == (*proto, *port)
        }
        Front::NodePort { proto, port, .. } | Front::LocalNodePort { proto, port, .. } => {
            (p.proto, p.node_port) == (*proto, Some(*port))
        }
    };
    service.ports.iter().filter(meant).any(|port| select::serves(tables, key, port, to))
}

#[cfg(test)]
mod tests;
