//! Hints for zones and nodes (trafficDistribution), and when they are not followed. This node is `here`, in zone z1.

use super::*;

fn meets(endpoints: &[&str]) -> String {
    cluster(&[service("web", &["10.96.0.1"], json!({})), slice("a", "web", endpoints)]).meets("pod", "10.96.0.1:80")
}

#[test]
fn same_zone() {
    assert_eq!(
        meets(&["10.244.1.1 zone:z1", "10.244.1.2 zone:z2", "10.244.1.3 zone:z1 zone:z2"]),
        "10.244.1.1:8080 10.244.1.3:8080"
    );
}

#[test]
fn same_node_before_same_zone() {
    let near = ["10.244.0.1 here zone:z1 node:here", "10.244.1.2 zone:z1 node:there"];
    assert_eq!(meets(&near), "10.244.0.1:8080");
    // None for this node: its zone.
    assert_eq!(meets(&["10.244.1.2 zone:z1 node:there", "10.244.1.3 zone:z2 node:far"]), "10.244.1.2:8080");
    // Hints for nodes without hints for zones, and none for this node.
    assert_eq!(meets(&["10.244.1.2 node:there", "10.244.1.3 node:far"]), "10.244.1.2:8080 10.244.1.3:8080");
}

#[test]
fn one_without_a_hint_ends_them_all() {
    assert_eq!(
        meets(&["10.244.1.1 zone:z1", "10.244.1.2 zone:z2", "10.244.1.3"]),
        "10.244.1.1:8080 10.244.1.2:8080 10.244.1.3:8080"
    );
    // A hint for a node is missing somewhere, one for a zone nowhere.
    assert_eq!(
        meets(&["10.244.1.1 zone:z1 node:here", "10.244.1.2 zone:z1", "10.244.1.3 zone:z2"]),
        "10.244.1.1:8080 10.244.1.2:8080"
    );
}

#[test]
fn no_endpoint_for_this_zone_or_a_node_without_one() {
    let far = ["10.244.1.1 zone:z2", "10.244.1.2 zone:z3"];
    assert_eq!(meets(&far), "10.244.1.1:8080 10.244.1.2:8080");
    let objects = [service("web", &["10.96.0.1"], json!({})), slice("a", "web", &["10.244.1.1 zone:z1", "10.244.1.2 zone:z2"])];
    let c = cluster(&objects).policy(|p| p.zone = String::new());
    c.check(&[("pod", "10.96.0.1:80", "10.244.1.1:8080 10.244.1.2:8080")]);
}

#[test]
fn only_ready_ones_count_for_hints() {
    // One that is not ready has no hint: nothing follows from it.
    assert_eq!(meets(&["10.244.1.1 zone:z1", "10.244.1.2 zone:z2", "10.244.1.3 starting"]), "10.244.1.1:8080");
    // The last ones that leave are taken wherever they are.
    assert_eq!(meets(&["10.244.1.1 zone:z1 leaving", "10.244.1.2 zone:z2 leaving"]), "10.244.1.1:8080 10.244.1.2:8080");
    // The only one of this zone leaves, others are ready elsewhere.
    assert_eq!(meets(&["10.244.1.1 zone:z1 leaving", "10.244.1.2 zone:z2"]), "10.244.1.2:8080");
}

#[test]
fn hints_narrow_every_frontend_with_a_cluster_policy_and_no_local_one() {
    let s = service(
        "web",
        &["10.96.0.1"],
        json!({"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]}),
    );
    let c = cluster(&[s, slice("a", "web", &["10.244.0.1 here zone:z2", "10.244.1.1 zone:z1"])]);
    c.check(&[
        ("pod", "10.96.0.1:80", "10.244.1.1:8080"),
        ("pod", "192.168.77.11:30080", "10.244.1.1:8080"),
        ("outside", "192.168.77.11:30080", "10.244.0.1:8080"),
    ]);
}

#[test]
fn each_port_follows_its_own_endpoints() {
    let ports = json!([{"name": "web", "port": 80}, {"name": "admin", "port": 81}]);
    let mut other = slice("b", "web", &["10.244.1.3"]);
    other["ports"] = json!([{"name": "admin", "port": 9090}]);
    let mut both = slice("a", "web", &["10.244.1.1 zone:z1", "10.244.1.2 zone:z2"]);
    both["ports"] = json!([{"name": "web", "port": 8080}, {"name": "admin", "port": 9090}]);
    let c = cluster(&[service("web", &["10.96.0.1"], json!({"ports": ports})), both, other]);
    c.check(&[
        ("pod", "10.96.0.1:80", "10.244.1.1:8080"),
        ("pod", "10.96.0.1:81", "10.244.1.1:9090 10.244.1.2:9090 10.244.1.3:9090"),
    ]);
}
