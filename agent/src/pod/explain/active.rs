//! A pod that should run: what keeps it from being ready.

use super::{Inputs, UnderWay, Waits, Weight, span};
use crate::pod::again::runs_again;
use crate::pod::backoff::{self, Subject};
use crate::pod::desired::{Container as Spec, RestartPolicy, Role, Unsupported};
use crate::pod::observed::{Container, State};
use crate::pod::plan::{Action, StopWhy};
use crate::pod::round::{self, Round};
use crate::pod::stage::Stage;
use crate::pod::status::resize::PENDING as RESIZE_PENDING;
use crate::pod::{Time, elapsed, ephemeral};
use ferrolet_probes::Kind;

pub(super) fn waits(i: &Inputs<'_>, out: &mut Waits) {
    if !i.desired.unsupported.is_empty() {
        let fields = list(&i.desired.unsupported);
        return out.add(Weight::Blocks, i.desired.started.unwrap_or(i.begun), format!("refused: {fields}"));
    }
    let round = Round::of(i.desired, i.observed);
    if let Some(at) = round.waits(i.desired, i.observed, i.now) {
        let what = format!("all its containers start anew in {}, as a restart rule asks", span(elapsed(i.now, at)));
        out.add(Weight::Lasts, at.checked_sub(round::PACE).unwrap_or(at), what);
    }
    let sandbox = sandbox(i, out);
    let initialized = sandbox.is_some_and(|id| i.desired.main().any(|c| newest_in(i, &c.name, id).is_some()));
    volumes(i, sandbox.filter(|_| initialized), out);
    let before = out.0.len();
    let mut reached = true;
    // That a later one has been made stands for an init container.
    let made = |c: &Spec| c.role != Role::Ephemeral && sandbox.is_some_and(|id| newest_in(i, &c.name, id).is_some());
    let last = i.desired.containers.iter().rposition(made).unwrap_or(0);
    for (at, c) in i.desired.containers.iter().enumerate() {
        let passed = initialized || at < last;
        let stops = stopped(i, c, out);
        if !stops && (c.role != Role::Init || !passed) {
            container(i, c, sandbox.map(|id| (id, reached || c.role == Role::Ephemeral)), out);
        }
        reached &= passed || sandbox.is_some_and(|id| lets_on(i, c, id));
    }
    let settled = out.0[before..].iter().all(|(weight, _)| *weight == Weight::Beside);
    if settled && sandbox.is_some() {
        gates(i, out);
    }
    let resize = i.condition(RESIZE_PENDING).filter(|c| c.status == "True");
    if let Some(c) = resize {
        let why = c.message.as_deref().unwrap_or_default();
        out.add(Weight::Beside, i.changed(RESIZE_PENDING).unwrap_or(i.begun), format!("its resize is not carried out: {why}"));
    }
}

fn list(fields: &[Unsupported]) -> String {
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The last instance in the sandbox that is of the round under way.
fn newest_in<'a>(i: &Inputs<'a>, name: &'a str, sandbox: &str) -> Option<&'a Container> {
    let round = Round::of(i.desired, i.observed);
    i.observed.newest_in(name, sandbox).filter(|n| round.has(n))
}

/// The same, in whichever sandbox.
fn newest<'a>(i: &Inputs<'a>, name: &'a str) -> Option<&'a Container> {
    let round = Round::of(i.desired, i.observed);
    i.observed.newest(name).filter(|n| round.has(n))
}

/// Whether those after it have their turn.
fn lets_on(i: &Inputs<'_>, c: &Spec, sandbox: &str) -> bool {
    let newest = newest_in(i, &c.name, sandbox);
    match c.role {
        Role::Init => newest.and_then(Container::exit_code) == Some(0),
        Role::Sidecar => newest.is_some_and(|n| n.running() && (!c.has_startup_probe || started_well(i, n))),
        Role::Main | Role::Ephemeral => true,
    }
}

fn started_well(i: &Inputs<'_>, n: &Container) -> bool {
    i.verdicts.of(n).and_then(|v| v.startup) == Some(true)
}

/// The id of the sandbox that containers can be in, or what keeps it from being there.
fn sandbox<'a>(i: &Inputs<'a>, out: &mut Waits) -> Option<&'a str> {
    if let Some(sandbox) = i.observed.usable_sandbox(i.desired.host_network) {
        return Some(&sandbox.id);
    }
    let replaced = i.observed.newest_sandbox().is_some();
    let (going, cannot) = match replaced {
        true => ("its sandbox is being replaced: a new one is made", "its sandbox cannot be replaced"),
        false => ("its sandbox is made", "its sandbox cannot be made"),
    };
    for s in i.observed.sandboxes.iter().filter(|s| s.ready) {
        let doing = i.doing(|a| matches!(a, Action::StopSandbox { id } if *id == s.id));
        let (going, cannot) = ("its sandbox is being replaced: the old one is stopped", "its old sandbox cannot be stopped");
        i.attempt(&Subject::Stop(s.id.clone()), doing, [going, cannot], Weight::Fails, out);
    }
    let doing = i.doing(|a| matches!(a, Action::RunSandbox { .. }));
    let idle = doing.is_none() && i.failure(&Subject::Sandbox).is_none();
    if idle && !i.observed.local.gate_open {
        let what = "no new pod starts before all Services are in this node's rules";
        out.add(Weight::Blocks, i.begun, what);
    }
    i.attempt(&Subject::Sandbox, doing, [going, cannot], Weight::Fails, out);
    None
}

