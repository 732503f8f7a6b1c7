//! `cargo lab bench pods`: how long a pod takes, through the agent and by bare CRI calls in the same run, and what it costs.

use crate::cluster::{Lab, cgroup_root};
use crate::sys::wait_for;
use crate::{bins, images, setup};
use anyhow::{Context, Result, bail};
use ferrolet_cri::types::{
    ContainerConfig, ContainerState, ImageSpec, SandboxConfig, SandboxMetadata, SandboxSecurity, SecurityProfile,
};
use ferrolet_cri::{Client, Options};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LAB: &str = "bench";
const ROUNDS: usize = 10;

/// Steps of one pod with their times, in order.
type Steps = Vec<(&'static str, Duration)>;

pub fn run() -> Result<()> {
    let tools = setup::prepare()?;
    let mut lab = Lab::create(LAB, 1, bins::build(true)?, tools)?;
    let result = measure(&mut lab);
    if result.is_err() {
        println!("{}", lab.log_tails(30));
    }
    lab.destroy()?;
    result
}

fn measure(lab: &mut Lab) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(async { Client::connect(&lab.nodes[0].containerd.endpoint(), Options::default()) })?;
    let bare: Vec<Steps> = (0..ROUNDS).map(|i| runtime.block_on(bare_pod(&client, lab, i))).collect::<Result<_>>()?;
    println!("one pod by bare CRI calls, median of {ROUNDS}");
    let total = table(&bare);
    lab.start_stub()?;
    lab.start_agent(0)?;
    lab.wait_ready()?;
    memory(lab, "idle")?;
    let through: Vec<Steps> = (0..ROUNDS).map(|i| agent_pod(lab, i)).collect::<Result<_>>()?;
    println!("\none pod through the agent, median of {ROUNDS} (times since the API server had it)");
    let ready = table(&through);
    println!("the agent's part of it: {:.1} ms beyond the CRI calls", (ready.as_secs_f64() - total.as_secs_f64()) * 1e3);
    println!("\nkubectl apply to rollout complete");
    for replicas in [1, 3, 30] {
        let (up, down) = rollout(lab, replicas)?;
        println!("{replicas:>4} pods  up {:>7.2} s  deleted {:>7.2} s", up.as_secs_f64(), down.as_secs_f64());
    }
    Ok(())
}

/// Prints the median of each step; returns that of the last one.
fn table(rounds: &[Steps]) -> Duration {
    let mut last = Duration::ZERO;
    for (i, (name, _)) in rounds[0].iter().enumerate() {
        let mut times: Vec<Duration> = rounds.iter().map(|r| r[i].1).collect();
        times.sort();
        last = times[times.len() / 2];
        println!("  {name:<22} {:>8.1} ms", last.as_secs_f64() * 1e3);
    }
    last
}

/// The calls that any agent must make for such a pod, one after another.
async fn bare_pod(client: &Client, lab: &Lab, round: usize) -> Result<Steps> {
    let logs = lab.dir.join("bare-logs");
    std::fs::create_dir_all(&logs)?;
    let sandbox = SandboxConfig {
        metadata: SandboxMetadata {
            name: format!("bare-{round}"),
            namespace: "bare".into(),
            uid: format!("bare-{round}"),
            attempt: 0,
        },
        hostname: "bare".into(),
        log_directory: logs.display().to_string(),
        cgroup_parent: format!("{}/bare/besteffort/pod-{round}", cgroup_root(LAB)),
        // As every agent asks for it.
        security: SandboxSecurity { seccomp: Some(SecurityProfile::RuntimeDefault), ..SandboxSecurity::default() },
        ..SandboxConfig::default()
    };
    let image = ImageSpec { image: images::WEB.into(), ..ImageSpec::default() };
    let container = ContainerConfig {
        name: "web".into(),
        image: image.clone(),
        args: vec!["serve".into()],
        log_path: format!("{round}.log"),
        ..ContainerConfig::default()
    };
    let begun = Instant::now();
    let mut steps: Steps = vec![];
    let sandbox_id = client.run_pod_sandbox(&sandbox, "").await?;
    steps.push(("sandbox", begun.elapsed()));
    client.image_status(&image).await?.context("the image is not there")?;
    steps.push(("image", begun.elapsed()));
    let id = client.create_container(&sandbox_id, &container, &sandbox).await?;
    steps.push(("created", begun.elapsed()));
    client.start_container(&id).await?;
    steps.push(("started", begun.elapsed()));
    let status = client.container_status(&id, false).await?;
    if status.state != ContainerState::Running {
        bail!("the container is {:?}", status.state);
    }
    steps.push(("running seen", begun.elapsed()));
    client.stop_container(&id, Duration::ZERO).await?;
    client.stop_pod_sandbox(&sandbox_id).await?;
    client.remove_pod_sandbox(&sandbox_id).await?;
    Ok(steps)
}

