//! Our sets and maps: what their keys and data are made of.

use super::names::*;
use crate::model::Family;
use crate::netlink::batch::Batch;
use crate::netlink::expr::Rule;
use crate::netlink::{CREATE, NEWSET};
use crate::ruleset::PickKind;

/// Clients remembered for each of the two maps; further ones are spread as if there were no affinity.
const MOST_CLIENTS: u32 = 65_536;

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
    let table = b.table;
    b.message(NEWSET, CREATE, family, &format!("set {name}"), |w| {
        w.text(1, table);
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

fn key_fields(kind: PickKind) -> &'static [Field] {
    match kind {
        PickKind::Service | PickKind::External | PickKind::LocalExternal => &[Field::Address, Field::Proto, Field::Port],
        PickKind::NodePort | PickKind::LocalNodePort => &[Field::Proto, Field::Port],
    }
}

/// An empty set that only tells something by its name.
pub(super) fn marker(b: &mut Batch, family: Family, name: &str) {
    set(b, family, name, &[Field::Number], &Data::None);
}

pub(super) fn sets(b: &mut Batch, family: Family) {
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
