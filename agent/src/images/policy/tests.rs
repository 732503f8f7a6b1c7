use super::*;

#[test]
fn names_without_tag_and_digest() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for (image, name) in [
        ("web", "web"),
        ("web:1", "web"),
        ("reg.local:5000/team/web:1", "reg.local:5000/team/web"),
        ("reg.local:5000/team/web", "reg.local:5000/team/web"),
    ] {
        assert_eq!(plain_name(image).unwrap(), name);
        assert_eq!(plain_name(&format!("{image}@{digest}")).unwrap(), name);
    }
    assert!(plain_name("").is_err() && plain_name("UPPER").is_err());
}

#[test]
fn which_images_are_verified() {
    let list = |patterns: &[&str]| Allowlist::parse(&patterns.iter().map(|p| p.to_string()).collect::<Vec<_>>());
    let allow = Policy::Allowlisted(list(&["reg.local:5000/one", "other.local/*", "third.local/team/*"]).unwrap());
    let table = [
        (Policy::Never, "x:1", [false, false]),
        (Policy::Preloaded, "x:1", [false, true]),
        (Policy::Always, "x:1", [true, true]),
        (allow.clone(), "reg.local:5000/one:1", [false, false]),
        (allow.clone(), "reg.local:5000/one/more:1", [true, true]),
        (allow.clone(), "other.local/a/b@sha256:0", [false, false]),
        (allow.clone(), "other.local.evil/a", [true, true]),
        (allow.clone(), "third.local/teams/a", [true, true]),
        (allow, "third.local/team/a", [false, false]),
    ];
    for (policy, image, [before, after]) in table {
        assert_eq!((policy.verifies(image, false), policy.verifies(image, true)), (before, after), "{policy:?} {image}");
    }
    for (pattern, expected) in [
        (" a", "leading/trailing spaces are not allowed:  a"),
        ("", "the supplied pattern is too short: "),
        ("*", "not a valid wildcard pattern, only patterns ending with '/*' are allowed: *"),
        ("a*b/*", "not a valid wildcard pattern, only patterns ending with '/*' are allowed: a*b/*"),
        ("/*", "at least registry hostname is required"),
        ("a:1", "neither tag nor digest is accepted in an image reference: a:1"),
    ] {
        assert_eq!(list(&[pattern]).unwrap_err().to_string(), expected);
    }
    assert!(list(&["UPPER"]).unwrap_err().to_string().starts_with("failed to parse as an image name: "));
}
