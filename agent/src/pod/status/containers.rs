//! The status of each container: its newest instance, what it waits for, and what was known when the runtime forgets.

use super::{Inputs, of_round_before, resize, whole_seconds};
use crate::pod::again::runs_again;
use crate::pod::backoff::{self, FIRST_SHOWN, Failure, Subject};
use crate::pod::container;
use crate::pod::desired::{Container as Spec, PullPolicy, Role};
use crate::pod::ephemeral::{self, NoTarget};
use crate::pod::observed::{Container, State, UNKNOWN_CODE};
use crate::pod::round::Round;
use crate::pod::{Time, after};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;

/// Reason for a container that the runtime knows nothing of.
const UNKNOWN: &str = "ContainerStatusUnknown";

/// Reason for a container that was ended to run again with all others of its pod; with these words kubelet says so of any of them,
/// whatever it ended with.
pub(super) const TOGETHER: &str = "RestartingAllContainers";
const TOGETHER_MESSAGE: &str = "The container is removed because RestartAllContainers in place";

/// Of all containers with one of these roles, which share a list.
pub(super) fn statuses(i: &Inputs<'_>, roles: &[Role]) -> Vec<api::ContainerStatus> {
    let init = roles.contains(&Role::Init);
    let old = match roles {
        [Role::Main] => &i.prev.container_statuses,
        [Role::Ephemeral] => &i.prev.ephemeral_container_statuses,
        _ => &i.prev.init_container_statuses,
    };
    let wanted = i.desired.containers.iter().filter(|c| roles.contains(&c.role));
    let mut all: Vec<_> = wanted.map(|c| one(i, c, old.iter().flatten().find(|s| s.name == c.name))).collect();
    // Clients rely on an order that does not move: init containers as written, the others by name.
    if !init {
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    all
}

fn one(i: &Inputs<'_>, c: &Spec, old: Option<&api::ContainerStatus>) -> api::ContainerStatus {
    let newest = i.observed.newest(&c.name);
    let mut s = match newest {
        Some(n) => seen(i, c, n, old),
        None => missing(i, c, old),
    };
    if let Some(spec) = i.desired.spec_of(&c.name) {
        s.volume_mounts = mounts(spec, i.observed.local.recursive_read_only);
        if let Some(n) = newest {
            s.stop_signal = n.stop_signal.clone();
            s.allocated_resources = spec.resources.as_ref().and_then(|r| r.requests.clone());
            s.resources = Some(resize::has(i, spec, n));
        }
    }
    let again =
        of_round_before(i, &c.name).filter(|_| Round::of(i.desired, i.observed).left(i.desired, i.observed).next().is_none());
    if let Some(n) = again {
        s.restart_count = s.restart_count.max(n.attempt as i32 + 1);
        s.state = Some(waiting(TOGETHER, Some(TOGETHER_MESSAGE.to_owned())));
        s.last_state = Some(terminated(TOGETHER, TOGETHER_MESSAGE, UNKNOWN_CODE));
    }
    if c.role == Role::Init && newest.is_none() && is_waiting(&s) && any_main_created(i) {
        // Main containers exist, so it must have succeeded; only its record is gone.
        let message = "Unable to get init container status from container runtime and pod has been initialized, \
                       treat it as exited normally";
        s.state = Some(terminated("Completed", message, 0));
    }
    // The API does not let a container that its policy leaves ended run again: between the one and the other it runs.
    let ran = old.filter(|o| o.state.as_ref().is_some_and(|s| s.running.is_some()) && o.container_id == s.container_id);
    let between = i.lifecycle.active() && newest.is_some_and(|n| returns(i, c, n));
    if let Some(ran) = ran.filter(|_| between) {
        s.state = ran.state.clone();
        (s.started, s.ready) = (ran.started, false);
        return s;
    }
    if i.lifecycle.active()
        && let Some((reason, message)) = waits_for(i, c, newest, again.is_some())
    {
        if let Some(t) = s.state.as_ref().and_then(|s| s.terminated.clone()) {
            s.last_state = Some(api::ContainerState { terminated: Some(t), ..Default::default() });
        }
        s.state = Some(waiting(&reason, Some(message)));
    }
    // It never was reported as running.
    if between && let Some(t) = s.state.as_ref().and_then(|s| s.terminated.clone()) {
        s.last_state = Some(api::ContainerState { terminated: Some(t), ..Default::default() });
        s.state = Some(waiting("ContainerCreating", None));
    }
    if i.lifecycle.active()
        && let Some(w) = s.state.as_mut().and_then(|s| s.waiting.as_mut())
        && w.message.is_none()
        && matches!(w.reason.as_deref(), Some("ContainerCreating" | "PodInitializing"))
    {
        w.message = held_up(i);
    }
    health(i, c, newest, &mut s);
    s
}

/// What keeps all containers of the pod from being made. kubelet tells it by events alone and leaves the message empty.
fn held_up(i: &Inputs<'_>) -> Option<String> {
    let failure = |subject| i.backoffs.failures.get(&subject).map(|f| f.message.as_str());
    let volumes = || failure(Subject::Volumes).filter(|_| !i.observed.local.volumes_ready);
    let sandbox = || failure(Subject::Sandbox).filter(|_| i.observed.usable_sandbox(i.desired.host_network).is_none());
    volumes().or_else(sandbox).map(without_ids)
}

/// The runtime's errors name a sandbox by an id that is another one at each try: the status must not change with it.
fn without_ids(text: &str) -> String {
    const LONG: usize = 32;
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while !rest.is_empty() {
        let id = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_hexdigit()).len();
        let word = id.max(rest.chars().next().map_or(1, char::len_utf8));
        out.push_str(if id < LONG { &rest[..word] } else { "..." });
        rest = &rest[word..];
    }
    out
}

