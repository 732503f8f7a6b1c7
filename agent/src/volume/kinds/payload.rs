//! What goes into a volume of files: names, bytes and modes, taken from API objects. Pure.

use crate::volume::{Error, Result};
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Secret};
use std::collections::BTreeMap;

/// The API's default for `defaultMode`.
pub(super) const DEFAULT_MODE: i32 = 0o644;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    /// Owner, where a file must be readable by one user only.
    pub(super) uid: Option<u32>,
}

/// All files of a volume by their relative path; a later source wins over an earlier one.
pub(super) type Payload = BTreeMap<String, File>;

/// How keys become files.
pub(super) struct Mapping<'a> {
    pub(super) volume: &'a str,
    pub(super) items: &'a [KeyToPath],
    pub(super) default_mode: i32,
    pub(super) optional: bool,
}

/// The keys of a ConfigMap or Secret, as one.
pub(super) struct Keys<'a> {
    kind: &'static str,
    name: &'a str,
    values: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Keys<'a> {
    /// `None` is an object that is not there and need not be.
    pub(super) fn config_map(name: &'a str, object: Option<&'a ConfigMap>) -> Keys<'a> {
        let text = object.iter().flat_map(|o| o.data.iter().flatten()).map(|(k, v)| (k.as_str(), v.as_bytes()));
        let binary = object.iter().flat_map(|o| o.binary_data.iter().flatten()).map(|(k, v)| (k.as_str(), v.0.as_slice()));
        // The API refuses a key in both; text wins where `items` asks, and so it does here.
        Keys { kind: "configmap", name, values: binary.chain(text).collect() }
    }

    pub(super) fn secret(name: &'a str, object: Option<&'a Secret>) -> Keys<'a> {
        let values = object.iter().flat_map(|o| o.data.iter().flatten()).map(|(k, v)| (k.as_str(), v.0.as_slice()));
        Keys { kind: "secret", name, values: values.collect() }
    }

    /// All keys, or those that the items name.
    pub(super) fn files(&self, mapping: &Mapping<'_>) -> Result<Payload> {
        let mut out = Payload::new();
        if mapping.items.is_empty() {
            for (key, data) in &self.values {
                let path = checked(mapping.volume, key)?;
                out.insert(path, File { data: data.to_vec(), mode: mode(mapping.default_mode), uid: None });
            }
            return Ok(out);
        }
        for item in mapping.items {
            let path = checked(mapping.volume, &item.path)?;
            match self.values.get(item.key.as_str()) {
                Some(data) => {
                    let mode = mode(item.mode.unwrap_or(mapping.default_mode));
                    out.insert(path, File { data: data.to_vec(), mode, uid: None });
                }
                None if mapping.optional => {}
                None => {
                    return Err(Error::Key {
                        volume: mapping.volume.to_owned(),
                        kind: self.kind,
                        name: self.name.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(out)
    }
}

pub(super) fn mode(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0) & 0o7777
}

/// The path without empty and `.` parts; refused where it could leave the volume or meet the names used inside it.
pub fn checked(volume: &str, path: &str) -> Result<String> {
    let refuse = || Error::Path { volume: volume.to_owned(), path: path.to_owned() };
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let bad = |p: &&str| p.contains('\0') || *p == ".." || p.len() > 255;
    if path.starts_with('/') || path.len() > 4096 || parts.is_empty() || parts.iter().any(bad) || parts[0].starts_with("..") {
        return Err(refuse());
    }
    Ok(parts.join("/"))
}

/// Where one path needs a folder and another a file of the same name.
pub(super) fn conflict(payload: &Payload) -> Option<&str> {
    payload.keys().find(|path| path.match_indices('/').any(|(i, _)| payload.contains_key(&path[..i]))).map(String::as_str)
}

#[cfg(test)]
mod tests;
