//! The scenarios: a pod, what is done to it, what its status must come to, and the calls the runtime must have got, in order.
//!
//! Nothing here knows on which runtime it runs.

use serde_json::{Value, json};

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
    /// At least so many milliseconds went by since the last step but one ended.
    Took(u64),
    Patch(&'static str, Value),
    Delete(u64),
    /// The object is gone, after at least and at most so many seconds from the first deletion.
    Gone(u64, u64),
    KillSandbox,
    /// The pod's address is not the one at the last `KillSandbox`.
    NewAddress,
}

use Step::*;

pub const WEB: &str = ferrolet_tests::images::WEB;
/// The same content under another name.
pub const OTHER: &str = "ferrolet.dev/web:2";
/// A registry that takes connections and never answers; the fake's takes minutes.
pub const SLOW: &str = "192.168.77.1:5999/slow:1";

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

/// With an emptyDir at /v in the container of that name.
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
    [ends(), inits(), hooks(), deletions(), messages(), changes()].into_iter().flatten().collect()
}

/// Containers that end by themselves.
fn ends() -> Vec<Scenario> {
    let rule = |policy: &str, codes: &[i32]| {
        let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": codes}}]);
        json!({"restartPolicy": policy, "restartPolicyRules": rules})
    };
    let mut rules = json!({"restartPolicy": "Never", "containers": [c("main", &["exit", "42"], rule("Never", &[42]))]});
    rules["containers"].as_array_mut().expect("a list").push(c("other", &["sleep", "600"], json!({})));
    vec![
        scenario(
            "never-ok",
            one("Never", &["exit", "0"], json!({})),
            SUCCEEDS,
            vec![Until(&[
                "phase Succeeded",
                "main ended 0 Completed",
                "main restarts 0",
                "Ready False PodCompleted",
                "Initialized True",
                "PodReadyToStartContainers False",
            ])],
        )
        .calls(RUN_ONCE),
        scenario(
            "never-bad",
            one("Never", &["exit", "7"], json!({})),
            FAILS,
            vec![Until(&[
                "phase Failed",
                "main ended 7 Error",
                "main restarts 0",
                "Ready False PodFailed",
                "ContainersReady False PodFailed",
            ])],
        )
        .calls(RUN_ONCE),
        scenario(
            "onfailure-ok",
            one("OnFailure", &["exit", "0"], json!({})),
            SUCCEEDS,
            vec![Until(&["phase Succeeded", "main ended 0 Completed", "main restarts 0"])],
        )
        .calls(RUN_ONCE),
        scenario(
            "onfailure-once",
            shared(one("OnFailure", &["once", "/v/x", "3"], json!({}))),
            SUCCEEDS,
            vec![Until(&["phase Succeeded", "main ended 0 Completed", "main restarts 1", "main last 3"])],
        )
        .calls(&["StartContainer main", "CreateContainer main", "StartContainer main", "StopPodSandbox"]),
        scenario(
            "always-ok",
            one("Always", &["exit", "0"], json!({})),
            RUNS,
            vec![
                Until(&["main waits CrashLoopBackOff", "main restarts 1", "main last 0", "phase Running"]),
                Delete(0),
                Gone(0, 20),
            ],
        ),
        scenario(
            "crash",
            one("Always", &["exit", "1"], json!({})),
            RUNS,
            vec![
                Until(&["main waits CrashLoopBackOff", "main restarts 1", "main last 1", "phase Running", "Ready False"]),
                Until(&["main restarts 2"]),
                Took(7_000),
                Delete(0),
                Gone(0, 20),
            ],
        ),
        scenario(
            "rule-again",
            rules,
            RUNS,
            vec![
                Until(&["main waits CrashLoopBackOff", "main restarts 1", "main last 42", "phase Running", "other restarts 0"]),
                Delete(0),
                Gone(0, 20),
            ],
        ),
        scenario(
            "rule-other-code",
            one("Never", &["exit", "1"], rule("Never", &[42])),
            FAILS,
            vec![Until(&["phase Failed", "main ended 1 Error", "main restarts 0"])],
        ),
        scenario(
            "rule-over-always",
            one("Always", &["exit", "1"], rule("Never", &[42])),
            FAILS,
            vec![Until(&["phase Failed", "main ended 1 Error", "main restarts 0"])],
        ),
        scenario(
            "no-command",
            one("Never", &[], json!({"command": ["/no/such"]})),
            &["Pending", "Running", "Failed"],
            vec![Until(&["phase Failed", "main ended 128 StartError"])],
        ),
        scenario(
            "deadline",
            json!({"activeDeadlineSeconds": 2, "containers": [c("main", &["sleep", "600"], json!({}))]}),
            FAILS,
            vec![Until(&["phase Failed", "reason DeadlineExceeded", "main ended 0 Completed"])],
        )
        .calls(&["StartContainer main", "StopContainer main", "StopPodSandbox"]),
        scenario(
            "deadline-later",
            json!({"activeDeadlineSeconds": 600, "containers": [c("main", &["sleep", "600"], json!({}))]}),
            FAILS,
            vec![
                Until(&["phase Running", "Ready True"]),
                Patch("", json!({"spec": {"activeDeadlineSeconds": 1}})),
                Until(&["phase Failed", "reason DeadlineExceeded"]),
            ],
        ),
    ]
}

