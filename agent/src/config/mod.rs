//! The agent's effective configuration: kubelet's and kube-proxy's files and flags, read and checked.
//!
//! Owns every default. The rest of the agent sees only `Config`, never a flag or a file. Reading the files is `load`;
//! everything below it (`kubelet`, `proxy`, `standalone`, `fields`, `duration`) is pure and reports every problem at once, each with
//! the path of its field. A field that exists in Kubernetes but is not honoured here is refused by name when it is set
//! to something other than its default: nobody should believe in a setting that does nothing. Those few that nearly every
//! existing file sets are taken instead and listed in `Config::no_effect`, which the daemon warns of.

pub mod args;
pub mod duration;
pub mod fields;
pub mod hostinfo;
mod kubelet;
mod load;
mod providers;
mod proxy;
mod reserved;
mod standalone;
mod statics;
#[cfg(test)]
mod tests;

use crate::images::policy::Policy;
use crate::objects::Strategy;
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::Taint;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use args::Args;
pub use fields::Problem;
pub(crate) use load::is_subdomain;
pub use load::{Error, for_trace, load};
pub use reserved::{Enforce, Existing, Reserved};

/// What the agent runs with. Names follow KubeletConfiguration v1beta1.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    /// Addresses of this node, primary first; at most one of each family.
    pub node_ips: Vec<IpAddr>,
    /// They come from `--node-ip`, not from the host's routes.
    pub node_ips_given: bool,
    /// `--kubeconfig`; `None` for a node without an API server.
    pub kubeconfig: Option<PathBuf>,
    /// `--root-dir`, `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// `podLogsDir`, `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// `--container-runtime-endpoint`, `unix://...`.
    pub container_runtime_endpoint: String,
    /// `imageServiceEndpoint`, the runtime's endpoint unless set.
    pub image_service_endpoint: String,
    /// `runtimeRequestTimeout`
    pub runtime_request_timeout: Duration,
    /// `cgroupRoot`, empty or `/` for the root of the hierarchy.
    pub cgroup_root: String,
    pub cgroup_driver: CgroupDriver,
    /// `singleProcessOOMKill`; by default the kernel ends all processes of a container together where it can.
    pub single_process_oom_kill: Option<bool>,
    /// `memorySwap.swapBehavior`
    pub swap: crate::cgroup::SwapBehavior,
    /// With the feature gate `MemoryQoS`: `memoryThrottlingFactor`, and whether `memoryReservationPolicy` is `TieredReservation`.
    pub memory_qos: Option<(f64, bool)>,
    /// `failCgroupV1`: refuse to run on cgroup v1. Off by default here, as v1 works.
    pub fail_cgroup_v1: bool,
    /// `podPidsLimit`; `None` for no limit.
    pub pod_pids_limit: Option<u64>,
    /// `cpuCFSQuota`: whether CPU limits are enforced.
    pub cpu_cfs_quota: bool,
    /// `cpuCFSQuotaPeriod`
    pub cpu_cfs_quota_period: Duration,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// `resolvConf`: what pods with `dnsPolicy: Default` see. `None` for an empty one.
    pub resolv_conf: Option<PathBuf>,
    pub max_pods: u32,
    /// `allowedUnsafeSysctls`: names and patterns, each known to be one.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// `seccompDefault`: containers that name no profile get the runtime's instead of none.
    pub seccomp_default: bool,
    /// `userNamespaces.idsPerPod`: how many ids a pod has that does not use the host's.
    pub ids_per_pod: u32,
    /// `maxParallelImagePulls`; 1 when `serializeImagePulls` is true.
    pub max_parallel_image_pulls: usize,
    /// `imagePullCredentialsVerificationPolicy` and `preloadedImagesVerificationAllowlist`.
    pub image_policy: Policy,
    /// `--image-credential-provider-config`, and the folder of `--image-credential-provider-bin-dir`.
    pub credential_providers: Vec<crate::images::providers::Provider>,
    pub credential_provider_dir: PathBuf,
    /// Where the node's own docker config may be.
    pub docker_config: crate::images::node_config::Places,
    /// `crashLoopBackOff.maxContainerRestartPeriod`.
    pub max_container_restart_period: Duration,
    /// `configMapAndSecretChangeDetectionStrategy`, with `syncFrequency`.
    pub object_changes: Strategy,
    pub server: ServerConfig,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub node: NodeConfig,
    pub upkeep: Upkeep,
    pub static_pods: StaticPods,
    pub proxy: ProxyConfig,
    /// Fields that are set, and valid, but change nothing yet: said once at the start.
    pub no_effect: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    Cgroupfs,
    Systemd,
}

