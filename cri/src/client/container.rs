//! Calls about containers, and commands in them.

use super::Client;
use super::calls::{about, answer, asking, gone_is_done, request, seconds};
use super::features::Optional;
use crate::convert::{from, to};
use crate::error::{Code, Error};
use crate::pb;
use crate::types::{
    ContainerConfig, ContainerFilter, ContainerStatus, ContainerSummary, ExecOutput, Labels, LinuxResources, SandboxConfig,
    StreamOptions,
};
use std::time::Duration;

impl Client {
    /// Makes a container and answers its id. `sandbox` must be what the sandbox was made from.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &SandboxConfig,
    ) -> Result<String, Error> {
        const METHOD: &str = "CreateContainer";
        let message = pb::CreateContainerRequest {
            pod_sandbox_id: request(METHOD, to::id("pod_sandbox_id", sandbox_id))?,
            config: Some(request(METHOD, to::container_config(config))?),
            sandbox_config: Some(request(METHOD, to::sandbox_config(sandbox))?),
        };
        let object = format!("{} in sandbox {sandbox_id}", config.name);
        let mut service = self.runtime();
        let reply = self.call(about(METHOD, &object), self.deadlines().mutate, service.create_container(message)).await?;
        answer(METHOD, from::id("container_id", reply.container_id))
    }

    pub async fn start_container(&self, id: &str) -> Result<(), Error> {
        const METHOD: &str = "StartContainer";
        let message = pb::StartContainerRequest { container_id: request(METHOD, to::id("container_id", id))? };
        let mut service = self.runtime();
        self.call(about(METHOD, id), self.deadlines().mutate, service.start_container(message)).await?;
        Ok(())
    }

    /// Sends the stop signal, and SIGKILL after `grace` (rounded up to whole seconds; zero kills at once). Not there, or ended
    /// already: that is a success.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        const METHOD: &str = "StopContainer";
        let message =
            pb::StopContainerRequest { container_id: request(METHOD, to::id("container_id", id))?, timeout: seconds(grace) };
        let limit = grace.saturating_add(self.deadlines().stop_margin);
        let mut service = self.runtime();
        gone_is_done(self.call(about(METHOD, id), limit, service.stop_container(message)).await)
    }

    /// Kills it first if it runs. Not there: that is a success.
    pub async fn remove_container(&self, id: &str) -> Result<(), Error> {
        const METHOD: &str = "RemoveContainer";
        let message = pb::RemoveContainerRequest { container_id: request(METHOD, to::id("container_id", id))? };
        let mut service = self.runtime();
        gone_is_done(self.call(about(METHOD, id), self.deadlines().mutate, service.remove_container(message)).await)
    }

    /// `verbose` fills `info`.
    pub async fn container_status(&self, id: &str, verbose: bool) -> Result<ContainerStatus, Error> {
        const METHOD: &str = "ContainerStatus";
        let message = pb::ContainerStatusRequest { container_id: request(METHOD, to::id("container_id", id))?, verbose };
        let service = self.runtime();
        let reply = self.query(about(METHOD, id), asking!(service, message, container_status)).await?;
        answer(METHOD, from::container_status_reply(reply))
    }

    pub async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerSummary>, Error> {
        const METHOD: &str = "ListContainers";
        let filter = Some(to::container_filter(filter));
        let service = self.runtime();
        let streamed = {
            let message = pb::StreamContainersRequest { filter: filter.clone() };
            let open = asking!(service, message, stream_containers);
            self.collect(Optional::StreamContainers, about("StreamContainers", ""), open, |part| part.containers).await?
        };
        let items = match streamed {
            Some(items) => items,
            None => {
                let message = pb::ListContainersRequest { filter };
                self.query(about(METHOD, ""), asking!(service, message, list_containers)).await?.containers
            }
        };
        answer(METHOD, from::containers(items))
    }

    /// What is `None` in `resources` stays as it is.
    pub async fn update_container_resources(
        &self,
        id: &str,
        resources: &LinuxResources,
        annotations: &Labels,
    ) -> Result<(), Error> {
        const METHOD: &str = "UpdateContainerResources";
        let message = pb::UpdateContainerResourcesRequest {
            container_id: request(METHOD, to::id("container_id", id))?,
            linux: Some(to::resources(resources)),
            annotations: annotations.clone(),
        };
        let mut service = self.runtime();
        self.call(about(METHOD, id), self.deadlines().mutate, service.update_container_resources(message)).await?;
        Ok(())
    }

    /// After the log file was moved away: makes and uses a new one. Only for running containers.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), Error> {
        const METHOD: &str = "ReopenContainerLog";
        let message = pb::ReopenContainerLogRequest { container_id: request(METHOD, to::id("container_id", id))? };
        let mut service = self.runtime();
        self.call(about(METHOD, id), self.deadlines().mutate, service.reopen_container_log(message)).await?;
        Ok(())
    }

    /// Writes the container's state to the file `location`.
    pub async fn checkpoint_container(&self, id: &str, location: &str, timeout: Duration) -> Result<(), Error> {
        const METHOD: &str = "CheckpointContainer";
        let message = pb::CheckpointContainerRequest {
            container_id: request(METHOD, to::id("container_id", id))?,
            location: location.to_owned(),
            timeout: seconds(timeout),
        };
        let limit = if timeout.is_zero() { self.deadlines().long } else { timeout.saturating_add(self.deadlines().exec_margin) };
        let mut service = self.runtime();
        self.optional(Optional::Checkpoint, about(METHOD, id), limit, service.checkpoint_container(message)).await?;
        Ok(())
    }

    /// Runs a command to its end. A zero timeout means none. A command that ran for too long is [`Error::ExecTimeout`]; any exit
    /// code is an answer, not an error.
    pub async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, Error> {
        const METHOD: &str = "ExecSync";
        let message = pb::ExecSyncRequest {
            container_id: request(METHOD, to::id("container_id", id))?,
            cmd: request(METHOD, to::command(command))?,
            timeout: seconds(timeout),
        };
        let limit = if timeout.is_zero() { self.deadlines().long } else { timeout.saturating_add(self.deadlines().exec_margin) };
        let mut service = self.runtime();
        let too_long = || Error::ExecTimeout { container: id.to_owned(), timeout };
        match self.call(about(METHOD, id), limit, service.exec_sync(message)).await {
            // CRI-O used to answer so instead of with a status code.
            Ok(reply) if reply.exit_code == -1 && reply.stderr.starts_with(b"command timed out") => Err(too_long()),
            Ok(reply) => Ok(from::exec_output(reply)),
            Err(Error::Call { code: Code::DeadlineExceeded, .. }) if !timeout.is_zero() => Err(too_long()),
            Err(error) => Err(error),
        }
    }

    /// Where to stream a command's input and output, as an HTTP upgrade.
    pub async fn exec(&self, id: &str, command: &[String], streams: StreamOptions) -> Result<String, Error> {
        const METHOD: &str = "Exec";
        let message = pb::ExecRequest {
            container_id: request(METHOD, to::id("container_id", id))?,
            cmd: request(METHOD, to::command(command))?,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let mut service = self.runtime();
        let reply = self.call(about(METHOD, id), self.deadlines().query, service.exec(message)).await?;
        answer(METHOD, from::id("url", reply.url))
    }

    /// Where to stream the first process's input and output, as an HTTP upgrade.
    pub async fn attach(&self, id: &str, streams: StreamOptions) -> Result<String, Error> {
        const METHOD: &str = "Attach";
        let message = pb::AttachRequest {
            container_id: request(METHOD, to::id("container_id", id))?,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let mut service = self.runtime();
        let reply = self.call(about(METHOD, id), self.deadlines().query, service.attach(message)).await?;
        answer(METHOD, from::id("url", reply.url))
    }
}
