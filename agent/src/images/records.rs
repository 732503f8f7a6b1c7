//! What is remembered of the credentials that images were pulled with, and what follows from it for the next pod. Pure.
//!
//! The records are kubelet's own, in its format: a node may change from one agent to the other and back. A credential is kept as
//! the name of the secret it came from and a hash, never as itself.

pub mod disk;

use super::auth::{Credential, Source};
use super::policy::plain_name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const OLD_VERSION: &str = "kubelet.config.k8s.io/v1alpha1";
/// No more secrets than this are added to an image by pods that only use it: each costs a write.
const ADDED_MAX: usize = 100;

/// The secret that a credential is from, and the credential's hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PullSecret {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub credential_hash: String,
}

impl PullSecret {
    fn is_of(&self, other: &PullSecret) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

/// The service account that a credential provider was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullAccount {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

/// Who may use an image under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Users {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_secrets: Vec<PullSecret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_service_accounts: Vec<PullAccount>,
    /// Pulled without a credential of a pod: all pods of the node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node_pods_accessible: bool,
}

impl Users {
    /// Those who the credential that a pull succeeded with stands for; `None`: it needed none.
    pub fn of(source: Option<&Source>) -> Users {
        match source {
            Some(Source::Secret(secret)) => Users { kubernetes_secrets: vec![secret.clone()], ..Users::default() },
            Some(Source::Account(account)) => Users { kubernetes_service_accounts: vec![account.clone()], ..Users::default() },
            Some(Source::Node) | None => Users { node_pods_accessible: true, ..Users::default() },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    kind: String,
    api_version: String,
    pub last_updated_time: Option<ApiTime>,
    /// The runtime's id of the image.
    pub image_ref: String,
    /// By the image's name without tag and digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credential_mapping: BTreeMap<String, Users>,
}

/// That a pull has begun, of this name as a pod has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    kind: String,
    api_version: String,
    pub image: String,
}

/// A document with a kind and a version.
pub trait Document: Serialize + serde::de::DeserializeOwned {
    const KIND: &'static str;
    fn header(&self) -> (&str, &str);
    /// What its file is named after.
    fn subject(&self) -> &str;
}

impl Document for Record {
    const KIND: &'static str = "ImagePulledRecord";
    fn header(&self) -> (&str, &str) {
        (&self.kind, &self.api_version)
    }
    fn subject(&self) -> &str {
        &self.image_ref
    }
}

impl Document for Intent {
    const KIND: &'static str = "ImagePullIntent";
    fn header(&self) -> (&str, &str) {
        (&self.kind, &self.api_version)
    }
    fn subject(&self) -> &str {
        &self.image
    }
}

impl Intent {
    pub fn of(image: &str) -> Intent {
        Intent { kind: Intent::KIND.into(), api_version: VERSION.into(), image: image.into() }
    }
}

/// Reads what this agent or a kubelet has written; an unknown field or version is an error, not something to pass over.
pub fn decode<D: Document>(bytes: &[u8]) -> Result<D, String> {
    let document: D = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    match document.header() {
        (kind, VERSION | OLD_VERSION) if kind == D::KIND => Ok(document),
        (kind, version) => Err(format!("{kind:?} of {version:?} is not a {} of {VERSION}", D::KIND)),
    }
}

/// The record with these users added under the name; `None`: it says so already. With no users it says only that the image was
/// pulled, by nobody knows whom: the next pod has to prove that it may use it.
pub fn merged(known: Option<&Record>, image_ref: &str, name: &str, users: Option<&Users>, now: ApiTime) -> Option<Record> {
    let mut record = match known {
        Some(known) => known.clone(),
        None => Record {
            kind: Record::KIND.into(),
            api_version: VERSION.into(),
            last_updated_time: None,
            image_ref: image_ref.into(),
            credential_mapping: BTreeMap::new(),
        },
    };
    let changed = match (users, record.credential_mapping.get_mut(name)) {
        (None, _) => known.is_none(),
        (Some(users), None) => {
            record.credential_mapping.insert(name.to_owned(), users.clone());
            true
        }
        (Some(_), Some(before)) if before.node_pods_accessible => false,
        (Some(users), Some(before)) if users.node_pods_accessible => {
            *before = users.clone();
            true
        }
        (Some(users), Some(before)) => {
            let secrets = add(&mut before.kubernetes_secrets, &users.kubernetes_secrets);
            add_accounts(&mut before.kubernetes_service_accounts, &users.kubernetes_service_accounts) || secrets
        }
    };
    record.api_version = VERSION.into();
    record.last_updated_time = Some(now);
    changed.then_some(record)
}

fn add(all: &mut Vec<PullSecret>, new: &[PullSecret]) -> bool {
    let mut changed = false;
    for secret in new {
        match all.iter_mut().find(|s| s.is_of(secret)) {
            Some(before) if before.credential_hash == secret.credential_hash => {}
            Some(before) => {
                before.credential_hash = secret.credential_hash.clone();
                changed = true;
            }
            None => {
                all.push(secret.clone());
                changed = true;
            }
        }
    }
    all.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
    changed
}

fn add_accounts(all: &mut Vec<PullAccount>, new: &[PullAccount]) -> bool {
    let before = all.len();
    let missing: Vec<_> = new.iter().filter(|a| !all.contains(a)).cloned().collect();
    all.extend(missing);
    all.sort();
    all.len() > before
}

/// Whether a pod may use an image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    Granted,
    /// By this credential, which is not in the record yet.
    GrantedBy(PullSecret),
    /// Only after a pull with the pod's own credentials.
    Denied,
}

