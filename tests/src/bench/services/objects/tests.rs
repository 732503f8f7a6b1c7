use super::*;
use crate::bench::services::plane::{Line, read};
use ferrolet_netproxy::convert;

const SHAPE: Shape = Shape { services: 40, endpoints: 10, udp: true };

#[test]
fn what_is_written_reads_as_rules() {
    let Line::Service(key, Some(service)) = read(service(SHAPE, 10).as_bytes()).unwrap() else { panic!("no service") };
    assert_eq!(key.to_string(), "shop/service-10");
    let mut wrong = Vec::new();
    let service = convert::service(&service, &mut wrong).unwrap();
    assert_eq!(service.cluster_ips, [service_ip(10)]);
    assert_eq!(service.ports.len(), 2);

    let line = slice(SHAPE, "MODIFIED", 11, &endpoints(SHAPE, 11), 7);
    let Line::Slice(_, Some(slice)) = read(line.as_bytes()).unwrap() else { panic!("no slice") };
    let slice = convert::slice(&slice, NODE, &mut wrong).unwrap();
    assert!(wrong.is_empty());
    assert_eq!(slice.service.to_string(), "shop/service-11");
    assert_eq!(slice.endpoints.iter().map(|e| e.ip).collect::<Vec<_>>(), endpoints(SHAPE, 11));
    assert_eq!(slice.ports.len(), 1);
    assert!(matches!(read(end_of("Service").as_bytes()).unwrap(), Line::ListEnd(kind) if kind == "Service"));
}

#[test]
fn addresses_do_not_meet() {
    let last = endpoint_ip(44_000, 15);
    assert!(service_ip(44_000) < endpoint_ip(0, 0) && last < fresh_ip(0));
}

#[test]
fn some_endpoints_are_this_nodes() {
    let here = (0..SHAPE.services).filter(|n| slice(SHAPE, "ADDED", *n, &endpoints(SHAPE, *n), 1).contains("\"node-1\"")).count();
    assert!(here > 0 && here < SHAPE.services as usize * 10);
}
