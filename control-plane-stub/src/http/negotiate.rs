//! What a client accepts and what it sent. Pure.

use crate::status::{ApiError, Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Plain,
    Table,
    Partial,
    PartialList,
    Discovery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub encoding: Encoding,
    pub view: View,
}

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
        }
    }
}

struct Range<'a> {
    media: &'a str,
    quality: f32,
    as_kind: &'a str,
    version: &'a str,
}

fn ranges(accept: &str) -> Vec<Range<'_>> {
    let mut ranges: Vec<Range<'_>> = accept
        .split(',')
        .map(|part| {
            let mut fields = part.split(';').map(str::trim);
            let mut range = Range { media: fields.next().unwrap_or_default(), quality: 1.0, as_kind: "", version: "" };
            for field in fields {
                match field.split_once('=') {
                    Some(("q", q)) => range.quality = q.parse().unwrap_or(0.0),
                    Some(("as", kind)) => range.as_kind = kind,
                    Some(("v", version)) => range.version = version,
                    _ => {}
                }
            }
            range
        })
        .filter(|r| r.quality > 0.0)
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

/// The first thing the client lists that can be had. `allowed` says which views the endpoint has.
pub fn answer(accept: Option<&str>, allowed: &[View]) -> Result<Answer, ApiError> {
    let plain = Answer { encoding: Encoding::Json, view: View::Plain };
    let accept = accept.unwrap_or_default();
    if accept.trim().is_empty() {
        return Ok(plain);
    }
    for range in ranges(accept) {
        let encoding = match range.media {
            "application/json" | "*/*" | "application/*" | "text/plain" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => continue,
        };
        let view = match (range.as_kind, range.version) {
            ("", _) => View::Plain,
            ("Table", "v1") => View::Table,
            ("PartialObjectMetadata", "v1") => View::Partial,
            ("PartialObjectMetadataList", "v1") => View::PartialList,
            ("APIGroupDiscoveryList", "v2") => View::Discovery,
            _ => continue,
        };
        if view == View::Plain || allowed.contains(&view) {
            return Ok(Answer { encoding, view });
        }
    }
    let message = "only the following media types are accepted: application/json, application/yaml";
    Err(ApiError::new(Reason::NotAcceptable, message))
}

/// The media type of a body without its parameters.
pub fn media(content_type: Option<&str>) -> &str {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

pub fn unsupported(media: &str, accepted: &[&str]) -> ApiError {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {} (got {media:?})",
        accepted.join(", ")
    );
    ApiError::new(Reason::UnsupportedMediaType, message)
}

#[cfg(test)]
mod tests;
