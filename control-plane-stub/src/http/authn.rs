//! Who asks: client certificates, service account tokens, bootstrap tokens. Decides nothing about what they may do.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::kinds;
use crate::registry::{Registry, User, meta};
use crate::tokens::{self, Ref, Tokens};

const AUTHENTICATED: &str = "system:authenticated";

pub struct Authenticator {
    pub registry: Registry,
    pub tokens: Arc<Tokens>,
}

/// The user a verified client certificate names.
pub fn certificate_user(der: &CertificateDer<'_>) -> Option<User> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = cert.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = cert.subject().iter_organization().filter_map(|o| o.as_str().ok());
    let groups = groups.map(str::to_owned).chain([AUTHENTICATED.to_owned()]).collect();
    Some(User { name, uid: String::new(), groups, extra: Vec::new() })
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Authenticator {
    /// The user of a bearer token made for the API server itself.
    pub async fn bearer(&self, token: &str) -> Option<User> {
        self.token(token, &[tokens::ISSUER.to_owned()]).await.map(|(user, _)| user)
    }

    /// The user of a token, and those of the audiences it is good for.
    pub async fn token(&self, token: &str, audiences: &[String]) -> Option<(User, Vec<String>)> {
        if let Some((id, secret)) = bootstrap_parts(token) {
            let user = self.bootstrap(id, secret).await?;
            return Some((user, vec![tokens::ISSUER.to_owned()]));
        }
        let claims = match self.tokens.check(token, audiences, now()) {
            Ok(claims) => claims,
            Err(error) => {
                tracing::debug!(%error, "token refused");
                return None;
            }
        };
        let bound = &claims.bound;
        if !self.lives(&kinds::SERVICE_ACCOUNT, &bound.namespace, &bound.serviceaccount).await {
            return None;
        }
        let mut extra = vec![("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={}", claims.jti)])];
        for (what, kind, reference) in
            [("pod", &kinds::POD, &bound.pod), ("node", &kinds::NODE, &bound.node), ("", &kinds::SECRET, &bound.secret)]
        {
            let Some(reference) = reference else { continue };
            if what != "node" && !self.lives(kind, &bound.namespace, reference).await {
                return None;
            }
            if !what.is_empty() {
                extra.push((format!("authentication.kubernetes.io/{what}-name"), vec![reference.name.clone()]));
                extra.push((format!("authentication.kubernetes.io/{what}-uid"), vec![reference.uid.clone()]));
            }
        }
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", bound.namespace),
            AUTHENTICATED.to_owned(),
        ];
        let good = claims.aud.iter().filter(|a| audiences.contains(a)).cloned().collect();
        Some((User { name: claims.sub, uid: bound.serviceaccount.uid.clone(), groups, extra }, good))
    }

    /// True while the very object a token is bound to is there.
    async fn lives(&self, kind: &'static kinds::Kind, namespace: &str, reference: &Ref) -> bool {
        let found = self.registry.get(kind, namespace, &reference.name).await;
        found.is_ok_and(|object| meta::uid(&object) == reference.uid)
    }

    async fn bootstrap(&self, id: &str, secret: &str) -> Option<User> {
        let found = self.registry.get(&kinds::SECRET, "kube-system", &format!("bootstrap-token-{id}")).await.ok()?;
        if found.get("type").and_then(Value::as_str) != Some("bootstrap.kubernetes.io/token") || meta::is_terminating(&found) {
            return None;
        }
        let field = |name: &str| {
            let text = found.get("data").and_then(|d| d.get(name)).and_then(Value::as_str)?;
            String::from_utf8(STANDARD.decode(text).ok()?).ok()
        };
        // Compared by digest, so that the time taken says nothing about how much of it was right.
        let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref().to_vec();
        let expired = field("expiration").is_some_and(|e| e.parse::<jiff::Timestamp>().map_or(true, |t| t.as_second() <= now()));
        let matches = field("token-id").as_deref() == Some(id) && digest(&field("token-secret")?) == digest(secret);
        if !matches || expired || field("usage-bootstrap-authentication").as_deref() != Some("true") {
            return None;
        }
        let mut groups = vec!["system:bootstrappers".to_owned(), AUTHENTICATED.to_owned()];
        let more = field("auth-extra-groups").unwrap_or_default();
        groups.extend(more.split(',').filter(|g| g.starts_with("system:bootstrappers:")).map(str::to_owned));
        Some(User { name: format!("system:bootstrap:{id}"), uid: String::new(), groups, extra: Vec::new() })
    }
}

/// `abcdef.0123456789abcdef`
fn bootstrap_parts(token: &str) -> Option<(&str, &str)> {
    let plain = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    token.split_once('.').filter(|(id, secret)| plain(id, 6) && plain(secret, 16))
}
