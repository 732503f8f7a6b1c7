use super::*;
use crate::compile::compile;
use crate::tables::{Tables, Touched};
use crate::testing::{apply, changes, pod, policy, vip};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What the slices say of one address and port.
#[derive(Clone, Copy, Default)]
struct Said {
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
}

/// All that is said of a port's endpoints. Of one that ends and another that lives at the same address and port the living one
/// counts; else one is what any of its slices says.
fn said(tables: &Tables, key: &Key, family: Family, name: &str, proto: Proto) -> BTreeMap<Backend, Said> {
    let slices = || tables.slices_of(key).filter(|s| s.family == family);
    let pairs = || slices().flat_map(|s| s.endpoints.iter().flat_map(|e| s.ports.iter().map(move |p| (e, p))));
    let named = || {
        pairs().filter(|(_, p)| p.name.as_ref() == name && p.proto == proto).map(|(e, p)| (Backend { ip: e.ip, port: p.port }, e))
    };
    let living: BTreeSet<Backend> = named().filter(|(_, e)| !e.terminating).map(|(b, _)| b).collect();
    let mut all = BTreeMap::<Backend, Said>::new();
    for (b, e) in named().filter(|(b, e)| !(e.terminating && living.contains(b))) {
        let seen = all.entry(b).or_default();
        seen.ready |= e.ready;
        seen.serving |= e.serving;
        seen.terminating |= e.terminating;
        seen.local |= e.local;
    }
    all
}

/// The ready ones, or else those that serve while they terminate; of this node's only or of all.
fn best(all: &BTreeMap<Backend, Said>, local: bool) -> BTreeSet<Backend> {
    let pick = |want: fn(&Said) -> bool| -> BTreeSet<Backend> {
        all.iter().filter(|(_, s)| (s.local || !local) && want(s)).map(|(b, _)| *b).collect()
    };
    let ready = pick(|s| s.ready);
    if ready.is_empty() { pick(|s| s.serving && s.terminating) } else { ready }
}

/// What Kubernetes promises, straight from the objects: where a connection to a cluster IP may end.
fn promised(tables: &Tables, dst: IpAddr, proto: Proto, port: u16) -> Option<BTreeSet<Backend>> {
    let (key, service) = tables.services().find(|(_, s)| s.cluster_ips.contains(&dst))?;
    let Some(p) = service.ports.iter().find(|p| p.proto == proto && p.port == port) else { return Some(BTreeSet::new()) };
    Some(best(&said(tables, key, Family::of(&dst), &p.name, proto), service.internal_local))
}

/// Whether this node lacks an endpoint that a local policy asks for, while others have one.
fn dropped(tables: &Tables, dst: IpAddr, proto: Proto, port: u16) -> bool {
    let Some((key, service)) = tables.services().find(|(_, s)| s.cluster_ips.contains(&dst)) else { return false };
    let mut open = tables.clone();
    open.set_service(key.clone(), Some(crate::model::Service { internal_local: false, ..service.clone() }), &mut Touched::new());
    let none = |t: &Tables| promised(t, dst, proto, port).is_some_and(|p| p.is_empty());
    service.internal_local && none(tables) && !none(&open)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_goes_where_kubernetes_promises(objects in changes(20), n in 0..4u8, v6 in any::<bool>(), udp in any::<bool>(), port in 80..84u16) {
        let mut tables = Tables::default();
        for change in &objects {
            apply(&mut tables, change, &mut Touched::new());
        }
        let rules = compile(&tables, &policy());
        let family = if v6 { Family::V6 } else { Family::V4 };
        let proto = if udp { Proto::Udp } else { Proto::Tcp };
        let dst = vip(family, n);
        let outcomes: BTreeSet<_> = (0..40).map(|random| {
            let packet = Packet { src: pod(family, 200), dst, proto, dst_port: port, from_interface: None, random };
            match trace(&rules, &BTreeSet::new(), &packet).outcome {
                Outcome::Forward { to, masquerade, .. } => { assert!(!masquerade); Some(to) }
                Outcome::Reject => None,
                Outcome::Drop if dropped(&tables, dst, proto, port) => None,
                other => panic!("{other:?} for {packet:?}"),
            }
        }.into_iter().collect::<Vec<_>>()).take(if promised(&tables, dst, proto, port).is_some() { 40 } else { 0 }).flatten().collect();
        if let Some(promised) = promised(&tables, dst, proto, port) {
            prop_assert_eq!(outcomes, promised);
        } else {
            let packet = Packet { src: pod(family, 200), dst, proto, dst_port: port, from_interface: None, random: 0 };
            prop_assert_eq!(trace(&rules, &BTreeSet::new(), &packet).outcome, Outcome::Pass);
        }
    }
}

