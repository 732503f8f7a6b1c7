//! The shell of `replicaset`.

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::{adopt, disown, owner_key, put_status, revision_of};
use crate::controllers::cache::Reader;
use crate::controllers::events::{Recorder, reference};
use crate::controllers::meta::{self, Key};
use crate::controllers::replicaset::{Plan, PodRef, batches, conditions, decide, pod_of};
use crate::controllers::runner::{Error, Synced, unless_gone};
use crate::kinds::{self, Sub};
use crate::registry::{DeleteOptions, Registry, WriteOptions};
use crate::status::ApiError;

#[derive(Clone)]
pub struct Shell {
    pub registry: Registry,
    pub sets: Reader<ReplicaSet>,
    pub pods: Reader<Pod>,
    pub events: Recorder,
}

/// The ReplicaSets that a change of a pod concerns: the one that has it, or those that might adopt it.
pub fn wakes(sets: &Reader<ReplicaSet>, old: Option<&Pod>, new: Option<&Pod>) -> Vec<Key> {
    let mut keys = vec![];
    for pod in [old, new].into_iter().flatten() {
        match meta::controller_of(&pod.metadata) {
            Some(_) => keys.extend(owner_key(&pod.metadata, "ReplicaSet")),
            None => keys.extend(
                sets.of(meta::namespace(&pod.metadata))
                    .iter()
                    .filter(|rs| meta::selects(rs.spec.as_ref().map(|s| &s.selector), pod.metadata.labels.as_ref()))
                    .map(|rs| Key::of(&rs.metadata)),
            ),
        }
    }
    keys.dedup();
    keys
}

impl Shell {
    pub async fn sync(self, key: Key) -> Synced {
        let Some(rs) = self.sets.get(&key) else { return Ok(None) };
        let pods = self.pods.of(&key.namespace);
        let pods: Vec<&Pod> = pods.iter().map(|p| &**p).collect();
        let plan = decide(&rs, &pods, Timestamp::now());
        self.claim(&rs, &plan).await?;
        let failure = match self.create(&rs, plan.create).await {
            Ok(()) => self.delete(&rs, &plan.delete).await.err().map(|e| ("FailedDelete", e)),
            Err(error) => Some(("FailedCreate", error)),
        };
        let moved = plan.create > 0 || !plan.delete.is_empty() || !plan.adopt.is_empty();
        if moved && failure.is_none() {
            // The status is counted once the new pods are there.
            return Ok(Some(std::time::Duration::ZERO));
        }
        let now = Timestamp::now();
        let mut status = plan.status;
        let said = failure.as_ref().map(|(reason, error)| (*reason, error.to_string()));
        status.conditions = conditions(status.conditions.as_ref(), said, now);
        let status = serde_json::to_value(&status).unwrap_or(Value::Null);
        let same = rs.status.as_ref().and_then(|s| serde_json::to_value(s).ok()).as_ref() == Some(&status);
        if !same {
            let put = put_status(meta::uid(&rs.metadata), status);
            let written = self.registry.modify(&kinds::REPLICA_SET, &key.namespace, &key.name, Some(Sub::Status), put).await;
            if let Some(object) = unless_gone(written, "write the status of the replica set")? {
                self.sets.reach(revision_of(&object)).await;
            }
        }
        match failure {
            Some((what, source)) => Err(Error::api(what)(source)),
            None => Ok(plan.wake_after),
        }
    }

    async fn claim(&self, rs: &ReplicaSet, plan: &Plan) -> Result<(), Error> {
        if plan.adopt.is_empty() && plan.release.is_empty() {
            return Ok(());
        }
        let namespace = meta::namespace(&rs.metadata);
        let uid = meta::uid(&rs.metadata);
        let owner = meta::controller_ref("apps/v1", "ReplicaSet", &rs.metadata);
        // A deletion that the cache has not seen yet must not be answered by taking pods in.
        let live = self.registry.get(&kinds::REPLICA_SET, namespace, meta::name(&rs.metadata)).await;
        let live = unless_gone(live, "read the replica set")?;
        if !live.is_some_and(|v| super::text(&v, "uid") == uid && super::text(&v, "deletionTimestamp").is_empty()) {
            return Err(Error::Stale(format!("replica set {}", Key::of(&rs.metadata))));
        }
        for pod in &plan.adopt {
            let take = |v: &mut Value| super::text(v, "uid") == pod.uid && adopt(v, &owner);
            let done = self.registry.modify(&kinds::POD, namespace, &pod.name, None, take).await;
            if let Some(object) = unless_gone(done, "adopt a pod")? {
                self.pods.reach(revision_of(&object)).await;
            }
        }
        for pod in &plan.release {
            let let_go = |v: &mut Value| super::text(v, "uid") == pod.uid && disown(v, &[uid]);
            let done = self.registry.modify(&kinds::POD, namespace, &pod.name, None, let_go).await;
            if let Some(object) = unless_gone(done, "release a pod")? {
                self.pods.reach(revision_of(&object)).await;
            }
        }
        Ok(())
    }

    async fn create(&self, rs: &ReplicaSet, how_many: usize) -> Result<(), ApiError> {
        let namespace = meta::namespace(&rs.metadata);
        let about = reference("apps/v1", "ReplicaSet", &rs.metadata);
        let pod = serde_json::to_value(pod_of(rs)).map_err(ApiError::internal)?;
        let options = WriteOptions::default();
        let mut latest = 0;
        let mut failure = None;
        for batch in batches(how_many) {
            let creates = (0..batch).map(|_| self.registry.create(&kinds::POD, namespace, pod.clone(), &options));
            for result in join_all(creates).await {
                match result {
                    Ok(object) => {
                        latest = latest.max(revision_of(&object));
                        let name = super::text(&object, "name");
                        self.events.say(about.clone(), false, "SuccessfulCreate", format!("Created pod: {name}"));
                    }
                    // Its content is being deleted, this set with it: nothing to create, and nothing to tell.
                    Err(error) if error.causes.iter().any(|c| c.reason == "NamespaceTerminating") => return Ok(()),
                    Err(error) => {
                        self.events.say(about.clone(), true, "FailedCreate", format!("Error creating: {error}"));
                        failure = Some(error);
                    }
                }
            }
            if failure.is_some() {
                break;
            }
        }
        self.pods.reach(latest).await;
        failure.map_or(Ok(()), Err)
    }

    async fn delete(&self, rs: &ReplicaSet, victims: &[PodRef]) -> Result<(), ApiError> {
        let namespace = meta::namespace(&rs.metadata);
        let about = reference("apps/v1", "ReplicaSet", &rs.metadata);
        let deletes = victims.iter().map(|pod| async move {
            let options = DeleteOptions { uid: Some(pod.uid.clone()), ..DeleteOptions::default() };
            (pod, self.registry.delete(&kinds::POD, namespace, &pod.name, &options).await)
        });
        let mut failure = None;
        for (pod, result) in join_all(deletes).await {
            match result {
                Ok(_) => self.events.say(about.clone(), false, "SuccessfulDelete", format!("Deleted pod: {}", pod.name)),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    self.events.say(about.clone(), true, "FailedDelete", format!("Error deleting: {error}"));
                    failure = Some(error);
                }
            }
        }
        if failure.is_none() {
            let keys: Vec<Key> = victims.iter().map(|p| Key::new(namespace, &p.name)).collect();
            let leaving = |p: &Pod| meta::is_deleting(&p.metadata);
            self.pods.until(|s| keys.iter().all(|k| s.items.get(k).is_none_or(|p| leaving(p)))).await;
        }
        failure.map_or(Ok(()), Err)
    }
}
