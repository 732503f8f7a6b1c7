//! What a container's cgroup gets beside cpu and memory limits: huge pages, swap, protected and throttled memory, and whether the
//! kernel ends all of its processes together. Pure; the runtime writes it.

use super::plan::amount;
use super::qos::{Qos, qos};
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use std::collections::BTreeMap;

/// `memorySwap.swapBehavior`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwapBehavior {
    #[default]
    NoSwap,
    LimitedSwap,
}

/// `MemoryQoS`, which is off unless its feature gate is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryQos {
    /// `memoryThrottlingFactor`
    pub throttling: f64,
    /// `memoryReservationPolicy: TieredReservation`
    pub tiered: bool,
    pub allocatable: i64,
}

/// What the host has and the node's configuration asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostMemory {
    pub v2: bool,
    pub total: i64,
    /// The kernel can bound swap.
    pub swap_controller: bool,
    pub swap_total: i64,
    pub swap: SwapBehavior,
    /// `singleProcessOOMKill: false`
    pub oom_group: bool,
    pub qos: Option<MemoryQos>,
    /// Sizes of huge pages in bytes.
    pub page_sizes: Vec<u64>,
}

/// In the words of the runtime's interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// By size as the kernel names it: bytes. All sizes that there are.
    pub hugepages: BTreeMap<String, u64>,
    /// cgroup v2 files.
    pub unified: BTreeMap<String, String>,
    /// Memory and swap together, for cgroup v1.
    pub memory_and_swap: Option<i64>,
}

const PAGE: i64 = 4096;

fn memory(r: Option<&ResourceRequirements>, limit: bool) -> i64 {
    let list = r.and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
    amount(list, "memory").units()
}

/// `memory_limit` is what it is given, with the pod's where it has none of its own; zero is none.
pub fn extras(pod: &Pod, c: &Container, memory_limit: i64, host: &HostMemory) -> Extras {
    let mut out = Extras { hugepages: hugepages(pod, c, &host.page_sizes), ..Extras::default() };
    if host.v2 {
        if host.oom_group {
            out.unified.insert("memory.oom.group".into(), "1".into());
        }
        if host.swap_controller {
            let swap = if swaps(pod, c, host) { limited(c, host) } else { 0 };
            out.unified.insert("memory.swap.max".into(), swap.to_string());
        }
        if let Some(qos) = &host.qos {
            protect(pod, c, qos, &mut out.unified);
        }
    } else if host.swap_controller && memory_limit > 0 {
        out.memory_and_swap = Some(memory_limit);
    }
    out
}

/// Whether the container may use swap at all.
pub fn swaps(pod: &Pod, c: &Container, host: &HostMemory) -> bool {
    let (request, limit) = (memory(c.resources.as_ref(), false), memory(c.resources.as_ref(), true));
    host.swap == SwapBehavior::LimitedSwap
        && host.v2
        && host.swap_controller
        && !crate::admission::critical(pod)
        && qos(pod) == Qos::Burstable
        && request != limit
}

/// As much of the node's swap as the container asks for of the node's memory.
fn limited(c: &Container, host: &HostMemory) -> i64 {
    let request = memory(c.resources.as_ref(), false);
    if host.total <= 0 || request > host.total {
        return 0;
    }
    (request as f64 / host.total as f64 * host.swap_total as f64) as i64
}

fn protect(pod: &Pod, c: &Container, m: &MemoryQos, unified: &mut BTreeMap<String, String>) {
    let (request, limit) = (memory(c.resources.as_ref(), false), memory(c.resources.as_ref(), true));
    if request != 0 && m.tiered {
        let file = if qos(pod) == Qos::Guaranteed { "memory.min" } else { "memory.low" };
        unified.insert(file.into(), request.to_string());
    } else {
        unified.insert("memory.min".into(), "0".into());
        unified.insert("memory.low".into(), "0".into());
    }
    if request == limit {
        return;
    }
    let top = if limit != 0 { limit } else { m.allocatable };
    if top <= 0 {
        return;
    }
    let high = ((request as f64 + (top as f64 - request as f64) * m.throttling) / PAGE as f64).floor() as i64 * PAGE;
    if high > request {
        unified.insert("memory.high".into(), high.to_string());
    }
}

/// A size that nobody asks for is none at all; what the container says goes before what the pod says.
fn hugepages(pod: &Pod, c: &Container, sizes: &[u64]) -> BTreeMap<String, u64> {
    let whole = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let asked = |size: u64| {
        let of = |r: Option<&ResourceRequirements>| {
            let limits = r.and_then(|r| r.limits.as_ref()).into_iter().flatten();
            let found = limits.filter_map(|(name, q)| Some((page_size_of(name)?, q.0.parse::<Quantity>().ok()?.units())));
            found.filter(|(s, _)| *s == size).map(|(_, bytes)| bytes).next()
        };
        of(c.resources.as_ref()).or_else(|| of(whole)).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)
    };
    sizes.iter().map(|size| (page_size_name(*size), asked(*size))).collect()
}

