//! What a credential provider is shown of a pod's service account: a token bound to the pod, and annotations.
//!
//! Owns the tokens it asked for, in memory: the same pod and audience have the same one until most of its life is over.

use super::{Error, For, TokenAttributes, locked};
use crate::api::watch::chain;
use crate::images::records::PullAccount;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Of more, the one that is to be renewed first goes.
const TOKENS_MAX: usize = 1024;
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) account: PullAccount,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) token: String,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("account", &self.account).finish_non_exhaustive()
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    account_uid: String,
    audience: String,
}

pub(super) struct Accounts {
    kube: kube::Client,
    tokens: Mutex<HashMap<Key, (Instant, String)>>,
}

impl Accounts {
    pub(super) fn new(kube: kube::Client) -> Accounts {
        Accounts { kube, tokens: Mutex::default() }
    }

    /// `None`: the provider is not to be asked for this pod; `Some(None)`: it is to be asked without an account.
    pub(super) async fn shown(&self, wanted: &TokenAttributes, who: For<'_>) -> Result<Option<Option<Shown>>, Error> {
        if who.account.is_empty() {
            return Ok((!wanted.require_account).then_some(None));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.kube.clone(), who.namespace);
        let account = api.get(who.account).await.map_err(|error| {
            let why = said(&error);
            Error::Account { account: who.account.to_owned(), why }
        })?;
        let Some(annotations) = annotations(wanted, &account) else {
            tracing::debug!(
                pod_uid = who.uid,
                account = who.account,
                "the service account lacks an annotation that a provider requires"
            );
            return Ok(None);
        };
        let uid = account.metadata.uid.unwrap_or_default();
        let token = self.token(wanted, who, &uid).await?;
        let account = PullAccount { uid, namespace: who.namespace.to_owned(), name: who.account.to_owned() };
        Ok(Some(Some(Shown { account, annotations, token })))
    }

    async fn token(&self, wanted: &TokenAttributes, who: For<'_>, account_uid: &str) -> Result<String, Error> {
        let key = Key { pod_uid: who.uid.to_owned(), account_uid: account_uid.to_owned(), audience: wanted.audience.clone() };
        let now = Instant::now();
        if let Some((_, token)) = locked(&self.tokens).get(&key).filter(|(renew_at, _)| now < *renew_at) {
            return Ok(token.clone());
        }
        let failed = |why: String| Error::Token { account: who.account.to_owned(), why };
        let api: Api<ServiceAccount> = Api::namespaced(self.kube.clone(), who.namespace);
        let answer = api.create_token_request(who.account, &PostParams::default(), &request(wanted, who)).await;
        let status = answer.map_err(|error| failed(said(&error)))?.status.unwrap_or_default();
        let token = status.token.filter(|t| !t.is_empty()).ok_or_else(|| failed("the answer has none".to_owned()))?;
        let life = status.expiration_timestamp.map(|t| t.0.duration_since(crate::clock::now()));
        let life = life.and_then(|l| Duration::try_from(l).ok()).unwrap_or_default();
        let mut tokens = locked(&self.tokens);
        tokens.retain(|_, (renew_at, _)| now < *renew_at);
        if tokens.len() < TOKENS_MAX {
            tokens.insert(key, (now + (life * 4 / 5).min(AGE_MAX), token.clone()));
        }
        Ok(token)
    }
}

/// `None`: one that is required is not there.
fn annotations(wanted: &TokenAttributes, account: &ServiceAccount) -> Option<BTreeMap<String, String>> {
    let there = |key: &String| account.metadata.annotations.as_ref()?.get(key).map(|value| (key.clone(), value.clone()));
    let required: Option<BTreeMap<_, _>> = wanted.required_annotations.iter().map(there).collect();
    let mut all = required?;
    all.extend(wanted.optional_annotations.iter().filter_map(there));
    Some(all)
}

fn request(wanted: &TokenAttributes, who: For<'_>) -> TokenRequest {
    TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![wanted.audience.clone()]),
            expiration_seconds: None,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(who.pod.to_owned()),
                uid: Some(who.uid.to_owned()),
            }),
        }),
        ..TokenRequest::default()
    }
}

fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}
