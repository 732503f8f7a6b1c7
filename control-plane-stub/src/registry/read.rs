//! get, list and watch.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{FUTURE_WAIT, List, ListOptions, Registry, key, prefix, store_error, too_large_revision};
use crate::kinds::Kind;
use crate::kinds::selector::{FieldSelector, LabelSelector};
use crate::status::{ApiError, Reason};
use crate::store::{Change, Event, Item, Page, StoreError, Watcher};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionMatch {
    Exact,
    NotOlderThan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

impl WatchKind {
    pub fn as_str(self) -> &'static str {
        match self {
            WatchKind::Added => "ADDED",
            WatchKind::Modified => "MODIFIED",
            WatchKind::Deleted => "DELETED",
            WatchKind::Bookmark => "BOOKMARK",
        }
    }
}

#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: WatchKind,
    pub object: Arc<Value>,
    pub revision: u64,
}

pub type WatchStream = BoxStream<'static, Result<WatchEvent, ApiError>>;

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// Nothing: begin with what is there, as Added.
    pub from: Option<u64>,
    /// Mark the end of what was there with a bookmark that says so.
    pub initial_events_end: bool,
    /// Send a bookmark when nothing was sent for so long.
    pub bookmarks: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
struct Continue {
    rv: u64,
    after: String,
}

struct Filter {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(self.kind, object)
    }

    /// What a watcher with selectors sees of a change: an object that leaves the selection is deleted, one that enters is added.
    fn see(&self, event: Event) -> Option<WatchEvent> {
        let before = event.previous.as_ref().is_some_and(|old| self.matches(old));
        let after = event.change != Change::Deleted && self.matches(&event.object);
        let kind = match (before, after) {
            (false, true) => WatchKind::Added,
            (true, true) => WatchKind::Modified,
            (true, false) => WatchKind::Deleted,
            (false, false) => return None,
        };
        // An object that left the selection is shown as it was when it was last in it, at the revision it left.
        let object = match (&event.previous, kind, event.change) {
            (Some(old), WatchKind::Deleted, Change::Modified) => {
                let mut old = (**old).clone();
                if let Some(metadata) = super::meta::metadata(&mut old) {
                    metadata.insert("resourceVersion".to_owned(), json!(event.revision.to_string()));
                }
                Arc::new(old)
            }
            _ => event.object,
        };
        Some(WatchEvent { kind, object, revision: event.revision })
    }
}

impl Registry {
    pub async fn get(&self, kind: &'static Kind, namespace: &str, name: &str) -> Result<Arc<Value>, ApiError> {
        let item = self.inner.store.get(&key(kind, namespace, name));
        item.map(|i| i.object).ok_or_else(|| ApiError::not_found(kind.group, kind.plural, name))
    }

    /// Like `get`, at least as new as a revision.
    pub async fn get_since(&self, kind: &'static Kind, namespace: &str, name: &str, since: u64) -> Result<Arc<Value>, ApiError> {
        self.wait_for(since).await?;
        self.get(kind, namespace, name).await
    }

