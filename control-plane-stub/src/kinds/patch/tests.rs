use super::keys::STRATEGIES;
use super::*;
use crate::kinds::{DEPLOYMENT, NODE, POD, SERVICE, schema};
use proptest::prelude::*;
use serde_json::json;

fn check(kind: &Kind, original: Value, patch: Value, expected: Value) {
    assert_eq!(strategic(kind, &original, &patch).unwrap(), expected, "patch {patch}");
}

fn pod(containers: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
}

#[test]
fn every_strategy_names_a_field_of_the_schema() {
    for s in STRATEGIES {
        let found = schema::store()
            .definitions
            .iter()
            .any(|(name, def)| keys::strategy(name, s.field) == Some(s) && def["properties"].get(s.field).is_some());
        assert!(found, "{}.{}", s.definition, s.field);
    }
}

#[test]
fn lists_merge_by_key_and_nulls_delete() {
    check(
        &POD,
        pod(
            json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "command": ["x"]}, {"name": "b", "image": "1"}]),
        ),
        json!({"spec": {"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}], "command": null}]}}),
        pod(
            json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]),
        ),
    );
    check(
        &POD,
        json!({"spec": {"tolerations": [{"key": "a"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}]}}),
    );
    check(
        &SERVICE,
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}, {"port": 81}], "selector": {"a": "b"}}}),
        json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}], "selector": {"c": "d"}}}),
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30000, "targetPort": 8080}, {"port": 81}], "selector": {"a": "b", "c": "d"}}}),
    );
    check(
        &NODE,
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        json!({"spec": {"taints": null}, "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X", "status": "True"}]}}),
        json!({"spec": {}, "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X", "status": "True"}]}}),
    );
}

#[test]
fn directives() {
    let original = pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
    check(
        &POD,
        original.clone(),
        json!({"spec": {"containers": [{"$patch": "delete", "name": "a"}]}}),
        pod(json!([{"name": "b", "image": "1"}])),
    );
    check(
        &POD,
        original.clone(),
        json!({"spec": {"containers": [{"name": "c"}, {"$patch": "replace"}]}}),
        pod(json!([{"name": "c"}])),
    );
    check(
        &POD,
        original.clone(),
        json!({"spec": {"$patch": "replace", "nodeName": "n"}}),
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}}),
    );
    check(&POD, original.clone(), json!({"spec": {"$patch": "delete"}}), json!({"metadata": {"name": "p"}, "spec": {}}));
    check(
        &POD,
        original.clone(),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}}),
        pod(json!([{"name": "b", "image": "1"}, {"name": "c"}, {"name": "a", "image": "1"}])),
    );
    check(
        &POD,
        original.clone(),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        pod(json!([{"name": "b", "image": "1"}, {"name": "a", "image": "1"}])),
    );
    check(
        &POD,
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "d", "a"], "finalizers": ["d"]}}),
        json!({"metadata": {"finalizers": ["c", "d", "a"]}}),
    );
    check(
        &POD,
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "emptyDir": null, "hostPath": {"path": "/x"}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}, {"name": "w", "emptyDir": {}}]}}),
    );
    check(
        &DEPLOYMENT,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
}

#[test]
fn a_field_new_to_the_object_carries_no_directives() {
    check(
        &POD,
        json!({}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": null, "$patch": "merge"}]}}),
        json!({"spec": {"containers": [{"name": "a"}]}}),
    );
    check(
        &POD,
        json!({}),
        json!({"spec": {"$patch": "delete"}, "metadata": {"labels": {"a": null, "b": "c"}}}),
        json!({"metadata": {"labels": {"b": "c"}}}),
    );
}

#[test]
fn malformed_patches_name_the_field() {
    let original = pod(json!([{"name": "a"}]));
    let cases = [
        (json!([]), "the body must be a JSON object"),
        (json!({"spec": {"containers": [{"image": "x"}]}}), "spec.containers: item 0 does not contain the merge key name"),
        (json!({"spec": {"containers": ["x"]}}), "spec.containers: item 0 must be an object"),
        (json!({"spec": {"$patch": "explode"}}), "spec: $patch must be"),
        (json!({"spec": {"$retainKeys": ["a"], "b": 1}}), "spec: b is set but not in $retainKeys"),
        (
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}], "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}}),
            "order",
        ),
        (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}}), "metadata.finalizers"),
    ];
    for (patch, text) in cases {
        let err = strategic(&POD, &original, &patch).unwrap_err();
        assert!(matches!(&err, PatchError::Malformed(m) if m.contains(text)), "{patch}: {err}");
    }
}

