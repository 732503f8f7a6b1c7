//! The CRI scenarios of the client crate, on each real containerd.

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![]
}
