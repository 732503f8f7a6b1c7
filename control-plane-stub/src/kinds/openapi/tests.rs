use super::*;

fn document(path: &str) -> Value {
    serde_json::from_slice(&v3(path).unwrap()).unwrap()
}

#[test]
fn the_index_names_every_group_version_with_its_hash() {
    let index: Value = serde_json::from_slice(&v3_index()).unwrap();
    for (group, version) in group_versions() {
        let path = root_path(group, version);
        let url = index["paths"][&path]["serverRelativeURL"].as_str().unwrap();
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", v3_hash(&path).unwrap()));
    }
    assert!(v3("apis/none/v1").is_none());
}

/// Every `$ref` below a value.
fn all_refs<'a>(value: &'a Value, out: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| match (k.as_str(), v) {
            ("$ref", Value::String(s)) => {
                out.insert(s);
            }
            _ => all_refs(v, out),
        }),
        Value::Array(items) => items.iter().for_each(|v| all_refs(v, out)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves() {
    for (group, version) in group_versions() {
        let document = document(&root_path(group, version));
        let mut refs = BTreeSet::new();
        all_refs(&document, &mut refs);
        assert!(!refs.is_empty());
        for reference in refs {
            let name = reference.strip_prefix(REF_PREFIX).unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{group}: {reference}");
        }
    }
    let v2: Value = serde_json::from_slice(&v2()).unwrap();
    let mut refs = BTreeSet::new();
    all_refs(&v2, &mut refs);
    for reference in refs {
        assert!(v2["definitions"].get(reference.strip_prefix(V2_PREFIX).unwrap()).is_some(), "{reference}");
    }
}

#[test]
fn clients_find_what_they_look_for() {
    let core = document("api/v1");
    let patch = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    let schemas = &core["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    assert!(pod.get("required").is_none());
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    let deployment = document("apis/apps/v1");
    let strategy = &deployment["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    assert_eq!(strategy["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy");
    let scale = &deployment["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
}

#[test]
fn operation_ids_are_unique() {
    let mut seen = BTreeSet::new();
    let v2: Value = serde_json::from_slice(&v2()).unwrap();
    for (path, item) in v2["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values().filter(|o| o.is_object()) {
            assert!(seen.insert(operation["operationId"].as_str().unwrap()), "{path}: {}", operation["operationId"]);
        }
    }
}
