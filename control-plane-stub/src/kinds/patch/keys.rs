//! Which fields a strategic merge patch merges instead of replacing, as the API reference documents them.

/// How one field of a definition is patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategy {
    /// The definition's name below `io.k8s.api.` or `io.k8s.apimachinery.pkg.apis.`.
    pub definition: &'static str,
    pub field: &'static str,
    /// `merge`, `retainKeys` or both.
    pub strategy: &'static str,
    /// Empty for lists of plain values, which merge as sets, and for single objects.
    pub merge_key: &'static str,
}

impl Strategy {
    pub fn merges(&self) -> bool {
        self.strategy.starts_with("merge")
    }
}

const fn by(definition: &'static str, field: &'static str, merge_key: &'static str) -> Strategy {
    Strategy { definition, field, strategy: "merge", merge_key }
}

const fn with(definition: &'static str, field: &'static str, strategy: &'static str, merge_key: &'static str) -> Strategy {
    Strategy { definition, field, strategy, merge_key }
}

pub const STRATEGIES: &[Strategy] = &[
    by("meta.v1.ObjectMeta", "finalizers", ""),
    by("meta.v1.ObjectMeta", "ownerReferences", "uid"),
    by("core.v1.Container", "env", "name"),
    by("core.v1.Container", "ports", "containerPort"),
    by("core.v1.Container", "volumeDevices", "devicePath"),
    by("core.v1.Container", "volumeMounts", "mountPath"),
    by("core.v1.ContainerStatus", "allocatedResourcesStatus", "name"),
    by("core.v1.ContainerStatus", "volumeMounts", "mountPath"),
    by("core.v1.EphemeralContainer", "env", "name"),
    by("core.v1.EphemeralContainer", "ports", "containerPort"),
    by("core.v1.EphemeralContainer", "volumeDevices", "devicePath"),
    by("core.v1.EphemeralContainer", "volumeMounts", "mountPath"),
    by("core.v1.NamespaceStatus", "conditions", "type"),
    by("core.v1.NodeSpec", "podCIDRs", ""),
    by("core.v1.NodeStatus", "addresses", "type"),
    by("core.v1.NodeStatus", "conditions", "type"),
    by("core.v1.PersistentVolumeClaimStatus", "conditions", "type"),
    by("core.v1.PodSpec", "containers", "name"),
    by("core.v1.PodSpec", "ephemeralContainers", "name"),
    by("core.v1.PodSpec", "hostAliases", "ip"),
    by("core.v1.PodSpec", "imagePullSecrets", "name"),
    by("core.v1.PodSpec", "initContainers", "name"),
    with("core.v1.PodSpec", "resourceClaims", "merge,retainKeys", "name"),
    by("core.v1.PodSpec", "schedulingGates", "name"),
    by("core.v1.PodSpec", "topologySpreadConstraints", "topologyKey"),
    with("core.v1.PodSpec", "volumes", "merge,retainKeys", "name"),
    by("core.v1.PodStatus", "conditions", "type"),
    by("core.v1.PodStatus", "hostIPs", "ip"),
    by("core.v1.PodStatus", "podIPs", "ip"),
    with("core.v1.PodStatus", "resourceClaimStatuses", "merge,retainKeys", "name"),
    by("core.v1.ServiceAccount", "secrets", "name"),
    by("core.v1.ServiceSpec", "ports", "port"),
    by("core.v1.ServiceStatus", "conditions", "type"),
    with("apps.v1.DeploymentSpec", "strategy", "retainKeys", ""),
    by("apps.v1.DeploymentStatus", "conditions", "type"),
    by("apps.v1.ReplicaSetStatus", "conditions", "type"),
    by("storage.v1.CSINodeSpec", "drivers", "name"),
];

/// How a field of the definition with this full name is patched; none means lists are replaced.
pub fn strategy(definition: &str, field: &str) -> Option<&'static Strategy> {
    let short = definition.strip_prefix("io.k8s.api.").or_else(|| definition.strip_prefix("io.k8s.apimachinery.pkg.apis."))?;
    STRATEGIES.iter().find(|s| s.field == field && s.definition == short)
}
