//! Which address families a Service has: `ipFamilyPolicy`, `ipFamilies` and as many `clusterIPs` as belong to them. Pure:
//! the cluster's families go in, and what is written into the object only follows from it and the state before.
//!
//! Called after validation, so every value is known to be well-formed and to fit its neighbours.

use crate::kinds::FieldError;
use crate::kinds::field::{Errors, index};
use crate::kinds::meta::{list, str};
use crate::ranges::Family;
use serde_json::{Value, json};
use std::net::IpAddr;

const POLICY: &str = "spec.ipFamilyPolicy";

/// `cluster`: the families of the service ranges, the primary one first.
pub fn settle(service: &mut Value, old: Option<&Value>, cluster: &[Family]) -> Vec<FieldError> {
    let mut e = Errors::new();
    let Some(spec) = service.get_mut("spec").filter(|s| s.is_object()) else { return e.0 };
    let before = old.map(|o| &o["spec"]).filter(|s| s.is_object());
    if str(spec, "type") == "ExternalName" || before.is_some_and(|before| prefers_as_before(spec, before)) {
        return e.0;
    }
    let headless = str(spec, "clusterIP") == "None";
    let selects = spec["selector"].as_object().is_some_and(|s| !s.is_empty());
    if str(spec, "ipFamilyPolicy").is_empty() {
        let kept = before.map_or("", |b| str(b, "ipFamilyPolicy"));
        spec["ipFamilyPolicy"] = json!(match kept {
            // Who writes the endpoints of such a Service may use both families.
            "" if headless && !selects => "RequireDualStack",
            "" => "SingleStack",
            kept => kept,
        });
    }
    let single = str(spec, "ipFamilyPolicy") == "SingleStack";
    if let Some(before) = before {
        if single {
            release_second(spec, before);
        } else {
            no_silent_release(&mut e, spec, before);
        }
    }
    if single {
        for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if list(spec, field).len() == 2 {
                let must = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                e.invalid(POLICY, spec["ipFamilyPolicy"].clone(), must);
            }
        }
    }
    let mut families = infer(&mut e, spec, cluster);
    if !e.0.is_empty() {
        return e.0;
    }
    let Some(&primary) = cluster.first() else { return e.0 };
    let free_choice = headless && !selects;
    if !free_choice {
        if str(spec, "ipFamilyPolicy") == "RequireDualStack" && cluster.len() < 2 {
            let why = "this cluster is not configured for dual-stack services";
            e.invalid(POLICY, spec["ipFamilyPolicy"].clone(), why);
        }
        for (i, family) in families.iter().enumerate().filter(|(_, f)| !cluster.contains(f)) {
            e.invalid(index("spec.ipFamilies", i), family.as_str(), "not configured on this cluster");
        }
        if !e.0.is_empty() {
            return e.0;
        }
    }
    let first = *families.first().unwrap_or(&primary);
    if families.is_empty() {
        families.push(first);
    }
    if !single && families.len() == 1 && (free_choice || cluster.len() == 2) {
        families.push(first.other());
    }
    spec["ipFamilies"] = families.iter().map(|f| json!(f.as_str())).collect();
    e.0
}

/// A Service that only prefers two families is left alone when the cluster's families change; it follows when its user
/// touches one of these fields.
fn prefers_as_before(spec: &Value, before: &Value) -> bool {
    let same = |field: &str| spec.get(field) == before.get(field);
    str(spec, "ipFamilyPolicy") == "PreferDualStack"
        && ["", "PreferDualStack"].contains(&str(before, "ipFamilyPolicy"))
        && !list(spec, "ipFamilies").is_empty()
        && ["type", "clusterIP", "clusterIPs", "ipFamilies"].into_iter().all(same)
}

/// Asking for one family is a clear word: what the user left as it was is shortened for them.
fn release_second(spec: &mut Value, before: &Value) {
    for field in ["clusterIPs", "ipFamilies"] {
        let same = spec.get(field) == before.get(field) && str(spec, "clusterIP") == str(before, "clusterIP");
        if same && let Some(items) = spec.get_mut(field).and_then(Value::as_array_mut) {
            items.truncate(1);
        }
    }
}

fn no_silent_release(e: &mut Errors, spec: &Value, before: &Value) {
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let now = list(spec, field).len();
        if now > 0 && now < list(before, field).len() {
            e.invalid(POLICY, spec["ipFamilyPolicy"].clone(), format!("must be 'SingleStack' to release the secondary {what}"));
        }
    }
}

/// The families named, and those of addresses that have none named.
fn infer(e: &mut Errors, spec: &Value, cluster: &[Family]) -> Vec<Family> {
    let mut families: Vec<Family> =
        list(spec, "ipFamilies").iter().filter_map(|f| Family::parse(f.as_str().unwrap_or_default())).collect();
    for (i, ip) in list(spec, "clusterIPs").iter().enumerate().skip(families.len()) {
        let Some(family) = ip.as_str().and_then(|ip| ip.parse::<IpAddr>().ok()).map(Family::of) else { break };
        if cluster.contains(&family) {
            families.push(family);
        } else {
            let why = format!("{} is not configured on this cluster", family.as_str());
            e.invalid(index("spec.clusterIPs", i), spec["clusterIPs"].clone(), why);
        }
    }
    families
}
