//! External IPs and load balancer addresses.

use super::*;

const EXTERNAL: &str = "203.0.113.7";
const BALANCER: &str = "203.0.113.8";
const PROXIED: &str = "203.0.113.9";

/// A service with an external IP and two load balancer addresses, one of which is the balancer's own business.
fn balanced(more: serde_json::Value) -> wire::Service {
    let mut s = service(json!({"type": "LoadBalancer", "externalIPs": [EXTERNAL]}));
    let mut spec = serde_json::to_value(&s.spec).unwrap();
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    s.spec = serde_json::from_value(spec).unwrap();
    let ingress = json!([{"ip": BALANCER, "ipMode": "VIP"}, {"ip": PROXIED, "ipMode": "Proxy"}, {"hostname": "lb.example"}]);
    let mut whole = serde_json::to_value(&s).unwrap();
    whole["status"] = json!({"loadBalancer": {"ingress": ingress}});
    serde_json::from_value(whole).unwrap()
}

#[test]
fn addresses_from_outside_are_served() {
    let Some(lab) = Lab::new(3) else { return };
    lab.outside.ip(&format!("route add 203.0.113.0/24 via {NODE_IP}"));
    let _servers = servers(&lab);
    let run = Running::start(&lab.node, config());
    let mut mixed = slice(&ips(&lab, 0..2), "node-1");
    mixed.endpoints[1].node_name = Some("node-2".into());
    let key = || Key::new("default", "web");
    run.list(vec![balanced(json!({}))], vec![mixed.clone()]);
    let outside = &lab.outside;
    for ip in [EXTERNAL, BALANCER] {
        for ns in [outside, &lab.node, &lab.pods[2].ns] {
            even(&spread(|| tcp(ns, at(ip, 80))).0, &["pod0", "pod1"]);
        }
        even(&spread(|| udp(outside, at(ip, 53))).0, &["pod0", "pod1"]);
        let clients = spread(|| tcp(outside, at(ip, 80))).1;
        assert!(!clients.contains(&lab.outside_ip()), "{clients:?}");
    }
    assert!(tcp(outside, at(PROXIED, 80)).is_err());
    assert!(tcp(outside, at(EXTERNAL, 81)).is_err());
    // Local: the source is kept, this node's endpoints only; pods and the node itself get all.
    run.change(Input::Service(key(), Some(balanced(json!({"externalTrafficPolicy": "Local"})))));
    for ip in [EXTERNAL, BALANCER] {
        let (counts, clients) = spread(|| tcp(outside, at(ip, 80)));
        even(&counts, &["pod0"]);
        assert_eq!(clients, [lab.outside_ip()].into());
        let (counts, clients) = spread(|| tcp(&lab.pods[2].ns, at(ip, 80)));
        even(&counts, &["pod0", "pod1"]);
        assert_eq!(clients, [lab.pods[2].ip].into());
        even(&spread(|| tcp(&lab.node, at(ip, 80))).0, &["pod0", "pod1"]);
    }
    // None here: dropped from outside. None at all: rejected.
    let mut elsewhere = mixed.clone();
    elsewhere.endpoints.remove(0);
    let slice_key = || Key::new("default", "web-4");
    run.change(Input::Slice(slice_key(), Some(elsewhere)));
    times_out(outside, at(BALANCER, 80));
    even(&spread(|| tcp(&lab.node, at(BALANCER, 80))).0, &["pod1"]);
    run.change(slice_input(&[]));
    for ns in [outside, &lab.node, &lab.pods[2].ns] {
        assert_eq!(tcp(ns, at(BALANCER, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    // Only some may come, by the balancer's address only.
    run.change(Input::Slice(slice_key(), Some(mixed)));
    let ranges = |all: &[&str]| Input::Service(key(), Some(balanced(json!({"loadBalancerSourceRanges": all}))));
    run.change(ranges(&["198.51.100.0/24", "198.51.100.128/25", "10.244.0.0/16"]));
    times_out(outside, at(BALANCER, 80));
    even(&spread(|| tcp(outside, at(EXTERNAL, 80))).0, &["pod0", "pod1"]);
    even(&spread(|| tcp(&lab.pods[2].ns, at(BALANCER, 80))).0, &["pod0", "pod1"]);
    let text = lab.node.nft("list ruleset");
    for line in [
        "203.0.113.8 . tcp . 80 . 198.51.100.0/24",
        "ip daddr . meta l4proto . th dport @restricted-fronts ip daddr . meta l4proto . th dport . ip saddr != @allowed-sources drop",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    run.change(ranges(&["192.168.77.0/24"]));
    even(&spread(|| tcp(outside, at(BALANCER, 80))).0, &["pod0", "pod1"]);
    times_out(&lab.pods[2].ns, at(BALANCER, 80));
    // A range within which the last one lies, and back: the kernel takes it in one step.
    run.change(ranges(&["192.168.0.0/16"]));
    run.change(ranges(&["192.168.77.0/25", "192.168.77.128/25", "2001:db8::/32"]));
    even(&spread(|| tcp(outside, at(BALANCER, 80))).0, &["pod0", "pod1"]);
    assert_eq!(run.handle.stats().failures, 0, "{:?}", run.handle.stats());
    // A new start writes into the same table.
    let handle = || lab.node.nft("-a list tables");
    let before = handle();
    drop(run);
    let again = Running::start(&lab.node, config());
    let restricted = json!({"loadBalancerSourceRanges": ["192.168.77.0/24", "10.0.0.0/8"]});
    again.list(vec![balanced(restricted)], vec![slice(&ips(&lab, 0..2), "node-1")]);
    assert_eq!(handle(), before);
    even(&spread(|| tcp(outside, at(BALANCER, 80))).0, &["pod0", "pod1"]);
    even(&spread(|| tcp(&lab.pods[2].ns, at(BALANCER, 80))).0, &["pod0", "pod1"]);
}
