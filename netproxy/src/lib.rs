//! Service load balancing in nf_tables: what kube-proxy does, by a few large maps.
//!
//! The way of a change: `wire` (API JSON) -> `convert` -> `model` -> `tables` -> `select` (which endpoints) -> `compile`
//! (`ruleset`) -> `diff` (transaction) -> `netlink` (batch to the kernel). Everything before `netlink` is pure. `proxy` is the
//! task that owns the state; `trace` answers what the rules do to a packet. HOOKS.md says which hook does what.

pub mod compile;
pub mod conntrack;
pub mod convert;
pub mod describe;
pub mod diff;
mod error;
pub mod health;
pub mod local;
pub mod memory;
pub mod model;
pub mod netlink;
pub mod overlay;
pub mod proxy;
pub mod ruleset;
pub mod select;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod wire;

pub use error::{Class, Error};
pub use local::{BadInterfaceName, InterfaceName, LocalTraffic};
pub use model::{Family, Key, Proto};
pub use netlink::cleanup;
pub use overlay::PodWord;
pub use proxy::board::{self, Installed, OwnPods};
pub use proxy::stats::Stats;
pub use proxy::{Config, Handle, Input, NodePortAddresses, Proxy};
