//! The pods of the random lives.

use ferrolet_cri::fake::{Fake, OnTerm, Program};
use serde_json::{Value, json};
use std::time::Duration;

/// What a pod comes to if nobody touches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// And nothing of it ever ends.
    Ready,
    Phase(&'static str),
    Restarts(usize),
}

pub struct Shape {
    pub name: &'static str,
    pub spec: fn() -> Value,
    /// Periods of its probes.
    pub periods: &'static str,
    pub settled: Settled,
    /// How often each of its containers runs at most.
    pub most_runs: Option<usize>,
    /// Whether its containers are told to end while it lives.
    pub is_told: bool,
    pub is_static: bool,
}

const PLAIN: Shape = Shape {
    name: "plain",
    spec: plain,
    periods: "main.readiness=100",
    settled: Settled::Ready,
    most_runs: Some(1),
    is_told: false,
    is_static: false,
};

pub const SHAPES: &[Shape] = &[
    PLAIN,
    Shape { name: "full", spec: full, periods: "a.readiness=100", ..PLAIN },
    Shape { name: "slow", spec: slow, periods: "", ..PLAIN },
    Shape { name: "file", spec: of_file, periods: "", is_static: true, ..PLAIN },
    Shape { name: "crash", spec: crash, periods: "", settled: Settled::Restarts(3), most_runs: None, ..PLAIN },
    Shape {
        name: "sick",
        spec: sick,
        periods: "main.liveness=100",
        settled: Settled::Restarts(1),
        most_runs: None,
        is_told: true,
        ..PLAIN
    },
    Shape { name: "job", spec: job, periods: "", settled: Settled::Phase("Succeeded"), most_runs: Some(3), ..PLAIN },
    Shape { name: "once", spec: once, periods: "", settled: Settled::Phase("Succeeded"), ..PLAIN },
    Shape { name: "fails", spec: fails, periods: "", settled: Settled::Phase("Failed"), ..PLAIN },
];

/// What the containers' commands do.
pub fn programs(fake: &Fake) {
    let on_term = OnTerm::Exit { after: Duration::from_millis(40), code: 0 };
    fake.script(&["/web", "drain"], Program { on_term, ..Program::runs() });
    fake.script(&["/web", "run"], Program::runs());
    fake.script(&["/web", "short"], Program::sleeps(Duration::from_millis(15), 0));
    fake.script(&["/web", "crash"], Program::sleeps(Duration::from_millis(10), 9));
    fake.script(&["/web", "hook"], Program { ends_after: Some(Duration::from_millis(5)), ..Program::runs() });
}

fn c(name: &str, command: &[&str]) -> Value {
    let command: Vec<&str> = ["/web"].iter().chain(command).copied().collect();
    json!({"name": name, "image": "web:1", "imagePullPolicy": "IfNotPresent", "command": command})
}

fn exec(words: &[&str]) -> Value {
    json!({"exec": {"command": words}})
}

fn plain() -> Value {
    let mut main = c("main", &["run"]);
    main["readinessProbe"] = exec(&["/web", "echo"]);
    main["env"] = json!([{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "colour"}}}]);
    main["volumeMounts"] = json!([{"name": "m", "mountPath": "/m"}]);
    json!({"containers": [main], "volumes": [{"name": "m", "configMap": {"name": "m"}}]})
}

fn full() -> Value {
    let mut side = c("side", &["drain"]);
    side["restartPolicy"] = json!("Always");
    let (mut a, mut b) = (c("a", &["run"]), c("b", &["drain"]));
    a["readinessProbe"] = exec(&["/web", "echo"]);
    a["lifecycle"] = json!({"postStart": exec(&["/web", "hook"])});
    b["lifecycle"] = json!({"preStop": exec(&["/web", "hook"])});
    json!({"initContainers": [c("init", &["short"]), side], "containers": [a, b]})
}

/// Takes its time to end.
fn slow() -> Value {
    json!({"containers": [c("main", &["drain"]), c("other", &["run"])]})
}

fn of_file() -> Value {
    json!({"initContainers": [c("init", &["short"])], "containers": [c("main", &["drain"])]})
}

fn crash() -> Value {
    json!({"containers": [c("main", &["crash"])]})
}

fn sick() -> Value {
    let mut main = c("main", &["drain"]);
    main["livenessProbe"] = exec(&["/web", "exit", "1"]);
    main["livenessProbe"]["failureThreshold"] = json!(1);
    json!({"containers": [main]})
}

/// The file says how often it has run: a fourth time it would never end.
fn job() -> Value {
    let mut main = c("main", &["steps", "/d/n", "3", "4", "0"]);
    main["volumeMounts"] = json!([{"name": "d", "mountPath": "/d"}]);
    json!({"restartPolicy": "OnFailure", "containers": [main], "volumes": [{"name": "d", "emptyDir": {}}]})
}

fn once() -> Value {
    json!({"restartPolicy": "Never", "initContainers": [c("init", &["short"])], "containers": [c("main", &["short"])]})
}

fn fails() -> Value {
    json!({"restartPolicy": "Never", "containers": [c("main", &["crash"]), c("other", &["short"])]})
}
