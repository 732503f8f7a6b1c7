//! Starts and repairs compare with what the kernel has, and go in steps: what is told to it, and what connections notice.

use super::affinity::only;
use super::*;
use ferrolet_netproxy::netlink::attr::messages;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// The kernel's own account of what changes in nf_tables, by kind of object.
struct Notices(OwnedFd);

impl Notices {
    const RULES_AND_ELEMENTS: [u16; 4] = [6, 8, 12, 14];
    /// Of every transaction.
    const GENERATION: u16 = 15;

    fn open(ns: &Netns) -> Notices {
        const NF_TABLES_GROUP: u32 = 1 << (7 - 1);
        ns.run(|| {
            let s =
                socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkNetFilter).unwrap();
            setsockopt(&s, sockopt::RcvBufForce, &(16 << 20)).unwrap();
            bind(s.as_raw_fd(), &NetlinkAddr::new(0, NF_TABLES_GROUP)).unwrap();
            Notices(s)
        })
    }

    /// How many of each kind since the last time. The kernel tells before it answers who made the change.
    fn count(&self) -> BTreeMap<u16, usize> {
        let (mut all, mut buffer) = (BTreeMap::new(), vec![0; 64 << 10]);
        while let Ok(n) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            for m in messages(&buffer[..n]) {
                *all.entry(m.kind & 0xff).or_default() += 1;
            }
        }
        all
    }

    #[track_caller]
    fn no_change(&self) {
        let seen = self.count();
        assert!(seen.contains_key(&Self::GENERATION), "nothing was told at all: {seen:?}");
        assert!(!Self::RULES_AND_ELEMENTS.iter().any(|kind| seen.contains_key(kind)), "{seen:?}");
    }
}

/// Connections without a pause from several places until stopped; the first that fails ends the test.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<usize>>,
}

impl Clients {
    fn start(lab: &Lab) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let pod = lab.pods.last().unwrap().ns.clone();
        let ways = [(pod, at(VIP, 80)), (lab.outside.clone(), at(NODE_IP, NODE_PORT)), (lab.node.clone(), at(VIP6, 80))];
        let thread = |(ns, to): (Netns, SocketAddr)| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                ns.run(|| {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        lab::tcp_here(to).unwrap_or_else(|e| panic!("to {to} after {n}: {e}"));
                        n += 1;
                    }
                    n
                })
            })
        };
        let threads = ways.into_iter().map(thread).collect();
        Clients { stop, threads }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads {
            assert!(t.join().unwrap() > 20);
        }
    }
}

const CROWD: u32 = 1500;

/// So many other services of five endpoints with two ports each: more than go to the kernel at once. With another `turn` all of
/// their endpoints are others.
fn crowd(turn: u32) -> (Vec<wire::Service>, Vec<wire::EndpointSlice>) {
    let one = |n: u32| {
        let ip = std::net::Ipv4Addr::from(0x0a61_0000 + n).to_string();
        let mut s = service(json!({"type": "ClusterIP", "clusterIPs": [ip]}));
        s.metadata.name = format!("s{n}");
        for p in &mut s.spec.ports {
            p.node_port = None;
        }
        let ips: Vec<IpAddr> = (0..5).map(|e| IpAddr::from((0x0af5_0000 + (n * 8 + e) * 2 + turn % 2).to_be_bytes())).collect();
        let mut e = slice(&ips, "node-2");
        e.metadata.name = s.metadata.name.clone();
        e.metadata.labels.insert("kubernetes.io/service-name".into(), s.metadata.name.clone());
        (s, e)
    };
    (0..CROWD).map(one).unzip()
}

#[test]
fn many_elements_go_in_steps() {
    if !lab::able() {
        return;
    }
    let node = Netns::new();
    let run = Running::start(&node, config());
    let (services, slices) = crowd(0);
    run.list(services, slices);
    let stats = run.handle.stats();
    assert_eq!((stats.services, stats.endpoints, stats.full_syncs), (1500, 7500, 1));
    assert!(stats.last_full_batches > 2, "{stats:?}");
    let lines = node.nft("list map ip ferrolet service-slots").lines().filter(|l| l.contains(" : 10.245.")).count();
    assert_eq!(lines, 15_000);
}

