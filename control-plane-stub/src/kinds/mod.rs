//! The table of kinds: everything the API server knows about a resource type, as data and pure functions.
//!
//! Owns: names and verbs of every kind, defaults, preparation for storage, validation, selectable fields, printed
//! columns, patches, selectors, schemas and the OpenAPI documents made of them. Must never do I/O, read a clock or draw a
//! random number: the time is a parameter, the same input gives the same bytes. Nothing here can be cancelled.
//!
//! Adding a kind is one `static` row (see any file below `core/`), its line in [`KINDS`], and its validation.
//!
//! The order in which a registry is to call a row's hooks for a write:
//! `defaults(new)`, `prepare(op, sub, new, old)`, then `validate(op, sub, new, old)`.

pub mod apps;
pub mod core;
pub mod field;
pub mod meta;
pub mod misc;
pub mod openapi;
pub mod patch;
pub mod scale;
pub mod schema;
pub mod selector;
pub mod table;

use jiff::Timestamp;
use serde_json::Value;

pub use self::apps::{DEPLOYMENT, REPLICA_SET};
pub use self::core::config::{CONFIG_MAP, SECRET, SERVICE_ACCOUNT};
pub use self::core::event::{EVENT, EVENTS_K8S_IO_EVENT};
pub use self::core::namespace::NAMESPACE;
pub use self::core::node::NODE;
pub use self::core::pod::POD;
pub use self::core::service::SERVICE;
pub use self::core::volume::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM};
pub use self::field::{FieldError, FieldReason};
pub use self::misc::{
    CERTIFICATE_SIGNING_REQUEST, CSI_DRIVER, CSI_NODE, ENDPOINT_SLICE, LEASE, LOCAL_SUBJECT_ACCESS_REVIEW, PRIORITY_CLASS,
    RUNTIME_CLASS, SELF_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_REVIEW, STORAGE_CLASS, SUBJECT_ACCESS_REVIEW, TOKEN_REVIEW,
};

/// What a write does to the stored object. Patches and status writes are updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Create,
    Update,
}

/// Subresources, named in URLs by [`Sub::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sub {
    Status,
    Scale,
    Binding,
    Eviction,
    Token,
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
    EphemeralContainers,
    Resize,
    Approval,
    Finalize,
}

impl Sub {
    pub const ALL: [Sub; 14] = [
        Sub::Status,
        Sub::Scale,
        Sub::Binding,
        Sub::Eviction,
        Sub::Token,
        Sub::Log,
        Sub::Exec,
        Sub::Attach,
        Sub::PortForward,
        Sub::Proxy,
        Sub::EphemeralContainers,
        Sub::Resize,
        Sub::Approval,
        Sub::Finalize,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Sub::Status => "status",
            Sub::Scale => "scale",
            Sub::Binding => "binding",
            Sub::Eviction => "eviction",
            Sub::Token => "token",
            Sub::Log => "log",
            Sub::Exec => "exec",
            Sub::Attach => "attach",
            Sub::PortForward => "portforward",
            Sub::Proxy => "proxy",
            Sub::EphemeralContainers => "ephemeralcontainers",
            Sub::Resize => "resize",
            Sub::Approval => "approval",
            Sub::Finalize => "finalize",
        }
    }

    pub fn parse(name: &str) -> Option<Sub> {
        Sub::ALL.into_iter().find(|s| s.name() == name)
    }

    /// The group, version and kind of the body this subresource speaks, where that is not the kind itself.
    pub fn body_kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Sub::Scale => Some(("autoscaling", "v1", "Scale")),
            Sub::Binding => Some(("", "v1", "Binding")),
            Sub::Eviction => Some(("policy", "v1", "Eviction")),
            Sub::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            _ => None,
        }
    }

    /// The verbs discovery lists for this subresource.
    pub fn verbs(self) -> &'static [Verb] {
        use Verb::*;
        match self {
            Sub::Status | Sub::Scale | Sub::EphemeralContainers | Sub::Resize | Sub::Approval => &[Get, Patch, Update],
            Sub::Finalize => &[Update],
            Sub::Binding | Sub::Eviction | Sub::Token => &[Create],
            Sub::Log => &[Get],
            Sub::Exec | Sub::Attach | Sub::PortForward => &[Create, Get],
            Sub::Proxy => &[Create, Delete, Get, Patch, Update],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

/// All verbs of a stored kind, in discovery's (alphabetical) order.
pub const STORED: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];
/// The verbs of a review: posted, answered, never stored.
pub const REVIEW: &[Verb] = &[Verb::Create];

