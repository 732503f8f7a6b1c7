use super::*;

fn tokens() -> Tokens {
    Tokens::new(&rcgen::KeyPair::generate().unwrap().serialize_der()).unwrap()
}

fn claims(now: i64) -> Claims {
    let bound = Bound {
        namespace: "default".into(),
        serviceaccount: Ref { name: "default".into(), uid: "u".into() },
        pod: None,
        node: None,
        secret: None,
    };
    Claims::new(bound, vec!["api".into()], now, 600, "id".into())
}

#[test]
fn round_trip_and_expiry() {
    let tokens = tokens();
    let token = tokens.sign(&claims(1000)).unwrap();
    let api = ["api".to_owned()];
    assert_eq!(tokens.check(&token, &api, 1100).unwrap().sub, "system:serviceaccount:default:default");
    assert_eq!(tokens.check(&token, &api, 1606), Err(TokenError::Expired));
    assert_eq!(tokens.check(&token, &api, 900), Err(TokenError::Early));
    assert!(matches!(tokens.check(&token, &["vault".to_owned()], 1100), Err(TokenError::Audience { .. })));
}

#[test]
fn another_key_or_a_changed_claim_is_refused() {
    let (a, b) = (tokens(), tokens());
    let token = a.sign(&claims(1000)).unwrap();
    assert_eq!(b.check(&token, &["api".to_owned()], 1000), Err(TokenError::Signature));
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let mut other = claims(1000);
    other.sub = "system:serviceaccount:kube-system:admin".into();
    parts[1] = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).unwrap());
    assert_eq!(a.check(&parts.join("."), &["api".to_owned()], 1000), Err(TokenError::Signature));
    for junk in ["", "a.b", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30."] {
        assert!(a.check(junk, &["api".to_owned()], 1000).is_err());
    }
}
