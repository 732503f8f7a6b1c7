use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn rs(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "u1", "generation": 3},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}
    }))
    .unwrap()
}

fn pod(name: &str, app: &str, owner: Option<&str>) -> Pod {
    let mut p: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}"), "labels": {"app": app},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [], "nodeName": "n1"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]}
    }))
    .unwrap();
    p.metadata.owner_references =
        owner.map(|uid| vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]);
    p
}

fn names(refs: &[PodRef]) -> Vec<&str> {
    refs.iter().map(|r| r.name.as_str()).collect()
}

fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn adopts_orphans_and_releases_what_no_longer_matches() {
    let pods = [
        pod("mine", "web", Some("u1")),
        pod("orphan", "web", None),
        pod("relabelled", "debug", Some("u1")),
        pod("others", "web", Some("u2")),
    ];
    let plan = decide(&rs(3), &pods.iter().collect::<Vec<_>>(), t("2026-01-01T01:00:00Z"));
    assert_eq!(names(&plan.adopt), ["orphan"]);
    assert_eq!(names(&plan.release), ["relabelled"]);
    assert_eq!((plan.create, plan.delete.len()), (1, 0));
    assert_eq!((plan.status.replicas, plan.status.ready_replicas, plan.status.observed_generation), (2, Some(2), Some(3)));
}

#[test]
fn a_deleted_replica_set_touches_nothing() {
    let mut r = rs(3);
    r.metadata.deletion_timestamp = Some(Time(t("2026-01-01T00:00:00Z")));
    let pods = [pod("orphan", "web", None), pod("gone", "x", Some("u1"))];
    let plan = decide(&r, &pods.iter().collect::<Vec<_>>(), t("2026-01-01T01:00:00Z"));
    assert_eq!((plan.adopt.len(), plan.release.len(), plan.create, plan.delete.len()), (0, 0, 0, 0));
}

#[test]
fn victims_in_order() {
    let owned = |name: &str| pod(name, "web", Some("u1"));
    let mut unscheduled = owned("b-unscheduled");
    unscheduled.spec.as_mut().unwrap().node_name = None;
    unscheduled.status.as_mut().unwrap().phase = Some("Pending".into());
    unscheduled.status.as_mut().unwrap().conditions = None;
    let mut unready = owned("c-unready");
    unready.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".into();
    let mut cheap = owned("d-cheap");
    cheap.metadata.annotations = Some([(DELETION_COST.to_string(), "-5".to_string())].into());
    let mut young = owned("e-young");
    young.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].last_transition_time = Some(Time(t("2026-01-02T00:00:00Z")));
    let mut alone = owned("a-alone");
    alone.spec.as_mut().unwrap().node_name = Some("n2".into());
    let old = owned("f-old");
    let pods = [old, alone, young, cheap, unready, unscheduled];
    let plan = decide(&rs(0), &pods.iter().collect::<Vec<_>>(), t("2026-01-03T00:00:00Z"));
    assert_eq!(names(&plan.delete), ["b-unscheduled", "c-unready", "d-cheap", "e-young", "f-old", "a-alone"]);
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut r = rs(1);
    r.spec.as_mut().unwrap().min_ready_seconds = Some(30);
    let p = pod("p", "web", Some("u1"));
    let plan = decide(&r, &[&p], t("2026-01-01T00:00:15Z"));
    assert_eq!((plan.status.ready_replicas, plan.status.available_replicas), (Some(1), Some(0)));
    assert_eq!(plan.wake_after, Some(Duration::from_secs(25)));
    let plan = decide(&r, &[&p], t("2026-01-01T00:00:40Z"));
    assert_eq!((plan.status.available_replicas, plan.wake_after), (Some(1), None));
}

#[test]
fn batches_double() {
    assert_eq!(batches(10).collect::<Vec<_>>(), [1, 2, 4, 3]);
    assert_eq!(batches(0).count(), 0);
}

proptest! {
    /// Applying the plan reaches the wanted count, whatever pods there were, and then nothing is left to do.
    #[test]
    fn converges(want in 0i32..8, states in prop::collection::vec((0u8..4, 0u8..3, any::<bool>()), 0..12)) {
        let now = t("2026-01-01T01:00:00Z");
        let mut pods: Vec<Pod> = states.iter().enumerate().map(|(i, (phase, owner, deleting))| {
            let mut p = pod(&format!("p{i}"), "web", [None, Some("u1"), Some("u2")][usize::from(*owner)]);
            p.status.as_mut().unwrap().phase = Some(["Pending", "Running", "Failed", "Succeeded"][usize::from(*phase)].into());
            if *deleting { p.metadata.deletion_timestamp = Some(Time(now)); }
            p
        }).collect();
        let foreign: Vec<Pod> = pods.iter().filter(|p| meta::controlled_by(&p.metadata, "u2")).cloned().collect();
        let r = rs(want);
        let plan = decide(&r, &pods.iter().collect::<Vec<_>>(), now);
        for p in &mut pods {
            if plan.adopt.contains(&pod_ref(p)) {
                p.metadata.owner_references = pod("x", "web", Some("u1")).metadata.owner_references;
            }
        }
        pods.retain(|p| !plan.delete.contains(&pod_ref(p)));
        for i in 0..plan.create { pods.push(pod(&format!("new{i}"), "web", Some("u1"))); }
        let again = decide(&r, &pods.iter().collect::<Vec<_>>(), now);
        prop_assert_eq!((again.create, again.delete.len(), again.adopt.len(), again.release.len()), (0, 0, 0, 0));
        prop_assert_eq!(again.status.replicas, want);
        prop_assert!(foreign.iter().all(|p| pods.contains(p)), "a foreign pod was touched");
    }
}
