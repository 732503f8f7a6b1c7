//! The API as the scenarios use it: plain requests through `kubectl proxy` on a unix socket, and every status a pod ever had.

use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::Lab;
use ferrolet_tests::sys::{MARK, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub const PODS: &str = "/api/v1/namespaces/default/pods";
const TIMEOUT: Duration = Duration::from_secs(20);

/// The proxy's process ends with this.
pub struct Api {
    proxy: Child,
    socket: PathBuf,
    pub history: Arc<History>,
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

impl Api {
    pub fn start(lab: &Lab) -> Result<Api> {
        let socket = lab.dir.join("proxy.sock");
        let mut command = lab.kubectl_command(&["proxy", "--unix-socket", &socket.to_string_lossy()]);
        command.env(MARK, &lab.name).stdin(Stdio::null()).stdout(Stdio::null());
        let proxy = command.spawn().context("cannot start kubectl proxy")?;
        let api = Api { proxy, socket, history: Arc::default() };
        wait_for("kubectl proxy", Duration::from_secs(20), || api.call("GET", "/readyz", "", None).map(drop))?;
        let (history, stream) = (api.history.clone(), api.ask("GET", &format!("{PODS}?watch=1"), "", None)?);
        stream.set_read_timeout(None)?;
        // Ends when the proxy does.
        std::thread::spawn(move || history.follow(stream));
        Ok(api)
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).context("connect to kubectl proxy")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        Ok(stream)
    }

    /// One request; the answer's text if it was a good one.
    pub fn call(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<String> {
        let mut answer = String::new();
        self.ask(method, path, kind, body)?.read_to_string(&mut answer).with_context(|| format!("{method} {path}"))?;
        let (head, text) = answer.split_once("\r\n\r\n").with_context(|| format!("{method} {path} answered {answer:?}"))?;
        let good = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        if good { Ok(text.to_owned()) } else { bail!("{method} {path}: {head}\n{text}") }
    }

    pub fn create(&self, pod: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.call("POST", PODS, "application/json", Some(pod))?)?)
    }

    pub fn patch(&self, name: &str, subresource: &str, patch: &Value) -> Result<()> {
        let path = format!("{PODS}/{name}{subresource}");
        self.call("PATCH", &path, "application/strategic-merge-patch+json", Some(patch)).map(drop)
    }

    pub fn delete(&self, name: &str, grace: u64) -> Result<()> {
        let options = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace});
        self.call("DELETE", &format!("{PODS}/{name}"), "application/json", Some(&options)).map(drop)
    }
}

#[derive(Default)]
pub struct History {
    pods: Mutex<BTreeMap<String, Seen>>,
    changed: Condvar,
}

/// All that was seen of one pod.
#[derive(Default, Clone)]
pub struct Seen {
    pub versions: Vec<Value>,
    pub gone: Option<Instant>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, stream: UnixStream) {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Ok(mut event) = serde_json::from_str::<Value>(&line) else { continue };
            let pod = event["object"].take();
            let Some(uid) = pod["metadata"]["uid"].as_str().map(str::to_owned) else { continue };
            let mut pods = self.lock();
            let seen = pods.entry(uid).or_default();
            seen.versions.push(pod);
            if event["type"] == "DELETED" {
                seen.gone = Some(Instant::now());
            }
            self.changed.notify_all();
        }
    }

    pub fn of(&self, uid: &str) -> Seen {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Looks again after every change, until there is an answer or the limit; the last reason is the error.
    pub fn wait<T>(&self, uid: &str, limit: Duration, mut look: impl FnMut(&Seen) -> Result<T>) -> Result<T> {
        let end = Instant::now() + limit;
        let empty = Seen::default();
        let mut pods = self.lock();
        loop {
            match look(pods.get(uid).unwrap_or(&empty)) {
                Ok(found) => return Ok(found),
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            pods = self.changed.wait_timeout(pods, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
