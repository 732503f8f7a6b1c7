//! What the API says when it refuses: one error type and the `Status` body it becomes.
//! Owns the reasons, codes and sentences of Kubernetes' API errors. Must never do I/O.

use serde_json::{Value, json};

/// How a caller inside the process should go on after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same call may work later (conflict, overload, storage trouble).
    Transient,
    /// The same call never works.
    Permanent,
    /// What was asked for is no longer there (object or revision).
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
    RequestEntityTooLarge,
    Expired,
    TooManyRequests,
    Timeout,
    ServiceUnavailable,
    InternalError,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Invalid => "Invalid",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::Expired => "Expired",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::Timeout => "Timeout",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::InternalError => "InternalError",
        }
    }

    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// A refused request. `Display` is the sentence users see.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub reason: Reason,
    pub message: String,
    pub group: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub causes: Vec<Cause>,
    pub retry_after: Option<u32>,
}

impl ApiError {
    pub fn new(reason: Reason, message: impl Into<String>) -> ApiError {
        ApiError {
            reason,
            message: message.into(),
            group: "".into(),
            kind: "".into(),
            name: "".into(),
            causes: Vec::new(),
            retry_after: None,
        }
    }

    /// Names the object the error is about: details.group, .kind (the resource for most errors) and .name.
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> ApiError {
        self.group = group.into();
        self.kind = kind.into();
        self.name = name.into();
        self
    }

    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: impl Into<String>) -> ApiError {
        self.causes.push(Cause { reason: reason.to_owned(), message: message.into(), field: field.into() });
        self
    }

    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(Reason::BadRequest, message)
    }

    pub fn unauthorized() -> ApiError {
        ApiError::new(Reason::Unauthorized, "Unauthorized")
    }

    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(Reason::Forbidden, message)
    }

    pub fn internal(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    pub fn not_found(group: &str, plural: &str, name: &str) -> ApiError {
        ApiError::new(Reason::NotFound, format!("{} {name:?} not found", qualified(group, plural))).about(group, plural, name)
    }

    pub fn already_exists(group: &str, plural: &str, name: &str) -> ApiError {
        ApiError::new(Reason::AlreadyExists, format!("{} {name:?} already exists", qualified(group, plural)))
            .about(group, plural, name)
    }

    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> ApiError {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, plural));
        ApiError::new(Reason::Conflict, message).about(group, plural, name)
    }

    pub fn stale(group: &str, plural: &str, name: &str) -> ApiError {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        ApiError::conflict(group, plural, name, why)
    }

    pub fn forbidden_object(group: &str, plural: &str, name: &str, why: &str) -> ApiError {
        let what = qualified(group, plural);
        let message =
            if name.is_empty() { format!("{what} is forbidden: {why}") } else { format!("{what} {name:?} is forbidden: {why}") };
        ApiError::new(Reason::Forbidden, message).about(group, plural, name)
    }

    /// `causes` in the order they were found; the sentence lists them as the API server does.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> ApiError {
        let texts: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let list = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        let mut error = ApiError::new(Reason::Invalid, format!("{} {name:?} is invalid: {list}", qualified(group, kind)))
            .about(group, kind, name);
        error.causes = causes;
        error
    }

    pub fn expired(oldest: u64) -> ApiError {
        let _ = oldest;
        ApiError::new(Reason::Expired, "The resourceVersion for the provided watch is too old.")
    }

    pub fn method_not_allowed(group: &str, plural: &str, verb: &str) -> ApiError {
        let message = format!("{verb} is not supported on resources of kind {:?}", qualified(group, plural));
        ApiError::new(Reason::MethodNotAllowed, message).about(group, plural, "")
    }

    pub fn too_large(limit: usize) -> ApiError {
        ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}"))
    }

    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    pub fn class(&self) -> Class {
        match self.reason {
            Reason::Conflict | Reason::TooManyRequests | Reason::Timeout | Reason::ServiceUnavailable | Reason::InternalError => {
                Class::Transient
            }
            Reason::NotFound | Reason::Expired => Class::Gone,
            _ => Class::Permanent,
        }
    }

    /// The `Status` object that is the body of the answer.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.as_str(), "code": self.code(),
        });
        let mut details = serde_json::Map::new();
        for (field, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)] {
            if !text.is_empty() {
                details.insert(field.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self.causes.iter().map(Cause::to_json).collect();
            details.insert("causes".to_owned(), Value::Array(causes));
        }
        if let Some(seconds) = self.retry_after {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut cause = json!({"reason": self.reason, "message": self.message});
        if !self.field.is_empty() {
            cause["field"] = json!(self.field);
        }
        cause
    }
}

/// `pods`, but `deployments.apps`.
pub fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

#[cfg(test)]
mod tests;
