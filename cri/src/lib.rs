//! CRI v1: how Ferrolet speaks to containerd and CRI-O.
//!
//! - [`types`]: domain types; no protobuf is visible outside this crate.
//! - [`Client`]: every call of the interface over a unix socket, with deadlines, reconnecting by itself.
//! - [`Error`]: what went wrong with which call on which object; [`Error::class`] is what a retry decision reads.
//! - `fake` and `scenario` (feature `fake`): a stateful runtime on a real socket for tests, and the scenarios that hold it
//!   and the real ones to the same behaviour; `tap` writes down what is called of either.

mod client;
mod convert;
mod error;
mod pb;
pub mod types;

#[cfg(feature = "fake")]
pub mod fake;
#[cfg(feature = "fake")]
pub mod scenario;
#[cfg(feature = "fake")]
pub mod tap;

pub use client::{Client, ContainerEvents, Deadlines, Options};
pub use error::{Class, Code, Error};
