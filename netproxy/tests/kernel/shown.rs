//! What is written can be read, and the tracer says what the kernel does.

use super::*;
use ferrolet_netproxy::Proto;
use ferrolet_netproxy::trace::{Outcome, Packet};

#[test]
fn what_is_written_lists_readably() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(2);
    let _run = started(&lab, json!({}), 0..2);
    let text = lab.node.nft("list table ip ferrolet");
    for line in [
        "type ipv4_addr . inet_proto . inet_service : mark",
        "type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service",
        "10.96.0.10 . tcp . 80 : 0x00000002",
        "10.96.0.10 . udp . 53 . 0x00000001 : 10.244.0.11 . 8080",
        "elements = { 0x00000002 : goto nodeport-pick-2 }",
        "tcp . 30080 . 0x00000000 : 10.244.0.10 . 8080",
        "10.244.0.11 . 10.244.0.11",
        "ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000",
        "meta mark set ip daddr . meta l4proto . th dport map @services meta mark set meta mark meta mark vmap @service-picks",
        "ip daddr != 127.0.0.0/8 fib daddr type local goto find-nodeport",
        "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @service-slots",
        "type nat hook prerouting priority dstnat; policy accept;",
        "ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random",
        "ct state new jump reject-unserved",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let text = lab.node.nft("list table ip6 ferrolet");
    for line in
        ["fd00:96::10 . tcp . 80 . 0x00000001 : fd00:244::11 . 8080", "ip6 saddr != fd00:244::/64", "ip6 daddr != ::1 fib"]
    {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

/// The tracer's answer to a packet: who may answer, and whether the client's address is kept. Nobody: refused or dropped.
fn traced(run: &Running, src: IpAddr, dst: SocketAddr) -> (BTreeSet<IpAddr>, bool) {
    let mut to_all = BTreeSet::new();
    let mut kept = true;
    for random in 0..6 {
        let packet = Packet { src, dst: dst.ip(), proto: Proto::Tcp, dst_port: dst.port(), from_interface: None, random };
        if let Outcome::Forward { to, masquerade, .. } = run.rt.block_on(run.handle.trace(packet)).unwrap().outcome {
            to_all.insert(to.ip);
            kept &= !masquerade;
        }
    }
    (to_all, kept)
}

#[test]
fn the_tracer_agrees_with_the_kernel() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(3);
    let _servers = servers(&lab);
    for policy in ["Cluster", "Local"] {
        let run = Running::start(&lab.node, config());
        let own = [NODE_IP, NODE_IP6, "10.244.0.1", "fd00:244::1"].map(|ip| ip.parse().unwrap());
        run.send(Input::NodeAddresses(own.to_vec()));
        let mut endpoints = slice(&ips(&lab, 0..2), "node-1");
        endpoints.endpoints[1].node_name = Some("node-2".into());
        run.list(vec![service(json!({"externalTrafficPolicy": policy}))], vec![endpoints]);
        let from = [(&lab.pods[2].ns, lab.pods[2].ip), (&lab.node, own[0]), (&lab.outside, "192.168.77.1".parse().unwrap())];
        let to = [at(VIP, 80), at(VIP, 81), at(NODE_IP, NODE_PORT), at(NODE_IP, NODE_PORT + 1), at("10.244.0.1", NODE_PORT)];
        for ((ns, src), dst) in from.iter().flat_map(|f| to.map(|t| (f, t))) {
            if *src == lab.outside_ip() && dst.ip() != own[0] {
                continue;
            }
            let (wanted, kept) = traced(&run, *src, dst);
            if wanted.is_empty() {
                assert!(tcp(ns, dst).is_err(), "{policy}: {src} to {dst}");
                continue;
            }
            let (counts, clients) = spread(|| tcp(ns, dst));
            let answered: BTreeSet<IpAddr> = counts.keys().map(|name| lab.pods[name[3..].parse::<usize>().unwrap()].ip).collect();
            assert_eq!(answered, wanted, "{policy}: {src} to {dst}");
            // The node's own address may be any of its addresses either way.
            if *src != own[0] {
                assert_eq!(clients == [*src].into(), kept, "{policy}: {src} to {dst}: {clients:?}");
            }
        }
    }
}
