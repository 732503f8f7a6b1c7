//! Random changes under UDP flows to everything: which of them end, and when.

use super::*;
use crate::testing::{Change, apply, external};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Two services of one UDP port that come, go and change, and four slices whose endpoints go through all their states.
fn change() -> impl Strategy<Value = Change> {
    let service = (0..2u8, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), 0..2u16).prop_map(
        |(n, external_local, internal_local, node_port, outside, port)| {
            let port = ServicePort { name: "".into(), proto: Proto::Udp, port: 53 + port, node_port: node_port.then_some(30053) };
            let service = Service {
                cluster_ips: vec![vip(Family::V4, n)],
                ports: vec![port],
                external_local,
                internal_local,
                external_ips: outside.then(|| external(Family::V4, 1)).into_iter().collect(),
                ..Service::default()
            };
            (n, service)
        },
    );
    let states = [(true, true, false), (true, true, false), (false, true, true), (false, false, true), (false, false, false)];
    let endpoints = vec((0..4u8, select(states.to_vec()), any::<bool>()), 0..4);
    let slice = (0..4u8, 0..2u8, endpoints).prop_map(|(name, of, endpoints)| {
        let endpoint = |(n, (ready, serving, terminating), local)| crate::model::Endpoint {
            ready,
            serving,
            terminating,
            local,
            ..crate::testing::endpoint(pod(Family::V4, n))
        };
        let slice =
            crate::model::Slice { service: named(of), endpoints: endpoints.into_iter().map(endpoint).collect(), ..slice(&[]) };
        (Key::new("ns", &format!("slice{name}")), slice)
    });
    prop_oneof![
        2 => (service, proptest::bool::weighted(0.8)).prop_map(|((n, s), there)| Change::Service(named(n), there.then_some(s))),
        5 => (slice, proptest::bool::weighted(0.9)).prop_map(|((key, s), there)| Change::Slice(key, there.then_some(s))),
    ]
}

fn named(n: u8) -> Key {
    Key::new("ns", &format!("svc{n}"))
}

/// What one service has at an address and port, straight from the objects: whether it is the destination's owner, and whether the
/// endpoint is among those that serve it.
fn serves(tables: &Tables, rules: &crate::ruleset::Ruleset, flow: &Flow) -> bool {
    let (ip, proto, number) = (flow.dst.ip(), flow.proto, flow.dst.port());
    let family = Family::of(&ip);
    let claims = [
        Front::ClusterIp { ip, proto, port: number }.claim(),
        Front::External { ip, proto, port: number }.claim(),
        Front::NodePort { family, proto, port: number }.claim(),
    ];
    let node = ip == NODE.parse::<IpAddr>().unwrap();
    let owner = claims[..if node { 3 } else { 2 }].iter().find_map(|c| rules.owner(c));
    let Some((key, service)) = owner.and_then(|key| Some((key, tables.service(key)?))) else { return false };
    service.ports.iter().filter(|p| p.proto == proto && (p.port == number || p.node_port == Some(number))).any(|p| {
        tables.slices_of(key).filter(|s| s.family == family).any(|s| {
            let port = |x: &&crate::model::SlicePort| (x.name == p.name && x.proto == proto) && x.port == flow.reply_src.port();
            let endpoint = |e: &crate::model::Endpoint| e.ip == flow.reply_src.ip() && (e.ready || e.serving);
            s.ports.iter().any(|x| port(&x)) && s.endpoints.iter().any(endpoint)
        })
    })
}

/// The destination of a frontend, if it is an address of this host.
fn destination(front: &Front) -> Option<SocketAddr> {
    match *front {
        Front::ClusterIp { ip, port, .. } | Front::External { ip, port, .. } | Front::LocalExternal { ip, port, .. } => {
            Some((ip, port).into())
        }
        Front::NodePort { family: Family::V4, port, .. } | Front::LocalNodePort { family: Family::V4, port, .. } => {
            Some((NODE.parse::<IpAddr>().unwrap(), port).into())
        }
        Front::NodePort { .. } | Front::LocalNodePort { .. } => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_flow_outlives_its_endpoint_and_none_that_serves_is_ended(steps in vec(change(), 0..30)) {
        let mut tables = Tables::default();
        let mut rules = compile(&tables, &policy());
        let (mut installed, mut kept, mut flows) = (Installed::default(), Kept::default(), Vec::<Flow>::new());
        let node = BTreeSet::from([NODE.parse().unwrap()]);
        for step in &steps {
            let mut touched = Touched::new();
            apply(&mut tables, step, &mut touched);
            let changed = update(&mut rules, &tables, &touched, &BTreeSet::new());
            let mut gone = None;
            kept.update(touched.union(&changed), Some(&installed), &rules, &tables, &mut gone);
            let tx = crate::diff::diff_of(&installed, &rules, &changed);
            let gone = Gone::of(&installed, &rules, &tables, &changed, gone);
            installed.apply(tx);
            if let Some(gone) = gone {
                flows.retain(|f| {
                    let ends = stale(f, &rules, &tables, &node, &gone);
                    assert!(!ends || !serves(&tables, &rules, f), "{f:?} is ended after {step:?}");
                    !ends
                });
            }
            let stray = flows.iter().find(|f| !serves(&tables, &rules, f));
            prop_assert!(stray.is_none(), "{:?} outlives {:?}", stray, step);
            // Then everybody sends to everything.
            for (_, block) in rules.blocks() {
                for (front, pool) in block.fronts.iter().filter(|(f, _)| f.proto() == Proto::Udp) {
                    let Some(dst) = destination(front) else { continue };
                    let to = |b: &Backend| Flow { reply_src: (b.ip, b.port).into(), dst, ..flow("10.96.0.1:1", "10.96.0.1:1") };
                    flows.extend(pool.iter().map(to));
                }
            }
            flows.sort_by_key(|f| (f.dst, f.reply_src));
            flows.dedup();
        }
    }
}
