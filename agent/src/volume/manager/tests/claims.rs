//! Claims of pods, and the volumes behind them.

use super::*;

/// A pod with one volume, mounted at /v.
fn user(uid: &str, volume: Value, block: bool) -> Pod {
    let mut volume = volume;
    volume["name"] = json!("v");
    let list = if block { "volumeDevices" } else { "volumeMounts" };
    let at = if block { json!([{"name": "v", "devicePath": "/dev/v"}]) } else { json!([{"name": "v", "mountPath": "/v"}]) };
    let mut pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": uid},
        "spec": {"volumes": [volume], "containers": [{"name": "c"}]}});
    pod["spec"]["containers"][0][list] = at;
    serde_json::from_value(pod).unwrap()
}

fn claimed(read_only: bool) -> Value {
    json!({"persistentVolumeClaim": {"claimName": "c", "readOnly": read_only}})
}

impl Bench {
    fn claim(&self, name: &str, phase: &str, owner: Option<&str>) {
        let mut claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("{name}-uid")},
            "spec": {"volumeName": "pv-1.a"}, "status": {"phase": phase}});
        if let Some(uid) = owner {
            claim["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]);
        }
        self.api.put("persistentvolumeclaims", name, claim);
    }

    fn volume(&self, claim: &str, more: Value) {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "ns", "name": claim, "uid": format!("{claim}-uid")}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let volume = json!({"metadata": {"name": "pv-1.a", "uid": "pv-uid"}, "spec": spec});
        self.api.put_cluster("persistentvolumes", "pv-1.a", volume);
    }

    async fn tried(&self, pod: &Pod) -> std::result::Result<Prepared, String> {
        let context = PodContext { node_name: "n".into(), ..PodContext::default() };
        self.manager.prepare(pod, &context).await.map_err(|e| crate::api::watch::chain(&e))
    }

    async fn refused(&self, pod: &Pod) -> String {
        self.tried(pod).await.unwrap_err()
    }
}

#[tokio::test]
async fn what_is_missing_is_said_until_it_is_there() {
    let b = bench();
    let pod = user("u-1", claimed(false), false);
    let start = "volume \"v\": error processing PVC ns/c: ";
    let text = format!("{start}failed to fetch PVC from API server: persistentvolumeclaims \"c\" not found");
    assert_eq!(b.refused(&pod).await, text);
    b.claim("c", "Pending", None);
    assert_eq!(b.refused(&pod).await, format!("{start}PVC is not bound"));
    b.claim("c", "Bound", None);
    let text = format!("{start}failed to fetch PV pv-1.a from API server: persistentvolumes \"pv-1.a\" not found");
    assert_eq!(b.refused(&pod).await, text);
    b.volume("other", json!({"hostPath": {"path": "/tmp"}}));
    assert!(b.refused(&pod).await.ends_with("ClaimRef.UID other-uid does not point to claim.UID c-uid"));
    let terms = json!([{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast"]}]}]);
    let affinity = json!({"required": {"nodeSelectorTerms": terms}});
    b.volume("c", json!({"hostPath": {"path": "/tmp", "type": "Directory"}, "nodeAffinity": affinity}));
    b.api.put_cluster("nodes", "n", json!({"metadata": {"name": "n", "labels": {"disk": "slow"}}}));
    let text = "MountVolume.NodeAffinity check failed for volume \"pv-1.a\" : no matching NodeSelectorTerms";
    assert_eq!(b.refused(&pod).await, text);
    b.api.put_cluster("nodes", "n", json!({"metadata": {"name": "n", "labels": {"disk": "fast"}}}));
    let ready = b.tried(&pod).await.unwrap();
    assert_eq!(ready.host_paths["v"], Path::new("/tmp"));
    // What it has it keeps, whatever the API says later, also in another agent's hands.
    b.api.objects.lock().unwrap().clear();
    assert_eq!(b.tried(&pod).await.unwrap(), ready);
    b.manager.teardown("u-1").await.unwrap();
    assert!(b.refused(&pod).await.contains("not found"));
}

#[tokio::test]
async fn what_no_container_uses_is_not_waited_for() {
    let b = bench();
    for volume in [claimed(false), json!({"secret": {"secretName": "missing"}}), json!({"nfs": {"server": "s", "path": "/"}})] {
        let mut pod = user("u-1", volume, false);
        pod.spec.as_mut().unwrap().containers[0].volume_mounts = None;
        assert!(b.tried(&pod).await.unwrap().host_paths.is_empty());
    }
    let mut pod = user("u-1", json!({"emptyDir": {}}), false);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.volume_mounts = None;
    let file = json!([{"name": "E", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}}]);
    container.env = Some(serde_json::from_value(file).unwrap());
    assert!(b.tried(&pod).await.unwrap().host_paths.contains_key("v"));
}

#[tokio::test]
async fn a_pods_own_claim() {
    let b = bench();
    let own = json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}});
    let pod = user("u-1", own, false);
    b.volume("p-v", json!({"hostPath": {"path": "/tmp"}}));
    b.claim("p-v", "Bound", Some("somebody-else"));
    assert!(b.refused(&pod).await.ends_with("ns/p-v: PVC was not created for the pod (pod is not owner)"));
    b.claim("p-v", "Bound", Some("u-1"));
    assert_eq!(b.tried(&pod).await.unwrap().host_paths["v"], Path::new("/tmp"));
}

