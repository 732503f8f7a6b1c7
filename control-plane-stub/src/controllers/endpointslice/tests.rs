use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn service(extra: Value) -> Service {
    let mut v = json!({"metadata": {"name": "web", "namespace": "d", "uid": "s1", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    json_patch_merge(&mut v, extra);
    serde_json::from_value(v).unwrap()
}

fn json_patch_merge(into: &mut Value, from: Value) {
    json_patch::merge(into, &from);
}

fn pod(n: usize, ready: bool, port: u16) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{n}"), "namespace": "d", "uid": format!("u{n}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.244.{}.{}", n / 250, n % 250 + 1)}, {"ip": format!("fd00::{n:x}")}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
    }))
    .unwrap()
}

fn run(service: &Service, pods: &[Pod], slices: &[EndpointSlice]) -> Plan {
    let zones = [("n1".to_string(), "z1".to_string())].into();
    decide(service, &pods.iter().collect::<Vec<_>>(), &zones, &slices.iter().collect::<Vec<_>>())
}

/// What the API would hold afterwards.
fn apply(slices: &mut Vec<EndpointSlice>, plan: Plan, next: &mut usize) {
    slices.retain(|s| !plan.delete.contains(s.metadata.name.as_ref().unwrap()));
    for new in plan.update {
        let at = slices.iter().position(|s| s.metadata.name == new.metadata.name).unwrap();
        slices[at] = new;
    }
    for mut new in plan.create {
        *next += 1;
        new.metadata.name = Some(format!("web-{next:05}"));
        slices.push(new);
    }
}

#[test]
fn an_endpoint_says_all_that_is_known() {
    let plan = run(&service(json!({})), &[pod(1, true, 8080)], &[]);
    let slice = &plan.create[0];
    assert_eq!(
        serde_json::to_value(slice).unwrap(),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"generateName": "web-", "namespace": "d",
                "labels": {"team": "a", "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s1", "controller": true, "blockOwnerDeletion": true}]},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.244.0.2"], "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "n1", "zone": "z1", "targetRef": {"kind": "Pod", "namespace": "d", "name": "p1", "uid": "u1"}}]
        })
    );
}

#[test]
fn conditions() {
    let deleting = |mut p: Pod| {
        p.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-01-01T00:00:00Z".parse().unwrap()));
        p
    };
    let seen = |p: Pod, s: &Service| {
        let c = run(s, &[p], &[]).create[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
        (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
    };
    let plain = service(json!({}));
    let publish = service(json!({"spec": {"publishNotReadyAddresses": true}}));
    assert_eq!(seen(pod(1, true, 80), &plain), (true, true, false));
    assert_eq!(seen(pod(1, false, 80), &plain), (false, false, false));
    assert_eq!(seen(deleting(pod(1, true, 80)), &plain), (false, true, true));
    assert_eq!(seen(deleting(pod(1, false, 80)), &plain), (false, false, true));
    assert_eq!(seen(pod(1, false, 80), &publish), (true, false, false));
}

#[test]
fn what_makes_no_endpoint() {
    let mut finished = pod(1, true, 80);
    finished.status.as_mut().unwrap().phase = Some("Succeeded".into());
    let mut no_ip = pod(2, false, 80);
    no_ip.status.as_mut().unwrap().pod_ips = None;
    let plan = run(&service(json!({})), &[finished, no_ip], &[]);
    assert_eq!(plan.create.len(), 1, "the placeholder");
    assert_eq!(plan.create[0].endpoints, Some(vec![]));
    assert!(run(&service(json!({"spec": {"selector": null}})), &[pod(1, true, 80)], &[]).is_empty());
    assert!(run(&service(json!({"spec": {"type": "ExternalName"}})), &[pod(1, true, 80)], &[]).is_empty());
}

#[test]
fn named_ports_that_differ_make_slices_of_their_own() {
    let plan = run(&service(json!({})), &[pod(1, true, 8080), pod(2, true, 9090), pod(3, true, 8080)], &[]);
    let mut seen: Vec<(i32, usize)> =
        plan.create.iter().map(|s| (s.ports.as_ref().unwrap()[0].port.unwrap(), s.endpoints.as_ref().unwrap().len())).collect();
    seen.sort();
    assert_eq!(seen, [(8080, 2), (9090, 1)]);
}

#[test]
fn both_families_and_headless() {
    let s = service(json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "clusterIP": "None"}}));
    let mut p = pod(1, true, 80);
    p.spec.as_mut().unwrap().hostname = Some("db-0".into());
    p.spec.as_mut().unwrap().subdomain = Some("web".into());
    let plan = run(&s, &[p], &[]);
    let kinds: Vec<&str> = plan.create.iter().map(|s| s.address_type.as_str()).collect();
    assert_eq!(kinds, ["IPv4", "IPv6"]);
    assert_eq!(plan.create[1].endpoints.as_ref().unwrap()[0].addresses, ["fd00::1"]);
    assert_eq!(plan.create[0].endpoints.as_ref().unwrap()[0].hostname.as_deref(), Some("db-0"));
    assert_eq!(meta::label(&plan.create[0].metadata, HEADLESS), Some(""));
}

