//! Names of the labels and annotations on sandboxes and containers. What must survive the agent is written there.

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
pub const PORTS: &str = "io.kubernetes.container.ports";
pub const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Where the pod is from; see `static_pods::read`.
pub use crate::static_pods::read::SOURCE;

/// What the container was made from, by this agent's reckoning. Absent on containers that another agent has made, which
/// are therefore never taken for changed.
pub const OWN_HASH: &str = "ferrolet.dev/container-hash";
/// The resources that the container was started with, as JSON.
pub const OWN_RESOURCES: &str = "ferrolet.dev/resources";
/// Milliseconds to wait before the successor of this container starts.
pub const OWN_BACKOFF: &str = "ferrolet.dev/restart-backoff-ms";
/// How often all containers of the pod had been restarted together when this one was made.
pub const OWN_ROUND: &str = "ferrolet.dev/restart-round";
