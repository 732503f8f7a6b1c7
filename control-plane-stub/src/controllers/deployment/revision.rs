//! The history of a Deployment: revision numbers, the template's hash, annotations carried over, the clean-up.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Change, HASH, Labels, Plan, View, counted, meta, size};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// No vowels and no look-alikes, so that a name never spells a word.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

fn canonical(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH);
        if labels.is_empty() {
            template.metadata.as_mut().expect("it was just there").labels = None;
        }
    }
    if let Some(m) = template.metadata.as_mut() {
        // The server may add this to a stored template; it says nothing about the pods.
        m.creation_timestamp = None;
        if *m == Default::default() {
            template.metadata = None;
        }
    }
    serde_json::to_value(&template).unwrap_or_default()
}

/// Stable for the same template, whatever hash label it already carries.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut digest = Sha256::new();
    digest.update(canonical(template).to_string());
    if collisions > 0 {
        digest.update(collisions.to_be_bytes());
    }
    digest.finalize().iter().take(10).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    canonical(a) == canonical(b)
}

pub fn number(rs: &ReplicaSet) -> i64 {
    meta::annotation(&rs.metadata, REVISION).and_then(|v| v.parse().ok()).unwrap_or(0)
}

pub fn latest(sets: &[&ReplicaSet]) -> i64 {
    sets.iter().map(|rs| number(rs)).max().unwrap_or(0)
}

/// The annotations of a Deployment that its ReplicaSets carry too (`kubernetes.io/change-cause` is one of them).
pub fn copied(deployment: &Deployment) -> Labels {
    let own = [LAST_APPLIED, REVISION, HISTORY, DESIRED, MAX, "deprecated.deployment.rollback.to"];
    deployment
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(k, _)| !own.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// What the sizes were when a ReplicaSet was last scaled: proportional scaling reads it.
pub(crate) fn sizes(view: &View, annotations: &mut Labels) {
    annotations.insert(DESIRED.into(), view.replicas.to_string());
    annotations.insert(MAX.into(), (view.replicas + view.max_surge).to_string());
}

pub fn of_deployment(deployment: &Deployment, revision: &str) -> Option<String> {
    (meta::annotation(&deployment.metadata, REVISION) != Some(revision)).then(|| revision.to_string())
}

/// The new ReplicaSet has the highest revision and the Deployment's annotations; one that comes back by a rollback
/// remembers the numbers it had.
pub(crate) fn sync_annotations(view: &View, plan: &mut Plan) {
    let Some(new) = view.new else { return };
    let before = new.metadata.annotations.clone().unwrap_or_default();
    let mut after = before.clone();
    after.extend(copied(view.deployment));
    let next = latest(&view.old) + 1;
    let had = number(new);
    if had < next {
        if had > 0 {
            let history = after.entry(HISTORY.into()).or_default();
            *history = if history.is_empty() { had.to_string() } else { format!("{history},{had}") };
        }
        after.insert(REVISION.into(), next.to_string());
    }
    plan.revision = of_deployment(view.deployment, &had.max(next).to_string());
    let min_ready_seconds = view.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
    let had_min_ready = new.spec.as_ref().and_then(|s| s.min_ready_seconds);
    if after != before || min_ready_seconds.unwrap_or(0) != had_min_ready.unwrap_or(0) {
        let name = meta::name(&new.metadata).into();
        plan.change.push(Change { name, from: size(new), to: size(new), annotations: after, min_ready_seconds });
    }
}

/// Old ReplicaSets without pods beyond the history limit go, the lowest revisions first.
pub(crate) fn clean_up(view: &View, plan: &mut Plan) {
    let limit = view.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return };
    let mut old: Vec<&ReplicaSet> = view.old.iter().copied().filter(|rs| !meta::is_deleting(&rs.metadata)).collect();
    old.sort_by_key(|rs| (number(rs), meta::created(&rs.metadata)));
    let surplus = old.len().saturating_sub(limit);
    for rs in old.into_iter().take(surplus) {
        let observed = rs.status.as_ref().and_then(|s| s.observed_generation) >= rs.metadata.generation;
        if size(rs) == 0 && counted(rs) == 0 && observed {
            plan.delete.push(meta::name(&rs.metadata).into());
        }
    }
}
