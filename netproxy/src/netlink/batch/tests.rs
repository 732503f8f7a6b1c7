use super::*;
use crate::diff::full;
use crate::model::Proto;
use crate::netlink::attr::messages;
use crate::ruleset::{Backend, Ruleset};
use std::net::IpAddr;

fn many(n: u32) -> Transaction {
    let front = Front::ClusterIp { ip: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]), proto: Proto::Tcp, port: 80 };
    let backend = Backend { ip: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]), port: 80 };
    let mut tx = Transaction::default();
    tx.add = (0..n).map(|slot| Element::Slot { front, slot, backend }).collect();
    tx
}

#[test]
fn long_lists_are_split_and_only_the_last_message_asks_for_an_answer() {
    let sealed = encode(&many(5000), &Rules::new()).seal(true);
    let all: Vec<_> = messages(&sealed.bytes).collect();
    assert!(all.len() > 5, "{}", all.len());
    let asking: Vec<_> = all.iter().filter(|m| m.flags & ACK != 0).map(|m| m.seq).collect();
    assert_eq!(asking, [sealed.last_seq()]);
    assert!(all.iter().all(|m| m.body.len() < 65_536 + 64));
    assert_eq!((all[0].kind, all[all.len() - 1].kind), (BATCH_BEGIN, BATCH_END));
    assert!(
        sealed.what(2).starts_with("elements ") && sealed.what(2).ends_with("of set service-slots of table ip6 ferrolet"),
        "{}",
        sealed.what(2)
    );
}

#[test]
fn a_trial_has_no_end() {
    let sealed = encode(&many(1), &Rules::new()).seal(false);
    assert!(messages(&sealed.bytes).all(|m| m.kind != BATCH_END));
}

#[test]
fn the_same_transaction_gives_the_same_bytes() {
    let mut tx = many(10);
    tx.base = full(&Ruleset::default()).base;
    assert_eq!(encode(&tx, &Rules::new()).seal(true).bytes, encode(&tx, &Rules::new()).seal(true).bytes);
}
