//! SCTP with real packets: by the kernel's own sockets, or where it has only connection tracking for SCTP, by a handshake on raw
//! ones.

#[path = "../../../tests/programs/src/bin/web/sctp.rs"]
mod handshake;

use super::*;
use std::sync::atomic::AtomicU16;

fn serve(pod: &lab::Pod, name: fn(IpAddr) -> String) {
    pod.ns.run(|| handshake::serve(8080, name)).unwrap();
}

/// Who answered, and which client address it saw, from a port of its own.
fn ask_from(ns: &Netns, port: u16, to: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    let text = ns.run(|| handshake::ask(to, port, Duration::from_secs(2)))?;
    let (name, from) = text.split_once(' ').unwrap_or_else(|| panic!("{text:?} is no answer"));
    Ok((name.into(), from.parse().unwrap()))
}

fn sctp(ns: &Netns, to: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    ask_from(ns, PORT.fetch_add(1, Ordering::Relaxed), to)
}

fn signalling(more: serde_json::Value) -> wire::Service {
    let mut s = service(more);
    let port = json!({"name": "sig", "protocol": "SCTP", "port": 80, "nodePort": NODE_PORT});
    s.spec.ports.push(serde_json::from_value(port).unwrap());
    s
}

fn endpoints(ips: &[IpAddr]) -> wire::EndpointSlice {
    let mut s = slice(ips, "node-1");
    s.ports.push(serde_json::from_value(json!({"name": "sig", "protocol": "SCTP", "port": 8080})).unwrap());
    s
}

/// `None`, said loudly, where SCTP cannot be tried.
fn lab() -> Option<Lab> {
    if !std::path::Path::new("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established").exists() {
        eprintln!("SKIPPED, NOT PASSED: the kernel's connection tracking does not know SCTP");
        return None;
    }
    let lab = Lab::new(4)?;
    serve(&lab.pods[0], |from| format!("pod0 {from}"));
    serve(&lab.pods[1], |from| format!("pod1 {from}"));
    serve(&lab.pods[2], |from| format!("pod2 {from}"));
    Some(lab)
}

#[test]
fn associations_spread_and_keep_their_source_where_promised() {
    let Some(lab) = lab() else { return };
    let run = Running::start(&lab.node, config());
    let mut mixed = [endpoints(&ips(&lab, 0..2)), endpoints(&ip6s(&lab, 0..2))];
    run.list(vec![signalling(json!({}))], mixed.to_vec());
    let (pod, outside) = (&lab.pods[3], &lab.outside);
    for (vip, node, pod_ip) in [(VIP, NODE_IP, pod.ip), (VIP6, NODE_IP6, pod.ip6)] {
        let (counts, clients) = spread(|| sctp(&pod.ns, at(vip, 80)));
        even(&counts, &["pod0", "pod1"]);
        assert_eq!(clients, [pod_ip].into());
        even(&spread(|| sctp(&lab.node, at(vip, 80))).0, &["pod0", "pod1"]);
        let (counts, clients) = spread(|| sctp(outside, at(node, NODE_PORT)));
        even(&counts, &["pod0", "pod1"]);
        assert!(!clients.contains(&lab.outside_ip()), "{clients:?}");
    }
    // TCP and UDP of the same number have endpoints of their own.
    assert_eq!(tcp(&pod.ns, at(VIP, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    mixed[0].endpoints[1].node_name = Some("node-2".into());
    run.change(Input::Slice(Key::new("default", "web-4"), Some(mixed[0].clone())));
    run.change(Input::Service(Key::new("default", "web"), Some(signalling(json!({"externalTrafficPolicy": "Local"})))));
    let (counts, clients) = spread(|| sctp(outside, at(NODE_IP, NODE_PORT)));
    even(&counts, &["pod0"]);
    assert_eq!(clients, [lab.outside_ip()].into());
    // Nobody left: refused, which a connected raw socket is told, too.
    run.change(Input::Slice(Key::new("default", "web-4"), Some(endpoints(&[]))));
    assert_eq!(sctp(&pod.ns, at(VIP, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(sctp(outside, at(NODE_IP, NODE_PORT)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn flows_of_a_gone_endpoint_are_purged_and_others_live() {
    let Some(lab) = lab() else { return };
    let run = Running::start(&lab.node, config());
    run.list(vec![signalling(json!({}))], vec![endpoints(&ips(&lab, 0..1))]);
    let (pod, outside) = (&lab.pods[3].ns, &lab.outside);
    let (vip, node_port) = (at(VIP, 80), at(NODE_IP, NODE_PORT));
    let both = |who: &str| {
        assert_eq!(ask_from(pod, 7001, vip).unwrap().0, who);
        assert_eq!(ask_from(outside, 7002, node_port).unwrap().0, who);
    };
    let slice = |ips: &[IpAddr]| Input::Slice(Key::new("default", "web-4"), Some(endpoints(ips)));
    both("pod0");
    run.change(slice(&ips(&lab, 0..2)));
    both("pod0");
    assert_eq!(run.handle.stats().flows_purged, 0);
    // One that terminates and still serves keeps what it has.
    let mut leaving = endpoints(&ips(&lab, 0..2));
    leaving.endpoints[0].conditions =
        serde_json::from_value(json!({"ready": false, "serving": true, "terminating": true})).unwrap();
    run.change(Input::Slice(Key::new("default", "web-4"), Some(leaving)));
    both("pod0");
    assert_eq!(run.handle.stats().flows_purged, 0);
    // It goes: no rule changes, as it had no place in them any more.
    run.send(slice(&ips(&lab, 1..2)));
    run.until("the purge of two flows", |s| s.flows_purged >= 2);
    both("pod1");
    // The service goes, and comes back with another endpoint.
    run.change(Input::Service(Key::new("default", "web"), None));
    run.until("the purge of the service's flows", |s| s.flows_purged >= 4);
    run.send(slice(&ips(&lab, 2..3)));
    run.change(Input::Service(Key::new("default", "web"), Some(signalling(json!({})))));
    both("pod2");
}
