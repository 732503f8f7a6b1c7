//! The cluster's keys and certificates, and the kubeconfigs made from them.
//!
//! Owns `<data>/pki` and `<data>/*.kubeconfig` (private files, mode 0600). The CA and the service account key are made once and
//! kept; certificates that only this process uses are made anew at every start, so that addresses may change.
//! Must never log a key.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use crate::status::Class;

const CA_DAYS: i64 = 3650;
const CERT_DAYS: i64 = 365;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("file {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("certificate {what}")]
    Certificate {
        what: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("{path} is not a valid PEM file")]
    Pem {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("kubeconfig {path}")]
    Kubeconfig {
        path: PathBuf,
        #[source]
        source: serde_yaml_ng::Error,
    },
    #[error("node name {name:?} is not a DNS subdomain")]
    NodeName { name: String },
}

impl PkiError {
    pub fn class(&self) -> Class {
        match self {
            PkiError::File { .. } => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

/// A certificate with its key, as files and TLS want it.
pub struct Pair {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Pair {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).filter_map(Result::ok).collect()
    }

    pub fn key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|source| PkiError::Pem { path: PathBuf::from("key"), source })
    }
}

pub struct Pki {
    folder: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    service_account_key: Vec<u8>,
}

/// What a requested certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    Both,
}

impl Usage {
    fn purposes(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

impl Pki {
    pub fn open(data: &Path) -> Result<Pki, PkiError> {
        let folder = data.join("pki");
        std::fs::create_dir_all(&folder).map_err(|source| PkiError::File { path: folder.clone(), source })?;
        let (ca_key_path, ca_path) = (folder.join("ca.key"), folder.join("ca.crt"));
        if !ca_path.exists() {
            let pair = make_ca()?;
            write_private(&ca_key_path, pair.key_pem.as_bytes())?;
            write_private(&ca_path, pair.cert_pem.as_bytes())?;
        }
        let ca_pem = read(&ca_path)?;
        let of_ca = |source| PkiError::Certificate { what: ca_path.display().to_string(), source };
        let ca_key = KeyPair::from_pem(&read(&ca_key_path)?).map_err(of_ca)?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(of_ca)?;
        let sa_path = folder.join("sa.key");
        if !sa_path.exists() {
            let key = KeyPair::generate().map_err(|source| PkiError::Certificate { what: "sa.key".to_owned(), source })?;
            write_private(&sa_path, key.serialize_pem().as_bytes())?;
        }
        let sa = KeyPair::from_pem(&read(&sa_path)?)
            .map_err(|source| PkiError::Certificate { what: sa_path.display().to_string(), source })?;
        Ok(Pki { folder, ca_pem, issuer, service_account_key: sa.serialize_der() })
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub fn ca_der(&self) -> Option<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).ok()
    }

    /// PKCS#8, for signing service account tokens.
    pub fn service_account_key(&self) -> &[u8] {
        &self.service_account_key
    }

    /// The certificate this server shows.
    pub fn server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Pair, PkiError> {
        let mut params = params("kube-apiserver", &[], Usage::Server);
        for name in names {
            let what = || format!("name {name:?}");
            let name = name.as_str().try_into().map_err(|source| PkiError::Certificate { what: what(), source })?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        self.sign(params, "apiserver")
    }

    /// A certificate that says who its holder is.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Pair, PkiError> {
        self.sign(params(user, groups, Usage::Client), user)
    }

    fn sign(&self, params: CertificateParams, what: &str) -> Result<Pair, PkiError> {
        let failed = |source| PkiError::Certificate { what: what.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs a request (PEM) as it is, for the given use and time; whether it may be signed is the caller's decision.
    pub fn sign_request(&self, pem: &str, usage: Usage, valid: std::time::Duration) -> Result<String, PkiError> {
        let failed = |source| PkiError::Certificate { what: "request".to_owned(), source };
        let mut request = CertificateSigningRequestParams::from_pem(pem).map_err(failed)?;
        request.params.is_ca = IsCa::NoCa;
        request.params.extended_key_usages = usage.purposes();
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.serial_number = Some(serial());
        let days = (valid.as_secs() / 86_400).max(1);
        set_validity(&mut request.params, days as i64);
        Ok(request.signed_by(&self.issuer).map_err(failed)?.pem())
    }

    /// A kubeconfig file whose user proves itself with a certificate.
    pub fn write_kubeconfig(&self, path: &Path, server: &str, user: &str, pair: &Pair) -> Result<(), PkiError> {
        let credentials = json!({
            "client-certificate-data": STANDARD.encode(&pair.cert_pem),
            "client-key-data": STANDARD.encode(&pair.key_pem),
        });
        self.write_config(path, server, user, credentials)
    }

    pub fn write_token_kubeconfig(&self, path: &Path, server: &str, user: &str, token: &str) -> Result<(), PkiError> {
        self.write_config(path, server, user, json!({"token": token}))
    }

    fn write_config(&self, path: &Path, server: &str, user: &str, credentials: serde_json::Value) -> Result<(), PkiError> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {},
            "clusters": [{"name": "ferrolet", "cluster": {
                "server": server, "certificate-authority-data": STANDARD.encode(&self.ca_pem)}}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": format!("{user}@ferrolet"), "context": {"cluster": "ferrolet", "user": user}}],
            "current-context": format!("{user}@ferrolet"),
        });
        let text = serde_yaml_ng::to_string(&config).map_err(|source| PkiError::Kubeconfig { path: path.to_owned(), source })?;
        write_private(path, text.as_bytes())
    }

    /// `<data>/node-<name>.kubeconfig`, made anew.
    pub fn write_node_kubeconfig(&self, data: &Path, server: &str, node: &str) -> Result<PathBuf, PkiError> {
        if !is_dns_subdomain(node) {
            return Err(PkiError::NodeName { name: node.to_owned() });
        }
        let user = format!("system:node:{node}");
        let path = data.join(format!("node-{node}.kubeconfig"));
        self.write_kubeconfig(&path, server, &user, &self.client(&user, &["system:nodes"])?)?;
        Ok(path)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn is_dns_subdomain(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// From yesterday (clocks differ) for so many days from today.
fn set_validity(params: &mut CertificateParams, days: i64) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let at = |date: jiff::civil::Date| rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8);
    let shifted = |n: i64| today.checked_add(jiff::Span::new().days(n)).unwrap_or(today);
    params.not_before = at(shifted(-1));
    params.not_after = at(shifted(days + 1));
}

fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] &= 0x7f; // Positive, whatever comes.
    SerialNumber::from_slice(&bytes)
}

fn params(name: &str, groups: &[&str], usage: Usage) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = usage.purposes();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(serial());
    set_validity(&mut params, CERT_DAYS);
    params.use_authority_key_identifier_extension = true;
    params
}

fn make_ca() -> Result<Pair, PkiError> {
    let failed = |source| PkiError::Certificate { what: "ca".to_owned(), source };
    let mut params = params("ferrolet-ca", &[], Usage::Server);
    params.extended_key_usages.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, CA_DAYS);
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok(Pair { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// Written beside and renamed, so that a reader or a crash never meets half a file.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests;
