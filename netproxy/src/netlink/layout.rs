//! The fixed part of our tables: sets, maps, chains and rules. HOOKS.md explains it; `trace` follows it.
//!
//! From a service's count to the chain that picks among so many, two lookups follow one another. `nft` cannot print that (an
//! assertion ends it), so the count goes through the packet's mark, which the same rule saves before and restores after.

use super::attr::Writer;
use super::batch::Batch;
use super::expr::{DROP, GOTO, JUMP, Rule, Side, verdict};
use crate::diff::Pick;
use crate::model::Family;
use crate::ruleset::{PickKind, Policy};
use ipnet::IpNet;

pub const TABLE: &str = "ferrolet";
pub const CLUSTER_IPS: &str = "cluster-ips";
pub const LOCAL_ONLY: &str = "local-only-nodeports";
pub const UNSERVED: &str = "unserved-nodeports";
pub const HAIRPINS: &str = "hairpins";

const SERVICES_CHAIN: &str = "find-service";
const NODEPORTS_CHAIN: &str = "find-nodeport";
const OUTSIDE_CHAIN: &str = "find-local-nodeport";
const UNSERVED_CHAIN: &str = "reject-unserved";
const REJECT_CHAIN: &str = "reject";
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_AFTER_DNAT: i32 = -90;
const PRIORITY_SNAT: i32 = 100;

/// The map of counts of a kind.
pub fn counts(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "services",
        PickKind::NodePort => "nodeports",
        PickKind::LocalNodePort => "local-nodeports",
    }
}

/// The map of endpoints of a kind.
pub fn slots(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-slots",
        PickKind::NodePort => "nodeport-slots",
        PickKind::LocalNodePort => "local-nodeport-slots",
    }
}

/// The verdict map from a count to its chain.
pub fn picks(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-picks",
        PickKind::NodePort => "nodeport-picks",
        PickKind::LocalNodePort => "local-nodeport-picks",
    }
}

pub fn pick_chain(kind: PickKind, count: u32) -> String {
    match kind {
        PickKind::Service => format!("service-pick-{count}"),
        PickKind::NodePort => format!("nodeport-pick-{count}"),
        PickKind::LocalNodePort => format!("local-nodeport-pick-{count}"),
    }
}

/// A part of a key or value, as nft's own datatype numbers and lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Address,
    Proto,
    Port,
    Number,
}

impl Field {
    fn datatype(self, family: Family) -> u32 {
        match (self, family) {
            (Field::Address, Family::V4) => 7,
            (Field::Address, Family::V6) => 8,
            (Field::Proto, _) => 12,
            (Field::Port, _) => 13,
            (Field::Number, _) => 19,
        }
    }

    /// Room in a concatenation: whole registers.
    fn room(self, family: Family) -> u32 {
        match self {
            Field::Address => 4 * Rule::address_registers(family),
            Field::Proto | Field::Port | Field::Number => 4,
        }
    }
}

fn datatype(fields: &[Field], family: Family) -> u32 {
    fields.iter().fold(0, |all, f| all << 6 | f.datatype(family))
}

fn room(fields: &[Field], family: Family) -> u32 {
    fields.iter().map(|f| f.room(family)).sum()
}

enum Data<'a> {
    None,
    Fields(&'a [Field]),
    Verdict,
}

/// What nft wants to know to print host-order values: BYTEORDER_HOST_ENDIAN is 1, BYTEORDER_BIG_ENDIAN 2.
fn byteorder(fields: &[Field]) -> u32 {
    if fields == [Field::Number] { 1 } else { 2 }
}

fn set(b: &mut Batch, family: Family, name: &str, key: &[Field], data: &Data<'_>) {
    const SET_MAP: u32 = 8;
    let id = b.next_set_id();
    b.message(super::NEWSET, super::CREATE, family, &format!("set {name}"), |w| {
        w.text(1, TABLE);
        w.text(2, name);
        w.be32(3, if matches!(data, Data::None) { 0 } else { SET_MAP });
        w.be32(4, datatype(key, family));
        w.be32(5, room(key, family));
        let mut user = vec![0, 4];
        user.extend_from_slice(&byteorder(key).to_ne_bytes());
        match data {
            Data::None => {}
            Data::Fields(fields) => {
                w.be32(6, datatype(fields, family));
                w.be32(7, room(fields, family));
                user.extend_from_slice(&[1, 4]);
                user.extend_from_slice(&byteorder(fields).to_ne_bytes());
            }
            Data::Verdict => {
                w.be32(6, 0xffff_ff00);
                w.be32(7, 0);
            }
        }
        w.be32(10, id);
        w.attr(13, &user);
    });
}

