//! End-to-end tests on real containerd and the real kernel, one after another in labs of their own.
//!
//! `cargo test -p ferrolet-tests --test e2e -- FILTER` runs some of them. They need root; without it each says so and fails.

mod runtime;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // Each test has a lab; two at once on a small machine only disturb each other.
    arguments.test_threads = Some(1);
    let trials: Vec<Trial> = runtime::trials();
    libtest_mimic::run(&arguments, trials).exit();
}

/// A test that returns an error instead of panicking.
pub fn trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| format!("{error:#}").into()))
}
