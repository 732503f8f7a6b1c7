//! create, update and patch. Each is: read, change, default, prepare, admit, validate, allocate, store; repeated if another
//! writer was faster and the caller did not insist on a revision.

use std::sync::Arc;

use serde_json::Value;

use super::{Registry, WriteOptions, admission, key, meta, store_error};
use crate::kinds::{self, FieldError, Kind, Op, Sub};
use crate::status::{ApiError, Cause};
use crate::store::{Expect, Item, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

#[derive(Clone, Debug)]
pub struct Patch {
    pub kind: PatchKind,
    pub body: Value,
}

impl Patch {
    pub fn apply(&self, kind: &'static Kind, name: &str, original: &Value) -> Result<Value, ApiError> {
        let patched = match self.kind {
            PatchKind::Json => kinds::patch::json(original, &self.body),
            PatchKind::Merge => kinds::patch::merge(original, &self.body),
            PatchKind::Strategic => kinds::patch::strategic(kind, original, &self.body),
        };
        patched.map_err(|error| match error {
            kinds::patch::PatchError::Malformed(text) => ApiError::bad_request(text),
            kinds::patch::PatchError::Unprocessable(text) => {
                let mut error = ApiError::bad_request(text.clone());
                error.reason = crate::status::Reason::Invalid;
                error.message = format!("the server rejected our request due to an error in our request: {text}");
                error.about(kind.group, kind.plural, name)
            }
        })
    }
}

/// Names tried for one `generateName`.
const NAME_TRIES: usize = 8;
/// Rounds against faster writers before giving up.
const UPDATE_TRIES: usize = 50;

/// Kinds whose updates must say which revision they change.
fn must_state_revision(kind: &Kind) -> bool {
    matches!(kind.kind, "Lease" | "RuntimeClass" | "CSIDriver" | "CSINode")
}

/// Kinds that an update of a missing object creates.
fn created_by_update(kind: &Kind) -> bool {
    matches!(kind.kind, "Lease" | "Event" | "Service" | "RuntimeClass")
}

pub(super) fn invalid(kind: &Kind, name: &str, errors: Vec<FieldError>) -> ApiError {
    let cause = |e: FieldError| Cause { reason: e.reason.cause().to_owned(), message: e.message(), field: e.field };
    ApiError::invalid(kind.group, kind.kind, name, errors.into_iter().map(cause).collect())
}

fn random_below(limit: usize) -> usize {
    rand::random_range(0..limit.max(1))
}

/// A client may not choose a name that would end up elsewhere in the store.
fn check_name(kind: &Kind, name: &str) -> Result<(), ApiError> {
    let bad = name == "." || name == ".." || name.contains(['/', '%']) || name.chars().any(char::is_control) || name.len() > 253;
    if !bad {
        return Ok(());
    }
    let cause = Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {name:?}: is not a valid name"),
        field: "metadata.name".to_owned(),
    };
    Err(ApiError::invalid(kind.group, kind.kind, name, vec![cause]))
}

