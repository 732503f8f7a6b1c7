//! The serving certificate: the configured one, or a self-signed pair kept in the certificate folder.

use super::Error;
use crate::config::Config;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A self-signed certificate with less than this left is made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
const VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// TLS as the node serves it. Client certificates are asked for where an authority is configured, never required.
pub fn server_config(config: &Config) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &config.authentication.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("clientCAFile", path)? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let (chain, key) = match &config.server.tls_files {
        Some((cert, key)) => (certificates("tlsCertFile", cert)?, private_key("tlsPrivateKeyFile", key)?),
        None => self_signed(config)?,
    };
    let mut tls = builder.with_single_cert(chain, key)?;
    // Upgrades for exec and port-forward exist in HTTP/1.1 only; clients that want them do not offer h2.
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Nobody talks to a node often enough for session tickets to be worth their memory.
    tls.send_tls13_tickets = 0;
    Ok(Arc::new(tls))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::File { what, path: path.to_owned(), source })?;
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certs {
        Ok(certs) if !certs.is_empty() => Ok(certs),
        Ok(_) => Err(Error::Pem { what, path: path.to_owned(), detail: "holds no certificate".into() }),
        Err(error) => Err(Error::Pem { what, path: path.to_owned(), detail: error.to_string() }),
    }
}

fn private_key(what: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::File { what, path: path.to_owned(), source })?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| Error::Pem { what, path: path.to_owned(), detail: error.to_string() })
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The kept pair while it names this node and lasts, else a new one.
fn self_signed(config: &Config) -> Result<Pair, Error> {
    let dir = &config.server.cert_dir;
    let (cert_path, key_path) = (dir.join("kubelet.crt"), dir.join("kubelet.key"));
    if let (Ok(chain), Ok(key)) = (certificates("certificate", &cert_path), private_key("key", &key_path))
        && still_good(&chain[0], config)
    {
        return Ok((chain, key));
    }
    let failed = |what| move |source| Error::File { what, path: dir.clone(), source };
    fs::create_dir_all(dir).map_err(failed("certificate folder"))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed("certificate folder"))?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![config.node_name.clone()])?;
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", config.node_name));
    params.subject_alt_names.extend(config.node_ips.iter().map(|ip| SanType::IpAddress(*ip)));
    let now = SystemTime::now();
    // Other machines' clocks may be a little behind.
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + VALID).into();
    let cert = params.self_signed(&key)?;
    write(&key_path, &key.serialize_pem(), 0o600)?;
    write(&cert_path, &cert.pem(), 0o644)?;
    Ok((certificates("certificate", &cert_path)?, private_key("key", &key_path)?))
}

/// Replaces the file in one step.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::File { what: "certificate", path: path.to_owned(), source };
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

fn still_good(cert: &CertificateDer<'_>, config: &Config) -> bool {
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(cert) else { return false };
    let limit = SystemTime::now() + RENEW_BEFORE;
    let limit = limit.duration_since(SystemTime::UNIX_EPOCH).map_or(i64::MAX, |d| d.as_secs() as i64);
    let Ok(Some(names)) = cert.subject_alternative_name() else { return false };
    let has_name = |name: &str| {
        names.value.general_names.iter().any(|n| matches!(n, x509_parser::extensions::GeneralName::DNSName(dns) if *dns == name))
    };
    let has_ip = |ip: &std::net::IpAddr| {
        let bytes = match ip {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        names.value.general_names.iter().any(|n| matches!(n, x509_parser::extensions::GeneralName::IPAddress(b) if *b == bytes))
    };
    cert.validity().not_after.timestamp() > limit && has_name(&config.node_name) && config.node_ips.iter().all(has_ip)
}

#[cfg(test)]
mod tests;
