//! A container is well if its gRPC health service says `SERVING`. Plain text only, as the API has no way to ask for TLS.

use super::{Outcome, USER_AGENT, dial, human};
use hyper_util::rt::TokioIo;
use pb::health_check_response::ServingStatus;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

pub(crate) mod pb {
    tonic::include_proto!("grpc.health.v1");
}

/// Between tries while nothing listens yet: the whole timeout is there for connecting.
const RETRY: Duration = Duration::from_millis(100);

pub(super) async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = dial::authority(host, port);
    let deadline = tokio::time::Instant::now() + timeout;
    let channel = match tokio::time::timeout_at(deadline, open(host, port, &address)).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Outcome::Failure(format!("error: failed to connect service at {address:?}: {error}")),
        Err(_) => {
            let within = human(timeout);
            let text = format!("timeout: failed to connect service {address:?} within {within}: context deadline exceeded");
            return Outcome::Failure(text);
        }
    };
    let mut client = pb::health_client::HealthClient::new(channel);
    let request = pb::HealthCheckRequest { service: service.to_owned() };
    let answer = match tokio::time::timeout_at(deadline, client.check(request)).await {
        Ok(answer) => answer,
        Err(_) => return Outcome::Failure(format!("timeout: health rpc did not complete within {}", human(timeout))),
    };
    Outcome::Failure(match answer {
        Ok(answer) => match answer.get_ref().status() {
            ServingStatus::Serving => return Outcome::Success,
            other => format!("service unhealthy (responded with {:?})", other.as_str_name()),
        },
        Err(status) => match status.code() {
            Code::Unimplemented => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                status.message()
            ),
            Code::DeadlineExceeded => format!("timeout: health rpc did not complete within {}", human(timeout)),
            code => format!("error: health rpc probe failed: rpc error: code = {} desc = {}", name(code), status.message()),
        },
    })
}

/// As gRPC spells it.
fn name(code: Code) -> String {
    match code {
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Connects, trying again while the port refuses: a server may come up within the timeout.
async fn open(host: &str, port: u16, address: &str) -> Result<Channel, String> {
    let stream = loop {
        match dial::connect(host, port).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    let bad = |error: tonic::transport::Error| error.to_string();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(bad)?.user_agent(USER_AGENT).map_err(bad)?;
    endpoint.connect_with_connector(Once(Some(stream))).await.map_err(bad)
}

/// Hands out the one connection that was made; a channel that loses it gets no other.
struct Once(Option<dial::Connection>);

impl tower_service::Service<Uri> for Once {
    type Response = TokioIo<dial::Connection>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| std::io::ErrorKind::NotConnected.into()))
    }
}

#[cfg(test)]
mod tests;
