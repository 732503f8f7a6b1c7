use super::*;
use crate::config::{Args, load};
use serde_json::json;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn texts(document: Value) -> (Vec<Provider>, Vec<String>) {
    let (mut problems, mut seen) = (Vec::new(), BTreeSet::new());
    let all = read(document, &mut seen, &mut problems);
    (all, problems.iter().map(ToString::to_string).collect())
}

fn config(provider: Value) -> Value {
    json!({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [provider]})
}

fn full() -> Value {
    json!({"name": "ecr", "matchImages": ["*.dkr.ecr.*.amazonaws.com", "reg.io:5000/team"], "defaultCacheDuration": "12h0m0s",
        "apiVersion": V1, "args": ["get"], "env": [{"name": "A", "value": "b=c"}],
        "tokenAttributes": {"serviceAccountTokenAudience": "aud", "cacheType": "Token", "requireServiceAccount": true,
            "requiredServiceAccountAnnotationKeys": ["example.com/Role"], "optionalServiceAccountAnnotationKeys": ["x"]}})
}

#[test]
fn all_fields() {
    let (all, problems) = texts(config(full()));
    assert_eq!(problems, Vec::<String>::new());
    let tokens = TokenAttributes {
        audience: "aud".into(),
        for_one_token: true,
        require_account: true,
        required_annotations: vec!["example.com/Role".into()],
        optional_annotations: vec!["x".into()],
    };
    let expected = Provider {
        name: "ecr".into(),
        match_images: vec!["*.dkr.ecr.*.amazonaws.com".into(), "reg.io:5000/team".into()],
        default_cache: Duration::from_secs(12 * 3600),
        api_version: V1.into(),
        args: vec!["get".into()],
        env: vec![("A".into(), "b=c".into())],
        tokens: Some(tokens),
    };
    assert_eq!(all, [expected]);
    let mut least = full();
    for key in ["args", "env", "tokenAttributes"] {
        least.as_object_mut().unwrap().remove(key);
    }
    least["defaultCacheDuration"] = json!("0");
    assert_eq!(texts(config(least)).1, Vec::<String>::new());
}

