//! The demo's steps, in order.

use super::{Show, checks};
use crate::cluster::Lab;
use crate::load::{self, Load};
use crate::netns;
use crate::sys::wait_for;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const PODS: &str = "app=hello";
const LIMIT: Duration = Duration::from_secs(45);
/// Between two requests of the stream that runs beside a step.
const EVERY: Duration = Duration::from_millis(10);

/// From an empty lab to a finished rollout.
pub fn cluster(show: &Show, lab: &mut Lab) -> Result<()> {
    show.step("control plane answers", lab, |lab| {
        lab.start_stub()?;
        Ok(lab.kubectl(&["version"])?.replace('\n', ", "))
    })?;
    show.step("node Ready", lab, |lab| {
        lab.start_agent(0)?;
        lab.wait_ready()?;
        lab.kubectl(&["get", "nodes", "-o", "wide"])
    })?;
    show.step("kubectl apply -f examples/hello.yaml", lab, |lab| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello.yaml");
        Ok(lab.kubectl(&["apply", "-f", &file.to_string_lossy()])?.replace('\n', ", "))
    })?;
    show.step("rollout complete", lab, |lab| {
        let text = lab.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
        Ok(text.lines().last().unwrap_or_default().to_owned())
    })
}

pub fn all(show: &Show, lab: &mut Lab, namespaces_before: &[String]) -> Result<()> {
    traffic(show, lab)?;
    kubectl(show, lab)?;
    healing(show, lab)?;
    change(show, lab)?;
    restart(show, lab)?;
    show.step("all deleted, nothing left", lab, |lab| deleted(lab, namespaces_before))
}

fn traffic(show: &Show, lab: &mut Lab) -> Result<()> {
    show.step("300 requests to the ClusterIP", lab, |lab| {
        let counts = load::spread(&lab.nodes[0].netns, service(lab)?, 300)?;
        even(&counts, 3, 50)
    })?;
    show.step("30 requests to the NodePort", lab, |lab| {
        let address = format!("{}:30080", netns::node_ip(1)).parse()?;
        let counts = load::spread(&lab.fabric, address, 30)?;
        even(&counts, 3, 1)
    })
}

fn kubectl(show: &Show, lab: &mut Lab) -> Result<()> {
    show.step("kubectl logs", lab, |lab| {
        let text = lab.kubectl(&["logs", "deployment/hello"])?;
        expect(text.contains("listening on 8080"), "the server's first line", &text)?;
        Ok(text)
    })?;
    show.step("kubectl exec", lab, |lab| {
        let file = lab.kubectl(&["exec", "deployment/hello", "--", "/web", "cat", "/etc/hello/greeting"])?;
        expect(file == "hello", "the ConfigMap's key as a file", &file)?;
        let env = lab.kubectl(&["exec", "deployment/hello", "--", "/web", "env"])?;
        for line in ["GREETING=hello", "PASSWORD=correct horse", "VERSION=1"] {
            expect(env.lines().any(|l| l == line), line, &env)?;
        }
        Ok("ConfigMap as file and in env, Secret in env".into())
    })?;
    show.step("kubectl get pods -o wide", lab, |lab| lab.kubectl(&["get", "pods", "-o", "wide"]))
}

fn healing(show: &Show, lab: &mut Lab) -> Result<()> {
    let load = Load::start(&lab.nodes[0].netns, service(lab)?, EVERY);
    show.step("a container's process killed", lab, |lab| {
        let pod = pods(lab)?.into_iter().next().context("no pod")?;
        let (name, id) = (name(&pod), container_id(&pod)?);
        let pid = lab.nodes[0].containerd.tasks()?.into_iter().find(|(task, _)| *task == id).context("no process")?.1;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        restarted(lab, &name, 1)
    })?;
    show.step("a liveness probe made to fail", lab, |lab| {
        let pod = pods(lab)?.into_iter().find(|p| restarts(p) == 0).context("every pod was restarted")?;
        load::get(&lab.nodes[0].netns, format!("{}:8080", pod_ip(&pod)).parse()?, "/fail-health")?;
        restarted(lab, &name(&pod), 1)
    })?;
    show.step("the Service meanwhile", lab, |_| clean(load))
}

