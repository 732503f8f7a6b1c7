//! Service. Addresses and node ports are given out by the registry's allocator, the families of its addresses are settled
//! in `families`; `prepare` keeps what a client leaves out.

pub(crate) mod families;
mod prepare;
#[cfg(test)]
mod tests;
mod validate;

use self::prepare::prepare;
use self::validate::validate;
use crate::kinds::meta::{self, Fields, default, is_unset, list, list_mut, object_mut, str, text};
use crate::kinds::table::{self, Column, age_column, created, joined, name, name_column, none_if_empty, text_column, wide};
use crate::kinds::{Kind, STORED, Sub, schema};
use jiff::Timestamp;
use serde_json::{Value, json};

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
        if port.get("targetPort").is_some_and(|t| t.as_i64() == Some(0) || t == "") {
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
        let status = o.as_object_mut().and_then(|o| meta::existing(o, "status"));
        let Some(balancer) = status.and_then(|s| meta::existing(s, "loadBalancer")) else { return };
        for ingress in list_mut(balancer, "ingress").filter(|i| !is_unset(i.get("ip"))) {
            default(ingress, "ipMode", "VIP");
        }
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    str(spec, "type") != "ExternalName"
}

fn needs_node_ports(spec: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&str(spec, "type"))
}

/// Whether there is a port on every node where a load balancer asks for local endpoints.
fn needs_health_check(spec: &Value) -> bool {
    str(spec, "type") == "LoadBalancer" && str(spec, "externalTrafficPolicy") == "Local"
}

fn externally_accessible(spec: &Value) -> bool {
    needs_node_ports(spec) || (str(spec, "type") == "ClusterIP" && !list(spec, "externalIPs").is_empty())
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
