use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::*;

fn pem(common_name: &str, organization: &str, dns: &[&str], ips: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.subject_alt_names.extend(dns.iter().map(|d| SanType::DnsName((*d).try_into().unwrap())));
    params.subject_alt_names.extend(ips.iter().map(|i| SanType::IpAddress(i.parse().unwrap())));
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap().into_bytes()
}

fn request(signer: &str, user: &str, group: &str, usage: &str, pem: Vec<u8>, extra: Value) -> CertificateSigningRequest {
    let mut v = json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "username": user, "groups": [group, "system:authenticated"],
        "usages": ["digital signature", usage], "request": ""}});
    json_patch::merge(&mut v, &extra);
    let mut csr: CertificateSigningRequest = serde_json::from_value(v).unwrap();
    csr.spec.request = ByteString(pem);
    csr
}

fn run(csr: &CertificateSigningRequest) -> Decision {
    let known = |node: &str| (node == "n1").then(|| ["n1".to_string(), "10.0.0.1".to_string()].into());
    decide(csr, subject(&csr.spec.request.0), known)
}

#[test]
fn kubelets_are_approved_for_themselves_only() {
    let client = |user: &str, group: &str, cn: &str| {
        run(&request(CLIENT_KUBELET, user, group, "client auth", pem(cn, NODES, &[], &[]), json!({})))
    };
    assert!(matches!(client("system:bootstrap:abc", "system:bootstrappers", "system:node:n1"), Decision::Approve(_)));
    assert!(matches!(client("system:node:n1", NODES, "system:node:n1"), Decision::Approve(_)));
    assert_eq!(client("system:node:n2", NODES, "system:node:n1"), Decision::Nothing);
    assert_eq!(client("system:node:n1", NODES, "admin"), Decision::Nothing);
    let serving = |cn: &str, dns: &[&str], ips: &[&str]| {
        run(&request(SERVING, "system:node:n1", NODES, "server auth", pem(cn, NODES, dns, ips), json!({})))
    };
    assert!(matches!(serving("system:node:n1", &["n1"], &["10.0.0.1"]), Decision::Approve(_)));
    assert_eq!(serving("system:node:n1", &["n1"], &["10.0.0.2"]), Decision::Nothing);
    assert_eq!(serving("system:node:n1", &[], &[]), Decision::Nothing);
    assert_eq!(serving("system:node:n2", &["n1"], &[]), Decision::Nothing);
}

#[test]
fn what_was_approved_is_signed_once_and_within_the_rules() {
    let approved =
        json!({"spec": {"expirationSeconds": 3600}, "status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    let with = |signer: &str, usage: &str, cn: &str, org: &str, extra: &Value| {
        run(&request(signer, "joe", "people", usage, pem(cn, org, &[], &[]), extra.clone()))
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(with(CLIENT, "client auth", "joe", "people", &approved), Decision::Sign { usage: Usage::Client, valid: hour });
    assert_eq!(with(CLIENT, "client auth", "joe", "people", &json!({})), Decision::Nothing);
    assert!(matches!(with(CLIENT, "client auth", "joe", "system:masters", &approved), Decision::Fail(_)));
    assert!(matches!(with(CLIENT, "server auth", "joe", "people", &approved), Decision::Fail(_)));
    assert_eq!(with("example.com/own", "client auth", "joe", "people", &approved), Decision::Nothing);
    let done = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "YQ=="}});
    assert_eq!(with(CLIENT, "client auth", "joe", "people", &done), Decision::Nothing);
    let garbage = request(CLIENT, "joe", "people", "client auth", b"nonsense".to_vec(), approved);
    assert!(matches!(run(&garbage), Decision::Fail(_)));
}
