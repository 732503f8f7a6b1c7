//! Which credentials fit an image, and in what order they are tried. Pure.
//!
//! The rules are kubelet's: places are compared part by part of the host's name, the path is a prefix, and of several places that
//! fit the one that sorts last comes first, so that longer paths come before shorter ones and names before patterns.

use super::auth::{Credential, DockerConfig, Login, Source};
use super::reference::Reference;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// What Docker Hub is called in docker configs.
const HUB: &str = "index.docker.io";

/// Credentials by the place that they are for.
#[derive(Default)]
pub struct Keyring {
    places: BTreeMap<String, Vec<(Source, Login)>>,
}

impl Keyring {
    /// Places that cannot be read as such are passed over.
    pub fn add(&mut self, source: &Source, config: DockerConfig) {
        for (place, login) in config.0 {
            if let Some(place) = effective(&place) {
                self.places.entry(place).or_default().push((source.clone(), login));
            }
        }
    }

    /// Those that fit, the first to be tried first.
    pub fn find(&self, image: &Reference) -> Vec<Credential> {
        let target = format!("{}/{}", image.registry, image.repository);
        let fitting = self.places.iter().rev().filter(|(place, _)| matches(place, &target));
        let mut found: Vec<Credential> = fitting.flat_map(|(_, all)| all).map(credential).collect();
        if found.is_empty() && matches!(image.registry.as_str(), "docker.io" | HUB) {
            found.extend(self.places.get(HUB).into_iter().flatten().map(credential));
        }
        found
    }
}

impl Hash for Keyring {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.places.hash(state);
    }
}

fn credential((source, login): &(Source, Login)) -> Credential {
    Credential { config: login.config(), source: source.hashed(login) }
}

/// A place without its scheme, and without the version that Docker once wrote behind the host.
fn effective(place: &str) -> Option<String> {
    let plain = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
    let (host, path) = split(plain)?;
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
    Some(if path.len() > 1 { format!("{host}{path}") } else { host.to_owned() })
}

/// Host with its port, and path; `None`: not the name of a place.
fn split(place: &str) -> Option<(&str, &str)> {
    if place.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let place = place.split(['?', '#']).next().unwrap_or_default();
    Some(place.find('/').map_or((place, ""), |at| place.split_at(at)))
}

/// Whether a text can stand in `matchImages`.
pub fn is_place(pattern: &str) -> bool {
    // With a scheme it would never match.
    !pattern.contains("://")
        && split(pattern).is_some_and(|(host, _)| !host.is_empty() && port_of(host).1.bytes().all(|b| b.is_ascii_digit()))
}

/// The name and the port, which may be empty.
fn port_of(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if name.ends_with(']') || !name.contains(':') => (name.trim_matches(['[', ']']), port),
        _ => (host, ""),
    }
}

/// Whether a place, which may hold patterns in its host, is one for the image: `host[:port]/repository`.
pub fn matches(place: &str, image: &str) -> bool {
    let (Some((host, path)), Some((other, repository))) = (split(place), split(image)) else { return false };
    let ((host, port), (other, other_port)) = (port_of(host), port_of(other));
    let (parts, others): (Vec<&str>, Vec<&str>) = (host.split('.').collect(), other.split('.').collect());
    port == other_port
        && parts.len() == others.len()
        && repository.starts_with(path)
        && parts.iter().zip(&others).all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes()))
}

/// `*` is any text, `?` any character. Without recursion: patterns come from outside.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests;
