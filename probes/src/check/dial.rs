//! TCP connections that leave nothing behind: no socket waits in TIME_WAIT when a check is over, on neither side.
//!
//! A node that makes a thousand checks a second would else hold sixty thousand sockets, and as many entries of connection
//! tracking, at any time. So a connection ends with a reset; but a FIN goes before it, so that a server that reads sees the
//! ordinary end and no error (PostgreSQL, for one, writes a line to its log for each reset).

use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

/// Closed without waiting for anything.
pub(super) struct Connection {
    /// `None` only while it is dropped.
    stream: Option<TcpStream>,
    v6: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take().and_then(|s| s.into_std().ok()) else { return };
        let socket = socket2::SockRef::from(&stream);
        // Between FIN and reset the peer may answer with its own FIN, and then this side would have to wait after all. So from
        // here on nothing is heard: packets with less than all of their hops left are dropped.
        const ALL: libc::c_int = 255;
        let _ = if self.v6 { setsockopt(&stream, LeastHops6, &ALL) } else { setsockopt(&stream, LeastHops4, &ALL) };
        // To a peer that has closed no FIN may go: its side would be the one to wait. The reset alone ends both.
        let closed = matches!(socket.peek(&mut [MaybeUninit::uninit()]), Ok(0));
        if !closed {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }
}

sockopt_impl!(LeastHops4, SetOnly, libc::IPPROTO_IP, libc::IP_MINTTL, libc::c_int);
sockopt_impl!(LeastHops6, SetOnly, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, libc::c_int);

/// From the kernel's `in6.h`; not all C libraries have it.
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The kernel's text for an error, without the number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// Connects to the first address that answers. The error is a whole message.
pub(super) async fn connect(host: &str, port: u16) -> Result<Connection, String> {
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.collect(),
            Err(error) => return Err(format!("dial tcp: lookup {host}: {}", reason(&error))),
        },
    };
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match connect_to(address).await {
            Ok(stream) => return Ok(Connection { stream: Some(stream), v6: address.is_ipv6() }),
            Err(error) => last = format!("dial tcp {address}: connect: {}", reason(&error)),
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Lingering for no time at all means that closing resets the connection (Linux, `tcp_close`).
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    let stream = socket.connect(address).await?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

impl Connection {
    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        self.get_mut().stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, data)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }
    /// Left to the drop: HTTP's own end of a connection would send a FIN whoever was first.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, data)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
pub(super) mod tests;
