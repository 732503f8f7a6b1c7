use super::*;

#[test]
fn one_range_or_one_of_each_family() {
    let families = |text: &str| -> Vec<Family> { text.parse::<Ranges>().unwrap().iter().map(|n| Family::of(n.addr())).collect() };
    assert_eq!(families("10.96.0.0/16"), [Family::V4]);
    assert_eq!(families("fd00:10:96::/112"), [Family::V6]);
    assert_eq!(families("10.96.0.0/16, fd00:10:96::/112"), [Family::V4, Family::V6]);
    assert_eq!(families("fd00:10:96::/112,10.96.0.0/16"), [Family::V6, Family::V4]);
    assert_eq!("10.96.0.9/16,fd00::1/112".parse::<Ranges>().unwrap().to_string(), "10.96.0.0/16,fd00::/112");
    let refused = |text: &str| text.parse::<Ranges>().unwrap_err().to_string();
    assert_eq!(refused("10.0.0.0/8,10.96.0.0/16"), "10.0.0.0/8 and 10.96.0.0/16 are of one family: give one range of each");
    assert!(refused("10.0.0.0/8,").contains("\"\" is not an address range"));
    assert!(refused("10.0.0.0").contains("\"10.0.0.0\" is not an address range"));
    assert!(refused("10.0.0.0/8,fd00::/64,10.1.0.0/16").contains("more than two"));
}
