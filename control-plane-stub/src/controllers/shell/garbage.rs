//! The shell of `garbage`: one lean cache for each stored kind, and the graph that they make together.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{disown, text};
use crate::controllers::cache::{Informer, Reader};
use crate::controllers::garbage::{Action, Fields, Meta, ORPHAN, Owner, State, decide};
use crate::controllers::meta::Key;
use crate::controllers::runner::{Error, Synced, unless_gone};
use crate::kinds::{self, Kind};
use crate::registry::{DeleteOptions, Registry};

/// An object of any kind, by the kind's place in the table of caches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ref {
    pub kind: usize,
    pub key: Key,
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", watched().nth(self.kind).map_or("?", |k| k.plural), self.key)
    }
}

/// The kinds that own or are owned. Events are neither, and there are many.
pub fn watched() -> impl Iterator<Item = &'static Kind> {
    kinds::KINDS.iter().copied().filter(|k| k.is_stored() && k.view.is_none() && **k != kinds::EVENT)
}

/// All objects there are, as far as their metadata goes.
#[derive(Clone)]
pub struct Graph(Arc<Vec<(&'static Kind, Reader<Meta>)>>);

impl Graph {
    pub fn new(registry: &Registry) -> (Graph, Vec<Informer<Meta>>) {
        let informers: Vec<Informer<Meta>> = watched().map(|k| Informer::new(registry, k)).collect();
        let readers = watched().zip(&informers).map(|(k, i)| (k, i.reader())).collect();
        (Graph(Arc::new(readers)), informers)
    }

    pub async fn synced(&self) {
        for (_, reader) in self.0.iter() {
            reader.synced().await;
        }
    }

    fn get(&self, object: &Ref) -> Option<(&'static Kind, Arc<Meta>)> {
        let (kind, reader) = self.0.get(object.kind)?;
        Some((kind, reader.get(&object.key)?))
    }

    /// Objects with a reference to an owner.
    pub fn dependents(&self, uid: &str) -> Vec<(Ref, Arc<Meta>)> {
        let mut found = vec![];
        for (kind, (_, reader)) in self.0.iter().enumerate() {
            for (key, meta) in reader.all().iter().filter(|(_, m)| m.metadata.owned_by(uid)) {
                found.push((Ref { kind, key: key.clone() }, meta.clone()));
            }
        }
        found
    }

    /// Where an owner is, if its kind is known. A namespaced owner is in the namespace of what it owns.
    fn place(&self, owner: &Owner, namespace: &str) -> Option<Ref> {
        let kind = self.0.iter().position(|(k, _)| k.group == owner.group() && k.kind == owner.kind)?;
        let namespaced = self.0[kind].0.namespaced;
        Some(Ref { kind, key: Key::new(if namespaced { namespace } else { "" }, &owner.name) })
    }

    /// What a change has to be looked at for.
    pub fn wakes(&self, kind: usize, old: Option<&Meta>, new: Option<&Meta>) -> Vec<Ref> {
        let key = |m: &Meta| Key::new(&m.metadata.namespace, &m.metadata.name);
        let mut wakes = vec![];
        if let Some(new) = new {
            let same = old.is_some_and(|o| {
                let (o, n) = (&o.metadata, &new.metadata);
                (&o.uid, &o.owner_references, &o.finalizers, &o.deletion_timestamp)
                    == (&n.uid, &n.owner_references, &n.finalizers, &n.deletion_timestamp)
            });
            if !same && (!new.metadata.owner_references.is_empty() || new.metadata.is_deleting()) {
                wakes.push(Ref { kind, key: key(new) });
            }
        }
        let replaced = |o: &&Meta| new.is_none_or(|n| n.metadata.uid != o.metadata.uid);
        if let Some(gone) = old.filter(replaced) {
            wakes.extend(self.dependents(&gone.metadata.uid).into_iter().map(|(r, _)| r));
        }
        // An owner may have been waiting for this one, if only for its reference.
        for owner in old.iter().flat_map(|o| &o.metadata.owner_references) {
            let place = self.place(owner, &old.map(|o| o.metadata.namespace.clone()).unwrap_or_default());
            wakes.extend(place.filter(|r| self.get(r).is_some_and(|(_, m)| m.metadata.is_deleting())));
        }
        wakes
    }
}

#[derive(Clone)]
pub struct Shell {
    pub registry: Registry,
    pub graph: Graph,
    pub queue: mpsc::Sender<Ref>,
}

impl Shell {
    pub async fn sync(self, object: Ref) -> Synced {
        self.graph.synced().await;
        let Some((kind, meta)) = self.graph.get(&object) else { return Ok(None) };
        let fields = &meta.metadata;
        let mut owners = vec![];
        for owner in &fields.owner_references {
            owners.push(self.state(owner, &object.key.namespace).await?);
        }
        let dependents =
            if fields.is_deleting() || owners.contains(&State::Waiting) { self.graph.dependents(&fields.uid) } else { vec![] };
        let blocked = dependents.iter().any(|(_, m)| m.metadata.blocks(&fields.uid));
        match decide(fields, &owners, blocked) {
            Action::Nothing => {}
            Action::Delete(propagation) => {
                let options = DeleteOptions {
                    propagation: Some(propagation),
                    uid: Some(fields.uid.clone()),
                    resource_version: Some(fields.resource_version.clone()),
                    ..DeleteOptions::default()
                };
                let done = self.registry.delete(kind, &object.key.namespace, &object.key.name, &options).await;
                unless_gone(done, "collect an object whose owners are gone")?;
            }
            Action::Unlink(uids) => self.unlink(kind, &object.key, &fields.uid, &uids).await?,
            Action::OrphanDependents => {
                for (dependent, meta) in &dependents {
                    let Some((kind, _)) = self.graph.get(dependent) else { continue };
                    self.unlink(kind, &dependent.key, &meta.metadata.uid, std::slice::from_ref(&fields.uid)).await?;
                }
                self.finish(kind, &object.key, fields, ORPHAN).await?;
            }
            Action::VisitDependents => {
                for (dependent, _) in dependents {
                    let _ = self.queue.send(dependent).await;
                }
            }
            Action::RemoveFinalizer(finalizer) => self.finish(kind, &object.key, fields, finalizer).await?,
        }
        Ok(None)
    }

    /// Read from the registry itself, as a cache that lags would make an owner look absent.
    async fn state(&self, owner: &Owner, namespace: &str) -> Result<State, Error> {
        let Some(kind) = kinds::find_by_kind(owner.group(), &owner.kind) else { return Ok(State::Present) };
        if kind.namespaced && namespace.is_empty() {
            return Ok(State::Present);
        }
        // A cluster-wide owner, such as a Lease's Node, is in no namespace.
        let namespace = if kind.namespaced { namespace } else { "" };
        let live = self.registry.get(kind, namespace, &owner.name).await;
        let live = unless_gone(live, "read an owner")?.filter(|v| text(v, "uid") == owner.uid);
        let waiting = |v: &Value| {
            let finalizers = v.pointer("/metadata/finalizers").and_then(Value::as_array);
            !text(v, "deletionTimestamp").is_empty()
                && finalizers.is_some_and(|f| f.iter().any(|f| f == crate::controllers::garbage::FOREGROUND))
        };
        Ok(match live {
            None => State::Absent,
            Some(v) if waiting(&v) => State::Waiting,
            Some(_) => State::Present,
        })
    }

    async fn unlink(&self, kind: &'static Kind, key: &Key, uid: &str, owners: &[String]) -> Result<(), Error> {
        let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
        let change = |v: &mut Value| text(v, "uid") == uid && disown(v, &owners);
        let done = self.registry.modify(kind, &key.namespace, &key.name, None, change).await;
        unless_gone(done, "take an owner off an object").map(|_| ())
    }

    async fn finish(&self, kind: &'static Kind, key: &Key, fields: &Fields, finalizer: &str) -> Result<(), Error> {
        let change = |v: &mut Value| {
            let ours = text(v, "uid") == fields.uid;
            let Some(list) = v.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut).filter(|_| ours) else {
                return false;
            };
            let before = list.len();
            list.retain(|f| f != finalizer);
            list.len() != before
        };
        let done = self.registry.modify(kind, &key.namespace, &key.name, None, change).await;
        unless_gone(done, "take a finalizer off an object").map(|_| ())
    }
}
