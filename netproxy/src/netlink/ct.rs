//! Conntrack entries: listing those of connectionless protocols, deleting one.

use super::attr::{HEADER, Message, Writer, find};
use super::expr::family_number;
use super::socket::Netfilter;
use crate::conntrack::Flow;
use crate::error::Error;
use crate::model::{Family, Proto};
use std::io;
use std::net::{IpAddr, SocketAddr};

const CTNETLINK: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;

pub fn flows(socket: &mut Netfilter) -> Result<Vec<Flow>, Error> {
    let mut all = Vec::new();
    for family in Family::ALL {
        let mut w = Writer::default();
        let open = w.message(CTNETLINK << 8 | GET, REQUEST | DUMP, 0, family_number(family), 0);
        w.end_message(open);
        socket.dump(&w.bytes, |m| all.extend(flow(m)))?;
    }
    Ok(all)
}

fn flow(m: &Message<'_>) -> Option<Flow> {
    let attributes = m.body.get(HEADER - 16..)?;
    let (proto, src, dst) = tuple(find(attributes, TUPLE_ORIG)?)?;
    if !proto.connectionless() {
        return None;
    }
    let (_, reply_src, _) = tuple(find(attributes, TUPLE_REPLY)?)?;
    Some(Flow {
        proto,
        src,
        dst,
        reply_src,
        zone: find(attributes, ZONE).and_then(be16),
        id: find(attributes, ID).and_then(|v| Some(u32::from_be_bytes(v.try_into().ok()?))),
    })
}

fn tuple(bytes: &[u8]) -> Option<(Proto, SocketAddr, SocketAddr)> {
    let proto = find(bytes, TUPLE_PROTO)?;
    let kind = match find(proto, PROTO_NUM)?.first()? {
        6 => Proto::Tcp,
        17 => Proto::Udp,
        132 => Proto::Sctp,
        _ => return None,
    };
    let ip = find(bytes, TUPLE_IP)?;
    let (src, dst) = match (find(ip, 1), find(ip, 2)) {
        (Some(s), Some(d)) => (v4(s)?, v4(d)?),
        _ => (v6(find(ip, 3)?)?, v6(find(ip, 4)?)?),
    };
    let port = |attribute| find(proto, attribute).and_then(be16);
    Some((kind, SocketAddr::new(src, port(PROTO_SRC_PORT)?), SocketAddr::new(dst, port(PROTO_DST_PORT)?)))
}

fn be16(v: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(v.try_into().ok()?))
}

fn v4(v: &[u8]) -> Option<IpAddr> {
    Some(IpAddr::from(<[u8; 4]>::try_from(v).ok()?))
}

fn v6(v: &[u8]) -> Option<IpAddr> {
    Some(IpAddr::from(<[u8; 16]>::try_from(v).ok()?))
}

pub fn delete(socket: &mut Netfilter, flow: &Flow) -> Result<(), Error> {
    let mut w = Writer::default();
    let family = Family::of(&flow.dst.ip());
    let message = w.message(CTNETLINK << 8 | DELETE, REQUEST | ACK, 0, family_number(family), 0);
    let tuple = w.nest(TUPLE_ORIG);
    let ip = w.nest(TUPLE_IP);
    match (flow.src.ip(), flow.dst.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            w.attr(1, &s.octets());
            w.attr(2, &d.octets());
        }
        (s, d) => {
            w.attr(3, &super::expr::octets(&s));
            w.attr(4, &super::expr::octets(&d));
        }
    }
    w.end(ip);
    let proto = w.nest(TUPLE_PROTO);
    w.attr(PROTO_NUM, &[flow.proto.number()]);
    w.attr(PROTO_SRC_PORT, &flow.src.port().to_be_bytes());
    w.attr(PROTO_DST_PORT, &flow.dst.port().to_be_bytes());
    w.end(proto);
    w.end(tuple);
    if let Some(zone) = flow.zone {
        w.attr(ZONE, &zone.to_be_bytes());
    }
    if let Some(id) = flow.id {
        w.be32(ID, id);
    }
    w.end_message(message);
    match socket.request(&w.bytes)? {
        0 | nix::libc::ENOENT => Ok(()),
        errno => Err(Error::Conntrack { what: "delete a stale flow", source: io::Error::from_raw_os_error(errno) }),
    }
}
