//! When the API server said what of each pod: a watch kept open for the whole run, so that no client's start is in a figure.

use crate::cluster::Lab;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Moments of one pod.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    pub added: Instant,
    pub ready: Option<Instant>,
    /// The first event with a deletion timestamp.
    pub deleting: Option<Instant>,
    pub gone: Option<Instant>,
}

type Pods = BTreeMap<String, Moments>;

#[derive(Default)]
struct Shared {
    pods: Mutex<Pods>,
    news: Condvar,
}

/// Ended when dropped.
pub struct Watch {
    kubectl: Child,
    reader: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Watch {
    /// Of the pods of the default namespace.
    pub fn start(lab: &Lab) -> Result<Watch> {
        // Raw: one line of JSON an event, and kubectl does nothing but copy it.
        let path = "/api/v1/namespaces/default/pods?watch=true&timeoutSeconds=3600";
        let mut command = lab.kubectl_command(&["get", "--raw", path]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut kubectl = command.spawn().context("cannot start kubectl")?;
        let output = kubectl.stdout.take().context("no output")?;
        let shared = Arc::new(Shared::default());
        let reader = std::thread::spawn({
            let shared = shared.clone();
            move || read(output, &shared)
        });
        Ok(Watch { kubectl, reader: Some(reader), shared })
    }

    /// The moments of all pods whose name begins so, once there are this many and all of them have what is asked.
    pub fn wait(&self, prefix: &str, count: usize, limit: Duration, has: impl Fn(&Moments) -> bool) -> Result<Vec<Moments>> {
        let end = Instant::now() + limit;
        let mut pods = self.shared.pods.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let found: Vec<Moments> =
                pods.iter().filter(|(name, m)| name.starts_with(prefix) && has(m)).map(|(_, m)| *m).collect();
            if found.len() >= count {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("after {} s only {} of {count} pods {prefix}* are as far as that", limit.as_secs(), found.len());
            }
            pods = self.shared.news.wait_timeout(pods, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read(output: ChildStdout, shared: &Shared) {
    for line in BufReader::new(output).lines() {
        let now = Instant::now();
        let Ok(event) = line.map_err(anyhow::Error::from).and_then(|l| Ok(serde_json::from_str::<Value>(&l)?)) else { return };
        let (pod, mut pods) = (&event["object"], shared.pods.lock().unwrap_or_else(PoisonError::into_inner));
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let known = pods.entry(name).or_insert(Moments { added: now, ready: None, deleting: None, gone: None });
        let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            known.ready.get_or_insert(now);
        }
        if pod["metadata"]["deletionTimestamp"].is_string() {
            known.deleting.get_or_insert(now);
        }
        if event["type"] == "DELETED" {
            known.gone.get_or_insert(now);
        }
        drop(pods);
        shared.news.notify_all();
    }
}
