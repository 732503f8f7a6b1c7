//! Random clusters and packets against a second, naive reading of what Kubernetes promises.
//!
//! The oracle looks at the API objects themselves, one service after the other, and knows nothing of rulesets, fronts or marks. Its
//! rules are those of the documentation and of KEPs 1669 (terminating endpoints), 2086 (internal traffic policy), 2433 and 3015
//! (hints), and of kube-proxy's nftables mode where these say nothing.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// How the node is set up.
#[derive(Debug, Clone)]
struct Setup {
    pods: PodTraffic,
    masquerade_all: bool,
    node_ports: Option<Vec<&'static str>>,
    service_ranges: bool,
}

fn setup() -> impl Strategy<Value = Setup> {
    let pods = prop_oneof![
        3 => Just(PodTraffic::Sources(vec![range("10.244.0.0/16"), range("fd00:244::/64")])),
        1 => Just(PodTraffic::Sources(vec![range("10.244.0.0/16")])),
        1 => Just(PodTraffic::default()),
        1 => Just(PodTraffic::Interface("veth9".parse().unwrap())),
        1 => Just(PodTraffic::InterfacePrefix("veth".parse().unwrap())),
    ];
    let node_ports = select(vec![None, None, Some(vec!["192.168.77.0/24"]), Some(vec!["192.168.78.11/32", "fd00::/8"])]);
    (pods, proptest::bool::weighted(0.2), node_ports, any::<bool>())
        .prop_map(|(pods, masquerade_all, node_ports, service_ranges)| Setup { pods, masquerade_all, node_ports, service_ranges })
}

