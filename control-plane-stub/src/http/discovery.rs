//! What there is: discovery documents, plain and aggregated, made from the table of kinds. Pure.

use serde_json::{Value, json};

use crate::kinds::{self, KINDS, Kind, Sub};

pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn kinds_of<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Kind> + 'a {
    KINDS.iter().copied().filter(move |k| k.group == group && k.version == version)
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `/api`
pub fn versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut out: Vec<(&str, Vec<&str>)> = Vec::new();
    for (group, version) in kinds::group_versions() {
        if group.is_empty() {
            continue;
        }
        match out.iter_mut().find(|(g, _)| *g == group) {
            Some((_, versions)) => versions.push(version),
            None => out.push((group, vec![version])),
        }
    }
    out
}

fn group_json(group: &str, versions: &[&str]) -> Value {
    let all: Vec<Value> = versions.iter().map(|v| json!({"groupVersion": group_version(group, v), "version": v})).collect();
    let preferred = all.first().cloned().unwrap_or_default();
    json!({"name": group, "versions": all, "preferredVersion": preferred})
}

/// `/apis`
pub fn group_list() -> Value {
    let all: Vec<Value> = groups().iter().map(|(g, v)| group_json(g, v)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all})
}

/// `/apis/GROUP`
pub fn group(name: &str) -> Option<Value> {
    let (group, versions) = groups().into_iter().find(|(g, _)| *g == name)?;
    let mut out = group_json(group, &versions);
    out["kind"] = json!("APIGroup");
    out["apiVersion"] = json!("v1");
    Some(out)
}

fn sub_kind(kind: &Kind, sub: Sub) -> (String, String, String) {
    match sub.body_kind() {
        Some((group, version, kind)) => (group.to_owned(), version.to_owned(), kind.to_owned()),
        None => {
            let name = match sub {
                Sub::Exec => "PodExecOptions",
                Sub::Attach => "PodAttachOptions",
                Sub::PortForward => "PodPortForwardOptions",
                Sub::Proxy => match kind.kind {
                    "Node" => "NodeProxyOptions",
                    "Service" => "ServiceProxyOptions",
                    _ => "PodProxyOptions",
                },
                _ => kind.kind,
            };
            (kind.group.to_owned(), kind.version.to_owned(), name.to_owned())
        }
    }
}

/// `/api/v1` and `/apis/GROUP/VERSION`
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let mut all: Vec<Value> = Vec::new();
    for kind in kinds_of(group, version) {
        let verbs: Vec<&str> = kind.verbs.iter().map(|v| v.name()).collect();
        let mut resource = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": verbs});
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        all.push(resource);
        for sub in kind.subresources {
            let verbs: Vec<&str> = sub.verbs().iter().map(|v| v.name()).collect();
            let (sub_group, sub_version, name) = sub_kind(kind, *sub);
            let mut resource = json!({"name": format!("{}/{}", kind.plural, sub.name()), "singularName": "",
                "namespaced": kind.namespaced, "kind": name, "verbs": verbs});
            if (sub_group.as_str(), sub_version.as_str()) != (group, version) {
                resource["group"] = json!(sub_group);
                resource["version"] = json!(sub_version);
            }
            all.push(resource);
        }
    }
    if all.is_empty() {
        return None;
    }
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version), "resources": all}))
}

fn aggregated_kind(kind: &Kind) -> Value {
    let verbs: Vec<&str> = kind.verbs.iter().map(|v| v.name()).collect();
    let subs = kind.subresources.iter().map(|sub| {
        let verbs: Vec<&str> = sub.verbs().iter().map(|v| v.name()).collect();
        let (group, version, name) = sub_kind(kind, *sub);
        json!({"subresource": sub.name(), "responseKind": {"group": group, "version": version, "kind": name}, "verbs": verbs})
    });
    let subs: Vec<Value> = subs.collect();
    let mut out = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs,
    });
    for (field, list) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !list.is_empty() {
            out[field] = json!(list);
        }
    }
    if !subs.is_empty() {
        out["subresources"] = Value::Array(subs);
    }
    out
}

/// Everything in one document: `/api` (the core group) or `/apis` (the others).
pub fn aggregated(core: bool) -> Value {
    let wanted = if core { vec![("", vec!["v1"])] } else { groups() };
    let items: Vec<Value> = wanted
        .into_iter()
        .map(|(group, versions)| {
            let version = |v: &str| {
                let resources: Vec<Value> = kinds_of(group, v).map(aggregated_kind).collect();
                json!({"version": v, "resources": resources, "freshness": "Current"})
            };
            let versions: Vec<Value> = versions.iter().map(|v| version(v)).collect();
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

pub fn version() -> Value {
    json!({"major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.0+ferrolet-stub-", env!("CARGO_PKG_VERSION")), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": concat!("linux/", "amd64")})
}
