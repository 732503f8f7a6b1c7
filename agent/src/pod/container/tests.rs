use super::*;
use crate::pod::testing::desired;
use serde_json::json;
use std::path::Path;

const NODE: NodeLimits = NodeLimits {
    memory_bytes: 1 << 30,
    cfs_quota: true,
    cfs_period_us: 100_000,
    seccomp_default: false,
    throttle_paths: Vec::new(),
};

fn config(d: &Desired, image: &ImageFacts) -> Result<cri::ContainerConfig, ConfigError> {
    container(ContainerInput {
        desired: d,
        wanted: &d.containers[0],
        spec: d.spec_of(&d.containers[0].name).unwrap(),
        attempt: 2,
        backoff: Duration::from_secs(20),
        round: 0,
        image,
        env: vec![cri::EnvVar::new("A", "x")],
        mounts: Vec::new(),
        devices: Vec::new(),
        target: None,
        node: &NODE,
    })
}

fn image(uid: Option<i64>, username: &str) -> ImageFacts {
    ImageFacts { image_ref: "sha256:1".into(), uid, username: username.into(), volumes: Default::default() }
}

#[test]
fn commands_resources_and_what_survives_a_restart() {
    let d = desired(json!({"containers": [{"name": "c", "image": "i:1", "command": ["run", "$(A)"], "args": ["$(B)", "$$(A)"],
        "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}]}));
    let c = config(&d, &image(None, "")).unwrap();
    assert_eq!((c.command.join(" "), c.args.join(" ")), ("run x".to_owned(), "$(B) $(A)".to_owned()));
    let r = c.resources.unwrap();
    assert_eq!((r.cpu_shares, r.cpu_quota, r.cpu_period), (Some(256), Some(50_000), Some(100_000)));
    assert_eq!(r.memory_limit_bytes, Some(64 << 20));
    for (key, value) in [(labels::RESTART_COUNT, "2"), (labels::OWN_BACKOFF, "20000"), (labels::TERMINATION_GRACE, "30")] {
        assert_eq!(c.annotations[key], value);
    }
    assert_eq!(
        (c.log_path.as_str(), c.image.image.as_str(), c.image.user_specified_image.as_str()),
        ("c/2.log", "sha256:1", "i:1")
    );
}

#[test]
fn sandboxes() {
    let d = desired(json!({"shareProcessNamespace": true, "containers": [{"name": "c", "image": "i",
        "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP", "hostIP": "10.0.0.1"}, {"containerPort": 81}]}]}));
    let s = sandbox(&d, 3, "cluster.local", Path::new("/var/log/pods"), &NODE).unwrap();
    assert_eq!((s.hostname.as_str(), s.log_directory.as_str()), ("p", "/var/log/pods/ns_p_u-1"));
    assert_eq!(s.metadata.attempt, 3);
    assert_eq!(s.port_mappings.len(), 1);
    assert_eq!((s.port_mappings[0].host_port, s.port_mappings[0].protocol), (8080, cri::Protocol::Udp));
    assert_eq!(s.security.namespaces.pid, cri::NamespaceMode::Pod);
    let host = desired(json!({"hostNetwork": true, "hostPID": true}));
    let s = sandbox(&host, 0, "cluster.local", Path::new("/l"), &NODE).unwrap();
    assert_eq!((s.hostname.as_str(), s.security.namespaces.network.clone()), ("", cri::NamespaceMode::Node));
    assert_eq!(s.security.namespaces.pid, cri::NamespaceMode::Node);
}

#[test]
fn volumes_must_be_there() {
    let d = desired(
        json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "data", "readOnly": true}]}]}),
    );
    let spec = d.spec_of("c").unwrap();
    let found = volume_mounts(spec, false, |_| Some(Mounted::Path("/host".into()))).unwrap();
    assert_eq!((found[0].container_path.as_str(), found[0].readonly), ("/data", true));
    assert!(matches!(volume_mounts(spec, false, |_| None), Err(ConfigError::Volume { .. })));
}

#[test]
fn processes_of_a_target_are_seen_where_each_container_has_its_own() {
    for (extra, pid) in [
        (json!({}), cri::NamespaceMode::Target("t".into())),
        (json!({"shareProcessNamespace": true}), cri::NamespaceMode::Pod),
        (json!({"hostPID": true}), cri::NamespaceMode::Node),
    ] {
        let spec: api::PodSpec = serde_json::from_value({
            let mut spec = extra.clone();
            spec["containers"] = json!([]);
            spec
        })
        .unwrap();
        assert_eq!(target_pids(namespaces(&spec), Some("t")).pid, pid, "{extra}");
    }
    let d = desired(json!({"ephemeralContainers": [{"name": "d", "image": "i", "securityContext": {"privileged": true}}]}));
    assert!(sandbox(&d, 0, "cluster.local", Path::new("/l"), &NODE).unwrap().security.privileged);
}

