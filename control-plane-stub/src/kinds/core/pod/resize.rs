//! The subresource `resize`: cpu and memory of containers and of the pod as a whole, and nothing else.

use super::resources::qos_class;
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{list, set, str};
use serde_json::{Map, Value, json};

const LISTS: [&str; 2] = ["containers", "initContainers"];
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Keeps of the new spec what a resize is about. Other containers, or the same in another order, are left for validation to see.
pub fn prepare(spec: &mut Value, before: &Value) {
    let names = |spec: &Value, which: &str| list(spec, which).iter().map(|c| str(c, "name").to_owned()).collect::<Vec<_>>();
    if LISTS.iter().any(|which| names(spec, which) != names(before, which)) {
        return;
    }
    let asked = std::mem::replace(spec, before.clone());
    take(spec, &asked, "resources");
    for which in LISTS {
        let Some(containers) = spec.get_mut(which).and_then(Value::as_array_mut) else { continue };
        for (container, asked) in containers.iter_mut().zip(list(&asked, which)) {
            take(container, asked, "resources");
            take(container, asked, "resizePolicy");
        }
    }
}

fn take(to: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(value) => set(to, field, value.clone()),
        None => drop(to.as_object_mut().map(|o| o.remove(field))),
    }
}

pub fn validate(e: &mut Errors, new: &Value, old: &Value) {
    if old["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some() {
        return e.forbidden("", "static pods cannot be resized");
    }
    if old["spec"]["os"]["name"] == "windows" {
        return e.forbidden("", "windows pods cannot be resized");
    }
    if qos_class(old) != qos_class(new) {
        e.invalid("spec", qos_class(new), "Pod QOS Class may not change as a result of resizing");
    }
    let running = list(&old["status"], "containerStatuses").iter().find(|s| s["state"].get("running").is_some());
    if running.is_some_and(|s| s.get("resources").is_none()) {
        e.forbidden("spec", "Pod running on node without support for resize");
    }
    let (new, old) = (&new["spec"], &old["spec"]);
    whole(e, &new["resources"], &old["resources"]);
    if !same_containers(e, new, old) {
        return;
    }
    for which in ["initContainers", "containers"] {
        for (i, (now, before)) in list(new, which).iter().zip(list(old, which)).enumerate() {
            let path = index(&child("spec", which), i);
            removed(e, &now["resources"], &before["resources"], &child(&path, "resources"), "resource");
            container(e, now, before, which, &path);
        }
    }
    // Whatever else there is, `prepare` has put back.
}

fn whole(e: &mut Errors, new: &Value, old: &Value) {
    if new.is_null() && !old.is_null() {
        return e.forbidden("spec.resources", "pod-level resources cannot be removed");
    }
    removed(e, new, old, "spec.resources", "pod-level resource");
    if rest(new) != rest(old) {
        e.forbidden("spec", "only cpu and memory resources are mutable at pod-level");
    }
}

fn same_containers(e: &mut Errors, new: &Value, old: &Value) -> bool {
    let mut same = true;
    for which in LISTS {
        let (now, before) = (list(new, which), list(old, which));
        if now.len() != before.len() {
            same = false;
            e.forbidden(child("spec", which), format!("{which} may not be added or removed on resize"));
            continue;
        }
        for (i, _) in now.iter().zip(before).enumerate().filter(|(_, (now, before))| str(now, "name") != str(before, "name")) {
            same = false;
            let path = child(&index(&child("spec", which), i), "name");
            e.forbidden(path, format!("{which} may not be renamed or reordered on resize"));
        }
    }
    same
}

fn removed(e: &mut Errors, new: &Value, old: &Value, path: &str, what: &str) {
    for which in ["requests", "limits"] {
        let gone = old[which].as_object().into_iter().flatten().any(|(name, _)| new[which].get(name).is_none());
        if gone {
            e.forbidden(child(path, which), format!("{what} {which} cannot be removed"));
        }
    }
}

