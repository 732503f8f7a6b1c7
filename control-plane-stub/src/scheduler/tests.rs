use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::resources::of_pod;
use super::*;

fn pod(extra: Value) -> Pod {
    let mut v = json!({"metadata": {"name": "p", "namespace": "d", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c"}]}});
    json_patch::merge(&mut v, &extra);
    serde_json::from_value(v).unwrap()
}

fn asking(cpu: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn node(name: &str, extra: Value, pods: &[Pod]) -> NodeInfo {
    let mut v = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
    json_patch::merge(&mut v, &extra);
    let mut info = NodeInfo::new(&serde_json::from_value(v).unwrap());
    for p in pods {
        info.add(&Arc::new(p.clone()));
    }
    info
}

fn refusal(p: Value, n: NodeInfo) -> String {
    match place(&pod(p), &[n], 0) {
        Ok(_) => "fits".into(),
        Err(why) => why.to_string(),
    }
}

#[test]
fn requests_follow_the_rule_for_init_containers_and_sidecars() {
    let c = |name: &str, cpu: &str, policy: Value| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
    let cases = [
        (json!([]), "1500m"),
        (json!([c("i", "1", Value::Null)]), "1500m"),
        (json!([c("i", "2", Value::Null)]), "2"),
        (json!([c("s", "1", json!("Always"))]), "2500m"),
        (json!([c("s", "1", json!("Always")), c("i", "2", Value::Null)]), "3"),
        (json!([c("i", "2", Value::Null), c("s", "1", json!("Always"))]), "2500m"),
    ];
    for (init, want) in cases {
        let p = pod(
            json!({"spec": {"initContainers": init.clone(), "containers": [c("a", "1", Value::Null), c("b", "500m", Value::Null)]}}),
        );
        let want: ferrolet_quantity::Quantity = want.parse().unwrap();
        assert_eq!(of_pod(&p)["cpu"], want.milli(), "{init}");
    }
    let p = pod(json!({"spec": {"overhead": {"cpu": "250m", "memory": "10Mi"}}}));
    assert_eq!((of_pod(&p)["cpu"], of_pod(&p)["memory"]), (250, 10 << 20));
}

#[test]
fn a_pod_that_is_resized_reserves_the_most_of_what_it_asks_for_and_has() {
    let spec = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]});
    let amounts = |cpu: &str| json!({"cpu": cpu, "memory": "1Gi"});
    let status = |granted: &str, real: &str, reason: Option<&str>| {
        let pending = reason.map(|r| json!({"type": "PodResizePending", "status": "True", "reason": r}));
        json!({
            "conditions": pending.into_iter().collect::<Vec<_>>(),
            "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                "allocatedResources": amounts(granted), "resources": {"requests": amounts(real)}}],
        })
    };
    let cpu = |spec: Value, status: Value| of_pod(&pod(json!({"spec": spec, "status": status})))["cpu"];
    assert_eq!(cpu(spec("1"), json!({})), 1000);
    assert_eq!(cpu(spec("2"), status("1", "1", None)), 2000, "what it asks for");
    assert_eq!(cpu(spec("1"), status("1", "3", None)), 3000, "what it has not given up");
    assert_eq!(cpu(spec("1"), status("2", "1", None)), 2000, "what it was granted");
    assert_eq!(cpu(spec("5"), status("1", "1", Some("Deferred"))), 5000);
    assert_eq!(cpu(spec("5"), status("1", "2", Some("Infeasible"))), 2000);
    let whole = |cpu: &str| json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": cpu}}});
    let had = json!({"allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "3"}}});
    assert_eq!(cpu(whole("2"), had), 3000);
    assert_eq!(cpu(whole("2"), json!({})), 2000);
}

#[test]
fn refusals_in_words() {
    let plain = || node("n", json!({}), &[]);
    let tainted =
        |effect: &str| node("n", json!({"spec": {"taints": [{"key": "dedicated", "value": "db", "effect": effect}]}}), &[]);
    let full: Vec<Pod> = (0..10).map(|_| pod(json!({}))).collect();
    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}});
    let one = |why: &str| format!("0/1 nodes are available: 1 {why}.");
    let cases = [
        (json!({}), plain(), "fits".to_string()),
        (asking("2"), plain(), "fits".into()),
        (asking("2001m"), plain(), one("Insufficient cpu")),
        (
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}}),
            plain(),
            one("Insufficient example.com/gpu"),
        ),
        (json!({}), node("n", json!({}), &full), one("Too many pods")),
        (json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), plain(), one("node(s) didn't match Pod's node affinity/selector")),
        (
            json!({"spec": {"nodeSelector": {"disk": "ssd"}}}),
            node("n", json!({"metadata": {"labels": {"disk": "ssd"}}}), &[]),
            "fits".into(),
        ),
        (json!({}), tainted("NoSchedule"), one("node(s) had untolerated taint {dedicated: db}")),
        (json!({}), tainted("PreferNoSchedule"), "fits".into()),
        (json!({"spec": {"tolerations": [{"key": "dedicated", "value": "db"}]}}), tainted("NoExecute"), "fits".into()),
        (
            json!({"spec": {"tolerations": [{"key": "dedicated", "value": "web"}]}}),
            tainted("NoExecute"),
            one("node(s) had untolerated taint {dedicated: db}"),
        ),
        (json!({"spec": {"tolerations": [{"operator": "Exists"}]}}), tainted("NoSchedule"), "fits".into()),
        (json!({}), node("n", json!({"spec": {"unschedulable": true}}), &[]), one("node(s) were unschedulable")),
        (port.clone(), node("n", json!({}), &[pod(port)]), one("node(s) didn't have free ports for the requested pod ports")),
    ];
    for (p, n, want) in cases {
        assert_eq!(refusal(p.clone(), n), want, "{p}");
    }
    assert_eq!(place(&pod(json!({})), &[], 0).unwrap_err().to_string(), "no nodes available to schedule pods");
    let three = [node("a", json!({"status": {"allocatable": {"cpu": "1"}}}), &[]), tainted("NoSchedule"), tainted("NoExecute")];
    assert_eq!(
        place(&pod(asking("1500m")), &three, 0).unwrap_err().to_string(),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {dedicated: db}."
    );
}

