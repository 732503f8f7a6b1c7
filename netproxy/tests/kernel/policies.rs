//! Traffic policies, addresses of node ports, and what is dropped.

use super::*;
use ferrolet_netproxy::NodePortAddresses;

#[test]
fn local_policy_keeps_the_source_or_drops() {
    let Some(lab) = Lab::new(3) else { return };
    let _servers = servers(&lab);
    let run = Running::start(&lab.node, config());
    // pod0 is on this node by name, pod1 is said to be elsewhere.
    let mut mixed = slice(&ips(&lab, 0..2), "node-1");
    mixed.endpoints[1].node_name = Some("node-2".into());
    run.list(vec![service(json!({"externalTrafficPolicy": "Local"}))], vec![mixed.clone()]);
    let (counts, clients) = spread(|| tcp(&lab.outside, at(NODE_IP, NODE_PORT)));
    even(&counts, &["pod0"]);
    assert_eq!(clients, ["192.168.77.1".parse().unwrap()].into());
    even(&spread(|| tcp(&lab.pods[2].ns, at(NODE_IP, NODE_PORT))).0, &["pod0", "pod1"]);
    even(&spread(|| tcp(&lab.node, at(NODE_IP, NODE_PORT))).0, &["pod0", "pod1"]);
    even(&spread(|| tcp(&lab.pods[2].ns, at(VIP, 80))).0, &["pod0", "pod1"]);
    // None here any more: outside traffic gets no answer at all.
    mixed.endpoints.remove(0);
    run.change(Input::Slice(Key::new("default", "web-4"), Some(mixed)));
    let e = lab.outside.run(|| std::net::TcpStream::connect_timeout(&at(NODE_IP, NODE_PORT), Duration::from_millis(300)));
    assert_eq!(e.unwrap_err().kind(), ErrorKind::TimedOut);
    even(&spread(|| tcp(&lab.node, at(NODE_IP, NODE_PORT))).0, &["pod1"]);
}

#[test]
fn an_internal_local_policy_drops_without_an_endpoint_here() {
    let Some(lab) = Lab::new(3) else { return };
    let _servers = servers(&lab);
    let run = Running::start(&lab.node, config());
    let mut mixed = slice(&ips(&lab, 0..2), "node-1");
    mixed.endpoints[1].node_name = Some("node-2".into());
    run.list(vec![service(json!({"internalTrafficPolicy": "Local"}))], vec![mixed.clone()]);
    even(&spread(|| tcp(&lab.pods[2].ns, at(VIP, 80))).0, &["pod0"]);
    mixed.endpoints.remove(0);
    run.change(Input::Slice(Key::new("default", "web-4"), Some(mixed)));
    times_out(&lab.pods[2].ns, at(VIP, 80));
    even(&spread(|| tcp(&lab.outside, at(NODE_IP, NODE_PORT))).0, &["pod1"]);
    run.change(slice_input(&[]));
    assert_eq!(tcp(&lab.pods[2].ns, at(VIP, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn node_ports_answer_on_the_chosen_addresses() {
    let Some(lab) = Lab::new(2) else { return };
    let _servers = servers(&lab);
    const SECOND: &str = "192.168.77.12";
    lab.node.ip("addr add 192.168.77.12/24 dev eth0");
    let start = |on: NodePortAddresses| {
        let run = Running::start(&lab.node, Config { node_port_addresses: on, ..config() });
        run.send(Input::NodeAddresses(vec![NODE_IP.parse().unwrap(), SECOND.parse().unwrap()]));
        run.list(vec![service(json!({}))], vec![slice(&ips(&lab, 0..1), "node-1")]);
        run
    };
    let refused =
        |ip: &str| assert_eq!(tcp(&lab.outside, at(ip, NODE_PORT)).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{ip}");
    let run = start(NodePortAddresses::Primary);
    even(&spread(|| tcp(&lab.outside, at(NODE_IP, NODE_PORT))).0, &["pod0"]);
    refused(SECOND);
    run.change(Input::NodeAddresses(vec![SECOND.parse().unwrap(), NODE_IP.parse().unwrap()]));
    even(&spread(|| tcp(&lab.outside, at(SECOND, NODE_PORT))).0, &["pod0"]);
    refused(NODE_IP);
    drop(run);
    drop(start(NodePortAddresses::Within(vec!["192.168.77.12/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()])));
    even(&spread(|| tcp(&lab.outside, at(SECOND, NODE_PORT))).0, &["pod0"]);
    even(&spread(|| tcp(&lab.pods[1].ns, at("10.244.0.1", NODE_PORT))).0, &["pod0"]);
    refused(NODE_IP);
    drop(start(NodePortAddresses::All));
    for ip in [NODE_IP, SECOND] {
        even(&spread(|| tcp(&lab.outside, at(ip, NODE_PORT))).0, &["pod0"]);
    }
}

#[test]
fn forwarded_packets_of_no_connection_are_dropped() {
    let Some(lab) = Lab::new(2) else { return };
    let run = started(&lab, json!({}), 0..1);
    lab.node.nft("add table ip tracker");
    lab.node.command("nft", &["add", "chain", "ip", "tracker", "c", "{ type filter hook forward priority 10; }"]);
    lab.node.command("nft", &["add", "rule", "ip", "tracker", "c", "ct", "state", "invalid", "counter"]);
    lab.node.command("nft", &["add", "chain", "ip", "tracker", "p", "{ type filter hook prerouting priority 0; }"]);
    lab.node.command("nft", &["add", "rule", "ip", "tracker", "p", "ct", "state", "invalid", "counter"]);
    let count = |chain: &str| {
        let text = lab.node.nft(&format!("list chain ip tracker {chain}"));
        text.split("packets ").nth(1).and_then(|t| t.split(' ').next()).unwrap().parse::<u32>().unwrap()
    };
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(5);
        while !done() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    lab.outside.run(|| lab::stray_reset(lab.pods[0].ip));
    until("came in", &|| count("p") == 1);
    assert_eq!(count("c"), 0, "came through");
    drop(run);
    lab.node.run(ferrolet_netproxy::cleanup).unwrap();
    lab.outside.run(|| lab::stray_reset(lab.pods[0].ip));
    until("came through", &|| count("c") == 1);
}
