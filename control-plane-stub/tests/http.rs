//! The API server over loopback, with TLS and real credentials.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferrolet_stub::app::{self, Options, Running};
use ferrolet_stub::store::Keep;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

struct Cluster {
    dir: tempfile::TempDir,
    running: Option<Running>,
    cancel: CancellationToken,
    address: std::net::SocketAddr,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        data_dir: dir.path().to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        service_cidr: "10.96.0.0/24".parse().unwrap(),
        cluster_cidr: None,
        node_ports: 30000..=30010,
        tls_sans: vec![],
        nodes: vec!["node-1".into()],
        keep: Keep::default(),
    };
    let cancel = CancellationToken::new();
    let running = app::start(&options, &cancel).await.unwrap();
    Cluster { address: running.address, dir, running: Some(running), cancel }
}

/// The credentials of a kubeconfig file.
fn tls(path: &Path) -> (rustls::ClientConfig, Option<String>) {
    let config: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let decode = |v: &Value| STANDARD.decode(v.as_str().unwrap()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let ca = decode(&config["clusters"][0]["cluster"]["certificate-authority-data"]);
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let user = &config["users"][0]["user"];
    if let Some(token) = user["token"].as_str() {
        return (builder.with_no_client_auth(), Some(token.to_owned()));
    }
    let cert = CertificateDer::from_pem_slice(&decode(&user["client-certificate-data"])).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&decode(&user["client-key-data"])).unwrap();
    (builder.with_client_auth_cert(vec![cert], key).unwrap(), None)
}

