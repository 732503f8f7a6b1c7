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
