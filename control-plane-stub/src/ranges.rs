//! The cluster's address ranges: one, or one of each family. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    pub fn parse(text: &str) -> Option<Family> {
        match text {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        }
    }

    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub fn other(self) -> Family {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

/// `A[,B]`: the first range's family is the cluster's primary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    primary: IpNet,
    secondary: Option<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    #[error("{text:?} is not an address range, such as 10.96.0.0/16 or fd00:10:96::/112")]
    NoRange { text: String },
    #[error("{text:?} names more than two ranges")]
    TooMany { text: String },
    #[error("{first} and {second} are of one family: give one range of each")]
    OneFamily { first: IpNet, second: IpNet },
}

impl Ranges {
    pub fn new(primary: IpNet, secondary: Option<IpNet>) -> Result<Ranges, RangesError> {
        match secondary {
            Some(second) if Family::of(second.addr()) == Family::of(primary.addr()) => {
                Err(RangesError::OneFamily { first: primary, second })
            }
            _ => Ok(Ranges { primary: primary.trunc(), secondary: secondary.map(|s| s.trunc()) }),
        }
    }

    pub fn primary(&self) -> IpNet {
        self.primary
    }

    /// The primary one first.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + use<> {
        std::iter::once(self.primary).chain(self.secondary)
    }
}

impl From<IpNet> for Ranges {
    fn from(net: IpNet) -> Ranges {
        Ranges { primary: net.trunc(), secondary: None }
    }
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Ranges, RangesError> {
        let mut nets = Vec::new();
        for part in text.split(',') {
            nets.push(part.trim().parse::<IpNet>().map_err(|_| RangesError::NoRange { text: part.trim().to_owned() })?);
        }
        match nets[..] {
            [primary] => Ok(primary.into()),
            [primary, secondary] => Ranges::new(primary, Some(secondary)),
            _ => Err(RangesError::TooMany { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.primary)?;
        self.secondary.map_or(Ok(()), |s| write!(f, ",{s}"))
    }
}
