//! Which ClusterIPs and node ports are taken, and which one comes next.
//!
//! Owns the bitmaps of the service ranges. Pure: the caller gives the seed for "any free one" and holds whatever lock
//! keeps two allocations apart (the registry does so under its write lock). It never reads the store: after a start the
//! caller rebuilds it from the list of Services.
//!
//! Both ranges have a lower band that is searched last, so that users who pick fixed values there seldom meet values
//! given out automatically (the API's rule: the band is `min(max(16, size/16), 256)` addresses, and likewise for ports).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

#[cfg(test)]
mod tests;

/// IPv6 service ranges are used up to this many addresses, as the API server does.
const MAX_ADDRESSES: u128 = 1 << 16;

/// Why nothing was allocated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    #[error("the provided IP ({ip}) is not in the valid range, the range of valid IPs is {range}")]
    AddressOutOfRange { ip: IpAddr, range: IpNet },
    #[error("the provided IP ({ip}) is of a family that the cluster has no range for")]
    NoFamily { ip: IpAddr },
    #[error("the provided port {port} is not in the valid range, the range of valid ports is {low}-{high}")]
    PortOutOfRange { port: u16, low: u16, high: u16 },
    #[error("provided {what} is already allocated")]
    Taken { what: String },
    #[error("range is full: no free {what} is left in {range}")]
    Full { what: &'static str, range: String },
}

/// A fixed number of slots, each free or used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
    used: usize,
}

impl Bitmap {
    pub fn new(len: usize) -> Self {
        Bitmap { words: vec![0; len.div_ceil(64)], len, used: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn used(&self) -> usize {
        self.used
    }

    pub fn get(&self, slot: usize) -> bool {
        slot < self.len && self.words[slot / 64] & (1 << (slot % 64)) != 0
    }

    /// Marks a slot used; false if it was used already or does not exist.
    pub fn set(&mut self, slot: usize) -> bool {
        if slot >= self.len || self.get(slot) {
            return false;
        }
        self.words[slot / 64] |= 1 << (slot % 64);
        self.used += 1;
        true
    }

    /// Frees a slot; false if it was free already.
    pub fn clear(&mut self, slot: usize) -> bool {
        if !self.get(slot) {
            return false;
        }
        self.words[slot / 64] &= !(1 << (slot % 64));
        self.used -= 1;
        true
    }

    /// The first free slot at or after a point chosen by the seed in `low..high`, going round inside those bounds.
    pub fn free_from(&self, low: usize, high: usize, seed: u64) -> Option<usize> {
        let high = high.min(self.len);
        if low >= high {
            return None;
        }
        let start = low + (seed % (high - low) as u64) as usize;
        (start..high).chain(low..start).find(|&slot| !self.get(slot))
    }
}

/// How many slots at the start of a range are kept for values that users choose.
fn static_band(size: usize) -> usize {
    // A range this small is not worth splitting.
    if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size) }
}

fn next(map: &mut Bitmap, seed: u64) -> Option<usize> {
    let band = static_band(map.len());
    let slot = map.free_from(band, map.len(), seed).or_else(|| map.free_from(0, band, seed))?;
    map.set(slot).then_some(slot)
}

/// The ClusterIPs of one service range.
#[derive(Debug, Clone)]
pub struct IpAllocator {
    net: IpNet,
    map: Bitmap,
}

impl IpAllocator {
    /// The network address and, for IPv4, the broadcast address are never given out.
    pub fn new(net: IpNet) -> Self {
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let all = if bits >= 127 { MAX_ADDRESSES } else { (1u128 << bits).min(MAX_ADDRESSES) };
        let reserved = match net {
            IpNet::V4(_) => 2,
            IpNet::V6(_) => 1,
        };
        IpAllocator { net: net.trunc(), map: Bitmap::new(all.saturating_sub(reserved) as usize) }
    }

    pub fn range(&self) -> IpNet {
        self.net
    }

