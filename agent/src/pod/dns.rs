//! What a pod's resolv.conf says, by its `dnsPolicy` and `dnsConfig`. Pure; the host's file is handed in as text.

use ferrolet_cri::types::DnsConfig;
use k8s_openapi::api::core::v1 as api;
use std::net::IpAddr;

/// Limits that resolvers have and the API therefore keeps.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;
const DOMAIN_MAX: usize = 253;

/// The configuration, and a warning for each limit that cut something off.
pub fn config(
    pod: &api::Pod,
    host_file: &str,
    cluster_dns: &[IpAddr],
    domain: &str,
    node_ips: &[IpAddr],
) -> (DnsConfig, Vec<String>) {
    let empty = api::PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let host_network = spec.host_network == Some(true);
    let policy = match spec.dns_policy.as_deref() {
        Some("None") => "None",
        Some("ClusterFirstWithHostNet") => "Cluster",
        Some("Default") => "Host",
        _ if host_network => "Host",
        _ => "Cluster",
    };
    let host = parse(host_file);
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        "Cluster" if !cluster_dns.is_empty() => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let cluster = match domain {
                "" => Vec::new(),
                d => vec![format!("{namespace}.svc.{d}"), format!("svc.{d}"), d.to_owned()],
            };
            DnsConfig {
                servers: cluster_dns.iter().map(ToString::to_string).collect(),
                searches: unique(cluster.into_iter().chain(host.searches)),
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => host,
    };
    // No server at all would make resolvers ask the pod itself.
    if policy == "Host" && dns.servers.is_empty() {
        let v6 = node_ips.first().is_some_and(IpAddr::is_ipv6);
        dns.servers.push(if v6 { "::1" } else { "127.0.0.1" }.to_owned());
    }
    if let Some(more) = &spec.dns_config {
        dns.servers = unique(dns.servers.into_iter().chain(more.nameservers.iter().flatten().cloned()));
        dns.searches = unique(dns.searches.into_iter().chain(more.searches.iter().flatten().cloned()));
        for option in more.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let text = match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            };
            set_option(&mut dns.options, &text);
        }
    }
    let warnings = fit(&mut dns);
    (dns, warnings)
}

fn unique(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for item in all {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// An option of the same name is replaced.
fn set_option(options: &mut Vec<String>, text: &str) {
    let name = |o: &str| o.split(':').next().unwrap_or_default().to_owned();
    match options.iter_mut().find(|o| name(o) == name(text)) {
        Some(old) => *old = text.to_owned(),
        None => options.push(text.to_owned()),
    }
}

fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            // The last search line counts.
            Some("search") => {
                dns.searches = words.filter(|w| *w != ".").map(|w| w.trim_end_matches('.').to_owned()).collect();
            }
            Some("options") => words.for_each(|w| set_option(&mut dns.options, w)),
            _ => {}
        }
    }
    dns
}

fn fit(dns: &mut DnsConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    if dns.servers.len() > SERVERS_MAX {
        dns.servers.truncate(SERVERS_MAX);
        let line = dns.servers.join(" ");
        warnings.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"
        ));
    }
    let before = dns.searches.len();
    dns.searches.truncate(SEARCHES_MAX);
    dns.searches.retain(|s| s.len() <= DOMAIN_MAX);
    while dns.searches.join(" ").len() > SEARCH_CHARS_MAX {
        dns.searches.pop();
    }
    if dns.searches.len() < before {
        let line = dns.searches.join(" ");
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dns(spec: serde_json::Value) -> (DnsConfig, Vec<String>) {
        let pod: api::Pod = serde_json::from_value(json!({"metadata": {"namespace": "ns"}, "spec": spec})).unwrap();
        let file = "# c\nnameserver 192.0.2.1\nsearch old\nsearch lan. corp\noptions ndots:1 rotate\n";
        config(&pod, file, &["10.96.0.10".parse().unwrap()], "cluster.local", &[])
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
}
