use crate::kinds::Op;
use crate::kinds::core::pod::POD;
use serde_json::{Value, json};

fn errors(list: &str, fields: Value) -> Vec<String> {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {
        "containers": [{"name": "main", "image": "i"}], "initContainers": [{"name": "init", "image": "i"}]}});
    for (field, value) in fields.as_object().unwrap() {
        pod["spec"][list][0][field] = value.clone();
    }
    (POD.defaults)(&mut pod);
    (POD.validate)(Op::Create, None, &pod, None).iter().map(ToString::to_string).collect()
}

fn rule(action: &str, operator: &str) -> Value {
    json!({"action": action, "exitCodes": {"operator": operator, "values": [42]}})
}

#[test]
fn rules_are_taken_for_all_but_ephemeral_containers() {
    for action in ["Restart", "RestartAllContainers"] {
        for (list, policy) in [("containers", "Never"), ("initContainers", "Always"), ("initContainers", "OnFailure")] {
            let fields = json!({"restartPolicy": policy, "restartPolicyRules": [rule(action, "In"), rule(action, "NotIn")]});
            assert_eq!(errors(list, fields), Vec::<String>::new());
        }
    }
}

#[test]
fn what_is_wrong_with_them_is_said() {
    let at = "spec.containers[0]";
    let rules = |rules: Value| json!({"restartPolicy": "Never", "restartPolicyRules": rules});
    for (fields, expected) in [
        (
            json!({"restartPolicyRules": [rule("Restart", "In")]}),
            format!("{at}.restartPolicy: Required value: must specify restartPolicy when restart rules are used"),
        ),
        (
            rules(json!([rule("Stop", "In")])),
            format!(
                "{at}.restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\""
            ),
        ),
        (
            rules(json!([rule("Restart", "Is")])),
            format!(
                "{at}.restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\""
            ),
        ),
        (
            rules(json!([{"action": "Restart"}])),
            format!("{at}.restartPolicyRules[0].exitCodes: Required value: must be specified"),
        ),
    ] {
        assert_eq!(errors("containers", fields), [expected]);
    }
    let many = rules(Value::Array(vec![rule("Restart", "In"); 21]));
    assert!(errors("containers", many)[0].starts_with(&format!("{at}.restartPolicyRules: Too many")));
}

#[test]
fn who_may_run_again() {
    let spec = |policy: &str| json!({"restartPolicy": policy});
    let ruled = json!({"restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "In")]});
    let others = json!({"restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "NotIn")]});
    for (policy, container, code, expected) in [
        ("Always", json!({}), 0, true),
        ("OnFailure", json!({}), 0, false),
        ("OnFailure", json!({}), 1, true),
        ("Never", json!({}), 1, false),
        ("Always", json!({"restartPolicy": "Never"}), 1, false),
        ("Never", json!({"restartPolicy": "OnFailure"}), 1, true),
        ("Never", ruled.clone(), 42, true),
        ("Always", ruled, 1, false),
        ("Never", others.clone(), 42, false),
        ("Never", others, 1, true),
    ] {
        assert_eq!(super::again(&spec(policy), &container, code), expected, "{policy} {container} {code}");
    }
    assert!(!super::all_again(&json!({"containers": [{"restartPolicyRules": [rule("Restart", "In")]}]})));
    assert!(super::all_again(&json!({"initContainers": [{"restartPolicyRules": [rule("RestartAllContainers", "In")]}]})));
}
