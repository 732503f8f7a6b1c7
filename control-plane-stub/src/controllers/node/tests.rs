use serde_json::{Value, json};

use super::*;

fn t(s: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + s).unwrap()
}

fn node(ready: Option<&str>, extra: Value) -> Node {
    let mut v = json!({"metadata": {"name": "n1"}, "status": {"conditions": []}});
    if let Some(status) = ready {
        v["status"]["conditions"] = json!([{"type": "Ready", "status": status}, {"type": "MemoryPressure", "status": "False"}]);
    }
    json_patch::merge(&mut v, &extra);
    serde_json::from_value(v).unwrap()
}

fn shown(taints: Option<Vec<Taint>>) -> Vec<String> {
    let short = |k: &str| k.trim_start_matches("node.kubernetes.io/").to_string();
    taints.expect("taints change").iter().map(|t| format!("{}:{}", short(&t.key), t.effect)).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_healthy_node_loses_its_first_taint() {
    let n = node(
        Some("True"),
        json!({"spec": {"taints": [{"key": NOT_READY, "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"}]}}),
    );
    let plan = decide(&n, SECOND, t(0));
    assert_eq!(shown(plan.taints), ["mine:NoSchedule"]);
    assert_eq!((plan.lost, plan.conditions, plan.wake_after), (false, None, Some(Duration::from_secs(39))));
}

#[test]
fn a_lost_node_is_unknown_and_comes_back() {
    let n = node(Some("True"), json!({}));
    let plan = decide(&n, GRACE, t(0));
    assert!(plan.lost && plan.wake_after.is_none());
    assert_eq!(shown(plan.taints.clone()), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    let conditions = plan.conditions.unwrap();
    assert!(conditions.iter().all(|c| c.status == "Unknown"), "{conditions:?}");
    assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(conditions[3].reason.as_deref(), Some("NodeStatusNeverUpdated"));
    let mut lost = n.clone();
    lost.status.as_mut().unwrap().conditions = Some(conditions);
    lost.spec.get_or_insert_default().taints = plan.taints;
    let again = decide(&lost, GRACE * 2, t(100));
    assert_eq!((again.conditions, again.taints), (None, None), "said once");
    lost.status = n.status;
    assert_eq!(shown(decide(&lost, SECOND, t(200)).taints), Vec::<String>::new());
}

#[test]
fn other_taints() {
    assert_eq!(
        shown(decide(&node(Some("False"), json!({})), SECOND, t(0)).taints),
        ["not-ready:NoSchedule", "not-ready:NoExecute"]
    );
    assert_eq!(shown(decide(&node(None, json!({})), SECOND, t(0)).taints), ["not-ready:NoSchedule"]);
    let cordoned = node(Some("True"), json!({"spec": {"unschedulable": true}}));
    assert_eq!(shown(decide(&cordoned, SECOND, t(0)).taints), ["unschedulable:NoSchedule"]);
    let full = node(
        None,
        json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]}}),
    );
    assert_eq!(shown(decide(&full, SECOND, t(0)).taints), ["disk-pressure:NoSchedule"]);
}

#[test]
fn eviction_follows_the_shortest_toleration() {
    let pod = |tolerations: Value| {
        serde_json::from_value::<Pod>(json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}})).unwrap()
    };
    let taint = |key: &str| Taint { key: key.into(), effect: "NoExecute".into(), time_added: Some(Time(t(0))), value: None };
    let both = [taint("a"), taint("b")];
    let tolerate = |key: &str, seconds: Value| json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds});
    let cases = [
        (json!([]), Some(5)),
        (json!([tolerate("a", json!(300))]), Some(5)),
        (json!([tolerate("a", json!(300)), tolerate("b", json!(60))]), Some(60)),
        (json!([tolerate("a", json!(300)), tolerate("b", Value::Null)]), Some(300)),
        (json!([{"operator": "Exists"}]), None),
        (json!([tolerate("a", json!(-1)), tolerate("b", Value::Null)]), Some(0)),
    ];
    for (tolerations, want) in cases {
        assert_eq!(evict_at(&pod(tolerations.clone()), &both, t(5)), want.map(t), "{tolerations}");
    }
    let soft = Taint { effect: "NoSchedule".into(), ..taint("a") };
    assert_eq!(evict_at(&pod(json!([])), &[soft], t(5)), None);
}

#[test]
fn cidrs_are_given_out_in_order() {
    let net = |s: &str| s.parse::<IpNet>().unwrap();
    let mut used = BTreeSet::new();
    assert_eq!(free_cidr(net("10.244.0.0/23"), &used), Some(net("10.244.0.0/24")));
    used.insert(net("10.244.0.0/24"));
    assert_eq!(free_cidr(net("10.244.0.0/23"), &used), Some(net("10.244.1.0/24")));
    used.insert(net("10.244.1.0/24"));
    assert_eq!(free_cidr(net("10.244.0.0/23"), &used), None);
    assert_eq!(free_cidr(net("fd00::/48"), &used), Some(net("fd00::/64")));
}

#[test]
fn a_node_gets_a_part_of_each_range() {
    let net = |s: &str| s.parse::<IpNet>().unwrap();
    let dual: Ranges = "10.244.0.0/16,fd00:10:244::/48".parse().unwrap();
    let mut used = BTreeSet::new();
    assert_eq!(free_cidrs(dual, &used), Some(vec![net("10.244.0.0/24"), net("fd00:10:244::/64")]));
    // A node from before the second range holds one part only.
    used.insert(net("10.244.0.0/24"));
    assert_eq!(free_cidrs(dual, &used), Some(vec![net("10.244.1.0/24"), net("fd00:10:244::/64")]));
    let small: Ranges = "fd00::/64,10.0.0.0/16".parse().unwrap();
    used.insert(net("fd00::/64"));
    assert_eq!(free_cidrs(small, &used), None);
}
