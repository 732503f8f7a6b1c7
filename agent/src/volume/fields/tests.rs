use super::*;
use serde_json::json;

fn pod() -> Pod {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u",
            "labels": {"app": "web", "b/c": "2"}, "annotations": {"note": "line\n\"two\"\\"}},
        "spec": {"serviceAccountName": "sa", "containers": [
            {"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}},
            {"name": "bare"}], "initContainers": [{"name": "init"}]}
    });
    serde_json::from_value(pod).unwrap()
}

fn context() -> PodContext {
    PodContext {
        node_name: "n".into(),
        host_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        pod_ips: vec!["10.244.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        allocatable: BTreeMap::from([("cpu".into(), Quantity::from_units(2)), ("memory".into(), Quantity::from_bytes(1 << 30))]),
    }
}

#[test]
fn fields_of_the_pod() {
    let cases = [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['b/c']", "2"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['note']", "line\n\"two\"\\"),
        ("metadata.labels", "app=\"web\"\nb/c=\"2\""),
        ("metadata.annotations", "note=\"line\\n\\\"two\\\"\\\\\""),
        ("spec.nodeName", "n"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "10.0.0.1"),
        ("status.hostIPs", "10.0.0.1,fd00::1"),
        ("status.podIP", "10.244.0.5"),
        ("status.podIPs", "10.244.0.5,fd00::5"),
    ];
    for (path, value) in cases {
        assert_eq!(field_value(&pod(), path, &context()).as_deref(), Ok(value), "{path}");
    }
    for path in ["spec.x", "metadata.labels[app]", "metadata.labels['a", "spec['x']", "metadata.labels['']", ""] {
        assert!(field_value(&pod(), path, &context()).is_err(), "{path}");
    }
}

#[test]
fn resources_of_a_container() {
    let value = |container, resource, divisor| resource_value(&pod(), container, resource, divisor, &context());
    assert_eq!(value("c", "limits.cpu", None).as_deref(), Ok("1"));
    assert_eq!(value("c", "limits.cpu", Some("0")).as_deref(), Ok("1"));
    assert_eq!(value("c", "limits.cpu", Some("1m")).as_deref(), Ok("250"));
    assert_eq!(value("c", "requests.cpu", Some("1m")).as_deref(), Ok("100"));
    assert_eq!(value("c", "limits.memory", Some("1Mi")).as_deref(), Ok("64"));
    assert_eq!(value("c", "limits.memory", None).as_deref(), Ok("67108864"));
    assert_eq!(value("c", "requests.memory", None).as_deref(), Ok("0"));
    assert_eq!(value("bare", "limits.cpu", None).as_deref(), Ok("2"));
    assert_eq!(value("init", "limits.memory", Some("1Gi")).as_deref(), Ok("1"));
    assert_eq!(value("bare", "limits.ephemeral-storage", None).as_deref(), Ok("0"));
    assert_eq!(value("no", "limits.cpu", None), Err(FieldError::Container("no".into())));
    assert_eq!(value("c", "limits.gpu", None), Err(FieldError::Resource("limits.gpu".into())));
    assert!(matches!(value("c", "limits.cpu", Some("x")), Err(FieldError::Divisor { .. })));
}
