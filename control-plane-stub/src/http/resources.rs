//! The verbs on API objects: from a request to calls of the registry and back. Must never decide what the API means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body::{self, Body};
use super::negotiate::{self, Answer, Encoding, View};
use super::route::{Query, ResourceTarget};
use super::{Api, proxy, watch};
use crate::kinds::selector::{FieldSelector, LabelSelector};
use crate::kinds::table::{self, IncludeObject};
use crate::kinds::{self, Kind, Sub, Verb};
use crate::registry::{List, ListOptions, RevisionMatch, User, WatchOptions, meta};
use crate::status::{ApiError, Cause};

mod write;

/// One request about objects of one kind.
struct Call<'a> {
    api: &'a Api,
    kind: &'static Kind,
    target: ResourceTarget,
    sub: Option<Sub>,
    query: Query,
    answer: Answer,
    user: Arc<User>,
    warnings: Vec<String>,
}

const OBJECT_VIEWS: &[View] = &[View::Table, View::Partial];
const LIST_VIEWS: &[View] = &[View::Table, View::PartialList, View::Partial];

pub async fn handle(
    api: &Api,
    target: ResourceTarget,
    query: Query,
    user: Arc<User>,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let unknown = || ApiError::new(crate::status::Reason::NotFound, "the server could not find the requested resource");
    let kind = target.kind().ok_or_else(unknown)?;
    let sub = target.subresource().ok_or_else(unknown)?;
    if sub.is_some_and(|s| !kind.has(s)) || (!target.namespace.is_empty() && !kind.namespaced) {
        return Err(unknown());
    }
    if kind.namespaced && target.namespace.is_empty() && !target.name.is_empty() {
        return Err(unknown());
    }
    if let Some(sub @ (Sub::Log | Sub::Exec | Sub::Attach | Sub::PortForward | Sub::Proxy)) = sub {
        return proxy::handle(api, kind, sub, &target, &query, request).await;
    }
    let views = if target.name.is_empty() { LIST_VIEWS } else { OBJECT_VIEWS };
    let accept = request.headers().get(http::header::ACCEPT).and_then(|h| h.to_str().ok());
    let answer = negotiate::answer(accept, views)?;
    let mut call = Call { api, kind, target, sub, query, answer, user, warnings: Vec::new() };
    let mut response = call.dispatch(request).await?;
    for warning in call.warnings {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = format!("299 - \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = http::HeaderValue::from_str(&text) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    Ok(response)
}

fn decision_verb(method: &Method, named: bool, watching: bool) -> Option<Verb> {
    Some(match (method.as_str(), named) {
        ("GET" | "HEAD", true) => Verb::Get,
        ("GET" | "HEAD", false) if watching => Verb::Watch,
        ("GET" | "HEAD", false) => Verb::List,
        ("POST", _) => Verb::Create,
        ("PUT", true) => Verb::Update,
        ("PATCH", true) => Verb::Patch,
        ("DELETE", true) => Verb::Delete,
        ("DELETE", false) => Verb::DeleteCollection,
        _ => return None,
    })
}

impl Call<'_> {
    fn namespace(&self) -> Option<&str> {
        if self.target.namespace.is_empty() { None } else { Some(&self.target.namespace) }
    }

    async fn dispatch(&mut self, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
        let named = !self.target.name.is_empty();
        let watching = self.query.flag("watch");
        let refused = || ApiError::method_not_allowed(self.kind.group, self.kind.plural, request.method().as_str());
        let verb = decision_verb(request.method(), named, watching).ok_or_else(refused)?;
        let allowed = match self.sub {
            None => self.kind.allows(verb) && !(verb == Verb::Create && named),
            Some(sub) => sub.verbs().contains(&verb) || (sub == Sub::Status && verb == Verb::Get),
        };
        if !allowed {
            return Err(refused());
        }
        let (parts, incoming) = request.into_parts();
        let media = negotiate::media(parts.headers.get(http::header::CONTENT_TYPE).and_then(|h| h.to_str().ok())).to_owned();
        let bytes = match verb {
            Verb::Get | Verb::List | Verb::Watch => Bytes::new(),
            _ => body::read(incoming).await?,
        };
        match (verb, self.sub) {
            (Verb::Get, _) if watching && self.sub.is_none() => self.watch_one(),
            (Verb::Get, _) => self.get().await,
            (Verb::List, _) => self.list().await,
            (Verb::Watch, _) => self.watch(),
            (Verb::Create, Some(sub)) => self.post_sub(sub, &media, &bytes).await,
            (Verb::Create, None) if !self.kind.is_stored() => self.review(&media, &bytes).await,
            (Verb::Create, None) => self.create(&media, &bytes).await,
            (Verb::Update, _) => self.update(&media, &bytes).await,
            (Verb::Patch, _) => self.patch(&media, &bytes).await,
            (Verb::Delete, _) => self.delete(&media, &bytes).await,
            (Verb::DeleteCollection, _) => self.delete_collection(&media, &bytes).await,
        }
    }

    // Showing.

    fn shown(&self, object: &Value) -> Option<Value> {
        self.kind.view.map(|view| (view.from_stored)(object))
    }

    fn include(&self) -> Result<IncludeObject, ApiError> {
        let text = self.query.get("includeObject");
        IncludeObject::parse(text).ok_or_else(|| ApiError::bad_request(format!("unsupported includeObject value: {text:?}")))
    }

    fn object(&self, status: StatusCode, object: &Value) -> Result<Response<Body>, ApiError> {
        let encoding = self.answer.encoding;
        match self.answer.view {
            View::Table => {
                let meta = json!({"resourceVersion": meta::text(object, "resourceVersion")});
                let table = table::render(self.kind, [object], meta, self.include()?, jiff::Timestamp::now());
                body::object(status, encoding, &table)
            }
            View::Partial | View::PartialList => body::object(status, encoding, &watch::partial(object)),
            View::Plain | View::Discovery => match self.shown(object) {
                Some(shown) => body::object(status, encoding, &shown),
                None => body::object(status, encoding, object),
            },
        }
    }

    fn list_meta(list: &List) -> Value {
        let mut meta = json!({"resourceVersion": list.revision.to_string()});
        if let Some(token) = &list.continue_token {
            meta["continue"] = json!(token);
            if let Some(remaining) = list.remaining {
                meta["remainingItemCount"] = json!(remaining);
            }
        }
        meta
    }

    fn list_body(&self, list: &List) -> Result<Response<Body>, ApiError> {
        let encoding = self.answer.encoding;
        let meta = Self::list_meta(list);
        let items = list.items.iter().map(|o| &**o);
        match self.answer.view {
            View::Table => {
                let table = table::render(self.kind, items, meta, self.include()?, jiff::Timestamp::now());
                body::object(StatusCode::OK, encoding, &table)
            }
            View::Partial | View::PartialList => {
                let items: Vec<Value> = items.map(watch::partial).collect();
                let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items});
                body::object(StatusCode::OK, encoding, &list)
            }
            View::Plain | View::Discovery if encoding == Encoding::Json => self.plain_list(list, &meta),
            View::Plain | View::Discovery => {
                let items: Vec<Value> = items.map(|o| self.shown(o).unwrap_or_else(|| o.clone())).collect();
                let list = json!({"kind": self.kind.list_kind(), "apiVersion": self.kind.api_version(), "metadata": meta, "items": items});
                body::object(StatusCode::OK, encoding, &list)
            }
        }
    }

    /// Written piece by piece: a list of thousands is never copied as a tree.
    fn plain_list(&self, list: &List, meta: &Value) -> Result<Response<Body>, ApiError> {
        let head = format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
            self.kind.list_kind(),
            self.kind.api_version()
        );
        let mut bytes = head.into_bytes();
        for (i, item) in list.items.iter().enumerate() {
            if i > 0 {
                bytes.push(b',');
            }
            match self.shown(item) {
                Some(shown) => serde_json::to_writer(&mut bytes, &shown),
                None => serde_json::to_writer(&mut bytes, &**item),
            }
            .map_err(ApiError::internal)?;
        }
        bytes.extend_from_slice(b"]}\n");
        Ok(body::respond(StatusCode::OK, "application/json", body::full(bytes)))
    }

    // Reading.

    async fn get(&self) -> Result<Response<Body>, ApiError> {
        let since = meta::parse_revision(self.query.get("resourceVersion"), "resourceVersion")?.unwrap_or(0);
        let object = self.api.registry.get_since(self.kind, &self.target.namespace, &self.target.name, since).await?;
        if self.sub == Some(Sub::Scale) {
            return body::object(StatusCode::OK, self.answer.encoding, &kinds::scale::of(&object));
        }
        self.object(StatusCode::OK, &object)
    }

    fn selectors(&self) -> Result<(LabelSelector, FieldSelector), ApiError> {
        let labels = LabelSelector::parse(self.query.get("labelSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let fields =
            FieldSelector::parse(self.kind, self.query.get("fieldSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?;
        Ok((labels, fields))
    }

    fn revision_match(&self) -> Result<Option<RevisionMatch>, ApiError> {
        match self.query.get("resourceVersionMatch") {
            "" => Ok(None),
            "Exact" => Ok(Some(RevisionMatch::Exact)),
            "NotOlderThan" => Ok(Some(RevisionMatch::NotOlderThan)),
            other => Err(self.bad_list_option(
                "FieldValueNotSupported",
                "resourceVersionMatch",
                &format!("Unsupported value: {other:?}"),
            )),
        }
    }

    fn bad_list_option(&self, reason: &str, field: &str, message: &str) -> ApiError {
        let cause = Cause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() };
        ApiError::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
    }

    fn list_options(&self) -> Result<ListOptions, ApiError> {
        let (labels, fields) = self.selectors()?;
        let revision_match = self.revision_match()?;
        let stated = self.query.get("resourceVersion");
        if revision_match.is_some() && stated.is_empty() {
            let message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(self.bad_list_option("FieldValueForbidden", "resourceVersionMatch", message));
        }
        let limit = match self.query.get("limit") {
            "" => 0,
            text => {
                text.parse::<i64>().map_err(|_| ApiError::bad_request(format!("limit {text:?} is not a number")))?.max(0) as usize
            }
        };
        let token = self.query.get("continue");
        if !token.is_empty() && !matches!(stated, "" | "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(ListOptions {
            labels,
            fields,
            limit,
            continue_token: (!token.is_empty()).then(|| token.to_owned()),
            revision: meta::parse_revision(stated, "resourceVersion")?,
            revision_match,
        })
    }

    async fn list(&self) -> Result<Response<Body>, ApiError> {
        let list = self.api.registry.list(self.kind, self.namespace(), &self.list_options()?).await?;
        self.list_body(&list)
    }

    fn watch(&self) -> Result<Response<Body>, ApiError> {
        let (labels, fields) = self.selectors()?;
        self.follow(labels, fields)
    }

    /// `?watch` on one object, which old clients still ask for.
    fn watch_one(&self) -> Result<Response<Body>, ApiError> {
        let fields = FieldSelector::parse(self.kind, &format!("metadata.name={}", self.target.name))
            .map_err(|e| ApiError::bad_request(e.to_string()))?;
        self.follow(LabelSelector::default(), fields)
    }

    fn follow(&self, labels: LabelSelector, fields: FieldSelector) -> Result<Response<Body>, ApiError> {
        let bookmarks = self.query.flag("allowWatchBookmarks");
        let initial = self.query.get("sendInitialEvents");
        let revision_match = self.revision_match()?;
        if !initial.is_empty() && revision_match != Some(RevisionMatch::NotOlderThan) {
            let message = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(self.bad_list_option("FieldValueForbidden", "resourceVersionMatch", message));
        }
        if initial.is_empty() && revision_match.is_some() {
            let message = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(self.bad_list_option("FieldValueForbidden", "resourceVersionMatch", message));
        }
        let stated = meta::parse_revision(self.query.get("resourceVersion"), "resourceVersion")?;
        let streaming = self.query.flag("sendInitialEvents");
        // `sendInitialEvents=false` without a revision starts now.
        let from = match (streaming, initial, stated) {
            (true, ..) => None,
            (false, "", stated) => stated,
            (false, _, stated) => Some(stated.unwrap_or_else(|| self.api.registry.revision())),
        };
        let options = WatchOptions {
            labels,
            fields,
            from,
            initial_events_end: streaming && bookmarks,
            bookmarks: bookmarks.then_some(watch::BOOKMARK_EVERY),
        };
        let seconds = match self.query.get("timeoutSeconds") {
            "" => rand::random_range(1800..3600),
            text => text.parse().map_err(|_| ApiError::bad_request(format!("timeoutSeconds {text:?} is not a number")))?,
        };
        let events = self.api.registry.watch_with(self.kind, self.namespace(), options);
        let shape = watch::Shape { kind: self.kind, view: self.answer.view, include: self.include()? };
        let stream = watch::body(events, shape, Duration::from_secs(seconds));
        Ok(body::respond(StatusCode::OK, "application/json", stream))
    }
}
