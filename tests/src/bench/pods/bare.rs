//! The same pods by bare CRI calls: what any agent must ask of the runtime, one call after another, and nothing else.

use super::{DRAIN, GRACE, Steps, pod_cgroup};
use crate::cluster::Lab;
use crate::images;
use anyhow::{Context, Result, bail};
use ferrolet_cri::types::{
    ContainerConfig, ContainerState, EnvVar, ImageSpec, SandboxConfig, SandboxMetadata, SandboxSecurity, SecurityProfile,
};
use ferrolet_cri::{Client, Options};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// One pod that runs.
struct Pod {
    sandbox: String,
    container: String,
}

/// Calls on a runtime of their own thread.
pub struct Bare {
    tokio: tokio::runtime::Runtime,
    client: Client,
    logs: PathBuf,
}

impl Bare {
    pub fn new(lab: &Lab) -> Result<Bare> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = tokio.block_on(async { Client::connect(&lab.nodes[0].containerd.endpoint(), Options::default()) })?;
        let logs = lab.dir.join("bare-logs");
        std::fs::create_dir_all(&logs)?;
        Ok(Bare { tokio, client, logs })
    }

    /// The steps of one pod's start, and how long its end took.
    pub fn one(&self, name: &str) -> Result<(Steps, Duration)> {
        self.tokio.block_on(async {
            let (pod, steps) = start(&self.client, &self.logs, name).await?;
            let begun = Instant::now();
            end(&self.client, &pod).await?;
            Ok((steps, begun.elapsed()))
        })
    }

    /// How long the starts of so many at once took, and their ends.
    pub fn many(&self, count: usize) -> Result<(Duration, Duration)> {
        self.tokio.block_on(async {
            let begun = Instant::now();
            let mut starts = JoinSet::new();
            for n in 0..count {
                let (client, logs) = (self.client.clone(), self.logs.clone());
                starts.spawn(async move { start(&client, &logs, &format!("many-{count}-{n}")).await });
            }
            let pods: Vec<Pod> = starts.join_all().await.into_iter().map(|pod| pod.map(|(pod, _)| pod)).collect::<Result<_>>()?;
            let (up, begun) = (begun.elapsed(), Instant::now());
            let mut ends = JoinSet::new();
            for pod in pods {
                let client = self.client.clone();
                ends.spawn(async move { end(&client, &pod).await });
            }
            ends.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
            Ok((up, begun.elapsed()))
        })
    }
}

async fn start(client: &Client, logs: &std::path::Path, name: &str) -> Result<(Pod, Steps)> {
    let sandbox_config = SandboxConfig {
        metadata: SandboxMetadata { name: name.into(), namespace: "bare".into(), uid: name.into(), attempt: 0 },
        hostname: "bare".into(),
        log_directory: logs.display().to_string(),
        cgroup_parent: pod_cgroup(name),
        // As every agent asks for it.
        security: SandboxSecurity { seccomp: Some(SecurityProfile::RuntimeDefault), ..SandboxSecurity::default() },
        ..SandboxConfig::default()
    };
    let image = ImageSpec { image: images::WEB.into(), ..ImageSpec::default() };
    let config = ContainerConfig {
        name: "web".into(),
        image: image.clone(),
        args: vec!["serve".into()],
        env: vec![EnvVar { name: DRAIN.0.into(), value: DRAIN.1.into() }],
        log_path: format!("{name}.log"),
        ..ContainerConfig::default()
    };
    let begun = Instant::now();
    let mut steps: Steps = vec![];
    let sandbox = client.run_pod_sandbox(&sandbox_config, "").await?;
    steps.push(("sandbox", begun.elapsed()));
    client.image_status(&image).await?.context("the image is not there")?;
    steps.push(("image", begun.elapsed()));
    let container = client.create_container(&sandbox, &config, &sandbox_config).await?;
    steps.push(("created", begun.elapsed()));
    client.start_container(&container).await?;
    steps.push(("started", begun.elapsed()));
    let status = client.container_status(&container, false).await?;
    if status.state != ContainerState::Running {
        bail!("the container is {:?}", status.state);
    }
    steps.push(("running seen", begun.elapsed()));
    Ok((Pod { sandbox, container }, steps))
}

async fn end(client: &Client, pod: &Pod) -> Result<()> {
    client.stop_container(&pod.container, GRACE).await?;
    client.stop_pod_sandbox(&pod.sandbox).await?;
    client.remove_container(&pod.container).await?;
    client.remove_pod_sandbox(&pod.sandbox).await?;
    Ok(())
}
