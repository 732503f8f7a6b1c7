//! The rules in a real kernel, with real packets, in network namespaces made for each test.

mod lab;

use ferrolet_netproxy::trace::{Outcome, Packet};
use ferrolet_netproxy::{Config, Handle, Input, Key, NodePortAddresses, Proto, Proxy, Stats, wire};
use lab::{Lab, NODE_IP, NODE_IP6, Netns, Server, ask, tcp, udp};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const VIP: &str = "10.96.0.10";
const VIP6: &str = "fd00:96::10";
const NODE_PORT: u16 = 30080;

/// A proxy in the lab's node.
struct Running {
    rt: Runtime,
    inputs: mpsc::Sender<Input>,
    handle: Handle,
    cancel: CancellationToken,
}

impl Running {
    fn start(ns: &Netns, config: Config) -> Running {
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (inputs, rx) = mpsc::channel(1024);
        let cancel = CancellationToken::new();
        let (handle, _task) = ns.run(|| {
            let _inside = rt.enter();
            Proxy::spawn(config, rx, cancel.clone()).unwrap()
        });
        Running { rt, inputs, handle, cancel }
    }

    fn send(&self, input: Input) {
        self.inputs.blocking_send(input).unwrap();
    }

    /// Sends and waits until a condition on the numbers holds.
    fn until(&self, what: &str, mut done: impl FnMut(&Stats) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !done(&self.handle.stats()) {
            assert!(Instant::now() < end, "waited for {what}: {:?}", self.handle.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends something that changes rules and waits until the kernel has it.
    fn change(&self, input: Input) {
        let before = self.handle.stats().syncs;
        self.send(input);
        self.until("a sync", |s| s.syncs > before);
    }

    fn list(&self, services: Vec<wire::Service>, slices: Vec<wire::EndpointSlice>) {
        self.send(Input::Services(services));
        self.send(Input::Slices(slices));
        let mut synced = self.handle.synced.clone();
        let wait = async { tokio::time::timeout(Duration::from_secs(10), synced.wait_for(|s| *s)).await.is_ok() };
        assert!(self.rt.block_on(wait), "not synced: {:?}", self.handle.stats());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn config() -> Config {
    let cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()];
    Config { node_name: "node-1".into(), cluster_cidrs, ..Config::default() }
}

fn service(more: serde_json::Value) -> wire::Service {
    let mut spec = json!({
        "type": "NodePort", "clusterIPs": [VIP, VIP6],
        "ports": [
            {"name": "web", "protocol": "TCP", "port": 80, "nodePort": NODE_PORT, "targetPort": 8080},
            {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": NODE_PORT}
        ]
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})).unwrap()
}

fn slice(ips: &[IpAddr], node: &str) -> wire::EndpointSlice {
    let v6 = ips.first().is_some_and(IpAddr::is_ipv6);
    let endpoints: Vec<_> =
        ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": node})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": if v6 { "web-6" } else { "web-4" }, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [{"name": "web", "protocol": "TCP", "port": 8080}, {"name": "dns", "protocol": "UDP", "port": 8080}]
    }))
    .unwrap()
}

fn slice_input(ips: &[IpAddr]) -> Input {
    let s = slice(ips, "node-1");
    Input::Slice(Key::new("default", &s.metadata.name), Some(s))
}

fn servers(lab: &Lab) -> Vec<Server> {
    let both = |(n, p): (usize, &lab::Pod)| {
        let name = format!("pod{n}");
        [Server::start(&p.ns, (p.ip, 8080).into(), &name), Server::start(&p.ns, (p.ip6, 8080).into(), &name)]
    };
    lab.pods.iter().enumerate().flat_map(both).collect()
}

fn at(ip: &str, port: u16) -> SocketAddr {
    (ip.parse::<IpAddr>().unwrap(), port).into()
}

fn ips(lab: &Lab, pods: std::ops::Range<usize>) -> Vec<IpAddr> {
    lab.pods[pods].iter().map(|p| p.ip).collect()
}

fn ip6s(lab: &Lab, pods: std::ops::Range<usize>) -> Vec<IpAddr> {
    lab.pods[pods].iter().map(|p| p.ip6).collect()
}

/// How often each server answered, out of 40 tries, and the client addresses they saw.
#[track_caller]
fn spread(mut once: impl FnMut() -> std::io::Result<(String, IpAddr)>) -> (BTreeMap<String, usize>, BTreeSet<IpAddr>) {
    let mut counts = BTreeMap::new();
    let mut clients = BTreeSet::new();
    for n in 0..40 {
        let (who, client) = match once() {
            Ok(answer) => answer,
            Err(e) => panic!("try {n}: {e}"),
        };
        *counts.entry(who).or_default() += 1;
        clients.insert(client);
    }
    (counts, clients)
}

/// All of `pods` answered and nobody else, none of them hardly ever. Chance alone breaks this less than once in a billion runs.
fn even(counts: &BTreeMap<String, usize>, pods: &[&str]) {
    assert_eq!(counts.keys().map(String::as_str).collect::<Vec<_>>(), pods, "{counts:?}");
    assert!(counts.values().all(|n| *n >= 2), "{counts:?}");
}

fn started(lab: &Lab, more: serde_json::Value, pods: std::ops::Range<usize>) -> Running {
    let run = Running::start(&lab.node, config());
    run.list(vec![service(more)], vec![slice(&ips(lab, pods.clone()), "node-1"), slice(&ip6s(lab, pods), "node-1")]);
    run
}

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

#[test]
fn traffic_spreads_over_the_endpoints() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(4);
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
    if !lab::able() {
        return;
    }
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
    if !lab::able() {
        return;
    }
    let lab = Lab::new(1);
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
    if !lab::able() {
        return;
    }
    let lab = Lab::new(4);
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
fn local_policy_keeps_the_source_or_drops() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(3);
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

/// A client socket that keeps its port, so that conntrack takes its datagrams for one flow.
fn client(ns: &Netns) -> UdpSocket {
    ns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap())
}

