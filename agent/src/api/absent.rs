//! The API client of a node without an API server: whatever is asked of it fails at once and says why.
//!
//! So that who speaks to the API need not ask whether there is one. What would ask again and again is not started on such a node.

use super::Error;
use http::{Request, Response};
use kube::client::Body;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

pub fn client() -> kube::Client {
    kube::Client::new(Absent, "default")
}

#[derive(Clone)]
struct Absent;

impl tower_service::Service<Request<Body>> for Absent {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Ready<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Err(Error::Standalone { method: request.method().clone(), path: request.uri().path().to_owned() }))
    }
}

#[cfg(test)]
mod tests;
