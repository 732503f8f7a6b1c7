//! One nf_tables transaction as bytes: begin, messages, end.
//!
//! Owns the numbering: a message's sequence number says what it was about when the kernel refuses it. Only the last message asks
//! for an acknowledgement; hundreds of them would overflow the socket's receive buffer.

use super::attr::Writer;
use super::expr::{family_number, octets, value};
use super::{layout, *};
use crate::diff::{Element, Place, Stray, Transaction, code};
use crate::model::{Family, Proto};
use crate::ruleset::{Front, Mark};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Leaves room below the 16 bits of an attribute's length for one more element.
const LIST_ROOM: usize = 64_000;
const RES_NFTABLES: u16 = 10;
/// Where a rule says by what bytes it was made: an entry of its user data of a kind that `nft` does not know.
pub const RULE_USERDATA: u16 = 7;
pub const RULE_DIGEST: u8 = 0x46;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

pub struct Batch {
    /// The name of the tables it is about.
    pub table: &'static str,
    w: Writer,
    what: Vec<String>,
    last_at: usize,
    sets: Vec<String>,
    /// Of tables whose rules are there already: nothing is written of a chain until it is known whether it differs.
    kept: BTreeSet<Family>,
    wanted: BTreeMap<(Family, String), Vec<Vec<u8>>>,
}

/// The rules of some tables: of each chain the digests they were written with. Zero: not one of ours.
pub type Rules = BTreeMap<(Family, String), Vec<u64>>;

/// FNV-1a; never zero.
fn digest(bytes: &[u8]) -> u64 {
    let h = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    h.max(1)
}

/// Ready to be sent.
pub struct Sealed {
    pub bytes: Vec<u8>,
    what: Vec<String>,
}

impl Sealed {
    pub fn what(&self, seq: u32) -> String {
        self.what.get(seq as usize).cloned().unwrap_or_else(|| format!("message {seq}"))
    }

    /// The message that asks for the acknowledgement.
    pub fn last_seq(&self) -> u32 {
        self.what.len() as u32 - 1
    }
}

impl Batch {
    pub fn new(place: Place) -> Batch {
        let mut w = Writer::default();
        let open = w.message(BATCH_BEGIN, REQUEST, 0, 0, RES_NFTABLES);
        w.end_message(open);
        Batch {
            table: layout::table(place),
            w,
            what: vec!["the batch as a whole".into()],
            last_at: 0,
            sets: Vec::new(),
            kept: BTreeSet::new(),
            wanted: BTreeMap::new(),
        }
    }

    pub fn next_set_id(&mut self, name: &str) -> u32 {
        self.sets.push(name.into());
        self.sets.len() as u32
    }

    /// The sets made by this batch.
    pub fn sets_named(&self) -> &[String] {
        &self.sets
    }

    fn start(&mut self, kind: u16, flags: u16, family: Family, what: String) -> super::attr::Open {
        self.last_at = self.w.bytes.len();
        let seq = self.what.len() as u32;
        self.what.push(what);
        self.w.message(NFTABLES << 8 | kind, REQUEST | flags, seq, family_number(family), 0)
    }

    pub fn message(&mut self, kind: u16, flags: u16, family: Family, what: &str, body: impl FnOnce(&mut Writer)) {
        let open = self.start(kind, flags, family, format!("{what} of table {} {}", family_text(family), self.table));
        body(&mut self.w);
        self.w.end_message(open);
    }

    /// A rule by the bytes of its expressions, at the end of a chain. It carries a digest of them, which the kernel keeps and `nft`
    /// does not print.
    pub fn rule(&mut self, family: Family, chain: &str, expressions: Vec<u8>) {
        if self.kept.contains(&family) {
            self.wanted.entry((family, chain.to_owned())).or_default().push(expressions);
            return;
        }
        let table = self.table;
        self.message(NEWRULE, CREATE | APPEND, family, &format!("a rule of chain {chain}"), |w| {
            w.text(1, table);
            w.text(2, chain);
            let open = w.nest(4);
            w.bytes.extend_from_slice(&expressions);
            w.end(open);
            let mut user = vec![RULE_DIGEST, 8];
            user.extend_from_slice(&digest(&expressions).to_ne_bytes());
            w.attr(RULE_USERDATA, &user);
        });
    }

    /// From here on the rules of these tables are only collected.
    fn keep_rules(&mut self, families: &BTreeSet<Family>) {
        self.kept.clone_from(families);
    }

