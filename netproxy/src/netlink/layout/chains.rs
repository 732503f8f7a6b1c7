//! Chains and their rules, all but those that pick an endpoint. `trace` follows them.

use super::names::*;
use crate::local::PodTraffic;
use crate::model::Family;
use crate::netlink::batch::Batch;
use crate::netlink::expr::{DROP, GOTO, JUMP, Rule, Side};
use crate::netlink::{CREATE, NEWCHAIN};
use crate::ruleset::{PickKind, Policy};
use ipnet::IpNet;

const SERVICES_CHAIN: &str = "find-service";
const NODEPORTS_CHAIN: &str = "find-nodeport";
const OUTSIDE_CHAIN: &str = "find-local-nodeport";
const EXTERNAL_CHAIN: &str = "find-external";
const LOCAL_EXTERNAL_CHAIN: &str = "find-local-external";
const NODEPORT_MARK_CHAIN: &str = "mark-nodeport";
const EXTERNAL_MARK_CHAIN: &str = "mark-external";
const UNSERVED_CHAIN: &str = "reject-unserved";
const REJECT_CHAIN: &str = "reject";
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_AFTER_DNAT: i32 = -90;
const PRIORITY_SNAT: i32 = 100;
const PRIORITY_INVALID: i32 = -10;

/// The register that keeps the packet's mark while a number is shown in it.
pub(super) const SAVED: u32 = 15;

/// The chains that are no hooks, empty.
pub(super) fn chains(b: &mut Batch, family: Family) {
    const ALL: [&str; 9] = [
        SERVICES_CHAIN,
        EXTERNAL_CHAIN,
        LOCAL_EXTERNAL_CHAIN,
        NODEPORTS_CHAIN,
        OUTSIDE_CHAIN,
        NODEPORT_MARK_CHAIN,
        EXTERNAL_MARK_CHAIN,
        UNSERVED_CHAIN,
        REJECT_CHAIN,
    ];
    for name in ALL {
        chain(b, family, name);
    }
}

fn base_chain(b: &mut Batch, family: Family, name: &str, kind: &str, hook: u32, priority: i32) {
    let table = b.table;
    b.message(NEWCHAIN, CREATE, family, &format!("chain {name}"), |w| {
        w.text(1, table);
        w.text(3, name);
        let open = w.nest(4);
        w.be32(1, hook);
        w.attr(2, &priority.to_be_bytes());
        w.end(open);
        w.be32(5, 1);
        w.text(7, kind);
    });
}

pub(super) fn chain(b: &mut Batch, family: Family, name: &str) {
    let table = b.table;
    b.message(NEWCHAIN, CREATE, family, &format!("chain {name}"), |w| {
        w.text(1, table);
        w.text(3, name);
    });
}

pub(super) fn rule(b: &mut Batch, family: Family, chain: &str, rule: Rule) {
    b.rule(family, chain, rule.writer.bytes);
}

/// Loads destination address, protocol and port; returns the first register after them.
pub(super) fn service_key(rule: Rule, family: Family) -> (Rule, u32) {
    let n = Rule::address_registers(family);
    (rule.address(Side::Destination, 0).l4proto(n).dport(n + 1), n + 2)
}

pub(super) fn port_key(rule: Rule) -> (Rule, u32) {
    (rule.l4proto(0).dport(1), 2)
}

pub(super) fn key_of(kind: PickKind, rule: Rule, family: Family) -> (Rule, u32) {
    match kind {
        PickKind::Service | PickKind::External | PickKind::LocalExternal => service_key(rule, family),
        PickKind::NodePort | PickKind::LocalNodePort => port_key(rule),
    }
}

/// Printed as `meta mark set <key> map @counts meta mark set meta mark meta mark vmap @picks`: the second is the restoring.
fn look_up(b: &mut Batch, family: Family, from: &str, kind: PickKind) {
    let (r, _) = key_of(kind, Rule::new(family).load_mark(SAVED), family);
    let r = r.map(counts(kind), 0, 0).store_mark(0).load_mark(1).store_mark(SAVED);
    rule(b, family, from, r.vmap(picks(kind), 1));
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        Family::V6 => IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
    }
}

/// Where pods are not known, this leaves the rule as it is.
fn not_from_pods(r: Rule, family: Family, policy: &Policy) -> Rule {
    match &policy.pods {
        PodTraffic::Sources(_) => policy.pods.ranges(family).fold(r, |r, range| r.within(Side::Source, range, false)),
        PodTraffic::Interface(name) => r.iif_is(name, false),
        PodTraffic::InterfacePrefix(prefix) => r.iif_begins(prefix, false),
    }
}

