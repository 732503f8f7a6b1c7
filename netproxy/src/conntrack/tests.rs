use super::*;
use crate::compile::{compile, update};
use crate::diff::full;
use crate::model::{Key, Service, ServicePort};
use crate::tables::Tables;
use crate::testing::{pod, policy, vip};

mod churn;

const NODE: &str = "192.168.77.11";

fn service() -> Service {
    let port = ServicePort { name: "".into(), proto: Proto::Udp, port: 53, node_port: Some(30053) };
    Service {
        cluster_ips: vec![vip(Family::V4, 1)],
        ports: vec![port],
        external_local: false,
        internal_local: false,
        ..Service::default()
    }
}

fn slice(pods: &[u8]) -> crate::model::Slice {
    let endpoint = |n: &u8| crate::testing::endpoint(pod(Family::V4, *n));
    crate::model::Slice {
        service: key(),
        family: Family::V4,
        ports: [crate::model::SlicePort { name: "".into(), proto: Proto::Udp, port: 53 }].into(),
        endpoints: pods.iter().map(endpoint).collect(),
    }
}

fn key() -> Key {
    Key::new("ns", "dns")
}

fn flow(dst: &str, to: &str) -> Flow {
    Flow {
        proto: Proto::Udp,
        src: "10.244.0.9:999".parse().unwrap(),
        dst: dst.parse().unwrap(),
        reply_src: to.parse().unwrap(),
        zone: None,
        id: None,
    }
}

/// Which of the flows are stale after a change from one state to another.
fn after(before: Option<&[u8]>, now: Option<&[u8]>, flows: &[Flow]) -> Vec<bool> {
    let mut tables = Tables::default();
    let mut touched = Touched::new();
    let mut set = |tables: &mut Tables, pods: Option<&[u8]>| {
        tables.set_service(key(), pods.map(|_| service()), &mut touched);
        tables.set_slice(key(), pods.map(slice), &mut touched);
    };
    set(&mut tables, before);
    let mut rules = compile(&tables, &policy());
    let mut installed = Installed::default();
    installed.apply(full(&rules));
    set(&mut tables, now);
    let touched = [key()].into();
    update(&mut rules, &tables, &touched, &BTreeSet::new());
    let gone = Gone::of(&installed, &rules, &tables, &touched, None).unwrap_or_default();
    flows.iter().map(|f| stale(f, &rules, &tables, &BTreeSet::new(), &gone)).collect()
}

#[test]
fn flows_to_what_is_gone_are_stale_and_no_others() {
    let node_port = format!("{NODE}:30053");
    let flows = [
        flow("10.96.0.1:53", "10.244.0.1:53"),
        flow("10.96.0.1:53", "10.244.0.2:53"),
        flow(&node_port, "10.244.0.1:53"),
        flow(&node_port, "10.244.0.2:53"),
        // Somebody else's: untranslated at another port, and a node port number on a host far away.
        flow("10.96.0.1:54", "10.96.0.1:54"),
        flow("203.0.113.1:30053", "203.0.113.1:30053"),
    ];
    let after = |before, now| after(before, now, &flows);
    assert_eq!(after(Some(&[1, 2]), Some(&[2])), [true, false, true, false, false, false]);
    assert_eq!(after(Some(&[1, 2]), Some(&[])), [true, true, true, true, false, false]);
    assert_eq!(after(Some(&[1, 2]), None), [true, true, true, true, false, false]);
    assert_eq!(after(Some(&[1]), Some(&[1, 2])), [false; 6]);
}

#[test]
fn a_port_that_a_cluster_ip_has_no_more_ends_its_flows_also_after_a_restart() {
    let mut tables = Tables::default();
    tables.set_service(key(), Some(service()), &mut Touched::new());
    let judged = |tables: &Tables, f: &Flow| {
        stale(f, &compile(tables, &policy()), tables, &[NODE.parse().unwrap()].into(), &Gone::default())
    };
    // Only a service translates what goes to its address.
    let (old, served) = (flow("10.96.0.1:54", "10.244.0.1:54"), flow("10.96.0.1:53", "10.244.0.1:53"));
    let node_port = flow(&format!("{NODE}:30053"), "10.244.0.1:53");
    assert!(judged(&tables, &old) && judged(&tables, &served) && judged(&tables, &node_port));
    tables.set_slice(key(), Some(slice(&[1])), &mut Touched::new());
    assert!(judged(&tables, &old) && !judged(&tables, &served) && !judged(&tables, &node_port));
}