    /// Writes anew the chains whose rules are not those collected. Binding a large map to a chain costs the kernel a walk over all
    /// its elements, so that a chain which is right is better left alone.
    fn settle_rules(&mut self, there: &Rules) {
        self.kept.clear();
        let wanted = std::mem::take(&mut self.wanted);
        for (family, chain) in there.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
            let rules = wanted.get(&(*family, chain.clone())).map_or(&[][..], |r| r);
            let had = there.get(&(*family, chain.clone())).map_or(&[][..], |r| r);
            if rules.iter().map(|r| digest(r)).eq(had.iter().copied()) {
                continue;
            }
            if !had.is_empty() {
                let table = self.table;
                self.message(DELRULE, 0, *family, &format!("the rules of chain {chain}"), |w| {
                    w.text(1, table);
                    w.text(2, chain);
                });
            }
            for r in rules {
                self.rule(*family, chain, r.clone());
            }
        }
    }

    /// Elements of one set, in as many messages as they need.
    pub fn elements<'a, T: 'a>(
        &mut self,
        kind: u16,
        family: Family,
        set: &str,
        mut items: impl Iterator<Item = &'a T>,
        write: impl Fn(&mut Writer, &T),
    ) {
        let mut next = items.next();
        let mut done = 0usize;
        while next.is_some() {
            let open = self.start(kind, if kind == NEWSETELEM { CREATE } else { 0 }, family, String::new());
            self.w.text(1, self.table);
            self.w.text(2, set);
            let began = self.w.bytes.len();
            let first = done;
            let list = self.w.nest(3);
            while let Some(item) = next {
                let elem = self.w.nest(1);
                write(&mut self.w, item);
                self.w.end(elem);
                done += 1;
                next = items.next();
                if self.w.bytes.len() - began > LIST_ROOM {
                    break;
                }
            }
            self.w.end(list);
            self.w.end_message(open);
            if let Some(what) = self.what.last_mut() {
                *what = format!("elements {first} to {} of set {set} of table {} {}", done - 1, family_text(family), self.table);
            }
        }
    }

    /// A batch without its end is checked by the kernel and then undone.
    pub fn seal(mut self, commit: bool) -> Sealed {
        self.w.add_flags(self.last_at, ACK);
        if commit {
            let open = self.w.message(BATCH_END, REQUEST, 0, 0, RES_NFTABLES);
            self.w.end_message(open);
        }
        Sealed { bytes: self.w.bytes, what: self.what }
    }
}

