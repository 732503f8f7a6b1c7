//! Services and endpoints as the rest of this crate knows them.
//!
//! Owns plain values only; no wire type, no clock, no I/O. What the whole cluster sends to every node is kept here, so the
//! types are small: names are shared, an endpoint is an address and a byte of flags.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Namespace and name. Cloning copies two pointers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(ip: &IpAddr) -> Family {
        match ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    Tcp,
    Udp,
    Sctp,
}

impl Proto {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Proto::Tcp => 6,
            Proto::Udp => 17,
            Proto::Sctp => 132,
        }
    }

    /// A flow of these outlives its endpoint in conntrack and would keep sending to it.
    pub fn connectionless(self) -> bool {
        !matches!(self, Proto::Tcp)
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Sctp => "sctp",
        })
    }
}

/// A service with at least one cluster IP that this proxy answers for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// externalTrafficPolicy: Local
    pub external_local: bool,
    /// internalTrafficPolicy: Local
    pub internal_local: bool,
    /// sessionAffinity ClientIP, timeout in seconds.
    pub affinity: Option<u32>,
    pub external_ips: Vec<IpAddr>,
    /// Addresses of the load balancer that reach the nodes as they are (ipMode VIP).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// Where a load balancer asks whether this node has endpoints.
    pub health_check_node_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Arc<str>,
    pub proto: Proto,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// One EndpointSlice of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The service it belongs to.
    pub service: Key,
    pub family: Family,
    pub ports: Box<[SlicePort]>,
    pub endpoints: Box<[Endpoint]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    pub name: Arc<str>,
    pub proto: Proto,
    pub port: u16,
}

/// For whom an endpoint is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    pub zones: Box<[Box<str>]>,
    /// Some nodes are named.
    pub nodes: bool,
    /// This node is.
    pub this_node: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// It runs on this node.
    pub local: bool,
    /// The node it runs on is named; otherwise it may be this one.
    pub placed: bool,
    /// Shared by the endpoints of a slice that have the same.
    pub hints: Option<Arc<Hints>>,
}