/// Whether the container has had its start in this sandbox and needs no other.
fn has_started(i: &Inputs<'_>, c: &Spec, sandbox: &str) -> bool {
    if let Some(own) = &c.ephemeral {
        let started = i.observed.newest(&c.name).is_some_and(|n| n.state != State::Created);
        return started || own.ran || !own.refused.is_empty();
    }
    match newest_in(i, &c.name, sandbox).map(|n| (n, &n.state)) {
        Some((_, State::Running)) => true,
        Some((n, State::Exited { .. })) => !runs_again(c, n, i.observed, i.verdicts),
        Some(_) => false,
        None => is_done(i, c, newest(i, &c.name)),
    }
}

/// It has done its work in an earlier sandbox.
fn is_done(i: &Inputs<'_>, c: &Spec, newest: Option<&Container>) -> bool {
    let ended = |n: &Container| n.exit_code() == Some(0) && !runs_again(c, n, i.observed, i.verdicts);
    c.role == Role::Main && c.restart == RestartPolicy::OnFailure && newest.is_some_and(ended)
}

/// `initialized`: the sandbox, once a main container has been made in it.
fn volumes(i: &Inputs<'_>, initialized: Option<&str>, out: &mut Waits) {
    let doing = i.doing(|a| matches!(a, Action::PrepareVolumes));
    // An agent that has started again looks after the volumes of what runs already.
    let mut all = i.desired.containers.iter().filter(|c| c.role != Role::Init);
    let all_started = initialized.is_some_and(|id| all.all(|c| has_started(i, c, id)));
    if i.observed.local.volumes_ready || all_started {
        if let Some(f) = i.failure(&Subject::Volumes) {
            let what = format!("its volumes cannot be renewed: {}; {}", f.message, i.again(f, doing.is_some()));
            out.add(Weight::Beside, f.since, what);
        }
        return;
    }
    let pending = match doing.map(|u| &u.progress.stage) {
        Some(Stage::Volumes(names)) if !names.is_empty() => names.clone(),
        _ => volume_names(i),
    };
    let going = match pending.as_slice() {
        [] => "its folder is made".to_owned(),
        [one] => format!("volume {one} is prepared"),
        all => format!("volumes {} are prepared", all.join(", ")),
    };
    i.attempt(&Subject::Volumes, doing, [&going, "its volumes are not ready"], Weight::Fails, out);
}

pub(super) fn volume_names(i: &Inputs<'_>) -> Vec<String> {
    let volumes = i.desired.pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
    volumes.into_iter().flatten().map(|v| v.name.clone()).collect()
}

/// How a container is called in a line.
pub(super) fn title(role: Role, name: &str) -> String {
    match role {
        Role::Init => format!("init container {name}"),
        Role::Sidecar => format!("sidecar {name}"),
        Role::Main => format!("container {name}"),
        Role::Ephemeral => format!("ephemeral container {name}"),
    }
}

