//! What the node has granted a pod of cpu and memory. It differs from the pod's spec while a resize in place waits. Pure.
//!
//! The dispatcher grants; an actor sees its pod only as it was granted, and everything that it makes of it follows.

use super::resources::Resources;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a resize in place can change.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Cpu and memory only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocation {
    /// The pod's generation that it is from.
    pub generation: i64,
    /// Of the pod as a whole, where its spec says so.
    pub pod: Option<Resources>,
    pub containers: BTreeMap<String, Resources>,
}

impl Allocation {
    /// All that the spec asks for.
    pub fn of(pod: &api::Pod) -> Allocation {
        let spec = pod.spec.as_ref();
        let containers = spec.into_iter().flat_map(super::containers).map(|c| (c.name.clone(), resizable(c.resources.as_ref())));
        Allocation {
            generation: pod.metadata.generation.unwrap_or(0),
            pod: spec.and_then(|s| s.resources.as_ref()).map(|r| resizable(Some(r))),
            containers: containers.collect(),
        }
    }

    /// Equal in amounts, whichever generation they are from.
    pub fn same(&self, other: &Allocation) -> bool {
        let none = Resources::default();
        let pods = (self.pod.as_ref().unwrap_or(&none), other.pod.as_ref().unwrap_or(&none));
        pods.0.same(pods.1)
            && self.containers.len() == other.containers.len()
            && self.containers.iter().all(|(name, own)| other.containers.get(name).is_some_and(|o| own.same(o)))
    }

    /// The greater of each amount.
    pub fn most(&self, other: &Allocation) -> Allocation {
        let none = Resources::default();
        let containers = other.containers.iter().map(|(name, own)| {
            let more = self.containers.get(name).unwrap_or(&none);
            (name.clone(), own.most(more))
        });
        let pod = other.pod.as_ref().map(|own| own.most(self.pod.as_ref().unwrap_or(&none)));
        Allocation { generation: other.generation, pod, containers: containers.collect() }
    }

    /// Nothing is asked for, and so nothing can be resized: that would change the pod's class.
    pub fn is_empty(&self) -> bool {
        let nothing = |r: &Resources| r.requests.is_empty() && r.limits.is_empty();
        self.pod.iter().chain(self.containers.values()).all(nothing)
    }

    /// The pod as it was granted; the same object where that is all it asks for.
    pub fn apply(&self, pod: &Arc<api::Pod>) -> Arc<api::Pod> {
        if self.same(&Allocation::of(pod)) {
            return pod.clone();
        }
        let mut pod = api::Pod::clone(pod);
        if let Some(spec) = &mut pod.spec {
            for c in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                // One that is unknown here cannot have been refused anything.
                if let Some(granted) = self.containers.get(&c.name) {
                    set(&mut c.resources, granted);
                }
            }
            set(&mut spec.resources, &self.pod.clone().unwrap_or_default());
            spec.resources = spec.resources.take().filter(|r| *r != api::ResourceRequirements::default());
        }
        Arc::new(pod)
    }
}

/// Cpu and memory of what is asked for.
pub fn resizable(of: Option<&api::ResourceRequirements>) -> Resources {
    let list = |list: Option<&BTreeMap<String, ApiQuantity>>| {
        let all = list.into_iter().flatten().filter(|(name, _)| RESIZABLE.contains(&name.as_str()));
        all.map(|(name, q)| (name.clone(), q.0.clone())).collect()
    };
    Resources { requests: list(of.and_then(|r| r.requests.as_ref())), limits: list(of.and_then(|r| r.limits.as_ref())) }
}

/// Puts cpu and memory in their place; everything else stays.
fn set(of: &mut Option<api::ResourceRequirements>, granted: &Resources) {
    let all = of.get_or_insert_default();
    for (list, granted) in [(&mut all.requests, &granted.requests), (&mut all.limits, &granted.limits)] {
        let entries = list.get_or_insert_default();
        for name in RESIZABLE {
            match granted.get(name) {
                Some(amount) => drop(entries.insert(name.to_owned(), ApiQuantity(amount.clone()))),
                None => drop(entries.remove(name)),
            }
        }
        if entries.is_empty() {
            *list = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(resources: Value, whole: Value) -> Arc<api::Pod> {
        let object = json!({"metadata": {"generation": 2}, "spec": {"resources": whole,
            "containers": [{"name": "c", "image": "i", "resources": resources}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "1"}}}]}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_pod_is_put_back_to_what_was_granted() {
        let storage = json!({"requests": {"cpu": "100m", "ephemeral-storage": "1Gi"}});
        let granted = Allocation::of(&pod(storage, json!(null)));
        let grown = json!({"requests": {"cpu": "200m", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "300m"}});
        let asked = pod(grown, json!({"limits": {"cpu": "1"}}));
        assert!(!granted.same(&Allocation::of(&asked)));
        let applied = granted.apply(&asked);
        let spec = serde_json::to_value(&applied.spec).unwrap();
        assert_eq!(spec["containers"][0]["resources"], json!({"requests": {"cpu": "100m", "ephemeral-storage": "1Gi"}}));
        assert_eq!(spec["resources"], json!(null));
        assert!(granted.same(&Allocation::of(&applied)));
        assert!(Arc::ptr_eq(&granted.apply(&applied), &applied), "nothing is to be changed");
    }

    #[test]
    fn amounts_count_and_not_how_they_are_written_nor_the_generation() {
        let one = Allocation::of(&pod(json!({"limits": {"cpu": "500m"}}), json!({"limits": {"memory": "1Gi"}})));
        let mut other = Allocation::of(&pod(json!({"limits": {"cpu": "0.5"}}), json!({"limits": {"memory": "1024Mi"}})));
        other.generation = 7;
        assert!(one.same(&other) && !one.is_empty());
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Allocation>(&text).unwrap(), one);
    }
}
