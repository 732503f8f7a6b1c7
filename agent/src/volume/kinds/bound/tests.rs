use super::*;
use serde_json::{Value, json};

const MOUNTED: Used = Used { mounted: true, device: false, read: false };
const DEVICE: Used = Used { mounted: false, device: true, read: false };

fn claim() -> Value {
    json!({"metadata": {"name": "c", "namespace": "ns", "uid": "claim-uid"}, "spec": {"volumeName": "pv"},
        "status": {"phase": "Bound"}})
}

fn volume(more: Value) -> PersistentVolume {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "claimRef": {"namespace": "ns", "name": "c", "uid": "claim-uid"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "pv", "uid": "pv-uid"}, "spec": spec})).unwrap()
}

fn named(claim: &Value, pod: Option<&Pod>) -> std::result::Result<String, String> {
    let claim: PersistentVolumeClaim = serde_json::from_value(claim.clone()).unwrap();
    volume_of(&claim, pod).map(str::to_owned).map_err(|e| e.to_string())
}

fn taken(volume: &PersistentVolume, used: Used) -> std::result::Result<Bound, String> {
    let claim: PersistentVolumeClaim = serde_json::from_value(claim()).unwrap();
    bound("v", &claim, volume, used, false).map_err(|e| e.to_string())
}

#[test]
fn a_claim_names_its_volume_once_it_is_bound() {
    assert_eq!(named(&claim(), None).as_deref(), Ok("pv"));
    let with = |path: &str, value: Value| {
        let mut claim = claim();
        *claim.pointer_mut(path).unwrap() = value;
        claim
    };
    assert_eq!(named(&with("/status/phase", json!("Pending")), None).unwrap_err(), "PVC is not bound");
    assert_eq!(named(&with("/status/phase", json!("Lost")), None).unwrap_err(), "PVC is not bound");
    assert_eq!(named(&with("/spec/volumeName", json!("")), None).unwrap_err(), "PVC has empty pvc.Spec.VolumeName");
    let mut going = claim();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(named(&going, None).unwrap_err(), "PVC is being deleted");
    going["metadata"]["finalizers"] = json!([PROTECTED]);
    assert_eq!(named(&going, None).as_deref(), Ok("pv"));
}

#[test]
fn a_pods_own_claim_is_owned_by_the_pod() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "pod-uid"}})).unwrap();
    let owned = |owner: Value| {
        let mut claim = claim();
        claim["metadata"]["ownerReferences"] = json!([owner]);
        named(&claim, Some(&pod))
    };
    let owner = |uid: &str, controller: bool| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": controller});
    assert_eq!(owned(owner("pod-uid", true)).as_deref(), Ok("pv"));
    for wrong in [owner("other", true), owner("pod-uid", false)] {
        assert_eq!(owned(wrong).unwrap_err(), "PVC was not created for the pod (pod is not owner)");
    }
}

#[test]
fn a_volume_must_point_back() {
    let path = json!({"hostPath": {"path": "/x", "type": "Directory"}});
    let found = taken(&volume(path.clone()), MOUNTED).unwrap();
    assert_eq!(found.source, Source::HostPath { path: "/x".into(), kind: Some("Directory".into()) });
    let mut other = volume(path.clone());
    other.spec.as_mut().unwrap().claim_ref.as_mut().unwrap().uid = Some("else".into());
    let text = "found PV object pv but its pv.Spec.ClaimRef.UID else does not point to claim.UID claim-uid";
    assert_eq!(taken(&other, MOUNTED).unwrap_err(), text);
    other.spec.as_mut().unwrap().claim_ref.as_mut().unwrap().uid = None;
    assert!(taken(&other, MOUNTED).is_err());
    other.spec.as_mut().unwrap().claim_ref = None;
    assert!(taken(&other, MOUNTED).unwrap_err().contains("nil pv.Spec.ClaimRef"));
}

#[test]
fn modes_and_kinds() {
    let local = |mode: &str| volume(json!({"local": {"path": "/dev/x"}, "volumeMode": mode}));
    assert!(taken(&local("Block"), DEVICE).unwrap().block);
    assert_eq!(taken(&local("Block"), MOUNTED).unwrap_err(), "volume v has volumeMode Block, but is specified in volumeMounts");
    let text = "volume v has volumeMode Filesystem, but is specified in volumeDevices";
    assert_eq!(taken(&local("Filesystem"), DEVICE).unwrap_err(), text);
    let csi = volume(json!({"csi": {"driver": "d", "volumeHandle": "h"}}));
    let text = "PersistentVolume pv: volumes of type csi are not supported by this agent";
    assert_eq!(taken(&csi, MOUNTED).unwrap_err(), text);
    let block = volume(json!({"hostPath": {"path": "/dev/x"}, "volumeMode": "Block"}));
    assert!(taken(&block, DEVICE).unwrap_err().contains("hostPath with volumeMode Block"));
    let nfs = volume(json!({"nfs": {"server": "s", "path": "/p", "readOnly": true}, "mountOptions": ["hard"]}));
    let nfs = taken(&nfs, MOUNTED).unwrap();
    assert!(nfs.read_only && nfs.options == ["hard"] && !nfs.alone);
    let alone = |modes: Value| taken(&volume(json!({"local": {"path": "/x"}, "accessModes": modes})), MOUNTED).unwrap().alone;
    assert!(alone(json!(["ReadWriteOncePod"])) && !alone(json!(["ReadWriteOncePod", "ReadWriteOnce"])));
}