#[tokio::test]
async fn a_volume_for_one_pod_alone() {
    let b = bench();
    b.claim("c", "Bound", None);
    b.volume("c", json!({"hostPath": {"path": "/tmp"}, "accessModes": ["ReadWriteOncePod"]}));
    let (first, second) = (user("u-1", claimed(false), false), user("u-2", claimed(true), false));
    b.tried(&first).await.unwrap();
    let text = "MountVolume.SetUp failed for volume \"pv-1.a\" : volume uses the ReadWriteOncePod access mode and is already in use by another pod";
    assert_eq!(b.refused(&second).await, text);
    b.tried(&first).await.unwrap();
    b.manager.teardown("u-1").await.unwrap();
    assert!(b.tried(&second).await.unwrap().read_only.contains("v"));
}

#[tokio::test]
async fn what_cannot_be_made_is_not_held() {
    let b = bench();
    b.claim("c", "Bound", None);
    b.volume("c", json!({"local": {"path": "/nowhere"}, "accessModes": ["ReadWriteOncePod"]}));
    let error = b.refused(&user("u-1", claimed(false), false)).await;
    assert!(error.starts_with("MountVolume.SetUp failed for volume \"pv-1.a\" : local volume /nowhere: No such file"), "{error}");
    b.volume("c", json!({"hostPath": {"path": "/tmp"}, "accessModes": ["ReadWriteOncePod"]}));
    b.tried(&user("u-2", claimed(false), false)).await.unwrap();
    b.volume("c", json!({"local": {"path": "/dev/null"}, "volumeMode": "Block"}));
    let error = b.refused(&user("u-3", claimed(false), true)).await;
    assert_eq!(error, "MapVolume.SetUpDevice failed for volume \"pv-1.a\" : /dev/null is not a block device");
}

#[tokio::test]
async fn local_volumes_are_bound_shared_and_outlive_the_pod() {
    if !may_mount("local_volumes_are_bound_shared_and_outlive_the_pod") {
        return;
    }
    let b = bench();
    let disk = tempfile::tempdir().unwrap();
    std::fs::create_dir(disk.path().join("deep")).unwrap();
    std::fs::write(disk.path().join("deep/kept"), "data").unwrap();
    b.claim("c", "Bound", None);
    b.volume("c", json!({"local": {"path": disk.path()}}));
    let mut one = user("u-1", claimed(false), false);
    one.spec.as_mut().unwrap().security_context = Some(serde_json::from_value(json!({"fsGroup": 4321})).unwrap());
    let first = b.tried(&one).await.unwrap();
    let at = b.root.0.path().join("pods/u-1/volumes/kubernetes.io~local-volume/pv-1.a");
    assert_eq!((first.host_paths["v"].clone(), read(&first, "v", "deep/kept")), (at.clone(), "data".to_owned()));
    let group = |path: &str| std::fs::metadata(disk.path().join(path)).unwrap().gid();
    assert_eq!([group("."), group("deep"), group("deep/kept")], [4321; 3]);
    let two = b.tried(&user("u-2", claimed(true), false)).await.unwrap();
    assert_eq!(read(&two, "v", "deep/kept"), "data");
    assert!(std::fs::write(two.host_paths["v"].join("no"), "x").is_err());
    std::fs::write(at.join("new"), "x").unwrap();
    assert_eq!(b.tried(&one).await.unwrap(), first);
    // As after a reboot: the record is there, the mount is not.
    mounts::unmount(&at.canonicalize().unwrap()).unwrap();
    b.api.objects.lock().unwrap().clear();
    assert_eq!(read(&b.tried(&one).await.unwrap(), "v", "new"), "x");
    // Something is mounted deep inside when the pod goes.
    let inside = rustix::fs::openat(rustix::fs::CWD, at.join("deep"), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
    mounts::tmpfs(inside.unwrap().as_fd(), None).unwrap();
    b.manager.teardown("u-1").await.unwrap();
    b.manager.teardown("u-2").await.unwrap();
    assert!(b.manager.list_pod_dirs().await.unwrap().is_empty());
    assert_eq!(std::fs::read_to_string(disk.path().join("deep/kept")).unwrap(), "data");
    assert!(disk.path().join("new").exists());
}
