use super::*;
use proptest::prelude::*;
use serde_json::json;

fn block(der: &[u8]) -> String {
    String::from_utf8(pem(&[der.to_vec()])).unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn only_certificates_once_and_nothing_between() {
    let (a, b) = (block(b"one"), block(&[7; 100]));
    let odd = format!(
        "# words\n{a}# more\r\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{}-----BEGIN CERTIFICATE-----\nhalf\n{b}-----BEGIN CERTIFICATE-----",
        a.replace("-----\nb25l", "-----\r\nName: value\r\n\r\nb2\n 5l")
    );
    assert_eq!(text(cleaned(&odd)), format!("{a}{a}{b}"));
    let all = text(merged([odd.as_str(), b.as_str()], b"seed"));
    assert!(all == format!("{a}{b}") || all == format!("{b}{a}"), "{all}");
    assert!(merged(["", "no certificate"], b"seed").is_empty());
    assert_eq!(b.lines().map(str::len).max(), Some(64));
}

#[test]
fn selectors() {
    let of = |value: serde_json::Value| {
        let parsed: LabelSelector = serde_json::from_value(value).unwrap();
        selector(Some(&parsed))
    };
    assert_eq!(selector(None), Ok(None), "nothing");
    assert_eq!(of(json!({})), Ok(Some(String::new())), "everything");
    let all = json!({"matchLabels": {"b": "2", "example.com/a": "1"}, "matchExpressions": [
        {"key": "c", "operator": "In", "values": ["x", "y"]}, {"key": "d", "operator": "NotIn", "values": ["z"]},
        {"key": "e", "operator": "Exists"}, {"key": "f", "operator": "DoesNotExist"}]});
    assert_eq!(of(all), Ok(Some("!f,b=2,c in (x,y),d notin (z),e,example.com/a=1".into())));
    assert!(of(json!({"matchLabels": {"a": "b,c=d"}})).is_err());
    assert!(of(json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})).is_err());
    assert!(of(json!({"matchExpressions": [{"key": "a", "operator": "In", "values": vec!["abcdefgh"; 1000]}]})).is_err());
}

proptest! {
    /// The same set whatever the bundles' order and however often it is in them; the order depends on the seed only.
    #[test]
    fn a_set(ders in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 1..12), seed in any::<[u8; 16]>()) {
        let blocks: Vec<String> = ders.iter().map(|der| block(der)).collect();
        let backward: Vec<&str> = blocks.iter().rev().chain(&blocks).map(String::as_str).collect();
        let all = merged(blocks.iter().map(String::as_str), &seed);
        prop_assert_eq!(&all, &merged(backward, &seed));
        let found: BTreeSet<Vec<u8>> = certificates(&text(all.clone())).into_iter().collect();
        prop_assert_eq!(found.len(), text(all.clone()).matches(BEGIN).count());
        prop_assert_eq!(found, ders.into_iter().collect::<BTreeSet<_>>());
        prop_assert_eq!(cleaned(&text(all.clone())), all);
    }

    #[test]
    fn hostile_bundles(text in "(-----(BEGIN|END) (CERTIFICATE|KEY)-----|[A-Za-z0-9+/=: \n]{0,9}|\\PC){0,30}") {
        let once = cleaned(&text);
        prop_assert_eq!(cleaned(&String::from_utf8(once.clone()).unwrap()), once);
    }
}

#[test]
fn another_seed_another_order() {
    let blocks: Vec<String> = (0..20u8).map(|n| block(&[n])).collect();
    let with = |seed: &[u8]| merged(blocks.iter().map(String::as_str), seed);
    assert_ne!(with(b"1"), with(b"2"));
}
