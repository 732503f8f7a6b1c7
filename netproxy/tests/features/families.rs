//! IPv4, IPv6, dual stack.

use super::*;

#[test]
fn each_family_has_its_own_endpoints() {
    let c = cluster(&[
        service(
            "web",
            &["10.96.0.1", "fd00:96::1"],
            json!({"type": "NodePort", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]}),
        ),
        slice("a", "web", &["10.244.0.1 here"]),
        slice("b", "web", &["fd00:244::1 here"]),
    ]);
    c.check(&[
        ("pod", "10.96.0.1:80", "10.244.0.1:8080"),
        ("pod", "[fd00:96::1]:80", "[fd00:244::1]:8080"),
        ("outside", "192.168.77.11:30080", "10.244.0.1:8080 masqueraded"),
        ("outside", "[fd00:77::11]:30080", "[fd00:244::1]:8080 masqueraded"),
        ("outside", "[fd00:96::1]:80", "[fd00:244::1]:8080 masqueraded"),
    ]);
}

#[test]
fn a_family_without_endpoints_is_refused_alone() {
    let more = json!({
        "type": "LoadBalancer", "ports": [{"name": "web", "port": 80, "nodePort": 30080}],
        "ingress": [{"ip": "203.0.113.1"}, {"ip": "2001:db8::1"}]
    });
    let c = cluster(&[service("web", &["10.96.0.1", "fd00:96::1"], more), slice("a", "web", &["10.244.0.1 here"])]);
    c.check(&[
        ("pod", "10.96.0.1:80", "10.244.0.1:8080"),
        ("pod", "[fd00:96::1]:80", "reject"),
        ("outside", "[fd00:77::11]:30080", "reject"),
        ("outside", "203.0.113.1:80", "10.244.0.1:8080 masqueraded"),
        ("outside", "[2001:db8::1]:80", "reject"),
    ]);
}

#[test]
fn a_family_without_a_cluster_ip_has_no_frontend_at_all() {
    let more = json!({
        "type": "LoadBalancer", "ports": [{"name": "web", "port": 80, "nodePort": 30080}], "externalIPs": ["2001:db8::2"],
        "ingress": [{"ip": "2001:db8::1"}]
    });
    let c = cluster(&[
        service("web", &["10.96.0.1"], more),
        slice("a", "web", &["10.244.0.1 here"]),
        slice("b", "web", &["fd00:244::1 here"]),
    ]);
    c.check(&[
        ("outside", "[2001:db8::1]:80", "pass"),
        ("outside", "[2001:db8::2]:80", "pass"),
        ("outside", "[fd00:77::11]:30080", "pass"),
        ("outside", "192.168.77.11:30080", "10.244.0.1:8080 masqueraded"),
    ]);
}

#[test]
fn only_ipv6() {
    let c = cluster(&[service("web", &["fd00:96::1"], json!({})), slice("b", "web", &["fd00:244::1", "fd00:244::2 leaving"])]);
    c.check(&[("pod", "[fd00:96::1]:80", "[fd00:244::1]:8080"), ("pod", "[fd00:96::1]:81", "reject")]);
}

#[test]
fn a_host_without_ipv6_has_rules_for_ipv4_only() {
    let c = cluster(&[
        service("web", &["10.96.0.1", "fd00:96::1"], json!({})),
        slice("a", "web", &["10.244.0.1 here"]),
        slice("b", "web", &["fd00:244::1 here"]),
    ]);
    let c = c.policy(|p| p.families = [ferrolet_netproxy::Family::V4].into());
    c.check(&[("pod", "10.96.0.1:80", "10.244.0.1:8080"), ("pod", "[fd00:96::1]:80", "pass")]);
}

#[test]
fn hints_and_pods_are_told_apart_in_each_family() {
    let c = cluster(&[
        service("web", &["10.96.0.1", "fd00:96::1"], json!({})),
        slice("a", "web", &["10.244.0.1 zone:z1", "10.244.0.2 zone:z2"]),
        slice("b", "web", &["fd00:244::1", "fd00:244::2 zone:z1"]),
    ]);
    c.check(&[("pod", "10.96.0.1:80", "10.244.0.1:8080"), ("pod", "[fd00:96::1]:80", "[fd00:244::1]:8080 [fd00:244::2]:8080")]);
    // A cluster CIDR of one family says nothing of the other.
    let c = c.policy(|p| p.pods = PodTraffic::Sources(vec![range("10.244.0.0/16")]));
    c.check(&[
        ("outside", "10.96.0.1:80", "10.244.0.1:8080 masqueraded"),
        ("outside", "[fd00:96::1]:80", "[fd00:244::1]:8080 [fd00:244::2]:8080"),
    ]);
}
