use super::*;
use ferrolet_cri::types::{Condition, RuntimeStatus, Version};

fn healthy() -> Health {
    let ok = Condition { ok: true, ..Condition::default() };
    Health {
        version: Some(Version { runtime_name: "containerd".into(), runtime_version: "v2.1.0".into(), ..Version::default() }),
        status: Some(RuntimeStatus { runtime_ready: ok.clone(), network_ready: ok, ..RuntimeStatus::default() }),
        down: None,
    }
}

fn config() -> Config {
    Config { node_name: "n".into(), node_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], ..Config::default() }
}

fn machine() -> Machine {
    Machine {
        cpus: 4,
        memory_bytes: 8 << 30,
        architecture: "amd64",
        hugepages: [("hugepages-2Mi".to_owned(), 1 << 30)].into(),
        ..Machine::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn with<T>(config: &Config, health: &Health, synced: bool, read: impl FnOnce(&Inputs<'_>) -> T) -> T {
    let machine = machine();
    let node_fs = Some(FileSystem { size_bytes: 100 << 30, inodes: 1, ..FileSystem::default() });
    read(&Inputs { config, machine: &machine, node_fs, runtime: health, services_synced: synced, images: &[] })
}

fn ready(status: &NodeStatus) -> &NodeCondition {
    status.conditions.as_ref().unwrap().last().unwrap()
}

#[test]
fn ready_waits_for_runtime_network_and_services() {
    let config = config();
    let down = Health { down: Some("no answer within 10 s".into()), ..Health::default() };
    let mut no_network = healthy();
    no_network.status.as_mut().unwrap().network_ready =
        Condition { ok: false, reason: "NetworkPluginNotReady".into(), message: "cni".into() };
    for (health, synced, message) in [
        (&healthy(), true, "ferrolet is posting ready status"),
        (&healthy(), false, "services are not programmed yet"),
        (&down, true, "container runtime is down: no answer within 10 s"),
        (&no_network, true, "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni"),
    ] {
        let status = with(&config, health, synced, |inputs| desired(inputs, None, at(0)));
        let ready = ready(&status);
        assert_eq!((ready.type_.as_str(), ready.message.as_deref()), ("Ready", Some(message)));
        let is = message == "ferrolet is posting ready status";
        assert_eq!(ready.status, if is { "True" } else { "False" });
        assert_eq!(ready.reason.as_deref(), Some(if is { "KubeletReady" } else { "KubeletNotReady" }));
    }
}

#[test]
fn transitions_keep_their_time_and_heartbeats_alone_are_not_written() {
    let config = config();
    let first = with(&config, &healthy(), true, |inputs| desired(inputs, None, at(10)));
    let second = with(&config, &healthy(), true, |inputs| desired(inputs, Some(&first), at(20)));
    assert_eq!(ready(&second).last_transition_time, Some(Time(at(10))));
    assert_eq!(ready(&second).last_heartbeat_time, Some(Time(at(20))));
    assert_eq!(status_patch(Some(&first), &second, false), None);
    let forced = status_patch(Some(&first), &second, true).unwrap();
    assert_eq!(forced["status"].as_object().unwrap().keys().collect::<Vec<_>>(), ["conditions"]);
    let third = with(&config, &healthy(), false, |inputs| desired(inputs, Some(&second), at(30)));
    assert_eq!(ready(&third).last_transition_time, Some(Time(at(30))));
    assert!(status_patch(Some(&second), &third, false).is_some());
}

#[test]
fn allocatable_leaves_out_what_is_reserved_and_kept_free() {
    let mut config = config();
    config.node.reserved.kube =
        [("cpu".to_owned(), "500m".parse().unwrap()), ("memory".to_owned(), "1Gi".parse().unwrap())].into();
    let status = with(&config, &healthy(), true, |inputs| desired(inputs, None, at(0)));
    let allocatable = status.allocatable.unwrap();
    assert_eq!(allocatable["cpu"].0, "3500m");
    // 8Gi less 1Gi reserved, 100Mi for eviction and 1Gi of huge pages.
    assert_eq!(allocatable["memory"].0, "6044Mi");
    assert_eq!(allocatable["ephemeral-storage"].0, "90Gi");
    assert_eq!(allocatable["pods"].0, "110");
    config.node.reserved.kube = [("cpu".to_owned(), "5".parse().unwrap())].into();
    let status = with(&config, &healthy(), true, |inputs| desired(inputs, None, at(0)));
    assert_eq!(status.allocatable.unwrap()["cpu"].0, "0");
}

#[test]
fn what_others_wrote_is_left_alone_and_what_is_unknown_is_not_forgotten() {
    let config = config();
    let mut existing = with(&config, &healthy(), true, |inputs| desired(inputs, None, at(0)));
    existing.conditions.as_mut().unwrap().push(NodeCondition {
        type_: "NetworkUnavailable".into(),
        status: "False".into(),
        ..NodeCondition::default()
    });
    existing.capacity.as_mut().unwrap().insert("example.com/gpu".into(), ApiQuantity("2".into()));
    existing.images = Some(vec![ContainerImage::default()]);
    existing.addresses.as_mut().unwrap().pop();
    // The same amount in another spelling is no change.
    existing.capacity.as_mut().unwrap().insert("memory".into(), ApiQuantity("8192Mi".into()));
    let starting = Health::default();
    let wanted = with(&config, &starting, true, |inputs| desired(inputs, Some(&existing), at(1)));
    let patch = status_patch(Some(&existing), &wanted, false).unwrap();
    let status = patch["status"].as_object().unwrap();
    assert_eq!(status.keys().collect::<Vec<_>>(), ["addresses", "conditions"]);
    assert_eq!(status["addresses"].as_array().unwrap().last().unwrap(), &json!({"$patch": "replace"}));
    assert!(!patch.to_string().contains("NetworkUnavailable"));
    assert_eq!(wanted.node_info.unwrap().container_runtime_version, "containerd://2.1.0");
}

#[test]
fn an_existing_node_gets_its_labels_back() {
    let mut config = config();
    config.node.labels = [("kubernetes.io/hostname".to_owned(), "other".to_owned()), ("a".to_owned(), "b".to_owned())].into();
    let mut node = with(&config, &healthy(), true, |inputs| initial(inputs, at(0)));
    assert_eq!(node.metadata.labels.as_ref().unwrap()["kubernetes.io/hostname"], "other");
    assert_eq!(node.metadata.labels.as_ref().unwrap()["a"], "b");
    assert_eq!(with(&config, &healthy(), true, |inputs| metadata_patch(&node, inputs)), None);
    node.metadata.labels.as_mut().unwrap().remove("kubernetes.io/os");
    node.metadata.annotations = None;
    let patch = with(&config, &healthy(), true, |inputs| metadata_patch(&node, inputs)).unwrap();
    assert_eq!(patch, json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}, "annotations": {ATTACH_ANNOTATION: "true"}}}));
}

/// An API server refuses the resize of a pod as a whole, and the scheduler a pod with the restart rule, where the node does not
/// declare them; an unsorted list is invalid.
#[test]
fn declares_in_order_what_others_ask_a_node_for() {
    let declared = with(&config(), &healthy(), true, |inputs| desired(inputs, None, at(0)).declared_features);
    assert_eq!(declared.unwrap(), ["InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits"]);
}
