//! When to try again: crash-loop delays of containers and delays after failed actions.
//!
//! Pure values. The crash-loop delay itself lives in an annotation of each container (see `observed::Container::backoff`),
//! so it survives the agent; only the delays of failed actions live here, and begin anew after a restart.

use crate::pod::observed::{Container, State};
use crate::pod::{Time, after, elapsed};
use std::collections::BTreeMap;
use std::time::Duration;

/// First delay of a crash loop and of image pulls.
pub const FIRST: Duration = Duration::from_secs(10);
/// A container that ran this long starts its crash loop anew.
pub const RESET: Duration = Duration::from_secs(600);
/// Limit of the image pull delay.
pub const IMAGE_MAX: Duration = Duration::from_secs(300);

/// How often it is looked whether the cause of a failed pull has ended: the image is there by now, or the credentials are others.
pub const IMAGE_LOOK: Duration = Duration::from_secs(10);

/// How long a failed pull shows its own error before it shows that it is being waited.
pub const FIRST_SHOWN: Duration = Duration::from_secs(2);

/// When a failure happened.
pub fn failed_at(f: &Failure) -> Option<Time> {
    f.until.checked_sub(f.delay).ok()
}

/// What a delay belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Sandbox,
    Volumes,
    /// The image of this container.
    Image(String),
    /// Creating or starting this container.
    Start(String),
    /// Stopping or removing this container or sandbox, by id.
    Stop(String),
    /// Giving the pod what it was granted.
    Resize,
    /// Taking down what the pod had.
    Cleanup,
}

/// The last failure of a subject. Gone once an attempt succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When the subject failed first.
    pub since: Time,
    pub delay: Duration,
    pub until: Time,
    /// CamelCase, for `waiting.reason`.
    pub reason: String,
    pub message: String,
}

/// The failures of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoffs {
    pub failures: BTreeMap<Subject, Failure>,
    /// `crashLoopBackOff.maxContainerRestartPeriod`; zero stands for 300 s.
    pub crash_max: Duration,
    /// When to look at a failed pull again, before its delay is over, and what it was tried with. By container.
    pub looks: BTreeMap<String, Look>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub at: Time,
    pub credentials: u64,
    pub image: String,
}

impl Backoffs {
    pub fn failed(&mut self, subject: Subject, now: Time, reason: impl Into<String>, message: impl Into<String>) {
        let (first, max) = match subject {
            Subject::Image(_) => (FIRST, IMAGE_MAX),
            Subject::Sandbox | Subject::Start(_) => (Duration::from_secs(1), Duration::from_secs(10)),
            Subject::Volumes => (Duration::from_millis(500), Duration::from_secs(30)),
            // What it waits for, memory to be given back, is told by nobody.
            Subject::Resize => (Duration::from_secs(1), Duration::from_secs(10)),
            Subject::Stop(_) | Subject::Cleanup => (Duration::from_millis(500), Duration::from_secs(10)),
        };
        let before = self.failures.get(&subject);
        let reason = reason.into();
        let delay = match (&subject, before) {
            // Nothing was asked of anybody.
            (Subject::Image(_), _) if !is_pull(&reason) => first,
            (_, Some(last)) => (last.delay * 2).min(max),
            (_, None) => first,
        };
        let since = before.map_or(now, |f| f.since);
        let failure = Failure { since, delay, until: after(now, delay), reason, message: message.into() };
        self.failures.insert(subject, failure);
    }

    /// A failed pull, to be looked at before its delay is over.
    pub fn not_pulled(&mut self, container: &str, now: Time, failed: (&str, String), tried: (u64, String)) {
        self.failed(Subject::Image(container.to_owned()), now, failed.0, failed.1);
        let (credentials, image) = tried;
        self.looks.insert(container.to_owned(), Look { at: after(now, IMAGE_LOOK), credentials, image });
    }

    /// Nothing has changed by now; look again in a while.
    pub fn looked(&mut self, container: &str, now: Time) {
        if let Some(look) = self.looks.get_mut(container) {
            look.at = after(now, IMAGE_LOOK);
        }
    }

    /// The image that a container waits for: its own, or another that it mounts.
    pub fn awaited<'a>(&'a self, container: &str, own: &'a str) -> &'a str {
        self.looks.get(container).map_or(own, |look| &look.image)
    }

    pub fn succeeded(&mut self, subject: &Subject) {
        self.failures.remove(subject);
        if let Subject::Image(container) = subject {
            self.looks.remove(container);
        }
    }

    /// When the subject may be tried again, if that is not now. A pull may be no more than looked at then.
    pub fn blocked(&self, subject: &Subject, now: Time) -> Option<Time> {
        let until = self.until(subject, now)?;
        let look = match subject {
            Subject::Image(container) => self.looks.get(container).map(|l| l.at.min(after(now, IMAGE_LOOK))),
            _ => None,
        };
        let until = look.map_or(until, |at| at.min(until));
        (until > now).then_some(until)
    }

    /// When the delay after the last failure is over.
    fn until(&self, subject: &Subject, now: Time) -> Option<Time> {
        let failure = self.failures.get(subject)?;
        // A clock that jumped back must not turn a short delay into a long one.
        Some(failure.until.min(after(now, failure.delay)))
    }

    /// What the last pull was tried with, as long as its delay is not over.
    pub fn tried_with(&self, container: &str, now: Time) -> Option<u64> {
        let until = self.until(&Subject::Image(container.to_owned()), now)?;
        self.looks.get(container).filter(|_| until > now).map(|l| l.credentials)
    }

    fn crash_max(&self) -> Duration {
        if self.crash_max.is_zero() { Duration::from_secs(300) } else { self.crash_max }
    }
}

/// Whether this is the reason of a pull that was tried and failed.
pub fn is_pull(reason: &str) -> bool {
    matches!(reason, "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed")
}

/// What a container that ended means for its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// Not before this.
    pub at: Time,
    /// The delay that leads to `at`, for messages; zero at once.
    pub delay: Duration,
    /// The delay to write into the successor.
    pub next: Duration,
}

/// The runtime found no trace of what it had left running: the host was started anew, or all of it ended in the runtime's absence.
fn lost_with_its_host(code: i32, reason: &str) -> bool {
    code == 255 && reason == "Unknown"
}

/// The crash-loop rule: the first restart is immediate, then 10 s doubling to the limit, anew after ten good minutes,
/// when the container's definition changed, or after a reboot.
pub fn restart(ended: &Container, changed: bool, backoffs: &Backoffs, now: Time) -> Restart {
    let max = backoffs.crash_max();
    let State::Exited { finished_at, code, reason, .. } = &ended.state else {
        return Restart { at: now, delay: Duration::ZERO, next: FIRST.min(max) };
    };
    let finished_at = *finished_at;
    if changed || lost_with_its_host(*code, reason) || elapsed(ended.created_at, finished_at) > RESET {
        return Restart { at: now, delay: Duration::ZERO, next: FIRST.min(max) };
    }
    let delay = ended.backoff.min(max);
    let next = if delay.is_zero() { FIRST.min(max) } else { (delay * 2).min(max) };
    Restart { at: after(finished_at, delay).min(after(now, delay)), delay, next }
}

#[cfg(test)]
mod tests;
