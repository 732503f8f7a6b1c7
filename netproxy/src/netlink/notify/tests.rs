use super::*;
use crate::netlink::attr::Writer;

fn message(kind: u16, table: &str) -> bool {
    let mut w = Writer::default();
    let open = w.message(kind, 0, 0, 2, 0);
    w.text(1, table);
    w.end_message(open);
    messages(&w.bytes).all(|m| about_us(m.kind, m.body))
}

#[test]
fn only_our_tables_count() {
    const DELETED_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
    assert!(message(DELETED_ELEMENT, "ferrolet"));
    assert!(!message(DELETED_ELEMENT, "ferrolets"));
    assert!(!message(DELETED_ELEMENT, "kube-proxy"));
    assert!(!message(SUBSYSTEM << 8 | NEWGEN, "ferrolet"));
}
