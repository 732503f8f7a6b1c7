//! Whether the runtime's lists show what its events said. Pure.

use super::PodRuntime;
use crate::pod::observed::State;
use ferrolet_cri::types::ContainerEventKind as Kind;

/// What an event said of a container or a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub id: String,
    pub kind: Kind,
}

/// What of it is not to be seen yet. What happened since, an end after a start for one, counts as seen.
pub(super) fn missing(said: Vec<Said>, seen: &PodRuntime) -> Vec<Said> {
    said.into_iter().filter(|said| !shows(said, seen)).collect()
}

fn shows(said: &Said, seen: &PodRuntime) -> bool {
    let container = seen.containers.iter().find(|c| c.id == said.id);
    let sandbox = seen.sandboxes.iter().find(|s| s.id == said.id);
    match said.kind {
        Kind::Created => container.is_some() || sandbox.is_some(),
        Kind::Started => container.is_none_or(|c| c.state != State::Created),
        Kind::Stopped => container.is_none_or(|c| !c.running()) && sandbox.is_none_or(|s| !s.ready),
        Kind::Deleted => container.is_none() && sandbox.is_none(),
    }
}
