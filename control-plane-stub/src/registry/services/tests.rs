use serde_json::json;

use super::*;
use crate::kinds::{SERVICE, Sub};
use crate::registry::{DeleteOptions, Registry, WriteOptions};
use crate::store::Keep;

struct World {
    registry: Registry,
    dir: tempfile::TempDir,
}

async fn open(dir: tempfile::TempDir, cidr: &str) -> World {
    // The writing thread of a store that was dropped holds the file for a moment longer.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let store = loop {
        match Store::open(&dir.path().join("s"), Keep::default()) {
            Ok(store) => break store,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
        }
        tokio::task::yield_now().await;
    };
    let advertise = Some(("10.1.0.1".parse().unwrap(), 6443));
    let config = Config { service_cidr: cidr.parse().unwrap(), node_ports: 30000..=30099, advertise };
    World { registry: Registry::open(store, config).await.unwrap(), dir }
}

async fn world(cidr: &str) -> World {
    open(tempfile::tempdir().unwrap(), cidr).await
}

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

impl World {
    async fn create(&self, name: &str, spec: Value) -> Result<Value, ApiError> {
        let made = self.registry.create(&SERVICE, "default", service(name, spec), &WriteOptions::default()).await?;
        Ok((*made).clone())
    }

    async fn merge(&self, name: &str, sub: Option<Sub>, change: Value) -> Result<Value, ApiError> {
        let patch = crate::registry::Patch { kind: crate::registry::PatchKind::Merge, body: change };
        Ok((*self.registry.patch(&SERVICE, "default", name, sub, &patch, &WriteOptions::default()).await?).clone())
    }

    async fn delete(&self, name: &str) {
        self.registry.delete(&SERVICE, "default", name, &DeleteOptions::default()).await.unwrap();
    }
}

fn ips(service: &Value) -> Vec<IpAddr> {
    service["spec"]["clusterIPs"].as_array().unwrap().iter().map(|ip| ip.as_str().unwrap().parse().unwrap()).collect()
}

const DUAL: &str = "10.96.0.0/28,fd00:10:96::/124";

#[tokio::test]
async fn an_address_of_each_family() {
    let world = world(DUAL).await;
    let own = world.registry.get(&SERVICE, "default", "kubernetes").await.unwrap();
    assert_eq!((&own["spec"]["clusterIPs"], &own["spec"]["ipFamilies"]), (&json!(["10.96.0.1"]), &json!(["IPv4"])));
    let both = world.create("both", json!({"ipFamilyPolicy": "RequireDualStack"})).await.unwrap();
    assert!(matches!(ips(&both)[..], [IpAddr::V4(_), IpAddr::V6(_)]), "{both}");
    assert_eq!(both["spec"]["clusterIP"], both["spec"]["clusterIPs"][0]);
    let six = world.create("six", json!({"ipFamilies": ["IPv6"]})).await.unwrap();
    assert!(matches!(ips(&six)[..], [IpAddr::V6(_)]));
    let named =
        json!({"ipFamilyPolicy": "PreferDualStack", "clusterIP": "fd00:10:96::a", "clusterIPs": ["fd00:10:96::a", "10.96.0.10"]});
    let named = world.create("named", named).await;
    // One of the two may have gone to a Service above; then the other is free again.
    match named {
        Ok(made) => assert_eq!(made["spec"]["ipFamilies"], json!(["IPv6", "IPv4"])),
        Err(error) => assert!(error.message.contains("is already allocated"), "{error}"),
    }
    let headless = world
        .create("headless", json!({"clusterIP": "None", "selector": {"a": "b"}, "ipFamilyPolicy": "RequireDualStack"}))
        .await
        .unwrap();
    assert_eq!((&headless["spec"]["clusterIPs"], &headless["spec"]["ipFamilies"]), (&json!(["None"]), &json!(["IPv4", "IPv6"])));
    let taken = world.create("again", json!({"clusterIP": ips(&six)[0].to_string()})).await.unwrap_err();
    assert!(taken.message.contains("failed to allocate IP") && taken.message.contains("already allocated"), "{taken}");
}

#[tokio::test]
async fn both_families_primary_ipv6_and_ipv6_only() {
    let first = world("fd00:10:96::/112,10.96.0.0/16").await;
    assert!(matches!(ips(&first.create("a", json!({})).await.unwrap())[..], [IpAddr::V6(_)]));
    let only = world("fd00:10:96::/112").await;
    assert!(matches!(ips(&only.create("a", json!({"ipFamilyPolicy": "PreferDualStack"})).await.unwrap())[..], [IpAddr::V6(_)]));
    let refused = only.create("b", json!({"ipFamilyPolicy": "RequireDualStack"})).await.unwrap_err();
    assert_eq!(refused.causes[0].field, "spec.ipFamilyPolicy");
    assert_eq!(refused.causes[0].reason, "FieldValueInvalid");
}