/// The HTTPS server for logs, exec and metrics, and the plain health server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// `enableServer`
    pub enabled: bool,
    pub address: IpAddr,
    pub port: u16,
    /// `healthzBindAddress` and `healthzPort`; `None` when the port is 0.
    pub healthz: Option<(IpAddr, u16)>,
    /// `tlsCertFile` and `tlsPrivateKeyFile`; a self-signed pair in `cert_dir` otherwise.
    pub tls_files: Option<(PathBuf, PathBuf)>,
    /// `--cert-dir`
    pub cert_dir: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Authentication {
    /// `authentication.x509.clientCAFile`
    pub client_ca_file: Option<PathBuf>,
    /// `authentication.webhook.enabled`: bearer tokens by TokenReview.
    pub webhook: bool,
    pub webhook_cache_ttl: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationMode {
    AlwaysAllow,
    Webhook,
}

#[derive(Debug, Clone)]
pub struct Authorization {
    pub mode: AuthorizationMode,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
}

/// A threshold of `evictionHard`: an amount or a share of the capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    Amount(Quantity),
    /// Thousandths of a percent: `12.5%` is 12500.
    MilliPercent(u64),
}

/// How the node presents itself to the API.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// `registerNode`
    pub register: bool,
    /// `registerWithTaints`
    pub taints: Vec<Taint>,
    /// `--node-labels`
    pub labels: BTreeMap<String, String>,
    pub status_update_frequency: Duration,
    pub status_report_frequency: Duration,
    pub lease_duration: Duration,
    pub status_max_images: Option<usize>,
    pub provider_id: String,
    pub reserved: Reserved,
    /// `evictionHard`: `memory.available` and `nodefs.available` are what allocatable keeps free; nothing is evicted yet.
    pub eviction_hard: BTreeMap<String, Threshold>,
}

/// Image and log upkeep: read and checked, not carried out yet.
#[derive(Debug, Clone)]
pub struct Upkeep {
    pub image_minimum_gc_age: Duration,
    pub image_gc_high_percent: u32,
    pub image_gc_low_percent: u32,
    pub container_log_max_size: u64,
    pub container_log_max_files: u32,
}

/// Where pods come from besides the API.
#[derive(Debug, Clone)]
pub struct StaticPods {
    /// `staticPodPath`: a folder, or one file.
    pub path: Option<PathBuf>,
    /// `staticPodURL`
    pub url: Option<String>,
    /// `staticPodURLHeader`
    pub headers: http::HeaderMap,
    /// `fileCheckFrequency`: how often the folder is listed though nothing has been heard of it.
    pub file_check: Duration,
    /// `httpCheckFrequency`
    pub http_check: Duration,
}

/// What of KubeProxyConfiguration is honoured.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// `bindAddress`: the primary address of its family, if it is one.
    pub bind_address: Option<IpAddr>,
    /// `detectLocalMode` and `detectLocal`
    pub local: ferrolet_netproxy::LocalTraffic,
    /// `clusterCIDR`, at most one of each family. Empty: nothing is known to be outside.
    pub cluster_cidrs: Vec<ipnet::IpNet>,
    /// `healthzBindAddress`
    pub healthz: Option<SocketAddr>,
    /// `metricsBindAddress`
    pub metrics: Option<SocketAddr>,
    /// `bindAddressHardFail`: a port of those two that cannot be had ends the process.
    pub hard_fail: bool,
    /// `nodePortAddresses`; without it the primary addresses, as in kube-proxy's nftables mode.
    pub node_port_addresses: ferrolet_netproxy::NodePortAddresses,
    /// `nftables.masqueradeBit` (0..=31)
    pub masquerade_bit: u8,
    /// `nftables.masqueradeAll`
    pub masquerade_all: bool,
    /// `syncPeriod`: after twice that a change that waits makes `/healthz` fail.
    pub sync_period: Duration,
    pub conntrack: Conntrack,
    /// `clientConnection.kubeconfig`: the identity that reads Services and EndpointSlices, where it is another than the node's.
    pub kubeconfig: Option<PathBuf>,
    /// `oomScoreAdj`; without it the service manager's stays.
    pub oom_score_adj: Option<i16>,
    /// What was mapped to something else: said once at the start.
    pub notices: Vec<String>,
}

/// `conntrack`: zero leaves the host's setting as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conntrack {
    pub max_per_core: u32,
    pub min: u32,
    pub tcp_established_timeout: Duration,
    pub tcp_close_wait_timeout: Duration,
    pub tcp_be_liberal: bool,
    pub udp_timeout: Duration,
    pub udp_stream_timeout: Duration,
}

