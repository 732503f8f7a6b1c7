use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_range_leaves_out_network_and_broadcast() {
    let mut a = IpAllocator::new(net("10.96.0.0/30"));
    assert_eq!(a.free(), 2);
    assert_eq!(a.first(), ip("10.96.0.1"));
    assert!(!a.contains(ip("10.96.0.0")) && !a.contains(ip("10.96.0.3")) && !a.contains(ip("fd00::1")));
    assert_eq!(
        a.take(ip("10.96.0.3")),
        Err(AllocateError::AddressOutOfRange { ip: ip("10.96.0.3"), range: net("10.96.0.0/30") })
    );
    let both: BTreeSet<IpAddr> = [a.take_any(7).unwrap(), a.take_any(7).unwrap()].into();
    assert_eq!(both, [ip("10.96.0.1"), ip("10.96.0.2")].into());
    assert!(matches!(a.take_any(0), Err(AllocateError::Full { .. })));
    assert!(a.release(ip("10.96.0.1")) && !a.release(ip("10.96.0.1")));
    assert_eq!(a.take_any(99), Ok(ip("10.96.0.1")));
}

#[test]
fn degenerate_ranges_are_full_from_the_start() {
    for text in ["10.0.0.1/32", "10.0.0.0/31", "fd00::1/128"] {
        assert!(IpAllocator::new(net(text)).take_any(1).is_err(), "{text}");
    }
    #[allow(clippy::reversed_empty_ranges)]
    let mut none = PortAllocator::new(5..=4);
    assert!(none.take_any(1).is_err() && none.take(5).is_err());
}

#[test]
fn an_ipv6_range_is_capped() {
    let mut a = IpAllocator::new(net("fd00:10:96::/64"));
    assert_eq!(a.free(), (1 << 16) - 1);
    assert!(a.take(ip("fd00:10:96::1")).is_ok());
    assert!(a.take(ip("fd00:10:96::1:0")).is_err());
}

#[test]
fn the_lower_band_is_used_last() {
    let mut a = IpAllocator::new(net("10.96.0.0/24"));
    for seed in 0..238u64 {
        let IpAddr::V4(got) = a.take_any(seed * 31).unwrap() else { panic!("IPv4 expected") };
        assert!(got.octets()[3] > 16, "{got}");
    }
    assert!(a.take_any(1).is_ok(), "the lower band still serves");
}

#[test]
fn ports_have_the_default_range() {
    let mut p = PortAllocator::new(DEFAULT_NODE_PORTS);
    assert_eq!(p.free(), 2768);
    assert!(p.take(30000).is_ok() && p.take(32767).is_ok());
    assert_eq!(p.take(30000), Err(AllocateError::Taken { what: "port".into() }));
    assert_eq!(p.take(29999), Err(AllocateError::PortOutOfRange { port: 29999, low: 30000, high: 32767 }));
}

#[derive(Debug, Clone)]
enum Op {
    Take(u16),
    Any(u64),
    Release(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![(95u16..145).prop_map(Op::Take), any::<u64>().prop_map(Op::Any), (95u16..145).prop_map(Op::Release)]
}

proptest! {
    #[test]
    fn it_agrees_with_a_set(ops in prop::collection::vec(op(), 0..200)) {
        let mut real = PortAllocator::new(100..=139);
        let mut model = BTreeSet::new();
        for op in ops {
            match op {
                Op::Take(port) => {
                    let free = (100..=139).contains(&port) && !model.contains(&port);
                    prop_assert_eq!(real.take(port).is_ok(), free);
                    if free { model.insert(port); }
                }
                Op::Any(seed) => match real.take_any(seed) {
                    Ok(port) => { prop_assert!((100..=139).contains(&port) && model.insert(port)); }
                    Err(_) => prop_assert_eq!(model.len(), 40),
                },
                Op::Release(port) => prop_assert_eq!(real.release(port), model.remove(&port)),
            }
            prop_assert_eq!(real.free(), 40 - model.len());
            prop_assert!((100..=139).all(|p| real.is_used(p) == model.contains(&p)));
        }
    }
}
