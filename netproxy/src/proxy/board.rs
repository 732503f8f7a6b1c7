//! How the agent's word on its own pods reaches the proxy, and how it learns that the kernel has it.
//!
//! A `watch` of all words: only the newest matter, a writer never waits, and a proxy that is slow or stuck holds nobody up. Each
//! change has a number; the proxy publishes the number of the last one that is in the kernel.

use crate::overlay::{PodWord, Uid, Words};
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug, Default)]
pub struct Board {
    /// The number of the last change.
    pub change: u64,
    pub words: Words,
}

/// The agent's end: what it knows of the pods of this node.
#[derive(Debug, Clone)]
pub struct OwnPods {
    board: watch::Sender<Arc<Board>>,
    installed: watch::Receiver<u64>,
}

/// The proxy's end.
#[derive(Debug)]
pub struct Reader {
    board: watch::Receiver<Arc<Board>>,
    installed: watch::Sender<u64>,
}

pub fn channel() -> (OwnPods, Reader) {
    let (board, words) = watch::channel(Arc::default());
    let (done, installed) = watch::channel(0);
    (OwnPods { board, installed }, Reader { board: words, installed: done })
}

impl OwnPods {
    /// What is known of a pod now.
    pub fn say(&self, uid: &str, word: PodWord) -> Installed {
        self.change(|words| match words.get_mut(uid) {
            Some(known) if *known == word => false,
            Some(known) => {
                *known = word;
                true
            }
            None => words.insert(Uid::from(uid), word).is_none(),
        })
    }

    /// The pod is gone and its uid will not be used again.
    pub fn gone(&self, uid: &str) -> Installed {
        self.change(|words| words.remove(uid).is_some())
    }

    fn change(&self, change: impl FnOnce(&mut Words) -> bool) -> Installed {
        let mut number = 0;
        self.board.send_if_modified(|board| {
            let mut words = board.words.clone();
            let changed = change(&mut words);
            number = board.change + u64::from(changed);
            if changed {
                *board = Arc::new(Board { change: number, words });
            }
            changed
        });
        Installed { number, installed: self.installed.clone() }
    }
}

impl Reader {
    /// Waits for a change; never returns once there is nobody who could make one.
    pub async fn changed(&mut self) {
        if self.board.changed().await.is_err() {
            std::future::pending().await
        }
    }

    pub fn read(&mut self) -> Arc<Board> {
        self.board.borrow_and_update().clone()
    }

    /// The kernel's rules follow this change and all before.
    pub fn installed(&self, change: u64) {
        self.installed.send_if_modified(|known| std::mem::replace(known, change) != change);
    }
}

/// One change on its way to the kernel.
#[derive(Debug, Clone)]
pub struct Installed {
    number: u64,
    installed: watch::Receiver<u64>,
}

impl Installed {
    /// Returns once the kernel's rules follow the change; never if the proxy ended, so it wants a limit.
    pub async fn wait(mut self) {
        if self.installed.wait_for(|done| *done >= self.number).await.is_err() {
            std::future::pending().await
        }
    }
}
