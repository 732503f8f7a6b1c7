//! `image`: the runtime mounts it when a container is made; its pull belongs to that of the container's own image.

use super::{Ready, Shown};

pub(super) fn prepare() -> Ready {
    Ready { shown: Shown::Nothing, read_only: true, renew_at: None }
}
