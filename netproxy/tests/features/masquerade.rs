//! Who sees whose address: masqueradeAll, detectLocalMode, hairpins.

use super::*;

fn objects() -> [Value; 2] {
    [service("web", &["10.96.0.1"], json!({})), slice("a", "web", &["10.244.0.1 here"])]
}

#[test]
fn by_cluster_range() {
    cluster(&objects()).check(&[
        ("pod", "10.96.0.1:80", "10.244.0.1:8080"),
        // Another node's pod is a pod.
        ("10.244.3.3", "10.96.0.1:80", "10.244.0.1:8080"),
        ("node", "10.96.0.1:80", "10.244.0.1:8080 masqueraded"),
        ("outside", "10.96.0.1:80", "10.244.0.1:8080 masqueraded"),
    ]);
}

#[test]
fn by_the_nodes_range() {
    let c = cluster(&objects()).policy(|p| p.pods = PodTraffic::Sources(vec![range("10.244.0.0/24")]));
    c.check(&[("pod", "10.96.0.1:80", "10.244.0.1:8080"), ("10.244.3.3", "10.96.0.1:80", "10.244.0.1:8080 masqueraded")]);
}

#[test]
fn by_bridge_or_prefix_of_the_interface() {
    for (pods, pod) in [
        (PodTraffic::Interface("veth9".parse().unwrap()), true),
        (PodTraffic::Interface("veth".parse().unwrap()), false),
        (PodTraffic::InterfacePrefix("veth".parse().unwrap()), true),
        (PodTraffic::InterfacePrefix("cali".parse().unwrap()), false),
    ] {
        let c = cluster(&objects()).policy(|p| p.pods = pods.clone());
        let wanted = if pod { "10.244.0.1:8080" } else { "10.244.0.1:8080 masqueraded" };
        assert_eq!(c.meets("pod", "10.96.0.1:80"), wanted, "{pods:?}");
        assert_eq!(c.meets("outside", "10.96.0.1:80"), "10.244.0.1:8080 masqueraded");
        assert_eq!(c.meets("node", "10.96.0.1:80"), "10.244.0.1:8080 masqueraded");
    }
}

#[test]
fn unknown_pods_mean_no_masquerade_of_cluster_ips() {
    let c = cluster(&objects()).policy(|p| p.pods = PodTraffic::default());
    for from in ["pod", "node", "outside"] {
        assert_eq!(c.meets(from, "10.96.0.1:80"), "10.244.0.1:8080");
    }
}

#[test]
fn all_of_it() {
    let c = cluster(&objects()).policy(|p| p.masquerade_all = true);
    for from in ["pod", "node", "outside"] {
        assert_eq!(c.meets(from, "10.96.0.1:80"), "10.244.0.1:8080 masqueraded");
    }
}

#[test]
fn a_pod_that_meets_itself_sees_the_node() {
    let exposed =
        json!({"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
    let c = cluster(&[service("web", &["10.96.0.1"], exposed), slice("a", "web", &["10.244.0.1 here"])]);
    c.check(&[
        ("10.244.0.1", "10.96.0.1:80", "10.244.0.1:8080 masqueraded"),
        ("10.244.0.1", "192.168.77.11:30080", "10.244.0.1:8080 masqueraded"),
        ("10.244.0.2", "192.168.77.11:30080", "10.244.0.1:8080"),
    ]);
    // Also while it terminates and is the last one.
    let c = cluster(&[service("web", &["10.96.0.1"], json!({})), slice("a", "web", &["10.244.0.1 here leaving"])]);
    c.check(&[("10.244.0.1", "10.96.0.1:80", "10.244.0.1:8080 masqueraded")]);
}