pub fn family_text(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn table(b: &mut Batch, kind: u16, flags: u16, family: Family, body: impl FnOnce(&mut Writer)) {
    let table = b.table;
    b.message(kind, flags, family, "the table itself", |w| {
        w.text(1, table);
        body(w);
    });
}

/// Makes sure that a table is not there.
fn remove_table(b: &mut Batch, family: Family) {
    // Deleting what is not there fails; making what is there does not.
    table(b, NEWTABLE, CREATE, family, |_| {});
    table(b, DELTABLE, 0, family, |_| {});
}

/// `there`: the rules of the tables that the base keeps.
pub fn encode(tx: &Transaction, there: &Rules) -> Batch {
    let mut b = Batch::new(tx.place);
    for family in &tx.delete {
        remove_table(&mut b, *family);
    }
    if let Some(base) = &tx.base {
        for family in &base.make {
            remove_table(&mut b, *family);
            table(&mut b, NEWTABLE, CREATE, *family, |_| {});
        }
        for family in &base.keep {
            // Somebody may have put it to sleep.
            table(&mut b, NEWTABLE, CREATE, *family, |w| w.be32(2, 0));
        }
        b.keep_rules(&base.keep);
        layout::skeleton(&mut b, &base.policy, base.make.union(&base.keep));
    }
    // Those for fewer endpoints first: others lead to them.
    for pick in tx.base.iter().flat_map(|base| &base.picks).chain(&tx.picks).collect::<BTreeSet<_>>() {
        layout::pick_rules(&mut b, pick);
    }
    b.settle_rules(there);
    for stray in &tx.strays {
        remove_stray(&mut b, stray);
    }
    for pick in &tx.picks {
        layout::pick_element(&mut b, pick);
    }
    changes(&mut b, DELSETELEM, &tx.remove);
    changes(&mut b, NEWSETELEM, &tx.add);
    b
}

fn remove_stray(b: &mut Batch, stray: &Stray) {
    b.elements(DELSETELEM, stray.family, stray.set, [()].iter(), |w, ()| {
        value(w, 1, &stray.key);
        if let Some(end) = &stray.end {
            value(w, 10, end);
        }
    });
}

/// Elements grouped by the set they belong to.
fn changes(b: &mut Batch, kind: u16, elements: &[Element]) {
    let mut groups: BTreeMap<(Family, &'static str), Vec<&Element>> = BTreeMap::new();
    for e in elements {
        groups.entry((e.family(), set_of(e))).or_default().push(e);
    }
    let mut key = Vec::new();
    for ((family, set), group) in groups {
        let key = std::cell::RefCell::new(&mut key);
        b.elements(kind, family, set, group.into_iter(), |w, e| element(w, e, &mut key.borrow_mut(), kind == NEWSETELEM));
    }
}

fn set_of(e: &Element) -> &'static str {
    match e {
        Element::Count { front, .. } => layout::counts(front.kind()),
        Element::Slot { front, .. } => layout::slots(front.kind()),
        Element::SlotId { front, .. } => layout::slot_ids(front.kind()),
        Element::Id { front, .. } => layout::ids(front.kind()),
        Element::Mark(Mark::ClusterIp(_)) => layout::CLUSTER_IPS,
        Element::Mark(Mark::LocalOnly { .. }) => layout::LOCAL_ONLY,
        Element::Mark(Mark::Unserved { .. }) => layout::UNSERVED,
        Element::Mark(Mark::NoLocal { .. }) => layout::NO_LOCAL,
        Element::Mark(Mark::External { .. }) => layout::EXTERNAL,
        Element::Mark(Mark::LocalOnlyIp { .. }) => layout::LOCAL_ONLY_IPS,
        Element::Mark(Mark::Ranged { .. }) => layout::RANGED,
        Element::Mark(Mark::Range { .. }) => layout::SOURCES,
        Element::Mark(Mark::Hairpin(_)) => layout::HAIRPINS,
    }
}

fn element(w: &mut Writer, e: &Element, bytes: &mut Vec<u8>, with_data: bool) {
    bytes.clear();
    match e {
        Element::Count { front, count, affinity } => {
            front_key(bytes, front);
            value(w, 1, bytes);
            if with_data {
                value(w, 2, &code(*count, *affinity).to_ne_bytes());
            }
        }
        Element::SlotId { front, slot, id } => {
            front_key(bytes, front);
            bytes.extend_from_slice(&slot.to_ne_bytes());
            value(w, 1, bytes);
            if with_data {
                value(w, 2, &id.to_ne_bytes());
            }
        }
        Element::Slot { front, slot: number, backend } | Element::Id { front, id: number, backend } => {
            front_key(bytes, front);
            bytes.extend_from_slice(&number.to_ne_bytes());
            value(w, 1, bytes);
            if with_data {
                bytes.clear();
                bytes.extend_from_slice(&octets(&backend.ip));
                port(bytes, backend.port);
                value(w, 2, bytes);
            }
        }
        Element::Mark(Mark::Range { ip, proto, port, source }) => {
            for (kind, edge) in [(1, source.network()), (10, source.broadcast())] {
                bytes.clear();
                address_key(bytes, ip, *proto, *port);
                bytes.extend_from_slice(&octets(&edge));
                value(w, kind, bytes);
            }
        }
        Element::Mark(mark) => {
            match mark {
                Mark::NoLocal { ip, proto, port }
                | Mark::External { ip, proto, port }
                | Mark::LocalOnlyIp { ip, proto, port }
                | Mark::Ranged { ip, proto, port }
                | Mark::Range { ip, proto, port, .. } => address_key(bytes, ip, *proto, *port),
                Mark::ClusterIp(ip) => bytes.extend_from_slice(&octets(ip)),
                Mark::Hairpin(ip) => bytes.extend_from_slice(&[octets(ip), octets(ip)].concat()),
                Mark::LocalOnly { proto, port: number, .. } | Mark::Unserved { proto, port: number, .. } => {
                    port_key(bytes, *proto, *number);
                }
            }
            value(w, 1, bytes);
        }
    }
}

fn front_key(bytes: &mut Vec<u8>, front: &Front) {
    match front {
        Front::ClusterIp { ip, proto, port } | Front::External { ip, proto, port } | Front::LocalExternal { ip, proto, port } => {
            address_key(bytes, ip, *proto, *port);
        }
        Front::NodePort { proto, port, .. } | Front::LocalNodePort { proto, port, .. } => port_key(bytes, *proto, *port),
    }
}

fn address_key(bytes: &mut Vec<u8>, ip: &IpAddr, proto: Proto, number: u16) {
    bytes.extend_from_slice(&octets(ip));
    port_key(bytes, proto, number);
}

fn port_key(bytes: &mut Vec<u8>, proto: Proto, number: u16) {
    bytes.extend_from_slice(&[proto.number(), 0, 0, 0]);
    port(bytes, number);
}

/// A port fills a whole register.
fn port(bytes: &mut Vec<u8>, number: u16) {
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests;
