//! Make-believe processes: one task each, which outlives the server.

use super::program::{OnTerm, Program};
use super::shared::Shared;
use std::sync::Weak;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signal {
    Term,
    Kill,
    /// A scripted end, with its reason if it is not the usual one.
    Exit(i32, Option<String>),
}

/// A running process: where to send signals, and how to wait for its end.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) signals: mpsc::UnboundedSender<Signal>,
    exited: watch::Receiver<bool>,
}

/// Starts it. When it has ended, the state is told; a state that is gone no longer cares.
pub(super) fn spawn(shared: Weak<Shared>, id: String, program: Program) -> Process {
    let (signals, incoming) = mpsc::unbounded_channel();
    let (ended, exited) = watch::channel(false);
    tokio::spawn(async move {
        let (code, reason, told) = run(&program, incoming).await;
        if let Some(shared) = shared.upgrade() {
            shared.process_ended(&id, code, reason, told);
        }
        let _ = ended.send(true);
    });
    Process { signals, exited }
}

async fn run(program: &Program, mut signals: mpsc::UnboundedReceiver<Signal>) -> (i32, Option<String>, bool) {
    let far = Duration::from_secs(365 * 24 * 3600);
    let mut end = Instant::now() + program.ends_after.unwrap_or(far);
    let mut code = program.exit_code;
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            signal = signals.recv() => match (signal, program.on_term) {
                (Some(Signal::Exit(code, reason)), _) => return (code, reason, told),
                (Some(Signal::Kill) | None, _) => return (137, None, true),
                (Some(Signal::Term), OnTerm::Ignore) => told = true,
                (Some(Signal::Term), OnTerm::Exit { after, code: then }) => {
                    told = true;
                    let stop = Instant::now() + after;
                    if stop < end {
                        (end, code) = (stop, then);
                    }
                }
            },
            () = sleep_until(end) => return (code, None, told),
        }
    }
}

impl Process {
    pub(super) fn send(&self, signal: Signal) {
        let _ = self.signals.send(signal);
    }

    pub(super) async fn ended(&mut self) {
        let _ = self.exited.wait_for(|ended| *ended).await;
    }

    /// As runtimes stop a container: the stop signal, the grace, SIGKILL.
    pub(super) async fn stop(&mut self, grace: Duration) {
        if !grace.is_zero() {
            self.send(Signal::Term);
            if tokio::time::timeout(grace, self.ended()).await.is_ok() {
                return;
            }
        }
        self.send(Signal::Kill);
        self.ended().await;
    }
}
