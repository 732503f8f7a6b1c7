//! loadBalancerSourceRanges.

use super::*;

fn balanced(ranges: &[&str], more: Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer", "externalIPs": ["203.0.113.1"], "ingress": [{"ip": "203.0.113.2"}, {"ip": "192.168.78.11"}],
        "loadBalancerSourceRanges": ranges, "ports": [{"name": "web", "port": 80, "nodePort": 30080}]
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service("web", &["10.96.0.1"], spec)
}

const ENDPOINT: &str = "10.244.1.1:8080 masqueraded";

#[test]
fn only_balancer_addresses_are_restricted() {
    let c = cluster(&[balanced(&["198.51.100.0/25", "203.0.113.128/25"], json!({})), slice("a", "web", &["10.244.1.1"])]);
    c.check(&[
        ("outside", "203.0.113.2:80", ENDPOINT),
        ("198.51.100.130", "203.0.113.2:80", "drop"),
        ("pod", "203.0.113.2:80", "drop"),
        ("node", "203.0.113.2:80", "drop"),
        // Not node ports, external IPs or the cluster IP.
        ("198.51.100.130", "203.0.113.1:80", ENDPOINT),
        ("198.51.100.130", "192.168.77.11:30080", ENDPOINT),
        ("198.51.100.130", "10.96.0.1:80", ENDPOINT),
    ]);
}

#[test]
fn the_node_itself_may_use_its_own_balancer_address_if_it_is_allowed() {
    // What the node sends to an address of its own has that address as its source, too.
    let own = ("192.168.78.11", "192.168.78.11:80");
    let c = cluster(&[balanced(&["192.168.77.0/24"], json!({})), slice("a", "web", &["10.244.1.1"])]);
    c.check(&[(own.0, own.1, ENDPOINT), ("node", "203.0.113.2:80", ENDPOINT), ("outside", "192.168.78.11:80", "drop")]);
    let c = cluster(&[balanced(&["198.51.100.0/24"], json!({})), slice("a", "web", &["10.244.1.1"])]);
    c.check(&[(own.0, own.1, "drop")]);
}

#[test]
fn everybody_is_no_restriction_and_another_family_none_either() {
    for ranges in [&["198.51.100.0/25", "0.0.0.0/0"][..], &[], &["2001:db8::/32"], &[" 198.51.0.0/16 "]] {
        let c = cluster(&[balanced(ranges, json!({})), slice("a", "web", &["10.244.1.1"])]);
        c.check(&[("outside", "203.0.113.2:80", ENDPOINT)]);
        assert_eq!(c.faults, [""; 0]);
    }
}

#[test]
fn a_range_that_cannot_be_read_opens_nothing() {
    let c = cluster(&[balanced(&["198.51.100.0/25", "anybody"], json!({})), slice("a", "web", &["10.244.1.1"])]);
    assert_eq!(c.faults, ["service ns/web: field spec.loadBalancerSourceRanges[1]: \"anybody\" is not an address range"]);
    c.check(&[("outside", "203.0.113.2:80", "pass")]);
}

#[test]
fn restrictions_come_before_policies_and_refusals() {
    let local = json!({"externalTrafficPolicy": "Local"});
    let c = cluster(&[
        balanced(&["198.51.100.0/24", "10.244.0.0/16"], local.clone()),
        slice("a", "web", &["10.244.0.1 here", "10.244.1.1"]),
    ]);
    c.check(&[
        ("outside", "203.0.113.2:80", "10.244.0.1:8080"),
        ("pod", "203.0.113.2:80", "10.244.0.1:8080 10.244.1.1:8080"),
        ("other node", "203.0.113.2:80", "drop"),
    ]);
    let c = cluster(&[balanced(&["198.51.100.0/24"], local)]);
    c.check(&[("outside", "203.0.113.2:80", "reject"), ("other node", "203.0.113.2:80", "drop")]);
}
