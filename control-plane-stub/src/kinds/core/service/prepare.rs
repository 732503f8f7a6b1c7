//! What a write of a Service leaves out and the server fills in from before, and what a new type has no use for. Pure.

use super::{externally_accessible, needs_cluster_ip, needs_health_check, needs_node_ports};
use crate::kinds::meta::{self, is_unset, list, list_mut, str};
use crate::kinds::{Op, Sub};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) fn prepare(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    match (op, sub, old) {
        (Op::Create, _, _) | (_, _, None) => {
            meta::set(new, "status", json!({"loadBalancer": {}}));
            if let Some(spec) = new.get_mut("spec") {
                plural_from_singular(spec);
            }
        }
        (Op::Update, Some(Sub::Status), Some(old)) => meta::only_status(new, old),
        (Op::Update, _, Some(old)) => {
            meta::keep(new, old, "status");
            if let Some(spec) = new.get_mut("spec") {
                keep_allocated(spec, &old["spec"]);
                align_addresses(spec, &old["spec"]);
                drop_unneeded(spec, &old["spec"]);
            }
            if str(&new["spec"], "type") != "LoadBalancer" && !list(&new["status"]["loadBalancer"], "ingress").is_empty() {
                new["status"]["loadBalancer"] = json!({});
            }
        }
    }
}

fn no_items(spec: &Value, field: &str) -> bool {
    list(spec, field).is_empty()
}

/// A client that knows one address only.
fn plural_from_singular(spec: &mut Value) {
    if !str(spec, "clusterIP").is_empty() && no_items(spec, "clusterIPs") {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
}

/// An update that leaves out what was allocated keeps it, so that a manifest can be sent again as it was.
fn keep_allocated(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(spec) && needs_cluster_ip(old) {
        if is_unset(spec.get("clusterIP")) {
            meta::keep(spec, old, "clusterIP");
        }
        if no_items(spec, "clusterIPs") && !no_items(old, "clusterIPs") {
            meta::keep(spec, old, "clusterIPs");
        }
    }
    let automatic = |spec: &Value| needs_node_ports(spec) && spec["allocateLoadBalancerNodePorts"] != Value::Bool(false);
    if automatic(spec) && automatic(old) {
        let numbers = |spec: &Value| -> BTreeSet<i64> { list(spec, "ports").iter().map(node_port).filter(|n| *n != 0).collect() };
        let used: BTreeSet<i64> = numbers(spec).intersection(&numbers(old)).copied().collect();
        let before: Vec<(String, i64)> = list(old, "ports").iter().map(|p| (str(p, "name").to_owned(), node_port(p))).collect();
        let Some(spec) = spec.as_object_mut() else { return };
        for port in list_mut(spec, "ports") {
            let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
            let kept = before.iter().find(|(n, _)| n == name).map_or(0, |(_, number)| *number);
            if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) == 0 && kept != 0 && !used.contains(&kept) {
                port.insert("nodePort".to_owned(), json!(kept));
            }
        }
    }
    if needs_health_check(spec) && needs_health_check(old) && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
        meta::keep(spec, old, "healthCheckNodePort");
    }
}

fn node_port(port: &Value) -> i64 {
    port["nodePort"].as_i64().unwrap_or(0)
}

/// `clusterIP` changed and `clusterIPs` did not: a client that knows one of them only.
fn align_addresses(spec: &mut Value, old: &Value) {
    if str(spec, "clusterIP") == str(old, "clusterIP") || spec.get("clusterIPs") != old.get("clusterIPs") {
        return plural_from_singular(spec);
    }
    if is_unset(spec.get("clusterIP")) {
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("clusterIPs");
        }
    } else {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
}

/// What the new type has no use for goes, unless the client asks for something new, which validation then refuses.
fn drop_unneeded(spec: &mut Value, old: &Value) {
    let lost = |has: fn(&Value) -> bool| has(old) && !has(spec);
    let mut fields: Vec<&str> = Vec::new();
    if lost(needs_cluster_ip) {
        if spec.get("clusterIP") == old.get("clusterIP") && spec.get("clusterIPs") == old.get("clusterIPs") {
            fields.extend(["clusterIP", "clusterIPs"]);
        }
        fields.extend(["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|f| spec.get(f) == old.get(f)));
    }
    let mut same_goes = |has: fn(&Value) -> bool, field: &'static str| {
        if lost(has) && spec.get(field) == old.get(field) {
            fields.push(field);
        }
    };
    same_goes(needs_health_check, "healthCheckNodePort");
    same_goes(is_load_balancer, "allocateLoadBalancerNodePorts");
    same_goes(is_load_balancer, "loadBalancerClass");
    same_goes(externally_accessible, "externalTrafficPolicy");
    let before: BTreeSet<i64> = list(old, "ports").iter().map(node_port).collect();
    let no_new = list(spec, "ports").iter().map(node_port).all(|n| n == 0 || before.contains(&n));
    let free_ports = lost(needs_node_ports) && no_new;
    let Some(map) = spec.as_object_mut() else { return };
    if free_ports {
        for port in list_mut(map, "ports") {
            port.remove("nodePort");
        }
    }
    for field in fields {
        map.remove(field);
    }
}

fn is_load_balancer(spec: &Value) -> bool {
    str(spec, "type") == "LoadBalancer"
}
