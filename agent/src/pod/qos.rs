//! The order in which the kernel picks victims when memory runs out.

use crate::cgroup::{self, Qos, qos};
use k8s_openapi::api::core::v1 as api;

/// The priority class of pods that go last.
const NODE_CRITICAL: &str = "system-node-critical";

/// `oom_score_adj` of a container: the smaller its share of the node's memory, the likelier it goes.
pub fn oom_score_adj(pod: &api::Pod, container: &api::Container, node_memory: i64) -> i64 {
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.priority_class_name.as_deref()) == Some(NODE_CRITICAL) && crate::admission::critical(pod) {
        return -997;
    }
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let rest = spec.map_or(0, unclaimed);
            let score = |request: i64| {
                let request = i128::from(request) + i128::from(rest);
                if node_memory > 0 { 1000 - (request * 1000 / i128::from(node_memory)) as i64 } else { 1000 }
            };
            let mut own = score(memory(container.resources.as_ref()));
            let inits = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
            if container.restart_policy.as_deref() == Some("Always") && inits.iter().any(|c| c.name == container.name) {
                // A sidecar goes after those that it serves.
                let least = spec.into_iter().flat_map(|s| &s.containers).map(|c| memory(c.resources.as_ref())).min();
                own = own.min(score(least.unwrap_or(0)));
            }
            // Never as safe as Guaranteed, never as likely as BestEffort.
            own.clamp(3, 999)
        }
    }
}

fn memory(r: Option<&api::ResourceRequirements>) -> i64 {
    cgroup::amount(r.and_then(|r| r.requests.as_ref()), "memory").units()
}

/// Of what the pod as a whole asks for, each container's part of what none of them does.
fn unclaimed(spec: &api::PodSpec) -> i64 {
    let whole = memory(spec.resources.as_ref());
    if whole == 0 {
        return 0;
    }
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let claimed = crate::cgroup::asked_by_containers(spec);
    let count = i64::try_from(spec.containers.len() + inits.len()).unwrap_or(1).max(1);
    (whole - claimed) / count
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
        let class = |class: &str| {
            let pod = json!({"spec": {"priority": 2_000_000_000, "priorityClassName": class, "containers": [{"name": "c"}]}});
            let pod: api::Pod = serde_json::from_value(pod).unwrap();
            oom_score_adj(&pod, &pod.spec.as_ref().unwrap().containers[0], 1000 << 20)
        };
        assert_eq!((class("system-node-critical"), class("system-cluster-critical")), (-997, 1000));
        let whole = json!({"spec": {"resources": {"requests": {"memory": "500Mi"}}, "containers": [
            {"name": "a", "resources": {"requests": {"memory": "100Mi"}}}, {"name": "b"}], "initContainers": [
            {"name": "s", "restartPolicy": "Always"}, {"name": "i"}]}});
        let whole: api::Pod = serde_json::from_value(whole).unwrap();
        let spec = whole.spec.as_ref().unwrap();
        let of = |c: &api::Container| oom_score_adj(&whole, c, 1000 << 20);
        assert_eq!((of(&spec.containers[0]), of(&spec.containers[1])), (800, 900), "400Mi are shared by four");
        let served = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"memory": "300Mi"}}}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}]}});
        let served: api::Pod = serde_json::from_value(served).unwrap();
        let sidecar = &served.spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0];
        assert_eq!(oom_score_adj(&served, sidecar, 1000 << 20), 700);
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(score(json!({"requests": full, "limits": full})), -997);
    }
}
