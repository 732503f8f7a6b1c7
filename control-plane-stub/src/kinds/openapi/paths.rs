//! The paths of a kind: its collection, its objects and their subresources, with the operations of its verbs.

use super::{DELETE_OPTIONS, STATUS, Version, gvk, root_path};
use crate::kinds::{Kind, Sub, Verb, schema};
use serde_json::{Map, Value, json};

const PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// One operation in the making.
struct Operation<'a> {
    kind: &'a Kind,
    sub: Option<Sub>,
    verb: Verb,
    version: Version,
    all_namespaces: bool,
}

/// Adds all paths of a kind.
pub(super) fn add(paths: &mut Map<String, Value>, kind: &Kind, version: Version) {
    let root = format!("/{}", root_path(kind.group, kind.version));
    let base = if kind.namespaced { format!("{root}/namespaces/{{namespace}}") } else { root.clone() };
    let collection = [Verb::Create, Verb::List, Verb::DeleteCollection];
    let item = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
    let operation = |sub, verb, all_namespaces| Operation { kind, sub, verb, version, all_namespaces };
    let own = |verbs: &[Verb], all: bool| {
        verbs.iter().copied().filter(|v| kind.allows(*v)).map(|v| operation(None, v, all)).collect::<Vec<_>>()
    };
    insert(paths, format!("{base}/{}", kind.plural), own(&collection, false));
    if kind.namespaced && kind.is_stored() {
        insert(paths, format!("{root}/{}", kind.plural), own(&[Verb::List], true));
    }
    if kind.is_stored() {
        insert(paths, format!("{base}/{}/{{name}}", kind.plural), own(&item, false));
        for sub in kind.subresources {
            let operations = sub.verbs().iter().map(|v| operation(Some(*sub), *v, false)).collect();
            insert(paths, format!("{base}/{}/{{name}}/{}", kind.plural, sub.name()), operations);
        }
    }
}

fn insert(paths: &mut Map<String, Value>, path: String, operations: Vec<Operation>) {
    if operations.is_empty() {
        return;
    }
    let path_parameters: Vec<Value> = ["name", "namespace"]
        .into_iter()
        .filter(|p| path.contains(&format!("{{{p}}}")))
        .map(|p| parameter(p, "path", "string", operations[0].version))
        .collect();
    let mut item = Map::new();
    if !path_parameters.is_empty() {
        item.insert("parameters".to_string(), Value::Array(path_parameters));
    }
    for operation in operations {
        item.insert(method(operation.verb).to_string(), operation.render());
    }
    paths.insert(path, Value::Object(item));
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Delete | Verb::DeleteCollection => "delete",
        Verb::Get | Verb::List | Verb::Watch => "get",
        Verb::Patch => "patch",
        Verb::Update => "put",
    }
}

fn parameter(name: &str, place: &str, ty: &str, version: Version) -> Value {
    let mut out = json!({"name": name, "in": place});
    if place == "path" {
        out["required"] = json!(true);
    }
    match version {
        Version::V2 => out["type"] = json!(ty),
        Version::V3 => out["schema"] = json!({"type": ty}),
    }
    out
}

