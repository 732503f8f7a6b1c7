//! How packets of this node's pods are told apart.
//!
//! Pure. Owns what a configuration may say of it, and what the rules ask of a packet. A name that no interface can have is refused
//! when it is parsed, so that no rule is ever made of one.

use crate::model::Family;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// KubeProxyConfiguration's detectLocalMode and detectLocal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LocalTraffic {
    /// By source, within `Config::cluster_cidrs`. Without any of an address family nothing is known in it.
    #[default]
    ClusterCidrs,
    /// By source, within what `Input::NodePodCidrs` says.
    NodeCidrs,
    /// What comes in by this interface.
    Bridge(InterfaceName),
    /// What comes in by an interface whose name begins so.
    InterfacePrefix(InterfaceName),
}

/// The name of a network interface, or how such names begin: 1 to 15 bytes, and neither white space nor `/` nor `:` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceName(Box<str>);

/// One byte less than the kernel's IFNAMSIZ.
const LONGEST_NAME: usize = 15;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be the name of a network interface: {why}")]
pub struct BadInterfaceName {
    name: String,
    why: &'static str,
}

impl InterfaceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = BadInterfaceName;

    fn from_str(name: &str) -> Result<Self, BadInterfaceName> {
        let why = match name {
            "" => "it is empty",
            "." | ".." => "it is reserved",
            _ if name.len() > LONGEST_NAME => "it is longer than 15 bytes",
            _ if name.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':')) => {
                "it has white space, a control character, '/' or ':' in it"
            }
            // nft would print and read it as a prefix.
            _ if name.ends_with('*') => "it ends in '*'",
            _ => return Ok(InterfaceName(name.into())),
        };
        Err(BadInterfaceName { name: name.to_owned(), why })
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the rules go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodTraffic {
    /// The source address; without a range of a family nothing is known in that family.
    Sources(Vec<IpNet>),
    Interface(InterfaceName),
    InterfacePrefix(InterfaceName),
}

impl Default for PodTraffic {
    fn default() -> Self {
        PodTraffic::Sources(Vec::new())
    }
}

impl PodTraffic {
    /// The ranges of a family, if sources are what counts.
    pub fn ranges(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        let all: &[IpNet] = match self {
            PodTraffic::Sources(all) => all,
            PodTraffic::Interface(_) | PodTraffic::InterfacePrefix(_) => &[],
        };
        all.iter().filter(move |range| Family::of(&range.addr()) == family)
    }

    /// Whether pods can be told apart at all.
    pub fn known(&self, family: Family) -> bool {
        !matches!(self, PodTraffic::Sources(_)) || self.ranges(family).next().is_some()
    }

    /// Whether a packet is a pod's. What the host itself sends came in by no interface.
    pub fn sent(&self, source: IpAddr, from_interface: Option<&str>) -> bool {
        match self {
            PodTraffic::Sources(_) => self.ranges(Family::of(&source)).any(|range| range.contains(&source)),
            PodTraffic::Interface(name) => from_interface == Some(name.as_str()),
            PodTraffic::InterfacePrefix(prefix) => from_interface.is_some_and(|name| name.starts_with(prefix.as_str())),
        }
    }
}

#[cfg(test)]
mod tests;