impl Cluster {
    async fn send(&self, who: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Incoming> {
        let (config, mut token) = match who {
            "nobody" => {
                let (config, _) = tls(&self.dir.path().join("bootstrap.kubeconfig"));
                (config, None)
            }
            who if who.contains('.') => (tls(&self.dir.path().join("bootstrap.kubeconfig")).0, Some(who.to_owned())),
            who => tls(&self.dir.path().join(format!("{who}.kubeconfig"))),
        };
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = token.take() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        sender.send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap()
    }

    async fn call(&self, who: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.send(who, method, path, &[("content-type", "application/json")], &body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn admin(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call("admin", method, path, body).await
    }
}

async fn next_line(response: &mut Response<Incoming>, kept: &mut Vec<u8>) -> Value {
    loop {
        if let Some(end) = kept.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = kept.drain(..=end).collect();
            return serde_json::from_slice(&line).unwrap();
        }
        let frame = tokio::time::timeout(Duration::from_secs(20), response.body_mut().frame()).await.unwrap().unwrap().unwrap();
        kept.extend_from_slice(&frame.into_data().unwrap());
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn credentials_decide() {
    let c = cluster().await;
    assert_eq!(c.call("nobody", "GET", "/api", Value::Null).await.0, 401);
    assert_eq!(c.call("nobody", "GET", "/readyz", Value::Null).await.0, 200);
    assert_eq!(c.call("nobody", "GET", "/version", Value::Null).await.1["major"], "1");
    assert_eq!(c.call("aaaaaa.bbbbbbbbbbbbbbbb", "GET", "/api", Value::Null).await.0, 401);
    let (status, body) = c.call("bootstrap", "GET", "/api/v1/namespaces/default/secrets", Value::Null).await;
    assert_eq!((status, body["reason"].as_str().unwrap()), (403, "Forbidden"));
    assert_eq!(c.call("bootstrap", "GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests", Value::Null).await.0, 200);
    // A node sees its own Node and its own pods only.
    assert_eq!(c.call("node", "GET", "/api/v1/nodes/other", Value::Null).await.0, 403);
    assert_eq!(c.call("node", "GET", "/api/v1/pods", Value::Null).await.0, 403);
    assert_eq!(c.call("node", "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1", Value::Null).await.0, 200);
    assert_eq!(c.call("node", "GET", MAPS, Value::Null).await.0, 403);
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    assert_eq!(c.call("node", "POST", "/api/v1/nodes", node("node-2")).await.0, 403);
    assert_eq!(c.call("node", "POST", "/api/v1/nodes", node("node-1")).await.0, 201);
    // A service account token says who it is, until its account is deleted.
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(c.admin("POST", accounts, json!({"metadata": {"name": "bob"}})).await.0, 201);
    let (status, made) = c.admin("POST", &format!("{accounts}/bob/token"), json!({"spec": {"expirationSeconds": 600}})).await;
    assert_eq!(status, 201, "{made}");
    let token = made["status"]["token"].as_str().unwrap();
    let review = json!({"spec": {"token": token}});
    let (_, answer) = c.admin("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review.clone()).await;
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:bob");
    assert_eq!(c.call(token, "GET", "/api", Value::Null).await.0, 200);
    assert_eq!(c.call(token, "GET", MAPS, Value::Null).await.0, 403);
    assert_eq!(c.admin("DELETE", &format!("{accounts}/bob"), Value::Null).await.0, 200);
    let (_, answer) = c.admin("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(answer["status"]["authenticated"], false);
}

#[tokio::test]
async fn objects_live_by_the_rules() {
    let c = cluster().await;
    let map = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let (status, made) = c.admin("POST", MAPS, map(json!({"k": "1"}))).await;
    assert_eq!(status, 201);
    let (status, again) = c.admin("POST", MAPS, map(json!({}))).await;
    assert_eq!((status, again["reason"].as_str().unwrap()), (409, "AlreadyExists"));
    let one = format!("{MAPS}/a");
    let mut stale = made.clone();
    stale["data"]["k"] = json!("2");
    assert_eq!(c.admin("PUT", &one, stale.clone()).await.0, 200);
    let (status, conflict) = c.admin("PUT", &one, stale).await;
    assert_eq!((status, conflict["reason"].as_str().unwrap()), (409, "Conflict"));
    // Strict, warned, or dropped in silence.
    let unknown = json!({"metadata": {"name": "b"}, "dta": {"k": "1"}});
    let (status, refused) = c.admin("POST", &format!("{MAPS}?fieldValidation=Strict"), unknown.clone()).await;
    assert_eq!(status, 400);
    assert!(refused["message"].as_str().unwrap().contains("strict decoding error: unknown field \"dta\""), "{refused}");
    let json_type = [("content-type", "application/json")];
    let warned = c.send("admin", "POST", MAPS, &json_type, &unknown.to_string()).await;
    assert_eq!(warned.headers()["warning"], "299 - \"unknown field \\\"dta\\\"\"");
    // Apply is not there yet and says so; a patch is.
    let apply = [("content-type", "application/apply-patch+yaml")];
    assert_eq!(c.send("admin", "PATCH", &one, &apply, "{}").await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let merge = [("content-type", "application/merge-patch+json")];
    assert_eq!(c.send("admin", "PATCH", &one, &merge, "{\"data\":{\"k\":null,\"l\":\"3\"}}").await.status(), StatusCode::OK);
    assert_eq!(c.admin("GET", &one, Value::Null).await.1["data"], json!({"l": "3"}));
    // Malformed bodies name what is wrong, and large ones are cut off.
    for (body, code) in [("{", 400), ("[]", 400), ("{\"metadata\":7}", 400), ("{\"metadata\":{\"name\":\"../x\"}}", 422)] {
        let response = c.send("admin", "POST", MAPS, &json_type, body).await;
        assert_eq!(response.status().as_u16(), code, "{body}");
    }
    let large = format!("{{\"metadata\":{{\"name\":\"big\"}},\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(4 << 20));
    assert_eq!(c.send("admin", "POST", MAPS, &json_type, &large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    // Dry run leaves nothing behind; finalizers hold what is deleted.
    let dry = c.admin("POST", &format!("{MAPS}?dryRun=All"), json!({"metadata": {"generateName": "dry-"}})).await.1;
    let name = dry["metadata"]["name"].as_str().unwrap();
    assert_eq!(c.admin("GET", &format!("{MAPS}/{name}"), Value::Null).await.0, 404);
    c.admin("POST", MAPS, json!({"metadata": {"name": "held", "finalizers": ["example.org/x"]}})).await;
    let held = format!("{MAPS}/held");
    assert!(c.admin("DELETE", &held, Value::Null).await.1["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(c.send("admin", "PATCH", &held, &merge, "{\"metadata\":{\"finalizers\":null}}").await.status(), StatusCode::OK);
    assert_eq!(c.admin("GET", &held, Value::Null).await.0, 404);
    // Lists in pages, all of one revision.
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let (_, page) = c.admin("GET", &format!("/api/v1/namespaces?limit=3&continue={token}"), Value::Null).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|n| n["metadata"]["name"].as_str().unwrap().to_owned()));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["default", "kube-node-lease", "kube-public", "kube-system"]);
}

#[tokio::test]
async fn services_get_addresses_and_ports_once() {
    let c = cluster().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, port: u16| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "nodePort": port}]}});
    let (status, a) = c.admin("POST", services, service("a", 30005)).await;
    assert_eq!(status, 201, "{a}");
    assert_eq!(a["spec"]["ports"][0]["nodePort"], 30005);
    let (status, taken) = c.admin("POST", services, service("b", 30005)).await;
    assert_eq!((status, taken["details"]["causes"][0]["field"].as_str().unwrap()), (422, "spec.ports[0].nodePort"));
    assert_eq!(c.admin("DELETE", &format!("{services}/a"), Value::Null).await.0, 200);
    assert_eq!(c.admin("POST", services, service("b", 30005)).await.0, 201);
}

#[tokio::test]
async fn watches_stream_from_the_start_and_go_on() {
    let mut c = cluster().await;
    c.admin("POST", MAPS, json!({"metadata": {"name": "a", "labels": {"w": "1"}}})).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=w%3D1";
    let mut stream = c.send("admin", "GET", &format!("{MAPS}?{query}"), &[], "").await;
    let mut kept = Vec::new();
    let first = next_line(&mut stream, &mut kept).await;
    assert_eq!((first["type"].as_str().unwrap(), first["object"]["metadata"]["name"].as_str().unwrap()), ("ADDED", "a"));
    let mark = next_line(&mut stream, &mut kept).await;
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let merge = [("content-type", "application/merge-patch+json")];
    c.send("admin", "PATCH", &format!("{MAPS}/a"), &merge, "{\"metadata\":{\"labels\":{\"w\":\"2\"}}}").await;
    // It left the selection.
    assert_eq!(next_line(&mut stream, &mut kept).await["type"], "DELETED");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = c.send("admin", "GET", MAPS, &accept, "").await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&table).unwrap()["kind"], "Table");
    let old = c.admin("GET", &format!("{MAPS}?resourceVersion=999999&resourceVersionMatch=Exact"), Value::Null).await;
    assert_eq!(old.0, 504);
    c.cancel.cancel();
    let running = c.running.take().unwrap();
    tokio::time::timeout(Duration::from_secs(10), running.wait(c.cancel.clone())).await.unwrap().unwrap();
}

/// Speaks as much of a kubelet as passing on needs: refuses logs of one container, echoes on an upgraded connection.
async fn kubelet(listener: tokio::net::TcpListener) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let private = PrivateKeyDer::from_pem_slice(key.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            if head.starts_with("GET /containerLogs/default/p/c?tailLines=1 ") {
                let text = "container is waiting to start";
                let answer = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            } else if head.starts_with("POST /exec/default/p/c?output=1&command=ls&command=-l ")
                && head.contains("upgrade: SPDY/3.1")
            {
                assert!(!head.to_lowercase().contains("authorization"));
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).await.unwrap();
                bytes.reverse();
                stream.write_all(&bytes).await.unwrap();
            }
            stream.shutdown().await.unwrap();
        });
    }
}

