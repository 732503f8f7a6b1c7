//! Mirror pods: objects in the API that stand for a pod which this node has by itself. They are never run.
//!
//! Owns the making and the deletion of these objects, each in a task of its own. What is to be done is decided from whole snapshots by
//! `decide`, which is pure; that an object is away shows in the next one.

use crate::api::snapshot::{ObjectKey, Snapshot};
use crate::pod::PodId;
use crate::pod::desired::id_of;
use crate::static_pods::read::{HASH, MIRROR};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// A static pod, and the hash that its mirror must have.
pub(super) struct Wanted {
    pub(super) pod: Arc<Pod>,
    /// The object is made if it is away; else it is only left alone.
    pub(super) make: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Uids of objects that stand for nothing, or for something else than they say.
    pub(super) delete: BTreeSet<String>,
    pub(super) create: BTreeSet<ObjectKey>,
}

/// `all`: every static pod is known, so one that is not wanted is none. `departed`: hashes of those that this agent has ended.
pub(super) fn decide(
    wanted: &BTreeMap<ObjectKey, Wanted>,
    mirrors: &BTreeMap<&str, &Arc<Pod>>,
    api: &Snapshot<Pod>,
    all: bool,
    departed: &BTreeSet<String>,
) -> Decision {
    let useless = |pod: &Pod| {
        let says = annotation(pod, MIRROR);
        let ended = all || says.is_some_and(|hash| departed.contains(hash));
        let gone = wanted.get(&key(pod)).map_or(ended, |w| hash(&w.pod) != says);
        gone || pod.metadata.deletion_timestamp.is_some()
    };
    let delete = mirrors.iter().filter(|(_, pod)| useless(pod)).map(|(uid, _)| (*uid).to_owned()).collect();
    let away = |key: &ObjectKey| api.synced && !api.items.contains_key(key) && !api.malformed.contains(key);
    let create = wanted.iter().filter(|(key, w)| w.make && away(key)).map(|(key, _)| key.clone()).collect();
    Decision { delete, create }
}

/// What the object of a static pod is to say. Pure.
fn object(pod: &Pod, node: &str, node_uid: &str) -> Pod {
    let mut object = pod.clone();
    object.status = None;
    let meta = &mut object.metadata;
    meta.uid = None;
    let hash = meta.annotations.as_ref().and_then(|a| a.get(HASH).cloned()).unwrap_or_default();
    meta.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    object
}

pub(super) fn key(pod: &Pod) -> ObjectKey {
    let id = id_of(pod);
    ObjectKey { namespace: id.namespace, name: id.name }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn hash(pod: &Pod) -> Option<&str> {
    annotation(pod, HASH)
}

/// The mirror that stands for this very pod.
pub(super) fn of<'a>(pod: &Pod, api: &'a Snapshot<Pod>) -> Option<&'a Arc<Pod>> {
    let found = api.items.get(&key(pod))?;
    let stands = is(found) && annotation(found, MIRROR) == hash(pod) && found.metadata.deletion_timestamp.is_none();
    stands.then_some(found)
}

/// Whose object the mirrors belong to.
pub(super) struct Owner<'a> {
    pub(super) kube: &'a kube::Client,
    pub(super) node: &'a str,
    /// `None` while the node's object is not known: no mirror can be made before.
    pub(super) uid: Option<String>,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Mirrors {
    deletions: BTreeMap<String, AbortOnDropHandle<()>>,
    creations: BTreeMap<ObjectKey, AbortOnDropHandle<()>>,
}

impl Mirrors {
    pub(super) fn carry_out(
        &mut self,
        decision: Decision,
        wanted: &BTreeMap<ObjectKey, Wanted>,
        mirrors: &BTreeMap<&str, &Arc<Pod>>,
        owner: &Owner<'_>,
        wake: &Arc<Notify>,
    ) {
        self.deletions.retain(|uid, _| decision.delete.contains(uid));
        for uid in decision.delete {
            let Some(pod) = mirrors.get(uid.as_str()).filter(|_| !self.deletions.contains_key(&uid)) else { continue };
            let id = id_of(pod);
            tracing::info!(pod = %id, "a mirror pod without its static pod is not run: its object is deleted");
            let deletion = delete(owner.kube.clone(), id);
            self.deletions.insert(uid, AbortOnDropHandle::new(tokio::spawn(deletion)));
        }
        self.creations.retain(|key, task| decision.create.contains(key) && !task.is_finished());
        let Some(uid) = &owner.uid else { return };
        for key in decision.create {
            let Some(wanted) = wanted.get(&key).filter(|_| !self.creations.contains_key(&key)) else { continue };
            let creation = create(owner.kube.clone(), object(&wanted.pod, owner.node, uid), wake.clone());
            self.creations.insert(key, AbortOnDropHandle::new(tokio::spawn(creation)));
        }
    }
}

/// Makes the object; tries until the API has it. Ends some time after that, for the case that nobody ever sees it.
async fn create(kube: kube::Client, pod: Pod, wake: Arc<Notify>) {
    let id = id_of(&pod);
    let api = kube::Api::<Pod>::namespaced(kube, &id.namespace);
    let mut told = false;
    loop {
        match tokio::time::timeout(LIMIT, api.create(&PostParams::default(), &pod)).await {
            Ok(Ok(_)) => break,
            Ok(Err(kube::Error::Api(s))) if s.code == 409 => {
                tracing::debug!(pod = %id, message = s.message, "there is an object of the mirror pod's name");
                break;
            }
            Ok(Err(kube::Error::Api(s))) if !told && s.code < 500 && s.code != 429 => {
                tracing::warn!(pod = %id, code = s.code, message = s.message, "the api refuses a mirror pod: the static pod runs without one");
                told = true;
            }
            Ok(Err(error)) => tracing::debug!(pod = %id, %error, "cannot make a mirror pod yet"),
            Err(_) => tracing::debug!(pod = %id, "no answer to a mirror pod"),
        }
        tokio::time::sleep(TRIES_EVERY).await;
    }
    tokio::time::sleep(SEEN_WITHIN).await;
    wake.notify_one();
}

const TRIES_EVERY: Duration = Duration::from_secs(5);
/// How long the watch may need to show an object.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn is(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR))
}

/// Deletes the object at once; tries until the API has answered. One that refuses keeps it, which harms nobody.
pub(super) async fn delete(kube: kube::Client, id: PodId) {
    let api = kube::Api::<Pod>::namespaced(kube, &id.namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(id.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    loop {
        match tokio::time::timeout(LIMIT, api.delete(&id.name, &params)).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(s))) if s.code < 500 && s.code != 429 => {
                if !matches!(s.code, 404 | 409) {
                    tracing::warn!(pod = %id, code = s.code, reason = s.message, "the api refuses to delete a mirror pod");
                }
                return;
            }
            Ok(Err(error)) => tracing::debug!(pod = %id, %error, "cannot delete a mirror pod yet"),
            Err(_) => tracing::debug!(pod = %id, "no answer to the deletion of a mirror pod"),
        }
        tokio::time::sleep(TRIES_EVERY).await;
    }
}

#[cfg(test)]
mod tests;
