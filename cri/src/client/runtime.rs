//! Calls about the runtime itself, and its stream of events.

use super::Client;
use super::calls::{about, answer, asking};
use super::features::Optional;
use crate::convert::from;
use crate::error::Error;
use crate::pb;
use crate::types::{CgroupDriver, ContainerEvent, RuntimeStatus, Version};
use futures::Stream;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::{Response, Status, Streaming};

/// Events as they come. An `Err` about one event's content does not end the stream; one about the connection does, and so
/// does `None`: subscribe anew, then list everything, because events in between are lost.
pub struct ContainerEvents {
    stream: State,
    client: Client,
}

type Opening = Pin<Box<dyn Future<Output = Result<Response<Streaming<pb::ContainerEventResponse>>, Status>> + Send>>;

enum State {
    Opening(Opening),
    Open(Box<Streaming<pb::ContainerEventResponse>>),
    Over,
}

impl fmt::Debug for ContainerEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerEvents").field("over", &matches!(self.stream, State::Over)).finish_non_exhaustive()
    }
}

const EVENTS: &str = "GetContainerEvents";
/// The version of the interface's outer frame, which has never changed.
const API_VERSION: &str = "0.1.0";
/// How much later than the answer to a later call a refusal may come.
const REFUSAL: Duration = Duration::from_millis(50);

impl Client {
    pub async fn version(&self) -> Result<Version, Error> {
        const METHOD: &str = "Version";
        let (service, message) = (self.runtime(), pb::VersionRequest { version: API_VERSION.into() });
        let reply = self.query(about(METHOD, ""), asking!(service, message, version)).await?;
        self.remember_version(&reply);
        answer(METHOD, from::version(reply))
    }

    /// `verbose` fills `info`, which can be large.
    pub async fn status(&self, verbose: bool) -> Result<RuntimeStatus, Error> {
        const METHOD: &str = "Status";
        let (service, message) = (self.runtime(), pb::StatusRequest { verbose });
        let reply = self.query(about(METHOD, ""), asking!(service, message, status)).await?;
        answer(METHOD, from::runtime_status(reply))
    }

    /// The cgroup driver, or `None` from a runtime that does not say.
    pub async fn runtime_config(&self) -> Result<Option<CgroupDriver>, Error> {
        const METHOD: &str = "RuntimeConfig";
        let mut service = self.runtime();
        let reply = service.runtime_config(pb::RuntimeConfigRequest {});
        match self.optional(Optional::RuntimeConfig, about(METHOD, ""), self.deadlines().query, reply).await {
            Ok(reply) => answer(METHOD, from::runtime_config(reply)),
            Err(Error::Unimplemented { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the runtime the pods' address range; only some network set-ups need it.
    pub async fn update_runtime_config(&self, pod_cidr: &str) -> Result<(), Error> {
        const METHOD: &str = "UpdateRuntimeConfig";
        let network_config = Some(pb::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request = pb::UpdateRuntimeConfigRequest { runtime_config: Some(pb::RuntimeConfig { network_config }) };
        let mut service = self.runtime();
        let reply = service.update_runtime_config(request);
        self.optional(Optional::UpdateRuntimeConfig, about(METHOD, ""), self.deadlines().mutate, reply).await?;
        Ok(())
    }

    /// Events from now on, or [`Error::Unimplemented`] from a runtime that has none (containerd before 1.7).
    pub async fn get_container_events(&self) -> Result<ContainerEvents, Error> {
        if self.known_to_lack(Optional::Events).await {
            return Err(Error::Unimplemented { method: EVENTS });
        }
        let mut service = self.events_service();
        let mut opening: Opening = Box::pin(async move { service.get_container_events(pb::GetEventsRequest {}).await });
        // grpc-go sends the headers of a streaming answer only with its first message, and the next event may be hours away. So
        // what is waited for is an answer to a call that was sent after it over the same connection: by then the runtime has
        // seen the subscription, and if it does not know the call, it says so at about the same time.
        let limit = self.deadlines().query;
        let mut probe = self.events_service();
        let probe = async {
            let seen =
                self.call(about(EVENTS, ""), limit, probe.version(pb::VersionRequest { version: API_VERSION.into() })).await;
            if seen.is_ok() {
                tokio::time::sleep(REFUSAL).await;
            }
            seen
        };
        let stream = tokio::select! {
            biased;
            opened = &mut opening => match opened {
                Ok(answer) => State::Open(Box::new(answer.into_inner())),
                Err(status) => return Err(self.events_failed(&status)),
            },
            seen = probe => match seen {
                Ok(_) => State::Opening(opening),
                Err(error) => return Err(error),
            },
        };
        Ok(ContainerEvents { stream, client: self.clone() })
    }

    fn events_failed(&self, status: &Status) -> Error {
        let error = self.failed(about(EVENTS, ""), self.deadlines().query, status);
        if let Error::Unimplemented { .. } = error {
            self.inner.features.set_lacks(Optional::Events, self.inner.calls.made());
        }
        error
    }
}

impl Stream for ContainerEvents {
    type Item = Result<ContainerEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = match &mut self.stream {
                State::Over => return Poll::Ready(None),
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(answer) => {
                        self.stream = State::Open(Box::new(answer.into_inner()));
                        continue;
                    }
                    Err(status) => Some(Err(status)),
                },
                State::Open(stream) => ready!(Pin::new(&mut **stream).poll_next(cx)),
            };
            return Poll::Ready(match item {
                Some(Ok(event)) => Some(answer(EVENTS, from::container_event(event))),
                Some(Err(status)) => {
                    self.stream = State::Over;
                    Some(Err(self.client.events_failed(&status)))
                }
                None => {
                    self.stream = State::Over;
                    None
                }
            });
        }
    }
}
