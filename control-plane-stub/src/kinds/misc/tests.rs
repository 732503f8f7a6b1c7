use crate::kinds::*;
use serde_json::json;

fn created(kind: &Kind, object: Value) -> Value {
    let mut o = object;
    (kind.defaults)(&mut o);
    (kind.prepare)(Op::Create, None, &mut o, None);
    o
}

fn errors(kind: &Kind, object: Value) -> Vec<String> {
    let o = created(kind, object);
    (kind.validate)(Op::Create, None, &o, None).iter().map(ToString::to_string).collect()
}

fn changed(kind: &Kind, old: Value, new: Value) -> Vec<String> {
    let old = created(kind, old);
    let mut new = new;
    (kind.defaults)(&mut new);
    (kind.prepare)(Op::Update, None, &mut new, Some(&old));
    (kind.validate)(Op::Update, None, &new, Some(&old)).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn has(found: Vec<String>, text: &str) {
    assert!(found.iter().any(|e| e.contains(text)), "{text}: {found:#?}");
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

#[test]
fn services() {
    let good = created(&SERVICE, service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]})));
    assert_eq!(
        good["spec"],
        json!({"selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "ClusterIP",
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"})
    );
    assert_eq!(good["status"], json!({"loadBalancer": {}}));
    assert_eq!(errors(&SERVICE, good), Vec::<String>::new());
    let node_port =
        created(&SERVICE, service(json!({"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]})));
    assert_eq!(node_port["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(node_port["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
    has(errors(&SERVICE, service(json!({}))), "spec.ports: Required value");
    has(
        errors(&SERVICE, service(json!({"ports": [{"port": 0}]}))),
        "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
    );
    has(
        errors(&SERVICE, service(json!({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}))),
        "spec.ports[0].name: Required value",
    );
    has(
        errors(&SERVICE, service(json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}))),
        "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}",
    );
    has(
        errors(&SERVICE, service(json!({"ports": [{"port": 1, "nodePort": 30000}]}))),
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    );
    has(errors(&SERVICE, service(json!({"type": "Magic", "ports": [{"port": 1}]}))), "spec.type: Unsupported value: \"Magic\"");
    has(errors(&SERVICE, service(json!({"type": "ExternalName"}))), "spec.externalName: Required value");
    has(
        errors(&SERVICE, service(json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 1}]}))),
        "may not be set to 'None' for NodePort services",
    );
}

#[test]
fn service_updates_keep_what_was_allocated() {
    let old = created(
        &SERVICE,
        service(
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30001}]}),
        ),
    );
    let mut new = service(json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]}));
    (SERVICE.defaults)(&mut new);
    (SERVICE.prepare)(Op::Update, None, &mut new, Some(&old));
    assert_eq!(new["spec"]["clusterIP"], "10.0.0.1");
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    assert_eq!((SERVICE.validate)(Op::Update, None, &new, Some(&old)), []);
    // Another address is refused.
    let mut moved = new.clone();
    moved["spec"]["clusterIP"] = json!("10.0.0.2");
    moved["spec"]["clusterIPs"] = json!(["10.0.0.2"]);
    has(changed(&SERVICE, old.clone(), moved), "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set");
    // Back to an inner service: the node port goes.
    let mut inner = old.clone();
    inner["spec"]["type"] = json!("ClusterIP");
    (SERVICE.defaults)(&mut inner);
    (SERVICE.prepare)(Op::Update, None, &mut inner, Some(&old));
    assert!(inner["spec"]["ports"][0].get("nodePort").is_none());
    assert_eq!((SERVICE.validate)(Op::Update, None, &inner, Some(&old)), []);
}

