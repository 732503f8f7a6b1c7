//! The checks themselves: one function a kind, each giving an `Outcome` within its timeout.
//!
//! Owns no state. A check may be dropped at any point; what it opened is closed with it. Nothing here retries but `run`,
//! and only what says nothing about the container.

mod dial;
mod exec;
mod grpc;
mod hook;
mod http;
mod tcp;

pub use exec::{Exec, ExecError, ExecOutcome};
pub use hook::{HookAnswer, http_hook};

use crate::spec::{Check, Spec};
use std::sync::Arc;
use std::time::Duration;

/// How browsers of logs know a probe; real clusters' servers match on it.
const USER_AGENT: &str = "kube-probe/1.36";
/// How much of a response or of a command's output is read.
const MAX_OUTPUT: usize = 10 * 1024;
/// A check that could not be made is tried this often before it is given up until the next period.
const TRIES: u32 = 3;

/// What a check found, with a text for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Counts as success, but the user should hear of it.
    Warning(String),
    Failure(String),
    /// The check could not be made: nothing is known of the container.
    Error(String),
    /// The answer began well and broke off: nothing is known either, but it is told in other words.
    Unread(String),
}

/// Makes the check, again if it could not be made.
pub(crate) async fn run(spec: &Spec, container_id: &str, exec: &Arc<dyn Exec>) -> Outcome {
    let mut outcome = once(spec, container_id, exec).await;
    for _ in 1..TRIES {
        match outcome {
            Outcome::Error(_) | Outcome::Unread(_) => outcome = once(spec, container_id, exec).await,
            done => return done,
        }
    }
    outcome
}

async fn once(spec: &Spec, container_id: &str, exec: &Arc<dyn Exec>) -> Outcome {
    match &spec.check {
        Check::Exec { command } => exec::probe(exec, container_id, command, spec.timeout).await,
        Check::Http { host, port, path, scheme, headers } => {
            http::probe(&http::Request { scheme: *scheme, host, port: *port, path, headers }, spec.timeout).await
        }
        Check::Tcp { host, port } => tcp::probe(host, *port, spec.timeout).await,
        Check::Grpc { host, port, service } => grpc::probe(host, *port, service, spec.timeout).await,
        Check::Impossible { why } => Outcome::Error(why.clone()),
    }
}

/// `1s`, `1m30s`, `1h0m5s`: how operators are used to see durations in these messages.
fn human(d: Duration) -> String {
    let secs = d.as_secs();
    let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
    match (h, m, d.subsec_millis()) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, ms) if s == 0 => format!("{ms}ms"),
        (0, 0, _) => format!("{}s", d.as_secs_f64()),
        (0, _, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}
