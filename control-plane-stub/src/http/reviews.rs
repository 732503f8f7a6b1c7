//! Questions that are posted and answered, never stored: who is this token, may this user do that, and new tokens.

use std::sync::Arc;

use serde_json::{Value, json};

use super::authn::Authenticator;
use super::authz::{self, Attributes, Decision};
use crate::kinds::{self, Kind};
use crate::registry::{Registry, User, meta};
use crate::status::{ApiError, Cause};
use crate::tokens::{self, Bound, Claims, Ref, Tokens};

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn user_json(user: &User) -> Value {
    let mut out = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        out["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        out["extra"] = Value::Object(user.extra.iter().map(|(k, v)| (k.clone(), json!(v))).collect());
    }
    out
}

fn required(kind: &str, group: &str, field: &str, message: &str) -> ApiError {
    let cause = Cause { reason: "FieldValueRequired".into(), message: format!("Required value: {message}"), field: field.into() };
    ApiError::invalid(group, kind, "", vec![cause])
}

/// Answers a review of any of the kinds.
pub async fn answer(
    kind: &'static Kind,
    namespace: &str,
    mut review: Value,
    user: &User,
    authn: &Authenticator,
) -> Result<Value, ApiError> {
    meta::place(kind, namespace, &mut review)?;
    let status = match kind.kind {
        "TokenReview" => token_review(&review, authn).await?,
        "SelfSubjectReview" => json!({"userInfo": user_json(user)}),
        "SelfSubjectAccessReview" => access(&authn.registry, user, &review).await?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let asked = review.get("spec").cloned().unwrap_or_default();
            let (name, groups) = (text(&asked, "/user").to_owned(), texts(asked.get("groups")));
            if name.is_empty() && groups.is_empty() {
                let message = "at least one of user or group must be specified";
                return Err(required(kind.kind, kind.group, "spec.user", message));
            }
            if kind.kind == "LocalSubjectAccessReview" && text(&asked, "/resourceAttributes/namespace") != namespace {
                let message = "spec.resourceAttributes.namespace must match the namespace of the request";
                return Err(ApiError::bad_request(message));
            }
            let other = User { name, uid: text(&asked, "/uid").to_owned(), groups, extra: Vec::new() };
            access(&authn.registry, &other, &review).await?
        }
        other => return Err(ApiError::internal(format!("{other} cannot be answered"))),
    };
    review["status"] = status;
    Ok(review)
}

async fn token_review(review: &Value, authn: &Authenticator) -> Result<Value, ApiError> {
    let token = text(review, "/spec/token");
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let mut audiences = texts(review.pointer("/spec/audiences"));
    let asked = !audiences.is_empty();
    if !asked {
        audiences.push(tokens::ISSUER.to_owned());
    }
    Ok(match authn.token(token, &audiences).await {
        Some((user, good)) => json!({"authenticated": true, "user": user_json(&user), "audiences": good}),
        None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
    })
}

async fn access(registry: &Registry, user: &User, review: &Value) -> Result<Value, ApiError> {
    let resource = review.pointer("/spec/resourceAttributes").filter(|v| v.is_object());
    let path = review.pointer("/spec/nonResourceAttributes").filter(|v| v.is_object());
    let ask = match (resource, path) {
        (Some(r), None) => Attributes {
            verb: text(r, "/verb").to_owned(),
            group: text(r, "/group").to_owned(),
            namespace: text(r, "/namespace").to_owned(),
            resource: text(r, "/resource").to_owned(),
            sub: text(r, "/subresource").to_owned(),
            name: text(r, "/name").to_owned(),
            field_selector: text(r, "/fieldSelector/rawSelector").to_owned(),
            path: None,
        },
        (None, Some(p)) => Attributes::path(text(p, "/verb"), text(p, "/path")),
        _ => {
            let message = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(ApiError::bad_request(message));
        }
    };
    Ok(match authz::authorize(registry, user, &ask).await {
        Decision::Allow => json!({"allowed": true}),
        Decision::Deny(reason) if reason.is_empty() => json!({"allowed": false}),
        Decision::Deny(reason) => json!({"allowed": false, "reason": reason}),
    })
}

