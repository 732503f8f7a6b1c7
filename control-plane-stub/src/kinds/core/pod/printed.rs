//! How a pod looks in a table. The status column sums up the containers, as users of kubectl know it.

use crate::kinds::meta::{list, str};
use crate::kinds::table::{Column, age, age_column, name_column, none_if_empty, text_column, wide};
use jiff::Timestamp;
use serde_json::{Value, json};

pub const COLUMNS: &[Column] = &[
    name_column(),
    text_column("Ready", "How many of the pod's containers are ready."),
    text_column("Status", "What the pod's containers are doing, in one word."),
    text_column("Restarts", "How often containers of the pod were restarted, and when last."),
    age_column(),
    wide("IP", "The pod's first address."),
    wide("Node", "The node the pod is bound to."),
    wide("Nominated Node", "The node the pod may get once others have left it."),
    wide("Readiness Gates", "How many of the pod's readiness gates are open."),
];

pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(_) if summary.restarts == 0 => "0".to_string(),
        Some(last) => format!("{} ({} ago)", summary.restarts, age(&json!(last.to_string()), now)),
        None => summary.restarts.to_string(),
    };
    let ip = str(&pod["status"]["podIPs"][0], "ip");
    vec![
        pod["metadata"]["name"].clone(),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        json!(age(&pod["metadata"]["creationTimestamp"], now)),
        none_if_empty(if ip.is_empty() { str(&pod["status"], "podIP") } else { ip }),
        none_if_empty(str(&pod["spec"], "nodeName")),
        none_if_empty(str(&pod["status"], "nominatedNodeName")),
        json!(gates(pod)),
    ]
}

fn gates(pod: &Value) -> String {
    let gates = list(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return "<none>".to_string();
    }
    let open = gates.iter().filter(|g| condition_is_true(pod, str(g, "conditionType"))).count();
    format!("{open}/{}", gates.len())
}

fn condition_is_true(pod: &Value, ty: &str) -> bool {
    list(&pod["status"], "conditions").iter().any(|c| str(c, "type") == ty && str(c, "status") == "True")
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars: Vec<&str> =
        list(spec, "initContainers").iter().filter(|c| c["restartPolicy"] == "Always").map(|c| str(c, "name")).collect();
    let phase = str(status, "phase");
    let mut out = Summary {
        ready: 0,
        total: list(spec, "containers").len() + sidecars.len(),
        reason: if str(status, "reason").is_empty() { phase.to_string() } else { str(status, "reason").to_string() },
        restarts: 0,
        last_restart: None,
    };
    let gated = |c: &Value| str(c, "type") == "PodScheduled" && str(c, "reason") == "SchedulingGated";
    if list(status, "conditions").iter().any(gated) {
        out.reason = "SchedulingGated".to_string();
    }
    let initializing = init_phase(pod, &sidecars, &mut out);
    if !initializing || condition_is_true(pod, "Initialized") {
        main_phase(pod, &sidecars, &mut out);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if str(status, "reason") == "NodeLost" {
            out.reason = "Unknown".to_string();
        } else if !["Succeeded", "Failed"].contains(&phase) {
            out.reason = "Terminating".to_string();
        }
    }
    out
}

fn count_restarts(out: &mut Summary, container: &Value) {
    out.restarts += container["restartCount"].as_i64().unwrap_or(0);
    let finished = container["lastState"]["terminated"]["finishedAt"].as_str().and_then(|t| t.parse().ok());
    out.last_restart = out.last_restart.max(finished);
}

/// `Error`, `Signal:9` or `ExitCode:1`.
fn terminated_reason(terminated: &Value) -> String {
    let reason = str(terminated, "reason");
    match terminated["signal"].as_i64().unwrap_or(0) {
        _ if !reason.is_empty() => reason.to_string(),
        0 => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

/// The init containers in their order, up to the first that is not done. True if there is one.
fn init_phase(pod: &Value, sidecars: &[&str], out: &mut Summary) -> bool {
    let statuses = list(&pod["status"], "initContainerStatuses");
    for (i, container) in statuses.iter().enumerate() {
        count_restarts(out, container);
        let state = &container["state"];
        let sidecar = sidecars.contains(&str(container, "name"));
        if state["terminated"]["exitCode"].as_i64() == Some(0) {
            continue;
        }
        if sidecar && container["started"] == Value::Bool(true) {
            out.ready += usize::from(container["ready"] == Value::Bool(true));
            continue;
        }
        let waiting = str(&state["waiting"], "reason");
        out.reason = if state["terminated"].is_object() {
            format!("Init:{}", terminated_reason(&state["terminated"]))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", list(&pod["spec"], "initContainers").len())
        };
        return true;
    }
    false
}

fn main_phase(pod: &Value, sidecars: &[&str], out: &mut Summary) {
    // From here on only what restarts for ever counts, not past init containers.
    (out.restarts, out.last_restart) = (0, None);
    for container in list(&pod["status"], "initContainerStatuses").iter().filter(|c| sidecars.contains(&str(c, "name"))) {
        count_restarts(out, container);
    }
    let mut running = false;
    let mut failure = None;
    // The first container has the last word.
    for container in list(&pod["status"], "containerStatuses").iter().rev() {
        count_restarts(out, container);
        let state = &container["state"];
        let waiting = str(&state["waiting"], "reason");
        if !waiting.is_empty() {
            out.reason = waiting.to_string();
        } else if state["terminated"].is_object() {
            out.reason = terminated_reason(&state["terminated"]);
            if state["terminated"]["exitCode"].as_i64().unwrap_or(0) != 0 {
                failure = Some(out.reason.clone());
            }
        } else if container["ready"] == Value::Bool(true) && state["running"].is_object() {
            running = true;
            out.ready += 1;
        }
    }
    if out.reason == "Completed" {
        if running && condition_is_true(pod, "Ready") {
            out.reason = "Running".to_string();
        } else if let Some(failure) = failure {
            out.reason = failure;
        } else if running {
            out.reason = "NotReady".to_string();
        }
    }
}
