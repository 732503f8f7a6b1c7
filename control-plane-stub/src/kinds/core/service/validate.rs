//! What a Service may say. Pure.

use super::{externally_accessible, needs_health_check, needs_node_ports};
use crate::kinds::core::pod::containers::PROTOCOLS;
use crate::kinds::core::pod::probes::port as port_or_name;
use crate::kinds::field::{Errors, child, index, key};
use crate::kinds::meta::{self, list, names, one_of, str};
use crate::kinds::misc::discovery::unusable;
use crate::kinds::{FieldError, Op, Sub};
use crate::ranges::Family;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const ONCE_SET: &str = "may not change once set";

pub(super) fn validate(op: Op, sub: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, names::dns1123_label);
    if op == Op::Update && sub == Some(Sub::Status) {
        load_balancer_status(&mut e, new);
        return e.0;
    }
    let spec = &new["spec"];
    let ty = str(spec, "type");
    if let Some(old) = old.map(|o| &o["spec"]) {
        changes(&mut e, spec, old);
    }
    one_of(&mut e, spec, "type", "spec", &TYPES, true);
    one_of(&mut e, spec, "sessionAffinity", "spec", &["ClientIP", "None"], true);
    one_of(&mut e, spec, "internalTrafficPolicy", "spec", &["Cluster", "Local"], TYPES.contains(&ty) && ty != "ExternalName");
    one_of(&mut e, spec, "ipFamilyPolicy", "spec", &["PreferDualStack", "RequireDualStack", "SingleStack"], false);
    one_of(&mut e, spec, "trafficDistribution", "spec", &["PreferClose", "PreferSameZone", "PreferSameNode"], false);
    meta::labels(&mut e, &spec["selector"], "spec.selector");
    by_type(&mut e, spec, ty);
    external_traffic(&mut e, spec);
    ports(&mut e, spec, ty);
    affinity(&mut e, spec);
    if ty != "ExternalName" {
        families(&mut e, spec);
    }
    external_ips(&mut e, spec);
    source_ranges(&mut e, new, ty);
    e.0
}

fn is_headless(spec: &Value) -> bool {
    matches!(list(spec, "clusterIPs"), [ip] if ip == "None")
}

/// A second family may come and go; the first address and family stay.
fn changes(e: &mut Errors, spec: &Value, old: &Value) {
    let ty = str(spec, "type");
    if ty == "LoadBalancer" && str(old, "type") == ty && spec.get("loadBalancerClass") != old.get("loadBalancerClass") {
        e.invalid("spec.loadBalancerClass", spec["loadBalancerClass"].clone(), ONCE_SET);
    }
    if needs_health_check(spec) && needs_health_check(old) && spec.get("healthCheckNodePort") != old.get("healthCheckNodePort") {
        e.forbidden("spec.healthCheckNodePort", "field is immutable");
    }
    if ty == "ExternalName" || str(old, "type") == "ExternalName" {
        return;
    }
    let headless = (is_headless(old), is_headless(spec));
    if headless != (true, true) {
        one_list(e, spec, old, "clusterIPs", "clusterIP");
    }
    if headless == (false, false) {
        one_list(e, spec, old, "ipFamilies", "ipFamily");
    }
}

fn one_list(e: &mut Errors, spec: &Value, old: &Value, field: &str, what: &str) {
    let (now, before) = (list(spec, field), list(old, field));
    // What is left out altogether is filled in later, from the addresses.
    if now.is_empty() && field == "ipFamilies" {
        return;
    }
    let value = || spec[field].clone();
    let path = child("spec", field);
    if now.len() == before.len() {
        for i in (0..now.len()).filter(|i| now[*i] != before[*i]) {
            e.invalid(index(&path, i), value(), ONCE_SET);
        }
        return;
    }
    if now.is_empty() {
        e.invalid(index(&path, 0), value(), format!("primary {what} can not be unset"));
    } else if before.first().is_some_and(|first| *first != now[0]) {
        e.invalid(index(&path, 0), value(), ONCE_SET);
    }
    let policy = str(spec, "ipFamilyPolicy");
    if now.len() == 1 && before.len() > 1 && !policy.is_empty() && policy != "SingleStack" {
        e.invalid("spec.ipFamilyPolicy", policy, format!("must be set to 'SingleStack' when releasing the secondary {what}"));
    }
}