const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// `POST serviceaccounts/NAME/token`.
pub async fn token_request(
    registry: &Registry,
    signer: &Arc<Tokens>,
    user: &User,
    namespace: &str,
    name: &str,
    mut request: Value,
) -> Result<Value, ApiError> {
    if !request.is_object() {
        return Err(ApiError::bad_request("the body must be a TokenRequest"));
    }
    let account = registry.get(&kinds::SERVICE_ACCOUNT, namespace, name).await?;
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
        let message = if seconds < MIN_SECONDS {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let cause = Cause {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: {seconds}: {message}"),
            field: "spec.expirationSeconds".into(),
        };
        return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, vec![cause]));
    }
    let mut audiences = texts(request.pointer("/spec/audiences"));
    if audiences.is_empty() {
        audiences.push(tokens::ISSUER.to_owned());
    }
    let mut bound = Bound {
        namespace: namespace.to_owned(),
        serviceaccount: Ref { name: name.to_owned(), uid: meta::uid(&account).to_owned() },
        pod: None,
        node: None,
        secret: None,
    };
    let reference = request.pointer("/spec/boundObjectRef").filter(|r| r.is_object()).cloned();
    if let Some(reference) = &reference {
        bind(registry, &mut bound, reference).await?;
    }
    if let Some(node) = user.node() {
        let its_own = bound.pod.is_some() && bound.node.as_ref().is_some_and(|n| n.name == node);
        if !its_own {
            let why = format!("node {node:?} can only ask for tokens bound to one of its own pods");
            return Err(ApiError::forbidden_object("", "serviceaccounts", name, &why));
        }
    }
    let now = jiff::Timestamp::now().as_second();
    let claims = Claims::new(bound, audiences.clone(), now, seconds, uuid::Uuid::new_v4().to_string());
    let token = signer.sign(&claims).map_err(ApiError::internal)?;
    let expires = jiff::Timestamp::from_second(claims.exp).map_err(ApiError::internal)?;
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["kind"] = json!("TokenRequest");
    request["metadata"] =
        json!({"name": name, "namespace": namespace, "creationTimestamp": meta::timestamp(jiff::Timestamp::now())});
    request["spec"] = json!({"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": reference});
    request["status"] = json!({"token": token, "expirationTimestamp": meta::timestamp(expires)});
    Ok(request)
}

async fn bind(registry: &Registry, bound: &mut Bound, reference: &Value) -> Result<(), ApiError> {
    let (kind, name, uid) = (text(reference, "/kind"), text(reference, "/name"), text(reference, "/uid"));
    let (kind, namespace) = match kind {
        "Pod" => (&kinds::POD, bound.namespace.clone()),
        "Secret" => (&kinds::SECRET, bound.namespace.clone()),
        "Node" => (&kinds::NODE, String::new()),
        other => return Err(ApiError::bad_request(format!("cannot bind token for serviceaccount to object of type {other:?}"))),
    };
    let object = registry.get(kind, &namespace, name).await?;
    if !uid.is_empty() && uid != meta::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(ApiError::conflict(kind.group, kind.plural, name, &why));
    }
    let found = Ref { name: name.to_owned(), uid: meta::uid(&object).to_owned() };
    match kind.kind {
        "Pod" => {
            let account = text(&object, "/spec/serviceAccountName");
            if account != bound.serviceaccount.name {
                let message = format!("cannot bind token to pod {name:?}: its service account is {account:?}");
                return Err(ApiError::bad_request(message));
            }
            let node = text(&object, "/spec/nodeName").to_owned();
            if !node.is_empty() {
                let uid = registry.get(&kinds::NODE, "", &node).await.map(|n| meta::uid(&n).to_owned()).unwrap_or_default();
                bound.node = Some(Ref { name: node, uid });
            }
            bound.pod = Some(found);
        }
        "Node" => bound.node = Some(found),
        _ => bound.secret = Some(found),
    }
    Ok(())
}