fn base_chain(b: &mut Batch, family: Family, name: &str, kind: &str, hook: u32, priority: i32) {
    b.message(super::NEWCHAIN, super::CREATE, family, &format!("chain {name}"), |w| {
        w.text(1, TABLE);
        w.text(3, name);
        let open = w.nest(4);
        w.be32(1, hook);
        w.attr(2, &priority.to_be_bytes());
        w.end(open);
        w.be32(5, 1);
        w.text(7, kind);
    });
}

fn chain(b: &mut Batch, family: Family, name: &str) {
    b.message(super::NEWCHAIN, super::CREATE, family, &format!("chain {name}"), |w| {
        w.text(1, TABLE);
        w.text(3, name);
    });
}

fn rule(b: &mut Batch, family: Family, chain: &str, rule: Rule) {
    b.message(super::NEWRULE, super::CREATE | super::APPEND, family, &format!("a rule of chain {chain}"), |w| {
        w.text(1, TABLE);
        w.text(2, chain);
        let open = w.nest(4);
        w.bytes.extend_from_slice(&rule.writer.bytes);
        w.end(open);
    });
}

/// Loads destination address, protocol and port; returns the first register after them.
fn service_key(rule: Rule, family: Family) -> (Rule, u32) {
    let n = Rule::address_registers(family);
    (rule.address(Side::Destination, 0).l4proto(n).dport(n + 1), n + 2)
}

fn port_key(rule: Rule) -> (Rule, u32) {
    (rule.l4proto(0).dport(1), 2)
}

fn key_of(kind: PickKind, rule: Rule, family: Family) -> (Rule, u32) {
    match kind {
        PickKind::Service => service_key(rule, family),
        PickKind::NodePort | PickKind::LocalNodePort => port_key(rule),
    }
}

fn key_fields(kind: PickKind) -> &'static [Field] {
    match kind {
        PickKind::Service => &[Field::Address, Field::Proto, Field::Port],
        PickKind::NodePort | PickKind::LocalNodePort => &[Field::Proto, Field::Port],
    }
}

/// Empty tables: all sets and maps, the chains, and the rules in them.
pub fn skeleton(b: &mut Batch, policy: &Policy) {
    for family in &policy.families {
        sets(b, *family);
        for name in [SERVICES_CHAIN, NODEPORTS_CHAIN, OUTSIDE_CHAIN, UNSERVED_CHAIN, REJECT_CHAIN] {
            chain(b, *family, name);
        }
        find_chains(b, *family, policy);
        reject_chains(b, *family);
        base_chains(b, *family, policy);
    }
}

fn sets(b: &mut Batch, family: Family) {
    for kind in PickKind::ALL {
        let key = key_fields(kind);
        set(b, family, counts(kind), key, &Data::Fields(&[Field::Number]));
        let slot_key: Vec<Field> = key.iter().copied().chain([Field::Number]).collect();
        set(b, family, slots(kind), &slot_key, &Data::Fields(&[Field::Address, Field::Port]));
        set(b, family, picks(kind), &[Field::Number], &Data::Verdict);
    }
    set(b, family, CLUSTER_IPS, &[Field::Address], &Data::None);
    set(b, family, LOCAL_ONLY, &[Field::Proto, Field::Port], &Data::None);
    set(b, family, UNSERVED, &[Field::Proto, Field::Port], &Data::None);
    set(b, family, HAIRPINS, &[Field::Address, Field::Address], &Data::None);
}