#[test]
fn what_a_table_led_to_before_a_restart_is_gone_unless_it_still_does() {
    let mut tables = Tables::default();
    tables.set_service(key(), Some(service()), &mut Touched::new());
    tables.set_slice(key(), Some(slice(&[1])), &mut Touched::new());
    let rules = compile(&tables, &policy());
    let slot = |address: &str, n: u8| {
        let front = Front::ClusterIp { ip: address.parse().unwrap(), proto: Proto::Udp, port: 53 };
        Held::Element(Element::Slot { front, slot: 0, backend: Backend { ip: pod(Family::V4, n), port: 53 } })
    };
    let mut gone = Gone::default();
    // The second service was deleted while nobody looked.
    for held in [slot("10.96.0.1", 1), slot("10.96.0.9", 1)] {
        gone.held(&held, &rules);
    }
    let judged = |f: &str| stale(&flow(f, "10.244.0.1:53"), &rules, &tables, &BTreeSet::new(), &gone);
    assert!(!judged("10.96.0.1:53") && judged("10.96.0.9:53") && !judged("10.96.0.8:53"));
}

#[test]
fn an_endpoint_that_serves_keeps_its_flows() {
    let mut tables = Tables::default();
    tables.set_service(key(), Some(service()), &mut Touched::new());
    tables.set_slice(key(), Some(slice(&[1, 2])), &mut Touched::new());
    let mut rules = compile(&tables, &policy());
    let mut installed = Installed::default();
    installed.apply(full(&rules));
    // The first one terminates and leaves the frontends, as the second one is ready.
    let mut leaving = slice(&[1, 2]);
    (leaving.endpoints[0].ready, leaving.endpoints[0].terminating) = (false, true);
    let (mut kept, touched) = (Kept::default(), Touched::from([key()]));
    let mut judge = |change: &dyn Fn(&mut Tables)| {
        change(&mut tables);
        update(&mut rules, &tables, &touched, &BTreeSet::new());
        let mut gone = None;
        kept.update(touched.iter(), Some(&installed), &rules, &tables, &mut gone);
        let tx = crate::diff::diff(&installed, &rules);
        let gone = Gone::of(&installed, &rules, &tables, &touched, gone);
        installed.apply(tx);
        let flows = [flow("10.96.0.1:53", "10.244.0.1:53"), flow(&format!("{NODE}:30053"), "10.244.0.1:53")];
        gone.map(|gone| flows.map(|f| stale(&f, &rules, &tables, &BTreeSet::new(), &gone)))
    };
    let set = |slice: &crate::model::Slice| {
        let slice = slice.clone();
        move |tables: &mut Tables| tables.set_slice(key(), Some(slice.clone()), &mut Touched::new())
    };
    // Nothing to look for while it serves.
    assert_eq!(judge(&set(&leaving)), None);
    assert_eq!(judge(&set(&leaving)), None);
    // It goes: no frontend changes, but its flows end.
    let mut dead = leaving.clone();
    dead.endpoints[0].serving = false;
    assert_eq!(judge(&set(&dead)), Some([true, true]));
    assert_eq!(judge(&set(&dead)), None);
    // The same with the whole service.
    assert_eq!(judge(&set(&slice(&[1, 2]))), None);
    assert_eq!(judge(&set(&leaving)), None);
    assert_eq!(judge(&|tables: &mut Tables| tables.set_service(key(), None, &mut Touched::new())), Some([true, true]));
}

#[test]
fn an_untranslated_flow_is_stale_once_there_is_an_endpoint() {
    let flows = [flow("10.96.0.1:53", "10.96.0.1:53"), flow(&format!("{NODE}:30053"), &format!("{NODE}:30053"))];
    assert_eq!(after(Some(&[]), Some(&[1]), &flows), [true, true]);
    assert_eq!(after(None, Some(&[1]), &flows), [true, true]);
    assert_eq!(after(None, Some(&[]), &flows), [false, false]);
}

#[test]
fn after_a_restart_node_port_flows_are_judged_by_what_is() {
    let mut tables = Tables::default();
    let mut touched = Touched::new();
    tables.set_service(key(), Some(service()), &mut touched);
    tables.set_slice(key(), Some(slice(&[1])), &mut touched);
    let rules = compile(&tables, &policy());
    let judged = |f: &Flow| stale(f, &rules, &tables, &[NODE.parse().unwrap()].into(), &Gone::default());
    let node_port = format!("{NODE}:30053");
    assert!(judged(&flow(&node_port, "10.244.0.2:53")));
    assert!(!judged(&flow(&node_port, "10.244.0.1:53")));
    // Not translated, so somebody here answers it; and another host's port.
    assert!(!judged(&flow(&node_port, &node_port)));
    assert!(!judged(&flow("203.0.113.1:30053", "10.244.0.2:53")));
    // SCTP flows stay with gone endpoints just as datagrams do.
    assert!(Proto::Sctp.connectionless());
}