/// One container, if it waits for something of its own. With the sandbox, if there is one, comes whether it has its turn.
fn container(i: &Inputs<'_>, c: &Spec, place: Option<(&str, bool)>, out: &mut Waits) {
    let title = title(c.role, &c.name);
    let least = if c.role == Role::Ephemeral { Weight::Beside } else { Weight::Blocks };
    if started(i, c, &title, least, out) {
        return;
    }
    let sandbox = place.map(|(id, _)| id);
    if let Some((id, true)) = place
        && in_crash_loop(i, c, id, &title, out)
    {
        return;
    }
    // One that is started once in the pod's life had its start in whichever sandbox.
    let once = || i.observed.newest(&c.name).filter(|_| c.role == Role::Ephemeral);
    let newest = sandbox.and_then(|id| newest_in(i, &c.name, id)).or_else(once);
    if let Some(f) = i.failure(&Subject::Start(c.name.clone())) {
        let what = format!("{title}: {}: {}; {}", f.reason, f.message, i.again(f, false));
        return out.add(least.max(Weight::Fails), f.since, what);
    }
    let doing = i.doing(|a| matches!(a, Action::PullImage { container, .. } if *container == c.name));
    let image = Subject::Image(c.name.clone());
    // While an earlier failure is waited out it is only looked whether its cause has ended.
    let pulls = |u: &&UnderWay<'_>| matches!(u.progress.stage, Stage::Queued | Stage::Pulling);
    let doing = doing.filter(|u| i.failure(&image).is_none() || pulls(u));
    if doing.is_some() || i.failure(&image).is_some() {
        let verb = match doing.map(|u| &u.progress.stage) {
            Some(Stage::Queued) => "waits for other images to be pulled",
            Some(Stage::Pulling) => "is being pulled",
            _ => "is looked for",
        };
        let (going, cannot) = (format!("{title}: image {} {verb}", c.image), format!("{title}: image {} cannot be had", c.image));
        return i.attempt(&image, doing, [&going, &cannot], least, out);
    }
    match newest.map(|n| (n, &n.state)) {
        Some((n, State::Running)) => running(i, c, n, &title, out),
        None if c.role == Role::Ephemeral => untargeted(i, c, sandbox, &title, out),
        _ => {}
    }
}

/// What runs of the container and should not.
fn stopped(i: &Inputs<'_>, c: &Spec, out: &mut Waits) -> bool {
    let title = title(c.role, &c.name);
    let mut any = false;
    for n in i.observed.instances(&c.name).filter(|n| n.live()) {
        let doing = i.doing(|a| matches!(a, Action::StopContainer { id, .. } if *id == n.id));
        let failure = i.failure(&Subject::Stop(n.id.clone()));
        if doing.is_none() && failure.is_none() {
            continue;
        }
        any = true;
        let why = match doing.map(|u| u.action) {
            Some(Action::StopContainer { why, .. }) => why_stopped(*why),
            _ => "must end",
        };
        if let Some(f) = failure {
            let what = format!("{title} {why}, and cannot be stopped: {}; {}", f.message, i.again(f, doing.is_some()));
            out.add(Weight::Fails, f.since, what);
        } else if let Some(u) = doing {
            out.add(Weight::Lasts, u.since, format!("{title} {why}: {}", super::ending::stopping(i, u, None)));
        }
    }
    any
}

fn why_stopped(why: StopWhy) -> &'static str {
    match why {
        StopWhy::PodEnds => "must end",
        StopWhy::Liveness => "failed its liveness probe",
        StopWhy::Startup => "failed its startup probe",
        StopWhy::Resized => "is to have other resources",
        StopWhy::Changed => "has another definition now",
        StopWhy::SandboxGone => "has lost its sandbox",
        StopWhy::Unknown => "is in a state that the container runtime does not know",
        StopWhy::Duplicate => "runs twice",
        StopWhy::Together => "ends, as all containers start anew",
    }
}

/// Its start is under way.
fn started(i: &Inputs<'_>, c: &Spec, title: &str, least: Weight, out: &mut Waits) -> bool {
    let doing = i.doing(|a| a.starts() && !matches!(a, Action::PullImage { .. }) && a.container() == Some(&c.name));
    let Some(u) = doing else { return false };
    let what = match u.progress.stage {
        Stage::PostStart => format!("postStart hook of {} runs", c.name),
        Stage::HookFailed | Stage::PreStop | Stage::Following | Stage::Signalled { .. } => {
            format!("{title} is ended, as its postStart hook failed")
        }
        Stage::Creating => format!("{title} is created"),
        Stage::Starting => format!("{title} is started"),
        Stage::Looking => format!("{title} has been started: the container runtime is asked how it is"),
        _ => format!("{title}: what it is to be given is gathered"),
    };
    match i.failure(&Subject::Start(c.name.clone())) {
        Some(f) => {
            out.add(least.max(Weight::Fails), f.since, format!("{what}; the last try failed: {}: {}", f.reason, f.message))
        }
        None => out.add(least.max(Weight::Lasts), u.progress.since, what),
    }
    true
}

