//! Service. Addresses and node ports are given out by the allocator; this file keeps those a client leaves out.

use super::pod::containers::PROTOCOLS;
use super::pod::probes::port as port_or_name;
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{self, Fields, default, list, list_mut, names, object_mut, one_of, str, text};
use crate::kinds::table::{self, Column, age_column, created, joined, name, name_column, none_if_empty, text_column, wide};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub static SERVICE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Sub::Proxy, Sub::Status],
    verbs: STORED,
    view: None,
    defaults,
    prepare,
    validate,
    selectable_fields,
    columns: COLUMNS,
    cells,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::core::v1::Service>,
};

fn defaults(o: &mut Value) {
    schema::normalize(&SERVICE, o);
    let Some(spec) = o.as_object_mut().and_then(|o| object_mut(o, "spec")) else { return };
    default(spec, "sessionAffinity", "None");
    default(spec, "type", "ClusterIP");
    match spec["sessionAffinity"].as_str() {
        Some("ClientIP") => {
            let client = object_mut(spec, "sessionAffinityConfig").and_then(|c| object_mut(c, "clientIP"));
            if let Some(client) = client {
                default(client, "timeoutSeconds", 10800);
            }
        }
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        _ => {}
    }
    for port in list_mut(spec, "ports") {
        default(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::Null);
        if port.get("targetPort").is_some_and(|t| t.as_i64() == Some(0)) {
            port.remove("targetPort");
        }
        if !number.is_null() {
            default(port, "targetPort", number);
        }
    }
    let ty = spec["type"].as_str().unwrap_or_default().to_string();
    let external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|a| !a.is_empty());
    if ["NodePort", "LoadBalancer"].contains(&ty.as_str()) || (ty == "ClusterIP" && external_ips) {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if ty != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if ty == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    ["ClusterIP", "NodePort", "LoadBalancer"].contains(&str(spec, "type"))
}

fn needs_node_ports(spec: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&str(spec, "type"))
}

fn prepare(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    match (op, sub, old) {
        (Op::Create, _, _) | (_, _, None) => meta::set(new, "status", json!({"loadBalancer": {}})),
        (Op::Update, Some(Sub::Status), Some(old)) => meta::only_status(new, old),
        (Op::Update, _, Some(old)) => {
            meta::keep(new, old, "status");
            if let Some(spec) = new.get_mut("spec") {
                keep_allocated(spec, &old["spec"]);
                drop_unneeded(spec, &old["spec"]);
            }
        }
    }
}

/// An update that leaves out what was allocated keeps it.
fn keep_allocated(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(spec) && needs_cluster_ip(old) {
        let same_type_or_none = str(old, "clusterIP") != "None" || str(spec, "type") == str(old, "type");
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if same_type_or_none && meta::is_unset(spec.get(field)) {
                meta::keep(spec, old, field);
            }
        }
    }
    if needs_node_ports(spec) && needs_node_ports(old) {
        let before = list(old, "ports").to_vec();
        let used: Vec<i64> = list(spec, "ports").iter().filter_map(|p| p["nodePort"].as_i64()).filter(|p| *p != 0).collect();
        let Some(spec) = spec.as_object_mut() else { return };
        for port in list_mut(spec, "ports") {
            if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
                continue;
            }
            let same = |p: &&Value| Some(&p["port"]) == port.get("port") && Some(&p["protocol"]) == port.get("protocol");
            let kept = before.iter().find(same).and_then(|p| p["nodePort"].as_i64()).filter(|n| *n != 0 && !used.contains(n));
            if let Some(kept) = kept {
                port.insert("nodePort".to_string(), json!(kept));
            }
        }
    }
}

/// What the new type has no use for goes, unless the client asks for something new, which validation then refuses.
fn drop_unneeded(spec: &mut Value, old: &Value) {
    let (cluster_ip, node_ports) = (needs_cluster_ip(spec), needs_node_ports(spec));
    let ty_changed = str(spec, "type") != str(old, "type");
    let Some(map) = spec.as_object_mut() else { return };
    if !cluster_ip && needs_cluster_ip(old) && map.get("clusterIP").is_none_or(|ip| Some(ip) == old.get("clusterIP")) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            map.remove(field);
        }
    }
    if !node_ports && needs_node_ports(old) && ty_changed {
        let before: BTreeSet<i64> = list(old, "ports").iter().filter_map(|p| p["nodePort"].as_i64()).collect();
        for port in list_mut(map, "ports") {
            if port.get("nodePort").and_then(Value::as_i64).is_some_and(|n| before.contains(&n)) {
                port.remove("nodePort");
            }
        }
        let external_ips = map.get("externalIPs").and_then(Value::as_array).is_some_and(|a| !a.is_empty());
        if !external_ips && map.get("externalTrafficPolicy") == old.get("externalTrafficPolicy") {
            map.remove("externalTrafficPolicy");
        }
        for field in ["healthCheckNodePort", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if map.get(field) == old.get(field) {
                map.remove(field);
            }
        }
    }
}

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

