//! What a status says: how containers ended, their last words, conditions and generations.

use super::record::{Record, container, end, life, over, phase, with};
use crate::shared::{Ns, contains, is_ready, test};
use anyhow::{Result, ensure};
use ferrolet_tests::cluster::condition;
use ferrolet_tests::images::WEB;
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub fn trials() -> Vec<Trial> {
    vec![
        test("lifecycle::status::last_words", last_words),
        test("lifecycle::status::reasons", reasons),
        test("lifecycle::status::conditions_and_generations", conditions),
    ]
}

fn once(args: &[&str], more: Value) -> Value {
    json!({"restartPolicy": "Never", "containers": [with(json!({"name": "main", "image": WEB, "args": args}), more)]})
}

fn words(pod: &Value, name: &str) -> String {
    container(pod, name)["state"]["terminated"]["message"].as_str().unwrap_or_default().to_owned()
}

fn last_words(ns: &mut Ns) -> Result<()> {
    const DEFAULT: &str = "/dev/termination-log";
    let on_error = || json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let other = json!({"terminationMessagePath": "/dev/termination-custom-log", "securityContext": {"runAsUser": 10000}});
    let long = format!("first{}last", "x".repeat(6000));
    let table = [
        ("root", once(&["write", DEFAULT, "DONE"], json!({"securityContext": {"runAsUser": 0}})), "DONE"),
        ("other-user", once(&["write", "/dev/termination-custom-log", "DONE"], other), "DONE"),
        ("log-of-failed", once(&["cat", "/none"], on_error()), "web cat: No such file or directory (os error 2)\n"),
        ("log-of-good", once(&["echo", "DONE"], on_error()), ""),
        ("file-of-good", once(&["write", DEFAULT, "OK"], on_error()), "OK"),
        ("log-unasked", once(&["cat", "/none"], json!({})), ""),
        // Of a long one the end, 4 KiB of it.
        ("long", once(&["write", DEFAULT, &long], json!({})), &long[long.len() - 4096..]),
    ];
    let said = "y".repeat(4096);
    let four: Vec<Value> =
        (0..4).map(|i| json!({"name": format!("c{i}"), "image": WEB, "args": ["write", DEFAULT, said]})).collect();
    Record::of(ns, "four", json!({"restartPolicy": "Never", "containers": four}))?;
    for (name, spec, _) in &table {
        Record::of(ns, name, spec.clone())?;
    }
    for (name, _, expected) in table {
        let pod = ns.pod(name, "over", over)?;
        let seen = words(&pod, "main");
        ensure!(seen == expected, "{name}: {} bytes: {seen:?}", seen.len());
    }
    // All of a pod share 12 KiB.
    let pod = ns.pod("four", "over", over)?;
    let lengths: Vec<usize> = (0..4).map(|i| words(&pod, &format!("c{i}")).len()).collect();
    ensure!(lengths == [3072; 4], "{lengths:?}");
    Ok(())
}

fn reasons(ns: &mut Ns) -> Result<()> {
    let config = json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "a"}}}]});
    let table = [
        ("good", once(&["exit", "0"], json!({})), ("Succeeded", "Completed", 0)),
        ("bad", once(&["exit", "3"], json!({})), ("Failed", "Error", 3)),
        ("absent", once(&[], json!({"command": ["/no-such-program"]})), ("Failed", "StartError", 128)),
    ];
    for (name, spec, _) in &table {
        Record::of(ns, name, spec.clone())?;
    }
    Record::of(ns, "again", json!({"containers": [with(life("main", "-", "0", 0), json!({"command": ["/no-such-program"]}))]}))?;
    Record::of(ns, "config", once(&["exit", "0"], config))?;
    for (name, _, expected) in table {
        let pod = ns.pod(name, "over", over)?;
        let (reason, code) = end(&pod, "main");
        ensure!((phase(&pod), reason, code) == expected, "{name}: {}", pod["status"]);
        let ended = &container(&pod, "main")["state"]["terminated"];
        ensure!(["startedAt", "finishedAt", "containerID"].iter().all(|f| ended[f].is_string()), "{name}: {ended}");
        let status = container(&pod, "main");
        ensure!(status["ready"] == false && status["started"] == false && contains(&status["imageID"], "sha256:"), "{status}");
    }
    let waits = |reason: &'static str| move |p: &Value| container(p, "main")["state"]["waiting"]["reason"] == reason;
    let pod = ns.pod("again", "backs off", waits("CrashLoopBackOff"))?;
    let last = &container(&pod, "main")["lastState"]["terminated"];
    ensure!(last["reason"] == "StartError" && contains(&last["message"], "no-such-program"), "{last}");
    let pod = ns.pod("config", "waits for its map", waits("CreateContainerConfigError"))?;
    ensure!(contains(&container(&pod, "main")["state"]["waiting"]["message"], "\"none\" not found"), "{}", pod["status"]);
    Ok(())
}

