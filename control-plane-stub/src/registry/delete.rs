//! Deletion: grace periods, finalizers, propagation. The decision is pure (`plan`); the rest carries it out.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{DeleteOptions, Deleted, ListOptions, Propagation, Registry, WriteOptions, key, meta, store_error};
use crate::kinds::{self, Kind};
use crate::status::ApiError;
use crate::store::{Expect, StoreError};

/// What a delete request comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Remove,
    /// Stays for now, marked.
    Mark(Value),
    /// Is on its way already; nothing changes.
    Leave,
}

const POD_GRACE: i64 = 30;
const DELETE_TRIES: usize = 50;

/// True if nothing keeps a terminating object any more.
pub(super) fn is_finished(kind: &Kind, object: &Value) -> bool {
    meta::is_terminating(object) && !is_held(kind, object) && meta::grace(object).unwrap_or(0) == 0
}

fn is_held(kind: &Kind, object: &Value) -> bool {
    let own = object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    !meta::finalizers(object).is_empty() || (kind.kind == "Namespace" && own)
}

/// How long this object may take, by its own rules; nothing for kinds without grace.
fn own_grace(kind: &Kind, object: &Value, asked: Option<i64>) -> i64 {
    if kind.kind != "Pod" || !kind.group.is_empty() {
        return 0;
    }
    let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    let unscheduled = object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().is_empty();
    if unscheduled || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let spec = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let seconds = asked.or(spec).unwrap_or(POD_GRACE);
    if seconds < 0 { 1 } else { seconds }
}

fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) -> bool {
    let Some(propagation) = propagation else { return false };
    let before: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
    let mut after: Vec<String> = before.iter().filter(|f| *f != meta::ORPHAN && *f != meta::FOREGROUND).cloned().collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Orphan => after.push(meta::ORPHAN.to_owned()),
        Propagation::Foreground => after.push(meta::FOREGROUND.to_owned()),
    }
    if after == before {
        return false;
    }
    if let Some(metadata) = meta::metadata(object) {
        if after.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".to_owned(), json!(after));
        }
    }
    true
}

fn mark(kind: &Kind, object: &mut Value, at: Timestamp, grace: i64) {
    if let Some(metadata) = meta::metadata(object) {
        metadata.insert("deletionTimestamp".to_owned(), json!(meta::timestamp(at)));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
            metadata.insert("generation".to_owned(), json!(generation + 1));
        }
    }
    if kind.kind == "Namespace"
        && let Some(map) = object.as_object_mut()
    {
        let status = map.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.insert("phase".to_owned(), json!("Terminating"));
        }
    }
}

pub(super) fn plan(kind: &Kind, old: &Value, options: &DeleteOptions, now: Timestamp) -> Step {
    let mut new = old.clone();
    let refinalized = set_finalizers(&mut new, options.propagation);
    let after = |seconds: i64| now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    if !meta::is_terminating(old) {
        let grace = own_grace(kind, old, options.grace_period_seconds);
        if grace == 0 && !is_held(kind, &new) {
            return Step::Remove;
        }
        mark(kind, &mut new, after(grace), grace);
        return Step::Mark(new);
    }
    let pending = meta::grace(old).unwrap_or(0);
    match options.grace_period_seconds {
        // A grace period can only shorten, and it counts from when the deletion began.
        Some(asked) if own_grace(kind, old, Some(asked)) < pending => {
            let grace = own_grace(kind, old, Some(asked));
            let until: Option<Timestamp> = meta::text(old, "deletionTimestamp").parse().ok();
            let until = until.and_then(|t| t.checked_sub(SignedDuration::from_secs(pending - grace)).ok());
            if let Some(metadata) = meta::metadata(&mut new) {
                metadata.insert("deletionTimestamp".to_owned(), json!(meta::timestamp(until.unwrap_or(now))));
                metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
            }
            if is_finished(kind, &new) { Step::Remove } else { Step::Mark(new) }
        }
        _ if is_finished(kind, &new) => Step::Remove,
        _ if refinalized => Step::Mark(new),
        _ => Step::Leave,
    }
}

fn check_preconditions(kind: &Kind, name: &str, object: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    if let Some(wanted) = &options.uid
        && wanted != meta::uid(object)
    {
        return Err(meta::precondition(kind, name, "UID", wanted, meta::uid(object)));
    }
    let have = meta::text(object, "resourceVersion");
    match &options.resource_version {
        Some(wanted) if wanted != have => Err(meta::precondition(kind, name, "ResourceVersion", wanted, have)),
        _ => Ok(()),
    }
}

impl Registry {
    pub async fn delete(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let kind = kind.storage();
        let namespace = if kind.namespaced { namespace } else { "" };
        if kind.kind == "Namespace" && matches!(name, "default" | "kube-system" | "kube-public") {
            return Err(ApiError::forbidden_object("", "namespaces", name, "this namespace may not be deleted"));
        }
        let key = key(kind, namespace, name);
        for _ in 0..DELETE_TRIES {
            let item = self.inner.store.get(&key).ok_or_else(|| ApiError::not_found(kind.group, kind.plural, name))?;
            check_preconditions(kind, name, &item.object, options)?;
            let step = plan(kind, &item.object, options, Timestamp::now());
            let outcome = match step {
                Step::Leave => return Ok(Deleted { object: item.object, gone: false }),
                Step::Mark(new) if options.dry_run => return Ok(Deleted { object: Arc::new(new), gone: false }),
                Step::Remove if options.dry_run => return Ok(Deleted { object: item.object, gone: true }),
                Step::Mark(new) => {
                    let put = self.inner.store.put(&key, Expect::Revision(item.revision), new).await;
                    put.map(|i| Deleted { object: i.object, gone: false })
                }
                Step::Remove => {
                    let gone = self.inner.store.delete(&key, item.revision).await;
                    gone.map(|i| Deleted { object: i.object, gone: true })
                }
            };
            match outcome {
                Ok(deleted) => {
                    if deleted.gone {
                        self.inner.services.release(kind, &item.object);
                    }
                    return Ok(deleted);
                }
                Err(StoreError::Stale { .. }) => continue,
                Err(error) => return Err(store_error(kind, name, error)),
            }
        }
        Err(ApiError::stale(kind.group, kind.plural, name))
    }

    /// Deletes everything a list selects; answers with what it was.
    pub async fn delete_collection(
        &self,
        kind: &'static Kind,
        namespace: Option<&str>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<super::List, ApiError> {
        let selected = self.list(kind, namespace, list).await?;
        for object in &selected.items {
            let mut options = options.clone();
            options.uid = Some(meta::uid(object).to_owned());
            match self.delete(kind, meta::namespace(object), meta::name(object), &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(selected)
    }

    /// Deletes a pod on behalf of an Eviction. There are no disruption budgets, so nothing can forbid it.
    pub async fn evict(&self, namespace: &str, name: &str, options: &DeleteOptions, _: &WriteOptions) -> Result<(), ApiError> {
        self.delete(&kinds::POD, namespace, name, options).await.map(|_| ())
    }
}
