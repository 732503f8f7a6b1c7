//! The shell of `volumes`. A key without a namespace is that of a volume, any other that of a claim.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::{revision_of, text};
use crate::controllers::cache::Reader;
use crate::controllers::meta::{self, Key};
use crate::controllers::runner::{Error, Synced, unless_gone};
use crate::controllers::volumes::{choose, is_free, key, own_claim};
use crate::kinds::{self, Sub};
use crate::registry::{Registry, WriteOptions};

#[derive(Clone)]
pub struct Shell {
    pub registry: Registry,
    pub volumes: Reader<PersistentVolume>,
    pub claims: Reader<PersistentVolumeClaim>,
    pub pods: Reader<Pod>,
}

/// A claim that has gone is looked for by the volume that it had.
pub fn wakes(
    volumes: &Reader<PersistentVolume>,
    old: Option<&PersistentVolumeClaim>,
    new: Option<&PersistentVolumeClaim>,
) -> Vec<Key> {
    let Some(claim) = new.or(old) else { return vec![] };
    let mut keys = vec![Key::of(&claim.metadata)];
    if new.is_none() {
        let had = volumes.all();
        let had = had.values().filter(|v| v.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).map(key).as_ref() == keys.first());
        let had: Vec<Key> = had.map(|v| Key::of(&v.metadata)).collect();
        keys.extend(had);
    }
    keys
}

/// A new volume may be what claims wait for.
pub fn wakes_by_volume(
    claims: &Reader<PersistentVolumeClaim>,
    old: Option<&PersistentVolume>,
    new: Option<&PersistentVolume>,
) -> Vec<Key> {
    let Some(volume) = new.or(old) else { return vec![] };
    let mut keys = vec![Key::of(&volume.metadata)];
    let waiting = claims.all();
    keys.extend(waiting.values().filter(|c| !is_bound(c)).map(|c| Key::of(&c.metadata)));
    keys
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

impl Shell {
    pub async fn sync(self, key: Key) -> Synced {
        self.volumes.synced().await;
        self.claims.synced().await;
        self.pods.synced().await;
        if key.namespace.is_empty() {
            return self.volume(&key).await;
        }
        match self.claims.get(&key) {
            None => self.make(&key).await,
            Some(claim) if is_bound(&claim) || meta::is_deleting(&claim.metadata) => Ok(None),
            Some(claim) => self.bind(&claim).await,
        }
    }

    /// The claim that a pod brings with it.
    async fn make(&self, key: &Key) -> Synced {
        let pods = self.pods.of(&key.namespace);
        let living = pods.iter().filter(|p| !meta::is_deleting(&p.metadata) && !meta::is_finished(p));
        let Some(claim) = living.filter_map(|p| own_claim(p, &key.name)).next() else { return Ok(None) };
        let claim = serde_json::to_value(claim).unwrap_or(Value::Null);
        let options = WriteOptions::default();
        match self.registry.create(&kinds::PERSISTENT_VOLUME_CLAIM, &key.namespace, claim, &options).await {
            Ok(object) => self.claims.reach(revision_of(&object)).await,
            // Its namespace goes, or somebody was faster.
            Err(error) if error.is_conflict() || error.causes.iter().any(|c| c.reason == "NamespaceTerminating") => {}
            Err(error) => return Err(Error::api("create the claim of a pod")(error)),
        }
        Ok(None)
    }

    async fn volume(&self, at: &Key) -> Synced {
        let Some(volume) = self.volumes.get(at) else { return Ok(None) };
        let back = volume.spec.as_ref().and_then(|s| s.claim_ref.clone());
        let uid = back.as_ref().and_then(|r| r.uid.clone()).unwrap_or_default();
        let claim = back.as_ref().and_then(|r| self.claims.get(&key(r)));
        let phase = match &claim {
            _ if is_free(&volume) || uid.is_empty() => "Available",
            Some(claim) if meta::uid(&claim.metadata) == uid => "Bound",
            _ => "Released",
        };
        self.phase(&volume, phase).await?;
        Ok(None)
    }

    async fn phase(&self, volume: &PersistentVolume, phase: &str) -> Result<(), Error> {
        let uid = meta::uid(&volume.metadata);
        let put = |v: &mut Value| {
            let other = text(v, "uid") == uid && v["status"]["phase"] != phase;
            if other {
                v["status"]["phase"] = json!(phase);
            }
            other
        };
        let name = meta::name(&volume.metadata);
        let done = self.registry.modify(&kinds::PERSISTENT_VOLUME, "", name, Some(Sub::Status), put).await;
        let seen = unless_gone(done, "write the phase of a volume")?.map_or(0, |v| revision_of(&v));
        self.volumes.reach(seen).await;
        Ok(())
    }

    /// The volume first: a claim that says it is bound is used at once.
    async fn bind(&self, claim: &PersistentVolumeClaim) -> Synced {
        let all = self.volumes.all();
        let Some(volume) = choose(claim, all.values().map(|v| &**v)) else { return Ok(None) };
        let (name, uid) = (meta::name(&volume.metadata), meta::uid(&volume.metadata));
        let to = &claim.metadata;
        let back = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta::namespace(to),
            "name": meta::name(to), "uid": meta::uid(to)});
        let before = json!(volume.spec.as_ref().and_then(|s| s.claim_ref.clone()));
        let mut stale = false;
        let point = |v: &mut Value| {
            stale = text(v, "uid") != uid || v["spec"].get("claimRef").cloned().unwrap_or(Value::Null) != before;
            if stale {
                return false;
            }
            v["spec"]["claimRef"] = back.clone();
            true
        };
        let done = self.registry.modify(&kinds::PERSISTENT_VOLUME, "", name, None, point).await;
        let seen = unless_gone(done, "bind a volume")?.map_or(0, |v| revision_of(&v));
        if stale {
            return Err(Error::Stale(format!("volume {name}")));
        }
        self.volumes.reach(seen).await;
        self.phase(volume, "Bound").await?;
        self.complete(claim, volume).await
    }

    async fn complete(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Synced {
        let (namespace, name) = (meta::namespace(&claim.metadata), meta::name(&claim.metadata));
        let uid = meta::uid(&claim.metadata);
        let to = meta::name(&volume.metadata);
        let point = |v: &mut Value| {
            if text(v, "uid") != uid {
                return false;
            }
            v["spec"]["volumeName"] = json!(to);
            v["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
            true
        };
        let done = self.registry.modify(&kinds::PERSISTENT_VOLUME_CLAIM, namespace, name, None, point).await;
        unless_gone(done, "bind a claim")?;
        let spec = volume.spec.clone().unwrap_or_default();
        let status = json!({"phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity});
        let put = super::put_status(uid, status);
        let done = self.registry.modify(&kinds::PERSISTENT_VOLUME_CLAIM, namespace, name, Some(Sub::Status), put).await;
        let seen = unless_gone(done, "write the status of a claim")?.map_or(0, |v| revision_of(&v));
        self.claims.reach(seen).await;
        Ok(None)
    }
}
