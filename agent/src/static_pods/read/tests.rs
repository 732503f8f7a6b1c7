use super::*;
use serde_json::json;

const FILE: Source<'static> = Source { kind: Kind::File, place: "/m/web.yaml" };
const URL: Source<'static> = Source { kind: Kind::Http, place: "http://h/pods" };

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})
}

fn plain() -> Value {
    json!({"containers": [{"name": "main", "image": "web:1"}]})
}

fn ok(manifest: &Value) -> Pod {
    read(manifest.to_string().as_bytes(), "Node-1", FILE).unwrap()
}

fn refused(manifest: &Value) -> String {
    read(manifest.to_string().as_bytes(), "n", FILE).unwrap_err().to_string()
}

#[test]
fn identity() {
    let read_pod = ok(&pod(plain()));
    let meta = &read_pod.metadata;
    assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web-node-1"), Some("default")));
    let uid = meta.uid.clone().unwrap();
    assert!(uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit()), "{uid}");
    let annotations = meta.annotations.as_ref().unwrap();
    assert_eq!((annotations[HASH].as_str(), annotations[SOURCE].as_str()), (uid.as_str(), "file"));
    assert_eq!(read_pod.spec.as_ref().unwrap().node_name.as_deref(), Some("Node-1"));
    assert_eq!(read_pod.status.as_ref().unwrap().phase.as_deref(), Some("Pending"));
    assert!(crate::admission::is_static(&read_pod));
    // The same bytes are the same pod; order and form of the text do not matter.
    let yaml =
        "# a comment\nspec:\n  containers: [{image: 'web:1', name: main}]\nmetadata: {name: web}\nkind: Pod\napiVersion: v1\n";
    assert_eq!(read(yaml.as_bytes(), "Node-1", FILE).unwrap(), read_pod);
    // Everything else is another one.
    let other = |data: &Value, node, source| read(data.to_string().as_bytes(), node, source).unwrap().metadata.uid.unwrap();
    let mut changed = plain();
    changed["containers"][0]["image"] = json!("web:2");
    let place = Source { kind: Kind::File, place: "/m/other.yaml" };
    let all = [
        uid,
        other(&pod(changed), "Node-1", FILE),
        other(&pod(plain()), "n", FILE),
        other(&pod(plain()), "Node-1", place),
        other(&pod(plain()), "Node-1", URL),
    ];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len(), "{all:?}");
}

#[test]
fn a_uid_of_its_own_is_kept() {
    let mut manifest = pod(plain());
    manifest["metadata"]["uid"] = json!("12-ab");
    manifest["metadata"]["namespace"] = json!("kube-system");
    let read_pod = ok(&manifest);
    assert_eq!(read_pod.metadata.uid.as_deref(), Some("12-ab"));
    assert_eq!(read_pod.metadata.annotations.unwrap()[HASH], "12-ab");
    assert_eq!(read_pod.metadata.namespace.as_deref(), Some("kube-system"));
    manifest["metadata"]["uid"] = json!("../../etc");
    assert!(refused(&manifest).contains("metadata.uid"));
}

#[test]
fn no_taint_ends_it() {
    let tolerations = |spec: Value, source| {
        let read_pod = read(pod(spec).to_string().as_bytes(), "n", source).unwrap();
        serde_json::to_value(read_pod.spec.unwrap().tolerations.unwrap_or_default()).unwrap()
    };
    let all = json!({"operator": "Exists", "effect": "NoExecute"});
    assert_eq!(tolerations(plain(), FILE), json!([all]));
    assert_eq!(tolerations(plain(), URL), json!([]));
    let mut own = plain();
    own["tolerations"] = json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}, all]);
    assert_eq!(tolerations(own.clone(), FILE), own["tolerations"]);
}

#[test]
fn defaults_of_an_api_server() {
    let spec = json!({"hostNetwork": true, "priorityClassName": "system-node-critical",
        "containers": [{"name": "main", "image": "web", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": 2, "memory": "1Gi"},
            "requests": {"cpu": 1}},
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "livenessProbe": {"httpGet": {"port": 80}}, "lifecycle": {"preStop": {"httpGet": {"port": 80}}}}],
        "volumes": [{"name": "a"}, {"name": "b", "hostPath": {"path": "/b"}}, {"name": "c", "downwardAPI": {}}]});
    let spec = serde_json::to_value(ok(&pod(spec)).spec.unwrap()).unwrap();
    for (pointer, wanted) in [
        ("/restartPolicy", json!("Always")),
        ("/terminationGracePeriodSeconds", json!(30)),
        ("/dnsPolicy", json!("ClusterFirst")),
        ("/schedulerName", json!("default-scheduler")),
        ("/securityContext", json!({})),
        ("/enableServiceLinks", json!(true)),
        ("/priority", json!(2_000_001_000)),
        ("/containers/0/imagePullPolicy", json!("Always")),
        ("/containers/0/terminationMessagePath", json!("/dev/termination-log")),
        ("/containers/0/terminationMessagePolicy", json!("File")),
        ("/containers/0/ports/0", json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"})),
        ("/containers/0/resources/requests", json!({"cpu": "1", "memory": "1Gi"})),
        ("/containers/0/resources/limits/cpu", json!("2")),
        ("/containers/0/env/0/valueFrom/fieldRef/apiVersion", json!("v1")),
        (
            "/containers/0/livenessProbe",
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3}),
        ),
        ("/containers/0/lifecycle/preStop/httpGet/scheme", json!("HTTP")),
        ("/volumes/0", json!({"name": "a", "emptyDir": {}})),
        ("/volumes/1/hostPath/type", json!("")),
        ("/volumes/2/downwardAPI/defaultMode", json!(0o644)),
    ] {
        assert_eq!(spec.pointer(pointer), Some(&wanted), "{pointer}");
    }
    // What is said stays.
    let mut said = plain();
    said["restartPolicy"] = json!("Never");
    said["terminationGracePeriodSeconds"] = json!(0);
    said["containers"][0]["imagePullPolicy"] = json!("Never");
    let spec = ok(&pod(said)).spec.unwrap();
    assert_eq!((spec.restart_policy.as_deref(), spec.termination_grace_period_seconds), (Some("Never"), Some(0)));
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Never"));
}

