//! A traced packet with everything it could meet: all endpoints of the frontend, and those of the service that are left out.
//!
//! Pure values. Made by `Core`, shown by the `trace` command.

use crate::model::{Endpoint, Key, Slice};
use crate::ruleset::Backend;
use crate::trace::Verdict;
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// With the first endpoint, if there are any.
    pub verdict: Verdict,
    /// Where a new connection may go, all equally likely, and whether its source address is replaced on that way.
    pub endpoints: Vec<(Backend, bool)>,
    /// Addresses in the service's EndpointSlices that the frontend does not use.
    pub unused: Vec<Unused>,
    /// The chain that picks one of them.
    pub chain: Option<String>,
    /// For how many seconds a client stays with its endpoint.
    pub affinity: Option<u32>,
    /// A service with this address whose rules the kernel refused.
    pub set_aside: Option<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    pub ip: IpAddr,
    pub why: &'static str,
}

/// Those of the slices that are not among the used ones, by address.
pub(super) fn unused<'a>(slices: impl Iterator<Item = &'a Slice>, used: &[(Backend, bool)]) -> Vec<Unused> {
    let all = slices.flat_map(|s| s.endpoints.iter()).map(|e| (e.ip, e));
    // An address that is in two slices for a while is in use if either says so.
    let by_address: BTreeMap<IpAddr, &Endpoint> = all.filter(|(ip, _)| !used.iter().any(|(b, _)| b.ip == *ip)).collect();
    by_address.into_iter().map(|(ip, e)| Unused { ip, why: why(e) }).collect()
}

fn why(e: &Endpoint) -> &'static str {
    match e {
        Endpoint { ready: true, .. } => "ready, but not for this port, node or zone",
        Endpoint { serving: true, terminating: true, .. } => "terminating, and others are ready",
        Endpoint { terminating: true, .. } => "terminating, and does not serve any more",
        _ => "not ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;

    #[test]
    fn every_address_that_is_not_used_is_named_once() {
        let endpoint = |n: u8, ready, serving, terminating| Endpoint {
            ready,
            serving,
            terminating,
            local: true,
            ..crate::testing::endpoint([10, 0, 0, n].into())
        };
        let all = [
            endpoint(4, false, false, false),
            endpoint(1, true, true, false),
            endpoint(2, true, true, false),
            endpoint(3, false, true, true),
            endpoint(5, false, false, true),
        ];
        let slice = Slice { service: Key::new("ns", "a"), family: Family::V4, ports: [].into(), endpoints: all.into() };
        let used = [(Backend { ip: [10, 0, 0, 1].into(), port: 80 }, false)];
        let found = unused([&slice, &slice].into_iter(), &used);
        let shown: Vec<String> = found.iter().map(|u| format!("{} {}", u.ip, u.why)).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        10.0.0.2 ready, but not for this port, node or zone
        10.0.0.3 terminating, and others are ready
        10.0.0.4 not ready
        10.0.0.5 terminating, and does not serve any more
        ");
    }
}
