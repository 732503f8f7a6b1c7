//! Commands of probes, run by the runtime.
//!
//! Owns the question whose fault it is when a command's end is not heard of: a container must not be restarted because the
//! runtime hangs, and must not pass for well because a child of the command holds its output open (containerd then waits for
//! that child, long after it has killed the command).

use crate::api::watch::chain;
use ferrolet_cri as cri;
use ferrolet_probes::{Exec, ExecError, ExecOutcome};
use futures::future::BoxFuture;
use std::time::Duration;

/// How long after its timeout the runtime may say that it ended the command.
const MARGIN: Duration = Duration::from_secs(1);
/// Within which a runtime that is well says its version.
const SOON: Duration = Duration::from_secs(2);

pub struct CriExec {
    pub cri: cri::Client,
}

impl Exec for CriExec {
    fn exec(&self, container_id: &str, command: &[String], limit: Duration) -> BoxFuture<'_, Result<ExecOutcome, ExecError>> {
        let (id, command) = (container_id.to_owned(), command.to_owned());
        Box::pin(async move {
            // Dropped, the call is cancelled, and the runtime kills the command.
            match tokio::time::timeout(limit.saturating_add(MARGIN), self.cri.exec_sync(&id, &command, limit)).await {
                Ok(Ok(output)) => Ok(ExecOutcome { exit_code: output.exit_code, stdout: output.stdout, stderr: output.stderr }),
                Ok(Err(cri::Error::ExecTimeout { .. })) => Err(ExecError::TimedOut(limit)),
                Ok(Err(error)) => Err(ExecError::Failed(chain(&error))),
                Err(_) => match tokio::time::timeout(SOON, self.cri.version()).await {
                    Ok(Ok(_)) => Err(ExecError::TimedOut(limit)),
                    Ok(Err(error)) => Err(ExecError::Failed(chain(&error))),
                    Err(_) => Err(ExecError::Failed("the container runtime does not answer".to_owned())),
                },
            }
        })
    }
}

#[cfg(test)]
mod tests;
