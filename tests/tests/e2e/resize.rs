//! Resize in place on real containerd: what the kernel has, before and after.

use crate::shared::{Ns, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::cluster::condition;
use ferrolet_tests::leftovers;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        test("resize::containers_and_their_pod_get_other_limits_while_they_run", in_place),
        test("resize::waits_for_room_and_goes_on_after_a_kill", waits),
        test("resize::memory_in_use_is_not_cut_off_and_restarts_are_made", memory),
        test("resize::the_pod_as_a_whole", whole),
    ]
}

const LIMIT: Duration = Duration::from_secs(30);

fn container(name: &str, cpu: &str, memory: &str, extra: Value) -> Value {
    let mut c =
        json!({"name": name, "image": ferrolet_tests::images::WEB, "args": ["sleep", "10000"], "resources": both(cpu, memory)});
    for (field, value) in extra.as_object().into_iter().flatten() {
        c[field] = value.clone();
    }
    c
}

/// Half of the limit is asked for.
fn both(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": "20m", "memory": "8Mi"}, "limits": {"cpu": cpu, "memory": memory}})
}

fn create(ns: &Ns, name: &str, spec: Value) -> Result<Value> {
    let mut spec = spec;
    spec["terminationGracePeriodSeconds"] = json!(1);
    ns.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string())?;
    ns.ready(name)
}

fn resize(ns: &Ns, name: &str, patch: &Value) -> Result<String> {
    ns.kubectl(&[
        "patch",
        "pod",
        name,
        "--subresource",
        "resize",
        "--type",
        "strategic",
        "-p",
        &json!({"spec": patch}).to_string(),
    ])
}

fn settled(pod: &Value) -> bool {
    let none = |kind| condition(pod, kind)["status"] != "True";
    let seen = pod["status"]["observedGeneration"] == pod["metadata"]["generation"];
    seen && none("PodResizePending") && none("PodResizeInProgress")
}

fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].as_array());
    lists.into_iter().flatten().flatten().find(|s| s["name"] == name).unwrap_or(&Value::Null)
}

/// What the kernel has for the pod, or one of its containers.
struct Kernel {
    folders: Vec<PathBuf>,
}

impl Kernel {
    fn of(ns: &Ns, pod: &Value, container: Option<&str>) -> Result<Kernel> {
        let mut end = format!("pod{}", pod["metadata"]["uid"].as_str().context("no uid")?);
        if let Some(name) = container {
            let id =
                status(pod, name)["containerID"].as_str().and_then(|id| id.split("://").nth(1)).context("no container id")?;
            end = id.to_owned();
        }
        let all = leftovers::cgroups(&ns.lab.name).into_iter().flat_map(|c| leftovers::walk(&c));
        Ok(Kernel { folders: all.filter(|d| d.to_string_lossy().ends_with(&end)).collect() })
    }

    fn read(&self, files: [&str; 2]) -> Option<String> {
        let mut all = self.folders.iter().flat_map(|d| files.map(|f| d.join(f)));
        all.find_map(|file| std::fs::read_to_string(file).ok()).map(|text| text.trim().to_owned())
    }

    /// Millicores and MiB.
    fn limits(&self) -> Result<(u64, u64)> {
        let cpu = self.read(["cpu.cfs_quota_us", "cpu.max"]).context("no quota")?;
        let cpu: u64 = cpu.split(' ').next().unwrap_or_default().parse().with_context(|| format!("quota {cpu}"))?;
        let memory: u64 = self.read(["memory.limit_in_bytes", "memory.max"]).context("no memory limit")?.parse()?;
        Ok((cpu / 100, memory >> 20))
    }
}

fn must_be(ns: &Ns, pod: &Value, container: Option<&str>, cpu: u64, memory: u64) -> Result<()> {
    let found = Kernel::of(ns, pod, container)?.limits()?;
    if found == (cpu, memory) { Ok(()) } else { bail!("{container:?} has {found:?}, not {:?}", (cpu, memory)) }
}

fn in_place(ns: &mut Ns) -> Result<()> {
    let sidecar = container("side", "50m", "32Mi", json!({"restartPolicy": "Always"}));
    let spec = json!({"initContainers": [sidecar], "containers":
        [container("a", "50m", "32Mi", json!(null)), container("b", "100m", "64Mi", json!(null))]});
    let pod = create(ns, "p", spec)?;
    must_be(ns, &pod, None, 200, 128)?;
    resize(
        ns,
        "p",
        &json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "200m", "memory": "96Mi"}}},
        {"name": "b", "resources": {"limits": {"cpu": "60m", "memory": "48Mi"}}}],
        "initContainers": [{"name": "side", "resources": {"requests": {"cpu": "30m"}, "limits": {"cpu": "70m"}}}]}),
    )?;
    let done = ns.pod("p", "resized", |p| settled(p) && status(p, "a")["resources"]["limits"]["cpu"] == "200m")?;
    must_be(ns, &done, None, 330, 176)?;
    must_be(ns, &done, Some("a"), 200, 96)?;
    must_be(ns, &done, Some("b"), 60, 48)?;
    must_be(ns, &done, Some("side"), 70, 32)?;
    let side = status(&done, "side");
    if side["allocatedResources"]["cpu"] != "30m" || side["resources"]["limits"]["cpu"] != "70m" {
        bail!("the sidecar's status is {side}");
    }
    if ["a", "b", "side"].iter().any(|name| status(&done, name)["restartCount"] != 0) {
        bail!("something was restarted: {}", done["status"]);
    }
    ns.event("p", "ResizeStarted", "Pod resize started: {\"initContainers\":[")?;
    ns.event("p", "ResizeCompleted", "\"generation\":2")?;
    let refused = ns.refused(&[
        "patch",
        "pod",
        "p",
        "--subresource",
        "resize",
        "-p",
        r#"{"spec":{"containers":[{"name":"a","resources":{"limits":null}}]}}"#,
    ])?;
    crate::shared::must_contain(&refused, "resource limits cannot be removed")
}

