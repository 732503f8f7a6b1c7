//! What was last looked at as a whole, and how much of it another look differs in. Pure.

use super::mirror;
use crate::api::snapshot::Snapshot;
use crate::observe::{PodRuntime, RuntimeSnapshot};
use crate::static_pods::StaticPods;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

/// What the dispatcher looks at as a whole.
pub(super) type Seen = (Arc<Snapshot<Pod>>, Arc<StaticPods>, Arc<RuntimeSnapshot>);

/// The pods whose status is another, if nothing else is: mostly the echo of what their actors wrote.
pub(super) fn only_statuses<'a>(before: &Snapshot<Pod>, now: &'a Snapshot<Pod>) -> Option<Vec<&'a Arc<Pod>>> {
    if before.synced != now.synced || before.malformed != now.malformed || !before.items.keys().eq(now.items.keys()) {
        return None;
    }
    let pairs = before.items.values().zip(now.items.values()).filter(|(a, b)| !Arc::ptr_eq(a, b));
    pairs.map(|(a, b)| (!mirror::is(b) && same_but_for_status(a, b)).then_some(b)).collect()
}

fn same_but_for_status(a: &Pod, b: &Pod) -> bool {
    let lasting = |pod: &Pod| ObjectMeta { resource_version: None, managed_fields: None, ..pod.metadata.clone() };
    a.spec == b.spec && lasting(a) == lasting(b)
}

/// Whether nobody but the actors of these pods can tell the two apart.
pub(super) fn alike(a: &RuntimeSnapshot, b: &RuntimeSnapshot) -> bool {
    let facts = |s: &RuntimeSnapshot| (s.synced, s.stale.is_some(), s.pods.len());
    let same = |(p, q): (&Arc<PodRuntime>, &Arc<PodRuntime>)| Arc::ptr_eq(p, q) || (p.is_static == q.is_static && p.id == q.id);
    facts(a) == facts(b) && a.pods.keys().eq(b.pods.keys()) && a.pods.values().zip(b.pods.values()).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::snapshot::ObjectKey;
    use serde_json::{Value, json};

    fn snapshot(pods: &[(&str, &Arc<Pod>)]) -> Snapshot<Pod> {
        let key = |name: &str| Arc::new(ObjectKey { namespace: "ns".into(), name: name.into() });
        let items = pods.iter().map(|(name, pod)| (key(name), (*pod).clone())).collect();
        Snapshot { synced: true, items, ..Snapshot::default() }
    }

    /// The pod with another value at a place.
    fn pod(place: &str, value: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "1", "annotations": {}, "deletionTimestamp": null},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {},
        });
        *pod.pointer_mut(place).unwrap() = value;
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn only_what_a_pods_own_actor_wrote_is_its_alone() {
        let (a, b) = (pod("/status", json!({})), pod("/metadata/uid", json!("v")));
        let before = snapshot(&[("a", &a), ("b", &b)]);
        let mut written = Pod::clone(&pod("/status", json!({"phase": "Running"})));
        written.metadata.resource_version = Some("2".into());
        let written = Arc::new(written);
        assert_eq!(only_statuses(&before, &before), Some(vec![]));
        assert_eq!(only_statuses(&before, &snapshot(&[("a", &written), ("b", &b)])), Some(vec![&written]));
        for (place, other) in [
            ("/metadata/uid", json!("w")),
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("/metadata/annotations", json!({"kubernetes.io/config.mirror": "h"})),
            ("/spec/containers/0/image", json!("j")),
        ] {
            assert_eq!(only_statuses(&before, &snapshot(&[("a", &pod(place, other)), ("b", &b)])), None, "{place}");
        }
        assert_eq!(only_statuses(&before, &snapshot(&[("a", &a)])), None);
        let unread = Snapshot { malformed: before.items.keys().map(|k| ObjectKey::clone(k)).collect(), ..before.clone() };
        assert_eq!(only_statuses(&before, &unread), None);
        assert_eq!(only_statuses(&Snapshot { synced: false, ..before.clone() }, &before), None);
    }
}
