//! What the host says about itself where the configuration is silent: its name, and the address of its default route.

use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The host's name, in lower case as node names must be.
pub fn hostname() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let name = name.trim().to_lowercase();
    (!name.is_empty()).then_some(name)
}

/// The addresses of the interfaces that hold the default routes, IPv4 first; without a default route those of the
/// first interface that is up and not loopback.
pub fn default_addresses() -> Vec<IpAddr> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for interface in getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        if let Some(ip) = address.as_sockaddr_in().map(|a| a.ip()).filter(usable_v4) {
            v4.push((interface.interface_name.clone(), ip));
        }
        if let Some(ip) = address.as_sockaddr_in6().map(|a| a.ip()).filter(usable_v6) {
            v6.push((interface.interface_name, ip));
        }
    }
    let route_v4 = std::fs::read_to_string("/proc/net/route").ok().and_then(|text| default_v4(&text));
    let route_v6 = std::fs::read_to_string("/proc/net/ipv6_route").ok().and_then(|text| default_v6(&text));
    let first = pick(&v4, route_v4.as_deref()).map(IpAddr::V4);
    // A second family only where it has a default route of its own: a stray address is not a dual-stack node.
    let second = route_v6.as_deref().and_then(|name| pick(&v6, Some(name)));
    let fallback = if first.is_none() { pick(&v6, None) } else { None };
    first.into_iter().chain(second.or(fallback).map(IpAddr::V6)).collect()
}

fn pick<T: Copy>(addresses: &[(String, T)], interface: Option<&str>) -> Option<T> {
    let on = |name: &str| addresses.iter().find(|(n, _)| n == name).map(|(_, ip)| *ip);
    interface.and_then(on).or_else(|| addresses.first().map(|(_, ip)| *ip))
}

fn usable_v4(ip: &Ipv4Addr) -> bool {
    !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified()
}

fn usable_v6(ip: &Ipv6Addr) -> bool {
    !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified()
}

/// The interface of the default route with the lowest metric in `/proc/net/route`.
pub(super) fn default_v4(text: &str) -> Option<String> {
    let routes = text.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_default = columns.get(1)? == &"00000000" && columns.get(7)? == &"00000000";
        is_default.then_some((columns.get(6)?.parse::<u64>().ok()?, columns[0].to_owned()))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

/// The same in `/proc/net/ipv6_route`; unreachable default routes sit on `lo`.
pub(super) fn default_v6(text: &str) -> Option<String> {
    let routes = text.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_default = columns.first()?.bytes().all(|b| b == b'0') && columns.get(1)? == &"00" && columns.get(9)? != &"lo";
        is_default.then_some((u64::from_str_radix(columns.get(5)?, 16).ok()?, columns[9].to_owned()))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}
