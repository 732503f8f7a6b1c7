//! The agent's effective configuration: kubelet's and kube-proxy's files and flags, read and checked.
//!
//! Owns every default. The rest of the agent sees only `Config`, never a flag or a file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What the agent runs with. Names follow KubeletConfiguration v1beta1.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    /// Addresses of this node, primary first; at most one of each family.
    pub node_ips: Vec<IpAddr>,
    /// `--root-dir`, `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// `podLogsDir`, `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// `--container-runtime-endpoint`, `unix://...`.
    pub container_runtime_endpoint: String,
    /// `cgroupRoot`, empty or `/` for the root of the hierarchy.
    pub cgroup_root: String,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub max_pods: u32,
    /// `maxParallelImagePulls`; 1 when `serializeImagePulls` is true.
    pub max_parallel_image_pulls: usize,
    /// `crashLoopBackOff.maxContainerRestartPeriod`.
    pub max_container_restart_period: Duration,
}
