use super::*;
use serde_json::json;

fn read(spec: serde_json::Value) -> (Option<Service>, Vec<String>) {
    let wire = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    let mut faults = Vec::new();
    let service = service(&serde_json::from_value(wire).unwrap(), &mut faults);
    (service, faults.iter().map(ConvertError::to_string).collect())
}

/// One without any fault.
fn good(spec: serde_json::Value) -> Service {
    let (service, faults) = read(spec);
    assert_eq!(faults, [""; 0]);
    service.unwrap()
}

#[test]
fn a_service_is_read() {
    let s = good(json!({
        "type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4"], "sessionAffinity": "ClientIP",
        "externalTrafficPolicy": "Local",
        "ports": [{"name": "web", "port": 80, "targetPort": "http", "nodePort": 30080}, {"port": 53, "protocol": "UDP", "nodePort": 0}]
    }));
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
        assert_eq!(read(spec.clone()), (None, Vec::new()), "{spec}");
    }
    let labelled = |label: &str| {
        let s = json!({"metadata": {"name": "web", "labels": {label: ""}}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
        service(&serde_json::from_value(s).unwrap(), &mut Vec::new())
    };
    assert_eq!(labelled(LABEL_PROXY_NAME), None);
    // Slices say whose service is headless; on a service the label says nothing.
    assert!(labelled(LABEL_HEADLESS).is_some());
    assert_eq!(
        read_slice(json!({"metadata": {"name": "web-1", "labels": {LABEL_SERVICE_NAME: "web", LABEL_HEADLESS: ""}}})).0,
        None
    );
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
        assert_eq!(read(spec).1, [text]);
    }
}

#[test]
fn what_is_wrong_does_not_take_the_rest_with_it() {
    let (s, faults) = read(json!({
        "type": "NodePort", "clusterIPs": ["10.96.0.1", "x"], "externalIPs": ["", " ", "a", "0.0.0.0", "203.0.113.1"],
        "ports": [{"port": 80, "protocol": "ICMP"}, {"port": 0}, {"port": 81, "nodePort": 70_000}, {"port": 82, "nodePort": 30_082}]
    }));
    assert_eq!(faults.len(), 6, "{faults:?}");
    let s = s.unwrap();
    assert_eq!((s.cluster_ips.len(), s.external_ips.len()), (1, 1));
    assert_eq!(s.ports.iter().map(|p| (p.port, p.node_port)).collect::<Vec<_>>(), [(81, None), (82, Some(30_082))]);
    // Without a readable cluster IP there is nothing; with a restriction that cannot be read neither.
    assert_eq!(read(json!({"clusterIPs": ["x"]})).0, None);
    assert_eq!(read(json!({"clusterIP": "10.96.0.1", "loadBalancerSourceRanges": ["10.0.0.0/8", "x"]})).0, None);
    assert_eq!(read(json!({"clusterIP": "10.96.0.1", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}})).0, None);
}

#[test]
fn addresses_in_old_guises_are_read() {
    let s = good(json!({
        "clusterIPs": ["010.096.000.001"], "externalIPs": ["::ffff:203.0.113.1"], "ports": [{"port": 80}],
        "loadBalancerSourceRanges": ["010.0.0.0/8", "10.0.0.1/8"]
    }));
    assert_eq!(s.cluster_ips, [IpAddr::from([10, 96, 0, 1])]);
    assert_eq!(s.external_ips, [IpAddr::from([203, 0, 113, 1])]);
    assert_eq!(s.source_ranges, ["10.0.0.0/8".parse::<IpNet>().unwrap(); 2]);
}

