//! `cargo lab fuzz`: every target of the folder `fuzz` for a bounded time, from the corpus that is kept with it.

use crate::verify::{self, cargo_tool};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Enough to go some way beyond the corpus; `cargo lab fuzz --seconds` has more.
pub const SECONDS: u64 = 12;

pub fn run(root: &Path, seconds: u64, only: Option<&str>) -> Result<()> {
    cargo_tool("fuzz", "cargo-fuzz")?;
    if !cargo(root).args(["build", "--dev", "--sanitizer=none"]).status()?.success() {
        bail!("cannot build the fuzz targets");
    }
    let mut targets = vec![];
    for entry in std::fs::read_dir(root.join("fuzz/fuzz_targets")).context("no folder of fuzz targets")? {
        let path = entry?.path();
        targets.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    targets.sort();
    let mut ran = 0;
    for target in targets.iter().filter(|t| only.is_none_or(|o| t.contains(o))) {
        // What it finds on the way is of this run only; a crash is kept in fuzz/artifacts.
        let found = tempfile::tempdir()?;
        let output = cargo(root)
            .args(["run", "--dev", "--sanitizer=none", target])
            .arg(found.path())
            .arg(root.join("fuzz/corpus").join(target))
            .args(["--", "-verbosity=0", "-print_final_stats=1", "-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"])
            .arg(format!("-max_total_time={seconds}"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("the fuzz target {target} failed: {}\n{said}", output.status);
        }
        let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        println!("{target:<16} {seconds} s, {} inputs", runs.context("the fuzz target said no number of inputs")?.trim());
        ran += 1;
    }
    if ran == 0 {
        bail!("no such fuzz target; there are {}", targets.join(", "));
    }
    Ok(())
}

/// cargo-fuzz marks code by flags that a stable compiler has but does not offer.
fn cargo(root: &Path) -> Command {
    let mut command = verify::cargo();
    command.arg("fuzz").current_dir(root).env("RUSTC_BOOTSTRAP", "1");
    command
}
