//! Random clusters and a model of the kernel's sets, for the property tests.

mod kernel;

use crate::local::PodTraffic;
use crate::model::{Endpoint, Family, Key, Proto, Service, ServicePort, Slice, SlicePort};
use crate::ruleset::Policy;
use crate::tables::{Tables, Touched};
pub use kernel::{Model, Sets, View};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::IpAddr;

/// One change of the API's objects. Names, addresses and ports come from small pools, so that they meet and collide.
#[derive(Debug, Clone)]
pub enum Change {
    Service(Key, Option<Service>),
    Slice(Key, Option<Slice>),
}

pub fn apply(tables: &mut Tables, change: &Change, touched: &mut Touched) {
    match change.clone() {
        Change::Service(k, s) => tables.set_service(k, s, touched),
        Change::Slice(k, s) => tables.set_slice(k, s, touched),
    }
}

pub fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    vec(change(), 0..most)
}

pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (0..4u8, proptest::option::weighted(0.8, service())).prop_map(|(n, s)| Change::Service(service_key(n), s)),
        3 => (0..6u8, proptest::option::weighted(0.8, slice())).prop_map(|(n, s)| Change::Slice(Key::new("ns", &format!("slice{n}")), s)),
    ]
}

fn service_key(n: u8) -> Key {
    Key::new("ns", &format!("svc{n}"))
}

pub fn vip(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 96, 0, n]),
        Family::V6 => IpAddr::from([0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

pub fn pod(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 244, 0, n]),
        Family::V6 => IpAddr::from([0xfd00, 0x244, 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

/// One of a few addresses outside of the cluster.
pub fn external(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([203, 0, 113, n]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

fn from_outside() -> impl Strategy<Value = Service> {
    let ips = || vec((any::<bool>(), 0..3u8), 0..2);
    let ranges =
        vec(prop_oneof![Just("198.51.100.0/24"), Just("198.51.0.0/16"), Just("10.0.0.0/8"), Just("2001:db8:1::/48")], 0..3);
    (ips(), ips(), ranges).prop_map(|(external_ips, load_balancer_ips, ranges)| {
        let address = |(v6, n)| external(if v6 { Family::V6 } else { Family::V4 }, n);
        Service {
            external_ips: external_ips.into_iter().map(address).collect(),
            load_balancer_ips: load_balancer_ips.into_iter().map(address).collect(),
            source_ranges: ranges.into_iter().map(|r| r.parse().unwrap()).collect(),
            ..Service::default()
        }
    })
}

fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)]
}

fn service() -> impl Strategy<Value = Service> {
    let port = (proto(), 0..3u16, proptest::option::of(0..3u16));
    let affinity = prop_oneof![2 => Just(None), 1 => Just(Some(10)), 1 => Just(Some(86_400))];
    (
        0..4u8,
        any::<bool>(),
        any::<bool>(),
        vec(port, 0..3),
        any::<bool>(),
        proptest::bool::weighted(0.2),
        affinity,
        from_outside(),
    )
        .prop_map(|(n, v4, v6, ports, external_local, internal_local, affinity, outside)| Service {
            cluster_ips: [(v4 || !v6).then(|| vip(Family::V4, n)), v6.then(|| vip(Family::V6, n))]
                .into_iter()
                .flatten()
                .collect(),
            ports: ports
                .into_iter()
                .map(|(proto, n, node)| ServicePort {
                    name: format!("p{n}").into(),
                    proto,
                    port: 80 + n,
                    node_port: node.map(|n| 30_000 + n),
                })
                .collect(),
            external_local,
            internal_local,
            affinity,
            ..outside
        })
}

/// A ready one on another node.
pub fn endpoint(ip: IpAddr) -> Endpoint {
    Endpoint { ip, ready: true, serving: true, terminating: false, local: false, placed: true, hints: None }
}

fn slice() -> impl Strategy<Value = Slice> {
    let endpoint = (0..6u8, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let port = (proto(), 0..3u16, 0..2u16);
    (0..4u8, any::<bool>(), vec(port, 0..3), vec(endpoint, 0..6)).prop_map(|(of, v6, ports, endpoints)| {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let endpoint = |(n, ready, serving, terminating, local)| Endpoint {
            ready,
            serving,
            terminating,
            local,
            ..self::endpoint(pod(family, n))
        };
        let port = |(proto, name, number)| SlicePort { name: format!("p{name}").into(), proto, port: 8080 + number };
        Slice {
            service: service_key(of),
            family,
            ports: ports.into_iter().map(port).collect(),
            endpoints: endpoints.into_iter().map(endpoint).collect(),
        }
    })
}

pub fn policy() -> Policy {
    let ranges = vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()];
    Policy { pods: PodTraffic::Sources(ranges), ..Policy::default() }
}