/// A service with all there is: both families, node ports, addresses from outside, restricted sources, and with affinity.
fn everything(stays: bool) -> wire::Service {
    let mut s = serde_json::to_value(service(json!({
        "type": "LoadBalancer", "externalIPs": ["203.0.113.7"], "externalTrafficPolicy": "Local",
        "loadBalancerSourceRanges": ["192.168.0.0/16", "10.0.0.0/8"]
    })))
    .unwrap();
    s["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}});
    if stays {
        s["spec"]["sessionAffinity"] = json!("ClientIP");
    }
    serde_json::from_value(s).unwrap()
}

#[test]
fn a_restart_over_an_unchanged_table_changes_nothing() {
    let Some(lab) = Lab::new(4) else { return };
    let _servers = servers(&lab);
    let notices = Notices::open(&lab.node);
    for stays in [false, true] {
        let slices =
            |pods: std::ops::Range<usize>| vec![slice(&ips(&lab, pods.clone()), "node-1"), slice(&ip6s(&lab, pods), "node-1")];
        let run = Running::start(&lab.node, config());
        run.list(vec![everything(stays)], slices(0..3));
        // The first one goes: the last takes its slot, which no start would give it.
        run.change(slice_input(&ips(&lab, 1..3)));
        assert_eq!(run.handle.stats().failures, 0, "{:?}", run.handle.stats());
        drop(run);
        let wanted = vec![slice(&ips(&lab, 1..3), "node-1"), slice(&ip6s(&lab, 0..3), "node-1")];
        notices.count();
        let run = Running::start(&lab.node, config());
        run.list(vec![everything(stays)], wanted);
        notices.no_change();
        assert_eq!((run.handle.stats().last_operations, run.handle.stats().last_full_batches), (0, 1));
        assert!(tcp(&lab.outside, at(NODE_IP, NODE_PORT)).is_ok());
        // What the second run took over from the tables is true: its next change fits.
        run.change(slice_input(&ips(&lab, 0..4)));
        if !stays {
            even(&spread(|| tcp(&lab.node, at(NODE_IP, NODE_PORT))).0, &["pod0", "pod1", "pod2", "pod3"]);
        }
    }
}

#[test]
fn damage_is_put_right_within_a_second_and_clients_stay() {
    let Some(lab) = Lab::new(4) else { return };
    let _servers = servers(&lab);
    let stays = json!({"sessionAffinity": "ClientIP"});
    let run = started(&lab, stays, 0..3);
    let client = &lab.pods[3].ns;
    let had = tcp(client, at(VIP, 80)).unwrap().0;
    let text = lab.node.nft("list table ip ferrolet");
    let id = lab.node.nft("list map ip ferrolet service-slot-ids");
    let id = id.split("10.96.0.10 . tcp . 80 . 0x00000000 : ").nth(1).unwrap()[..10].to_string();
    let disturbances = [
        "flush table ip ferrolet".to_string(),
        "flush map ip ferrolet service-ids".into(),
        "flush map ip ferrolet service-picks".into(),
        "delete element ip ferrolet service-slot-ids { 10.96.0.10 . tcp . 80 . 0x00000001 }".into(),
        format!("delete element ip ferrolet service-ids {{ 10.96.0.10 . tcp . 80 . {id} }}"),
        "add element ip ferrolet cluster-ips { 10.96.77.77 }".into(),
        "add element ip ferrolet service-slots { 10.96.0.10 . tcp . 80 . 7 : 10.244.0.99 . 1 }".into(),
        "add element ip ferrolet services { 10.96.0.10 . icmp . 0 : 3 }".into(),
        "insert rule ip ferrolet find-service drop".into(),
        "delete chain ip ferrolet reject-output".into(),
        "add table ip ferrolet { flags dormant; }".into(),
    ];
    for (n, disturbance) in disturbances.iter().enumerate() {
        let n = n as u64;
        // A chain with rules cannot be deleted.
        if disturbance.starts_with("delete chain") {
            lab.node.nft("flush chain ip ferrolet reject-output ; delete chain ip ferrolet reject-output");
        } else {
            lab.node.nft(disturbance);
        }
        let began = Instant::now();
        run.until(disturbance, |s| s.repairs > n && s.full_syncs > n + 1);
        assert!(began.elapsed() < Duration::from_secs(1), "{disturbance} took {:?}", began.elapsed());
        assert_eq!(only(|| tcp(client, at(VIP, 80))), had, "after {disturbance}");
    }
    assert_eq!(run.handle.stats().failures, 0, "{:?}", run.handle.stats());
    let after = lab.node.nft("list table ip ferrolet");
    let same = |text: &str| text.lines().filter(|l| !l.contains("expires")).map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(same(&after), same(&text));
}

#[test]
fn a_table_of_another_layout_is_replaced_without_a_failure() {
    let Some(lab) = Lab::new(3) else { return };
    let _servers = servers(&lab);
    let start = || {
        let (mut services, mut slices) = crowd(0);
        services.push(service(json!({})));
        slices.extend([slice(&ips(&lab, 0..2), "node-1"), slice(&ip6s(&lab, 0..2), "node-1")]);
        let run = Running::start(&lab.node, config());
        run.list(services, slices);
        assert_eq!(run.handle.stats().failures, 0, "{:?}", run.handle.stats());
        run.handle.stats().last_full_batches
    };
    start();
    let clients = Clients::start(&lab);
    for family in ["ip", "ip6", "ip"] {
        lab.node.nft(&format!("add set {family} ferrolet leftover {{ type mark; }}"));
        let batches = start();
        assert!(batches > 2, "{batches}");
        let tables = lab.node.nft("list tables");
        assert_eq!(tables.lines().collect::<BTreeSet<_>>(), ["table ip ferrolet", "table ip6 ferrolet"].into());
        assert!(!lab.node.nft("list sets").contains("leftover"));
    }
    clients.end();
}

#[test]
fn a_large_resync_disturbs_no_connection() {
    let Some(lab) = Lab::new(3) else { return };
    let _servers = servers(&lab);
    let all = |turn: u32| {
        let (mut services, mut slices) = crowd(turn);
        services.push(service(json!({})));
        slices.extend([slice(&ips(&lab, 0..2), "node-1"), slice(&ip6s(&lab, 0..2), "node-1")]);
        (services, slices)
    };
    let (services, slices) = all(0);
    let run = Running::start(&lab.node, config());
    run.list(services, slices);
    let clients = Clients::start(&lab);
    // Everything but the service that is used changes: while it runs, and between two runs.
    for turn in 1..3 {
        let before = run.handle.stats().full_syncs;
        run.send(Input::Slices(all(turn).1));
        run.until("a resync", |s| s.full_syncs > before);
        let stats = run.handle.stats();
        assert!(stats.last_full_batches > 2 && stats.last_operations >= 30_000, "{stats:?}");
    }
    drop(run);
    for turn in 1..3 {
        let (services, slices) = all(turn);
        let run = Running::start(&lab.node, config());
        run.list(services, slices);
        let stats = run.handle.stats();
        assert!(stats.last_full_batches > 2 && stats.failures == 0, "{stats:?}");
    }
    clients.end();
}

/// Each timeout has chains of its own. Those that nothing uses any more are not kept for ever.
#[test]
fn chains_of_timeouts_that_were_do_not_pile_up() {
    let Some(lab) = Lab::new(3) else { return };
    let _servers = servers(&lab);
    let stays = |seconds: u32| {
        service(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}))
    };
    let run = Running::start(&lab.node, config());
    run.list(vec![stays(1)], vec![slice(&ips(&lab, 0..2), "node-1"), slice(&ip6s(&lab, 0..2), "node-1")]);
    let clients = Clients::start(&lab);
    let key = Key::new("default", "web");
    // Two families, two kinds of frontends: four chains each time.
    const TIMEOUTS: u32 = 700;
    for seconds in 2..=TIMEOUTS {
        run.change(Input::Service(key.clone(), Some(stays(seconds))));
    }
    clients.end();
    let chains = lab.node.nft("list chains").matches("-for-").count();
    assert!(chains < 2048, "{chains}");
    let stats = run.handle.stats();
    assert_eq!((stats.full_syncs, stats.failures, stats.repairs), (2, 0, 0), "{stats:?}");
    assert!(lab.node.nft("list chains").contains(&format!("service-pick-2-for-{TIMEOUTS}s")));
    super::affinity::only(|| tcp(&lab.pods[2].ns, at(VIP, 80)));
}
