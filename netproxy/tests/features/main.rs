//! What Kubernetes promises of Services, feature by feature, without a kernel: API objects are compiled and packets traced.
//!
//! Every test is a table: objects, then who sends where and what becomes of it. `kernel` shows that the tracer tells the truth.

mod addresses;
mod described;
mod endpoints;
mod families;
mod frontends;
mod masquerade;
mod oracle;
mod policies;
mod restrictions;
mod slices;
mod topology;

use ferrolet_netproxy::compile::compile;
use ferrolet_netproxy::convert;
use ferrolet_netproxy::local::PodTraffic;
use ferrolet_netproxy::ruleset::{Policy, Ruleset};
use ferrolet_netproxy::tables::{Tables, Touched};
use ferrolet_netproxy::trace::{Outcome, Packet, trace};
use ferrolet_netproxy::{Proto, wire};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The node's own name and zone, as slices have them.
const HERE: &str = "here";
const ZONE: &str = "z1";
const NODE_IPS: [&str; 4] = ["192.168.77.11", "192.168.78.11", "fd00:77::11", "127.0.0.1"];

/// A cluster as seen from one node.
struct Cluster {
    tables: Tables,
    policy: Policy,
    /// What was wrong in the objects.
    faults: Vec<String>,
}

fn cluster(objects: &[Value]) -> Cluster {
    let policy = Policy {
        pods: PodTraffic::Sources(vec![range("10.244.0.0/16"), range("fd00:244::/64")]),
        zone: ZONE.into(),
        node_ips: NODE_IPS.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..Policy::default()
    };
    let mut cluster = Cluster { tables: Tables::default(), policy, faults: Vec::new() };
    for object in objects {
        cluster.apply(object);
    }
    cluster
}

