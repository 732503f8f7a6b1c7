//! A pod's own name and its /etc/hosts. Pure.

use k8s_openapi::api::core::v1 as api;
use std::fmt::Write;

const HOSTNAME_MAX: usize = 63;
/// The kernel's limit for the whole name.
const FQDN_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub host: String,
    /// Empty unless the pod is in a subdomain.
    pub domain: String,
    /// What `uname` says in the pod.
    pub kernel: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {0} is too long (64 characters is the max, {len} characters requested)",
    len = .0.len()
)]
pub struct TooLong(String);

pub fn name(pod: &api::Pod, cluster_domain: &str) -> Result<Name, TooLong> {
    let empty = api::PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    if let Some(given) = &spec.hostname_override {
        let host = shorten(given);
        return Ok(Name { kernel: host.clone(), host, domain: String::new() });
    }
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    let host = shorten(spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(own));
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = match spec.subdomain.as_deref() {
        Some(sub) if !sub.is_empty() => format!("{sub}.{namespace}.svc.{cluster_domain}"),
        _ => String::new(),
    };
    let mut kernel = host.clone();
    if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        kernel = format!("{host}.{domain}");
        if kernel.len() > FQDN_MAX {
            return Err(TooLong(kernel));
        }
    }
    Ok(Name { host, domain, kernel })
}

fn shorten(host: &str) -> String {
    if host.len() <= HOSTNAME_MAX {
        return host.to_owned();
    }
    host.chars().take(HOSTNAME_MAX).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// `host_file`: the node's own file, for a pod on the host's network.
pub fn file(pod: &api::Pod, name: &Name, ips: &[String], host_file: Option<&str>) -> String {
    let mut out = String::new();
    match host_file {
        Some(text) => {
            out.push_str("# Kubernetes-managed hosts file (host network).\n");
            out.push_str(text);
        }
        None => {
            out.push_str("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
            out.push_str("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
            for ip in ips {
                let _ = match name.domain.as_str() {
                    "" => writeln!(out, "{ip}\t{}", name.host),
                    domain => writeln!(out, "{ip}\t{0}.{domain}\t{0}", name.host),
                };
            }
        }
    }
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_ref());
    for (i, alias) in aliases.into_iter().flatten().enumerate() {
        if i == 0 {
            out.push_str("\n# Entries added by HostAliases.\n");
        }
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(out, "{}\t{names}", alias.ip);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> api::Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names() {
        let n = |spec| name(&pod(spec), "cluster.local");
        let plain = n(json!({"containers": []})).unwrap();
        assert_eq!((plain.host.as_str(), plain.domain.as_str(), plain.kernel.as_str()), ("web-0", "", "web-0"));
        let sub = n(json!({"containers": [], "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true})).unwrap();
        assert_eq!((sub.domain.as_str(), sub.kernel.as_str()), ("s.ns.svc.cluster.local", "h.s.ns.svc.cluster.local"));
        let long = "x".repeat(60);
        assert!(n(json!({"containers": [], "hostname": long, "subdomain": "s", "setHostnameAsFQDN": true})).is_err());
    }

    #[test]
    fn hosts_file() {
        let p = pod(json!({"containers": [], "subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let n = name(&p, "c.l").unwrap();
        let text = file(&p, &n, &["10.0.0.1".into()], None);
        assert!(text.contains("\n10.0.0.1\tweb-0.s.ns.svc.c.l\tweb-0\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        assert!(file(&p, &n, &[], Some("127.0.0.1 me\n")).contains("host network"));
    }
}