#[test]
fn traffic_distribution_gives_hints_to_ready_endpoints() {
    let seen = |distribution: Value, p: Pod| {
        let s = service(json!({"spec": {"trafficDistribution": distribution, "ipFamilies": ["IPv4", "IPv6"]}}));
        let plan = run(&s, &[p], &[]);
        let of = |slice: &EndpointSlice| serde_json::to_value(&slice.endpoints.as_ref().unwrap()[0].hints).unwrap();
        assert_eq!(of(&plan.create[0]), of(&plan.create[1]), "both families say the same");
        of(&plan.create[0])
    };
    let zone = json!({"forZones": [{"name": "z1"}]});
    assert_eq!(seen(json!(null), pod(1, true, 80)), json!(null));
    assert_eq!(seen(json!("PreferClose"), pod(1, true, 80)), zone);
    assert_eq!(seen(json!("PreferSameZone"), pod(1, true, 80)), zone);
    assert_eq!(
        seen(json!("PreferSameNode"), pod(1, true, 80)),
        json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]})
    );
    assert_eq!(seen(json!("PreferSameNode"), pod(1, false, 80)), json!(null), "what is not ready gets none");
    let elsewhere = |mut p: Pod| {
        p.spec.as_mut().unwrap().node_name = Some("n2".into());
        p
    };
    assert_eq!(seen(json!("PreferSameZone"), elsewhere(pod(1, true, 80))), json!(null), "a node without a zone");
    assert_eq!(seen(json!("PreferSameNode"), elsewhere(pod(1, true, 80))), json!({"forNodes": [{"name": "n2"}]}));
}

#[test]
fn a_change_of_distribution_or_families_reaches_slices_that_are_there() {
    let pods: Vec<Pod> = (0..150).map(|n| pod(n, true, 80)).collect();
    let (mut slices, mut next) = (vec![], 0);
    let sizes = |slices: &[EndpointSlice], kind: &str| -> Vec<usize> {
        slices.iter().filter(|s| s.address_type == kind).map(|s| s.endpoints.as_ref().unwrap().len()).collect()
    };
    apply(&mut slices, run(&service(json!({})), &pods, &[]), &mut next);
    let hinted = service(json!({"spec": {"trafficDistribution": "PreferSameZone"}}));
    let plan = run(&hinted, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 2, 0));
    apply(&mut slices, plan, &mut next);
    assert!(run(&hinted, &pods, &slices).is_empty());
    let dual = service(json!({"spec": {"trafficDistribution": "PreferSameZone", "ipFamilies": ["IPv4", "IPv6"]}}));
    let plan = run(&dual, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (2, 0, 0), "the second family only adds");
    apply(&mut slices, plan, &mut next);
    assert_eq!((sizes(&slices, "IPv4"), sizes(&slices, "IPv6")), (vec![100, 50], vec![100, 50]));
    let six = service(json!({"spec": {"ipFamilies": ["IPv6"]}}));
    let plan = run(&six, &pods, &slices);
    apply(&mut slices, plan, &mut next);
    assert_eq!((sizes(&slices, "IPv4"), sizes(&slices, "IPv6")), (vec![], vec![100, 50]));
}

#[test]
fn one_change_rewrites_one_slice() {
    let s = service(json!({}));
    let mut pods: Vec<Pod> = (0..250).map(|n| pod(n, true, 80)).collect();
    let (mut slices, mut next) = (vec![], 0);
    apply(&mut slices, run(&s, &pods, &[]), &mut next);
    assert_eq!(slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect::<Vec<_>>(), [100, 100, 50]);
    assert!(run(&s, &pods, &slices).is_empty());
    pods[3] = pod(3, false, 80);
    let plan = run(&s, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    apply(&mut slices, plan, &mut next);
    pods.push(pod(500, true, 80));
    let plan = run(&s, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    apply(&mut slices, plan, &mut next);
    pods.remove(7);
    let plan = run(&s, &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
}

proptest! {
    /// Against the plainest oracle: the union of all slices is what the pods are, no endpoint is there twice, no slice
    /// is too large, and a second look finds nothing to do.
    #[test]
    fn slices_hold_exactly_the_pods(rounds in prop::collection::vec(prop::collection::btree_map(0usize..160, (any::<bool>(), prop::bool::weighted(0.1)), 0..130), 1..4)) {
        let s = service(json!({}));
        let (mut slices, mut next) = (vec![], 0);
        for round in rounds {
            let pods: Vec<Pod> = round.iter().map(|(n, (ready, odd))| pod(*n, *ready, if *odd { 81 } else { 80 })).collect();
            let plan = run(&s, &pods, &slices);
            let touched: BTreeSet<_> = plan.update.iter().map(|s| s.metadata.name.clone().unwrap()).chain(plan.delete.clone()).collect();
            prop_assert_eq!(touched.len(), plan.update.len() + plan.delete.len(), "one write a slice");
            apply(&mut slices, plan, &mut next);
            let mut have: Vec<(String, i32, bool)> = vec![];
            for slice in &slices {
                let endpoints = slice.endpoints.as_ref().unwrap();
                prop_assert!(endpoints.len() <= MAX_ENDPOINTS);
                for e in endpoints {
                    have.push((e.target_ref.as_ref().unwrap().uid.clone().unwrap(), slice.ports.as_ref().unwrap()[0].port.unwrap(), e.conditions.as_ref().unwrap().ready.unwrap()));
                }
            }
            have.sort();
            let mut want: Vec<(String, i32, bool)> = round.iter().map(|(n, (ready, odd))| (format!("u{n}"), if *odd { 81 } else { 80 }, *ready)).collect();
            want.sort();
            prop_assert_eq!(have, want);
            prop_assert!(run(&s, &pods, &slices).is_empty());
        }
    }
}
