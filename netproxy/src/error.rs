//! What can go wrong between this crate and the kernel.

use std::io;

/// The only input to a retry decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Transient,
    Permanent,
    Gone,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("netlink socket: {what}")]
    Socket { what: &'static str, source: io::Error },
    #[error("nf_tables refused {what}: {source}{}", if message.is_empty() { String::new() } else { format!(" ({message})") })]
    Refused { what: String, message: String, source: io::Error },
    #[error("nf_tables gave no answer to a batch of {bytes} bytes: whether it was taken is unknown")]
    NoAnswer { bytes: usize },
    #[error("conntrack: {what}")]
    Conntrack { what: &'static str, source: io::Error },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::Refused { source, .. } => match source.raw_os_error() {
                // Busy tables, a generation that moved on, memory, an interrupted call.
                Some(nix::libc::EBUSY | nix::libc::ERESTART | nix::libc::ENOMEM | nix::libc::EINTR | nix::libc::EAGAIN) => {
                    Class::Transient
                }
                _ => Class::Permanent,
            },
            _ => Class::Transient,
        }
    }
}
