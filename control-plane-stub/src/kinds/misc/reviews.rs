//! Reviews: questions that are posted, answered in their status, and forgotten.

use crate::kinds::field::Errors;
use crate::kinds::meta::{self, str};
use crate::kinds::table::{NAME_AGE, name_age};
use crate::kinds::{FieldError, Kind, Op, REVIEW, Sub, schema};
use k8s_openapi::api::{authentication::v1 as authn, authorization::v1 as authz};
use serde_json::{Value, json};

/// What all reviews have in common; the rows below fill in the rest.
const BASE: Kind = Kind {
    group: "authorization.k8s.io",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: false,
    subresources: &[],
    verbs: REVIEW,
    view: None,
    defaults: |_| {},
    prepare: unanswered,
    validate: validate_access,
    selectable_fields: |_| Vec::new(),
    columns: NAME_AGE,
    cells: name_age,
    schema: schemars::SchemaGenerator::subschema_for::<authz::SubjectAccessReview>,
};

pub static SUBJECT_ACCESS_REVIEW: Kind = Kind {
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    defaults: |o| schema::normalize(&SUBJECT_ACCESS_REVIEW, o),
    ..BASE
};

pub static SELF_SUBJECT_ACCESS_REVIEW: Kind = Kind {
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    defaults: |o| schema::normalize(&SELF_SUBJECT_ACCESS_REVIEW, o),
    validate: validate_own_access,
    schema: schemars::SchemaGenerator::subschema_for::<authz::SelfSubjectAccessReview>,
    ..BASE
};

pub static LOCAL_SUBJECT_ACCESS_REVIEW: Kind = Kind {
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    namespaced: true,
    defaults: |o| schema::normalize(&LOCAL_SUBJECT_ACCESS_REVIEW, o),
    validate: validate_local_access,
    schema: schemars::SchemaGenerator::subschema_for::<authz::LocalSubjectAccessReview>,
    ..BASE
};

pub static TOKEN_REVIEW: Kind = Kind {
    group: "authentication.k8s.io",
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    defaults: |o| schema::normalize(&TOKEN_REVIEW, o),
    validate: validate_token,
    schema: schemars::SchemaGenerator::subschema_for::<authn::TokenReview>,
    ..BASE
};

pub static SELF_SUBJECT_REVIEW: Kind = Kind {
    group: "authentication.k8s.io",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    defaults: |o| schema::normalize(&SELF_SUBJECT_REVIEW, o),
    validate: |_, _, _, _| Vec::new(),
    schema: schemars::SchemaGenerator::subschema_for::<authn::SelfSubjectReview>,
    ..BASE
};

fn unanswered(_: Op, _: Option<Sub>, new: &mut Value, _: Option<&Value>) {
    meta::set(new, "status", json!({}));
}

fn validate_token(_: Op, _: Option<Sub>, new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    if str(&new["spec"], "token").is_empty() {
        e.required("spec.token", "");
    }
    e.0
}

fn attributes(e: &mut Errors, spec: &Value) {
    let resource = spec["resourceAttributes"].is_object();
    let plain = spec["nonResourceAttributes"].is_object();
    if resource == plain {
        let text = if resource {
            "cannot be specified in combination with resourceAttributes"
        } else {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        };
        let field = if resource { "spec.nonResourceAttributes" } else { "spec.resourceAttributes" };
        e.invalid(field, spec["nonResourceAttributes"].clone(), text);
    }
}

fn subject(e: &mut Errors, spec: &Value) {
    if str(spec, "user").is_empty() && meta::list(spec, "groups").is_empty() {
        e.invalid("spec.user", str(spec, "user"), "at least one of user or group must be specified");
    }
}

fn validate_access(_: Op, _: Option<Sub>, new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    attributes(&mut e, &new["spec"]);
    subject(&mut e, &new["spec"]);
    e.0
}

fn validate_own_access(_: Op, _: Option<Sub>, new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    attributes(&mut e, &new["spec"]);
    e.0
}

fn validate_local_access(op: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors(validate_access(op, sub, new, old));
    let (own, asked) = (str(&new["metadata"], "namespace"), str(&new["spec"]["resourceAttributes"], "namespace"));
    if own != asked {
        e.invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace");
    }
    e.0
}
