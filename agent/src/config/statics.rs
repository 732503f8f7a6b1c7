//! Where static pods come from: fields and flags. Pure, but for the folder that a relative path begins at.

use super::fields::Fields;
use super::{Args, StaticPods, duration};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::path::Path;

/// The fields of KubeletConfiguration.
pub(super) fn apply(statics: &mut StaticPods, fields: &mut Fields<'_>) {
    statics.path = fields.text("staticPodPath").map(Into::into);
    if let Some(text) = fields.text("staticPodURL") {
        match url(&text) {
            Ok(url) => statics.url = Some(url),
            Err(why) => fields.problem("staticPodURL", why),
        }
    }
    statics.file_check = fields.duration("fileCheckFrequency").unwrap_or(statics.file_check);
    statics.http_check = fields.duration("httpCheckFrequency").unwrap_or(statics.http_check);
    match fields.take("staticPodURLHeader") {
        None => {}
        Some(Value::Object(map)) => {
            for (name, values) in map {
                let field = format!("staticPodURLHeader.{name}");
                let Value::Array(values) = values else {
                    fields.problem(&field, "expected a list of strings");
                    continue;
                };
                for value in values {
                    match value.as_str().ok_or("expected a string").and_then(|value| header(&mut statics.headers, &name, value)) {
                        Ok(()) => {}
                        Err(why) => fields.problem(&field, why),
                    }
                }
            }
        }
        Some(_) => fields.problem("staticPodURLHeader", "expected a map of lists of strings"),
    }
}

/// A path in the file begins at the file's folder.
pub(super) fn anchor(statics: &mut StaticPods, config: Option<&Path>) {
    if let (Some(path), Some(folder)) = (&mut statics.path, config.and_then(Path::parent)) {
        *path = folder.join(&*path);
    }
}

/// The flags, which win. The error has the flag's name.
pub(super) fn flags(statics: &mut StaticPods, args: &Args) -> Result<(), (&'static str, String)> {
    if let Some(path) = &args.pod_manifest_path {
        statics.path = (!path.as_os_str().is_empty()).then(|| path.clone());
    }
    if let Some(text) = &args.manifest_url {
        statics.url = if text.is_empty() { None } else { Some(url(text).map_err(|why| ("manifest-url", why))?) };
    }
    if !args.manifest_url_header.is_empty() {
        statics.headers = HeaderMap::new();
    }
    for pair in args.manifest_url_header.iter().flat_map(|text| text.split(',')).filter(|pair| !pair.trim().is_empty()) {
        let wrong = |why: &str| ("manifest-url-header", format!("{pair:?}: {why}"));
        let (name, value) = pair.split_once(':').ok_or_else(|| wrong("is not name:value"))?;
        header(&mut statics.headers, name.trim(), value.trim()).map_err(wrong)?;
    }
    for (flag, text, target) in [
        ("file-check-frequency", &args.file_check_frequency, &mut statics.file_check),
        ("http-check-frequency", &args.http_check_frequency, &mut statics.http_check),
    ] {
        if let Some(text) = text {
            let value = duration::parse(text).map_err(|error| (flag, error.to_string()))?;
            if !value.is_zero() {
                *target = value;
            }
        }
    }
    Ok(())
}

fn url(text: &str) -> Result<String, String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not an http or https url")),
    }
}

fn header(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is not the name of a header")?;
    let mut value = HeaderValue::from_str(value).map_err(|_| "has a value that no header can have")?;
    // Tokens are passed in them.
    value.set_sensitive(true);
    headers.append(name, value);
    Ok(())
}