/// The tracer's answer to a packet: who may answer, and whether the client's address is kept. Nobody: refused or dropped.
fn traced(run: &Running, src: IpAddr, dst: SocketAddr) -> (BTreeSet<IpAddr>, bool) {
    let mut to_all = BTreeSet::new();
    let mut kept = true;
    for random in 0..6 {
        let packet = Packet { src, dst: dst.ip(), proto: Proto::Tcp, dst_port: dst.port(), random };
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

#[test]
fn stale_udp_flows_are_purged() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(4);
    let _servers = servers(&lab);
    let run = started(&lab, json!({}), 0..1);
    let (pod, outside) = (client(&lab.pods[3].ns), client(&lab.outside));
    let vip = at(VIP, 53);
    let node_port = at(NODE_IP, NODE_PORT);
    assert_eq!(ask(&pod, vip).unwrap().0, "pod0");
    assert_eq!(ask(&outside, node_port).unwrap().0, "pod0");
    // The endpoint is replaced: the same flows go to the new one.
    run.change(slice_input(&ips(&lab, 1..2)));
    run.until("the purge of two flows", |s| s.flows_purged >= 2);
    assert_eq!(ask(&pod, vip).unwrap().0, "pod1");
    assert_eq!(ask(&outside, node_port).unwrap().0, "pod1");
    // One more endpoint: live flows stay where they are.
    run.change(slice_input(&ips(&lab, 1..3)));
    for _ in 0..10 {
        assert_eq!(ask(&pod, vip).unwrap().0, "pod1");
    }
    assert_eq!(run.handle.stats().flows_purged, 2);
    // The service goes: refused, not sent on to the old endpoint.
    run.change(Input::Service(Key::new("default", "web"), None));
    run.until("the purge of the service's flows", |s| s.flows_purged >= 4);
    assert!(ask(&pod, vip).is_err());
    // Back without endpoints, then with one: what the client sent in between does not stick to nothing.
    run.send(slice_input(&[]));
    run.change(Input::Service(Key::new("default", "web"), Some(service(json!({})))));
    assert!(ask(&pod, vip).is_err());
    run.change(slice_input(&ips(&lab, 2..3)));
    let answered = (0..3).find_map(|_| ask(&pod, vip).ok());
    assert_eq!(answered.unwrap().0, "pod2");
}

#[test]
fn an_untranslated_flow_is_purged_when_the_first_endpoint_comes() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(2);
    let _servers = servers(&lab);
    let pod = client(&lab.pods[1].ns);
    // Before there are any rules the datagram goes out towards the blackhole and leaves an entry behind.
    let run = Running::start(&lab.node, config());
    lab.node.nft("add table ip tracker");
    lab.node.command("nft", &["add", "chain", "ip", "tracker", "c", "{ type filter hook forward priority 0; }"]);
    lab.node.command("nft", &["add", "rule", "ip", "tracker", "c", "ct", "state", "new", "counter"]);
    assert!(ask(&pod, at(VIP, 53)).is_err());
    run.list(vec![service(json!({}))], vec![slice(&ips(&lab, 0..1), "node-1")]);
    run.until("the purge", |s| s.flows_purged >= 1);
    let answered = (0..3).find_map(|_| ask(&pod, at(VIP, 53)).ok());
    assert_eq!(answered.unwrap().0, "pod0");
}

