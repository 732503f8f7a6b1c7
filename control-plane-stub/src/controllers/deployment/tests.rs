use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn t(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn deployment(extra: Value) -> Deployment {
    let mut v = json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "u1", "generation": 1},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v0"}]}}}
    });
    json_patch::merge(&mut v, &extra);
    serde_json::from_value(v).unwrap()
}

#[derive(Debug, Clone)]
struct ModelPod {
    id: usize,
    set: String,
    ready: bool,
}

/// A cluster of one Deployment. The ReplicaSet side is modelled by hand, with its status written separately from its
/// pods, so that the Deployment sees every kind of stale status.
struct Model {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    pods: Vec<ModelPod>,
    next: usize,
    clock: i64,
}

impl Model {
    fn new(deployment: Deployment) -> Self {
        Model { deployment, sets: vec![], pods: vec![], next: 0, clock: 0 }
    }

    fn api_pods(&self) -> Vec<Pod> {
        let of = |p: &ModelPod| {
            let rs = self.sets.iter().find(|rs| meta::name(&rs.metadata) == p.set);
            let uid = rs.map(|rs| meta::uid(&rs.metadata)).unwrap_or_default();
            serde_json::from_value(
                json!({"metadata": {"name": format!("p{}", p.id), "ownerReferences": [{"apiVersion": "apps/v1",
                "kind": "ReplicaSet", "name": p.set, "uid": uid, "controller": true}]}, "status": {"phase": "Running"}}),
            )
            .unwrap()
        };
        self.pods.iter().map(of).collect()
    }

    fn decide(&mut self) -> Plan {
        self.clock += 1;
        let pods = self.api_pods();
        let sets: Vec<&ReplicaSet> = self.sets.iter().collect();
        decide(&self.deployment, &sets, &pods.iter().collect::<Vec<_>>(), t(self.clock))
    }

    /// One sync of the Deployment controller; whether it changed anything but the status.
    fn sync(&mut self) -> bool {
        let plan = self.decide();
        let wrote = plan.create.is_some() || !plan.change.is_empty() || !plan.delete.is_empty() || plan.revision.is_some();
        if let Some(mut rs) = plan.create {
            assert!(self.sets.iter().all(|s| s.metadata.name != rs.metadata.name), "a ReplicaSet is made twice");
            rs.metadata.uid = Some(format!("rs{}", self.sets.len()));
            rs.metadata.generation = Some(1);
            rs.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(t(self.clock)));
            self.sets.push(rs);
        }
        for c in plan.change {
            let rs = self.sets.iter_mut().find(|rs| meta::name(&rs.metadata) == c.name).unwrap();
            assert_eq!(size(rs), c.from);
            rs.spec.as_mut().unwrap().replicas = Some(c.to);
            rs.metadata.annotations = Some(c.annotations);
            *rs.metadata.generation.as_mut().unwrap() += 1;
        }
        for name in plan.delete {
            assert!(!self.pods.iter().any(|p| p.set == name), "a ReplicaSet with pods was deleted");
            self.sets.retain(|rs| meta::name(&rs.metadata) != name);
        }
        if let Some(revision) = plan.revision {
            self.deployment.metadata.annotations.get_or_insert_default().insert(revision::REVISION.into(), revision);
        }
        self.deployment.status = Some(plan.status);
        wrote
    }

    /// One sync of the ReplicaSet controller for the set at this index: pods first, status only if asked.
    fn sync_set(&mut self, at: usize, status: bool) {
        let Some(rs) = self.sets.get_mut(at) else { return };
        let name = meta::name(&rs.metadata).to_string();
        let want = size(rs) as usize;
        self.pods.sort_by_key(|p| (p.ready, std::cmp::Reverse(p.id)));
        while self.pods.iter().filter(|p| p.set == name).count() > want {
            let victim = self.pods.iter().position(|p| p.set == name).unwrap();
            self.pods.remove(victim);
        }
        while self.pods.iter().filter(|p| p.set == name).count() < want {
            self.next += 1;
            self.pods.push(ModelPod { id: self.next, set: name.clone(), ready: false });
        }
        if status {
            let ready = self.pods.iter().filter(|p| p.set == name && p.ready).count() as i32;
            let s = rs.status.get_or_insert_default();
            s.replicas = want as i32;
            s.ready_replicas = Some(ready);
            s.available_replicas = Some(ready);
            s.observed_generation = rs.metadata.generation;
        }
    }

    fn set_image(&mut self, n: u8) {
        self.deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(format!("v{n}"));
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn ready(&self) -> i32 {
        self.pods.iter().filter(|p| p.ready).count() as i32
    }

    /// Everything goes on and nothing fails any more.
    fn settle(&mut self) {
        for _ in 0..200 {
            let wrote = self.sync();
            let before = format!("{:?}", self.pods);
            for at in 0..self.sets.len() {
                self.sync_set(at, true);
            }
            self.pods.iter_mut().for_each(|p| p.ready = true);
            if !wrote && before == format!("{:?}", self.pods) && self.sync_done() {
                return;
            }
        }
        panic!("no end: {:#?}", self.decide());
    }

    fn sync_done(&mut self) -> bool {
        for at in 0..self.sets.len() {
            self.sync_set(at, true);
        }
        !self.sync()
    }

    fn assert_complete(&self) {
        let want = self.deployment.spec.as_ref().unwrap().replicas.unwrap();
        let s = self.deployment.status.as_ref().unwrap();
        assert_eq!((s.replicas, s.updated_replicas, s.available_replicas), (Some(want), Some(want), Some(want)));
        assert_eq!((s.unavailable_replicas, s.observed_generation), (Some(0), self.deployment.metadata.generation));
        let image = self.deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].image.clone();
        let with_pods: Vec<_> = self.sets.iter().filter(|rs| size(rs) > 0).collect();
        assert!(with_pods.len() <= 1);
        let newest = self.sets.iter().max_by_key(|rs| revision::number(rs)).unwrap();
        assert_eq!(newest.spec.as_ref().unwrap().template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image, image);
        assert_eq!(
            meta::annotation(&self.deployment.metadata, revision::REVISION),
            meta::annotation(&newest.metadata, revision::REVISION)
        );
        let mut numbers: Vec<i64> = self.sets.iter().map(revision::number).collect();
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), self.sets.len(), "two ReplicaSets have one revision");
    }
}

