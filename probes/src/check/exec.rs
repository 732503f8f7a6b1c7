//! A container is well if a command in it exits with 0.

use super::{MAX_OUTPUT, Outcome};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// How long after its timeout a command's runner may still say what became of it before it is left alone.
const GRACE: Duration = Duration::from_secs(20);

/// What a command did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Why there is no exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// It ran for longer than allowed: a failure of the container.
    #[error("command timed out after {0:?}")]
    TimedOut(Duration),
    /// It could not be run: says nothing about the container.
    #[error("{0}")]
    Failed(String),
}

/// Runs commands in containers. Implementations must stop the command when its timeout ends, and say soon after it whether
/// that was the command's fault ([`ExecError::TimedOut`]) or that of who runs it ([`ExecError::Failed`]).
pub trait Exec: Send + Sync + 'static {
    fn exec(&self, container_id: &str, command: &[String], timeout: Duration) -> BoxFuture<'_, Result<ExecOutcome, ExecError>>;
}

pub(super) async fn probe(exec: &Arc<dyn Exec>, container_id: &str, command: &[String], timeout: Duration) -> Outcome {
    let late = || format!("command timed out: {:?} timed out after {}", command.join(" "), super::human(timeout));
    match tokio::time::timeout(timeout.saturating_add(GRACE), exec.exec(container_id, command, timeout)).await {
        Err(_) => Outcome::Error(format!("nobody says what became of {:?}", command.join(" "))),
        Ok(Err(ExecError::TimedOut(_))) => Outcome::Failure(late()),
        Ok(Err(ExecError::Failed(message))) => Outcome::Error(message),
        Ok(Ok(ExecOutcome { exit_code: 0, .. })) => Outcome::Success,
        Ok(Ok(out)) => Outcome::Failure(text(&out)),
    }
}

/// Output and errors, up to the limit.
fn text(out: &ExecOutcome) -> String {
    let bytes: Vec<u8> = out.stdout.iter().chain(&out.stderr).take(MAX_OUTPUT).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
