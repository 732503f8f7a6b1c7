//! Container probes: what to check and when (pure), the checks themselves, and the task that drives them.
//!
//! `Machine` decides; it has no clock and does no I/O. `Driver` owns all machines in one task and runs each check in a task
//! of its own, so that a hung check delays nobody. The crate knows nothing of Kubernetes objects or of a runtime's protocol:
//! the agent hands in numeric ports and resolved hosts, and an `Exec` for commands in containers.

mod check;
mod driver;
mod machine;
mod spec;

pub use check::{Exec, ExecError, ExecOutcome, HookAnswer, Outcome, http_hook};
pub use driver::{
    BUCKETS, Driver, EventKind, InitialVerdicts, Limits, Precedence, ProbeEvent, Tallied, Tally, Verdict, Verdicts,
};
pub use machine::{Machine, Reading, State, Time};
pub use spec::{Check, Kind, Probe, Scheme, Spec};
