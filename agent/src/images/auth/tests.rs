use super::*;
use serde_json::json;

fn secret(auths: serde_json::Value) -> Secret {
    let data = base64::engine::general_purpose::STANDARD.encode(json!({ "auths": auths }).to_string());
    serde_json::from_value(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}})).unwrap()
}

#[test]
fn the_longest_path_wins() {
    let s = secret(json!({
        "reg.example": {"username": "a", "password": "1"},
        "https://reg.example/team": {"auth": base64::engine::general_purpose::STANDARD.encode("b:2")},
        "*.example": {"username": "c"},
        "other.example": {"username": "d"},
    }));
    let users: Vec<String> = find("reg.example/team/x:1", &[s]).into_iter().map(|a| a.config.username).collect();
    assert_eq!(users, ["b", "a", "c"]);
}

#[test]
fn another_mark_when_what_they_say_changes() {
    let one = secret(json!({"r.io": {"username": "a", "password": "1"}}));
    let two = secret(json!({"r.io": {"username": "a", "password": "2"}}));
    assert_eq!(mark(std::slice::from_ref(&one)), mark(std::slice::from_ref(&one)));
    assert_ne!(mark(std::slice::from_ref(&one)), mark(std::slice::from_ref(&two)));
    assert_ne!(mark(&[]), mark(&[one]));
}

#[test]
fn docker_hub_has_many_names() {
    let s = secret(json!({"https://index.docker.io/v1/": {"username": "hub"}}));
    assert_eq!(find("nginx", std::slice::from_ref(&s))[0].config.username, "hub");
    assert!(find("r.io/nginx", &[s]).is_empty());
}

#[test]
fn a_credential_is_known_by_its_secret_and_its_hash() {
    let mut s =
        secret(json!({"reg.example": {"auth": base64::engine::general_purpose::STANDARD.encode("user:pa<ss"), "email": "e@x"}}));
    s.metadata.uid = Some("u".into());
    (s.metadata.namespace, s.metadata.name) = (Some("ns".into()), Some("s".into()));
    let found = find("reg.example/x", &[s]).remove(0).secret;
    assert_eq!((found.uid.as_str(), found.namespace.as_str(), found.name.as_str()), ("u", "ns", "s"));
    let go = r#"{"username":"user","password":"pa\u003css","email":"e@x"}"#;
    let expected: String = Sha256::digest(go).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(found.credential_hash, expected);
    assert_eq!(hash("", "", ""), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "of an empty object");
}
