//! The kernel's own word that a change is in: a socket in the nf_tables group of a namespace.
//!
//! Independent of what is measured: it knows message headers, and looks for the bytes of an address, in elements and, since others
//! keep endpoints there, in rules.

use crate::netns::within;
use anyhow::{Context, Result, bail};
use ferrolet_netproxy::netlink::attr::messages;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Group 7 as a bit.
const GROUP_NFTABLES: u32 = 1 << 6;
const NEW_RULE: u16 = 10 << 8 | 6;
const NEW_ELEMENTS: u16 = 10 << 8 | 12;
const NEW_GENERATION: u16 = 10 << 8 | 15;
const DATAGRAM: usize = 64 << 10;
/// Long enough for somebody who writes much for one change.
const LIMIT: Duration = Duration::from_secs(300);

pub struct Listener {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Listener {
    pub fn open(netns: &str) -> Result<Listener> {
        let socket = within(netns, || -> Result<OwnedFd> {
            let protocol = SockProtocol::NetlinkNetFilter;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(LIMIT.as_secs() as i64, 0))?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP_NFTABLES))?;
            Ok(socket)
        })?
        .context("cannot listen to nf_tables")?;
        Ok(Listener { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Forgets what was told so far.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(e) => return Err(e).context("cannot read what nf_tables tells"),
            }
        }
    }

    /// When a change came that has this address in a new element or rule; any change if none is given.
    pub fn wait(&mut self, address: Option<Ipv4Addr>) -> Result<Instant> {
        let end = Instant::now() + LIMIT;
        loop {
            let n = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(n) => n,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e).with_context(|| format!("no change with {address:?} was told")),
            };
            let now = Instant::now();
            let found = messages(&self.buffer[..n]).any(|m| match address {
                Some(ip) => [NEW_ELEMENTS, NEW_RULE].contains(&m.kind) && m.body.windows(4).any(|bytes| bytes == ip.octets()),
                None => m.kind == NEW_GENERATION,
            });
            if found {
                return Ok(now);
            }
            if now > end {
                bail!("no change with {address:?} within {LIMIT:?}");
            }
        }
    }
}
