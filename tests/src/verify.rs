//! `cargo verify`: every check of the project, suite by suite, with the time each took.

use crate::setup;
use crate::sys::run;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

struct Suite {
    name: &'static str,
    args: &'static [&'static str],
}

const SUITES: &[Suite] = &[
    Suite { name: "formatting", args: &["fmt", "--all", "--check"] },
    Suite {
        name: "clippy",
        args: &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "--deny", "warnings"],
    },
    Suite { name: "cargo deny", args: &["deny", "--all-features", "check", "bans", "licenses", "sources"] },
    Suite { name: "unit and property tests", args: &["test", "--workspace", "--locked", "--lib", "--bins", "--quiet"] },
    Suite { name: "documentation tests", args: &["test", "--workspace", "--locked", "--doc", "--quiet"] },
    Suite {
        name: "integration tests",
        args: &["test", "--workspace", "--locked", "--exclude", "ferrolet-tests", "--test", "*", "--quiet"],
    },
    Suite { name: "end-to-end tests", args: &["test", "--package", "ferrolet-tests", "--locked", "--tests"] },
];

/// Runs all suites, or those whose name contains `only`; goes on after a failed one and fails in the end.
pub fn run_all(only: Option<&str>) -> Result<()> {
    setup::prepare()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has no parent folder")?;
    let mut table: Vec<(&str, bool, Duration)> = vec![];
    for suite in SUITES.iter().filter(|s| only.is_none_or(|o| s.name.contains(o))) {
        if suite.args[0] == "deny" {
            cargo_deny()?;
        }
        println!("\n=== {}: cargo {}", suite.name, suite.args.join(" "));
        let begun = Instant::now();
        let status = Command::new(cargo()).args(suite.args).current_dir(root).status().context("cannot run cargo")?;
        table.push((suite.name, status.success(), begun.elapsed()));
    }
    println!("\n{:<28} {:<8} time", "suite", "result");
    for (name, passed, took) in &table {
        println!("{name:<28} {:<8} {:.0} s", if *passed { "passed" } else { "FAILED" }, took.as_secs_f64());
    }
    let failed: Vec<_> = table.iter().filter(|(_, passed, _)| !passed).map(|(name, ..)| *name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// cargo-deny is a cargo subcommand of its own; installed once.
fn cargo_deny() -> Result<()> {
    if run(Command::new(cargo()).args(["deny", "--version"])).is_ok() {
        return Ok(());
    }
    println!("installing with cargo: cargo-deny");
    let status = Command::new(cargo()).args(["install", "cargo-deny", "--locked", "--quiet", "--debug"]).status()?;
    if status.success() { Ok(()) } else { bail!("cannot install cargo-deny") }
}
