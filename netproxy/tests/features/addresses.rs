//! Addresses that are wrong, or written in old ways, or claimed twice.

use super::*;

#[test]
fn a_bad_address_does_not_take_the_others_with_it() {
    let s = service(
        "web",
        &["10.96.0.1", "nonsense"],
        json!({"externalIPs": ["", "203.0.113.1", "x"], "ingress": [{"ip": "y"}, {"ip": "203.0.113.2"}]}),
    );
    let c = cluster(&[s, slice("a", "web", &["10.244.1.1"])]);
    assert_eq!(
        c.faults,
        [
            "service ns/web: field spec.clusterIPs[1]: \"nonsense\" is not an IP address",
            "service ns/web: field spec.externalIPs[2]: \"x\" is not an IP address",
            "service ns/web: field status.loadBalancer.ingress[0].ip: \"y\" is not an IP address",
        ]
    );
    c.check(&[
        ("pod", "10.96.0.1:80", "10.244.1.1:8080"),
        ("outside", "203.0.113.1:80", "10.244.1.1:8080 masqueraded"),
        ("outside", "203.0.113.2:80", "10.244.1.1:8080 masqueraded"),
    ]);
}

#[test]
fn leading_zeros_never_meant_octal() {
    let c = cluster(&[service("web", &["010.096.000.010"], json!({})), slice("a", "web", &["10.244.001.001"])]);
    assert_eq!(c.faults, [""; 0]);
    c.check(&[("pod", "10.96.0.10:80", "10.244.1.1:8080")]);
}

#[test]
fn the_first_by_name_has_what_two_claim() {
    let exposed = |ip: &str| service(if ip == "10.96.0.1" { "a" } else { "b" }, &[ip], json!({"externalIPs": ["203.0.113.1"]}));
    let slices = [slice("a", "a", &["10.244.1.1"]), slice("b", "b", &["10.244.1.2"])];
    let mut c = cluster(&[exposed("10.96.0.2"), exposed("10.96.0.1"), slices[0].clone(), slices[1].clone()]);
    c.check(&[
        ("outside", "203.0.113.1:80", "10.244.1.1:8080 masqueraded"),
        ("pod", "10.96.0.1:80", "10.244.1.1:8080"),
        ("pod", "10.96.0.2:80", "10.244.1.2:8080"),
    ]);
    c.apply(&service("a", &["10.96.0.1"], json!({})));
    c.check(&[("outside", "203.0.113.1:80", "10.244.1.2:8080 masqueraded")]);
}