#[test]
fn no_connection_fails_while_endpoints_rotate() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(4);
    let _servers = servers(&lab);
    let run = started(&lab, json!({}), 0..2);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        [(lab.pods[3].ns.clone(), at(VIP, 80)), (lab.outside.clone(), at(NODE_IP, NODE_PORT)), (lab.node.clone(), at(VIP, 80))]
            .into_iter()
            .map(|(ns, to)| {
                let stop = stop.clone();
                std::thread::spawn(move || {
                    ns.run(|| {
                        let mut answers = BTreeMap::<String, usize>::new();
                        while !stop.load(Ordering::Relaxed) {
                            let (who, _) = lab::tcp_here(to).unwrap_or_else(|e| panic!("to {to} after {answers:?}: {e}"));
                            *answers.entry(who).or_default() += 1;
                        }
                        answers
                    })
                })
            })
            .collect();
    let pods = ips(&lab, 0..3);
    for round in 0..150 {
        // One, two or three of them, each time others: counts and slots both change.
        let some: Vec<IpAddr> = (0..=round % 3).map(|n| pods[(round + n) % 3]).collect();
        run.change(slice_input(&some));
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Relaxed);
    for c in clients {
        let answers = c.join().unwrap();
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert!(answers.values().sum::<usize>() > 100, "{answers:?}");
    }
    assert_eq!(run.handle.stats().failures, 0);
}

#[test]
fn a_new_start_replaces_the_tables_without_a_gap_and_cleanup_removes_them() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(3);
    let _servers = servers(&lab);
    drop(started(&lab, json!({}), 0..2));
    // Another program's table, and something in ours that no version of us made.
    lab.node.nft("add table ip other");
    lab.node.nft("add set ip ferrolet leftover { type mark; }");
    even(&spread(|| tcp(&lab.pods[2].ns, at(VIP, 80))).0, &["pod0", "pod1"]);

    let stop = Arc::new(AtomicBool::new(false));
    let (ns, s) = (lab.pods[2].ns.clone(), stop.clone());
    let client = std::thread::spawn(move || {
        ns.run(|| {
            let mut n = 0;
            while !s.load(Ordering::Relaxed) {
                lab::tcp_here(at(VIP, 80)).unwrap_or_else(|e| panic!("after {n}: {e}"));
                n += 1;
            }
            n
        })
    });
    for _ in 0..20 {
        drop(started(&lab, json!({}), 0..2));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(client.join().unwrap() > 20);
    assert!(!lab.node.nft("list ruleset").contains("leftover"));
    lab.node.run(ferrolet_netproxy::cleanup).unwrap();
    lab.node.run(ferrolet_netproxy::cleanup).unwrap();
    assert_eq!(lab.node.nft("list tables").trim(), "table ip other");
}

