use super::*;
use crate::images::auth;
use proptest::prelude::*;

fn at(second: i64) -> ApiTime {
    ApiTime(crate::pod::Time::from_second(second).unwrap())
}

fn secret(uid: &str, hash: &str) -> PullSecret {
    PullSecret { uid: uid.into(), namespace: "ns".into(), name: "s".into(), credential_hash: hash.into() }
}

fn credential(uid: &str, hash: &str) -> auth::Credential {
    auth::Credential { config: Default::default(), source: auth::Source::Secret(secret(uid, hash)) }
}

fn users(uid: &str, hash: &str) -> Users {
    Users::of(Some(&auth::Source::Secret(secret(uid, hash))))
}

fn account(name: &str) -> auth::Source {
    auth::Source::Account(PullAccount { uid: format!("uid of {name}"), namespace: "ns".into(), name: name.into() })
}

/// Written by a kubelet.
const KUBELETS: &str = r#"{"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1alpha1","lastUpdatedTime":"2026-01-02T03:04:05Z","imageRef":"sha256:1","credentialMapping":{"reg/a":{"kubernetesSecrets":[{"uid":"u","namespace":"ns","name":"s","credentialHash":"h"}],"kubernetesServiceAccounts":[{"uid":"u","namespace":"ns","name":"sa"}]},"reg/b":{"nodePodsAccessible":true}}}"#;

