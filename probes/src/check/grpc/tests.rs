use super::pb::health_server::{Health, HealthServer};
use super::*;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

struct Service;

#[tonic::async_trait]
impl Health for Service {
    async fn check(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<pb::HealthCheckResponse>, Status> {
        let agent = request.metadata().get("user-agent").map(|a| a.to_str().unwrap_or_default().to_owned()).unwrap_or_default();
        assert!(agent.starts_with(USER_AGENT), "{agent}");
        let status = match request.get_ref().service.as_str() {
            "" => ServingStatus::Serving,
            "down" => ServingStatus::NotServing,
            "slow" => std::future::pending().await,
            _ => return Err(Status::not_found("unknown service")),
        };
        Ok(Response::new(pb::HealthCheckResponse { status: status.into() }))
    }
}

async fn serve() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tonic::transport::Server::builder().add_service(HealthServer::new(Service));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    port
}

fn failure(text: &str) -> Outcome {
    Outcome::Failure(text.to_owned())
}

#[tokio::test]
async fn the_services_status_decides() {
    let port = serve().await;
    let check = |service: &'static str, timeout| probe("127.0.0.1", port, service, timeout);
    let long = Duration::from_secs(10);
    assert_eq!(check("", long).await, Outcome::Success);
    assert_eq!(check("down", long).await, failure("service unhealthy (responded with \"NOT_SERVING\")"));
    let unknown = "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service";
    assert_eq!(check("other", long).await, failure(unknown));
    let slow = check("slow", Duration::from_secs(1)).await;
    assert_eq!(slow, failure("timeout: health rpc did not complete within 1s"));
}

#[tokio::test]
async fn a_server_without_the_protocol_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let empty = tonic::transport::Server::builder().add_routes(tonic::service::Routes::default());
    tokio::spawn(empty.serve_with_incoming(TcpListenerStream::new(listener)));
    let outcome = probe("127.0.0.1", port, "", Duration::from_secs(10)).await;
    let Outcome::Failure(text) = outcome else { panic!("{outcome:?}") };
    assert!(text.starts_with("error: this server does not implement the grpc health protocol"), "{text}");
}

#[tokio::test]
async fn a_closed_port_is_tried_until_the_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let outcome = probe("127.0.0.1", port, "", Duration::from_millis(300)).await;
    let address = format!("127.0.0.1:{port}");
    let text = format!("timeout: failed to connect service {address:?} within 300ms: context deadline exceeded");
    assert_eq!(outcome, failure(&text));
}

/// Nothing of a check outlives it, also where the server never says anything.
#[tokio::test]
async fn connections_end_with_the_check() {
    let port = serve().await;
    let short = Duration::from_millis(200);
    for service in ["", "down", "slow"] {
        probe("127.0.0.1", port, service, short).await;
    }
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = silent.local_addr().unwrap().port();
    let outcome = probe("127.0.0.1", other, "", short).await;
    assert_eq!(outcome, failure("timeout: health rpc did not complete within 200ms"));
    for port in [port, other] {
        dial::tests::all_gone(port).await;
    }
}
