//! ClusterIP, NodePort, LoadBalancer, external IPs; services without rules; ports and protocols; what nobody serves.

use super::*;

#[test]
fn a_cluster_ip_is_balanced_and_its_other_ports_are_refused() {
    let c = cluster(&[service("web", &["10.96.0.1"], json!({})), slice("a", "web", &["10.244.0.1 here", "10.244.1.1"])]);
    c.check(&[
        ("pod", "10.96.0.1:80", "10.244.0.1:8080 10.244.1.1:8080"),
        ("node", "10.96.0.1:80", "10.244.0.1:8080 10.244.1.1:8080 masqueraded"),
        ("outside", "10.96.0.1:80", "10.244.0.1:8080 10.244.1.1:8080 masqueraded"),
        ("pod", "10.96.0.1:81", "reject"),
        ("pod", "10.96.0.1:80/udp", "reject"),
        ("pod", "10.96.0.2:80", "pass"),
        ("pod", "192.168.77.11:80", "pass"),
    ]);
}

#[test]
fn without_endpoints_every_frontend_is_refused() {
    let all = json!({
        "type": "LoadBalancer", "ports": [{"name": "web", "port": 80, "nodePort": 30080}], "externalIPs": ["203.0.113.1"],
        "ingress": [{"ip": "203.0.113.2"}]
    });
    for policy in ["Cluster", "Local"] {
        let mut s = service("web", &["10.96.0.1"], all.clone());
        s["spec"]["externalTrafficPolicy"] = json!(policy);
        s["spec"]["internalTrafficPolicy"] = json!(policy);
        for endpoints in [vec![], vec!["10.244.0.1 here starting", "10.244.0.2 here dead"]] {
            let c = cluster(&[s.clone(), slice("a", "web", &endpoints)]);
            for from in ["pod", "node", "outside"] {
                for to in ["10.96.0.1:80", "203.0.113.1:80", "203.0.113.2:80", "192.168.77.11:30080"] {
                    assert_eq!(c.meets(from, to), "reject", "{policy} {from} {to}");
                }
            }
        }
    }
}