fn validate(op: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_label);
    if op == Op::Update && sub == Some(Sub::Status) {
        return e.0;
    }
    let spec = &new["spec"];
    let ty = str(spec, "type");
    one_of(&mut e, spec, "type", "spec", &TYPES, true);
    one_of(&mut e, spec, "sessionAffinity", "spec", &["ClientIP", "None"], true);
    one_of(&mut e, spec, "internalTrafficPolicy", "spec", &["Cluster", "Local"], ty != "ExternalName");
    one_of(&mut e, spec, "externalTrafficPolicy", "spec", &["Cluster", "Local"], false);
    one_of(&mut e, spec, "ipFamilyPolicy", "spec", &["PreferDualStack", "RequireDualStack", "SingleStack"], false);
    one_of(&mut e, spec, "trafficDistribution", "spec", &["PreferClose", "PreferSameNode", "PreferSameZone"], false);
    meta::labels(&mut e, &spec["selector"], "spec.selector");
    by_type(&mut e, spec, ty);
    ports(&mut e, spec, ty);
    addresses(&mut e, spec, ty);
    if let Some(seconds) = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_i64()
        && !(1..=86400).contains(&seconds)
    {
        let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        e.invalid(path, seconds, "must be greater than 0 and less than or equal to 86400");
    }
    if let Some(old) = old {
        let before = &old["spec"];
        let ip = str(before, "clusterIP");
        if needs_cluster_ip(spec) && needs_cluster_ip(before) && !ip.is_empty() && (ip != "None" || str(before, "type") == ty) {
            meta::immutable(&mut e, &spec["clusterIP"], &before["clusterIP"], "spec.clusterIP");
        }
        if !before["loadBalancerClass"].is_null() && ty == "LoadBalancer" && str(before, "type") == ty {
            meta::immutable(&mut e, &spec["loadBalancerClass"], &before["loadBalancerClass"], "spec.loadBalancerClass");
        }
    }
    e.0
}