/// Init containers and sidecars.
fn inits() -> Vec<Scenario> {
    let with =
        |policy: &str, inits: Value, main: Value| json!({"restartPolicy": policy, "initContainers": inits, "containers": [main]});
    let serve = || c("main", &["sleep", "600"], json!({}));
    let bad = |policy: &str| with(policy, json!([c("i", &["exit", "1"], json!({}))]), serve());
    let startup = json!({"exec": {"command": ["/web", "echo"]}, "initialDelaySeconds": 2, "periodSeconds": 1});
    let side = |more: Value| {
        let mut all = json!({"restartPolicy": "Always"});
        all.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        all
    };
    let sidecars = json!([
        c("s1", &["sleep", "600"], side(json!({"startupProbe": startup}))),
        c("i", &["exit", "0"], json!({})),
        c("s2", &["sleep", "600"], side(json!({}))),
    ]);
    vec![
        scenario(
            "init-order",
            with("Always", json!([c("a", &["sleep", "0.3"], json!({})), c("b", &["exit", "0"], json!({}))]), serve()),
            RUNS,
            vec![Until(&[
                "Ready True",
                "a ended 0 Completed",
                "b ended 0 Completed",
                "a ready true",
                "main running",
                "Initialized True",
            ])],
        )
        .calls(&[
            "CreateContainer a",
            "StartContainer a",
            "CreateContainer b",
            "StartContainer b",
            "CreateContainer main",
            "StartContainer main",
        ]),
        scenario(
            "init-fails-never",
            bad("Never"),
            &["Pending", "Failed"],
            vec![Until(&["phase Failed", "i ended 1 Error", "main waits PodInitializing", "Initialized False"])],
        )
        .calls(&["StartContainer i", "StopPodSandbox"])
        .never(&["CreateContainer main"]),
        scenario(
            "init-fails-always",
            bad("Always"),
            WAITS,
            vec![
                Until(&[
                    "phase Pending",
                    "i waits CrashLoopBackOff",
                    "i restarts 1",
                    "main waits PodInitializing",
                    "Initialized False ContainersNotInitialized",
                ]),
                Delete(0),
                Gone(0, 20),
            ],
        )
        .never(&["CreateContainer main"]),
        scenario(
            "init-fails-once",
            shared(with("OnFailure", json!([c("i", &["once", "/v/x", "3"], json!({}))]), c("main", &["exit", "0"], json!({})))),
            SUCCEEDS,
            vec![Until(&[
                "phase Succeeded",
                "i ended 0 Completed",
                "i restarts 1",
                "i last 3",
                "main restarts 0",
                "Initialized True PodCompleted",
            ])],
        )
        .calls(&["StartContainer i", "StartContainer i", "StartContainer main"]),
        scenario(
            "sidecars",
            with("Never", sidecars, c("main", &["sleep", "0.5"], json!({}))),
            SUCCEEDS,
            vec![
                Until(&[
                    "phase Succeeded",
                    "main ended 0 Completed",
                    "s1 ended 0 Completed",
                    "s2 ended 0 Completed",
                    "s1 restarts 0",
                    "s2 restarts 0",
                ]),
                Saw(&["s1 running", "main waits PodInitializing", "phase Pending"]),
            ],
        )
        .calls(&[
            "StartContainer s1",
            "ExecSync s1",
            "StartContainer i",
            "StartContainer s2",
            "StartContainer main",
            "StopContainer s2",
            "StopContainer s1",
            "StopPodSandbox",
        ])
        .never(&["StopContainer main"]),
        scenario(
            "sidecar-restarts",
            shared(with("Always", json!([c("s", &["once", "/v/x", "5"], side(json!({})))]), serve())),
            RUNS,
            vec![Until(&["s restarts 1", "s last 5", "main restarts 0", "phase Running"]), Delete(0), Gone(0, 20)],
        ),
    ]
}

