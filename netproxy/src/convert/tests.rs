use super::*;
use serde_json::json;

fn read(spec: serde_json::Value) -> Result<Option<Service>, ConvertError> {
    service(&serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})).unwrap())
}

#[test]
fn a_service_is_read() {
    let s = read(json!({
        "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4"], "sessionAffinity": "ClientIP",
        "externalTrafficPolicy": "Local",
        "ports": [{"name": "web", "port": 80, "targetPort": "http", "nodePort": 30080}, {"port": 53, "protocol": "UDP", "nodePort": 0}]
    }));
    let s = s.unwrap().unwrap();
    assert_eq!(s.cluster_ips.len(), 2);
    assert!(s.external_local && !s.internal_local);
    assert_eq!(s.affinity, Some(10_800));
    assert_eq!((s.ports[0].node_port, s.ports[0].proto), (Some(30080), Proto::Tcp));
    assert_eq!((s.ports[1].node_port, s.ports[1].proto), (None, Proto::Udp));
}

#[test]
fn what_is_not_ours_is_left_alone() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"clusterIP": "None"}),
        json!({"type": "ExternalName", "externalName": "example.test"}),
        json!({}),
    ] {
        assert_eq!(read(spec.clone()), Ok(None), "{spec}");
    }
    for label in [LABEL_PROXY_NAME, LABEL_HEADLESS] {
        let s = json!({"metadata": {"name": "web", "labels": {label: ""}}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
        assert_eq!(service(&serde_json::from_value(s).unwrap()), Ok(None));
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (spec, text) in [
        (json!({"clusterIPs": ["10.96.0.1", "x"]}), "service default/web: field spec.clusterIPs[1]: \"x\" is not an IP address"),
        (json!({"clusterIP": "127.0.0.1"}), "service default/web: field spec.clusterIPs[0]: 127.0.0.1 cannot be a cluster IP"),
        (
            json!({"clusterIP": "10.96.0.1", "ports": [{"port": 70000}]}),
            "service default/web: field spec.ports[0].port: 70000 is not within 1 to 65535",
        ),
        (
            json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}, {"port": 80, "protocol": "ICMP"}]}),
            "service default/web: field spec.ports[1].protocol: \"ICMP\" is not TCP, UDP or SCTP",
        ),
    ] {
        assert_eq!(read(spec).unwrap_err().to_string(), text);
    }
}

fn read_slice(more: serde_json::Value) -> Result<Option<Slice>, ConvertError> {
    let mut all = json!({"metadata": {"name": "web-1", "namespace": "default", "labels": {LABEL_SERVICE_NAME: "web"}}, "addressType": "IPv4"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    slice(&serde_json::from_value(all).unwrap(), "here")
}

#[test]
fn a_slice_is_read_with_its_defaults() {
    let s = read_slice(json!({
        "endpoints": [
            {"addresses": ["10.244.0.1"], "nodeName": "here", "conditions": null},
            {"addresses": ["10.244.0.2", "10.244.0.3"], "nodeName": "there", "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": []}
        ],
        "ports": [{"name": null, "port": 8080}, {"name": "all", "port": null}]
    }));
    let s = s.unwrap().unwrap();
    assert_eq!(s.service, Key::new("default", "web"));
    assert_eq!(s.ports.len(), 1);
    let flags: Vec<_> = s.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating, e.local)).collect();
    assert_eq!(flags, [(true, true, false, true), (false, true, true, false)]);
    assert_eq!(read_slice(json!({"endpoints": null, "ports": null})).unwrap().unwrap().endpoints.len(), 0);
    assert_eq!(read_slice(json!({"addressType": "FQDN"})), Ok(None));
}

#[test]
fn a_wrong_slice_is_named() {
    let text = |more| read_slice(more).unwrap_err().to_string();
    assert_eq!(
        text(json!({"endpoints": [{"addresses": ["fd00::1"]}]})),
        "endpointslice default/web-1: field endpoints[0].addresses[0]: fd00::1 cannot be an endpoint of an IPv4 slice"
    );
    assert_eq!(text(json!({"addressType": "X"})), "endpointslice default/web-1: field addressType: \"X\" is not known");
}

#[test]
fn addresses_from_outside_are_read() {
    let text = json!({
        "metadata": {"namespace": "ns", "name": "lb"},
        "spec": {
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "externalIPs": ["203.0.113.1"], "healthCheckNodePort": 32000,
            "loadBalancerSourceRanges": ["198.51.100.7/24", " 10.0.0.0/8"], "ports": [{"port": 80}]
        },
        "status": {"loadBalancer": {"ingress": [{"hostname": "a"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"ip": "203.0.113.3"}]}}
    });
    let wire: wire::Service = serde_json::from_value(text).unwrap();
    let again: wire::Service = serde_json::from_value(serde_json::to_value(&wire).unwrap()).unwrap();
    assert_eq!(wire, again);
    let s = service(&wire).unwrap().unwrap();
    assert_eq!(s.external_ips, ["203.0.113.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(s.load_balancer_ips, ["203.0.113.3".parse::<IpAddr>().unwrap()]);
    assert_eq!(s.source_ranges, ["198.51.100.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
    assert_eq!(s.health_check_node_port, Some(32000));
    let mut bad = wire.clone();
    bad.spec.load_balancer_source_ranges = vec!["everybody".into()];
    assert_eq!(service(&bad).unwrap_err().field, "spec.loadBalancerSourceRanges[0]");
}