#[test]
fn host_ports_of_what_serves_each_once() {
    let port = |name: &str, host: u16| json!({"name": name, "containerPort": 80, "hostPort": host, "hostIP": "127.0.0.1", "protocol": "UDP"});
    let spec = json!({
        "initContainers": [{"name": "i", "image": "i", "ports": [port("i", 1)]}, {"name": "s", "image": "i", "restartPolicy": "Always", "ports": [port("s", 2)]}],
        "containers": [{"name": "c", "image": "i", "ports": [port("a", 3), port("b", 3), {"containerPort": 9}]}]});
    let ports = |spec: serde_json::Value| sandbox(&desired(spec), 0, "c.l", Path::new("/l"), &NODE).unwrap().port_mappings;
    let found = ports(spec.clone());
    assert_eq!(found.iter().map(|p| p.host_port).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(
        (found[0].protocol, found[0].host_ip, found[0].container_port),
        (cri::Protocol::Udp, "127.0.0.1".parse().ok(), 80)
    );
    let mut on_host = spec;
    on_host["hostNetwork"] = json!(true);
    assert!(ports(on_host).is_empty());
}

#[test]
fn a_sandbox_says_what_the_pod_and_its_runtime_class_need() {
    let d = desired(json!({"overhead": {"cpu": "100m", "memory": "1Mi"}, "containers": [
        {"name": "a", "image": "i", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}},
        {"name": "b", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]}));
    let s = sandbox(&d, 0, "c.l", Path::new("/l"), &NODE).unwrap();
    let of = |r: &cri::LinuxResources| (r.cpu_shares, r.cpu_quota, r.cpu_period, r.memory_limit_bytes);
    assert_eq!(of(&s.resources.unwrap()), (Some(1280), Some(150_000), Some(100_000), Some(128 << 20)), "without the overhead");
    assert_eq!(of(&s.overhead.unwrap()), (Some(102), Some(10_000), Some(100_000), Some(1 << 20)));
    let plain = sandbox(&desired(json!({})), 0, "c.l", Path::new("/l"), &NODE).unwrap();
    assert_eq!((of(&plain.resources.unwrap()), plain.overhead.is_none()), ((Some(2), None, Some(100_000), None), true));
}

#[test]
fn recursive_read_only_mounts() {
    let of = |mount: serde_json::Value, supported| {
        let mut mount = mount;
        (mount["name"], mount["mountPath"]) = ("v".into(), "/v".into());
        recursive_read_only(&serde_json::from_value(mount).unwrap(), supported).map_err(|e| e.to_string())
    };
    let start = "failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only mode, but it is not ";
    let refused = |text: &str| Err(format!("{start}{text}"));
    assert_eq!(of(json!({"readOnly": true}), true), Ok(false));
    assert_eq!(of(json!({"readOnly": true, "recursiveReadOnly": "Disabled"}), true), Ok(false));
    for supported in [true, false] {
        assert_eq!(of(json!({"readOnly": true, "recursiveReadOnly": "IfPossible"}), supported), Ok(supported));
    }
    let enabled = json!({"readOnly": true, "recursiveReadOnly": "Enabled", "mountPropagation": "None"});
    assert_eq!(of(enabled.clone(), true), Ok(true));
    assert_eq!(of(enabled.clone(), false), refused("supported by the runtime"));
    assert_eq!(of(json!({"recursiveReadOnly": "Enabled"}), true), refused("read-only"));
    let mut both = enabled;
    both["mountPropagation"] = json!("HostToContainer");
    assert_eq!(of(both, true), refused("compatible with propagation \"HostToContainer\""));
}

#[test]
fn images_and_devices() {
    let d = desired(json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "volumeDevices": [{"name": "d", "devicePath": "/dev/d"}, {"name": "r", "devicePath": "/dev/r"}]}]}));
    let spec = d.spec_of("c").unwrap();
    let image = || Mounted::Image { id: "sha256:1".into(), reference: "i:1".into() };
    let mounts = volume_mounts(spec, false, |_| Some(image())).unwrap();
    let found = mounts[0].image.clone().unwrap();
    assert_eq!(
        (mounts[0].host_path.as_str(), found.image.as_str(), found.user_specified_image.as_str()),
        ("", "sha256:1", "i:1")
    );
    let devices = volume_devices(spec, |name| Some((format!("/dev/loop-{name}"), name == "r"))).unwrap();
    let seen = devices.iter().map(|d| (d.container_path.as_str(), d.host_path.as_str(), d.permissions.as_str()));
    assert_eq!(seen.collect::<Vec<_>>(), [("/dev/d", "/dev/loop-d", "mrw"), ("/dev/r", "/dev/loop-r", "r")]);
    assert!(volume_devices(spec, |_| None).unwrap_err().to_string().contains("cannot find volume \"d\""));
}

#[test]
fn runtimes_that_cannot_mount_images() {
    let text = "image volumes need containerd 2.1, and this node runs 1.6.20~ds1";
    assert_eq!(no_image_volumes("containerd", "1.6.20~ds1", false).as_deref(), Some(text));
    let can =
        [("containerd", "v2.1.9"), ("containerd", "3.0.0-rc.1"), ("cri-o", "1.31.0"), ("other", "0.1"), ("containerd", "x")];
    for (name, version) in can {
        assert_eq!(no_image_volumes(name, version, false), None, "{name} {version}");
    }
    for (name, version) in [("containerd", "v2.0.5"), ("cri-o", "1.30.1")] {
        assert!(no_image_volumes(name, version, false).is_some());
    }
    let text = "mounts of a part of an image need containerd 2.2, and this node runs 2.1.9+unknown";
    assert_eq!(no_image_volumes("containerd", "2.1.9+unknown", true).as_deref(), Some(text));
    assert_eq!(no_image_volumes("containerd", "v2.2.0", true), None);
}
