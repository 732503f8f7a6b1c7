//! The fixed part of our tables: sets, maps, chains and rules. HOOKS.md explains it; `trace` follows it.
//!
//! From a service's count to the chain that picks among so many, two lookups follow one another. `nft` cannot print that (an
//! assertion ends it), so the count goes through the packet's mark, which the same rule saves before and restores after.

use super::attr::Writer;
use super::batch::Batch;
use super::expr::{DROP, GOTO, JUMP, Rule, Side, verdict};
use crate::diff::{Pick, code};
use crate::model::Family;
use crate::ruleset::{PickKind, Policy};
use ipnet::IpNet;

pub const TABLE: &str = "ferrolet";
pub const CLUSTER_IPS: &str = "cluster-ips";
pub const LOCAL_ONLY: &str = "local-only-nodeports";
pub const UNSERVED: &str = "unserved-nodeports";
pub const HAIRPINS: &str = "hairpins";
pub const NO_LOCAL: &str = "no-local-endpoint";
pub const EXTERNAL: &str = "external-fronts";
pub const LOCAL_ONLY_IPS: &str = "local-only-externals";
pub const RANGED: &str = "restricted-fronts";
pub const SOURCES: &str = "allowed-sources";

const SERVICES_CHAIN: &str = "find-service";
const NODEPORTS_CHAIN: &str = "find-nodeport";
const OUTSIDE_CHAIN: &str = "find-local-nodeport";
const EXTERNAL_CHAIN: &str = "find-external";
const LOCAL_EXTERNAL_CHAIN: &str = "find-local-external";
const UNSERVED_CHAIN: &str = "reject-unserved";
const REJECT_CHAIN: &str = "reject";
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_AFTER_DNAT: i32 = -90;
const PRIORITY_SNAT: i32 = 100;
const PRIORITY_INVALID: i32 = -10;

/// The map of counts of a kind.
pub fn counts(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "services",
        PickKind::External => "externals",
        PickKind::LocalExternal => "local-externals",
        PickKind::NodePort => "nodeports",
        PickKind::LocalNodePort => "local-nodeports",
    }
}

/// The map of endpoints of a kind.
pub fn slots(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-slots",
        PickKind::External => "external-slots",
        PickKind::LocalExternal => "local-external-slots",
        PickKind::NodePort => "nodeport-slots",
        PickKind::LocalNodePort => "local-nodeport-slots",
    }
}

/// The verdict map from a count to its chain.
pub fn picks(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-picks",
        PickKind::External => "external-picks",
        PickKind::LocalExternal => "local-external-picks",
        PickKind::NodePort => "nodeport-picks",
        PickKind::LocalNodePort => "local-nodeport-picks",
    }
}

/// With affinity: from a slot to an endpoint's id.
pub fn slot_ids(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-slot-ids",
        PickKind::External => "external-slot-ids",
        PickKind::LocalExternal => "local-external-slot-ids",
        PickKind::NodePort => "nodeport-slot-ids",
        PickKind::LocalNodePort => "local-nodeport-slot-ids",
    }
}

/// With affinity: from an id to the endpoint.
pub fn ids(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-ids",
        PickKind::External => "external-ids",
        PickKind::LocalExternal => "local-external-ids",
        PickKind::NodePort => "nodeport-ids",
        PickKind::LocalNodePort => "local-nodeport-ids",
    }
}

/// Which endpoint, by id, a client had last. Filled by packets, kept when everything else is written anew.
fn clients(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service | PickKind::External | PickKind::LocalExternal => "clients",
        PickKind::NodePort | PickKind::LocalNodePort => "nodeport-clients",
    }
}

/// Clients remembered for each of the two maps; further ones are spread as if there were no affinity.
const MOST_CLIENTS: u32 = 65_536;