#[test]
fn config_maps_and_secrets() {
    has(
        errors(&CONFIG_MAP, json!({"metadata": {"name": "c"}, "data": {"a/b": "x"}})),
        "data[a/b]: Invalid value: \"a/b\": a valid config key",
    );
    has(
        errors(&CONFIG_MAP, json!({"metadata": {"name": "c"}, "data": {"a": "x".repeat(1 << 20), "b": "y"}})),
        "Too long: may not be more than 1048576 bytes",
    );
    let frozen = json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "b"}});
    has(
        changed(&CONFIG_MAP, frozen, json!({"metadata": {"name": "c"}, "immutable": true})),
        "data: Forbidden: field is immutable when `immutable` is set",
    );
    let secret =
        created(&SECRET, json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"a": "eA==", "c": "ZA=="}}));
    assert_eq!(secret, json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "Yg==", "c": "ZA=="}}));
    has(errors(&SECRET, json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls"})), "data[tls.crt]: Required value");
    has(
        changed(&SECRET, secret, json!({"metadata": {"name": "s"}, "type": "other"})),
        "type: Invalid value: \"other\": field is immutable",
    );
}

#[test]
fn namespaces() {
    let ns = created(&NAMESPACE, json!({"metadata": {"name": "a"}}));
    assert_eq!(ns["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(ns["status"]["phase"], "Active");
    assert_eq!(ns["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
    let mut ended = ns.clone();
    ended["spec"]["finalizers"] = json!([]);
    let mut plain = ended.clone();
    (NAMESPACE.prepare)(Op::Update, None, &mut plain, Some(&ns));
    assert_eq!(plain["spec"], ns["spec"]);
    (NAMESPACE.prepare)(Op::Update, Some(Sub::Finalize), &mut ended, Some(&ns));
    assert!(ended["spec"].get("finalizers").is_none());
    has(
        errors(&NAMESPACE, json!({"metadata": {"name": "a.b"}})),
        "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label",
    );
}

#[test]
fn nodes_and_leases() {
    let ranges = |spec: Value| json!({"metadata": {"name": "n"}, "spec": spec});
    let both = created(&NODE, ranges(json!({"podCIDRs": ["10.244.0.0/24", "fd00::/64"]})));
    assert_eq!(both["spec"]["podCIDR"], "10.244.0.0/24");
    assert_eq!(created(&NODE, ranges(json!({"podCIDR": "fd00::/64"})))["spec"]["podCIDRs"], json!(["fd00::/64"]));
    has(errors(&NODE, ranges(json!({"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}))), "no more than one CIDR for each IP family");
    has(errors(&NODE, ranges(json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["fd00::/64"]}))), "first value must match `podCIDR`");
    has(errors(&NODE, ranges(json!({"podCIDRs": ["x"]}))), "spec.podCIDRs[0]: Invalid value: \"x\"");
    has(changed(&NODE, both.clone(), ranges(json!({"podCIDR": "10.244.0.0/24"}))), "spec.podCIDRs: Forbidden");
    assert_eq!(changed(&NODE, both.clone(), both), Vec::<String>::new());
    let node = created(&NODE, json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": 2}}}));
    assert_eq!(node["status"], json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}));
    let taint = json!({"key": "a", "effect": "NoSchedule"});
    has(errors(&NODE, json!({"metadata": {"name": "n"}, "spec": {"taints": [taint, taint]}})), "spec.taints[1]: Duplicate value");
    has(
        errors(&NODE, json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "Never"}]}})),
        "spec.taints[0].effect: Unsupported value",
    );
    has(
        errors(&LEASE, json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0}})),
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
    );
    let lease = created(&LEASE, json!({"metadata": {"name": "l"}, "spec": {"renewTime": "2026-01-01T00:00:00.5Z"}}));
    assert_eq!(lease["spec"]["renewTime"], "2026-01-01T00:00:00.500000Z");
}