/// Runs again against its policy.
fn returns(i: &Inputs<'_>, c: &Spec, n: &Container) -> bool {
    n.exit_code().is_some_and(|code| !c.restarts(code)) && runs_again(c, n, i.observed, i.verdicts)
}

/// Started and ready, from the state just computed and the probes.
fn health(i: &Inputs<'_>, c: &Spec, newest: Option<&Container>, s: &mut api::ContainerStatus) {
    let state = s.state.as_ref();
    let running = newest.filter(|_| state.is_some_and(|s| s.running.is_some()));
    let verdict = running.and_then(|n| i.verdicts.of(n));
    let started = running.is_some() && (!c.has_startup_probe || verdict.is_some_and(|v| v.startup == Some(true)));
    if c.role == Role::Ephemeral {
        // Neither is said of one that nothing counts.
        (s.started, s.ready) = (None, false);
        return;
    }
    s.started = Some(started);
    s.ready = match c.role {
        Role::Init => state.and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0),
        _ => started && (!c.has_readiness_probe || verdict.is_some_and(|v| v.readiness == Some(true))),
    };
}

fn is_waiting(s: &api::ContainerStatus) -> bool {
    s.state.as_ref().is_some_and(|s| s.waiting.is_some())
}

fn any_main_created(i: &Inputs<'_>) -> bool {
    i.desired.main().any(|c| i.observed.newest(&c.name).is_some_and(|n| n.state != State::Unknown))
}

fn waiting(reason: &str, message: Option<String>) -> api::ContainerState {
    let w = api::ContainerStateWaiting { reason: Some(reason.to_owned()).filter(|r| !r.is_empty()), message };
    api::ContainerState { waiting: Some(w), ..Default::default() }
}

fn terminated(reason: &str, message: &str, exit_code: i32) -> api::ContainerState {
    let t = api::ContainerStateTerminated {
        exit_code,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()).filter(|m| !m.is_empty()),
        ..Default::default()
    };
    api::ContainerState { terminated: Some(t), ..Default::default() }
}

