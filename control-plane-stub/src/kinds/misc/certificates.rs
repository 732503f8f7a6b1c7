//! CertificateSigningRequest.

use crate::kinds::field::{Errors, index};
use crate::kinds::meta::{self, Fields, list, names, one_of, str, text};
use crate::kinds::table::{Column, age_column, created, human_duration, name, name_column, none_if_empty, text_column};
use crate::kinds::{FieldError, Kind, Op, STORED, Sub, schema};
use base64::Engine;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub static CERTIFICATE_SIGNING_REQUEST: Kind = Kind {
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    categories: &[],
    namespaced: false,
    subresources: &[Sub::Approval, Sub::Status],
    verbs: STORED,
    view: None,
    defaults: |o| schema::normalize(&CERTIFICATE_SIGNING_REQUEST, o),
    prepare,
    validate,
    selectable_fields,
    columns: COLUMNS,
    cells,
    schema: schemars::SchemaGenerator::subschema_for::<k8s_openapi::api::certificates::v1::CertificateSigningRequest>,
};

/// Who asks (`spec.username`, `groups`, `uid`, `extra`) is the server's to fill in, before this is called.
fn prepare(op: Op, sub: Option<Sub>, new: &mut Value, old: Option<&Value>) {
    match (op, sub, old) {
        (Op::Create, _, _) | (_, _, None) => meta::set(new, "status", json!({})),
        (Op::Update, Some(Sub::Status), Some(old)) => {
            meta::only_status(new, old);
            keep_decisions(new, old);
        }
        (Op::Update, Some(Sub::Approval), Some(old)) => {
            let conditions = new["status"].get("conditions").cloned();
            meta::only_status(new, old);
            let mut status = old["status"].clone();
            if !status.is_object() {
                status = json!({});
            }
            if let Some(conditions) = conditions {
                meta::set(&mut status, "conditions", conditions);
            }
            meta::set(new, "status", status);
        }
        (Op::Update, _, Some(old)) => {
            meta::keep(new, old, "spec");
            meta::keep(new, old, "status");
        }
    }
}

const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// Approval has a subresource of its own; a status write can neither add nor drop it.
fn keep_decisions(new: &mut Value, old: &Value) {
    let decided = |c: &&Value| DECISIONS.contains(&str(c, "type"));
    let mut conditions: Vec<Value> = list(&old["status"], "conditions").iter().filter(decided).cloned().collect();
    conditions.extend(list(&new["status"], "conditions").iter().filter(|c| !decided(c)).cloned());
    if let Some(status) = new.get_mut("status").filter(|s| s.is_object() && !conditions.is_empty()) {
        meta::set(status, "conditions", Value::Array(conditions));
    }
}

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn validate(op: Op, _: Option<Sub>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut e = Errors::new();
    meta::validate(&mut e, new, old, |_| Vec::new());
    conditions(&mut e, &new["status"]);
    if op == Op::Update {
        return e.0;
    }
    let spec = &new["spec"];
    if let Err(problem) = check_request(str(spec, "request")) {
        e.invalid("spec.request", str(spec, "request"), problem);
    }
    let usages = list(spec, "usages");
    if usages.is_empty() {
        e.required("spec.usages", "");
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in usages.iter().enumerate() {
        let usage = usage.as_str().unwrap_or_default();
        if !USAGES.contains(&usage) {
            e.not_supported(index("spec.usages", i), usage, &USAGES);
        }
        if !seen.insert(usage) {
            e.duplicate(index("spec.usages", i), usage);
        }
    }
    let signer = str(spec, "signerName");
    match signer.split_once('/') {
        _ if signer.is_empty() => e.required("spec.signerName", ""),
        Some((domain, path)) if domain.contains('.') && names::dns1123_subdomain(domain).is_empty() && !path.is_empty() => {}
        _ => e.invalid(
            "spec.signerName",
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
    if let Some(seconds) = spec["expirationSeconds"].as_i64().filter(|s| *s < 600) {
        e.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    e.0
}

/// A PEM-wrapped certificate request.
fn check_request(request: &str) -> Result<(), String> {
    let pem = base64::engine::general_purpose::STANDARD.decode(request).map_err(|e| e.to_string())?;
    let not_pem = "PEM block type must be CERTIFICATE REQUEST".to_string();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| not_pem.clone())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(not_pem);
    }
    use x509_parser::prelude::FromDer;
    match x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents) {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("malformed certificate request: {e}")),
    }
}

fn conditions(e: &mut Errors, status: &Value) {
    let mut seen = BTreeSet::new();
    for (i, condition) in list(status, "conditions").iter().enumerate() {
        let path = index("status.conditions", i);
        let ty = str(condition, "type");
        if ty.is_empty() {
            e.required(format!("{path}.type"), "");
        } else if !seen.insert(ty) {
            e.duplicate(format!("{path}.type"), ty);
        }
        if ["Approved", "Denied", "Failed"].contains(&ty) {
            one_of(e, condition, "status", &path, &["True"], true);
        } else {
            one_of(e, condition, "status", &path, &["False", "True", "Unknown"], true);
        }
    }
    if DECISIONS.iter().all(|d| seen.contains(d)) {
        e.invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive");
    }
}

fn selectable_fields(o: &Value) -> Fields {
    vec![("metadata.name", text(o, "/metadata/name")), ("spec.signerName", text(o, "/spec/signerName"))]
}

const COLUMNS: &[Column] = &[
    name_column(),
    age_column(),
    text_column("SignerName", "Who is asked to sign."),
    text_column("Requestor", "Who asks."),
    text_column("RequestedDuration", "How long the certificate is to be valid."),
    text_column("Condition", "What has become of the request."),
];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let has = |ty: &str| list(status, "conditions").iter().any(|c| str(c, "type") == ty);
    let mut condition = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_string();
    if has("Failed") {
        condition.push_str(",Failed");
    }
    if !str(status, "certificate").is_empty() {
        condition.push_str(",Issued");
    }
    let duration = spec["expirationSeconds"].as_i64().map_or("<none>".to_string(), human_duration);
    vec![
        name(o),
        created(o, now),
        none_if_empty(str(spec, "signerName")),
        json!(str(spec, "username")),
        json!(duration),
        json!(condition),
    ]
}
