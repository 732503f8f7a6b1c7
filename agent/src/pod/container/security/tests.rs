use super::*;
use crate::pod::container::{NodeLimits, container};
use crate::pod::testing::desired;
use serde_json::{Value, json};
use std::time::Duration;

fn on(node: &NodeLimits, spec: Value, image: &ImageFacts) -> Result<cri::ContainerSecurity, ConfigError> {
    let d = desired(spec);
    assert!(d.unsupported.is_empty(), "{:?}", d.unsupported);
    let config = container(ContainerInput {
        desired: &d,
        wanted: &d.containers[0],
        spec: d.spec_of(&d.containers[0].name).unwrap(),
        attempt: 0,
        backoff: Duration::ZERO,
        round: 0,
        image,
        env: Vec::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        target: None,
        node,
    });
    config.map(|c| c.security)
}

fn security(spec: Value, image: &ImageFacts) -> Result<cri::ContainerSecurity, ConfigError> {
    on(&NodeLimits::default(), spec, image)
}

/// A pod with this of its own, and one container with this of its own.
fn contexts(pod: Value, own: Value) -> Value {
    json!({"securityContext": pod, "containers": [{"name": "c", "image": "i", "securityContext": own}]})
}

fn image(uid: Option<i64>, username: &str) -> ImageFacts {
    ImageFacts { image_ref: "sha256:1".into(), uid, username: username.into(), volumes: Default::default() }
}

