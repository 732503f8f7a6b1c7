use super::*;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use serde_json::{Value, json};

fn of(source: Value, spec: Value) -> Result<Medium> {
    let source: EmptyDirVolumeSource = serde_json::from_value(source).unwrap();
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    let allocatable = [("memory".to_owned(), "1Gi".parse().unwrap())].into();
    medium(&pod, &source, "v", &PodContext { allocatable, ..PodContext::default() })
}

fn limited(memory: &[Option<&str>]) -> Value {
    let limits = |m: &Option<&str>| m.map_or(json!({}), |m| json!({"memory": m}));
    let each = memory.iter().map(|m| json!({"name": "c", "resources": {"limits": limits(m)}}));
    json!({"containers": each.collect::<Vec<_>>()})
}

#[test]
fn memory_is_bounded_by_the_volume_the_pod_and_the_node() {
    let size = |source: Value, spec: Value| match of(source, spec).unwrap() {
        Medium::Memory(size) => size.unwrap() >> 20,
        other => panic!("{other:?}"),
    };
    let memory = || json!({"medium": "Memory"});
    let sized = |size: &str| json!({"medium": "Memory", "sizeLimit": size});
    assert_eq!(size(memory(), limited(&[None])), 1024);
    assert_eq!(size(sized("64Mi"), limited(&[None])), 64);
    assert_eq!(size(sized("4Gi"), limited(&[None])), 1024);
    assert_eq!(size(sized("64Mi"), limited(&[Some("16Mi"), Some("16Mi")])), 32);
    assert_eq!(size(memory(), limited(&[Some("16Mi"), None])), 1024, "one of them may use what it wants");
    assert_eq!(size(sized("0"), limited(&[None])), 1024);
    let mut whole = limited(&[None]);
    whole["resources"] = json!({"limits": {"memory": "8Mi"}});
    assert_eq!(size(memory(), whole.clone()), 8, "the pod's own limit");
    whole["overhead"] = json!({"memory": "1Mi"});
    assert_eq!(size(memory(), whole), 9);
    let mut init = limited(&[Some("8Mi")]);
    init["initContainers"] = json!([{"name": "i", "resources": {"limits": {"memory": "128Mi"}}}]);
    assert_eq!(size(memory(), init), 128, "an init container may use more");
    assert!(matches!(of(sized("much"), limited(&[None])), Err(Error::Invalid { field: "emptyDir.sizeLimit", .. })));
}

#[test]
fn huge_pages_are_of_a_size_that_the_pod_asks_for() {
    let asks = |sizes: &[&str]| {
        let list: serde_json::Map<_, _> = sizes.iter().map(|s| (format!("hugepages-{s}"), json!("1Gi"))).collect();
        json!({"containers": [{"name": "c", "resources": {"limits": list}}]})
    };
    let medium = |medium: &str, sizes: &[&str]| of(json!({"medium": medium}), asks(sizes));
    assert_eq!(medium("", &[]).unwrap(), Medium::Disk);
    assert_eq!(medium("HugePages", &["2Mi"]).unwrap(), Medium::HugePages(2 << 20));
    assert_eq!(medium("HugePages-1Gi", &["2Mi", "1Gi"]).unwrap(), Medium::HugePages(1 << 30));
    for (wrong, sizes) in [
        ("HugePages", &[][..]),
        ("HugePages", &["2Mi", "1Gi"]),
        ("HugePages-2Mi", &["1Gi"]),
        ("HugePages-x", &["2Mi"]),
        ("Disk", &[]),
    ] {
        assert!(matches!(medium(wrong, sizes), Err(Error::Invalid { field: "emptyDir.medium", .. })), "{wrong} {sizes:?}");
    }
}
