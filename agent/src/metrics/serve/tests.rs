use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

async fn asked(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

#[tokio::test]
async fn pages_of_kube_proxy() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cancel = CancellationToken::new();
    let extra: super::super::Extra = Box::new(|page| page.push_str("kubeproxy_x 1\n"));
    let metrics = Arc::new(Metrics::new("n", vec![extra]).unwrap());
    let task = spawn(address, false, metrics, cancel.clone());
    let limit = tokio::time::Instant::now() + Duration::from_secs(10);
    let mode = loop {
        if let Some(text) = asked(address, "/proxyMode").await {
            break text;
        }
        assert!(tokio::time::Instant::now() < limit);
        tokio::task::yield_now().await;
    };
    assert!(mode.starts_with("HTTP/1.1 200") && mode.ends_with("\r\n\r\nnftables"), "{mode}");
    assert!(mode.contains("x-content-type-options: nosniff"), "{mode}");
    let page = asked(address, "/metrics").await.unwrap();
    assert!(page.contains("kubeproxy_x 1\n") && page.contains("process_open_fds") && !page.contains("kubelet_"), "{page}");
    cancel.cancel();
    timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_ends_only_what_wants_it_so() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let metrics = Arc::new(Metrics::new("n", vec![]).unwrap());
    let hard = spawn(address, true, metrics.clone(), CancellationToken::new());
    timeout(Duration::from_secs(10), hard).await.unwrap().unwrap();
    let cancel = CancellationToken::new();
    let soft = spawn(address, false, metrics, cancel.clone());
    tokio::task::yield_now().await;
    assert!(!soft.is_finished());
    cancel.cancel();
    timeout(Duration::from_secs(10), soft).await.unwrap().unwrap();
}