#[test]
fn what_others_take_away_comes_back() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(3);
    let _servers = servers(&lab);
    let run = started(&lab, json!({}), 0..2);
    // Changes of ours and of other tables are no reason.
    run.change(slice_input(&ips(&lab, 0..1)));
    run.change(slice_input(&ips(&lab, 0..2)));
    lab.node.nft("add table ip other");
    let whole = |n: u64| run.handle.stats().repairs == n;
    for (n, disturbance) in [
        "delete table ip ferrolet",
        "flush table ip ferrolet",
        "delete element ip ferrolet services { 10.96.0.10 . tcp . 80 }",
        "delete table ip6 ferrolet",
        "flush ruleset",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(whole(n as u64), "before {disturbance:?}: {:?}", run.handle.stats());
        let began = Instant::now();
        lab.node.nft(disturbance);
        run.until(disturbance, |s| s.repairs > n as u64 && s.full_syncs > n as u64 + 1);
        assert!(began.elapsed() < Duration::from_secs(2), "{disturbance} took {:?}", began.elapsed());
        even(&spread(|| tcp(&lab.pods[2].ns, at(VIP, 80))).0, &["pod0", "pod1"]);
        even(&spread(|| tcp(&lab.pods[2].ns, at(VIP6, 80))).0, &["pod0", "pod1"]);
    }
    assert_eq!(run.handle.stats().failures, 0, "{:?}", run.handle.stats());
}

#[test]
fn many_elements_go_in_one_transaction() {
    if !lab::able() {
        return;
    }
    let node = Netns::new();
    let run = Running::start(&node, config());
    let (mut services, mut slices) = (Vec::new(), Vec::new());
    for n in 0..1500u32 {
        let mut s = service(json!({"type": "ClusterIP", "clusterIPs": [std::net::Ipv4Addr::from(0x0a60_0000 + n).to_string()]}));
        s.metadata.name = format!("s{n}");
        for p in &mut s.spec.ports {
            p.node_port = None;
        }
        let ips: Vec<IpAddr> = (0..5).map(|e| IpAddr::from((0x0af4_0000 + n * 5 + e).to_be_bytes())).collect();
        let mut e = slice(&ips, "node-2");
        e.metadata.name = s.metadata.name.clone();
        e.metadata.labels.insert("kubernetes.io/service-name".into(), s.metadata.name.clone());
        services.push(s);
        slices.push(e);
    }
    run.list(services, slices);
    let stats = run.handle.stats();
    assert_eq!((stats.services, stats.endpoints, stats.full_syncs), (1500, 7500, 1));
    let lines = node.nft("list map ip ferrolet service-slots").lines().filter(|l| l.contains(" : 10.244.")).count();
    assert_eq!(lines, 15_000);
}

/// The one endpoint that answers a client's connections.
#[track_caller]
fn only(once: impl FnMut() -> std::io::Result<(String, IpAddr)>) -> String {
    let counts = spread(once).0;
    assert_eq!(counts.len(), 1, "{counts:?}");
    counts.into_keys().next().unwrap()
}