/// A pod made with kubectl; the agent's own timeline of it, which it logs when the pod is ready.
fn agent_pod(lab: &Lab, round: usize) -> Result<Steps> {
    let name = format!("timed-{round}");
    lab.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 0, containers: [{{name: web, image: {}, args: [serve]}}]}}\n",
        images::WEB
    ))?;
    // Nothing else is started meanwhile: on two cores a kubectl that waits would take its time from the pod.
    let line = wait_for("the agent's timeline", Duration::from_secs(30), || {
        let text = std::fs::read_to_string(lab.nodes[0].agent_log())?;
        let found = text.lines().find(|l| l.contains("pod ready") && l.contains(&format!("pod={name}_"))).map(str::to_owned);
        found.context("no timeline of the pod in the agent's log")
    })?;
    lab.kubectl(&["delete", "pod", &name, "--timeout=30s"])?;
    timeline(&line)
}

/// Reads `step_ms=12.3` fields of a log line.
fn timeline(line: &str) -> Result<Steps> {
    let fields: BTreeMap<&str, &str> = line.split_whitespace().filter_map(|w| w.split_once('=')).collect();
    let steps = [("sandbox", "sandbox_ms"), ("image", "image_ms"), ("created", "created_ms"), ("started", "started_ms")];
    let steps = steps.iter().chain(&[("running reported", "running_reported_ms"), ("ready reported", "ready_reported_ms")]);
    steps
        .map(|(name, field)| {
            let text = fields.get(field).with_context(|| format!("no {field} in {line}"))?;
            Ok((*name, Duration::from_secs_f64(text.trim_matches('"').parse::<f64>()? / 1e3)))
        })
        .collect()
}

fn rollout(lab: &Lab, replicas: u32) -> Result<(Duration, Duration)> {
    let manifest = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: many}}}}\n  \
         template:\n    metadata: {{labels: {{app: many}}}}\n    spec: {{containers: [{{name: web, image: {}, args: [serve], env: [{{name: WEB_DRAIN_MS, value: '0'}}], resources: {{requests: {{cpu: 1m}}}}}}]}}\n",
        images::WEB
    );
    let begun = Instant::now();
    lab.apply(&manifest)?;
    lab.kubectl(&["rollout", "status", "deployment/many", "--timeout=300s"])?;
    let up = begun.elapsed();
    memory(lab, &format!("{replicas} pods"))?;
    let begun = Instant::now();
    lab.kubectl(&["delete", "deployment", "many", "--timeout=60s"])?;
    lab.kubectl(&["wait", "--for=delete", "pods", "--selector=app=many", "--timeout=120s"])?;
    Ok((up, begun.elapsed()))
}

fn memory(lab: &Lab, when: &str) -> Result<()> {
    let mib = |kib: u64| kib as f64 / 1024.0;
    let agent = lab.nodes[0].agent.as_ref().context("no agent")?.rss_kib()?;
    let stub = lab.stub.as_ref().context("no control plane")?.rss_kib()?;
    println!("resident memory, {when}: agent {:.1} MiB, stub {:.1} MiB", mib(agent), mib(stub));
    Ok(())
}
