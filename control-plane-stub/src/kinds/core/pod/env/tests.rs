use crate::kinds::Op;
use crate::kinds::core::pod::POD;
use serde_json::{Value, json};

fn pod(list: &str, reference: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {
        "volumes": [{"name": "v"}, {"name": "m", "configMap": {"name": "m"}}],
        "containers": [{"name": "main", "image": "i"}],
        "initContainers": [{"name": "init", "image": "i"}]}});
    pod["spec"][list][0]["env"] = json!([{"name": "A", "valueFrom": {"fileKeyRef": reference}}]);
    (POD.defaults)(&mut pod);
    pod
}

fn errors(pod: &Value) -> Vec<String> {
    (POD.validate)(Op::Create, None, pod, None).iter().map(ToString::to_string).collect()
}

#[test]
fn a_variable_of_a_file_is_taken_and_defaulted() {
    for list in ["containers", "initContainers"] {
        let pod = pod(list, json!({"volumeName": "v", "path": "/sub/a..b", "key": "K.1 x"}));
        assert_eq!(errors(&pod), Vec::<String>::new());
        assert_eq!(pod["spec"][list][0]["env"][0]["valueFrom"]["fileKeyRef"]["optional"], false);
    }
}

#[test]
fn what_is_wrong_with_it_is_said() {
    let at = "spec.initContainers[0].env[0].valueFrom.fileKeyRef";
    for (reference, expected) in [
        (json!({"volumeName": "v", "path": "a"}), vec!["key: Required value".to_owned()]),
        (json!({"volumeName": "v", "key": "K"}), vec!["path: Required value".to_owned()]),
        (
            json!({"path": "a", "key": "K"}),
            vec!["volumeName: Required value".to_owned(), "volumeName: Not found: \"\"".to_owned()],
        ),
        (
            json!({"volumeName": "v", "path": "a/../b", "key": "K"}),
            vec!["path: Invalid value: \"a/../b\": must not contain '..'".to_owned()],
        ),
        (json!({"volumeName": "w", "path": "a", "key": "K"}), vec!["volumeName: Not found: \"w\"".to_owned()]),
        (
            json!({"volumeName": "m", "path": "a", "key": "K"}),
            vec!["volumeName: Invalid value: \"m\": referenced volume must be of type emptyDir".to_owned()],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|e| format!("{at}.{e}")).collect();
        assert_eq!(errors(&pod("initContainers", reference)), expected);
    }
    let odd = errors(&pod("containers", json!({"volumeName": "v", "path": "a", "key": "A=B"})));
    assert!(odd[0].contains("fileKeyRef.key: Invalid value: \"A=B\": a valid environment variable name"), "{odd:?}");
}
