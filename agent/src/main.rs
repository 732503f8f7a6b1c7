//! The `ferrolet` binary: arguments, logging, exit code.

use ferrolet::api::watch::chain;
use ferrolet::commands::{Command, cleanup, pod, trace};
use ferrolet::config::{self, Args};
use ferrolet::{daemon, memory, threads};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Exit code for a command line or configuration that cannot work: starting again will not help.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match Command::read(std::env::args_os()) {
        Ok(command) => command,
        Err(problem) => {
            let _ = problem.print();
            return if problem.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let v = match &command {
        Command::Daemon(args) => &args.v,
        Command::Pod(pod::Args { v, .. }) | Command::Trace(trace::Args { v, .. }) | Command::Cleanup(cleanup::Args { v, .. }) => {
            v
        }
    };
    let quiet = !matches!(command, Command::Daemon(_));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter(*v, quiet)).with_writer(std::io::stderr).with_ansi(colours).init();
    // The one provider for everything in the process that does not bring its own.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        error!("a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    match command {
        Command::Daemon(args) => serve(&args),
        Command::Pod(args) => {
            once(async move { pod::run(&args).await.map(|text| (text, true)).map_err(|problem| chain(&problem)) })
        }
        Command::Trace(args) => {
            once(async move { trace::run(&args).await.map(|text| (text, true)).map_err(|problem| chain(&problem)) })
        }
        Command::Cleanup(args) => once(async move {
            let done = cleanup::run(&args).await.map_err(|problem| chain(&problem))?;
            Ok((done.lines.iter().map(|line| format!("{line}\n")).collect(), !done.failed))
        }),
    }
}

/// Runs a command on this thread, whose network namespace is meant; prints what it says.
fn once(command: impl Future<Output = Result<(String, bool), String>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            eprintln!("cannot start the async runtime: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    match outcome {
        Ok((text, well)) => {
            // Whoever closed the pipe has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> ExitCode {
    memory::prepare();
    let config = match config::load(args) {
        Ok(config) => config,
        Err(problem) => {
            error!("{}", chain(&problem));
            return ExitCode::from(USAGE);
        }
    };
    // Two workers suffice: nothing computes for long, and each thread has its memory.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_keep_alive(threads::KEEP)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(problem) => {
            error!("cannot start the async runtime: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(daemon::run(config));
    // Blocking work that hangs on a dead disk must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            error!("{}", chain(&problem));
            ExitCode::FAILURE
        }
    }
}

fn filter(v: u8, quiet: bool) -> EnvFilter {
    let level = match v {
        0 | 1 if quiet => "warn",
        0 | 1 => "info",
        2..=4 => "info,ferrolet=debug,ferrolet_cri=debug,ferrolet_netproxy=debug,ferrolet_probes=debug",
        _ => "debug,ferrolet=trace,ferrolet_cri=trace,ferrolet_netproxy=trace,ferrolet_probes=trace",
    };
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level))
}
