//! The ConfigMaps and Secrets of this node's pods: one watch an object, however many pods use it; and the claims that pods wait for.
//!
//! Owns the watches and what they said last. A pod holds what it names and is woken when any of it changes; what nobody holds is
//! not asked for any more, nor kept. What was known outlives an API server that is away, so that a container can start again.

mod lanes;
mod refs;

pub use refs::{Kind, Ref, claims, of, shows_itself};

use crate::api::snapshot::ObjectKey;
use crate::api::watch::{self, Change, Sink};
use crate::api::wire::{Selector, Wire};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use lanes::{Lane, Lanes};
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch as channel};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a first answer is waited for; whoever asked is woken when it comes later.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long a refusal is not believed: the API server learns of a pod's right to its objects a moment after the pod is bound.
const REFUSED: Duration = Duration::from_secs(1);
/// How often a claim is looked at that a pod waits for.
const CLAIMS: Duration = Duration::from_millis(500);

/// `configMapAndSecretChangeDetectionStrategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    Watch,
    /// `Get` and `Cache`: read whenever it is needed, and looked at this often for changes.
    Poll(Duration),
}

/// An object that could not be read: what the API server said, or why it said nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// A kind that pods take their configuration from.
pub trait Configures: Wire + kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug {
    #[doc(hidden)]
    fn shelf(inner: &Inner) -> &Shelf<Self>;
    /// Nodes may read it by name and not watch it: it is read again and again this often while somebody holds it.
    const POLLED: Option<Duration> = None;

    /// Will never change.
    fn is_immutable(&self) -> bool;
}

