//! What the daemon says to systemd.
//!
//! Owns the notification socket's protocol (sd_notify(3)). Does nothing where the process was not started by systemd.
//! Units, the watchdog, the inhibitor for graceful shutdown and the fd store come later and belong here.

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
