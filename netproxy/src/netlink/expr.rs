//! Rules as nf_tables expressions: a small assembler.
//!
//! Registers are the sixteen 32-bit ones, numbered from 0 here. Constants are the kernel's, from linux/netfilter/nf_tables.h.

use super::attr::Writer;
use crate::local::InterfaceName;
use crate::model::Family;
use ipnet::IpNet;
use std::net::IpAddr;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
pub const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const REG32: u32 = 8;
const REG_VERDICT: u32 = 0;
pub const GOTO: i32 = -4;
pub const JUMP: i32 = -3;
pub const DROP: i32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;
const META_IIFNAME: u32 = 6;
/// IFNAMSIZ: a whole name is compared with its padding, a prefix without.
const NAME_LEN: usize = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_STATE_NEW: u32 = 8;
const CT_STATE_INVALID: u32 = 1;
const IPS_DST_NAT: u32 = 32;
const FIB_ADDRTYPE: u32 = 3;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
const MASQUERADE_RANDOM_FULLY: u32 = 16;

/// The expressions of one rule, in order, in the kernel's encoding.
pub struct Rule {
    pub writer: Writer,
    family: Family,
}

/// Which address of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

impl Rule {
    pub fn new(family: Family) -> Rule {
        Rule { writer: Writer::default(), family }
    }

    fn expr(mut self, name: &str, data: impl FnOnce(&mut Writer)) -> Rule {
        let elem = self.writer.nest(LIST_ELEM);
        self.writer.text(EXPR_NAME, name);
        let body = self.writer.nest(EXPR_DATA);
        data(&mut self.writer);
        self.writer.end(body);
        self.writer.end(elem);
        self
    }

    /// How many registers an address takes.
    pub fn address_registers(family: Family) -> u32 {
        match family {
            Family::V4 => 1,
            Family::V6 => 4,
        }
    }

    fn payload(self, base: u32, offset: u32, len: u32, to: u32) -> Rule {
        self.expr("payload", |w| {
            w.be32(1, REG32 + to);
            w.be32(2, base);
            w.be32(3, offset);
            w.be32(4, len);
        })
    }

    pub fn address(self, side: Side, to: u32) -> Rule {
        let (offset, len) = match (self.family, side) {
            (Family::V4, Side::Source) => (12, 4),
            (Family::V4, Side::Destination) => (16, 4),
            (Family::V6, Side::Source) => (8, 16),
            (Family::V6, Side::Destination) => (24, 16),
        };
        self.payload(NETWORK_HEADER, offset, len, to)
    }

    pub fn dport(self, to: u32) -> Rule {
        self.payload(TRANSPORT_HEADER, 2, 2, to)
    }

    fn meta_load(self, key: u32, to: u32) -> Rule {
        self.expr("meta", |w| {
            w.be32(2, key);
            w.be32(1, REG32 + to);
        })
    }

    pub fn l4proto(self, to: u32) -> Rule {
        self.meta_load(META_L4PROTO, to)
    }

    /// The value of a map for the key in the registers from `key` on; no match ends the rule.
    pub fn map(self, name: &str, key: u32, to: u32) -> Rule {
        self.expr("lookup", |w| {
            w.text(1, name);
            w.be32(2, REG32 + key);
            w.be32(3, REG32 + to);
        })
    }

    /// Goes where the verdict map says; no match goes on after the rule.
    pub fn vmap(self, name: &str, key: u32) -> Rule {
        self.expr("lookup", |w| {
            w.text(1, name);
            w.be32(2, REG32 + key);
            w.be32(3, REG_VERDICT);
        })
    }

    /// Adds the key with its data and a timeout in seconds, or renews the timeout of what is there, whose data stays.
    pub fn update(self, map: &str, key: u32, data: u32, seconds: u32) -> Rule {
        const UPDATE: u32 = 1;
        self.dynset(map, UPDATE, key, data, Some(seconds))
    }

    pub fn delete(self, map: &str, key: u32, data: u32) -> Rule {
        const DELETE: u32 = 2;
        self.dynset(map, DELETE, key, data, None)
    }

    fn dynset(self, map: &str, operation: u32, key: u32, data: u32, seconds: Option<u32>) -> Rule {
        self.expr("dynset", |w| {
            w.text(1, map);
            w.be32(3, operation);
            w.be32(4, REG32 + key);
            w.be32(5, REG32 + data);
            if let Some(seconds) = seconds {
                w.attr(6, &(u64::from(seconds) * 1000).to_be_bytes());
            }
        })
    }

    pub fn member(self, set: &str, key: u32) -> Rule {
        self.expr("lookup", |w| {
            w.text(1, set);
            w.be32(2, REG32 + key);
        })
    }

    pub fn no_member(self, set: &str, key: u32) -> Rule {
        const INVERT: u32 = 1;
        self.expr("lookup", |w| {
            w.text(1, set);
            w.be32(2, REG32 + key);
            w.be32(5, INVERT);
        })
    }

    pub fn load_mark(self, to: u32) -> Rule {
        self.meta_load(META_MARK, to)
    }

    pub fn store_mark(self, from: u32) -> Rule {
        self.expr("meta", |w| {
            w.be32(2, META_MARK);
            w.be32(3, REG32 + from);
        })
    }

    /// reg = (reg & mask) ^ xor
    fn mask_xor(self, reg: u32, mask: &[u8], xor: &[u8]) -> Rule {
        self.expr("bitwise", |w| {
            w.be32(1, REG32 + reg);
            w.be32(2, REG32 + reg);
            w.be32(3, mask.len() as u32);
            w.be32(6, 0);
            value(w, 4, mask);
            value(w, 5, xor);
        })
    }