fn container(e: &mut Errors, new: &Value, old: &Value, which: &str, path: &str) {
    let other = rest(&new["resources"]) != rest(&old["resources"]) || new.get("resizePolicy") != old.get("resizePolicy");
    let init = which == "initContainers";
    match (other, init) {
        (true, false) => e.forbidden("spec", "only cpu and memory resources are mutable"),
        (true, true) => e.forbidden(path, "only cpu and memory resources for init or sidecar containers are mutable"),
        (false, _) => {}
    }
    let sidecar = old["restartPolicy"] == "Always";
    let restarts = list(new, "resizePolicy").iter().any(|p| p["restartPolicy"] == "RestartContainer");
    if init && !sidecar && restarts && new["resources"] != old["resources"] {
        e.forbidden(path, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized");
    }
}

/// All but cpu and memory; lists that are empty without them are as if they were not there.
fn rest(resources: &Value) -> Value {
    let mut out = Map::new();
    for (field, value) in resources.as_object().into_iter().flatten() {
        let mut value = value.clone();
        if let Some(amounts) = value.as_object_mut() {
            amounts.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
        }
        if value != json!({}) && value != json!([]) && !value.is_null() {
            out.insert(field.clone(), value);
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::core::pod::POD;
    use crate::kinds::{Op, Sub};

    fn pod(containers: Value, whole: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": containers}});
        if !whole.is_null() {
            pod["spec"]["resources"] = whole;
        }
        (POD.defaults)(&mut pod);
        (POD.prepare)(Op::Create, None, &mut pod, None);
        pod
    }

    fn one(resources: Value) -> Value {
        json!([{"name": "c1", "image": "r/i:1", "resources": resources}])
    }

    fn errors(old: &Value, containers: Value, whole: Value) -> String {
        let mut new = pod(containers, whole);
        new["metadata"] = old["metadata"].clone();
        (POD.prepare)(Op::Update, Some(Sub::Resize), &mut new, Some(old));
        let found = (POD.validate)(Op::Update, Some(Sub::Resize), &new, Some(old));
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_may_not_be_resized() {
        let full = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        let guaranteed = json!({"requests": full("1", "1Gi"), "limits": full("1", "1Gi")});
        let burstable = json!({"requests": full("1", "1Gi"), "limits": full("2", "2Gi")});
        let table = [
            (json!({}), json!({"requests": {"memory": "1Gi"}}), "Pod QOS Class may not change as a result of resizing"),
            (
                guaranteed.clone(),
                json!({"requests": full("1", "1Gi")}),
                "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
            ),
            (json!({"requests": {"cpu": "1"}}), json!({}), "resource requests cannot be removed"),
            (
                burstable.clone(),
                json!({"requests": full("2", "2Gi"), "limits": full("2", "2Gi")}),
                "Pod QOS Class may not change",
            ),
            (
                json!({"requests": {"cpu": "1", "ephemeral-storage": "1"}}),
                json!({"requests": {"cpu": "1", "ephemeral-storage": "3"}}),
                "spec: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                json!({"requests": {"cpu": "1"}}),
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                "must be less than or equal to cpu limit",
            ),
        ];
        for (old, new, wanted) in table {
            let found = errors(&pod(one(old), Value::Null), one(new), Value::Null);
            assert!(found.contains(wanted), "{wanted:?} in {found}");
        }
        let old = pod(one(burstable.clone()), Value::Null);
        assert_eq!(errors(&old, one(json!({"requests": full("500m", "1Gi"), "limits": full("3", "3Gi")})), Value::Null), "");
        let mut sneaky = one(burstable.clone());
        sneaky[0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        assert!(errors(&old, sneaky, Value::Null).contains("only cpu and memory resources are mutable"));
        let mut mirror = old.clone();
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
        assert!(errors(&mirror, one(burstable.clone()), Value::Null).contains("static pods cannot be resized"));
        let mut running = old;
        running["status"]["containerStatuses"] = json!([{"name": "c1", "state": {"running": {}}}]);
        assert!(errors(&running, one(burstable), Value::Null).contains("Pod running on node without support for resize"));
    }

    #[test]
    fn containers_stay_who_they_are() {
        let two = |a: &str, b: &str| {
            json!([{"name": a, "image": "r/i:1", "resources": {"requests": {"cpu": "1"}}},
            {"name": b, "image": "r/i:1", "resources": {"requests": {"cpu": "1"}}}])
        };
        let old = pod(two("c1", "c2"), Value::Null);
        assert_eq!(
            errors(&old, two("c2", "c1"), Value::Null),
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize, \
             spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize"
        );
        assert!(
            errors(&old, one(json!({"requests": {"cpu": "1"}})), Value::Null)
                .contains("spec.containers: Forbidden: containers may not be added or removed on resize")
        );
    }

    #[test]
    fn the_pod_as_a_whole() {
        let whole = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
        let old = pod(one(json!({})), whole.clone());
        assert_eq!(errors(&old, one(json!({})), json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})), "");
        assert!(
            errors(&old, one(json!({})), Value::Null)
                .contains("spec.resources: Forbidden: pod-level resources cannot be removed")
        );
        let found = errors(&old, one(json!({})), json!({"requests": {"cpu": "1"}}));
        assert!(found.contains("spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"), "{found}");
    }
}
