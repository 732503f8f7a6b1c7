use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn planned(spec: Value, node: &NodeCgroups) -> PodCgroup {
    plan(&serde_json::from_value(json!({"metadata": {"uid": "a-b-1"}, "spec": spec})).unwrap(), node).unwrap()
}

fn limits_of(spec: Value) -> Limits {
    planned(spec, &NodeCgroups::default()).limits
}

fn resources(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
}

#[test]
fn places_by_class_and_driver() {
    let guaranteed = json!({"containers": [resources(json!({"cpu": 1, "memory": "1Gi"}), json!({"cpu": 1, "memory": "1Gi"}))]});
    let burstable = json!({"containers": [resources(json!({"cpu": 1}), json!({}))]});
    let best_effort = json!({"containers": [{"name": "c"}]});
    let place = |spec: &Value, driver, root: &str| {
        let node = NodeCgroups { driver, root: root.into(), ..NodeCgroups::default() };
        planned(spec.clone(), &node).parent
    };
    use Driver::{Cgroupfs, Systemd};
    assert_eq!(place(&guaranteed, Cgroupfs, ""), "/kubepods/poda-b-1");
    assert_eq!(place(&burstable, Cgroupfs, "/"), "/kubepods/burstable/poda-b-1");
    assert_eq!(place(&best_effort, Cgroupfs, "/own/root"), "/own/root/kubepods/besteffort/poda-b-1");
    assert_eq!(place(&guaranteed, Systemd, ""), "/kubepods.slice/kubepods-poda_b_1.slice");
    let nested = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b_1.slice";
    assert_eq!(place(&burstable, Systemd, ""), nested);
    let own = "/my_own.slice/my_own-kubepods.slice/my_own-kubepods-poda_b_1.slice";
    assert_eq!(place(&guaranteed, Systemd, "/my-own"), own);
}

#[test]
fn uids_and_roots_that_lead_elsewhere_are_refused() {
    for uid in ["", "..", "a/b", "a b"] {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": uid}})).unwrap();
        assert!(matches!(plan(&pod, &NodeCgroups::default()), Err(Error::Uid(_))), "{uid:?}");
    }
    for root in ["relative", "/a/../b", "/./x"] {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}})).unwrap();
        let node = NodeCgroups { root: root.into(), ..NodeCgroups::default() };
        assert!(matches!(plan(&pod, &node), Err(Error::Root(_))), "{root:?}");
    }
}

#[test]
fn limits_by_class() {
    let least = Limits { cpu_shares: Some(2), ..Limits::default() };
    assert_eq!(limits_of(json!({"containers": [{"name": "c"}]})), least);
    let full = resources(json!({"cpu": "500m", "memory": "64Mi"}), json!({"cpu": "500m", "memory": "64Mi"}));
    let half = Limits {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory_bytes: Some(64 << 20),
        ..Limits::default()
    };
    assert_eq!(limits_of(json!({"containers": [full]})), half);
    // One container without limits: the pod as a whole has none, but its requests count.
    let mixed = limits_of(json!({"containers": [full, resources(json!({"cpu": "250m"}), json!({}))]}));
    assert_eq!(mixed, Limits { cpu_shares: Some(768), ..Limits::default() });
    let memory_only = limits_of(json!({"containers": [resources(json!({}), json!({"memory": "1Mi"}))]}));
    assert_eq!(memory_only, Limits { cpu_shares: Some(2), memory_bytes: Some(1 << 20), ..Limits::default() });
}

#[test]
fn init_containers_and_sidecars() {
    let cpu = |n: u32, sidecar: bool| {
        let mut c = resources(json!({"cpu": n}), json!({"cpu": n}));
        if sidecar {
            c["restartPolicy"] = json!("Always");
        }
        c
    };
    let quota =
        |init: Value| limits_of(json!({"containers": [cpu(2, false)], "initContainers": init})).cpu_quota_us.unwrap() / 100_000;
    assert_eq!(quota(json!([])), 2);
    assert_eq!(quota(json!([cpu(5, false)])), 5);
    assert_eq!(quota(json!([cpu(1, false)])), 2);
    assert_eq!(quota(json!([cpu(1, true)])), 3);
    assert_eq!(quota(json!([cpu(3, true), cpu(4, false)])), 7, "an init container runs beside sidecars before it");
    assert_eq!(quota(json!([cpu(4, false), cpu(3, true)])), 5, "and not beside those after it");
}

