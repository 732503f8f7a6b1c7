//! The registry: what the API means, without HTTP. Controllers, the scheduler and the HTTP server all write through it, so
//! defaults, admission, validation, allocation and deletion rules are the same for all of them.
//!
//! Owns the service allocator; all other state is the store's. Must never know about requests, connections or wire formats.
//! Dropping a write's future after it was sent leaves its outcome unknown: look again.

mod admission;
mod delete;
pub mod meta;
mod pods;
mod read;
mod services;
mod write;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

pub use read::{RevisionMatch, WatchEvent, WatchKind, WatchOptions, WatchStream};
pub use write::{Patch, PatchKind};

use crate::kinds::Kind;
use crate::kinds::selector::{FieldSelector, LabelSelector};
use crate::ranges::Ranges;
use crate::status::ApiError;
use crate::store::{Store, StoreError};

#[derive(Clone, Debug)]
pub struct Config {
    pub service_cidr: Ranges,
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// Where the API server itself is reached; the `kubernetes` Service points there.
    pub advertise: Option<(IpAddr, u16)>,
}

impl Default for Config {
    fn default() -> Config {
        let service_cidr = IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16));
        Config { service_cidr: service_cidr.into(), node_ports: 30000..=32767, advertise: None }
    }
}

/// Who asks. Set by authentication; what runs in this process is the API server itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    pub fn internal() -> User {
        User {
            name: "system:apiserver".to_owned(),
            uid: String::new(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
            extra: Vec::new(),
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node this user is, if it is one.
    pub fn node(&self) -> Option<&str> {
        if self.is_in("system:nodes") { self.name.strip_prefix("system:node:") } else { None }
    }
}

#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub user: Arc<User>,
}

impl Default for WriteOptions {
    fn default() -> WriteOptions {
        WriteOptions { dry_run: false, user: Arc::new(User::internal()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

/// What a delete did.
#[derive(Clone, Debug)]
pub struct Deleted {
    pub object: Arc<Value>,
    /// False while finalizers or a grace period keep the object.
    pub gone: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// 0: all.
    pub limit: usize,
    pub continue_token: Option<String>,
    /// Nothing or 0: the latest.
    pub revision: Option<u64>,
    pub revision_match: Option<RevisionMatch>,
}

#[derive(Clone, Debug)]
pub struct List {
    pub items: Vec<Arc<Value>>,
    pub revision: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    config: Config,
    services: services::Services,
}

/// How long a read waits for a revision that is not there yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

impl Registry {
    /// Ready for use; makes the namespaces every cluster has.
    pub async fn open(store: Store, config: Config) -> Result<Registry, ApiError> {
        let services = services::Services::load(&store, &config);
        let registry = Registry { inner: Arc::new(Inner { store, config, services }) };
        registry.bootstrap().await?;
        Ok(registry)
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub fn revision(&self) -> u64 {
        self.inner.store.revision()
    }
}

/// `core/pods/default/web-0`; cluster-scoped objects have an empty namespace.
fn key(kind: &'static Kind, namespace: &str, name: &str) -> String {
    let mut key = prefix(kind, None);
    key.push_str(namespace);
    key.push('/');
    key.push_str(name);
    key
}

fn prefix(kind: &'static Kind, namespace: Option<&str>) -> String {
    let stored = kind.storage();
    let group = if stored.group.is_empty() { "core" } else { stored.group };
    match namespace {
        Some(namespace) => format!("{group}/{}/{namespace}/", stored.plural),
        None => format!("{group}/{}/", stored.plural),
    }
}

/// The API's words for what the store said about one object.
fn store_error(kind: &Kind, name: &str, error: StoreError) -> ApiError {
    match error {
        StoreError::Exists { .. } => ApiError::already_exists(kind.group, kind.plural, name),
        StoreError::Missing { .. } => ApiError::not_found(kind.group, kind.plural, name),
        StoreError::Stale { .. } => ApiError::stale(kind.group, kind.plural, name),
        StoreError::Compacted { oldest, .. } => ApiError::expired(oldest),
        StoreError::Future { wanted, latest } => too_large_revision(wanted, latest),
        error @ (StoreError::Encoding { .. } | StoreError::Storage(_) | StoreError::Folder { .. } | StoreError::Closed) => {
            ApiError::internal(error)
        }
    }
}

fn too_large_revision(wanted: u64, latest: u64) -> ApiError {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {latest}");
    let mut error = ApiError::new(crate::status::Reason::Timeout, message);
    error.retry_after = Some(1);
    error.with_cause("ResourceVersionTooLarge", "Too large resource version", "")
}

#[cfg(test)]
mod tests;
