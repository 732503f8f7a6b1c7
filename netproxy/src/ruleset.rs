//! What the kernel should hold, as a value.
//!
//! Pure. A `Ruleset` is one `Block` a service: the frontends it answers on, each with its endpoints, and the marks that need no
//! endpoint. Blocks are shared (`Arc`), so an unchanged service costs nothing to compare. When two services claim the same
//! address or node port, the one whose name sorts first has it, whatever came first.

use crate::local::PodTraffic;
use crate::model::{Family, Key, Proto};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Where a connection ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub ip: IpAddr,
    pub port: u16,
}

/// A destination that is balanced. Each kind has a map of counts, a map of slots and chains of its own in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Front {
    ClusterIp {
        ip: IpAddr,
        proto: Proto,
        port: u16,
    },
    /// An external IP or a load balancer's address with all endpoints behind it; masqueraded.
    External {
        ip: IpAddr,
        proto: Proto,
        port: u16,
    },
    /// The same with this node's endpoints behind it, for traffic from outside; the source address is kept.
    LocalExternal {
        ip: IpAddr,
        proto: Proto,
        port: u16,
    },
    /// A node port with all endpoints behind it; masqueraded.
    NodePort {
        family: Family,
        proto: Proto,
        port: u16,
    },
    /// A node port with this node's endpoints behind it, for traffic from outside; the source address is kept.
    LocalNodePort {
        family: Family,
        proto: Proto,
        port: u16,
    },
}

/// Membership in one of the plain sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// A cluster IP: new connections to it that no service took are rejected.
    ClusterIp(IpAddr),
    /// A node port that only takes outside traffic for this node's endpoints; without one, it is dropped.
    LocalOnly {
        family: Family,
        proto: Proto,
        port: u16,
    },
    /// A node port without any endpoint: rejected.
    Unserved {
        family: Family,
        proto: Proto,
        port: u16,
    },
    /// A cluster IP and port for this node's endpoints only, which has none here but elsewhere: dropped.
    NoLocal {
        ip: IpAddr,
        proto: Proto,
        port: u16,
    },
    /// An external IP or a load balancer's address: what no endpoint took is rejected.
    External {
        ip: IpAddr,
        proto: Proto,
        port: u16,
    },
    /// One that only takes outside traffic for this node's endpoints; without one, it is dropped.
    LocalOnlyIp {
        ip: IpAddr,
        proto: Proto,
        port: u16,
    },
    /// A load balancer's address that not everybody may use, and those who may.
    Ranged {
        ip: IpAddr,
        proto: Proto,
        port: u16,
    },
    Range {
        ip: IpAddr,
        proto: Proto,
        port: u16,
        source: IpNet,
    },
    /// An endpoint of this node: a connection from it to itself is masqueraded.
    Hairpin(IpAddr),
}

/// What two services may not both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    Ip(IpAddr),
    NodePort { family: Family, proto: Proto, port: u16 },
    External { ip: IpAddr, proto: Proto, port: u16 },
}

impl Front {
    pub fn family(&self) -> Family {
        match self {
            Front::ClusterIp { ip, .. } | Front::External { ip, .. } | Front::LocalExternal { ip, .. } => Family::of(ip),
            Front::NodePort { family, .. } | Front::LocalNodePort { family, .. } => *family,
        }
    }

    pub fn proto(&self) -> Proto {
        match self {
            Front::ClusterIp { proto, .. }
            | Front::External { proto, .. }
            | Front::LocalExternal { proto, .. }
            | Front::NodePort { proto, .. }
            | Front::LocalNodePort { proto, .. } => *proto,
        }
    }

    pub fn kind(&self) -> PickKind {
        match self {
            Front::ClusterIp { .. } => PickKind::Service,
            Front::External { .. } => PickKind::External,
            Front::LocalExternal { .. } => PickKind::LocalExternal,
            Front::NodePort { .. } => PickKind::NodePort,
            Front::LocalNodePort { .. } => PickKind::LocalNodePort,
        }
    }

    pub fn claim(&self) -> Claim {
        match *self {
            Front::ClusterIp { ip, .. } => Claim::Ip(ip),
            Front::External { ip, proto, port } | Front::LocalExternal { ip, proto, port } => Claim::External { ip, proto, port },
            Front::NodePort { family, proto, port } | Front::LocalNodePort { family, proto, port } => {
                Claim::NodePort { family, proto, port }
            }
        }
    }
}

impl Mark {
    pub fn family(&self) -> Family {
        match self {
            Mark::ClusterIp(ip) | Mark::Hairpin(ip) => Family::of(ip),
            Mark::LocalOnly { family, .. } | Mark::Unserved { family, .. } => *family,
            Mark::NoLocal { ip, .. }
            | Mark::External { ip, .. }
            | Mark::LocalOnlyIp { ip, .. }
            | Mark::Ranged { ip, .. }
            | Mark::Range { ip, .. } => Family::of(ip),
        }
    }

    /// None: any number of services may share it.
    pub fn claim(&self) -> Option<Claim> {
        match *self {
            Mark::ClusterIp(ip) | Mark::NoLocal { ip, .. } => Some(Claim::Ip(ip)),
            Mark::LocalOnly { family, proto, port } | Mark::Unserved { family, proto, port } => {
                Some(Claim::NodePort { family, proto, port })
            }
            Mark::External { ip, proto, port }
            | Mark::LocalOnlyIp { ip, proto, port }
            | Mark::Ranged { ip, proto, port }
            | Mark::Range { ip, proto, port, .. } => Some(Claim::External { ip, proto, port }),
            Mark::Hairpin(_) => None,
        }
    }
}

