//! How pods begin, restart and end, and what is said of them, held to what kubelet's own tests of a node ask for.

mod ends;
mod order;
pub mod record;
mod restarts;
mod status;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [order::trials(), restarts::trials(), ends::trials(), status::trials()].into_iter().flatten().collect()
}
