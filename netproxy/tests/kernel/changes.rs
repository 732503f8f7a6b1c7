//! Changes of endpoints, starts over what is there, and what others do to our tables, with connections going on.

use super::*;

#[test]
fn no_connection_fails_while_endpoints_rotate() {
    let Some(lab) = Lab::new(4) else { return };
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
    let Some(lab) = Lab::new(3) else { return };
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
    let Some(lab) = Lab::new(3) else { return };
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
