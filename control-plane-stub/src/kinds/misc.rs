//! The kinds outside the core and apps groups, one file for each API group or two.

pub mod certificates;
pub mod classes;
pub mod coordination;
pub mod discovery;
pub mod reviews;
pub mod storage;

pub use certificates::CERTIFICATE_SIGNING_REQUEST;
pub use classes::{PRIORITY_CLASS, RUNTIME_CLASS};
pub use coordination::LEASE;
pub use discovery::ENDPOINT_SLICE;
pub use reviews::{
    LOCAL_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_REVIEW, SUBJECT_ACCESS_REVIEW, TOKEN_REVIEW,
};
pub use storage::{CSI_DRIVER, CSI_NODE, STORAGE_CLASS};

#[cfg(test)]
mod tests;