/// It has ended and waits for its next start.
fn in_crash_loop(i: &Inputs<'_>, c: &Spec, sandbox: &str, title: &str, out: &mut Waits) -> bool {
    let Some(n) = newest(i, &c.name) else { return false };
    let State::Exited { code, finished_at, reason, .. } = &n.state else { return false };
    let changed = n.hash.as_ref().is_some_and(|h| *h != c.hash);
    let wanted = match n.sandbox_id == sandbox {
        true => runs_again(c, n, i.observed, i.verdicts),
        // In a new sandbox all runs again but what has done its work.
        false => !is_done(i, c, Some(n)),
    };
    if c.role == Role::Ephemeral || !wanted {
        return false;
    }
    let restart = backoff::restart(n, changed, i.backoffs, i.now);
    if restart.at <= i.now {
        return false;
    }
    let left = span(elapsed(i.now, restart.at));
    let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    out.add(
        Weight::Fails,
        *finished_at,
        format!("{title}: CrashLoopBackOff, next start in {left}; it ended with code {code}{why}"),
    );
    true
}

fn running(i: &Inputs<'_>, c: &Spec, n: &Container, title: &str, out: &mut Waits) {
    let since = n.started_at.unwrap_or(n.created_at);
    if c.role == Role::Init {
        return out.add(Weight::Lasts, since, format!("{title} runs"));
    }
    if c.role == Role::Ephemeral {
        return;
    }
    let verdict = i.verdicts.of(n);
    let (kind, probed) = if c.has_startup_probe && !started_well(i, n) {
        (Kind::Startup, "startup")
    } else if c.has_readiness_probe && verdict.and_then(|v| v.readiness) != Some(true) {
        (Kind::Readiness, "readiness")
    } else {
        return;
    };
    let told = i.probes.get(&(c.name.clone(), kind)).filter(|v| v.container_id == n.id);
    let why = told.map(|v| v.message.as_str()).filter(|m| !m.is_empty());
    let flipped = told.and_then(|v| v.since).and_then(|t| Time::try_from(t).ok());
    // What this agent did not see change may have changed before it started: the API knows.
    let known = if kind == Kind::Readiness { i.changed("ContainersReady") } else { None };
    let since = flipped.unwrap_or_else(|| known.map_or(since, |k| k.max(since)));
    match why {
        Some(why) => out.add(Weight::Fails, since, format!("{probed} probe of {} fails: {why}", c.name)),
        None => out.add(Weight::Lasts, since, format!("{probed} probe of {} has not succeeded yet", c.name)),
    }
}

fn untargeted(i: &Inputs<'_>, c: &Spec, sandbox: Option<&str>, title: &str, out: &mut Waits) {
    let Some(own) = c.ephemeral.as_ref().filter(|e| !e.ran) else { return };
    if !own.refused.is_empty() {
        return out.add(Weight::Beside, i.begun, format!("{title} is refused: {}", list(&own.refused)));
    }
    let Some(sandbox) = sandbox else { return };
    if let Err(why) = ephemeral::target(i.desired, c, i.observed, sandbox) {
        // The moment at which its target ended, or the pod's beginning.
        let target = own.target.as_deref().and_then(|name| i.observed.newest_in(name, sandbox));
        let since = match target.map(|t| &t.state) {
            Some(State::Exited { finished_at, .. }) => (*finished_at).max(i.begun),
            _ => i.begun,
        };
        out.add(Weight::Beside, since, format!("{title}: {why}"));
    }
}

/// All containers are as they should be: conditions that others set.
fn gates(i: &Inputs<'_>, out: &mut Waits) {
    let gates = i.desired.pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref());
    let ready = i.changed("ContainersReady").unwrap_or(i.begun);
    for gate in gates.into_iter().flatten() {
        let name = &gate.condition_type;
        match i.condition(name) {
            None => out.add(Weight::Lasts, ready, format!("readiness gate {name} is not set")),
            Some(c) if c.status != "True" => {
                let since = i.changed(name).map_or(ready, |t| t.max(ready));
                let why = c.message.as_deref().filter(|m| !m.is_empty()).map(|m| format!(": {m}")).unwrap_or_default();
                out.add(Weight::Lasts, since, format!("readiness gate {name} is {}{why}", c.status));
            }
            Some(_) => {}
        }
    }
}

impl<'a> UnderWay<'a> {
    /// When what it does now began.
    pub(super) fn stage(&self) -> (&Stage, Time) {
        (&self.progress.stage, self.progress.since)
    }
}
