use super::*;

#[test]
fn conflict_reads_as_kubernetes_words_it() {
    let status = ApiError::stale("apps", "deployments", "web").to_status();
    assert_eq!(status["code"], 409);
    assert_eq!(status["reason"], "Conflict");
    assert_eq!(status["details"], json!({"name": "web", "group": "apps", "kind": "deployments"}));
    assert!(status["message"].as_str().unwrap().starts_with("Operation cannot be fulfilled on deployments.apps \"web\": "));
}

#[test]
fn invalid_lists_every_field() {
    let cause =
        |field: &str| Cause { reason: "FieldValueRequired".into(), message: "Required value".into(), field: field.into() };
    let one = ApiError::invalid("", "Pod", "a", vec![cause("spec.containers")]);
    assert_eq!(one.message, "Pod \"a\" is invalid: spec.containers: Required value");
    let two = ApiError::invalid("apps", "Deployment", "a", vec![cause("x"), cause("y")]);
    assert_eq!(two.message, "Deployment.apps \"a\" is invalid: [x: Required value, y: Required value]");
    assert_eq!(two.to_status()["details"]["causes"][1]["field"], "y");
}

#[test]
fn every_reason_has_a_code_and_a_class() {
    assert_eq!(ApiError::expired(3).class(), Class::Gone);
    assert_eq!(ApiError::not_found("", "pods", "a").class(), Class::Gone);
    assert_eq!(ApiError::stale("", "pods", "a").class(), Class::Transient);
    assert_eq!(ApiError::bad_request("x").class(), Class::Permanent);
}
