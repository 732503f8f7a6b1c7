use super::*;
use crate::kinds::{DEPLOYMENT, POD, SECRET};

#[test]
fn every_kind_has_a_definition() {
    for kind in KINDS {
        assert!(Node::of_kind(kind).is_some_and(|n| n.name.ends_with(kind.kind)), "{}", kind.kind);
    }
    assert!(Node::of("autoscaling", "v1", "Scale").is_some());
}

#[test]
fn unknown_fields_are_named_with_their_path() {
    let pod = json!({"metadata": {"labels": {"anything": "x"}, "nmae": "a"}, "spec": {"foo": 1, "containers": [{"name": "a", "imag": "b"}]}});
    assert_eq!(
        unknown_fields(&POD, &pod),
        [r#"unknown field "metadata.nmae""#, r#"unknown field "spec.containers[0].imag""#, r#"unknown field "spec.foo""#]
    );
}

#[test]
fn duplicates_are_named_with_their_path() {
    let text = br#"{"a":1,"a":2,"spec":{"containers":[{"name":"x","env":[{"name":"a","name":"b"}]}]}}"#;
    assert_eq!(duplicate_fields(text), [r#"duplicate field "a""#, r#"duplicate field "spec.containers[0].env[0].name""#]);
    assert!(duplicate_fields(b"{not json").is_empty());
}

#[test]
fn wrong_types_name_the_field() {
    let cases = [
        (json!({"spec": {"replicas": "3"}}), "spec.replicas: Invalid value: \"3\": must be an integer, is string"),
        (
            json!({"spec": {"template": {"spec": {"containers": {}}}}}),
            "spec.template.spec.containers: Invalid value: \"object\": must be an array, is object",
        ),
        (json!({"spec": {"paused": 1}}), "spec.paused: Invalid value: 1: must be a boolean, is number"),
        (json!({"spec": {"replicas": 3000000000u64}}), "spec.replicas: Invalid value: 3000000000: must fit a 32-bit integer"),
    ];
    for (object, text) in cases {
        assert_eq!(type_check(&DEPLOYMENT, &object).unwrap_err().to_string(), text);
    }
    let bad = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}});
    let err = type_check(&POD, &bad).unwrap_err();
    assert_eq!(err.field, "spec.containers[0].resources.limits.cpu");
    let err = type_check(&SECRET, &json!({"data": {"a": "%%"}})).unwrap_err();
    assert_eq!(err.field, "data.a");
    type_check(&POD, &json!({"spec": {"containers": [{"ports": [{"containerPort": 80.0}]}], "nodeName": null}})).unwrap();
}

#[test]
fn normal_form() {
    let mut pod = json!({
        "metadata": {"creationTimestamp": null, "bogus": 1, "labels": {"a": null}, "deletionTimestamp": "2024-01-01T02:00:00.5+02:00"},
        "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "100u"}},
            "ports": [{"containerPort": 80.0}]}], "nodeName": null},
    });
    normalize(&POD, &mut pod);
    assert_eq!(
        pod,
        json!({
            "metadata": {"labels": {"a": ""}, "deletionTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "1m"}},
                "ports": [{"containerPort": 80}]}]},
        })
    );
    let once = pod.clone();
    normalize(&POD, &mut pod);
    assert_eq!(pod, once);
}