#[test]
fn overhead_pids_quota_and_huge_pages() {
    let pod = json!({"overhead": {"cpu": "100m", "memory": "1Mi"},
        "containers": [resources(json!({"cpu": 1}), json!({"cpu": 1, "memory": "1Mi", "hugepages-2Mi": "4Mi"}))]});
    let node = NodeCgroups { cpu_cfs_quota: false, pod_pids_limit: Some(10), ..NodeCgroups::default() };
    let limits = planned(pod.clone(), &node).limits;
    assert_eq!((limits.cpu_quota_us, limits.pids, limits.cpu_shares), (Some(-1), Some(10), Some(1126)));
    assert_eq!(limits.hugetlb, BTreeMap::from([(2 << 20, 4 << 20)]));
    assert_eq!((limits_of(pod.clone()).cpu_quota_us, limits_of(pod).memory_bytes), (Some(110_000), Some(2 << 20)));
}

#[test]
fn pod_level_resources_come_first() {
    let pod = json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "3", "memory": "1Gi"}},
        "containers": [resources(json!({"cpu": 1}), json!({"cpu": 1})), {"name": "d"}]});
    let limits = limits_of(pod);
    assert_eq!((limits.cpu_shares, limits.cpu_quota_us, limits.memory_bytes), (Some(2048), Some(300_000), Some(1 << 30)));
}

#[test]
fn conversions_at_their_ends() {
    assert_eq!([0, 1, 2, 1000, 1_000_000].map(cpu_shares), [2, 2, 2, 1024, 262_144]);
    assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(cpu_weight), [1, 1, 100, 10_000, 10_000]);
    assert_eq!([0, 1, 10, 250].map(|m| cpu_quota(m, 100_000)), [0, 1000, 1000, 25_000]);
}

proptest! {
    #[test]
    fn more_cpu_never_means_less(a in 0i64..1_000_000, b in 0i64..1_000_000) {
        let (less, more) = (a.min(b), a.max(b));
        prop_assert!(cpu_shares(less) <= cpu_shares(more));
        prop_assert!(cpu_weight(cpu_shares(less)) <= cpu_weight(cpu_shares(more)));
        prop_assert!(cpu_quota(less, 100_000) <= cpu_quota(more, 100_000));
        prop_assert!((1..=10_000).contains(&cpu_weight(cpu_shares(a))));
    }
}

#[test]
fn memory_that_is_asked_for_is_kept_where_that_is_configured() {
    let node = NodeCgroups { memory_qos: true, tiered: true, page_sizes: vec![2 << 20, 1 << 30], ..NodeCgroups::default() };
    let limits = |resources: serde_json::Value, node: &NodeCgroups| {
        let pod = serde_json::json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
        plan(&serde_json::from_value(pod).unwrap(), node).unwrap().limits
    };
    let full = serde_json::json!({"cpu": "1", "memory": "1Mi"});
    let guaranteed = limits(serde_json::json!({"requests": full, "limits": full}), &node);
    assert_eq!((guaranteed.memory_min, guaranteed.memory_low), (Some(1 << 20), None));
    let burstable = limits(serde_json::json!({"requests": full, "limits": {"hugepages-2Mi": "4Mi"}}), &node);
    assert_eq!((burstable.memory_min, burstable.memory_low), (None, Some(1 << 20)));
    assert_eq!(burstable.hugetlb, [(2 << 20, 4 << 20), (1 << 30, 0)].into(), "what is not asked for is none");
    let plain = limits(serde_json::json!({"requests": full, "limits": full}), &NodeCgroups { tiered: false, ..node });
    assert_eq!((plain.memory_min, plain.memory_low), (None, None));
}
