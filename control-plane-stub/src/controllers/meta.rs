//! Small readings of object metadata that every controller needs: keys, owners, selectors, conditions.
//! Pure. Must never decide anything for one controller only.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

#[cfg(test)]
mod tests;

pub type Labels = BTreeMap<String, String>;

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }

    pub fn of(meta: &ObjectMeta) -> Self {
        Key::new(namespace(meta), name(meta))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The revision an object was written at; 0 for one that was never stored.
pub fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |t| t.0)
}

pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// The one owner that manages this object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

pub fn controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|o| o.uid == uid)
}

/// The reference a controller puts on what it makes.
pub fn controller_ref(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name(owner).into(),
        uid: uid(owner).into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether labels satisfy a selector. A selector that is absent matches nothing, an empty one everything.
pub fn selects(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector else { return false };
    let empty = Labels::new();
    let labels = labels.unwrap_or(&empty);
    let exact = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    exact
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|e| expression(&e.operator, labels.get(&e.key).map(String::as_str), e.values.as_deref().unwrap_or_default()))
}

/// One requirement on one label. An operator nobody knows matches nothing.
pub fn expression(operator: &str, value: Option<&str>, values: &[String]) -> bool {
    let among = |v: &str| values.iter().any(|x| x == v);
    let number = |text: &str| text.parse::<i64>().ok();
    match operator {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => match (value.and_then(number), values.first().and_then(|v| number(v))) {
            (Some(have), Some(want)) if operator == "Gt" => have > want,
            (Some(have), Some(want)) => have < want,
            _ => false,
        },
        _ => false,
    }
}

/// The plain selector of a Service: an empty one selects nothing.
pub fn has_all(selector: &Labels, labels: Option<&Labels>) -> bool {
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.is_some_and(|l| l.get(k) == Some(v)))
}

pub fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// A pod whose containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// When a pod became, or will become, available: ready for `min_ready` seconds. `None` while it is not ready.
pub fn available_at(pod: &Pod, min_ready: i32) -> Option<Timestamp> {
    let ready = pod_condition(pod, "Ready").filter(|c| c.status == "True")?;
    if min_ready <= 0 {
        return Some(Timestamp::MIN);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    since.checked_add(jiff::SignedDuration::from_secs(i64::from(min_ready))).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// A count or a percentage of `total`; `None` for text that is neither.
pub fn resolve(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    match value {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let scaled = percent * i64::from(total);
            let whole = if round == Round::Up { (scaled + 99).div_euclid(100) } else { scaled.div_euclid(100) };
            i32::try_from(whole).ok()
        }
    }
}
