//! The ruleset as text for people, for the clusters of `tests/golden`.

#[path = "../golden/mod.rs"]
mod golden;

use super::*;
use ferrolet_netproxy::describe;
use golden::{CASES, case, compare};

#[test]
fn rulesets_are_described_as_in_their_files() {
    for name in CASES {
        let case = case(name);
        let addresses = case.node.addresses.iter().copied();
        // The same on a host without IPv6.
        let families = ferrolet_netproxy::Family::ALL.into();
        let policy = Policy {
            families,
            zone: case.node.zone.clone().unwrap_or_default(),
            node_ips: addresses.collect(),
            service_ranges: case.node.service_cidrs.clone(),
            ..case.config().policy()
        };
        let (mut tables, mut touched, mut faults) = (Tables::default(), Touched::new(), Vec::new());
        for s in &case.services {
            tables.set_service(convert::key(&s.metadata), convert::service(s, &mut faults), &mut touched);
        }
        for s in &case.endpoint_slices {
            tables.set_slice(convert::key(&s.metadata), convert::slice(s, "node-1", &mut faults), &mut touched);
        }
        assert_eq!(faults, []);
        compare(&format!("{name}.txt"), &describe::text(&compile(&tables, &policy), &BTreeSet::new()));
    }
}