    async fn wait_for(&self, revision: u64) -> Result<(), ApiError> {
        match tokio::time::timeout(FUTURE_WAIT, self.inner.store.reached(revision)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ApiError::internal(error)),
            Err(_) => Err(too_large_revision(revision, self.revision())),
        }
    }

    pub async fn list(&self, kind: &'static Kind, namespace: Option<&str>, options: &ListOptions) -> Result<List, ApiError> {
        let filter = Filter { kind, labels: options.labels.clone(), fields: options.fields.clone() };
        let prefix = prefix(kind, namespace.filter(|_| kind.namespaced));
        let (mut at, mut after) = match &options.continue_token {
            Some(token) => {
                let token = decode_continue(token)?;
                (Some(token.rv), Some(format!("{}{}", prefix, token.after)))
            }
            None => (self.list_revision(options).await?, None),
        };
        let mut items = Vec::new();
        loop {
            // Pages are as long as what is still wanted, so that a page never ends between two pages of the store.
            let want = if options.limit == 0 { 0 } else { options.limit - items.len() };
            let page =
                self.page(&prefix, at, after.as_deref(), want).await.map_err(|e| list_error(kind, &options.continue_token, e))?;
            at = Some(page.revision);
            after = page.items.last().map(|i| i.key.to_string()).or(after);
            items.extend(page.items.into_iter().map(|i| i.object).filter(|o| filter.matches(o)));
            let full = options.limit > 0 && items.len() >= options.limit;
            if page.more && !full {
                continue;
            }
            let last = after.as_deref().and_then(|a| a.strip_prefix(&prefix)).unwrap_or_default();
            let continue_token = if page.more { Some(encode_continue(page.revision, last)) } else { None };
            let remaining = page.remaining.filter(|n| *n > 0 && filter.is_everything());
            return Ok(List { items, revision: page.revision, continue_token, remaining });
        }
    }

    async fn page(&self, prefix: &str, at: Option<u64>, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        match at {
            Some(revision) => self.inner.store.list_at(prefix, revision, after, limit).await,
            None => Ok(self.inner.store.list(prefix, after, limit)),
        }
    }

    /// The revision a list is to be read at; nothing: the latest.
    async fn list_revision(&self, options: &ListOptions) -> Result<Option<u64>, ApiError> {
        match (options.revision, options.revision_match) {
            (None | Some(0), Some(RevisionMatch::Exact)) => {
                Err(ApiError::bad_request("resourceVersionMatch: Forbidden: exact match needs a resourceVersion that is not 0"))
            }
            (None | Some(0), _) => Ok(None),
            (Some(revision), Some(RevisionMatch::Exact)) => {
                self.wait_for(revision).await?;
                Ok(Some(revision))
            }
            (Some(revision), _) => {
                self.wait_for(revision).await?;
                Ok(None)
            }
        }
    }

    /// Every change after a revision, as controllers follow them.
    pub fn watch(&self, kind: &'static Kind, namespace: Option<&str>, from: u64) -> WatchStream {
        self.watch_with(kind, namespace, WatchOptions { from: Some(from), ..WatchOptions::default() })
    }

    /// Ends after an error; `Expired` means: list again.
    pub fn watch_with(&self, kind: &'static Kind, namespace: Option<&str>, options: WatchOptions) -> WatchStream {
        let filter = Filter { kind, labels: options.labels, fields: options.fields };
        let prefix = prefix(kind, namespace.filter(|_| kind.namespaced));
        let mut first = Vec::new();
        let from = match options.from {
            Some(from) => from,
            None => {
                let page = self.inner.store.list(&prefix, None, 0);
                let added = |i: Item| WatchEvent { kind: WatchKind::Added, object: i.object, revision: i.revision };
                first.extend(page.items.into_iter().filter(|i| filter.matches(&i.object)).map(|i| Ok(added(i))));
                if options.initial_events_end {
                    first.push(Ok(bookmark(kind, page.revision, true)));
                }
                page.revision
            }
        };
        let state =
            Following { filter, watcher: self.inner.store.watch(&prefix, from), bookmarks: options.bookmarks, ended: false };
        stream::iter(first).chain(stream::unfold(state, Following::step).flat_map(stream::iter)).boxed()
    }
}

struct Following {
    filter: Filter,
    watcher: Watcher,
    bookmarks: Option<Duration>,
    ended: bool,
}

impl Following {
    async fn step(mut self) -> Option<(Vec<Result<WatchEvent, ApiError>>, Following)> {
        if self.ended {
            return None;
        }
        let next = match self.bookmarks {
            Some(pause) => match tokio::time::timeout(pause, self.watcher.next()).await {
                Ok(next) => next,
                Err(_) => return Some((vec![Ok(bookmark(self.filter.kind, self.watcher.cursor(), false))], self)),
            },
            None => self.watcher.next().await,
        };
        match next {
            Ok(events) => Some((events.into_iter().filter_map(|e| self.filter.see(e)).map(Ok).collect(), self)),
            Err(StoreError::Closed) => None,
            Err(error) => {
                self.ended = true;
                Some((vec![Err(watch_error(self.filter.kind, error))], self))
            }
        }
    }
}

fn watch_error(kind: &Kind, error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { wanted, oldest } => {
            ApiError::new(Reason::Expired, format!("too old resource version: {wanted} ({oldest})"))
        }
        error => store_error(kind, "", error),
    }
}

fn bookmark(kind: &'static Kind, revision: u64, initial_events_end: bool) -> WatchEvent {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_events_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata});
    WatchEvent { kind: WatchKind::Bookmark, object: Arc::new(object), revision }
}

fn encode_continue(rv: u64, after: &str) -> String {
    let token = Continue { rv, after: after.to_owned() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn decode_continue(token: &str) -> Result<Continue, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|b| serde_json::from_slice(&b).ok())
        .ok_or_else(|| ApiError::bad_request("continue key is not valid: it was not made by this server"))
}

fn list_error(kind: &Kind, token: &Option<String>, error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { .. } if token.is_some() => ApiError::new(
            Reason::Expired,
            "The provided continue parameter is too old to display a consistent list result. You must start a new list without the \
             continue parameter.",
        ),
        StoreError::Compacted { wanted, oldest } => {
            ApiError::new(Reason::Expired, format!("The provided resource version {wanted} is too old, the oldest is {oldest}."))
        }
        error => store_error(kind, "", error),
    }
}
