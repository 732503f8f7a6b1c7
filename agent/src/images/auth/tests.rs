use super::*;
use proptest::prelude::*;
use serde_json::json;

fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn typed(name: &str, kind: &str, key: &str, text: &str) -> Secret {
    let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid of {name}")});
    serde_json::from_value(json!({"metadata": metadata, "type": format!("kubernetes.io/{kind}"), "data": {key: encode(text)}}))
        .unwrap()
}

fn secret(auths: serde_json::Value) -> Secret {
    typed("s", "dockerconfigjson", ".dockerconfigjson", &json!({ "auths": auths }).to_string())
}

fn own(secrets: &[Secret]) -> Own {
    Own::of(secrets, DockerConfig::default())
}

fn users(own: &Own, image: &str) -> Vec<String> {
    own.find(image, &Keyring::default()).into_iter().map(|c| c.config.username).collect()
}

#[test]
fn the_longest_path_wins() {
    let s = secret(json!({
        "reg.example": {"username": "a", "password": "1"},
        "https://reg.example/team": {"auth": encode("b:2")},
        "*.example": {"username": "c"},
        "other.example": {"username": "d"},
    }));
    assert_eq!(users(&own(&[s]), "reg.example/team/x:1"), ["b", "a", "c"]);
}

#[test]
fn secrets_come_before_the_node_and_the_node_before_providers() {
    let s = secret(json!({"reg.example": {"username": "secret"}}));
    let node = DockerConfig::json(br#"{"auths": {"reg.example/x": {"username": "node"}}}"#).unwrap();
    let mut given = Keyring::default();
    let account = Source::Account(PullAccount { uid: "u".into(), namespace: "ns".into(), name: "a".into() });
    let login = Login { username: "provider".into(), ..Login::default() };
    given.add(&account, DockerConfig([("reg.example/x/y".to_owned(), login)].into()));
    let found = Own::of(&[s], node).find("reg.example/x/y/z", &given);
    let (users, sources): (Vec<_>, Vec<_>) = found.into_iter().map(|c| (c.config.username, c.source)).unzip();
    assert_eq!(users, ["secret", "node", "provider"]);
    assert!(matches!(&sources[0], Source::Secret(s) if !s.credential_hash.is_empty()));
    assert_eq!(sources[1..], [Source::Node, account]);
}

#[test]
fn both_formats_and_no_other() {
    let entry = json!({"reg.example": {"auth": encode("u:p")}}).to_string();
    let legacy = typed("s", "dockercfg", ".dockercfg", &entry);
    assert_eq!(users(&own(&[legacy]), "reg.example/x"), ["u"]);
    for other in [
        typed("s", "dockercfg", ".dockerconfigjson", &entry),
        typed("s", "basic-auth", ".dockercfg", &entry),
        typed("s", "dockercfg", ".dockercfg", ""),
    ] {
        let own = own(&[other]);
        assert!(users(&own, "reg.example/x").is_empty() && own.problems.is_empty());
    }
    // Without the padding, and with lines in it.
    let bare = encode("user:pass").trim_end_matches('=').to_owned();
    for auth in [bare.clone(), format!("{}\n{}", &bare[..4], &bare[4..]), encode("user:pass\0")] {
        let config = DockerConfig::legacy(json!({"r.io": {"auth": auth}}).to_string().as_bytes()).unwrap();
        assert_eq!((config.0["r.io"].username.as_str(), config.0["r.io"].password.as_str()), ("user", "pass"));
    }
}

#[test]
fn what_cannot_be_read_is_said_without_what_it_says() {
    let bad = |kind, key, text: &str| own(&[typed("s", kind, key, text)]).problems;
    let json = |text: &str| bad("dockerconfigjson", ".dockerconfigjson", text);
    assert_eq!(json("hunter2"), ["image pull secret \"s\": not the JSON of a docker config (line 1, column 1)"]);
    let hunter = encode("hunter2");
    for text in [
        "\"hunter2\"".to_owned(),
        r#"{"auths": "hunter2"}"#.to_owned(),
        r#"{"auths": {"r.io": "hunter2"}}"#.to_owned(),
        r#"{"auths": {"r.io": {"password": ["hunter2"]}}}"#.to_owned(),
        format!(r#"{{"auths": {{"r.io": {{"auth": "{hunter}"}}}}}}"#),
        r#"{"auths": {"r.io": {"auth": "hunter2!"}}}"#.to_owned(),
    ] {
        let problems = json(&text);
        assert_eq!(problems.len(), 1, "{text}");
        assert!(!problems[0].contains("hunter2") && !problems[0].contains(&hunter), "{problems:?}");
    }
    assert_eq!(json("{}"), Vec::<String>::new());
    assert_eq!(json(r#"{"auths": null, "credsStore": "x"}"#), Vec::<String>::new());
    let login = Login { username: "hunter1".into(), password: "hunter2".into(), ..Login::default() };
    assert_eq!(format!("{login:?}"), "Login");
}

#[test]
fn no_end_of_credentials_is_tried() {
    let path = "a".repeat(200);
    let auths: serde_json::Map<_, _> = (0..200).map(|i| (format!("r.io/{}", &path[..i]), json!({"username": "u"}))).collect();
    assert_eq!(users(&own(&[secret(auths.into())]), &format!("r.io/{path}")).len(), TRIED_MAX);
}

#[test]
fn another_mark_when_what_they_say_changes() {
    let of = |password: &str| own(&[secret(json!({"r.io": {"username": "a", "password": password}}))]).mark();
    assert_eq!(of("1"), of("1"));
    assert_ne!(of("1"), of("2"));
    assert_ne!(own(&[]).mark(), of("1"));
    let node = DockerConfig::json(br#"{"auths": {"r.io": {"username": "a", "password": "1"}}}"#).unwrap();
    assert_ne!(Own::of(&[], node).mark(), own(&[]).mark());
}

#[test]
fn docker_hub_has_many_names() {
    let hub = own(&[secret(json!({"https://index.docker.io/v1/": {"username": "hub"}}))]);
    assert_eq!(users(&hub, "nginx"), ["hub"]);
    assert_eq!(users(&hub, "docker.io/team/x:1"), ["hub"]);
    assert!(users(&hub, "r.io/nginx").is_empty());
    let both = secret(json!({"https://index.docker.io/v1/": {"username": "hub"}, "docker.io/team": {"username": "team"}}));
    let both = own(&[both]);
    assert_eq!(users(&both, "team/x"), ["team"], "the other is for what has none");
    assert_eq!(users(&both, "nginx"), ["hub"]);
}

#[test]
fn a_credential_is_known_by_its_secret_and_its_hash() {
    let s = secret(json!({"reg.example": {"auth": encode("user:pa<ss"), "email": "e@x"}}));
    let Source::Secret(found) = own(&[s]).find("reg.example/x", &Keyring::default()).remove(0).source else { panic!() };
    assert_eq!((found.uid.as_str(), found.namespace.as_str(), found.name.as_str()), ("uid of s", "ns", "s"));
    let go = r#"{"username":"user","password":"pa\u003css","email":"e@x"}"#;
    let expected: String = Sha256::digest(go).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(found.credential_hash, expected);
    assert_eq!(hash("", "", ""), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "of an empty object");
}

proptest! {
    /// Whatever a secret holds: no panic, and nothing of it in what is said.
    #[test]
    fn hostile_configs(bytes in prop::collection::vec(any::<u8>(), 0..300), image in ".{0,60}") {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for (kind, key) in [("dockercfg", ".dockercfg"), ("dockerconfigjson", ".dockerconfigjson")] {
            let own = own(&[typed("s", kind, key, &text)]);
            prop_assert!(own.find(&image, &Keyring::default()).is_empty());
        }
    }
}
