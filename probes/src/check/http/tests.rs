use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A server that answers each request by its path and hands over what it read.
async fn serve(answer: impl Fn(&str, u16) -> Option<String> + Send + Sync + 'static) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut data = Vec::new();
            while !data.ends_with(b"\r\n\r\n") {
                let mut one = [0];
                if stream.read(&mut one).await.unwrap_or(0) == 0 {
                    break;
                }
                data.push(one[0]);
            }
            let text = String::from_utf8(data).unwrap();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            let _ = seen.send(text);
            if let Some(answer) = answer(&path, port) {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            if path == "/hang" || path == "/endless" {
                open.push(stream);
            }
        }
    });
    (port, requests)
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

async fn get_with(port: u16, path: &str, headers: &[(&str, &str)], timeout: Duration) -> Outcome {
    let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    probe(&Request { scheme: Scheme::Http, host: "127.0.0.1", port, path, headers: &headers }, timeout).await
}

async fn get(port: u16, path: &str) -> Outcome {
    get_with(port, path, &[], Duration::from_secs(10)).await
}

fn failure(text: String) -> Outcome {
    Outcome::Failure(text)
}

#[tokio::test]
async fn the_status_decides() {
    let (port, _requests) = serve(|path, _| Some(reply(&format!("{} X", &path[1..]), "", "secret"))).await;
    for code in [200, 204, 299] {
        assert_eq!(get(port, &format!("/{code}")).await, Outcome::Success, "{code}");
    }
    for code in [400, 404, 500, 503] {
        assert_eq!(get(port, &format!("/{code}")).await, failure(format!("HTTP probe failed with statuscode: {code}")));
    }
    let not_modified = get(port, "/304").await;
    assert!(
        matches!(&not_modified, Outcome::Warning(text) if text.starts_with("Probe terminated redirects")),
        "{not_modified:?}"
    );
    // A redirect that says not whereto.
    assert_eq!(get(port, "/301").await, Outcome::Warning("Probe terminated redirects, Response body: secret".into()));
}

#[tokio::test]
async fn neither_side_keeps_a_socket() {
    let (port, _requests) = serve(|_, _| Some(reply("200 OK", "", "ok"))).await;
    for _ in 0..200 {
        assert_eq!(get(port, "/").await, Outcome::Success);
    }
    dial::tests::all_gone(port).await;
}

#[tokio::test]
async fn the_request_is_kubelets_and_headers_override() {
    let (port, mut requests) = serve(|_, _| Some(reply("200 OK", "", ""))).await;
    assert_eq!(get(port, "").await, Outcome::Success);
    let plain = requests.recv().await.unwrap().to_lowercase();
    assert!(plain.starts_with("get / http/1.1\r\n"), "{plain}");
    for line in [&format!("host: 127.0.0.1:{port}"), "user-agent: kube-probe/1.36", "accept: */*", "connection: close"] {
        assert!(plain.contains(&format!("\r\n{line}\r\n")), "{line} in {plain}");
    }
    assert!(!plain.contains("accept-encoding") && !plain.contains("content-length"), "{plain}");

    let headers = [
        ("Host", "example.test"),
        ("User-Agent", "mine"),
        ("user-agent", "other"),
        ("Accept", ""),
        ("X-A", "1"),
        ("x-a", "2"),
        ("X-B", "ü"),
        ("Content-Length", "9"),
    ];
    assert_eq!(get_with(port, "/p", &headers, Duration::from_secs(10)).await, Outcome::Success);
    let custom = requests.recv().await.unwrap().to_lowercase();
    for line in ["host: example.test", "user-agent: mine", "x-a: 1", "x-a: 2", "x-b: ü"] {
        assert!(custom.contains(&format!("\r\n{line}\r\n")), "{line} in {custom}");
    }
    assert!(!custom.contains("accept") && !custom.contains("content-length") && !custom.contains("other"), "{custom}");
    assert_eq!(custom.matches("host:").count(), 1, "{custom}");
    // No agent and the ordinary Host; a request that cannot be sent counts against the container.
    assert_eq!(get_with(port, "/p", &[("User-Agent", ""), ("Host", "")], Duration::from_secs(10)).await, Outcome::Success);
    let emptied = requests.recv().await.unwrap().to_lowercase();
    assert!(!emptied.contains("user-agent") && emptied.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")), "{emptied}");
    for (header, why) in [(("X B", "1"), "name \"X B\""), (("X-B", "1\n2"), "value for \"X-B\"")] {
        let bad = get_with(port, "/p", &[header], Duration::from_secs(10)).await;
        assert_eq!(bad, failure(format!("Get \"http://127.0.0.1:{port}/p\": net/http: invalid header field {why}")));
    }
}

#[tokio::test]
async fn redirects_stay_on_the_host_and_have_an_end() {
    let (port, mut requests) = serve(|path, port| {
        let to = match path.split('?').next().unwrap() {
            "/relative" => "/ok".to_owned(),
            "/absolute" => format!("http://127.0.0.1:{port}/ok"),
            "/same" => format!("//127.0.0.1:{port}/ok"),
            "/away" => "http://example.test/".to_owned(),
            "/ftp" => format!("ftp://127.0.0.1:{port}/"),
            "/loop" => "loop".to_owned(),
            _ => return Some(reply("200 OK", "", "")),
        };
        Some(reply("302 Found", &format!("Location: {to}\r\n"), "moved"))
    })
    .await;
    assert_eq!(get_with(port, "/relative", &[("Host", "h.test")], Duration::from_secs(10)).await, Outcome::Success);
    requests.recv().await.unwrap();
    let second = requests.recv().await.unwrap();
    assert!(second.starts_with("GET /ok ") && second.contains("h.test"), "{second}");
    assert_eq!(get_with(port, "/absolute", &[("Host", "h.test")], Duration::from_secs(10)).await, Outcome::Success);
    requests.recv().await.unwrap();
    assert!(!requests.recv().await.unwrap().contains("h.test"));
    assert_eq!(get_with(port, "/same?q", &[("Host", "h.test")], Duration::from_secs(10)).await, Outcome::Success);
    requests.recv().await.unwrap();
    let same = requests.recv().await.unwrap();
    assert!(same.contains("h.test") && same.contains(&format!("Referer: http://127.0.0.1:{port}/same?q\r\n")), "{same}");
    // Names are the same in either case.
    let upper = Request { scheme: Scheme::Http, host: "LOCALHOST", port, path: "/relative", headers: &[] };
    assert_eq!(probe(&upper, Duration::from_secs(10)).await, Outcome::Success);
    let away = Outcome::Warning("Probe terminated redirects, Response body: moved".into());
    assert_eq!(get(port, "/away").await, away);
    let ftp = failure(format!("Get \"http://127.0.0.1:{port}/ftp\": unsupported protocol scheme \"ftp\""));
    assert_eq!(get(port, "/ftp").await, ftp);
    while requests.try_recv().is_ok() {}
    let endless = failure(format!("Get \"http://127.0.0.1:{port}/loop\": stopped after 10 redirects"));
    assert_eq!(get(port, "/loop").await, endless);
    let mut count = 0;
    while requests.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, 10);
}