#[expect(clippy::too_many_arguments, reason = "where an object is takes four words: kind, namespace, name, subresource")]
impl Registry {
    pub async fn create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        let kind = kind.storage();
        let namespace = if kind.namespaced { namespace } else { "" };
        meta::place(kind, namespace, &mut object)?;
        if meta::resource_version(&object)?.is_some() {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        meta::begin(&mut object, &uuid::Uuid::new_v4().to_string(), &meta::timestamp(jiff::Timestamp::now()));
        (kind.defaults)(&mut object);
        self.admit_create(kind, namespace, &mut object, options).await?;
        (kind.prepare)(Op::Create, None, &mut object, None);
        let base = meta::text(&object, "generateName").to_owned();
        let generated = meta::name(&object).is_empty() && !base.is_empty();
        for attempt in 1.. {
            let mut candidate = object.clone();
            if generated {
                let name = meta::generated_name(&base, random_below);
                if let Some(metadata) = meta::metadata(&mut candidate) {
                    metadata.insert("name".to_owned(), Value::String(name));
                }
            }
            match self.create_named(kind, namespace, candidate, options).await {
                Err(error) if generated && error.is_already_exists() && attempt < NAME_TRIES => continue,
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn create_named(
        &self,
        kind: &'static Kind,
        namespace: &str,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        let name = meta::name(&object).to_owned();
        if name.is_empty() {
            let message = "Required value: name or generateName is required".to_owned();
            let cause = Cause { reason: "FieldValueRequired".to_owned(), message, field: "metadata.name".to_owned() };
            return Err(ApiError::invalid(kind.group, kind.kind, "", vec![cause]));
        }
        check_name(kind, &name)?;
        let errors = (kind.validate)(Op::Create, None, &object, None);
        if !errors.is_empty() {
            return Err(invalid(kind, &name, errors));
        }
        let key = key(kind, namespace, &name);
        if self.inner.store.get(&key).is_some() {
            return Err(ApiError::already_exists(kind.group, kind.plural, &name));
        }
        let claim = self.inner.services.claim(kind, &mut object, None)?;
        if options.dry_run {
            return Ok(Arc::new(object));
        }
        let item = self.inner.store.put(&key, Expect::Absent, object).await.map_err(|e| store_error(kind, &name, e))?;
        claim.keep();
        Ok(item.object)
    }

    /// Replaces an object or the part of it that the subresource covers. A `Scale` body for `Sub::Scale`.
    pub async fn update(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        sub: Option<Sub>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        self.update_or_create(kind, namespace, name, sub, object, options).await.map(|(object, _)| object)
    }

    /// As `update`; true if the object was created by it.
    pub async fn update_or_create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        sub: Option<Sub>,
        object: Value,
        options: &WriteOptions,
    ) -> Result<(Arc<Value>, bool), ApiError> {
        let kind = kind.storage();
        let said = meta::name(&object);
        if !said.is_empty() && said != name {
            let message = format!("the name of the object ({said}) does not match the name on the URL ({name})");
            return Err(ApiError::bad_request(message));
        }
        let stated = meta::resource_version(&object)?;
        if stated.is_none() && sub.is_none() && must_state_revision(kind) && self.exists(kind, namespace, name) {
            let cause = Cause {
                reason: "FieldValueInvalid".to_owned(),
                message: "Invalid value: 0: must be specified for an update".to_owned(),
                field: "metadata.resourceVersion".to_owned(),
            };
            return Err(ApiError::invalid(kind.group, kind.kind, name, vec![cause]));
        }
        let replace = |old: &Value| {
            let mut new = if sub == Some(Sub::Scale) { scaled(old, &object)? } else { object.clone() };
            if stated.is_none()
                && let Some(metadata) = meta::metadata(&mut new)
            {
                metadata.insert("resourceVersion".to_owned(), old["metadata"]["resourceVersion"].clone());
            }
            Ok(Some(new))
        };
        match self.change(kind, namespace, name, sub, stated.is_none(), replace, options).await {
            Err(error) if error.is_not_found() && sub.is_none() && stated.is_none() && created_by_update(kind) => {
                let mut object = object.clone();
                if let Some(metadata) = meta::metadata(&mut object) {
                    metadata.insert("name".to_owned(), Value::String(name.to_owned()));
                }
                Ok((self.create(kind, namespace, object, options).await?, true))
            }
            result => result.map(|object| (object, false)),
        }
    }

    fn exists(&self, kind: &'static Kind, namespace: &str, name: &str) -> bool {
        let namespace = if kind.namespaced { namespace } else { "" };
        self.inner.store.get(&key(kind, namespace, name)).is_some()
    }

    /// Changes the latest state with a closure, again if another writer was faster; false: leave it. For `Sub::Scale` the
    /// closure sees the whole object.
    pub async fn modify(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        sub: Option<Sub>,
        mut change: impl FnMut(&mut Value) -> bool + Send,
    ) -> Result<Arc<Value>, ApiError> {
        let edit = |old: &Value| {
            let mut new = old.clone();
            Ok(change(&mut new).then_some(new))
        };
        self.change(kind.storage(), namespace, name, sub, true, edit, &WriteOptions::default()).await
    }

    /// Answers with the whole object, for `Sub::Scale` too; the patch of a scale applies to its `Scale`.
    pub async fn patch(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        sub: Option<Sub>,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        let edit = |old: &Value| {
            if sub == Some(Sub::Scale) {
                let scale = patch.apply(kind, name, &kinds::scale::of(old))?;
                return scaled(old, &scale).map(Some);
            }
            let seen = match kind.view {
                Some(view) => (view.from_stored)(old),
                None => old.clone(),
            };
            let mut patched = patch.apply(kind, name, &seen)?;
            kinds::schema::type_check(kind, &patched).map_err(|e| invalid(kind, name, vec![e]))?;
            kinds::schema::prune(kind, &mut patched);
            let said = meta::name(&patched);
            if said != name {
                let cause = Cause {
                    reason: "FieldValueInvalid".to_owned(),
                    message: format!("Invalid value: {said:?}: field is immutable"),
                    field: "metadata.name".to_owned(),
                };
                return Err(ApiError::invalid(kind.group, kind.kind, name, vec![cause]));
            }
            Ok(Some(match kind.view {
                Some(view) => (view.to_stored)(patched),
                None => patched,
            }))
        };
        self.change(kind.storage(), namespace, name, sub, true, edit, options).await
    }

    /// The loop that all updates share. `edit` makes the wanted state from the stored one, or says that nothing is to do.
    pub(super) async fn change(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        sub: Option<Sub>,
        retry: bool,
        mut edit: impl FnMut(&Value) -> Result<Option<Value>, ApiError> + Send,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        let namespace = if kind.namespaced { namespace } else { "" };
        let key = key(kind, namespace, name);
        for _ in 0..UPDATE_TRIES {
            let item = self.inner.store.get(&key).ok_or_else(|| ApiError::not_found(kind.group, kind.plural, name))?;
            let Some(new) = edit(&item.object)? else { return Ok(item.object) };
            let new = self.prepare_update(kind, namespace, sub, &item, new, options).await?;
            match self.store_update(kind, &key, &item, new, options).await {
                Err(StoreOutcome::Stored(StoreError::Stale { .. })) if retry => continue,
                Err(StoreOutcome::Stored(error)) => return Err(store_error(kind, name, error)),
                Err(StoreOutcome::Refused(error)) => return Err(error),
                Ok(object) => return Ok(object),
            }
        }
        Err(ApiError::stale(kind.group, kind.plural, name))
    }

    async fn prepare_update(
        &self,
        kind: &'static Kind,
        namespace: &str,
        sub: Option<Sub>,
        item: &Item,
        mut new: Value,
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        let old = &*item.object;
        let name = meta::name(old).to_owned();
        meta::place(kind, namespace, &mut new)?;
        if let Some(stated) = meta::resource_version(&new)?
            && stated != item.revision
        {
            return Err(ApiError::stale(kind.group, kind.plural, &name));
        }
        if let Some(metadata) = meta::metadata(&mut new) {
            metadata.insert("name".to_owned(), Value::String(name.clone()));
            metadata.insert("resourceVersion".to_owned(), Value::String(item.revision.to_string()));
        }
        meta::carry_over(kind, &mut new, old)?;
        (kind.defaults)(&mut new);
        if sub != Some(Sub::Binding) {
            (kind.prepare)(Op::Update, sub, &mut new, Some(old));
        }
        admission::restrict_node(kind, Op::Update, sub, &new, Some(old), &options.user)?;
        meta::check_update(kind, &new, old)?;
        let errors = (kind.validate)(Op::Update, sub, &new, Some(old));
        if errors.is_empty() { Ok(new) } else { Err(invalid(kind, &name, errors)) }
    }

    async fn store_update(
        &self,
        kind: &'static Kind,
        key: &str,
        item: &Item,
        mut new: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, StoreOutcome> {
        let claim = self.inner.services.claim(kind, &mut new, Some(&item.object)).map_err(StoreOutcome::Refused)?;
        if meta::same(&new, &item.object) {
            return Ok(Arc::clone(&item.object));
        }
        if options.dry_run {
            return Ok(Arc::new(new));
        }
        if super::delete::is_finished(kind, &new) {
            let gone = self.inner.store.delete(key, item.revision).await.map_err(StoreOutcome::Stored)?;
            self.inner.services.release(kind, &item.object);
            return Ok(gone.object);
        }
        let stored = self.inner.store.put(key, Expect::Revision(item.revision), new).await.map_err(StoreOutcome::Stored)?;
        claim.keep();
        Ok(stored.object)
    }
}

enum StoreOutcome {
    Refused(ApiError),
    Stored(StoreError),
}

/// The object with the replicas of a `Scale`; the revision the Scale states stays a condition.
fn scaled(old: &Value, scale: &Value) -> Result<Value, ApiError> {
    if !scale.pointer("/spec/replicas").is_none_or(|r| r.as_i64().is_some_and(|n| (0..=i64::from(i32::MAX)).contains(&n))) {
        let value = scale.pointer("/spec/replicas").cloned().unwrap_or_default();
        let cause = Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {value}: must be greater than or equal to 0"),
            field: "spec.replicas".to_owned(),
        };
        return Err(ApiError::invalid("autoscaling", "Scale", meta::name(old), vec![cause]));
    }
    let mut new = old.clone();
    kinds::scale::apply(&mut new, scale);
    let stated = meta::text(scale, "resourceVersion");
    if !stated.is_empty()
        && let Some(metadata) = meta::metadata(&mut new)
    {
        metadata.insert("resourceVersion".to_owned(), Value::String(stated.to_owned()));
    }
    Ok(new)
}