/// Services 1 to 3 have addresses and node ports of their own, and two ports each.
fn any_service() -> impl Strategy<Value = (usize, Value)> {
    let policy = || select(vec![json!(null), json!("Cluster"), json!("Local")]);
    let kind = select(vec!["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
    let ranges = select(vec![
        vec![],
        vec![],
        vec!["198.51.100.0/24"],
        vec!["192.168.77.0/24", "2001:db8:51::/48"],
        vec!["10.244.0.0/16", "0.0.0.0/0"],
    ]);
    let families = select(vec!["4", "6", "46"]);
    (1..=3usize, kind, families, policy(), policy(), ranges, any::<bool>(), any::<bool>()).prop_map(
        |(n, kind, families, internal, external, ranges, external_ips, balanced)| {
            let ips: Vec<String> = families.chars().map(|f| if f == '4' { format!("10.96.0.{n}") } else { format!("fd00:96::{n}") }).collect();
            let both = |v4: String, v6: String| json!([v4, v6]);
            let mut more = json!({
                "type": kind, "internalTrafficPolicy": internal, "externalTrafficPolicy": external, "loadBalancerSourceRanges": ranges,
                "ports": [{"name": "web", "port": 80, "nodePort": 30000 + n}, {"name": "dns", "port": 53, "protocol": "UDP"}]
            });
            if external_ips {
                more["externalIPs"] = both(format!("203.0.113.{n}"), format!("2001:db8::{n}"));
            }
            if balanced {
                more["ingress"] = json!([{"ip": format!("203.0.113.{}", n + 10)}, {"ip": format!("2001:db8::1{n}")}, {"ip": "192.0.2.1", "ipMode": "Proxy"}]);
            }
            let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
            (n, service(&format!("s{n}"), &ips, more))
        },
    )
}

fn any_slice() -> impl Strategy<Value = (usize, Value)> {
    let state = select(vec!["", "", "", " starting", " leaving", " dead", " published", " published-leaving"]);
    let zones = select(vec!["", " zone:z1", " zone:z2", " zone:z1 zone:z2"]);
    let nodes = select(vec!["", "", " node:here", " node:there"]);
    let hinted = any::<bool>();
    let ports = select(vec![
        json!([{"name": "web", "port": 8080, "protocol": "TCP"}]),
        json!([{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}]),
        json!([{"name": "web", "port": 9090, "protocol": "TCP"}, {"name": "dns", "port": null, "protocol": "UDP"}]),
        json!([]),
    ]);
    let endpoints = vec((1..7u8, state, zones, nodes), 0..4);
    (0..5usize, 1..=3usize, any::<bool>(), hinted, ports, endpoints, proptest::bool::weighted(0.1)).prop_map(
        |(name, of, v6, hinted, ports, endpoints, headless)| {
            let endpoint = |(n, state, zones, nodes): &(u8, &str, &str, &str)| {
                // Some live on this node, whatever slice they are in.
                let here = if *n < 4 { " here" } else { "" };
                let (zones, nodes) = if hinted { (*zones, *nodes) } else { ("", "") };
                let ip = if v6 { format!("fd00:244::{n}") } else { format!("10.244.0.{n}") };
                format!("{ip}{here}{state}{zones}{nodes}")
            };
            let texts: Vec<String> = endpoints.iter().map(endpoint).collect();
            let mut s = slice(&format!("slice{name}"), &format!("s{of}"), &texts.iter().map(String::as_str).collect::<Vec<_>>());
            s["addressType"] = json!(if v6 { "IPv6" } else { "IPv4" });
            s["ports"] = ports;
            if headless {
                s["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
            }
            (name, s)
        },
    )
}

fn sender_and_target() -> impl Strategy<Value = (&'static str, String)> {
    let from = select(vec!["pod", "node", "outside", "other node", "192.168.78.11", "10.244.0.1", "fd00:244::2", "10.244.0.5"]);
    let to = (1..=3usize, 0..12usize).prop_map(|(n, kind)| match kind {
        0 => format!("10.96.0.{n}:80/tcp"),
        1 => format!("[fd00:96::{n}]:80/tcp"),
        2 => format!("10.96.0.{n}:53/udp"),
        3 => format!("10.96.0.{n}:81/tcp"),
        4 => format!("203.0.113.{n}:80/tcp"),
        5 => format!("[2001:db8::{n}]:80/tcp"),
        6 => format!("203.0.113.{}:80/tcp", n + 10),
        7 => format!("[2001:db8::1{n}]:53/udp"),
        8 => format!("192.168.77.11:3000{n}/tcp"),
        9 => format!("192.168.78.11:3000{n}/tcp"),
        10 => format!("[fd00:77::11]:3000{n}/tcp"),
        _ => "192.0.2.1:80/tcp".to_string(),
    });
    (from, to)
        .prop_filter("one family", |(from, to)| from.parse::<IpAddr>().is_err() || from.contains(':') == to.starts_with('['))
}

/// An endpoint as the slices of a service have it, for one of its ports.
#[derive(Debug, Clone)]
struct Seen {
    ip: IpAddr,
    port: u64,
    ready: bool,
    serving: bool,
    terminating: bool,
    here: bool,
    zones: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

/// What the slices say of one service port in one family. The living ones at an address hide those that end.
fn seen(slices: &[&Value], name: &str, port: &Value, v6: bool) -> Vec<Seen> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let mut all = Vec::new();
    for s in slices {
        let labels = &s["metadata"]["labels"];
        if labels["kubernetes.io/service-name"] != name
            || labels.get("service.kubernetes.io/headless").is_some()
            || (s["addressType"] == "IPv6") != v6
        {
            continue;
        }
        let protocol = port.get("protocol").map_or("TCP".to_string(), text);
        for p in s["ports"].as_array().unwrap().iter().filter(|p| p["name"] == port["name"] && p["protocol"] == *protocol) {
            let Some(number) = p["port"].as_u64() else { continue };
            for e in s["endpoints"].as_array().unwrap() {
                let is = |what: &str, otherwise: bool| e["conditions"][what].as_bool().unwrap_or(otherwise);
                let names = |what: &str| e["hints"][what].as_array().unwrap().iter().map(|h| text(&h["name"])).collect();
                all.push(Seen {
                    ip: text(&e["addresses"][0]).parse().unwrap(),
                    port: number,
                    ready: is("ready", true),
                    serving: is("serving", true),
                    terminating: is("terminating", false),
                    here: e["nodeName"] == HERE,
                    zones: names("forZones"),
                    nodes: names("forNodes"),
                });
            }
        }
    }
    let mut joined: Vec<Seen> = Vec::new();
    for terminating in [false, true] {
        for e in all.iter().filter(|e| e.terminating == terminating) {
            match joined.iter_mut().find(|j| (j.ip, j.port) == (e.ip, e.port)) {
                None => joined.push(e.clone()),
                Some(j) if j.terminating == e.terminating => {
                    j.ready |= e.ready;
                    j.serving |= e.serving;
                    j.zones.extend(e.zones.clone());
                    j.nodes.extend(e.nodes.clone());
                }
                Some(_) => {}
            }
        }
    }
    joined
}

/// Where a Cluster policy leads.
fn anywhere(all: &[Seen]) -> Vec<Seen> {
    let ready: Vec<&Seen> = all.iter().filter(|e| e.ready).collect();
    let near = |hints: &dyn Fn(&Seen) -> &BTreeSet<String>, me: &str| -> Option<Vec<Seen>> {
        let mine: Vec<Seen> = ready.iter().filter(|e| hints(e).contains(me)).map(|e| (*e).clone()).collect();
        (!mine.is_empty() && ready.iter().all(|e| !hints(e).is_empty())).then_some(mine)
    };
    near(&|e| &e.nodes, HERE)
        .or_else(|| near(&|e| &e.zones, ZONE))
        .unwrap_or_else(|| if ready.is_empty() { leaving(all) } else { ready.into_iter().cloned().collect() })
}

/// Where a Local policy leads.
fn here(all: &[Seen]) -> Vec<Seen> {
    let mine: Vec<Seen> = all.iter().filter(|e| e.here).cloned().collect();
    let ready: Vec<Seen> = mine.iter().filter(|e| e.ready).cloned().collect();
    if ready.is_empty() { leaving(&mine) } else { ready }
}

fn leaving(all: &[Seen]) -> Vec<Seen> {
    all.iter().filter(|e| !e.ready && e.serving && e.terminating).cloned().collect()
}

/// What is to become of a packet, in the words of `Cluster::meets`, or several of them where an endpoint meets itself.
fn promised(setup: &Setup, services: &[&Value], slices: &[&Value], from: &str, to: &str) -> BTreeSet<String> {
    let (address, proto) = to.split_once('/').unwrap();
    let dst: SocketAddr = address.parse().unwrap();
    let (src, interface) = sender(from, dst.ip());
    let v6 = dst.is_ipv6();
    let own = |ip: IpAddr| NODE_IPS.iter().any(|own| own.parse::<IpAddr>().unwrap() == ip);
    let (from_pod, pods_known) = match &setup.pods {
        PodTraffic::Sources(ranges) => (ranges.iter().any(|r| r.contains(&src)), ranges.iter().any(|r| r.addr().is_ipv6() == v6)),
        PodTraffic::Interface(name) => (interface.as_deref() == Some(name.as_str()), true),
        PodTraffic::InterfacePrefix(prefix) => (interface.is_some_and(|i| i.starts_with(prefix.as_str())), true),
    };
    let one = |what: &str| BTreeSet::from([what.to_string()]);
    let to_these = |endpoints: &[Seen], masquerade: bool| -> BTreeSet<String> {
        let end = |e: &Seen| masquerade || (e.ip == src && e.here);
        endpoints.iter().map(|e| format!("{}{}", text(e.ip, e.port as u16), if end(e) { " masqueraded" } else { "" })).collect()
    };
    for s in services {
        let spec = &s["spec"];
        let name = s["metadata"]["name"].as_str().unwrap();
        let has = |list: &Value| {
            list.as_array().is_some_and(|l| l.iter().any(|ip| ip.as_str().unwrap().parse::<IpAddr>().unwrap() == dst.ip()))
        };
        let family = spec["clusterIPs"].as_array().unwrap().iter().any(|ip| ip.as_str().unwrap().contains(':') == v6);
        if spec["type"] == "ExternalName" || !family {
            continue;
        }
        let ports = spec["ports"].as_array().unwrap();
        let speaks = |p: &&Value| p.get("protocol").map_or("TCP", |p| p.as_str().unwrap()).eq_ignore_ascii_case(proto);
        let port = ports.iter().filter(speaks).find(|p| p["port"] == dst.port());
        if has(&spec["clusterIPs"]) {
            let Some(port) = port else { return one("reject") };
            let all = seen(slices, name, port, v6);
            let pool = if spec["internalTrafficPolicy"] == "Local" { here(&all) } else { anywhere(&all) };
            return match (pool.is_empty(), anywhere(&all).is_empty()) {
                (true, true) => one("reject"),
                (true, false) => one("drop"),
                _ => to_these(&pool, setup.masquerade_all || (pods_known && !from_pod)),
            };
        }
        let ingress = s["status"]["loadBalancer"]["ingress"].as_array();
        let balancer = ingress.is_some_and(|all| {
            all.iter().any(|i| i["ip"].as_str().unwrap().parse::<IpAddr>().unwrap() == dst.ip() && i["ipMode"] != "Proxy")
        });
        let allowed = match &setup.node_ports {
            Some(ranges) if ranges.iter().any(|r| r.contains(':') == v6) => ranges.iter().any(|r| range(r).contains(&dst.ip())),
            _ => true,
        };
        let node_port = ports.iter().filter(speaks).find(|p| own(dst.ip()) && allowed && p["nodePort"] == dst.port());
        let by_address = port.filter(|_| balancer || has(&spec["externalIPs"]));
        let Some(port) = by_address.or(node_port) else { continue };
        let ranges: Vec<ipnet::IpNet> =
            spec["loadBalancerSourceRanges"].as_array().unwrap().iter().map(|r| range(r.as_str().unwrap())).collect();
        let ranges: Vec<_> = ranges.into_iter().filter(|r| r.addr().is_ipv6() == v6).collect();
        let restricted = by_address.is_some() && balancer && !ranges.is_empty();
        if restricted && !ranges.iter().any(|r| r.contains(&src)) {
            return one("drop");
        }
        let all = seen(slices, name, port, v6);
        let external = spec["type"] != "ClusterIP" || spec["externalIPs"].as_array().is_some();
        let local = spec["externalTrafficPolicy"] == "Local" && external;
        return match anywhere(&all) {
            pool if pool.is_empty() => one("reject"),
            pool if !local => to_these(&pool, true),
            pool if from_pod => to_these(&pool, false),
            pool if own(src) => to_these(&pool, true),
            _ if here(&all).is_empty() => one("drop"),
            _ => to_these(&here(&all), false),
        };
    }
    let in_ranges = ["10.96.0.0/16", "fd00:96::/112"].iter().any(|r| range(r).contains(&dst.ip()));
    one(if setup.service_ranges && in_ranges && !own(dst.ip()) { "drop" } else { "pass" })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_go_where_kubernetes_promises(
        setup in setup(), services in vec(any_service(), 0..4), slices in vec(any_slice(), 0..5), ways in vec(sender_and_target(), 1..8)
    ) {
        // The last of a name is the object.
        let last = |all: &[(usize, Value)]| -> Vec<Value> {
            (0..6).filter_map(|n| all.iter().rev().find(|(m, _)| *m == n).map(|(_, object)| object.clone())).collect()
        };
        let (kept, kept_slices) = (last(&services), last(&slices));
        let objects: Vec<Value> = services.iter().chain(&slices).map(|(_, object)| object.clone()).collect();
        let c = cluster(&objects).policy(|p| {
            p.pods = setup.pods.clone();
            p.masquerade_all = setup.masquerade_all;
            p.node_port_ranges = setup.node_ports.as_ref().map(|all| all.iter().map(|r| range(r)).collect());
            if setup.service_ranges {
                p.service_ranges = vec![range("10.96.0.0/16"), range("fd00:96::/112")];
            }
        });
        prop_assert_eq!(&c.faults, &[""; 0]);
        let rules = c.rules();
        for (from, to) in &ways {
            let wanted = promised(&setup, &kept.iter().collect::<Vec<_>>(), &kept_slices.iter().collect::<Vec<_>>(), from, to);
            prop_assert_eq!(c.outcomes(&rules, from, to), wanted, "from {} to {}", from, to);
        }
    }
}
