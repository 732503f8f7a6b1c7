//! Whatever bytes come, conversion answers or complains; and what is sent can be read back.

use super::*;
use crate::pb;
use crate::types::*;
use proptest::prelude::*;
use prost::Message;
use std::net::IpAddr;

/// Decodes and converts these bytes as every kind of answer.
fn read_all(bytes: &[u8]) {
    fn read<P: Message + Default, T>(bytes: &[u8], convert: impl Fn(P) -> T) {
        if let Ok(message) = P::decode(bytes) {
            let _ = convert(message);
        }
    }
    read(bytes, from::version);
    read(bytes, from::runtime_status);
    read(bytes, from::runtime_config);
    read(bytes, from::container_event);
    read(bytes, from::sandbox_inspection);
    read(bytes, |reply: pb::ListPodSandboxResponse| from::sandboxes(reply.items));
    read(bytes, from::container_status_reply);
    read(bytes, |reply: pb::ListContainersResponse| from::containers(reply.containers));
    read(bytes, from::exec_output);
    read(bytes, from::image_status);
    read(bytes, |reply: pb::ListImagesResponse| from::images(reply.images));
    read(bytes, from::image_fs_info);
    read(bytes, stats::container_stats_reply);
    read(bytes, stats::sandbox_stats_reply);
    read(bytes, stats::metric_descriptors);
    read(bytes, |reply: pb::ListPodSandboxMetricsResponse| stats::sandbox_metrics(reply.pod_metrics));
    read(bytes, requests::sandbox_config);
    read(bytes, requests::container_config);
}

/// Bytes that are protobuf in shape: fields of small numbers with numbers, texts and messages in them.
fn message_bytes() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        (1u32..21, any::<u64>()).prop_map(|(field, value)| {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(u64::from(field << 3), &mut bytes);
            prost::encoding::encode_varint(value, &mut bytes);
            bytes
        }),
        (1u32..21, "\\PC{0,12}").prop_map(|(field, text)| delimited(field, text.as_bytes())),
        (1u32..21, proptest::collection::vec(any::<u8>(), 0..8)).prop_map(|(field, bytes)| delimited(field, &bytes)),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        (1u32..21, proptest::collection::vec(inner, 0..8)).prop_map(|(field, parts)| delimited(field, &parts.concat()))
    })
    .prop_flat_map(|first| proptest::collection::vec(Just(first), 1..3))
    .prop_map(|parts| parts.concat())
}

fn delimited(field: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(field << 3 | 2), &mut bytes);
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,6}", "\\PC{1,8}"]
}

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map(text(), text(), 0..3)
}

fn number() -> impl Strategy<Value = Option<i64>> {
    // Zero means that nothing is given, so it cannot come back.
    proptest::option::of(any::<i64>().prop_filter("not zero", |n| *n != 0))
}

prop_compose! {
    fn resources()(a in number(), b in number(), c in number(), d in number(), cpus in text(), unified in labels(),
        pages in proptest::collection::vec((text(), any::<u64>()), 0..2)) -> LinuxResources {
        LinuxResources {
            cpu_period: a, cpu_quota: b, cpu_shares: c, memory_limit_bytes: d, memory_swap_limit_bytes: a, oom_score_adj: b,
            cpuset_cpus: cpus, cpuset_mems: String::new(), unified,
            hugepage_limits: pages.into_iter().map(|(page_size, limit_bytes)| HugepageLimit { page_size, limit_bytes }).collect(),
        }
    }
}

fn mode() -> impl Strategy<Value = NamespaceMode> {
    prop_oneof![Just(NamespaceMode::Pod), Just(NamespaceMode::Container), Just(NamespaceMode::Node)]
}

fn pid_mode() -> impl Strategy<Value = NamespaceMode> {
    prop_oneof![mode(), text().prop_map(NamespaceMode::Target)]
}

prop_compose! {
    fn namespaces()(network in mode(), pid in pid_mode(), ipc in mode(), user in proptest::option::of((mode(), any::<u32>())))
        -> NamespaceOptions {
        let user = user.map(|(mode, n)| {
            let mapping = IdMapping { host_id: n, container_id: 0, length: 65_536 };
            UserNamespace { mode, uids: vec![mapping], gids: vec![mapping] }
        });
        NamespaceOptions { network, pid, ipc, user }
    }
}

fn profile() -> impl Strategy<Value = Option<SecurityProfile>> {
    proptest::option::of(prop_oneof![
        Just(SecurityProfile::RuntimeDefault),
        Just(SecurityProfile::Unconfined),
        text().prop_map(SecurityProfile::Localhost),
    ])
}

fn port() -> impl Strategy<Value = PortMapping> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    (protocol, any::<u16>(), any::<u16>(), proptest::option::of(any::<IpAddr>()))
        .prop_map(|(protocol, container_port, host_port, host_ip)| PortMapping { protocol, container_port, host_port, host_ip })
}

