//! The rules in a real kernel, with real packets, in network namespaces made for each test.

mod affinity;
mod balance;
mod changes;
mod external;
mod flows;
mod lab;
mod listed;
mod local;
mod policies;
mod refused;
mod resync;
mod sctp;
mod shown;

use ferrolet_netproxy::{Config, Handle, Input, Key, Proxy, Stats, wire};
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
        Running::spawn(ns, |inputs, cancel| Proxy::spawn(config, inputs, cancel).unwrap().0)
    }

    fn spawn(ns: &Netns, proxy: impl FnOnce(mpsc::Receiver<Input>, CancellationToken) -> Handle + Send) -> Running {
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (inputs, rx) = mpsc::channel(1024);
        let cancel = CancellationToken::new();
        let handle = ns.run(|| {
            let _inside = rt.enter();
            proxy(rx, cancel.clone())
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

/// A client socket that keeps its port, so that conntrack takes its datagrams for one flow.
fn client(ns: &Netns) -> UdpSocket {
    ns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap())
}

#[track_caller]
fn times_out(ns: &Netns, to: SocketAddr) {
    let e = ns.run(|| std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300)));
    assert_eq!(e.unwrap_err().kind(), ErrorKind::TimedOut, "{to}");
}
