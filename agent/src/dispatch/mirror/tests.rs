use super::*;
use serde_json::json;

fn pod(name: &str, uid: &str, annotations: serde_json::Value) -> Arc<Pod> {
    let value = json!({"metadata": {"name": name, "namespace": "ns", "uid": uid, "annotations": annotations}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn at(name: &str) -> ObjectKey {
    ObjectKey { namespace: "ns".into(), name: name.into() }
}

#[test]
fn every_case_of_a_mirror() {
    let wanted = |make| BTreeMap::from([(at("a"), Wanted { pod: pod("a", "h", json!({HASH: "h"})), make })]);
    let mirror = |hash: &str| pod("a", "m", json!({MIRROR: hash}));
    let mut deleted = Pod::clone(&mirror("h"));
    deleted.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    let none = BTreeMap::<ObjectKey, Wanted>::new();
    // wanted, object, list complete, sources complete: deleted, created
    let cases = [
        (&wanted(true), Some(mirror("h")), true, true, false, false),
        (&wanted(true), Some(mirror("other")), true, true, true, false),
        (&wanted(true), Some(mirror("other")), true, false, true, false),
        (&wanted(true), Some(Arc::new(deleted)), true, true, true, false),
        (&wanted(true), None, true, true, false, true),
        (&wanted(true), None, false, true, false, false),
        (&wanted(false), None, true, true, false, false),
        (&wanted(false), Some(mirror("h")), true, true, false, false),
        (&none, Some(mirror("h")), true, true, true, false),
        (&none, Some(mirror("h")), true, false, false, false),
    ];
    for (i, (wanted, object, synced, all, deletes, creates)) in cases.into_iter().enumerate() {
        let mirrors: BTreeMap<&str, &Arc<Pod>> = object.iter().map(|o| ("m", o)).collect();
        let items = object.iter().map(|o| (Arc::new(at("a")), o.clone())).collect();
        let api = Snapshot { synced, items, ..Snapshot::default() };
        let decision = decide(wanted, &mirrors, &api, all, &BTreeSet::new());
        assert_eq!((!decision.delete.is_empty(), !decision.create.is_empty()), (deletes, creates), "case {i}");
    }
    // One that was ended here is known to be gone, unless it is there again.
    let object = mirror("h");
    let mirrors: BTreeMap<&str, &Arc<Pod>> = [("m", &object)].into();
    let deletes = |wanted, hash: &str| {
        let api = Snapshot { synced: true, ..Snapshot::default() };
        !decide(wanted, &mirrors, &api, false, &BTreeSet::from([hash.to_owned()])).delete.is_empty()
    };
    assert!(deletes(&none, "h") && !deletes(&none, "other") && !deletes(&wanted(true), "h"));
    // Somebody else's pod has the name.
    let api = Snapshot { synced: true, items: [(Arc::new(at("a")), pod("a", "u", json!({})))].into(), ..Snapshot::default() };
    assert_eq!(decide(&wanted(true), &BTreeMap::new(), &api, true, &BTreeSet::new()), Decision::default());
}

#[test]
fn the_object_names_its_node_and_its_hash() {
    let made = object(&pod("a", "u", json!({HASH: "h", "mine": "x"})), "n", "node-uid");
    let value = serde_json::to_value(&made).unwrap();
    assert_eq!(value["metadata"]["annotations"], json!({HASH: "h", MIRROR: "h", "mine": "x"}));
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "node-uid", "controller": true}]);
    assert_eq!(value["metadata"]["ownerReferences"], owner);
    assert!(value["metadata"].get("uid").is_none() && value.get("status").is_none());
}
