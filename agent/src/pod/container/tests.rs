use super::*;
use crate::pod::testing::desired;
use serde_json::json;
use std::path::Path;

fn config(d: &Desired, image: &ImageFacts) -> Result<cri::ContainerConfig, ConfigError> {
    let node = NodeLimits { memory_bytes: 1 << 30, cfs_quota: true, cfs_period_us: 100_000 };
    container(ContainerInput {
        desired: d,
        wanted: &d.containers[0],
        spec: d.spec_of(&d.containers[0].name).unwrap(),
        attempt: 2,
        backoff: Duration::from_secs(20),
        image,
        env: vec![cri::EnvVar::new("A", "x")],
        mounts: Vec::new(),
        target: None,
        node: &node,
    })
}

fn image(uid: Option<i64>, username: &str) -> ImageFacts {
    ImageFacts { image_ref: "sha256:1".into(), uid, username: username.into() }
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
fn security_of_the_container_wins_over_the_pods() {
    let d = desired(json!({
        "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "i", "securityContext": {"runAsUser": 9, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]}));
    let s = config(&d, &image(Some(5), "")).unwrap().security;
    assert_eq!((s.run_as, s.run_as_group), (Some(cri::RunAs::Uid(9)), Some(2)));
    assert_eq!(s.supplemental_groups, [3, 4]);
    assert!(s.no_new_privs && s.readonly_rootfs && !s.privileged);
    assert_eq!((s.capabilities.add, s.capabilities.drop), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    assert_eq!(s.seccomp, Some(cri::SecurityProfile::RuntimeDefault));
    assert!(s.masked_paths.contains(&"/proc/kcore".to_owned()));
    let plain = config(&desired(json!({})), &image(None, "web")).unwrap().security;
    assert_eq!(plain.run_as, Some(cri::RunAs::Username("web".into())));
    assert_eq!(plain.seccomp, Some(cri::SecurityProfile::Unconfined));
}

#[test]
fn apparmor_profiles_are_told_to_the_runtime() {
    let of = |pod: &str, own: &str| {
        let profile = |kind: &str| if kind.is_empty() { json!({}) } else { json!({"appArmorProfile": {"type": kind}}) };
        let d = desired(json!({"securityContext": profile(pod),
            "containers": [{"name": "c", "image": "i", "securityContext": profile(own)}]}));
        assert!(d.unsupported.is_empty());
        config(&d, &image(None, "")).unwrap().security.apparmor
    };
    assert_eq!(of("", ""), None);
    assert_eq!(of("Unconfined", ""), Some(cri::SecurityProfile::Unconfined));
    assert_eq!(of("Unconfined", "RuntimeDefault"), Some(cri::SecurityProfile::RuntimeDefault));
    assert_eq!(of("RuntimeDefault", "Unconfined"), Some(cri::SecurityProfile::Unconfined));
}

#[test]
fn non_root_is_verified() {
    let d = desired(json!({"securityContext": {"runAsNonRoot": true}}));
    assert!(matches!(config(&d, &image(Some(0), "")), Err(ConfigError::Root { .. })));
    assert!(matches!(config(&d, &image(None, "")), Err(ConfigError::Root { .. })));
    assert!(matches!(config(&d, &image(None, "web")), Err(ConfigError::NamedUser { .. })));
    assert!(config(&d, &image(Some(7), "")).is_ok());
}

#[test]
fn profiles_stay_in_their_folder() {
    for file in ["../x", "/etc/x", "", "a/../../x"] {
        let profile = json!({"type": "Localhost", "localhostProfile": file});
        let d = desired(json!({"securityContext": {"seccompProfile": profile}}));
        assert!(matches!(config(&d, &image(None, "")), Err(ConfigError::Value { .. })), "{file:?}");
    }
}

#[test]
fn sandboxes() {
    let d = desired(json!({"shareProcessNamespace": true, "containers": [{"name": "c", "image": "i",
        "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP", "hostIP": "10.0.0.1"}, {"containerPort": 81}]}]}));
    let s = sandbox(&d, 3, "cluster.local", Path::new("/var/log/pods")).unwrap();
    assert_eq!((s.hostname.as_str(), s.log_directory.as_str()), ("p", "/var/log/pods/ns_p_u-1"));
    assert_eq!(s.metadata.attempt, 3);
    assert_eq!(s.port_mappings.len(), 1);
    assert_eq!((s.port_mappings[0].host_port, s.port_mappings[0].protocol), (8080, cri::Protocol::Udp));
    assert_eq!(s.security.namespaces.pid, cri::NamespaceMode::Pod);
    let host = desired(json!({"hostNetwork": true, "hostPID": true}));
    let s = sandbox(&host, 0, "cluster.local", Path::new("/l")).unwrap();
    assert_eq!((s.hostname.as_str(), s.security.namespaces.network.clone()), ("", cri::NamespaceMode::Node));
    assert_eq!(s.security.namespaces.pid, cri::NamespaceMode::Node);
}

#[test]
fn volumes_must_be_there() {
    let d = desired(
        json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "data", "readOnly": true}]}]}),
    );
    let spec = d.spec_of("c").unwrap();
    let found = volume_mounts(spec, |_| Some("/host".into())).unwrap();
    assert_eq!((found[0].container_path.as_str(), found[0].readonly), ("/data", true));
    assert!(matches!(volume_mounts(spec, |_| None), Err(ConfigError::Volume { .. })));
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
    assert!(sandbox(&d, 0, "cluster.local", Path::new("/l")).unwrap().security.privileged);
}

#[test]
fn host_ports_of_what_serves_each_once() {
    let port = |name: &str, host: u16| json!({"name": name, "containerPort": 80, "hostPort": host, "hostIP": "127.0.0.1", "protocol": "UDP"});
    let spec = json!({
        "initContainers": [{"name": "i", "image": "i", "ports": [port("i", 1)]}, {"name": "s", "image": "i", "restartPolicy": "Always", "ports": [port("s", 2)]}],
        "containers": [{"name": "c", "image": "i", "ports": [port("a", 3), port("b", 3), {"containerPort": 9}]}]});
    let ports = |spec: serde_json::Value| sandbox(&desired(spec), 0, "c.l", Path::new("/l")).unwrap().port_mappings;
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
