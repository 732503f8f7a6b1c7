//! Who answers: from pods, from the node, from outside, and to the pod itself.

use super::*;

#[test]
fn traffic_spreads_over_the_endpoints() {
    let Some(lab) = Lab::new(4) else { return };
    let _servers = servers(&lab);
    let _run = started(&lab, json!({}), 0..3);
    let three = ["pod0", "pod1", "pod2"];
    let node: IpAddr = NODE_IP.parse().unwrap();
    let node6: IpAddr = NODE_IP6.parse().unwrap();
    for (vip, node_ip, node_side, pod) in [(VIP, NODE_IP, node, lab.pods[3].ip), (VIP6, NODE_IP6, node6, lab.pods[3].ip6)] {
        // From a pod that is no endpoint: its address is kept.
        let (counts, clients) = spread(|| tcp(&lab.pods[3].ns, at(vip, 80)));
        even(&counts, &three);
        assert_eq!(clients, [pod].into(), "tcp from a pod to {vip}");
        let (counts, clients) = spread(|| udp(&lab.pods[3].ns, at(vip, 53)));
        even(&counts, &three);
        assert_eq!(clients, [pod].into(), "udp from a pod to {vip}");
        // From the node itself.
        even(&spread(|| tcp(&lab.node, at(vip, 80))).0, &three);
        even(&spread(|| udp(&lab.node, at(vip, 53))).0, &three);
        // From a pod and from the node to the node port.
        even(&spread(|| tcp(&lab.pods[3].ns, at(node_ip, NODE_PORT))).0, &three);
        even(&spread(|| tcp(&lab.node, at(node_ip, NODE_PORT))).0, &three);
        // From outside: the pod sees an address of the node.
        let (counts, clients) = spread(|| tcp(&lab.outside, at(node_ip, NODE_PORT)));
        even(&counts, &three);
        assert!(
            !clients.contains(&if vip == VIP { "192.168.77.1".parse().unwrap() } else { "fd00:77::1".parse().unwrap() }),
            "{clients:?}"
        );
        assert!(
            clients.len() == 1 && (clients.contains(&node_side) || clients.iter().all(|c| c.to_string().ends_with('1'))),
            "{clients:?}"
        );
        even(&spread(|| udp(&lab.outside, at(node_ip, NODE_PORT))).0, &three);
    }
}