/// Printed as `meta mark set <key> map @counts meta mark set meta mark meta mark vmap @picks`: the second is the restoring.
fn look_up(b: &mut Batch, family: Family, from: &str, kind: PickKind) {
    const SAVED: u32 = 12;
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

fn not_from_pods(mut r: Rule, family: Family, policy: &Policy) -> Rule {
    for range in policy.pod_ranges(family) {
        r = r.within(Side::Source, range, false);
    }
    r
}

fn find_chains(b: &mut Batch, family: Family, policy: &Policy) {
    let new = || Rule::new(family);
    let to_cluster_ip = |r: Rule| r.address(Side::Destination, 0).member(CLUSTER_IPS, 0);
    if policy.masquerade_all {
        rule(b, family, SERVICES_CHAIN, to_cluster_ip(new()).set_mark(policy.masquerade_mark));
    } else if policy.pod_ranges(family).next().is_some() {
        let outside = not_from_pods(to_cluster_ip(new()), family, policy);
        rule(b, family, SERVICES_CHAIN, outside.set_mark(policy.masquerade_mark));
    }
    look_up(b, family, SERVICES_CHAIN, PickKind::Service);
    // Node ports on loopback would need route_localnet.
    let here = new().within(Side::Destination, &loopback(family), false).local(Side::Destination, true);
    rule(b, family, SERVICES_CHAIN, here.verdict(GOTO, Some(NODEPORTS_CHAIN)));

    let outside = not_from_pods(new(), family, policy).local(Side::Source, false);
    rule(b, family, NODEPORTS_CHAIN, outside.verdict(JUMP, Some(OUTSIDE_CHAIN)));
    look_up(b, family, NODEPORTS_CHAIN, PickKind::NodePort);

    look_up(b, family, OUTSIDE_CHAIN, PickKind::LocalNodePort);
    rule(b, family, OUTSIDE_CHAIN, port_key(new()).0.member(LOCAL_ONLY, 0).verdict(DROP, None));
}

/// What is served but came by untranslated met the moment in which a transaction took effect: it is dropped, so that its sender
/// tries again, instead of being told that there is nothing.
fn reject_chains(b: &mut Batch, family: Family) {
    let new = || Rule::new(family);
    let (served, _) = service_key(new(), family);
    rule(b, family, UNSERVED_CHAIN, served.map(counts(PickKind::Service), 0, 0).store_mark(0).verdict(DROP, None));
    let cluster_ip = new().address(Side::Destination, 0).member(CLUSTER_IPS, 0);
    rule(b, family, UNSERVED_CHAIN, cluster_ip.verdict(GOTO, Some(REJECT_CHAIN)));
    let here = || new().ct_translated(false).within(Side::Destination, &loopback(family), false).local(Side::Destination, true);
    let (served, _) = port_key(here());
    rule(b, family, UNSERVED_CHAIN, served.map(counts(PickKind::NodePort), 0, 0).store_mark(0).verdict(DROP, None));
    let (port, _) = port_key(here());
    rule(b, family, UNSERVED_CHAIN, port.member(UNSERVED, 0).verdict(GOTO, Some(REJECT_CHAIN)));
    rule(b, family, REJECT_CHAIN, new().l4proto_is(6).reject_tcp());
    rule(b, family, REJECT_CHAIN, new().reject());
}

fn base_chains(b: &mut Batch, family: Family, policy: &Policy) {
    const PREROUTING: u32 = 0;
    const OUTPUT: u32 = 3;
    const POSTROUTING: u32 = 4;
    let new = || Rule::new(family);
    for (name, hook) in [("dnat-prerouting", PREROUTING), ("dnat-output", OUTPUT)] {
        base_chain(b, family, name, "nat", hook, PRIORITY_DNAT);
        rule(b, family, name, new().verdict(JUMP, Some(SERVICES_CHAIN)));
    }
    for (name, hook) in [("reject-prerouting", PREROUTING), ("reject-output", OUTPUT)] {
        base_chain(b, family, name, "filter", hook, PRIORITY_AFTER_DNAT);
        rule(b, family, name, new().ct_new().verdict(JUMP, Some(UNSERVED_CHAIN)));
    }
    base_chain(b, family, "snat-postrouting", "nat", POSTROUTING, PRIORITY_SNAT);
    let marked = new().has_mark(policy.masquerade_mark).clear_mark(policy.masquerade_mark);
    rule(b, family, "snat-postrouting", marked.masquerade());
    let n = Rule::address_registers(family);
    let hairpin = new().ct_translated(true).address(Side::Source, 0).address(Side::Destination, n).member(HAIRPINS, 0);
    rule(b, family, "snat-postrouting", hairpin.masquerade());
}

/// The chain that takes one of N, and the element that leads to it.
pub fn pick(b: &mut Batch, pick: &Pick, policy_mark: u32) {
    let Pick { family, kind, count } = *pick;
    let name = pick_chain(kind, count);
    chain(b, family, &name);
    if kind == PickKind::NodePort {
        rule(b, family, &name, Rule::new(family).set_mark(policy_mark));
    }
    // The second rule is for a packet that read the count just before a change and the slots just after it: slot 0 always is.
    for among in if count > 1 { vec![count, 1] } else { vec![1] } {
        let (r, next) = key_of(kind, Rule::new(family), family);
        let r = r.random(among, next).map(slots(kind), 0, 0);
        rule(b, family, &name, r.dnat(0, Rule::address_registers(family)));
    }
    b.elements(super::NEWSETELEM, family, picks(kind), [()].iter(), |w: &mut Writer, ()| {
        super::expr::value(w, 1, &count.to_ne_bytes());
        let data = w.nest(2);
        verdict(w, GOTO, Some(&name));
        w.end(data);
    });
}
