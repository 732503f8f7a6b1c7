//! Containers that end by themselves, and their last words.

use super::*;

/// Those that wait for a long time begin first.
pub fn slow() -> Vec<Scenario> {
    vec![
        scenario(
            "deadline",
            json!({"activeDeadlineSeconds": 20, "containers": [c("main", &["sleep", "600"], json!({}))]}),
            FAILS,
            vec![Until(&["phase Failed", "reason DeadlineExceeded", "main ended 0 Completed"])],
        )
        .calls(&["StartContainer main", "StopContainer main", "StopPodSandbox"]),
        scenario(
            "crash",
            one("Always", &["exit", "1"], json!({})),
            RUNS,
            vec![
                Until(&["main waits CrashLoopBackOff", "main restarts 1", "main last 1", "phase Running", "Ready False"]),
                Until(&["main restarts 2"]),
                Apart("CreateContainer main", Duration::from_secs(10)),
                Delete(0),
                Gone(0),
            ],
        ),
    ]
}

/// Containers that end by themselves.
pub fn ends() -> Vec<Scenario> {
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
            shared(one("OnFailure", &["steps", "/v/x", "3", "0"], json!({}))),
            SUCCEEDS,
            vec![Until(&["phase Succeeded", "main ended 0 Completed", "main restarts 1", "main last 3"])],
        )
        .calls(&["StartContainer main", "CreateContainer main", "StartContainer main", "StopPodSandbox"]),
        scenario(
            "always-ok",
            one("Always", &["exit", "0"], json!({})),
            RUNS,
            vec![Until(&["main waits CrashLoopBackOff", "main restarts 1", "main last 0", "phase Running"]), Delete(0), Gone(0)],
        ),
        scenario(
            "rule-again",
            rules,
            RUNS,
            vec![
                Until(&["main waits CrashLoopBackOff", "main restarts 1", "main last 42", "phase Running", "other restarts 0"]),
                Delete(0),
                Gone(0),
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
            "no-command-always",
            one("Always", &[], json!({"command": ["/no/such"]})),
            &["Pending", "Running"],
            vec![
                Until(&["main waits CrashLoopBackOff", "main last 128 StartError", "main last-says /no/such"]),
                Delete(600),
                Gone(0),
            ],
        ),
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

/// Termination messages.
pub fn messages() -> Vec<Scenario> {
    const LOG: &str = "/dev/termination-log";
    let fallback = || json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let own = json!({"terminationMessagePath": "/dev/termination-custom-log", "securityContext": {"runAsUser": 1000}});
    let all = json!([
        c("file", &["end", "3", LOG, "last", "words"], json!({})),
        c("own", &["end", "0", "/dev/termination-custom-log", "as", "a", "user"], own),
        c("failed", &["cat", "/none"], fallback()),
        c("unasked", &["cat", "/none"], json!({})),
        c("good", &["echo", "words"], fallback()),
        c("told", &["write", LOG, "fine"], fallback()),
    ]);
    let long = format!("first{}last", "x".repeat(6000));
    let four = |name: &str| c(name, &["write", LOG, &long], json!({}));
    vec![
        scenario(
            "messages",
            json!({"restartPolicy": "Never", "containers": all}),
            FAILS,
            vec![Until(&[
                "phase Failed",
                "file ended 3 Error",
                "file says last words",
                "own ended 0 Completed",
                "own says as a user",
                "failed says web cat: No such file or directory (os error 2)\n",
                "unasked ended 1 Error",
                "unasked says ",
                "good says ",
                "told says fine",
            ])],
        ),
        // Of a long one the end.
        scenario(
            "message-cut",
            one("Never", &["write", LOG, &long], json!({})),
            SUCCEEDS,
            vec![Until(&["phase Succeeded", "main says-bytes 4096", "main says-end xxlast"])],
        ),
        // All of a pod share 12 KiB.
        scenario(
            "messages-cut",
            json!({"restartPolicy": "Never", "containers": [four("a"), four("b"), four("c"), four("main")]}),
            SUCCEEDS,
            vec![Until(&[
                "phase Succeeded",
                "a says-bytes 3072",
                "b says-bytes 3072",
                "c says-bytes 3072",
                "main says-bytes 3072",
            ])],
        ),
    ]
}