prop_compose! {
    fn sandbox()(name in text(), namespace in text(), uid in text(), attempt in any::<u32>(), labels in labels(),
        ports in proptest::collection::vec(port(), 0..3), namespaces in namespaces(), seccomp in profile(), apparmor in profile(),
        user in proptest::option::of(any::<i64>()), groups in proptest::collection::vec(any::<i64>(), 0..3),
        resources in proptest::option::of(resources()), flags in any::<(bool, bool)>()) -> SandboxConfig {
        SandboxConfig {
            metadata: SandboxMetadata { name, namespace, uid, attempt },
            hostname: "h".into(),
            log_directory: "/var/log/pods/x".into(),
            dns: flags.0.then(|| DnsConfig { servers: vec!["10.0.0.10".into()], ..Default::default() }),
            port_mappings: ports,
            labels: labels.clone(),
            annotations: labels.clone(),
            cgroup_parent: "/kubepods".into(),
            security: SandboxSecurity {
                namespaces, run_as_user: user, run_as_group: user, supplemental_groups: groups, readonly_rootfs: flags.0,
                privileged: flags.1, seccomp, apparmor, selinux: None, supplemental_groups_policy: SupplementalGroupsPolicy::Strict,
            },
            sysctls: labels,
            overhead: resources.clone(),
            resources,
        }
    }
}

fn mount() -> impl Strategy<Value = Mount> {
    let propagation = prop_oneof![
        Just(MountPropagation::Private),
        Just(MountPropagation::HostToContainer),
        Just(MountPropagation::Bidirectional)
    ];
    (text(), text(), propagation, any::<(bool, bool, bool)>()).prop_map(|(container_path, host_path, propagation, flags)| Mount {
        container_path,
        host_path,
        readonly: flags.0,
        recursive_read_only: flags.1,
        selinux_relabel: flags.2,
        propagation,
        ..Default::default()
    })
}

