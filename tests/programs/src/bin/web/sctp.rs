//! SCTP for the tests: a server that answers each association with a text, and a client that asks once.
//!
//! With a kernel that has SCTP this is ordinary sockets. Where it has only its connection tracking, the packets of the
//! handshake (INIT, INIT ACK with the text as its cookie, COOKIE ECHO, COOKIE ACK) are made and read here, on raw sockets.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn bind(fd: i32, address: *const u8, len: u32) -> i32;
    fn connect(fd: i32, address: *const u8, len: u32) -> i32;
    fn listen(fd: i32, backlog: i32) -> i32;
    fn setsockopt(fd: i32, level: i32, name: i32, value: *const i32, len: u32) -> i32;
}

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const SOCK_STREAM: i32 = 1;
const SOCK_RAW: i32 = 3;
const PROTOCOL: i32 = 132;
const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const STATE_COOKIE: u16 = 7;

/// Answers each association with what `text` makes of the peer's address. Returns when the sockets are open.
pub fn serve(port: u16, text: fn(IpAddr) -> String) -> io::Result<()> {
    if let Ok(listener) = stream_listener(port) {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Ok(peer) = stream.peer_addr() else { continue };
                let _ = stream.write_all(text(peer.ip().to_canonical()).as_bytes());
            }
        });
        return Ok(());
    }
    let mut opened = 0;
    for family in [AF_INET, AF_INET6] {
        if let Ok(socket) = open(family, SOCK_RAW) {
            opened += 1;
            // SAFETY: the descriptor is new and nobody else's; recvfrom and sendto are the same for all kinds of sockets.
            let socket = unsafe { UdpSocket::from_raw_fd(socket) };
            std::thread::spawn(move || answer(&socket, family, port, text));
        }
    }
    if opened == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks once, from this port; the server's text. An error when nothing came within the limit.
pub fn ask(to: SocketAddr, from_port: u16, limit: Duration) -> io::Result<String> {
    match stream(to, from_port, limit) {
        Ok(mut stream) => {
            let mut text = vec![0; 256];
            let n = stream.read(&mut text)?;
            Ok(String::from_utf8_lossy(&text[..n]).into_owned())
        }
        Err(error) if error.raw_os_error() == Some(93) => shake_hands(to, from_port, limit),
        Err(error) => Err(error),
    }
}

fn open(family: i32, kind: i32) -> io::Result<i32> {
    // SAFETY: takes and gives only integers.
    match unsafe { socket(family, kind, PROTOCOL) } {
        -1 => Err(io::Error::last_os_error()),
        fd => Ok(fd),
    }
}

/// A sockaddr_in or sockaddr_in6.
fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let mut bytes = (if address.is_ipv4() { AF_INET } else { AF_INET6 } as u16).to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => bytes.extend(ip.octets().into_iter().chain([0; 8])),
        IpAddr::V6(ip) => bytes.extend([0; 4].into_iter().chain(ip.octets()).chain([0; 4])),
    }
    bytes
}

fn stream_socket(local: SocketAddr) -> io::Result<i32> {
    let fd = open(if local.is_ipv4() { AF_INET } else { AF_INET6 }, SOCK_STREAM)?;
    let bytes = sockaddr(local);
    // SAFETY: both pointers are to live values of the lengths given.
    let failed =
        unsafe { setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &1, 4) != 0 || bind(fd, bytes.as_ptr(), bytes.len() as u32) != 0 };
    if failed { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn stream_listener(port: u16) -> io::Result<TcpListener> {
    let fd =
        stream_socket((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|_| stream_socket((Ipv4Addr::UNSPECIFIED, port).into()))?;
    // SAFETY: the descriptor is new and nobody else's; accept is the same for all kinds of streams.
    if unsafe { listen(fd, 64) } == 0 { Ok(unsafe { TcpListener::from_raw_fd(fd) }) } else { Err(io::Error::last_os_error()) }
}

fn stream(to: SocketAddr, from_port: u16, limit: Duration) -> io::Result<TcpStream> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let fd = stream_socket((any, from_port).into())?;
    // SAFETY: the descriptor is new and nobody else's; read, write and their limits are the same for all kinds of streams.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    // Linux bounds connect by the write timeout.
    stream.set_write_timeout(Some(limit))?;
    stream.set_read_timeout(Some(limit))?;
    let bytes = sockaddr(to);
    // SAFETY: the pointer is to a live value of the length given.
    if unsafe { connect(fd, bytes.as_ptr(), bytes.len() as u32) } == 0 { Ok(stream) } else { Err(io::Error::last_os_error()) }
}

fn answer(socket: &UdpSocket, family: i32, port: u16, text: fn(IpAddr) -> String) {
    let mut buffer = [0; 2048];
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        let Some(packet) = Packet::read(payload(&buffer[..n], family)) else { continue };
        if packet.to != port {
            continue;
        }
        let reply = match packet.kind {
            // The client's tag is the first field of its INIT.
            INIT if packet.body.len() >= 16 => {
                let tag = u32::from_be_bytes([packet.body[0], packet.body[1], packet.body[2], packet.body[3]]);
                Packet { from: port, to: packet.from, tag, kind: INIT_ACK, body: init(tag ^ 1, text(from.ip()).as_bytes()) }
            }
            // The server's tag is one bit beside the client's.
            COOKIE_ECHO => Packet { from: port, to: packet.from, tag: packet.tag ^ 1, kind: COOKIE_ACK, body: vec![] },
            _ => continue,
        };
        let _ = socket.send_to(&reply.bytes(), (from.ip(), 0));
    }
}