/// The kinds of chains that pick one of N endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PickKind {
    Service,
    External,
    LocalExternal,
    NodePort,
    LocalNodePort,
}

impl PickKind {
    pub const ALL: [PickKind; 5] =
        [PickKind::Service, PickKind::External, PickKind::LocalExternal, PickKind::NodePort, PickKind::LocalNodePort];
}

/// One service's part. Endpoints of a front are sorted and unique and never empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    pub fronts: Box<[(Front, Arc<[Backend]>)]>,
    pub marks: Box<[Mark]>,
    /// For how many seconds a client stays with its endpoint.
    pub affinity: Option<u32>,
}

impl Block {
    pub fn is_empty(&self) -> bool {
        self.fronts.is_empty() && self.marks.is_empty()
    }

    pub fn endpoints(&self, front: &Front) -> Option<&Arc<[Backend]>> {
        self.fronts.iter().find(|(f, _)| f == front).map(|(_, b)| b)
    }

    pub fn claims(&self) -> BTreeSet<Claim> {
        self.fronts.iter().map(|(f, _)| f.claim()).chain(self.marks.iter().filter_map(Mark::claim)).collect()
    }
}

/// What is the same for all services: decided by the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub families: BTreeSet<Family>,
    /// Whose packets are a pod's. Others to a cluster IP are masqueraded; where pods are not known, none.
    pub pods: PodTraffic,
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerade.
    pub masquerade_mark: u32,
    /// net.netfilter.nf_conntrack_tcp_be_liberal is set: what conntrack calls invalid passes.
    pub tcp_be_liberal: bool,
    /// Where node ports answer, of this host's own addresses; `None`: on all; none of either family: on none.
    pub node_port_ranges: Option<Vec<IpNet>>,
    /// Where cluster IPs are taken from.
    pub service_ranges: Vec<IpNet>,
    /// This node's primary addresses.
    pub node_ips: BTreeSet<IpAddr>,
    /// The node's zone; empty if it has none.
    pub zone: String,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            families: Family::ALL.into(),
            pods: PodTraffic::default(),
            masquerade_all: false,
            masquerade_mark: 0x4000,
            tcp_be_liberal: false,
            node_port_ranges: None,
            service_ranges: Vec::new(),
            node_ips: BTreeSet::new(),
            zone: String::new(),
        }
    }
}

impl Policy {
    /// Where node ports answer in a family; `None`: on all of this host's addresses, as in a family that has no range while the
    /// other one has.
    pub fn node_ports_on(&self, family: Family) -> Option<impl Iterator<Item = &IpNet>> {
        let of_family = move |range: &&IpNet| Family::of(&range.addr()) == family;
        let all = self.node_port_ranges.as_ref()?;
        (all.is_empty() || all.iter().any(|range| of_family(&range))).then(|| all.iter().filter(of_family))
    }

    /// Whether node ports answer on this address, if it is this host's own.
    pub fn has_node_ports(&self, ip: &IpAddr) -> bool {
        self.node_ports_on(Family::of(ip)).is_none_or(|mut on| on.any(|range| range.contains(ip)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owners {
    One(Key),
    Many(BTreeSet<Key>),
}

impl Owners {
    pub(crate) fn winner(&self) -> Option<&Key> {
        match self {
            Owners::One(k) => Some(k),
            Owners::Many(all) => all.first(),
        }
    }

    pub(crate) fn all(&self) -> Vec<Key> {
        match self {
            Owners::One(k) => vec![k.clone()],
            Owners::Many(all) => all.iter().cloned().collect(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub policy: Policy,
    pub(crate) blocks: BTreeMap<Key, Arc<Block>>,
    pub(crate) owners: BTreeMap<Claim, Owners>,
    /// How many claims have more than one service.
    pub(crate) contended: usize,
}

impl Ruleset {
    pub fn new(policy: Policy) -> Ruleset {
        Ruleset { policy, blocks: BTreeMap::new(), owners: BTreeMap::new(), contended: 0 }
    }

    pub fn block(&self, key: &Key) -> Option<&Arc<Block>> {
        self.blocks.get(key)
    }

    pub fn blocks(&self) -> impl Iterator<Item = (&Key, &Arc<Block>)> {
        self.blocks.iter()
    }

    /// Only these services' blocks: to try whether the kernel takes them.
    pub(crate) fn restricted_to(&self, keys: &[Key]) -> Ruleset {
        let mut part = Ruleset::new(self.policy.clone());
        part.blocks = keys.iter().filter_map(|k| Some((k.clone(), self.blocks.get(k)?.clone()))).collect();
        part
    }

    /// The service that has this claim.
    pub fn owner(&self, claim: &Claim) -> Option<&Key> {
        self.owners.get(claim).and_then(Owners::winner)
    }

    /// The endpoints behind a front, whichever service has it.
    pub fn endpoints(&self, front: &Front) -> Option<&Arc<[Backend]>> {
        self.blocks.get(self.owner(&front.claim())?)?.endpoints(front)
    }

    /// For how many seconds clients of a front stay with their endpoint.
    pub fn affinity(&self, front: &Front) -> Option<u32> {
        self.blocks.get(self.owner(&front.claim())?)?.affinity
    }

    pub fn has_mark(&self, mark: &Mark) -> bool {
        match mark.claim() {
            Some(claim) => self.owner(&claim).and_then(|k| self.blocks.get(k)).is_some_and(|b| b.marks.contains(mark)),
            None => self.blocks.values().any(|b| b.marks.contains(mark)),
        }
    }
}
