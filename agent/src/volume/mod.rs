//! Volumes of pods: one module for each kind, prepared before a pod starts and removed after it is gone.
//!
//! Owns everything below `<root>/pods/<uid>/volumes`. `prepare` and `teardown` are idempotent and may be interrupted at any
//! point: they look again. Nothing here ever follows a symbolic link that a pod could have made, and nothing is removed
//! across a mount. What a pod asks for and this agent cannot do is named by `unsupported`, never passed over.

mod beneath;
mod error;
pub mod fields;
mod inside;
mod kinds;
mod manager;
mod mounts;
mod ownership;
mod place;
pub mod sizes;
mod subpath;
mod unsupported;
mod userns;

#[cfg(fuzzing)]
pub use kinds::fuzzing;

pub use error::{Class, Error, IN_USE};
pub use fields::{FieldError, PodContext, field_value, resource_value};
pub use kinds::checked as checked_path;
pub use manager::{Manager, Prepared, SubPath};
pub use unsupported::{Unsupported, unsupported};

type Result<T> = std::result::Result<T, Error>;
