//! Whether a pod that the API has bound to this node may start here.
//!
//! Pure. Owns kubelet's reasons and words for a refusal, and the choice of pods that make room for a critical one. The dispatcher
//! asks once for each pod, before anything of it is made; what was taken before is never asked about again. Facts from
//! kubelet's admission (`pkg/kubelet/lifecycle`) and the scheduler's filters that it shares.

pub mod apparmor;
pub mod preempt;
mod requests;
pub mod resize;
mod selector;
pub use selector::fits_any;
pub mod sysctls;

use crate::cgroup::Qos;
use crate::static_pods::read::SOURCE as SOURCE_ANNOTATION;
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint, Toleration};
pub use requests::requests;
use std::collections::BTreeMap;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Pods of this priority and above are critical (`system-cluster-critical`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// The node as admission sees it: its object in the API, or what it will register with while there is none.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub allocatable: Amounts,
    /// The runtime knows `supplementalGroupsPolicy: Strict`; `None` before the runtime has been asked.
    pub strict_groups: Option<bool>,
    /// Kernel settings that pods may ask for.
    pub sysctls: sysctls::Allowlist,
    /// The host can confine processes by AppArmor.
    pub apparmor: bool,
}

/// One reason against a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    OsLabel,
    OsField,
    GroupsPolicy,
    Sysctl(String),
    AppArmor(String),
    /// Amounts in the API's units: thousandths of cores for cpu, whole ones for all others.
    Short {
        resource: String,
        requested: i64,
        used: i64,
        capacity: i64,
    },
    Affinity,
    NodeName,
    HostPorts,
    Taint,
    /// A critical pod lacks room, and ending others would not make enough.
    NoVictims(String),
}

impl NodeView {
    /// With what the API says of it. Labels of its own that a new object does not have yet count.
    #[must_use]
    pub fn with(mut self, node: &Node) -> NodeView {
        self.labels.extend(node.metadata.labels.clone().unwrap_or_default());
        self.taints = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        let status = node.status.as_ref();
        let asked = status.and_then(|s| s.node_info.as_ref()).is_some_and(|info| !info.container_runtime_version.is_empty());
        let strict = status.and_then(|s| s.features.as_ref()).and_then(|f| f.supplemental_groups_policy);
        self.strict_groups = strict.or(asked.then_some(false));
        self
    }
}

impl Refusal {
    /// `status.reason`
    pub fn reason(&self) -> String {
        match self {
            Refusal::OsLabel => "PodOSSelectorNodeLabelDoesNotMatch".into(),
            Refusal::OsField => "PodOSNotSupported".into(),
            Refusal::GroupsPolicy => "SupplementalGroupsPolicyNotSupported".into(),
            Refusal::Sysctl(_) => "SysctlForbidden".into(),
            Refusal::AppArmor(_) => "AppArmor".into(),
            Refusal::Short { resource, .. } => format!("OutOf{resource}"),
            Refusal::Affinity => "NodeAffinity".into(),
            Refusal::NodeName => "NodeName".into(),
            Refusal::HostPorts => "NodePorts".into(),
            Refusal::Taint => "TaintToleration".into(),
            Refusal::NoVictims(_) => "UnexpectedAdmissionError".into(),
        }
    }

    /// The event's message; `status.message` says before it that the pod was rejected.
    pub fn message(&self) -> String {
        let predicate = |what: &str| format!("Predicate {} failed: {what}", self.reason());
        match self {
            Refusal::OsLabel => "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label".into(),
            Refusal::OsField => "Failed to admit pod as the OS field doesn't match node OS".into(),
            Refusal::GroupsPolicy => "SupplementalGroupsPolicy=Strict is not supported in this node".into(),
            Refusal::Sysctl(why) => format!("forbidden sysctl: {why}"),
            Refusal::AppArmor(why) => format!("Cannot enforce AppArmor: {why}"),
            Refusal::Short { resource, requested, used, capacity } => format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
            Refusal::Affinity => predicate("node(s) didn't match Pod's node affinity/selector"),
            Refusal::NodeName => predicate("node(s) didn't match the requested node name"),
            Refusal::HostPorts => predicate("node(s) didn't have free ports for the requested pod ports"),
            Refusal::Taint => predicate("node(s) had taints that the pod didn't tolerate"),
            Refusal::NoVictims(why) => format!("Unexpected error while attempting to recover from admission failure: {why}"),
        }
    }
}

/// What is to be done with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may start once these have ended, given by their place in `others`; mostly there is none.
    Admitted {
        victims: Vec<usize>,
    },
    Refused(Refusal),
}

/// `others` are the pods of this node that have been taken and have not ended.
pub fn admit(node: &NodeView, others: &[&Pod], pod: &Pod) -> Answer {
    let Some(spec) = &pod.spec else { return Answer::Admitted { victims: Vec::new() } };
    if let Some(refusal) = hopeless(node, pod, spec) {
        return Answer::Refused(refusal);
    }
    let all = reasons(node, others, pod, spec);
    // Room can be made, for a critical pod; anything else stands.
    let stands = all.iter().find(|r| !critical(pod) || !matches!(r, Refusal::Short { .. }));
    let unconfined = || apparmor::refusal(pod, spec, node.apparmor).map(Refusal::AppArmor);
    // Last, but before others would end for it.
    if let Some(refusal) = stands.cloned().or_else(unconfined) {
        return Answer::Refused(refusal);
    }
    if all.is_empty() {
        return Answer::Admitted { victims: Vec::new() };
    }
    match preempt::victims(pod, others, &all) {
        Ok(victims) => Answer::Admitted { victims },
        Err(why) => Answer::Refused(Refusal::NoVictims(why)),
    }
}

