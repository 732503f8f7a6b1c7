//! Namespaces: what each has from the start, and the removal of all content of one that is deleted.
//! Nothing is decided here that would be worth a pure module: content goes, then the `kubernetes` finalizer.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use crate::controllers::cache::Reader;
use crate::controllers::garbage::Meta;
use crate::controllers::meta::{self, Key};
use crate::controllers::runner::{Error, Synced, unless_gone};
use crate::kinds::{self, Kind, Sub, Verb};
use crate::registry::{DeleteOptions, ListOptions, Propagation, Registry, WriteOptions};

const FINALIZER: &str = "kubernetes";
const ROOT_CA: &str = "kube-root-ca.crt";
/// Content goes by events; this only covers an event that was missed.
const BACKSTOP: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Shell {
    pub registry: Registry,
    pub namespaces: Reader<Namespace>,
    pub ca_pem: String,
}

/// The namespace of an object that is gone, or of one of the two that must be there.
pub fn wakes(kind: &'static Kind, old: Option<&Meta>, new: Option<&Meta>) -> Vec<Key> {
    let Some(object) = new.or(old) else { return vec![] };
    let name = object.metadata.name.as_str();
    let kept = (*kind == kinds::SERVICE_ACCOUNT && name == "default") || (*kind == kinds::CONFIG_MAP && name == ROOT_CA);
    let wanted = kind.namespaced && (new.is_none() || (kept && old.is_some()));
    if wanted { vec![Key::new("", &object.metadata.namespace)] } else { vec![] }
}

impl Shell {
    pub async fn sync(self, key: Key) -> Synced {
        self.namespaces.synced().await;
        let Some(namespace) = self.namespaces.get(&key) else { return Ok(None) };
        if meta::is_deleting(&namespace.metadata) {
            let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
            if finalizers.iter().any(|f| f == FINALIZER) { self.clear(&key.name).await } else { Ok(None) }
        } else {
            self.furnish(&key.name).await.map(|()| None)
        }
    }

    async fn furnish(&self, namespace: &str) -> Result<(), Error> {
        let options = WriteOptions::default();
        let account = json!({"metadata": {"name": "default"}});
        if unless_gone(self.registry.get(&kinds::SERVICE_ACCOUNT, namespace, "default").await, "read a service account")?
            .is_none()
        {
            match self.registry.create(&kinds::SERVICE_ACCOUNT, namespace, account, &options).await {
                Err(error) if !error.is_already_exists() => return Err(Error::api("create the default service account")(error)),
                _ => {}
            }
        }
        let text = self.ca_pem.as_str();
        let map = json!({"metadata": {"name": ROOT_CA}, "data": {"ca.crt": text}});
        match unless_gone(self.registry.get(&kinds::CONFIG_MAP, namespace, ROOT_CA).await, "read a config map")? {
            None => match self.registry.create(&kinds::CONFIG_MAP, namespace, map, &options).await {
                Err(error) if !error.is_already_exists() => Err(Error::api("create the root CA config map")(error)),
                _ => Ok(()),
            },
            Some(there) if there["data"] == map["data"] => Ok(()),
            Some(_) => {
                let repair = |v: &mut Value| {
                    v["data"] = map["data"].clone();
                    true
                };
                let done = self.registry.modify(&kinds::CONFIG_MAP, namespace, ROOT_CA, None, repair).await;
                unless_gone(done, "repair the root CA config map").map(|_| ())
            }
        }
    }

    async fn clear(&self, namespace: &str) -> Synced {
        let content = kinds::KINDS.iter().copied().filter(|k| k.namespaced && k.view.is_none() && k.allows(Verb::Delete));
        let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        let mut left = 0;
        for kind in content {
            let all = ListOptions::default();
            let deleted = self.registry.delete_collection(kind, Some(namespace), &all, &options).await;
            deleted.map_err(Error::api("delete the content of a namespace"))?;
            let rest = self.registry.list(kind, Some(namespace), &all).await;
            left += rest.map_err(Error::api("list the content of a namespace"))?.items.len();
        }
        if left > 0 {
            return Ok(Some(BACKSTOP));
        }
        let finalize = |v: &mut Value| {
            let Some(list) = v.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) else { return false };
            let before = list.len();
            list.retain(|f| f != FINALIZER);
            list.len() != before
        };
        let done = self.registry.modify(&kinds::NAMESPACE, "", namespace, Some(Sub::Finalize), finalize).await;
        unless_gone(done, "finalize a namespace").map(|_| None)
    }
}