#[test]
fn traffic_spreads_between_pods_of_one_bridge() {
    let Some(lab) = Lab::bridged(4) else { return };
    let server = |(n, p): (usize, &lab::Pod)| Server::start(&p.ns, (p.ip, 8080).into(), &format!("pod{n}"));
    let _servers: Vec<_> = lab.pods.iter().enumerate().map(server).collect();
    let run = Running::start(&lab.node, config());
    run.list(vec![service(json!({}))], vec![slice(&ips(&lab, 0..3), "node-1")]);
    let three = ["pod0", "pod1", "pod2"];
    let (counts, clients) = spread(|| tcp(&lab.pods[3].ns, at(VIP, 80)));
    even(&counts, &three);
    assert_eq!(clients, [lab.pods[3].ip].into());
    even(&spread(|| udp(&lab.pods[3].ns, at(VIP, 53))).0, &three);
    even(&spread(|| tcp(&lab.pods[3].ns, at(NODE_IP, NODE_PORT))).0, &three);
    even(&spread(|| tcp(&lab.node, at(VIP, 80))).0, &three);
    even(&spread(|| tcp(&lab.outside, at(NODE_IP, NODE_PORT))).0, &three);
    // An endpoint itself: the others and, by way of the hairpin, itself too.
    even(&spread(|| tcp(&lab.pods[0].ns, at(VIP, 80))).0, &three);
    run.change(slice_input(&[]));
    assert_eq!(tcp(&lab.pods[3].ns, at(VIP, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_pod_reaches_itself_by_its_service() {
    let Some(lab) = Lab::new(1) else { return };
    let _servers = servers(&lab);
    let _run = started(&lab, json!({}), 0..1);
    for (vip, own) in [(VIP, lab.pods[0].ip), (VIP6, lab.pods[0].ip6)] {
        for (who, client) in [tcp(&lab.pods[0].ns, at(vip, 80)).unwrap(), udp(&lab.pods[0].ns, at(vip, 53)).unwrap()] {
            assert_eq!(who, "pod0");
            assert_ne!(client, own, "replies would not come back through the node");
        }
    }
}

#[test]
fn endpoints_come_and_go() {
    let Some(lab) = Lab::new(4) else { return };
    let _servers = servers(&lab);
    let run = started(&lab, json!({}), 0..2);
    even(&spread(|| tcp(&lab.pods[3].ns, at(VIP, 80))).0, &["pod0", "pod1"]);
    run.change(slice_input(&ips(&lab, 0..3)));
    even(&spread(|| tcp(&lab.pods[3].ns, at(VIP, 80))).0, &["pod0", "pod1", "pod2"]);
    run.change(slice_input(&ips(&lab, 1..3)));
    even(&spread(|| tcp(&lab.pods[3].ns, at(VIP, 80))).0, &["pod1", "pod2"]);
    even(&spread(|| tcp(&lab.outside, at(NODE_IP, NODE_PORT))).0, &["pod1", "pod2"]);
    run.change(slice_input(&[]));
    for (from, to) in [
        (&lab.pods[3].ns, at(VIP, 80)),
        (&lab.node, at(VIP, 80)),
        (&lab.outside, at(NODE_IP, NODE_PORT)),
        (&lab.node, at(NODE_IP, NODE_PORT)),
        // A port the service does not have.
        (&lab.pods[3].ns, at(VIP, 81)),
        (&lab.node, at(VIP6, 81)),
    ] {
        assert_eq!(tcp(from, to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "tcp {to}");
    }
    for (from, to) in [(&lab.pods[3].ns, at(VIP, 53)), (&lab.outside, at(NODE_IP, NODE_PORT))] {
        assert_eq!(udp(from, to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "udp {to}");
    }
    // A datagram refused in the output hook fails at once, but with another number.
    assert_eq!(udp(&lab.node, at(VIP, 53)).unwrap_err().kind(), ErrorKind::PermissionDenied);
    run.change(slice_input(&ips(&lab, 0..1)));
    even(&spread(|| tcp(&lab.pods[3].ns, at(VIP, 80))).0, &["pod0"]);
    // The other family was not touched by any of this.
    even(&spread(|| tcp(&lab.pods[3].ns, at(VIP6, 80))).0, &["pod0", "pod1"]);
    assert_eq!(run.handle.stats().full_syncs, 1, "{:?}", run.handle.stats());
}

#[test]
fn hints_follow_the_zone_of_the_node() {
    let Some(lab) = Lab::new(3) else { return };
    let _servers = servers(&lab);
    let run = Running::start(&lab.node, config());
    let mut hinted = slice(&ips(&lab, 0..2), "node-1");
    for (e, zone) in hinted.endpoints.iter_mut().zip(["a", "b"]) {
        e.hints = serde_json::from_value(json!({"forZones": [{"name": zone}]})).unwrap();
    }
    run.send(Input::NodeZone(Some("a".into())));
    run.list(vec![service(json!({"trafficDistribution": "PreferSameZone"}))], vec![hinted]);
    even(&spread(|| tcp(&lab.pods[2].ns, at(VIP, 80))).0, &["pod0"]);
    run.change(Input::NodeZone(Some("b".into())));
    even(&spread(|| tcp(&lab.pods[2].ns, at(VIP, 80))).0, &["pod1"]);
    run.change(Input::NodeZone(None));
    even(&spread(|| tcp(&lab.pods[2].ns, at(VIP, 80))).0, &["pod0", "pod1"]);
}

/// Among more endpoints than have a chain for just their number, each is still as likely as the next.
#[test]
fn many_endpoints_have_equal_shares() {
    if !lab::able() {
        return;
    }
    const ENDPOINTS: usize = 73;
    const TURNS: usize = 2000;
    for stays in [json!({}), json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}})]
    {
        let ns = Netns::new();
        ns.ip("link set lo up");
        ns.ip("addr add 10.99.0.1/16 dev lo");
        for range in ["10.96.0.0/16", "10.244.0.0/16"] {
            ns.ip(&format!("route add local {range} dev lo"));
        }
        let run = Running::start(&ns, config());
        let ips: Vec<IpAddr> = (0..ENDPOINTS).map(|n| IpAddr::from([10, 244, 1, n as u8])).collect();
        run.list(vec![service(stays.clone())], vec![slice(&ips, "node-2")]);
        let sticky = stays.get("sessionAffinity").is_some();
        let counts = ns.run(|| {
            let servers: Vec<_> = ips.iter().map(|ip| std::net::UdpSocket::bind((*ip, 8080)).unwrap()).collect();
            servers.iter().for_each(|s| s.set_nonblocking(true).unwrap());
            for turn in 0..TURNS {
                // A client of its own each time.
                let from = IpAddr::from([10, 99, (turn >> 8) as u8, turn as u8]);
                let from = if sticky { from } else { IpAddr::from([10, 99, 0, 1]) };
                std::net::UdpSocket::bind((from, 0)).unwrap().send_to(b"x", at(VIP, 53)).unwrap();
            }
            servers.iter().map(|s| std::iter::from_fn(|| s.recv(&mut [0; 8]).ok()).count()).collect::<Vec<_>>()
        });
        assert_eq!(counts.iter().sum::<usize>(), TURNS, "{counts:?}");
        // Chi-square with 72 degrees of freedom: above 140 in less than one of 300,000 runs.
        let fair = TURNS as f64 / ENDPOINTS as f64;
        let chi: f64 = counts.iter().map(|n| (*n as f64 - fair).powi(2) / fair).sum();
        assert!(chi < 140.0, "{chi}: {counts:?}");
    }
}