/// Hooks and probes.
fn hooks() -> Vec<Scenario> {
    let hook = |kind: &str, words: &[&str]| json!({"lifecycle": {kind: exec(words)}});
    let awaited = json!({"containers": [
        c("a", &["sleep", "600"], hook("postStart", &["sleep", "1"])), c("b", &["sleep", "600"], json!({})),
    ]});
    let unhealthy =
        json!({"livenessProbe": {"exec": {"command": ["/web", "cat", "/v/well"]}, "periodSeconds": 1, "failureThreshold": 1}});
    vec![
        scenario("poststart-awaited", awaited, RUNS, vec![Until(&["Ready True", "a running", "b running"])]).calls(&[
            "StartContainer a",
            "ExecSync a",
            "CreateContainer b",
            "StartContainer b",
        ]),
        scenario(
            "poststart-fails",
            one("Always", &["sleep", "600"], hook("postStart", &["exit", "1"])),
            RUNS,
            vec![Until(&["main restarts 1"]), Delete(0), Gone(0, 20)],
        )
        .calls(&["StartContainer main", "ExecSync main /web exit 1", "StopContainer main", "StartContainer main"]),
        scenario(
            "prestop",
            one("Always", &["sleep", "600"], hook("preStop", &["sleep", "1"])),
            RUNS,
            vec![Until(&["Ready True"]), Delete(30), Gone(1, 25), Saw(&["main ended 0 Completed"])],
        )
        .calls(&[
            "ExecSync main /web sleep 1",
            "StopContainer main",
            "StopPodSandbox",
            "RemoveContainer main",
            "RemovePodSandbox",
        ]),
        // It takes its end well, and runs again all the same: it was ended for its health.
        scenario(
            "unhealthy-onfailure",
            shared(one("OnFailure", &["sleep", "600"], unhealthy)),
            RUNS,
            vec![Until(&["main restarts 1", "main last 0", "phase Running"]), Delete(0), Gone(0, 20)],
        )
        .calls(&["StartContainer main", "ExecSync main", "StopContainer main", "StartContainer main"]),
        scenario(
            "deleted-in-hook",
            one("Always", &["sleep", "600"], hook("postStart", &["sleep", "60"])),
            RUNS,
            vec![Until(&["main running"]), Delete(3), Gone(0, 20)],
        )
        .calls(&["ExecSync main /web sleep 60", "StopContainer main", "RemovePodSandbox"]),
    ]
}

/// The end from outside.
fn deletions() -> Vec<Scenario> {
    let stubborn = || one("Always", &["ignore-term", "600"], json!({}));
    let missing = json!({"envFrom": [{"configMapRef": {"name": "missing"}}]});
    let pulling = json!({"containers": [{"name": "main", "image": SLOW, "imagePullPolicy": "Always"}]});
    vec![
        scenario(
            "grace-overrun",
            stubborn(),
            RUNS,
            vec![Until(&["Ready True"]), Delete(3), Gone(3, 25), Saw(&["main ended 137 Error"]), Saw(&["Ready False"])],
        )
        .calls(&["StopContainer main", "StopPodSandbox", "RemoveContainer main", "RemovePodSandbox"]),
        scenario(
            "deleted-twice",
            stubborn(),
            RUNS,
            vec![Until(&["Ready True"]), Delete(300), Delete(2), Gone(1, 25), Saw(&["main ended 137 Error"])],
        ),
        scenario("deleted-at-once", one("Always", &["sleep", "600"], json!({})), RUNS, vec![Delete(5), Gone(0, 25)]),
        scenario(
            "deleted-while-pulling",
            pulling,
            WAITS,
            vec![Until(&["main waits ContainerCreating", "PodReadyToStartContainers True"]), Delete(30), Gone(0, 8)],
        )
        .calls(&["PullImage", "StopPodSandbox", "RemovePodSandbox"])
        .never(&["CreateContainer main"]),
        scenario(
            "deleted-while-refused",
            one("Always", &["sleep", "600"], missing),
            WAITS,
            vec![Until(&["main waits CreateContainerConfigError", "phase Pending"]), Delete(30), Gone(0, 10)],
        )
        .calls(&["RunPodSandbox", "RemovePodSandbox"])
        .never(&["CreateContainer main"]),
    ]
}

