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

#[cfg(test)]
mod tests;
