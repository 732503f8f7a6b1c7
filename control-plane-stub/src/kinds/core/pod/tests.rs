use super::*;
use crate::kinds::patch;
use serde_json::json;

fn pod() -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "a", "image": "reg.local:5000/web"}]}});
    (POD.defaults)(&mut pod);
    (POD.prepare)(Op::Create, None, &mut pod, None);
    pod
}

/// A pod with one field changed, by JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let patched = patch::json(&pod(), &json!([{"op": "add", "path": pointer, "value": value}])).unwrap();
    let mut patched = patched;
    (POD.defaults)(&mut patched);
    patched
}

fn errors(pod: &Value) -> Vec<String> {
    (POD.validate)(Op::Create, None, pod, None).iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_of_the_smallest_pod() {
    assert_eq!(
        pod(),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default", "generation": 1},
            "spec": {
                "containers": [{"name": "a", "image": "reg.local:5000/web", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        })
    );
    assert_eq!(errors(&pod()), Vec::<String>::new());
}

#[test]
fn defaults_are_stable_and_leave_what_is_set() {
    let mut rich = json!({"metadata": {"name": "x"}, "spec": {
        "hostNetwork": true,
        "serviceAccountName": "sa",
        "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "h", "hostPath": {"path": "/x"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}],
        "containers": [{"name": "a", "image": "x:1", "ports": [{"containerPort": 80}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0, "failureThreshold": 7},
            "readinessProbe": {"grpc": {"port": 9}}}],
    }});
    (POD.defaults)(&mut rich);
    let c = &rich["spec"]["containers"][0];
    assert_eq!(c["imagePullPolicy"], "IfNotPresent");
    assert_eq!(c["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
    assert_eq!(c["resources"]["requests"], json!({"cpu": "500m", "memory": "64Mi"}));
    assert_eq!(c["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(
        c["livenessProbe"],
        json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 7})
    );
    assert_eq!(c["readinessProbe"]["grpc"]["service"], "");
    let v = &rich["spec"]["volumes"];
    assert_eq!(v[0]["emptyDir"], json!({}));
    assert_eq!(v[1]["secret"]["defaultMode"], 420);
    assert_eq!(v[2]["hostPath"]["type"], "");
    assert_eq!(v[3]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
    assert_eq!(rich["spec"]["serviceAccount"], "sa");
    let once = rich.clone();
    (POD.defaults)(&mut rich);
    assert_eq!(rich, once);
}

#[test]
fn pull_policies() {
    for (image, policy) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("h:5000/a", "Always"),
        ("h:5000/a:1", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
        ("a:latest@sha256:00", "IfNotPresent"),
    ] {
        assert_eq!(defaults::pull_policy(image), policy, "{image}");
    }
}

#[test]
fn invalid_fields_are_named() {
    let cases = [
        ("/metadata/name", json!("Web"), "metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain must consist"),
        ("/metadata/labels", json!({"a b": "x"}), "metadata.labels: Invalid value: \"a b\": name part must consist"),
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
        ("/spec/containers/0/name", json!("A"), "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label"),
        ("/spec/containers/-", json!({"name": "a", "image": "x"}), "spec.containers[1].name: Duplicate value: \"a\""),
        (
            "/spec/containers/0/imagePullPolicy",
            json!("Sometimes"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "protocol": "tcp"}]),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\"",
        ),
        ("/spec/containers/0/env", json!([{"name": "A=B"}]), "spec.containers[0].env[0].name: Invalid value: \"A=B\""),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.x\"",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "v", "mountPath": "/v"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"tcpSocket": {"port": 1}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "/spec/containers/0/readinessProbe",
            json!({"httpGet": {"port": 0}}),
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"cpu": "-1"}}),
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"gpu": "1"}}),
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "x", "readinessProbe": {"exec": {"command": ["x"]}}}]),
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "Forbidden: may not specify more than 1 volume type",
        ),
        ("/spec/volumes", json!([{"name": "v"}, {"name": "v"}]), "spec.volumes[1].name: Duplicate value: \"v\""),
        ("/spec/volumes", json!([{"name": "v", "configMap": {}}]), "spec.volumes[0].configMap.name: Required value"),
        (
            "/spec/volumes",
            json!([{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            "/spec/restartPolicy",
            json!("Maybe"),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        ("/spec/dnsPolicy", json!("None"), "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(-1),
            "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        ("/spec/nodeSelector", json!({"a": "b c"}), "spec.nodeSelector: Invalid value: \"b c\""),
        (
            "/spec/tolerations",
            json!([{"key": "a", "operator": "Exists", "value": "x"}]),
            "value must be empty when `operator` is 'Exists'",
        ),
        (
            "/spec/topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            "/spec/ephemeralContainers",
            json!([{"name": "e", "image": "x"}]),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
    ];
    for (pointer, value, text) in cases {
        let found = errors(&with(pointer, value.clone()));
        assert!(found.iter().any(|e| e.contains(text)), "{pointer} = {value}: {found:#?}");
    }
}

#[test]
fn user_namespaces_go_with_nothing_of_the_host() {
    let of = |host_users: Value, field: &str, on: Value| {
        let mut pod = with("/spec/hostUsers", host_users);
        pod["spec"][field] = on;
        errors(&pod).join("; ")
    };
    for (field, name) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        let forbidden = format!("spec.{name}: Forbidden: when `hostUsers` is false");
        assert_eq!(of(json!(false), field, json!(true)), forbidden);
        assert_eq!(of(json!(true), field, json!(true)), "");
    }
    let mut pod = with("/spec/containers/0/securityContext", json!({"procMount": "Unmasked"}));
    let wanted =
        "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`";
    assert_eq!(errors(&pod), [wanted]);
    pod["spec"]["hostUsers"] = json!(false);
    assert_eq!(errors(&pod), Vec::<String>::new());
}

#[test]
fn malformed_objects_do_not_panic() {
    for object in [
        json!(null),
        json!([]),
        json!({"metadata": 1, "spec": "x"}),
        json!({"spec": {"containers": [1, {"ports": {}}], "volumes": "v"}}),
    ] {
        let mut o = object.clone();
        (POD.defaults)(&mut o);
        (POD.prepare)(Op::Create, None, &mut o, None);
        (POD.prepare)(Op::Update, None, &mut o, Some(&pod()));
        assert!(!(POD.validate)(Op::Create, None, &object, None).is_empty());
    }
}

fn update(new: Value) -> Vec<String> {
    let mut new = new;
    (POD.defaults)(&mut new);
    (POD.prepare)(Op::Update, None, &mut new, Some(&pod()));
    (POD.validate)(Op::Update, None, &new, Some(&pod())).iter().map(ToString::to_string).collect()
}

#[test]
fn only_some_fields_of_a_pod_can_change() {
    assert_eq!(update(with("/spec/containers/0/image", json!("other:2"))), Vec::<String>::new());
    assert_eq!(update(with("/spec/activeDeadlineSeconds", json!(5))), Vec::<String>::new());
    assert_eq!(update(with("/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]))), Vec::<String>::new());
    assert_eq!(update(with("/metadata/labels", json!({"a": "b"}))), Vec::<String>::new());
    let refused = update(with("/spec/containers/0/command", json!(["x"])));
    assert!(refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than"), "{refused:?}");
    assert!(refused[0].contains("changed: spec.containers"));
    let refused = update(with("/spec/containers/-", json!({"name": "b", "image": "x"})));
    assert_eq!(refused, ["spec.containers: Forbidden: pod updates may not add or remove containers"]);
    assert!(!update(with("/spec/nodeName", json!("n"))).is_empty());
}

#[test]
fn the_status_is_written_by_its_subresource_only() {
    let old = pod();
    let mut new = with("/status/phase", json!("Running"));
    (POD.prepare)(Op::Update, None, &mut new, Some(&old));
    assert_eq!(new["status"]["phase"], "Pending");
    let mut new = with("/status/phase", json!("Running"));
    new["spec"]["nodeName"] = json!("n");
    new["status"]["qosClass"] = json!("Guaranteed");
    (POD.prepare)(Op::Update, Some(Sub::Status), &mut new, Some(&old));
    assert_eq!(new["status"], json!({"phase": "Running", "qosClass": "BestEffort"}));
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["metadata"]["generation"], 1);
}

#[test]
fn generation_moves_with_the_spec() {
    let old = pod();
    let mut new = with("/spec/containers/0/image", json!("other:2"));
    (POD.prepare)(Op::Update, None, &mut new, Some(&old));
    assert_eq!(new["metadata"]["generation"], 2);
    let mut new = with("/metadata/labels", json!({"a": "b"}));
    (POD.prepare)(Op::Update, None, &mut new, Some(&old));
    assert_eq!(new["metadata"]["generation"], 1);
}

#[test]
fn ephemeral_containers_and_resize_touch_nothing_else() {
    let old = pod();
    let mut new = with("/spec/ephemeralContainers", json!([{"name": "dbg", "image": "x:1"}]));
    new["spec"]["nodeName"] = json!("n");
    (POD.prepare)(Op::Update, Some(Sub::EphemeralContainers), &mut new, Some(&old));
    assert!(new["spec"].get("nodeName").is_none());
    assert_eq!((POD.validate)(Op::Update, Some(Sub::EphemeralContainers), &new, Some(&old)), []);
    let mut again = old.clone();
    (POD.prepare)(Op::Update, Some(Sub::EphemeralContainers), &mut again, Some(&new));
    assert!(!(POD.validate)(Op::Update, Some(Sub::EphemeralContainers), &again, Some(&new)).is_empty());
    for (target, wrong) in [("a", 0), ("nobody", 1), ("dbg", 1)] {
        let new = with("/spec/ephemeralContainers", json!([{"name": "dbg", "image": "x:1", "targetContainerName": target}]));
        let found = (POD.validate)(Op::Update, Some(Sub::EphemeralContainers), &new, Some(&old));
        assert_eq!(found.len(), wrong, "{target}: {found:?}");
    }
    let mut mirror = old.clone();
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    let found = (POD.validate)(Op::Update, Some(Sub::EphemeralContainers), &mirror, Some(&mirror));
    assert!(found[0].to_string().contains("static pods do not support ephemeral containers"), "{found:?}");
    let mut resized = with("/spec/containers/0/resources", json!({"requests": {"cpu": "1"}}));
    resized["spec"]["containers"][0]["image"] = json!("sneaky");
    (POD.prepare)(Op::Update, Some(Sub::Resize), &mut resized, Some(&old));
    assert_eq!(resized["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "1"}}));
    assert_eq!(resized["spec"]["containers"][0]["image"], "reg.local:5000/web");
}

#[test]
fn quality_of_service() {
    let class = |resources: Value| resources::qos_class(&with("/spec/containers/0/resources", resources));
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})), "Burstable");
}
