//! A local picture of one kind, kept by list and watch, and the wake-ups that its changes cause.
//!
//! Owns the cursor and the objects; there is one writer and any number of readers, and a change is visible to readers
//! before anybody is woken for it. A watch that ends or expires is followed by a new list whose differences wake just as
//! events do. It never writes to the API. Cancelling it loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::meta::Key;
use crate::kinds::Kind;
use crate::registry::{ListOptions, Registry, WatchKind};
use crate::status::ApiError;

/// How long a controller waits to see its own writes. In one process that takes milliseconds; after this long it goes on
/// with what it knows, as the next event will wake it anyway.
const OWN_WRITE_WAIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);

pub type Objects<K> = BTreeMap<Key, Arc<K>>;

#[derive(Debug)]
pub struct Snapshot<K> {
    pub synced: bool,
    pub revision: u64,
    pub items: Arc<Objects<K>>,
}

/// A view of the cache; cheap to clone.
#[derive(Debug)]
pub struct Reader<K>(watch::Receiver<Snapshot<K>>);

impl<K> Clone for Reader<K> {
    fn clone(&self) -> Self {
        Reader(self.0.clone())
    }
}

impl<K: Send + Sync + 'static> Reader<K> {
    pub fn all(&self) -> Arc<Objects<K>> {
        self.0.borrow().items.clone()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.0.borrow().items.get(key).cloned()
    }

    /// The objects of one namespace.
    pub fn of(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = Key::new(namespace, "");
        let all = self.all();
        all.range(first..).take_while(|(k, _)| k.namespace == namespace).map(|(_, v)| v.clone()).collect()
    }

    pub async fn synced(&self) {
        let _ = self.0.clone().wait_for(|s| s.synced).await;
    }

    /// Waits until a write of this revision is visible here.
    pub async fn reach(&self, revision: u64) {
        self.until(|s| s.revision >= revision).await;
    }

    /// Waits until the picture satisfies a condition, within a bound.
    pub async fn until(&self, met: impl Fn(&Snapshot<K>) -> bool) {
        let mut rx = self.0.clone();
        let _ = tokio::time::timeout(OWN_WRITE_WAIT, rx.wait_for(|s| met(s))).await;
    }
}

type Wake<K> = Box<dyn Fn(Option<&K>, Option<&K>) -> Vec<futures::future::BoxFuture<'static, ()>> + Send + Sync>;

/// The writing side, before it runs.
pub struct Informer<K> {
    registry: Registry,
    kind: &'static Kind,
    state: watch::Sender<Snapshot<K>>,
    wakes: Vec<Wake<K>>,
}

impl<K: DeserializeOwned + Send + Sync + 'static> Informer<K> {
    pub fn new(registry: &Registry, kind: &'static Kind) -> Self {
        let (state, _) = watch::channel(Snapshot { synced: false, revision: 0, items: Arc::default() });
        Informer { registry: registry.clone(), kind, state, wakes: vec![] }
    }

    pub fn reader(&self) -> Reader<K> {
        Reader(self.state.subscribe())
    }

    /// `keys` names the work that a change (the object before, the object after) causes.
    pub fn wake<Q: Send + 'static>(
        &mut self,
        queue: &mpsc::Sender<Q>,
        keys: impl Fn(Option<&K>, Option<&K>) -> Vec<Q> + Send + Sync + 'static,
    ) {
        let queue = queue.clone();
        self.wakes.push(Box::new(move |old, new| {
            let mut sends = vec![];
            for key in keys(old, new) {
                // Usually there is room; waiting is only for a worker that is far behind.
                if let Err(mpsc::error::TrySendError::Full(key)) = queue.try_send(key) {
                    let queue = queue.clone();
                    sends.push(Box::pin(async move { drop(queue.send(key).await) }) as futures::future::BoxFuture<'static, ()>);
                }
            }
            sends
        }));
    }

    pub fn spawn(self, cancel: &CancellationToken) -> JoinHandle<()> {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = self.run() => {}
                () = cancel.cancelled() => {}
            }
        })
    }

    async fn run(self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!(kind = self.kind.kind, %error, "a controller's watch ended, listing again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn follow(&self) -> Result<(), ApiError> {
        let list = self.registry.list(self.kind, None, &ListOptions::default()).await?;
        self.replace(&list.items, list.revision).await;
        let mut events = self.registry.watch(self.kind, None, list.revision);
        while let Some(event) = events.next().await {
            let event = event?;
            match event.kind {
                WatchKind::Bookmark => {}
                WatchKind::Added | WatchKind::Modified => {
                    let object = self.parse(&event.object).map(Arc::new);
                    self.apply(key(&event.object), object, event.revision).await;
                }
                WatchKind::Deleted => self.apply(key(&event.object), None, event.revision).await,
            }
        }
        Ok(())
    }

    fn parse(&self, object: &Value) -> Option<K> {
        match K::deserialize(object) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let (kind, key) = (self.kind.kind, key(object));
                tracing::warn!(kind, %key, %error, "a stored object cannot be read, controllers take it as absent");
                None
            }
        }
    }

    async fn replace(&self, list: &[Arc<Value>], revision: u64) {
        let new: Objects<K> = list.iter().filter_map(|v| Some((key(v), Arc::new(self.parse(v)?)))).collect();
        let new = Arc::new(new);
        let old = self.state.borrow().items.clone();
        self.state.send_replace(Snapshot { synced: true, revision, items: new.clone() });
        for (key, object) in new.iter() {
            self.notify(old.get(key).map(|o| &**o), Some(object)).await;
        }
        for (_, object) in old.iter().filter(|(key, _)| !new.contains_key(key)) {
            self.notify(Some(object), None).await;
        }
    }

    async fn apply(&self, key: Key, object: Option<Arc<K>>, revision: u64) {
        let mut old = None;
        self.state.send_modify(|state| {
            let items = Arc::make_mut(&mut state.items);
            old = match &object {
                Some(object) => items.insert(key, object.clone()),
                None => items.remove(&key),
            };
            state.revision = revision;
        });
        if old.is_some() || object.is_some() {
            self.notify(old.as_deref(), object.as_deref()).await;
        }
    }

    async fn notify(&self, old: Option<&K>, new: Option<&K>) {
        for wake in &self.wakes {
            for send in wake(old, new) {
                send.await;
            }
        }
    }
}

fn key(object: &Value) -> Key {
    let text = |field: &str| object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default();
    Key::new(text("namespace"), text("name"))
}
