//! The order in which the kernel picks victims when memory runs out.

use crate::cgroup::{Qos, qos};
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1 as api;

/// Pods of this priority and above are as safe as Guaranteed ones.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// `oom_score_adj` of a container: the smaller its share of the node's memory, the likelier it goes.
pub fn oom_score_adj(pod: &api::Pod, container: &api::Container, node_memory: i64) -> i64 {
    if pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= CRITICAL_PRIORITY) {
        return -997;
    }
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let request = requests.and_then(|r| r.get("memory")?.0.parse::<Quantity>().ok()).map_or(0, |q| q.units());
            let share = if node_memory > 0 { (i128::from(request) * 1000 / i128::from(node_memory)) as i64 } else { 0 };
            // Never as safe as Guaranteed, never as likely as BestEffort.
            (1000 - share).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scores_by_class_and_share() {
        let score = |resources: serde_json::Value| {
            let pod: api::Pod =
                serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).unwrap();
            oom_score_adj(&pod, &pod.spec.as_ref().unwrap().containers[0], 1000 << 20)
        };
        assert_eq!(score(json!({"requests": {"memory": "250Mi"}})), 750);
        assert_eq!(score(json!({"requests": {"memory": "1"}})), 999);
        assert_eq!(score(json!({"requests": {"memory": "9Gi"}})), 3);
        assert_eq!(score(json!({})), 1000);
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(score(json!({"requests": full, "limits": full})), -997);
    }
}
