//! What the daemon says to systemd.
//!
//! - Here: the notification socket (sd_notify(3)), which does nothing where the process was not started by systemd.
//! - `units`: slices made, changed and stopped, over the bus.
//! - `bus` and `wire`: as much of D-Bus as that needs. A client of our own, since one for all of D-Bus would be a tenth of the daemon,
//!   with tasks and buffers that live as long as it; this one has a connection while it asks, and nothing otherwise.
//!
//! The watchdog, the inhibitor for graceful shutdown and the fd store come later and belong here.

mod bus;
pub mod units;
mod wire;

pub use bus::Error;
pub use wire::Value;

use sd_notify::NotifyState;

/// The service is up: the node can take pods.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// The service is on its way down.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not notified");
    }
}
