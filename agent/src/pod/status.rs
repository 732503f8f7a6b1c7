//! What is reported: `PodStatus` as a pure function of what is wanted, what is there and what was reported before.
//!
//! Three parts: `containers` (the state of each), `phase`, `conditions`. The status reported before matters in four
//! places only: a terminal phase is never left, transition times are kept, a container that the runtime has forgotten
//! keeps what was known of it, and conditions of others stay.

pub(crate) mod conditions;
mod containers;
mod phase;
pub(crate) mod resize;

use crate::cgroup::qos;
use crate::pod::Time;
use crate::pod::backoff::Backoffs;
use crate::pod::desired::{Desired, Role};
use crate::pod::lifecycle::{Lifecycle, Why};
use crate::pod::observed::{Container, Observed, Verdicts};
use crate::pod::round::Round;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use std::net::IpAddr;

/// What is the same for all pods of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Primary first, at most one of each family.
    pub ips: Vec<IpAddr>,
    /// `containerd` or `cri-o`: the scheme of container ids.
    pub runtime: String,
}

pub struct Inputs<'a> {
    pub desired: &'a Desired,
    pub lifecycle: &'a Lifecycle,
    pub observed: &'a Observed,
    pub verdicts: &'a Verdicts,
    pub backoffs: &'a Backoffs,
    /// The status last computed, or the API's after a restart.
    pub prev: &'a api::PodStatus,
    pub node: &'a NodeFacts,
    pub now: Time,
}

/// The main containers of a status, then its init and ephemeral ones.
pub fn all_containers(status: &api::PodStatus) -> impl Iterator<Item = &api::ContainerStatus> {
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten()
}

pub fn status(i: &Inputs<'_>) -> api::PodStatus {
    let mut main = containers::statuses(i, &[Role::Main]);
    let mut init = containers::statuses(i, &[Role::Init, Role::Sidecar]);
    let mut ephemeral = containers::statuses(i, &[Role::Ephemeral]);
    let terminal = i.lifecycle.rank() >= 2;
    if never_taken(i) {
        main.clear();
        init.clear();
        ephemeral.clear();
    }
    let outcome = outcome(i, &main, &init, terminal);
    if terminal && !never_taken(i) {
        containers::close(i, &mut main, &mut init);
    }
    limit_messages([&mut main, &mut init, &mut ephemeral]);
    let conditions = conditions::conditions(i, outcome.phase, &main, &init);
    let Outcome { phase, reason, message } = outcome.once_nothing_runs(i, terminal);
    let pod_ips = pod_ips(i);
    let host_ips: Vec<String> = i.node.ips.iter().map(ToString::to_string).collect();
    api::PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        container_statuses: some_list(main),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: host_ips.first().cloned(),
        host_ips: some_list(host_ips.into_iter().map(|ip| api::HostIP { ip }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: some_list(pod_ips.into_iter().map(|ip| api::PodIP { ip }).collect()),
        qos_class: Some(qos(&i.desired.pod).as_str().to_owned()),
        start_time: Some(i.prev.start_time.clone().unwrap_or(ApiTime(whole_seconds(i.now)))),
        observed_generation: (i.desired.generation > 0).then_some(i.desired.generation),
        ephemeral_container_statuses: some_list(ephemeral),
        resources: resize::of_pod(i),
        allocated_resources: resize::allocated(i),
        // Owned by others, kept as they are.
        nominated_node_name: i.prev.nominated_node_name.clone(),
        resource_claim_statuses: i.prev.resource_claim_statuses.clone(),
        ..Default::default()
    }
}

struct Outcome {
    phase: &'static str,
    reason: Option<String>,
    message: Option<String>,
}

fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// What comes of the pod, by its containers and by what was decided about it.
fn outcome(i: &Inputs<'_>, main: &[api::ContainerStatus], init: &[api::ContainerStatus], terminal: bool) -> Outcome {
    let mut phase = phase::phase(i, main, init, terminal);
    let (mut reason, mut message) = (None, None);
    if terminal && !is_terminal(phase) {
        phase = "Failed";
    }
    if let Some(Why::Failed { reason: r, message: m }) = i.lifecycle.why() {
        phase = "Failed";
        (reason, message) = (Some(r.clone()), Some(m.clone()));
    }
    for earlier in earlier(i) {
        match earlier {
            "Succeeded" => phase = "Succeeded",
            "Failed" => phase = "Failed",
            _ => {}
        }
    }
    if reason.is_none() && i.prev.phase.as_deref() == Some(phase) {
        (reason, message) = (i.prev.reason.clone(), i.prev.message.clone());
    }
    Outcome { phase, reason, message }
}

/// The phases that were told before.
fn earlier<'a>(i: &Inputs<'a>) -> impl Iterator<Item = &'a str> {
    let api = i.desired.pod.status.as_ref().and_then(|s| s.phase.as_deref());
    [i.prev.phase.as_deref(), api].into_iter().flatten()
}

