//! What the calls of the runtime service do to the fake's state.

use super::runtime_service::Service;
use super::state::{Container, Sandbox, State, now};
use crate::pb;
use std::time::Duration;
use tonic::{Code, Status};

pub(super) fn not_found(what: &str, id: &str) -> Status {
    Status::not_found(format!("an error occurred when try to find {what} {id:?}: not found"))
}

pub(super) fn sandbox<'a>(state: &'a State, id: &str) -> Result<&'a Sandbox, Status> {
    state.sandboxes.get(id).ok_or_else(|| not_found("sandbox", id))
}

pub(super) fn container<'a>(state: &'a State, id: &str) -> Result<&'a Container, Status> {
    state.containers.get(id).ok_or_else(|| not_found("container", id))
}

pub(super) fn running<'a>(state: &'a State, id: &str) -> Result<&'a Container, Status> {
    let found = container(state, id)?;
    if found.state == pb::ContainerState::ContainerRunning {
        Ok(found)
    } else {
        Err(Status::unknown(format!("container is in {} state", found.state.as_str_name())))
    }
}

impl Service {
    pub(super) fn run_sandbox(&self, request: pb::RunPodSandboxRequest) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("config is missing"))?;
        let metadata = config.metadata.clone().ok_or_else(|| Status::invalid_argument("sandbox config must include metadata"))?;
        let id = self.0.with(|state| {
            if let Some(other) = state.sandboxes.values().find(|s| s.config.metadata.as_ref() == Some(&metadata)) {
                let pb::PodSandboxMetadata { name, namespace, uid, attempt } = &metadata;
                let taken = format!("{name}_{namespace}_{uid}_{attempt}");
                let holder = &other.id;
                let message = format!("failed to reserve sandbox name {taken:?}: name {taken:?} is reserved for {holder:?}");
                return Err(Status::new(state.profile.name_taken.to_tonic(), message));
            }
            if !state.conditions.1 {
                return Err(Status::unknown("failed to setup network for sandbox: cni plugin not initialized"));
            }
            let id = state.new_id();
            let linux =
                config.linux.as_ref().and_then(|l| l.security_context.as_ref()).and_then(|s| s.namespace_options.as_ref());
            let on_host = linux.is_some_and(|options| options.network == pb::NamespaceMode::Node as i32);
            let ip = if on_host { String::new() } else { state.next_ip() };
            let handler = request.runtime_handler;
            state.note_sandbox(&config);
            state.sandboxes.insert(id.clone(), Sandbox { id: id.clone(), config, handler, ready: true, created_at: now(), ip });
            Ok(id)
        })?;
        self.0.emit(&id, &id, pb::ContainerEventType::ContainerCreatedEvent);
        self.0.emit(&id, &id, pb::ContainerEventType::ContainerStartedEvent);
        Ok(id)
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        if self.0.with(|state| !state.sandboxes.contains_key(id)) {
            let error = self.0.with(|state| state.profile.stop_gone_is_error);
            return if error { Err(not_found("sandbox", id)) } else { Ok(()) };
        }
        for mut process in self.0.running_in(id) {
            process.stop(Duration::ZERO).await;
        }
        self.0.sandbox_stopped(id);
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        if self.0.with(|state| !state.sandboxes.contains_key(id)) {
            return Ok(());
        }
        self.stop_sandbox(id).await?;
        let inside: Vec<String> =
            self.0.with(|state| state.containers.values().filter(|c| c.sandbox_id == id).map(|c| c.id.clone()).collect());
        for container in inside {
            self.0.forget_container(&container);
        }
        if self.0.with(|state| state.sandboxes.remove(id)).is_some() {
            self.0.emit(id, id, pb::ContainerEventType::ContainerDeletedEvent);
        }
        Ok(())
    }

    pub(super) fn create(&self, request: pb::CreateContainerRequest) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("container config must be set"))?;
        let metadata =
            config.metadata.clone().ok_or_else(|| Status::invalid_argument("container config must include metadata"))?;
        let sandbox_id = request.pod_sandbox_id;
        let id = self.0.with(|state| {
            let parent = state.sandboxes.get(&sandbox_id);
            let parent =
                parent.ok_or_else(|| Status::not_found(format!("failed to find sandbox id {sandbox_id:?}: not found")))?;
            if !parent.ready {
                return Err(Status::unknown(format!(
                    "failed to get sandbox container task: no running task found: {sandbox_id}"
                )));
            }
            let target = config.linux.as_ref().and_then(|l| l.security_context.as_ref()?.namespace_options.as_ref());
            if let Some(options) = target.filter(|o| o.pid == pb::NamespaceMode::Target as i32) {
                in_reach(state, &options.target_id, &sandbox_id)
                    .map_err(|why| Status::unknown(format!("invalid target container: {why}")))?;
            }
            let same = |c: &&Container| c.sandbox_id == sandbox_id && c.config.metadata.as_ref() == Some(&metadata);
            if let Some(other) = state.containers.values().find(same) {
                let taken = format!("{}_{}_{}", metadata.name, sandbox_id, metadata.attempt);
                let holder = &other.id;
                let message = format!("failed to reserve container name {taken:?}: name {taken:?} is reserved for {holder:?}");
                return Err(Status::new(state.profile.name_taken.to_tonic(), message));
            }
            let reference = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
            let image = state.image(&reference);
            let image_id = image
                .map(|image| image.id.clone())
                .ok_or_else(|| Status::not_found(format!("failed to resolve image {reference:?}: not found")))?;
            let directory = &parent.config.log_directory;
            let log_path = match (directory.is_empty(), config.log_path.is_empty()) {
                (false, false) => format!("{}/{}", directory.trim_end_matches('/'), config.log_path),
                _ => String::new(),
            };
            let id = state.new_id();
            let made = Container {
                id: id.clone(),
                sandbox_id: sandbox_id.clone(),
                config,
                state: pb::ContainerState::ContainerCreated,
                created_at: now(),
                started_at: 0,
                finished_at: 0,
                exit_code: 0,
                reason: String::new(),
                message: String::new(),
                image_id,
                log_path,
                process: None,
            };
            state.containers.insert(id.clone(), made);
            Ok(id)
        })?;
        self.0.emit(&id, &sandbox_id, pb::ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    pub(super) fn start(&self, id: &str) -> Result<(), Status> {
        self.0.with(|state| {
            let found = container(state, id)?;
            if found.state != pb::ContainerState::ContainerCreated {
                let problem = format!("container is in {} state", found.state.as_str_name());
                return Err(Status::unknown(format!("failed to set starting state for container {id:?}: {problem}")));
            }
            match state.sandboxes.get(&found.sandbox_id) {
                Some(parent) if parent.ready => Ok(()),
                _ => Err(Status::unknown(format!("sandbox container {:?} is not running", found.sandbox_id))),
            }
        })?;
        self.0.start(id).map_err(Status::unknown)
    }

    pub(super) async fn stop(&self, id: &str, grace: i64) -> Result<(), Status> {
        let found = self.0.with(|state| container(state, id).cloned());
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                return if self.0.with(|state| state.profile.stop_gone_is_error) { Err(error) } else { Ok(()) };
            }
        };
        if let Some(mut process) = found.running() {
            process.stop(Duration::from_secs(u64::try_from(grace).unwrap_or(0))).await;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), Status> {
        let Some(found) = self.0.with(|state| state.containers.get(id).cloned()) else { return Ok(()) };
        if let Some(mut process) = found.running() {
            process.stop(Duration::ZERO).await;
        }
        self.0.forget_container(id);
        Ok(())
    }

    pub(super) async fn run_command(&self, request: pb::ExecSyncRequest) -> Result<pb::ExecSyncResponse, Status> {
        let program =
            self.0.with(|state| running(state, &request.container_id).map(|found| state.program(found, &request.cmd)))?;
        if let Some(program) = &program {
            self.0.with(|state| running(state, &request.container_id).map(|found| state.write(found, program)))?;
        }
        let Some(program) = program else {
            let name = request.cmd.first().cloned().unwrap_or_default();
            return Err(Status::unknown(format!(
                "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start \
                 container process: exec: {name:?}: stat {name}: no such file or directory: unknown"
            )));
        };
        let timeout = u64::try_from(request.timeout).unwrap_or(0);
        let (limit, over) = match (timeout, program.ends_after) {
            (0, None) => std::future::pending().await,
            (0, Some(end)) => (end, false),
            (limit, Some(end)) if end <= Duration::from_secs(limit) => (end, false),
            (limit, _) => (Duration::from_secs(limit), true),
        };
        tokio::time::sleep(limit).await;
        if over {
            let message = format!("failed to exec in container: timeout {timeout}s exceeded: context deadline exceeded");
            return Err(Status::new(Code::DeadlineExceeded, message));
        }
        Ok(pb::ExecSyncResponse { stdout: program.stdout, stderr: program.stderr, exit_code: program.exit_code })
    }

    pub(super) fn update(&self, id: &str, change: Option<pb::LinuxContainerResources>) -> Result<(), Status> {
        self.0.with(|state| {
            let found = state.containers.get_mut(id).ok_or_else(|| not_found("container", id))?;
            if found.state == pb::ContainerState::ContainerExited {
                return Err(Status::unknown("failed to update resources: container is in CONTAINER_EXITED state"));
            }
            let resources = found.config.linux.get_or_insert_default().resources.get_or_insert_default();
            merge(resources, change.unwrap_or_default());
            Ok(())
        })
    }

    pub(super) fn url(&self, kind: &str) -> String {
        self.0.with(|state| {
            let token = state.new_id();
            format!("{}/{kind}/{}", state.streaming_url, &token[..8])
        })
    }

    pub(super) fn lists_containers(&self, filter: Option<pb::ContainerFilter>) -> Vec<pb::Container> {
        self.0.with(|state| state.list_containers(&filter.unwrap_or_default()))
    }

    pub(super) fn lists_sandboxes(&self, filter: Option<pb::PodSandboxFilter>) -> Vec<pb::PodSandbox> {
        self.0.with(|state| state.list_sandboxes(&filter.unwrap_or_default()))
    }
}

