use super::*;

#[test]
fn a_self_signed_pair_is_made_kept_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { node_name: "n".into(), node_ips: vec!["10.0.0.1".parse().unwrap()], ..Config::default() };
    config.server.cert_dir = dir.path().join("pki");
    server_config(&config).unwrap();
    let cert = || fs::read(dir.path().join("pki/kubelet.crt")).unwrap();
    let first = cert();
    let mode = fs::metadata(dir.path().join("pki/kubelet.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server_config(&config).unwrap();
    assert_eq!(cert(), first, "kept while it fits");
    config.node_ips.push("fd00::1".parse().unwrap());
    server_config(&config).unwrap();
    assert_ne!(cert(), first, "made anew when the node's addresses changed");
    let second = cert();
    fs::write(dir.path().join("pki/kubelet.key"), "damaged").unwrap();
    server_config(&config).unwrap();
    assert_ne!(cert(), second);
}

#[test]
fn configured_files_are_named_when_they_do_not_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca");
    let mut config = Config::default();
    config.authentication.client_ca_file = Some(path.clone());
    let error = |config: &Config| server_config(config).unwrap_err().to_string();
    assert_eq!(error(&config), format!("cannot read or write clientCAFile {}", path.display()));
    fs::write(&path, "nothing").unwrap();
    assert_eq!(error(&config), format!("clientCAFile {}: holds no certificate", path.display()));
    config.authentication.client_ca_file = None;
    config.server.tls_files = Some((path.clone(), path));
    assert!(error(&config).starts_with("tlsCertFile "));
}
