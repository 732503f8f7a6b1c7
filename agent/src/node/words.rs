//! What is said of the Node in events, and when. Pure.

use crate::events::Severity;
use k8s_openapi::api::core::v1::Node;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
}

impl Word {
    fn normal(reason: &'static str, message: String) -> Word {
        Word { severity: Severity::Normal, reason, message }
    }

    fn status(node: &str, reason: &'static str) -> Word {
        Word::normal(reason, format!("Node {node} status is now: {reason}"))
    }
}

/// What has been said already.
#[derive(Debug, Default)]
pub struct Words {
    unschedulable: bool,
    rebooted: bool,
}

/// The agent begins. Tools look for kubelet's words.
pub fn starting(cgroup_v1: bool) -> Vec<Word> {
    let mut all = vec![Word::normal("Starting", "Starting kubelet.".to_owned())];
    if cgroup_v1 {
        let message = "this host has cgroup v1, which Kubernetes has deprecated: migrate to cgroup v2".to_owned();
        all.push(Word { severity: Severity::Warning, reason: "CgroupV1", message });
    }
    all
}

impl Words {
    /// Of the Node as the API has it, before this process's status of it is written.
    pub fn seen(&mut self, name: &str, node: &Node, boot_id: &str) -> Vec<Word> {
        let mut all = Vec::new();
        let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
        if std::mem::replace(&mut self.unschedulable, unschedulable) != unschedulable {
            all.push(Word::status(name, if unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" }));
        }
        let known = node.status.as_ref().and_then(|s| s.node_info.as_ref()).map(|i| i.boot_id.as_str()).unwrap_or_default();
        if !self.rebooted && !known.is_empty() && !boot_id.is_empty() && known != boot_id {
            self.rebooted = true;
            let message = format!("Node {name} has been rebooted, boot id: {boot_id}");
            all.push(Word { severity: Severity::Warning, reason: "Rebooted", message });
        }
        all
    }
}

/// A change of the condition Ready that the API took.
pub fn ready_changed(name: &str, before: &Node, after: &Node) -> Option<Word> {
    let of = |node: &Node| {
        let conditions = node.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone())
    };
    let (before, after) = (of(before)?, of(after)?);
    (before != after).then(|| Word::status(name, if after == "True" { "NodeReady" } else { "NodeNotReady" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str, boot_id: &str, unschedulable: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"unschedulable": unschedulable},
            "status": {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {
                "architecture": "", "bootID": boot_id, "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""}},
        }))
        .unwrap()
    }

    fn reasons(words: &[Word]) -> Vec<&str> {
        words.iter().map(|w| w.reason).collect()
    }

    #[test]
    fn readiness_is_told_when_it_changes() {
        let said = |a: &str, b: &str| ready_changed("n", &node(a, "b", false), &node(b, "b", false)).map(|w| w.message);
        assert_eq!(said("False", "True").unwrap(), "Node n status is now: NodeReady");
        assert_eq!(said("True", "False").unwrap(), "Node n status is now: NodeNotReady");
        assert_eq!(said("Unknown", "True").unwrap(), "Node n status is now: NodeReady");
        assert_eq!(said("True", "True"), None);
        assert_eq!(ready_changed("n", &Node::default(), &node("True", "", false)), None);
    }

    #[test]
    fn cordons_and_reboots_are_told_once() {
        let mut words = Words::default();
        assert_eq!(words.seen("n", &node("True", "b", false), "b"), []);
        assert_eq!(reasons(&words.seen("n", &node("True", "b", true), "b")), ["NodeNotSchedulable"]);
        assert_eq!(words.seen("n", &node("True", "b", true), "b"), []);
        assert_eq!(reasons(&words.seen("n", &node("True", "b", false), "c")), ["NodeSchedulable", "Rebooted"]);
        assert_eq!(words.seen("n", &node("True", "b", false), "c"), []);
        assert_eq!(reasons(&starting(true)), ["Starting", "CgroupV1"]);
        assert_eq!(reasons(&starting(false)), ["Starting"]);
    }
}
