//! The lab's commands; `cargo demo` and `cargo verify` are short for two of them.

use clap::{Parser, Subcommand};
use ferrolet_tests::{bench, churn, conformance, demo, fuzz, leftovers, load, verify};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "A small cluster on one machine, for demonstrations and tests")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole flow, from kubectl apply to an answering Service
    Demo {
        /// Leave the cluster up after the rollout
        #[arg(long, conflicts_with = "down")]
        keep: bool,
        /// Remove what --keep left
        #[arg(long)]
        down: bool,
    },
    /// Run every check and test
    Verify {
        /// Only suites whose name contains this
        #[arg(long)]
        only: Option<String>,
    },
    /// Measure pods through the agent against bare CRI calls, probes, and the service data plane
    Bench {
        /// Only one of them
        what: Option<bench::What>,
    },
    /// Pods that come, crash, change and go at random, agent and runtime killed now and then; fails when anything is left
    Churn {
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// Of the run that is to be had again
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Run Kubernetes' own end-to-end specs against a real control plane, whose programs lie in FERROLET_KUBE_BIN_DIR
    Conformance(conformance::Options),
    /// Run the fuzz targets, each from its corpus and for a bounded time
    Fuzz {
        #[arg(long, default_value_t = fuzz::SECONDS)]
        seconds: u64,
        /// Only targets whose name contains this
        target: Option<String>,
    },
    /// The service data plane alone, told by lines on standard input (used by bench)
    #[command(hide = true)]
    BenchPlane,
    /// The probe driver alone (used by bench)
    #[command(hide = true)]
    BenchProber,
    /// What it asks (used by bench)
    #[command(hide = true)]
    BenchProbed,
    /// Remove everything a lab left behind
    Clean { lab: String },
    /// Pass connections from the host's loopback into a namespace (used by demo --keep)
    #[command(hide = true)]
    Forward {
        #[arg(long)]
        netns: String,
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        port_file: PathBuf,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    // `cargo demo -- --keep` arrives as `lab demo -- --keep`: the aliases have their own `--` already.
    let mut separators = 0;
    let words = std::env::args_os().filter(|word| {
        separators += usize::from(word == "--");
        word != "--" || separators > 1
    });
    match Args::parse_from(words).command {
        Command::Demo { keep: true, .. } => demo::run(demo::Mode::Keep),
        Command::Demo { down: true, .. } => demo::run(demo::Mode::Down),
        Command::Demo { .. } => demo::run(demo::Mode::Full),
        Command::Verify { only } => verify::run_all(only.as_deref()),
        Command::Bench { what } => bench::run(what),
        Command::Churn { minutes, seed } => churn::run(minutes, seed),
        Command::Conformance(options) => conformance::run(&options),
        Command::Fuzz { seconds, target } => fuzz::run(&verify::root()?, seconds, target.as_deref()),
        Command::BenchPlane => bench::services::plane::run(),
        Command::BenchProber => bench::probes::parts::prober(),
        Command::BenchProbed => bench::probes::parts::server(),
        Command::Clean { lab } => leftovers::remove(&lab),
        Command::Forward { netns, to, port_file } => load::run_forward(&netns, to, &port_file),
    }
}