fn change(show: &Show, lab: &mut Lab) -> Result<()> {
    show.step("kubectl scale to 5", lab, |lab| {
        lab.kubectl(&["scale", "deployment/hello", "--replicas=5"])?;
        lab.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
        let address = service(lab)?;
        let counts = wait_for("traffic to all 5", LIMIT, || {
            let counts = load::spread(&lab.nodes[0].netns, address, 100)?;
            even(&counts, 5, 1)
        })?;
        Ok(counts)
    })?;
    let load = Load::start(&lab.nodes[0].netns, service(lab)?, EVERY);
    show.step("rolling update to new configuration", lab, |lab| {
        lab.kubectl(&["patch", "configmap", "hello", "--type=merge", "-p", r#"{"data":{"greeting":"good day"}}"#])?;
        lab.kubectl(&["set", "env", "deployment/hello", "VERSION=2"])?;
        lab.kubectl(&["rollout", "status", "deployment/hello", "--timeout=90s"])?;
        let running = pods(lab)?;
        expect(running.len() == 5, "5 pods", &format!("{} pods", running.len()))?;
        for pod in &running {
            let env = load::get(&lab.nodes[0].netns, format!("{}:8080", pod_ip(pod)).parse()?, "/env")?;
            for line in ["VERSION=2", "GREETING=good day"] {
                expect(env.lines().any(|l| l == line), line, &env)?;
            }
        }
        Ok("5 pods with the new environment".into())
    })?;
    show.step("the Service meanwhile", lab, |_| clean(load))
}

fn restart(show: &Show, lab: &mut Lab) -> Result<()> {
    let load = Load::start(&lab.nodes[0].netns, service(lab)?, EVERY);
    show.step("the agent killed with -9 and started again", lab, |lab| {
        let before = checks::identities(&pods(lab)?);
        lab.nodes[0].kill_agent()?;
        lab.start_agent(0)?;
        checks::agent_took_over(lab, LIMIT)?;
        let after = checks::identities(&pods(lab)?);
        expect(before == after, &format!("the same containers, counts and Ready times:\n{before:#?}"), &format!("{after:#?}"))?;
        Ok(format!("{} containers with the same IDs, restart counts and Ready times", after.len()))
    })?;
    show.step("the Service meanwhile", lab, |_| clean(load))
}

fn deleted(lab: &mut Lab, namespaces_before: &[String]) -> Result<String> {
    let addresses: Vec<String> = ["hello", "hello-node"]
        .iter()
        .map(|s| Ok(lab.object("service", s)?["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned()))
        .collect::<Result<_>>()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello.yaml");
    lab.kubectl(&["delete", "-f", &file.to_string_lossy(), "--timeout=60s"])?;
    wait_for("every trace to go", LIMIT, || {
        let left = checks::traces(lab, &addresses, namespaces_before)?;
        if left.is_empty() { Ok(()) } else { bail!("expected nothing, saw:\n{}", left.join("\n")) }
    })?;
    Ok("no sandbox, cgroup, mount, pod folder, log, network namespace or nf_tables element".into())
}

fn clean(load: Load) -> Result<String> {
    let tally = load.finish_clean()?;
    Ok(format!("{} requests, none failed, slowest {} ms", tally.requests, tally.slowest.as_millis()))
}

/// Every one of `pods` names answered, each at least `least` times.
fn even(counts: &BTreeMap<String, usize>, pods: usize, least: usize) -> Result<String> {
    let shown = counts.iter().map(|(pod, n)| format!("{pod} {n}")).collect::<Vec<_>>().join(", ");
    let held = counts.len() == pods && counts.values().all(|n| *n >= least);
    expect(held, &format!("{pods} pods with at least {least} answers each"), &shown)?;
    Ok(shown)
}

fn expect(held: bool, expected: &str, seen: &str) -> Result<()> {
    if held { Ok(()) } else { bail!("expected: {expected}\nseen: {seen}") }
}

/// Waits until a pod's container has been restarted this often and is ready again.
fn restarted(lab: &Lab, name: &str, count: u64) -> Result<String> {
    wait_for(&format!("{name} to be restarted"), LIMIT, || {
        let pod = lab.object("pod", name)?;
        let status = &pod["status"]["containerStatuses"][0];
        let seen = format!("restart count {}, ready {}", status["restartCount"], status["ready"]);
        expect(restarts(&pod) == count && status["ready"] == true, &format!("restart count {count}, ready true"), &seen)?;
        Ok(format!("{name} {seen}"))
    })
}

fn service(lab: &Lab) -> Result<SocketAddr> {
    let object = lab.object("service", "hello")?;
    Ok(format!("{}:80", object["spec"]["clusterIP"].as_str().context("no clusterIP")?).parse()?)
}

/// The pods that are not on their way out.
fn pods(lab: &Lab) -> Result<Vec<Value>> {
    let all = lab.list("pods", PODS)?;
    Ok(all.into_iter().filter(|p| p["metadata"]["deletionTimestamp"].is_null()).collect())
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn pod_ip(pod: &Value) -> &str {
    pod["status"]["podIP"].as_str().unwrap_or_default()
}

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

fn container_id(pod: &Value) -> Result<String> {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().context("no container ID")?;
    Ok(id.rsplit_once("//").map_or(id, |(_, id)| id).to_owned())
}
