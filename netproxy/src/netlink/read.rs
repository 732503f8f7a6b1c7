//! Reads what our own tables hold: which sets there are, and their elements.
//!
//! Only at a start and to put right what is not known; never on the way of a change. One set at a time, so that no more than one
//! set's elements are in memory as they came.

use super::attr::{Message, Writer, attrs, find};
use super::batch::{RULE_DIGEST, RULE_USERDATA, Rules};
use super::expr::{DATA_VALUE, family_number};
use super::layout::{self, Keyed};
use super::socket::Netfilter;
use super::{DUMP, GETRULE, GETSET, GETSETELEM, NFTABLES, REQUEST};
use crate::diff::{Element, Held, Pick, Place, Stray, code_parts};
use crate::error::Error;
use crate::model::{Family, Proto};
use crate::proxy::Layout;
use crate::ruleset::{Backend, Front, Mark, PickKind};
use ipnet::IpNet;
use nix::libc::{EAFNOSUPPORT, ENOENT};
use std::collections::BTreeSet;
use std::net::IpAddr;
use tracing::debug;

const ELEM_KEY: u16 = 1;
const ELEM_DATA: u16 = 2;
const ELEM_KEY_END: u16 = 10;
const DATA_VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;
/// Somebody else's transactions interrupt a list though they do not touch our tables. After so many times it is taken as it is:
/// what it may say wrongly the kernel refuses, and then all is looked at again.
const MOST_TRIES: usize = 5;

/// Which sets there are decides what a table is.
pub fn layout_of(socket: &mut Netfilter, place: Place, family: Family) -> Result<Layout, Error> {
    let mut w = Writer::default();
    let open = w.message(NFTABLES << 8 | GETSET, REQUEST | DUMP, 0, family_number(family), 0);
    w.text(1, layout::table(place));
    w.end_message(open);
    let mut there = BTreeSet::new();
    let text = |v: &[u8]| String::from_utf8_lossy(v).trim_end_matches('\0').to_string();
    match socket.dump(&w.bytes, |m| there.extend(m.body.get(4..).and_then(|a| find(a, 2)).map(text))) {
        Ok(_) if there == layout::set_names(family) => Ok(Layout::Ours),
        Ok(_) => Ok(Layout::Other),
        Err(Error::Socket { source, .. }) if matches!(source.raw_os_error(), Some(ENOENT | EAFNOSUPPORT)) => Ok(Layout::Absent),
        Err(e) => Err(e),
    }
}

/// The rules of a table, by their digests.
pub fn rules(socket: &mut Netfilter, place: Place, family: Family, there: &mut Rules) -> Result<(), Error> {
    for n in 1..=MOST_TRIES {
        let mut w = Writer::default();
        let open = w.message(NFTABLES << 8 | GETRULE, REQUEST | DUMP, 0, family_number(family), 0);
        w.text(1, layout::table(place));
        w.end_message(open);
        there.retain(|(f, _), _| *f != family);
        let whole = socket.dump(&w.bytes, |m| {
            let Some(attributes) = m.body.get(4..) else { return };
            let chain = find(attributes, 2).map(|v| String::from_utf8_lossy(v).trim_end_matches('\0').to_string());
            let digest = find(attributes, RULE_USERDATA).and_then(digest_of).unwrap_or(0);
            there.entry((family, chain.unwrap_or_default())).or_default().push(digest);
        })?;
        if whole {
            return Ok(());
        }
        debug!(n, "a list of rules was interrupted");
    }
    Ok(())
}

/// Of the entries of user data, each a kind and a length in a byte and the value.
fn digest_of(mut user: &[u8]) -> Option<u64> {
    loop {
        let (&[kind, len], rest) = user.split_first_chunk::<2>()?;
        let value = rest.get(..usize::from(len))?;
        if kind == RULE_DIGEST {
            return Some(u64::from_ne_bytes(value.try_into().ok()?));
        }
        user = &rest[usize::from(len)..];
    }
}

/// Tells every element of a table of our layout.
pub fn elements(socket: &mut Netfilter, family: Family, each: &mut dyn FnMut(Held)) -> Result<(), Error> {
    for (set, keyed) in layout::keyed() {
        let mut all = Vec::new();
        for n in 1..=MOST_TRIES {
            all.clear();
            let mut w = Writer::default();
            let open = w.message(NFTABLES << 8 | GETSETELEM, REQUEST | DUMP, 0, family_number(family), 0);
            w.text(1, layout::TABLE);
            w.text(2, set);
            w.end_message(open);
            let whole = socket.dump(&w.bytes, |m| all.extend(listed(m).filter_map(|e| held(family, set, keyed, e))))?;
            if whole {
                break;
            }
            debug!(set, n, "a list of elements was interrupted");
        }
        all.drain(..).for_each(&mut *each);
    }
    Ok(())
}

fn listed<'a>(m: &Message<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    const ELEMENTS: u16 = 3;
    attrs(m.body.get(4..).and_then(|a| find(a, ELEMENTS)).unwrap_or_default()).map(|(_, element)| element)
}

