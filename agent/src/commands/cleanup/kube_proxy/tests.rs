use super::*;

#[test]
fn sets_of_kube_proxy_by_name() {
    for name in ["KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP", "KUBE-LOAD-BALANCER-SOURCE-CIDR", "KUBE-6-LOAD-BALANCER-SOURCE-CID"] {
        assert!(is_set(name), "{name}");
    }
    for name in ["", "KUBE-", "KUBE-6-", "KUBE-MINE", "CLUSTER-IP", "KUBE-6-CLUSTER", "KUBE-CLUSTER-IPS"] {
        assert!(!is_set(name), "{name}");
    }
}

#[test]
fn virtual_servers_of_others_are_told_apart() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let saved = "-A -t 10.96.0.1:443 -s rr\n-a -t 10.96.0.1:443 -r 10.0.0.1:6443 -m -w 1\n-A -u [fd00::a]:53 -s rr\n\
        -A -t 192.0.2.1:30080 -s rr\n-A -t 192.0.2.1:80 -s wlc\n-A -f 5 -s rr\n";
    let (ours, others) = servers(saved, &[ip("10.96.0.1"), ip("fd00::a")].into(), &[ip("192.0.2.1")].into());
    let shown = |all: Vec<Server>| all.into_iter().map(|(kind, at)| format!("{kind} {at}")).collect::<Vec<_>>();
    assert_eq!(shown(ours), ["-t 10.96.0.1:443", "-u [fd00::a]:53", "-t 192.0.2.1:30080"]);
    assert_eq!(shown(others), ["-t 192.0.2.1:80", "-f 5"]);
}