#[test]
fn each_problem_names_its_field() {
    for (path, value, expected) in [
        ("/name", json!(""), "providers[0].name: is required"),
        ("/name", json!("a/b"), "providers[0].name: \"a/b\" must be a file's name without '/' and spaces"),
        ("/name", json!(".."), "providers[0].name: \"..\" must be"),
        ("/matchImages", json!([]), "providers[0].matchImages: at least 1 is required"),
        ("/matchImages", json!(["ok", "a b"]), "providers[0].matchImages[1]: \"a b\" is not of the form"),
        ("/defaultCacheDuration", Value::Null, "providers[0].defaultCacheDuration: is required"),
        ("/defaultCacheDuration", json!("-1s"), "providers[0].defaultCacheDuration: duration \"-1s\" must not be negative"),
        ("/apiVersion", json!("v1"), "providers[0].apiVersion: \"v1\" must be credentialprovider.kubelet.k8s.io/v1"),
        ("/apiVersion", json!("credentialprovider.kubelet.k8s.io/v1beta1"), "providers[0].tokenAttributes: needs apiVersion"),
        ("/args", json!([1]), "providers[0].args[0]: expected a string"),
        (
            "/env",
            json!([{"name": "A", "value": "x"}, {"name": "=", "value": "hunter2"}]),
            "providers[0].env[1]: must be a name and a value",
        ),
        ("/env", json!([{"name": "A", "secret": "hunter2"}]), "providers[0].env[0]: must be"),
        ("/image", json!("x"), "providers[0].image: unknown field"),
        (
            "/tokenAttributes/serviceAccountTokenAudience",
            json!(""),
            "providers[0].tokenAttributes.serviceAccountTokenAudience: is required",
        ),
        (
            "/tokenAttributes/cacheType",
            json!("Pod"),
            "providers[0].tokenAttributes.cacheType: \"Pod\" must be ServiceAccount or Token",
        ),
        (
            "/tokenAttributes/requireServiceAccount",
            Value::Null,
            "providers[0].tokenAttributes.requireServiceAccount: is required",
        ),
        (
            "/tokenAttributes/requireServiceAccount",
            json!(false),
            "providers[0].tokenAttributes.requiredServiceAccountAnnotationKeys: needs",
        ),
        (
            "/tokenAttributes/requiredServiceAccountAnnotationKeys",
            json!(["a", "a"]),
            "requiredServiceAccountAnnotationKeys[1]: \"a\" is there more than once",
        ),
        (
            "/tokenAttributes/optionalServiceAccountAnnotationKeys",
            json!(["-"]),
            "optionalServiceAccountAnnotationKeys[0]: \"-\" is not the key",
        ),
        (
            "/tokenAttributes/optionalServiceAccountAnnotationKeys",
            json!(["example.com/Role"]),
            "optionalServiceAccountAnnotationKeys: \"example.com/Role\" is required already",
        ),
        ("/tokenAttributes/audience", json!("x"), "providers[0].tokenAttributes.audience: unknown field"),
    ] {
        let mut provider = full();
        let (parent, name) = path.rsplit_once('/').unwrap();
        provider.pointer_mut(parent).unwrap()[name] = value;
        let (_, problems) = texts(config(provider));
        // Of an apiVersion that is none of them, tokenAttributes say so too.
        assert_eq!(problems.len(), if expected.contains("\"v1\" must") { 2 } else { 1 }, "{path}: {problems:?}");
        assert!(problems[0].contains(expected), "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
    let twice =
        json!({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [full(), full()]});
    assert_eq!(texts(twice).1, ["providers[1].name: \"ecr\" is there more than once"]);
    assert_eq!(
        texts(json!({"apiVersion": "v1", "kind": "Config", "providers": {}, "more": 1})).1,
        [
            "apiVersion: \"v1\" must be kubelet.config.k8s.io/v1",
            "kind: \"Config\" must be CredentialProviderConfig",
            "providers: expected a list of objects",
            "more: unknown field"
        ]
    );
}

#[test]
fn files_folders_and_flags() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("bin")).unwrap();
    fs::create_dir_all(at("conf/c.json")).unwrap();
    let write = |file: &str, name: &str| {
        let mut provider = full();
        provider["name"] = json!(name);
        fs::write(at(file), config(provider).to_string()).unwrap();
    };
    let load = |config: &str, bin: &str| {
        let mut words: Vec<OsString> = vec!["ferrolet".into(), "--standalone".into(), "--hostname-override=n".into()];
        for (flag, value) in [("config", config), ("bin-dir", bin)].iter().filter(|(_, value)| !value.is_empty()) {
            words.push(format!("--image-credential-provider-{flag}={}", at(value).display()).into());
        }
        load(&Args::read(words).unwrap()).map_err(|error| error.to_string())
    };
    assert!(load("", "").unwrap().credential_providers.is_empty());
    assert_eq!(
        load("conf", "").unwrap_err(),
        "flag --image-credential-provider-config: needs --image-credential-provider-bin-dir"
    );
    assert_eq!(
        load("", "bin").unwrap_err(),
        "flag --image-credential-provider-bin-dir: needs --image-credential-provider-config"
    );
    assert!(load("conf", "bin").unwrap_err().contains("no *.json, *.yaml or *.yml in it"));
    assert!(load("none", "bin").unwrap_err().contains("cannot read --image-credential-provider-config"));
    write("conf/b.json", "two");
    write("conf/a.yaml", "one");
    fs::write(at("conf/readme"), "no configuration").unwrap();
    let missing = load("conf", "bin").unwrap_err();
    assert!(missing.contains("bin/one: No such file"), "{missing}");
    for name in ["one", "two"] {
        fs::write(at("bin").join(name), "").unwrap();
    }
    assert!(load("conf", "bin").unwrap_err().contains("bin/one: is no program"));
    for name in ["one", "two"] {
        fs::set_permissions(at("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let config = load("conf", "bin").unwrap();
    assert_eq!(config.credential_providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(config.credential_provider_dir, at("bin"));
    assert_eq!(load("conf/b.json", "bin").unwrap().credential_providers.len(), 1);
    write("conf/d.yml", "one");
    let twice = load("conf", "bin").unwrap_err();
    assert!(twice.contains("conf/d.yml") && twice.contains("providers[0].name: \"one\" is there more than once"), "{twice}");
    fs::write(at("conf/d.yml"), "a: [").unwrap();
    assert!(load("conf", "bin").unwrap_err().contains("conf/d.yml is not valid YAML or JSON"));
}
