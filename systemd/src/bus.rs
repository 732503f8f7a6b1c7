//! A connection to systemd's manager: to the manager itself, which takes nobody but root, or through the host's bus.
//!
//! Owns who we say we are, which answer belongs to a call, and every deadline. Blocks. It is there for as long as somebody asks, so
//! that nothing has to be mended when systemd starts itself anew or the bus does. What others send is passed over, and bounded.

use super::wire::{self, Call, HEAD, Kind, LONGEST, Malformed, Message, Writer};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("systemd cannot be reached: {}", .tried.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect::<Vec<_>>().join(", "))]
    Unreachable { tried: Vec<(PathBuf, io::Error)> },
    #[error("systemd at {path} does not let us in: {said:?}")]
    Refused { path: PathBuf, said: String },
    #[error("connection to systemd")]
    Io(#[source] io::Error),
    #[error("systemd did not answer {0} in time")]
    Late(&'static str),
    #[error("systemd sent a message that is none")]
    Malformed(#[from] Malformed),
    #[error("{what}: {name}: {words}")]
    Failed { what: &'static str, name: String, words: String },
    #[error("the job of {unit} ended with {result:?}")]
    Job { unit: String, result: String },
}

impl Error {
    /// The answer to a call was an error of this name.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Error::Failed { name, .. } if name == wanted)
    }
}

pub(crate) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(crate) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const SYSTEMD: &str = "org.freedesktop.systemd1";
/// A line of the greeting is never nearly this long.
const LINE: usize = 1024;

pub(crate) struct Bus {
    stream: UnixStream,
    path: PathBuf,
    until: Instant,
    serial: u32,
    /// There is a bus between: names are needed, and signals must be asked for.
    through: bool,
    /// Signals that came while an answer was waited for.
    jobs: Vec<(String, String)>,
}

impl Bus {
    /// Tries both places, systemd's own first. All that is done on the connection must be done by the deadline.
    pub(crate) fn connect(private: &Path, shared: &Path, until: Instant) -> Result<Bus, Error> {
        let mut tried = Vec::new();
        for (path, through) in [(private, false), (shared, true)] {
            match open(path) {
                Ok(stream) => {
                    let mut bus = Bus { stream, path: path.to_owned(), until, serial: 0, through, jobs: Vec::new() };
                    bus.greet()?;
                    return Ok(bus);
                }
                Err(error) => tried.push((path.to_owned(), error)),
            }
        }
        Err(Error::Unreachable { tried })
    }

    /// SASL EXTERNAL: the kernel vouches for who we are.
    fn greet(&mut self) -> Result<(), Error> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let hex: String = user.bytes().map(|b| format!("{b:02x}")).collect();
        // In one piece, as systemd's own clients do. It does not look again at what comes together with BEGIN, so that a message
        // right behind it would never be answered; after its OK nothing can.
        self.send(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes(), "a greeting")?;
        let said = self.line()?;
        if !said.starts_with("OK ") {
            return Err(Error::Refused { path: self.path.clone(), said });
        }
        if self.through {
            let bus = |member, signature| Call {
                destination: Some("org.freedesktop.DBus"),
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member,
                signature,
            };
            self.ask("Hello", &bus("Hello", ""), |_| {})?;
            let rule =
                format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved',path='{MANAGER_PATH}'");
            self.ask("AddMatch", &bus("AddMatch", "s"), |w| w.text(&rule))?;
            self.manager("Subscribe", "", |_| {})?;
        }
        Ok(())
    }

    /// Byte by byte: what follows the line is not ours to take yet.
    fn line(&mut self) -> Result<String, Error> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte, "a greeting")?;
            line.push(byte[0]);
            if line.len() > LINE {
                return Err(Malformed::Long.into());
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Calls a method of systemd's manager.
    pub(crate) fn manager(
        &mut self,
        member: &'static str,
        signature: &str,
        content: impl FnOnce(&mut Writer),
    ) -> Result<Message, Error> {
        self.systemd(MANAGER, member, signature, content)
    }

    pub(crate) fn systemd(
        &mut self,
        interface: &str,
        member: &'static str,
        signature: &str,
        content: impl FnOnce(&mut Writer),
    ) -> Result<Message, Error> {
        let destination = self.through.then_some(SYSTEMD);
        self.ask(member, &Call { destination, path: MANAGER_PATH, interface, member, signature }, content)
    }

    fn ask(&mut self, what: &'static str, call: &Call<'_>, content: impl FnOnce(&mut Writer)) -> Result<Message, Error> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&wire::call(serial, call, content), what)?;
        loop {
            let message = self.next(what)?;
            match &message.kind {
                Kind::Return { to } if *to == serial => return Ok(message),
                Kind::Error { to, name } if *to == serial => {
                    return Err(Error::Failed { what, name: name.clone(), words: message.words() });
                }
                _ => self.heed(&message)?,
            }
        }
    }

    /// Waits for the end of a job; `Ok` with how it ended.
    pub(crate) fn job(&mut self, job: &str) -> Result<String, Error> {
        loop {
            if let Some(at) = self.jobs.iter().position(|(path, _)| path == job) {
                return Ok(self.jobs.swap_remove(at).1);
            }
            // Those before it are of others.
            self.jobs.clear();
            let message = self.next("about a job")?;
            self.heed(&message)?;
        }
    }

    fn heed(&mut self, message: &Message) -> Result<(), Error> {
        match &message.kind {
            Kind::Signal { interface, member } if interface == MANAGER && member == "JobRemoved" => {
                // A busy systemd ends many jobs in the time of one call; more than this is not one.
                if self.jobs.len() >= 10_000 {
                    return Err(Malformed::Long.into());
                }
                self.jobs.push(message.job_removed()?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn next(&mut self, what: &'static str) -> Result<Message, Error> {
        let mut head = [0; HEAD];
        self.fill(&mut head, what)?;
        let (fields, body) = wire::lengths(&head)?;
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        debug_assert!(rest.len() <= LONGEST);
        self.fill(&mut rest, what)?;
        Ok(wire::message(&head, &rest)?)
    }

    fn left(&self, what: &'static str) -> Result<Duration, Error> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Error::Late(what)) } else { Ok(left) }
    }

    fn send(&mut self, bytes: &[u8], what: &'static str) -> Result<(), Error> {
        let left = self.left(what)?;
        let sent = self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|error| failed(error, what))
    }

    /// The deadline holds for the whole, however slowly its parts come.
    fn fill(&mut self, mut bytes: &mut [u8], what: &'static str) -> Result<(), Error> {
        while !bytes.is_empty() {
            let left = self.left(what)?;
            self.stream.set_read_timeout(Some(left)).map_err(Error::Io)?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(Error::Io(ErrorKind::UnexpectedEof.into())),
                Ok(n) => bytes = &mut bytes[n..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error, what)),
            }
        }
        Ok(())
    }
}

fn failed(error: io::Error, what: &'static str) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Late(what),
        _ => Error::Io(error),
    }
}

/// A listener whose queue is full is not waited for.
fn open(path: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