#[test]
fn what_is_no_pod() {
    for (data, wanted) in [
        ("", "expected kind Pod"),
        ("{", "couldn't parse"),
        ("just words", "expected kind Pod of apiVersion v1"),
        ("[1, 2]", "expected kind Pod"),
        ("apiVersion: v1\nkind: Service\n", "found \"Service\" of \"v1\""),
        ("apiVersion: v2\nkind: Pod\n", "found \"Pod\" of \"v2\""),
        ("apiVersion: v1\nkind: Pod\nspec: 7\n", "spec"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: 1, image: b}]}\n",
            "spec.containers[0].name",
        ),
        ("apiVersion: v1\nkind: Pod\nspec: {containers: []}\n", "name is needed for the pod"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "spec.containers: Required value"),
    ] {
        let error = read(data.as_bytes(), "n", FILE).unwrap_err().to_string();
        assert!(error.contains(wanted), "{data:?}: {error}");
    }
    assert!(read(&[0xff, 0xfe, 0], "n", FILE).is_err());
}

#[test]
fn user_namespaces_go_with_nothing_of_the_host() {
    let of = |spec: Value, own: Value| {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "main", "image": "i"}]);
        spec["containers"][0]["volumeDevices"] = own["volumeDevices"].clone();
        spec["containers"][0]["securityContext"] = own["securityContext"].clone();
        pod(spec)
    };
    let unmasked = json!({"securityContext": {"procMount": "Unmasked"}});
    ok(&of(json!({"hostUsers": false}), unmasked.clone()));
    ok(&of(json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}), json!({"securityContext": {"procMount": "Default"}})));
    let odd = json!({"securityContext": {"procMount": "Odd"}});
    let devices = json!({"volumeDevices": [{"name": "v", "devicePath": "/d"}]});
    for (spec, own, wanted) in [
        (
            json!({}),
            unmasked.clone(),
            "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false",
        ),
        (json!({"hostUsers": true}), unmasked, "`hostUsers` must be false to use `Unmasked`"),
        (json!({"hostUsers": false}), odd, "securityContext.procMount: Unsupported value: \"Odd\""),
        (json!({"hostUsers": false, "hostNetwork": true}), json!({}), "spec.hostNetwork: Forbidden: when `hostUsers` is false"),
        (json!({"hostUsers": false, "hostPID": true}), json!({}), "spec.HostPID: Forbidden: when `hostUsers` is false"),
        (json!({"hostUsers": false, "hostIPC": true}), json!({}), "spec.HostIPC: Forbidden: when `hostUsers` is false"),
        (json!({"hostUsers": false}), devices, "spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"),
    ] {
        let error = refused(&of(spec.clone(), own));
        assert!(error.contains(wanted), "{spec}: {error}");
    }
}