/// All that a packet may meet, over the kernel's random numbers.
fn outcomes(rules: &Ruleset, nodes: &BTreeSet<IpAddr>, packet: &Packet) -> Vec<Outcome> {
    let mut all = Vec::new();
    for random in 0..40 {
        let outcome = trace(rules, nodes, &Packet { random, ..packet.clone() }).outcome;
        if !all.contains(&outcome) {
            all.push(outcome);
        }
    }
    all
}

const NODE: [u8; 4] = [192, 168, 77, 11];

/// The promise for addresses from outside, straight from the objects: `None` if no service has the address and port.
fn promised_outside(tables: &Tables, p: &Packet) -> Option<(Outcome, BTreeSet<Backend>, bool)> {
    let family = Family::of(&p.dst);
    let has = |s: &&crate::model::Service| {
        s.cluster_ips.iter().any(|ip| Family::of(ip) == family)
            && (s.external_ips.contains(&p.dst) || s.load_balancer_ips.contains(&p.dst))
            && s.ports.iter().any(|x| x.proto == p.proto && x.port == p.dst_port)
    };
    let (key, service) = tables.services().find(|(_, s)| has(s))?;
    let port = service.ports.iter().find(|x| x.proto == p.proto && x.port == p.dst_port)?;
    let ranges: Vec<_> = service.source_ranges.iter().filter(|r| Family::of(&r.addr()) == family).collect();
    if service.load_balancer_ips.contains(&p.dst) && !ranges.is_empty() && !ranges.iter().any(|r| r.contains(&p.src)) {
        return Some((Outcome::Drop, BTreeSet::new(), false));
    }
    let all = said(tables, key, family, &port.name, p.proto);
    let pick = |local: bool| best(&all, local);
    let from_pod = ["10.244.0.0/16", "fd00:244::/64"].iter().any(|r| r.parse::<ipnet::IpNet>().unwrap().contains(&p.src));
    let inside = from_pod || p.src == IpAddr::from(NODE);
    if pick(false).is_empty() {
        return Some((Outcome::Reject, BTreeSet::new(), false));
    }
    if service.external_local && !inside {
        let local = pick(true);
        let outcome = if local.is_empty() { Outcome::Drop } else { Outcome::Pass };
        return Some((outcome, local, false));
    }
    Some((Outcome::Pass, pick(false), !(service.external_local && from_pod)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_address_from_outside_leads_where_kubernetes_promises(objects in changes(20), n in 0..3u8, from in 0..4u8, v6 in any::<bool>(), udp in any::<bool>(), port in 80..84u16) {
        let mut tables = Tables::default();
        for change in &objects {
            apply(&mut tables, change, &mut Touched::new());
        }
        let rules = compile(&tables, &policy());
        let family = if v6 { Family::V6 } else { Family::V4 };
        let src: IpAddr = match (from, v6) {
            (0, _) => pod(family, 200),
            (1, false) => NODE.into(),
            (2, false) => "198.51.100.7".parse().unwrap(),
            (_, false) => "192.0.2.1".parse().unwrap(),
            (2, true) => "2001:db8:1::7".parse().unwrap(),
            (_, true) => "2001:db8:2::7".parse().unwrap(),
        };
        let proto = if udp { Proto::Udp } else { Proto::Tcp };
        let packet = Packet { src, dst: crate::testing::external(family, n), proto, dst_port: port, from_interface: None, random: 0 };
        let met = outcomes(&rules, &[NODE.into()].into(), &packet);
        match promised_outside(&tables, &packet) {
            None => prop_assert_eq!(met, [Outcome::Pass]),
            Some((Outcome::Pass, to, masqueraded)) => {
                let reached: BTreeSet<_> = met.iter().map(|o| match o {
                    Outcome::Forward { to, masquerade, .. } => { assert_eq!(*masquerade, masqueraded); *to }
                    other => panic!("{other:?} for {packet:?}"),
                }).collect();
                prop_assert_eq!(reached, to);
            }
            Some((outcome, _, _)) => prop_assert_eq!(met, [outcome]),
        }
    }
}