impl Outcome {
    /// What a pod holds on the node may be given away once it is said to be over: not before it holds nothing any more.
    fn once_nothing_runs(self, i: &Inputs<'_>, terminal: bool) -> Outcome {
        if terminal || !is_terminal(self.phase) || earlier(i).any(is_terminal) {
            return self;
        }
        let phase = if i.prev.phase.as_deref() == Some("Running") { "Running" } else { "Pending" };
        Outcome { phase, reason: i.prev.reason.clone(), message: i.prev.message.clone() }
    }
}

/// Termination messages of a pod share this many bytes.
const MESSAGES_MAX: usize = 12 << 10;

fn limit_messages(mut lists: [&mut Vec<api::ContainerStatus>; 3]) {
    let each = MESSAGES_MAX / lists.iter().map(|l| l.len()).sum::<usize>().max(1);
    let states = lists.iter_mut().flat_map(|l| l.iter_mut()).flat_map(|s| [&mut s.state, &mut s.last_state]);
    for message in states.flatten().filter_map(|s| s.terminated.as_mut()?.message.as_mut()) {
        let end = (0..=each.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
    }
}

/// The last instance of a container, where it is of a round before: it is to run again with all others.
fn of_round_before<'a>(i: &'a Inputs<'_>, name: &'a str) -> Option<&'a Container> {
    let counted = i.desired.container(name).is_some_and(|c| c.role != Role::Ephemeral);
    let round = Round::of(i.desired, i.observed);
    i.observed.newest(name).filter(|n| counted && i.lifecycle.active() && !round.has(n))
}

/// The ephemeral containers that wait for their targets, and why.
pub fn untargeted(i: &Inputs<'_>) -> Vec<(String, crate::pod::ephemeral::NoTarget)> {
    containers::untargeted(i)
}

/// The node refused the pod, now or before a restart of the agent: there is nothing to say of its containers.
fn never_taken(i: &Inputs<'_>) -> bool {
    let failed = i.desired.ended.is_some() || i.prev.phase.as_deref() == Some("Failed");
    failed && i.prev.container_statuses.iter().flatten().next().is_none() && i.observed.containers.is_empty()
}

fn some_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The API keeps times to the second; rounding here keeps a status equal to what the API gives back.
pub(crate) fn whole_seconds(t: Time) -> Time {
    Time::from_second(t.as_second()).unwrap_or(t)
}

/// The sandbox's addresses, the node's primary family first; the last known ones once the sandbox is gone.
fn pod_ips(i: &Inputs<'_>) -> Vec<String> {
    if i.desired.host_network {
        return if never_taken(i) { Vec::new() } else { i.node.ips.iter().map(ToString::to_string).collect() };
    }
    let sandbox = i.observed.newest_sandbox().filter(|s| s.ready && !s.ips.is_empty());
    let Some(sandbox) = sandbox else {
        return i.prev.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect();
    };
    let v6_first = i.node.ips.first().is_some_and(IpAddr::is_ipv6);
    let mut ips = sandbox.ips.clone();
    ips.sort_by_key(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) != v6_first);
    ips
}

#[cfg(test)]
mod tests;