#[test]
fn what_an_api_server_would_refuse() {
    for (pointer, value, wanted) in [
        ("/metadata/name", json!("Web"), r#"metadata.name: Invalid value: "Web-n": a lowercase RFC 1123 subdomain"#),
        ("/metadata/namespace", json!("a.b"), "metadata.namespace: Invalid value"),
        ("/spec/containers/0/name", json!("a.b"), "spec.containers[0].name: Invalid value"),
        ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
        ("/spec/restartPolicy", json!("Sometimes"), r#"spec.restartPolicy: Unsupported value: "Sometimes""#),
        ("/spec/terminationGracePeriodSeconds", json!(-1), "spec.terminationGracePeriodSeconds: Invalid value: -1"),
        ("/spec/containers/0/ports/0/containerPort", json!(70000), "must be between 1 and 65535, inclusive"),
        ("/spec/containers/0/volumeMounts/0/name", json!("x"), r#"spec.containers[0].volumeMounts[0].name: Not found: "x""#),
        ("/spec/containers/0/resources/limits/cpu", json!("lots"), "spec.containers[0].resources.limits[cpu]: Invalid value"),
        ("/spec/containers/0/resources/requests/cpu", json!(3), "must be less than or equal to cpu limit"),
        ("/spec/containers/1/name", json!("main"), r#"spec.containers[1].name: Duplicate value: "main""#),
        ("/spec/volumes/1/name", json!("v"), r#"spec.volumes[1].name: Duplicate value: "v""#),
        ("/spec/ephemeralContainers/0/name", json!("e"), "spec.ephemeralContainers: Forbidden"),
    ] {
        let mut manifest = pod(json!({
            "containers": [{"name": "main", "image": "i", "ports": [{"containerPort": 1}], "resources": {"limits": {"cpu": "1"}, "requests": {}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}]}, {"name": "second", "image": "i"}],
            "volumes": [{"name": "v"}, {"name": "w"}], "ephemeralContainers": [] }));
        manifest["metadata"]["namespace"] = json!("ns");
        ok(&manifest);
        if pointer.starts_with("/spec/ephemeral") {
            manifest["spec"]["ephemeralContainers"] = json!([{}]);
        }
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        manifest.pointer_mut(parent).unwrap()[field] = value;
        let error = refused(&manifest);
        assert!(error.starts_with("invalid pod: [") && error.contains(wanted), "{pointer}: {error}");
    }
}

#[test]
fn what_only_the_api_has() {
    let volume = |source: Value| {
        let mut spec = plain();
        spec["volumes"] = json!([source]);
        spec["volumes"][0]["name"] = json!("v");
        spec
    };
    let env = |from: Value| {
        let mut spec = plain();
        spec["containers"][0]["env"] = json!([{"name": "A", "valueFrom": from}]);
        spec
    };
    let with = |field: &str, value: Value| {
        let mut spec = plain();
        spec[field] = value;
        spec
    };
    let projected = |source: Value| volume(json!({"projected": {"sources": [source]}}));
    for (spec, what) in [
        (with("serviceAccountName", json!("default")), "serviceaccounts"),
        (with("imagePullSecrets", json!([{"name": "s"}])), "secrets"),
        (with("resourceClaims", json!([{"name": "c", "resourceClaimName": "c"}])), "resourceclaims"),
        (env(json!({"secretKeyRef": {"name": "s", "key": "k"}})), "secrets"),
        (env(json!({"configMapKeyRef": {"name": "s", "key": "k"}})), "configmaps"),
        (volume(json!({"secret": {"secretName": "s"}})), "secrets"),
        (volume(json!({"configMap": {"name": "m"}})), "configmaps"),
        (volume(json!({"persistentVolumeClaim": {"claimName": "c"}})), "persistentvolumeclaims"),
        (volume(json!({"csi": {"driver": "d"}})), "csidrivers (via CSI volumes)"),
        (volume(json!({"ephemeral": {}})), "persistentvolumeclaims (via ephemeral volumes)"),
        (projected(json!({"secret": {"name": "s"}})), "secrets"),
        (projected(json!({"configMap": {"name": "s"}})), "configmaps"),
        (projected(json!({"serviceAccountToken": {"path": "t"}})), "serviceaccounts (via projected volumes)"),
        (projected(json!({"clusterTrustBundle": {"path": "t"}})), "clustertrustbundles"),
    ] {
        assert_eq!(refused(&pod(spec)), format!("static pods may not reference {what}"));
    }
    ok(&pod(projected(json!({"downwardAPI": {"items": []}}))));
    ok(&pod(env(json!({"fieldRef": {"fieldPath": "metadata.name"}}))));
}

#[test]
fn lists_are_for_urls() {
    let list =
        json!({"apiVersion": "v1", "kind": "PodList", "items": [pod(plain()), {"metadata": {"name": "b"}, "spec": plain()}]});
    let pods = read_all(list.to_string().as_bytes(), "n", URL).unwrap();
    let names: Vec<_> = pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["web-n", "b-n"]);
    assert_eq!(pods[0].metadata.annotations.as_ref().unwrap()[SOURCE], "http");
    assert!(read(list.to_string().as_bytes(), "n", FILE).is_err());
    assert_eq!(read_all(pod(plain()).to_string().as_bytes(), "n", URL).unwrap().len(), 1);
    assert_eq!(read_all(b"{\"apiVersion\": \"v1\", \"kind\": \"PodList\"}", "n", URL).unwrap().len(), 0);
    let broken = json!({"apiVersion": "v1", "kind": "PodList", "items": [pod(plain()), pod(json!({}))]});
    assert!(read_all(broken.to_string().as_bytes(), "n", URL).is_err());
}

#[test]
fn only_the_first_document_counts_and_anchors_work() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: &l {x: y}, annotations: *l}\nspec: {containers: [{name: c, image: i}]}\n---\nnot: a pod\n";
    let read_pod = read(text.as_bytes(), "n", FILE).unwrap();
    assert_eq!(read_pod.metadata.annotations.unwrap()["x"], "y");
}
