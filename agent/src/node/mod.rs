//! This node in the API: its Node object and its Lease.
//!
//! - `facts` reads what the machine is; `runtime` asks the container runtime how it is; `images` what it holds.
//! - `status` (pure) makes a Node of all that, and tells what has to be written.
//! - `report` is the task that registers the Node and writes its status when it changes and from time to time.
//! - `words` (pure) is what is said of the Node in events.
//! - `own` tells the data plane what it must know of the Node: its zone, and whether it is on its way out.
//! - `addresses` tells it this host's own addresses, and follows their changes.
//! - `ranges` tells it where cluster IPs are taken from.
//! - `enforce` holds pods, and the node's own cgroups, to what is reserved.
//! - `lease` is the heartbeat: a task of its own that waits for nothing else on this node.

pub mod addresses;
pub mod enforce;
pub mod facts;
pub mod lease;
pub mod own;
pub mod ranges;
pub mod report;
pub mod runtime;
pub mod status;
pub mod words;
