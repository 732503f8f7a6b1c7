//! Credentials for pulls, from the pod's `imagePullSecrets`. Pure. Values never reach a log or an error.

use super::reference::Reference;
use base64::Engine;
use ferrolet_cri::types::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

#[derive(Deserialize)]
struct DockerConfigJson {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// The credentials that fit the image best: the longest matching path first, and none at all last.
pub fn find(image: &str, secrets: &[Secret]) -> Vec<AuthConfig> {
    let Ok(reference) = Reference::parse(image) else { return Vec::new() };
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (server, entry) in entries(secret) {
            if let Some(length) = matches(&server, &reference) {
                found.push((length, config(&server, entry)));
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

fn config(server: &str, entry: Entry) -> AuthConfig {
    let decoded = entry.auth.as_ref().and_then(|a| base64::engine::general_purpose::STANDARD.decode(a.trim()).ok());
    let pair = decoded.and_then(|d| String::from_utf8(d).ok());
    let pair = pair.as_ref().and_then(|p| p.split_once(':')).map(|(u, p)| (u.to_owned(), p.trim_end_matches('\0').to_owned()));
    let (username, password) = pair.unwrap_or_default();
    AuthConfig {
        username: entry.username.filter(|u| !u.is_empty()).unwrap_or(username),
        password: entry.password.filter(|p| !p.is_empty()).unwrap_or(password),
        server_address: server.to_owned(),
        identity_token: entry.identitytoken.unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(auths: serde_json::Value) -> Secret {
        let data = base64::engine::general_purpose::STANDARD.encode(json!({ "auths": auths }).to_string());
        serde_json::from_value(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}})).unwrap()
    }

    #[test]
    fn the_longest_path_wins() {
        let s = secret(json!({
            "reg.example": {"username": "a", "password": "1"},
            "https://reg.example/team": {"auth": base64::engine::general_purpose::STANDARD.encode("b:2")},
            "*.example": {"username": "c"},
            "other.example": {"username": "d"},
        }));
        let users: Vec<String> = find("reg.example/team/x:1", &[s]).into_iter().map(|a| a.username).collect();
        assert_eq!(users, ["b", "a", "c"]);
    }

    #[test]
    fn another_mark_when_what_they_say_changes() {
        let one = secret(json!({"r.io": {"username": "a", "password": "1"}}));
        let two = secret(json!({"r.io": {"username": "a", "password": "2"}}));
        assert_eq!(mark(std::slice::from_ref(&one)), mark(std::slice::from_ref(&one)));
        assert_ne!(mark(std::slice::from_ref(&one)), mark(std::slice::from_ref(&two)));
        assert_ne!(mark(&[]), mark(&[one]));
    }

    #[test]
    fn docker_hub_has_many_names() {
        let s = secret(json!({"https://index.docker.io/v1/": {"username": "hub"}}));
        assert_eq!(find("nginx", std::slice::from_ref(&s))[0].username, "hub");
        assert!(find("r.io/nginx", &[s]).is_empty());
    }
}