#[test]
fn security_of_the_container_wins_over_the_pods() {
    let spec = json!({
        "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "i", "securityContext": {"runAsUser": 9, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]});
    let s = security(spec, &image(Some(5), "")).unwrap();
    assert_eq!((s.run_as, s.run_as_group), (Some(cri::RunAs::Uid(9)), Some(2)));
    assert_eq!(s.supplemental_groups, [3, 4]);
    assert!(s.no_new_privs && s.readonly_rootfs && !s.privileged);
    assert_eq!((s.capabilities.add, s.capabilities.drop), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    assert_eq!(s.seccomp, Some(cri::SecurityProfile::RuntimeDefault));
    assert!(s.masked_paths.contains(&"/proc/kcore".to_owned()));
    let plain = security(json!({}), &image(None, "web")).unwrap();
    assert_eq!(plain.run_as, Some(cri::RunAs::Username("web".into())));
    assert_eq!(plain.seccomp, Some(cri::SecurityProfile::Unconfined));
}

#[test]
fn who_a_container_runs_as() {
    let run_as = |pod: Value, own: Value, image: &ImageFacts| {
        let s = security(contexts(pod, own), image).unwrap();
        (s.run_as.unwrap(), s.run_as_group)
    };
    use cri::RunAs::{Uid, Username};
    assert_eq!(run_as(json!({}), json!({}), &image(None, "")), (Uid(0), None), "an image that says nothing");
    assert_eq!(run_as(json!({}), json!({}), &image(Some(7), "")), (Uid(7), None));
    assert_eq!(run_as(json!({"runAsGroup": 3}), json!({}), &image(None, "web")), (Username("web".into()), Some(3)));
    assert_eq!(run_as(json!({"runAsUser": 1}), json!({}), &image(None, "web")), (Uid(1), None));
    assert_eq!(run_as(json!({"runAsUser": 1, "runAsGroup": 3}), json!({"runAsUser": 0}), &image(Some(7), "")), (Uid(0), Some(3)));
    assert_eq!(run_as(json!({"runAsGroup": 3}), json!({"runAsGroup": 0}), &image(None, "")), (Uid(0), Some(0)));
}

#[test]
fn non_root_is_verified_in_kubelets_words() {
    let said = |pod: Value, own: Value, image: &ImageFacts| {
        security(contexts(pod, own), image).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let end = "(pod: \"p_ns(u-1)\", container: c)";
    let must = || json!({"runAsNonRoot": true});
    let root = format!("container has runAsNonRoot and image will run as root {end}");
    assert_eq!(said(must(), json!({}), &image(Some(0), "")), root);
    assert_eq!(said(json!({}), must(), &image(None, "")), root);
    let named = "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root";
    assert_eq!(said(must(), json!({}), &image(None, "web")), format!("{named} {end}"));
    let asked = format!("container's runAsUser breaks non-root policy {end}");
    assert_eq!(said(must(), json!({"runAsUser": 0}), &image(Some(7), "")), asked);
    assert_eq!(said(json!({"runAsNonRoot": true, "runAsUser": 0}), json!({}), &image(Some(7), "")), asked);
    let odd = format!(
        "container has runAsNonRoot and image has an invalid user id (2147483648). (Must be 1-(2147483647)): must be between 0 and 2147483647, inclusive {end}"
    );
    assert_eq!(said(must(), json!({}), &image(Some(1 << 31), "")), odd);
    for (pod, own, image) in [
        (must(), json!({}), image(Some(7), "")),
        (must(), json!({"runAsUser": 1000}), image(None, "web")),
        (must(), json!({"runAsNonRoot": false}), image(Some(0), "")),
        (json!({"runAsNonRoot": false}), json!({}), image(None, "")),
        (json!({"runAsNonRoot": true, "runAsUser": 0}), json!({"runAsUser": 5}), image(Some(0), "")),
    ] {
        assert_eq!(said(pod, own, &image), "");
    }
}

#[test]
fn seccomp_profiles_and_the_nodes_default() {
    use cri::SecurityProfile::{Localhost, RuntimeDefault, Unconfined};
    let default = NodeLimits { seccomp_default: true, ..NodeLimits::default() };
    let profile =
        |node: &NodeLimits, pod: Value, own: Value| on(node, contexts(pod, own), &image(None, "")).map(|s| s.seccomp.unwrap());
    let kind = |kind: &str| json!({"seccompProfile": {"type": kind}});
    let plain = NodeLimits::default();
    assert_eq!(profile(&plain, json!({}), json!({})), Ok(Unconfined));
    assert_eq!(profile(&default, json!({}), json!({})), Ok(RuntimeDefault));
    assert_eq!(profile(&default, kind("Unconfined"), json!({})), Ok(Unconfined));
    assert_eq!(profile(&default, json!({}), kind("Unconfined")), Ok(Unconfined));
    assert_eq!(profile(&plain, kind("Unconfined"), kind("RuntimeDefault")), Ok(RuntimeDefault));
    // What the runtime makes of a privileged container is its own business.
    assert_eq!(profile(&default, json!({}), json!({"privileged": true})), Ok(RuntimeDefault));
    let local = |file: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": file}});
    assert_eq!(profile(&plain, json!({}), local("a/b.json")), Ok(Localhost("a/b.json".into())));
    for file in ["../x", "/etc/x", "a/../../x", "a/..", "..", "a\0b"] {
        assert!(matches!(profile(&plain, json!({}), local(file)), Err(ConfigError::Value { .. })), "{file:?}");
    }
    for empty in [local(""), kind("Localhost")] {
        let said = profile(&plain, empty, json!({})).unwrap_err().to_string();
        assert_eq!(said, "localhostProfile must be set if seccompProfile type is Localhost.");
    }
    assert!(matches!(profile(&plain, kind("Odd"), json!({})), Err(ConfigError::Value { .. })));
}

#[test]
fn apparmor_profiles_are_told_to_the_runtime() {
    let of = |pod: &str, own: &str| {
        let profile = |kind: &str| match kind {
            "" => json!({}),
            "Localhost" => json!({"appArmorProfile": {"type": kind, "localhostProfile": "mine"}}),
            kind => json!({"appArmorProfile": {"type": kind}}),
        };
        security(contexts(profile(pod), profile(own)), &image(None, "")).unwrap().apparmor
    };
    assert_eq!(of("", ""), None);
    assert_eq!(of("Unconfined", ""), Some(cri::SecurityProfile::Unconfined));
    assert_eq!(of("Unconfined", "RuntimeDefault"), Some(cri::SecurityProfile::RuntimeDefault));
    assert_eq!(of("Localhost", ""), Some(cri::SecurityProfile::Localhost("mine".into())));
    let nameless = contexts(json!({"appArmorProfile": {"type": "Localhost"}}), json!({}));
    let said = security(nameless, &image(None, "")).unwrap_err().to_string();
    assert_eq!(said, "missing localhost apparmor profile name");
}

#[test]
fn what_of_proc_and_sys_is_hidden() {
    let heat = "/sys/devices/system/cpu/cpu0/thermal_throttle";
    let node = NodeLimits { throttle_paths: vec![heat.into()], ..NodeLimits::default() };
    let s = on(&node, contexts(json!({}), json!({"procMount": "Default"})), &image(None, "")).unwrap();
    assert_eq!((s.masked_paths.len(), s.readonly_paths.len()), (13, 5));
    assert_eq!(s.masked_paths.last().unwrap(), heat);
    let s = on(&node, contexts(json!({}), json!({"procMount": "Unmasked"})), &image(None, "")).unwrap();
    assert!(s.masked_paths.is_empty() && s.readonly_paths.is_empty());
}

#[test]
fn selinux_options_of_the_container_replace_the_pods() {
    let level = |l: &str| json!({"seLinuxOptions": {"level": l}});
    let with_type = json!({"seLinuxOptions": {"type": "t", "role": "r", "user": "u"}});
    let of = |pod: Value, own: Value| security(contexts(pod, own), &image(None, "")).unwrap().selinux;
    let found = of(level("s0"), with_type).unwrap();
    assert_eq!((found.kind.as_str(), found.role.as_str(), found.user.as_str(), found.level.as_str()), ("t", "r", "u", ""));
    assert_eq!(of(level("s0"), json!({})).unwrap().level, "s0");
    assert_eq!(of(json!({}), json!({})), None);
}

#[test]
fn mounts_in_a_user_namespace_show_the_ids_inside() {
    let mounts = vec![cri::Mount { container_path: "/a".into(), ..Default::default() }; 2];
    let mut config = cri::ContainerConfig { mounts, ..Default::default() };
    let host = cri::UserNamespace { mode: cri::NamespaceMode::Node, ..Default::default() };
    in_user_namespace(&mut config, Some(&host));
    assert!(config.mounts.iter().all(|m| m.uid_mappings.is_empty()) && config.security.namespaces.user == Some(host));
    let own = crate::userns::Block { first: 131_072, length: 65_536 }.namespace();
    in_user_namespace(&mut config, Some(&own));
    let mapping = cri::IdMapping { host_id: 131_072, container_id: 0, length: 65_536 };
    assert!(config.mounts.iter().all(|m| m.uid_mappings == [mapping] && m.gid_mappings == [mapping]));
    assert_eq!(config.security.namespaces.user, Some(own));
}