    pub fn free(&self) -> usize {
        self.map.len() - self.map.used()
    }

    /// The first address of the range, which belongs to the `kubernetes` Service.
    pub fn first(&self) -> IpAddr {
        self.address(0)
    }

    fn address(&self, slot: usize) -> IpAddr {
        match self.net.network() {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base) + 1 + slot as u32)),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base) + 1 + slot as u128)),
        }
    }

    fn slot(&self, ip: IpAddr) -> Option<usize> {
        let distance = match (self.net.network(), ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u128::from(u32::from(ip).checked_sub(u32::from(base))?),
            (IpAddr::V6(base), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(base))?,
            _ => return None,
        };
        let slot = usize::try_from(distance.checked_sub(1)?).ok()?;
        (slot < self.map.len()).then_some(slot)
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.slot(ip).is_some()
    }

    pub fn is_used(&self, ip: IpAddr) -> bool {
        self.slot(ip).is_some_and(|slot| self.map.get(slot))
    }

    /// Takes the address the user asked for.
    pub fn take(&mut self, ip: IpAddr) -> Result<(), AllocateError> {
        let slot = self.slot(ip).ok_or(AllocateError::AddressOutOfRange { ip, range: self.net })?;
        if self.map.set(slot) { Ok(()) } else { Err(AllocateError::Taken { what: "IP".into() }) }
    }

    /// Takes any free address, from the upper band as long as it has one.
    pub fn take_any(&mut self, seed: u64) -> Result<IpAddr, AllocateError> {
        match next(&mut self.map, seed) {
            Some(slot) => Ok(self.address(slot)),
            None => Err(AllocateError::Full { what: "IP", range: self.net.to_string() }),
        }
    }

    /// Gives an address back; false if it was not taken.
    pub fn release(&mut self, ip: IpAddr) -> bool {
        self.slot(ip).is_some_and(|slot| self.map.clear(slot))
    }
}

/// The node ports of the cluster. TCP, UDP and SCTP share one space, except that one Service may use a number twice
/// with different protocols; the caller takes such a number once.
#[derive(Debug, Clone)]
pub struct PortAllocator {
    low: u16,
    map: Bitmap,
}

/// The API server's default `--service-node-port-range`.
pub const DEFAULT_NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

impl PortAllocator {
    pub fn new(range: RangeInclusive<u16>) -> Self {
        let len = if range.is_empty() { 0 } else { usize::from(range.end() - range.start()) + 1 };
        PortAllocator { low: *range.start(), map: Bitmap::new(len) }
    }

    fn high(&self) -> u16 {
        self.low + (self.map.len().saturating_sub(1)) as u16
    }

    fn slot(&self, port: u16) -> Option<usize> {
        let slot = usize::from(port.checked_sub(self.low)?);
        (slot < self.map.len()).then_some(slot)
    }

    pub fn free(&self) -> usize {
        self.map.len() - self.map.used()
    }

    pub fn is_used(&self, port: u16) -> bool {
        self.slot(port).is_some_and(|slot| self.map.get(slot))
    }

    /// Takes the port the user asked for.
    pub fn take(&mut self, port: u16) -> Result<(), AllocateError> {
        let Some(slot) = self.slot(port) else {
            return Err(AllocateError::PortOutOfRange { port, low: self.low, high: self.high() });
        };
        if self.map.set(slot) { Ok(()) } else { Err(AllocateError::Taken { what: "port".into() }) }
    }

    /// Takes any free port, from the upper band as long as it has one.
    pub fn take_any(&mut self, seed: u64) -> Result<u16, AllocateError> {
        match next(&mut self.map, seed) {
            Some(slot) => Ok(self.low + slot as u16),
            None => Err(AllocateError::Full { what: "node port", range: format!("{}-{}", self.low, self.high()) }),
        }
    }

    /// Gives a port back; false if it was not taken.
    pub fn release(&mut self, port: u16) -> bool {
        self.slot(port).is_some_and(|slot| self.map.clear(slot))
    }
}
