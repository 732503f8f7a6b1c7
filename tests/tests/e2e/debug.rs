//! Ephemeral containers as `kubectl debug` makes them, on real containerd.

use crate::shared::{LIMIT, Ns, is_ready, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::images::WEB;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Instant;

pub fn trials() -> Vec<Trial> {
    vec![
        test("debug::a_debugger_sees_its_targets_processes", sees),
        test("debug::a_debugger_is_talked_to", talks),
        test("debug::a_debugger_beside_what_does_not_run", beside),
        test("debug::a_debugger_survives_the_agent_and_goes_with_the_pod", survives),
    ]
}

/// The status of an ephemeral container.
fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = pod["status"]["ephemeralContainerStatuses"].as_array();
    all.into_iter().flatten().find(|s| s["name"] == name).unwrap_or(&Value::Null)
}

fn debug(ns: &Ns, pod: &str, name: &str, options: &[&str], command: &[&str]) -> Result<String> {
    let (image, container) = (format!("--image={WEB}"), format!("--container={name}"));
    let mut all = vec!["debug", "--attach=false", pod, &image, &container];
    all.extend(options);
    all.push("--");
    all.extend(command);
    ns.kubectl(&all)
}

fn ended(ns: &Ns, pod: &str, name: &str, code: i64) -> Result<Value> {
    ns.pod(pod, &format!("{name} ended with {code}"), |p| status(p, name)["state"]["terminated"]["exitCode"] == code)
}

fn sees(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("x", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    let before = ns.ready("x")?;
    debug(ns, "x", "near", &["--target=main"], &["/web", "cat", "/proc/1/cmdline"])?;
    let after = ended(ns, "x", "near", 0)?;
    // The first process it sees is its target's, and not its own.
    must_contain(&ns.kubectl(&["logs", "x", "-c", "near"])?.replace('\0', " "), "serve")?;
    debug(ns, "x", "apart", &[], &["/web", "cat", "/proc/1/cmdline"])?;
    ended(ns, "x", "apart", 0)?;
    must_contain(&ns.kubectl(&["logs", "x", "-c", "apart"])?.replace('\0', " "), "cat /proc/1/cmdline")?;

    let s = status(&after, "near");
    let text = |field: &str| s[field].as_str().unwrap_or_default().to_owned();
    if s["restartCount"] != 0 || !text("containerID").starts_with("containerd://") || !text("imageID").contains("sha256:") {
        bail!("status of the debugger: {s}");
    }
    if !is_ready(&after) || after["status"]["phase"] != "Running" {
        bail!("the debugger counts for the pod: {}", after["status"]);
    }
    if after["status"]["containerStatuses"] != before["status"]["containerStatuses"] {
        bail!("the container that was looked into changed: {}", after["status"]["containerStatuses"]);
    }
    for (reason, message) in [("Pulled", "already present"), ("Created", "Container created"), ("Started", "Container started")] {
        about(ns, reason, message, "spec.ephemeralContainers{near}")?;
    }
    must_contain(
        &ns.refused(&["debug", "--attach=false", "x", &format!("--image={WEB}"), "--target=nobody"])?,
        "targetContainerName",
    )
}

fn talks(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("x", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", ""))?;
    ns.ready("x")?;
    let image = format!("--image={WEB}");
    let args = ["--namespace", &ns.name, "debug", "-i", "x", &image, "--container=talk", "--", "/web", "stdin"];
    let mut child = ns.lab.kubectl_command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut to = child.stdin.take().context("no stdin")?;
    let from = BufReader::new(child.stdout.take().context("no stdout")?);
    to.write_all(b"through debug\n")?;
    // It reads on after its client has gone: only its answer is waited for.
    let (tell, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        from.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
    });
    let end = Instant::now() + LIMIT;
    let answer = loop {
        match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("through debug") => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error).context("the debugger did not answer"),
        }
    };
    child.kill()?;
    child.wait()?;
    let _ = reader.join();
    answer
}

/// Waits for an event about one container.
fn about(ns: &Ns, reason: &str, message: &str, path: &str) -> Result<()> {
    wait_for(&format!("event {reason} about {path}"), LIMIT, || {
        let events = ns.list("events")?;
        let fits = |e: &&Value| e["reason"] == reason && e["involvedObject"]["fieldPath"] == path;
        let found = events.iter().find(fits).context("no such event")?;
        must_contain(found["message"].as_str().unwrap_or_default(), message)
    })
}

fn beside(ns: &mut Ns) -> Result<()> {
    let init = "restartPolicy: Always\ninitContainers: [{name: one, image: ferrolet.dev/web:1, args: [sleep, '1000']}]";
    ns.apply(&pod("starting", "serve", "", init))?;
    ns.pod("starting", "in its init container", |p| p["status"]["initContainerStatuses"][0]["state"]["running"].is_object())?;
    debug(ns, "starting", "early", &[], &["/web", "echo", "beside"])?;
    ended(ns, "starting", "early", 0)?;
    must_contain(&ns.kubectl(&["logs", "starting", "-c", "early"])?, "beside")?;
    debug(ns, "starting", "waiting", &["--target=main"], &["/web", "echo", "never"])?;
    let text = "unable to find target container main";
    let waits = |p: &Value| status(p, "waiting")["state"]["waiting"]["message"] == text;
    let starting = ns.pod("starting", "its debugger waits", waits)?;
    if starting["status"]["phase"] != "Pending" {
        bail!("phase: {}", starting["status"]);
    }
    about(ns, "Failed", text, "spec.ephemeralContainers{waiting}")?;

    ns.apply(&pod("crash", "exit, '1'", "", ""))?;
    let waiting = |p: &Value| p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    ns.pod("crash", "CrashLoopBackOff", waiting)?;
    debug(ns, "crash", "look", &[], &["/web", "exit", "5"])?;
    ended(ns, "crash", "look", 5)?;
    let missing = ["debug", "--attach=false", "crash", "--image=ferrolet.dev/nowhere:1", "--container=lost", "--", "/x"];
    ns.kubectl(&missing)?;
    let lost =
        |p: &Value| matches!(status(p, "lost")["state"]["waiting"]["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff"));
    ns.pod("crash", "its debugger has no image", lost).map(drop)
}

fn survives(ns: &mut Ns) -> Result<()> {
    ns.apply(&pod("x", "serve", "env: [{name: WEB_DRAIN_MS, value: '0'}]", "terminationGracePeriodSeconds: 3"))?;
    ns.ready("x")?;
    debug(ns, "x", "done", &["--target=main"], &["/web", "exit", "3"])?;
    ended(ns, "x", "done", 3)?;
    debug(ns, "x", "stays", &["--target=main", "--profile=sysadmin"], &["/web", "serve", "--port", "8099"])?;
    let running = |p: &Value| status(p, "stays")["state"]["running"].is_object();
    let before = ns.pod("x", "its debugger runs", running)?;
    must_contain(&ns.kubectl(&["exec", "x", "-c", "stays", "--", "/web", "get", "127.0.0.1:8080", "/"])?, "x")?;
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    ns.lab.wait_ready()?;
    debug(ns, "x", "later", &[], &["/web", "echo", "again"])?;
    let after = ended(ns, "x", "later", 0)?;
    for name in ["done", "stays"] {
        if status(&after, name) != status(&before, name) {
            bail!("{name} changed with the agent: {} to {}", status(&before, name), status(&after, name));
        }
    }
    ns.kubectl(&["delete", "pod", "x"])?;
    about(ns, "Killing", "Stopping container stays", "spec.ephemeralContainers{stays}")
}