impl Configures for ConfigMap {
    fn shelf(inner: &Inner) -> &Shelf<Self> {
        &inner.config_maps
    }

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Configures for Secret {
    fn shelf(inner: &Inner) -> &Shelf<Self> {
        &inner.secrets
    }

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Configures for PersistentVolumeClaim {
    const POLLED: Option<Duration> = Some(CLAIMS);

    fn shelf(inner: &Inner) -> &Shelf<Self> {
        &inner.claims
    }

    fn is_immutable(&self) -> bool {
        false
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[doc(hidden)]
pub struct Inner {
    kube: kube::Client,
    strategy: Strategy,
    lanes: Lanes,
    config_maps: Shelf<ConfigMap>,
    secrets: Shelf<Secret>,
    claims: Shelf<PersistentVolumeClaim>,
}

/// The entries of one kind that somebody holds.
#[doc(hidden)]
pub type Shelf<K> = Mutex<HashMap<ObjectKey, Weak<Entry<K>>>>;

/// What is known of one object.
#[derive(Debug)]
struct Known<K> {
    /// `Some(None)`: it is not there.
    object: Option<Option<Arc<K>>>,
    /// Why nothing could be learned last.
    trouble: Option<String>,
}

#[doc(hidden)]
pub struct Entry<K> {
    known: channel::Sender<Known<K>>,
    /// Of the pods that hold it.
    wake: Mutex<Vec<Weak<Notify>>>,
    /// Somebody was told that it cannot be read, and waits for better news.
    denied: AtomicBool,
    _task: DropGuard,
    _lane: Arc<Lane>,
}

/// What a pod holds. Nothing is asked for on its behalf once this is dropped.
#[derive(Default)]
pub struct Held {
    entries: BTreeMap<Ref, Arc<dyn Any + Send + Sync>>,
    changed: Arc<Notify>,
}

impl Held {
    /// Any of the objects is another now, or can be read at last. No change is lost between two calls.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Store {
    /// `another` gives a client with a connection of its own.
    pub fn new(kube: kube::Client, strategy: Strategy, another: impl Fn() -> kube::Client + Send + Sync + 'static) -> Store {
        let lanes = Lanes::new(Box::new(another));
        let (config_maps, secrets, claims) = (Shelf::default(), Shelf::default(), Shelf::default());
        Store { inner: Arc::new(Inner { kube, strategy, lanes, config_maps, secrets, claims }) }
    }

    /// Holds these objects, and those held before that are not among them no longer.
    pub fn hold(&self, held: &mut Held, refs: std::collections::BTreeSet<Ref>) {
        held.entries.retain(|r, _| refs.contains(r));
        for r in refs {
            if !held.entries.contains_key(&r) {
                let entry: Arc<dyn Any + Send + Sync> = match r.kind {
                    Kind::ConfigMap => self.entry::<ConfigMap>(&r.key, &held.changed),
                    Kind::Secret => self.entry::<Secret>(&r.key, &held.changed),
                    Kind::Claim => self.entry::<PersistentVolumeClaim>(&r.key, &held.changed),
                };
                held.entries.insert(r, entry);
            }
        }
    }

    /// The object as it is now, or `None` if there is none. Of one that is watched this needs no request.
    pub async fn get<K: Configures>(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, Error> {
        let key = ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() };
        let entry = locked(K::shelf(&self.inner)).get(&key).and_then(Weak::upgrade);
        match entry {
            Some(entry) if self.strategy::<K>() == Strategy::Watch => entry.get().await,
            found => {
                let read = read::<K>(&self.inner.kube, &key).await;
                match (&read, found) {
                    (Err(_), Some(entry)) => entry.denied.store(true, Ordering::SeqCst),
                    // What comes after this is a change, also for an entry that has not heard anything yet.
                    (Ok(object), Some(entry)) if K::POLLED.is_some() => entry.learn(object.as_deref().cloned()),
                    _ => {}
                }
                read
            }
        }
    }

    fn strategy<K: Configures>(&self) -> Strategy {
        K::POLLED.map_or(self.inner.strategy, Strategy::Poll)
    }

    /// How many objects somebody holds.
    #[cfg(test)]
    fn len(&self) -> usize {
        locked(&self.inner.config_maps).len() + locked(&self.inner.secrets).len()
    }

    fn entry<K: Configures>(&self, key: &ObjectKey, wake: &Arc<Notify>) -> Arc<Entry<K>> {
        let mut shelf = locked(K::shelf(&self.inner));
        shelf.retain(|_, entry| entry.strong_count() > 0);
        if let Some(entry) = shelf.get(key).and_then(Weak::upgrade) {
            let mut all = locked(&entry.wake);
            all.retain(|w| w.strong_count() > 0);
            all.push(Arc::downgrade(wake));
            drop(all);
            return entry;
        }
        let stop = CancellationToken::new();
        let lane = self.inner.lanes.take();
        let client = lane.client.clone();
        let entry = Arc::new(Entry {
            known: channel::Sender::new(Known { object: None, trouble: None }),
            wake: Mutex::new(vec![Arc::downgrade(wake)]),
            denied: AtomicBool::new(false),
            _task: stop.clone().drop_guard(),
            _lane: lane,
        });
        shelf.insert(key.clone(), Arc::downgrade(&entry));
        let follow = Follow { entry: Arc::downgrade(&entry), stop: stop.clone() };
        match self.strategy::<K>() {
            Strategy::Watch => drop(tokio::spawn(watch::run(client, Selector::one(key), follow, stop))),
            Strategy::Poll(every) => {
                let poll = poll(client, key.clone(), every, follow);
                drop(tokio::spawn(async move { stop.run_until_cancelled(poll).await }));
            }
        }
        entry
    }
}

impl<K: Configures> Entry<K> {
    async fn get(&self) -> Result<Option<Arc<K>>, Error> {
        let mut known = self.known.subscribe();
        let there = tokio::time::timeout(REFUSED, known.wait_for(|k| k.object.is_some())).await.is_ok();
        if !there {
            let told = known.wait_for(|k| k.object.is_some() || k.trouble.is_some());
            let _ = tokio::time::timeout(FIRST_ANSWER, told).await;
        }
        // Before the last look: an answer that comes after it wakes who is denied now.
        self.denied.store(true, Ordering::SeqCst);
        let known = known.borrow();
        match &known.object {
            Some(object) => {
                self.denied.store(false, Ordering::SeqCst);
                Ok(object.clone())
            }
            None => Err(Error(known.trouble.clone().unwrap_or_else(|| "the API server has not answered yet".to_owned()))),
        }
    }

    fn learn(&self, object: Option<K>) {
        let object = object.map(|mut object| {
            // Often longer than the object, and of no use here.
            let meta = object.meta_mut();
            (meta.managed_fields, meta.annotations) = (None, None);
            Arc::new(object)
        });
        let revision = |o: &Option<Arc<K>>| o.as_ref().map(|o| (o.meta().uid.clone(), o.meta().resource_version.clone()));
        let mut changed = false;
        self.known.send_modify(|known| {
            changed = known.object.as_ref().is_some_and(|before| revision(before) != revision(&object));
            *known = Known { object: Some(object), trouble: None };
        });
        if self.denied.swap(false, Ordering::SeqCst) || changed {
            locked(&self.wake).iter().filter_map(Weak::upgrade).for_each(|w| w.notify_one());
        }
    }
}

/// Tells an entry what its watch says, for as long as there is an entry.
struct Follow<K> {
    entry: Weak<Entry<K>>,
    stop: CancellationToken,
}

impl<K: Configures> Sink<K> for Follow<K> {
    async fn apply(&mut self, change: Change<K>) {
        let Some(entry) = self.entry.upgrade() else { return };
        let object = match change {
            Change::Replaced { malformed, .. } if !malformed.is_empty() => {
                return self.failed("what the object says cannot be read");
            }
            Change::Replaced { mut items, .. } => items.pop().map(|(_, object)| object),
            Change::Applied(_, object) => Some(object),
            Change::Deleted(_) => None,
        };
        if object.as_ref().is_some_and(K::is_immutable) {
            self.stop.cancel();
        }
        entry.learn(object);
    }

    fn failed(&mut self, why: &str) {
        if let Some(entry) = self.entry.upgrade() {
            entry.known.send_modify(|known| known.trouble = Some(why.to_owned()));
        }
    }
}

async fn poll<K: Configures>(client: kube::Client, key: ObjectKey, every: Duration, mut follow: Follow<K>) {
    loop {
        match read::<K>(&client, &key).await {
            Ok(found) => {
                let Some(entry) = follow.entry.upgrade() else { return };
                entry.learn(found.map(Arc::unwrap_or_clone));
            }
            Err(error) => follow.failed(&error.0),
        }
        // Spread: many objects are held from the same moment on.
        tokio::time::sleep(every.mul_f64(rand::random_range(0.75..1.25))).await;
    }
}

async fn read<K: Configures>(client: &kube::Client, key: &ObjectKey) -> Result<Option<Arc<K>>, Error> {
    let api: kube::Api<K> = kube::Api::namespaced(client.clone(), &key.namespace);
    match api.get_opt(&key.name).await {
        Ok(found) => Ok(found.map(Arc::new)),
        Err(kube::Error::Api(status)) => Err(Error(status.message)),
        Err(error) => Err(Error(watch::chain(&error))),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