fn reason(d: &Deployment, kind: &str) -> String {
    condition(d, kind).map(|c| format!("{} {}", c.status, c.reason.clone().unwrap())).unwrap_or_default()
}

#[test]
fn a_first_rollout_goes_through_the_reasons_that_kubectl_reads() {
    let mut m = Model::new(deployment(json!({})));
    m.sync();
    assert_eq!(reason(&m.deployment, "Progressing"), "True NewReplicaSetCreated");
    assert_eq!(reason(&m.deployment, "Available"), "False MinimumReplicasUnavailable");
    m.sync_set(0, true);
    m.sync();
    assert_eq!(reason(&m.deployment, "Progressing"), "True ReplicaSetUpdated");
    m.settle();
    m.assert_complete();
    assert_eq!(reason(&m.deployment, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(reason(&m.deployment, "Available"), "True MinimumReplicasAvailable");
    let rs = &m.sets[0];
    let hash = meta::label(&rs.metadata, HASH).unwrap();
    assert_eq!(meta::name(&rs.metadata), format!("web-{hash}"));
    assert_eq!(rs.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()[HASH], hash);
    assert_eq!(meta::annotation(&m.deployment.metadata, revision::REVISION), Some("1"));
    assert!(m.decide().wake_after.is_none());
}

#[test]
fn undo_gives_the_old_set_a_new_revision() {
    let mut m = Model::new(deployment(json!({"metadata": {"annotations": {"kubernetes.io/change-cause": "first"}}})));
    m.settle();
    m.set_image(1);
    m.settle();
    m.set_image(0);
    m.settle();
    m.assert_complete();
    assert_eq!(m.sets.len(), 2);
    assert_eq!(revision::number(&m.sets[0]), 3);
    assert_eq!(meta::annotation(&m.sets[0].metadata, revision::HISTORY), Some("1"));
    assert_eq!(meta::annotation(&m.sets[0].metadata, "kubernetes.io/change-cause"), Some("first"));
}

#[test]
fn the_deadline_passes_and_is_said() {
    let mut m = Model::new(deployment(json!({})));
    m.sync();
    m.sync_set(0, true);
    m.sync();
    let plan = m.decide();
    assert_eq!(plan.wake_after.map(|d| d.as_secs()), Some(599));
    m.clock += 700;
    m.sync();
    assert_eq!(reason(&m.deployment, "Progressing"), "False ProgressDeadlineExceeded");
    assert_eq!(m.decide().wake_after, None);
    m.settle();
    assert_eq!(reason(&m.deployment, "Progressing"), "True NewReplicaSetAvailable", "late is still done");
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut m = Model::new(deployment(json!({})));
    m.settle();
    m.set_image(1);
    m.deployment.spec.as_mut().unwrap().paused = Some(true);
    m.deployment.spec.as_mut().unwrap().replicas = Some(5);
    m.settle();
    assert_eq!((m.sets.len(), size(&m.sets[0])), (1, 5));
    assert_eq!(reason(&m.deployment, "Progressing"), "Unknown DeploymentPaused");
    m.deployment.spec.as_mut().unwrap().paused = Some(false);
    m.sync();
    assert_eq!(reason(&m.deployment, "Progressing"), "Unknown DeploymentResumed");
    m.settle();
    m.assert_complete();
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut m = Model::new(deployment(json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}})));
    m.settle();
    m.set_image(1);
    m.sync();
    assert_eq!((m.sets.len(), size(&m.sets[0])), (1, 0));
    m.sync();
    assert_eq!(m.sets.len(), 1, "old pods are still there");
    m.sync_set(0, true);
    m.sync();
    assert_eq!((m.sets.len(), size(&m.sets[1])), (2, 3));
    m.settle();
    m.assert_complete();
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut m = Model::new(deployment(json!({"spec": {"revisionHistoryLimit": 2}})));
    for image in 0..5 {
        m.set_image(image);
        m.settle();
    }
    let mut kept: Vec<i64> = m.sets.iter().map(revision::number).collect();
    kept.sort();
    assert_eq!(kept, [3, 4, 5]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_proportions() {
    let mut m = Model::new(deployment(
        json!({"spec": {"replicas": 10, "strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}}),
    ));
    m.settle();
    m.set_image(1);
    m.sync();
    m.sync();
    assert_eq!(m.sets.iter().map(size).collect::<Vec<_>>(), [8, 3]);
    m.sync_set(0, true);
    m.sync_set(1, true);
    m.sync();
    assert_eq!(m.sets.iter().map(size).collect::<Vec<_>>(), [8, 5]);
    m.deployment.spec.as_mut().unwrap().replicas = Some(15);
    m.sync();
    assert_eq!(m.sets.iter().map(size).collect::<Vec<_>>(), [11, 7]);
    m.settle();
    m.assert_complete();
}

#[test]
fn bounds_round_as_the_api_says() {
    let b = |surge: &str, unavailable: &str, n| {
        let v = |s: &str| s.parse::<i32>().map_or_else(|_| json!(s), |i| json!(i));
        let r = serde_json::from_value(json!({"maxSurge": v(surge), "maxUnavailable": v(unavailable)})).unwrap();
        rolling::bounds(Some(&r), n)
    };
    assert_eq!(b("25%", "25%", 10), (3, 2));
    assert_eq!(b("25%", "25%", 1), (1, 0));
    assert_eq!(b("0", "0", 5), (0, 1));
    assert_eq!(b("0", "1%", 5), (0, 1));
    assert_eq!(b("0", "9", 5), (0, 5));
    assert_eq!(rolling::bounds(None, 3), (1, 0));
}

#[test]
fn the_hash_ignores_itself_and_is_stable() {
    let d = deployment(json!({}));
    let mut template = d.spec.unwrap().template;
    let first = revision::hash(&template, 0);
    assert_eq!(first, "mv6sld8mg4", "a changed hash would roll every deployment on an upgrade");
    template.metadata.as_mut().unwrap().labels.as_mut().unwrap().insert(HASH.into(), first.clone());
    assert_eq!(revision::hash(&template, 0), first);
    assert_ne!(revision::hash(&template, 1), first);
}

#[test]
fn orphans_are_adopted_and_strangers_left() {
    let mut m = Model::new(deployment(json!({})));
    m.settle();
    m.sets[0].metadata.owner_references = None;
    let plan = m.decide();
    assert_eq!((plan.adopt.len(), plan.create.is_some()), (1, false));
    m.sets[0].metadata.owner_references =
        Some(vec![meta::controller_ref("apps/v1", "Deployment", &ObjectMeta { uid: Some("x".into()), ..Default::default() })]);
    let plan = m.decide();
    assert_eq!((plan.adopt.len(), plan.create.is_some()), (0, true));
}

#[derive(Debug, Clone)]
enum Op {
    Sync,
    Set(usize, bool),
    Ready(usize),
    Fail(usize),
    Die(usize),
    Image(u8),
    Scale(i32),
}

fn op(failures: bool) -> impl Strategy<Value = Op> {
    let calm = prop_oneof![
        6 => Just(Op::Sync),
        6 => (0usize..4, any::<bool>()).prop_map(|(a, b)| Op::Set(a, b)),
        6 => (0usize..20).prop_map(Op::Ready),
        1 => (0u8..4).prop_map(Op::Image),
    ];
    let wild = prop_oneof![
        2 => (0usize..20).prop_map(Op::Fail),
        1 => (0usize..20).prop_map(Op::Die),
        1 => (0i32..9).prop_map(Op::Scale),
    ];
    prop_oneof![8 => calm.boxed(), (if failures { 3 } else { 0 }) => wild.boxed()]
}

fn step(m: &mut Model, op: &Op) {
    let pods = m.pods.len().max(1);
    match op {
        Op::Sync => drop(m.sync()),
        Op::Set(at, status) => m.sync_set(*at, *status),
        Op::Ready(n) => m.pods.iter_mut().skip(n % pods).take(1).for_each(|p| p.ready = true),
        Op::Fail(n) => m.pods.iter_mut().skip(n % pods).take(1).for_each(|p| p.ready = false),
        Op::Die(n) => drop((!m.pods.is_empty()).then(|| m.pods.remove(n % pods))),
        Op::Image(n) => m.set_image(*n),
        Op::Scale(n) => m.deployment.spec.as_mut().unwrap().replicas = Some(*n),
    }
}

fn strategy() -> impl Strategy<Value = Value> {
    let amount = prop_oneof![(0i32..4).prop_map(|n| json!(n)), (0i32..=100).prop_map(|n| json!(format!("{n}%")))];
    (amount.clone(), amount, 1i32..8).prop_map(|(surge, unavailable, replicas)| {
        json!({"spec": {"replicas": replicas, "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}})
    })
}

proptest! {
    /// Whatever fails in between, once it stops the newest template has all the pods.
    #[test]
    fn it_converges(extra in strategy(), ops in prop::collection::vec(op(true), 0..60)) {
        let mut m = Model::new(deployment(extra));
        for op in &ops {
            step(&mut m, op);
        }
        m.settle();
        m.assert_complete();
    }

    /// While no pod fails by itself, there are never more pods than the surge allows, nor fewer ready ones than the
    /// strategy promises, however the controllers' steps interleave and however stale the statuses are.
    #[test]
    fn the_bounds_hold(extra in strategy(), ops in prop::collection::vec(op(false), 0..80)) {
        let mut m = Model::new(deployment(extra));
        m.settle();
        let spec = m.deployment.spec.clone().unwrap();
        let want = spec.replicas.unwrap();
        let (surge, unavailable) = rolling::bounds(spec.strategy.as_ref().unwrap().rolling_update.as_ref(), want);
        for op in &ops {
            step(&mut m, op);
            let sizes: i32 = m.sets.iter().map(size).sum();
            prop_assert!(sizes <= want + surge, "{sizes} pods asked for, {want} + {surge} allowed");
            prop_assert!(m.ready() >= want - unavailable, "{} ready, {want} - {unavailable} promised", m.ready());
        }
        m.settle();
        m.assert_complete();
    }
}
