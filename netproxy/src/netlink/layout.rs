//! The fixed part of our tables: sets, maps, chains and rules. HOOKS.md explains it; `trace` follows it.
//!
//! From a service's count to the chain that picks among so many, two lookups follow one another. `nft` cannot print that (an
//! assertion ends it), so the count goes through the packet's mark, which the same rule saves before and restores after.

mod chains;
mod names;
mod picks;
mod sets;

use super::batch::Batch;
use crate::diff::{Pick, Place};
use crate::model::Family;
use crate::ruleset::{PickKind, Policy};
pub use names::*;
pub use picks::{pick_element, pick_rules};

/// All sets and maps, the chains, and the rules in them. What is there already stays.
pub fn skeleton<'a>(b: &mut Batch, policy: &Policy, families: impl Iterator<Item = &'a Family>) {
    for family in families {
        sets::sets(b, *family);
        sets::marker(b, *family, &marker(*family));
        chains::chains(b, *family);
        chains::find_chains(b, *family, policy);
        chains::reject_chains(b, *family, policy);
        chains::base_chains(b, *family, policy);
    }
}

/// The name of an empty set that says which layout a table has: a digest of its sets and hooks, and of the rules that pick.
/// Tables of the same layout are put right in place.
fn marker(family: Family) -> String {
    let mut b = Batch::new(Place::Main);
    sets::sets(&mut b, family);
    chains::hooks(&mut b, family);
    // To write the rules of all these chains anew in place would keep the kernel too long: each binds a large map again.
    for kind in PickKind::ALL {
        for (affinity, count) in [(None, 2), (None, 128), (Some(1), 2), (Some(1), 128)] {
            pick_rules(&mut b, &Pick { family, kind, count, affinity });
        }
    }
    let bytes = b.seal(false).bytes;
    let digest = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("layout-{digest:016x}")
}

/// The names of all sets and maps of a table, as they are now.
pub fn set_names(family: Family) -> std::collections::BTreeSet<String> {
    let mut b = Batch::new(Place::Main);
    sets::sets(&mut b, family);
    b.sets_named().iter().cloned().chain([marker(family)]).collect()
}
