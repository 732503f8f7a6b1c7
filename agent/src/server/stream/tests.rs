use super::*;
use axum::Router;
use axum::routing::any;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[test]
fn queries_in_both_spellings() {
    let a = asked("command=sh&command=-c&command=echo+a%26b&input=1&output=1&error=1&tty=0").unwrap();
    assert_eq!(a.command, ["sh", "-c", "echo a&b"]);
    assert_eq!(a.streams, Streams { stdin: true, stdout: true, stderr: true, tty: false });
    let b = asked("stdin=true&stdout=true&stderr=true&tty=true&port=80,443&port=1").unwrap();
    assert_eq!(b.streams, Streams { stdin: true, stdout: true, stderr: false, tty: true });
    assert_eq!(b.ports, [80, 443, 1]);
    assert!(asked("port=0").unwrap_err().contains("\"0\""));
    assert!(asked("port=70000").is_err());
    assert!(asked(&"command=a&".repeat(MAX_COMMAND + 1)).is_err());
}

/// A runtime's streaming server: one raw answer, then an echo in capitals. Returns the request it saw.
async fn runtime(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/TOKEN?x=1", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut block = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut block).await {
            stream.write_all(&block[..n].to_ascii_uppercase()).await.unwrap();
        }
        String::from_utf8(seen).unwrap()
    });
    (url, task)
}

/// Our server in front of that runtime, and a raw client of it.
async fn client(url: String, request: &str) -> TcpStream {
    let app = Router::new().fallback(any(move |request: Request| {
        let url = url.clone();
        async move { pass_through(&url, request).await }
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(super::super::listen::plain(listener, app, tokio_util::sync::CancellationToken::new()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn head(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(seen).unwrap().to_lowercase()
}

#[tokio::test]
async fn an_upgrade_is_passed_through_as_it_is() {
    for (method, headers, answer) in [
        (
            "POST",
            "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
        ),
        (
            "GET",
            "Upgrade: websocket\r\nSec-WebSocket-Key: abc\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: xyz\r\n\r\nearly",
        ),
    ] {
        let (url, runtime) = runtime(answer).await;
        let request = format!(
            "{method} /exec/a/b/c?command=x HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer secret\r\nConnection: Upgrade\r\n{headers}\r\n"
        );
        let mut stream = client(url, &request).await;
        let answered = head(&mut stream).await;
        assert!(answered.starts_with("http/1.1 101"), "{answered}");
        assert!(answered.contains(if method == "GET" {
            "sec-websocket-accept: xyz"
        } else {
            "x-stream-protocol-version: v4.channel.k8s.io"
        }));
        stream.write_all(b"hello").await.unwrap();
        let mut back = vec![0; if method == "GET" { 10 } else { 5 }];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, if method == "GET" { &b"earlyHELLO"[..] } else { b"HELLO" });
        drop(stream);
        let seen = tokio::time::timeout(Duration::from_secs(10), runtime).await.unwrap().unwrap();
        assert!(seen.starts_with(&format!("{method} /exec/TOKEN?x=1 HTTP/1.1\r\n")), "{seen}");
        assert!(seen.to_lowercase().contains("upgrade: ") && !seen.contains("secret"), "{seen}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_runtime_is_handed_on() {
    let (url, _runtime) = runtime("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone").await;
    let mut stream = client(url, "POST /exec HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n").await;
    assert!(head(&mut stream).await.starts_with("http/1.1 404"));
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let mut stream = client(url, "POST /exec HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n").await;
    assert!(head(&mut stream).await.starts_with("http/1.1 502"));
}
