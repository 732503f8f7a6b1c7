//! How pods' packets are told apart, and what follows from it.

use super::*;
use ferrolet_netproxy::LocalTraffic;

/// Clients as the servers see them, all of which have to be answered by both.
#[track_caller]
fn clients(ns: &Netns, to: SocketAddr) -> BTreeSet<IpAddr> {
    let (counts, clients) = spread(|| tcp(ns, to));
    even(&counts, &["pod0", "pod1"]);
    clients
}

/// What is masqueraded and what a Local policy sees as outside, when only what comes from pod2 counts as a pod's.
fn only_the_last_pod_is_one(local: LocalTraffic) {
    let Some(lab) = Lab::new(4) else { return };
    let _servers = servers(&lab);
    lab.outside.ip(&format!("route replace 10.96.0.0/16 via {NODE_IP}"));
    lab.outside.ip(&format!("-6 route replace fd00:96::/64 via {NODE_IP6}"));
    let run = Running::start(&lab.node, Config { local, cluster_cidrs: Vec::new(), ..config() });
    let mut mixed = [slice(&ips(&lab, 0..2), "node-1"), slice(&ip6s(&lab, 0..2), "node-1")];
    for slice in &mut mixed {
        slice.endpoints[1].node_name = Some("node-2".into());
    }
    run.send(Input::NodePodCidrs(vec!["10.244.0.12/32".parse().unwrap(), "fd00:244::12/128".parse().unwrap()]));
    run.list(vec![service(json!({"externalTrafficPolicy": "Local"}))], mixed.to_vec());
    let (pod, other) = (&lab.pods[2], &lab.pods[3]);
    for (vip, node, ip, from_other) in [(VIP, NODE_IP, pod.ip, other.ip), (VIP6, NODE_IP6, pod.ip6, other.ip6)] {
        // The pod keeps its address whatever way it goes; all others are masqueraded on their way to a cluster IP.
        assert_eq!(clients(&pod.ns, at(vip, 80)), [ip].into());
        assert!(!clients(&other.ns, at(vip, 80)).contains(&from_other));
        assert!(!clients(&lab.outside, at(vip, 80)).contains(&lab.outside_ip()));
        clients(&lab.node, at(vip, 80));
        // To a Local node port the pod goes as if to the cluster IP; others get this node's endpoints and keep their addresses.
        assert_eq!(clients(&pod.ns, at(node, NODE_PORT)), [ip].into());
        let (counts, seen) = spread(|| tcp(&other.ns, at(node, NODE_PORT)));
        even(&counts, &["pod0"]);
        assert_eq!(seen, [from_other].into());
        even(&spread(|| tcp(&lab.outside, at(node, NODE_PORT))).0, &["pod0"]);
        assert!(!clients(&lab.node, at(node, NODE_PORT)).contains(&ip));
    }
    assert_eq!(run.handle.stats().failures, 0);
}

#[test]
fn pods_are_known_by_the_nodes_ranges() {
    only_the_last_pod_is_one(LocalTraffic::NodeCidrs);
}

#[test]
fn pods_are_known_by_their_bridge() {
    only_the_last_pod_is_one(LocalTraffic::Bridge("pod2".parse().unwrap()));
}

#[test]
fn pods_are_known_by_a_prefix_of_their_interfaces() {
    only_the_last_pod_is_one(LocalTraffic::InterfacePrefix("pod2".parse().unwrap()));
    let Some(lab) = Lab::new(1) else { return };
    let local = LocalTraffic::InterfacePrefix("po".parse().unwrap());
    let run = Running::start(&lab.node, Config { local, ..config() });
    run.list(vec![service(json!({}))], Vec::new());
    let text = lab.node.nft("list table ip ferrolet");
    assert!(text.contains("iifname != \"po*\" ip daddr @cluster-ips meta mark set meta mark"), "{text}");
}

