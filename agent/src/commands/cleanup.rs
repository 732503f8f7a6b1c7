//! `ferrolet cleanup`: removes what this program made in nf_tables, and on request what kube-proxy left behind.
//!
//! Owns the order of it and what is said. Removes nothing while a daemon runs, unless forced, as that would write it anew at once.

mod iptables;
mod kube_proxy;

use super::socket;
use ferrolet_netproxy as netproxy;
use std::path::PathBuf;

/// Removes the service rules from this host; pods and their networks stay
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "ferrolet cleanup")]
pub struct Args {
    /// Also remove the rules, chains, sets and virtual servers that kube-proxy left behind, of all its modes
    #[arg(long)]
    pub kube_proxy: bool,
    /// Go on although a ferrolet is running, which will write its rules anew
    #[arg(long)]
    pub force: bool,
    /// The root folder of the daemon that must not be running
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Log verbosity, as of the daemon
    #[arg(short = 'v', long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub v: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a ferrolet is running and answers at {}: stop it first, or use --force", .0.display())]
    Running(PathBuf),
    #[error("cannot remove the tables of ferrolet from nf_tables")]
    Tables(#[from] netproxy::Error),
}

/// What was done, line by line, and whether something could not be.
#[derive(Debug, Default)]
pub struct Done {
    pub lines: Vec<String>,
    pub failed: bool,
}

impl Done {
    pub fn removed(&mut self, what: impl AsRef<str>) {
        self.lines.push(format!("removed {}", what.as_ref()));
    }

    pub fn left(&mut self, what: impl AsRef<str>) {
        self.lines.push(format!("left: {}", what.as_ref()));
    }

    pub fn failed(&mut self, what: impl AsRef<str>) {
        self.lines.push(format!("not possible: {}", what.as_ref()));
        self.failed = true;
    }
}

/// Works in the network namespace of the calling thread.
pub async fn run(args: &Args) -> Result<Done, Error> {
    if !args.force && socket::is_served(&args.root_dir).await {
        return Err(Error::Running(args.root_dir.join(socket::NAME)));
    }
    let mut done = Done::default();
    let removed = netproxy::cleanup()?;
    if removed.is_empty() {
        done.lines.push("no table of ferrolet was in nf_tables".into());
    }
    for table in removed {
        done.removed(format!("nf_tables {table}"));
    }
    if args.kube_proxy {
        kube_proxy::remove(&mut done).await;
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
