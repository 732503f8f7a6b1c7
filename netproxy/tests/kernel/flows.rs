//! Flows of connectionless protocols that lead astray.

use super::*;

#[test]
fn stale_udp_flows_are_purged() {
    let Some(lab) = Lab::new(4) else { return };
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
    let Some(lab) = Lab::new(2) else { return };
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
fn node_port_flows_are_put_right_after_a_restart() {
    let Some(lab) = Lab::new(3) else { return };
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

/// The watch broke and all is listed anew: that an endpoint went, another service and a port, nobody told.
#[test]
fn what_was_missed_is_put_right_by_the_next_list() {
    let Some(lab) = Lab::new(4) else { return };
    let _servers = servers(&lab);
    let other = |web: &str| {
        let mut s = service(json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.11"]}));
        s.metadata.name = web.into();
        s.spec.ports.retain(|p| p.name == "dns");
        s.spec.ports[0].node_port = None;
        let mut e = slice(&ips(&lab, 2..3), "node-1");
        (e.metadata.name, s.metadata.name) = (web.into(), web.into());
        e.metadata.labels.insert("kubernetes.io/service-name".into(), web.into());
        (s, e)
    };
    let run = Running::start(&lab.node, config());
    let (gone, its) = other("gone");
    run.list(vec![service(json!({})), gone], vec![slice(&ips(&lab, 0..2), "node-1"), its]);
    let clients: Vec<UdpSocket> = (0..12).map(|_| client(&lab.pods[3].ns)).collect();
    let to = |c: &UdpSocket| ask(c, at(VIP, 53)).unwrap().0;
    let before: Vec<String> = clients.iter().map(to).collect();
    let lost = client(&lab.pods[3].ns);
    assert_eq!(ask(&lost, at("10.96.0.11", 53)).unwrap().0, "pod2");
    let stale = before.iter().filter(|who| *who == "pod0").count() as u64 + 1;
    assert!((2..13).contains(&stale), "{before:?}");
    run.send(Input::Slices(vec![slice(&ips(&lab, 1..2), "node-1")]));
    run.send(Input::Services(vec![service(json!({}))]));
    run.until("the purge", |s| s.flows_purged >= stale);
    assert!(clients.iter().map(to).all(|who| who == "pod1"));
    assert!(ask(&lost, at("10.96.0.11", 53)).is_err());
    // Those that led to what is still there were not ended.
    assert_eq!(run.handle.stats().flows_purged, stale);
}
