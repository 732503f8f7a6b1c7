//! Who asks: a client certificate of the configured authority, or a bearer token that the API server vouches for.
//!
//! Nobody else gets in: there is no anonymous access. Tokens are kept as digests only.

use super::cache::Cache;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Api;
use kube::api::PostParams;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::warn;

const REVIEW: Duration = Duration::from_secs(10);
/// Kept short: a token may be created right after it was refused.
const REFUSED_TTL: Duration = Duration::from_secs(10);
const MAX_TOKEN: usize = 16 << 10;

/// Somebody who proved who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Who the TLS peer is, if it showed a certificate.
#[derive(Debug, Clone, Default)]
pub struct PeerIdentity(pub Option<Arc<User>>);

impl PeerIdentity {
    /// The common name is the user, the organisations are the groups. A certificate without a name proves nothing.
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let user = chain.and_then(|chain| chain.first()).and_then(|leaf| {
            let (_, cert) = x509_parser::parse_x509_certificate(leaf).ok()?;
            let name = cert.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
            let groups = cert.subject().iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned));
            let groups = groups.chain(["system:authenticated".to_owned()]).collect();
            (!name.is_empty()).then(|| Arc::new(User { name, groups, ..User::default() }))
        });
        PeerIdentity(user)
    }
}

pub struct Authenticator {
    client: kube::Client,
    /// Bearer tokens are looked at.
    webhook: bool,
    ttl: Duration,
    cache: Cache<[u8; 32], Option<Arc<User>>>,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Unauthenticated,
    /// The API server could not be asked; nobody is let in on a guess.
    Unavailable,
}

impl Authenticator {
    pub fn new(client: kube::Client, config: &crate::config::Authentication) -> Self {
        Authenticator { client, webhook: config.webhook, ttl: config.webhook_cache_ttl, cache: Cache::new() }
    }

    pub async fn user(&self, peer: &PeerIdentity, headers: &http::HeaderMap) -> Result<Arc<User>, Denied> {
        if let Some(user) = &peer.0 {
            return Ok(user.clone());
        }
        let token = bearer(headers).filter(|_| self.webhook).ok_or(Denied::Unauthenticated)?;
        self.review(token).await?.ok_or(Denied::Unauthenticated)
    }

    async fn review(&self, token: &str) -> Result<Option<Arc<User>>, Denied> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.cache.get(&key, Instant::now()) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let user = match timeout(REVIEW, api.create(&PostParams::default(), &review)).await {
            Ok(Ok(review)) => reviewed(review),
            Ok(Err(error)) => {
                warn!(error = %crate::api::watch::chain(&error), "cannot review a token");
                return Err(Denied::Unavailable);
            }
            Err(_) => return Err(Denied::Unavailable),
        };
        let ttl = if user.is_some() { self.ttl } else { REFUSED_TTL.min(self.ttl) };
        self.cache.put(key, user.clone(), ttl, Instant::now());
        Ok(user)
    }
}

fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN).then_some(token)
}

fn reviewed(review: TokenReview) -> Option<Arc<User>> {
    let status = review.status.filter(|status| status.authenticated == Some(true))?;
    let user = status.user?;
    let name = user.username.filter(|name| !name.is_empty())?;
    let mut groups = user.groups.unwrap_or_default();
    if !groups.iter().any(|group| group == "system:authenticated") {
        groups.push("system:authenticated".into());
    }
    Some(Arc::new(User { name, uid: user.uid.unwrap_or_default(), groups, extra: user.extra.unwrap_or_default() }))
}

#[cfg(test)]
mod tests;
