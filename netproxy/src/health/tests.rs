use super::*;
use crate::proxy::tests::health_setup;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn late_is_ill_only_after_the_first_sync() {
    let now = Instant::now();
    let timeout = Duration::from_secs(60);
    let then = now.checked_sub(timeout).unwrap();
    let progress =
        |updated: bool, pending| Progress { updated: updated.then(SystemTime::now), pending, families: BTreeSet::new() };
    assert!(progress(false, Some(then)).healthy(now, timeout));
    assert!(progress(true, None).healthy(now, timeout));
    assert!(progress(true, Some(now)).healthy(now, timeout));
    assert!(!progress(true, Some(then)).healthy(now, timeout));
}

#[test]
fn pages_are_those_of_kube_proxy() {
    let key = Key::new("default", "web");
    let one = service_answer(&key, 2, true);
    assert_eq!((one.status.as_u16(), one.weight), (200, Some(2)));
    assert_eq!(
        one.body,
        "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
    );
    assert_eq!(service_answer(&key, 0, true).status.as_u16(), 503);
    assert_eq!(service_answer(&key, 1, false).status.as_u16(), 503);

    let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
    let progress = Progress { updated: Some(at(10)), pending: None, families: [Family::V4].into() };
    let page = |path, healthy, eligible| {
        let a = node_answer(path, &progress, healthy, eligible, at(20));
        (a.status.as_u16(), a.body)
    };
    let text = |healthy: bool, updated: &str, node: &str| {
        format!(
            "{{\"lastUpdated\":\"{updated}\",\"currentTime\":\"1970-01-01T00:00:20Z\",{node}\"healthy\":{healthy},\"status\":{{\"IPv4\":{{\"lastUpdated\":\"1970-01-01T00:00:10Z\",\"healthy\":{healthy}}}}}}}"
        )
    };
    let (then, now) = ("1970-01-01T00:00:10Z", "1970-01-01T00:00:20Z");
    assert_eq!(page("/healthz", true, true), (200, text(true, now, "\"nodeEligible\":true,")));
    assert_eq!(page("/healthz", true, false), (503, text(true, then, "\"nodeEligible\":false,")));
    assert_eq!(page("/livez", true, false), (200, text(true, now, "")));
    assert_eq!(page("/livez", false, true), (503, text(false, then, "")));
    assert_eq!(page("/", true, true).0, 404);
}

async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

async fn until(port: u16, path: &str, done: impl Fn(Option<&str>) -> bool) -> Option<String> {
    for _ in 0..500 {
        let text = get(port, path).await;
        if done(text.as_deref()) {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {:?}", get(port, path).await);
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_service_and_the_node_are_asked_over_http() {
    let (port, node_port) = (free_port(), free_port());
    let setup = health_setup(port).await;
    let (node, watched) = watch::channel(NodeState { known: true, ..NodeState::default() });
    let options = Options { bind: Some((Ipv4Addr::LOCALHOST, node_port).into()), ..Options::default() };
    let cancel = CancellationToken::new();
    let Servers { mut failures, answered, task } = spawn(options, &setup.handle, watched, cancel.clone());
    let page = until(port, "/", |t| t.is_some_and(|t| t.starts_with("HTTP/1.1 200"))).await.unwrap();
    assert!(page.contains("x-load-balancing-endpoint-weight: 1") && page.contains("\"localEndpoints\": 1"), "{page}");
    until(node_port, "/healthz", |t| t.is_some_and(|t| t.starts_with("HTTP/1.1 200"))).await;
    node.send_replace(NodeState { known: true, to_be_deleted: true, ..NodeState::default() });
    until(node_port, "/healthz", |t| t.is_some_and(|t| t.starts_with("HTTP/1.1 503"))).await;
    until(node_port, "/livez", |t| t.is_some_and(|t| t.starts_with("HTTP/1.1 200"))).await;
    let count = |counters: &[AtomicU64; 2]| counters.each_ref().map(|c| c.load(Ordering::Relaxed) > 0);
    assert_eq!((count(&answered.healthz), count(&answered.livez)), ([true, true], [true, false]));
    assert_eq!(*failures.borrow_and_update(), Failures::default());
    // The endpoint goes, then the service.
    setup.without_endpoints().await;
    let page = until(port, "/", |t| t.is_some_and(|t| t.starts_with("HTTP/1.1 503"))).await.unwrap();
    assert!(page.contains("x-load-balancing-endpoint-weight: 0"), "{page}");
    setup.without_services().await;
    until(port, "/", |t| t.is_none()).await;
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn ports_that_are_taken_are_told_with_their_reasons() {
    let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = health_setup(port).await;
    let (_node, watched) = watch::channel(NodeState::default());
    let options = Options { bind: Some(holder.local_addr().unwrap()), ..Options::default() };
    let cancel = CancellationToken::new();
    let Servers { mut failures, task, .. } = spawn(options, &setup.handle, watched, cancel.clone());
    let both = |f: &Failures| f.node.is_some() && !f.services.is_empty();
    let told = tokio::time::timeout(Duration::from_secs(10), failures.wait_for(both)).await.unwrap().unwrap().clone();
    assert!(told.node.is_some_and(|why| why.contains("in use")));
    let (_, failure) = told.services.first_key_value().unwrap();
    assert_eq!(failure.port, port);
    assert!(failure.reasons[0].contains(&format!("cannot listen on 0.0.0.0:{port}")), "{failure:?}");
    setup.without_services().await;
    let gone = |f: &Failures| f.services.is_empty();
    tokio::time::timeout(Duration::from_secs(10), failures.wait_for(gone)).await.unwrap().unwrap();
    cancel.cancel();
    task.await.unwrap();
}