fn by_type(e: &mut Errors, spec: &Value, ty: &str) {
    let ip = str(spec, "clusterIP");
    match ty {
        "ExternalName" => {
            if !ip.is_empty() {
                e.forbidden("spec.clusterIPs[0]", "may not be set when `type` is 'ExternalName'");
            }
            let target = str(spec, "externalName");
            if target.is_empty() {
                e.required("spec.externalName", "");
            } else {
                for problem in names::dns1123_subdomain(target.trim_end_matches('.')) {
                    e.invalid("spec.externalName", target, problem);
                }
            }
        }
        "LoadBalancer" | "NodePort" if ip == "None" => {
            e.invalid("spec.clusterIPs[0]", ip, format!("may not be set to 'None' for {ty} services"));
        }
        _ => {}
    }
    let external = ["LoadBalancer", "NodePort"].contains(&ty) || !list(spec, "externalIPs").is_empty();
    if !external && !str(spec, "externalTrafficPolicy").is_empty() {
        e.invalid(
            "spec.externalTrafficPolicy",
            str(spec, "externalTrafficPolicy"),
            "may only be set for externally-accessible services",
        );
    }
    if ty != "LoadBalancer" {
        for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
            if spec.get(field).is_some() {
                e.forbidden(child("spec", field), "may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
}

fn ports(e: &mut Errors, spec: &Value, ty: &str) {
    let ports = list(spec, "ports");
    if ports.is_empty() && ty != "ExternalName" && str(spec, "clusterIP") != "None" {
        e.required("spec.ports", "");
    }
    let (mut seen_names, mut seen, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = index("spec.ports", i);
        let (label, protocol) = (str(port, "name"), str(port, "protocol"));
        if label.is_empty() {
            if ports.len() > 1 {
                e.required(child(&path, "name"), "");
            }
        } else {
            for problem in names::dns1123_label(label) {
                e.invalid(child(&path, "name"), label, problem);
            }
            if !seen_names.insert(label) {
                e.duplicate(child(&path, "name"), label);
            }
        }
        let number = port["port"].as_i64().unwrap_or(0);
        for problem in names::port_number(number) {
            e.invalid(child(&path, "port"), number, problem);
        }
        one_of(e, port, "protocol", &path, &PROTOCOLS, true);
        port_or_name(e, &port["targetPort"], &child(&path, "targetPort"));
        if !seen.insert((protocol, number)) {
            e.duplicate(path.clone(), json!({"port": number, "protocol": protocol}));
        }
        if let Some(node_port) = port["nodePort"].as_i64().filter(|n| *n != 0) {
            if !needs_node_ports(spec) {
                e.forbidden(child(&path, "nodePort"), format!("may not be used when `type` is '{ty}'"));
            }
            for problem in names::port_number(node_port) {
                e.invalid(child(&path, "nodePort"), node_port, problem);
            }
            if !node_ports.insert((protocol, node_port)) {
                e.duplicate(child(&path, "nodePort"), node_port);
            }
        }
        let app = str(port, "appProtocol");
        if !app.is_empty() {
            for problem in names::qualified(app) {
                e.invalid(child(&path, "appProtocol"), app, problem);
            }
        }
    }
}

fn addresses(e: &mut Errors, spec: &Value, ty: &str) {
    let ips = list(spec, "clusterIPs");
    let ip = str(spec, "clusterIP");
    if let Some(first) = ips.first()
        && first != &json!(ip)
    {
        e.invalid("spec.clusterIPs", spec["clusterIPs"].clone(), "first value must match `clusterIP`");
    }
    if !ip.is_empty() && ip != "None" && ty != "ExternalName" {
        for problem in names::ip(ip) {
            e.invalid("spec.clusterIPs[0]", ip, problem);
        }
    }
    for (field, plain) in [("externalIPs", true), ("loadBalancerSourceRanges", false)] {
        for (i, item) in list(spec, field).iter().enumerate() {
            let item = item.as_str().unwrap_or_default();
            let path = index(&child("spec", field), i);
            if plain {
                for problem in names::ip(item) {
                    e.invalid(path.clone(), item, problem);
                }
            } else if item.trim().parse::<ipnet::IpNet>().is_err() {
                e.invalid(path, item, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
            }
        }
    }
    for (i, family) in list(spec, "ipFamilies").iter().enumerate() {
        if family != "IPv4" && family != "IPv6" {
            e.not_supported(index("spec.ipFamilies", i), family.clone(), &["IPv4", "IPv6"]);
        }
    }
}

fn selectable_fields(o: &Value) -> Fields {
    let mut fields = meta::selectable_namespaced(o);
    fields.extend([("spec.clusterIP", text(o, "/spec/clusterIP")), ("spec.type", text(o, "/spec/type"))]);
    fields
}

const COLUMNS: &[Column] = &[
    name_column(),
    text_column("Type", "How the service is reached."),
    text_column("Cluster-IP", "The service's address in the cluster."),
    text_column("External-IP", "The addresses from outside."),
    text_column("Port(s)", "The service's ports, with the node ports."),
    age_column(),
    wide("Selector", "The labels of the service's pods."),
];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &o["spec"];
    let ports: Vec<String> = list(spec, "ports")
        .iter()
        .map(|p| {
            let (port, protocol) = (p["port"].as_i64().unwrap_or(0), str(p, "protocol"));
            match p["nodePort"].as_i64().unwrap_or(0) {
                0 => format!("{port}/{protocol}"),
                node => format!("{port}:{node}/{protocol}"),
            }
        })
        .collect();
    let ip = spec["clusterIPs"][0].as_str().unwrap_or_else(|| str(spec, "clusterIP"));
    vec![
        name(o),
        json!(str(spec, "type")),
        none_if_empty(ip),
        external(o),
        joined(ports.iter().map(String::as_str)),
        created(o, now),
        table::labels(&spec["selector"]),
    ]
}

fn external(o: &Value) -> Value {
    let spec = &o["spec"];
    let external = list(spec, "externalIPs").iter().filter_map(Value::as_str);
    match str(spec, "type") {
        "ExternalName" => json!(str(spec, "externalName")),
        "LoadBalancer" => {
            let ingress = list(&o["status"]["loadBalancer"], "ingress").iter();
            let ingress = ingress.map(|i| if str(i, "ip").is_empty() { str(i, "hostname") } else { str(i, "ip") });
            let all: Vec<&str> = ingress.chain(external).collect();
            json!(if all.is_empty() { "<pending>".to_string() } else { all.join(",") })
        }
        "ClusterIP" | "NodePort" => joined(external),
        _ => json!("<unknown>"),
    }
}
