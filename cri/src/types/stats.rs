//! Statistics and metrics. `None` means that the runtime did not say, which is not the same as zero.

use super::{Labels, SandboxMetadata};

/// Pressure stall information; averages in percent, the total in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PsiData {
    pub total: u64,
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Psi {
    pub full: Option<PsiData>,
    pub some: Option<PsiData>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuUsage {
    pub timestamp: i64,
    pub usage_core_nano_seconds: Option<u64>,
    pub usage_nano_cores: Option<u64>,
    pub psi: Option<Psi>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MemoryUsage {
    pub timestamp: i64,
    pub working_set_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
    pub usage_bytes: Option<u64>,
    pub rss_bytes: Option<u64>,
    pub page_faults: Option<u64>,
    pub major_page_faults: Option<u64>,
    pub psi: Option<Psi>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct IoUsage {
    pub timestamp: i64,
    pub psi: Option<Psi>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SwapUsage {
    pub timestamp: i64,
    pub available_bytes: Option<u64>,
    pub usage_bytes: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    pub timestamp: i64,
    /// A path on the file system that is meant.
    pub mountpoint: String,
    pub used_bytes: Option<u64>,
    pub inodes_used: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    pub name: String,
    pub rx_bytes: Option<u64>,
    pub rx_errors: Option<u64>,
    pub tx_bytes: Option<u64>,
    pub tx_errors: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkUsage {
    pub timestamp: i64,
    pub default_interface: Option<InterfaceUsage>,
    pub interfaces: Vec<InterfaceUsage>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    pub timestamp: i64,
    pub count: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerStats {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub labels: Labels,
    pub annotations: Labels,
    pub cpu: Option<CpuUsage>,
    pub memory: Option<MemoryUsage>,
    pub io: Option<IoUsage>,
    pub swap: Option<SwapUsage>,
    pub writable_layer: Option<FilesystemUsage>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodSandboxStats {
    pub id: String,
    pub metadata: SandboxMetadata,
    pub labels: Labels,
    pub annotations: Labels,
    pub cpu: Option<CpuUsage>,
    pub memory: Option<MemoryUsage>,
    pub io: Option<IoUsage>,
    pub network: Option<NetworkUsage>,
    pub process: Option<ProcessUsage>,
    pub containers: Vec<ContainerStats>,
}

/// All given parts must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerStatsFilter {
    pub id: Option<String>,
    pub sandbox_id: Option<String>,
    pub labels: Labels,
}

/// All given parts must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxStatsFilter {
    pub id: Option<String>,
    pub labels: Labels,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricDescriptor {
    pub name: String,
    pub help: String,
    pub label_keys: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    pub name: String,
    /// Zero: now.
    pub timestamp: i64,
    pub kind: MetricKind,
    /// In the order of the descriptor's keys.
    pub label_values: Vec<String>,
    pub value: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerMetrics {
    pub container_id: String,
    pub metrics: Vec<Metric>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSandboxMetrics {
    pub sandbox_id: String,
    pub metrics: Vec<Metric>,
    pub containers: Vec<ContainerMetrics>,
}