/// Rules that match what pods send, one for each range; none where pods are not known.
fn from_pods(new: impl Fn() -> Rule, family: Family, policy: &Policy) -> Vec<Rule> {
    match &policy.pods {
        PodTraffic::Sources(_) => policy.pods.ranges(family).map(|range| new().within(Side::Source, range, true)).collect(),
        PodTraffic::Interface(name) => vec![new().iif_is(name, true)],
        PodTraffic::InterfacePrefix(prefix) => vec![new().iif_begins(prefix, true)],
    }
}

pub(super) fn find_chains(b: &mut Batch, family: Family, policy: &Policy) {
    let new = || Rule::new(family);
    let to_cluster_ip = |r: Rule| r.address(Side::Destination, 0).member(CLUSTER_IPS, 0);
    if policy.masquerade_all {
        rule(b, family, SERVICES_CHAIN, to_cluster_ip(new()).set_mark(policy.masquerade_mark));
    } else if policy.pods.known(family) {
        // In this order most packets, which are pods', cost no lookup.
        let outside = to_cluster_ip(not_from_pods(new(), family, policy));
        rule(b, family, SERVICES_CHAIN, outside.set_mark(policy.masquerade_mark));
    }
    look_up(b, family, SERVICES_CHAIN, PickKind::Service);
    let front = |set: &str| service_key(new(), family).0.member(set, 0);
    rule(b, family, SERVICES_CHAIN, front(NO_LOCAL).verdict(DROP, None));
    rule(b, family, SERVICES_CHAIN, front(EXTERNAL).verdict(GOTO, Some(EXTERNAL_CHAIN)));
    for here in own_addresses(new, family, policy) {
        rule(b, family, SERVICES_CHAIN, here.verdict(GOTO, Some(NODEPORTS_CHAIN)));
    }

    let (ranged, next) = service_key(front(RANGED), family);
    let ranged = ranged.address(Side::Source, next).no_member(SOURCES, 0);
    rule(b, family, EXTERNAL_CHAIN, ranged.verdict(DROP, None));
    let outside = not_from_pods(new(), family, policy).local(Side::Source, false);
    rule(b, family, EXTERNAL_CHAIN, outside.verdict(JUMP, Some(LOCAL_EXTERNAL_CHAIN)));
    look_up(b, family, EXTERNAL_CHAIN, PickKind::External);
    look_up(b, family, LOCAL_EXTERNAL_CHAIN, PickKind::LocalExternal);
    rule(b, family, LOCAL_EXTERNAL_CHAIN, front(LOCAL_ONLY_IPS).verdict(DROP, None));

    let outside = not_from_pods(new(), family, policy).local(Side::Source, false);
    rule(b, family, NODEPORTS_CHAIN, outside.verdict(JUMP, Some(OUTSIDE_CHAIN)));
    look_up(b, family, NODEPORTS_CHAIN, PickKind::NodePort);

    look_up(b, family, OUTSIDE_CHAIN, PickKind::LocalNodePort);
    rule(b, family, OUTSIDE_CHAIN, port_key(new()).0.member(LOCAL_ONLY, 0).verdict(DROP, None));
    mark_chains(b, family, policy);
}

/// The chain that decides about masquerade where that is not done by destination.
pub(super) fn mark_chain(kind: PickKind) -> Option<&'static str> {
    match kind {
        PickKind::NodePort => Some(NODEPORT_MARK_CHAIN),
        PickKind::External => Some(EXTERNAL_MARK_CHAIN),
        PickKind::Service | PickKind::LocalExternal | PickKind::LocalNodePort => None,
    }
}

/// A pod's way to a Local address or node port is that to a cluster IP; all others are marked.
fn mark_chains(b: &mut Batch, family: Family, policy: &Policy) {
    for (kind, local_only) in [(PickKind::NodePort, LOCAL_ONLY), (PickKind::External, LOCAL_ONLY_IPS)] {
        let Some(name) = mark_chain(kind) else { continue };
        rule(b, family, name, Rule::new(family).set_mark(policy.masquerade_mark));
        for pod in from_pods(|| Rule::new(family), family, policy) {
            let pod = key_of(kind, pod, family).0.member(local_only, 0);
            rule(b, family, name, pod.clear_mark(policy.masquerade_mark));
        }
    }
}

