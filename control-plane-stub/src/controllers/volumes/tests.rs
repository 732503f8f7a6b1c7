use super::*;
use serde_json::{Value, json};

fn volume(name: &str, size: &str, more: Value) -> PersistentVolume {
    let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"disk": name}}, "spec": spec})).unwrap()
}

fn claim(more: Value) -> PersistentVolumeClaim {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap()
}

fn chosen<'a>(claim: &PersistentVolumeClaim, all: &'a [PersistentVolume]) -> Option<&'a str> {
    choose(claim, all.iter()).map(|v| meta::name(&v.metadata))
}

#[test]
fn the_smallest_that_will_do() {
    let back = |uid: &str| json!({"claimRef": {"namespace": "ns", "name": "c", "uid": uid}});
    let all = [
        volume("big", "20Gi", json!({})),
        volume("small", "1Gi", json!({})),
        volume("fits", "6Gi", json!({})),
        volume("taken", "5Gi", back("another")),
        volume("class", "5Gi", json!({"storageClassName": "fast"})),
        volume("block", "5Gi", json!({"volumeMode": "Block"})),
    ];
    assert_eq!(chosen(&claim(json!({})), &all), Some("fits"));
    assert_eq!(chosen(&claim(json!({"storageClassName": "fast"})), &all), Some("class"));
    assert_eq!(chosen(&claim(json!({"volumeMode": "Block"})), &all), Some("block"));
    assert_eq!(chosen(&claim(json!({"accessModes": ["ReadWriteMany"]})), &all), None);
    assert_eq!(chosen(&claim(json!({"volumeName": "big"})), &all), Some("big"));
    assert_eq!(chosen(&claim(json!({"volumeName": "taken"})), &all), None);
    assert_eq!(chosen(&claim(json!({"selector": {"matchLabels": {"disk": "big"}}})), &all), Some("big"));
    // One that was kept for the claim by name, or was bound to it by a binder that got no further.
    for uid in ["", "u"] {
        let mut all = all.to_vec();
        all.push(volume("kept", "50Gi", back(uid)));
        assert_eq!(chosen(&claim(json!({})), &all), Some("kept"));
    }
}

#[test]
fn claims_that_pods_bring() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "pod-uid"},
        "spec": {"containers": [], "volumes": [
            {"name": "plain", "emptyDir": {}},
            {"name": "data", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}},
                "spec": {"accessModes": ["ReadWriteOnce"]}}}}]}}))
    .unwrap();
    assert_eq!(own_claims(&pod).collect::<Vec<_>>(), [Key::new("ns", "p-data")]);
    assert_eq!(own_claim(&pod, "p-plain"), None);
    let claim = own_claim(&pod, "p-data").unwrap();
    assert_eq!(claim.metadata.owner_references.unwrap()[0].uid, "pod-uid");
    assert_eq!(claim.metadata.labels.unwrap()["a"], "b");
    assert_eq!(claim.spec.unwrap().access_modes.unwrap(), ["ReadWriteOnce"]);
}
