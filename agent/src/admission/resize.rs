//! Whether a pod that runs here may have other amounts of cpu and memory now, and which of several is asked about first. Pure.
//!
//! As kubelet since 1.35 has it: what is more than the whole node has waits like what is more than is free, for the node may grow.
//! Only what could never be done is infeasible.

use super::{Amounts, Answer, NodeView, admit, priority, qos, requests};
use crate::cgroup::{self, Qos};
use crate::pod::resize::asks_restart;
use crate::pod::{Time, containers};
use k8s_openapi::api::core::v1::{Container, Pod};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Granted,
    /// A critical pod: these of the others end for it first.
    After {
        victims: Vec<usize>,
    },
    /// Not now. The cause is a word for events.
    Deferred {
        cause: String,
        message: String,
    },
    /// Never.
    Infeasible {
        message: String,
    },
}

/// `others` are all pods of the node that count, as they were granted, without this one. `swaps`: whether a container may use swap.
pub fn decide(node: &NodeView, others: &[&Pod], granted: &Pod, asked: &Pod, swaps: impl Fn(&Pod, &Container) -> bool) -> Verdict {
    if let Some(message) = swapped(granted, asked, swaps) {
        return Verdict::Infeasible { message };
    }
    match admit(node, others, asked) {
        Answer::Admitted { victims } if victims.is_empty() => Verdict::Granted,
        Answer::Admitted { victims } => Verdict::After { victims },
        Answer::Refused(refusal) => Verdict::Deferred { cause: refusal.reason(), message: refusal.message() },
    }
}

/// What a container may swap depends on its memory request, and cannot be changed while it runs.
fn swapped(granted: &Pod, asked: &Pod, swaps: impl Fn(&Pod, &Container) -> bool) -> Option<String> {
    let memory = |c: &Container| cgroup::amount(c.resources.as_ref().and_then(|r| r.requests.as_ref()), "memory");
    let changed = granted.spec.iter().flat_map(containers).filter(|old| !asks_restart(old, "memory")).any(|old| {
        let new = asked.spec.iter().flat_map(containers).find(|new| new.name == old.name);
        new.is_some_and(|new| memory(new) != memory(old) && (swaps(asked, new) || swaps(granted, old)))
    });
    changed.then(|| "In-place resize of containers with swap is not supported.".to_owned())
}

/// The lesser is asked about first: what asks for no more than it has, then by priority, class, and how long it has waited.
pub type Rank = (bool, std::cmp::Reverse<i32>, bool, Option<Time>, String);

pub fn rank(granted: &Pod, asked: &Pod, since: Option<Time>) -> Rank {
    let (old, new) = (requests(granted), requests(asked));
    let amount = |all: &Amounts, name: &str| all.get(name).copied().unwrap_or_default();
    let grows = ["cpu", "memory"].iter().any(|name| amount(&new, name) > amount(&old, name));
    let order = std::cmp::Reverse(priority(asked).unwrap_or(0));
    // One that has just been asked for comes last.
    (
        grows,
        order,
        qos(asked) != Qos::Guaranteed,
        Some(since.unwrap_or(Time::MAX)),
        asked.metadata.uid.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::t;
    use serde_json::json;

    fn pod(uid: &str, cpu: &str, priority: i32, guaranteed: bool) -> Pod {
        let amounts = json!({"cpu": cpu, "memory": "1Mi"});
        let resources = if guaranteed { json!({"requests": amounts, "limits": amounts}) } else { json!({"requests": amounts}) };
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    fn node() -> NodeView {
        let allocatable = [("cpu", "2"), ("memory", "1Gi"), ("pods", "10")].map(|(n, a)| (n.to_owned(), a.parse().unwrap()));
        NodeView { name: "n".into(), allocatable: allocatable.into(), ..NodeView::default() }
    }

    #[test]
    fn room_decides() {
        let (small, big, other) = (pod("a", "100m", 0, false), pod("a", "1500m", 0, false), pod("b", "1", 0, false));
        let no_swap = |_: &Pod, _: &Container| false;
        assert_eq!(decide(&node(), &[], &small, &big, no_swap), Verdict::Granted);
        let message = "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000".to_owned();
        assert_eq!(decide(&node(), &[&other], &small, &big, no_swap), Verdict::Deferred { cause: "OutOfcpu".into(), message });
        let huge = pod("a", "3", 0, false);
        assert!(matches!(decide(&node(), &[], &small, &huge, no_swap), Verdict::Deferred { .. }), "more than the node has");
        let critical = pod("a", "1500m", 2_000_000_000, false);
        assert_eq!(decide(&node(), &[&other], &small, &critical, no_swap), Verdict::After { victims: vec![0] });
    }

    #[test]
    fn memory_that_may_be_swapped_stays() {
        let with = |memory: &str, policy: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": memory}},
                "resizePolicy": [{"resourceName": "memory", "restartPolicy": policy}]}]}}))
            .unwrap()
        };
        let swaps = |_: &Pod, c: &Container| c.name == "c";
        let message = "In-place resize of containers with swap is not supported.".to_owned();
        let ask = |old: &str, new: &str, policy: &str| decide(&node(), &[], &with(old, policy), &with(new, policy), swaps);
        assert_eq!(ask("1Mi", "2Mi", "NotRequired"), Verdict::Infeasible { message });
        assert_eq!(ask("1Mi", "2Mi", "RestartContainer"), Verdict::Granted);
        assert_eq!(ask("1Mi", "1024Ki", "NotRequired"), Verdict::Granted);
    }

    #[test]
    fn who_is_asked_first() {
        let granted = pod("x", "100m", 0, false);
        let ranked = [
            (pod("shrinks", "50m", -5, false), None),
            (pod("important", "1", 10, false), None),
            (pod("guaranteed", "1", 0, true), Some(t(9))),
            (pod("waits long", "1", 0, false), Some(t(1))),
            (pod("waits", "1", 0, false), Some(t(2))),
            (pod("new", "1", 0, false), None),
        ];
        let mut all: Vec<Rank> = ranked.iter().rev().map(|(asked, since)| rank(&granted, asked, *since)).collect();
        all.sort();
        let names: Vec<&str> = all.iter().map(|r| r.4.as_str()).collect();
        assert_eq!(names, ["shrinks", "important", "guaranteed", "waits long", "waits", "new"]);
    }
}
