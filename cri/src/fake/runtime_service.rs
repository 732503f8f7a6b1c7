//! The runtime service of the fake.

use super::state::{Container, Fault, Outcome, Sandbox, Shared, State, now};
use super::stats;
use crate::pb;
use crate::pb::runtime_service_server::RuntimeService;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Code, Request, Response, Status};

pub(super) struct Service(pub(super) Arc<Shared>);

type Answer<T> = Result<Response<T>, Status>;
type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// How many entries a streaming list puts into one message.
const PART: usize = 2;

pub(super) fn not_found(what: &str, id: &str) -> Status {
    Status::not_found(format!("an error occurred when try to find {what} {id:?}: not found"))
}

/// Writes the call down, fails it as a test wants, does the work.
pub(super) async fn around<T: Default>(
    shared: &Arc<Shared>,
    method: &'static str,
    ids: Vec<String>,
    work: impl Future<Output = Result<T, Status>>,
) -> Answer<T> {
    let (mut ticket, fault, missing) = shared.begin(method, ids);
    let result = async {
        if missing {
            return Err(Status::unimplemented(format!("unknown method {method} for service runtime.v1")));
        }
        match fault {
            None => work.await,
            Some(Fault::Error(code, message)) => Err(Status::new(code.to_tonic(), message)),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                work.await
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::ErrorAfter(code, message)) => {
                work.await?;
                Err(Status::new(code.to_tonic(), message))
            }
            Some(Fault::HangAfter) => {
                work.await?;
                std::future::pending().await
            }
            Some(Fault::Empty) => Ok(T::default()),
        }
    }
    .await;
    ticket.outcome = Outcome::Answered;
    result.map(Response::new)
}

/// Something with a `Default`, so that a stream can go through [`around`] too.
pub(super) struct Parts<T>(pub(super) Stream<T>);

impl<T: Send + 'static> Default for Parts<T> {
    fn default() -> Self {
        Parts(futures::stream::empty().boxed())
    }
}

/// A list as a stream of small parts.
pub(super) fn parts<I: Send + 'static, T: Send + 'static>(items: Vec<I>, wrap: fn(Vec<I>) -> T) -> Parts<T> {
    let mut items = items.into_iter();
    let chunks: Vec<T> = std::iter::from_fn(|| {
        let chunk: Vec<I> = items.by_ref().take(PART).collect();
        (!chunk.is_empty()).then(|| wrap(chunk))
    })
    .collect();
    Parts(futures::stream::iter(chunks.into_iter().map(Ok)).boxed())
}

fn sandbox<'a>(state: &'a State, id: &str) -> Result<&'a Sandbox, Status> {
    state.sandboxes.get(id).ok_or_else(|| not_found("sandbox", id))
}

fn container<'a>(state: &'a State, id: &str) -> Result<&'a Container, Status> {
    state.containers.get(id).ok_or_else(|| not_found("container", id))
}

fn running<'a>(state: &'a State, id: &str) -> Result<&'a Container, Status> {
    let found = container(state, id)?;
    if found.state == pb::ContainerState::ContainerRunning {
        Ok(found)
    } else {
        Err(Status::unknown(format!("container is in {} state", found.state.as_str_name())))
    }
}

impl Service {
    async fn around<T: Default>(
        &self,
        method: &'static str,
        ids: &[&str],
        work: impl Future<Output = Result<T, Status>>,
    ) -> Answer<T> {
        around(&self.0, method, ids.iter().map(|id| (*id).to_owned()).collect(), work).await
    }