    fn compare(self, reg: u32, equal: bool, with: &[u8]) -> Rule {
        self.expr("cmp", |w| {
            w.be32(1, REG32 + reg);
            w.be32(2, u32::from(!equal));
            value(w, 3, with);
        })
    }

    pub fn random(self, modulus: u32, to: u32) -> Rule {
        self.expr("numgen", |w| {
            w.be32(1, REG32 + to);
            w.be32(2, modulus);
            w.be32(3, 1);
            w.be32(4, 0);
        })
    }

    pub fn dnat(self, address: u32, port: u32) -> Rule {
        let family = u32::from(family_number(self.family));
        self.expr("nat", |w| {
            w.be32(1, 1);
            w.be32(2, family);
            w.be32(3, REG32 + address);
            w.be32(5, REG32 + port);
        })
    }

    pub fn masquerade(self) -> Rule {
        self.expr("masq", |w| w.be32(1, MASQUERADE_RANDOM_FULLY))
    }

    pub fn l4proto_is(self, number: u8) -> Rule {
        self.l4proto(0).compare(0, true, &[number])
    }

    /// Whether the address is (not) inside the range.
    pub fn within(self, side: Side, range: &IpNet, inside: bool) -> Rule {
        let mask = octets(&range.netmask());
        let network = octets(&range.network());
        let zero = vec![0; mask.len()];
        let rule = self.address(side, 0);
        match range.prefix_len() == range.max_prefix_len() {
            true => rule.compare(0, inside, &network),
            false => rule.mask_xor(0, &mask, &zero).compare(0, inside, &network),
        }
    }

    /// Whether the packet came in by an interface that is (not) called so.
    pub fn iif_is(self, name: &InterfaceName, is: bool) -> Rule {
        let mut padded = name.as_str().as_bytes().to_vec();
        padded.resize(NAME_LEN, 0);
        self.meta_load(META_IIFNAME, 0).compare(0, is, &padded)
    }

    /// Whether it came in by one whose name begins (does not begin) so.
    pub fn iif_begins(self, prefix: &InterfaceName, is: bool) -> Rule {
        self.meta_load(META_IIFNAME, 0).compare(0, is, prefix.as_str().as_bytes())
    }

    /// Whether the address is (not) one of this host's own.
    pub fn local(self, side: Side, is: bool) -> Rule {
        let flags = if side == Side::Source { FIB_SADDR } else { FIB_DADDR };
        let rule = self.expr("fib", |w| {
            w.be32(1, REG32);
            w.be32(2, FIB_ADDRTYPE);
            w.be32(3, flags);
        });
        rule.compare(0, is, &RTN_LOCAL.to_ne_bytes())
    }

    fn ct(self, key: u32, bits: u32, any: bool) -> Rule {
        let rule = self.expr("ct", |w| {
            w.be32(2, key);
            w.be32(1, REG32);
        });
        rule.mask_xor(0, &bits.to_ne_bytes(), &[0; 4]).compare(0, !any, &[0; 4])
    }

    pub fn ct_new(self) -> Rule {
        self.ct(CT_STATE, CT_STATE_NEW, true)
    }

    pub fn ct_invalid(self) -> Rule {
        self.ct(CT_STATE, CT_STATE_INVALID, true)
    }

    /// Whether the destination was (not) translated.
    pub fn ct_translated(self, is: bool) -> Rule {
        self.ct(CT_STATUS, IPS_DST_NAT, is)
    }

    pub fn has_mark(self, bit: u32) -> Rule {
        self.meta_load(META_MARK, 0).mask_xor(0, &bit.to_ne_bytes(), &[0; 4]).compare(0, false, &[0; 4])
    }

    pub fn set_mark(self, bit: u32) -> Rule {
        self.change_mark(!bit, bit)
    }

    pub fn clear_mark(self, bit: u32) -> Rule {
        self.change_mark(!bit, 0)
    }

    fn change_mark(self, mask: u32, xor: u32) -> Rule {
        self.load_mark(0).mask_xor(0, &mask.to_ne_bytes(), &xor.to_ne_bytes()).store_mark(0)
    }

    pub fn reject_tcp(self) -> Rule {
        self.expr("reject", |w| {
            w.be32(1, 1);
            w.attr(2, &[0]);
        })
    }

    /// Port unreachable.
    pub fn reject(self) -> Rule {
        let code = match self.family {
            Family::V4 => 3,
            Family::V6 => 4,
        };
        self.expr("reject", |w| {
            w.be32(1, 0);
            w.attr(2, &[code]);
        })
    }

    pub fn verdict(self, code: i32, chain: Option<&str>) -> Rule {
        self.expr("immediate", |w| {
            w.be32(1, REG_VERDICT);
            let data = w.nest(2);
            verdict(w, code, chain);
            w.end(data);
        })
    }
}

/// The verdict part of a data attribute that is already open.
pub fn verdict(w: &mut Writer, code: i32, chain: Option<&str>) {
    let open = w.nest(DATA_VERDICT);
    w.attr(VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        w.text(VERDICT_CHAIN, chain);
    }
    w.end(open);
}

/// A value wrapped as data.
pub fn value(w: &mut Writer, kind: u16, bytes: &[u8]) {
    let open = w.nest(kind);
    w.attr(DATA_VALUE, bytes);
    w.end(open);
}

/// NFPROTO_*
pub fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

pub fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