#[tokio::test]
async fn logs_and_exec_reach_the_kubelet() {
    let c = cluster().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(kubelet(listener));
    c.admin("POST", "/api/v1/nodes", json!({"metadata": {"name": "node-1"}})).await;
    let (status, node) = c.admin("GET", "/api/v1/nodes/node-1", Value::Null).await;
    assert_eq!(status, 200);
    let mut node = node;
    node["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    node["status"] = json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    let (status, answer) = c.admin("PUT", "/api/v1/nodes/node-1/status", node).await;
    assert_eq!(status, 200, "{answer}");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]}});
    let (status, answer) = c.admin("POST", "/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(status, 201, "{answer}");
    let (status, refused) = c.admin("GET", "/api/v1/namespaces/default/pods/p/log?tailLines=1", Value::Null).await;
    assert_eq!((status, refused["message"].as_str().unwrap()), (400, "container is waiting to start"));
    let wrong = c.admin("GET", "/api/v1/namespaces/default/pods/p/log?container=x", Value::Null).await;
    assert_eq!(wrong.1["message"], "container x is not valid for pod p");
    let headers = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let path = "/api/v1/namespaces/default/pods/p/exec?command=ls&command=-l&stdout=true";
    let response = c.send("admin", "POST", path, &headers, "").await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    upgraded.write_all(b"abcd").await.unwrap();
    let mut back = [0; 4];
    upgraded.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"dcba");
    server.abort();
}