#[test]
fn node_ports_answer_on_every_own_address_but_loopback() {
    let ports = json!({"type": "NodePort", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
    let c = cluster(&[service("web", &["10.96.0.1"], ports), slice("a", "web", &["10.244.1.1"])]);
    c.check(&[
        ("outside", "192.168.77.11:30080", "10.244.1.1:8080 masqueraded"),
        ("outside", "192.168.78.11:30080", "10.244.1.1:8080 masqueraded"),
        ("pod", "192.168.77.11:30080", "10.244.1.1:8080 masqueraded"),
        ("node", "192.168.77.11:30080", "10.244.1.1:8080 masqueraded"),
        ("127.0.0.1", "127.0.0.1:30080", "pass"),
        // Another node's.
        ("pod", "192.168.77.12:30080", "pass"),
        ("outside", "192.168.77.11:30081", "pass"),
        ("outside", "192.168.77.11:30080/udp", "pass"),
    ]);
}

#[test]
fn node_port_addresses_restrict_node_ports_and_nothing_else() {
    let more =
        json!({"type": "NodePort", "externalIPs": ["192.168.78.11"], "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
    let empty = json!({"type": "NodePort", "ports": [{"name": "web", "port": 80, "nodePort": 30081}]});
    let objects = [
        service("web", &["10.96.0.1", "fd00:96::1"], more),
        service("empty", &["10.96.0.2"], empty),
        slice("a", "web", &["10.244.1.1"]),
        slice("b", "web", &["fd00:244::1"]),
    ];
    let on = |ranges: &[&str]| cluster(&objects).policy(|p| p.node_port_ranges = Some(ranges.iter().map(|r| range(r)).collect()));
    on(&["192.168.77.0/24"]).check(&[
        ("outside", "192.168.77.11:30080", "10.244.1.1:8080 masqueraded"),
        ("outside", "192.168.78.11:30080", "pass"),
        ("outside", "192.168.77.11:30081", "reject"),
        ("outside", "192.168.78.11:30081", "pass"),
        ("outside", "192.168.78.11:80", "10.244.1.1:8080 masqueraded"),
        ("pod", "10.96.0.1:80", "10.244.1.1:8080"),
        // A family of which no range is given is not restricted.
        ("outside", "[fd00:77::11]:30080", "[fd00:244::1]:8080 masqueraded"),
    ]);
    on(&["0.0.0.0/0", "fd00:78::/64"])
        .check(&[("outside", "192.168.78.11:30080", "10.244.1.1:8080 masqueraded"), ("outside", "[fd00:77::11]:30080", "pass")]);
    // Addresses are wanted, but none is known yet.
    on(&[]).check(&[("outside", "192.168.77.11:30080", "pass"), ("outside", "[fd00:77::11]:30080", "pass")]);
}

#[test]
fn load_balancer_addresses_are_served_where_packets_come_with_them() {
    let ingress = json!([
        {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "VIP"}, {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"hostname": "lb.example"}, {"ip": "203.0.113.4", "ipMode": "Other"}
    ]);
    let s = service("web", &["10.96.0.1"], json!({"type": "LoadBalancer", "ingress": ingress}));
    let c = cluster(&[s, slice("a", "web", &["10.244.1.1"])]);
    c.check(&[
        ("outside", "203.0.113.1:80", "10.244.1.1:8080 masqueraded"),
        ("outside", "203.0.113.2:80", "10.244.1.1:8080 masqueraded"),
        ("outside", "203.0.113.3:80", "pass"),
        ("outside", "203.0.113.4:80", "pass"),
        ("pod", "203.0.113.1:80", "10.244.1.1:8080 masqueraded"),
        ("node", "203.0.113.1:80", "10.244.1.1:8080 masqueraded"),
        // Other ports of an address from outside are not this service's business.
        ("outside", "203.0.113.1:81", "pass"),
    ]);
    let only_a_name = service("web", &["10.96.0.1"], json!({"type": "LoadBalancer", "ingress": [{"hostname": "lb.example"}]}));
    let c = cluster(&[only_a_name, slice("a", "web", &["10.244.1.1"])]);
    assert_eq!(c.faults, [""; 0]);
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080")]);
}

#[test]
fn external_ips_may_be_the_nodes_own() {
    let s = service("web", &["10.96.0.1"], json!({"externalIPs": ["192.168.77.11", "203.0.113.1"]}));
    let other = json!({"type": "NodePort", "ports": [{"name": "web", "port": 8, "nodePort": 30080}]});
    let c = cluster(&[
        s,
        slice("a", "web", &["10.244.1.1"]),
        service("other", &["10.96.0.2"], other),
        slice("b", "other", &["10.244.1.2"]),
    ]);
    c.check(&[
        ("outside", "192.168.77.11:80", "10.244.1.1:8080 masqueraded"),
        ("outside", "203.0.113.1:80", "10.244.1.1:8080 masqueraded"),
        ("node", "192.168.77.11:80", "10.244.1.1:8080 masqueraded"),
        // Its other ports are still the node's, and node ports.
        ("outside", "192.168.77.11:22", "pass"),
        ("outside", "192.168.77.11:30080", "10.244.1.2:8080 masqueraded"),
    ]);
}

#[test]
fn two_services_may_share_an_address_from_outside() {
    let other = json!({"externalIPs": ["203.0.113.1"], "ports": [{"name": "web", "port": 81}]});
    let c = cluster(&[
        service("one", &["10.96.0.1"], json!({"externalIPs": ["203.0.113.1"]})),
        service("two", &["10.96.0.2"], other),
        slice("a", "one", &["10.244.1.1"]),
        slice("b", "two", &["10.244.1.2"]),
    ]);
    c.check(&[
        ("outside", "203.0.113.1:80", "10.244.1.1:8080 masqueraded"),
        ("outside", "203.0.113.1:81", "10.244.1.2:8080 masqueraded"),
    ]);
}

#[test]
fn services_without_rules() {
    let endpoints = slice("a", "web", &["10.244.1.1"]);
    let nothing = |s: Value| {
        let c = cluster(&[s.clone(), endpoints.clone()]);
        assert_eq!((c.rules().blocks().count(), c.faults.len()), (0, 0), "{s}");
    };
    nothing(service("web", &["None"], json!({})));
    nothing(service("web", &[], json!({"clusterIP": "None"})));
    nothing(service("web", &[], json!({"clusterIP": "", "type": "LoadBalancer", "ingress": [{"ip": "203.0.113.1"}]})));
    nothing(service("web", &["10.96.0.1"], json!({"type": "ExternalName", "externalName": "example.test"})));
    let mut s = service("web", &["10.96.0.1"], json!({}));
    s["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "another"});
    nothing(s);
}

#[test]
fn one_port_on_all_protocols() {
    let ports = json!([
        {"name": "t", "port": 53, "protocol": "TCP", "nodePort": 30053}, {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "s", "port": 53, "protocol": "SCTP", "nodePort": 30053}
    ]);
    let s = service("dns", &["10.96.0.1"], json!({"type": "NodePort", "externalIPs": ["203.0.113.1"], "ports": ports}));
    let targets = json!([
        {"name": "t", "port": 1, "protocol": "TCP"}, {"name": "u", "port": 2, "protocol": "UDP"}, {"name": "s", "port": 3, "protocol": "SCTP"}
    ]);
    let c = cluster(&[s, with(slice("a", "dns", &["10.244.1.1"]), "/ports", targets)]);
    for (proto, port) in [("tcp", 1), ("udp", 2), ("sctp", 3)] {
        assert_eq!(c.meets("pod", &format!("10.96.0.1:53/{proto}")), format!("10.244.1.1:{port}"));
        for to in ["203.0.113.1:53", "192.168.77.11:30053"] {
            assert_eq!(c.meets("outside", &format!("{to}/{proto}")), format!("10.244.1.1:{port} masqueraded"));
        }
    }
    // A name of another protocol does not match.
    let ports = json!([{"name": "web", "port": 80, "protocol": "UDP"}]);
    let c = cluster(&[service("web", &["10.96.0.1"], json!({"ports": ports})), slice("a", "web", &["10.244.1.1"])]);
    c.check(&[("pod", "10.96.0.1:80/udp", "reject")]);
}

#[test]
fn an_unknown_protocol_takes_its_port_only() {
    let ports = json!([{"name": "x", "port": 80, "protocol": "DCCP"}, {"name": "web", "port": 81}]);
    let c = cluster(&[service("web", &["10.96.0.1"], json!({"ports": ports})), slice("a", "web", &["10.244.1.1"])]);
    assert_eq!(c.faults, ["service ns/web: field spec.ports[0].protocol: \"DCCP\" is not TCP, UDP or SCTP"]);
    c.check(&[("pod", "10.96.0.1:80", "reject"), ("pod", "10.96.0.1:81", "10.244.1.1:8080")]);
}

#[test]
fn several_ports_each_have_their_own_target() {
    let ports = json!([{"name": "web", "port": 80}, {"name": "admin", "port": 81}, {"name": "gone", "port": 82}]);
    let targets = json!([{"name": "web", "port": 8080}, {"name": "admin", "port": 9090}, {"name": "extra", "port": 1}]);
    let c = cluster(&[
        service("web", &["10.96.0.1"], json!({"ports": ports})),
        with(slice("a", "web", &["10.244.1.1"]), "/ports", targets),
    ]);
    c.check(&[
        ("pod", "10.96.0.1:80", "10.244.1.1:8080"),
        ("pod", "10.96.0.1:81", "10.244.1.1:9090"),
        ("pod", "10.96.0.1:82", "reject"),
    ]);
}

#[test]
fn a_service_that_goes_leaves_nothing() {
    let mut c =
        cluster(&[service("web", &["10.96.0.1"], json!({"externalIPs": ["203.0.113.1"]})), slice("a", "web", &["10.244.1.1"])]);
    c.apply(&service("web", &["None"], json!({})));
    c.check(&[("pod", "10.96.0.1:80", "pass"), ("pod", "203.0.113.1:80", "pass")]);
    assert_eq!(c.rules(), cluster(&[]).rules());
}

#[test]
fn addresses_that_no_service_has_are_dropped_within_the_ranges_for_services() {
    let c = cluster(&[service("web", &["10.96.0.1"], json!({})), slice("a", "web", &["10.244.1.1"])]);
    c.check(&[("pod", "10.96.0.9:80", "pass")]);
    let c = c.policy(|p| p.service_ranges = vec![range("10.96.0.0/16"), range("192.168.77.0/24")]);
    c.check(&[
        ("pod", "10.96.0.9:80", "drop"),
        ("node", "10.96.0.9:80", "drop"),
        ("pod", "10.96.0.1:80", "10.244.1.1:8080"),
        ("pod", "10.96.0.1:81", "reject"),
        ("pod", "10.97.0.9:80", "pass"),
        // This host answers for its own.
        ("pod", "192.168.77.11:22", "pass"),
    ]);
}
