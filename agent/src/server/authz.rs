//! Whether somebody may: the API server is asked by SubjectAccessReview, about a subresource of this node.
//!
//! What is asked is pure (`attributes`). An error is a no. Members of system:masters are asked about like everybody:
//! it is the API server that knows what they may.

use super::authn::User;
use super::cache::Cache;
use crate::config::{Authorization, AuthorizationMode};
use http::Method;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::warn;

const REVIEW: Duration = Duration::from_secs(10);

/// A verb on subresources of the node; any one that is allowed suffices, the most specific comes first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub verb: &'static str,
    pub subresources: &'static [&'static str],
}

/// What a request needs. `None` for methods that no path has.
pub fn attributes(method: &Method, path: &str) -> Option<Attributes> {
    let verb = match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return None,
    };
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let subresources: &[&str] = match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    };
    Some(Attributes { verb, subresources })
}

pub struct Authorizer {
    client: kube::Client,
    node_name: String,
    config: Authorization,
    cache: Cache<(Arc<User>, &'static str, &'static str), bool>,
}

impl Authorizer {
    pub fn new(client: kube::Client, node_name: &str, config: &Authorization) -> Self {
        Authorizer { client, node_name: node_name.to_owned(), config: config.clone(), cache: Cache::new() }
    }

    pub async fn allows(&self, user: &Arc<User>, attributes: &Attributes) -> bool {
        if self.config.mode == AuthorizationMode::AlwaysAllow {
            return true;
        }
        for subresource in attributes.subresources {
            if self.allows_one(user, attributes.verb, subresource).await {
                return true;
            }
        }
        false
    }

    async fn allows_one(&self, user: &Arc<User>, verb: &'static str, subresource: &'static str) -> bool {
        let key = (user.clone(), verb, subresource);
        if let Some(known) = self.cache.get(&key, Instant::now()) {
            return known;
        }
        let review = self.review(user, verb, subresource);
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let allowed = match timeout(REVIEW, api.create(&PostParams::default(), &review)).await {
            Ok(Ok(review)) => review.status.is_some_and(|status| status.allowed && status.denied != Some(true)),
            Ok(Err(error)) => {
                warn!(user = user.name, error = %crate::api::watch::chain(&error), "cannot review access, refusing it");
                return false;
            }
            Err(_) => return false,
        };
        let ttl = if allowed { self.config.authorized_ttl } else { self.config.unauthorized_ttl };
        self.cache.put(key, allowed, ttl, Instant::now());
        allowed
    }

    fn review(&self, user: &User, verb: &str, subresource: &str) -> SubjectAccessReview {
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
                groups: Some(user.groups.clone()),
                extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(self.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }
}

#[cfg(test)]
mod tests;
