//! The shell of `deployment`.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{adopt, disown, owner_key, put_status, revision_of, text};
use crate::controllers::cache::Reader;
use crate::controllers::deployment::revision::{REVISION, same_template};
use crate::controllers::deployment::{Change, Plan, decide};
use crate::controllers::events::{Recorder, reference};
use crate::controllers::meta::{self, Key};
use crate::controllers::runner::{Error, Synced, unless_gone};
use crate::kinds::{self, Sub};
use crate::registry::{DeleteOptions, Registry, WriteOptions};

#[derive(Clone)]
pub struct Shell {
    pub registry: Registry,
    pub deployments: Reader<Deployment>,
    pub sets: Reader<ReplicaSet>,
    pub pods: Reader<Pod>,
    pub events: Recorder,
}

/// The Deployments that a change of a ReplicaSet concerns.
pub fn wakes(deployments: &Reader<Deployment>, old: Option<&ReplicaSet>, new: Option<&ReplicaSet>) -> Vec<Key> {
    let mut keys = vec![];
    for rs in [old, new].into_iter().flatten() {
        match meta::controller_of(&rs.metadata) {
            Some(_) => keys.extend(owner_key(&rs.metadata, "Deployment")),
            None => keys.extend(
                deployments
                    .of(meta::namespace(&rs.metadata))
                    .iter()
                    .filter(|d| meta::selects(d.spec.as_ref().map(|s| &s.selector), rs.metadata.labels.as_ref()))
                    .map(|d| Key::of(&d.metadata)),
            ),
        }
    }
    keys.dedup();
    keys
}

/// A Deployment that recreates waits for the last old pod to go: that is no change of a ReplicaSet.
pub fn wakes_by_pod(sets: &Reader<ReplicaSet>, old: Option<&Pod>, new: Option<&Pod>) -> Vec<Key> {
    let (Some(old), None) = (old, new) else { return vec![] };
    let set = owner_key(&old.metadata, "ReplicaSet").and_then(|k| sets.get(&k));
    set.and_then(|rs| owner_key(&rs.metadata, "Deployment")).into_iter().collect()
}

impl Shell {
    pub async fn sync(self, key: Key) -> Synced {
        let Some(deployment) = self.deployments.get(&key) else { return Ok(None) };
        let (sets, pods) = (self.sets.of(&key.namespace), self.pods.of(&key.namespace));
        let (sets, pods): (Vec<&ReplicaSet>, Vec<&Pod>) =
            (sets.iter().map(|rs| &**rs).collect(), pods.iter().map(|p| &**p).collect());
        let plan = decide(&deployment, &sets, &pods, Timestamp::now());
        let seen = self.write_sets(&deployment, &plan).await;
        for event in plan.events.iter().filter(|_| seen.is_ok()) {
            self.events.say(
                reference("apps/v1", "Deployment", &deployment.metadata),
                event.warning,
                event.reason,
                &event.message,
            );
        }
        self.sets.reach(*seen.as_ref().unwrap_or(&0)).await;
        let mut latest = 0;
        if let Some(revision) = &plan.revision {
            let note = |v: &mut Value| text(v, "uid") == meta::uid(&deployment.metadata) && annotate(v, REVISION, revision);
            let done = self.registry.modify(&kinds::DEPLOYMENT, &key.namespace, &key.name, None, note).await;
            latest = unless_gone(done, "write the revision of the deployment")?.map_or(latest, |v| revision_of(&v));
        }
        let status = serde_json::to_value(&plan.status).unwrap_or(Value::Null);
        if deployment.status.as_ref().and_then(|s| serde_json::to_value(s).ok()).as_ref() != Some(&status) {
            let put = put_status(meta::uid(&deployment.metadata), status);
            let done = self.registry.modify(&kinds::DEPLOYMENT, &key.namespace, &key.name, Some(Sub::Status), put).await;
            latest = unless_gone(done, "write the status of the deployment")?.map_or(latest, |v| revision_of(&v));
        }
        self.deployments.reach(latest).await;
        seen.map(|_| plan.wake_after)
    }