/// Whether the processes of a container can be shared with another of this sandbox.
fn in_reach(state: &State, id: &str, sandbox_id: &str) -> Result<(), String> {
    let found = state.containers.get(id).ok_or_else(|| format!("container {id:?} does not exist: not found"))?;
    if found.sandbox_id != sandbox_id {
        return Err(format!("container {id:?} (sandbox {}) does not belong to sandbox {sandbox_id}", found.sandbox_id));
    }
    match found.state {
        pb::ContainerState::ContainerRunning => Ok(()),
        other => Err(format!("container {id:?} is not running - in state {}", other.as_str_name())),
    }
}

/// Zero and empty mean that it stays as it was.
fn merge(old: &mut pb::LinuxContainerResources, new: pb::LinuxContainerResources) {
    for (old, new) in [
        (&mut old.cpu_period, new.cpu_period),
        (&mut old.cpu_quota, new.cpu_quota),
        (&mut old.cpu_shares, new.cpu_shares),
        (&mut old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        (&mut old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes),
        (&mut old.oom_score_adj, new.oom_score_adj),
    ] {
        if new != 0 {
            *old = new;
        }
    }
    for (old, new) in [(&mut old.cpuset_cpus, new.cpuset_cpus), (&mut old.cpuset_mems, new.cpuset_mems)] {
        if !new.is_empty() {
            *old = new;
        }
    }
    old.unified.extend(new.unified);
}
