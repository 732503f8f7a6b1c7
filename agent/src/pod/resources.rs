//! Requests and limits in a form that can be written down: what a container was started with, what a pod was granted. Pure.

use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Written down at a container's creation, in an annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub requests: BTreeMap<String, String>,
    pub limits: BTreeMap<String, String>,
}

impl Resources {
    pub fn of(spec: &api::Container) -> Resources {
        let list = |list: Option<&BTreeMap<String, ApiQuantity>>| -> BTreeMap<String, String> {
            list.into_iter().flatten().map(|(name, quantity)| (name.clone(), quantity.0.clone())).collect()
        };
        let all = spec.resources.as_ref();
        Resources { requests: list(all.and_then(|r| r.requests.as_ref())), limits: list(all.and_then(|r| r.limits.as_ref())) }
    }

    /// As the API has it.
    pub fn api(&self) -> api::ResourceRequirements {
        let list = |list: &BTreeMap<String, String>| {
            let all = list.iter().map(|(name, quantity)| (name.clone(), ApiQuantity(quantity.clone())));
            (!list.is_empty()).then(|| all.collect())
        };
        api::ResourceRequirements { requests: list(&self.requests), limits: list(&self.limits), ..Default::default() }
    }

    /// The greater of each amount.
    pub fn most(&self, other: &Resources) -> Resources {
        let most = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
            let mut all = a.clone();
            for (name, text) in b {
                let amount = |text: &String| text.parse::<Quantity>().unwrap_or_default();
                let own = all.entry(name.clone()).or_insert_with(|| text.clone());
                if amount(text) > amount(own) {
                    own.clone_from(text);
                }
            }
            all
        };
        Resources { requests: most(&self.requests, &other.requests), limits: most(&self.limits, &other.limits) }
    }

    /// Equal in amount, however written.
    pub fn same(&self, other: &Resources) -> bool {
        same(&self.requests, &other.requests) && same(&self.limits, &other.limits)
    }
}

fn same(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> bool {
    let equal = |a: &str, b: &str| match (a.parse::<Quantity>(), b.parse::<Quantity>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    a.len() == b.len() && a.iter().all(|(name, amount)| b.get(name).is_some_and(|other| equal(amount, other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(resources: Value) -> Resources {
        Resources::of(&serde_json::from_value(json!({"name": "c", "resources": resources})).unwrap())
    }

    #[test]
    fn amounts_count_and_not_how_they_are_written() {
        let half = of(json!({"limits": {"cpu": "500m", "memory": "1Gi"}}));
        assert!(half.same(&of(json!({"limits": {"cpu": "0.5", "memory": "1024Mi"}}))));
        for other in [json!({"limits": {"cpu": "500m"}}), json!({"requests": {"cpu": "500m", "memory": "1Gi"}}), json!(null)] {
            assert!(!half.same(&of(other.clone())), "{other}");
        }
        assert!(of(json!(null)).same(&of(json!({"limits": {}}))));
    }

    #[test]
    fn survives_as_text() {
        let some = of(json!({"limits": {"cpu": "500m"}}));
        let text = serde_json::to_string(&some).unwrap();
        assert_eq!(serde_json::from_str::<Resources>(&text).unwrap(), some);
        assert_eq!(serde_json::to_value(some.api()).unwrap(), json!({"limits": {"cpu": "500m"}}));
    }
}
