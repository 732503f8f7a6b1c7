//! Container images made on the spot: a root folder as a one-layer OCI archive, imported with `ctr`.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::path::Path;

pub const PAUSE: &str = "ferrolet.dev/pause:1";
pub const WEB: &str = "ferrolet.dev/web:1";

/// What goes into an image.
pub struct Image<'a> {
    pub name: &'a str,
    /// Path in the image, and the file on this host.
    pub files: &'a [(&'a str, &'a Path)],
    pub entrypoint: &'a [&'a str],
    /// What the program is given unless the pod says otherwise.
    pub arguments: &'a [&'a str],
    pub user: &'a str,
}

/// An image in the form that registries hand out.
pub struct Blobs {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The same input gives the same bytes.
pub fn build(image: &Image) -> Result<Blobs> {
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["tmp", "etc"] {
        layer.append_data(&mut header(0o777, 0, tar::EntryType::Directory), dir, std::io::empty())?;
    }
    layer.append_data(&mut header(0o644, PASSWD.len() as u64, tar::EntryType::Regular), "etc/passwd", PASSWD.as_bytes())?;
    for (path, file) in image.files {
        let bytes = std::fs::read(file)?;
        let path = path.trim_start_matches('/');
        layer.append_data(&mut header(0o755, bytes.len() as u64, tar::EntryType::Regular), path, bytes.as_slice())?;
    }
    let layer = layer.into_inner()?;
    let (manifest, config) = describe(image, &layer_descriptor(&layer))?;
    Ok(Blobs { manifest, config, layer })
}

fn layer_descriptor(layer: &[u8]) -> Value {
    descriptor("application/vnd.oci.image.layer.v1.tar", layer)
}

/// Manifest and configuration of an image of one layer.
fn describe(image: &Image, layer: &Value) -> Result<(Vec<u8>, Vec<u8>)> {
    // By its label it is another image than any that does the same under another name.
    let labels = json!({"org.opencontainers.image.title": image.name});
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(), "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Entrypoint": image.entrypoint, "Cmd": image.arguments, "User": image.user, "Env": [PATH], "WorkingDir": "/",
            "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [layer],
    }))?;
    Ok((manifest, config))
}

/// Writes an OCI archive. The same input gives the same bytes.
pub fn write_archive(image: &Image, to: &Path) -> Result<()> {
    let Blobs { manifest, config, layer } = build(image)?;
    write(&[(image.name, manifest, config)], &layer, to)
}

/// Writes an OCI archive of images that all are this layer; files of their own are left out.
pub fn write_archive_over(layer: &[u8], images: &[Image], to: &Path) -> Result<()> {
    let described = layer_descriptor(layer);
    let parts = images.iter().map(|image| describe(image, &described).map(|(manifest, config)| (image.name, manifest, config)));
    write(&parts.collect::<Result<Vec<_>>>()?, layer, to)
}

fn write(images: &[(&str, Vec<u8>, Vec<u8>)], layer: &[u8], to: &Path) -> Result<()> {
    let mut entries = vec![];
    let mut blobs = BTreeMap::from([(digest(layer), layer)]);
    for (name, manifest, config) in images {
        let mut entry = descriptor(MANIFEST, manifest);
        entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
        entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
        entries.push(entry);
        blobs.extend([(digest(manifest), manifest.as_slice()), (digest(config), config.as_slice())]);
    }
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": entries}))?;
    let mut archive = tar::Builder::new(File::create(to)?);
    let mut add = |path: &str, bytes: &[u8]| {
        archive.append_data(&mut header(0o644, bytes.len() as u64, tar::EntryType::Regular), path, bytes)
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json", &index)?;
    for (digest, bytes) in blobs {
        add(&format!("blobs/sha256/{}", digest.trim_start_matches("sha256:")), bytes)?;
    }
    archive.into_inner()?.sync_all()?;
    Ok(())
}

const PATH: &str = "PATH=/bin:/usr/bin:/";
const PASSWD: &str = "root:x:0:0:root:/:/bin/false\nweb:x:1000:1000:web:/:/bin/false\n";

fn header(mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_entry_type(kind);
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