/// The size in a resource's name: `hugepages-2Mi`.
pub fn page_size_of(resource: &str) -> Option<u64> {
    let size = resource.strip_prefix("hugepages-")?.parse::<Quantity>().ok()?.units();
    u64::try_from(size).ok().filter(|size| *size > 0)
}

/// As the kernel names page sizes in file names: `2MB`, `1GB`.
pub fn page_size_name(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{}GB", b >> 30),
        b if b >= 1 << 20 => format!("{}MB", b >> 20),
        b => format!("{}KB", b >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(resources: Value, spec: Value) -> Pod {
        let mut object = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}});
        for (field, value) in spec.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn ask(pod: &Pod, host: &HostMemory) -> Extras {
        let c = &pod.spec.as_ref().unwrap().containers[0];
        extras(pod, c, memory(c.resources.as_ref(), true), host)
    }

    fn v2() -> HostMemory {
        HostMemory { v2: true, total: 1000 << 20, swap_controller: true, swap_total: 500 << 20, ..HostMemory::default() }
    }

    fn file(e: &Extras, name: &str) -> Option<String> {
        e.unified.get(name).cloned()
    }

    #[test]
    fn swap_is_given_by_the_share_of_memory() {
        let burstable = pod(json!({"requests": {"memory": "100Mi"}, "limits": {"memory": "200Mi"}}), json!({}));
        let limited = HostMemory { swap: SwapBehavior::LimitedSwap, ..v2() };
        assert_eq!(file(&ask(&burstable, &v2()), "memory.swap.max").as_deref(), Some("0"));
        assert_eq!(file(&ask(&burstable, &limited), "memory.swap.max"), Some((50 << 20).to_string()));
        for (resources, spec) in [
            (json!({"requests": {"memory": "100Mi"}, "limits": {"memory": "100Mi"}}), json!({})),
            (json!({}), json!({})),
            (json!({"requests": {"cpu": "1"}}), json!({})),
            (json!({"requests": {"memory": "100Mi"}}), json!({"priority": 2_000_000_000})),
        ] {
            let other = pod(resources.clone(), spec);
            assert_eq!(file(&ask(&other, &limited), "memory.swap.max").as_deref(), Some("0"), "{resources}");
        }
        let without = HostMemory { swap_controller: false, ..limited.clone() };
        assert_eq!(file(&ask(&burstable, &without), "memory.swap.max"), None);
        let v1 = HostMemory { v2: false, ..limited };
        assert_eq!(ask(&burstable, &v1), Extras { memory_and_swap: Some(200 << 20), ..Extras::default() });
    }

    #[test]
    fn memory_is_protected_and_throttled_where_asked_for() {
        let qos = MemoryQos { throttling: 0.9, tiered: true, allocatable: 1000 << 20 };
        let host = HostMemory { qos: Some(qos), ..v2() };
        let burstable = ask(&pod(json!({"requests": {"memory": "100Mi"}, "limits": {"memory": "200Mi"}}), json!({})), &host);
        let files = ["memory.min", "memory.low", "memory.high"].map(|name| file(&burstable, name));
        assert_eq!(files, [None, Some((100 << 20).to_string()), Some((190 << 20).to_string())]);
        let full = json!({"memory": "100Mi", "cpu": "1"});
        let guaranteed = ask(&pod(json!({"requests": full, "limits": full}), json!({})), &host);
        let files = ["memory.min", "memory.low", "memory.high"].map(|name| file(&guaranteed, name));
        assert_eq!(files, [Some((100 << 20).to_string()), None, None]);
        let plain = HostMemory { qos: Some(MemoryQos { tiered: false, ..qos }), ..v2() };
        let open = ask(&pod(json!({"requests": {"memory": "100Mi"}}), json!({})), &plain);
        assert_eq!(file(&open, "memory.high"), Some((910 << 20).to_string()), "of the node's memory");
        assert_eq!(file(&open, "memory.min").as_deref(), Some("0"));
        assert!(ask(&pod(json!({"requests": full}), json!({})), &v2()).unified.keys().all(|k| k == "memory.swap.max"));
    }

    #[test]
    fn the_kernel_ends_all_processes_together() {
        let host = HostMemory { oom_group: true, ..v2() };
        assert_eq!(file(&ask(&pod(json!({}), json!({})), &host), "memory.oom.group").as_deref(), Some("1"));
    }

    #[test]
    fn huge_pages_of_every_size_are_said() {
        let host = HostMemory { page_sizes: vec![2 << 20, 1 << 30], ..v2() };
        let sizes = |p: &Pod| ask(p, &host).hugepages.into_iter().collect::<Vec<_>>();
        let none = [("1GB".to_owned(), 0), ("2MB".to_owned(), 0)];
        assert_eq!(sizes(&pod(json!({}), json!({}))), none);
        let own = pod(json!({"limits": {"hugepages-2Mi": "4Mi"}}), json!({"resources": {"limits": {"hugepages-2Mi": "8Mi"}}}));
        assert_eq!(sizes(&own)[1], ("2MB".to_owned(), 4 << 20));
        let whole = pod(json!({}), json!({"resources": {"limits": {"hugepages-2Mi": "8Mi"}}}));
        assert_eq!(sizes(&whole)[1], ("2MB".to_owned(), 8 << 20));
    }
}