#[test]
fn an_external_policy_needs_something_external() {
    let external = |more: serde_json::Value| {
        let mut spec = json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32_000, "ports": [{"port": 80}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let s = good(spec);
        (s.external_local, s.health_check_node_port)
    };
    assert_eq!(external(json!({"type": "ClusterIP"})), (false, None));
    assert_eq!(external(json!({"type": "ClusterIP", "externalIPs": ["203.0.113.1"]})), (true, None));
    assert_eq!(external(json!({"type": "NodePort"})), (true, None));
    assert_eq!(external(json!({"type": "LoadBalancer"})), (true, Some(32_000)));
    assert_eq!(external(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster"})), (false, None));
}

fn read_slice(more: serde_json::Value) -> (Option<Slice>, Vec<String>) {
    let mut all = json!({"metadata": {"name": "web-1", "namespace": "default", "labels": {LABEL_SERVICE_NAME: "web"}}, "addressType": "IPv4"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut faults = Vec::new();
    let slice = slice(&serde_json::from_value(all).unwrap(), "here", &mut faults);
    (slice, faults.iter().map(ConvertError::to_string).collect())
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
    assert_eq!(s.1, [""; 0]);
    let s = s.0.unwrap();
    assert_eq!(s.service, Key::new("default", "web"));
    assert_eq!(s.ports.len(), 1);
    let flags: Vec<_> = s.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating, e.local)).collect();
    assert_eq!(flags, [(true, true, false, true), (false, true, true, false)]);
    assert_eq!(read_slice(json!({"endpoints": null, "ports": null})).0.unwrap().endpoints.len(), 0);
    assert_eq!(read_slice(json!({"addressType": "FQDN"})), (None, Vec::new()));
}

#[test]
fn a_wrong_slice_is_named() {
    let (s, faults) = read_slice(json!({
        "endpoints": [{"addresses": ["fd00::1"]}, {"addresses": ["10.244.0.1"]}, {"addresses": ["x"]}],
        // The API server lets any number pass.
        "ports": [{"name": "a", "port": 0}, {"name": "b", "port": 70_000}, {"name": "c", "port": 80, "protocol": "X"}, {"name": "d", "port": 80}]
    }));
    let at = "endpointslice default/web-1: field";
    assert_eq!(
        faults,
        [
            format!("{at} ports[1].port: 70000 is not within 1 to 65535"),
            format!("{at} ports[2].protocol: \"X\" is not TCP, UDP or SCTP"),
            format!("{at} endpoints[0].addresses[0]: fd00::1 cannot be an endpoint of an IPv4 slice"),
            format!("{at} endpoints[2].addresses[0]: \"x\" is not an IP address"),
        ]
    );
    let s = s.unwrap();
    assert_eq!((s.ports.len(), &*s.ports[0].name, s.endpoints.len()), (1, "d", 1));
    let (s, faults) = read_slice(json!({"addressType": "X"}));
    assert_eq!((s, faults), (None, vec![format!("{at} addressType: \"X\" is not known")]));
}

#[test]
fn addresses_from_outside_are_read() {
    let text = json!({
        "metadata": {"namespace": "ns", "name": "lb"},
        "spec": {
            "type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "externalIPs": ["203.0.113.1"], "healthCheckNodePort": 32000, "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["198.51.100.7/24", " 10.0.0.0/8"], "ports": [{"port": 80}]
        },
        "status": {"loadBalancer": {"ingress": [{"hostname": "a"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"ip": "203.0.113.3"}]}}
    });
    let wire: wire::Service = serde_json::from_value(text).unwrap();
    let again: wire::Service = serde_json::from_value(serde_json::to_value(&wire).unwrap()).unwrap();
    assert_eq!(wire, again);
    let s = service(&wire, &mut Vec::new()).unwrap();
    assert_eq!(s.external_ips, ["203.0.113.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(s.load_balancer_ips, ["203.0.113.3".parse::<IpAddr>().unwrap()]);
    assert_eq!(s.source_ranges, ["198.51.100.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
    assert_eq!(s.health_check_node_port, Some(32000));
    let mut bad = wire.clone();
    bad.spec.load_balancer_source_ranges = vec!["everybody".into()];
    let mut faults = Vec::new();
    assert_eq!(service(&bad, &mut faults), None);
    assert_eq!(faults[0].field, "spec.loadBalancerSourceRanges[0]");
}