/// Termination messages.
fn messages() -> Vec<Scenario> {
    const LOG: &str = "/dev/termination-log";
    let long = "x".repeat(5000);
    let four = |name: &str| c(name, &["write", LOG, &long], json!({}));
    vec![
        scenario(
            "message",
            one("Never", &["end", "3", LOG, "last", "words"], json!({})),
            FAILS,
            vec![Until(&["phase Failed", "main ended 3 Error", "main says last words"])],
        ),
        scenario(
            "message-path-and-user",
            {
                let more = json!({"terminationMessagePath": "/tmp/why", "securityContext": {"runAsUser": 1000}});
                one("Never", &["end", "0", "/tmp/why", "as", "a", "user"], more)
            },
            SUCCEEDS,
            vec![Until(&["phase Succeeded", "main says as a user"])],
        ),
        scenario(
            "message-from-log",
            one("Never", &["cat", "/v/none"], json!({"terminationMessagePolicy": "FallbackToLogsOnError"})),
            FAILS,
            vec![Until(&["phase Failed", "main says web cat: No such file or directory (os error 2)\n"])],
        ),
        scenario(
            "message-cut",
            one("Never", &["write", LOG, &long], json!({})),
            SUCCEEDS,
            vec![Until(&["phase Succeeded", "main says-bytes 4096"])],
        ),
        scenario(
            "messages-cut",
            json!({"restartPolicy": "Never", "containers": [four("a"), four("b"), four("c"), four("main")]}),
            SUCCEEDS,
            vec![Until(&["phase Succeeded", "a says-bytes 3072", "main says-bytes 3072"])],
        ),
    ]
}

/// What changes while a pod runs.
fn changes() -> Vec<Scenario> {
    let image = || json!({"spec": {"containers": [{"name": "main", "image": OTHER}]}});
    let debug = json!({"spec": {"ephemeralContainers": [c("debug", &["exit", "3"], json!({}))]}});
    vec![
        scenario(
            "sandbox-dies",
            one("Always", &["sleep", "600"], json!({})),
            RUNS,
            vec![Until(&["Ready True"]), KillSandbox, Until(&["main restarts 1", "Ready True"]), NewAddress],
        )
        .calls(&["RunPodSandbox", "StartContainer main", "RunPodSandbox", "StartContainer main"]),
        scenario(
            "sandbox-dies-never",
            one("Never", &["sleep", "600"], json!({})),
            FAILS,
            vec![Until(&["Ready True"]), KillSandbox, Until(&["phase Failed", "main restarts 0"])],
        ),
        scenario(
            "image",
            one("Always", &["sleep", "600"], json!({})),
            RUNS,
            vec![Until(&["Ready True"]), Patch("", image()), Until(&["main restarts 1", "main last 0", "Ready True"])],
        )
        .calls(&["StartContainer main", "StopContainer main", "CreateContainer main", "StartContainer main"]),
        // Ended to be replaced, it has not failed.
        scenario(
            "image-never",
            one("Never", &["sleep", "600"], json!({})),
            RUNS,
            vec![
                Until(&["Ready True"]),
                Patch("", image()),
                Until(&["main restarts 1", "main last 0", "phase Running", "Ready True"]),
            ],
        )
        .calls(&["StopContainer main", "CreateContainer main", "StartContainer main"]),
        scenario(
            "ephemeral",
            one("Always", &["sleep", "600"], json!({})),
            RUNS,
            vec![
                Until(&["Ready True"]),
                Patch("/ephemeralcontainers", debug),
                Until(&["debug ended 3 Error", "Ready True", "main restarts 0"]),
            ],
        )
        .calls(&["StartContainer main", "CreateContainer debug", "StartContainer debug"])
        .never(&["StopContainer main"]),
    ]
}
