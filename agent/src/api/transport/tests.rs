use super::super::testing::{Answer, Server, kubeconfig};
use super::*;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use std::error::Error as _;
use tokio::net::TcpListener;

#[test]
fn watches_are_bounded_only_until_they_answer() {
    let get = http::Method::GET;
    let asked = |method: &http::Method, query: &str| bound(method, query, &Bounds::default());
    assert!(matches!(asked(&get, "watch=true&timeoutSeconds=300"), Bound::UntilHeaders(_)));
    assert!(matches!(asked(&get, "fieldSelector=a&watch=1"), Bound::UntilHeaders(_)));
    assert!(matches!(asked(&get, "unwatch=true"), Bound::Whole(REQUEST_TIMEOUT)));
    assert!(matches!(asked(&get, "limit=500"), Bound::Whole(LIST_TIMEOUT)));
    assert!(matches!(asked(&http::Method::DELETE, "watch=true"), Bound::Whole(_)));
}

#[tokio::test]
async fn a_token_file_is_read_and_errors_name_the_request() {
    let answers = vec![
        Answer::Json(200, json!({"metadata": {"name": "a"}})),
        Answer::Json(403, json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"})),
    ];
    let server = Server::queue(answers).await;
    let dir = server.dir.path();
    std::fs::write(dir.join("token"), "secret\n").unwrap();
    std::fs::write(dir.join("k"), kubeconfig(&format!("http://{}/prefix", server.address), "{tokenFile: token}")).unwrap();
    let pods: Api<Pod> = Api::namespaced(Transport::new(&dir.join("k")).unwrap().client(), "d");
    pods.get("a").await.unwrap();
    let error = pods.get("a").await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 403));
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(asked[0].authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(asked[0].uri, "/prefix/api/v1/namespaces/d/pods/a");
    server.task.abort();
}

#[tokio::test]
async fn nobody_at_the_address_is_a_transient_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("k"), kubeconfig(&format!("http://{address}"), "{}")).unwrap();
    let pods: Api<Pod> = Api::all(Transport::new(&dir.path().join("k")).unwrap().client());
    let error = pods.get("a").await.unwrap_err();
    assert_eq!(super::super::class_of(&error), super::super::Class::Transient);
    let text = super::super::watch::chain(&error);
    assert!(text.contains("GET /api/v1/pods/a failed"), "{text}");
}

#[test]
fn a_kubeconfig_says_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    let with = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let error = Transport::new(&path).err().expect(text);
        super::super::watch::chain(&error).replace(&format!("{} ", dir.path().display()), "")
    };
    let name = path.display();
    assert_eq!(with("current-context: b"), format!("kubeconfig {name}: current-context: there is no context \"b\""));
    assert_eq!(
        with(&kubeconfig("https://a", "{}")),
        format!("kubeconfig {name}: clusters[c].certificate-authority: required, the system's authorities are not used")
    );
    assert!(with(&kubeconfig("10.0.0.1", "{}")).contains("clusters[c].server: \"10.0.0.1\" is not a URL"));
    let exec = with(&kubeconfig("http://a", "{exec: {command: x}}"));
    assert!(exec.contains("users[u].exec: not yet supported"), "{exec}");
    assert!(
        with(&kubeconfig("http://a", "{client-certificate-data: '%%', client-key-data: ''}"))
            .contains("users[u].client-certificate-data: not base64")
    );
    assert!(with(&kubeconfig("http://a", "{client-certificate: gone.pem}")).contains("gone.pem"));
    assert!(with("users: 5").contains("users: "));
    std::fs::remove_file(&path).unwrap();
    assert!(Transport::new(&path).err().unwrap().source().is_some());
}

/// An HTTPS server that wants a client certificate, and answers with the protocol and the client's name.
async fn https(dir: &Path) -> (std::net::SocketAddr, String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let leaf = |name: &str, usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (cert, key) = leaf("server", ExtendedKeyUsagePurpose::ServerAuth);
    let (client_cert, client_key) = leaf("client", ExtendedKeyUsagePurpose::ClientAuth);
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let n = connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| async move {
                let body = json!({"metadata": {"name": format!("{:?}-{n}", request.version())}}).to_string();
                Ok::<_, std::convert::Infallible>(Response::new(http_body_util::Full::new(bytes::Bytes::from(body))))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new()).serve_connection(io, service),
            );
        }
    });
    (address, client_cert.pem(), client_key.serialize_pem(), ca.pem())
}

/// A kubeconfig for the server, with the client's certificate beside it.
fn written(dir: &Path, address: std::net::SocketAddr, cert: &str, key: &str) -> PathBuf {
    std::fs::write(dir.join("c.pem"), cert).unwrap();
    std::fs::write(dir.join("k.pem"), key).unwrap();
    let config = kubeconfig(&format!("https://{address}"), "{client-certificate: c.pem, client-key: k.pem}")
        .replace("cluster: {server:", "cluster: {certificate-authority: ca.pem, server:");
    let path = dir.join("kubeconfig");
    std::fs::write(&path, config).unwrap();
    path
}

/// Passes connections on until told to stall: those that are open then stay open and carry nothing more.
async fn stalling_relay(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<tokio::sync::Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stall = Arc::new(tokio::sync::Notify::new());
    let told = stall.clone();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let told = told.clone();
            tokio::spawn(async move {
                let stalled = told.notified();
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = stalled => std::future::pending().await,
                }
            });
        }
    });
    (address, stall)
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_dead_and_the_next_connection_serves() {
    let dir = tempfile::tempdir().unwrap();
    let (address, cert, key, _) = https(dir.path()).await;
    let (relay, stall) = stalling_relay(address).await;
    let path = written(dir.path(), relay, &cert, &key);
    let short = Duration::from_millis(200);
    let bounds = Bounds { ping_interval: short, ping_timeout: short, ..Bounds::default() };
    let transport = Transport::bounded(&path, bounds).unwrap();
    let pods: Api<Pod> = Api::all(transport.client());
    assert_eq!(pods.get("a").await.unwrap().metadata.name.unwrap(), "HTTP/2.0-1");
    stall.notify_waiters();
    // Far less than a request's own bound, for which a watch that is open already has none.
    let started = Instant::now();
    let mut failures = 0;
    let name = loop {
        match pods.get("a").await {
            Ok(pod) => break pod.metadata.name.unwrap(),
            Err(_) => failures += 1,
        }
        assert!(started.elapsed() < REQUEST_TIMEOUT / 2, "the dead connection stays in use");
    };
    assert_eq!(name, "HTTP/2.0-2");
    assert!(failures <= 1, "{failures} requests failed");
}

#[tokio::test]
async fn one_http2_connection_with_a_client_certificate_and_reload() {
    let dir = tempfile::tempdir().unwrap();
    let (address, cert, key, _) = https(dir.path()).await;
    let path = written(dir.path(), address, &cert, &key);
    let transport = Transport::new(&path).unwrap();
    let pods: Api<Pod> = Api::all(transport.client());
    let ask = || async { pods.get("a").await.unwrap().metadata.name.unwrap() };
    assert_eq!(ask().await, "HTTP/2.0-1");
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    assert_eq!([one, two, three], ["HTTP/2.0-1", "HTTP/2.0-1", "HTTP/2.0-1"]);
    transport.reload().unwrap();
    assert_eq!(ask().await, "HTTP/2.0-2", "new credentials mean a new connection");
    std::fs::write(dir.path().join("c.pem"), "broken").unwrap();
    assert!(transport.reload().is_err());
    assert_eq!(ask().await, "HTTP/2.0-2", "a bad reload changes nothing");
}
