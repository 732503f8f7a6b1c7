use super::*;
use serde_json::json;

fn asking(names: &[&str], host: serde_json::Value) -> PodSpec {
    let sysctls: Vec<_> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
    let mut spec = host;
    spec["containers"] = json!([]);
    spec["securityContext"] = json!({"sysctls": sysctls});
    serde_json::from_value(spec).unwrap()
}

fn refusal(list: &Allowlist, names: &[&str], host: serde_json::Value) -> String {
    list.refusal(&asking(names, host)).unwrap_or_default()
}

#[test]
fn safe_ones_are_allowed_in_both_spellings() {
    let list = Allowlist::new("6.12.43+deb13-amd64", &[]);
    for (name, _) in SAFE {
        assert_eq!(refusal(&list, &[name, &name.replace('.', "/")], json!({})), "");
    }
    assert_eq!(refusal(&list, &["kernel.shm_rmid_forced", "kernel.msgmax"], json!({})), r#""kernel.msgmax" not allowlisted"#);
    // A dot among slashes is part of a name.
    assert_eq!(refusal(&list, &["net/ipv4.tcp_rmem"], json!({})), r#""net.ipv4/tcp_rmem" not allowlisted"#);
    assert_eq!(refusal(&list, &[""], json!({})), r#""" not allowlisted"#);
}

#[test]
fn what_an_old_kernel_shares_is_not_safe_there() {
    let list = Allowlist::new("4.4.0-1", &[]);
    assert_eq!(refusal(&list, &["net.ipv4.tcp_syncookies"], json!({})), "");
    assert_ne!(refusal(&list, &["net.ipv4.tcp_rmem"], json!({})), "");
    assert_ne!(refusal(&Allowlist::new("", &[]), &["net.ipv4.tcp_fin_timeout"], json!({})), "");
}

#[test]
fn unsafe_ones_by_name_and_by_pattern() {
    let list = Allowlist::new("6.1", &["kernel.msg*".into(), "net/core/somaxconn".into(), "net.ipv6.*".into()]);
    for name in ["kernel.msgmax", "kernel/msgmnb", "net.core.somaxconn", "net.ipv6.conf.all.forwarding"] {
        assert_eq!(refusal(&list, &[name], json!({})), "", "{name}");
    }
    for name in ["kernel.sem", "net.core.somaxconn2", "net.ipv6", "vm.swappiness"] {
        assert_eq!(refusal(&list, &[name], json!({})), format!("{name:?} not allowlisted"));
    }
}

#[test]
fn a_pod_that_shares_the_hosts_namespace_may_not() {
    let list = Allowlist::new("6.1", &["kernel.msg*".into()]);
    let net = "\"net.ipv4.tcp_syncookies\" not allowed with host Net enabled";
    assert_eq!(refusal(&list, &["net.ipv4.tcp_syncookies"], json!({"hostNetwork": true})), net);
    assert_eq!(refusal(&list, &["net.ipv4.tcp_syncookies"], json!({"hostIPC": true})), "");
    let ipc = "\"kernel.msgmax\" not allowed with host IPC enabled";
    assert_eq!(refusal(&list, &["kernel.msgmax"], json!({"hostIPC": true})), ipc);
    assert_eq!(refusal(&list, &["kernel.msgmax"], json!({"hostNetwork": true})), "");
}

#[test]
fn patterns_that_cannot_be_meant_are_told() {
    for good in
        ["kernel.shm*", "kernel.sem", "net.*", "net.ipv4.tcp_*", "net/ipv4/route/min_pmtu", "fs.mqueue.msg_max", "kernel.msg*"]
    {
        assert_eq!(problem(good), None, "{good}");
    }
    for strange in ["*", "", "net.*.x", "Net.core", "net..core", "net.core-", "-net.core", "net.core**", "a b", &"x".repeat(254)]
    {
        assert!(problem(strange).unwrap().contains(" must have at most 253 characters") || strange == "*", "{strange}");
    }
    for shared in ["*", "vm.swappiness", "kernel.*", "net*", "kernel.hostname", "fs.mqueue"] {
        assert!(problem(shared).unwrap().ends_with(" are not known to be namespaced"), "{shared}");
    }
}
