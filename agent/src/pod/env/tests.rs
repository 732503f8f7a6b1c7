use super::*;
use serde_json::json;

fn env(
    container: serde_json::Value,
    fetched: &Fetched,
    services: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, EnvError> {
    let pod: api::Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "x"}},
        "spec": {"containers": [container]}
    }))
    .unwrap();
    let c = &pod.spec.as_ref().unwrap().containers[0];
    let context = PodContext { node_name: "n".into(), pod_ips: vec!["10.0.0.1".parse().unwrap()], ..Default::default() };
    Ok(resolve(&pod, c, fetched, services, &context)?.into_iter().map(|e| (e.name, e.value)).collect())
}

fn fetched() -> Fetched {
    let map: api::ConfigMap = serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap();
    let secret: api::Secret = serde_json::from_value(json!({"data": {"s": "c2VjcmV0"}})).unwrap();
    Fetched {
        config_maps: [("m".to_owned(), Some(Arc::new(map))), ("gone".to_owned(), None)].into(),
        secrets: [("s".to_owned(), Some(Arc::new(secret)))].into(),
        files: BTreeMap::new(),
    }
}

#[test]
fn what_no_process_can_have_is_named_without_its_value() {
    for (name, value) in [("", "v"), ("A=B", "v"), ("A\0", "v"), ("A", "secret\0")] {
        let c = json!({"name": "c", "env": [{"name": "FINE", "value": "1"}, {"name": name, "value": value}]});
        let error = env(c, &fetched(), &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("env {name:?}: ")) && !error.contains("secret"), "{error}");
    }
    let odd = json!({"name": "c", "env": [{"name": "größe.x-1 %", "value": "\n\u{7f}"}]});
    assert_eq!(env(odd, &fetched(), &BTreeMap::new()).unwrap().len(), 1, "odd, but possible");
}

#[test]
fn order_sources_and_expansion() {
    let services = BTreeMap::from([("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())]);
    let c = json!({"name": "c",
    "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "gone", "optional": true}}],
    "env": [
        {"name": "X", "value": "1"},
        {"name": "Y", "value": "$(X)-$(P_a)-$(NO)-$$(X)-$(KUBERNETES_SERVICE_HOST)"},
        {"name": "P_b", "value": "over"},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "s"}}},
        {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k", "optional": true}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]});
    let got = env(c, &fetched(), &services).unwrap();
    let text: Vec<String> = got.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        text,
        [
            "P_a=1",
            "P_b=over",
            "X=1",
            "Y=1-1-$(NO)-$(X)-10.96.0.1",
            "S=secret",
            "IP=10.0.0.1",
            "KUBERNETES_SERVICE_HOST=10.96.0.1"
        ]
    );
}

#[test]
fn missing_things_are_named() {
    let of = |source: serde_json::Value| {
        let c = json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]});
        env(c, &fetched(), &BTreeMap::new()).unwrap_err().to_string()
    };
    assert_eq!(of(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})), "configmap \"gone\" not found");
    assert_eq!(of(json!({"configMapKeyRef": {"name": "m", "key": "k"}})), "couldn't find key k in ConfigMap ns/m");
    assert!(of(json!({"fieldRef": {"fieldPath": "spec.odd"}})).contains("spec.odd"));
}

#[test]
fn needs_are_complete() {
    let c: api::Container = serde_json::from_value(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]}))
    .unwrap();
    let n = needs(&c);
    assert_eq!(n.config_maps, BTreeSet::from(["a".to_owned()]));
    assert_eq!(n.secrets, BTreeSet::from(["b".to_owned(), "d".to_owned()]));
}

#[test]
fn expansion_edges() {
    let look = |n: &str| (n == "A").then_some("v");
    for (text, expected) in
        [("$(A", "$(A"), ("$", "$"), ("$A", "$A"), ("$$(A)", "$(A)"), ("$$$(A)", "$v"), ("x$(A)y$(A)", "xvyv")]
    {
        assert_eq!(expand(text, look), expected);
    }
}

