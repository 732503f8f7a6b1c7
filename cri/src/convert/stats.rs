//! Wire messages to domain types: statistics and metrics.

use super::from::{each, id, required, sandbox_metadata};
use super::{Result, bad};
use crate::pb;
use crate::types::*;

fn value(value: Option<pb::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

fn psi(psi: pb::PsiStats) -> Psi {
    let data = |data: pb::PsiData| PsiData { total: data.total, avg10: data.avg10, avg60: data.avg60, avg300: data.avg300 };
    Psi { full: psi.full.map(data), some: psi.some.map(data) }
}

fn cpu(cpu: pb::CpuUsage) -> CpuUsage {
    CpuUsage {
        timestamp: cpu.timestamp,
        usage_core_nano_seconds: value(cpu.usage_core_nano_seconds),
        usage_nano_cores: value(cpu.usage_nano_cores),
        psi: cpu.psi.map(psi),
    }
}

fn memory(memory: pb::MemoryUsage) -> MemoryUsage {
    MemoryUsage {
        timestamp: memory.timestamp,
        working_set_bytes: value(memory.working_set_bytes),
        available_bytes: value(memory.available_bytes),
        usage_bytes: value(memory.usage_bytes),
        rss_bytes: value(memory.rss_bytes),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: memory.psi.map(psi),
    }
}

fn io(io: pb::IoUsage) -> IoUsage {
    IoUsage { timestamp: io.timestamp, psi: io.psi.map(psi) }
}

pub(crate) fn filesystem(usage: pb::FilesystemUsage) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: usage.timestamp,
        mountpoint: usage.fs_id.map(|fs| fs.mountpoint).unwrap_or_default(),
        used_bytes: value(usage.used_bytes),
        inodes_used: value(usage.inodes_used),
    }
}

fn interface(usage: pb::NetworkInterfaceUsage) -> InterfaceUsage {
    InterfaceUsage {
        name: usage.name,
        rx_bytes: value(usage.rx_bytes),
        rx_errors: value(usage.rx_errors),
        tx_bytes: value(usage.tx_bytes),
        tx_errors: value(usage.tx_errors),
    }
}

fn container_stats(stats: pb::ContainerStats) -> Result<ContainerStats> {
    let attributes = required("attributes", stats.attributes)?;
    let metadata = required("attributes.metadata", attributes.metadata)?;
    Ok(ContainerStats {
        id: id("attributes.id", attributes.id)?,
        name: id("attributes.metadata.name", metadata.name)?,
        attempt: metadata.attempt,
        labels: attributes.labels,
        annotations: attributes.annotations,
        cpu: stats.cpu.map(cpu),
        memory: stats.memory.map(memory),
        io: stats.io.map(io),
        swap: stats.swap.map(|swap| SwapUsage {
            timestamp: swap.timestamp,
            available_bytes: value(swap.swap_available_bytes),
            usage_bytes: value(swap.swap_usage_bytes),
        }),
        writable_layer: stats.writable_layer.map(filesystem),
    })
}

pub(crate) fn container_stats_reply(reply: pb::ContainerStatsResponse) -> Result<ContainerStats> {
    container_stats(required("stats", reply.stats)?).map_err(|bad| bad.within("stats"))
}

pub(crate) fn all_container_stats(items: Vec<pb::ContainerStats>) -> Result<Vec<ContainerStats>> {
    each("stats", items, container_stats)
}

fn sandbox_stats(stats: pb::PodSandboxStats) -> Result<PodSandboxStats> {
    let attributes = required("attributes", stats.attributes)?;
    let linux = stats.linux.unwrap_or_default();
    Ok(PodSandboxStats {
        id: id("attributes.id", attributes.id)?,
        metadata: sandbox_metadata(attributes.metadata).map_err(|bad| bad.within("attributes"))?,
        labels: attributes.labels,
        annotations: attributes.annotations,
        cpu: linux.cpu.map(cpu),
        memory: linux.memory.map(memory),
        io: linux.io.map(io),
        network: linux.network.map(|network| NetworkUsage {
            timestamp: network.timestamp,
            default_interface: network.default_interface.map(interface),
            interfaces: network.interfaces.into_iter().map(interface).collect(),
        }),
        process: linux.process.map(|process| ProcessUsage { timestamp: process.timestamp, count: value(process.process_count) }),
        containers: each("linux.containers", linux.containers, container_stats)?,
    })
}

pub(crate) fn sandbox_stats_reply(reply: pb::PodSandboxStatsResponse) -> Result<PodSandboxStats> {
    sandbox_stats(required("stats", reply.stats)?).map_err(|bad| bad.within("stats"))
}

pub(crate) fn all_sandbox_stats(items: Vec<pb::PodSandboxStats>) -> Result<Vec<PodSandboxStats>> {
    each("stats", items, sandbox_stats)
}

pub(crate) fn metric_descriptors(reply: pb::ListMetricDescriptorsResponse) -> Vec<MetricDescriptor> {
    let one = |d: pb::MetricDescriptor| MetricDescriptor { name: d.name, help: d.help, label_keys: d.label_keys };
    reply.descriptors.into_iter().map(one).collect()
}

fn metric(metric: pb::Metric) -> Result<Metric> {
    Ok(Metric {
        name: id("name", metric.name)?,
        timestamp: metric.timestamp,
        kind: match pb::MetricType::try_from(metric.metric_type) {
            Ok(pb::MetricType::Counter) => MetricKind::Counter,
            Ok(pb::MetricType::Gauge) => MetricKind::Gauge,
            Err(_) => return Err(bad("metric_type", format!("{} is no metric type", metric.metric_type))),
        },
        label_values: metric.label_values,
        value: value(metric.value),
    })
}

pub(crate) fn sandbox_metrics(items: Vec<pb::PodSandboxMetrics>) -> Result<Vec<PodSandboxMetrics>> {
    each("pod_metrics", items, |sandbox| {
        Ok(PodSandboxMetrics {
            sandbox_id: id("pod_sandbox_id", sandbox.pod_sandbox_id)?,
            metrics: each("metrics", sandbox.metrics, metric)?,
            containers: each("container_metrics", sandbox.container_metrics, |container| {
                Ok(ContainerMetrics {
                    container_id: id("container_id", container.container_id)?,
                    metrics: each("metrics", container.metrics, metric)?,
                })
            })?,
        })
    })
}
