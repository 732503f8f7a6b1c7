//! The runtime service of the fake.

use super::shared::Shared;
use super::state::{Fault, Outcome, now};
use super::stats;
use super::work::{container, not_found, running, sandbox};
use crate::pb;
use crate::pb::runtime_service_server::RuntimeService;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::future::Future;
use std::sync::Arc;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

pub(super) struct Service(pub(super) Arc<Shared>);

type Answer<T> = Result<Response<T>, Status>;
type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// How many entries a streaming list puts into one message.
const PART: usize = 2;

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
                if !time.is_zero() {
                    tokio::time::sleep(time).await;
                }
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
