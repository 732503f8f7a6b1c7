//! A service that the kernel itself refuses. Nothing the API takes makes it do so: what is written of one service is spoilt on its
//! way.

use super::*;
use ferrolet_netproxy::conntrack::Flow;
use ferrolet_netproxy::diff::{Element, Held, Place, Transaction};
use ferrolet_netproxy::netlink::Netlink;
use ferrolet_netproxy::proxy::{Kernel, Layout};
use ferrolet_netproxy::ruleset::Front;
use ferrolet_netproxy::{Error, Family};

const BAD: &str = "10.96.0.66";

struct Spoilt {
    real: Netlink,
    bad: Arc<AtomicBool>,
}

impl Spoilt {
    /// With the bad service's elements goes the removal of one that is not there.
    fn spoil(&self, tx: &Transaction) -> Transaction {
        let mut tx = tx.clone();
        let at = |e: &&Element| matches!(e, Element::Count { front: Front::ClusterIp { ip, .. }, .. } if ip.to_string() == BAD);
        if let Some(element) = tx.add.iter().find(at).copied().filter(|_| self.bad.load(Ordering::SeqCst)) {
            tx.remove.push(element);
        }
        tx
    }
}

impl Kernel for Spoilt {
    fn commit(&mut self, tx: &Transaction) -> Result<(), Error> {
        self.real.commit(&self.spoil(tx))
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), Error> {
        self.real.check(&self.spoil(tx))
    }

    fn layout(&mut self, place: Place, family: Family) -> Result<Layout, Error> {
        self.real.layout(place, family)
    }

    fn read(&mut self, family: Family, each: &mut dyn FnMut(Held)) -> Result<bool, Error> {
        self.real.read(family, each)
    }

    fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        self.real.flows()
    }

    fn delete_flow(&mut self, flow: &Flow) -> Result<(), Error> {
        self.real.delete_flow(flow)
    }
}

fn named(name: &str, vip: &str) -> wire::Service {
    let mut s = service(json!({"type": "ClusterIP", "clusterIPs": [vip]}));
    s.metadata.name = name.into();
    for port in &mut s.spec.ports {
        port.node_port = None;
    }
    s
}

fn slice_of(name: &str, ips: &[IpAddr]) -> wire::EndpointSlice {
    let mut s = slice(ips, "node-1");
    s.metadata.name = format!("{name}-4");
    s.metadata.labels.insert("kubernetes.io/service-name".into(), name.into());
    s
}

#[test]
fn a_refused_service_is_set_aside_and_all_others_are_served() {
    let Some(lab) = Lab::new(3) else { return };
    let _servers = servers(&lab);
    let bad = Arc::new(AtomicBool::new(true));
    let run = Running::spawn(&lab.node, |inputs, cancel| {
        let kernel = Spoilt { real: Netlink::open().unwrap(), bad: bad.clone() };
        Proxy::spawn_on(config(), Box::new(kernel), inputs, cancel).0
    });
    // Many, so that it is looked for.
    let vip = |n: u8| format!("10.96.1.{n}");
    let mut services: Vec<_> = (1..=40).map(|n| named(&format!("good-{n}"), &vip(n))).collect();
    let mut slices: Vec<_> = (1..=40).map(|n| slice_of(&format!("good-{n}"), &ips(&lab, 0..1))).collect();
    services.insert(20, named("good-refused", BAD));
    slices.insert(20, slice_of("good-refused", &ips(&lab, 0..1)));
    run.send(Input::ServiceCidrs(vec!["10.96.0.0/16".parse().unwrap()]));
    run.list(services, slices);
    assert_eq!(run.handle.stats().set_aside, ["default/good-refused"]);
    let client = &lab.pods[2].ns;
    let serves = |ip: &str, who: &str| assert_eq!(tcp(client, at(ip, 80)).unwrap().0, who, "{ip}");
    (1..=40).for_each(|n| serves(&vip(n), "pod0"));
    // It has no rules, and what is sent to it is dropped as to any address that no service has. Its trials left nothing.
    times_out(client, at(BAD, 80));
    assert!(!lab.node.nft("list tables").contains("ferrolet-next"));
    // Others change meanwhile.
    let change =
        |name: &str, pods| Input::Slice(Key::new("default", &format!("{name}-4")), Some(slice_of(name, &ips(&lab, pods))));
    run.change(change("good-7", 1..2));
    serves(&vip(7), "pod1");
    // A good one turns bad: its change fails, and all others stay.
    run.send(Input::Service(Key::new("default", "good-8"), Some(named("good-8", BAD))));
    run.until("it to be set aside", |s| s.set_aside.contains(&"default/good-8".to_owned()));
    serves(&vip(7), "pod1");
    serves(&vip(9), "pod0");
    // The object changes: a new try.
    bad.store(false, Ordering::SeqCst);
    run.change(Input::Service(Key::new("default", "good-8"), Some(named("good-8", &vip(8)))));
    run.change(change("good-refused", 1..2));
    run.until("nothing to be set aside", |s| s.set_aside.is_empty());
    serves(BAD, "pod1");
    serves(&vip(8), "pod0");
}
