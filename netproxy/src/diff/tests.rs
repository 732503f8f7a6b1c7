use super::*;
use crate::compile::{compile, update};
use crate::model::{Proto, Service, ServicePort, Slice, SlicePort};
use crate::tables::Tables;
use crate::testing::{Model, apply, changes, pod, policy, vip};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Step by step, by what was touched only: the kernel takes every step, and holds what a compile from nothing asks for.
    #[test]
    fn steps_lead_to_the_whole(steps in proptest::collection::vec(changes(6), 1..12)) {
        let mut tables = Tables::default();
        let mut rules = Ruleset::new(policy());
        let mut installed = Installed::default();
        let mut kernel = Model::default();
        kernel.commit(&full(&rules)).map_err(TestCaseError::fail)?;
        for step in steps {
            let mut touched = Touched::new();
            for change in &step {
                apply(&mut tables, change, &mut touched);
            }
            let changed = update(&mut rules, &tables, &touched, &BTreeSet::new());
            prop_assert_eq!(&rules, &compile(&tables, &policy()));
            let tx = diff_of(&installed, &rules, &changed);
            prop_assert_eq!(&tx, &diff(&installed, &rules));
            kernel.commit(&tx).map_err(TestCaseError::fail)?;
            installed.apply(tx);
            kernel.holds(&rules).map_err(TestCaseError::fail)?;
            prop_assert!(diff(&installed, &rules).is_empty());
            for (key, block) in rules.blocks() {
                for (front, _) in &block.fronts {
                    let slots = installed.slots(key, front).unwrap();
                    let there: Vec<_> = (0..slots.len() as u32).map(|n| kernel.main.endpoint(front, n).unwrap()).collect();
                    prop_assert_eq!(slots, &there[..]);
                }
            }
            // And from nothing in one go.
            let mut fresh = Model::default();
            fresh.commit(&full(&rules)).map_err(TestCaseError::fail)?;
            fresh.holds(&rules).map_err(TestCaseError::fail)?;
        }
    }

    /// The order in which objects arrive never shows.
    #[test]
    fn order_is_forgotten(mut objects in changes(12), seed in any::<u64>()) {
        // One change for each name: the last word is the same whatever the order.
        let mut names = BTreeSet::new();
        objects.retain(|c| names.insert(match c { crate::testing::Change::Service(k, _) | crate::testing::Change::Slice(k, _) => k.clone() }));
        let build = |objects: &[crate::testing::Change]| {
            let mut tables = Tables::default();
            let mut rules = Ruleset::new(policy());
            for change in objects {
                let mut touched = Touched::new();
                apply(&mut tables, change, &mut touched);
                update(&mut rules, &tables, &touched, &BTreeSet::new());
            }
            full(&rules)
        };
        let one = build(&objects);
        let n = objects.len().max(1);
        objects.rotate_left(seed as usize % n);
        if seed % 2 == 0 {
            objects.reverse();
        }
        prop_assert_eq!(one, build(&objects));
    }

    #[test]
    fn places_move_as_little_as_can_be(before in proptest::collection::btree_set(0..40u8, 1..20), after in proptest::collection::btree_set(0..40u8, 1..20)) {
        let pool = |all: &BTreeSet<u8>| -> Arc<[Backend]> { all.iter().map(|n| Backend { ip: pod(Family::V4, *n), port: 80 }).collect() };
        let old = pool(&before);
        let new = place(Some(&old), &pool(&after));
        let as_set: BTreeSet<_> = new.iter().copied().collect();
        prop_assert_eq!(as_set, pool(&after).iter().copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(new.len(), after.len());
        let moved = (0..old.len().max(new.len())).filter(|n| old.get(*n) != new.get(*n)).count();
        let (gone, come) = (before.difference(&after).count(), after.difference(&before).count());
        prop_assert!(moved <= gone.max(come) + gone.saturating_sub(come), "moved {} for {} gone and {} come", moved, gone, come);
    }
}

fn cluster(services: u16, endpoints: u16) -> Tables {
    let mut tables = Tables::default();
    let mut touched = Touched::new();
    for n in 0..services {
        let key = Key::new("ns", &format!("s{n}"));
        let port =
            |name: &str, proto, port| ServicePort { name: name.into(), proto, port, node_port: (n < 100).then_some(30_000 + n) };
        let service = Service {
            cluster_ips: vec![IpAddr::from([10, 96, (n >> 8) as u8, n as u8])],
            ports: vec![port("web", Proto::Tcp, 80)],
            external_local: false,
            internal_local: false,
            ..Service::default()
        };
        tables.set_service(key.clone(), Some(service), &mut touched);
        tables.set_slice(key.clone(), Some(slice_of(&key, 0..endpoints)), &mut touched);
    }
    tables
}

fn slice_of(service: &Key, endpoints: std::ops::Range<u16>) -> Slice {
    let endpoint = |n: u16| crate::testing::endpoint([10, 244, (n >> 8) as u8, n as u8].into());
    Slice {
        service: service.clone(),
        family: Family::V4,
        ports: [SlicePort { name: "web".into(), proto: Proto::Tcp, port: 8080 }].into(),
        endpoints: endpoints.map(endpoint).collect(),
    }
}