fn range(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

impl Cluster {
    fn apply(&mut self, object: &Value) {
        let mut faults = Vec::new();
        let mut touched = Touched::new();
        if object.get("endpoints").is_some() {
            let wire: wire::EndpointSlice = serde_json::from_value(object.clone()).unwrap();
            self.tables.set_slice(convert::key(&wire.metadata), convert::slice(&wire, HERE, &mut faults), &mut touched);
        } else {
            let wire: wire::Service = serde_json::from_value(object.clone()).unwrap();
            self.tables.set_service(convert::key(&wire.metadata), convert::service(&wire, &mut faults), &mut touched);
        }
        self.faults.extend(faults.iter().map(ToString::to_string));
    }

    fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Cluster {
        change(&mut self.policy);
        self
    }

    fn rules(&self) -> Ruleset {
        compile(&self.tables, &self.policy)
    }

    /// What may become of a packet: `reject`, `drop`, `pass`, or an endpoint, with ` masqueraded` where its sender is hidden from it.
    fn outcomes(&self, rules: &Ruleset, from: &str, to: &str) -> BTreeSet<String> {
        let (to, proto) = to.split_once('/').unwrap_or((to, "tcp"));
        let dst: SocketAddr = to.parse().unwrap();
        let (src, from_interface) = sender(from, dst.ip());
        let proto = match proto {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            "sctp" => Proto::Sctp,
            other => panic!("{other} is no protocol"),
        };
        let one = |random| {
            let packet =
                Packet { src, dst: dst.ip(), proto, dst_port: dst.port(), from_interface: from_interface.clone(), random };
            match trace(rules, &self.policy.node_ips, &packet).outcome {
                Outcome::Forward { to, masquerade: true, .. } => text(to.ip, to.port) + " masqueraded",
                Outcome::Forward { to, masquerade: false, .. } => text(to.ip, to.port),
                Outcome::Reject => "reject".into(),
                Outcome::Drop => "drop".into(),
                Outcome::Pass => "pass".into(),
            }
        };
        (0..60).map(one).collect()
    }

    /// The same in one line, where all endpoints see the same of the sender.
    fn meets(&self, from: &str, to: &str) -> String {
        let met = self.outcomes(&self.rules(), from, to);
        let plain: Vec<_> = met.iter().map(|m| m.trim_end_matches(" masqueraded")).collect();
        let hidden = met.iter().filter(|m| m.ends_with(" masqueraded")).count();
        assert!(hidden == 0 || hidden == met.len(), "{met:?}");
        plain.join(" ") + if hidden > 0 { " masqueraded" } else { "" }
    }

    /// Each line: who sends, where to, and what becomes of it.
    #[track_caller]
    fn check(&self, lines: &[(&str, &str, &str)]) {
        let met: Vec<_> = lines.iter().map(|(from, to, _)| (*from, *to, self.meets(from, to))).collect();
        let met: Vec<_> = met.iter().map(|(from, to, met)| (*from, *to, met.as_str())).collect();
        assert_eq!(met, lines);
    }
}

fn text(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// The address of a sender in the family it sends in, and by which interface its packets come in.
fn sender(name: &str, to: IpAddr) -> (IpAddr, Option<String>) {
    let (v4, v6, interface) = match name {
        "pod" => ("10.244.0.9", "fd00:244::9", Some("veth9")),
        "node" => ("192.168.77.11", "fd00:77::11", None),
        "other node" => ("192.168.77.12", "fd00:77::12", Some("eth0")),
        "outside" => ("198.51.100.7", "2001:db8:51::7", Some("eth0")),
        address => (address, address, Some("eth0")),
    };
    let address = if to.is_ipv4() { v4 } else { v6 };
    (address.parse().unwrap(), interface.map(String::from))
}

/// A service with the port 80 named `web`, and what else is given.
fn service(name: &str, ips: &[&str], more: Value) -> Value {
    let mut spec = json!({"type": "ClusterIP", "clusterIPs": ips, "ports": [{"name": "web", "port": 80}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut status = json!({});
    if let Some(ingress) = spec.as_object_mut().unwrap().remove("ingress") {
        status = json!({"loadBalancer": {"ingress": ingress}});
    }
    json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec, "status": status})
}

/// A slice of a service with the port 8080 named `web`. An endpoint is its address, its node if it is `here`, `starting`, `leaving`
/// or `dead` if it is not ready, and its hints (`zone:` and `node:`).
fn slice(name: &str, of: &str, endpoints: &[&str]) -> Value {
    let v6 = endpoints.iter().any(|e| e.contains("::"));
    json!({
        "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": of}},
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints.iter().map(|e| endpoint(e)).collect::<Vec<_>>(),
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}]
    })
}

fn endpoint(text: &str) -> Value {
    let mut words = text.split(' ');
    let mut e = json!({"addresses": [words.next().unwrap()], "nodeName": "there", "conditions": {}, "hints": {"forZones": [], "forNodes": []}});
    let conditions = |ready, serving, terminating| json!({"ready": ready, "serving": serving, "terminating": terminating});
    for word in words {
        match word.split_once(':') {
            Some(("zone", z)) => e["hints"]["forZones"].as_array_mut().unwrap().push(json!({"name": z})),
            Some(("node", n)) => e["hints"]["forNodes"].as_array_mut().unwrap().push(json!({"name": n})),
            _ => match word {
                HERE => e["nodeName"] = json!(HERE),
                "starting" => e["conditions"] = conditions(false, false, false),
                "leaving" => e["conditions"] = conditions(false, true, true),
                "dead" => e["conditions"] = conditions(false, false, true),
                // As with publishNotReadyAddresses.
                "published" => e["conditions"] = conditions(true, false, false),
                "published-leaving" => e["conditions"] = conditions(true, false, true),
                other => panic!("{other} is not known of endpoints"),
            },
        }
    }
    e
}

fn with(mut object: Value, at: &str, value: Value) -> Value {
    *object.pointer_mut(at).unwrap_or_else(|| panic!("no {at}")) = value;
    object
}
