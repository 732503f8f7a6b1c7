//! Random changes under UDP flows to everything: which of them end, and when.

use super::*;
use crate::testing::{apply, changes};
use proptest::prelude::*;

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
    fn no_flow_outlives_its_endpoint_and_none_that_serves_is_ended(steps in changes(25)) {
        let mut tables = Tables::default();
        let mut rules = compile(&tables, &policy());
        let (mut installed, mut kept, mut flows) = (Installed::default(), Kept::default(), Vec::<Flow>::new());
        let node = BTreeSet::from([NODE.parse().unwrap()]);
        for step in &steps {
            let mut touched = Touched::new();
            apply(&mut tables, step, &mut touched);
            let changed = update(&mut rules, &tables, &touched, &BTreeSet::new());
            let mut gone = None;
            kept.update(touched.union(&changed), &rules, &tables, &mut gone);
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
