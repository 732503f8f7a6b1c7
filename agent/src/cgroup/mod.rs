//! Pod cgroups: a pure plan by QoS class, and the thin writer for cgroup v1 and v2.
//!
//! Owns the cgroups named `kubepods*` below the configured root, and nothing else. `qos` and `plan` are pure; `Manager` is
//! the only thing that writes to the hierarchy. It never moves a process: the runtime puts containers below the parent it
//! is given.

mod container;
pub mod enforce;
mod error;
mod hierarchy;
mod manager;
mod plan;
mod qos;
mod read;
mod slices;
mod usage;

pub use container::{Extras, HostMemory, MemoryQos, SwapBehavior, extras, page_size_of, swaps};
pub use error::{Class, Error};
pub use manager::{Manager, Version};
pub use plan::{
    Asked, Driver, Limits, NodeCgroups, PodCgroup, Weights, amount, asked, asked_by_containers, cpu_quota, cpu_shares,
    cpu_weight, overhead, plan, pod_limits,
};
pub use qos::{Qos, qos};
pub use read::Found;
pub use usage::{Memory, PodUsage, Pressure, Stall, Throttling, Usage};

type Result<T> = std::result::Result<T, Error>;
