//! Which ConfigMaps, Secrets and claims a pod names. Pure.

use crate::api::snapshot::ObjectKey;
use k8s_openapi::api::core::v1 as api;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
    /// PersistentVolumeClaim
    Claim,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ref {
    pub kind: Kind,
    pub key: ObjectKey,
}

/// Of its volumes, its containers' variables and its image pulls; whether they need be there or not.
pub fn of(pod: &api::Pod) -> BTreeSet<Ref> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let mut found = Found { namespace, refs: BTreeSet::new() };
    let Some(spec) = &pod.spec else { return found.refs };
    for volume in spec.volumes.iter().flatten() {
        found.volume(volume);
    }
    for c in crate::pod::containers(spec) {
        found.variables(c.env.as_ref(), c.env_from.as_ref());
    }
    for c in spec.ephemeral_containers.iter().flatten() {
        found.variables(c.env.as_ref(), c.env_from.as_ref());
    }
    for secret in spec.image_pull_secrets.iter().flatten() {
        found.add(Kind::Secret, &secret.name);
    }
    found.refs
}

/// The claims of its volumes.
pub fn claims(pod: &api::Pod) -> BTreeSet<Ref> {
    let mut found = Found { namespace: pod.metadata.namespace.clone().unwrap_or_default(), refs: BTreeSet::new() };
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        if let Some(claim) = &volume.persistent_volume_claim {
            found.add(Kind::Claim, &claim.claim_name);
        } else if volume.ephemeral.is_some() {
            found.add(Kind::Claim, &format!("{own}-{}", volume.name));
        }
    }
    found.refs
}

/// Whether a volume shows what the pod itself says of its labels, annotations or resources.
pub fn shows_itself(pod: &api::Pod) -> bool {
    let projected = |v: &api::Volume| {
        let sources = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
        sources.into_iter().any(|s| s.downward_api.is_some())
    };
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.into_iter().any(|v| v.downward_api.is_some() || projected(v))
}

struct Found {
    namespace: String,
    refs: BTreeSet<Ref>,
}

impl Found {
    fn add(&mut self, kind: Kind, name: &str) {
        if !name.is_empty() {
            let key = ObjectKey { namespace: self.namespace.clone(), name: name.to_owned() };
            self.refs.insert(Ref { kind, key });
        }
    }

    fn volume(&mut self, volume: &api::Volume) {
        if let Some(c) = &volume.config_map {
            self.add(Kind::ConfigMap, &c.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()) {
            self.add(Kind::Secret, name);
        }
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            if let Some(c) = &source.config_map {
                self.add(Kind::ConfigMap, &c.name);
            }
            if let Some(s) = &source.secret {
                self.add(Kind::Secret, &s.name);
            }
        }
    }

    fn variables(&mut self, env: Option<&Vec<api::EnvVar>>, from: Option<&Vec<api::EnvFromSource>>) {
        for source in env.into_iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            if let Some(c) = &source.config_map_key_ref {
                self.add(Kind::ConfigMap, &c.name);
            }
            if let Some(s) = &source.secret_key_ref {
                self.add(Kind::Secret, &s.name);
            }
        }
        for source in from.into_iter().flatten() {
            if let Some(c) = &source.config_map_ref {
                self.add(Kind::ConfigMap, &c.name);
            }
            if let Some(s) = &source.secret_ref {
                self.add(Kind::Secret, &s.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_can_name_one() {
        let pod: api::Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {
                "imagePullSecrets": [{"name": "pull"}, {}],
                "volumes": [
                    {"name": "a", "configMap": {"name": "vol-c"}},
                    {"name": "b", "secret": {"secretName": "vol-s", "optional": true}},
                    {"name": "c", "projected": {"sources": [{"configMap": {"name": "pro-c"}}, {"secret": {"name": "pro-s"}},
                        {"serviceAccountToken": {"path": "t"}}]}},
                    {"name": "d", "emptyDir": {}}],
                "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "from-c"}}, {"secretRef": {"name": "from-s"}}]}],
                "containers": [{"name": "m", "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env-c", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env-s", "key": "k"}}},
                    {"name": "C", "valueFrom": {"secretKeyRef": {"name": "env-s", "key": "l"}}}]}],
                "ephemeralContainers": [{"name": "e", "envFrom": [{"configMapRef": {"name": "eph-c"}}]}]
            }}))
        .unwrap();
        let named = |kind| {
            let of_kind = of(&pod).into_iter().filter(move |r| r.kind == kind);
            of_kind.map(|r| format!("{}/{}", r.key.namespace, r.key.name)).collect::<Vec<_>>()
        };
        assert_eq!(named(Kind::ConfigMap), ["ns/env-c", "ns/eph-c", "ns/from-c", "ns/pro-c", "ns/vol-c"]);
        assert_eq!(named(Kind::Secret), ["ns/env-s", "ns/from-s", "ns/pro-s", "ns/pull", "ns/vol-s"]);
        assert!(!shows_itself(&pod));
    }

    #[test]
    fn volumes_that_show_the_pod() {
        for volume in [json!({"downwardAPI": {}}), json!({"projected": {"sources": [{"downwardAPI": {}}]}})] {
            let mut volume = volume;
            volume["name"] = json!("v");
            let pod: api::Pod =
                serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [], "volumes": [volume]}})).unwrap();
            assert!(shows_itself(&pod));
        }
    }
}
