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
