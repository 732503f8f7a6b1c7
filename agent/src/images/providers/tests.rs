//! Providers that are real programs: shell scripts that write down what they were asked.

use super::*;
use crate::images::records::PullAccount;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

const V1: &str = "credentialprovider.kubelet.k8s.io/v1";

/// A folder of programs, and an API server with one service account.
struct World {
    dir: tempfile::TempDir,
    tokens: Arc<AtomicUsize>,
}

fn attributes() -> TokenAttributes {
    TokenAttributes {
        audience: "registry".into(),
        for_one_token: true,
        require_account: true,
        required_annotations: vec!["need".into()],
        optional_annotations: vec!["may".into(), "absent".into()],
    }
}

fn provider(name: &str) -> Provider {
    Provider {
        name: name.into(),
        match_images: vec!["*.io".into()],
        default_cache: Duration::from_secs(60),
        api_version: V1.into(),
        args: vec!["--first".into()],
        env: vec![("SAID".into(), "in the configuration".into())],
        tokens: None,
    }
}

fn answer(user: &str, password: &str, key_type: &str, duration: Option<&str>) -> String {
    let mut answer = json!({"kind": "CredentialProviderResponse", "apiVersion": V1, "cacheKeyType": key_type,
        "auth": {"*.io": {"username": user, "password": password}}});
    if let Some(duration) = duration {
        answer["cacheDuration"] = json!(duration);
    }
    answer.to_string()
}