#[test]
fn one_endpoint_costs_the_same_in_any_cluster() {
    for (services, endpoints, affinity) in
        [(1, 2, None), (1, 1000, None), (2000, 10, None), (1, 1000, Some(60)), (2000, 10, Some(60))]
    {
        let mut tables = cluster(services, endpoints);
        let key = Key::new("ns", "s0");
        let stays = Service { affinity, ..tables.service(&key).unwrap().clone() };
        tables.set_service(key.clone(), Some(stays), &mut Touched::new());
        let rules = compile(&tables, &policy());
        let mut installed = Installed::default();
        installed.apply(full(&rules));
        // One more, the first one gone, the first one replaced.
        for range in [0..endpoints + 1, 1..endpoints, 1..endpoints + 1] {
            let mut touched = Touched::new();
            tables.set_slice(key.clone(), Some(slice_of(&key, range.clone())), &mut touched);
            let mut rules = rules.clone();
            let changed = update(&mut rules, &tables, &touched, &BTreeSet::new());
            let tx = diff_of(&installed, &rules, &changed);
            // Two fronts: cluster IP and node port; at most a slot moved, a slot dropped and the count each; a chain each. With
            // affinity an id gone and one come besides.
            let most = 2 * (2 + 1 + 2 + 1) + if affinity.is_some() { 2 * 2 } else { 0 };
            assert!(tx.len() <= most, "{services} x {endpoints}, {range:?}: {tx:?}");
        }
    }
}

#[test]
fn a_service_may_move_its_address_to_another_in_one_step() {
    let mut tables = cluster(2, 2);
    let mut rules = compile(&tables, &policy());
    let mut installed = Installed::default();
    let mut kernel = Model::default();
    let tx = full(&rules);
    kernel.commit(&tx).unwrap();
    installed.apply(tx);
    let (a, b) = (Key::new("ns", "s0"), Key::new("ns", "s1"));
    let mut taken = tables.service(&b).unwrap().clone();
    taken.cluster_ips = vec![vip(Family::V4, 0)];
    let mut touched = Touched::new();
    tables.set_service(b, Some(taken), &mut touched);
    tables.set_service(a, None, &mut touched);
    let changed = update(&mut rules, &tables, &touched, &BTreeSet::new());
    let tx = diff_of(&installed, &rules, &changed);
    kernel.commit(&tx).unwrap();
    kernel.holds(&rules).unwrap();
}

#[test]
fn ids_stay_whatever_else_there_is() {
    let backend = |n: u32| Backend { ip: IpAddr::from((0x0af4_0000 + n).to_be_bytes()), port: 8080 };
    // Written down: with other numbers, clients would lose their endpoints at an upgrade.
    assert_eq!(endpoint_ids(&[backend(10)])[&backend(10)], hash(&backend(10)));
    assert_eq!([10, 11, 12].map(|n| hash(&backend(n))), PINNED);
    let all: Vec<Backend> = (0..1000).map(backend).collect();
    let (whole, mut turned) = (endpoint_ids(&all), all.clone());
    turned.reverse();
    assert_eq!(whole, endpoint_ids(&turned));
    assert_eq!(whole.values().collect::<BTreeSet<_>>().len(), all.len());
    assert!(endpoint_ids(&all[1..]).iter().all(|(b, id)| whole[b] == *id));
}

const PINNED: [u32; 3] = [0xfeea_74a6, 0xff33_f190, 0xd2aa_c8aa];

#[test]
fn few_chains_do_for_all_numbers_of_endpoints() {
    let mut all = BTreeSet::new();
    for n in 1..=MOST_ENDPOINTS as u32 {
        let among = drawn_from(n);
        assert!(among >= n && (among - n) * 4 <= n && (n > EXACT || among == n), "{n} of {among}");
        assert!(among >= drawn_from(n - 1) && drawn_from(among) == among && among as usize <= MOST_ENDPOINTS, "{n} of {among}");
        assert!(always_filled(among) <= n && drawn_from(always_filled(among)) == always_filled(among), "{n} of {among}");
        all.insert(among);
    }
    assert_eq!((all.len(), all.range(..=READY).count()), (60, 28));
}

/// Growing and shrinking through all numbers: the kernel has what is asked for, and with the first endpoint all its chains.
#[test]
fn a_service_grows_without_new_chains() {
    let mut tables = cluster(1, 1);
    let mut rules = compile(&tables, &policy());
    let (mut installed, mut kernel) = (Installed::default(), Model::default());
    let tx = full(&rules);
    assert_eq!(tx.picks.len(), 2 * 28, "of its cluster IP and its node port");
    kernel.commit(&tx).unwrap();
    installed.apply(tx);
    let key = Key::new("ns", "s0");
    let sizes = (2..128).chain([70, 71, 64, 65, 3]);
    for n in sizes {
        let mut touched = Touched::new();
        tables.set_slice(key.clone(), Some(slice_of(&key, 0..n)), &mut touched);
        let changed = update(&mut rules, &tables, &touched, &BTreeSet::new());
        let tx = diff_of(&installed, &rules, &changed);
        assert!(tx.picks.is_empty(), "{n}: {:?}", tx.picks);
        kernel.commit(&tx).unwrap();
        kernel.holds(&rules).unwrap();
        installed.apply(tx);
    }
}
