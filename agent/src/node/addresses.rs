//! This host's own addresses: the data plane must know them, and they change while it runs.
//!
//! Owns one rtnetlink socket that tells of changes, and what was said last. Nothing is polled: a notification only wakes, and then
//! all addresses are read anew. Cancelled by its token.

use crate::config::hostinfo;
use ferrolet_netproxy::{Family, Input};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;
/// Addresses come and go in groups; what follows within this time is read together.
const SETTLE: Duration = Duration::from_millis(50);

/// All addresses by which this host can be reached. Not loopback ones, and not IPv6 link-local ones, which mean nothing without
/// their interface.
pub fn all() -> Vec<IpAddr> {
    let found = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    found.filter(usable).collect::<BTreeSet<_>>().into_iter().collect()
}

fn usable(ip: &IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

/// All of them, each once; the primary one of each family comes before the others of its family.
pub fn primary_first(primary: &[IpAddr], all: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    primary.iter().copied().chain(all).filter(|ip| seen.insert(*ip)).collect()
}

/// Where the primary addresses come from.
#[derive(Debug, Clone)]
pub enum Primary {
    /// By flag: they stay.
    Given(Vec<IpAddr>),
    /// Those of the default routes. What was found at the start stays in its family for as long as the host has it.
    Found(Vec<IpAddr>),
}

impl Primary {
    /// All addresses of this host, the primary ones first.
    fn all_now(&mut self) -> Vec<IpAddr> {
        let here = all();
        if let Primary::Found(found) = self {
            *found = settled(found, &here, &hostinfo::default_addresses());
        }
        let (Primary::Given(first) | Primary::Found(first)) = self;
        primary_first(first, here)
    }
}

/// The addresses found before that are still there, and in families that have none any more what is found now. Pure.
fn settled(before: &[IpAddr], all: &[IpAddr], now: &[IpAddr]) -> Vec<IpAddr> {
    let kept: Vec<IpAddr> = before.iter().copied().filter(|ip| all.contains(ip)).collect();
    let has = |family| kept.iter().any(|ip| Family::of(ip) == family);
    let missing: Vec<IpAddr> = now.iter().copied().filter(|ip| !has(Family::of(ip))).collect();
    kept.iter().copied().chain(missing).collect()
}

/// Sends the addresses before it returns, and goes on to send them when they change.
pub async fn spawn(mut primary: Primary, inputs: mpsc::Sender<Input>, cancel: CancellationToken) -> JoinHandle<()> {
    // Open before the first look, so that no change falls between.
    let mut changes = match Changes::open() {
        Ok(changes) => Some(changes),
        Err(error) => {
            warn!(%error, "changes of this host's addresses are not noticed");
            None
        }
    };
    let mut told = primary.all_now();
    // The end of the data plane ends the process elsewhere.
    let _ = inputs.send(Input::NodeAddresses(told.clone())).await;
    let work = async move {
        while let Some(open) = &mut changes {
            if let Err(error) = open.next().await {
                warn!(%error, "changes of this host's addresses are not noticed any more");
                changes = None;
            }
            let now = primary.all_now();
            if now != told {
                info!(addresses = ?now, "this host's addresses changed");
                told.clone_from(&now);
                let _ = inputs.send(Input::NodeAddresses(now)).await;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    })
}

/// Tells that addresses of the network namespace changed.
struct Changes {
    socket: AsyncFd<OwnedFd>,
}

impl Changes {
    fn open() -> io::Result<Changes> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, ADDRESS_GROUPS))?;
        // SAFETY: the descriptor is owned and closed only when dropped, after the `AsyncFd`.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Changes { socket: socket.map_err(io::Error::from)? })
    }

    /// Returns after a change, when no more are waiting.
    async fn next(&mut self) -> io::Result<()> {
        self.socket.readable().await?.retain_ready();
        tokio::time::sleep(SETTLE).await;
        loop {
            let mut ready = self.socket.readable().await?;
            let mut buffer = [0; 8192];
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                // What was lost does not matter: all addresses are read anew.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