#[tokio::test]
async fn a_second_family_is_allocated_and_given_back() {
    let world = world(DUAL).await;
    let single = world.create("s", json!({})).await.unwrap();
    let wide = world.merge("s", None, json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}})).await.unwrap();
    let [four, six] = ips(&wide)[..] else { panic!("{wide}") };
    assert_eq!(ips(&single), [four]);
    let back = world.merge("s", None, json!({"spec": {"ipFamilyPolicy": "SingleStack"}})).await.unwrap();
    assert_eq!((ips(&back), &back["spec"]["ipFamilies"]), (vec![four], &json!(["IPv4"])));
    // The address is free again: another may name it.
    let other = world.create("other", json!({"clusterIP": six.to_string()})).await.unwrap();
    assert_eq!(ips(&other), [six]);
    let taken = json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "clusterIPs": [four.to_string(), six.to_string()]}});
    assert!(world.merge("s", None, taken).await.unwrap_err().message.contains("already allocated"));
    // To a name and back: all of it was free meanwhile.
    let name = json!({"spec": {"type": "ExternalName", "externalName": "a.example"}});
    assert!(world.merge("s", None, name).await.unwrap()["spec"].get("clusterIPs").is_none());
    assert_eq!(ips(&world.create("third", json!({"clusterIP": four.to_string()})).await.unwrap()), [four]);
    let returned = world.merge("s", None, json!({"spec": {"type": "ClusterIP", "externalName": null}})).await.unwrap();
    assert_ne!(ips(&returned), [four]);
}

#[tokio::test]
async fn nothing_leaks_through_refusals_restarts_and_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let before = open(dir, "10.96.0.0/29,fd00:10:96::/125").await;
    // Six IPv4 addresses, one of them the kubernetes Service's; seven of IPv6.
    for i in 0..5 {
        before.create(&format!("s{i}"), json!({"ipFamilyPolicy": "RequireDualStack"})).await.unwrap();
    }
    for i in 0..20 {
        // No IPv4 address is left: the IPv6 one taken first must come back.
        let spec = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]});
        assert!(before.create(&format!("x{i}"), spec).await.is_err());
    }
    let World { registry, dir } = before;
    drop(registry);
    let after = open(dir, "10.96.0.0/29,fd00:10:96::/125").await;
    assert!(after.create("more", json!({})).await.is_err(), "the range is full after a restart too");
    for i in 0..2 {
        after.create(&format!("six{i}"), json!({"ipFamilies": ["IPv6"]})).await.unwrap();
    }
    assert!(after.create("six3", json!({"ipFamilies": ["IPv6"]})).await.is_err());
    after.delete("s0").await;
    after.create("six3", json!({"ipFamilyPolicy": "RequireDualStack"})).await.unwrap();
    // A cluster that lost a family leaves what there is alone.
    let World { registry, dir } = after;
    drop(registry);
    let single = open(dir, "10.96.0.0/29").await;
    let kept = single.merge("s1", None, json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(ips(&kept).len(), 2);
    single.delete("s1").await;
    single.create("more", json!({})).await.unwrap();
}

#[tokio::test]
async fn load_balancers_have_ports_and_a_status() {
    let world = world("10.96.0.0/16").await;
    // The ports named here are of the band that is not given out by chance.
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "ports": [{"name": "a", "port": 53, "nodePort": 30003}, {"name": "b", "port": 53, "protocol": "UDP"}, {"name": "c", "port": 9, "protocol": "SCTP"}]});
    let made = world.create("lb", spec).await.unwrap();
    let node_ports: Vec<u64> =
        made["spec"]["ports"].as_array().unwrap().iter().map(|p| p["nodePort"].as_u64().unwrap()).collect();
    assert_eq!(node_ports[..2], [30003, 30003], "one port, two protocols");
    let check = made["spec"]["healthCheckNodePort"].as_u64().unwrap();
    assert!((30000..=30099).contains(&check) && !node_ports.contains(&check));
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let status = world.merge("lb", Some(Sub::Status), patch).await.unwrap();
    assert_eq!(status["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]));
    // A client that leaves the numbers out gets the same ones.
    let mut spec = made["spec"].clone();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
        spec.as_object_mut().unwrap().remove(field);
    }
    spec["ports"][2].as_object_mut().unwrap().remove("nodePort");
    let options = WriteOptions::default();
    let again = world.registry.update(&SERVICE, "default", "lb", None, service("lb", spec), &options).await.unwrap();
    assert_eq!(again["spec"], made["spec"]);
    assert_eq!(again["status"], status["status"]);
    // Without automatic ports only those that were asked for.
    let plain = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
        "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2, "nodePort": 30004}]});
    let plain = world.create("plain", plain).await.unwrap();
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
    let taken = world.create("taken", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30004}]})).await.unwrap_err();
    assert!(taken.message.contains("port is already allocated"), "{taken}");
    // Cluster policy: the check's port is free again.
    let freed = world.merge("lb", None, json!({"spec": {"externalTrafficPolicy": "Cluster"}})).await.unwrap();
    assert!(freed["spec"].get("healthCheckNodePort").is_none());
    world.create("reuse", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": check}]})).await.unwrap();
}
