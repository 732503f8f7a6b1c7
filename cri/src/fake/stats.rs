//! Made-up statistics: the same for every container, so that sums can be checked.

use super::state::{Container, Sandbox, State, now};
use crate::pb;

fn value(value: u64) -> Option<pb::UInt64Value> {
    Some(pb::UInt64Value { value })
}

fn cpu(containers: u64) -> Option<pb::CpuUsage> {
    Some(pb::CpuUsage {
        timestamp: now(),
        usage_core_nano_seconds: value(containers * 1_000_000_000),
        usage_nano_cores: value(containers * 10_000_000),
        psi: None,
    })
}

fn memory(containers: u64) -> Option<pb::MemoryUsage> {
    Some(pb::MemoryUsage {
        timestamp: now(),
        working_set_bytes: value(containers << 20),
        usage_bytes: value(containers << 21),
        rss_bytes: value(containers << 19),
        ..Default::default()
    })
}

pub(super) fn container(container: &Container) -> pb::ContainerStats {
    let runs = u64::from(container.state == pb::ContainerState::ContainerRunning);
    pb::ContainerStats {
        attributes: Some(pb::ContainerAttributes {
            id: container.id.clone(),
            metadata: container.config.metadata.clone(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        }),
        cpu: cpu(runs),
        memory: memory(runs),
        writable_layer: Some(pb::FilesystemUsage {
            timestamp: now(),
            fs_id: Some(pb::FilesystemIdentifier { mountpoint: "/".into() }),
            used_bytes: value(4096),
            inodes_used: value(3),
        }),
        swap: None,
        io: None,
    }
}

pub(super) fn containers(state: &State, filter: &pb::ContainerStatsFilter) -> Vec<pb::ContainerStats> {
    let filter = pb::ContainerFilter {
        id: filter.id.clone(),
        pod_sandbox_id: filter.pod_sandbox_id.clone(),
        state: None,
        label_selector: filter.label_selector.clone(),
    };
    state.list_containers(&filter).iter().filter_map(|entry| state.containers.get(&entry.id)).map(container).collect()
}

pub(super) fn sandbox(state: &State, sandbox: &Sandbox) -> pb::PodSandboxStats {
    let filter = pb::ContainerStatsFilter { pod_sandbox_id: sandbox.id.clone(), ..Default::default() };
    let containers = containers(state, &filter);
    let count = containers.len() as u64;
    pb::PodSandboxStats {
        attributes: Some(pb::PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: sandbox.config.metadata.clone(),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
        }),
        linux: Some(pb::LinuxPodSandboxStats {
            cpu: cpu(count),
            memory: memory(count),
            network: Some(pb::NetworkUsage {
                timestamp: now(),
                default_interface: Some(pb::NetworkInterfaceUsage {
                    name: "eth0".into(),
                    rx_bytes: value(100),
                    tx_bytes: value(200),
                    ..Default::default()
                }),
                interfaces: Vec::new(),
            }),
            process: Some(pb::ProcessUsage { timestamp: now(), process_count: value(count + 1) }),
            containers,
            io: None,
        }),
    }
}

pub(super) fn sandboxes(state: &State, filter: &pb::PodSandboxStatsFilter) -> Vec<pb::PodSandboxStats> {
    let filter = pb::PodSandboxFilter { id: filter.id.clone(), state: None, label_selector: filter.label_selector.clone() };
    state.list_sandboxes(&filter).iter().filter_map(|entry| state.sandboxes.get(&entry.id)).map(|s| sandbox(state, s)).collect()
}

const METRIC: &str = "container_memory_working_set_bytes";

pub(super) fn descriptors() -> Vec<pb::MetricDescriptor> {
    vec![pb::MetricDescriptor {
        name: METRIC.into(),
        help: "Current working set in bytes".into(),
        label_keys: vec!["id".into(), "name".into()],
    }]
}

pub(super) fn metrics(state: &State) -> Vec<pb::PodSandboxMetrics> {
    let metric = |id: &str, name: &str| pb::Metric {
        name: METRIC.into(),
        timestamp: now(),
        metric_type: pb::MetricType::Gauge as i32,
        label_values: vec![id.to_owned(), name.to_owned()],
        value: value(1 << 20),
    };
    let of = |sandbox: &Sandbox| {
        let mine = state.containers.values().filter(|container| container.sandbox_id == sandbox.id);
        let one = |container: &Container| pb::ContainerMetrics {
            container_id: container.id.clone(),
            metrics: vec![metric(&container.id, container.config.metadata.as_ref().map_or("", |m| m.name.as_str()))],
        };
        pb::PodSandboxMetrics {
            pod_sandbox_id: sandbox.id.clone(),
            metrics: vec![metric(&sandbox.id, "POD")],
            container_metrics: mine.map(one).collect(),
        }
    };
    state.sandboxes.values().map(of).collect()
}
