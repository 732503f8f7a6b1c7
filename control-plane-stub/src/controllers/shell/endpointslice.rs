//! The shell of `endpointslice`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::{revision_of, text};
use crate::controllers::cache::Reader;
use crate::controllers::endpointslice::{Plan, decide, is_managed, selector, service_of, zone};
use crate::controllers::meta::{self, Key};
use crate::controllers::runner::{Error, Synced, unless_gone};
use crate::kinds;
use crate::registry::{DeleteOptions, Registry, WriteOptions};
use crate::status::ApiError;

#[derive(Clone)]
pub struct Shell {
    pub registry: Registry,
    pub services: Reader<Service>,
    pub slices: Reader<EndpointSlice>,
    pub pods: Reader<Pod>,
    pub nodes: Reader<Node>,
}

/// The Services whose endpoints a change of a pod may change.
pub fn wakes(services: &Reader<Service>, old: Option<&Pod>, new: Option<&Pod>) -> Vec<Key> {
    if old.zip(new).is_some_and(|(a, b)| a.metadata.labels == b.metadata.labels && face(a) == face(b)) {
        return vec![];
    }
    let mut keys = vec![];
    for pod in [old, new].into_iter().flatten() {
        for service in services.of(meta::namespace(&pod.metadata)) {
            if selector(&service).is_some_and(|s| meta::has_all(s, pod.metadata.labels.as_ref())) {
                keys.push(Key::of(&service.metadata));
            }
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// All that a Service sees of a pod besides its labels.
fn face(pod: &Pod) -> impl PartialEq {
    let ips: Vec<String> = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|i| i.ip.clone()).collect();
    let deleting = meta::is_deleting(&pod.metadata);
    let spec = pod.spec.as_ref().map(|s| (s.hostname.clone(), s.subdomain.clone()));
    let node = meta::node_name(pod).map(str::to_owned);
    (pod.metadata.uid.clone(), ips, deleting, meta::is_ready(pod), meta::is_finished(pod), spec, node)
}

/// Every Service, when the zone of a node changed.
pub fn wakes_by_node(services: &Reader<Service>, old: Option<&Node>, new: Option<&Node>) -> Vec<Key> {
    let of = |n: Option<&Node>| n.and_then(|n| zone(&n.metadata)).map(str::to_owned);
    if of(old) == of(new) { vec![] } else { services.all().keys().cloned().collect() }
}

pub fn wakes_by_slice(old: Option<&EndpointSlice>, new: Option<&EndpointSlice>) -> Vec<Key> {
    let mut keys: Vec<Key> =
        [old, new].into_iter().flatten().filter(|s| is_managed(s)).filter_map(|s| service_of(&s.metadata)).collect();
    keys.dedup();
    keys
}

impl Shell {
    pub async fn sync(self, key: Key) -> Synced {
        let slices = self.slices.of(&key.namespace);
        let mine: Vec<&EndpointSlice> =
            slices.iter().map(|s| &**s).filter(|s| is_managed(s) && service_of(&s.metadata).as_ref() == Some(&key)).collect();
        let plan = match self.services.get(&key).filter(|s| !meta::is_deleting(&s.metadata)) {
            Some(service) if selector(&service).is_some() => {
                let pods = self.pods.of(&key.namespace);
                let pods: Vec<&Pod> = pods.iter().map(|p| &**p).collect();
                decide(&service, &pods, &self.zones(), &mine)
            }
            // Without a Service or its selector nothing here is ours to keep.
            _ => Plan { delete: mine.iter().map(|s| meta::name(&s.metadata).to_owned()).collect(), ..Plan::default() },
        };
        if !plan.is_empty() {
            self.carry_out(&key, plan).await?;
        }
        Ok(None)
    }

    fn zones(&self) -> BTreeMap<String, String> {
        let nodes = self.nodes.all();
        nodes.values().filter_map(|n| Some((meta::name(&n.metadata).to_owned(), zone(&n.metadata)?.to_owned()))).collect()
    }

    async fn carry_out(&self, key: &Key, plan: Plan) -> Result<(), Error> {
        let mut latest = 0;
        for slice in &plan.update {
            let name = meta::name(&slice.metadata);
            let new = serde_json::to_value(slice).map_err(|e| Error::api("write a slice")(ApiError::internal(e)))?;
            let mut stale = false;
            let write = |v: &mut Value| {
                stale = text(v, "resourceVersion") != slice.metadata.resource_version.as_deref().unwrap_or_default();
                if !stale {
                    for field in ["endpoints", "ports"] {
                        v[field] = new[field].clone();
                    }
                    for field in ["labels", "ownerReferences"] {
                        v["metadata"][field] = new["metadata"][field].clone();
                    }
                }
                !stale
            };
            let done = self.registry.modify(&kinds::ENDPOINT_SLICE, &key.namespace, name, None, write).await;
            let done = unless_gone(done, "update an endpoint slice")?;
            latest = latest.max(done.map_or(0, |v| revision_of(&v)));
            if stale {
                self.slices.reach(latest).await;
                return Err(Error::Stale(format!("endpoint slice {}/{name}", key.namespace)));
            }
        }
        for slice in &plan.create {
            let body = serde_json::to_value(slice).map_err(|e| Error::api("write a slice")(ApiError::internal(e)))?;
            let made = self.registry.create(&kinds::ENDPOINT_SLICE, &key.namespace, body, &WriteOptions::default()).await;
            let made = made.map_err(Error::api("create an endpoint slice"));
            match made {
                Ok(made) => latest = latest.max(revision_of(&made)),
                Err(error) => {
                    self.slices.reach(latest).await;
                    return Err(error);
                }
            }
        }
        for name in &plan.delete {
            let deleted = self.registry.delete(&kinds::ENDPOINT_SLICE, &key.namespace, name, &DeleteOptions::default()).await;
            unless_gone(deleted, "delete an endpoint slice")?;
        }
        self.slices.reach(latest).await;
        let gone: Vec<Key> = plan.delete.iter().map(|name| Key::new(&key.namespace, name)).collect();
        self.slices.until(|s| gone.iter().all(|k| s.items.get(k).is_none_or(|s| meta::is_deleting(&s.metadata)))).await;
        Ok(())
    }
}
