//! Credentials for pulls, and the docker configs that they stand in. Pure. Values never reach a log or an error.

use super::keyring::Keyring;
use super::records::{PullAccount, PullSecret};
use super::reference::Reference;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ferrolet_cri::types::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

/// No more of them are tried for one pull.
const TRIED_MAX: usize = 64;
/// With padding or without: both are written.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What to show a registry, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub config: AuthConfig,
    pub source: Source,
}

/// Whose a credential is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The node's: what it pulls all its pods may use.
    Node,
    Secret(PullSecret),
    /// A credential provider gave it for this service account.
    Account(PullAccount),
}

impl Source {
    /// A secret is known by what it said when it was used.
    pub(super) fn hashed(&self, login: &Login) -> Source {
        match self {
            Source::Secret(secret) => {
                let credential_hash = hash(&login.username, &login.password, &login.email);
                Source::Secret(PullSecret { credential_hash, ..secret.clone() })
            }
            other => other.clone(),
        }
    }
}

/// One entry of a docker config. `Debug` shows nothing of it.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Login {
    pub username: String,
    pub password: String,
    pub email: String,
    pub identity_token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    /// Without the server's name, as kubelet leaves it: runtimes take one with a port for a URL and refuse it.
    pub(super) fn config(&self) -> AuthConfig {
        AuthConfig {
            username: self.username.clone(),
            password: self.password.clone(),
            identity_token: self.identity_token.clone(),
            ..AuthConfig::default()
        }
    }
}

/// What is to be shown at which place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig(pub BTreeMap<String, Login>);

/// Why a docker config cannot be used. It says nothing of what stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    #[error("not the JSON of a docker config (line {line}, column {column})")]
    Json { line: usize, column: usize },
    #[error("the auth for {0:?} is not the base64 of username:password")]
    Auth(String),
}

#[derive(Deserialize)]
struct DockerConfigJson {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    email: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl DockerConfig {
    /// Of `config.json` and `.dockerconfigjson`.
    pub fn json(bytes: &[u8]) -> Result<DockerConfig, BadConfig> {
        let config: DockerConfigJson = read(bytes)?;
        DockerConfig::of(config.auths.unwrap_or_default())
    }

    /// Of `.dockercfg`.
    pub fn legacy(bytes: &[u8]) -> Result<DockerConfig, BadConfig> {
        DockerConfig::of(read(bytes)?)
    }

    fn of(entries: BTreeMap<String, Entry>) -> Result<DockerConfig, BadConfig> {
        let logins = entries.into_iter().map(|(place, entry)| {
            let login = login(entry).ok_or_else(|| BadConfig::Auth(place.chars().take(256).collect()))?;
            Ok((place, login))
        });
        logins.collect::<Result<_, _>>().map(DockerConfig)
    }
}

/// The parser's own words could quote a value.
fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, BadConfig> {
    serde_json::from_slice(bytes).map_err(|e| BadConfig::Json { line: e.line(), column: e.column() })
}

fn login(entry: Entry) -> Option<Login> {
    // What is encoded counts before what is written out.
    let (username, password) = match entry.auth.as_deref().map(str::trim).filter(|a| !a.is_empty()) {
        Some(auth) => {
            let decoded = BASE64.decode(auth.replace(['\n', '\r'], "")).ok()?;
            let pair = String::from_utf8(decoded).ok()?;
            let (user, password) = pair.split_once(':')?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        None => (entry.username.unwrap_or_default(), entry.password.unwrap_or_default()),
    };
    let (email, identity_token) = (entry.email.unwrap_or_default(), entry.identitytoken.unwrap_or_default());
    Some(Login { username, password, email, identity_token })
}

/// What a pod has to show, but for what credential providers give: that of its secrets, then the node's own.
#[derive(Default)]
pub struct Own {
    secrets: Keyring,
    node: Keyring,
    /// Why some of it cannot be used, for whoever reads why a pull failed.
    pub problems: Vec<String>,
}

impl Own {
    pub fn of(secrets: &[Secret], node: DockerConfig) -> Own {
        let mut own = Own::default();
        for secret in secrets {
            match config_of(secret) {
                None => {}
                Some(Ok(config)) => own.secrets.add(&source(secret), config),
                Some(Err(why)) => {
                    let name = secret.metadata.name.as_deref().unwrap_or_default();
                    own.problems.push(format!("image pull secret {name:?}: {why}"));
                }
            }
        }
        own.node.add(&Source::Node, node);
        own
    }

    /// Those that fit the image, in the order in which they are tried; `given` is what credential providers gave.
    pub fn find(&self, image: &str, given: &Keyring) -> Vec<Credential> {
        let Ok(reference) = Reference::parse(image) else { return Vec::new() };
        let mut all: Vec<Credential> = [&self.secrets, &self.node, given].into_iter().flat_map(|k| k.find(&reference)).collect();
        all.truncate(TRIED_MAX);
        all
    }

    /// Stands for what they say now: another mark, and a pull that failed may succeed.
    pub fn mark(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        (&self.secrets, &self.node).hash(&mut hasher);
        hasher.finish()
    }
}

/// `None`: a secret of another type, or without the key of its type.
fn config_of(secret: &Secret) -> Option<Result<DockerConfig, BadConfig>> {
    let data = |key: &str| secret.data.as_ref()?.get(key).map(|b| b.0.as_slice()).filter(|b| !b.is_empty());
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson").map(DockerConfig::json),
        Some("kubernetes.io/dockercfg") => data(".dockercfg").map(DockerConfig::legacy),
        _ => None,
    }
}

fn source(secret: &Secret) -> Source {
    let meta = &secret.metadata;
    Source::Secret(PullSecret {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        credential_hash: String::new(),
    })
}

/// As kubelet has it, so that a node may change from one agent to the other: of the JSON that Go writes.
fn hash(username: &str, password: &str, email: &str) -> String {
    #[derive(Serialize)]
    struct Hashed<'a> {
        #[serde(skip_serializing_if = "str::is_empty")]
        username: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        password: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        email: &'a str,
    }
    let Ok(text) = serde_json::to_string(&Hashed { username, password, email }) else { return String::new() };
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    Sha256::digest(escaped.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
