//! What a pod's resolv.conf says, by its `dnsPolicy` and `dnsConfig`. Pure; the host's file is handed in as text.

use ferrolet_cri::types::DnsConfig;
use k8s_openapi::api::core::v1 as api;
use std::net::IpAddr;

/// Limits that resolvers have and the API therefore keeps.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;
const DOMAIN_MAX: usize = 253;

/// Why the host's own file says nothing to build on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostFileError {
    #[error("Encountered error while parsing resolv conf file. Error: nameserver list is empty ")]
    NoServer,
}

/// The reason of an event about the pod, and its message.
pub type Warning = (&'static str, String);

/// The configuration, and a warning for each limit that cut something off. `host_file`: what it says; `None` where there is to be
/// none, which leaves a pod that uses the host's without DNS.
pub fn config(
    pod: &api::Pod,
    host_file: Option<&str>,
    cluster_dns: &[IpAddr],
    domain: &str,
    node_ips: &[IpAddr],
) -> Result<(DnsConfig, Vec<Warning>), HostFileError> {
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
    let host = parse(host_file.unwrap_or_default())?;
    let mut warnings = Vec::new();
    let falls_back = policy == "Cluster" && cluster_dns.is_empty();
    if falls_back {
        warnings.push((MISSING, missing_cluster_dns(pod)));
    }
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
    // Resolvers ask loopback when they know no server, where in a pod there is none either.
    if (policy == "Host" || falls_back) && host_file.is_none() {
        dns.servers.extend(node_ips.iter().map(|ip| if ip.is_ipv6() { "::1" } else { "127.0.0.1" }.to_owned()));
        if dns.servers.is_empty() {
            dns.servers.push("127.0.0.1".to_owned());
        }
        dns.searches = vec![".".to_owned()];
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
    warnings.extend(fit(&mut dns).into_iter().map(|text| ("DNSConfigForming", text)));
    Ok((dns, warnings))
}

/// The reason of the warning that there is no DNS of the cluster: said of the Node too.
pub const MISSING: &str = "MissingClusterDNS";
pub const FALLS_BACK: &str = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. \
                              Falling back to \"Default\" policy.";

fn missing_cluster_dns(pod: &api::Pod) -> String {
    format!("pod: {:?}. {FALLS_BACK}", crate::pod::desired::id_of(pod).to_string())
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

fn parse(text: &str) -> Result<DnsConfig, HostFileError> {
    let mut dns = DnsConfig::default();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.push(words.next().ok_or(HostFileError::NoServer)?.to_owned()),
            // The last search line counts.
            Some("search") => {
                dns.searches = words.filter(|w| *w != ".").map(|w| w.strip_suffix('.').unwrap_or(w).to_owned()).collect();
            }
            Some("options") => words.for_each(|w| set_option(&mut dns.options, w)),
            _ => {}
        }
    }
    Ok(dns)
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
mod tests;
