//! EndpointSlice.

use crate::kinds::core::pod::containers::PROTOCOLS;
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{self, is_unset, list, list_mut, names, one_of, str};
use crate::kinds::table::{Column, age_column, created, name, name_column, none_if_empty, text_column};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

pub static ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    verbs: STORED,
    view: None,
    defaults,
    prepare,
    validate,
    selectable_fields: meta::selectable_namespaced,
    columns: COLUMNS,
    cells,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::discovery::v1::EndpointSlice>,
};

const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20000;
const MAX_ADDRESSES: usize = 100;
const MAX_HINTS: usize = 8;

fn defaults(o: &mut Value) {
    schema::normalize(&ENDPOINT_SLICE, o);
    let Some(o) = o.as_object_mut() else { return };
    for port in list_mut(o, "ports") {
        port.entry("name").or_insert_with(|| json!(""));
        if is_unset(port.get("protocol")) {
            port.insert("protocol".to_string(), json!("TCP"));
        }
    }
}

fn prepare(_: Op, _: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    let labels = |o: &Value| o["metadata"].get("labels").cloned();
    let generation = match old {
        None => 1,
        Some(old) => {
            let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
            let same =
                ["endpoints", "ports", "addressType"].iter().all(|f| new.get(*f) == old.get(*f)) && labels(new) == labels(old);
            if same { before } else { before + 1 }
        }
    };
    meta::set_generation(new, generation);
}

fn validate(_: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_subdomain);
    one_of(&mut e, new, "addressType", "", &["FQDN", "IPv4", "IPv6"], true);
    let endpoints = list(new, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        e.too_many("endpoints", endpoints.len(), MAX_ENDPOINTS);
        return e.0;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        self::endpoint(&mut e, endpoint, &index("endpoints", i), str(new, "addressType"));
    }
    ports(&mut e, list(new, "ports"));
    if let Some(old) = old {
        meta::immutable(&mut e, &new["addressType"], &old["addressType"], "addressType");
    }
    e.0
}

fn endpoint(e: &mut Errors, endpoint: &Value, path: &str, address_type: &str) {
    let addresses = list(endpoint, "addresses");
    if addresses.is_empty() {
        e.required(child(path, "addresses"), "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        e.too_many(child(path, "addresses"), addresses.len(), MAX_ADDRESSES);
    }
    for (i, address) in addresses.iter().enumerate() {
        let (path, address) = (index(&child(path, "addresses"), i), address.as_str().unwrap_or_default());
        match (address_type, address.parse::<IpAddr>()) {
            ("IPv4", Ok(ip @ IpAddr::V4(_))) | ("IPv6", Ok(ip @ IpAddr::V6(_))) => {
                if let Some(problem) = unusable(ip) {
                    e.invalid(path, address, problem);
                }
            }
            ("IPv4", _) => e.invalid(path, address, "must be a valid IPv4 address"),
            ("IPv6", _) => e.invalid(path, address, "must be a valid IPv6 address"),
            ("FQDN", _) => {
                for problem in names::dns1123_subdomain(address) {
                    e.invalid(path.clone(), address, problem);
                }
            }
            _ => {}
        }
    }
    let hostname = str(endpoint, "hostname");
    if !hostname.is_empty() {
        for problem in names::dns1123_label(hostname) {
            e.invalid(child(path, "hostname"), hostname, problem);
        }
    }
    let node = str(endpoint, "nodeName");
    if !node.is_empty() {
        for problem in names::dns1123_subdomain(node) {
            e.invalid(child(path, "nodeName"), node, problem);
        }
    }
    let hints = child(path, "hints");
    self::hints(e, list(&endpoint["hints"], "forZones"), &child(&hints, "forZones"), names::label_value);
    self::hints(e, list(&endpoint["hints"], "forNodes"), &child(&hints, "forNodes"), names::dns1123_subdomain);
}

fn hints(e: &mut Errors, hints: &[Value], path: &str, rule: meta::NameRule) {
    if hints.len() > MAX_HINTS {
        return e.too_many(path, hints.len(), MAX_HINTS);
    }
    let mut seen = BTreeSet::new();
    for (i, hint) in hints.iter().enumerate() {
        let (path, named) = (child(&index(path, i), "name"), str(hint, "name"));
        if !seen.insert(named) {
            e.duplicate(path.clone(), named);
        }
        for problem in rule(named) {
            e.invalid(path.clone(), named, problem);
        }
    }
}

/// Ranges no endpoint can be reached at.
pub(in crate::kinds) fn unusable(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if ip.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if ip.is_multicast() {
        Some("may not be in the multicast range (224.0.0.0/4, ff00::/8)")
    } else {
        None
    }
}

fn ports(e: &mut Errors, ports: &[Value]) {
    if ports.len() > MAX_PORTS {
        e.too_many("ports", ports.len(), MAX_PORTS);
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = index("ports", i);
        let label = str(port, "name");
        if !seen.insert(label) {
            e.duplicate(child(&path, "name"), label);
        }
        if !label.is_empty() {
            for problem in names::dns1123_label(label) {
                e.invalid(child(&path, "name"), label, problem);
            }
        }
        if let Some(number) = port["port"].as_i64() {
            for problem in names::port_number(number) {
                e.invalid(child(&path, "port"), number, problem);
            }
        }
        one_of(e, port, "protocol", &path, &PROTOCOLS, true);
    }
}

const COLUMNS: &[Column] = &[
    name_column(),
    text_column("AddressType", "What the addresses are."),
    text_column("Ports", "The ports of all endpoints."),
    text_column("Endpoints", "The first addresses."),
    age_column(),
];

/// `<unset>`, the list, or its first three with a count of the rest.
fn first_three(items: Vec<String>) -> Value {
    match items.len() {
        0 => json!("<unset>"),
        1..=3 => none_if_empty(&items.join(",")),
        n => json!(format!("{} + {} more...", items[..3].join(","), n - 3)),
    }
}

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports = list(o, "ports").iter().map(|p| match p["port"].as_i64() {
        Some(number) => number.to_string(),
        None => p["name"].as_str().unwrap_or("*").to_string(),
    });
    let addresses = list(o, "endpoints").iter().flat_map(|e| list(e, "addresses")).filter_map(|a| a.as_str().map(String::from));
    vec![name(o), json!(str(o, "addressType")), first_three(ports.collect()), first_three(addresses.collect()), created(o, now)]
}
