//! Bodies: bounded reading and decoding of requests, and what answers are made of.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::negotiate::Encoding;
use crate::status::{ApiError, Reason};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

pub const BODY_LIMIT: usize = 3 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT)),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the body cannot be read: {error}"))),
        Err(_) => Err(ApiError::new(Reason::Timeout, "the body did not arrive in time")),
    }
}

/// A JSON or YAML object. A key given twice in YAML is an error of the parser.
pub fn decode(media: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    match media {
        "" | "application/json" | "text/json" => decode_json(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => decode_yaml(bytes),
        super::protobuf::MEDIA => super::protobuf::decode(bytes),
        other => Err(super::negotiate::unsupported(other, &["application/json", "application/yaml"])),
    }
}

pub fn decode_json(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::bad_request(format!("the body is not valid JSON: {error}")))
}

pub fn decode_yaml(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_yaml_ng::from_slice(bytes).map_err(|error| ApiError::bad_request(format!("the body is not valid YAML: {error}")))
}

pub fn encode(encoding: Encoding, value: &Value) -> Result<Vec<u8>, ApiError> {
    match encoding {
        Encoding::Json => {
            let mut bytes = serde_json::to_vec(value).map_err(ApiError::internal)?;
            bytes.push(b'\n');
            Ok(bytes)
        }
        Encoding::Yaml => serde_yaml_ng::to_string(value).map(String::into_bytes).map_err(ApiError::internal),
    }
}

pub fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn object(status: StatusCode, encoding: Encoding, value: &Value) -> Result<Response<Body>, ApiError> {
    Ok(respond(status, encoding.content_type(), full(encode(encoding, value)?)))
}

pub fn json(value: &Value) -> Result<Response<Body>, ApiError> {
    object(StatusCode::OK, Encoding::Json, value)
}

pub fn error(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = serde_json::to_vec(&error.to_status()).unwrap_or_default();
    let mut response = respond(status, "application/json", full(bytes));
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.reason == Reason::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