/// Matches the addresses on which node ports answer: a rule for each range. Loopback would need route_localnet.
fn own_addresses(new: impl Fn() -> Rule, family: Family, policy: &Policy) -> Vec<Rule> {
    let here = || new().within(Side::Destination, &loopback(family), false).local(Side::Destination, true);
    match policy.node_ports_on(family) {
        None => vec![here()],
        Some(ranges) => ranges.map(|range| here().within(Side::Destination, range, true)).collect(),
    }
}

/// What is served but came by untranslated met the moment in which a transaction took effect: it is dropped, so that its sender
/// tries again, instead of being told that there is nothing.
pub(super) fn reject_chains(b: &mut Batch, family: Family, policy: &Policy) {
    let new = || Rule::new(family);
    let (served, _) = service_key(new(), family);
    rule(b, family, UNSERVED_CHAIN, served.map(counts(PickKind::Service), 0, 0).store_mark(0).verdict(DROP, None));
    let cluster_ip = new().address(Side::Destination, 0).member(CLUSTER_IPS, 0);
    rule(b, family, UNSERVED_CHAIN, cluster_ip.verdict(GOTO, Some(REJECT_CHAIN)));
    let (served, _) = service_key(new().ct_translated(false), family);
    rule(b, family, UNSERVED_CHAIN, served.map(counts(PickKind::External), 0, 0).store_mark(0).verdict(DROP, None));
    let (external, _) = service_key(new().ct_translated(false), family);
    rule(b, family, UNSERVED_CHAIN, external.member(EXTERNAL, 0).verdict(GOTO, Some(REJECT_CHAIN)));
    let untranslated = || new().ct_translated(false);
    for here in own_addresses(untranslated, family, policy) {
        let (served, _) = port_key(here);
        rule(b, family, UNSERVED_CHAIN, served.map(counts(PickKind::NodePort), 0, 0).store_mark(0).verdict(DROP, None));
    }
    for here in own_addresses(untranslated, family, policy) {
        let (port, _) = port_key(here);
        rule(b, family, UNSERVED_CHAIN, port.member(UNSERVED, 0).verdict(GOTO, Some(REJECT_CHAIN)));
    }
    for range in policy.service_ranges.iter().filter(|r| Family::of(&r.addr()) == family) {
        // An address that nobody has; not one that this host answers for.
        let nobody = new().within(Side::Destination, range, true).local(Side::Destination, false);
        rule(b, family, UNSERVED_CHAIN, nobody.verdict(DROP, None));
    }
    rule(b, family, REJECT_CHAIN, new().l4proto_is(6).reject_tcp());
    rule(b, family, REJECT_CHAIN, new().reject());
}

const DNAT_CHAINS: [(&str, u32); 2] = [("dnat-prerouting", PREROUTING), ("dnat-output", OUTPUT)];
const REJECT_CHAINS: [(&str, u32); 2] = [("reject-prerouting", PREROUTING), ("reject-output", OUTPUT)];
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const FORWARD: u32 = 2;

pub(super) fn hooks(b: &mut Batch, family: Family) {
    for (name, hook) in DNAT_CHAINS {
        base_chain(b, family, name, "nat", hook, PRIORITY_DNAT);
    }
    for (name, hook) in REJECT_CHAINS {
        base_chain(b, family, name, "filter", hook, PRIORITY_AFTER_DNAT);
    }
    base_chain(b, family, "invalid-forward", "filter", FORWARD, PRIORITY_INVALID);
    base_chain(b, family, "snat-postrouting", "nat", POSTROUTING, PRIORITY_SNAT);
}

pub(super) fn base_chains(b: &mut Batch, family: Family, policy: &Policy) {
    let new = || Rule::new(family);
    hooks(b, family);
    for (name, _) in DNAT_CHAINS {
        rule(b, family, name, new().verdict(JUMP, Some(SERVICES_CHAIN)));
    }
    for (name, _) in REJECT_CHAINS {
        rule(b, family, name, new().ct_new().ct_translated(false).verdict(JUMP, Some(UNSERVED_CHAIN)));
    }
    if !policy.tcp_be_liberal {
        rule(b, family, "invalid-forward", new().ct_invalid().verdict(DROP, None));
    }
    let marked = new().has_mark(policy.masquerade_mark).clear_mark(policy.masquerade_mark);
    rule(b, family, "snat-postrouting", marked.masquerade());
    let n = Rule::address_registers(family);
    let hairpin = new().ct_translated(true).address(Side::Source, 0).address(Side::Destination, n).member(HAIRPINS, 0);
    rule(b, family, "snat-postrouting", hairpin.masquerade());
}
