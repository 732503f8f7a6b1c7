use super::super::fields::Problem;
use super::*;
use serde_json::{Value, json};

fn read(document: Value) -> (Reserved, Vec<Problem>) {
    let (mut reserved, mut problems) = (Reserved::default(), Vec::new());
    let mut fields = Fields::new("", document, &mut problems);
    apply(&mut reserved, &mut fields);
    fields.finish();
    (reserved, problems)
}

fn good(document: Value) -> Reserved {
    let (reserved, problems) = read(document);
    assert_eq!(problems, []);
    reserved
}

fn bad(document: Value) -> Vec<String> {
    read(document).1.iter().map(|p| p.to_string()).collect()
}

#[test]
fn amounts_are_kept_apart_and_added_up() {
    let r = good(json!({"systemReserved": {"cpu": "500m", "memory": "1Gi"}, "kubeReserved": {"cpu": "250m", "pid": "1000"}}));
    assert_eq!(r.of("cpu").milli(), 750);
    assert_eq!(r.of("memory").units(), 1 << 30);
    assert_eq!(r.of("pid").units(), 1000);
    assert_eq!(r.of("ephemeral-storage").units(), 0);
    assert_eq!(r.kube["cpu"].milli(), 250);
    assert_eq!(
        bad(json!({"kubeReserved": {"gpu": "1", "cpu": "-1"}})),
        [
            "kubeReserved.cpu: quantity \"-1\" must not be negative",
            "kubeReserved.gpu: cannot be reserved, expected cpu, memory, ephemeral-storage or pid",
        ]
    );
}

#[test]
fn by_default_pods_are_held_to_what_is_not_reserved() {
    let pods = Enforce { pods: true, system: None, kube: None };
    let nobody = Enforce { pods: false, ..pods.clone() };
    assert_eq!(good(json!({})).enforce, pods);
    assert_eq!(good(json!({"enforceNodeAllocatable": ["pods"]})).enforce, pods);
    assert_eq!(good(json!({"enforceNodeAllocatable": ["none"]})).enforce, nobody);
    assert_eq!(good(json!({"enforceNodeAllocatable": []})).enforce, nobody);
    let all = good(json!({
        "enforceNodeAllocatable": ["pods", "system-reserved", "kube-reserved-compressible"],
        "systemReservedCgroup": "/system.slice", "kubeReservedCgroup": "/kube/lets",
    }));
    let existing = |name: &str, cpu_only| Some(Existing { name: name.into(), cpu_only });
    assert_eq!(all.enforce, Enforce { pods: true, system: existing("/system.slice", false), kube: existing("/kube/lets", true) });
}

#[test]
fn what_contradicts_itself_is_refused_by_name() {
    let said = bad(json!({"enforceNodeAllocatable": ["pods", "none", "pods", "all", "system-reserved"]}));
    assert_eq!(
        said,
        [
            "enforceNodeAllocatable[1]: none cannot be set beside others",
            "enforceNodeAllocatable[2]: \"pods\" is there twice",
            "enforceNodeAllocatable[3]: \"all\" must be pods, system-reserved, system-reserved-compressible, kube-reserved, \
             kube-reserved-compressible or none",
            "systemReservedCgroup: required with \"system-reserved\" in enforceNodeAllocatable",
        ]
    );
    let both = json!({"enforceNodeAllocatable": ["kube-reserved", "kube-reserved-compressible"], "kubeReservedCgroup": "/k"});
    let both = bad(both);
    assert_eq!(both.len(), 1, "{both:?}");
    for path in ["/", "kube", "/a/../b", "//."] {
        assert_eq!(bad(json!({"enforceNodeAllocatable": ["kube-reserved"], "kubeReservedCgroup": path})).len(), 1, "{path}");
    }
}

#[test]
fn reserved_cpus_take_the_place_of_reserved_cpu() {
    let r = good(json!({
        "reservedSystemCPUs": "0,2-4", "systemReserved": {"cpu": "100m"}, "kubeReserved": {"cpu": "1", "memory": "1Mi"},
    }));
    assert_eq!(r.cpus, [0, 2, 3, 4].into());
    assert_eq!(r.of("cpu").units(), 4);
    assert_eq!(r.of("memory").units(), 1 << 20);
    for text in ["a", "1-", "4-2", "0-4000000000", "-1", "1,,2"] {
        assert_eq!(bad(json!({"reservedSystemCPUs": text})).len(), 1, "{text}");
    }
    assert_eq!(bad(json!({"reservedSystemCPUs": "0", "systemReservedCgroup": "/s"})).len(), 1);
}
