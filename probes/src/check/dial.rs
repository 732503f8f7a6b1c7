//! TCP connections that leave little behind: `SO_LINGER` of one second, closed away from the runtime's workers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

/// A connection whose `close` may wait for the peer's acknowledgement (that is what lingering means, also for a
/// non-blocking socket), so it is closed on the blocking pool.
pub(super) struct Connection {
    stream: Option<TcpStream>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take().and_then(|s| s.into_std().ok()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(stream));
        }
    }
}

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
            Ok(stream) => return Ok(Connection { stream: Some(stream) }),
            Err(error) => last = format!("dial tcp {address}: connect: {}", reason(&error)),
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Where it is not supported the connection is as good without.
    let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::from_secs(1)));
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
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, data)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
impl Connection {
    pub(super) fn stream_for_tests(self: Pin<&mut Self>) -> &TcpStream {
        self.get_mut().stream.as_ref().expect("not dropped")
    }
}
