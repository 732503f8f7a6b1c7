//! The project's own programs, built by cargo.

use crate::sys::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone)]
pub struct Bins {
    pub ferrolet: PathBuf,
    pub stub: PathBuf,
    /// Static programs for the images.
    pub web: PathBuf,
    pub pause: PathBuf,
}

/// Builds (or finds built) the daemon, the stub and the image programs. `FERROLET_BIN_DIR` names a folder to take them
/// from instead.
pub fn build(release: bool) -> Result<Bins> {
    if let Some(dir) = std::env::var_os("FERROLET_BIN_DIR").map(PathBuf::from) {
        let file = |name: &str| dir.join(name);
        return Ok(Bins { ferrolet: file("ferrolet"), stub: file("ferrolet-stub"), web: file("web"), pause: file("pause") });
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has no parent folder")?;
    let mut args = vec!["build", "--package", "ferrolet", "--package", "ferrolet-stub", "--bins"];
    if release {
        args.push("--release");
    }
    let daemons = cargo(root, &args, None)?;
    let programs = cargo(
        root,
        &["build", "--release", "--package", "ferrolet-programs", "--target", &host()?],
        Some("-Ctarget-feature=+crt-static -Cpanic=abort"),
    )?;
    let find = |list: &[PathBuf], name: &str| {
        let found = list.iter().find(|p| p.file_name().is_some_and(|n| n == name));
        found.cloned().with_context(|| format!("cargo built no {name}"))
    };
    Ok(Bins {
        ferrolet: find(&daemons, "ferrolet")?,
        stub: find(&daemons, "ferrolet-stub")?,
        web: find(&programs, "web")?,
        pause: find(&programs, "pause")?,
    })
}

/// The executables a cargo command made or found fresh.
fn cargo(root: &Path, args: &[&str], rustflags: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(root).args(args).args(["--locked", "--quiet", "--message-format=json-render-diagnostics"]);
    command.stderr(std::process::Stdio::inherit());
    if let Some(flags) = rustflags {
        command.env("RUSTFLAGS", flags);
    }
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    let messages = output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    Ok(messages.filter_map(|m| m["executable"].as_str().map(PathBuf::from)).collect())
}

/// This program itself, optimised: what it measures of its own crates is to be as fast as what users run.
pub fn optimised_lab() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has no parent folder")?;
    let built = cargo(root, &["build", "--release", "--package", "ferrolet-tests", "--bin", "lab"], None)?;
    built.into_iter().find(|p| p.ends_with("lab")).context("cargo built no lab")
}

fn host() -> Result<String> {
    let text = run(Command::new("rustc").arg("-vV"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(line.to_owned())
}
