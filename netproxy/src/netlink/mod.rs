//! The kernel: nf_tables transactions and conntrack entries over netlink.
//!
//! Owns two sockets of the network namespace they were opened in. Blocking; not for async threads. Never lists or touches a
//! table that is not ours.

pub mod attr;
mod batch;
mod ct;
mod expr;
mod layout;
mod notify;
mod read;
mod socket;

use crate::conntrack::Flow;
use crate::diff::{Held, Pick, Place, Transaction, drawn_from};
use crate::error::Error;
use crate::model::Family;
use crate::proxy::{Kernel, Layout};
use crate::ruleset::Front;
use batch::{Batch, Rules, encode};
use nix::libc::{EAFNOSUPPORT, ENOENT, EOPNOTSUPP};
pub use notify::Watch;
use socket::Netfilter;
use std::time::Duration;

const NFTABLES: u16 = 10;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;

pub struct Netlink {
    tables: Netfilter,
    flows: Netfilter,
}

impl Netlink {
    pub fn open() -> Result<Netlink, Error> {
        Ok(Netlink { tables: Netfilter::open()?, flows: Netfilter::open()? })
    }

    /// Tells of changes by others. Inside a tokio runtime only.
    pub fn watch(&self) -> Result<Watch, Error> {
        Watch::open(self.tables.port())
    }
}

impl Kernel for Netlink {
    fn commit(&mut self, tx: &Transaction) -> Result<(), Error> {
        let mut there = Rules::new();
        for family in tx.base.iter().flat_map(|base| &base.keep) {
            read::rules(&mut self.tables, tx.place, *family, &mut there)?;
        }
        let sealed = encode(tx, &there).seal(true);
        self.tables.transact(&sealed)
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), Error> {
        let sealed = encode(tx, &Rules::new()).seal(false);
        self.tables.transact(&sealed)
    }

    fn layout(&mut self, place: Place, family: Family) -> Result<Layout, Error> {
        read::layout_of(&mut self.tables, place, family)
    }

    fn read(&mut self, family: Family, each: &mut dyn FnMut(Held)) -> Result<bool, Error> {
        read::elements(&mut self.tables, family, each)
    }

    fn held(&self) -> Duration {
        self.tables.sending
    }

    fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        ct::flows(&mut self.flows)
    }

    fn delete_flow(&mut self, flow: &Flow) -> Result<(), Error> {
        ct::delete(&mut self.flows, flow)
    }
}

/// The chain in which one of a front's endpoints is picked.
pub fn chain_of(front: &Front, endpoints: u32, affinity: Option<u32>) -> String {
    layout::pick_chain(&Pick { family: front.family(), kind: front.kind(), count: drawn_from(endpoints), affinity })
}

/// Removes everything this crate ever makes in nf_tables, in the network namespace of the calling thread, and says which tables
/// those were. Nothing there is no error, nor is a kernel without one of the families.
pub fn cleanup() -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for family in Family::ALL {
        for place in [Place::Main, Place::Spare] {
            let name = layout::table(place);
            if remove_table(family, name)? {
                removed.push(format!("table {} {name}", batch::family_text(family)));
            }
        }
    }
    Ok(removed)
}

/// Removes a table of this name, whoever made it. False if there was none.
pub fn remove_table(family: Family, name: &str) -> Result<bool, Error> {
    let mut batch = Batch::new(Place::Main);
    batch.message(DELTABLE, 0, family, "table", |w| w.text(1, name));
    match Netfilter::open()?.transact(&batch.seal(true)) {
        Ok(()) => Ok(true),
        Err(Error::Refused { source, .. }) if matches!(source.raw_os_error(), Some(ENOENT | EAFNOSUPPORT | EOPNOTSUPP)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
