//! Calls about sandboxes.

use super::Client;
use super::calls::{about, answer, asking, gone_is_done, request};
use super::features::Optional;
use crate::convert::{from, to};
use crate::error::Error;
use crate::pb;
use crate::types::{LinuxResources, PodSandboxStatus, SandboxConfig, SandboxFilter, SandboxInspection, SandboxSummary};

impl Client {
    /// Makes and starts a sandbox with its network, and answers its id. An empty handler is the default one.
    pub async fn run_pod_sandbox(&self, config: &SandboxConfig, runtime_handler: &str) -> Result<String, Error> {
        const METHOD: &str = "RunPodSandbox";
        let object = format!("{}/{}", config.metadata.namespace, config.metadata.name);
        let config = Some(request(METHOD, to::sandbox_config(config))?);
        let message = pb::RunPodSandboxRequest { config, runtime_handler: runtime_handler.to_owned() };
        let mut service = self.runtime();
        let reply = self.call(about(METHOD, &object), self.deadlines().sandbox, service.run_pod_sandbox(message)).await?;
        answer(METHOD, from::id("pod_sandbox_id", reply.pod_sandbox_id))
    }

    /// Kills what runs in it and takes its network down. Not there, or stopped already: that is a success.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        const METHOD: &str = "StopPodSandbox";
        let message = pb::StopPodSandboxRequest { pod_sandbox_id: request(METHOD, to::id("pod_sandbox_id", id))? };
        let mut service = self.runtime();
        gone_is_done(self.call(about(METHOD, id), self.deadlines().sandbox, service.stop_pod_sandbox(message)).await)
    }

    /// Removes it with all its containers, killing them if need be. Not there: that is a success.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        const METHOD: &str = "RemovePodSandbox";
        let message = pb::RemovePodSandboxRequest { pod_sandbox_id: request(METHOD, to::id("pod_sandbox_id", id))? };
        let mut service = self.runtime();
        gone_is_done(self.call(about(METHOD, id), self.deadlines().sandbox, service.remove_pod_sandbox(message)).await)
    }

    pub async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, Error> {
        Ok(self.sandbox_status(id, false).await?.status)
    }

    /// The status, and all else that the runtime knows about it.
    pub async fn inspect_pod_sandbox(&self, id: &str) -> Result<SandboxInspection, Error> {
        self.sandbox_status(id, true).await
    }

    async fn sandbox_status(&self, id: &str, verbose: bool) -> Result<SandboxInspection, Error> {
        const METHOD: &str = "PodSandboxStatus";
        let message = pb::PodSandboxStatusRequest { pod_sandbox_id: request(METHOD, to::id("pod_sandbox_id", id))?, verbose };
        let service = self.runtime();
        let reply = self.query(about(METHOD, id), asking!(service, message, pod_sandbox_status)).await?;
        answer(METHOD, from::sandbox_inspection(reply))
    }

    pub async fn list_pod_sandbox(&self, filter: &SandboxFilter) -> Result<Vec<SandboxSummary>, Error> {
        const METHOD: &str = "ListPodSandbox";
        let filter = Some(to::sandbox_filter(filter));
        let service = self.runtime();
        let streamed = {
            let message = pb::StreamPodSandboxesRequest { filter: filter.clone() };
            let open = asking!(service, message, stream_pod_sandboxes);
            self.collect(Optional::StreamPodSandboxes, about("StreamPodSandboxes", ""), open, |part| part.pod_sandboxes).await?
        };
        let items = match streamed {
            Some(items) => items,
            None => {
                let message = pb::ListPodSandboxRequest { filter };
                self.query(about(METHOD, ""), asking!(service, message, list_pod_sandbox)).await?.items
            }
        };
        answer(METHOD, from::sandboxes(items))
    }

    /// Tells the runtime the pod's new sums; [`Error::Unimplemented`] from many runtimes, and that does no harm.
    pub async fn update_pod_sandbox_resources(
        &self,
        id: &str,
        overhead: Option<&LinuxResources>,
        resources: Option<&LinuxResources>,
    ) -> Result<(), Error> {
        const METHOD: &str = "UpdatePodSandboxResources";
        let message = pb::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: request(METHOD, to::id("pod_sandbox_id", id))?,
            overhead: overhead.map(to::resources),
            resources: resources.map(to::resources),
        };
        let mut service = self.runtime();
        let reply = service.update_pod_sandbox_resources(message);
        self.optional(Optional::UpdatePodSandboxResources, about(METHOD, id), self.deadlines().mutate, reply).await?;
        Ok(())
    }

    /// Where to stream the forwarded connections, as an HTTP upgrade.
    pub async fn port_forward(&self, id: &str, ports: &[u16]) -> Result<String, Error> {
        const METHOD: &str = "PortForward";
        let message = pb::PortForwardRequest {
            pod_sandbox_id: request(METHOD, to::id("pod_sandbox_id", id))?,
            port: ports.iter().map(|port| i32::from(*port)).collect(),
        };
        let mut service = self.runtime();
        let reply = self.call(about(METHOD, id), self.deadlines().query, service.port_forward(message)).await?;
        answer(METHOD, from::id("url", reply.url))
    }
}