prop_compose! {
    fn container()(name in text(), attempt in any::<u32>(), image in text(), words in proptest::collection::vec(text(), 0..3),
        env in proptest::collection::vec(("[A-Z_]{1,5}", text()), 0..3), mounts in proptest::collection::vec(mount(), 0..3),
        labels in labels(), resources in proptest::option::of(resources()), namespaces in namespaces(), seccomp in profile(),
        run_as in prop_oneof![Just(None), any::<i64>().prop_map(|uid| Some(RunAs::Uid(uid))), text().prop_map(|n| Some(RunAs::Username(n)))],
        signal in prop_oneof![Just(None), Just(Some("SIGTERM")), Just(Some("SIGRTMIN+15")), Just(Some("SIGRTMAX-1")), Just(Some("SIGRTMAX"))],
        flags in any::<(bool, bool, bool)>()) -> ContainerConfig {
        ContainerConfig {
            name, attempt,
            image: ImageSpec { image, annotations: labels.clone(), ..Default::default() },
            command: words.clone(),
            args: words.clone(),
            working_dir: "/".into(),
            env: env.into_iter().map(|(name, value)| EnvVar { name, value: value.replace('\0', "") }).collect(),
            mounts,
            devices: vec![Device { container_path: "/dev/a".into(), host_path: "/dev/b".into(), permissions: "rw".into() }],
            cdi_devices: words.clone(),
            labels: labels.clone(),
            annotations: labels,
            log_path: "c/0.log".into(),
            stdin: flags.0, stdin_once: flags.1, tty: flags.2,
            resources,
            security: ContainerSecurity {
                capabilities: Capabilities { add: words.clone(), drop: vec!["ALL".into()], add_ambient: Vec::new() },
                privileged: flags.0, namespaces, run_as, readonly_rootfs: flags.1, no_new_privs: flags.2, masked_paths: words,
                seccomp: seccomp.clone(), apparmor: seccomp, ..Default::default()
            },
            stop_signal: signal.map(str::to_owned),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        read_all(&bytes);
    }

    #[test]
    fn any_message_is_survived(bytes in message_bytes()) {
        read_all(&bytes);
    }

    #[test]
    fn damaged_answers_are_survived(config in sandbox(), at in any::<proptest::sample::Index>(), to in any::<u8>()) {
        let metadata = Some(pb::PodSandboxMetadata { name: config.metadata.name, namespace: "n".into(), uid: "u".into(), attempt: 1 });
        let status = pb::PodSandboxStatus {
            id: "id".into(), metadata, labels: config.labels,
            network: Some(pb::PodSandboxNetworkStatus { ip: "10.0.0.1".into(), additional_ips: vec![pb::PodIp { ip: "fd00::1".into() }] }),
            ..Default::default()
        };
        let reply = pb::PodSandboxStatusResponse { status: Some(status), ..Default::default() };
        prop_assert_eq!(from::sandbox_inspection(reply.clone()).unwrap().status.ips.len(), 2);
        let mut bytes = reply.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        read_all(&bytes);
        bytes.truncate(at);
        read_all(&bytes);
    }

    #[test]
    fn what_is_sent_about_a_sandbox_is_what_was_meant(config in sandbox()) {
        let bytes = to::sandbox_config(&config).unwrap().encode_to_vec();
        let read = requests::sandbox_config(pb::PodSandboxConfig::decode(bytes.as_slice()).unwrap()).unwrap();
        prop_assert_eq!(read, config);
    }

    #[test]
    fn what_is_sent_about_a_container_is_what_was_meant(config in container()) {
        let bytes = to::container_config(&config).unwrap().encode_to_vec();
        let read = requests::container_config(pb::ContainerConfig::decode(bytes.as_slice()).unwrap()).unwrap();
        prop_assert_eq!(read, config);
    }

    #[test]
    fn the_same_gives_the_same_bytes(config in sandbox()) {
        let once = to::sandbox_config(&config).unwrap().encode_to_vec();
        prop_assert_eq!(once, to::sandbox_config(&config.clone()).unwrap().encode_to_vec());
    }
}

fn complaint<T: std::fmt::Debug>(result: Result<T>) -> String {
    let bad = result.unwrap_err();
    format!("{}: {}", bad.field, bad.problem)
}

#[test]
fn complaints_name_the_field_in_full() {
    let metadata = Some(pb::PodSandboxMetadata { name: "a".into(), namespace: "b".into(), uid: "c".into(), attempt: 0 });
    let good = pb::PodSandbox { id: "x".into(), metadata: metadata.clone(), ..Default::default() };
    let list = |bad: pb::PodSandbox| complaint(from::sandboxes(vec![good.clone(), bad]));
    assert_eq!(list(pb::PodSandbox { id: String::new(), ..good.clone() }), "items[1].id: is empty");
    assert_eq!(list(pb::PodSandbox { metadata: None, ..good.clone() }), "items[1].metadata: is missing");
    assert_eq!(list(pb::PodSandbox { state: 7, ..good.clone() }), "items[1].state: 7 is no sandbox state");
    let network = Some(pb::PodSandboxNetworkStatus { ip: format!("10.0.0.{}", "9".repeat(500)), additional_ips: Vec::new() });
    let status = pb::PodSandboxStatus { id: "x".into(), metadata, network, ..Default::default() };
    let text = complaint(from::sandbox_status(status));
    assert!(text.starts_with("network.ip: \"10.0.0.999") && text.len() < 120, "{text}");
    let event = pb::ContainerEventResponse { container_id: "x".into(), container_event_type: -3, ..Default::default() };
    assert_eq!(complaint(from::container_event(event)), "container_event_type: -3 is no event");
    let mounts = vec![pb::Mount { propagation: 9, ..Default::default() }];
    let metadata = Some(pb::ContainerMetadata { name: "c".into(), attempt: 0 });
    let status = Some(pb::ContainerStatus { id: "x".into(), metadata, mounts, ..Default::default() });
    let reply = pb::ContainerStatusResponse { status, ..Default::default() };
    assert_eq!(complaint(from::container_status_reply(reply)), "status.mounts[0].propagation: 9 is no mount propagation");
}

#[test]
fn unknown_container_states_are_unknown_and_unknown_signals_unsaid() {
    let metadata = Some(pb::ContainerMetadata { name: "c".into(), attempt: 0 });
    let status = pb::ContainerStatus { id: "x".into(), metadata, state: 99, stop_signal: 999, ..Default::default() };
    let status = from::container_status(status).unwrap();
    assert_eq!((status.state, status.stop_signal), (ContainerState::Unknown, None));
}

#[test]
fn a_runtime_that_does_not_say_whether_it_is_ready_is_not() {
    let reply = pb::StatusResponse { status: Some(pb::RuntimeStatus { conditions: Vec::new() }), ..Default::default() };
    let status = from::runtime_status(reply).unwrap();
    assert!(!status.runtime_ready.ok && !status.network_ready.ok);
    assert!(status.network_ready.message.contains("NetworkReady"));
}

#[test]
fn namespaces_that_cannot_be_are_refused() {
    let mut config = SandboxConfig {
        metadata: SandboxMetadata { name: "a".into(), namespace: "b".into(), uid: "c".into(), attempt: 0 },
        ..Default::default()
    };
    config.security.namespaces.network = NamespaceMode::Target("x".into());
    assert!(complaint(to::sandbox_config(&config)).contains("network"));
    config.security.namespaces = NamespaceOptions { pid: NamespaceMode::Target(String::new()), ..Default::default() };
    assert!(complaint(to::sandbox_config(&config)).contains("target_id"));
}
