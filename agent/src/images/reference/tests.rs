use super::*;

fn parts(name: &str) -> (String, String, Option<String>) {
    let r = Reference::parse(name).unwrap();
    (r.registry, r.repository, r.tag)
}

#[test]
fn names_taken_apart() {
    let s = |a: &str, b: &str, t: Option<&str>| (a.to_owned(), b.to_owned(), t.map(str::to_owned));
    assert_eq!(parts("nginx"), s("docker.io", "library/nginx", None));
    assert_eq!(parts("a/b:1"), s("docker.io", "a/b", Some("1")));
    assert_eq!(parts("localhost/b"), s("localhost", "b", None));
    assert_eq!(parts("reg.example:5000/x/y:v1.2"), s("reg.example:5000", "x/y", Some("v1.2")));
    let digest = format!("r.io/x@sha256:{}", "a".repeat(64));
    assert_eq!(Reference::parse(&digest).unwrap().digest.unwrap().len(), 71);
}

#[test]
fn bad_names_say_what_is_wrong() {
    for (name, part) in [("", "empty"), ("UPPER/x", "lowercase"), ("x:", "tag"), ("x y", "lowercase"), ("x@sha256", "digest")] {
        let text = Reference::parse(name).unwrap_err().to_string();
        assert!(text.contains(part), "{name}: {text}");
    }
}

#[test]
fn latest() {
    assert!(tag_is_latest("x") && tag_is_latest("x:latest") && !tag_is_latest("x:1"));
    assert!(!tag_is_latest(&format!("x@sha256:{}", "b".repeat(64))));
    assert_eq!(with_default_tag("r.io/x").unwrap(), "r.io/x:latest");
}
