//! Chains that pick one of so many endpoints, with and without affinity.

use super::chains::{SAVED, chain, key_of, mark_chain, rule};
use super::names::*;
use crate::diff::{EXACT, Pick, always_filled, code};
use crate::model::Family;
use crate::netlink::NEWSETELEM;
use crate::netlink::attr::Writer;
use crate::netlink::batch::Batch;
use crate::netlink::expr::{GOTO, JUMP, Rule, Side, value, verdict};
use crate::ruleset::PickKind;

/// The element that leads to the chain that takes one of N.
pub fn pick_element(b: &mut Batch, pick: &Pick) {
    let name = pick_chain(pick);
    b.elements(NEWSETELEM, pick.family, picks(pick.kind), [()].iter(), |w: &mut Writer, ()| {
        value(w, 1, &code(pick.count, pick.affinity).to_ne_bytes());
        let data = w.nest(2);
        verdict(w, GOTO, Some(&name));
        w.end(data);
    });
}

/// That chain. No rule of it depends on a policy: to write one anew costs a walk over the maps it looks up.
pub fn pick_rules(b: &mut Batch, pick: &Pick) {
    let Pick { family, kind, count, affinity } = *pick;
    let name = pick_chain(pick);
    chain(b, family, &name);
    if let Some(mark) = mark_chain(kind) {
        rule(b, family, &name, Rule::new(family).verdict(JUMP, Some(mark)));
    }
    // Where slots may be empty a draw misses at most one time in five. For who misses all, and for a packet that read the count
    // just before a change and the slots just after it, the last rule is: among slots that are never empty.
    let draws = if count > EXACT { 3 } else { 1 };
    if let Some(seconds) = affinity {
        known_client(b, family, &name, kind, seconds);
        for _ in 0..draws {
            new_client(b, family, &name, kind, count, seconds);
        }
    }
    let last = (count > 1 && affinity.is_some()).then_some(always_filled(count));
    for among in std::iter::repeat_n(count, draws).chain(last) {
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
    if count > 1 && affinity.is_none() {
        let fewer = pick_chain(&Pick { count: always_filled(count), ..*pick });
        rule(b, family, &name, Rule::new(family).verdict(GOTO, Some(&fewer)));
    }
}

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