impl Operation<'_> {
    /// The group, version and kind of the body.
    fn body(&self) -> (&str, &str, &str) {
        self.sub.and_then(Sub::body_kind).unwrap_or((self.kind.group, self.kind.version, self.kind.kind))
    }

    fn id(&self) -> String {
        let upper = |text: &str| {
            let mut chars = text.chars();
            chars.next().map_or(String::new(), |c| c.to_uppercase().collect::<String>() + chars.as_str())
        };
        let group = self.kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        let verb = match self.verb {
            Verb::Get => "read",
            Verb::Update => "replace",
            Verb::DeleteCollection => "deleteCollection",
            other => other.name(),
        };
        let scope = if self.kind.namespaced && !self.all_namespaces { "Namespaced" } else { "" };
        let tail = if self.all_namespaces { "ForAllNamespaces" } else { "" };
        let sub = self.sub.map_or(String::new(), |s| upper(s.name()));
        format!("{verb}{}{}{scope}{}{sub}{tail}", upper(group), upper(self.kind.version), self.kind.kind)
    }

    fn query(&self) -> Vec<Value> {
        let names: &[(&str, &str)] = match self.verb {
            Verb::Create | Verb::Update => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
            Verb::Patch => {
                &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")]
            }
            Verb::Delete => &[("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")],
            Verb::List | Verb::DeleteCollection => &[
                ("allowWatchBookmarks", "boolean"),
                ("continue", "string"),
                ("fieldSelector", "string"),
                ("labelSelector", "string"),
                ("limit", "integer"),
                ("resourceVersion", "string"),
                ("resourceVersionMatch", "string"),
                ("sendInitialEvents", "boolean"),
                ("timeoutSeconds", "integer"),
                ("watch", "boolean"),
            ],
            Verb::Get | Verb::Watch => &[],
        };
        names.iter().map(|(name, ty)| parameter(name, "query", ty, self.version)).collect()
    }

    fn render(&self) -> Value {
        let (group, version, kind) = self.body();
        let name = schema::store().root(group, version, kind).unwrap_or_default();
        let streams = matches!(self.sub, Some(Sub::Log | Sub::Exec | Sub::Attach | Sub::PortForward | Sub::Proxy));
        let answer = match self.verb {
            _ if streams => None,
            Verb::List => Some(self.version.reference(&format!("{name}List"))),
            Verb::Delete | Verb::DeleteCollection => Some(self.version.reference(STATUS)),
            _ => Some(self.version.reference(name)),
        };
        let action = match self.verb {
            _ if streams => "connect",
            Verb::Create => "post",
            Verb::Update => "put",
            other => other.name(),
        };
        let request = match self.verb {
            _ if streams => None,
            Verb::Create | Verb::Update => Some((self.version.reference(name), &["application/json", "application/yaml"][..])),
            Verb::Delete | Verb::DeleteCollection => Some((self.version.reference(DELETE_OPTIONS), &["application/json"][..])),
            Verb::Patch => Some((json!({"type": "object"}), &PATCHES[..])),
            _ => None,
        };
        let mut out = json!({
            "description": format!("{} {}", self.verb.name(), self.kind.kind),
            "operationId": self.id(),
            "parameters": self.query(),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(group, version, kind),
        });
        match self.version {
            Version::V3 => self.v3_bodies(&mut out, request, answer),
            Version::V2 => self.v2_bodies(&mut out, request, answer),
        }
        out
    }

    fn v3_bodies(&self, out: &mut Value, request: Option<(Value, &[&str])>, answer: Option<Value>) {
        let content = |types: &[&str], schema: &Value| -> Map<String, Value> {
            types.iter().map(|t| (t.to_string(), json!({"schema": schema}))).collect()
        };
        if let Some((schema, types)) = request {
            let required = self.verb != Verb::Delete && self.verb != Verb::DeleteCollection;
            out["requestBody"] = json!({"content": content(types, &schema), "required": required});
        }
        let mut ok = json!({"description": "OK"});
        if let Some(schema) = answer {
            ok["content"] = Value::Object(content(&["application/json"], &schema));
        }
        out["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
    }

    fn v2_bodies(&self, out: &mut Value, request: Option<(Value, &[&str])>, answer: Option<Value>) {
        if let Some((schema, types)) = request {
            out["consumes"] = json!(types);
            if let Some(parameters) = out["parameters"].as_array_mut() {
                let required = self.verb != Verb::Delete && self.verb != Verb::DeleteCollection;
                parameters.insert(0, json!({"in": "body", "name": "body", "required": required, "schema": schema}));
            }
        }
        let mut ok = json!({"description": "OK"});
        if let Some(schema) = answer {
            ok["schema"] = schema;
        }
        out["produces"] = json!(["application/json"]);
        out["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
    }
}
