//! The generated wire types, client and server. Owns nothing else than how those that carry secrets print themselves.
//!
//! Must never be visible outside this crate: `convert` is the only way in and out.

use std::fmt;

#[allow(clippy::all, dead_code, missing_docs)]
mod generated {
    tonic::include_proto!("runtime.v1");
}

pub use generated::*;

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=<{} bytes>", self.key, self.value.len())
    }
}

impl fmt::Debug for ExecSyncResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExecSyncResponse {{ exit_code: {} }}", self.exit_code)
    }
}
