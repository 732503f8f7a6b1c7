//! One thread for work that blocks is always there.
//!
//! Files, cgroups and mounts are such work. tokio ends its threads when they are idle, and where none is left and the system refuses
//! a new one (a limit of processes, no memory) handing over work is a panic. With one thread left it waits for that one.

use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long such a thread stays without work.
pub const KEEP: Duration = Duration::from_secs(10);
/// Less, so that one always has had some, and more than half, so that two do not.
const NUDGE: Duration = Duration::from_secs(7);

/// Ends when cancelled; with a panic, and so the process with it, if no thread can be had although one was kept.
pub fn keep_one(cancel: CancellationToken) -> JoinHandle<()> {
    let work = async {
        loop {
            let _ = tokio::task::spawn_blocking(|| ()).await;
            sleep(NUDGE).await;
        }
    };
    tokio::spawn(async move { cancel.run_until_cancelled_owned(work).await.unwrap_or(()) })
}
