use super::*;
use crate::compile::update;
use crate::diff::{Transaction, full};
use crate::netlink::attr::messages;
use crate::netlink::batch::encode;
use crate::netlink::{NEWSETELEM, batch};
use crate::ruleset::Ruleset;
use crate::tables::{Tables, Touched};
use crate::testing::{apply, changes, policy};
use proptest::prelude::*;

/// What a batch adds, read as if the kernel had listed it.
fn read(tx: &Transaction) -> Vec<Held> {
    let sealed: batch::Sealed = encode(tx, &Rules::new()).seal(true);
    let mut all = Vec::new();
    for m in messages(&sealed.bytes).filter(|m| m.kind == NFTABLES << 8 | NEWSETELEM) {
        let family = if m.body[0] == family_number(Family::V4) { Family::V4 } else { Family::V6 };
        let name = find(&m.body[4..], 2).unwrap();
        let (set, keyed) = layout::keyed().into_iter().find(|(set, _)| Some(set.as_bytes()) == name.strip_suffix(&[0])).unwrap();
        all.extend(listed(&m).filter_map(|e| held(family, set, keyed, e)));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(steps in changes(12)) {
        let (mut tables, mut rules, mut touched) = (Tables::default(), Ruleset::new(policy()), Touched::new());
        steps.iter().for_each(|c| apply(&mut tables, c, &mut touched));
        update(&mut rules, &tables, &touched, &BTreeSet::new());
        let tx = full(&rules);
        let key = |h: &Held| format!("{h:?}");
        let mut wanted: Vec<Held> = tx.picks.iter().copied().map(Held::Pick).chain(tx.add.iter().copied().map(Held::Element)).collect();
        wanted.sort_by_key(key);
        let mut got = read(&tx);
        got.sort_by_key(key);
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn anything_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for (set, keyed) in layout::keyed() {
            for family in Family::ALL {
                held(family, set, keyed, &bytes);
                known(family, keyed, &bytes, Some(&bytes), &bytes);
            }
        }
    }
}

#[test]
fn only_ranges_of_prefixes_are_ours() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(range(ip("10.0.0.0"), ip("10.0.255.255")), Some("10.0.0.0/16".parse().unwrap()));
    assert_eq!(range(ip("10.0.0.1"), ip("10.0.0.1")), Some("10.0.0.1/32".parse().unwrap()));
    assert_eq!(range(ip("10.0.0.1"), ip("10.0.0.2")), None);
    assert_eq!(range(ip("0.0.0.0"), ip("255.255.255.255")), Some("0.0.0.0/0".parse().unwrap()));
    assert_eq!(range(ip("10.0.0.255"), ip("10.0.0.0")), None);
}
