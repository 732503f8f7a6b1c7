//! Changes of our tables by others, as the kernel tells of them.
//!
//! Owns a socket in the nf_tables group. What this program itself changes is left out by a filter in the kernel, so that a large
//! transaction of ours does not overflow the socket. Only says that something happened; nothing is listed.

use super::attr::{find, messages};
use super::layout::{SPARE, TABLE};
use crate::error::Error;
use netlink_sys::{Socket, SocketAddr};
use nix::libc::{self, EAGAIN, EINTR, ENOBUFS};
use std::io;
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const NETLINK_NETFILTER: isize = 12;
const GROUP_NFTABLES: u32 = 7;
const SUBSYSTEM: u16 = 10;
const NEWGEN: u16 = 15;
const DATAGRAM: usize = 32 << 10;

/// Must be made and used inside a tokio runtime.
pub struct Watch {
    socket: AsyncFd<Socket>,
}

impl Watch {
    /// `own` is the port of the socket whose changes are not to be told.
    pub fn open(own: u32) -> Result<Watch, Error> {
        let failed = |what| move |source| Error::Socket { what, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open for notifications"))?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed("bind for notifications"))?;
        leave_out(&socket, own).map_err(failed("filter of notifications"))?;
        socket.add_membership(GROUP_NFTABLES).map_err(failed("join the nf_tables group"))?;
        socket.set_non_blocking(true).map_err(failed("non-blocking notifications"))?;
        // SAFETY: the socket owns its descriptor, gives always the same one, and closes it only when dropped, after the `AsyncFd`.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = socket.map_err(|e| failed("watch for notifications")(e.into()))?;
        Ok(Watch { socket })
    }

    /// Returns once somebody else changed our tables, or may have since messages were lost.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable_mut().await?;
            let (mut ours, mut buffer) = (false, Vec::with_capacity(DATAGRAM));
            loop {
                buffer.clear();
                match ready.get_inner().recv(&mut buffer, 0) {
                    Ok(_) => ours |= messages(&buffer).any(|m| about_us(m.kind, m.body)),
                    Err(e) => match e.raw_os_error() {
                        Some(EINTR) => {}
                        Some(EAGAIN) => break,
                        Some(ENOBUFS) => ours = true,
                        _ => return Err(e),
                    },
                }
            }
            ready.clear_ready();
            if ours {
                return Ok(());
            }
        }
    }
}

/// The name of the table is the first attribute of everything but the end of a generation.
fn about_us(kind: u16, body: &[u8]) -> bool {
    kind >> 8 == SUBSYSTEM
        && kind & 0xff != NEWGEN
        && body
            .get(4..)
            .and_then(|a| find(a, 1))
            .is_some_and(|name| [TABLE, SPARE].map(|t| Some(t.as_bytes())).contains(&name.strip_suffix(&[0])))
}

/// A socket filter: messages whose header has that port are none of ours to read.
fn leave_out(socket: &Socket, port: u32) -> io::Result<()> {
    const HEADER_PORT: u32 = 12;
    let step = |code: u32, jt, k| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, HEADER_PORT),
        // Loaded as big-endian, though the header is in the host's order.
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, u32::from_be_bytes(port.to_ne_bytes())),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel copies the program, which lives until the call returns, with the length given.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const filter).cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
