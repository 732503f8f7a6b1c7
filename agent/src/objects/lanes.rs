//! Connections for many watches: API servers take a limited number of streams on each, and requests must never wait for one.

use super::locked;
use std::sync::{Arc, Mutex, Weak};

/// Below the hundred streams that an API server allows on a connection where nothing else is set.
const WATCHES: usize = 80;

/// One connection and how many use it, by its references.
pub(super) struct Lane {
    pub(super) client: kube::Client,
}

pub(super) struct Lanes {
    another: Box<dyn Fn() -> kube::Client + Send + Sync>,
    open: Mutex<Vec<Weak<Lane>>>,
}

impl Lanes {
    pub(super) fn new(another: Box<dyn Fn() -> kube::Client + Send + Sync>) -> Lanes {
        Lanes { another, open: Mutex::default() }
    }

    /// A connection with room for one more watch; the room is free again once this is dropped.
    pub(super) fn take(&self) -> Arc<Lane> {
        let mut open = locked(&self.open);
        open.retain(|lane| lane.strong_count() > 0);
        // One reference is its own while it is looked at.
        let free = open.iter().find(|lane| lane.strong_count() < WATCHES).and_then(Weak::upgrade);
        free.unwrap_or_else(|| {
            let lane = Arc::new(Lane { client: (self.another)() });
            open.push(Arc::downgrade(&lane));
            lane
        })
    }
}