impl World {
    fn new() -> World {
        World { dir: tempfile::tempdir().unwrap(), tokens: Arc::default() }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Writes down each question, then does what the script says.
    fn program(&self, name: &str, script: &str) {
        let log = self.at(&format!("{name}.asked"));
        let text = format!("#!/bin/sh\ncat >> '{}'\n{script}\n", log.display());
        // Written elsewhere first: a program that is open for writing cannot be run.
        let path = self.at(name);
        let mut file = std::fs::File::create(self.at("new")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        drop(file);
        std::fs::rename(self.at("new"), path).unwrap();
    }

    fn says(&self, name: &str, answer: &str) {
        self.program(name, &format!("echo '{answer}'"));
    }

    fn asked(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.at(&format!("{name}.asked"))).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn providers(&self, all: &[Provider]) -> Providers {
        let tokens = self.tokens.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let path = request.uri().path().to_owned();
            let body = if path.ends_with("/serviceaccounts/builder/token") {
                let n = tokens.fetch_add(1, Ordering::SeqCst) + 1;
                let status = json!({"token": format!("token-{n}"), "expirationTimestamp": "2100-01-01T00:00:00Z"});
                (201, json!({"metadata": {}, "spec": {"audiences": []}, "status": status}))
            } else if path.ends_with("/serviceaccounts/builder") {
                let annotations = json!({"need": "1", "may": "2", "other": "3"});
                (
                    200,
                    json!({"metadata": {"name": "builder", "namespace": "ns", "uid": "uid of builder", "annotations": annotations}}),
                )
            } else if path.ends_with("/serviceaccounts/plain") {
                (200, json!({"metadata": {"name": "plain", "namespace": "ns", "uid": "uid of plain"}}))
            } else {
                (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not there"}))
            };
            let response = http::Response::builder().status(body.0).header("content-type", "application/json");
            let response = response.body(http_body_util::Full::new(bytes::Bytes::from(body.1.to_string())));
            async move { Ok::<_, std::convert::Infallible>(response.unwrap()) }
        });
        Providers::new(all, self.dir.path(), kube::Client::new(service, "default"))
    }
}

fn pod<'a>(uid: &'a str, account: &'a str) -> For<'a> {
    For { namespace: "ns", pod: "p", uid, account }
}

fn logins(given: &Given, image: &str) -> Vec<(String, String, Source)> {
    let found = given.keyring.find(&Reference::parse(image).unwrap());
    found.into_iter().map(|c| (c.config.username, c.config.password, c.source)).collect()
}

fn users(given: &Given, image: &str) -> Vec<String> {
    logins(given, image).into_iter().map(|(user, _, _)| user).collect()
}

#[tokio::test]
async fn a_question_and_its_answer() {
    let w = World::new();
    w.program(
        "p",
        &format!(
            "test \"$SAID $1 ${{PATH:+path}}\" = 'in the configuration --first path' || exit 3\necho '{}'",
            answer("u", "p", "Image", None)
        ),
    );
    let p = w.providers(&[provider("p")]);
    let given = p.credentials("reg.io/a/b:1", pod("1", "builder")).await;
    assert_eq!(given.problems, Vec::<String>::new());
    assert_eq!(logins(&given, "reg.io/a/b"), [("u".into(), "p".into(), Source::Node)]);
    assert_eq!(w.asked("p"), [json!({"kind": "CredentialProviderRequest", "apiVersion": V1, "image": "reg.io/a/b"})]);
    let none = p.credentials("reg.com/a", pod("1", "")).await;
    assert!(users(&none, "reg.io/a").is_empty() && w.asked("p").len() == 1, "it is not configured for this one");
}

#[tokio::test]
async fn answers_hold_for_an_image_a_registry_or_all() {
    let images = ["a.io/x:1", "a.io/x:2", "a.io/y", "b.io/x"];
    for (key_type, asked) in [("Image", 3), ("Registry", 2), ("Global", 1)] {
        let w = World::new();
        w.says("p", &answer("u", "p", key_type, None));
        let p = w.providers(&[provider("p")]);
        for _ in 0..2 {
            for image in images {
                assert_eq!(users(&p.credentials(image, pod("1", "")).await, image), ["u"]);
            }
        }
        assert_eq!(w.asked("p").len(), asked, "{key_type}");
    }
}

#[tokio::test]
async fn answers_hold_as_long_as_they_say() {
    let zero = Provider { default_cache: Duration::ZERO, ..provider("p") };
    for (spec, duration, asked) in [
        (provider("p"), Some("0s"), 2),
        (zero.clone(), None, 2),
        (zero, Some("1h"), 1),
        (provider("p"), Some("1ns"), 2),
        (provider("p"), Some("-1s"), 2),
    ] {
        let w = World::new();
        w.says("p", &answer("u", "p", "Image", duration));
        let p = w.providers(&[spec]);
        for _ in 0..2 {
            p.credentials("a.io/x", pod("1", "")).await;
        }
        assert_eq!(w.asked("p").len(), asked, "{duration:?}");
    }
}

#[tokio::test]
async fn one_run_for_all_who_ask_at_once() {
    let w = World::new();
    w.program(
        "p",
        &format!("while ! test -e go; do sleep 0.02; done\necho '{}'", answer("u", "p", "Image", Some("0")))
            .replace("go", &w.at("go").display().to_string()),
    );
    let p = Arc::new(w.providers(&[provider("p")]));
    let ask = |image: &'static str| {
        let p = p.clone();
        tokio::spawn(async move { users(&p.credentials(image, pod("1", "")).await, image) })
    };
    let all = [ask("a.io/x"), ask("a.io/x"), ask("a.io/x:2"), ask("a.io/y")];
    let end = Instant::now() + Duration::from_secs(20);
    while w.asked("p").len() < 2 {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Who asked first goes away, and the run goes on.
    let [first, rest @ ..] = all;
    first.abort();
    std::fs::write(w.at("go"), "").unwrap();
    for each in rest {
        assert_eq!(each.await.unwrap(), ["u"]);
    }
    assert_eq!(w.asked("p").len(), 2);
    assert!(locked(&p.all[0].runs).is_empty());
}

#[tokio::test]
async fn the_order_of_providers() {
    let w = World::new();
    w.says("one", &answer("1", "p", "Image", None));
    w.says("two", &answer("2", "p", "Image", None).replace("*.io", "a.io/x"));
    w.says("three", &answer("3", "p", "Image", None));
    let p = w.providers(&[provider("one"), provider("two"), provider("three")]);
    let given = p.credentials("a.io/x", pod("1", "")).await;
    assert_eq!(users(&given, "a.io/x"), ["2", "1", "3"]);
}

#[tokio::test]
async fn what_goes_wrong_is_said_and_nothing_else() {
    let table: [(String, &str); 10] = [
        ("echo hunter2 >&2; echo hunter2; exit 3".into(), "failed: exit status: 3"),
        ("kill -9 $$".into(), "failed: signal: 9 (SIGKILL)"),
        ("echo hunter2".into(), "its answer cannot be read as a CredentialProviderResponse"),
        ("true".into(), "its answer cannot be read as a CredentialProviderResponse"),
        (
            format!("echo '{}'", answer("u", "hunter2", "Image", None).replace("/v1\"", "/v9\"")),
            "is of apiVersion \"credentialprovider.kubelet.k8s.io/v9\", not",
        ),
        (format!("echo '{}'", answer("u", "hunter2", "Pod", None)), "has the cacheKeyType \"Pod\""),
        (format!("echo '{}'", answer("u", "hunter2", "Image", Some("hunter2"))), "cannot be read"),
        (format!("echo '{}'", answer("u", "hunter2", "Image", None).replace("username", "hunter")), "cannot be read"),
        (format!("echo '{}'", answer("u", "hunter2", "Image", None).replace("Response", "Request")), "cannot be read"),
        ("yes hunter2 | head -c 2000000".into(), "larger than 1048576 bytes"),
    ];
    let w = World::new();
    let p = w.providers(&[provider("p")]);
    for (script, expected) in table {
        w.program("p", &script);
        let given = p.credentials("a.io/x", pod("1", "")).await;
        assert_eq!(given.problems.len(), 1, "{script}");
        let said = &given.problems[0];
        assert!(said.starts_with("credential provider \"p\": ") && said.contains(expected), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert!(users(&given, "a.io/x").is_empty());
    }
    std::fs::remove_file(w.at("p")).unwrap();
    let given = p.credentials("a.io/x", pod("1", "")).await;
    assert!(given.problems[0].contains("cannot be started: No such file"), "{:?}", given.problems);
    // One that closes its input unread, and one that does well beside it.
    w.says("q", &answer("u", "p", "Image", None));
    let p = w.providers(&[provider("p"), provider("q")]);
    let given = p.credentials("a.io/x", pod("1", "")).await;
    assert_eq!((users(&given, "a.io/x"), given.problems.len()), (vec!["u".to_owned()], 1));
}

/// The clock of the test is moved on: the program itself never ends.
#[tokio::test]
async fn a_program_that_hangs_is_ended_with_all_that_it_started() {
    let w = World::new();
    let pid = w.at("pid");
    w.program("p", &format!("sleep 1000 &\necho $! > '{0}.new'; mv '{0}.new' '{0}'\nwait", pid.display()));
    let p = w.providers(&[provider("p")]);
    let asked = tokio::spawn(async move { p.credentials("a.io/x", pod("1", "")).await.problems });
    let end = std::time::Instant::now() + Duration::from_secs(20);
    let sleeper: i32 = loop {
        assert!(std::time::Instant::now() < end);
        if let Some(pid) = std::fs::read_to_string(&pid).ok().and_then(|text| text.trim().parse().ok()) {
            break pid;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    tokio::time::pause();
    tokio::time::advance(run::LIMIT + Duration::from_secs(1)).await;
    assert_eq!(asked.await.unwrap(), ["credential provider \"p\": no answer within 60s"]);
    tokio::time::resume();
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{sleeper}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    while !gone() {
        assert!(std::time::Instant::now() < end, "{sleeper} still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn service_accounts() {
    let w = World::new();
    w.says("p", &answer("u", "p", "Registry", None));
    let with = |tokens: TokenAttributes| Provider { tokens: Some(tokens), ..provider("p") };
    let p = w.providers(&[with(attributes())]);
    let given = p.credentials("a.io/x", pod("1", "builder")).await;
    let account = PullAccount { uid: "uid of builder".into(), namespace: "ns".into(), name: "builder".into() };
    assert_eq!(logins(&given, "a.io/x"), [("u".into(), "p".into(), Source::Account(account))], "{:?}", given.problems);
    let asked = w.asked("p");
    assert_eq!(
        (&asked[0]["serviceAccountToken"], &asked[0]["serviceAccountAnnotations"]),
        (&json!("token-1"), &json!({"need": "1", "may": "2"}))
    );
    // The same pod has the same token, and what was answered for it holds; another pod has another.
    p.credentials("a.io/x", pod("1", "builder")).await;
    assert_eq!((w.asked("p").len(), w.tokens.load(Ordering::SeqCst)), (1, 1));
    p.credentials("a.io/x", pod("2", "builder")).await;
    assert_eq!((w.asked("p").len(), w.tokens.load(Ordering::SeqCst)), (2, 2));
    // Not for those without an account, or without what it requires.
    for account in ["", "plain"] {
        let given = p.credentials("a.io/x", pod("3", account)).await;
        assert!(users(&given, "a.io/x").is_empty() && given.problems.is_empty());
    }
    let given = p.credentials("a.io/x", pod("3", "none")).await;
    assert_eq!(given.problems, ["credential provider \"p\": cannot read the service account \"none\": not there"]);
    assert_eq!(w.asked("p").len(), 2);

    let p = w.providers(&[with(TokenAttributes { for_one_token: false, require_account: false, ..attributes() })]);
    for uid in ["1", "2"] {
        p.credentials("a.io/x", pod(uid, "builder")).await;
    }
    assert_eq!(w.asked("p").len(), 3, "one for all pods of the account");
    let given = p.credentials("a.io/x", pod("1", "")).await;
    assert_eq!(logins(&given, "a.io/x")[0].2, Source::Node);
    let asked = w.asked("p");
    assert!(asked.len() == 4 && asked[3].get("serviceAccountToken").is_none(), "{asked:?}");
}

#[tokio::test]
async fn a_token_is_a_password_only_where_it_may_be() {
    let w = World::new();
    for (for_one_token, problems) in [(true, 0), (false, 1)] {
        let n = w.tokens.load(Ordering::SeqCst) + 1;
        w.says("p", &answer("u", &format!("token-{n}"), "Registry", None));
        let p = w.providers(&[Provider { tokens: Some(TokenAttributes { for_one_token, ..attributes() }), ..provider("p") }]);
        let given = p.credentials("a.io/x", pod("1", "builder")).await;
        assert_eq!(given.problems.len(), problems);
        assert!(given.problems.iter().all(|p| p.contains("it gave the service account's token") && !p.contains("token-")));
    }
}

/// What a cache is asked for comes back until it is over, and it does not grow without end.
#[test]
fn a_cache_forgets() {
    let (mut cache, begin) = (Cache::default(), Instant::now());
    let key = |n: u32| Key { scope: Scope::Image(n.to_string()), whose: None };
    let after = |s: u64| begin + Duration::from_secs(s);
    for n in 0..3000 {
        cache.put(key(n), n, begin, Duration::from_secs(u64::from(n) + 1));
    }
    assert_eq!(cache.len(), 1024);
    assert_eq!(
        (cache.get(&key(2999), after(2999)), cache.get(&key(2999), after(3000)), cache.get(&key(0), begin)),
        (Some(2999), None, None)
    );
    cache.put(key(1), 1, after(2990), Duration::MAX);
    assert_eq!(cache.len(), 11, "what is over goes");
    assert_eq!(cache.get(&key(1), after(2990)), Some(1));
}

proptest::proptest! {
    #[test]
    fn hostile_answers(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        proptest::prop_assert!(answer::read(&bytes, V1).is_err());
    }
}

/// All that the agent logs at its most talkative while a provider fails in every way, and what it says of itself.
#[test]
fn no_secret_is_ever_logged() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            locked(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let seen = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || seen.clone()).finish();
    let w = World::new();
    let mut said = String::new();
    tracing::subscriber::with_default(subscriber, || {
        // Everything on this thread, where the log is listened to.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let spec = Provider {
                env: vec![("KEY".into(), "hunter1".into())],
                args: vec!["hunter0".into()],
                tokens: Some(attributes()),
                ..provider("p")
            };
            said.push_str(&format!("{spec:?}"));
            let p = w.providers(&[spec]);
            for script in [
                "cat '@' >&2; exit 1".to_owned(),
                "echo hunter2".to_owned(),
                format!("echo '{}'", answer("u", "hunter2", "Image", None)),
                format!("echo '{}'", answer("u", "hunter2", "Nothing", None)),
            ] {
                w.program("p", &script.replace('@', &w.at("p.asked").display().to_string()));
                let given = p.credentials("a.io/x", pod("1", "builder")).await;
                said.push_str(&format!("{:?} {:?}", given.problems, given.keyring.find(&Reference::parse("a.io/x").unwrap())));
            }
        });
    });
    let log = String::from_utf8(locked(&log.0).clone()).unwrap();
    assert!(log.contains("a credential provider failed") && log.contains("(token)"), "{log}");
    for secret in ["hunter0", "hunter1", "hunter2", "token-1"] {
        assert!(!log.contains(secret) && !said.contains(secret), "{secret}: {log} {said}");
    }
    assert!(Path::new(&w.at("p")).exists());
}