fn api_time(t: Time) -> Option<ApiTime> {
    Some(ApiTime(whole_seconds(t)))
}

fn container_id(i: &Inputs<'_>, n: &Container) -> String {
    format!("{}://{}", i.node.runtime, n.id)
}

/// The state of one instance.
fn state_of(i: &Inputs<'_>, n: &Container) -> api::ContainerState {
    match &n.state {
        State::Running => api::ContainerState {
            running: Some(api::ContainerStateRunning { started_at: api_time(n.started_at.unwrap_or(n.created_at)) }),
            ..Default::default()
        },
        State::Exited { code, finished_at, reason, message } => {
            let mut s = terminated(reason, message, *code);
            if let Some(t) = s.terminated.as_mut() {
                // One that could not be started has the epoch, as with kubelet: it has ended, so it must have begun.
                t.started_at = api_time(n.started_at.unwrap_or(Time::UNIX_EPOCH));
                t.finished_at = api_time(*finished_at);
                t.container_id = Some(container_id(i, n));
            }
            s
        }
        State::Created | State::Unknown => waiting("", None),
    }
}

fn seen(i: &Inputs<'_>, c: &Spec, n: &Container, old: Option<&api::ContainerStatus>) -> api::ContainerStatus {
    let id = container_id(i, n);
    let was_running = old.is_some_and(|o| o.state.as_ref().is_some_and(|s| s.running.is_some()));
    let old_count = old.map_or(0, |o| o.restart_count);
    let mut count = (n.attempt as i32).max(old_count);
    let mut state = state_of(i, n);
    if n.state == State::Unknown {
        // Said once, it stays said and counted until more is known.
        let said =
            old.filter(|o| o.container_id.as_deref() == Some(id.as_str())).and_then(|o| o.state.as_ref()?.terminated.as_ref());
        if was_running {
            let message = "The container could not be located when the pod was terminated";
            state = terminated(UNKNOWN, message, UNKNOWN_CODE);
            count = if c.role == Role::Ephemeral { 0 } else { old_count + 1 };
        } else if let Some(said) = said.filter(|t| t.reason.as_deref() == Some(UNKNOWN)) {
            state.waiting = None;
            state.terminated = Some(said.clone());
        }
    }
    // Its last words were in a file that may be gone by now.
    let words = old.filter(|o| o.container_id.as_deref() == Some(id.as_str()));
    let words =
        words.and_then(|o| o.state.as_ref().and_then(|s| s.terminated.as_ref()).or(o.last_state.as_ref()?.terminated.as_ref()));
    if let (Some(t), Some(words)) = (state.terminated.as_mut(), words)
        && t.message.is_none()
        && words.container_id == t.container_id
    {
        t.message = words.message.clone();
    }
    // The instance before, if the runtime still has it, else what was reported of it.
    let before = i
        .observed
        .instances(&c.name)
        .filter(|p| p.id != n.id && !p.live() && p.attempt <= n.attempt)
        .max_by_key(|p| (p.attempt, p.created_at));
    let before = before.map(|p| match p.round < n.round {
        true => terminated(TOGETHER, TOGETHER_MESSAGE, UNKNOWN_CODE),
        false => state_of(i, p),
    });
    let reported = old.and_then(|o| {
        let ended = |s: &Option<api::ContainerState>| s.as_ref().filter(|s| s.terminated.is_some()).cloned();
        let other = o.container_id.as_deref() != Some(id.as_str());
        ended(&o.state).filter(|_| other).or_else(|| ended(&o.last_state))
    });
    api::ContainerStatus {
        name: c.name.clone(),
        image: if n.image.is_empty() { c.image.clone() } else { n.image.clone() },
        image_id: n.image_id.clone(),
        container_id: Some(id),
        restart_count: count,
        state: Some(state),
        last_state: Some(before.or(reported).unwrap_or_default()),
        user: n.user.as_ref().map(|(uid, gid, groups)| api::ContainerUser {
            linux: Some(api::LinuxContainerUser {
                uid: *uid,
                gid: *gid,
                supplemental_groups: Some(groups.clone()).filter(|g| !g.is_empty()),
            }),
        }),
        ..Default::default()
    }
}

