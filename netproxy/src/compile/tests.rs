use super::*;
use crate::convert;
use crate::describe::text;
use crate::testing::policy;
use serde_json::json;

fn tables(services: &[serde_json::Value], slices: &[serde_json::Value]) -> Tables {
    let mut tables = Tables::default();
    let mut touched = Touched::new();
    for s in services {
        let wire: crate::wire::Service = serde_json::from_value(s.clone()).unwrap();
        tables.set_service(convert::key(&wire.metadata), convert::service(&wire, &mut Vec::new()), &mut touched);
    }
    for s in slices {
        let wire: crate::wire::EndpointSlice = serde_json::from_value(s.clone()).unwrap();
        tables.set_slice(convert::key(&wire.metadata), convert::slice(&wire, "here", &mut Vec::new()), &mut touched);
    }
    tables
}

fn service(name: &str, ip: &str, more: serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"type": "NodePort", "clusterIPs": [ip], "ports": [{"port": 80, "nodePort": 30080}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"namespace": "default", "name": name}, "spec": spec})
}

fn slice(service: &str, endpoints: &[(&str, &str, bool)]) -> serde_json::Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(ip, node, ready)| json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": ready, "serving": true, "terminating": !ready}}))
        .collect();
    json!({
        "metadata": {"namespace": "default", "name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080}]
    })
}

#[test]
fn a_service_becomes_fronts_and_marks() {
    let t = tables(
        &[
            service("web", "10.96.0.1", json!({"externalTrafficPolicy": "Local"})),
            service("none", "10.96.0.2", json!({"ports": [{"port": 1, "nodePort": 30081}]})),
        ],
        &[slice("web", &[("10.244.1.5", "there", true), ("10.244.0.7", "here", true), ("10.244.0.8", "here", false)])],
    );
    insta::assert_snapshot!(text(&compile(&t, &policy()), &BTreeSet::new()), @r"
    service default/none
      other ports of 10.96.0.2 are rejected
      node port 30081/tcp (V4) is rejected: no endpoints
    service default/web
      cluster IP 10.96.0.1:80/tcp -> 10.244.0.7:8080, 10.244.1.5:8080
      node port 30080/tcp (V4) -> 10.244.0.7:8080, 10.244.1.5:8080
      node port 30080/tcp (V4), outside traffic -> 10.244.0.7:8080
      other ports of 10.96.0.1 are rejected
      outside traffic to node port 30080/tcp (V4) stays on this node
      local endpoint 10.244.0.7: to itself by way of the service is masqueraded
    ");
}

#[test]
fn the_first_by_name_has_a_contended_node_port() {
    let mut t = tables(
        &[service("b", "10.96.0.2", json!({})), service("a", "10.96.0.1", json!({}))],
        &[slice("a", &[("10.244.0.1", "there", true)]), slice("b", &[("10.244.0.2", "there", true)])],
    );
    let mut rules = compile(&t, &policy());
    let front = Front::NodePort { family: Family::V4, proto: crate::model::Proto::Tcp, port: 30080 };
    let to = |r: &Ruleset| r.endpoints(&front).map(|p| p[0].ip.to_string());
    assert_eq!(to(&rules).as_deref(), Some("10.244.0.1"));
    // The loser still has its cluster IP, and gets the port when the winner goes.
    assert_eq!(rules.block(&Key::new("default", "b")).unwrap().fronts.len(), 1);
    let mut touched = Touched::new();
    t.set_service(Key::new("default", "a"), None, &mut touched);
    let changed = update(&mut rules, &t, &touched, &BTreeSet::new());
    assert_eq!(to(&rules).as_deref(), Some("10.244.0.2"));
    assert_eq!(changed.len(), 2);
    assert_eq!(rules, compile(&t, &policy()));
}

#[test]
fn a_service_set_aside_has_no_rules() {
    let t = tables(&[service("web", "10.96.0.1", json!({}))], &[slice("web", &[("10.244.0.1", "there", true)])]);
    let mut rules = compile(&t, &policy());
    let key: Touched = [Key::new("default", "web")].into();
    update(&mut rules, &t, &key, &key);
    assert_eq!(rules.blocks().count(), 0);
    update(&mut rules, &t, &key, &BTreeSet::new());
    assert_eq!(rules, compile(&t, &policy()));
}
