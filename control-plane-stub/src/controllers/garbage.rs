//! Garbage collection by owner references.
//!
//! `decide` is pure: one object and the state of its owners in, what becomes of it out. An object goes when all its
//! owners are gone; an owner that is deleted in the foreground waits for those of its dependents that block it; one
//! whose dependents shall be orphaned stays until no reference to it is left. An owner of a kind nobody knows counts as
//! present: nothing is deleted on a guess.

use serde::Deserialize;

use crate::registry::Propagation;

#[cfg(test)]
mod tests;

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// The part of any object that this needs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Meta {
    #[serde(default)]
    pub metadata: Fields,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fields {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub deletion_timestamp: Option<String>,
    pub finalizers: Vec<String>,
    pub owner_references: Vec<Owner>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub block_owner_deletion: Option<bool>,
}

impl Owner {
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

impl Fields {
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    pub fn owned_by(&self, uid: &str) -> bool {
        self.owner_references.iter().any(|o| o.uid == uid)
    }

    /// Whether the deletion of this owner has to wait for this object.
    pub fn blocks(&self, uid: &str) -> bool {
        self.owner_references.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Present,
    /// Being deleted in the foreground: it waits for its dependents.
    Waiting,
    Absent,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Nothing,
    Delete(Propagation),
    /// Take the references to these owners off.
    Unlink(Vec<String>),
    /// Take the references to this object off all dependents, then the finalizer off.
    OrphanDependents,
    /// Look at the dependents; some of them still block.
    VisitDependents,
    /// Nothing blocks any more.
    RemoveFinalizer(&'static str),
}

/// `owners` are the states of the object's owner references, in their order; `blocked` says whether a dependent blocks
/// the object's own deletion.
pub fn decide(object: &Fields, owners: &[State], blocked: bool) -> Action {
    if object.is_deleting() {
        return match (object.has(ORPHAN), object.has(FOREGROUND)) {
            (true, _) => Action::OrphanDependents,
            (_, true) if blocked => Action::VisitDependents,
            (_, true) => Action::RemoveFinalizer(FOREGROUND),
            _ => Action::Nothing,
        };
    }
    let any = |state: State| owners.contains(&state);
    if owners.is_empty() || !(any(State::Absent) || any(State::Waiting)) {
        return Action::Nothing;
    }
    if any(State::Present) {
        let gone = object.owner_references.iter().zip(owners).filter(|(_, s)| **s != State::Present);
        return Action::Unlink(gone.map(|(o, _)| o.uid.clone()).collect());
    }
    // What an owner waits for is deleted in the foreground itself if others block it in turn.
    let foreground = any(State::Waiting) && blocked;
    Action::Delete(if foreground { Propagation::Foreground } else { own_wish(object) })
}

/// A finalizer put on beforehand says how the dependents shall be treated.
fn own_wish(object: &Fields) -> Propagation {
    if object.has(ORPHAN) {
        Propagation::Orphan
    } else if object.has(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    }
}
