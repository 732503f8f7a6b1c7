//! `cargo verify`: every check of the project, suite by suite, with the time each took.

use crate::sys::run;
use crate::{fuzz, setup};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
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
    Suite { name: "fuzz targets", args: &["fuzz"] },
    Suite { name: "end-to-end tests", args: &["test", "--package", "ferrolet-tests", "--locked", "--tests"] },
];

/// Runs all suites, or those whose name contains `only`; goes on after a failed one and fails in the end.
pub fn run_all(only: Option<&str>) -> Result<()> {
    setup::prepare()?;
    let root = root()?;
    let mut table: Vec<(&str, bool, Duration)> = vec![];
    for suite in SUITES.iter().filter(|s| only.is_none_or(|o| s.name.contains(o))) {
        println!("\n=== {}: cargo {}", suite.name, suite.args.join(" "));
        let begun = Instant::now();
        let passed = passes(suite, &root)?;
        table.push((suite.name, passed, begun.elapsed()));
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

/// The project's folder.
pub fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has no parent folder")?;
    Ok(root.to_owned())
}

fn passes(suite: &Suite, root: &Path) -> Result<bool> {
    match suite.args[0] {
        "fuzz" => {
            return Ok(fuzz::run(root, fuzz::SECONDS, None).inspect_err(|error| println!("{error:#}")).is_ok());
        }
        "deny" => cargo_tool("deny", "cargo-deny")?,
        _ => {}
    }
    Ok(cargo().args(suite.args).current_dir(root).status().context("cannot run cargo")?.success())
}

pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A subcommand of cargo's that comes as a crate of its own; installed once.
pub(crate) fn cargo_tool(subcommand: &str, package: &str) -> Result<()> {
    if run(cargo().args([subcommand, "--version"])).is_ok() {
        return Ok(());
    }
    println!("installing with cargo: {package}");
    let status = cargo().args(["install", package, "--locked", "--quiet", "--debug"]).status()?;
    if status.success() { Ok(()) } else { bail!("cannot install {package}") }
}