#[test]
fn rfc_patches() {
    let original = json!({"a": {"b": [1, 2]}, "c": 1});
    assert_eq!(merge(&original, &json!({"a": {"b": [3]}, "c": null})).unwrap(), json!({"a": {"b": [3]}}));
    let ops = json!([{"op": "test", "path": "/c", "value": 1}, {"op": "add", "path": "/a/b/-", "value": 3}, {"op": "remove", "path": "/c"}]);
    assert_eq!(json(&original, &ops).unwrap(), json!({"a": {"b": [1, 2, 3]}}));
    assert!(matches!(json(&original, &json!({})), Err(PatchError::Malformed(_))));
    assert!(matches!(json(&original, &json!([{"op": "remove", "path": "/x"}])), Err(PatchError::Unprocessable(_))));
    assert!(matches!(json(&original, &json!([{"op": "test", "path": "/c", "value": 2}])), Err(PatchError::Unprocessable(_))));
    assert!(matches!(merge(&original, &json!(1)), Err(PatchError::Malformed(_))));
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::btree_set("[a-e]", 0..5).prop_map(|s| s.into_iter().collect::<Vec<_>>()).prop_shuffle()
}

fn containers(names: &[String], image: &str) -> Value {
    names.iter().map(|n| json!({"name": n, "image": image})).collect()
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(original in names(), patch in names(), gone in "[a-e]", order in names()) {
        let original = pod(containers(&original, "1"));
        let mut changes = containers(&patch, "2");
        changes.as_array_mut().unwrap().push(json!({"name": gone, "$patch": "delete"}));
        let order: Vec<Value> = patch.iter().chain(order.iter().filter(|n| !patch.contains(n))).map(|n| json!({"name": n})).collect();
        let patch = json!({"metadata": {"labels": {"x": "y", "z": null}}, "spec": {"containers": changes, "$setElementOrder/containers": order}});
        let once = strategic(&POD, &original, &patch).unwrap();
        prop_assert_eq!(strategic(&POD, &once, &patch).unwrap(), once);
    }

    #[test]
    fn other_fields_are_untouched(original in names(), patch in names(), extra in "[a-z]{1,8}") {
        let plain = pod(containers(&original, "1"));
        let mut with_extra = plain.clone();
        with_extra["spec"]["nodeName"] = json!(extra);
        let patch = json!({"spec": {"containers": containers(&patch, "2")}});
        let mut expected = strategic(&POD, &plain, &patch).unwrap();
        expected["spec"]["nodeName"] = json!(extra);
        prop_assert_eq!(strategic(&POD, &with_extra, &patch).unwrap(), expected);
    }

    #[test]
    fn the_client_s_order_holds_and_nothing_is_lost(original in names(), patch in names()) {
        let before = pod(containers(&original, "1"));
        let after = strategic(&POD, &before, &json!({"spec": {"containers": containers(&patch, "2")}})).unwrap();
        let result: Vec<&str> = after["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        let client: Vec<&str> = result.iter().copied().filter(|n| patch.iter().any(|p| p == n)).collect();
        prop_assert_eq!(client, patch.iter().map(String::as_str).collect::<Vec<_>>());
        let server: Vec<&str> = result.iter().copied().filter(|n| !patch.iter().any(|p| p == n)).collect();
        let expected: Vec<&str> = original.iter().map(String::as_str).filter(|n| !patch.iter().any(|p| p == n)).collect();
        prop_assert_eq!(server, expected);
    }

    #[test]
    fn an_empty_patch_changes_nothing(original in names()) {
        let original = pod(containers(&original, "1"));
        prop_assert_eq!(strategic(&POD, &original, &json!({})).unwrap(), original);
    }
}
