//! Certificate requests: which are approved without a human, and which are signed.
//!
//! `decide` is pure and strict: a kubelet gets a certificate for exactly the node it asks in the name of, and a serving
//! certificate only for the addresses the Node has. Everything else waits for `kubectl certificate approve`.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

#[cfg(test)]
mod tests;

const CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODE_USER: &str = "system:node:";
const NODES: &str = "system:nodes";
const YEAR: u64 = 365 * 24 * 3600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Nothing,
    Approve(&'static str),
    Sign {
        usage: Usage,
        valid: Duration,
    },
    /// It was approved, but its signer may not sign such a request.
    Fail(String),
}

/// What a request asks to be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns: BTreeSet<String>,
    pub ips: BTreeSet<String>,
    /// Names of any other kind (mail, URI).
    pub others: usize,
}

/// Reads the PEM of a request.
pub fn subject(pem: &[u8]) -> Result<Subject, String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|e| format!("the request is no PEM: {e}"))?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(format!("the PEM holds a {:?}, no CERTIFICATE REQUEST", pem.label));
    }
    let (_, request) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|e| format!("the request cannot be read: {e}"))?;
    let info = &request.certification_request_info;
    let texts = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut subject = Subject {
        common_name: info.subject.iter_common_name().filter_map(|a| a.as_str().ok()).next().unwrap_or_default().to_owned(),
        organizations: texts(info.subject.iter_organization().filter_map(|a| a.as_str().ok()).collect()),
        ..Subject::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => drop(subject.dns.insert((*name).to_owned())),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(ip) => drop(subject.ips.insert(ip)),
                    None => subject.others += 1,
                },
                _ => subject.others += 1,
            }
        }
    }
    Ok(subject)
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string())
}

/// `addresses` are those of a node by its name; nothing if there is no such node.
pub fn decide(
    csr: &CertificateSigningRequest,
    subject: Result<Subject, String>,
    addresses: impl Fn(&str) -> Option<BTreeSet<String>>,
) -> Decision {
    let status = csr.status.as_ref();
    let has = |kind: &str| status.and_then(|s| s.conditions.as_ref()).is_some_and(|c| c.iter().any(|c| c.type_ == kind));
    if status.is_some_and(|s| s.certificate.is_some()) || has("Denied") || has("Failed") {
        return Decision::Nothing;
    }
    let usage = match csr.spec.signer_name.as_str() {
        CLIENT_KUBELET | CLIENT => Usage::Client,
        SERVING => Usage::Server,
        _ => return Decision::Nothing,
    };
    let judged = subject.and_then(|s| judge(csr, &s, addresses));
    if has("Approved") {
        return match judged {
            Ok(_) => Decision::Sign { usage, valid: validity(csr) },
            Err(why) => Decision::Fail(why),
        };
    }
    match judged {
        Ok(Some(why)) => Decision::Approve(why),
        _ => Decision::Nothing,
    }
}

fn validity(csr: &CertificateSigningRequest) -> Duration {
    let asked = csr.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(YEAR);
    Duration::from_secs(asked.clamp(600, YEAR))
}

/// Whether the signer may sign it at all, and why it needs no human if so.
fn judge(
    csr: &CertificateSigningRequest,
    subject: &Subject,
    addresses: impl Fn(&str) -> Option<BTreeSet<String>>,
) -> Result<Option<&'static str>, String> {
    let usages: BTreeSet<&str> = csr.spec.usages.iter().flatten().map(String::as_str).collect();
    let within = |needed: &str| {
        let allowed = ["digital signature", "key encipherment", needed];
        if usages.contains("digital signature") && usages.contains(needed) && usages.iter().all(|u| allowed.contains(u)) {
            Ok(())
        } else {
            Err(format!("usages {usages:?} do not fit signer {}", csr.spec.signer_name))
        }
    };
    let user = csr.spec.username.as_deref().unwrap_or_default();
    let groups = csr.spec.groups.as_deref().unwrap_or_default();
    let named = |node: &str| !node.is_empty() && subject.organizations == [NODES];
    let node = subject.common_name.strip_prefix(NODE_USER).unwrap_or_default();
    let plain = subject.dns.is_empty() && subject.ips.is_empty() && subject.others == 0;
    match csr.spec.signer_name.as_str() {
        CLIENT_KUBELET => {
            within("client auth")?;
            if !named(node) || !plain {
                return Err("the subject is not that of a node".to_owned());
            }
            let itself = user == subject.common_name && groups.iter().any(|g| g == NODES);
            let joining = groups.iter().any(|g| g == "system:bootstrappers");
            Ok((itself || joining).then_some("a kubelet asked for its own client certificate"))
        }
        SERVING => {
            within("server auth")?;
            if !named(node) || subject.others > 0 || (subject.dns.is_empty() && subject.ips.is_empty()) {
                return Err("the names asked for are not those of a node".to_owned());
            }
            if user != subject.common_name {
                return Err(format!("{user} may not ask in the name of {}", subject.common_name));
            }
            let known = addresses(node).unwrap_or_default();
            let own = subject.dns.iter().chain(&subject.ips).all(|name| known.contains(name));
            Ok(own.then_some("a kubelet asked for a serving certificate of its node's addresses"))
        }
        _ => {
            within("client auth")?;
            // Nobody gets to be an administrator by a request.
            let admin = subject.organizations.iter().any(|o| o == "system:masters");
            if admin { Err("this signer does not sign for system:masters".to_owned()) } else { Ok(None) }
        }
    }
}
