//! The Node object as this node wants it, and the smallest write that gets it there.
//!
//! Pure. Conditions, labels and resources of others on the same object are left alone.

use super::facts::{FileSystem, Machine};
use super::runtime::{Health, ListedImage};
use crate::admission::NodeView;
use crate::admission::sysctls::Allowlist;
use crate::config::{Config, Threshold};
use ferrolet_quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The Kubernetes release whose kubelet and kube-proxy this stands in for.
pub const KUBELET_VERSION: &str = concat!("v1.36.0-ferrolet.", env!("CARGO_PKG_VERSION"));

const ATTACH_ANNOTATION: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// Everything the status is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub config: &'a Config,
    pub machine: &'a Machine,
    pub node_fs: Option<FileSystem>,
    pub runtime: &'a Health,
    /// Whether the first complete service sync is in the kernel.
    pub services_synced: bool,
    pub images: &'a [ListedImage],
}

/// What it takes to be ready, and what is missing.
pub fn not_ready_because(inputs: &Inputs<'_>) -> Vec<String> {
    let mut problems = inputs.runtime.problems();
    if !inputs.services_synced {
        problems.push("services are not programmed yet".to_owned());
    }
    problems
}

/// The Node to create.
pub fn initial(inputs: &Inputs<'_>, now: Timestamp) -> Node {
    let config = inputs.config;
    let annotations = BTreeMap::from([(ATTACH_ANNOTATION.to_owned(), "true".to_owned())]);
    let mut labels = own_labels(config, inputs.machine);
    labels.extend(config.node.labels.clone());
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.node.taints.is_empty()).then(|| config.node.taints.clone()),
            provider_id: (!config.node.provider_id.is_empty()).then(|| config.node.provider_id.clone()),
            ..NodeSpec::default()
        }),
        status: Some(desired(inputs, None, now)),
    }
}

/// The node as admission sees it before the API has its object.
pub fn registered(config: &Config, machine: &Machine, allocatable: &BTreeMap<String, Quantity>) -> NodeView {
    let mut labels = own_labels(config, machine);
    labels.extend(config.node.labels.clone());
    NodeView {
        name: config.node_name.clone(),
        labels,
        taints: config.node.taints.clone(),
        allocatable: allocatable.clone(),
        strict_groups: None,
        sysctls: Allowlist::new(&machine.kernel_version, &config.allowed_unsafe_sysctls),
        apparmor: machine.apparmor,
    }
}

fn own_labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let arch = machine.architecture;
    [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// A merge patch that gives an existing Node the labels and annotation that are ours; `None` when it has them.
pub fn metadata_patch(existing: &Node, inputs: &Inputs<'_>) -> Option<Value> {
    let has = |map: &Option<BTreeMap<String, String>>, key: &str, value: &str| {
        map.as_ref().and_then(|map| map.get(key)).is_some_and(|known| known == value)
    };
    let mut labels = Map::new();
    for (key, value) in own_labels(inputs.config, inputs.machine) {
        // A label that was set by hand when the node registered wins over ours.
        let value = inputs.config.node.labels.get(&key).unwrap_or(&value);
        if !has(&existing.metadata.labels, &key, value) {
            labels.insert(key, json!(value));
        }
    }
    let mut metadata = Map::new();
    if !labels.is_empty() {
        metadata.insert("labels".into(), labels.into());
    }
    if !has(&existing.metadata.annotations, ATTACH_ANNOTATION, "true") {
        metadata.insert("annotations".into(), json!({ ATTACH_ANNOTATION: "true" }));
    }
    (!metadata.is_empty()).then(|| json!({ "metadata": metadata }))
}

/// What the scheduler gives pods only to nodes that say it, in order: of kubelet's list what this agent does.
const DECLARED: [&str; 2] = ["InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits"];

/// The status as it should be; what others keep in `existing` is not in it.
pub fn desired(inputs: &Inputs<'_>, existing: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let config = inputs.config;
    let capacity = capacity(config, inputs.machine, inputs.node_fs);
    let allocatable = allocatable(config, inputs.machine, &capacity);
    let handlers = handlers(inputs);
    NodeStatus {
        addresses: Some(addresses(config)),
        capacity: Some(api(capacity)),
        allocatable: Some(api(allocatable)),
        conditions: Some(conditions(inputs, existing, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: config.server.enabled.then(|| DaemonEndpoint { port: i32::from(config.server.port) }),
        }),
        node_info: Some(node_info(inputs, existing)),
        images: (!inputs.images.is_empty()).then(|| inputs.images.iter().map(image).collect()),
        runtime_handlers: (!handlers.is_empty()).then_some(handlers),
        features: inputs
            .runtime
            .status
            .as_ref()
            .map(|status| NodeFeatures { supplemental_groups_policy: Some(status.supplemental_groups_policy) }),
        declared_features: Some(DECLARED.iter().map(|f| f.to_string()).collect()),
        ..NodeStatus::default()
    }
}

fn addresses(config: &Config) -> Vec<NodeAddress> {
    let ips = config.node_ips.iter().map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() });
    ips.chain([NodeAddress { type_: "Hostname".into(), address: config.node_name.clone() }]).collect()
}

