//! The fake's state as wire messages: statuses and filtered lists.

use super::state::{Container, Sandbox, State, now};
use crate::pb;
use std::collections::BTreeMap;

fn matches(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Runtimes take a shortened id too, as long as it fits only one; a filter by id is a prefix there.
fn id_matches(id: &str, wanted: &str) -> bool {
    wanted.is_empty() || id.starts_with(wanted)
}

impl Sandbox {
    pub(super) fn state(&self) -> pb::PodSandboxState {
        if self.ready { pb::PodSandboxState::SandboxReady } else { pb::PodSandboxState::SandboxNotready }
    }

    pub(super) fn status(&self) -> pb::PodSandboxStatus {
        let options = self.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = options.and_then(|security| security.namespace_options.clone());
        pb::PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            network: Some(pb::PodSandboxNetworkStatus {
                ip: if self.ready { self.ip.clone() } else { String::new() },
                additional_ips: Vec::new(),
            }),
            linux: Some(pb::LinuxPodSandboxStatus { namespaces: Some(pb::Namespace { options }) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }
}

fn handler(name: &str) -> pb::RuntimeHandler {
    let features = pb::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
    pb::RuntimeHandler { name: name.to_owned(), features: Some(features) }
}

impl State {
    fn has_events(&self) -> bool {
        !self.profile.missing.contains("GetContainerEvents")
    }

    pub(super) fn version(&self) -> pb::VersionResponse {
        pb::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: self.profile.name.clone(),
            runtime_version: self.profile.version.clone(),
            runtime_api_version: "v1".into(),
        }
    }

    pub(super) fn status(&self, verbose: bool) -> pb::StatusResponse {
        let (runtime, network) = self.conditions;
        let condition = |kind: &str, status: bool, reason: &str, message: &str| pb::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: if status { String::new() } else { reason.into() },
            message: if status { String::new() } else { message.into() },
        };
        let missing = "Network plugin returns error: cni plugin not initialized";
        pb::StatusResponse {
            status: Some(pb::RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", runtime, "RuntimeNotReady", "told not to be ready"),
                    condition("NetworkReady", network, "NetworkPluginNotReady", missing),
                ],
            }),
            info: if verbose { BTreeMap::from([("config".into(), "{}".into())]) } else { BTreeMap::new() },
            runtime_handlers: if self.profile.handlers { ["", "runc"].map(handler).into() } else { Vec::new() },
            features: self
                .profile
                .handlers
                .then_some(pb::RuntimeFeatures { supplemental_groups_policy: true, ..Default::default() }),
        }
    }

    pub(super) fn inspect_sandbox(&self, sandbox: &Sandbox, verbose: bool) -> pb::PodSandboxStatusResponse {
        let mine = self.containers.values().filter(|c| c.sandbox_id == sandbox.id && self.has_events());
        pb::PodSandboxStatusResponse {
            status: Some(sandbox.status()),
            info: if verbose { BTreeMap::from([("info".into(), "{}".into())]) } else { BTreeMap::new() },
            containers_statuses: mine.map(|c| self.container_status(c)).collect(),
            timestamp: if self.has_events() { now() } else { 0 },
        }
    }

    pub(super) fn list_sandboxes(&self, filter: &pb::PodSandboxFilter) -> Vec<pb::PodSandbox> {
        let wanted = |sandbox: &&Sandbox| {
            id_matches(&sandbox.id, &filter.id)
                && filter.state.is_none_or(|state| state.state == sandbox.state() as i32)
                && matches(&sandbox.config.labels, &filter.label_selector)
        };
        let entry = |sandbox: &Sandbox| pb::PodSandbox {
            id: sandbox.id.clone(),
            metadata: sandbox.config.metadata.clone(),
            state: sandbox.state() as i32,
            created_at: sandbox.created_at,
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            runtime_handler: sandbox.handler.clone(),
        };
        let shown = self.lists.as_ref().map_or(&self.sandboxes, |lists| &lists.0);
        shown.values().filter(wanted).map(entry).collect()
    }

    pub(super) fn list_containers(&self, filter: &pb::ContainerFilter) -> Vec<pb::Container> {
        let wanted = |container: &&Container| {
            id_matches(&container.id, &filter.id)
                && id_matches(&container.sandbox_id, &filter.pod_sandbox_id)
                && filter.state.is_none_or(|state| state.state == container.state as i32)
                && matches(&container.config.labels, &filter.label_selector)
        };
        let entry = |container: &Container| pb::Container {
            id: container.id.clone(),
            pod_sandbox_id: container.sandbox_id.clone(),
            metadata: container.config.metadata.clone(),
            image: container.config.image.clone(),
            image_ref: container.image_id.clone(),
            image_id: container.image_id.clone(),
            state: container.state as i32,
            created_at: container.created_at,
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        };
        let shown = self.lists.as_ref().map_or(&self.containers, |lists| &lists.1);
        shown.values().filter(wanted).map(entry).collect()
    }

    pub(super) fn inspect_container(&self, container: &Container, verbose: bool) -> pb::ContainerStatusResponse {
        pb::ContainerStatusResponse {
            status: Some(self.container_status(container)),
            info: if verbose { BTreeMap::from([("info".into(), "{}".into())]) } else { BTreeMap::new() },
        }
    }

    pub(super) fn container_status(&self, container: &Container) -> pb::ContainerStatus {
        let config = &container.config;
        let name = self.images.get(&container.image_id).and_then(|image| image.tags.first().cloned());
        pb::ContainerStatus {
            id: container.id.clone(),
            metadata: config.metadata.clone(),
            state: container.state as i32,
            created_at: container.created_at,
            started_at: container.started_at,
            finished_at: container.finished_at,
            exit_code: container.exit_code,
            reason: container.reason.clone(),
            message: container.message.clone(),
            image: Some(pb::ImageSpec { image: name.unwrap_or_else(|| container.image_id.clone()), ..Default::default() }),
            image_ref: container.image_id.clone(),
            image_id: if self.profile.image_id { container.image_id.clone() } else { String::new() },
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: container.log_path.clone(),
            resources: Some(pb::ContainerResources { linux: config.linux.as_ref().and_then(|linux| linux.resources.clone()) }),
            user: None,
            stop_signal: config.stop_signal,
        }
    }
}