#[test]
fn unknown_service_addresses_are_dropped_and_invalid_packets_pass_where_that_is_wanted() {
    let Some(lab) = Lab::new(1) else { return };
    let run = Running::start(&lab.node, Config { tcp_be_liberal: true, ..config() });
    run.list(vec![service(json!({}))], Vec::new());
    assert!(!lab.node.nft("list table ip ferrolet").contains("ct state invalid"));
    // What gets as far as the routing is answered.
    lab.node.ip("route add unreachable 10.96.0.0/16");
    lab.node.ip("-6 route add unreachable fd00:96::/64");
    assert_ne!(tcp(&lab.pods[0].ns, at("10.96.0.99", 80)).unwrap_err().kind(), ErrorKind::TimedOut);
    run.change(Input::ServiceCidrs(vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/64".parse().unwrap()]));
    for address in ["10.96.0.99", "fd00:96::99"] {
        times_out(&lab.pods[0].ns, at(address, 80));
    }
    assert_eq!(tcp(&lab.pods[0].ns, at(VIP, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(run);
    // The same where the host is set so already.
    let dropped = |value: &str| {
        lab.node.run(|| std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", value)).unwrap();
        let run = Running::start(&lab.node, config());
        run.list(Vec::new(), Vec::new());
        lab.node.nft("list table ip ferrolet").contains("ct state invalid drop")
    };
    assert!(dropped("0") && !dropped("1"));
}

#[test]
fn pods_of_a_real_bridge_are_known_by_it() {
    let Some(lab) = Lab::bridged(3) else { return };
    let v4 = |pod: &lab::Pod, name: &str| Server::start(&pod.ns, (pod.ip, 8080).into(), name);
    let _servers = [v4(&lab.pods[0], "pod0"), v4(&lab.pods[1], "pod1")];
    lab.outside.ip(&format!("route replace 10.96.0.0/16 via {NODE_IP}"));
    let bridge = LocalTraffic::Bridge("cni0".parse().unwrap());
    let run = Running::start(&lab.node, Config { local: bridge, cluster_cidrs: Vec::new(), ..config() });
    let mut mixed = slice(&ips(&lab, 0..2), "node-1");
    mixed.endpoints[1].node_name = Some("node-2".into());
    run.list(vec![service(json!({"externalTrafficPolicy": "Local"}))], vec![mixed]);
    let pod = &lab.pods[2];
    for to in [at(VIP, 80), at(NODE_IP, NODE_PORT)] {
        assert_eq!(clients(&pod.ns, to), [pod.ip].into());
    }
    assert!(!clients(&lab.outside, at(VIP, 80)).contains(&lab.outside_ip()));
    even(&spread(|| tcp(&lab.outside, at(NODE_IP, NODE_PORT))).0, &["pod0"]);
}

#[test]
fn other_ranges_of_the_node_change_every_rule_that_names_them() {
    if !lab::able() {
        return;
    }
    let node = Netns::new();
    let run = Running::start(&node, Config { local: LocalTraffic::NodeCidrs, ..config() });
    let ranges = |text: &str| Input::NodePodCidrs(vec![text.parse().unwrap()]);
    run.send(ranges("10.244.7.0/24"));
    let more = json!({"externalTrafficPolicy": "Local", "externalIPs": ["203.0.113.1"]});
    run.list(vec![service(more)], vec![slice(&["10.244.0.10".parse().unwrap(), "10.244.0.11".parse().unwrap()], "node-1")]);
    let named = |range: &str| node.nft("list table ip ferrolet").matches(range).count();
    // Cluster IPs, external addresses and node ports; the masquerade of the latter two.
    assert_eq!((named("10.244.7.0/24"), named("10.244.8.0/24")), (5, 0));
    run.change(ranges("10.244.8.0/24"));
    assert_eq!((named("10.244.7.0/24"), named("10.244.8.0/24")), (0, 5));
    for chain in ["mark-nodeport", "mark-external"] {
        let text = node.nft(&format!("list chain ip ferrolet {chain}"));
        assert!(text.contains("10.244.8.0/24") && text.matches("ip saddr").count() == 1, "{text}");
    }
    run.change(Input::NodePodCidrs(Vec::new()));
    assert_eq!((named("10.244.7.0/24"), named("10.244.8.0/24")), (0, 0));
}

/// Others use other bits of the mark, here also the one that is the default.
#[test]
fn masquerade_goes_by_the_bit_that_is_configured_and_leaves_all_others() {
    let Some(lab) = Lab::new(4) else { return };
    let _servers = servers(&lab);
    let run = Running::start(&lab.node, Config { masquerade_mark: 1 << 5, ..config() });
    for family in ["ip", "ip6"] {
        lab.node.nft(&format!("add table {family} others"));
        let chain = |name: &str, hook: &str, rule: &str| {
            lab.node.nft(&format!("add chain {family} others {name} {{ type filter hook {hook} ; }}"));
            lab.node.nft(&format!("add rule {family} others {name} {rule}"));
        };
        chain("first", "prerouting priority -150", "meta mark set 0x4001");
        chain("last", "postrouting priority 200", "meta l4proto tcp meta mark != 0x4001 counter drop");
    }
    run.list(vec![service(json!({}))], vec![slice(&ips(&lab, 0..2), "node-1"), slice(&ip6s(&lab, 0..2), "node-1")]);
    let (pod, outside) = (&lab.pods[3], &lab.outside);
    for (vip, node, ip, from) in
        [(VIP, NODE_IP, pod.ip, lab.outside_ip()), (VIP6, NODE_IP6, pod.ip6, "fd00:77::1".parse().unwrap())]
    {
        assert_eq!(clients(&pod.ns, at(vip, 80)), [ip].into());
        assert!(!clients(outside, at(node, NODE_PORT)).contains(&from));
    }
    for family in ["ip", "ip6"] {
        let rules = lab.node.nft(&format!("list chain {family} others last"));
        assert!(rules.contains("counter packets 0 bytes 0"), "{rules}");
        assert!(lab.node.nft(&format!("list table {family} ferrolet")).contains("0x00000020"));
    }
}
