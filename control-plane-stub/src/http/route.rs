//! From a method and a path to what is meant by them. Pure.

use crate::kinds::{self, Kind, Sub};

/// What a request is about, in the words authorization and audit use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Resource(ResourceTarget),
    /// Anything that is no API object: discovery, health, OpenAPI.
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceTarget {
    pub group: String,
    pub version: String,
    /// Empty: all namespaces, or a cluster-scoped kind.
    pub namespace: String,
    pub plural: String,
    pub name: String,
    pub sub: String,
    /// What follows `proxy/`.
    pub rest: String,
}

impl ResourceTarget {
    pub fn kind(&self) -> Option<&'static Kind> {
        kinds::find(&self.group, &self.version, &self.plural)
    }

    pub fn subresource(&self) -> Option<Option<Sub>> {
        if self.sub.is_empty() { Some(None) } else { Sub::parse(&self.sub).map(Some) }
    }
}

/// Paths below `/api/v1` and `/apis/GROUP/VERSION`.
pub fn parse(path: &str) -> Target {
    let other = || Target::Other(path.to_owned());
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return other(),
    };
    let rest = match rest {
        [rest @ .., ""] => rest,
        rest => rest,
    };
    if rest.is_empty() || rest.iter().any(|p| p.is_empty()) && !rest.contains(&"proxy") {
        return other();
    }
    let (namespace, rest) = match rest {
        ["namespaces", namespace, resource, ..] if !matches!(*resource, "status" | "finalize") => (*namespace, &rest[2..]),
        rest => ("", rest),
    };
    let decode = |part: Option<&&str>| part.map(|p| decode(p)).unwrap_or_default();
    let target = ResourceTarget {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: self::decode(namespace),
        plural: decode(rest.first()),
        name: decode(rest.get(1)),
        sub: decode(rest.get(2)),
        rest: rest.get(3..).map(|r| r.join("/")).unwrap_or_default(),
    };
    if !target.rest.is_empty() && target.sub != "proxy" {
        return other();
    }
    Target::Resource(target)
}

fn decode(part: &str) -> String {
    if !part.contains('%') {
        return part.to_owned();
    }
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16);
        match (bytes[i], bytes.get(i + 1).copied().and_then(hex), bytes.get(i + 2).copied().and_then(hex)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                i += 3;
            }
            (b, ..) => {
                out.push(b);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The query of a URL: the first value of a name counts, except for lists.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: Option<&str>) -> Query {
        let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Query(pairs.map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(k, v)| k == name && matches!(v.as_str(), "true" | "1" | "True" | "TRUE" | "t" | "T"))
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// The verb authorization knows for a request.
pub fn verb(method: &http::Method, target: &Target, query: &Query) -> &'static str {
    let resource = match target {
        Target::Resource(resource) => resource,
        Target::Other(_) => {
            return match method.as_str() {
                "GET" => "get",
                "POST" => "post",
                "PUT" => "put",
                "PATCH" => "patch",
                "DELETE" => "delete",
                "HEAD" => "head",
                _ => "unknown",
            };
        }
    };
    match method.as_str() {
        "GET" | "HEAD" if query.flag("watch") && resource.sub.is_empty() => "watch",
        "GET" | "HEAD" if resource.name.is_empty() => "list",
        // Since 1.35 a WebSocket exec is as much a create as the POST it replaces.
        "GET" if matches!(resource.sub.as_str(), "exec" | "attach" | "portforward") => "create",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if resource.name.is_empty() => "deletecollection",
        "DELETE" => "delete",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests;
