use super::*;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Both families, where the host has both.
fn listeners() -> Vec<TcpListener> {
    ["127.0.0.1:0", "[::1]:0"].iter().filter_map(|at| TcpListener::bind(at).ok()).collect()
}

/// How many sockets with this port on either side are in each state, as the kernel numbers them; not the listener.
fn states(port: u16) -> BTreeMap<String, usize> {
    let text = ["tcp", "tcp6"].map(|f| std::fs::read_to_string(format!("/proc/self/net/{f}")).unwrap_or_default()).concat();
    let with = format!(":{port:04X}");
    let mut found = BTreeMap::new();
    for fields in text.lines().filter(|l| !l.contains("local")).map(|l| l.split_whitespace().collect::<Vec<_>>()) {
        if fields[3] != "0A" && fields[1..3].iter().any(|address| address.ends_with(&with)) {
            *found.entry(fields[3].to_owned()).or_default() += 1;
        }
    }
    found
}

/// Nothing of this port is left, but for what its tasks have yet to see.
pub(in crate::check) async fn all_gone(port: u16) {
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    while !states(port).is_empty() && tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(states(port), BTreeMap::new());
}

#[tokio::test]
async fn nothing_waits_on_either_side_whoever_closes_first() {
    for listener in listeners() {
        nothing_waits(listener).await;
    }
}

async fn nothing_waits(listener: TcpListener) {
    let (host, port) = (listener.local_addr().unwrap().ip().to_string(), listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        for i in 0..200 {
            let mut stream = listener.accept().unwrap().0;
            if i % 2 == 0 {
                // As HTTP servers do.
                stream.write_all(b"answer").unwrap();
                continue;
            }
            let read = stream.read(&mut [0; 16]);
            assert!(matches!(read, Ok(0)), "a server that reads sees the ordinary end: {read:?}");
        }
    });
    for i in 0..200 {
        let mut connection = connect(&host, port).await.unwrap();
        if i % 2 == 0 {
            let mut all = Vec::new();
            connection.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"answer");
        }
    }
    server.join().unwrap();
    assert_eq!(states(port), BTreeMap::new());
}

#[tokio::test]
async fn what_was_written_arrives_before_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut connection = connect("127.0.0.1", port).await.unwrap();
    connection.write_all(b"last words").await.unwrap();
    drop(connection);
    // Accepted only after all is over.
    let mut stream = listener.accept().unwrap().0;
    let mut said = [0; 10];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"last words");
    assert!(matches!(stream.read(&mut said), Ok(0)));
    drop(stream);
    assert_eq!(states(port), BTreeMap::new());
}