fn image(image: &ListedImage) -> ContainerImage {
    ContainerImage { names: Some(image.names.clone()), size_bytes: i64::try_from(image.size_bytes).ok() }
}

fn handlers(inputs: &Inputs<'_>) -> Vec<NodeRuntimeHandler> {
    let Some(status) = &inputs.runtime.status else { return Vec::new() };
    let handler = |(name, features): (&String, &ferrolet_cri::types::HandlerFeatures)| NodeRuntimeHandler {
        name: Some(name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    };
    status.handlers.iter().map(handler).collect()
}

fn node_info(inputs: &Inputs<'_>, existing: Option<&NodeStatus>) -> NodeSystemInfo {
    let machine = inputs.machine;
    let runtime = inputs.runtime.version.as_ref();
    // A runtime that has not answered yet is most likely the one that was there before.
    let known = existing.and_then(|status| status.node_info.as_ref()).map(|info| info.container_runtime_version.clone());
    let known = known.filter(|version| !version.is_empty()).unwrap_or_else(|| "unknown://Unknown".into());
    NodeSystemInfo {
        architecture: machine.architecture.into(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: runtime
            .map_or(known, |v| format!("{}://{}", v.runtime_name, v.runtime_version.trim_start_matches('v'))),
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.into(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".into(),
        os_image: machine.os_image.clone(),
        swap: (machine.swap_bytes > 0).then(|| NodeSwapStatus { capacity: i64::try_from(machine.swap_bytes).ok() }),
        system_uuid: machine.system_uuid.clone(),
    }
}

type Resources = BTreeMap<String, Quantity>;

fn api(resources: Resources) -> BTreeMap<String, ApiQuantity> {
    resources.into_iter().map(|(name, amount)| (name, ApiQuantity(amount.to_string()))).collect()
}

/// What pods may have of this node, before any device is known.
pub fn node_allocatable(config: &Config, machine: &Machine, node_fs: Option<FileSystem>) -> BTreeMap<String, Quantity> {
    allocatable(config, machine, &capacity(config, machine, node_fs))
}

pub(super) fn capacity(config: &Config, machine: &Machine, node_fs: Option<FileSystem>) -> Resources {
    let bytes = |n: u64| Quantity::from_bytes(n);
    let mut resources = Resources::from([
        ("cpu".to_owned(), Quantity::from_units(machine.cpus as i64)),
        ("memory".to_owned(), bytes(machine.memory_bytes)),
        ("pods".to_owned(), Quantity::from_units(i64::from(config.max_pods))),
    ]);
    if let Some(fs) = node_fs {
        resources.insert("ephemeral-storage".into(), bytes(fs.size_bytes));
    }
    for (name, reserved) in &machine.hugepages {
        resources.insert(name.clone(), bytes(*reserved));
    }
    resources
}

/// Capacity less what is reserved and what hard eviction keeps free; huge pages are taken off ordinary memory.
fn allocatable(config: &Config, machine: &Machine, capacity: &Resources) -> Resources {
    let mut out = Resources::new();
    for (name, amount) in capacity {
        out.insert(name.clone(), at_least_zero(*amount - kept_of(config, name, *amount)));
    }
    let huge = machine.hugepages.values().sum::<u64>();
    if let (Some(memory), true) = (out.get_mut("memory"), huge > 0) {
        *memory = at_least_zero(*memory - Quantity::from_bytes(huge));
    }
    out
}

/// What is reserved of a resource, and what hard eviction keeps free of it.
fn kept_of(config: &Config, resource: &str, capacity: Quantity) -> Quantity {
    let threshold = match resource {
        "memory" => config.node.eviction_hard.get("memory.available"),
        "ephemeral-storage" => config.node.eviction_hard.get("nodefs.available"),
        _ => None,
    };
    config.node.reserved.of(resource) + threshold.map_or(Quantity::ZERO, |t| held_back(t, capacity))
}

/// Every resource's capacity, and what pods cannot have of it.
pub(super) fn kept(config: &Config, machine: &Machine, node_fs: Option<FileSystem>) -> Vec<(String, Quantity, Quantity)> {
    let all = capacity(config, machine, node_fs).into_iter();
    all.map(|(name, amount)| (name.clone(), amount, kept_of(config, &name, amount))).collect()
}

fn held_back(threshold: &Threshold, capacity: Quantity) -> Quantity {
    match threshold {
        Threshold::Amount(amount) => *amount,
        Threshold::MilliPercent(share) => {
            let bytes = u128::try_from(capacity.units()).unwrap_or(0) * u128::from(*share) / 100_000;
            Quantity::from_bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
        }
    }
}

fn at_least_zero(amount: Quantity) -> Quantity {
    if amount.is_negative() { Quantity::ZERO } else { amount }
}

/// Our conditions; Ready comes last, as old clients expect it there.
fn conditions(inputs: &Inputs<'_>, existing: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let problems = not_ready_because(inputs);
    let ready = match problems.is_empty() {
        true => ("Ready", "True", "KubeletReady", "ferrolet is posting ready status".to_owned()),
        false => ("Ready", "False", "KubeletNotReady", problems.join("; ")),
    };
    let calm = |kind, reason, message: &str| (kind, "False", reason, message.to_owned());
    let all = [
        calm("MemoryPressure", "KubeletHasSufficientMemory", "ferrolet has sufficient memory available"),
        calm("DiskPressure", "KubeletHasNoDiskPressure", "ferrolet has no disk pressure"),
        calm("PIDPressure", "KubeletHasSufficientPID", "ferrolet has sufficient PID available"),
        ready,
    ];
    let known = existing.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let condition = |(kind, status, reason, message): (&str, &str, &str, String)| {
        let same = known.iter().find(|known| known.type_ == kind && known.status == status);
        NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: same.and_then(|known| known.last_transition_time.clone()).or(Some(Time(now))),
        }
    };
    all.into_iter().map(condition).collect()
}

/// A strategic merge patch from what the API has to what should be; `None` when only heartbeats differ, unless `force`.
pub fn status_patch(existing: Option<&NodeStatus>, desired: &NodeStatus, force: bool) -> Option<Value> {
    let empty = NodeStatus::default();
    let existing = existing.unwrap_or(&empty);
    let mut status = Map::new();
    let old = |kind: &str| existing.conditions.iter().flatten().find(|known| known.type_ == kind);
    let told = |condition: &NodeCondition| (condition.status.clone(), condition.reason.clone(), condition.message.clone());
    let wanted = desired.conditions.as_deref().unwrap_or_default();
    let changed = wanted.iter().any(|new| old(&new.type_).map(told) != Some(told(new)));
    if changed || force {
        status.insert("conditions".into(), json!(wanted));
    }
    if existing.addresses != desired.addresses {
        // Merged by type by default, which knows only one address of each.
        let mut list: Vec<Value> = desired.addresses.iter().flatten().map(|address| json!(address)).collect();
        list.push(json!({ "$patch": "replace" }));
        status.insert("addresses".into(), list.into());
    }
    for (name, old, new) in
        [("capacity", &existing.capacity, &desired.capacity), ("allocatable", &existing.allocatable, &desired.allocatable)]
    {
        let known = old.as_ref();
        let differs =
            |(key, value): &(&String, &ApiQuantity)| !known.and_then(|map| map.get(*key)).is_some_and(|o| equal(o, value));
        let changes: BTreeMap<_, _> = new.iter().flatten().filter(differs).collect();
        if !changes.is_empty() {
            status.insert(name.into(), json!(changes));
        }
    }
    let mut plain = |name: &str, same: bool, value: Value| {
        if !same {
            status.insert(name.into(), value);
        }
    };
    let same = existing.daemon_endpoints == desired.daemon_endpoints;
    plain("daemonEndpoints", same, json!(desired.daemon_endpoints));
    plain("nodeInfo", existing.node_info == desired.node_info, json!(desired.node_info));
    // What is not known yet, right after the start, is no reason to forget what was.
    let same = desired.images.is_none() || existing.images == desired.images;
    plain("images", same, json!(desired.images));
    let same = desired.runtime_handlers.is_none() || existing.runtime_handlers == desired.runtime_handlers;
    plain("runtimeHandlers", same, json!(desired.runtime_handlers));
    let same = desired.features.is_none() || existing.features == desired.features;
    plain("features", same, json!(desired.features));
    plain("declaredFeatures", existing.declared_features == desired.declared_features, json!(desired.declared_features));
    (!status.is_empty()).then(|| json!({ "status": status }))
}

/// Whether two quantities mean the same amount, however they are written.
fn equal(a: &ApiQuantity, b: &ApiQuantity) -> bool {
    a.0 == b.0 || matches!((a.0.parse::<Quantity>(), b.0.parse::<Quantity>()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests;
