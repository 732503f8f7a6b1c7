//! The verbs that change objects.

use super::Call;
use crate::http::body::{self, Body};
use crate::http::negotiate;
use crate::http::reviews;
use crate::kinds::{self, Sub, schema};
use crate::registry::{DeleteOptions, Deleted, Patch, PatchKind, Propagation, WriteOptions, meta};
use crate::status::{ApiError, Cause};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

impl Call<'_> {
    fn write_options(&self) -> Result<WriteOptions, ApiError> {
        Ok(WriteOptions { dry_run: self.dry_run()?, user: Arc::clone(&self.user) })
    }

    fn dry_run(&self) -> Result<bool, ApiError> {
        match self.query.all("dryRun").collect::<Vec<_>>().as_slice() {
            [] | [""] => Ok(false),
            ["All"] => Ok(true),
            other => Err(ApiError::bad_request(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""))),
        }
    }

    /// A body of this kind: decoded, its unknown fields reported as asked and dropped, its types checked.
    fn decode(&mut self, media: &str, bytes: &[u8]) -> Result<Value, ApiError> {
        let mut object = body::decode(media, bytes)?;
        if !object.is_object() {
            return Err(ApiError::bad_request(format!("the body must be a {}", self.kind.kind)));
        }
        let mut problems: Vec<String> = if media.contains("yaml") { Vec::new() } else { schema::duplicate_fields(bytes) };
        problems.extend(schema::unknown_fields(self.kind, &object));
        self.report(problems)?;
        schema::prune(self.kind, &mut object);
        schema::type_check(self.kind, &object).map_err(|e| {
            let message =
                format!("{} in version {:?} cannot be handled as a {}: {e}", self.kind.kind, self.kind.version, self.kind.kind);
            ApiError::bad_request(message).with_cause(e.reason.cause(), e.message(), e.field)
        })?;
        Ok(object)
    }

    fn report(&mut self, problems: Vec<String>) -> Result<(), ApiError> {
        match self.query.get("fieldValidation") {
            _ if problems.is_empty() => Ok(()),
            "Strict" => {
                let message = format!(
                    "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                    self.kind.kind,
                    self.kind.version,
                    self.kind.kind,
                    problems.join(", ")
                );
                Err(ApiError::bad_request(message))
            }
            "Ignore" => Ok(()),
            "Warn" | "" => {
                self.warnings.extend(problems);
                Ok(())
            }
            other => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    fn stored(&self, object: Value) -> Value {
        match self.kind.view {
            Some(view) => (view.to_stored)(object),
            None => object,
        }
    }

    pub(super) async fn create(&mut self, media: &str, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
        let mut object = self.decode(media, bytes)?;
        let body_namespace = meta::namespace(&object).to_owned();
        meta::place(self.kind, if self.kind.namespaced { &self.target.namespace } else { "" }, &mut object).inspect_err(
            |_| {
                tracing::debug!(body_namespace, "body does not fit its place");
            },
        )?;
        if self.kind.namespaced && self.target.namespace.is_empty() {
            return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
        }
        let object = self.stored(object);
        let options = self.write_options()?;
        let made = self.api.registry.create(self.kind, &self.target.namespace, object, &options).await?;
        self.object(StatusCode::CREATED, &made)
    }

    pub(super) async fn update(&mut self, media: &str, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
        let options = self.write_options()?;
        let (registry, target) = (&self.api.registry, self.target.clone());
        if self.sub == Some(Sub::Scale) {
            let scale = body::decode(media, bytes)?;
            let object = registry.update(self.kind, &target.namespace, &target.name, self.sub, scale, &options).await?;
            return body::object(StatusCode::OK, self.answer.encoding, &kinds::scale::of(&object));
        }
        let mut object = self.decode(media, bytes)?;
        meta::place(self.kind, &target.namespace, &mut object)?;
        let object = self.stored(object);
        let (object, created) =
            registry.update_or_create(self.kind, &target.namespace, &target.name, self.sub, object, &options).await?;
        self.object(if created { StatusCode::CREATED } else { StatusCode::OK }, &object)
    }

    pub(super) async fn patch(&mut self, media: &str, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
        let kind = match media {
            "application/json-patch+json" => PatchKind::Json,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/strategic-merge-patch+json" => PatchKind::Strategic,
            other => {
                let accepted =
                    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
                return Err(negotiate::unsupported(other, &accepted));
            }
        };
        let options = self.write_options()?;
        let patch = Patch { kind, body: body::decode_json(bytes)? };
        if kind != PatchKind::Json && self.sub != Some(Sub::Scale) {
            // Directives of strategic patches are no fields.
            let problems = schema::unknown_fields(self.kind, &patch.body);
            self.report(problems.into_iter().filter(|p| !p.contains('$')).collect())?;
        }
        let target = &self.target;
        let object = self.api.registry.patch(self.kind, &target.namespace, &target.name, self.sub, &patch, &options).await?;
        if self.sub == Some(Sub::Scale) {
            return body::object(StatusCode::OK, self.answer.encoding, &kinds::scale::of(&object));
        }
        self.object(StatusCode::OK, &object)
    }

    pub(super) async fn review(&mut self, media: &str, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
        let review = self.decode(media, bytes)?;
        let answer = reviews::answer(self.kind, &self.target.namespace, review, &self.user, &self.api.authn).await?;
        body::object(StatusCode::CREATED, self.answer.encoding, &answer)
    }

    pub(super) async fn post_sub(&mut self, sub: Sub, media: &str, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
        let object = body::decode(media, bytes)?;
        let (namespace, name) = (self.target.namespace.clone(), self.target.name.clone());
        let options = self.write_options()?;
        let registry = &self.api.registry;
        let success = || json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        let answer = match sub {
            Sub::Binding => {
                registry.bind(&namespace, &name, &object, &options).await?;
                success()
            }
            Sub::Eviction => {
                let mut delete = delete_options(object.get("deleteOptions").unwrap_or(&Value::Null))?;
                delete.dry_run |= options.dry_run;
                registry.evict(&namespace, &name, &delete, &options).await?;
                success()
            }
            Sub::Token => reviews::token_request(registry, &self.api.authn.tokens, &self.user, &namespace, &name, object).await?,
            other => return Err(ApiError::method_not_allowed(self.kind.group, other.name(), "POST")),
        };
        body::object(StatusCode::CREATED, self.answer.encoding, &answer)
    }

    fn delete_options(&self, media: &str, bytes: &[u8]) -> Result<DeleteOptions, ApiError> {
        let asked = if bytes.is_empty() { Value::Null } else { body::decode(media, bytes)? };
        let mut options = delete_options(&asked)?;
        let grace = self.query.get("gracePeriodSeconds");
        if !grace.is_empty() {
            let bad = |_| ApiError::bad_request(format!("gracePeriodSeconds {grace:?} is not a number"));
            options.grace_period_seconds = Some(grace.parse().map_err(bad)?);
        }
        let policy = self.query.get("propagationPolicy");
        if !policy.is_empty() {
            options.propagation = Some(propagation(policy)?);
        }
        options.dry_run |= self.dry_run()?;
        Ok(options)
    }

    pub(super) async fn delete(&self, media: &str, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
        let options = self.delete_options(media, bytes)?;
        let (kind, target) = (self.kind, &self.target);
        let Deleted { object, gone } = self.api.registry.delete(kind, &target.namespace, &target.name, &options).await?;
        if !gone {
            return self.object(StatusCode::OK, &object);
        }
        let mut details = json!({"name": target.name, "kind": kind.plural, "uid": meta::uid(&object)});
        if !kind.group.is_empty() {
            details["group"] = json!(kind.group);
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        body::object(StatusCode::OK, self.answer.encoding, &status)
    }

    pub(super) async fn delete_collection(&self, media: &str, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
        let options = self.delete_options(media, bytes)?;
        let list = self.api.registry.delete_collection(self.kind, self.namespace(), &self.list_options()?, &options).await?;
        self.list_body(&list)
    }
}

fn propagation(text: &str) -> Result<Propagation, ApiError> {
    match text {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => {
            let message = format!("Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\"");
            let cause = Cause { reason: "FieldValueNotSupported".into(), message, field: "propagationPolicy".into() };
            Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]))
        }
    }
}

/// The body of a delete. Pure.
fn delete_options(body: &Value) -> Result<DeleteOptions, ApiError> {
    if !(body.is_null() || body.is_object()) {
        return Err(ApiError::bad_request("the body of a delete must be DeleteOptions"));
    }
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let mut policy = match body.get("propagationPolicy").and_then(Value::as_str) {
        Some(policy) => Some(propagation(policy)?),
        None => None,
    };
    if let Some(orphan) = body.get("orphanDependents").and_then(Value::as_bool) {
        if policy.is_some() {
            return Err(ApiError::bad_request("orphanDependents and propagationPolicy cannot both be set"));
        }
        policy = Some(if orphan { Propagation::Orphan } else { Propagation::Background });
    }
    let dry = body.get("dryRun").and_then(Value::as_array).is_some_and(|d| d.iter().any(|d| d == "All"));
    Ok(DeleteOptions {
        grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation: policy,
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        dry_run: dry,
    })
}
