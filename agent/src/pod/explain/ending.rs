//! A pod that ends: what is stopped, what is taken down, and what keeps its object.

use super::active::{title, volume_names};
use super::{Inputs, UnderWay, Waits, Weight, span};
use crate::pod::backoff::Subject;
use crate::pod::desired::Role;
use crate::pod::lifecycle::Why;
use crate::pod::plan::Action;
use crate::pod::stage::Stage;
use crate::pod::{Time, elapsed};
use std::time::Duration;

/// Containers and sandboxes that still are. `deadline` is when the last of them is killed.
pub(super) fn stops(i: &Inputs<'_>, deadline: Option<Time>, out: &mut Waits) {
    let prefix = i.prefix();
    for n in i.observed.live() {
        let doing = i.doing(|a| matches!(a, Action::StopContainer { id, .. } if *id == n.id));
        let role = i.desired.container(&n.name).map_or(Role::Main, |c| c.role);
        let title = title(role, &n.name);
        match (i.failure(&Subject::Stop(n.id.clone())), doing) {
            (Some(f), doing) => {
                let what = format!("{prefix}{title} cannot be stopped: {}; {}", f.message, i.again(f, doing.is_some()));
                out.add(Weight::Fails, f.since, what);
            }
            (None, Some(u)) => {
                let what = match u.stage().0 {
                    Stage::PreStop => stopping(i, u, deadline),
                    _ => format!("{title} {}", stopping(i, u, deadline)),
                };
                // Those that it follows have lines of their own.
                let weight = if *u.stage().0 == Stage::Following { Weight::Beside } else { Weight::Lasts };
                out.add(weight, u.stage().1, format!("{prefix}{what}"));
            }
            (None, None) => out.add(Weight::Beside, i.entered, format!("{prefix}{title} ends after the others")),
        }
    }
    for s in i.observed.to_stop() {
        let doing = i.doing(|a| matches!(a, Action::StopSandbox { id } if *id == s.id));
        let (going, cannot) = (format!("{prefix}its sandbox is stopped"), format!("{prefix}its sandbox cannot be stopped"));
        i.attempt(&Subject::Stop(s.id.clone()), doing, [&going, &cannot], Weight::Blocks, out);
    }
}

/// How far the end of a container is.
pub(super) fn stopping(i: &Inputs<'_>, u: &UnderWay<'_>, deadline: Option<Time>) -> String {
    let grace = |until: Time| {
        // The signal comes a moment after the end began.
        let whole = Duration::from_secs((elapsed(i.entered, until) + Duration::from_millis(500)).as_secs());
        let left = elapsed(i.now, until);
        match (left.is_zero(), deadline) {
            (true, _) => "is being killed".to_owned(),
            // The pod's own grace is what the user asked for.
            (false, Some(_)) => format!("has {} of {} grace left", span(left), span(whole)),
            (false, None) => format!("has {} grace left", span(left)),
        }
    };
    match u.stage().0 {
        Stage::Rules => "waits until this node's service rules no longer lead to it".to_owned(),
        Stage::PreStop => {
            let name = u.action.container().unwrap_or_default();
            let left = deadline.map(|d| elapsed(i.now, d)).filter(|left| !left.is_zero());
            let left = left.map(|left| format!(", {} of its grace are left", span(left))).unwrap_or_default();
            format!("preStop hook of {name} runs{left}")
        }
        Stage::Signalled { until } => grace(*until),
        Stage::Following => "ends after the others".to_owned(),
        Stage::Looking => "has been stopped: the container runtime is asked how it is".to_owned(),
        _ => "is told to end".to_owned(),
    }
}

/// Nothing should run any more.
pub(super) fn taken_down(i: &Inputs<'_>, out: &mut Waits) {
    stops(i, None, out);
    let prefix = i.prefix();
    let doing = i.doing(|a| matches!(a, Action::RemoveVolumes | Action::RemoveCgroup | Action::RemoveFolders));
    if let Some(f) = i.failure(&Subject::Cleanup) {
        out.add(Weight::Fails, f.since, format!("{prefix}{}; {}", f.message, i.again(f, doing.is_some())));
    }
    for u in i.under_way {
        let what = match u.action {
            Action::RemoveVolumes => match volume_names(i).as_slice() {
                [] => "its folder is removed".to_owned(),
                [one] => format!("volume {one} is unmounted and removed"),
                all => format!("volumes {} are unmounted and removed", all.join(", ")),
            },
            Action::RemoveCgroup => "its cgroup is removed".to_owned(),
            Action::RemoveFolders => "its folder and its logs are removed".to_owned(),
            _ => continue,
        };
        out.add(Weight::Lasts, u.stage().1, format!("{prefix}{what}"));
    }
    if i.desired.deletion.is_none() {
        return refused(i, out);
    }
    removed(i, out);
}

/// What the runtime still keeps of a pod that is unwanted.
fn removed(i: &Inputs<'_>, out: &mut Waits) {
    let prefix = i.prefix();
    for c in i.observed.containers.iter().filter(|c| !c.live()) {
        let doing = i.doing(|a| matches!(a, Action::RemoveContainer { id, .. } if *id == c.id));
        let going = format!("{prefix}ended container {} is removed from the container runtime", c.name);
        let cannot = format!("{prefix}ended container {} cannot be removed from the container runtime", c.name);
        i.attempt(&Subject::Stop(c.id.clone()), doing, [&going, &cannot], Weight::Blocks, out);
    }
    for s in i.observed.sandboxes.iter().filter(|s| !s.ready) {
        let doing = i.doing(|a| matches!(a, Action::RemoveSandbox { id } if *id == s.id));
        let going = format!("{prefix}its sandbox is removed from the container runtime");
        let cannot = format!("{prefix}its sandbox cannot be removed from the container runtime");
        i.attempt(&Subject::Stop(s.id.clone()), doing, [&going, &cannot], Weight::Blocks, out);
    }
}

/// The node would not have the pod, or not any longer: it stays as it is.
fn refused(i: &Inputs<'_>, out: &mut Waits) {
    let (reason, message) = match i.lifecycle.why() {
        Some(Why::Failed { reason, message }) => (reason.clone(), message.clone()),
        // An agent before this one said so.
        _ if i.status.phase.as_deref() == Some("Failed") => match &i.status.reason {
            Some(reason) => (reason.clone(), i.status.message.clone().unwrap_or_default()),
            None => return,
        },
        _ => return,
    };
    let since = i.changed("ContainersReady").unwrap_or(i.begun);
    out.add(Weight::Beside, since, format!("{reason}: {message}; it stays Failed until it is deleted"));
}

/// Nothing is left here.
pub(super) fn finished(i: &Inputs<'_>, out: &mut Waits) {
    if i.desired.orphan {
        return;
    }
    let what = "nothing is left of it on this node; its object stays until the API server has deleted it";
    match i.report {
        Some(trouble) => out.add(Weight::Fails, trouble.since, format!("{}{what}: {}", i.prefix(), trouble.why)),
        None => out.add(Weight::Lasts, i.entered, format!("{}{what}", i.prefix())),
    }
}
