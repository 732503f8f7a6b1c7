use super::*;
use crate::pod::testing::{desired, pod};
use serde_json::json;

fn fields(spec: serde_json::Value) -> Vec<String> {
    desired(spec).unsupported.into_iter().map(|u| u.field).collect()
}

#[test]
fn what_cannot_be_done_is_named() {
    let c = |extra: serde_json::Value| {
        let mut c = json!({"name": "c", "image": "i"});
        for (k, v) in extra.as_object().unwrap() {
            c[k] = v.clone();
        }
        json!({"containers": [c]})
    };
    for (spec, field) in [
        (json!({"os": {"name": "windows"}}), "spec.os.name"),
        (c(json!({"resources": {"limits": {"nvidia.com/gpu": "1"}}})), "spec.containers[0].resources.limits[nvidia.com/gpu]"),
        (c(json!({"resources": {"requests": {"cpu": "lots"}}})), "spec.containers[0].resources.requests[cpu]"),
    ] {
        assert_eq!(fields(spec), [field]);
    }
    assert!(fields(json!({})).is_empty());
}

#[test]
fn names_that_could_lead_elsewhere_are_refused() {
    let c = |name: &str| json!({"name": name, "image": "i"});
    for name in ["", "../../etc", "a/b", "..", "a\u{0}b", "na me", "größe", "a\nb"] {
        assert_eq!(fields(json!({"containers": [c("ok"), c(name)]})), ["spec.containers[1].name"], "{name:?}");
        assert_eq!(fields(json!({"initContainers": [c(name)]})), ["spec.initContainers[0].name"], "{name:?}");
    }
    assert_eq!(fields(json!({"containers": [c("a"), c("a")]})), ["spec.containers[1].name"]);
    let mut p = api::Pod::clone(&pod(json!({})));
    p.metadata.name = Some("../p".into());
    p.metadata.namespace = None;
    let named: Vec<String> = Desired::of(&Arc::new(p)).unsupported.into_iter().map(|u| u.field).collect();
    assert_eq!(named, ["metadata.name", "metadata.namespace"]);
}

#[test]
fn pull_policy_defaults_by_tag() {
    let pull = |image: &str| desired(json!({"containers": [{"name": "c", "image": image}]})).containers[0].pull;
    assert_eq!(pull("r.io/x"), PullPolicy::Always);
    assert_eq!(pull("r.io/x:latest"), PullPolicy::Always);
    assert_eq!(pull("r.io/x:1"), PullPolicy::IfNotPresent);
}

#[test]
fn roles_and_restarts() {
    let d = desired(json!({"restartPolicy": "Always", "initContainers": [
        {"name": "a", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}]}));
    let (a, s, m) = (&d.containers[0], &d.containers[1], &d.containers[2]);
    assert_eq!((a.role, s.role, m.role), (Role::Init, Role::Sidecar, Role::Main));
    assert!(a.restarts(1) && !a.restarts(0), "an init container that succeeded is done");
    assert!(s.restarts(0) && m.restarts(0));
}

#[test]
fn a_count_that_the_runtime_forgot_goes_on_from_the_api() {
    let mut p = api::Pod::clone(&pod(json!({})));
    p.status = serde_json::from_value(json!({"containerStatuses": [{"name": "main", "containerID": "containerd://x",
        "image": "", "imageID": "", "ready": false, "restartCount": 4}]}))
    .unwrap();
    assert_eq!(Desired::of(&Arc::new(p)).containers[0].first_attempt, 5);
}

#[test]
fn deletion_and_orphans() {
    let mut p = api::Pod::clone(&pod(json!({})));
    p.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    p.metadata.deletion_grace_period_seconds = Some(5);
    assert_eq!(Desired::of(&Arc::new(p)).deletion, Some(Deletion { grace: Duration::from_secs(5) }));
    let orphan = Desired::orphan(PodId { uid: "u".into(), namespace: "n".into(), name: "p".into() });
    assert!(orphan.orphan && orphan.deletion.is_some() && orphan.containers.is_empty());
}

/// The names of a type's fields, as its deserializer asks for them.
struct Fields(std::cell::RefCell<Vec<&'static str>>);

impl<'de> serde::Deserializer<'de> for &Fields {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("only structs"))
    }

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.borrow_mut().extend(fields);
        Err(serde::de::Error::custom("enough"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields_of<T: serde::de::DeserializeOwned>() -> Vec<&'static str> {
    let found = Fields(Default::default());
    assert!(T::deserialize(&found).is_err());
    found.0.into_inner()
}

#[test]
fn what_the_documentation_says_of_every_field() {
    let text = include_str!("../../../../docs/compatibility.md");
    let section = |title: &str| {
        let from = text.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
        let rest = &text[from + 4..];
        let table = &rest[..rest.find("\n## ").unwrap_or(rest.len())];
        table.lines().filter(|l| l.starts_with("| `")).filter_map(|l| l.split('|').nth(1)).collect::<Vec<_>>().join(" ")
    };
    let all = [
        ("PodSpec", fields_of::<api::PodSpec>()),
        ("Container", fields_of::<api::Container>()),
        ("Lifecycle", fields_of::<api::Lifecycle>()),
        ("Probe", fields_of::<api::Probe>()),
    ];
    for (title, fields) in all {
        let rows = section(title);
        let named: Vec<&str> = rows.split(|c: char| !c.is_alphanumeric()).collect();
        assert!(fields.len() > 2, "{title}");
        for field in fields {
            assert!(named.contains(&field), "docs/compatibility.md: no row for {title}.{field}");
        }
    }
}
