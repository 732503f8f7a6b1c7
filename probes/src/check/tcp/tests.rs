use super::*;
use tokio::net::TcpListener;

#[tokio::test]
async fn an_open_port_is_success_and_a_closed_one_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(probe("127.0.0.1", port, Duration::from_secs(5)).await, Outcome::Success);
    assert_eq!(probe("localhost", port, Duration::from_secs(5)).await, Outcome::Success);
    drop(listener);
    let refused = probe("127.0.0.1", port, Duration::from_secs(5)).await;
    assert_eq!(refused, Outcome::Failure(format!("dial tcp 127.0.0.1:{port}: connect: connection refused")));
}

#[tokio::test]
async fn a_backlog_that_is_full_runs_into_the_timeout() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let mut held = Vec::new();
    let outcome = loop {
        match tokio::time::timeout(Duration::from_millis(300), dial::connect("127.0.0.1", port)).await {
            Ok(stream) => held.push(stream),
            Err(_) => break probe("127.0.0.1", port, Duration::from_millis(300)).await,
        }
        assert!(held.len() < 100);
    };
    assert_eq!(outcome, Outcome::Failure(format!("dial tcp 127.0.0.1:{port}: i/o timeout")));
}
