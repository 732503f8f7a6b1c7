//! What is written can be read, and the tracer says what the kernel does.

use super::*;
use ferrolet_netproxy::trace::{Outcome, Packet};
use ferrolet_netproxy::{LocalTraffic, Proto};

#[test]
fn what_is_written_lists_readably() {
    let Some(lab) = Lab::new(2) else { return };
    let _run = started(&lab, json!({}), 0..2);
    let text = lab.node.nft("list table ip ferrolet");
    for line in [
        "type ipv4_addr . inet_proto . inet_service : mark",
        "type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service",
        "10.96.0.10 . tcp . 80 : 0x00000002",
        "10.96.0.10 . udp . 53 . 0x00000001 : 10.244.0.11 . 8080",
        "0x00000002 : goto nodeport-pick-2",
        "tcp . 30080 . 0x00000000 : 10.244.0.10 . 8080",
        "10.244.0.11 . 10.244.0.11",
        "ip saddr != 10.244.0.0/16 ip daddr @cluster-ips meta mark set meta mark | 0x00004000",
        "meta mark set ip daddr . meta l4proto . th dport map @services meta mark set meta mark meta mark vmap @service-picks",
        "ip daddr != 127.0.0.0/8 fib daddr type local goto find-nodeport",
        "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @service-slots",
        "type nat hook prerouting priority dstnat; policy accept;",
        "ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random",
        "ct state new ct status ! dnat jump reject-unserved",
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
    let Some(lab) = Lab::new(3) else { return };
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

/// What the kernel does to a connection, in the tracer's words: who may answer, and what they see of the client.
#[derive(Debug, PartialEq, Eq)]
enum Met {
    Refused,
    Dropped,
    Answered { by: BTreeSet<IpAddr>, source_kept: bool },
}

fn traced_from(run: &Running, src: IpAddr, interface: Option<&str>, dst: SocketAddr) -> Option<Met> {
    let (mut by, mut source_kept) = (BTreeSet::new(), true);
    for random in 0..6 {
        let from_interface = interface.map(String::from);
        let packet = Packet { src, dst: dst.ip(), proto: Proto::Tcp, dst_port: dst.port(), from_interface, random };
        match run.rt.block_on(run.handle.trace(packet)).unwrap().outcome {
            Outcome::Forward { to, masquerade, .. } => {
                by.insert(to.ip);
                source_kept &= !masquerade;
            }
            Outcome::Reject => return Some(Met::Refused),
            Outcome::Drop => return Some(Met::Dropped),
            Outcome::Pass => return None,
        }
    }
    Some(Met::Answered { by, source_kept })
}

fn tried(lab: &Lab, ns: &Netns, src: IpAddr, dst: SocketAddr, wanted: &Met) -> Met {
    if !matches!(wanted, Met::Answered { .. }) {
        // An answer comes within a millisecond; one that is waited for may take longer on a busy host.
        let limit = Duration::from_millis(if *wanted == Met::Dropped { 100 } else { 3000 });
        return match ns.run(|| std::net::TcpStream::connect_timeout(&dst, limit)) {
            Ok(_) => panic!("{src} reaches {dst}"),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Met::Refused,
            Err(_) => Met::Dropped,
        };
    }
    let (counts, clients) = spread(|| tcp(ns, dst));
    let pod = |name: &String| &lab.pods[name[3..].parse::<usize>().unwrap()];
    let by = counts.keys().map(|name| if dst.is_ipv4() { pod(name).ip } else { pod(name).ip6 }).collect();
    Met::Answered { by, source_kept: clients == [src].into() }
}

/// Every kind of frontend, sender and way to tell pods apart, in both families.
#[test]
fn the_tracer_agrees_about_every_frontend() {
    let Some(lab) = Lab::new(3) else { return };
    let _servers = servers(&lab);
    for (v4, v6) in [("203.0.113.0/24", "2001:db8:113::/64"), ("10.96.0.0/16", "fd00:96::/64")] {
        lab.outside.ip(&format!("route replace {v4} via {NODE_IP}"));
        lab.outside.ip(&format!("-6 route replace {v6} via {NODE_IP6}"));
    }
    let shared = json!({
        "type": "LoadBalancer", "externalIPs": ["203.0.113.1", "2001:db8:113::1"],
        "loadBalancerSourceRanges": ["192.168.77.0/24", "fd00:244::/64"]
    });
    let mut whole = serde_json::to_value(service(shared)).unwrap();
    whole["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.2"}, {"ip": "2001:db8:113::2"}]}});
    for (local, external, internal) in [
        (LocalTraffic::ClusterCidrs, "Local", "Cluster"),
        (LocalTraffic::InterfacePrefix("pod".parse().unwrap()), "Local", "Local"),
        (LocalTraffic::Bridge("pod2".parse().unwrap()), "Cluster", "Cluster"),
    ] {
        for here in [2, 1, 0] {
            let run = Running::start(&lab.node, Config { local: local.clone(), ..config() });
            let own = [NODE_IP, NODE_IP6, "10.244.0.1", "fd00:244::1"].map(|ip| ip.parse().unwrap());
            run.send(Input::NodeAddresses(own.to_vec()));
            run.send(Input::ServiceCidrs(vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/64".parse().unwrap()]));
            (whole["spec"]["externalTrafficPolicy"], whole["spec"]["internalTrafficPolicy"]) = (json!(external), json!(internal));
            let mut slices = [slice(&ips(&lab, 0..2), "node-2"), slice(&ip6s(&lab, 0..2), "node-2")];
            for e in slices.iter_mut().flat_map(|s| s.endpoints.iter_mut().take(here)) {
                e.node_name = Some("node-1".into());
            }
            run.list(vec![serde_json::from_value(whole.clone()).unwrap()], slices.to_vec());
            let senders = [
                (&lab.pods[2].ns, lab.pods[2].ip, lab.pods[2].ip6, Some("pod2")),
                (&lab.node, own[0], own[1], None),
                (&lab.outside, lab.outside_ip(), "fd00:77::1".parse().unwrap(), Some("eth0")),
            ];
            let to = [
                (VIP, VIP6, 80),
                (VIP, VIP6, 81),
                ("10.96.0.99", "fd00:96::99", 80),
                ("203.0.113.1", "2001:db8:113::1", 80),
                ("203.0.113.2", "2001:db8:113::2", 80),
                (NODE_IP, NODE_IP6, NODE_PORT),
            ];
            for ((ns, v4, v6, interface), (to4, to6, port)) in senders.iter().flat_map(|s| to.map(|t| (*s, t))) {
                for (src, dst) in [(v4, at(to4, port)), (v6, at(to6, port))] {
                    let Some(wanted) = traced_from(&run, src, interface, dst) else { panic!("{src} to {dst} passes") };
                    let met = tried(&lab, ns, src, dst, &wanted);
                    // The node's own address may be any of its addresses either way.
                    match (&wanted, &met) {
                        (Met::Answered { by: a, .. }, Met::Answered { by: b, .. }) if own.contains(&src) && a == b => {}
                        _ => assert_eq!(met, wanted, "{local:?} {external} {internal} {here} here: {src} to {dst}"),
                    }
                }
            }
        }
    }
}
