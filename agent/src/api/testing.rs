//! A scripted API server on the loopback, for tests of what speaks to one.

use super::transport::Transport;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One answer. Requests that nothing was scripted for hang.
pub enum Answer {
    Json(u16, serde_json::Value),
    /// Lines of a watch, then what happens to the stream.
    Stream(Vec<String>, Then),
}

pub enum Then {
    Close,
    Break,
    Hang,
}

#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub uri: String,
    pub body: String,
    pub authorization: Option<String>,
}

type Script = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

pub struct Server {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub dir: tempfile::TempDir,
    pub task: JoinHandle<()>,
}

impl Server {
    /// Answers in order, whatever is asked.
    pub async fn queue(answers: Vec<Answer>) -> Server {
        let queue = Mutex::new(VecDeque::from(answers));
        Server::start(move |_| queue.lock().unwrap().pop_front()).await
    }

    pub async fn start(script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Server::on(listener, Arc::new(script))
    }

    pub fn on(listener: TcpListener, script: Arc<Script>) -> Server {
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let seen = asked.clone();
        let app = Router::new().fallback(move |request: Request| {
            let (script, seen) = (script.clone(), seen.clone());
            async move { answer(request, &*script, &seen).await }
        });
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let dir = tempfile::tempdir().unwrap();
        Server { address, asked, dir, task }
    }

    pub fn transport(&self) -> Transport {
        let path = self.dir.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig(&format!("http://{}", self.address), "{}")).unwrap();
        Transport::new(&path).unwrap()
    }

    pub fn client(&self) -> kube::Client {
        self.transport().client()
    }

    pub fn uris(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.uri.clone()).collect()
    }
}

pub fn kubeconfig(server: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\nusers: [{{name: u, user: {user}}}]\n"
    )
}

async fn answer(request: Request, script: &Script, seen: &Mutex<Vec<Asked>>) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    let asked = Asked {
        method: parts.method.to_string(),
        uri: parts.uri.to_string(),
        body: String::from_utf8_lossy(&body).into_owned(),
        authorization: parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()),
    };
    let answer = script(&asked);
    seen.lock().unwrap().push(asked);
    match answer {
        None => std::future::pending().await,
        Some(Answer::Json(code, value)) => {
            let code = axum::http::StatusCode::from_u16(code).unwrap();
            (code, [("content-type", "application/json")], value.to_string()).into_response()
        }
        Some(Answer::Stream(lines, then)) => {
            let sent = futures::stream::iter(lines.into_iter().map(|line| Ok::<_, io::Error>(Bytes::from(line))));
            let rest = futures::stream::once(async move {
                match then {
                    Then::Close => Ok(Bytes::new()),
                    // What was sent before has to arrive before the connection breaks.
                    Then::Break => {
                        tokio::time::sleep(Duration::from_millis(30)).await;
                        Err(io::Error::other("broken on purpose"))
                    }
                    Then::Hang => std::future::pending().await,
                }
            });
            Body::from_stream(futures::StreamExt::chain(sent, rest)).into_response()
        }
    }
}

/// Waits until something is so; panics after a while.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "timed out waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
