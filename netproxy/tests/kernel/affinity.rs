//! Clients that stay with their endpoint.

use super::*;

/// The one endpoint that answers a client's connections.
#[track_caller]
pub fn only(once: impl FnMut() -> std::io::Result<(String, IpAddr)>) -> String {
    let counts = spread(once).0;
    assert_eq!(counts.len(), 1, "{counts:?}");
    counts.into_keys().next().unwrap()
}

#[test]
fn a_client_stays_with_its_endpoint() {
    let Some(lab) = Lab::new(4) else { return };
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
