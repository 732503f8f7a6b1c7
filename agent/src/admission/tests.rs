use super::*;
use serde_json::{Value, json};

fn node() -> NodeView {
    let amounts = [("cpu", "2"), ("memory", "1Gi"), ("pods", "3"), ("ephemeral-storage", "10Gi"), ("example.com/gpu", "1")];
    NodeView {
        name: "n".into(),
        labels: [("zone", "a"), ("size", "7")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        taints: Vec::new(),
        allocatable: amounts.map(|(name, amount)| (name.to_owned(), amount.parse().unwrap())).into(),
        strict_groups: Some(false),
        sysctls: sysctls::Allowlist::new("6.1.0", &["kernel.msg*".to_owned()]),
        apparmor: false,
    }
}

fn pod(spec: Value) -> Pod {
    let mut object = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn asks(amounts: Value) -> Pod {
    pod(json!({"containers": [{"name": "c", "resources": {"requests": amounts}}]}))
}

fn refused(node: &NodeView, others: &[&Pod], pod: &Pod) -> Option<(String, String)> {
    match admit(node, others, pod) {
        Answer::Refused(r) => Some((r.reason(), r.message())),
        Answer::Admitted { victims } => {
            assert!(victims.is_empty());
            None
        }
    }
}

fn reason(node: &NodeView, pod: &Pod) -> Option<String> {
    refused(node, &[], pod).map(|(reason, _)| reason)
}

#[test]
fn room_is_counted_as_the_scheduler_counts_it() {
    let used = asks(json!({"cpu": "1500m", "memory": "512Mi"}));
    let said = |amounts| refused(&node(), &[&used], &asks(amounts));
    assert_eq!(said(json!({"cpu": "500m", "memory": "512Mi"})), None);
    let (reason, message) = said(json!({"cpu": "501m", "memory": "513Mi"})).unwrap();
    assert_eq!(reason, "OutOfcpu");
    assert_eq!(message, "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000");
    let (reason, message) = said(json!({"memory": "513Mi"})).unwrap();
    assert_eq!(reason, "OutOfmemory");
    let bytes = "requested: 537919488, used: 536870912, capacity: 1073741824";
    assert_eq!(message, format!("Node didn't have enough resource: memory, {bytes}"));
    assert_eq!(said(json!({"ephemeral-storage": "11Gi"})).unwrap().0, "OutOfephemeral-storage");
    assert_eq!(said(json!({"example.com/gpu": "2"})).unwrap().0, "OutOfexample.com/gpu");
    // Not known to the node at all: the cluster's business; but huge pages are the node's.
    assert_eq!(said(json!({"example.com/licence": "2"})), None);
    assert_eq!(said(json!({"hugepages-2Mi": "2Mi"})).unwrap().0, "OutOfhugepages-2Mi");
    // A full node still takes what asks for nothing.
    let full = asks(json!({"cpu": "9", "memory": "9Gi"}));
    assert_eq!(refused(&node(), &[&full], &asks(json!({}))), None);
}

#[test]
fn kernel_settings_and_profiles() {
    let with = |context: Value| pod(json!({"securityContext": context, "hostNetwork": true}));
    let sysctl = |name: &str| with(json!({"sysctls": [{"name": name, "value": "1"}]}));
    assert_eq!(reason(&node(), &sysctl("kernel/msgmax")), None);
    let said = |pod: &Pod| refused(&node(), &[], pod).unwrap();
    let forbidden = |why: &str| ("SysctlForbidden".to_owned(), format!("forbidden sysctl: {why}"));
    assert_eq!(said(&sysctl("kernel.sem")), forbidden("\"kernel.sem\" not allowlisted"));
    let host = "\"net.ipv4.tcp_syncookies\" not allowed with host Net enabled";
    assert_eq!(said(&sysctl("net.ipv4.tcp_syncookies")), forbidden(host));
    let mut profiled = with(json!({"appArmorProfile": {"type": "RuntimeDefault"}}));
    let off = ("AppArmor".to_owned(), "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned());
    assert_eq!(said(&profiled), off);
    // Nobody is ended for a pod that could not run anyway.
    let big = asks(json!({"cpu": "2"}));
    profiled.spec.as_mut().unwrap().priority = Some(2_000_000_000);
    profiled.spec.as_mut().unwrap().containers = big.spec.as_ref().unwrap().containers.clone();
    assert_eq!(
        admit(&node(), &[&big], &profiled),
        Answer::Refused(Refusal::AppArmor("AppArmor is not enabled on the host".into()))
    );
    let enabled = NodeView { apparmor: true, ..node() };
    assert_eq!(admit(&enabled, &[&big], &profiled), Answer::Admitted { victims: vec![0] });
}

#[test]
fn pods_are_counted() {
    let one = asks(json!({}));
    assert_eq!(refused(&node(), &[&one, &one], &one), None);
    let (reason, message) = refused(&node(), &[&one, &one, &one], &one).unwrap();
    assert_eq!(reason, "OutOfpods");
    assert_eq!(message, "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3");
}

#[test]
fn the_request_of_a_pod_is_the_most_it_ever_needs() {
    let c = |name: &str, cpu: &str, always: bool| {
        let mut c = json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        if always {
            c["restartPolicy"] = json!("Always");
        }
        c
    };
    let cpu = |spec: Value| requests(&pod(spec))["cpu"].milli();
    let mains = json!([c("a", "100m", false), c("b", "200m", false)]);
    assert_eq!(cpu(json!({"containers": mains})), 300);
    assert_eq!(cpu(json!({"containers": mains, "initContainers": [c("i", "250m", false)]})), 300);
    assert_eq!(cpu(json!({"containers": mains, "initContainers": [c("i", "1", false), c("j", "500m", false)]})), 1000);
    // A sidecar runs beside the mains, and beside the init containers after it.
    assert_eq!(cpu(json!({"containers": mains, "initContainers": [c("s", "50m", true)]})), 350);
    assert_eq!(cpu(json!({"containers": mains, "initContainers": [c("i", "400m", false), c("s", "50m", true)]})), 400);
    assert_eq!(cpu(json!({"containers": mains, "initContainers": [c("s", "50m", true), c("i", "400m", false)]})), 450);
    assert_eq!(cpu(json!({"containers": mains, "overhead": {"cpu": "10m"}})), 310);
    assert_eq!(cpu(json!({"containers": mains, "resources": {"requests": {"cpu": "2"}}, "overhead": {"cpu": "10m"}})), 2010);
}

#[test]
fn what_is_not_for_this_system_is_refused() {
    assert_eq!(reason(&node(), &pod(json!({"os": {"name": "windows"}}))).as_deref(), Some("PodOSNotSupported"));
    assert_eq!(reason(&node(), &pod(json!({"os": {"name": "linux"}}))), None);
    let mut labelled = pod(json!({}));
    labelled.metadata.labels = Some([("kubernetes.io/os".to_owned(), "windows".to_owned())].into());
    assert_eq!(reason(&node(), &labelled).as_deref(), Some("PodOSSelectorNodeLabelDoesNotMatch"));
    let strict = pod(json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}));
    assert_eq!(reason(&node(), &strict).as_deref(), Some("SupplementalGroupsPolicyNotSupported"));
    assert_eq!(reason(&NodeView { strict_groups: Some(true), ..node() }, &strict), None);
    assert_eq!(reason(&node(), &pod(json!({"nodeName": "other"}))).as_deref(), Some("NodeName"));
}

#[test]
fn selectors_and_affinity_decide() {
    let affine = |terms: Value| {
        let required = json!({"nodeSelectorTerms": terms});
        pod(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}))
    };
    let rule = |key: &str, operator: &str, values: &[&str]| {
        affine(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
    };
    let fields = |name: &str| affine(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]));
    for good in [
        pod(json!({"nodeSelector": {"zone": "a"}})),
        rule("zone", "In", &["b", "a"]),
        rule("zone", "NotIn", &["b"]),
        rule("none", "NotIn", &["b"]),
        rule("zone", "Exists", &[]),
        rule("none", "DoesNotExist", &[]),
        rule("size", "Gt", &["6"]),
        rule("size", "Lt", &["8"]),
        fields("n"),
        affine(
            json!([{"matchExpressions": [{"key": "none", "operator": "Exists"}]}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]),
        ),
    ] {
        assert_eq!(reason(&node(), &good), None, "{good:?}");
    }
    for bad in [
        pod(json!({"nodeSelector": {"zone": "a", "none": "x"}})),
        rule("zone", "In", &["b"]),
        rule("zone", "NotIn", &["a"]),
        rule("none", "Exists", &[]),
        rule("zone", "DoesNotExist", &[]),
        rule("size", "Gt", &["7"]),
        rule("zone", "Gt", &["1"]),
        rule("size", "Odd", &["1"]),
        fields("m"),
        affine(json!([{}])),
        affine(json!([])),
    ] {
        let (reason, message) = refused(&node(), &[], &bad).unwrap();
        assert_eq!(reason, "NodeAffinity", "{bad:?}");
        assert_eq!(message, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector");
    }
}