const KINDS: [&str; 5] = ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

fn conditions(ns: &mut Ns) -> Result<()> {
    let probe = json!({"readinessProbe": {"exec": {"command": ["/web", "cat", "/log/go"]}, "periodSeconds": 1}});
    let spec = json!({"readinessGates": [{"conditionType": "ferrolet.dev/ok"}],
        "initContainers": [life("i", "2", "0", 0)], "containers": [with(life("main", "-", "0", 0), probe)]});
    let r = Record::of(ns, "gated", spec)?;
    let image = "ferrolet.dev/none:1";
    Record::of(
        ns,
        "changed",
        json!({"containers": [with(life("main", "-", "0", 0), json!({"image": image, "imagePullPolicy": "Never"}))]}),
    )?;
    let host = json!({"hostNetwork": true, "containers": [with(life("main", "-", "0", 0), json!({"image": image, "imagePullPolicy": "Never"}))]});
    Record::of(ns, "host", host)?;
    let state = |p: &Value| KINDS.map(|kind| condition(p, kind)["status"] == "True");
    ns.pod("gated", "initializing", |p| state(p) == [true, true, false, false, false])?;
    ns.pod("gated", "initialized", |p| state(p) == [true, true, true, false, false])?;
    ensure!(condition(&ns.get("pod", "gated")?, "Ready")["message"] == "containers with unready status: [main]");
    r.say("go")?;
    let waits = ns.pod("gated", "waiting for its gate", |p| state(p) == [true, true, true, true, false])?;
    let ready = condition(&waits, "Ready");
    let expected = "corresponding condition of pod readiness gate \"ferrolet.dev/ok\" does not exist.";
    ensure!(ready["reason"] == "ReadinessGatesNotReady" && ready["message"] == expected, "{ready}");
    let gate = r#"{"status":{"conditions":[{"type":"ferrolet.dev/ok","status":"True"}]}}"#;
    ns.kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", gate])?;
    let done = ns.ready("gated")?;
    let times: Vec<&str> = KINDS.iter().map(|k| condition(&done, k)["lastTransitionTime"].as_str().unwrap_or_default()).collect();
    ensure!(times.is_sorted() && times[2] > times[1], "{times:?}");
    ns.kubectl(&["patch", "pod", "gated", "--subresource=status", "-p", &gate.replace("True", "False")])?;
    ns.pod("gated", "not ready by its gate", |p| !is_ready(p) && condition(p, "ferrolet.dev/ok")["status"] == "False")?;
    // Each change of the spec is seen, and the conditions say so.
    let seen = |p: &Value, generation: i64| {
        p["status"]["observedGeneration"] == generation
            && KINDS.iter().all(|k| condition(p, k)["observedGeneration"] == generation)
    };
    let waiting = |p: &Value| container(p, "main")["state"]["waiting"]["reason"] == "ErrImageNeverPull";
    ns.pod("changed", "seen", |p| seen(p, 1) && waiting(p))?;
    let change = json!({"spec": {"containers": [{"name": "main", "image": WEB}]}}).to_string();
    ns.kubectl(&["patch", "pod", "changed", "-p", &change])?;
    let pod = ns.pod("changed", "seen again, and ready", |p| seen(p, 2) && is_ready(p))?;
    ensure!(container(&pod, "main")["restartCount"] == 0, "{}", pod["status"]);
    // The host's addresses are known before anything of a pod runs.
    let pod = ns.pod("host", "waits for its image", waiting)?;
    let ip = ns.lab.nodes[0].ip.as_str();
    ensure!(pod["status"]["podIP"] == ip && pod["status"]["podIPs"][0]["ip"] == ip, "{}", pod["status"]);
    Ok(())
}