#[test]
fn a_client_stays_with_its_endpoint() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(4);
    let _servers = servers(&lab);
    let stays =
        |seconds: u32| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    let run = started(&lab, stays(600), 0..3);
    let client = &lab.pods[3].ns;
    let mut had = BTreeMap::new();
    for (name, ns, to) in [
        ("pod", client, at(VIP, 80)),
        ("pod, v6", client, at(VIP6, 80)),
        ("node", &lab.node, at(VIP, 80)),
        ("outside", &lab.outside, at(NODE_IP, NODE_PORT)),
        ("outside, v6", &lab.outside, at(NODE_IP6, NODE_PORT)),
    ] {
        had.insert(name, (ns, to, only(|| tcp(ns, to))));
    }
    only(|| udp(client, at(VIP, 53)));
    // Many clients are spread all the same.
    let mut all = BTreeSet::new();
    for n in 0..40 {
        client.ip(&format!("addr add 10.244.9.{}/32 dev eth0", n + 1));
        lab.node.ip(&format!("route add 10.244.9.{}/32 dev pod3", n + 1));
        let from: SocketAddr = at(&format!("10.244.9.{}", n + 1), 0);
        all.insert(client.run(|| lab::tcp_from(from, at(VIP, 80))).unwrap().0);
    }
    assert_eq!(all.len(), 3, "{all:?}");
    let text = lab.node.nft("list ruleset");
    for line in [
        "service-pick-3-for-600s",
        "update @clients { ip saddr . ip daddr . meta l4proto . th dport timeout 10m : meta mark }",
        "dnat ip to ip daddr . meta l4proto . th dport . meta mark map @service-ids",
        "10.244.0.13 . 10.96.0.10 . tcp . 80 timeout 10m",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    // Another endpoint comes, the agent starts anew, everything is written again, the tables are disturbed: nobody moves.
    run.change(slice_input(&ips(&lab, 0..4)));
    drop(run);
    let run = started(&lab, stays(600), 0..4);
    lab.node.nft("flush map ip ferrolet services");
    run.until("the repair", |s| s.repairs == 1 && s.full_syncs == 2);
    run.change(slice_input(&ips(&lab, 0..3)));
    for (name, (ns, to, who)) in &had {
        assert_eq!(only(|| tcp(ns, *to)), *who, "{name}");
    }
    // Its endpoint goes: another one, and that for good.
    let gone = had["pod"].2[3..].parse::<usize>().unwrap();
    let rest: Vec<IpAddr> = (0..3).filter(|n| *n != gone).map(|n| lab.pods[n].ip).collect();
    run.change(slice_input(&rest));
    let other = only(|| tcp(client, at(VIP, 80)));
    assert_ne!(other, had["pod"].2);
    run.change(slice_input(&ips(&lab, 0..3)));
    assert_eq!(only(|| tcp(client, at(VIP, 80))), other);
    // A shorter time: after it, the choice is made anew.
    run.change(Input::Service(Key::new("default", "web"), Some(service(stays(1)))));
    lab.node.nft("flush map ip ferrolet clients");
    run.until("the repair", |s| s.repairs == 2 && s.full_syncs == 3);
    only(|| tcp(client, at(VIP, 80)));
    let seen = |who: &mut BTreeSet<String>| {
        who.insert(tcp(client, at(VIP, 80)).unwrap().0);
        // Until the entry is gone: nothing else tells.
        while lab.node.nft("list map ip ferrolet clients").contains("10.244.0.13 . 10.96.0.10 . tcp") {
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut who = BTreeSet::new();
    for _ in 0..12 {
        if who.len() < 2 {
            seen(&mut who);
        }
    }
    assert!(who.len() > 1, "{who:?}");
    // Off again: spread.
    run.change(Input::Service(Key::new("default", "web"), Some(service(json!({})))));
    even(&spread(|| tcp(client, at(VIP, 80))).0, &["pod0", "pod1", "pod2"]);
}

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

#[track_caller]
fn times_out(ns: &Netns, to: SocketAddr) {
    let e = ns.run(|| std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300)));
    assert_eq!(e.unwrap_err().kind(), ErrorKind::TimedOut, "{to}");
}

#[test]
fn addresses_from_outside_are_served() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(3);
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

#[test]
fn an_internal_local_policy_drops_without_an_endpoint_here() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(3);
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
    if !lab::able() {
        return;
    }
    let lab = Lab::new(2);
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
fn hints_follow_the_zone_of_the_node() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(3);
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

#[test]
fn forwarded_packets_of_no_connection_are_dropped() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(2);
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

#[test]
fn node_port_flows_are_put_right_after_a_restart() {
    if !lab::able() {
        return;
    }
    let lab = Lab::new(3);
    let _servers = servers(&lab);
    let run = started(&lab, json!({}), 0..2);
    run.change(slice_input(&ips(&lab, 0..1)));
    let (gone, live) = (client(&lab.outside), client(&lab.outside));
    let node_port = at(NODE_IP, NODE_PORT);
    assert_eq!(ask(&gone, node_port).unwrap().0, "pod0");
    run.change(slice_input(&ips(&lab, 1..3)));
    run.until("the purge", |s| s.flows_purged >= 1);
    assert_eq!(ask(&gone, node_port).unwrap().0.len(), 4);
    let before: Vec<_> = [&gone, &live].map(|c| ask(c, node_port).unwrap().0).into();
    drop(run);
    // While nobody looked, pod1 went.
    let run = Running::start(&lab.node, config());
    run.send(Input::NodeAddresses(vec![NODE_IP.parse().unwrap()]));
    run.list(vec![service(json!({}))], vec![slice(&ips(&lab, 2..3), "node-1")]);
    let to_purge = before.iter().filter(|who| *who == "pod1").count() as u64;
    run.until("the purge", |s| s.flows_purged == to_purge);
    for c in [&gone, &live] {
        assert_eq!(ask(c, node_port).unwrap().0, "pod2");
    }
}
