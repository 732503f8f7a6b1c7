//! Names of images: what is before the registry, the repository, the tag and the digest. Pure.

/// A name taken apart. `registry` and `repository` are normalised as the runtimes do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("couldn't parse image name {0:?}: the name is empty")]
    Empty(String),
    #[error("couldn't parse image name {0:?}: the repository must be lowercase letters, digits and separators")]
    Repository(String),
    #[error("couldn't parse image name {0:?}: the tag has an odd character or more than 128")]
    Tag(String),
    #[error("couldn't parse image name {0:?}: the digest must be algorithm:hex")]
    Digest(String),
}

impl Reference {
    pub fn parse(name: &str) -> Result<Reference, InvalidName> {
        let whole = || name.chars().take(256).collect::<String>();
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (name, None),
        };
        if let Some(digest) = digest {
            let ok = digest.split_once(':').is_some_and(|(algorithm, hex)| {
                !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
            });
            if !ok {
                return Err(InvalidName::Digest(whole()));
            }
        }
        // A colon before the last slash belongs to the registry's port.
        let after_slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (path, tag) = match rest[after_slash..].rfind(':') {
            Some(i) => (&rest[..after_slash + i], Some(&rest[after_slash + i + 1..])),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(InvalidName::Empty(whole()));
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if let Some(tag) = tag {
            let rest_ok = tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
            if tag.is_empty() || tag.len() > 128 || !rest_ok || !word(tag.as_bytes()[0]) {
                return Err(InvalidName::Tag(whole()));
            }
        }
        let (registry, repository) = match path.split_once('/') {
            Some((host, repo)) if host.contains(['.', ':']) || host == "localhost" => (host, repo.to_owned()),
            Some(_) => ("docker.io", path.to_owned()),
            None => ("docker.io", format!("library/{path}")),
        };
        let part_ok = |part: &str| {
            let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
            let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            inner && edge(part.as_bytes().first()) && edge(part.as_bytes().last())
        };
        if !repository.split('/').all(part_ok) {
            return Err(InvalidName::Repository(whole()));
        }
        let owned = |s: Option<&str>| s.map(str::to_owned);
        Ok(Reference { registry: registry.to_owned(), repository, tag: owned(tag), digest: owned(digest) })
    }
}

/// The name with the tag that is meant when neither tag nor digest is given.
pub fn with_default_tag(name: &str) -> Result<String, InvalidName> {
    let reference = Reference::parse(name)?;
    let plain = reference.tag.is_none() && reference.digest.is_none();
    Ok(if plain { format!("{name}:latest") } else { name.to_owned() })
}

/// `latest`, said or implied.
pub fn tag_is_latest(name: &str) -> bool {
    Reference::parse(name).is_ok_and(|r| match (&r.tag, &r.digest) {
        (Some(tag), _) => tag == "latest",
        (None, digest) => digest.is_none(),
    })
}

#[cfg(test)]
mod tests;