#[test]
fn endpoint_slices() {
    let slice = |endpoints: Value, ports: Value| json!({"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
    let good = created(&ENDPOINT_SLICE, slice(json!([{"addresses": ["10.0.0.1"]}]), json!([{"port": 80}])));
    assert_eq!(good["ports"][0], json!({"name": "", "port": 80, "protocol": "TCP"}));
    assert_eq!(good["metadata"]["generation"], 1);
    assert_eq!(errors(&ENDPOINT_SLICE, good.clone()), Vec::<String>::new());
    let hinted = |hints: Value| errors(&ENDPOINT_SLICE, slice(json!([{"addresses": ["10.0.0.1"], "hints": hints}]), json!([])));
    assert_eq!(hinted(json!({"forZones": [{"name": "z"}], "forNodes": [{"name": "n.example"}]})), Vec::<String>::new());
    has(hinted(json!({"forZones": [{"name": "a b"}]})), "endpoints[0].hints.forZones[0].name: Invalid value: \"a b\"");
    has(
        hinted(json!({"forNodes": [{"name": "n"}, {"name": "n"}]})),
        "endpoints[0].hints.forNodes[1].name: Duplicate value: \"n\"",
    );
    let nine: Vec<Value> = (0..9).map(|n| json!({"name": format!("n{n}")})).collect();
    has(hinted(json!({"forNodes": nine})), "endpoints[0].hints.forNodes: Too many: 9: must have at most 8 items");
    has(
        errors(&ENDPOINT_SLICE, slice(json!([{"addresses": ["::1"]}]), json!([]))),
        "endpoints[0].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address",
    );
    has(errors(&ENDPOINT_SLICE, slice(json!([{"addresses": ["127.0.0.1"]}]), json!([]))), "loopback range");
    has(errors(&ENDPOINT_SLICE, slice(json!([{"addresses": []}]), json!([]))), "endpoints[0].addresses: Required value");
    has(errors(&ENDPOINT_SLICE, slice(json!([]), json!([{"port": 1}, {"port": 2}]))), "ports[1].name: Duplicate value: \"\"");
    let many: Value = (0..1001).map(|_| json!({"addresses": ["10.0.0.1"]})).collect();
    has(errors(&ENDPOINT_SLICE, slice(many, json!([]))), "endpoints: Too many: 1001: must have at most 1000 items");
    let mut v6 = good.clone();
    v6["addressType"] = json!("IPv6");
    has(changed(&ENDPOINT_SLICE, good, v6), "addressType: Invalid value: \"IPv6\": field is immutable");
}

#[test]
fn classes_and_drivers() {
    has(
        errors(&PRIORITY_CLASS, json!({"metadata": {"name": "p"}, "value": 2000000000})),
        "value: Forbidden: maximum allowed value",
    );
    has(errors(&PRIORITY_CLASS, json!({"metadata": {"name": "system-x"}, "value": 1})), "metadata.name: Forbidden");
    has(
        changed(&PRIORITY_CLASS, json!({"metadata": {"name": "p"}, "value": 1}), json!({"metadata": {"name": "p"}, "value": 2})),
        "value: Forbidden: may not be changed in an update",
    );
    has(errors(&RUNTIME_CLASS, json!({"metadata": {"name": "r"}, "handler": "A"})), "handler: Invalid value: \"A\"");
    let driver = created(&CSI_DRIVER, json!({"metadata": {"name": "d.x"}, "spec": {}}));
    assert_eq!(driver["spec"]["volumeLifecycleModes"], json!(["Persistent"]));
    assert_eq!(errors(&CSI_DRIVER, driver), Vec::<String>::new());
    has(
        errors(&CSI_NODE, json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d", "nodeID": ""}]}})),
        "spec.drivers[0].nodeID: Required value",
    );
    has(errors(&STORAGE_CLASS, json!({"metadata": {"name": "s"}})), "provisioner: Required value");
}

#[test]
fn volumes_and_claims() {
    let claim = |size: &str| json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    assert_eq!(errors(&PERSISTENT_VOLUME_CLAIM, claim("1Gi")), Vec::<String>::new());
    assert_eq!(created(&PERSISTENT_VOLUME_CLAIM, claim("1Gi"))["status"]["phase"], "Pending");
    has(errors(&PERSISTENT_VOLUME_CLAIM, claim("0")), "spec.resources[storage]: Invalid value: \"0\": must be greater than zero");
    has(changed(&PERSISTENT_VOLUME_CLAIM, claim("2Gi"), claim("1Gi")), "spec.resources.requests.storage: Forbidden");
    has(
        errors(
            &PERSISTENT_VOLUME,
            json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}),
        ),
        "spec: Required value: must specify a volume type",
    );
}

#[test]
fn reviews() {
    has(errors(&TOKEN_REVIEW, json!({"spec": {}})), "spec.token: Required value");
    has(
        errors(&SUBJECT_ACCESS_REVIEW, json!({"spec": {"user": "u"}})),
        "exactly one of nonResourceAttributes or resourceAttributes",
    );
    assert_eq!(
        errors(&SUBJECT_ACCESS_REVIEW, json!({"spec": {"user": "u", "resourceAttributes": {"verb": "get"}}})),
        Vec::<String>::new()
    );
    assert!(!TOKEN_REVIEW.is_stored() && POD.is_stored());
}

#[test]
fn signing_requests() {
    has(
        errors(
            &CERTIFICATE_SIGNING_REQUEST,
            json!({"metadata": {"name": "c"}, "spec": {"request": "eA==", "usages": ["client auth", "bogus"], "signerName": "x"}}),
        ),
        "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST",
    );
    let old = json!({"metadata": {"name": "c"}, "spec": {"signerName": "a.b/c"}, "status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    let mut new = old.clone();
    new["status"] = json!({"certificate": "eA=="});
    (CERTIFICATE_SIGNING_REQUEST.prepare)(Op::Update, Some(Sub::Status), &mut new, Some(&old));
    assert_eq!(new["status"]["conditions"][0]["type"], "Approved");
    assert_eq!((CERTIFICATE_SIGNING_REQUEST.cells)(&new, jiff::Timestamp::UNIX_EPOCH)[5], "Approved,Issued");
}

#[test]
fn both_views_of_an_event() {
    let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"}, "message": "m", "count": 2,
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"}, "source": {"component": "c"}, "reportingComponent": "r"});
    let view = EVENTS_K8S_IO_EVENT.view.unwrap();
    let new = (view.from_stored)(&core);
    assert_eq!(new["note"], "m");
    assert_eq!(new["regarding"]["name"], "p");
    assert_eq!((view.to_stored)(new.clone()), core);
    let fields = |kind: &Kind, o: &Value| (kind.selectable_fields)(o);
    assert!(fields(&EVENT, &core).contains(&("involvedObject.name", "p".to_string())));
    assert!(fields(&EVENTS_K8S_IO_EVENT, &new).contains(&("regarding.name", "p".to_string())));
    assert_eq!((EVENT.cells)(&core, jiff::Timestamp::UNIX_EPOCH)[3], "pod/p");
    has(
        errors(&EVENT, json!({"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "b"}})),
        "involvedObject.namespace: Invalid value: \"b\": does not match event.namespace",
    );
}

#[test]
fn every_row_survives_malformed_objects() {
    let shapes = [
        json!(null),
        json!("x"),
        json!([]),
        json!({"metadata": "x", "spec": [1], "status": 3}),
        json!({"spec": {"ports": 1, "drivers": [1]}, "endpoints": [3], "data": [1]}),
    ];
    for kind in KINDS {
        for shape in &shapes {
            let mut o = shape.clone();
            (kind.defaults)(&mut o);
            for sub in [None, Some(Sub::Status)] {
                (kind.prepare)(Op::Create, sub, &mut o.clone(), None);
                (kind.prepare)(Op::Update, sub, &mut o.clone(), Some(&json!({"metadata": {}})));
                let _ = (kind.validate)(Op::Update, sub, &o, Some(shape));
            }
            let _ = (kind.selectable_fields)(&o);
            let _ = (kind.cells)(&o, jiff::Timestamp::UNIX_EPOCH);
        }
    }
}

#[test]
fn defaults_are_idempotent() {
    for kind in KINDS {
        let mut o = json!({"metadata": {"name": "x"}, "spec": {}});
        (kind.defaults)(&mut o);
        let once = o.clone();
        (kind.defaults)(&mut o);
        assert_eq!(o, once, "{}", kind.kind);
    }
}