/// The runtime has no instance: not made yet, or forgotten.
fn missing(i: &Inputs<'_>, c: &Spec, old: Option<&api::ContainerStatus>) -> api::ContainerStatus {
    let has_inits = i.desired.inits().next().is_some();
    let mut s = api::ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone(),
        state: Some(waiting(if has_inits { "PodInitializing" } else { "ContainerCreating" }, None)),
        last_state: Some(api::ContainerState::default()),
        ..Default::default()
    };
    let Some(old) = old else { return s };
    let old_state = old.state.clone().unwrap_or_default();
    if old_state.terminated.is_some() {
        return old.clone();
    }
    s.restart_count = old.restart_count;
    s.last_state = old.last_state.clone().or(s.last_state);
    let last_known = s.last_state.as_ref().is_some_and(|l| l.terminated.is_some());
    if c.role == Role::Ephemeral && old_state.running.is_some() && !i.observed.stale {
        // It will not run again.
        let message = "The container could not be located.  The container used to be Running";
        s.state = Some(terminated(UNKNOWN, message, UNKNOWN_CODE));
        (s.container_id, s.image_id) = (old.container_id.clone(), old.image_id.clone());
    } else if old_state.running.is_some() && !last_known && !i.observed.stale {
        let message = "The container could not be located when the pod was deleted.  The container used to be Running";
        s.last_state = Some(terminated(UNKNOWN, message, UNKNOWN_CODE));
        if i.desired.deletion.is_none() {
            s.restart_count += 1;
        }
    }
    s
}

/// Why a container that should run does not, where there is more to say than that it is being made.
fn waits_for(i: &Inputs<'_>, c: &Spec, newest: Option<&Container>, again: bool) -> Option<(String, String)> {
    if newest.is_some_and(|n| n.running() || n.state == State::Unknown) {
        return None;
    }
    if newest.is_none() && !i.desired.unsupported.is_empty() {
        let fields: Vec<String> = i.desired.unsupported.iter().map(ToString::to_string).collect();
        return Some(("CreateContainerConfigError".into(), fields.join("; ")));
    }
    if let Some(n) = newest
        && n.exit_code().is_some()
        && !again
    {
        let changed = n.hash.as_ref().is_some_and(|h| *h != c.hash);
        if !runs_again(c, n, i.observed, i.verdicts) {
            return None;
        }
        let changed = changed || crate::pod::resize::brings_back(c, n, i.observed);
        let restart = backoff::restart(n, changed, i.backoffs, i.now);
        if restart.at > i.now && !restart.delay.is_zero() {
            let delay = go_duration(restart.delay);
            let message = format!("back-off {delay} restarting failed container={} pod={}", c.name, i.desired.id);
            return Some(("CrashLoopBackOff".into(), message));
        }
    }
    if let Some(e) = c.ephemeral.as_ref().filter(|e| newest.is_none() && !e.ran) {
        if !e.refused.is_empty() {
            let fields: Vec<String> = e.refused.iter().map(ToString::to_string).collect();
            return Some(("CreateContainerConfigError".into(), fields.join("; ")));
        }
        if let Some(why) = no_target(i, c) {
            return Some((why.reason().into(), why.to_string()));
        }
    }
    let failures = &i.backoffs.failures;
    if let Some(f) = failures.get(&Subject::Start(c.name.clone())) {
        return Some((f.reason.clone(), f.message.clone()));
    }
    // Refused as a whole; other failures of the sandbox pass.
    if let Some(f) = failures.get(&Subject::Sandbox).filter(|f| newest.is_none() && f.reason == "CreateContainerConfigError") {
        return Some((f.reason.clone(), f.message.clone()));
    }
    let f = failures.get(&Subject::Image(c.name.clone()))?;
    Some(image_waits(c, i.backoffs.awaited(&c.name, &c.image), f, i.now))
}

