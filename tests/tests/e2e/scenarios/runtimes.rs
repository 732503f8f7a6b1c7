//! The runtimes under the scenarios, each behind a tap: one node of the lab for each.

use super::table::{OTHER, SLOW, WEB};
use anyhow::{Context, Result, bail};
use ferrolet_cri::fake::{Fake, ImageConfig, Profile};
use ferrolet_cri::tap::Tap;
use ferrolet_cri::types::{ContainerFilter, SandboxFilter};
use ferrolet_cri::{Client, Options};
use ferrolet_tests::bins;
use ferrolet_tests::cluster::{Lab, run_dir};
use ferrolet_tests::images::{self, Image};
use ferrolet_tests::registry::Registry;
use ferrolet_tests::setup::Tools;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::time::Duration;

pub struct Under {
    pub name: String,
    /// Index of its node.
    pub node: usize,
    pub tap: Tap,
    fake: Option<Fake>,
    /// Keeps whoever pulls from it waiting.
    _registry: Option<Registry>,
}

/// A lab with a node on this containerd and one on the fake, its agents and control plane not started. Inside a tokio
/// runtime only.
pub fn lab(name: &str, tools: Tools) -> Result<(Lab, Vec<Under>)> {
    let version = tools.runtime.version.clone();
    let mut lab = Lab::create(name, 1, bins::build(false)?, tools)?;
    match populate(&mut lab, &version) {
        Ok(unders) => Ok((lab, unders)),
        Err(error) => {
            lab.destroy()?;
            Err(error)
        }
    }
}

fn populate(lab: &mut Lab, version: &str) -> Result<Vec<Under>> {
    let file = lab.dir.join("other.tar");
    let other = Image { name: OTHER, files: &[("/web", &lab.bins.web)], entrypoint: &["/web"], arguments: &[], user: "web" };
    images::write_archive(&other, &file)?;
    lab.nodes[0].containerd.import(&file)?;
    let (host, port) = SLOW.split_once('/').and_then(|(address, _)| address.split_once(':')).context("no address")?;
    let registry = Registry::start(&lab.nodes[0].netns, port.parse()?)?;
    registry.hold(true);
    if registry.address.ip().to_string() != host {
        bail!("the registry is at {}", registry.address);
    }
    let tap = Tap::start(&tap_socket(lab, 0), &lab.nodes[0].containerd.socket)?;
    let real = Under { name: format!("containerd {version}"), node: 0, tap, fake: None, _registry: Some(registry) };

    let node = lab.add_node(None)?;
    let socket = run_dir(&lab.name).join("fake.sock");
    let profile = if version.starts_with("1.6.") { Profile::containerd_1_6() } else { Profile::containerd_2() };
    let name = format!("the fake of {} {}", profile.name, profile.version);
    let fake = Fake::start_at(profile, &socket)?;
    let image = || ImageConfig { cmd: vec![], ..ImageConfig::default() };
    for name in [WEB, OTHER] {
        fake.add_image(name, image());
    }
    fake.add_to_registry(SLOW, ImageConfig { pull_time: Duration::from_secs(600), ..image() });
    let tap = Tap::start(&tap_socket(lab, node), &socket)?;
    let fake = Under { name, node, tap, fake: Some(fake), _registry: None };
    let unders = vec![real, fake];
    for under in &unders {
        lab.nodes[under.node].endpoint = under.tap.endpoint();
    }
    Ok(unders)
}

fn tap_socket(lab: &Lab, node: usize) -> PathBuf {
    run_dir(&lab.name).join(format!("tap-{node}.sock"))
}

impl Under {
    /// As if somebody had killed the process that holds the pod's namespaces.
    pub fn kill_sandbox(&self, lab: &Lab, uid: &str) -> Result<()> {
        let id = self.tap.sandbox(uid).context("the pod has no sandbox")?;
        if let Some(fake) = &self.fake {
            fake.kill_sandbox(&id);
            return Ok(());
        }
        let tasks = lab.nodes[self.node].containerd.tasks()?;
        let (_, pid) = tasks.into_iter().find(|(task, _)| *task == id).context("the sandbox has no process")?;
        Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
    }

    /// As kill -9 of the runtime.
    pub async fn kill(&self, lab: &mut Lab) -> Result<()> {
        match &self.fake {
            Some(fake) => fake.stop_server().await,
            None => lab.nodes[self.node].containerd.kill()?,
        }
        Ok(())
    }

    pub fn start(&self, lab: &mut Lab) -> Result<()> {
        match &self.fake {
            Some(fake) => Ok(fake.start_server()?),
            None => lab.nodes[self.node].containerd.start(),
        }
    }

    /// An error that names what the runtime still has.
    pub async fn empty(&self) -> Result<()> {
        let client = Client::connect(&self.tap.endpoint(), Options::default())?;
        let containers = client.list_containers(&ContainerFilter::default()).await?;
        let sandboxes = client.list_pod_sandbox(&SandboxFilter::default()).await?;
        if !containers.is_empty() || !sandboxes.is_empty() {
            bail!("{} still has {} containers and {} sandboxes", self.name, containers.len(), sandboxes.len());
        }
        Ok(())
    }
}