fn pick_chain(pick: &Pick) -> String {
    let kind = match pick.kind {
        PickKind::Service => "service",
        PickKind::External => "external",
        PickKind::LocalExternal => "local-external",
        PickKind::NodePort => "nodeport",
        PickKind::LocalNodePort => "local-nodeport",
    };
    match pick.affinity {
        None => format!("{kind}-pick-{}", pick.count),
        Some(seconds) => format!("{kind}-pick-{}-for-{seconds}s", pick.count),
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

    fn len(self, family: Family) -> u32 {
        match self {
            Field::Address => 4 * Rule::address_registers(family),
            Field::Proto => 1,
            Field::Port => 2,
            Field::Number => 4,
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
    set_with(b, family, name, key, data, 0);
}

const SET_INTERVAL: u32 = 4;
/// Each part of the key is a range of its own.
const SET_CONCAT: u32 = 128;
const SET_TIMEOUT: u32 = 16;
/// Rules may change it.
const SET_EVAL: u32 = 32;

fn set_with(b: &mut Batch, family: Family, name: &str, key: &[Field], data: &Data<'_>, flags: u32) {
    const SET_MAP: u32 = 8;
    let id = b.next_set_id(name);
    b.message(super::NEWSET, super::CREATE, family, &format!("set {name}"), |w| {
        w.text(1, TABLE);
        w.text(2, name);
        w.be32(3, flags | if matches!(data, Data::None) { 0 } else { SET_MAP });
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
        if flags & SET_EVAL != 0 {
            let description = w.nest(9);
            w.be32(1, MOST_CLIENTS);
            w.end(description);
        }
        if flags & SET_CONCAT != 0 {
            let description = w.nest(9);
            let fields = w.nest(2);
            for field in key {
                let one = w.nest(1);
                w.be32(1, field.len(family));
                w.end(one);
            }
            w.end(fields);
            w.end(description);
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
        PickKind::Service | PickKind::External | PickKind::LocalExternal => service_key(rule, family),
        PickKind::NodePort | PickKind::LocalNodePort => port_key(rule),
    }
}

fn key_fields(kind: PickKind) -> &'static [Field] {
    match kind {
        PickKind::Service | PickKind::External | PickKind::LocalExternal => &[Field::Address, Field::Proto, Field::Port],
        PickKind::NodePort | PickKind::LocalNodePort => &[Field::Proto, Field::Port],
    }
}

/// Empty tables: all sets and maps, the chains, and the rules in them.
pub fn skeleton(b: &mut Batch, policy: &Policy) {
    for family in &policy.families {
        sets(b, *family);
        set(b, *family, &marker(*family), &[Field::Number], &Data::None);
        for name in
            [SERVICES_CHAIN, EXTERNAL_CHAIN, LOCAL_EXTERNAL_CHAIN, NODEPORTS_CHAIN, OUTSIDE_CHAIN, UNSERVED_CHAIN, REJECT_CHAIN]
        {
            chain(b, *family, name);
        }
        find_chains(b, *family, policy);
        reject_chains(b, *family, policy);
        base_chains(b, *family, policy);
    }
}

/// The name of an empty set that says which layout a table has: a digest of its sets and hooks. Tables of the same layout are
/// written anew in place.
fn marker(family: Family) -> String {
    let mut b = Batch::new();
    sets(&mut b, family);
    hooks(&mut b, family);
    let bytes = b.seal(false).bytes;
    let digest = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("layout-{digest:016x}")
}

/// The names of all sets and maps of a table, as they are now.
pub fn set_names(family: Family) -> std::collections::BTreeSet<String> {
    let mut b = Batch::new();
    sets(&mut b, family);
    b.sets_named().iter().cloned().chain([marker(family)]).collect()
}

/// Takes out what `skeleton` and elements put in, and keeps what packets left.
pub fn empty(b: &mut Batch, family: Family) {
    b.message(super::DELRULE, 0, family, "all rules", |w| w.text(1, TABLE));
    let keep = [clients(PickKind::Service), clients(PickKind::NodePort)];
    for name in set_names(family).iter().filter(|n| !keep.contains(&n.as_str())) {
        b.message(super::DELSETELEM, 0, family, &format!("all elements of set {name}"), |w| {
            w.text(1, TABLE);
            w.text(2, name);
        });
    }
}

fn sets(b: &mut Batch, family: Family) {
    for kind in PickKind::ALL {
        let key = key_fields(kind);
        set(b, family, counts(kind), key, &Data::Fields(&[Field::Number]));
        let slot_key: Vec<Field> = key.iter().copied().chain([Field::Number]).collect();
        set(b, family, slots(kind), &slot_key, &Data::Fields(&[Field::Address, Field::Port]));
        set(b, family, slot_ids(kind), &slot_key, &Data::Fields(&[Field::Number]));
        set(b, family, ids(kind), &slot_key, &Data::Fields(&[Field::Address, Field::Port]));
        set(b, family, picks(kind), &[Field::Number], &Data::Verdict);
    }
    for kind in [PickKind::Service, PickKind::NodePort] {
        let key: Vec<Field> = [Field::Address].into_iter().chain(key_fields(kind).iter().copied()).collect();
        set_with(b, family, clients(kind), &key, &Data::Fields(&[Field::Number]), SET_TIMEOUT | SET_EVAL);
    }
    set(b, family, CLUSTER_IPS, &[Field::Address], &Data::None);
    let front = key_fields(PickKind::Service);
    for name in [NO_LOCAL, EXTERNAL, LOCAL_ONLY_IPS, RANGED] {
        set(b, family, name, front, &Data::None);
    }
    let sourced: Vec<Field> = front.iter().copied().chain([Field::Address]).collect();
    set_with(b, family, SOURCES, &sourced, &Data::None, SET_INTERVAL | SET_CONCAT);
    set(b, family, LOCAL_ONLY, &[Field::Proto, Field::Port], &Data::None);
    set(b, family, UNSERVED, &[Field::Proto, Field::Port], &Data::None);
    set(b, family, HAIRPINS, &[Field::Address, Field::Address], &Data::None);
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
fn reject_chains(b: &mut Batch, family: Family, policy: &Policy) {
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
    rule(b, family, REJECT_CHAIN, new().l4proto_is(6).reject_tcp());
    rule(b, family, REJECT_CHAIN, new().reject());
}

const DNAT_CHAINS: [(&str, u32); 2] = [("dnat-prerouting", PREROUTING), ("dnat-output", OUTPUT)];
const REJECT_CHAINS: [(&str, u32); 2] = [("reject-prerouting", PREROUTING), ("reject-output", OUTPUT)];
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const FORWARD: u32 = 2;

fn hooks(b: &mut Batch, family: Family) {
    for (name, hook) in DNAT_CHAINS {
        base_chain(b, family, name, "nat", hook, PRIORITY_DNAT);
    }
    for (name, hook) in REJECT_CHAINS {
        base_chain(b, family, name, "filter", hook, PRIORITY_AFTER_DNAT);
    }
    base_chain(b, family, "invalid-forward", "filter", FORWARD, PRIORITY_INVALID);
    base_chain(b, family, "snat-postrouting", "nat", POSTROUTING, PRIORITY_SNAT);
}

fn base_chains(b: &mut Batch, family: Family, policy: &Policy) {
    let new = || Rule::new(family);
    hooks(b, family);
    for (name, _) in DNAT_CHAINS {
        rule(b, family, name, new().verdict(JUMP, Some(SERVICES_CHAIN)));
    }
    for (name, _) in REJECT_CHAINS {
        rule(b, family, name, new().ct_new().verdict(JUMP, Some(UNSERVED_CHAIN)));
    }
    rule(b, family, "invalid-forward", new().ct_invalid().verdict(DROP, None));
    let marked = new().has_mark(policy.masquerade_mark).clear_mark(policy.masquerade_mark);
    rule(b, family, "snat-postrouting", marked.masquerade());
    let n = Rule::address_registers(family);
    let hairpin = new().ct_translated(true).address(Side::Source, 0).address(Side::Destination, n).member(HAIRPINS, 0);
    rule(b, family, "snat-postrouting", hairpin.masquerade());
}

/// The chain that takes one of N, and the element that leads to it.
pub fn pick(b: &mut Batch, pick: &Pick, policy: &Policy) {
    let Pick { family, kind, count, affinity } = *pick;
    let name = pick_chain(pick);
    chain(b, family, &name);
    if matches!(kind, PickKind::NodePort | PickKind::External) {
        rule(b, family, &name, Rule::new(family).set_mark(policy.masquerade_mark));
    }
    if kind == PickKind::External {
        // A pod's way to a Local address is that to a cluster IP.
        for range in policy.pod_ranges(family) {
            let pod = service_key(Rule::new(family).within(Side::Source, range, true), family).0;
            rule(b, family, &name, pod.member(LOCAL_ONLY_IPS, 0).clear_mark(policy.masquerade_mark));
        }
    }
    if let Some(seconds) = affinity {
        known_client(b, family, &name, kind, seconds);
        new_client(b, family, &name, kind, count, seconds);
    }
    // The second rule is for a packet that read the count just before a change and the slots just after it: slot 0 always is.
    for among in if count > 1 { vec![count, 1] } else { vec![1] } {
        let r = match affinity {
            None => {
                let (r, next) = key_of(kind, Rule::new(family), family);
                r.random(among, next).map(slots(kind), 0, 0)
            }
            Some(_) => {
                let (r, number) = key_of(kind, Rule::new(family).load_mark(SAVED), family);
                let r = by_mark(r.random(among, number).map(slot_ids(kind), 0, number), number);
                r.map(ids(kind), 0, 0)
            }
        };
        rule(b, family, &name, r.dnat(0, Rule::address_registers(family)));
    }
    b.elements(super::NEWSETELEM, family, picks(kind), [()].iter(), |w: &mut Writer, ()| {
        super::expr::value(w, 1, &code(count, affinity).to_ne_bytes());
        let data = w.nest(2);
        verdict(w, GOTO, Some(&name));
        w.end(data);
    });
}

/// The register that keeps the packet's mark while a number is shown in it.
const SAVED: u32 = 15;

/// Passes a number in a register by the packet's mark, so that `nft` can print the rule.
fn by_mark(r: Rule, number: u32) -> Rule {
    r.store_mark(number).load_mark(number).store_mark(SAVED)
}

/// Loads source address and the service's key; returns the first register of the key and the one after all.
fn client_key(r: Rule, family: Family, kind: PickKind) -> (Rule, u32, u32) {
    let from = Rule::address_registers(family);
    let r = r.address(Side::Source, 0);
    let (r, next) = match kind {
        PickKind::Service | PickKind::External | PickKind::LocalExternal => {
            (r.address(Side::Destination, from).l4proto(2 * from).dport(2 * from + 1), 2 * from + 2)
        }
        PickKind::NodePort | PickKind::LocalNodePort => (r.l4proto(from).dport(from + 1), from + 2),
    };
    (r, from, next)
}

/// To the endpoint the client had, if it is still there; its time begins anew.
fn known_client(b: &mut Batch, family: Family, chain: &str, kind: PickKind, seconds: u32) {
    let (r, key, id) = client_key(Rule::new(family).load_mark(SAVED), family, kind);
    let r = by_mark(r.map(clients(kind), 0, id), id);
    let r = r.update(clients(kind), 0, id, seconds).map(ids(kind), key, 0);
    rule(b, family, chain, r.dnat(0, Rule::address_registers(family)));
}

/// Picks one and remembers it. An entry of an endpoint that is gone has to be deleted first: an update would only renew it.
fn new_client(b: &mut Batch, family: Family, chain: &str, kind: PickKind, count: u32, seconds: u32) {
    let (r, key, id) = client_key(Rule::new(family).load_mark(SAVED), family, kind);
    let r = by_mark(r.random(count, id).map(slot_ids(kind), key, id), id);
    let r = r.delete(clients(kind), 0, id).update(clients(kind), 0, id, seconds).map(ids(kind), key, 0);
    rule(b, family, chain, r.dnat(0, Rule::address_registers(family)));
}