#[test]
fn a_taint_that_evicts_refuses() {
    let taint: Taint = serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoExecute"})).unwrap();
    let tainted = NodeView { taints: vec![taint], ..node() };
    let tolerating = |t: Value| pod(json!({"tolerations": [t]}));
    assert_eq!(reason(&tainted, &pod(json!({}))).as_deref(), Some("TaintToleration"));
    for good in [
        json!({"operator": "Exists"}),
        json!({"key": "k", "operator": "Exists"}),
        json!({"key": "k", "value": "v"}),
        json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 5}),
    ] {
        assert_eq!(reason(&tainted, &tolerating(good.clone())), None, "{good}");
    }
    for bad in [
        json!({"key": "k", "value": "w"}),
        json!({"key": "l", "operator": "Exists"}),
        json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}),
    ] {
        assert!(reason(&tainted, &tolerating(bad.clone())).is_some(), "{bad}");
    }
    let mut soft = tainted.clone();
    soft.taints[0].effect = "NoSchedule".into();
    assert_eq!(reason(&soft, &pod(json!({}))), None, "who is bound here has passed the scheduler");
    let mut fixed = pod(json!({}));
    fixed.metadata.annotations = Some([(SOURCE_ANNOTATION.to_owned(), "file".to_owned())].into());
    assert_eq!(reason(&tainted, &fixed), None, "static pods stay whatever the taint");
}

