use super::*;
use crate::model::Family;
use crate::testing::endpoint;

fn slice(service: &str, endpoints: u8) -> Slice {
    let endpoints = (1..=endpoints).map(|n| endpoint([10, 0, 0, n].into())).collect();
    Slice { service: Key::new("a", service), family: Family::V4, ports: [].into(), endpoints }
}

#[test]
fn endpoints_are_counted() {
    let key = |n| Key::new("a", n);
    let mut tables = Tables::default();
    let mut touched = Touched::new();
    tables.set_slice(key("1"), Some(slice("s", 3)), &mut touched);
    tables.set_slice(key("2"), Some(slice("s", 2)), &mut touched);
    assert_eq!(tables.endpoint_count(), 5);
    // Told twice, grown, moved to another service.
    tables.set_slice(key("1"), Some(slice("s", 3)), &mut touched);
    tables.set_slice(key("1"), Some(slice("s", 4)), &mut touched);
    tables.set_slice(key("2"), Some(slice("t", 2)), &mut touched);
    assert_eq!(tables.endpoint_count(), 6);
    tables.replace_slices([(key("3"), slice("t", 7))].into(), &mut touched);
    assert_eq!(tables.endpoint_count(), 7);
    tables.set_slice(key("3"), None, &mut touched);
    tables.set_slice(key("3"), None, &mut touched);
    assert_eq!(tables.endpoint_count(), 0);
}