    /// Carries out what concerns ReplicaSets; answers with the revision that shows it all.
    async fn write_sets(&self, deployment: &Deployment, plan: &Plan) -> Result<u64, Error> {
        let namespace = meta::namespace(&deployment.metadata);
        let mut latest = 0;
        let mut see = |object: Option<std::sync::Arc<Value>>| latest = latest.max(object.map_or(0, |v| revision_of(&v)));
        let owner = meta::controller_ref("apps/v1", "Deployment", &deployment.metadata);
        for name in &plan.adopt {
            let done = self.registry.modify(&kinds::REPLICA_SET, namespace, name, None, |v| adopt(v, &owner)).await;
            see(unless_gone(done, "adopt a replica set")?);
        }
        for name in &plan.release {
            let uids = [meta::uid(&deployment.metadata)];
            let done = self.registry.modify(&kinds::REPLICA_SET, namespace, name, None, |v| disown(v, &uids)).await;
            see(unless_gone(done, "release a replica set")?);
        }
        for change in &plan.change {
            see(self.resize(namespace, change).await?);
        }
        if let Some(rs) = &plan.create {
            see(self.create(deployment, rs).await?);
        }
        for name in &plan.delete {
            let deleted = self.registry.delete(&kinds::REPLICA_SET, namespace, name, &DeleteOptions::default()).await;
            unless_gone(deleted, "delete an old replica set")?;
            let key = Key::new(namespace, name);
            self.sets.until(|s| s.items.get(&key).is_none_or(|rs| meta::is_deleting(&rs.metadata))).await;
        }
        Ok(latest)
    }

    async fn resize(&self, namespace: &str, change: &Change) -> Result<Option<std::sync::Arc<Value>>, Error> {
        let mut stale = false;
        let write = |v: &mut Value| {
            stale = v.pointer("/spec/replicas").and_then(Value::as_i64) != Some(i64::from(change.from));
            if stale {
                return false;
            }
            v["spec"]["replicas"] = json!(change.to);
            v["metadata"]["annotations"] = json!(change.annotations);
            match change.min_ready_seconds {
                Some(seconds) => v["spec"]["minReadySeconds"] = json!(seconds),
                None => drop(v["spec"].as_object_mut().map(|s| s.remove("minReadySeconds"))),
            }
            true
        };
        let done = self.registry.modify(&kinds::REPLICA_SET, namespace, &change.name, None, write).await;
        let done = unless_gone(done, "resize a replica set")?;
        if stale { Err(Error::Stale(format!("replica set {namespace}/{}", change.name))) } else { Ok(done) }
    }

    async fn create(&self, deployment: &Deployment, rs: &ReplicaSet) -> Result<Option<std::sync::Arc<Value>>, Error> {
        let namespace = meta::namespace(&deployment.metadata);
        let name = meta::name(&rs.metadata);
        let body =
            serde_json::to_value(rs).map_err(|e| Error::api("write a replica set")(crate::status::ApiError::internal(e)))?;
        match self.registry.create(&kinds::REPLICA_SET, namespace, body, &WriteOptions::default()).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_already_exists() => {
                let there =
                    self.registry.get(&kinds::REPLICA_SET, namespace, name).await.map_err(Error::api("read a replica set"))?;
                self.collide(deployment, rs, &there).await?;
                Ok(Some(there))
            }
            Err(error) => {
                let about = reference("apps/v1", "Deployment", &deployment.metadata);
                let message = format!("failed to create new replica set {name:?}: {error}");
                self.events.say(about, true, "ReplicaSetCreateError", message);
                Err(Error::api("create a replica set")(error))
            }
        }
    }

    /// The name is taken. If it is not by our own ReplicaSet, the next hash is made with a collision count.
    async fn collide(&self, deployment: &Deployment, rs: &ReplicaSet, there: &Value) -> Result<(), Error> {
        use serde::Deserialize;
        let other = ReplicaSet::deserialize(there).unwrap_or_default();
        let templates =
            other.spec.as_ref().and_then(|s| s.template.as_ref()).zip(rs.spec.as_ref().and_then(|s| s.template.as_ref()));
        let uid = meta::uid(&deployment.metadata);
        if meta::controlled_by(&other.metadata, uid) && templates.is_some_and(|(a, b)| same_template(a, b)) {
            return Ok(());
        }
        let count = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let raise = |v: &mut Value| {
            let now = v.pointer("/status/collisionCount").and_then(Value::as_i64).unwrap_or(0);
            if text(v, "uid") != uid || now != i64::from(count) {
                return false;
            }
            v["status"]["collisionCount"] = json!(now + 1);
            true
        };
        let (namespace, name) = (meta::namespace(&deployment.metadata), meta::name(&deployment.metadata));
        let done = self.registry.modify(&kinds::DEPLOYMENT, namespace, name, Some(Sub::Status), raise).await;
        let seen = unless_gone(done, "raise the collision count")?.map_or(0, |v| revision_of(&v));
        self.deployments.reach(seen).await;
        Err(Error::Stale(format!("the name {:?} is taken; deployment {name}", meta::name(&rs.metadata))))
    }
}

fn annotate(object: &mut Value, key: &str, value: &str) -> bool {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return false };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.get(key).and_then(Value::as_str) == Some(value) {
        return false;
    }
    annotations[key] = json!(value);
    true
}
