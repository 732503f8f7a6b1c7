//! `cargo lab bench services`: how fast and how small the service data plane is.
//!
//! Everything runs in network namespaces of its own without a route out, which go at the end, and with the next run if this one
//! is killed. The figures are those of an optimised build: a debug one builds and runs that.

pub mod driver;
pub mod figures;
pub mod listen;
pub mod objects;
pub mod plane;

use crate::cluster::ns_name;
use crate::leftovers;
use crate::netns;
use crate::sys::sh;
use anyhow::{Result, bail};
use driver::Plane;
use figures::{Table, Verdict, median, milliseconds, percentile};
use listen::Listener;
use objects::Shape;
use std::time::Duration;

/// The name by which everything of this bench is found again.
pub const LAB: &str = "bench-services";

const WIDE: Shape = Shape { services: 10_000, endpoints: 10, udp: false };
const MANY: Shape = Shape { services: 44_000, endpoints: 4, udp: false };

pub fn run() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the bench makes network namespaces: run it as root");
    }
    leftovers::remove(LAB)?;
    let mut table = Table::new();
    let done = measure(&mut table);
    println!("\n{table}");
    leftovers::remove(LAB)?;
    done
}

fn measure(table: &mut Table) -> Result<()> {
    let ns = namespace(1)?;
    let mut plane = Plane::start(&ns)?;
    let took = plane.list(WIDE)?;
    table.row("cold start", format!("{took:?}"), "under 1 s", took < Duration::from_secs(1));
    Ok(())
}

/// An empty namespace.
fn namespace(n: u8) -> Result<String> {
    let name = ns_name(LAB, &format!("node-{n}"));
    sh("ip", &["netns", "add", &name])?;
    netns::ip(&name, "link set lo up")?;
    Ok(name)
}
