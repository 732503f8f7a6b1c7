//! Validation of a container's own restart policy and its rules by exit code.

use super::containers::Role;
use crate::kinds::field::{Errors, child, index};
use crate::kinds::meta::{list, one_of, str};
use serde_json::Value;

const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;

pub fn policy(e: &mut Errors, c: &Value, path: &str, role: Role) {
    let given = !str(c, "restartPolicy").is_empty();
    let rules = list(c, "restartPolicyRules");
    if role == Role::Ephemeral {
        if given {
            e.forbidden(child(path, "restartPolicy"), "cannot be set for an Ephemeral Container");
        }
        if !rules.is_empty() {
            e.forbidden(child(path, "restartPolicyRules"), "cannot be set for an Ephemeral Container");
        }
        return;
    }
    one_of(e, c, "restartPolicy", path, &["Always", "Never", "OnFailure"], false);
    if !given && !rules.is_empty() {
        e.required(child(path, "restartPolicy"), "must specify restartPolicy when restart rules are used");
    }
    let path = child(path, "restartPolicyRules");
    if rules.len() > RULES_MAX {
        e.too_many(path.clone(), rules.len(), RULES_MAX);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = index(&path, i);
        one_of(e, rule, "action", &path, &["Restart", "RestartAllContainers"], true);
        let codes = &rule["exitCodes"];
        let path = child(&path, "exitCodes");
        if codes.is_null() {
            e.required(path, "must be specified");
            continue;
        }
        one_of(e, codes, "operator", &path, &["In", "NotIn"], true);
        if list(codes, "values").len() > CODES_MAX {
            e.too_many(child(&path, "values"), list(codes, "values").len(), CODES_MAX);
        }
    }
}

/// Whether a container of the pod that ended with this code may run again.
pub fn again(spec: &Value, c: &Value, code: i64) -> bool {
    let fits = |rule: &&Value| {
        let codes = &rule["exitCodes"];
        let listed = list(codes, "values").iter().any(|v| v.as_i64() == Some(code));
        match str(codes, "operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let own = str(c, "restartPolicy");
    if !own.is_empty() && list(c, "restartPolicyRules").iter().any(|rule| fits(&rule)) {
        return true;
    }
    match if own.is_empty() { str(spec, "restartPolicy") } else { own } {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// Whether any container can have all of them run again.
pub fn all_again(spec: &Value) -> bool {
    let all = list(spec, "containers").iter().chain(list(spec, "initContainers"));
    all.flat_map(|c| list(c, "restartPolicyRules")).any(|rule| str(rule, "action") == "RestartAllContainers")
}

#[cfg(test)]
mod tests;
