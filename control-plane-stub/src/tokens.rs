//! Service account tokens: JWTs signed with ES256. Making and checking are pure but for the randomness of signatures; whether
//! the account and the pod a token is bound to still exist is the authenticator's question, not this module's.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::status::Class;

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How far the clocks of those who check may be off.
const LEEWAY: i64 = 5;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("service account key is not a P-256 key")]
    Key,
    #[error("token cannot be signed")]
    Sign,
    #[error("token is not a signed JWT")]
    Shape,
    #[error("token is not signed by this cluster's key")]
    Signature,
    #[error("token has another issuer")]
    Issuer,
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet")]
    Early,
    #[error("token audiences {have:?} is invalid for the target audiences {wanted:?}")]
    Audience { have: Vec<String>, wanted: Vec<String> },
}

impl TokenError {
    pub fn class(&self) -> Class {
        match self {
            TokenError::Sign => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

/// The private part of the claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    pub serviceaccount: Ref,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub nbf: i64,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
}

impl Claims {
    pub fn new(bound: Bound, audiences: Vec<String>, now: i64, seconds: i64, id: String) -> Claims {
        let sub = format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name);
        Claims { iss: ISSUER.to_owned(), sub, aud: audiences, exp: now + seconds, iat: now, nbf: now, jti: id, bound }
    }
}

pub struct Tokens {
    key: EcdsaKeyPair,
    public: Vec<u8>,
    id: String,
    random: SystemRandom,
}

impl Tokens {
    pub fn new(pkcs8: &[u8]) -> Result<Tokens, TokenError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).map_err(|_| TokenError::Key)?;
        let public = key.public_key().as_ref().to_vec();
        let id = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &public));
        Ok(Tokens { key, public, id, random })
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let claims = serde_json::to_value(claims).map_err(|_| TokenError::Sign)?;
        let text = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": self.id})), encode(&claims));
        let signature = self.key.sign(&self.random, text.as_bytes()).map_err(|_| TokenError::Sign)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token this cluster made that is valid now for one of the audiences.
    pub fn check(&self, token: &str, audiences: &[String], now: i64) -> Result<Claims, TokenError> {
        let (text, signature) = token.rsplit_once('.').ok_or(TokenError::Shape)?;
        let (header, claims) = text.split_once('.').ok_or(TokenError::Shape)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Shape);
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Shape)?;
        if header.get("alg") != Some(&json!("ES256")) {
            return Err(TokenError::Signature);
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public);
        key.verify(text.as_bytes(), &decode(signature)?).map_err(|_| TokenError::Signature)?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Shape)?;
        if claims.iss != ISSUER {
            return Err(TokenError::Issuer);
        }
        if now > claims.exp + LEEWAY {
            return Err(TokenError::Expired);
        }
        if now + LEEWAY < claims.nbf {
            return Err(TokenError::Early);
        }
        if !claims.aud.iter().any(|a| audiences.contains(a)) {
            return Err(TokenError::Audience { have: claims.aud, wanted: audiences.to_vec() });
        }
        Ok(claims)
    }

    /// The public key as `/openid/v1/jwks` shows it.
    pub fn jwks(&self) -> Value {
        let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(self.public.get(range).unwrap_or_default());
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": coordinate(1..33), "y": coordinate(33..65)}]})
    }
}

#[cfg(test)]
mod tests;
