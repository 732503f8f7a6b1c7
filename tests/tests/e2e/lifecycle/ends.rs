//! How pods end: deleted at any moment, by their deadlines, and what is said of them afterwards.

use super::record::{Record, container, end, hook, life, over, phase, with};
use crate::shared::{LIMIT, Ns, is_ready, test};
use anyhow::{Context, Result, bail, ensure};
use ferrolet_tests::cluster::condition;
use ferrolet_tests::images::WEB;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        test("lifecycle::ends::what_becomes_of_deleted_pods", phases),
        test("lifecycle::ends::deletion_at_any_moment", any_moment),
        test("lifecycle::ends::graces_and_hooks", graces),
        test("lifecycle::ends::a_deadline_that_comes_later", deadline),
        test("lifecycle::ends::a_failed_post_start_hook", post_start),
    ]
}

fn phases(ns: &mut Ns) -> Result<()> {
    let mut all = Vec::new();
    for policy in ["Always", "OnFailure", "Never"] {
        for (name, end) in [("good", "0.2"), ("bad", "20")] {
            let spec = json!({"restartPolicy": policy, "containers": [life("main", "-", end, 0)]});
            all.push(Record::held(ns, &format!("{name}-{}", policy.to_lowercase()), spec, true)?);
        }
    }
    let pending = json!({"containers": [{"name": "main", "image": "ferrolet.dev/none:1", "imagePullPolicy": "Never"}]});
    let pending = Record::held(ns, "pending", pending, true)?;
    for r in &all {
        r.wait("main started")?;
    }
    ns.pod("pending", "its image is not there", |p| container(p, "main")["state"]["waiting"]["reason"] == "ErrImageNeverPull")?;
    for r in all.iter().chain([&pending]) {
        let grace = if r.pod.starts_with("bad") { "--grace-period=1" } else { "--grace-period=30" };
        ns.kubectl(&["delete", "pod", &r.pod, "--wait=false", grace])?;
    }
    for r in &all {
        let pod = ns.pod(&r.pod, "over", over)?;
        let expected = if r.pod.starts_with("bad") { ("Failed", ("Error", 137)) } else { ("Succeeded", ("Completed", 0)) };
        let seen = (phase(&pod), end(&pod, "main"));
        ensure!(seen == expected && container(&pod, "main")["restartCount"] == 0, "{}: {}", r.pod, pod["status"]);
        ensure!(pod["status"]["podIP"].is_string() && !is_ready(&pod), "{}: {}", r.pod, pod["status"]);
        let reason = if r.pod.starts_with("bad") { "PodFailed" } else { "PodCompleted" };
        ensure!(condition(&pod, "Ready")["reason"] == reason, "{}: {}", r.pod, pod["status"]["conditions"]);
        // The deletion was a change of its own.
        ensure!(pod["status"]["observedGeneration"] == 2 && pod["metadata"]["generation"] == 2, "{}", pod["status"]);
    }
    let pod = ns.pod("pending", "over", over)?;
    ensure!(phase(&pod) == "Failed" && end(&pod, "main") == ("ContainerStatusUnknown", 137), "{}", pod["status"]);
    // Only the API still has them.
    let left = ns.lab.nodes[0].containerd.tasks()?;
    ensure!(left.is_empty(), "processes are left: {left:?}");
    for r in all.iter().chain([&pending]) {
        r.release(ns)?;
    }
    none_left(ns, Duration::from_secs(10))
}

fn none_left(ns: &Ns, limit: Duration) -> Result<()> {
    let begun = Instant::now();
    wait_for("the pods to go", LIMIT, || {
        let left: Vec<Value> = ns.list("pods")?.iter().map(|p| p["metadata"]["name"].clone()).collect();
        if left.is_empty() { Ok(()) } else { bail!("{left:?} are left") }
    })?;
    if begun.elapsed() < limit { Ok(()) } else { bail!("the pods took {:?} to go", begun.elapsed()) }
}

fn any_moment(ns: &mut Ns) -> Result<()> {
    let main = |more: Value| json!({"terminationGracePeriodSeconds": 60, "containers": [with(life("main", "-", "0", 0), more)]});
    // It waits for a volume, for an image, to start again, and for its hook.
    let missing = json!({"volumes": [{"name": "v", "secret": {"secretName": "missing"}}], "containers": [{"name": "main", "image": WEB, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]});
    ns.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "volume"}, "spec": missing}).to_string())?;
    Record::of(ns, "image", main(json!({"image": "registry.invalid/none:1"})))?;
    Record::of(ns, "crashing", main(json!({"args": ["exit", "1"]})))?;
    let hooked = Record::of(ns, "hooked", main(json!({"lifecycle": {"postStart": hook("h", "-")}})))?;
    // And one at each moment of its start.
    let names: Vec<String> = (0..6).map(|i| format!("young-{i}")).collect();
    ns.event("volume", "FailedMount", "")?;
    ns.pod("crashing", "backing off", |p| container(p, "main")["state"]["waiting"]["reason"] == "CrashLoopBackOff")?;
    hooked.wait("h started")?;
    let volume = ns.get("pod", "volume")?;
    let said =
        ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady"].map(|c| &condition(&volume, c)["status"]);
    ensure!(said[0] == "True" && said[2] == "True" && said[3] == "False", "{}", volume["status"]["conditions"]);
    ns.kubectl(&["delete", "pod", "volume", "image", "crashing", "hooked", "--wait=false"])?;
    for (i, name) in (0u64..).zip(&names) {
        Record::of(ns, name, main(json!({})))?;
        std::thread::sleep(Duration::from_millis(60 * i));
        ns.kubectl(&["delete", "pod", name, "--wait=false"])?;
    }
    none_left(ns, Duration::from_secs(15))?;
    hooked.in_order(&["main started", "main signalled", "main ended"])?;
    ensure!(ns.lab.nodes[0].containerd.containers()?.is_empty(), "containers are left");
    Ok(())
}