#[test]
fn finished_pods_take_nothing() {
    let mut done = pod(asking("2"));
    done.status.get_or_insert_default().phase = Some("Succeeded".into());
    assert_eq!(refusal(asking("2"), node("n", json!({}), &[done])), "fits");
}

#[test]
fn required_and_preferred_node_affinity() {
    let zones = [
        node("a", json!({"metadata": {"labels": {"zone": "a"}}}), &[]),
        node("b", json!({"metadata": {"labels": {"zone": "b"}}}), &[]),
    ];
    let wants = |kind: &str, body: Value| pod(json!({"spec": {"affinity": {"nodeAffinity": {kind: body}}}}));
    let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]});
    let required = wants("requiredDuringSchedulingIgnoredDuringExecution", json!({"nodeSelectorTerms": [term]}));
    let preferred = wants("preferredDuringSchedulingIgnoredDuringExecution", json!([{"weight": 50, "preference": term}]));
    for seed in 0..4 {
        assert_eq!(place(&required, &zones, seed).unwrap().name, "b");
        assert_eq!(place(&preferred, &zones, seed).unwrap().name, "b");
    }
    let nothing = wants("requiredDuringSchedulingIgnoredDuringExecution", json!({"nodeSelectorTerms": [{}]}));
    assert!(place(&nothing, &zones, 0).is_err());
    let by_name = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]});
    let by_name = wants("requiredDuringSchedulingIgnoredDuringExecution", json!({"nodeSelectorTerms": [by_name]}));
    assert_eq!(place(&by_name, &zones, 3).unwrap().name, "a");
}

