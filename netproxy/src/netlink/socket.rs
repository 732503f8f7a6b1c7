//! A blocking netfilter netlink socket: one batch out, its answers in; one dump.

use super::attr::{Message, attrs, messages};
use super::batch::Sealed;
use crate::error::Error;
use netlink_sys::{Socket, SocketAddr};
use nix::libc::{EAGAIN, EINTR, MSG_DONTWAIT, MSG_TRUNC};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

const NETLINK_NETFILTER: isize = 12;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const RECEIVE_BUFFER: usize = 1 << 20;
const DATAGRAM: usize = 64 << 10;

pub struct Netfilter {
    socket: Socket,
    port: u32,
    send_room: usize,
    /// How long the last `send` took.
    pub sending: Duration,
    buffer: Vec<u8>,
}

/// An answer to a request: the error number, zero for an acknowledgement.
pub struct Answer {
    pub seq: u32,
    pub errno: i32,
    pub message: String,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Socket { what, source }
}

impl Netfilter {
    pub fn open() -> Result<Netfilter, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open"))?;
        let port = socket.bind_auto().map_err(failed("bind"))?.port_number();
        socket.set_ext_ack(true).map_err(failed("extended answers"))?;
        socket.set_cap_ack(true).map_err(failed("short answers"))?;
        let new = Netfilter { socket, port, send_room: 0, sending: Duration::ZERO, buffer: Vec::new() };
        // A refusal leaves the default, which only large dumps outgrow.
        let _ = setsockopt(&new.fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .or_else(|_| setsockopt(&new.fd(), sockopt::RcvBuf, &RECEIVE_BUFFER));
        Ok(new)
    }

    /// The kernel's number of this socket.
    pub fn port(&self) -> u32 {
        self.port
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the socket's own and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    /// A batch has to go out in one call, so the send buffer must hold all of it.
    fn make_room(&mut self, bytes: usize) -> Result<(), Error> {
        let room = bytes + (64 << 10);
        if room <= self.send_room {
            return Ok(());
        }
        setsockopt(&self.fd(), sockopt::SndBufForce, &room)
            .or_else(|_| setsockopt(&self.fd(), sockopt::SndBuf, &room))
            .map_err(|e| failed("send buffer")(e.into()))?;
        self.send_room = room;
        Ok(())
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.make_room(bytes.len())?;
        let began = Instant::now();
        loop {
            match self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0) {
                Ok(_) => {
                    self.sending = began.elapsed();
                    return Ok(());
                }
                Err(e) if e.raw_os_error() == Some(EINTR) => {}
                Err(e) => return Err(failed("send")(e)),
            }
        }
    }

    /// Sends a batch and reads what the kernel says to it. The kernel works within the call, so all answers are there after it.
    pub fn transact(&mut self, batch: &Sealed) -> Result<(), Error> {
        self.drain()?;
        self.send(&batch.bytes)?;
        let mut acknowledged = false;
        let mut refused = None;
        while let Some(datagram) = self.receive(MSG_DONTWAIT)? {
            for answer in messages(datagram).filter_map(|m| answer(&m)) {
                if answer.errno == 0 {
                    acknowledged |= answer.seq == batch.last_seq();
                } else if refused.is_none() {
                    refused = Some(answer);
                }
            }
        }
        match refused {
            Some(a) => {
                Err(Error::Refused { what: batch.what(a.seq), message: a.message, source: io::Error::from_raw_os_error(a.errno) })
            }
            None if acknowledged => Ok(()),
            None => Err(Error::NoAnswer { bytes: batch.bytes.len() }),
        }
    }

    /// Answers nobody waited for.
    fn drain(&mut self) -> Result<(), Error> {
        while self.receive(MSG_DONTWAIT)?.is_some() {}
        Ok(())
    }

    /// One datagram; `None` when there is none and the flags say not to wait.
    fn receive(&mut self, flags: i32) -> Result<Option<&[u8]>, Error> {
        self.buffer.clear();
        self.buffer.reserve(DATAGRAM);
        loop {
            match self.socket.recv(&mut self.buffer, flags | MSG_TRUNC) {
                Ok(n) if n > DATAGRAM => return Err(failed("receive: a message is too long")(io::ErrorKind::InvalidData.into())),
                Ok(_) => return Ok(Some(&self.buffer)),
                Err(e) if e.raw_os_error() == Some(EINTR) => {}
                Err(e) if e.raw_os_error() == Some(EAGAIN) => return Ok(None),
                Err(e) => return Err(failed("receive")(e)),
            }
        }
    }

    /// Sends a request for a dump and gives every message of the answer. False: something changed meanwhile, so that the answer
    /// may be of no one moment.
    pub fn dump(&mut self, request: &[u8], mut each: impl FnMut(&Message<'_>)) -> Result<bool, Error> {
        const NLM_F_DUMP_INTR: u16 = 0x10;
        self.drain()?;
        self.send(request)?;
        let mut whole = true;
        loop {
            let Some(datagram) = self.receive(0)? else { continue };
            for message in messages(datagram) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => {
                        if let Some(a) = answer(&message).filter(|a| a.errno != 0) {
                            return Err(failed("dump")(io::Error::from_raw_os_error(a.errno)));
                        }
                    }
                    _ => each(&message),
                }
            }
        }
    }

    /// Sends one request that asks for an acknowledgement and returns the error number it is answered with.
    pub fn request(&mut self, bytes: &[u8]) -> Result<i32, Error> {
        self.drain()?;
        self.send(bytes)?;
        loop {
            let Some(datagram) = self.receive(0)? else { continue };
            if let Some(a) = messages(datagram).find_map(|m| answer(&m)) {
                return Ok(a.errno);
            }
        }
    }
}

fn answer(m: &Message<'_>) -> Option<Answer> {
    if m.kind != NLMSG_ERROR {
        return None;
    }
    let errno = -i32::from_ne_bytes(m.body.get(..4)?.try_into().ok()?);
    // The header of the request follows, then the request itself unless it was cut off, then the attributes.
    let request_len = u32::from_ne_bytes(m.body.get(4..8)?.try_into().ok()?) as usize;
    let seq = u32::from_ne_bytes(m.body.get(12..16)?.try_into().ok()?);
    let echoed = if m.flags & NLM_F_CAPPED != 0 { 16 } else { request_len.next_multiple_of(4) };
    let tail = (m.flags & NLM_F_ACK_TLVS != 0).then(|| m.body.get(4 + echoed..)).flatten().unwrap_or_default();
    let text = attrs(tail).find(|(k, _)| *k == NLMSGERR_ATTR_MSG).map(|(_, v)| v);
    let message = text.map(|v| String::from_utf8_lossy(v).trim_end_matches('\0').to_string()).unwrap_or_default();
    Some(Answer { seq, errno, message })
}