/// What no ending of other pods could mend.
fn hopeless(node: &NodeView, pod: &Pod, spec: &PodSpec) -> Option<Refusal> {
    if let Some(why) = node.sysctls.refusal(spec) {
        return Some(Refusal::Sysctl(why));
    }
    let label = pod.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        return Some(Refusal::OsLabel);
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Some(Refusal::OsField);
    }
    let policy = spec.security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref());
    (policy == Some("Strict") && node.strict_groups == Some(false)).then_some(Refusal::GroupsPolicy)
}

fn reasons(node: &NodeView, others: &[&Pod], pod: &Pod, spec: &PodSpec) -> Vec<Refusal> {
    let mut all = short(node, others, pod);
    if !selector::matches(node, spec) {
        all.push(Refusal::Affinity);
    }
    if spec.node_name.as_ref().is_some_and(|n| !n.is_empty() && *n != node.name) {
        all.push(Refusal::NodeName);
    }
    let wanted = host_ports(spec);
    let taken = || others.iter().filter_map(|p| p.spec.as_ref()).flat_map(host_ports);
    if !wanted.is_empty() && taken().any(|t| wanted.iter().any(|w| w.clashes(&t))) {
        all.push(Refusal::HostPorts);
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let stands = |t: &&Taint| t.effect == "NoExecute" && !tolerations.iter().any(|tolerated| tolerates(tolerated, t));
    if !is_static(pod) && node.taints.iter().any(|t| stands(&t)) {
        all.push(Refusal::Taint);
    }
    all
}

/// In the order of kubelet: pods, cpu, memory, ephemeral storage, the rest.
fn short(node: &NodeView, others: &[&Pod], pod: &Pod) -> Vec<Refusal> {
    let mut all = Vec::new();
    let here = others.len() as i64;
    let most = node.allocatable.get("pods").map_or(i64::MAX, Quantity::units);
    if here >= most {
        all.push(Refusal::Short { resource: "pods".into(), requested: 1, used: here, capacity: most });
    }
    let wanted = requests(pod);
    if wanted.values().all(Quantity::is_zero) {
        return all;
    }
    let mut used = Amounts::new();
    for (name, amount) in others.iter().flat_map(|p| requests(p)) {
        *used.entry(name).or_default() += amount;
    }
    let rank = |name: &str| ["cpu", "memory", "ephemeral-storage"].iter().position(|n| *n == name).unwrap_or(3);
    let mut names: Vec<&String> = wanted.keys().collect();
    names.sort_by_key(|name| (rank(name), name.as_str()));
    for name in names {
        let capacity = match node.allocatable.get(name) {
            Some(capacity) => *capacity,
            // An extended resource that the node has never heard of is one of the cluster as a whole, or of somebody else's driver.
            None if name.contains('/') => continue,
            None => Quantity::default(),
        };
        let (wanted, used) = (wanted[name], used.get(name).copied().unwrap_or_default());
        if !wanted.is_zero() && wanted + used > capacity {
            let number = |q: Quantity| amount_of(name, q);
            all.push(Refusal::Short {
                resource: name.clone(),
                requested: number(wanted),
                used: number(used),
                capacity: number(capacity),
            });
        }
    }
    all
}

/// The number that messages give.
fn amount_of(name: &str, amount: Quantity) -> i64 {
    if name == "cpu" { amount.milli() } else { amount.units() }
}

/// Static pods count as critical, and those of the system's priorities.
pub fn critical(pod: &Pod) -> bool {
    is_static(pod) || priority(pod).is_some_and(|p| p >= CRITICAL_PRIORITY)
}

fn priority(pod: &Pod) -> Option<i32> {
    pod.spec.as_ref().and_then(|s| s.priority)
}

/// From a file or a URL and not from the API, whose objects all have a version: the annotation alone proves nothing.
pub fn is_static(pod: &Pod) -> bool {
    if pod.metadata.resource_version.as_deref().is_some_and(|version| !version.is_empty()) {
        return false;
    }
    let source = pod.metadata.annotations.as_ref().and_then(|a| a.get(SOURCE_ANNOTATION));
    source.is_some_and(|source| source != "api")
}

fn qos(pod: &Pod) -> Qos {
    crate::cgroup::qos(pod)
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// An unspecified address stands for all of them.
    fn clashes(&self, other: &HostPort) -> bool {
        let every = |p: &HostPort| p.ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (every(self) || every(other) || self.ip == other.ip)
    }
}

/// Init containers' ports count only where they stay.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let wanted = ports.filter_map(|p| {
        // A host's own network gives each port as it is.
        let port = p.host_port.or(spec.host_network.unwrap_or(false).then_some(p.container_port)).filter(|n| *n > 0)?;
        let or = |text: &Option<String>, default: &str| text.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| default.into());
        Some(HostPort { ip: or(&p.host_ip, "0.0.0.0"), protocol: or(&p.protocol, "TCP"), port })
    });
    wanted.collect()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if given(&toleration.effect).is_some_and(|e| e != taint.effect) || given(&toleration.key).is_some_and(|k| k != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => given(&toleration.value) == given(&taint.value),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