#[test]
fn affinity_between_pods() {
    let term = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let kind = "requiredDuringSchedulingIgnoredDuringExecution";
    let apart = pod(json!({"spec": {"affinity": {"podAntiAffinity": {kind: term}}}}));
    let together = pod(json!({"spec": {"affinity": {"podAffinity": {kind: term}}}}));
    let other = pod(json!({"metadata": {"labels": {"app": "db"}}, "spec": {"affinity": {"podAffinity": {kind: term}}}}));
    let busy = || node("busy", json!({}), &[pod(json!({}))]);
    let idle = || node("idle", json!({}), &[]);
    assert_eq!(place(&apart, &[busy(), idle()], 1).unwrap().name, "idle");
    assert_eq!(place(&together, &[busy(), idle()], 1).unwrap().name, "busy");
    assert!(place(&together, &[idle()], 0).is_ok(), "the first of its kind may start");
    assert!(place(&other, &[idle()], 0).is_err(), "it waits for others, not for its like");
    let guarded = node("guarded", json!({}), std::slice::from_ref(&apart));
    let why = place(&pod(json!({})), &[guarded], 0).unwrap_err();
    assert_eq!(why.to_string(), "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.");
}

#[test]
fn topology_spread() {
    let zone = |name: &str, zone: &str, pods: usize| {
        node(name, json!({"metadata": {"labels": {"zone": zone}}}), &vec![pod(json!({})); pods])
    };
    let p = pod(
        json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}}),
    );
    let nodes = [zone("a1", "a", 2), zone("a2", "a", 0), zone("b1", "b", 1)];
    for seed in 0..5 {
        assert_eq!(place(&p, &nodes, seed).unwrap().name, "b1");
    }
    let bare = node("bare", json!({}), &[]);
    assert!(place(&p, &[bare], 0).unwrap_err().to_string().contains("missing required label"));
}

#[test]
fn pods_of_one_owner_are_spread_and_equals_are_drawn() {
    let owned = || {
        pod(
            json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]}}),
        )
    };
    let mut nodes: Vec<NodeInfo> = ["a", "b", "c"].iter().map(|n| node(n, json!({}), &[])).collect();
    for round in 0..6 {
        let name = place(&owned(), &nodes, round).unwrap().name.clone();
        nodes.iter_mut().find(|n| n.name == name).unwrap().add(&Arc::new(owned()));
    }
    assert!(nodes.iter().all(|n| n.pods.len() == 2), "{:?}", nodes.iter().map(|n| n.pods.len()).collect::<Vec<_>>());
}

proptest! {
    /// Against ten lines that only add up: nothing is overcommitted, and nothing that would fit is refused.
    #[test]
    fn resources_agree_with_an_oracle(
        sizes in prop::collection::vec((1i64..3000, 1i64..4000), 1..5),
        pods in prop::collection::vec((0i64..1500, 0i64..2000), 0..30),
        seed in any::<u64>(),
    ) {
        let mut nodes: Vec<NodeInfo> = sizes.iter().enumerate().map(|(i, (cpu, memory))| {
            node(&format!("n{i}"), json!({"status": {"allocatable": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi"), "pods": "5"}}}), &[])
        }).collect();
        let mut left: Vec<(i64, i64, usize)> = sizes.iter().map(|(c, m)| (*c, *m, 5)).collect();
        for (i, (cpu, memory)) in pods.iter().enumerate() {
            let p = pod(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")}}}]}}));
            let could = left.iter().any(|(c, m, n)| cpu <= c && memory <= m && *n > 0);
            match place(&p, &nodes, seed.wrapping_add(i as u64)).map(|n| n.name.clone()) {
                Ok(name) => {
                    let at = nodes.iter().position(|n| n.name == name).unwrap();
                    let (c, m, n) = &mut left[at];
                    prop_assert!(cpu <= c && memory <= m && *n > 0, "node {at} was overcommitted");
                    *c -= cpu; *m -= memory; *n -= 1;
                    nodes[at].add(&Arc::new(p));
                }
                Err(_) => prop_assert!(!could, "a pod that fits was refused"),
            }
        }
    }
}