/// `None`: an element without a key, which there is not.
fn held(family: Family, set: &'static str, keyed: Keyed, element: &[u8]) -> Option<Held> {
    let bytes = |kind| find(element, kind).and_then(|v| find(v, DATA_VALUE));
    let (key, end) = (bytes(ELEM_KEY)?, bytes(ELEM_KEY_END));
    let data = bytes(ELEM_DATA).unwrap_or_default();
    let known = match keyed {
        Keyed::Picks(kind) => {
            let chain = find(element, ELEM_DATA).and_then(|v| find(v, DATA_VERDICT)).and_then(|v| find(v, VERDICT_CHAIN));
            pick(family, kind, key, chain).map(Held::Pick)
        }
        _ => known(family, keyed, key, end, data).map(Held::Element),
    };
    // With another end than ours it is another element.
    let single = end.is_none() || matches!(keyed, Keyed::Ranges);
    Some(known.filter(|_| single).unwrap_or_else(|| Held::Stray(Stray { family, set, key: key.into(), end: end.map(Box::from) })))
}

fn pick(family: Family, kind: PickKind, key: &[u8], chain: Option<&[u8]>) -> Option<Pick> {
    let (count, affinity) = code_parts(u32::from_ne_bytes(key.try_into().ok()?));
    let pick = Pick { family, kind, count, affinity };
    (chain?.strip_suffix(&[0])? == layout::pick_chain(&pick).as_bytes()).then_some(pick)
}

fn known(family: Family, keyed: Keyed, key: &[u8], end: Option<&[u8]>, data: &[u8]) -> Option<Element> {
    let mut r = Reader { bytes: key, family };
    let element = match keyed {
        Keyed::Counts(kind) => {
            let front = r.front(kind)?;
            let (count, affinity) = code_parts(u32::from_ne_bytes(data.try_into().ok()?));
            Element::Count { front, count, affinity }
        }
        Keyed::SlotIds(kind) => {
            let (front, slot) = (r.front(kind)?, r.number()?);
            Element::SlotId { front, slot, id: u32::from_ne_bytes(data.try_into().ok()?) }
        }
        Keyed::Slots(kind) | Keyed::Ids(kind) => {
            let (front, number) = (r.front(kind)?, r.number()?);
            let mut to = Reader { bytes: data, family };
            let backend = Backend { ip: to.address()?, port: to.port()? };
            to.end()?;
            match keyed {
                Keyed::Slots(_) => Element::Slot { front, slot: number, backend },
                _ => Element::Id { front, id: number, backend },
            }
        }
        Keyed::Hairpins => {
            let ip = r.address()?;
            (r.address()? == ip).then_some(Element::Mark(Mark::Hairpin(ip)))?
        }
        Keyed::Addresses(mark) => Element::Mark(mark(r.address()?)),
        Keyed::Ports(mark) => {
            let (proto, port) = (r.proto()?, r.port()?);
            Element::Mark(mark(family, proto, port))
        }
        Keyed::Fronts(mark) => {
            let (ip, proto, port) = (r.address()?, r.proto()?, r.port()?);
            Element::Mark(mark(ip, proto, port))
        }
        Keyed::Ranges => {
            let (ip, proto, port, first) = (r.address()?, r.proto()?, r.port()?, r.address()?);
            let mut to = Reader { bytes: end?, family };
            let same = (to.address()?, to.proto()?, to.port()?) == (ip, proto, port);
            let source = range(first, to.address()?)?;
            same.then_some(Element::Mark(Mark::Range { ip, proto, port, source }))?
        }
        Keyed::Picks(_) => return None,
    };
    r.end()?;
    Some(element)
}

/// The range of these two edges, if it is one of a prefix.
fn range(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let common = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => return None,
    };
    let net = IpNet::new(first, common as u8).ok()?;
    (net.network() == first && net.broadcast() == last).then_some(net)
}

/// Reads keys and values from their start; padding that is not zero is none of ours.
struct Reader<'a> {
    bytes: &'a [u8],
    family: Family,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn address(&mut self) -> Option<IpAddr> {
        match self.family {
            Family::V4 => self.take::<4>().map(IpAddr::from),
            Family::V6 => self.take::<16>().map(IpAddr::from),
        }
    }

    fn proto(&mut self) -> Option<Proto> {
        let [number, 0, 0, 0] = self.take::<4>()? else { return None };
        [Proto::Tcp, Proto::Udp, Proto::Sctp].into_iter().find(|p| p.number() == number)
    }

    fn port(&mut self) -> Option<u16> {
        let [high, low, 0, 0] = self.take::<4>()? else { return None };
        Some(u16::from_be_bytes([high, low]))
    }

    fn number(&mut self) -> Option<u32> {
        self.take::<4>().map(u32::from_ne_bytes)
    }

    fn front(&mut self, kind: PickKind) -> Option<Front> {
        let family = self.family;
        let ip = match kind {
            PickKind::Service | PickKind::External | PickKind::LocalExternal => Some(self.address()?),
            PickKind::NodePort | PickKind::LocalNodePort => None,
        };
        let (proto, port) = (self.proto()?, self.port()?);
        Some(match (kind, ip) {
            (PickKind::Service, Some(ip)) => Front::ClusterIp { ip, proto, port },
            (PickKind::External, Some(ip)) => Front::External { ip, proto, port },
            (PickKind::LocalExternal, Some(ip)) => Front::LocalExternal { ip, proto, port },
            (PickKind::LocalNodePort, _) => Front::LocalNodePort { family, proto, port },
            _ => Front::NodePort { family, proto, port },
        })
    }

    fn end(&self) -> Option<()> {
        self.bytes.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests;
