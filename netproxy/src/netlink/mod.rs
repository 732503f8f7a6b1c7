//! The kernel: nf_tables transactions and conntrack entries over netlink.
//!
//! Owns two sockets of the network namespace they were opened in. Blocking; not for async threads. Never lists or touches a
//! table that is not ours.

pub mod attr;
mod batch;
mod ct;
mod expr;
mod layout;
mod socket;

use crate::conntrack::Flow;
use crate::diff::Transaction;
use crate::error::Error;
use crate::model::Family;
use crate::proxy::Kernel;
use batch::{Batch, encode, remove_tables};
use nix::libc::{EAFNOSUPPORT, EOPNOTSUPP};
use socket::Netfilter;

const NFTABLES: u16 = 10;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

pub struct Netlink {
    tables: Netfilter,
    flows: Netfilter,
    /// The mark bit of the tables as last written; later transactions of the same tables use it.
    mark: u32,
}

impl Netlink {
    pub fn open() -> Result<Netlink, Error> {
        Ok(Netlink { tables: Netfilter::open()?, flows: Netfilter::open()?, mark: 0 })
    }

    fn batch(&mut self, tx: &Transaction) -> Batch {
        if let Some(policy) = &tx.reset {
            self.mark = policy.masquerade_mark;
        }
        encode(tx, self.mark)
    }
}

impl Kernel for Netlink {
    fn commit(&mut self, tx: &Transaction) -> Result<(), Error> {
        let sealed = self.batch(tx).seal(true);
        self.tables.transact(&sealed)
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), Error> {
        let sealed = self.batch(tx).seal(false);
        self.tables.transact(&sealed)
    }

    fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        ct::flows(&mut self.flows)
    }

    fn delete_flow(&mut self, flow: &Flow) -> Result<(), Error> {
        ct::delete(&mut self.flows, flow)
    }
}

/// Removes everything this crate ever makes in nf_tables, in the network namespace of the calling thread. Nothing there is no
/// error, nor is a kernel without one of the families.
pub fn cleanup() -> Result<(), Error> {
    let mut socket = Netfilter::open()?;
    for family in Family::ALL {
        let mut batch = Batch::new();
        remove_tables(&mut batch, [family].into_iter());
        match socket.transact(&batch.seal(true)) {
            Err(Error::Refused { source, .. }) if matches!(source.raw_os_error(), Some(EAFNOSUPPORT | EOPNOTSUPP)) => {}
            other => other?,
        }
    }
    Ok(())
}
