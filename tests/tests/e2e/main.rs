//! End-to-end tests on real containerd and the real kernel, one after another.
//!
//! `cargo test -p ferrolet-tests --test e2e -- FILTER` runs some of them. Most share one lab of one node, each in a
//! Kubernetes namespace of its own; those that need another runtime or more nodes make their own. They need root.

mod admission;
mod bad_input;
mod cgroups;
mod credentials;
mod cri;
mod debug;
mod faults;
mod kubectl;
mod lifecycle;
mod nodes;
mod pods;
mod probes;
mod registries;
mod resize;
mod rules;
mod runtime;
mod scenarios;
mod security;
mod services;
mod shared;
mod standalone;
mod static_pods;
mod stats;
mod together;
mod volumes;
mod waits;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // Two at once on a small machine only disturb each other.
    arguments.test_threads = Some(1);
    let trials: Vec<Trial> = [
        runtime::trials(),
        cri::trials(),
        scenarios::trials(),
        nodes::trials(),
        kubectl::trials(),
        bad_input::trials(),
        cgroups::trials(),
        pods::trials(),
        probes::trials(),
        lifecycle::trials(),
        static_pods::trials(),
        standalone::trials(),
        stats::trials(),
        together::trials(),
        credentials::trials(),
        registries::trials(),
        debug::trials(),
        admission::trials(),
        services::trials(),
        resize::trials(),
        rules::trials(),
        security::trials(),
        volumes::trials(),
        waits::trials(),
        faults::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let removed = shared::remove();
    if let Err(error) = &removed {
        eprintln!("the shared lab could not be removed: {error:#}");
    }
    if removed.is_err() {
        std::process::exit(1);
    }
    conclusion.exit();
}

/// A test that returns an error instead of panicking.
pub fn trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| format!("{error:#}").into()))
}
