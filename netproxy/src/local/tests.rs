use super::*;

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

#[test]
fn only_what_an_interface_can_be_called_is_taken() {
    for good in ["cni0", "eth0.100", "a", "fifteen-bytes-1", "ä"] {
        assert_eq!(name(good).to_string(), good);
    }
    for bad in ["", ".", "..", "sixteen-bytes-12", "a b", "a/b", "a:b", "a\n", "cali*"] {
        let error = bad.parse::<InterfaceName>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{bad:?} cannot be the name of a network interface: ")), "{error}");
    }
}

#[test]
fn pods_are_told_apart_by_source_or_by_interface() {
    let pod: IpAddr = [10, 244, 0, 5].into();
    let other: IpAddr = [192, 168, 0, 1].into();
    let sources = PodTraffic::Sources(vec!["10.244.0.0/16".parse().unwrap()]);
    assert!(sources.sent(pod, None) && !sources.sent(other, Some("cni0")));
    assert!(sources.known(Family::V4) && !sources.known(Family::V6));
    let bridge = PodTraffic::Interface(name("cni0"));
    assert!(bridge.sent(other, Some("cni0")) && !bridge.sent(pod, Some("cni01")) && !bridge.sent(pod, None));
    let prefix = PodTraffic::InterfacePrefix(name("cali"));
    assert!(prefix.sent(pod, Some("cali123")) && prefix.sent(pod, Some("cali")) && !prefix.sent(pod, Some("cal")));
    assert!(!prefix.sent(pod, None) && prefix.known(Family::V4) && prefix.known(Family::V6));
    assert!(!PodTraffic::default().known(Family::V4) && !PodTraffic::default().sent(pod, Some("cni0")));
}
