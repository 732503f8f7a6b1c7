use super::*;
use serde_json::json;

fn dns(spec: serde_json::Value) -> (DnsConfig, Vec<Warning>) {
    let pod: api::Pod = serde_json::from_value(json!({"metadata": {"namespace": "ns"}, "spec": spec})).unwrap();
    let file = "# c\nnameserver 192.0.2.1\nsearch old\nsearch lan. corp\noptions ndots:1 rotate\n";
    config(&pod, Some(file), &["10.96.0.10".parse().unwrap()], "cluster.local", &[]).unwrap()
}

#[test]
fn policies() {
    let (d, _) = dns(json!({"containers": []}));
    assert_eq!(d.servers, ["10.96.0.10"]);
    assert_eq!(d.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan", "corp"]);
    assert_eq!(d.options, ["ndots:5"]);
    let (d, _) = dns(json!({"containers": [], "hostNetwork": true}));
    assert_eq!((d.servers, d.options), (vec!["192.0.2.1".to_owned()], vec!["ndots:1".to_owned(), "rotate".to_owned()]));
    let (d, _) = dns(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}));
    assert_eq!(d.servers, ["10.96.0.10"]);
    let (d, _) = dns(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
        "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}));
    assert_eq!(
        (d.servers, d.searches, d.options),
        (vec!["1.1.1.1".into()], vec!["x".into()], vec!["ndots:2".into(), "edns0".into()])
    );
}

#[test]
fn limits_are_kept_and_told() {
    let many: Vec<String> = (0..40).map(|i| format!("d{i}.example")).collect();
    let (d, warnings) =
        dns(json!({"containers": [], "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3"], "searches": many}}));
    assert_eq!((d.servers.len(), d.searches.len(), warnings.len()), (3, 32, 2));
}

fn of(
    spec: serde_json::Value,
    file: Option<&str>,
    servers: &[&str],
    node: &[&str],
) -> Result<(DnsConfig, Vec<Warning>), HostFileError> {
    let meta = json!({"name": "p", "namespace": "ns", "uid": "u"});
    let pod: api::Pod = serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap();
    let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
    config(&pod, file, &ips(servers), "cluster.local", &ips(node))
}

#[test]
fn the_hosts_file_as_it_is() {
    let host = json!({"containers": [], "dnsPolicy": "Default"});
    let (d, warnings) = of(host.clone(), Some("search lan.. x.\n; nameserver no\n"), &[], &["192.0.2.1"]).unwrap();
    assert_eq!((d.servers.len(), d.searches, warnings.len()), (0, vec!["lan.".to_owned(), "x".into()], 0), "no server is none");
    let (d, _) = of(host.clone(), None, &[], &["192.0.2.1", "2001:db8::1"]).unwrap();
    assert_eq!((d.servers, d.searches), (vec!["127.0.0.1".to_owned(), "::1".into()], vec![".".to_owned()]));
    assert_eq!(of(host.clone(), None, &[], &[]).unwrap().0.servers, ["127.0.0.1"]);
    let error = of(host, Some("nameserver\n"), &[], &[]).unwrap_err().to_string();
    assert_eq!(error, "Encountered error while parsing resolv conf file. Error: nameserver list is empty ");
}

#[test]
fn without_a_cluster_dns_the_hosts_counts_and_the_user_is_told() {
    let (d, warnings) = of(json!({"containers": []}), Some("nameserver 192.0.2.1\n"), &[], &[]).unwrap();
    assert_eq!(d.servers, ["192.0.2.1"]);
    assert_eq!(
        warnings,
        [(
            "MissingClusterDNS",
            "pod: \"p_ns(u)\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. \
             Falling back to \"Default\" policy."
                .to_owned()
        )]
    );
    let none = of(json!({"containers": [], "dnsPolicy": "None"}), Some("nameserver 192.0.2.1\n"), &[], &[]).unwrap();
    assert!(none.0.servers.is_empty() && none.1.is_empty());
}

#[test]
fn search_lines_at_their_limits() {
    let long = |n: usize| "a".repeat(n);
    let searches = |all: Vec<String>| {
        let spec = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"searches": all}});
        let (d, warnings) = of(spec, Some(""), &[], &[]).unwrap();
        (d.searches.len(), d.searches.join(" ").len(), warnings.len())
    };
    assert_eq!(searches(vec![long(253), long(254)]), (1, 253, 1), "one that no resolver takes");
    let eight: Vec<String> = (0..8).map(|i| format!("{i}{}", long(251))).collect();
    assert_eq!(searches(eight.iter().cloned().chain([long(24)]).collect()), (9, 2048, 0));
    assert_eq!(searches(eight.into_iter().chain([long(25)]).collect()), (8, 2023, 1));
}
