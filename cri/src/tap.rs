//! A socket in front of a runtime's socket that writes down what is called, for tests.
//!
//! Owns the record of calls and the names behind the ids. It changes nothing that goes through it: calls, answers, streams and
//! broken connections pass as they are, on a connection of its own for each of the caller's.

use crate::pb;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::net::{UnixListener, UnixStream};

/// A call that changes something, or runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tapped {
    pub at: Instant,
    /// The uid of its pod; empty where that is not known.
    pub pod: String,
    /// As in the interface: `StopContainer`.
    pub method: String,
    /// The name of its container, if it is about one.
    pub container: String,
    /// The grace in seconds, the command, or the image.
    pub detail: String,
}

#[derive(Debug, Default)]
struct Record {
    calls: Vec<Tapped>,
    /// Pod and container name by the id of a sandbox or container.
    names: BTreeMap<String, (String, String)>,
    /// Sandboxes by pod, oldest first.
    sandboxes: BTreeMap<String, Vec<String>>,
}

/// The socket. Dropping it ends the server and all its connections.
#[derive(Debug)]
pub struct Tap {
    record: Arc<Mutex<Record>>,
    task: tokio::task::JoinHandle<()>,
    socket: PathBuf,
}

impl Tap {
    /// Listens on one socket in front of another. Inside a tokio runtime only.
    pub fn start(listen: &Path, runtime: &Path) -> std::io::Result<Tap> {
        let listener = UnixListener::bind(listen)?;
        let record = Arc::new(Mutex::new(Record::default()));
        let (runtime, shared) = (runtime.to_owned(), record.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, runtime.clone(), shared.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Tap { record, task, socket: listen.to_owned() })
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn with<T>(&self, f: impl FnOnce(&Record) -> T) -> T {
        f(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was called for a pod so far, in the order it came in.
    pub fn calls(&self, pod: &str) -> Vec<Tapped> {
        self.with(|r| r.calls.iter().filter(|c| c.pod == pod).cloned().collect())
    }

    /// The pod's last sandbox.
    pub fn sandbox(&self, pod: &str) -> Option<String> {
        self.with(|r| r.sandboxes.get(pod)?.last().cloned())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Ends when either side does: what is lost behind is lost in front.
async fn connection(stream: UnixStream, runtime: PathBuf, record: Arc<Mutex<Record>>) {
    let Ok(behind) = UnixStream::connect(&runtime).await else { return };
    let Ok((sender, behind)) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(behind)).await else {
        return;
    };
    let service = hyper::service::service_fn(move |request| forward(request, sender.clone(), record.clone()));
    let front = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = front => {}
        _ = behind => {}
    }
}

type Body = BoxBody<Bytes, hyper::Error>;

async fn forward(
    request: Request<Incoming>,
    mut sender: SendRequest<Full<Bytes>>,
    record: Arc<Mutex<Record>>,
) -> Result<Response<Body>, hyper::Error> {
    let (parts, body) = request.into_parts();
    // Every request of the interface is a single message.
    let message = body.collect().await?.to_bytes();
    let method = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let with = |f: &mut dyn FnMut(&mut Record)| f(&mut record.lock().unwrap_or_else(PoisonError::into_inner));
    with(&mut |r| r.asked(&method, content(&message)));
    let answer = sender.send_request(Request::from_parts(parts, Full::new(message.clone()))).await?;
    if !matches!(method.as_str(), "RunPodSandbox" | "CreateContainer") {
        return Ok(answer.map(BodyExt::boxed));
    }
    let (head, body) = answer.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let bytes = body.to_bytes();
    with(&mut |r| r.answered(&method, content(&message), content(&bytes)));
    let body = Full::new(bytes).map_err(|never: Infallible| match never {}).with_trailers(async move { trailers.map(Ok) });
    Ok(Response::from_parts(head, body.boxed()))
}

/// The message in a frame of gRPC; nothing if there is none, or if it is compressed, which nobody here does.
fn content(frame: &[u8]) -> &[u8] {
    match frame {
        [0, _, _, _, _, message @ ..] => message,
        _ => &[],
    }
}

fn uid_of(config: Option<&pb::PodSandboxConfig>) -> String {
    config.and_then(|c| c.metadata.as_ref()).map(|m| m.uid.clone()).unwrap_or_default()
}

fn container_of(request: &pb::CreateContainerRequest) -> String {
    request.config.as_ref().and_then(|c| c.metadata.as_ref()).map(|m| m.name.clone()).unwrap_or_default()
}

impl Record {
    fn asked(&mut self, method: &str, message: &[u8]) {
        let (pod, container, detail) = match self.about(method, message) {
            Some(found) => found,
            None => return,
        };
        self.calls.push(Tapped { at: Instant::now(), pod, method: method.to_owned(), container, detail });
    }

    /// Pod, container and detail of the calls that are written down.
    fn about(&self, method: &str, message: &[u8]) -> Option<(String, String, String)> {
        let named = |id: &str, detail: String| {
            let (pod, container) = self.names.get(id).cloned().unwrap_or_default();
            (pod, container, detail)
        };
        Some(match method {
            "RunPodSandbox" => {
                let request = pb::RunPodSandboxRequest::decode(message).ok()?;
                (uid_of(request.config.as_ref()), String::new(), String::new())
            }
            "StopPodSandbox" => named(&pb::StopPodSandboxRequest::decode(message).ok()?.pod_sandbox_id, String::new()),
            "RemovePodSandbox" => named(&pb::RemovePodSandboxRequest::decode(message).ok()?.pod_sandbox_id, String::new()),
            "CreateContainer" => {
                let request = pb::CreateContainerRequest::decode(message).ok()?;
                (uid_of(request.sandbox_config.as_ref()), container_of(&request), String::new())
            }
            "StartContainer" => named(&pb::StartContainerRequest::decode(message).ok()?.container_id, String::new()),
            "StopContainer" => {
                let request = pb::StopContainerRequest::decode(message).ok()?;
                named(&request.container_id, request.timeout.to_string())
            }
            "RemoveContainer" => named(&pb::RemoveContainerRequest::decode(message).ok()?.container_id, String::new()),
            "ExecSync" => {
                let request = pb::ExecSyncRequest::decode(message).ok()?;
                named(&request.container_id, request.cmd.join(" "))
            }
            "PullImage" => {
                let request = pb::PullImageRequest::decode(message).ok()?;
                let image = request.image.map(|i| i.image).unwrap_or_default();
                (uid_of(request.sandbox_config.as_ref()), String::new(), image)
            }
            _ => return None,
        })
    }

    fn answered(&mut self, method: &str, asked: &[u8], answer: &[u8]) {
        match method {
            "RunPodSandbox" => {
                let (Ok(asked), Ok(answer)) =
                    (pb::RunPodSandboxRequest::decode(asked), pb::RunPodSandboxResponse::decode(answer))
                else {
                    return;
                };
                let pod = uid_of(asked.config.as_ref());
                if !answer.pod_sandbox_id.is_empty() {
                    self.names.insert(answer.pod_sandbox_id.clone(), (pod.clone(), String::new()));
                    self.sandboxes.entry(pod).or_default().push(answer.pod_sandbox_id);
                }
            }
            "CreateContainer" => {
                let (Ok(asked), Ok(answer)) =
                    (pb::CreateContainerRequest::decode(asked), pb::CreateContainerResponse::decode(answer))
                else {
                    return;
                };
                let names = (uid_of(asked.sandbox_config.as_ref()), container_of(&asked));
                self.names.insert(answer.container_id, names);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