#[test]
fn service_variables() {
    let service = |namespace: &str, name: &str| -> Service {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}))
        .unwrap()
    };
    let all = [service("default", "kubernetes"), service("ns", "my-svc"), service("other", "o")];
    let linked = of_services(all.iter(), "ns", true);
    assert_eq!(linked["MY_SVC_SERVICE_HOST"], "10.96.0.7");
    assert_eq!(linked["MY_SVC_SERVICE_PORT"], "80");
    assert_eq!(linked["MY_SVC_SERVICE_PORT_DNS"], "53");
    assert_eq!(linked["MY_SVC_PORT"], "tcp://10.96.0.7:80");
    assert_eq!(linked["MY_SVC_PORT_53_UDP"], "udp://10.96.0.7:53");
    assert_eq!(linked["MY_SVC_PORT_53_UDP_ADDR"], "10.96.0.7");
    assert!(linked.keys().all(|k| !k.starts_with("O_")));
    // Whatever order they come in, the one of the pod's own namespace stands.
    let mut own = service("aaa", "kubernetes");
    own.spec.cluster_ip = Some("10.96.0.99".into());
    for both in [[service("default", "kubernetes"), own.clone()], [own, service("default", "kubernetes")]] {
        assert_eq!(of_services(both.iter(), "aaa", true)["KUBERNETES_SERVICE_HOST"], "10.96.0.99");
        assert_eq!(of_services(both.iter(), "aaa", false)["KUBERNETES_SERVICE_HOST"], "10.96.0.7");
    }
    let alone = of_services(all.iter(), "ns", false);
    assert!(alone.keys().all(|k| k.starts_with("KUBERNETES_")) && !alone.is_empty());
}

#[test]
fn variables_of_files() {
    let read = |value: Option<&str>| FoundInFile::Read { at: "/host/v/a".into(), value: value.map(str::to_owned) };
    let of = |found: Option<FoundInFile>, optional: bool| {
        let reference = json!({"volumeName": "v", "path": "a", "key": "k", "optional": optional});
        let c = json!({"name": "c", "env": [{"name": "X", "valueFrom": {"fileKeyRef": reference}}, {"name": "Y", "value": "[$(X)]"}]});
        let key = InFile { volume: "v".into(), path: "a".into(), key: "k".into() };
        assert_eq!(needs(&serde_json::from_value(c.clone()).unwrap()).files, BTreeSet::from([key.clone()]));
        let fetched = Fetched { files: found.map(|f| (key, f)).into_iter().collect(), ..Default::default() };
        let got = env(c, &fetched, &BTreeMap::new()).map_err(|e| e.to_string())?;
        Ok::<_, String>(got.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","))
    };
    assert_eq!(of(Some(read(Some("$(HOME)"))), false).unwrap(), "X=$(HOME),Y=[$(HOME)]", "not expanded itself");
    assert_eq!(of(Some(read(None)), true).unwrap(), "Y=[$(X)]");
    let missing = "environment variable key \"k\" not found in file \"/host/v/a\"";
    assert_eq!(of(Some(read(None)), false).unwrap_err(), missing);
    for optional in [false, true] {
        let error = file::FileError::Format { line: 3, why: "missing '='" };
        let text = "couldn't parse env file \"a\" of volume \"v\": line 3: missing '='";
        assert_eq!(of(Some(FoundInFile::Unreadable(error)), optional).unwrap_err(), text);
        for none in [None, Some(FoundInFile::NoVolume)] {
            assert_eq!(of(none, optional).unwrap_err(), "cannot find the volume \"v\" referenced by FileKeyRef");
        }
    }
    assert!(of(Some(read(Some("a\0b"))), false).unwrap_err().contains("zero byte"));
}

#[test]
fn a_sub_path_needs_every_value() {
    let env = [EnvVar::new("A", "x"), EnvVar::new("E", "")];
    assert_eq!(expand_sub_path("$(A)/$$(A)/b", &env).unwrap(), "x/$(A)/b");
    assert_eq!(expand_sub_path("$(Z)/$(A)/$(E)", &env).unwrap_err().to_string(), "missing value for E, Z");
}
