//! The phase, by the rules of the API as kubelet applies them.

use super::containers::TOGETHER;
use super::{Inputs, of_round_before};
use crate::pod::again::runs_again;
use crate::pod::desired::{Container, Role};
use crate::pod::observed::Container as Instance;
use k8s_openapi::api::core::v1 as api;

/// What a container's status means for the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Running,
    /// Ended, with its code; `waiting` if its restart is being waited for.
    Ended {
        code: i32,
        waiting: bool,
        /// It runs again with all others, whatever its own policy says.
        together: bool,
    },
    Waiting,
    Unknown,
}

fn seen(i: &Inputs<'_>, statuses: &[api::ContainerStatus], name: &str) -> (Seen, bool) {
    let Some(s) = statuses.iter().find(|s| s.name == name) else { return (Seen::Unknown, false) };
    let started = s.started == Some(true);
    let Some(state) = &s.state else { return (Seen::Unknown, started) };
    let last = s.last_state.as_ref().and_then(|l| l.terminated.as_ref());
    let together =
        |t: &api::ContainerStateTerminated| t.reason.as_deref() == Some(TOGETHER) || of_round_before(i, name).is_some();
    let seen = match (&state.running, &state.terminated, &state.waiting, last) {
        (Some(_), ..) => Seen::Running,
        (_, Some(t), ..) => Seen::Ended { code: t.exit_code, waiting: false, together: together(t) },
        (_, _, Some(_), Some(t)) => Seen::Ended { code: t.exit_code, waiting: true, together: together(t) },
        (_, _, Some(_), None) => Seen::Waiting,
        _ => Seen::Unknown,
    };
    (seen, started)
}

#[derive(Default)]
struct Count {
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    final_stops: usize,
    succeeded: usize,
}

pub(super) fn phase(
    i: &Inputs<'_>,
    main: &[api::ContainerStatus],
    init: &[api::ContainerStatus],
    terminal: bool,
) -> &'static str {
    let (mut init_pending, mut sidecars_pending) = (false, false);
    let mut n = Count::default();
    for c in i.desired.inits() {
        let (seen, started) = seen(i, init, &c.name);
        match (c.role, seen) {
            (Role::Init, Seen::Ended { code, waiting, together }) => {
                if code != 0 && !together && !again(i, c, code, waiting) {
                    return "Failed";
                }
                init_pending |= runs_once_more(i, c);
            }
            (Role::Init, _) => init_pending = true,
            (_, Seen::Running) => {
                sidecars_pending |= !started;
                n.running += 1;
            }
            // A sidecar that ended says nothing about the pod.
            (_, Seen::Ended { .. }) => {}
            (_, Seen::Waiting) => {
                sidecars_pending = true;
                n.waiting += 1;
            }
            (_, Seen::Unknown) => {
                sidecars_pending = true;
                n.unknown += 1;
            }
        }
    }
    for c in i.desired.main() {
        count(&mut n, i, c, seen(i, main, &c.name).0);
    }
    // A pod that has run once does not go back to Pending because its sidecars restart.
    let has_run = i
        .observed
        .newest_sandbox()
        .is_some_and(|s| i.desired.main().any(|c| i.observed.newest_in(&c.name, &s.id).is_some_and(|n| n.started_at.is_some())));
    if init_pending || (sidecars_pending && !has_run) || n.waiting > 0 || n.unknown > 0 {
        return "Pending";
    }
    if n.running > 0 {
        return "Running";
    }
    if n.stopped == 0 {
        return "Pending";
    }
    if !terminal && n.final_stops != n.stopped {
        return "Running";
    }
    if n.succeeded == n.stopped { "Succeeded" } else { "Failed" }
}

/// It ended in a sandbox that was replaced, and the pod is not initialized in the new one yet.
fn runs_once_more(i: &Inputs<'_>, c: &Container) -> bool {
    let o = i.observed;
    let Some(sandbox) = o.newest_sandbox().filter(|s| s.ready && i.lifecycle.active()) else { return false };
    let here = |c: &Container| o.newest_in(&c.name, &sandbox.id).is_some();
    let later = i.desired.inits().skip_while(|other| other.name != c.name);
    o.instances(&c.name).next().is_some() && !later.chain(i.desired.main()).any(here)
}

/// Whether one that ended with this code is to run again. While it waits its successor may be made already.
fn again(i: &Inputs<'_>, c: &Container, code: i32, waiting: bool) -> bool {
    let made = |n: &Instance| (waiting && n.live()) || runs_again(c, n, i.observed, i.verdicts);
    c.restarts(code) || i.observed.newest(&c.name).is_some_and(made)
}

fn count(n: &mut Count, i: &Inputs<'_>, c: &Container, seen: Seen) {
    match seen {
        Seen::Running => n.running += 1,
        Seen::Ended { code, waiting, together } => {
            n.stopped += 1;
            n.final_stops += usize::from(!together && !again(i, c, code, waiting));
            n.succeeded += usize::from(code == 0 && !waiting);
        }
        Seen::Waiting => n.waiting += 1,
        Seen::Unknown => n.unknown += 1,
    }
}
