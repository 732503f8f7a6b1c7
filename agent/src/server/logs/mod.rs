//! Container logs: files in the CRI format, cut to what was asked for and followed while the container lives.
//!
//! `options` and `line` are pure; `read` goes through the file and its successors.

pub mod line;
pub mod options;
pub mod read;

pub use options::Options;
