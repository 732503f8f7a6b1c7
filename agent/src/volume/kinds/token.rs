//! Service-account tokens: what a token says about its own life. Pure.
//!
//! The token in the volume is the only record of when it was given: nothing is remembered elsewhere, so an agent that
//! starts again goes on with the tokens it finds. The claims are read, not verified: they only decide when to ask again.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::time::{Duration, SystemTime};

/// A token is renewed after a day, however long it would live.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// When a token was given and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

impl Life {
    /// At 80 % of its life, or after a day.
    pub(super) fn renew_at(&self) -> SystemTime {
        let life = self.until.duration_since(self.from).unwrap_or_default();
        self.from + (life * 4 / 5).min(MAX_AGE)
    }
}

#[derive(Deserialize)]
struct Claims {
    iat: u64,
    exp: u64,
    #[serde(default)]
    aud: Audiences,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Bound,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
    #[default]
    None,
}

#[derive(Deserialize, Default)]
struct Bound {
    /// Servers that prolong tokens for old clients say here when the token was really meant to end.
    warnafter: Option<u64>,
    pod: Option<Object>,
}

#[derive(Deserialize)]
struct Object {
    uid: String,
}

/// The life of a token that fits this pod and audience; `None` for any other, or one that is no JWT.
pub(super) fn life(token: &[u8], pod_uid: &str, audience: Option<&str>) -> Option<Life> {
    let body = std::str::from_utf8(token).ok()?.trim().split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
    if claims.kubernetes.pod.is_some_and(|pod| pod.uid != pod_uid) {
        return None;
    }
    let fits = match (audience, &claims.aud) {
        (None, _) => true,
        (Some(wanted), Audiences::One(one)) => one == wanted,
        (Some(wanted), Audiences::Many(many)) => many.iter().any(|a| a == wanted),
        (Some(_), Audiences::None) => false,
    };
    let until = claims.kubernetes.warnafter.map_or(claims.exp, |w| w.min(claims.exp));
    // Seconds that no clock reaches would overflow the arithmetic below.
    let at = |secs: u64| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs)).filter(|_| secs < 1 << 40);
    let (from, until) = (at(claims.iat)?, at(until)?);
    (fits && from < until).then_some(Life { from, until })
}

#[cfg(test)]
mod tests;
