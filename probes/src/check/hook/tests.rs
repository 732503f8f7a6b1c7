use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Answers every connection with the same bytes and hands over what came.
async fn serve(answer: &'static str) -> (u16, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut data = vec![0; 4096];
            let n = stream.read(&mut data).await.unwrap_or(0);
            data.truncate(n);
            let _ = seen.send(data);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, requests)
}

fn check(scheme: Scheme, port: u16) -> Check {
    let headers = vec![("Authorization".to_owned(), "secret".to_owned()), ("X-Own".to_owned(), "1".to_owned())];
    Check::Http { host: "127.0.0.1".into(), port, path: "/hook?a=b".into(), scheme, headers }
}

const LIMIT: Option<Duration> = Some(Duration::from_secs(10));

#[tokio::test]
async fn any_answer_will_do() {
    for status in ["200 OK", "404 Not Found", "500 No", "302 Found\r\nLocation: http://192.0.2.1/"] {
        let answer: &'static str = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").leak();
        let (port, mut requests) = serve(answer).await;
        assert_eq!(http_hook(&check(Scheme::Http, port), LIMIT).await, Ok(HookAnswer::Answered), "{status}");
        let request = String::from_utf8(requests.recv().await.unwrap()).unwrap();
        assert!(request.starts_with("GET /hook?a=b HTTP/1.1\r\n"), "{request}");
        for header in ["User-Agent: kube-lifecycle/1.36\r\n", "Authorization: secret\r\n", "X-Own: 1\r\n"] {
            assert!(request.contains(header), "{header} in {request}");
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_is_asked_again_without_the_secret() {
    let (port, mut requests) = serve("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let answer = http_hook(&check(Scheme::Https, port), LIMIT).await;
    assert_eq!(answer, Ok(HookAnswer::InTheClear { server: format!("127.0.0.1:{port}") }));
    assert_eq!(requests.recv().await.unwrap()[0], 22, "a TLS handshake first");
    let second = String::from_utf8(requests.recv().await.unwrap()).unwrap();
    assert!(!second.contains("secret") && second.contains("X-Own: 1"), "{second}");
}

#[tokio::test]
async fn no_answer_is_an_error_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = http_hook(&check(Scheme::Http, port), Some(Duration::from_millis(50))).await;
    assert!(silent.unwrap_err().contains("deadline exceeded"));
    drop(listener);
    let refused = http_hook(&check(Scheme::Http, port), LIMIT).await;
    assert!(refused.unwrap_err().contains("connection refused"));
}
