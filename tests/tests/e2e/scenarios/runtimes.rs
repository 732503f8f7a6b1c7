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
use ferrolet_tests::netns;
use ferrolet_tests::setup::{self, Runtime, Tools};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

pub struct Under {
    pub name: String,
    /// Index of its node.
    pub node: usize,
    pub tap: Tap,
    fake: Option<Fake>,
}

/// A lab with one node for each runtime, its agents and control plane not started. Inside a tokio runtime only.
pub fn lab(name: &str) -> Result<(Lab, Vec<Under>)> {
    let tools = setup::prepare()?;
    let newest = Tools { runtime: Runtime::newest()?, ..tools.clone() };
    let versions = [tools.runtime.version.clone(), newest.runtime.version.clone()];
    let mut lab = Lab::create(name, 1, bins::build(false)?, tools)?;
    let unders = populate(&mut lab, &newest, versions);
    match unders {
        Ok(unders) => Ok((lab, unders)),
        Err(error) => {
            lab.destroy()?;
            Err(error)
        }
    }
}

fn populate(lab: &mut Lab, newest: &Tools, versions: [String; 2]) -> Result<Vec<Under>> {
    lab.add_node(Some(newest))?;
    let mut unders = vec![];
    let file = lab.dir.join("other.tar");
    let other = Image { name: OTHER, files: &[("/web", &lab.bins.web)], entrypoint: &["/web"], arguments: &[], user: "web" };
    images::write_archive(&other, &file)?;
    for (node, version) in versions.into_iter().enumerate() {
        lab.nodes[node].containerd.import(&file)?;
        let tap = Tap::start(&tap_socket(lab, node), &lab.nodes[node].containerd.socket)?;
        unders.push(Under { name: format!("containerd {version}"), node, tap, fake: None });
    }
    let node = lab.add_node(None)?;
    let socket = run_dir(&lab.name).join("fake.sock");
    let fake = Fake::start_at(Profile::containerd_2(), &socket)?;
    let image = || ImageConfig { cmd: vec![], ..ImageConfig::default() };
    for name in [WEB, OTHER] {
        fake.add_image(name, image());
    }
    fake.add_to_registry(SLOW, ImageConfig { pull_time: Duration::from_secs(600), ..image() });
    let tap = Tap::start(&tap_socket(lab, node), &socket)?;
    unders.push(Under { name: "the fake".into(), node, tap, fake: Some(fake) });
    for under in &unders {
        lab.nodes[under.node].endpoint = under.tap.endpoint();
    }
    slow_registry(lab)?;
    Ok(unders)
}

fn tap_socket(lab: &Lab, node: usize) -> PathBuf {
    run_dir(&lab.name).join(format!("tap-{node}.sock"))
}

/// Takes connections on the fabric and never answers, for as long as this process runs.
fn slow_registry(lab: &Lab) -> Result<()> {
    let address = SLOW.split('/').next().unwrap_or_default();
    let listener = netns::within(&lab.fabric, move || TcpListener::bind(address))??;
    std::thread::spawn(move || {
        let mut open = vec![];
        for stream in listener.incoming().flatten().take(100) {
            open.push(stream);
        }
    });
    Ok(())
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
