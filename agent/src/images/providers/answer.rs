//! What a credential provider is asked, and what it answers: `credentialprovider.kubelet.k8s.io`. Pure.

use super::Error;
use crate::config::duration;
use crate::images::auth::{DockerConfig, Login};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'a str,
    image: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service_account_token: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_account_annotations: &'a BTreeMap<String, String>,
}

pub(super) fn request(version: &str, image: &str, token: &str, annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let request = Request {
        kind: "CredentialProviderRequest",
        api_version: version,
        image,
        service_account_token: token,
        service_account_annotations: annotations,
    };
    // Strings and maps of strings can always be written.
    let mut bytes = serde_json::to_vec(&request).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheKeyType {
    Image,
    Registry,
    Global,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) cache_key_type: CacheKeyType,
    /// `None`: for as long as is configured; zero: not at all.
    pub(super) holds: Option<Duration>,
    pub(super) config: DockerConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    kind: Option<String>,
    api_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Response {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(default)]
    cache_key_type: Option<String>,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Auth {
    username: String,
    password: String,
}

/// Errors say nothing of what stands in the answer but the names that it must have.
pub(super) fn read(bytes: &[u8], version: &str) -> Result<Answer, Error> {
    let header: Header = serde_json::from_slice(bytes).map_err(|_| Error::Answer)?;
    let got = header.api_version.unwrap_or_default();
    if got != version {
        return Err(Error::Version { wanted: version.to_owned(), got: short(&got) });
    }
    if header.kind.as_deref() != Some("CredentialProviderResponse") {
        return Err(Error::Answer);
    }
    let response: Response = serde_json::from_slice(bytes).map_err(|_| Error::Answer)?;
    let cache_key_type = match response.cache_key_type.unwrap_or_default().as_str() {
        "Image" => CacheKeyType::Image,
        "Registry" => CacheKeyType::Registry,
        "Global" => CacheKeyType::Global,
        other => return Err(Error::CacheKeyType(short(other))),
    };
    let holds = match response.cache_duration {
        None => None,
        // One that is over already is not kept.
        Some(text) => {
            Some(duration::parse_nanos(&text).map_err(|_| Error::Answer)?.max(0)).map(|n| Duration::from_nanos(n as u64))
        }
    };
    let login = |a: Auth| Login { username: a.username, password: a.password, ..Login::default() };
    let auth = response.auth.unwrap_or_default().into_iter().map(|(place, auth)| (place, login(auth)));
    Ok(Answer { cache_key_type, holds, config: DockerConfig(auth.collect()) })
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}