/// The ephemeral containers that wait for the container they are to look into.
pub(super) fn untargeted(i: &Inputs<'_>) -> Vec<(String, NoTarget)> {
    let waiting = i.desired.ephemeral().filter(|c| {
        let fit = c.ephemeral.as_ref().is_some_and(|e| !e.ran && e.refused.is_empty());
        fit && i.lifecycle.active() && i.observed.newest(&c.name).is_none()
    });
    waiting.filter_map(|c| Some((c.name.clone(), no_target(i, c)?))).collect()
}

/// What keeps one whose image is there from starting.
fn no_target(i: &Inputs<'_>, c: &Spec) -> Option<NoTarget> {
    let pulled = i.observed.local.images.contains_key(&c.name);
    let sandbox = i.observed.newest_sandbox().filter(|s| s.ready && pulled)?;
    ephemeral::target(i.desired, c, i.observed, &sandbox.id).err()
}

/// A failed pull shows its error first, and after a moment that it is being waited.
fn image_waits(c: &Spec, image: &str, f: &Failure, now: Time) -> (String, String) {
    let plain = !backoff::is_pull(&f.reason) || c.pull == PullPolicy::Never;
    let shown_until = backoff::failed_at(f).map(|at| after(at, FIRST_SHOWN));
    if plain || shown_until.is_some_and(|t| now < t) {
        return (f.reason.clone(), f.message.clone());
    }
    let message = format!("Back-off pulling image {image:?}: {}: {}", f.reason, f.message);
    ("ImagePullBackOff".into(), message)
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(d: std::time::Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

fn mounts(spec: &api::Container, supported: bool) -> Option<Vec<api::VolumeMountStatus>> {
    let all: Vec<_> = spec
        .volume_mounts
        .iter()
        .flatten()
        .map(|m| api::VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only.filter(|r| *r),
            recursive_read_only: m.read_only.filter(|r| *r).map(|_| {
                let whole = container::recursive_read_only(m, supported) == Ok(true);
                if whole { "Enabled" } else { "Disabled" }.to_owned()
            }),
            ..Default::default()
        })
        .collect();
    (!all.is_empty()).then_some(all)
}

/// The pod is over: every container that began, and for an initialized pod every one, gets a terminated state.
pub(super) fn close(i: &Inputs<'_>, main: &mut [api::ContainerStatus], init: &mut [api::ContainerStatus]) {
    let over = || terminated(UNKNOWN, "The container could not be located when the pod was terminated", UNKNOWN_CODE);
    let ended = |s: &api::ContainerStatus| s.state.as_ref().is_some_and(|s| s.terminated.is_some());
    let began = |s: &api::ContainerStatus| !is_waiting(s) || s.last_state.as_ref().is_some_and(|l| l.terminated.is_some());
    let before = i.prev.conditions.iter().flatten().any(|c| c.type_ == "Initialized" && c.status == "True");
    let plain = i.desired.inits().last().is_some_and(|c| c.role == Role::Init);
    let last_done = init.is_empty() || before || (plain && init.last().is_some_and(|s| s.ready));
    if last_done || main.iter().any(began) {
        for s in main.iter_mut().filter(|s| !ended(s)) {
            s.state = Some(over());
        }
    }
    // The first one is where a pod that did not get further has ended.
    let last = init.iter().rposition(began).unwrap_or(0);
    for s in init.iter_mut().take(last + 1).filter(|s| !ended(s)) {
        s.state = Some(over());
    }
    for s in main.iter_mut() {
        s.ready = false;
        s.started = Some(false);
    }
}
