//! What can go wrong with a call, and what that means for trying again.
//!
//! Owns: the error type and its classes. Pure. Must never hold a secret: the client takes credentials out of the
//! runtime's words before they come here.

use std::time::Duration;

/// The only input to a decision about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// May work later, or may have worked: look again, then perhaps try again.
    Transient,
    /// The same call will fail again in the same way.
    Permanent,
    /// The object is not there.
    Gone,
}

/// A gRPC status code other than `ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The runtime answered with an error.
    #[error("{method}{}: {message} ({code:?})", named(object))]
    Call { method: &'static str, object: String, code: Code, message: String },

    /// No connection, or it broke during the call; then it is unknown whether the call took effect.
    #[error("{method}{}: no connection to the container runtime at {endpoint}: {reason}", named(object))]
    Unreachable { method: &'static str, object: String, endpoint: String, reason: String },

    /// Nothing came back in time; it is unknown whether the call took effect.
    #[error("{method}{}: the container runtime did not answer within {limit:?}", named(object))]
    Deadline { method: &'static str, object: String, limit: Duration },

    /// The command ran longer than it was allowed to. The runtime itself is well.
    #[error("ExecSync {container}: the command did not end within {timeout:?}")]
    ExecTimeout { container: String, timeout: Duration },

    /// This runtime does not have the call.
    #[error("{method}: the container runtime does not have this call")]
    Unimplemented { method: &'static str },

    /// An answer that cannot be what was meant.
    #[error("{method}: bad answer of the container runtime: {field}: {problem}")]
    Answer { method: &'static str, field: String, problem: String },

    /// A request that cannot be expressed, or that no runtime could understand. Nothing was sent.
    #[error("{method}: {field}: {problem}")]
    Request { method: &'static str, field: String, problem: String },

    #[error("container runtime endpoint {endpoint:?}: {problem}")]
    Endpoint { endpoint: String, problem: &'static str },
}

fn named(object: &str) -> String {
    if object.is_empty() { String::new() } else { format!(" {object}") }
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::Call { code, .. } => code.class(),
            Error::Unreachable { .. } | Error::Deadline { .. } | Error::ExecTimeout { .. } => Class::Transient,
            // The next answer may be a good one: that of an upgraded runtime, or of one that has recovered.
            Error::Answer { .. } => Class::Transient,
            Error::Unimplemented { .. } | Error::Request { .. } | Error::Endpoint { .. } => Class::Permanent,
        }
    }

    /// The call, named as in the interface; empty for a bad endpoint.
    pub fn method(&self) -> &'static str {
        match self {
            Error::Call { method, .. }
            | Error::Unreachable { method, .. }
            | Error::Deadline { method, .. }
            | Error::Unimplemented { method }
            | Error::Answer { method, .. }
            | Error::Request { method, .. } => method,
            Error::ExecTimeout { .. } => "ExecSync",
            Error::Endpoint { .. } => "",
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Error::Call { code, .. } => *code,
            Error::Unreachable { .. } => Code::Unavailable,
            Error::Deadline { .. } | Error::ExecTimeout { .. } => Code::DeadlineExceeded,
            Error::Unimplemented { .. } => Code::Unimplemented,
            Error::Answer { .. } => Code::DataLoss,
            Error::Request { .. } | Error::Endpoint { .. } => Code::InvalidArgument,
        }
    }

    /// What to show a user who already sees which object this is about: the runtime's own words where there are some.
    pub fn message(&self) -> String {
        match self {
            Error::Call { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    /// As Go programs print an error of the runtime, which people search for and tools compare.
    pub fn rpc_text(&self) -> String {
        match self {
            Error::Call { code, message, .. } => format!("rpc error: code = {code:?} desc = {message}"),
            other => other.to_string(),
        }
    }

    pub fn is_gone(&self) -> bool {
        self.class() == Class::Gone
    }

    pub fn is_unimplemented(&self) -> bool {
        self.code() == Code::Unimplemented
    }
}

impl Code {
    pub fn class(self) -> Class {
        match self {
            Code::NotFound => Class::Gone,
            Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated | Code::OutOfRange => {
                Class::Permanent
            }
            // Unknown is what containerd answers for most failures (CNI, runc, registry). A failed precondition and a name that
            // is still taken both end when something else has ended.
            Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Class::Transient,
        }
    }

    /// `None` for `ok`, which is not an error.
    pub(crate) fn from_tonic(code: tonic::Code) -> Option<Code> {
        Some(match code {
            tonic::Code::Ok => return None,
            tonic::Code::Cancelled => Code::Cancelled,
            tonic::Code::Unknown => Code::Unknown,
            tonic::Code::InvalidArgument => Code::InvalidArgument,
            tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
            tonic::Code::NotFound => Code::NotFound,
            tonic::Code::AlreadyExists => Code::AlreadyExists,
            tonic::Code::PermissionDenied => Code::PermissionDenied,
            tonic::Code::ResourceExhausted => Code::ResourceExhausted,
            tonic::Code::FailedPrecondition => Code::FailedPrecondition,
            tonic::Code::Aborted => Code::Aborted,
            tonic::Code::OutOfRange => Code::OutOfRange,
            tonic::Code::Unimplemented => Code::Unimplemented,
            tonic::Code::Internal => Code::Internal,
            tonic::Code::Unavailable => Code::Unavailable,
            tonic::Code::DataLoss => Code::DataLoss,
            tonic::Code::Unauthenticated => Code::Unauthenticated,
        })
    }

    #[cfg(feature = "fake")]
    pub(crate) fn to_tonic(self) -> tonic::Code {
        match self {
            Code::Cancelled => tonic::Code::Cancelled,
            Code::Unknown => tonic::Code::Unknown,
            Code::InvalidArgument => tonic::Code::InvalidArgument,
            Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Code::NotFound => tonic::Code::NotFound,
            Code::AlreadyExists => tonic::Code::AlreadyExists,
            Code::PermissionDenied => tonic::Code::PermissionDenied,
            Code::ResourceExhausted => tonic::Code::ResourceExhausted,
            Code::FailedPrecondition => tonic::Code::FailedPrecondition,
            Code::Aborted => tonic::Code::Aborted,
            Code::OutOfRange => tonic::Code::OutOfRange,
            Code::Unimplemented => tonic::Code::Unimplemented,
            Code::Internal => tonic::Code::Internal,
            Code::Unavailable => tonic::Code::Unavailable,
            Code::DataLoss => tonic::Code::DataLoss,
            Code::Unauthenticated => tonic::Code::Unauthenticated,
        }
    }
}
