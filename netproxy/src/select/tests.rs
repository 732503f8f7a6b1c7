use super::*;
use crate::model::{Proto, SlicePort};
use crate::tables::Touched;
use crate::testing::pod;

fn endpoint(n: u8, ready: bool, serving: bool, terminating: bool, local: bool) -> Endpoint {
    Endpoint { ready, serving, terminating, local, ..crate::testing::endpoint(pod(Family::V4, n)) }
}

fn chosen(endpoints: &[Endpoint]) -> (Vec<u8>, Vec<u8>) {
    let (cluster, local, _) = selected(endpoints);
    (cluster, local)
}

fn selected(endpoints: &[Endpoint]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let key = Key::new("ns", "web");
    let mut tables = Tables::default();
    // Every endpoint in two slices, as while it moves from one to the other.
    for name in ["one", "two"] {
        let ports = [
            SlicePort { name: "web".into(), proto: Proto::Tcp, port: 80 },
            SlicePort { name: "dns".into(), proto: Proto::Udp, port: 53 },
        ];
        let slice = Slice { service: key.clone(), family: Family::V4, ports: ports.into(), endpoints: endpoints.into() };
        tables.set_slice(Key::new("ns", name), Some(slice), &mut Touched::new());
    }
    let port = ServicePort { name: "web".into(), proto: Proto::Tcp, port: 8080, node_port: None };
    let s = select(&tables, &key, &port, Family::V4, "z1");
    assert_eq!(select(&tables, &key, &port, Family::V6, "z1"), Selection::default());
    let last = |all: Vec<Backend>| all.iter().map(|b| b.ip.to_string().rsplit('.').next().unwrap().parse().unwrap()).collect();
    (last(s.cluster), last(s.local), last(s.unplaced))
}

#[test]
fn an_endpoint_whose_node_is_not_told_may_be_here() {
    let far = endpoint(1, true, true, false, false);
    let anywhere = Endpoint { placed: false, ..endpoint(2, true, true, false, false) };
    assert_eq!(selected(&[far, anywhere]), (vec![1, 2], vec![], vec![2]));
}

#[test]
fn ready_ones_or_else_those_that_still_serve() {
    let ready = endpoint(1, true, true, false, false);
    let leaving = endpoint(2, false, true, true, true);
    let starting = endpoint(3, false, false, false, true);
    let dead = endpoint(4, false, false, true, true);
    assert_eq!(chosen(&[leaving.clone(), ready, starting.clone(), dead.clone()]), (vec![1], vec![2]));
    assert_eq!(chosen(&[leaving, starting.clone(), dead.clone()]), (vec![2], vec![2]));
    assert_eq!(chosen(&[starting, dead]), (vec![], vec![]));
}

fn hinted(n: u8, zones: &[&str], nodes: bool, this_node: bool) -> Endpoint {
    let hints = crate::model::Hints { zones: zones.iter().map(|z| (*z).into()).collect(), nodes, this_node };
    Endpoint { hints: Some(hints.into()), ..endpoint(n, true, true, false, false) }
}

#[test]
fn hints_for_this_node_or_its_zone_are_followed() {
    let near = |endpoints: &[Endpoint]| chosen(endpoints).0;
    let (mine, zone, far) =
        (hinted(1, &["z1"], true, true), hinted(2, &["z1", "z2"], true, false), hinted(3, &["z2"], true, false));
    assert_eq!(near(&[mine.clone(), zone.clone(), far.clone()]), [1]);
    // Nobody for this node: its zone.
    assert_eq!(near(&[zone.clone(), far.clone()]), [2]);
    // One without a hint for a node, but all with a zone.
    assert_eq!(near(&[mine.clone(), zone.clone(), hinted(4, &["z2"], false, false)]), [1, 2]);
    // One without any hint, or nobody for this zone: all.
    assert_eq!(near(&[mine.clone(), far.clone(), endpoint(5, true, true, false, false)]), [1, 3, 5]);
    assert_eq!(near(&[far.clone(), hinted(4, &["z3"], false, false)]), [3, 4]);
    // Those that are not ready say nothing, and the last ones that leave are taken wherever they are.
    let leaving = endpoint(6, false, true, true, false);
    assert_eq!(near(&[mine, leaving.clone()]), [1]);
    assert_eq!(near(&[leaving]), [6]);
    // A local policy does not look at hints.
    assert_eq!(chosen(&[Endpoint { local: true, ..far.clone() }, zone]), (vec![2], vec![3]));
}