    async fn streamed<T: Send + 'static>(
        &self,
        method: &'static str,
        work: impl Future<Output = Result<Parts<T>, Status>>,
    ) -> Answer<Stream<T>> {
        let answer: Response<Parts<T>> = self.around(method, &[], work).await?;
        Ok(answer.map(|parts| parts.0))
    }

    fn run_sandbox(&self, request: pb::RunPodSandboxRequest) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("config is missing"))?;
        let metadata = config.metadata.clone().ok_or_else(|| Status::invalid_argument("sandbox config must include metadata"))?;
        let id = self.0.with(|state| {
            if let Some(other) = state.sandboxes.values().find(|s| s.config.metadata.as_ref() == Some(&metadata)) {
                let pb::PodSandboxMetadata { name, namespace, uid, attempt } = &metadata;
                let taken = format!("{name}_{namespace}_{uid}_{attempt}");
                let holder = &other.id;
                return Err(Status::unknown(format!(
                    "failed to reserve sandbox name {taken:?}: name {taken:?} is reserved for {holder:?}"
                )));
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
            state.sandboxes.insert(id.clone(), Sandbox { id: id.clone(), config, handler, ready: true, created_at: now(), ip });
            Ok(id)
        })?;
        self.0.emit(&id, &id, pb::ContainerEventType::ContainerCreatedEvent);
        self.0.emit(&id, &id, pb::ContainerEventType::ContainerStartedEvent);
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
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

    async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
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

    fn create(&self, request: pb::CreateContainerRequest) -> Result<String, Status> {
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
            let same = |c: &&Container| c.sandbox_id == sandbox_id && c.config.metadata.as_ref() == Some(&metadata);
            if let Some(other) = state.containers.values().find(same) {
                let taken = format!("{}_{}_{}", metadata.name, sandbox_id, metadata.attempt);
                let holder = &other.id;
                return Err(Status::unknown(format!(
                    "failed to reserve container name {taken:?}: name {taken:?} is reserved for {holder:?}"
                )));
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

    fn start(&self, id: &str) -> Result<(), Status> {
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

    async fn stop(&self, id: &str, grace: i64) -> Result<(), Status> {
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

    async fn remove(&self, id: &str) -> Result<(), Status> {
        let Some(found) = self.0.with(|state| state.containers.get(id).cloned()) else { return Ok(()) };
        if let Some(mut process) = found.running() {
            process.stop(Duration::ZERO).await;
        }
        self.0.forget_container(id);
        Ok(())
    }

    async fn run_command(&self, request: pb::ExecSyncRequest) -> Result<pb::ExecSyncResponse, Status> {
        let program =
            self.0.with(|state| running(state, &request.container_id).map(|found| state.program(found, &request.cmd)))?;
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

    fn update(&self, id: &str, change: Option<pb::LinuxContainerResources>) -> Result<(), Status> {
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

    fn url(&self, kind: &str) -> String {
        self.0.with(|state| {
            let token = state.new_id();
            format!("{}/{kind}/{}", state.streaming_url, &token[..8])
        })
    }

    fn lists_containers(&self, filter: Option<pb::ContainerFilter>) -> Vec<pb::Container> {
        self.0.with(|state| state.list_containers(&filter.unwrap_or_default()))
    }

    fn lists_sandboxes(&self, filter: Option<pb::PodSandboxFilter>) -> Vec<pb::PodSandbox> {
        self.0.with(|state| state.list_sandboxes(&filter.unwrap_or_default()))
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

#[tonic::async_trait]
impl RuntimeService for Service {
    type GetContainerEventsStream = Stream<pb::ContainerEventResponse>;
    type StreamPodSandboxesStream = Stream<pb::StreamPodSandboxesResponse>;
    type StreamContainersStream = Stream<pb::StreamContainersResponse>;
    type StreamContainerStatsStream = Stream<pb::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Stream<pb::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Stream<pb::StreamPodSandboxMetricsResponse>;

    async fn version(&self, _: Request<pb::VersionRequest>) -> Answer<pb::VersionResponse> {
        let work = async { Ok(self.0.with(|state| state.version())) };
        self.around("Version", &[], work).await
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        let verbose = request.into_inner().verbose;
        self.around("Status", &[], async { Ok(self.0.with(|state| state.status(verbose))) }).await
    }

    async fn runtime_config(&self, _: Request<pb::RuntimeConfigRequest>) -> Answer<pb::RuntimeConfigResponse> {
        let linux = Some(pb::LinuxRuntimeConfiguration { cgroup_driver: pb::CgroupDriver::Cgroupfs as i32 });
        self.around("RuntimeConfig", &[], async { Ok(pb::RuntimeConfigResponse { linux }) }).await
    }

    async fn update_runtime_config(
        &self,
        request: Request<pb::UpdateRuntimeConfigRequest>,
    ) -> Answer<pb::UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.and_then(|config| config.network_config).unwrap_or_default();
        self.around("UpdateRuntimeConfig", &[&network.pod_cidr], async { Ok(pb::UpdateRuntimeConfigResponse {}) }).await
    }

    async fn get_container_events(&self, _: Request<pb::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let work = async {
            let events = BroadcastStream::new(self.0.subscribe());
            let mut events = events.filter_map(|event| async move { event.ok() }).boxed();
            // As grpc-go does, nothing at all is sent before the first event.
            let first = events.next().await;
            Ok(Parts(futures::stream::iter(first).chain(events).map(Ok).boxed()))
        };
        self.streamed("GetContainerEvents", work).await
    }

    async fn run_pod_sandbox(&self, request: Request<pb::RunPodSandboxRequest>) -> Answer<pb::RunPodSandboxResponse> {
        let request = request.into_inner();
        let metadata = request.config.as_ref().and_then(|config| config.metadata.clone()).unwrap_or_default();
        let ids = [metadata.namespace.as_str(), &metadata.name, &metadata.uid];
        let work = async { Ok(pb::RunPodSandboxResponse { pod_sandbox_id: self.run_sandbox(request)? }) };
        self.around("RunPodSandbox", &ids, work).await
    }

    async fn stop_pod_sandbox(&self, request: Request<pb::StopPodSandboxRequest>) -> Answer<pb::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let work = async { self.stop_sandbox(&id).await.map(|()| pb::StopPodSandboxResponse {}) };
        self.around("StopPodSandbox", &[&id], work).await
    }

    async fn remove_pod_sandbox(&self, request: Request<pb::RemovePodSandboxRequest>) -> Answer<pb::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let work = async { self.remove_sandbox(&id).await.map(|()| pb::RemovePodSandboxResponse {}) };
        self.around("RemovePodSandbox", &[&id], work).await
    }

    async fn pod_sandbox_status(&self, request: Request<pb::PodSandboxStatusRequest>) -> Answer<pb::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let id = &request.pod_sandbox_id;
        let work = async { self.0.with(|state| Ok(state.inspect_sandbox(sandbox(state, id)?, request.verbose))) };
        self.around("PodSandboxStatus", &[id], work).await
    }

    async fn list_pod_sandbox(&self, request: Request<pb::ListPodSandboxRequest>) -> Answer<pb::ListPodSandboxResponse> {
        let filter = request.into_inner().filter;
        self.around("ListPodSandbox", &[], async { Ok(pb::ListPodSandboxResponse { items: self.lists_sandboxes(filter) }) }).await
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<pb::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let filter = request.into_inner().filter;
        let wrap = |pod_sandboxes| pb::StreamPodSandboxesResponse { pod_sandboxes };
        self.streamed("StreamPodSandboxes", async { Ok(parts(self.lists_sandboxes(filter), wrap)) }).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<pb::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<pb::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        let id = &request.pod_sandbox_id;
        let work = async {
            self.0.with(|state| {
                let found = state.sandboxes.get_mut(id).ok_or_else(|| not_found("sandbox", id))?;
                let linux = found.config.linux.get_or_insert_default();
                linux.overhead = request.overhead.clone().or(linux.overhead.take());
                linux.resources = request.resources.clone().or(linux.resources.take());
                Ok(pb::UpdatePodSandboxResourcesResponse {})
            })
        };
        self.around("UpdatePodSandboxResources", &[id], work).await
    }

    async fn create_container(&self, request: Request<pb::CreateContainerRequest>) -> Answer<pb::CreateContainerResponse> {
        let request = request.into_inner();
        let name = request.config.as_ref().and_then(|config| config.metadata.clone()).unwrap_or_default().name;
        let sandbox_id = request.pod_sandbox_id.clone();
        let work = async { Ok(pb::CreateContainerResponse { container_id: self.create(request)? }) };
        self.around("CreateContainer", &[&sandbox_id, &name], work).await
    }

    async fn start_container(&self, request: Request<pb::StartContainerRequest>) -> Answer<pb::StartContainerResponse> {
        let id = request.into_inner().container_id;
        self.around("StartContainer", &[&id], async { self.start(&id).map(|()| pb::StartContainerResponse {}) }).await
    }

    async fn stop_container(&self, request: Request<pb::StopContainerRequest>) -> Answer<pb::StopContainerResponse> {
        let pb::StopContainerRequest { container_id: id, timeout } = request.into_inner();
        let work = async { self.stop(&id, timeout).await.map(|()| pb::StopContainerResponse {}) };
        self.around("StopContainer", &[&id, &timeout.to_string()], work).await
    }

    async fn remove_container(&self, request: Request<pb::RemoveContainerRequest>) -> Answer<pb::RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        let work = async { self.remove(&id).await.map(|()| pb::RemoveContainerResponse {}) };
        self.around("RemoveContainer", &[&id], work).await
    }

    async fn container_status(&self, request: Request<pb::ContainerStatusRequest>) -> Answer<pb::ContainerStatusResponse> {
        let request = request.into_inner();
        let id = &request.container_id;
        let work = async { self.0.with(|state| Ok(state.inspect_container(container(state, id)?, request.verbose))) };
        self.around("ContainerStatus", &[id], work).await
    }

    async fn list_containers(&self, request: Request<pb::ListContainersRequest>) -> Answer<pb::ListContainersResponse> {
        let filter = request.into_inner().filter;
        let work = async { Ok(pb::ListContainersResponse { containers: self.lists_containers(filter) }) };
        self.around("ListContainers", &[], work).await
    }

    async fn stream_containers(&self, request: Request<pb::StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
        let filter = request.into_inner().filter;
        let wrap = |containers| pb::StreamContainersResponse { containers };
        self.streamed("StreamContainers", async { Ok(parts(self.lists_containers(filter), wrap)) }).await
    }

    async fn update_container_resources(
        &self,
        request: Request<pb::UpdateContainerResourcesRequest>,
    ) -> Answer<pb::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let id = request.container_id.clone();
        let work = async { self.update(&id, request.linux).map(|()| pb::UpdateContainerResourcesResponse {}) };
        self.around("UpdateContainerResources", &[&id], work).await
    }

    async fn reopen_container_log(
        &self,
        request: Request<pb::ReopenContainerLogRequest>,
    ) -> Answer<pb::ReopenContainerLogResponse> {
        let id = request.into_inner().container_id;
        let work = async {
            let path = self.0.with(|state| running(state, &id).map(|found| found.log_path.clone()))?;
            super::logs::append(path.as_ref(), now(), b"", b"").map_err(|error| Status::unknown(error.to_string()))?;
            Ok(pb::ReopenContainerLogResponse {})
        };
        self.around("ReopenContainerLog", &[&id], work).await
    }

    async fn checkpoint_container(
        &self,
        request: Request<pb::CheckpointContainerRequest>,
    ) -> Answer<pb::CheckpointContainerResponse> {
        let pb::CheckpointContainerRequest { container_id: id, location, .. } = request.into_inner();
        let work = async {
            self.0.with(|state| running(state, &id).map(drop))?;
            std::fs::write(&location, b"checkpoint").map_err(|error| Status::unknown(format!("{location}: {error}")))?;
            Ok(pb::CheckpointContainerResponse {})
        };
        self.around("CheckpointContainer", &[&id, &location], work).await
    }

    async fn exec_sync(&self, request: Request<pb::ExecSyncRequest>) -> Answer<pb::ExecSyncResponse> {
        let request = request.into_inner();
        let id = request.container_id.clone();
        let command = request.cmd.join(" ");
        self.around("ExecSync", &[&id, &command], self.run_command(request)).await
    }

    async fn exec(&self, request: Request<pb::ExecRequest>) -> Answer<pb::ExecResponse> {
        let request = request.into_inner();
        let id = &request.container_id;
        let work =
            async { self.0.with(|state| running(state, id).map(drop)).map(|()| pb::ExecResponse { url: self.url("exec") }) };
        self.around("Exec", &[id, &request.cmd.join(" ")], work).await
    }

    async fn attach(&self, request: Request<pb::AttachRequest>) -> Answer<pb::AttachResponse> {
        let id = request.into_inner().container_id;
        let work =
            async { self.0.with(|state| running(state, &id).map(drop)).map(|()| pb::AttachResponse { url: self.url("attach") }) };
        self.around("Attach", &[&id], work).await
    }

    async fn port_forward(&self, request: Request<pb::PortForwardRequest>) -> Answer<pb::PortForwardResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let work = async {
            match self.0.with(|state| sandbox(state, &id).map(|found| found.ready))? {
                true => Ok(pb::PortForwardResponse { url: self.url("portforward") }),
                false => Err(Status::unknown("sandbox container is not running")),
            }
        };
        self.around("PortForward", &[&id], work).await
    }

    async fn container_stats(&self, request: Request<pb::ContainerStatsRequest>) -> Answer<pb::ContainerStatsResponse> {
        let id = request.into_inner().container_id;
        let work = async {
            self.0.with(|state| Ok(pb::ContainerStatsResponse { stats: Some(stats::container(container(state, &id)?)) }))
        };
        self.around("ContainerStats", &[&id], work).await
    }

    async fn list_container_stats(
        &self,
        request: Request<pb::ListContainerStatsRequest>,
    ) -> Answer<pb::ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let work = async { Ok(pb::ListContainerStatsResponse { stats: self.0.with(|state| stats::containers(state, &filter)) }) };
        self.around("ListContainerStats", &[], work).await
    }

    async fn stream_container_stats(
        &self,
        request: Request<pb::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let wrap = |container_stats| pb::StreamContainerStatsResponse { container_stats };
        let work = async { Ok(parts(self.0.with(|state| stats::containers(state, &filter)), wrap)) };
        self.streamed("StreamContainerStats", work).await
    }

    async fn pod_sandbox_stats(&self, request: Request<pb::PodSandboxStatsRequest>) -> Answer<pb::PodSandboxStatsResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let work = async {
            self.0.with(|state| Ok(pb::PodSandboxStatsResponse { stats: Some(stats::sandbox(state, sandbox(state, &id)?)) }))
        };
        self.around("PodSandboxStats", &[&id], work).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<pb::ListPodSandboxStatsRequest>,
    ) -> Answer<pb::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let work = async { Ok(pb::ListPodSandboxStatsResponse { stats: self.0.with(|state| stats::sandboxes(state, &filter)) }) };
        self.around("ListPodSandboxStats", &[], work).await
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<pb::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let wrap = |pod_sandbox_stats| pb::StreamPodSandboxStatsResponse { pod_sandbox_stats };
        let work = async { Ok(parts(self.0.with(|state| stats::sandboxes(state, &filter)), wrap)) };
        self.streamed("StreamPodSandboxStats", work).await
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<pb::ListMetricDescriptorsRequest>,
    ) -> Answer<pb::ListMetricDescriptorsResponse> {
        let work = async { Ok(pb::ListMetricDescriptorsResponse { descriptors: stats::descriptors() }) };
        self.around("ListMetricDescriptors", &[], work).await
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<pb::ListPodSandboxMetricsRequest>,
    ) -> Answer<pb::ListPodSandboxMetricsResponse> {
        let work = async { Ok(pb::ListPodSandboxMetricsResponse { pod_metrics: self.0.with(|state| stats::metrics(state)) }) };
        self.around("ListPodSandboxMetrics", &[], work).await
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<pb::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let wrap = |pod_sandbox_metrics| pb::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        let work = async { Ok(parts(self.0.with(|state| stats::metrics(state)), wrap)) };
        self.streamed("StreamPodSandboxMetrics", work).await
    }
}
