//! A kubeconfig file read into what the transport needs; parts that are not honoured are refused by name.

use super::Error;
use base64::Engine;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use url::Url;

/// Where the API server is, and how we prove who we are.
pub struct Credentials {
    pub server: Url,
    pub ca: Vec<CertificateDer<'static>>,
    pub identity: Option<Identity>,
    pub token: Token,
}

/// A bearer token.
#[derive(Clone)]
pub enum Token {
    None,
    Fixed(String),
    /// Read again from time to time: somebody renews it.
    File(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys and tokens stay out of logs.
        f.debug_struct("Credentials").field("server", &self.server.as_str()).finish_non_exhaustive()
    }
}

/// A client's certificate chain and key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    current_context: String,
    contexts: Vec<Named<Context>>,
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
}

/// `{name: .., cluster: {..}}`, and the same for contexts and users.
#[derive(Debug, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    body: Option<T>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: Option<String>,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: Option<bool>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    exec: Option<serde_yaml_ng::Value>,
    auth_provider: Option<serde_yaml_ng::Value>,
    username: Option<String>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User { .. }")
    }
}

/// Reads the file and everything it points at.
pub fn read(path: &Path) -> Result<Credentials, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::File { what: "kubeconfig", path: path.to_owned(), source })?;
    let file: File = serde_path_to_error::deserialize(serde_yaml_ng::Deserializer::from_str(&text)).map_err(|error| {
        let (field, detail) = (error.path().to_string(), error.inner().to_string());
        Error::KubeconfigField { path: path.to_owned(), field, detail }
    })?;
    let field = |field: String, detail: &str| Error::KubeconfigField { path: path.to_owned(), field, detail: detail.to_owned() };
    let current = file.current_context.clone();
    let context = file.contexts.iter().find(|c| c.name == current).and_then(|c| c.body.clone());
    let context = context.ok_or_else(|| field("current-context".into(), &format!("there is no context {current:?}")))?;
    let cluster = file.clusters.iter().find(|c| c.name == context.cluster).and_then(|c| c.body.clone());
    let at = format!("clusters[{}]", context.cluster);
    let cluster = cluster.ok_or_else(|| field(at.clone(), "there is no such cluster"))?;
    let user_name = context.user.clone();
    let user = file.users.iter().find(|u| u.name == user_name).and_then(|u| u.body.clone());
    let user = match (user, user_name.is_empty()) {
        (Some(user), _) => user,
        (None, true) => User::default(),
        (None, false) => return Err(field(format!("users[{user_name}]"), "there is no such user")),
    };
    let reader = Reader { path };
    let (server, ca) = reader.cluster(&at, &cluster)?;
    let at = format!("users[{user_name}]");
    let (identity, token) = reader.user(&at, &user)?;
    Ok(Credentials { server, ca, identity, token })
}

struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn wrong(&self, at: &str, name: &str, detail: impl Into<String>) -> Error {
        Error::KubeconfigField { path: self.path.to_owned(), field: format!("{at}.{name}"), detail: detail.into() }
    }

    fn cluster(&self, at: &str, cluster: &Cluster) -> Result<(Url, Vec<CertificateDer<'static>>), Error> {
        let server = cluster.server.as_deref().unwrap_or_default();
        let url = Url::parse(server).map_err(|error| self.wrong(at, "server", format!("{server:?} is not a URL: {error}")))?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err(self.wrong(at, "server", format!("{server:?} must be an https URL with a host")));
        }
        if cluster.insecure_skip_tls_verify == Some(true) {
            return Err(self.wrong(at, "insecure-skip-tls-verify", "not supported, name the certificate authority instead"));
        }
        for (name, set) in [("tls-server-name", &cluster.tls_server_name), ("proxy-url", &cluster.proxy_url)] {
            if set.as_deref().is_some_and(|text| !text.is_empty()) {
                return Err(self.wrong(at, name, "not yet supported"));
            }
        }
        let pem = self.data_or_file(
            at,
            "certificate-authority",
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        let ca = match pem {
            Some(pem) => self.certificates(at, "certificate-authority", &pem)?,
            None if url.scheme() == "http" => Vec::new(),
            None => return Err(self.wrong(at, "certificate-authority", "required, the system's authorities are not used")),
        };
        Ok((url, ca))
    }

    fn user(&self, at: &str, user: &User) -> Result<(Option<Identity>, Token), Error> {
        let refused = [
            ("exec", user.exec.is_some()),
            ("auth-provider", user.auth_provider.is_some()),
            ("username", user.username.is_some()),
            ("as", user.impersonate.is_some()),
        ];
        if let Some((name, _)) = refused.iter().find(|(_, set)| *set) {
            return Err(self.wrong(at, name, "not yet supported, use a client certificate or a token"));
        }
        let certs = self.data_or_file(
            at,
            "client-certificate",
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        )?;
        let key = self.data_or_file(at, "client-key", user.client_key_data.as_deref(), user.client_key.as_deref())?;
        let identity = match (certs, key) {
            (Some(certs), Some(key)) => {
                let certs = self.certificates(at, "client-certificate", &certs)?;
                let key = PrivateKeyDer::from_pem_slice(&key)
                    .map_err(|error| self.wrong(at, "client-key", format!("not a private key in PEM: {error}")))?;
                Some((certs, key))
            }
            (None, None) => None,
            (Some(_), None) => return Err(self.wrong(at, "client-key", "required next to the client certificate")),
            (None, Some(_)) => return Err(self.wrong(at, "client-certificate", "required next to the client key")),
        };
        // As in client-go, a token file wins over a fixed token: it is the one that is kept fresh.
        let token = match (&user.token_file, &user.token) {
            (Some(file), _) if !file.is_empty() => Token::File(self.beside(file)),
            (_, Some(token)) if !token.is_empty() => Token::Fixed(token.clone()),
            _ => Token::None,
        };
        Ok((identity, token))
    }

    /// Relative paths in a kubeconfig are relative to it.
    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).join(file)
    }

    /// Inline base64 wins over a file, as in client-go.
    fn data_or_file(
        &self,
        at: &str,
        name: &'static str,
        data: Option<&str>,
        file: Option<&str>,
    ) -> Result<Option<Vec<u8>>, Error> {
        if let Some(data) = data.filter(|data| !data.is_empty()) {
            let decoded = base64::engine::general_purpose::STANDARD.decode(data.trim());
            return decoded.map(Some).map_err(|error| self.wrong(at, &format!("{name}-data"), format!("not base64: {error}")));
        }
        let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(None) };
        let path = self.beside(file);
        std::fs::read(&path).map(Some).map_err(|source| Error::File { what: name, path, source })
    }

    fn certificates(&self, at: &str, name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
        let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certs = certs.map_err(|error| self.wrong(at, name, format!("not certificates in PEM: {error}")))?;
        if certs.is_empty() {
            return Err(self.wrong(at, name, "holds no certificate"));
        }
        Ok(certs)
    }
}
