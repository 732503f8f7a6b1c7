//! Status codes and bodies as kube-proxy has them. Pure.

use super::Progress;
use crate::model::{Family, Key};
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::SystemTime;

const JSON: &str = "application/json";
/// What Go writes for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub weight: Option<usize>,
    pub body: String,
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub fn service_answer(key: &Key, count: usize, healthy: bool) -> Answer {
    // Names and namespaces have nothing in them that JSON would escape.
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}",
        key.namespace, key.name
    );
    Answer { status: status(count > 0 && healthy), content_type: JSON, weight: Some(count), body }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, OfFamily>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfFamily {
    last_updated: String,
    healthy: bool,
}

/// `/healthz` asks for the node to be eligible too, `/livez` does not.
pub fn node_answer(path: &str, progress: &Progress, healthy: bool, eligible: bool, now: SystemTime) -> Answer {
    let (good, node_eligible) = match path {
        "/healthz" => (healthy && eligible, Some(eligible)),
        "/livez" => (healthy, None),
        _ => {
            let body = "404 page not found\n".into();
            return Answer { status: StatusCode::NOT_FOUND, content_type: "text/plain; charset=utf-8", weight: None, body };
        }
    };
    let updated = progress.updated.map_or_else(|| NEVER.into(), text);
    let families = progress.updated.map(|_| &progress.families).into_iter().flatten();
    let name = |f: &Family| match f {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let page = Node {
        last_updated: if good { text(now) } else { updated.clone() },
        current_time: text(now),
        node_eligible,
        healthy,
        status: families.map(|f| (name(f), OfFamily { last_updated: updated.clone(), healthy })).collect(),
    };
    // Strings, booleans and a map of both: there is nothing that could fail.
    let body = serde_json::to_string(&page).unwrap_or_default();
    Answer { status: status(good), content_type: JSON, weight: None, body }
}

fn text(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| NEVER.into(), |t| t.to_string())
}