impl Default for Config {
    /// KubeletConfiguration's defaults, for a node without a name; tests start from here.
    fn default() -> Self {
        Config {
            node_name: String::new(),
            node_ips: Vec::new(),
            node_ips_given: false,
            kubeconfig: None,
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            image_service_endpoint: "unix:///run/containerd/containerd.sock".into(),
            runtime_request_timeout: Duration::from_secs(120),
            cgroup_root: String::new(),
            cgroup_driver: CgroupDriver::Cgroupfs,
            single_process_oom_kill: None,
            swap: crate::cgroup::SwapBehavior::NoSwap,
            memory_qos: None,
            fail_cgroup_v1: false,
            pod_pids_limit: None,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            cluster_dns: Vec::new(),
            cluster_domain: String::new(),
            resolv_conf: Some("/etc/resolv.conf".into()),
            max_pods: 110,
            allowed_unsafe_sysctls: Vec::new(),
            seccomp_default: false,
            ids_per_pod: crate::userns::UNIT,
            max_parallel_image_pulls: 1,
            image_policy: Policy::default(),
            credential_providers: Vec::new(),
            credential_provider_dir: PathBuf::new(),
            docker_config: crate::images::node_config::Places::default(),
            max_container_restart_period: Duration::from_secs(300),
            object_changes: Strategy::Watch,
            server: ServerConfig {
                enabled: true,
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                port: 10250,
                healthz: Some((IpAddr::V4(Ipv4Addr::LOCALHOST), 10248)),
                tls_files: None,
                cert_dir: "/var/lib/kubelet/pki".into(),
            },
            authentication: Authentication { client_ca_file: None, webhook: true, webhook_cache_ttl: Duration::from_secs(120) },
            authorization: Authorization {
                mode: AuthorizationMode::Webhook,
                authorized_ttl: Duration::from_secs(300),
                unauthorized_ttl: Duration::from_secs(30),
            },
            node: NodeConfig::default(),
            upkeep: Upkeep {
                image_minimum_gc_age: Duration::from_secs(120),
                image_gc_high_percent: 85,
                image_gc_low_percent: 80,
                container_log_max_size: 10 << 20,
                container_log_max_files: 5,
            },
            static_pods: StaticPods::default(),
            proxy: ProxyConfig::default(),
            no_effect: BTreeSet::new(),
        }
    }
}

impl Default for StaticPods {
    fn default() -> Self {
        let check = Duration::from_secs(20);
        StaticPods { path: None, url: None, headers: http::HeaderMap::new(), file_check: check, http_check: check }
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            register: true,
            taints: Vec::new(),
            labels: BTreeMap::new(),
            status_update_frequency: Duration::from_secs(10),
            status_report_frequency: Duration::from_secs(300),
            lease_duration: Duration::from_secs(40),
            status_max_images: Some(50),
            provider_id: String::new(),
            reserved: Reserved::default(),
            eviction_hard: default_eviction_hard(),
        }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        ProxyConfig {
            bind_address: None,
            local: ferrolet_netproxy::LocalTraffic::ClusterCidrs,
            cluster_cidrs: Vec::new(),
            healthz: Some((Ipv4Addr::UNSPECIFIED, 10256).into()),
            metrics: Some((Ipv4Addr::LOCALHOST, 10249).into()),
            hard_fail: false,
            node_port_addresses: ferrolet_netproxy::NodePortAddresses::Primary,
            masquerade_bit: 14,
            masquerade_all: false,
            sync_period: Duration::from_secs(30),
            conntrack: Conntrack::default(),
            kubeconfig: None,
            oom_score_adj: None,
            notices: Vec::new(),
        }
    }
}

impl Default for Conntrack {
    fn default() -> Self {
        Conntrack {
            max_per_core: 32 << 10,
            min: 128 << 10,
            tcp_established_timeout: Duration::from_secs(24 * 3600),
            tcp_close_wait_timeout: Duration::from_secs(3600),
            tcp_be_liberal: false,
            udp_timeout: Duration::ZERO,
            udp_stream_timeout: Duration::ZERO,
        }
    }
}

/// Kubelet's `evictionHard` on Linux when the field is not set.
fn default_eviction_hard() -> BTreeMap<String, Threshold> {
    [
        ("memory.available", Threshold::Amount(Quantity::from_bytes(100 << 20))),
        ("nodefs.available", Threshold::MilliPercent(10_000)),
        ("nodefs.inodesFree", Threshold::MilliPercent(5_000)),
        ("imagefs.available", Threshold::MilliPercent(15_000)),
        ("imagefs.inodesFree", Threshold::MilliPercent(5_000)),
    ]
    .into_iter()
    .map(|(name, threshold)| (name.to_owned(), threshold))
    .collect()
}
