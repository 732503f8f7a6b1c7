use super::*;

#[test]
fn made_once_then_kept_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path()).unwrap();
    let again = Pki::open(dir.path()).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    assert_eq!(first.service_account_key(), again.service_account_key());
    let path = again.write_node_kubeconfig(dir.path(), "https://127.0.0.1:1", "node-1").unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let config: serde_json::Value = serde_yaml_ng::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1");
    assert!(matches!(again.write_node_kubeconfig(dir.path(), "x", "../x"), Err(PkiError::NodeName { .. })));
}

#[test]
fn certificates_name_their_holder() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let pair = pki.client("system:node:a", &["system:nodes"]).unwrap();
    let der = pair.chain().remove(0);
    let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(cert.subject().iter_common_name().next().unwrap().as_str().unwrap(), "system:node:a");
    assert_eq!(cert.subject().iter_organization().next().unwrap().as_str().unwrap(), "system:nodes");
}

#[test]
fn signs_requests() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut wanted = params("system:node:b", &["system:nodes"], Usage::Client);
    // Only an issuer decides these.
    wanted.serial_number = None;
    wanted.use_authority_key_identifier_extension = false;
    let request = wanted.serialize_request(&key).unwrap().pem().unwrap();
    let cert = pki.sign_request(&request, Usage::Client, std::time::Duration::from_secs(86_400 * 30)).unwrap();
    assert!(cert.contains("BEGIN CERTIFICATE"));
    assert!(pki.sign_request("nonsense", Usage::Client, std::time::Duration::ZERO).is_err());
}
