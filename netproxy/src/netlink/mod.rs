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
mod socket;

use crate::conntrack::Flow;
use crate::diff::Transaction;
use crate::error::Error;
use crate::model::Family;
use crate::proxy::Kernel;
use crate::ruleset::Policy;
use attr::{Writer, find};
use batch::{Batch, Sealed, encode};
use expr::family_number;
use nix::libc::{EAFNOSUPPORT, ENOENT, EOPNOTSUPP};
pub use notify::Watch;
use socket::Netfilter;
use std::collections::BTreeSet;
use tracing::debug;

const NFTABLES: u16 = 10;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;

pub struct Netlink {
    tables: Netfilter,
    flows: Netfilter,
    /// That of the tables as last written; later transactions of the same tables use it.
    policy: Policy,
}

impl Netlink {
    pub fn open() -> Result<Netlink, Error> {
        Ok(Netlink { tables: Netfilter::open()?, flows: Netfilter::open()?, policy: Policy::default() })
    }

    /// Tells of changes by others. Inside a tokio runtime only.
    pub fn watch(&self) -> Result<Watch, Error> {
        Watch::open(self.tables.port())
    }

    fn batch(&mut self, tx: &Transaction, keep: &BTreeSet<Family>) -> Sealed {
        if let Some(policy) = &tx.reset {
            self.policy = policy.clone();
        }
        encode(tx, &self.policy, keep).seal(true)
    }

    /// Whether our table is there and of the layout this program makes, with nothing else in it.
    fn same_layout(&mut self, family: Family) -> bool {
        let mut w = Writer::default();
        let open = w.message(NFTABLES << 8 | GETSET, REQUEST | DUMP, 0, family_number(family), 0);
        w.text(1, layout::TABLE);
        w.end_message(open);
        let mut there = BTreeSet::new();
        let text = |v: &[u8]| String::from_utf8_lossy(v).trim_end_matches('\0').to_string();
        // A table that is not there is an error, and so is a dump that another change interrupted: both mean no.
        let listed = self.tables.dump(&w.bytes, |m| there.extend(m.body.get(4..).and_then(|a| find(a, 2)).map(text)));
        listed.is_ok() && there == layout::set_names(family)
    }
}

impl Kernel for Netlink {
    fn commit(&mut self, tx: &Transaction) -> Result<(), Error> {
        let families = tx.reset.as_ref().map(|p| p.families.clone()).unwrap_or_default();
        let keep: BTreeSet<Family> = families.into_iter().filter(|f| self.same_layout(*f)).collect();
        let sealed = self.batch(tx, &keep);
        match self.tables.transact(&sealed) {
            Err(Error::Refused { what, source, .. }) if !keep.is_empty() => {
                // Whatever stands in the way goes with the tables.
                debug!(what, error = %source, "tables cannot be written anew in place, replacing them");
                let sealed = self.batch(tx, &BTreeSet::new());
                self.tables.transact(&sealed)
            }
            other => other,
        }
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), Error> {
        let sealed = encode(tx, tx.reset.as_ref().unwrap_or(&self.policy), &BTreeSet::new()).seal(false);
        self.tables.transact(&sealed)
    }

    fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        ct::flows(&mut self.flows)
    }

    fn delete_flow(&mut self, flow: &Flow) -> Result<(), Error> {
        ct::delete(&mut self.flows, flow)
    }
}

/// Removes everything this crate ever makes in nf_tables, in the network namespace of the calling thread, and says which tables
/// those were. Nothing there is no error, nor is a kernel without one of the families.
pub fn cleanup() -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for family in Family::ALL {
        if remove_table(family, layout::TABLE)? {
            removed.push(batch::table_text(family).to_owned());
        }
    }
    Ok(removed)
}

/// Removes a table of this name, whoever made it. False if there was none.
pub fn remove_table(family: Family, name: &str) -> Result<bool, Error> {
    let mut batch = Batch::new();
    batch.message(DELTABLE, 0, family, "table", |w| w.text(1, name));
    match Netfilter::open()?.transact(&batch.seal(true)) {
        Ok(()) => Ok(true),
        Err(Error::Refused { source, .. })
            if matches!(source.raw_os_error(), Some(ENOENT | EAFNOSUPPORT | EOPNOTSUPP)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