fn by_type(e: &mut Errors, spec: &Value, ty: &str) {
    match ty {
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies"] {
                if !list(spec, field).is_empty() {
                    e.forbidden(child("spec", field), "may not be set for ExternalName services");
                }
            }
            if !str(spec, "ipFamilyPolicy").is_empty() {
                e.forbidden("spec.ipFamilyPolicy", "may not be set for ExternalName services");
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
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            e.invalid("spec.clusterIPs[0]", "None", format!("may not be set to 'None' for {ty} services"));
        }
        _ => {}
    }
    if ty != "LoadBalancer" {
        for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
            if spec.get(field).is_some() {
                e.forbidden(child("spec", field), "may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
    let class = str(spec, "loadBalancerClass");
    if ty == "LoadBalancer" && spec.get("loadBalancerClass").is_some() {
        for problem in names::qualified(class) {
            e.invalid("spec.loadBalancerClass", class, problem);
        }
    }
}

fn external_traffic(e: &mut Errors, spec: &Value) {
    if externally_accessible(spec) {
        one_of(e, spec, "externalTrafficPolicy", "spec", &["Cluster", "Local"], true);
    } else if !str(spec, "externalTrafficPolicy").is_empty() {
        let value = str(spec, "externalTrafficPolicy");
        e.invalid("spec.externalTrafficPolicy", value, "may only be set for externally-accessible services");
    }
    let Some(check) = spec["healthCheckNodePort"].as_i64().filter(|n| *n != 0) else { return };
    if needs_health_check(spec) {
        for problem in names::port_number(check) {
            e.invalid("spec.healthCheckNodePort", check, problem);
        }
    } else {
        let only = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        e.invalid("spec.healthCheckNodePort", check, only);
    }
}

fn ports(e: &mut Errors, spec: &Value, ty: &str) {
    let ports = list(spec, "ports");
    if ports.is_empty() && ty != "ExternalName" && !is_headless(spec) {
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

fn affinity(e: &mut Errors, spec: &Value) {
    let path = "spec.sessionAffinityConfig";
    match (str(spec, "sessionAffinity"), spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_i64()) {
        ("None", _) if spec.get("sessionAffinityConfig").is_some() => {
            e.forbidden(path, "must not be set when session affinity is None");
        }
        ("ClientIP", None) => {
            e.required(format!("{path}.clientIP.timeoutSeconds"), "when session affinity type is ClientIP");
        }
        ("ClientIP", Some(seconds)) if !(1..=86400).contains(&seconds) => {
            e.invalid(format!("{path}.clientIP.timeoutSeconds"), seconds, "must be greater than 0 and less than 86400");
        }
        _ => {}
    }
}

/// `clusterIP`, `clusterIPs` and `ipFamilies` must fit each other.
fn families(e: &mut Errors, spec: &Value) {
    let (ip, ips, families) = (str(spec, "clusterIP"), list(spec, "clusterIPs"), list(spec, "ipFamilies"));
    let all = || spec["clusterIPs"].clone();
    match ips.first() {
        None if !ip.is_empty() => e.required("spec.clusterIPs", ""),
        Some(_) if ip.is_empty() => e.invalid("spec.clusterIPs", all(), "must be empty when `clusterIP` is not specified"),
        Some(first) if first != ip => e.invalid("spec.clusterIPs", all(), "first value must match `clusterIP`"),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (i, family) in families.iter().enumerate() {
        let text = family.as_str().unwrap_or_default();
        if Family::parse(text).is_none() {
            e.not_supported(index("spec.ipFamilies", i), text, &["IPv4", "IPv6"]);
        }
        if !seen.insert(text) {
            e.duplicate(index("spec.ipFamilies", i), text);
        }
    }
    let mut wrong = false;
    let mut parsed: Vec<Family> = Vec::new();
    for (i, ip) in ips.iter().enumerate() {
        let text = ip.as_str().unwrap_or_default();
        if i == 0 && text == "None" {
            if ips.len() > 1 {
                e.invalid("spec.clusterIPs", all(), "'None' must be the first and only value");
                wrong = true;
            }
            continue;
        }
        for problem in names::ip(text) {
            e.invalid(index("spec.clusterIPs", i), text, problem);
            wrong = true;
        }
        parsed.extend(text.parse::<IpAddr>().ok().map(Family::of));
    }
    if ips.len() > 2 {
        e.invalid("spec.clusterIPs", all(), "may only hold up to 2 values");
    }
    if wrong {
        return;
    }
    if ips.len() > 1 && (ips.len() > 2 || parsed[0] == parsed[1]) {
        e.invalid("spec.clusterIPs", all(), "may specify no more than one IP for each IP family");
    }
    for (i, (family, named)) in parsed.iter().zip(families).enumerate() {
        if let Some(named) = named.as_str().and_then(Family::parse).filter(|n| n != family) {
            let expected = format!("expected an {} value as indicated by `ipFamilies[{i}]`", named.as_str());
            e.invalid(index("spec.clusterIPs", i), ips[i].clone(), expected);
        }
    }
}

fn external_ips(e: &mut Errors, spec: &Value) {
    for (i, ip) in list(spec, "externalIPs").iter().enumerate() {
        let (path, text) = (index("spec.externalIPs", i), ip.as_str().unwrap_or_default());
        match text.parse::<IpAddr>() {
            Ok(ip) => {
                if let Some(problem) = unusable(ip) {
                    e.invalid(path, text, problem);
                }
            }
            Err(_) => {
                for problem in names::ip(text) {
                    e.invalid(path.clone(), text, problem);
                }
            }
        }
    }
}

/// The field, or the annotation from before it. Blanks around a range are allowed in both.
fn source_ranges(e: &mut Errors, new: &Value, ty: &str) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let listed = list(&new["spec"], "loadBalancerSourceRanges");
    let annotation = new["metadata"]["annotations"][SOURCE_RANGES].as_str();
    // The API writes this path with a capital letter.
    let path = "spec.LoadBalancerSourceRanges";
    let is_range = |text: &str| text.trim().parse::<ipnet::IpNet>().is_ok();
    if !listed.is_empty() {
        if ty != "LoadBalancer" {
            e.forbidden(path, only);
        }
        for (i, item) in listed.iter().enumerate() {
            let text = item.as_str().unwrap_or_default();
            if !is_range(text) {
                e.invalid(index(path, i), text.trim(), CIDR);
            }
        }
    } else if let Some(text) = annotation {
        let path = key("metadata.annotations", SOURCE_RANGES);
        if ty != "LoadBalancer" {
            e.forbidden(path.clone(), only);
        }
        for part in text.split(',').filter(|p| !text.trim().is_empty() && !is_range(p)) {
            e.invalid(path.clone(), part.trim(), CIDR);
        }
    }
}

fn load_balancer_status(e: &mut Errors, new: &Value) {
    let ingress = list(&new["status"]["loadBalancer"], "ingress");
    let path = "status.loadBalancer.ingress";
    if str(&new["spec"], "type") != "LoadBalancer" {
        if !ingress.is_empty() {
            e.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    for (i, item) in ingress.iter().enumerate() {
        let path = index(path, i);
        let (ip, mode, host) = (str(item, "ip"), str(item, "ipMode"), str(item, "hostname"));
        if !ip.is_empty() {
            for problem in names::ip(ip) {
                e.invalid(child(&path, "ip"), ip, problem);
            }
        }
        if ip.is_empty() && !mode.is_empty() {
            e.forbidden(child(&path, "ipMode"), "may not be specified when `ip` is not set");
        } else if !ip.is_empty() && mode.is_empty() {
            e.required(child(&path, "ipMode"), "must be specified when `ip` is set");
        } else {
            one_of(e, item, "ipMode", &path, &["Proxy", "VIP"], false);
        }
        if !host.is_empty() {
            for problem in names::dns1123_subdomain(host) {
                e.invalid(child(&path, "hostname"), host, problem);
            }
            if host.parse::<IpAddr>().is_ok() {
                e.invalid(child(&path, "hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}
