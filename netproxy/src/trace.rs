//! What the rules do to the first packet of a connection, without a kernel.
//!
//! Pure. Follows `netlink::layout` rule by rule: a change there is a change here.

use crate::model::{Family, Key, Proto};
use crate::ruleset::{Backend, Claim, Front, Mark, Ruleset};
use std::collections::BTreeSet;
use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: Proto,
    pub dst_port: u16,
    /// By which interface it came in; `None` for what this host itself sends.
    pub from_interface: Option<String>,
    /// The number the kernel would draw; it chooses among the endpoints.
    pub random: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// To this endpoint, by this frontend; with the source address replaced or kept.
    Forward {
        front: Front,
        to: Backend,
        masquerade: bool,
    },
    Reject,
    Drop,
    /// No rule of ours changes it.
    Pass,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    pub service: Option<Key>,
    pub why: &'static str,
}

pub fn trace(rules: &Ruleset, node_addresses: &BTreeSet<IpAddr>, p: &Packet) -> Verdict {
    let family = Family::of(&p.dst);
    if family != Family::of(&p.src) || !rules.policy.families.contains(&family) {
        return verdict(Outcome::Pass, None, "no table for this address family");
    }
    let from_pod = rules.policy.pods.sent(p.src, p.from_interface.as_deref());
    let from_node = node_addresses.contains(&p.src) || p.src.is_loopback();
    let front = Front::ClusterIp { ip: p.dst, proto: p.proto, port: p.dst_port };
    let owner = rules.owner(&front.claim());
    if let Some(to) = chosen(rules, &front, p.random) {
        let outside = rules.policy.masquerade_all || (rules.policy.pods.known(family) && !from_pod);
        return verdict(forward(rules, front, to, outside, p), owner, "cluster IP of a service");
    }
    let (ip, proto, port) = (p.dst, p.proto, p.dst_port);
    if rules.has_mark(&Mark::NoLocal { ip, proto, port }) {
        return verdict(Outcome::Drop, owner, "cluster IP for local endpoints only, and this node has none");
    }
    let inside = from_pod || from_node;
    // The lookups of one chain come first, whatever the next hook would do.
    if let Some(verdict) = external(rules, p, from_pod, inside) {
        return verdict;
    }
    if rules.has_mark(&Mark::ClusterIp(p.dst)) {
        return verdict(Outcome::Reject, owner, "cluster IP, but no endpoint behind this port");
    }
    if !node_addresses.contains(&p.dst) || p.dst.is_loopback() {
        if !p.dst.is_loopback() && rules.policy.service_ranges.iter().any(|range| range.contains(&p.dst)) {
            return verdict(Outcome::Drop, None, "an address for services that none has");
        }
        return verdict(Outcome::Pass, None, "no service address");
    }
    if !rules.policy.has_node_ports(&p.dst) {
        return verdict(Outcome::Pass, None, "a local address without node ports");
    }
    let owner = rules.owner(&Claim::NodePort { family, proto: p.proto, port: p.dst_port });
    if !inside {
        let front = Front::LocalNodePort { family, proto: p.proto, port: p.dst_port };
        if let Some(to) = chosen(rules, &front, p.random) {
            return verdict(forward(rules, front, to, false, p), owner, "node port for this node's endpoints");
        }
        if rules.has_mark(&Mark::LocalOnly { family, proto: p.proto, port: p.dst_port }) {
            return verdict(Outcome::Drop, owner, "node port for local endpoints only, and this node has none");
        }
    }
    let front = Front::NodePort { family, proto: p.proto, port: p.dst_port };
    if let Some(to) = chosen(rules, &front, p.random) {
        let short_cut = from_pod && rules.has_mark(&Mark::LocalOnly { family, proto: p.proto, port: p.dst_port });
        return verdict(forward(rules, front, to, !short_cut, p), owner, "node port of a service");
    }
    if rules.has_mark(&Mark::Unserved { family, proto: p.proto, port: p.dst_port }) {
        return verdict(Outcome::Reject, owner, "node port of a service without endpoints");
    }
    verdict(Outcome::Pass, None, "a local address, but no node port")
}

/// An external IP or a load balancer's address.
fn external(rules: &Ruleset, p: &Packet, from_pod: bool, inside: bool) -> Option<Verdict> {
    let (ip, proto, port) = (p.dst, p.proto, p.dst_port);
    if !rules.has_mark(&Mark::External { ip, proto, port }) {
        return None;
    }
    let front = Front::External { ip, proto, port };
    let owner = rules.owner(&front.claim());
    let allowed = |m: &Mark| matches!(m, Mark::Range { ip: i, proto: o, port: n, source } if (*i, *o, *n) == (ip, proto, port) && source.contains(&p.src));
    let block = owner.and_then(|k| rules.block(k));
    if rules.has_mark(&Mark::Ranged { ip, proto, port }) && !block.is_some_and(|b| b.marks.iter().any(allowed)) {
        return Some(verdict(Outcome::Drop, owner, "load balancer address, and the source is not in its source ranges"));
    }
    let local_only = rules.has_mark(&Mark::LocalOnlyIp { ip, proto, port });
    if !inside {
        let front = Front::LocalExternal { ip, proto, port };
        if let Some(to) = chosen(rules, &front, p.random) {
            return Some(verdict(forward(rules, front, to, false, p), owner, "external address for this node's endpoints"));
        }
        if local_only {
            return Some(verdict(Outcome::Drop, owner, "external address for local endpoints only, and this node has none"));
        }
    }
    Some(match chosen(rules, &front, p.random) {
        Some(to) => verdict(forward(rules, front, to, !(from_pod && local_only), p), owner, "external address of a service"),
        None => verdict(Outcome::Reject, owner, "external address of a service without endpoints"),
    })
}

fn chosen(rules: &Ruleset, front: &Front, random: u32) -> Option<Backend> {
    let pool = rules.endpoints(front)?;
    pool.get(random as usize % pool.len().max(1)).copied()
}

fn forward(rules: &Ruleset, front: Front, to: Backend, masquerade: bool, p: &Packet) -> Outcome {
    let hairpin = p.src == to.ip && rules.has_mark(&Mark::Hairpin(to.ip));
    Outcome::Forward { front, to, masquerade: masquerade || hairpin }
}

fn verdict(outcome: Outcome, service: Option<&Key>, why: &'static str) -> Verdict {
    Verdict { outcome, service: service.cloned(), why }
}

#[cfg(test)]
mod tests;
