use super::*;
use crate::compile::compile;
use crate::tables::{Tables, Touched};
use crate::testing::{apply, changes, pod, policy, vip};
use proptest::prelude::*;

/// What Kubernetes promises, straight from the objects: where a connection to a cluster IP may end.
fn promised(tables: &Tables, dst: IpAddr, proto: Proto, port: u16) -> Option<BTreeSet<Backend>> {
    let (key, service) = tables.services().find(|(_, s)| s.cluster_ips.contains(&dst))?;
    let Some(p) = service.ports.iter().find(|p| p.proto == proto && p.port == port) else { return Some(BTreeSet::new()) };
    let all = tables.slices_of(key).filter(|s| s.family == Family::of(&dst));
    let pairs = all.flat_map(|s| s.endpoints.iter().flat_map(|e| s.ports.iter().map(move |sp| (e, sp))));
    let named: Vec<_> =
        pairs.filter(|(e, sp)| sp.name == p.name && sp.proto == proto && (e.local || !service.internal_local)).collect();
    let pick = |want: fn(&crate::model::Endpoint) -> bool| -> BTreeSet<Backend> {
        named.iter().filter(|(e, _)| want(e)).map(|(e, sp)| Backend { ip: e.ip, port: sp.port }).collect()
    };
    let ready = pick(|e| e.ready);
    Some(if ready.is_empty() { pick(|e| !e.ready && e.serving && e.terminating) } else { ready })
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
            let packet = Packet { src: pod(family, 200), dst, proto, dst_port: port, random };
            match trace(&rules, &BTreeSet::new(), &packet).outcome {
                Outcome::Forward { to, masquerade, .. } => { assert!(!masquerade); Some(to) }
                Outcome::Reject => None,
                other => panic!("{other:?} for {packet:?}"),
            }
        }.into_iter().collect::<Vec<_>>()).take(if promised(&tables, dst, proto, port).is_some() { 40 } else { 0 }).flatten().collect();
        if let Some(promised) = promised(&tables, dst, proto, port) {
            prop_assert_eq!(outcomes, promised);
        } else {
            let packet = Packet { src: pod(family, 200), dst, proto, dst_port: port, random: 0 };
            prop_assert_eq!(trace(&rules, &BTreeSet::new(), &packet).outcome, Outcome::Pass);
        }
    }
}