#[tokio::test]
async fn silence_garbage_and_endless_bodies() {
    let (port, _requests) = serve(|path, _| match path {
        "/hang" | "/eof" => None,
        "/endless" => Some("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n".into()),
        "/cut" => Some("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf".into()),
        "/large" => Some(reply("200 OK", "", &"x".repeat(2_000_000))),
        _ => Some("not http at all\r\n\r\n".into()),
    })
    .await;
    let short = Duration::from_millis(300);
    let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    assert_eq!(get_with(port, "/hang", &[], short).await, failure(format!("Get \"http://127.0.0.1:{port}/hang\": {why}")));
    assert_eq!(get(port, "/eof").await, failure(format!("Get \"http://127.0.0.1:{port}/eof\": EOF")));
    let endless = get_with(port, "/endless", &[], short).await;
    let late = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    assert_eq!(endless, Outcome::Unread(late.into()), "a stream says nothing");
    let cut = get(port, "/cut").await;
    assert!(matches!(cut, Outcome::Unread(_)), "nor does what breaks off: {cut:?}");
    assert_eq!(get(port, "/large").await, Outcome::Success);
    assert!(matches!(get(port, "/garbage").await, Outcome::Failure(_)));
    let closed = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port() };
    let text = format!("Get \"http://127.0.0.1:{closed}/x\": dial tcp 127.0.0.1:{closed}: connect: connection refused");
    assert_eq!(get(closed, "/x").await, failure(text));
}

#[tokio::test]
async fn https_takes_any_certificate() {
    let signed = rcgen::generate_simple_self_signed(vec!["nobody.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![signed.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (said, mut goodbyes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(stream).await else { continue };
            let _ = tls.read(&mut [0; 4096]).await;
            let _ = tls.write_all(reply("200 OK", "", "fine").as_bytes()).await;
            let _ = said.send(tls.read(&mut [0; 16]).await.map_err(|e| e.kind()));
        }
    });
    let request = Request { scheme: Scheme::Https, host: "127.0.0.1", port, path: "/", headers: &[] };
    assert_eq!(probe(&request, Duration::from_secs(10)).await, Outcome::Success);
    assert_eq!(goodbyes.recv().await, Some(Ok(0)), "the end is said, else servers write of it to their logs");
    // Plain HTTP to a TLS port, and TLS to a plain one.
    assert!(matches!(get(port, "/").await, Outcome::Failure(_)));
    let (plain, _requests) = serve(|_, _| Some(reply("200 OK", "", ""))).await;
    let request = Request { scheme: Scheme::Https, host: "127.0.0.1", port: plain, path: "/", headers: &[] };
    assert!(matches!(probe(&request, Duration::from_millis(500)).await, Outcome::Failure(_)));
}

#[test]
fn paths_go_out_as_urls() {
    let cases = [
        ("", "/"),
        ("healthz", "/healthz"),
        ("/a b?x=1#frag", "/a%20b?x=1"),
        ("/a%20b", "/a%20b"),
        ("/bad%zz?q", "/bad%25zz%3Fq"),
        ("http://other/p?q", "/p?q"),
        ("//other/p", "/p"),
        ("?only=query", "/?only=query"),
        ("/ü", "/%C3%BC"),
        ("/x\r\nEvil: 1", "/x%0D%0AEvil:%201"),
    ];
    for (given, sent) in cases {
        assert_eq!(wire_path(given), sent, "{given:?}");
        sent.parse::<hyper::Uri>().unwrap();
    }
}
