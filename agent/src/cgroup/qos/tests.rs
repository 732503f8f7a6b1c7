use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn class(containers: Value, init: Value) -> Qos {
    qos(&serde_json::from_value(json!({"spec": {"containers": containers, "initContainers": init}})).unwrap())
}

fn both(cpu: &str, memory: &str) -> Value {
    json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}})
}

#[test]
fn classes_of_single_containers() {
    let one = |resources: Value| class(json!([{"name": "c", "resources": resources}]), json!([]));
    assert_eq!(one(json!({})), Qos::BestEffort);
    assert_eq!(one(json!({"requests": {"cpu": "0", "nvidia.com/gpu": "1"}})), Qos::BestEffort);
    assert_eq!(one(json!({"requests": {"cpu": "1m"}})), Qos::Burstable);
    assert_eq!(one(json!({"limits": {"memory": "1Gi"}})), Qos::Burstable);
    assert_eq!(class(json!([both("1", "1Gi")]), json!([])), Qos::Guaranteed);
    let equal = json!({"requests": {"cpu": "1000m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1024Mi"}});
    assert_eq!(one(equal), Qos::Guaranteed, "amounts count, not spellings");
    // The server would have defaulted the requests.
    assert_eq!(one(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), Qos::Burstable);
    assert_eq!(qos(&Pod::default()), Qos::BestEffort);
}

#[test]
fn every_container_counts() {
    let plain = json!({"name": "p"});
    let sidecar = json!({"name": "s", "restartPolicy": "Always"});
    assert_eq!(class(json!([both("1", "1Gi"), plain]), json!([])), Qos::Burstable);
    assert_eq!(class(json!([both("1", "1Gi")]), json!([plain])), Qos::Burstable);
    assert_eq!(class(json!([both("1", "1Gi")]), json!([sidecar])), Qos::Burstable);
    assert_eq!(class(json!([plain]), json!([both("1", "1Gi")])), Qos::Burstable);
    assert_eq!(class(json!([both("1", "1Gi")]), json!([both("2", "2Gi")])), Qos::Guaranteed);
}

#[test]
fn pod_level_resources_decide_alone() {
    let spec = |resources: Value| {
        let pod = json!({"spec": {"resources": resources, "containers": [{"name": "c"}]}});
        qos(&serde_json::from_value(pod).unwrap())
    };
    let same = json!({"cpu": "1", "memory": "1Gi"});
    assert_eq!(spec(json!({"requests": same, "limits": same})), Qos::Guaranteed);
    assert_eq!(spec(json!({"requests": {"cpu": "1"}})), Qos::Burstable);
}

proptest! {
    #[test]
    fn the_order_of_containers_does_not_matter(amounts in prop::collection::vec((0u8..3, 0u8..3, 0u8..3, 0u8..3), 1..5)) {
        let of = |n: u8| n.to_string();
        let list: Vec<Value> = amounts.iter().map(|(a, b, c, d)| json!({"name": "c", "resources": {
            "requests": {"cpu": of(*a), "memory": of(*b)}, "limits": {"cpu": of(*c), "memory": of(*d)}}})).collect();
        let reversed: Vec<Value> = list.iter().rev().cloned().collect();
        let expected = if amounts.iter().all(|t| *t == (0, 0, 0, 0)) {
            Qos::BestEffort
        } else if amounts.iter().all(|(_, _, c, d)| *c > 0 && *d > 0)
            && amounts.iter().map(|t| u32::from(t.0)).sum::<u32>() == amounts.iter().map(|t| u32::from(t.2)).sum::<u32>()
            && amounts.iter().map(|t| u32::from(t.1)).sum::<u32>() == amounts.iter().map(|t| u32::from(t.3)).sum::<u32>()
        {
            Qos::Guaranteed
        } else {
            Qos::Burstable
        };
        prop_assert_eq!(class(json!(list), json!([])), expected);
        prop_assert_eq!(class(json!(reversed), json!([])), expected);
    }
}