#[test]
fn kubelets_records_are_read_and_written_back() {
    let record: Record = decode(KUBELETS.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), KUBELETS);
    let more = merged(Some(&record), "sha256:1", "reg/a", Some(&users("u2", "h2")), at(9)).unwrap();
    let text = serde_json::to_string(&more).unwrap();
    assert!(text.contains("v1beta1") && text.contains("1970-01-01T00:00:09Z") && text.contains(r#""name":"sa""#), "{text}");
    let intent = serde_json::to_string(&Intent::of("reg/a:1")).unwrap();
    assert_eq!(intent, r#"{"kind":"ImagePullIntent","apiVersion":"kubelet.config.k8s.io/v1beta1","image":"reg/a:1"}"#);
    for bad in
        ["", "{}", "null", &intent, &KUBELETS.replace("v1alpha1", "v9"), &KUBELETS.replace("imageRef", "more\":1,\"imageRef")]
    {
        assert!(decode::<Record>(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn users_are_added_and_never_lost() {
    let add = |known: Option<&Record>, users: Option<&Users>| merged(known, "sha256:1", "reg/a", users, at(1));
    let nobody = add(None, None).unwrap();
    assert!(nobody.credential_mapping.is_empty());
    assert_eq!(add(Some(&nobody), None), None);
    let one = add(Some(&nobody), Some(&users("u", "h"))).unwrap();
    assert_eq!(add(Some(&one), Some(&users("u", "h"))), None);
    assert_eq!(add(Some(&one), None), None);
    let changed = add(Some(&one), Some(&users("u", "h2"))).unwrap();
    assert_eq!(changed.credential_mapping["reg/a"].kubernetes_secrets, [secret("u", "h2")]);
    let two = add(Some(&changed), Some(&users("a", "h3"))).unwrap();
    assert_eq!(two.credential_mapping["reg/a"].kubernetes_secrets, [secret("a", "h3"), secret("u", "h2")]);
    let all = add(Some(&two), Some(&Users::of(None))).unwrap();
    assert_eq!(all.credential_mapping["reg/a"], Users::of(None));
    assert_eq!(add(Some(&all), Some(&users("u", "h"))), None, "everybody may already");
}

#[test]
fn who_may_use_an_image() {
    let with = |users: Option<Users>| merged(None, "sha256:1", "reg/a", users.as_ref(), at(1)).unwrap();
    let mine = [credential("x", "other"), credential("u", "h")];
    let table = [
        (with(None), &mine[..], Access::Denied),
        (with(Some(Users::of(None))), &[], Access::Granted),
        (with(Some(Users::default())), &mine, Access::Denied),
        (with(Some(users("u", "h"))), &mine, Access::Granted),
        (with(Some(users("u", "h"))), &[], Access::Denied),
        (with(Some(users("u", "old"))), &mine, Access::GrantedBy(secret("u", "h"))),
        (with(Some(users("other", "h"))), &mine, Access::GrantedBy(secret("u", "h"))),
        (with(Some(users("other", "no"))), &mine, Access::Denied),
    ];
    for (record, credentials, expected) in table {
        assert_eq!(access(&record, "reg/a:2", credentials), expected, "{record:?}");
        assert_eq!(access(&record, "reg/b:2", credentials), Access::Denied, "the same image under another name");
    }
    let no_hash = [credential("y", "")];
    assert_eq!(access(&with(Some(users("z", ""))), "reg/a", &no_hash), Access::Denied, "no hash fits none");
    let mut many = with(Some(Users::default()));
    let full = &mut many.credential_mapping.get_mut("reg/a").unwrap().kubernetes_secrets;
    full.extend((0..ADDED_MAX).map(|i| secret(&format!("u{i}"), &format!("h{i}"))));
    assert_eq!(access(&many, "reg/a", &[credential("new", "h7")]), Access::Granted, "nothing more is added");
    assert_eq!(access(&many, "reg/a", &[credential("u7", "new")]), Access::Denied);
}

#[test]
fn a_service_account_is_known_by_its_name() {
    let of = |source: &auth::Source| auth::Credential { config: Default::default(), source: source.clone() };
    let one = merged(None, "sha256:1", "reg/a", Some(&Users::of(Some(&account("one")))), at(1)).unwrap();
    assert!(asks_for_account(&one, "reg/a:1") && !asks_for_account(&one, "reg/b:1"));
    assert_eq!(access(&one, "reg/a:1", &[of(&account("one"))]), Access::Granted);
    assert_eq!(access(&one, "reg/a:1", &[of(&account("two"))]), Access::Denied);
    assert_eq!(access(&one, "reg/a:1", &[of(&auth::Source::Node), credential("u", "h")]), Access::Denied);
    let two = merged(Some(&one), "sha256:1", "reg/a", Some(&Users::of(Some(&account("two")))), at(1)).unwrap();
    let both = merged(Some(&two), "sha256:1", "reg/a", Some(&users("u", "h")), at(1)).unwrap();
    for shown in [of(&account("one")), of(&account("two")), credential("u", "h")] {
        assert_eq!(access(&both, "reg/a:1", &[shown]), Access::Granted);
    }
    assert_eq!(merged(Some(&both), "sha256:1", "reg/a", Some(&Users::of(Some(&account("one")))), at(1)), None);
    let node = merged(Some(&both), "sha256:1", "reg/a", Some(&Users::of(Some(&auth::Source::Node))), at(1)).unwrap();
    assert_eq!(access(&node, "reg/a:1", &[]), Access::Granted, "what the node pulled is everybody's");
}

proptest! {
    /// Whoever has pulled an image may use it, whatever else happened; whoever shows nothing that was ever seen may not.
    #[test]
    fn who_pulled_may_use(pulls in prop::collection::vec((0u8..4, 0u8..4), 1..12), stranger in 10u8..12) {
        let mut record: Option<Record> = None;
        let mut seen = Vec::new();
        for (uid, hash) in pulls {
            let s = secret(&format!("u{uid}"), &format!("h{hash}"));
            record = merged(record.as_ref(), "sha256:1", "reg/a", Some(&Users::of(Some(&auth::Source::Secret(s.clone())))), at(1)).or(record);
            seen.retain(|o: &PullSecret| !o.is_of(&s));
            seen.push(s);
            let record = record.as_ref().unwrap();
            for s in &seen {
                let mine = [auth::Credential { config: Default::default(), source: auth::Source::Secret(s.clone()) }];
                prop_assert_eq!(access(record, "reg/a:1", &mine), Access::Granted);
            }
            let strange = [credential(&format!("u{stranger}"), &format!("h{stranger}"))];
            prop_assert_eq!(access(record, "reg/a:1", &strange), Access::Denied);
        }
    }

    #[test]
    fn hostile_files(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode::<Record>(&bytes).is_err());
        prop_assert!(decode::<Intent>(&bytes).is_err());
    }
}
