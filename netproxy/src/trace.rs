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
    let from_pod = rules.policy.pod_ranges(family).any(|c| c.contains(&p.src));
    let from_node = node_addresses.contains(&p.src) || p.src.is_loopback();
    let front = Front::ClusterIp { ip: p.dst, proto: p.proto, port: p.dst_port };
    let owner = rules.owner(&front.claim());
    if let Some(to) = chosen(rules, &front, p.random) {
        let has_ranges = rules.policy.pod_ranges(family).next().is_some();
        let outside = rules.policy.masquerade_all || (has_ranges && !from_pod);
        return verdict(forward(rules, front, to, outside, p), owner, "cluster IP of a service");
    }
    if rules.has_mark(&Mark::ClusterIp(p.dst)) {
        return verdict(Outcome::Reject, owner, "cluster IP, but no endpoint behind this port");
    }
    if !node_addresses.contains(&p.dst) || p.dst.is_loopback() {
        return verdict(Outcome::Pass, None, "no service address");
    }
    let owner = rules.owner(&Claim::NodePort { family, proto: p.proto, port: p.dst_port });
    if !from_pod && !from_node {
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
        return verdict(forward(rules, front, to, true, p), owner, "node port of a service");
    }
    if rules.has_mark(&Mark::Unserved { family, proto: p.proto, port: p.dst_port }) {
        return verdict(Outcome::Reject, owner, "node port of a service without endpoints");
    }
    verdict(Outcome::Pass, None, "a local address, but no node port")
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
