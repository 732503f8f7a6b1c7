use super::*;
use crate::model::{Proto, SlicePort};
use crate::tables::Touched;
use crate::testing::pod;

fn endpoint(n: u8, ready: bool, serving: bool, terminating: bool, local: bool) -> Endpoint {
    Endpoint { ip: pod(Family::V4, n), ready, serving, terminating, local }
}

fn chosen(endpoints: &[Endpoint]) -> (Vec<u8>, Vec<u8>) {
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
    let s = select(&tables, &key, &port, Family::V4);
    assert_eq!(select(&tables, &key, &port, Family::V6), Selection::default());
    let last = |all: Vec<Backend>| all.iter().map(|b| b.ip.to_string().rsplit('.').next().unwrap().parse().unwrap()).collect();
    (last(s.cluster), last(s.local))
}

#[test]
fn ready_ones_or_else_those_that_still_serve() {
    let ready = endpoint(1, true, true, false, false);
    let leaving = endpoint(2, false, true, true, true);
    let starting = endpoint(3, false, false, false, true);
    let dead = endpoint(4, false, false, true, true);
    assert_eq!(chosen(&[leaving, ready, starting, dead]), (vec![1], vec![2]));
    assert_eq!(chosen(&[leaving, starting, dead]), (vec![2], vec![2]));
    assert_eq!(chosen(&[starting, dead]), (vec![], vec![]));
}
