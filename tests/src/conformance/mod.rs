//! `cargo lab conformance`: Kubernetes' own end-to-end specs against a real control plane and nodes of ours.
//!
//! The programs are not ours and are never fetched: the variable [`PROGRAMS`] names a folder that has them. All runs in the
//! lab's namespaces, on images made on the spot.

mod images;
mod plane;
mod report;

use crate::cluster::Lab;
use crate::sys::{Proc, tail, wait_for};
use crate::{bins, setup};
use anyhow::{Context, Result, bail};
use plane::Plane;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LAB: &str = "conformance";
/// Where the programs of a release lie: kube-apiserver, kube-controller-manager, kube-scheduler, e2e.test, agnhost; ginkgo,
/// etcd and coredns if wanted. Without coredns specs that ask for names fail.
const PROGRAMS: &str = "FERROLET_KUBE_BIN_DIR";
const NEEDED: [&str; 5] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "e2e.test", "agnhost"];
/// What most runs have no use for: specs that disturb others or want what a lab has not.
const SKIP: &str = r"\[Serial\]|\[Disruptive\]|\[Slow\]|\[Flaky\]|\[Feature:";

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only specs whose name matches this
    #[arg(long, default_value = r"\[NodeConformance\]")]
    focus: String,
    /// Not those whose name matches this
    #[arg(long, default_value = SKIP)]
    skip: String,
    /// Its name; two runs side by side need two
    #[arg(long, default_value = LAB)]
    lab: String,
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// How many specs at a time, where the folder has ginkgo
    #[arg(long, default_value_t = 4)]
    procs: u8,
    /// After so many minutes the run is ended, and what is known by then told
    #[arg(long, default_value_t = 120)]
    minutes: u64,
    /// Where the logs and the report are left
    #[arg(long, default_value = "/tmp/ferrolet-conformance")]
    out: PathBuf,
    /// Start the cluster, and say how it is reached, until enter is pressed or the input ends; no specs
    #[arg(long)]
    only_cluster: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let Some(programs) = std::env::var_os(PROGRAMS).map(PathBuf::from) else {
        println!("skipped: {PROGRAMS} does not name a folder with {}", NEEDED.join(", "));
        return Ok(());
    };
    let missing: Vec<_> = NEEDED.into_iter().filter(|name| !programs.join(name).is_file()).collect();
    if !missing.is_empty() {
        bail!("{PROGRAMS}={} has no {}", programs.display(), missing.join(", "));
    }
    std::fs::create_dir_all(&options.out)?;
    let mut lab = Lab::create(&options.lab, options.nodes, bins::build(false)?, setup::prepare()?)?;
    let result = with_lab(&mut lab, &programs, options);
    for (from, to) in logs(&lab) {
        let _ = std::fs::copy(from, options.out.join(to));
    }
    lab.destroy()?;
    result.with_context(|| format!("all logs are in {}", options.out.display()))
}

fn logs(lab: &Lab) -> Vec<(PathBuf, String)> {
    let plane = std::fs::read_dir(lab.dir.join("plane")).into_iter().flatten().flatten().map(|entry| entry.path());
    let plane = plane.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    let mut found: Vec<_> = plane.filter_map(|path| Some((path.clone(), path.file_name()?.to_str()?.to_owned()))).collect();
    found.extend(lab.nodes.iter().map(|node| (node.agent_log(), format!("{}.log", node.name))));
    found.extend(lab.nodes.iter().map(|node| (node.containerd.log(), format!("{}-containerd.log", node.name))));
    found
}

fn with_lab(lab: &mut Lab, programs: &Path, options: &Options) -> Result<()> {
    for archive in images::write(programs, &lab.bins.pause, &lab.dir)? {
        lab.nodes.iter().try_for_each(|node| node.containerd.import(&archive))?;
        std::fs::remove_file(archive)?;
    }
    let mut plane = Plane::start(lab, programs)?;
    for index in 0..lab.nodes.len() {
        lab.start_agent(index)?;
    }
    lab.wait_ready()?;
    Plane::give_ranges(lab)?;
    let result = if options.only_cluster { wait_for_enter(lab) } else { specs(lab, &mut plane, programs, options) };
    let audit = std::fs::read_to_string(plane.audit_log()).unwrap_or_default();
    println!("\nwhat the API server refused the nodes:");
    plane::refused(&audit).iter().for_each(|(what, times)| println!("{times:>6} {what}"));
    plane.stop()?;
    result
}

fn wait_for_enter(lab: &Lab) -> Result<()> {
    println!(
        "nsenter --net=/run/netns/{} {} --kubeconfig {}",
        lab.fabric,
        lab.tools.kubectl.display(),
        lab.admin_kubeconfig().display()
    );
    std::io::stdin().read_line(&mut String::new()).context("standard input")?;
    Ok(())
}

fn specs(lab: &mut Lab, plane: &mut Plane, programs: &Path, options: &Options) -> Result<()> {
    let report = options.out.join("report.json");
    let log = options.out.join("specs.log");
    for old in [&report, &log] {
        if old.exists() {
            std::fs::remove_file(old)?;
        }
    }
    let mut run = Proc::spawn("e2e.test", &lab.name, Some(&lab.fabric), &log, &command(lab, programs, options), &[])?;
    println!("running the specs; all they say goes to {}", log.display());
    let end = Duration::from_secs(options.minutes * 60 + 60);
    let waited = wait_for("the specs to end", end, || {
        plane.check_alive()?;
        if run.check_alive().is_err() { Ok(()) } else { bail!("still running") }
    });
    if waited.is_err() {
        run.end(Duration::from_secs(30))?;
    }
    let text = std::fs::read(&report).with_context(|| format!("the specs left no report:\n{}", tail(&log, 30)))?;
    let outcome = report::read(&serde_json::from_slice(&text)?);
    outcome.print();
    waited?;
    if outcome.failed.is_empty() { Ok(()) } else { bail!("{} specs failed", outcome.failed.len()) }
}

fn command(lab: &Lab, programs: &Path, options: &Options) -> Vec<String> {
    let (ginkgo, test) = (programs.join("ginkgo"), programs.join("e2e.test").display().to_string());
    let flags = [
        ("focus", options.focus.clone()),
        ("skip", options.skip.clone()),
        ("timeout", format!("{}m", options.minutes)),
        ("json-report", "report.json".to_owned()),
        ("no-color", "true".to_owned()),
        ("v", "true".to_owned()),
    ];
    let mut argv = if ginkgo.is_file() {
        let mut argv = vec![ginkgo.display().to_string(), format!("--procs={}", options.procs)];
        argv.push(format!("--output-dir={}", options.out.display()));
        argv.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
        argv.extend([test, "--".to_owned()]);
        argv
    } else {
        let value = |flag: &str, value: &str| {
            if flag == "json-report" { options.out.join(value).display().to_string() } else { value.to_owned() }
        };
        let mut argv = vec![test];
        argv.extend(flags.iter().map(|(flag, text)| format!("--ginkgo.{flag}={}", value(flag, text))));
        argv
    };
    argv.extend([
        "--provider=skeleton".to_owned(),
        format!("--kubeconfig={}", lab.admin_kubeconfig().display()),
        format!("--kubectl-path={}", lab.tools.kubectl.display()),
        format!("--kubelet-root-dir={}", lab.nodes.first().map(|node| node.root_dir()).unwrap_or_default().display()),
        format!("--num-nodes={}", lab.nodes.len()),
        "--dump-logs-on-failure=false".to_owned(),
        "--disable-log-dump=true".to_owned(),
        format!("--e2e-output-dir={}", options.out.display()),
    ]);
    argv
}
