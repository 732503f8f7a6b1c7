//! The controllers and the scheduler together over a real registry. A node is played by the test: it answers bound pods
//! with a ready status.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::kinds::{Kind, Sub};
use crate::registry::{Config, DeleteOptions, ListOptions, Propagation, WriteOptions};
use crate::store::{Keep, Store};

struct World {
    registry: Registry,
    cancel: CancellationToken,
    _folder: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl World {
    async fn start() -> World {
        World::with("10.96.0.0/16", "10.244.0.0/16").await
    }

    async fn with(service_cidr: &str, cluster_cidr: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.redb"), Keep::default()).unwrap();
        let config = Config {
            service_cidr: service_cidr.parse().unwrap(),
            node_ports: allocate::DEFAULT_NODE_PORTS,
            advertise: Some(("192.168.77.1".parse().unwrap(), 6443)),
        };
        let registry = Registry::open(store, config).await.unwrap();
        let cancel = CancellationToken::new();
        let params = Params { ca_pem: "CA".into(), cluster_cidr: Some(cluster_cidr.parse().unwrap()) };
        spawn_all(&registry, params, &cancel);
        crate::scheduler::spawn(&registry, &cancel);
        World { registry, cancel, _folder: folder }
    }

    async fn create(&self, kind: &'static Kind, object: Value) -> Arc<Value> {
        self.registry.create(kind, "default", object, &WriteOptions::default()).await.unwrap()
    }

    async fn list(&self, kind: &'static Kind) -> Vec<Arc<Value>> {
        self.registry.list(kind, None, &ListOptions::default()).await.unwrap().items
    }

    async fn get(&self, kind: &'static Kind, name: &str) -> Option<Arc<Value>> {
        let namespace = if kind.namespaced { "default" } else { "" };
        self.registry.get(kind, namespace, name).await.ok()
    }

    /// A node that says it is ready, with a fresh lease.
    async fn node(&self, name: &str) {
        self.registry
            .create(
                &kinds::NODE,
                "",
                json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                    "status": {"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}}),
                &WriteOptions::default(),
            )
            .await
            .unwrap();
        let ready = |v: &mut Value| {
            v["status"] = json!({"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]});
            true
        };
        self.registry.modify(&kinds::NODE, "", name, Some(Sub::Status), ready).await.unwrap();
    }

    /// Until the token ends: every bound pod becomes ready, every terminating one goes.
    fn run_pods(&self) {
        let (registry, cancel) = (self.registry.clone(), self.cancel.clone());
        tokio::spawn(async move {
            let mut ip = 0;
            while !cancel.is_cancelled() {
                let pods = registry.list(&kinds::POD, None, &ListOptions::default()).await.unwrap().items;
                for pod in pods {
                    let text = |p: &str| pod.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
                    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
                    if text("/spec/nodeName").is_empty() {
                    } else if !text("/metadata/deletionTimestamp").is_empty() {
                        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
                        let _ = registry.delete(&kinds::POD, &namespace, &name, &now).await;
                    } else if text("/status/phase") != "Running" {
                        ip += 1;
                        let run = |v: &mut Value| {
                            v["status"]["phase"] = json!("Running");
                            v["status"]["podIP"] = json!(format!("10.244.0.{ip}"));
                            v["status"]["podIPs"] = json!([{"ip": format!("10.244.0.{ip}")}]);
                            let list = v["status"]["conditions"].as_array_mut().unwrap();
                            list.push(json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}));
                            true
                        };
                        let _ = registry.modify(&kinds::POD, &namespace, &name, Some(Sub::Status), run).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    /// Waits for a condition on the world, with a deadline.
    async fn until<F: Future<Output = bool>>(&self, what: &str, met: impl Fn() -> F) {
        let start = std::time::Instant::now();
        while !met().await {
            if start.elapsed() > Duration::from_secs(60) {
                let mut all = String::new();
                for kind in [&kinds::DEPLOYMENT, &kinds::REPLICA_SET, &kinds::POD, &kinds::NODE, &kinds::EVENT] {
                    for o in self.list(kind).await {
                        all += &format!("{o}\n");
                    }
                }
                panic!("not within 60 s: {what}\n{all}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn rolled_out(&self, name: &str, replicas: i64) {
        self.until("the rollout is complete", || async {
            let d = self.get(&kinds::DEPLOYMENT, name).await.unwrap();
            let n = |p: &str| d.pointer(p).and_then(Value::as_i64).unwrap_or(0);
            n("/status/observedGeneration") == n("/metadata/generation")
                && ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|f| n(&format!("/status/{f}")) == replicas)
                && d.to_string().contains("NewReplicaSetAvailable")
        })
        .await;
    }

    async fn endpoints(&self, service: &str) -> usize {
        let all = self.list(&kinds::ENDPOINT_SLICE).await;
        let mine = all.iter().filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == service);
        mine.flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default())
            .filter(|e| e["conditions"]["ready"] == true)
            .count()
    }
}

fn web(replicas: i64, image: &str) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"replicas": replicas, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}], "resources": {"requests": {"cpu": "100m"}}}]}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_runs_scales_rolls_and_goes() {
    let world = World::start().await;
    world.run_pods();
    world.node("n1").await;
    world.node("n2").await;
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    world.create(&kinds::SERVICE, service).await;
    world.create(&kinds::DEPLOYMENT, web(3, "v0")).await;
    world.rolled_out("web", 3).await;
    world.until("3 endpoints", || async { world.endpoints("web").await == 3 }).await;
    let pods = world.list(&kinds::POD).await;
    let on = |node: &str| pods.iter().filter(|p| p["spec"]["nodeName"] == node).count();
    assert!(on("n1") > 0 && on("n2") > 0, "spread over both nodes");
    let five = |v: &mut Value| {
        v["spec"]["replicas"] = json!(5);
        true
    };
    world.registry.modify(&kinds::DEPLOYMENT, "default", "web", None, five).await.unwrap();
    world.rolled_out("web", 5).await;
    let v1 = |v: &mut Value| {
        v["spec"]["template"]["spec"]["containers"][0]["image"] = json!("v1");
        true
    };
    world.registry.modify(&kinds::DEPLOYMENT, "default", "web", None, v1).await.unwrap();
    world.rolled_out("web", 5).await;
    world
        .until("only new pods", || async {
            let pods = world.list(&kinds::POD).await;
            pods.len() == 5 && pods.iter().all(|p| p["spec"]["containers"][0]["image"] == "v1")
        })
        .await;
    world.until("5 endpoints", || async { world.endpoints("web").await == 5 }).await;
    let sets = world.list(&kinds::REPLICA_SET).await;
    let mut revisions: Vec<_> =
        sets.iter().map(|s| s["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone()).collect();
    revisions.sort_by_key(|v| v.to_string());
    assert_eq!(revisions, ["1", "2"]);
    let reasons: Vec<String> = world.list(&kinds::EVENT).await.iter().map(|e| e["reason"].as_str().unwrap().to_owned()).collect();
    for want in ["ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete", "Scheduled"] {
        assert!(reasons.iter().any(|r| r == want), "{want} in {reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_waits_for_a_node_and_says_why() {
    let world = World::start().await;
    world.run_pods();
    world.create(&kinds::DEPLOYMENT, web(1, "v0")).await;
    let message = || async {
        let pods = world.list(&kinds::POD).await;
        let conditions = pods.first().and_then(|p| p.pointer("/status/conditions")?.as_array().cloned()).unwrap_or_default();
        let c = conditions.into_iter().find(|c| c["type"] == "PodScheduled");
        c.map(|c| c["message"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    world.until("no nodes is said", || async { message().await == "no nodes available to schedule pods" }).await;
    world.node("n1").await;
    world.rolled_out("web", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deleted_owner_leaves_behind() {
    let world = World::start().await;
    world.run_pods();
    world.node("n1").await;
    for (name, propagation) in
        [("background", Propagation::Background), ("foreground", Propagation::Foreground), ("orphan", Propagation::Orphan)]
    {
        let app = format!("{name}-app");
        let mut d = web(2, "v0");
        d["metadata"]["name"] = json!(name);
        d["spec"]["selector"]["matchLabels"]["app"] = json!(app);
        d["spec"]["template"]["metadata"]["labels"]["app"] = json!(app);
        world.create(&kinds::DEPLOYMENT, d).await;
        world.rolled_out(name, 2).await;
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        world.registry.delete(&kinds::DEPLOYMENT, "default", name, &options).await.unwrap();
        world.until("the deployment is gone", || async { world.get(&kinds::DEPLOYMENT, name).await.is_none() }).await;
        if propagation == Propagation::Orphan {
            world
                .until("the replica set stands alone", || async {
                    let sets = world.list(&kinds::REPLICA_SET).await;
                    sets.len() == 1 && sets[0]["metadata"].get("ownerReferences").is_none()
                })
                .await;
            assert_eq!(world.list(&kinds::POD).await.len(), 2);
        } else {
            world
                .until("replica set and pods are gone", || async {
                    world.list(&kinds::REPLICA_SET).await.is_empty() && world.list(&kinds::POD).await.is_empty()
                })
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_cleared() {
    let world = World::start().await;
    world.run_pods();
    let options = WriteOptions::default();
    world.registry.create(&kinds::NAMESPACE, "", json!({"metadata": {"name": "team"}}), &options).await.unwrap();
    let has = async |kind: &'static Kind, name: &str| world.registry.get(kind, "team", name).await.ok();
    world.until("the account is there", || async { has(&kinds::SERVICE_ACCOUNT, "default").await.is_some() }).await;
    world
        .until("the CA is there", || async {
            has(&kinds::CONFIG_MAP, "kube-root-ca.crt").await.is_some_and(|m| m["data"]["ca.crt"] == "CA")
        })
        .await;
    world.registry.delete(&kinds::CONFIG_MAP, "team", "kube-root-ca.crt", &DeleteOptions::default()).await.unwrap();
    world.until("the CA is back", || async { has(&kinds::CONFIG_MAP, "kube-root-ca.crt").await.is_some() }).await;
    world.node("n1").await;
    let mut d = web(2, "v0");
    d["metadata"]["namespace"] = json!("team");
    world.registry.create(&kinds::DEPLOYMENT, "team", d, &options).await.unwrap();
    world
        .until("two pods run", || async {
            world.list(&kinds::POD).await.iter().filter(|p| p["status"]["phase"] == "Running").count() == 2
        })
        .await;
    world.registry.delete(&kinds::NAMESPACE, "", "team", &DeleteOptions::default()).await.unwrap();
    world.until("the namespace is gone", || async { world.get(&kinds::NAMESPACE, "team").await.is_none() }).await;
    for kind in [&kinds::POD, &kinds::REPLICA_SET, &kinds::DEPLOYMENT, &kinds::CONFIG_MAP] {
        let left: Vec<_> = world.list(kind).await.into_iter().filter(|o| o["metadata"]["namespace"] == "team").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taint_evicts_and_the_pods_move() {
    let world = World::start().await;
    world.run_pods();
    world.node("n1").await;
    world.create(&kinds::DEPLOYMENT, web(2, "v0")).await;
    world.rolled_out("web", 2).await;
    world.node("n2").await;
    let taint = |v: &mut Value| {
        v["spec"]["taints"] = json!([{"key": "broken", "effect": "NoExecute"}]);
        true
    };
    world.registry.modify(&kinds::NODE, "", "n1", None, taint).await.unwrap();
    world
        .until("both pods run on n2", || async {
            let pods = world.list(&kinds::POD).await;
            pods.len() == 2 && pods.iter().all(|p| p["spec"]["nodeName"] == "n2" && p["status"]["phase"] == "Running")
        })
        .await;
    let cidrs: std::collections::BTreeSet<String> =
        world.list(&kinds::NODE).await.iter().map(|n| n["spec"]["podCIDR"].to_string()).collect();
    assert_eq!(cidrs.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_families_and_where_traffic_is_to_go() {
    let world = World::with("10.96.0.0/16,fd00:10:96::/112", "10.244.0.0/16,fd00:10:244::/48").await;
    world.node("n1").await;
    world
        .until("a range of each family", || async {
            let node = world.get(&kinds::NODE, "n1").await.unwrap();
            node["spec"]["podCIDRs"] == json!(["10.244.0.0/24", "fd00:10:244::/64"]) && node["spec"]["podCIDR"] == "10.244.0.0/24"
        })
        .await;
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    world.create(&kinds::POD, pod).await;
    let run = |v: &mut Value| {
        v["status"] = json!({"phase": "Running", "podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}, {"ip": "fd00:10:244::2"}],
            "conditions": [{"type": "Ready", "status": "True"}]});
        true
    };
    world.registry.modify(&kinds::POD, "default", "p", Some(Sub::Status), run).await.unwrap();
    let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack", "trafficDistribution": "PreferSameNode"});
    world.create(&kinds::SERVICE, json!({"metadata": {"name": "web"}, "spec": spec})).await;
    // Address type, address and hints of every endpoint.
    let seen = || async {
        let all = world.list(&kinds::ENDPOINT_SLICE).await;
        let mine = all.iter().filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web");
        let mut seen: Vec<Value> = mine
            .flat_map(|s| {
                let endpoints = s["endpoints"].as_array().cloned().unwrap_or_default();
                endpoints.into_iter().map(|e| json!([s["addressType"], e["addresses"][0], e["hints"]]))
            })
            .collect();
        seen.sort_by_key(ToString::to_string);
        json!(seen)
    };
    let both = |hints: Value| json!([["IPv4", "10.244.0.2", hints], ["IPv6", "fd00:10:244::2", hints]]);
    let node_only = both(json!({"forNodes": [{"name": "n1"}]}));
    world.until("an endpoint of each family for its node", || async { seen().await == node_only }).await;
    let zone = |v: &mut Value| {
        v["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("z");
        true
    };
    world.registry.modify(&kinds::NODE, "", "n1", None, zone).await.unwrap();
    let with_zone = both(json!({"forNodes": [{"name": "n1"}], "forZones": [{"name": "z"}]}));
    world.until("the zone is in the hints", || async { seen().await == with_zone }).await;
    let narrow = |v: &mut Value| {
        v["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        v["spec"]["trafficDistribution"] = Value::Null;
        true
    };
    world.registry.modify(&kinds::SERVICE, "default", "web", None, narrow).await.unwrap();
    world.until("one family without hints", || async { seen().await == json!([["IPv4", "10.244.0.2", null]]) }).await;
}

#[tokio::test]
async fn claims_get_volumes_and_volumes_know_when_claims_go() {
    let w = World::start().await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    w.create(&kinds::PERSISTENT_VOLUME_CLAIM, claim).await;
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp"}}});
    w.registry.create(&kinds::PERSISTENT_VOLUME, "", volume, &WriteOptions::default()).await.unwrap();
    let phase = async |kind: &'static Kind, name: &str| w.get(kind, name).await.map(|o| o["status"]["phase"].clone());
    w.until("the claim is bound", async || phase(&kinds::PERSISTENT_VOLUME_CLAIM, "c").await == Some(json!("Bound"))).await;
    let bound = w.get(&kinds::PERSISTENT_VOLUME_CLAIM, "c").await.unwrap();
    assert_eq!((&bound["spec"]["volumeName"], &bound["status"]["capacity"]["storage"]), (&json!("v"), &json!("2Gi")));
    let volume = w.get(&kinds::PERSISTENT_VOLUME, "v").await.unwrap();
    assert_eq!(volume["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);
    w.registry.delete(&kinds::PERSISTENT_VOLUME_CLAIM, "default", "c", &DeleteOptions::default()).await.unwrap();
    w.until("the volume is released", async || phase(&kinds::PERSISTENT_VOLUME, "v").await == Some(json!("Released"))).await;
}
