//! Credentials for pulls, from the pod's `imagePullSecrets`. Pure. Values never reach a log or an error.

use super::records::PullSecret;
use super::reference::Reference;
use base64::Engine;
use ferrolet_cri::types::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

/// What to show a registry, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub config: AuthConfig,
    pub secret: PullSecret,
}

#[derive(Deserialize)]
struct DockerConfigJson {
    auths: BTreeMap<String, Entry>,
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

/// The credentials that fit the image best: the longest matching path first, and none at all last.
pub fn find(image: &str, secrets: &[Secret]) -> Vec<Credential> {
    let Ok(reference) = Reference::parse(image) else { return Vec::new() };
    let mut found: Vec<(usize, Credential)> = Vec::new();
    for secret in secrets {
        for (server, entry) in entries(secret) {
            if let Some(length) = matches(&server, &reference) {
                found.push((length, credential(entry, secret)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, c)| c).collect()
}

/// Stands for what the secrets say now: another mark, and a pull that failed may succeed.
pub fn mark(secrets: &[Secret]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    for secret in secrets {
        secret.metadata.name.hash(&mut hasher);
        secret.type_.hash(&mut hasher);
        for (key, value) in secret.data.iter().flatten() {
            (key, &value.0).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice());
    let auths = match secret.type_.as_deref() {
        Some("kubernetes.io/dockercfg") => {
            data(".dockercfg").and_then(|b| serde_json::from_slice::<BTreeMap<String, Entry>>(b).ok())
        }
        _ => data(".dockerconfigjson").and_then(|b| serde_json::from_slice::<DockerConfigJson>(b).ok()).map(|c| c.auths),
    };
    auths.unwrap_or_default().into_iter().collect()
}

/// How long a part of the image's name the server's entry names; `None` if it is for another place.
fn matches(server: &str, image: &Reference) -> Option<usize> {
    let plain = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = plain.split_once('/').unwrap_or((plain, ""));
    let path = path.trim_start_matches("v1").trim_start_matches("v2").trim_start_matches('/');
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    if !host_matches(host, &image.registry) {
        return None;
    }
    let whole = path.is_empty() || image.repository == path || image.repository.starts_with(&format!("{path}/"));
    whole.then_some(plain.len())
}

/// `*` stands for one part of the name.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (p, h): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    p.len() == h.len() && p.iter().zip(&h).all(|(p, h)| *p == "*" || p == h)
}

fn credential(entry: Entry, secret: &Secret) -> Credential {
    let decoded = entry.auth.as_ref().and_then(|a| base64::engine::general_purpose::STANDARD.decode(a.trim()).ok());
    let pair = decoded.and_then(|d| String::from_utf8(d).ok());
    let pair = pair.as_ref().and_then(|p| p.split_once(':')).map(|(u, p)| (u.to_owned(), p.trim_end_matches('\0').to_owned()));
    // What is encoded counts before what is written out.
    let (username, password) = pair.unwrap_or((entry.username.unwrap_or_default(), entry.password.unwrap_or_default()));
    let meta = &secret.metadata;
    let secret = PullSecret {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        credential_hash: hash(&username, &password, &entry.email.unwrap_or_default()),
    };
    // Without the server's name, as kubelet leaves it: runtimes take one with a port for a URL and refuse it.
    let config = AuthConfig { username, password, identity_token: entry.identitytoken.unwrap_or_default(), ..Default::default() };
    Credential { config, secret }
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
