//! What `ferrolet` does other than being the daemon: `pod`, `trace` and `cleanup`.
//!
//! Owns the subcommands' arguments, the socket on which a running daemon answers them, and what they print. Without one of
//! their words in front the command line is the daemon's, with kubelet's flags.

pub mod cleanup;
pub mod offline;
pub mod pod;
pub mod socket;
pub mod trace;

use crate::config::args::{Args, normalise};
use clap::Parser;
use std::ffi::OsString;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    Daemon(Box<Args>),
    Pod(pod::Args),
    Trace(trace::Args),
    Cleanup(cleanup::Args),
}

impl Command {
    /// Reads a command line, the program's name first.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let word = args.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
        if !matches!(word.as_str(), "pod" | "trace" | "cleanup") {
            return Args::read(args).map(|args| Command::Daemon(Box::new(args)));
        }
        args.remove(1);
        let args = args.into_iter().map(normalise);
        match word.as_str() {
            "pod" => pod::Args::try_parse_from(args).map(Command::Pod),
            "trace" => trace::Args::try_parse_from(args).map(Command::Trace),
            _ => cleanup::Args::try_parse_from(args).map(Command::Cleanup),
        }
    }
}

#[cfg(test)]
mod tests;
