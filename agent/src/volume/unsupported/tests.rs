use super::*;
use serde_json::json;

fn fields(spec: serde_json::Value) -> Vec<String> {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    unsupported(&pod).into_iter().map(|u| u.field).collect()
}

#[test]
fn each_is_named_by_its_field() {
    let spec = json!({
        "containers": [{"name": "c", "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]}],
        "volumes": [
            {"name": "a", "configMap": {"name": "x"}},
            {"name": "b", "csi": {"driver": "x"}},
            {"name": "c", "iscsi": {"targetPortal": "s", "iqn": "i", "lun": 0}},
            {"name": "d", "emptyDir": {"medium": "HugePages"}},
            {"name": "e", "emptyDir": {"medium": "Memory"}},
            {"name": "f", "hostPath": {"path": "/x"}},
            {"name": "g", "projected": {"sources": [{"secret": {"name": "s"}}, {"clusterTrustBundle": {"path": "p"}}]}},
            {"name": "h", "rbd": {"image": "i", "monitors": []}},
            {"name": "i"}
        ]
    });
    let expected = ["spec.volumes[1].csi", "spec.volumes[2].iscsi", "spec.volumes[7].rbd", "spec.volumes[8].source"];
    assert_eq!(fields(spec), expected);
}

#[test]
fn a_plain_pod_has_none() {
    assert!(fields(json!({"containers": []})).is_empty());
    assert!(unsupported(&Pod::default()).is_empty());
}
