//! `cargo demo`: the whole flow on one machine, each step shown with its time and checked.

mod checks;
mod steps;

use crate::cluster::{Lab, run_dir, state_dir};
use crate::{bins, leftovers, setup};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

pub const LAB: &str = "demo";

/// What to do with the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Show everything, then remove everything.
    Full,
    /// Start and apply the example, then leave it up.
    Keep,
    /// Remove what `Keep` left.
    Down,
}

/// Prints one line for each step with the time it took, and says what went wrong where.
pub struct Show {
    start: Instant,
}

impl Default for Show {
    fn default() -> Self {
        Show { start: Instant::now() }
    }
}

impl Show {
    /// Runs a step. What it returns is shown behind its name.
    pub fn step(&self, name: &str, lab: &mut Lab, work: impl FnOnce(&mut Lab) -> Result<String>) -> Result<()> {
        let begun = Instant::now();
        match work(lab) {
            Ok(detail) => {
                self.line(name, begun.elapsed(), &detail);
                Ok(())
            }
            Err(error) => {
                println!("{:>7.2} s  FAILED: {name}\n\n{error:#}\n\n{}", begun.elapsed().as_secs_f64(), lab.log_tails(25));
                println!("all logs: {}", state_dir(&lab.name).display());
                bail!("the step {name:?} failed")
            }
        }
    }

    pub fn line(&self, name: &str, took: Duration, detail: &str) {
        let mut lines = detail.trim_end().lines();
        println!(
            "{:>7.2} s  {name}{}{}",
            took.as_secs_f64(),
            if detail.is_empty() { "" } else { ": " },
            lines.next().unwrap_or_default()
        );
        lines.for_each(|line| println!("             {line}"));
    }
}

pub fn run(mode: Mode) -> Result<()> {
    if mode == Mode::Down {
        leftovers::remove(LAB)?;
        println!("removed");
        return Ok(());
    }
    let tools = setup::prepare()?;
    println!("building in release mode");
    let bins = bins::build(true)?;
    let show = Show::default();
    let begun = Instant::now();
    let before = leftovers::list_namespaces();
    let version = tools.runtime.version.clone();
    let mut lab = Lab::create(LAB, 1, bins, tools).inspect_err(|_| drop(leftovers::remove(LAB)))?;
    show.line("lab up", begun.elapsed(), &format!("namespaces fabric and node-1, containerd {version}, two images"));
    let result = steps::cluster(&show, &mut lab)
        .and_then(|()| if mode == Mode::Keep { Ok(()) } else { steps::all(&show, &mut lab, &before) });
    match (mode, &result) {
        (Mode::Keep, Ok(())) => return keep(&lab),
        (_, Err(_)) => {
            // The logs are what the failed step points at: keep them, remove the rest.
            let kept = std::env::temp_dir().join("ferrolet-demo-logs");
            let _ = std::fs::remove_dir_all(&kept);
            save_logs(&lab, &kept)?;
            println!("logs kept in {}", kept.display());
        }
        _ => {}
    }
    let begun = Instant::now();
    lab.destroy()?;
    result?;
    let left = leftovers::find(LAB);
    if !left.is_empty() {
        bail!("expected nothing of the lab to be left, saw:\n{}", left.join("\n"));
    }
    show.line("lab down", begun.elapsed(), "no process, namespace, mount, cgroup or folder left");
    println!("\neverything held, in {:.1} s after the build", show.start.elapsed().as_secs_f64());
    Ok(())
}

/// The steps in a lab that is up. `before` are the network namespaces that were there before it.
pub fn flow(show: &Show, lab: &mut Lab, mode: Mode, before: &[String]) -> Result<()> {
    steps::cluster(show, lab)?;
    if mode == Mode::Keep { Ok(()) } else { steps::all(show, lab, before) }
}

fn save_logs(lab: &Lab, to: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let copy = |from: std::path::PathBuf, name: String| drop(std::fs::copy(from, to.join(name)));
    copy(lab.dir.join("stub.log"), "stub.log".into());
    for node in &lab.nodes {
        copy(node.agent_log(), format!("{}-ferrolet.log", node.name));
        copy(node.dir.join("containerd/containerd.log"), format!("{}-containerd.log", node.name));
    }
    Ok(())
}

/// Opens a way in for kubectl from the host's own namespace, and says how to use it.
fn keep(lab: &Lab) -> Result<()> {
    let config = std::fs::read_to_string(lab.admin_kubeconfig())?;
    let api = format!("{}:{}", crate::netns::FABRIC_IP, crate::cluster::API_PORT);
    let port = crate::load::forward(&lab.name, &lab.fabric, &api, &run_dir(LAB).join("forward.port"))?;
    let file = lab.dir.join("kubeconfig");
    std::fs::write(&file, config.replace(&format!("https://{api}"), &format!("https://127.0.0.1:{port}")))
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nthe lab stays up; to use it:\n");
    println!("  export KUBECONFIG={}", file.display());
    println!("  {} get pods -o wide", lab.tools.kubectl.display());
    println!("  {} scale deployment hello --replicas=5", lab.tools.kubectl.display());
    println!("  {} exec deploy/hello -- /web env", lab.tools.kubectl.display());
    println!("\ncargo demo -- --down removes it");
    Ok(())
}
