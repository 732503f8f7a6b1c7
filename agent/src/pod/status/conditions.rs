//! The conditions that the node owns; those of others are kept, and a transition time moves only with the status.

use super::resize::{self, IN_PROGRESS, PENDING};
use super::{Inputs, whole_seconds};
use crate::pod::desired::Role;
use crate::pod::round::{self, Round};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;

const OURS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Ours too, but only there while there is something to say.
pub(crate) const OCCASIONAL: [&str; 3] = [PENDING, IN_PROGRESS, ALL_RESTARTING];
/// Of pods with a container that can have all restarted.
const ALL_RESTARTING: &str = "AllContainersRestarting";
/// Set once and left to the API then, as those of others.
const DISRUPTION: &str = "DisruptionTarget";

/// Status, reason and message of one condition.
#[derive(Debug, Clone, Default)]
struct Says {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Says {
    fn yes() -> Says {
        Says { holds: true, ..Default::default() }
    }

    fn no(reason: &'static str, message: Option<String>) -> Says {
        Says { holds: false, reason: Some(reason), message }
    }
}

pub(super) fn conditions(
    i: &Inputs<'_>,
    phase: &str,
    main: &[api::ContainerStatus],
    init: &[api::ContainerStatus],
) -> Vec<api::PodCondition> {
    let known = i.desired.pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let foreign =
        known.into_iter().flatten().filter(|c| !OURS.contains(&c.type_.as_str()) && !OCCASIONAL.contains(&c.type_.as_str()));
    let mut all: Vec<api::PodCondition> = foreign.cloned().collect();
    let containers = containers_ready(i, phase, main, init);
    let ready = pod_ready(i, &all, &containers);
    let says = [
        Says { holds: i.observed.usable_sandbox(i.desired.host_network).is_some(), ..Default::default() },
        initialized(i, phase, main, init),
        ready,
        containers,
        Says::yes(),
    ];
    // Told with the end of the pod, not while it still ends.
    let disrupted = i.desired.ended.as_ref().and_then(|e| e.disruption).filter(|_| i.lifecycle.rank() >= 2);
    if let Some(message) = disrupted {
        all.retain(|c| c.type_ != DISRUPTION);
        let says = Says { holds: true, reason: Some("TerminationByKubelet"), message: Some(message.to_owned()) };
        all.push(condition(i, DISRUPTION, says));
    }
    for (name, says) in OURS.into_iter().zip(says) {
        all.push(condition(i, name, says));
    }
    all.extend(resize::conditions(i));
    if round::possible(i.desired) {
        let says = all_restarting(i, phase);
        all.push(api::PodCondition { observed_generation: None, ..condition(i, ALL_RESTARTING, says) });
    }
    all
}

/// From the end of a container that asks for it until the first one runs anew.
fn all_restarting(i: &Inputs<'_>, phase: &str) -> Says {
    if phase == "Failed" {
        return Says::no("PodFailed", None);
    }
    if !i.lifecycle.active() || !Round::of(i.desired, i.observed).begins(i.desired, i.observed) {
        return Says::default();
    }
    let message = Some("container exited with restart policy rule".to_owned());
    Says { holds: true, reason: Some("RestartAllContainersStarted"), message }
}

fn condition(i: &Inputs<'_>, name: &str, says: Says) -> api::PodCondition {
    let status = if says.holds { "True" } else { "False" };
    let before = i.prev.conditions.iter().flatten().find(|c| c.type_ == name && c.status == status);
    let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(ApiTime(whole_seconds(i.now)));
    api::PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: says.reason.map(str::to_owned),
        message: says.message,
        last_transition_time: Some(since),
        observed_generation: (i.desired.generation > 0).then_some(i.desired.generation),
        ..Default::default()
    }
}

/// The names as the API's messages print lists: `[a b]`.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn containers_ready(i: &Inputs<'_>, phase: &str, main: &[api::ContainerStatus], init: &[api::ContainerStatus]) -> Says {
    match phase {
        "Succeeded" => return Says::no("PodCompleted", None),
        "Failed" => return Says::no("PodFailed", None),
        _ => {}
    }
    let counted = i.desired.containers.iter().filter(|c| matches!(c.role, Role::Sidecar | Role::Main));
    let unready: Vec<&str> =
        counted.filter(|c| !init.iter().chain(main).any(|s| s.name == c.name && s.ready)).map(|c| c.name.as_str()).collect();
    if unready.is_empty() {
        return Says::yes();
    }
    Says::no("ContainersNotReady", Some(format!("containers with unready status: {}", list(&unready))))
}

fn pod_ready(i: &Inputs<'_>, foreign: &[api::PodCondition], containers: &Says) -> Says {
    if !containers.holds {
        return containers.clone();
    }
    let gates = i.desired.pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref());
    let mut missing = Vec::new();
    for gate in gates.into_iter().flatten() {
        let name = &gate.condition_type;
        match foreign.iter().find(|c| c.type_ == *name) {
            None => missing.push(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(c) if c.status != "True" => {
                missing.push(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", c.status));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() { Says::yes() } else { Says::no("ReadinessGatesNotReady", Some(missing.join(", "))) }
}

fn initialized(i: &Inputs<'_>, phase: &str, main: &[api::ContainerStatus], init: &[api::ContainerStatus]) -> Says {
    if phase == "Succeeded" {
        return Says { holds: true, reason: Some("PodCompleted"), message: None };
    }
    // Once a main container has started the pod stays initialized, whatever its sidecars do.
    if main.iter().any(|s| s.started == Some(true)) {
        return Says::yes();
    }
    let incomplete: Vec<&str> = i
        .desired
        .inits()
        .filter(|c| {
            let done = |s: &api::ContainerStatus| if c.role == Role::Sidecar { s.started == Some(true) } else { s.ready };
            !init.iter().any(|s| s.name == c.name && done(s))
        })
        .map(|c| c.name.as_str())
        .collect();
    // What was initialized once stays so, also while init containers run again.
    let before = i.prev.conditions.iter().flatten().any(|c| c.type_ == "Initialized" && c.status == "True");
    if incomplete.is_empty() || before {
        return Says::yes();
    }
    Says::no("ContainersNotInitialized", Some(format!("containers with incomplete status: {}", list(&incomplete))))
}
