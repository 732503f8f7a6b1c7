//! The scenarios: a pod, what is done to it, what its status must come to, and the calls the runtime must have got, in order.
//!
//! Nothing here knows on which runtime it runs.

mod changes;
mod ends;
mod order;

use serde_json::{Value, json};
use std::time::Duration;

pub struct Scenario {
    pub name: &'static str,
    pub spec: Value,
    pub steps: Vec<Step>,
    /// In this order, with any others between.
    pub calls: &'static [&'static str],
    pub never_called: &'static [&'static str],
    /// Those that may be seen, in order; the last one must be where it ends.
    pub phases: &'static [&'static str],
}

pub enum Step {
    /// All of these hold in one status; see `holds`.
    Until(&'static [&'static str]),
    /// Held in some status so far.
    Saw(&'static [&'static str]),
    /// The runtime has got this call.
    Called(&'static str),
    /// At least so long between the last two of these calls.
    Apart(&'static str, Duration),
    Patch(&'static str, Value),
    Delete(u64),
    /// The object is gone, so many seconds after the first deletion at the earliest.
    Gone(u64),
    KillSandbox,
    /// The pod's address is not the one at the last `KillSandbox`.
    NewAddress,
}

use Step::*;

pub const WEB: &str = ferrolet_tests::images::WEB;
/// The same content under another name.
pub const OTHER: &str = "ferrolet.dev/web:2";
/// In a registry that keeps those who pull waiting.
pub const SLOW: &str = "127.0.0.1:5309/lab/slow:1";

/// A container of the lab's image with these arguments, and more fields.
fn c(name: &str, args: &[&str], more: Value) -> Value {
    let mut all = json!({"name": name, "image": WEB, "imagePullPolicy": "IfNotPresent", "args": args});
    for (field, value) in more.as_object().into_iter().flatten() {
        all[field] = value.clone();
    }
    all
}

fn one(policy: &str, args: &[&str], more: Value) -> Value {
    json!({"restartPolicy": policy, "containers": [c("main", args, more)]})
}

fn exec(words: &[&str]) -> Value {
    let command: Vec<&str> = [&["/web"], words].concat();
    json!({"exec": {"command": command}})
}

/// With one emptyDir at /v in all of its containers.
fn shared(mut spec: Value) -> Value {
    spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        }
    }
    spec
}

fn scenario(name: &'static str, spec: Value, phases: &'static [&'static str], steps: Vec<Step>) -> Scenario {
    Scenario { name, spec, steps, calls: &[], never_called: &[], phases }
}

impl Scenario {
    fn calls(self, calls: &'static [&'static str]) -> Scenario {
        Scenario { calls, ..self }
    }

    fn never(self, never_called: &'static [&'static str]) -> Scenario {
        Scenario { never_called, ..self }
    }
}

const RUN_ONCE: &[&str] = &["RunPodSandbox", "CreateContainer main", "StartContainer main", "StopPodSandbox"];
const SUCCEEDS: &[&str] = &["Pending", "Running", "Succeeded"];
const FAILS: &[&str] = &["Pending", "Running", "Failed"];
const RUNS: &[&str] = &["Pending", "Running"];
const WAITS: &[&str] = &["Pending"];

pub fn all() -> Vec<Scenario> {
    [ends::slow(), order::hooks(), ends::ends(), order::inits(), changes::deletions(), changes::changes(), ends::messages()]
        .into_iter()
        .flatten()
        .collect()
}