/// A kind that is another way to see the objects of a stored kind (`events.k8s.io/v1` of core `v1` events).
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub stored: &'static Kind,
    /// Turns an object of this kind into the stored one (apiVersion included).
    pub to_stored: fn(Value) -> Value,
    /// Turns a stored object into this kind.
    pub from_stored: fn(&Value) -> Value,
}

/// One row of the table.
#[derive(Debug)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub subresources: &'static [Sub],
    pub verbs: &'static [Verb],
    /// Set for a kind that has no storage of its own.
    pub view: Option<View>,
    pub defaults: fn(&mut Value),
    /// Makes `new` ready for storage: the status is kept on writes of the spec and the spec on writes of the status,
    /// `metadata.generation` moves with the spec. Called after `defaults`.
    pub prepare: fn(Op, Option<Sub>, &mut Value, Option<&Value>),
    pub validate: fn(Op, Option<Sub>, &Value, Option<&Value>) -> Vec<FieldError>,
    /// What field selectors may name, with the object's values. All names are present whatever the object is.
    pub selectable_fields: fn(&Value) -> Vec<(&'static str, String)>,
    pub columns: &'static [table::Column],
    /// The cells of one object, as many as `columns`.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
    /// The schema of the kind in the generator's definitions.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.plural) == (other.group, other.version, other.plural)
    }
}

impl Eq for Kind {}

impl Kind {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// `pods`, `deployments.apps`: how error texts name the resource.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn has(&self, sub: Sub) -> bool {
        self.subresources.contains(&sub)
    }

    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// False for reviews, which are answered and forgotten.
    pub fn is_stored(&self) -> bool {
        self.allows(Verb::Get)
    }

    /// The kind whose objects are in the store: itself, or what it is a view of.
    pub fn storage(&'static self) -> &'static Kind {
        self.view.map_or(self, |v| v.stored)
    }
}

/// Every kind, in discovery's order (group by group).
pub static KINDS: &[&Kind] = &[
    &CONFIG_MAP,
    &EVENT,
    &NAMESPACE,
    &NODE,
    &PERSISTENT_VOLUME_CLAIM,
    &PERSISTENT_VOLUME,
    &POD,
    &SECRET,
    &SERVICE_ACCOUNT,
    &SERVICE,
    &DEPLOYMENT,
    &REPLICA_SET,
    &EVENTS_K8S_IO_EVENT,
    &SELF_SUBJECT_REVIEW,
    &TOKEN_REVIEW,
    &LOCAL_SUBJECT_ACCESS_REVIEW,
    &SELF_SUBJECT_ACCESS_REVIEW,
    &SUBJECT_ACCESS_REVIEW,
    &CERTIFICATE_SIGNING_REQUEST,
    &LEASE,
    &ENDPOINT_SLICE,
    &RUNTIME_CLASS,
    &PRIORITY_CLASS,
    &CSI_DRIVER,
    &CSI_NODE,
    &STORAGE_CLASS,
];

/// The kind served under this group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|k| k.group == group && k.version == version && k.plural == plural)
}

/// The kind with this group and kind name; every group here has one version.
pub fn find_by_kind(group: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|k| k.group == group && k.kind == kind)
}

/// Every (group, version) served, core first, in the table's order.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for k in KINDS {
        if !out.contains(&(k.group, k.version)) {
            out.push((k.group, k.version));
        }
    }
    out
}

#[cfg(test)]
mod tests;