#[test]
fn ports_of_the_host_are_given_once() {
    let port = |p: Value| pod(json!({"containers": [{"name": "c", "ports": [p]}]}));
    let taken = port(json!({"containerPort": 1, "hostPort": 80}));
    let with = |p: Value| refused(&node(), &[&taken], &port(p)).map(|(reason, _)| reason);
    assert_eq!(with(json!({"containerPort": 2, "hostPort": 80})).as_deref(), Some("NodePorts"));
    assert_eq!(with(json!({"containerPort": 2, "hostPort": 80, "hostIP": "10.0.0.1"})).as_deref(), Some("NodePorts"));
    assert_eq!(with(json!({"containerPort": 2, "hostPort": 80, "protocol": "UDP"})), None);
    assert_eq!(with(json!({"containerPort": 80})), None);
    let narrow = port(json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.2"}));
    let other = port(json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.1"}));
    assert_eq!(refused(&node(), &[&narrow], &other), None);
}

mod preemption {
    use super::*;

    fn critical(amounts: Value) -> Pod {
        let mut p = asks(amounts);
        p.spec.as_mut().unwrap().priority = Some(CRITICAL_PRIORITY);
        p
    }

    fn guaranteed(cpu: &str) -> Pod {
        let amounts = json!({"cpu": cpu, "memory": "1Mi"});
        pod(json!({"containers": [{"name": "c", "resources": {"requests": amounts, "limits": amounts}}]}))
    }

    fn victims(others: &[&Pod], pod: &Pod) -> Result<Vec<usize>, String> {
        match admit(&node(), others, pod) {
            Answer::Admitted { victims } => Ok(victims),
            Answer::Refused(r) => Err(r.reason()),
        }
    }

    #[test]
    fn the_nearest_of_the_least_safe_class_goes() {
        let (small, large, safe) = (asks(json!({"cpu": "400m"})), asks(json!({"cpu": "1"})), guaranteed("600m"));
        assert_eq!(victims(&[&safe, &large, &small], &critical(json!({"cpu": "300m"}))), Ok(vec![2]));
        assert_eq!(victims(&[&safe, &large, &small], &critical(json!({"cpu": "600m"}))), Ok(vec![1]));
        assert_eq!(victims(&[&safe, &large, &small], &critical(json!({"cpu": "1400m"}))), Ok(vec![1, 2]));
        assert_eq!(victims(&[&safe, &large, &small], &critical(json!({"cpu": "2"}))), Ok(vec![1, 2, 0]));
    }

    #[test]
    fn a_place_is_freed_by_whoever_asks_for_least() {
        let nothing = asks(json!({}));
        let some = asks(json!({"cpu": "1m"}));
        assert_eq!(victims(&[&some, &nothing, &some], &critical(json!({}))), Ok(vec![1]));
    }

    #[test]
    fn never_beyond_what_is_enough_nor_in_vain() {
        let other = critical(json!({"cpu": "2"}));
        assert_eq!(victims(&[&other], &critical(json!({"cpu": "1"}))), Err("UnexpectedAdmissionError".into()));
        let mut above = critical(json!({"cpu": "1"}));
        above.spec.as_mut().unwrap().priority = Some(CRITICAL_PRIORITY + 1000);
        assert_eq!(victims(&[&other], &above), Ok(vec![0]));
        // Another reason stands, and nobody ends for nothing.
        let mut lost = critical(json!({"cpu": "3"}));
        lost.spec.as_mut().unwrap().node_name = Some("other".into());
        assert_eq!(victims(&[&asks(json!({"cpu": "1"}))], &lost), Err("NodeName".into()));
        assert_eq!(victims(&[&asks(json!({"cpu": "1"}))], &asks(json!({"cpu": "2"}))), Err("OutOfcpu".into()));
    }
}
