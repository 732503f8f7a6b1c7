use super::*;
use serde_json::{Value, json};

fn jwt(claims: &Value) -> Vec<u8> {
    format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string())).into_bytes()
}

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

#[test]
fn a_token_is_renewed_at_four_fifths_or_after_a_day() {
    let token = jwt(&json!({"iat": 1000, "exp": 2000, "aud": ["a", "b"], "kubernetes.io": {"pod": {"name": "p", "uid": "u"}}}));
    let life = life(&token, "u", Some("b")).unwrap();
    assert_eq!(life, Life { from: at(1000), until: at(2000) });
    assert_eq!(life.renew_at(), at(1800));
    let long = Life { from: at(0), until: at(10_000_000) };
    assert_eq!(long.renew_at(), at(86_400));
}

#[test]
fn prolonged_tokens_end_when_they_were_meant_to() {
    let token = jwt(&json!({"iat": 0, "exp": 31_536_000, "aud": "a", "kubernetes.io": {"warnafter": 3607}}));
    assert_eq!(life(&token, "u", None).unwrap().until, at(3607));
}

#[test]
fn what_does_not_fit_has_no_life() {
    let claims = json!({"iat": 1, "exp": 2, "aud": "a", "kubernetes.io": {"pod": {"uid": "u"}}});
    assert!(life(&jwt(&claims), "u", Some("a")).is_some());
    assert_eq!(life(&jwt(&claims), "other", Some("a")), None);
    assert_eq!(life(&jwt(&claims), "u", Some("b")), None);
    assert_eq!(life(&jwt(&json!({"iat": 1, "exp": u64::MAX})), "u", None), None);
    assert_eq!(life(&jwt(&json!({"iat": 5, "exp": 5})), "u", None), None);
    for garbage in [&b""[..], b"opaque", b"a.b.c", b"a.\xff.c", b"a.e30.c"] {
        assert_eq!(life(garbage, "u", None), None);
    }
}
