//! What all calls have in common: a deadline, errors that name call and object, fallbacks for missing calls.
//!
//! May be cancelled at every await: the request is then cancelled on the wire and nothing here is left half done.

use super::connection::Connection;
use super::features::Optional;
use super::{Client, Error};
use crate::convert::Bad;
use crate::error::Code;
use crate::pb;
use crate::pb::image_service_client::ImageServiceClient;
use crate::pb::runtime_service_client::RuntimeServiceClient;
use std::error::Error as _;
use std::future::Future;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// Which call on which object, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) method: &'static str,
    pub(super) object: &'a str,
}

pub(super) fn about<'a>(method: &'static str, object: &'a str) -> About<'a> {
    About { method, object }
}

impl Client {
    pub(super) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.inner.calls.channel()).max_decoding_message_size(self.inner.options.max_message)
    }

    pub(super) fn events_service(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.inner.events.channel()).max_decoding_message_size(self.inner.options.max_message)
    }

    pub(super) fn images(&self) -> ImageServiceClient<Channel> {
        let connection = self.inner.images.as_ref().unwrap_or(&self.inner.calls);
        ImageServiceClient::new(connection.channel()).max_decoding_message_size(self.inner.options.max_message)
    }

    /// Waits for an answer no longer than `limit`.
    pub(super) async fn call<A>(
        &self,
        about: About<'_>,
        limit: Duration,
        answer: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, Error> {
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failed(about, limit, &status)),
            Err(_) => Err(Error::Deadline { method: about.method, object: about.object.to_owned(), limit }),
        }
    }

    /// A call that changes nothing. A connection that broke since the last call is noticed only by the next one, so this tries
    /// once more over a new one.
    pub(super) async fn query<A, F>(&self, about: About<'_>, ask: impl Fn() -> F) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let limit = self.deadlines().query;
        match self.call(about, limit, ask()).await {
            Err(Error::Unreachable { .. }) => self.call(about, limit, ask()).await,
            other => other,
        }
    }

    /// A call that some runtimes lack. After the first "unimplemented" the runtime is not asked again.
    pub(super) async fn optional<A>(
        &self,
        what: Optional,
        about: About<'_>,
        limit: Duration,
        answer: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, Error> {
        if self.known_to_lack(what).await {
            return Err(Error::Unimplemented { method: about.method });
        }
        let result = self.call(about, limit, answer).await;
        if let Err(Error::Unimplemented { .. }) = &result {
            self.inner.features.set_lacks(what, self.inner.calls.made());
        }
        result
    }

    /// All parts of a list that streams, or `None` if this runtime has no such list. The deadline is for the whole list.
    pub(super) async fn collect<P, T, F>(
        &self,
        what: Optional,
        about: About<'_>,
        open: impl Fn() -> F,
        part: impl Fn(P) -> Vec<T>,
    ) -> Result<Option<Vec<T>>, Error>
    where
        F: Future<Output = Result<Response<Streaming<P>>, Status>>,
    {
        if !self.inner.options.streaming_lists || self.known_to_lack(what).await {
            return Ok(None);
        }
        let all = || {
            let opening = open();
            let part = &part;
            async move {
                let mut stream = opening.await?.into_inner();
                let mut items = Vec::new();
                while let Some(message) = stream.message().await? {
                    items.extend(part(message));
                }
                Ok(Response::new(items))
            }
        };
        match self.query(about, all).await {
            Ok(items) => Ok(Some(items)),
            Err(Error::Unimplemented { .. }) => {
                self.inner.features.set_lacks(what, self.inner.calls.made());
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Whether the runtime is known not to have this. A new connection may lead to another version: that is found out first.
    pub(super) async fn known_to_lack(&self, what: Optional) -> bool {
        let features = &self.inner.features;
        if !features.lacks(what) {
            return false;
        }
        // The answer to this comes over a live connection, so the count is read afterwards, and is that connection's.
        if features.is_stale(self.inner.calls.made()) && self.version().await.is_err() {
            // Nothing new is known; the next call asks again.
            return true;
        }
        features.lacks(what)
    }

    pub(super) fn remember_version(&self, version: &pb::VersionResponse) {
        let text = format!("{} {} {}", version.runtime_name, version.runtime_version, version.runtime_api_version);
        self.inner.features.saw_version(&text, self.inner.calls.made());
    }

    pub(super) fn failed(&self, about: About<'_>, limit: Duration, status: &Status) -> Error {
        let (method, object) = (about.method, about.object.to_owned());
        if let Some(reason) = broken_connection(status) {
            return Error::Unreachable { method, object, endpoint: self.endpoint_of(method).path().to_owned(), reason };
        }
        match Code::from_tonic(status.code()) {
            Some(Code::Unimplemented) => Error::Unimplemented { method },
            Some(code) => Error::Call { method, object, code, message: status.message().to_owned() },
            // An error that says it is none.
            None => Error::Answer {
                method,
                field: "grpc-status".into(),
                problem: format!("no answer within {limit:?}, yet no error"),
            },
        }
    }

    fn endpoint_of(&self, method: &'static str) -> &Connection {
        match &self.inner.images {
            Some(images) if method.contains("Image") => images,
            _ => &self.inner.calls,
        }
    }
}

/// A status that was made here because the connection could not be made or broke carries what happened as its source; one
/// that came over the wire has none.
fn broken_connection(status: &Status) -> Option<String> {
    let mut source = status.source()?;
    while let Some(inner) = source.source() {
        source = inner;
    }
    Some(source.to_string())
}

/// Turns a conversion's complaint into an error about the answer.
pub(super) fn answer<T>(method: &'static str, result: Result<T, Bad>) -> Result<T, Error> {
    result.map_err(|bad| Error::Answer { method, field: bad.field, problem: bad.problem })
}

/// Turns a conversion's complaint into an error about the request.
pub(super) fn request<T>(method: &'static str, result: Result<T, Bad>) -> Result<T, Error> {
    result.map_err(|bad| Error::Request { method, field: bad.field, problem: bad.problem })
}

/// The interface calls stopping and removing what is not there a success; not every runtime does.
pub(super) fn gone_is_done<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_gone() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whole seconds, as the interface counts: never less than was asked for, and zero only for zero.
pub(super) fn seconds(duration: Duration) -> i64 {
    let up = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i64::try_from(up).unwrap_or(i64::MAX)
}

/// A call that can be made more than once.
macro_rules! asking {
    ($service:expr, $message:expr, $method:ident) => {{
        let (service, message) = ($service.clone(), $message.clone());
        move || {
            let (mut service, message) = (service.clone(), message.clone());
            async move { service.$method(message).await }
        }
    }};
}
pub(super) use asking;
