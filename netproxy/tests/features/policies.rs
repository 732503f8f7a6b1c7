//! externalTrafficPolicy and internalTrafficPolicy, and whose way is short-circuited.

use super::*;

const FRONTS: [&str; 3] = ["192.168.77.11:30080", "203.0.113.1:80", "203.0.113.2:80"];

/// A service with every kind of frontend.
fn exposed(more: Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer", "externalIPs": ["203.0.113.1"], "ingress": [{"ip": "203.0.113.2"}],
        "ports": [{"name": "web", "port": 80, "nodePort": 30080}]
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service("web", &["10.96.0.1"], spec)
}

/// From each kind of sender to each frontend from outside.
#[track_caller]
fn from(c: &Cluster, from: &str, wanted: &str) {
    for to in FRONTS {
        assert_eq!(c.meets(from, to), wanted, "from {from} to {to}");
    }
}

#[test]
fn external_cluster_goes_anywhere_with_the_nodes_address() {
    let c =
        cluster(&[exposed(json!({"externalTrafficPolicy": "Cluster"})), slice("a", "web", &["10.244.0.1 here", "10.244.1.1"])]);
    for sender in ["pod", "node", "outside", "other node"] {
        from(&c, sender, "10.244.0.1:8080 10.244.1.1:8080 masqueraded");
    }
}

#[test]
fn external_local_keeps_the_source_and_the_node() {
    let c = cluster(&[exposed(json!({"externalTrafficPolicy": "Local"})), slice("a", "web", &["10.244.0.1 here", "10.244.1.1"])]);
    from(&c, "outside", "10.244.0.1:8080");
    from(&c, "other node", "10.244.0.1:8080");
    // As if it had gone out to the load balancer and come back: any endpoint; only a pod's address can be kept.
    from(&c, "pod", "10.244.0.1:8080 10.244.1.1:8080");
    from(&c, "node", "10.244.0.1:8080 10.244.1.1:8080 masqueraded");
    c.check(&[("pod", "10.96.0.1:80", "10.244.0.1:8080 10.244.1.1:8080")]);
}

#[test]
fn external_local_without_an_endpoint_here_drops_outside_traffic() {
    let c = cluster(&[
        exposed(json!({"externalTrafficPolicy": "Local"})),
        slice("a", "web", &["10.244.1.1", "10.244.0.2 here starting"]),
    ]);
    from(&c, "outside", "drop");
    from(&c, "pod", "10.244.1.1:8080");
    from(&c, "node", "10.244.1.1:8080 masqueraded");
    c.check(&[("outside", "10.96.0.1:80", "10.244.1.1:8080 masqueraded")]);
}

#[test]
fn without_a_way_to_tell_pods_apart_they_are_outside() {
    let objects = [exposed(json!({"externalTrafficPolicy": "Local"})), slice("a", "web", &["10.244.0.1 here", "10.244.1.1"])];
    let c = cluster(&objects).policy(|p| p.pods = PodTraffic::default());
    from(&c, "pod", "10.244.0.1:8080");
    from(&c, "node", "10.244.0.1:8080 10.244.1.1:8080 masqueraded");
    // By interface instead: the sender's address does not matter.
    let c = cluster(&objects).policy(|p| p.pods = PodTraffic::InterfacePrefix("veth".parse().unwrap()));
    from(&c, "pod", "10.244.0.1:8080 10.244.1.1:8080");
    from(&c, "10.244.0.9", "10.244.0.1:8080");
}

#[test]
fn an_external_policy_that_does_not_apply_is_ignored() {
    // The type was changed back, and the address of the balancer has not been taken away yet.
    let s = service("web", &["10.96.0.1"], json!({"externalTrafficPolicy": "Local", "ingress": [{"ip": "203.0.113.2"}]}));
    let c = cluster(&[s, slice("a", "web", &["10.244.1.1"])]);
    c.check(&[("outside", "203.0.113.2:80", "10.244.1.1:8080 masqueraded")]);
}

#[test]
fn internal_local_concerns_the_cluster_ip_only() {
    let s = exposed(json!({"internalTrafficPolicy": "Local"}));
    let c = cluster(&[s.clone(), slice("a", "web", &["10.244.0.1 here", "10.244.1.1"])]);
    c.check(&[
        ("pod", "10.96.0.1:80", "10.244.0.1:8080"),
        ("node", "10.96.0.1:80", "10.244.0.1:8080 masqueraded"),
        ("outside", "10.96.0.1:80", "10.244.0.1:8080 masqueraded"),
    ]);
    from(&c, "outside", "10.244.0.1:8080 10.244.1.1:8080 masqueraded");
    let c = cluster(&[s, slice("a", "web", &["10.244.1.1"])]);
    c.check(&[("pod", "10.96.0.1:80", "drop"), ("outside", "10.96.0.1:80", "drop"), ("pod", "10.96.0.1:81", "reject")]);
    from(&c, "outside", "10.244.1.1:8080 masqueraded");
}

#[test]
fn both_local() {
    let s = exposed(json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}));
    let c = cluster(&[s.clone(), slice("a", "web", &["10.244.0.1 here", "10.244.1.1"])]);
    c.check(&[("pod", "10.96.0.1:80", "10.244.0.1:8080")]);
    from(&c, "pod", "10.244.0.1:8080 10.244.1.1:8080");
    from(&c, "outside", "10.244.0.1:8080");
    let c = cluster(&[s, slice("a", "web", &["10.244.1.1"])]);
    c.check(&[("pod", "10.96.0.1:80", "drop")]);
    from(&c, "pod", "10.244.1.1:8080");
    from(&c, "outside", "drop");
}

#[test]
fn local_endpoints_fall_back_on_their_own() {
    let s = exposed(json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}));
    let c = cluster(&[s, slice("a", "web", &["10.244.0.1 here leaving", "10.244.0.2 here dead", "10.244.1.1"])]);
    from(&c, "outside", "10.244.0.1:8080");
    from(&c, "pod", "10.244.1.1:8080");
    c.check(&[("pod", "10.96.0.1:80", "10.244.0.1:8080")]);
}