fn waits(ns: &mut Ns) -> Result<()> {
    let asks = |cpu: &str| {
        json!({"containers": [{"name": "main", "image": ferrolet_tests::images::WEB, "args": ["sleep", "10000"],
        "resources": {"requests": {"cpu": cpu}}}]})
    };
    create(ns, "other", asks("900m"))?;
    create(ns, "p", asks("500m"))?;
    let to = |cpu: &str| json!({"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]});
    resize(ns, "p", &to("1500m"))?;
    let pod = ns.pod("p", "deferred", |p| condition(p, "PodResizePending")["reason"] == "Deferred")?;
    crate::shared::must_contain(
        &condition(&pod, "PodResizePending").to_string(),
        "Node didn't have enough resource: cpu, requested: 1500",
    )?;
    ns.event("p", "ResizeDeferred", "Pod resize OutOfcpu: {")?;
    // Killed while it waits, and again as soon as it may go on.
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    ns.kubectl(&["delete", "pod", "other"])?;
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    let pod = ns.pod("p", "resized", |p| settled(p) && status(p, "main")["resources"]["requests"]["cpu"] == "1500m")?;
    if status(&pod, "main")["restartCount"] != 0 {
        bail!("it was restarted: {}", pod["status"]);
    }
    let shares = |name| -> Result<Option<String>> { Ok(Kernel::of(ns, &pod, name)?.read(["cpu.shares", "cpu.weight"])) };
    let (whole, main) = (shares(None)?, shares(Some("main"))?);
    if whole != main || whole.is_none() { bail!("shares of the pod {whole:?}, of its container {main:?}") } else { Ok(()) }
}

fn memory(ns: &mut Ns) -> Result<()> {
    let policy = json!({"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]});
    let spec =
        json!({"containers": [container("main", "100m", "64Mi", json!(null)), container("again", "100m", "64Mi", policy)]});
    create(ns, "p", spec)?;
    let to = |name: &str, memory: &str| json!({"containers": [{"name": name, "resources": {"requests": {"memory": memory}, "limits": {"memory": memory}}}]});
    resize(ns, "p", &to("main", "10Ki"))?;
    let pod = ns.pod("p", "refused", |p| condition(p, "PodResizeInProgress")["reason"] == "Error")?;
    let said = condition(&pod, "PodResizeInProgress")["message"].as_str().unwrap_or_default().to_owned();
    crate::shared::must_contain(&said, "cannot decrease memory limits: ")?;
    crate::shared::must_contain(&said, "attempting to set container \"main\" memory limit (10240) below current usage (")?;
    ns.event("p", "ResizeError", "Pod resize error: {")?;
    if status(&pod, "main")["resources"]["limits"]["memory"] != "64Mi" {
        bail!("it has {}", status(&pod, "main"));
    }
    resize(ns, "p", &to("main", "64Mi"))?;
    ns.pod("p", "back", settled)?;
    resize(ns, "p", &to("again", "96Mi"))?;
    let pod =
        ns.pod("p", "restarted", |p| settled(p) && status(p, "again")["restartCount"] == 1 && crate::shared::is_ready(p))?;
    must_be(ns, &pod, Some("again"), 100, 96)?;
    must_be(ns, &pod, None, 200, 160)?;
    ns.event("p", "Killing", "Container again resize requires restart")?;
    if status(&pod, "main")["restartCount"] == 0 { Ok(()) } else { bail!("another one was restarted: {}", pod["status"]) }
}

fn whole(ns: &mut Ns) -> Result<()> {
    let bare = json!({"name": "main", "image": ferrolet_tests::images::WEB, "args": ["sleep", "10000"]});
    let pod = create(
        ns,
        "p",
        json!({"resources": both("100m", "64Mi"), "containers": [bare, container("own", "50m", "32Mi", json!(null))]}),
    )?;
    must_be(ns, &pod, None, 100, 64)?;
    must_be(ns, &pod, Some("main"), 100, 64)?;
    must_be(ns, &pod, Some("own"), 50, 32)?;
    if pod["status"]["qosClass"] != "Burstable" || pod["status"]["allocatedResources"]["cpu"] != "20m" {
        bail!("status is {}", pod["status"]);
    }
    resize(ns, "p", &json!({"resources": {"requests": {"cpu": "30m"}, "limits": {"cpu": "200m", "memory": "128Mi"}}}))?;
    let done = ns.pod("p", "resized", |p| settled(p) && p["status"]["resources"]["limits"]["cpu"] == "200m")?;
    must_be(ns, &done, None, 200, 128)?;
    must_be(ns, &done, Some("main"), 200, 128)?;
    must_be(ns, &done, Some("own"), 50, 32)?;
    wait_for("the pod's own amounts in its status", LIMIT, || {
        let status = ns.get("pod", "p")?["status"].clone();
        let right = status["allocatedResources"]["cpu"] == "30m" && status["resources"]["limits"]["memory"] == "128Mi";
        if right { Ok(()) } else { bail!("status is {status}") }
    })
}
