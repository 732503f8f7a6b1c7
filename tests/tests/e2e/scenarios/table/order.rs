//! Init containers, sidecars, hooks and probes.

use super::*;

/// Init containers and sidecars.
pub fn inits() -> Vec<Scenario> {
    let with =
        |policy: &str, inits: Value, main: Value| json!({"restartPolicy": policy, "initContainers": inits, "containers": [main]});
    let serve = || c("main", &["sleep", "600"], json!({}));
    let bad = |policy: &str| with(policy, json!([c("i", &["exit", "1"], json!({}))]), serve());
    let startup = json!({"exec": {"command": ["/web", "echo"]}, "initialDelaySeconds": 2, "periodSeconds": 1,
        "timeoutSeconds": 30, "failureThreshold": 60});
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
                Gone(0),
            ],
        )
        .never(&["CreateContainer main"]),
        scenario(
            "init-fails-once",
            shared(with(
                "OnFailure",
                json!([c("i", &["steps", "/v/x", "3", "0"], json!({}))]),
                c("main", &["exit", "0"], json!({})),
            )),
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
            shared(with("Always", json!([c("s", &["steps", "/v/x", "5"], side(json!({})))]), serve())),
            RUNS,
            vec![Until(&["s restarts 1", "s last 5", "main restarts 0", "phase Running"]), Delete(0), Gone(0)],
        ),
    ]
}

/// Hooks and probes.
pub fn hooks() -> Vec<Scenario> {
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
            vec![Until(&["main restarts 1"]), Delete(0), Gone(0)],
        )
        .calls(&["StartContainer main", "ExecSync main /web exit 1", "StopContainer main", "StartContainer main"]),
        scenario(
            "prestop",
            one("Always", &["sleep", "600"], hook("preStop", &["sleep", "1"])),
            RUNS,
            vec![Until(&["Ready True"]), Delete(600), Gone(1), Saw(&["main ended 0 Completed"])],
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
            vec![Until(&["main restarts 1", "main last 0", "phase Running"]), Delete(0), Gone(0)],
        )
        .calls(&["StartContainer main", "ExecSync main", "StopContainer main", "StartContainer main"]),
        scenario(
            "deleted-in-hook",
            one("Always", &["sleep", "600"], hook("postStart", &["sleep", "600"])),
            RUNS,
            vec![Until(&["main running"]), Delete(3), Gone(0)],
        )
        .calls(&["ExecSync main /web sleep 600", "StopContainer main", "RemovePodSandbox"]),
    ]
}