fn shake_hands(to: SocketAddr, from_port: u16, limit: Duration) -> io::Result<String> {
    let family = if to.is_ipv4() { AF_INET } else { AF_INET6 };
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { UdpSocket::from_raw_fd(open(family, SOCK_RAW)?) };
    // A connected raw socket is told of ICMP errors.
    socket.connect((to.ip(), 0))?;
    let end = Instant::now() + limit;
    let tag = std::process::id() << 1 | 0x4000_0000;
    let send = |tag, kind, body| socket.send(&Packet { from: from_port, to: to.port(), tag, kind, body }.bytes());
    send(0, INIT, init(tag, &[]))?;
    let mut buffer = [0; 2048];
    let mut text = None;
    loop {
        let left = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero());
        let left = left.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))?;
        socket.set_read_timeout(Some(left))?;
        let n = socket.recv(&mut buffer)?;
        let Some(packet) = Packet::read(payload(&buffer[..n], family)) else { continue };
        if packet.to != from_port || packet.from != to.port() || packet.tag != tag {
            continue;
        }
        match (packet.kind, &text) {
            (INIT_ACK, None) if packet.body.len() > 20 => {
                let len = usize::from(u16::from_be_bytes([packet.body[18], packet.body[19]])).clamp(4, packet.body.len() - 16);
                let cookie = packet.body[20..16 + len].to_vec();
                text = Some(String::from_utf8_lossy(&cookie).into_owned());
                send(tag ^ 1, COOKIE_ECHO, cookie)?;
            }
            (COOKIE_ACK, Some(text)) => return Ok(text.clone()),
            _ => {}
        }
    }
}

/// Raw IPv4 sockets give the IP header too.
fn payload(bytes: &[u8], family: i32) -> &[u8] {
    let header = if family == AF_INET { bytes.first().map_or(0, |b| usize::from(b & 15) * 4) } else { 0 };
    bytes.get(header..).unwrap_or_default()
}

/// The fixed part of INIT and INIT ACK, and a cookie unless it is empty.
fn init(tag: u32, cookie: &[u8]) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.extend(65_536_u32.to_be_bytes());
    body.extend([0, 1, 0, 1]);
    body.extend(1_u32.to_be_bytes());
    if !cookie.is_empty() {
        body.extend(STATE_COOKIE.to_be_bytes());
        body.extend((cookie.len() as u16 + 4).to_be_bytes());
        body.extend(cookie);
    }
    body
}

/// A packet of one chunk.
struct Packet {
    from: u16,
    to: u16,
    tag: u32,
    kind: u8,
    body: Vec<u8>,
}

impl Packet {
    fn read(bytes: &[u8]) -> Option<Packet> {
        let short = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let tag = u32::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?, *bytes.get(6)?, *bytes.get(7)?]);
        let len = usize::from(short(14)?).max(4);
        let body = bytes.get(16..12 + len)?.to_vec();
        let mut zeroed = bytes.to_vec();
        zeroed[8..12].fill(0);
        if crc32c(&zeroed).to_le_bytes() != bytes[8..12] {
            return None;
        }
        Some(Packet { from: short(0)?, to: short(2)?, tag, kind: bytes[12], body })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.from.to_be_bytes(), self.to.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0, 0, 0, 0, self.kind, 0]);
        bytes.extend((self.body.len() as u16 + 4).to_be_bytes());
        bytes.extend(&self.body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let sum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&sum);
        bytes
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