fn graces(ns: &mut Ns) -> Result<()> {
    let with_hook = |grace: u64, end: &str, hook: Value| {
        let main = with(life("main", "-", end, 0), json!({"lifecycle": {"preStop": hook}}));
        json!({"terminationGracePeriodSeconds": grace, "containers": [main]})
    };
    let slept = Record::of(ns, "slept", with_hook(60, "0", json!({"sleep": {"seconds": 2}})))?;
    let hasty = Record::of(ns, "hasty", with_hook(60, "0", json!({"sleep": {"seconds": 0}})))?;
    // The hook is there for longer than there is time: it ends with the container, two seconds after the signal.
    let long = Record::held(ns, "long", with_hook(2, "60", hook("h", "-")), true)?;
    let shortened = Record::of(ns, "shortened", with_hook(120, "0", hook("h", "3")))?;
    let forced = Record::of(ns, "forced", with_hook(120, "60", hook("h", "0.1")))?;
    for r in [&slept, &hasty, &long, &shortened, &forced] {
        r.wait("main started")?;
        ns.ready(&r.pod)?;
    }
    let begun = now()?;
    ns.kubectl(&["delete", "pod", "slept", "hasty", "long", "shortened", "--wait=false"])?;
    ns.kubectl(&["delete", "pod", "forced", "--force", "--grace-period=0", "--wait=false"])?;
    shortened.wait("h started")?;
    ns.kubectl(&["delete", "pod", "shortened", "--wait=false", "--grace-period=30"])?;
    let after = |r: &Record, what: &str| r.wait(what).map(|at| at.saturating_sub(begun));
    let took = after(&slept, "main signalled")?;
    ensure!((2000..6000).contains(&took), "slept: signalled after {took} ms");
    let took = after(&hasty, "main signalled")?;
    ensure!(took < 2500, "hasty: signalled after {took} ms");
    // The hook of before goes on, and its container ends when it has ended.
    shortened.wait("main ended")?;
    shortened.in_order(&["h started", "h ended", "main signalled"])?;
    ensure!(shortened.times("h started")? == 1, "the hook ran twice");
    // However little time there is, the hook gets a moment.
    forced.wait("h ended")?;
    let pod = ns.pod("long", "over", over)?;
    ensure!(end(&pod, "main") == ("Error", 137), "{}", pod["status"]);
    let took = long.at("main signalled")?.abs_diff(long.at("h started")?);
    ensure!((1500..3500).contains(&took), "long: signalled {took} ms after its hook");
    long.never("h ended")?;
    long.release(ns)?;
    none_left(ns, Duration::from_secs(10))?;
    wait_for("the forced pod's container to go", LIMIT, || {
        let left = ns.lab.nodes[0].containerd.containers()?;
        if left.is_empty() { Ok(()) } else { bail!("{left:?}") }
    })
}

fn now() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    u64::try_from(now.as_millis()).context("the clock is far off")
}

fn deadline(ns: &mut Ns) -> Result<()> {
    let spec = json!({"activeDeadlineSeconds": 600, "containers": [life("main", "-", "2", 0)]});
    let r = Record::of(ns, "dated", spec)?;
    r.wait("main started")?;
    ns.ready("dated")?;
    ns.kubectl(&["patch", "pod", "dated", "-p", r#"{"spec":{"activeDeadlineSeconds":3}}"#])?;
    // While it ends it is not over: what it holds is not free yet.
    r.wait("main signalled")?;
    let ending = ns.pod("dated", "not ready", |p| !is_ready(p))?;
    r.never("main ended").context("the test was too slow to see the pod end")?;
    ensure!(phase(&ending) == "Running" && ending["status"]["reason"].is_null(), "{}", ending["status"]);
    let ended = ns.pod("dated", "over", over)?;
    let status = &ended["status"];
    ensure!(status["phase"] == "Failed" && status["reason"] == "DeadlineExceeded", "{status}");
    ensure!(status["message"] == "Pod was active on the node longer than the specified deadline", "{status}");
    ensure!(end(&ended, "main") == ("Completed", 0) && status["observedGeneration"] == 2, "{status}");
    ns.event("dated", "DeadlineExceeded", "Pod was active on the node longer").map(drop)
}

fn post_start(ns: &mut Ns) -> Result<()> {
    let lifecycle = json!({"postStart": {"exec": {"command": ["/web", "cat", "/none"]}}, "preStop": hook("h", "0")});
    let main = with(life("main", "-", "0", 0), json!({"lifecycle": lifecycle}));
    let r = Record::of(ns, "hooked", json!({"containers": [main, life("next", "-", "0", 0)]}))?;
    let pod =
        ns.pod("hooked", "waiting for its hook", |p| container(p, "main")["state"]["waiting"]["reason"] == "PostStartHookError")?;
    let said = container(&pod, "main")["state"]["waiting"]["message"].as_str().unwrap_or_default();
    let begins = "Exec lifecycle hook ([/web cat /none]) for Container \"main\" in Pod \"hooked_";
    ensure!(said.starts_with(begins) && said.contains("exited with 1"), "{said}");
    r.in_order(&["main started", "h started", "h ended", "main signalled"])?;
    ns.event("hooked", "FailedPostStartHook", "PostStartHook failed")?;
    ns.event("hooked", "Killing", "FailedPostStartHook").map(drop)
}