/// What the record says of the name without any credential; `None`: it depends on them.
pub fn without_credentials(record: &Record, image: &str) -> Option<Access> {
    let users = plain_name(image).ok().and_then(|name| record.credential_mapping.get(&name));
    match users {
        Some(users) if users.node_pods_accessible => Some(Access::Granted),
        Some(users) if !users.kubernetes_secrets.is_empty() || !users.kubernetes_service_accounts.is_empty() => None,
        _ => Some(Access::Denied),
    }
}

/// Whether it depends on a service account, for which a credential provider must be asked.
pub fn asks_for_account(record: &Record, image: &str) -> bool {
    let users = plain_name(image).ok().and_then(|name| record.credential_mapping.get(&name));
    users.is_some_and(|users| !users.node_pods_accessible && !users.kubernetes_service_accounts.is_empty())
}

/// The same credential counts whatever secret it is from, and another credential in the same secret counts too: whoever could
/// change the secret could use the image before.
pub fn access(record: &Record, image: &str, credentials: &[Credential]) -> Access {
    if let Some(access) = without_credentials(record, image) {
        return access;
    }
    let Some(users) = plain_name(image).ok().and_then(|name| record.credential_mapping.get(&name)) else { return Access::Denied };
    let known = &users.kubernetes_secrets;
    let same_hash = |mine: &PullSecret, other: &PullSecret| {
        !other.credential_hash.is_empty() && other.credential_hash == mine.credential_hash
    };
    let account = credentials.iter().find_map(|c| match &c.source {
        Source::Account(account) => Some(account),
        Source::Secret(_) | Source::Node => None,
    });
    if account.is_some_and(|mine| users.kubernetes_service_accounts.contains(mine)) {
        return Access::Granted;
    }
    let mine = || {
        credentials.iter().filter_map(|c| match &c.source {
            Source::Secret(secret) => Some(secret),
            Source::Account(_) | Source::Node => None,
        })
    };
    if mine().any(|m| known.iter().any(|o| same_hash(m, o) && o.is_of(m))) {
        return Access::Granted;
    }
    let room = known.len() < ADDED_MAX;
    if let Some(m) = mine().find(|m| known.iter().any(|o| same_hash(m, o))) {
        return if room { Access::GrantedBy(m.clone()) } else { Access::Granted };
    }
    match mine().find(|m| known.iter().any(|o| o.is_of(m))) {
        Some(m) if room => Access::GrantedBy(m.clone()),
        _ => Access::Denied,
    }
}

#[cfg(test)]
mod tests;
