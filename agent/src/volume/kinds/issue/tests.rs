use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nb25l\n-----END CERTIFICATE-----\n";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn said(status: Value) -> Answer {
    answer(&serde_json::from_value(json!({"metadata": {"name": "req-1"}, "status": status})).unwrap())
}

fn issued(refresh: i64, over: i64) -> Answer {
    said(json!({"conditions": [{"type": "Issued", "status": "True"}], "certificateChain": format!("words\n{PEM}"),
        "beginRefreshAt": at(refresh).to_string(), "notAfter": at(over).to_string()}))
}

fn asked(key: &str) -> Slot {
    Slot { request: Some(Request { name: "req-1".into(), key: key.into() }), ..Slot::default() }
}

#[test]
fn what_a_request_says() {
    assert_eq!(said(json!({})), Answer::Pending);
    assert_eq!(said(json!({"conditions": [{"type": "Other", "status": "True"}]})), Answer::Pending);
    assert_eq!(said(json!({"conditions": [{"type": "Denied", "status": "False"}]})), Answer::Pending);
    let refused = |kind: &str| said(json!({"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m"}]}));
    assert_eq!(refused("Denied"), Answer::Refused("was denied: reason=\"R\", message=\"m\"".into()));
    assert_eq!(refused("Failed"), Answer::Refused("failed: reason=\"R\", message=\"m\"".into()));
    assert_eq!(issued(5, 9), Answer::Issued { chain: PEM.into(), refresh_at: at(5), not_after: at(9) });
    assert!(matches!(refused("Issued"), Answer::Refused(_)), "without anything");
}

#[test]
fn a_life() {
    let mut slot = Slot::default();
    assert_eq!(slot.next(at(0)), Next::Ask);
    slot = asked("k1");
    slot.learn(Answer::Pending, 0.0);
    assert!(matches!(slot.next(at(0)), Next::Look(r) if r.name == "req-1" && r.key == "k1"));
    assert_eq!(slot.holds(at(0)), None);
    slot.learn(Answer::Gone, 0.0);
    assert_eq!(slot.next(at(0)), Next::Ask, "one that was removed is made anew");
    slot = asked("k2");
    slot.learn(issued(1000, 9000), 1.0);
    assert!(matches!(slot.next(at(1299)), Next::Use(i) if i.key == "k2"), "five minutes later at most");
    assert_eq!(slot.next(at(1300)), Next::Ask);
    slot.request = asked("k3").request;
    assert!(matches!(slot.next(at(1300)), Next::Look(_)));
    assert_eq!((slot.holds(at(8999)).map(|i| i.key.as_str()), slot.holds(at(9000))), (Some("k2"), None));
    slot.learn(issued(10_000, 10_020), 1.0);
    assert!(matches!(slot.next(at(10_009)), Next::Use(i) if i.key == "k3"));
    assert_eq!(slot.next(at(10_010)), Next::Ask, "well before its end");
    slot.request = asked("k4").request;
    slot.learn(Answer::Refused("no".into()), 0.0);
    assert_eq!(slot.next(at(10_010)), Next::Refused("PodCertificateRequest \"req-1\" no"));
}

#[test]
fn files_of_a_source() {
    let Answer::Issued { chain, refresh_at, not_after } = issued(1, 2) else { panic!() };
    let issued = Issued { key: "key\n".into(), chain, refresh_at, not_after };
    let all = files((Some("b"), Some("k"), Some("c")), &issued);
    let both = format!("key\n{PEM}");
    assert_eq!(all, [("b", both.into_bytes()), ("k", b"key\n".to_vec()), ("c", PEM.into())]);
    assert_eq!(files((Some(""), None, Some("c")), &issued).len(), 1);
    assert!(!format!("{issued:?} {:?}", asked("key")).contains("key"));
    assert_eq!(
        (private_mode(true, Some(0o644)), private_mode(false, Some(0o440)), private_mode(false, None)),
        (0o600, 0o440, 0o644)
    );
}

proptest! {
    /// A key and its certificates stay together, and nothing brings a pod back that was refused.
    #[test]
    fn keys_and_certificates(steps in prop::collection::vec((0u8..4, 0i64..100), 1..30)) {
        let (mut slot, mut made, mut refused) = (Slot::default(), 0, false);
        for (now, (kind, spread)) in steps.into_iter().enumerate() {
            let now = at(now as i64 * 700);
            match slot.next(now) {
                Next::Refused(_) => prop_assert!(refused),
                Next::Ask => {
                    made += 1;
                    slot.request = asked(&format!("k{made}")).request;
                }
                Next::Use(i) => prop_assert!(now < i.refresh_at && i.refresh_at <= i.not_after),
                Next::Look(_) => {
                    let second = now.as_second();
                    let answer = match kind {
                        0 => Answer::Pending,
                        1 => Answer::Gone,
                        2 => issued(second + 600, second + 1200),
                        _ => Answer::Refused("no".into()),
                    };
                    let was = answer.clone();
                    slot.learn(answer, spread as f64 / 100.0);
                    match was {
                        Answer::Issued { .. } => prop_assert_eq!(&slot.issued.as_ref().unwrap().key, &format!("k{made}")),
                        Answer::Refused(_) => refused = true,
                        Answer::Pending | Answer::Gone => {}
                    }
                }
            }
            prop_assert!(!refused || matches!(slot.next(now), Next::Refused(_)));
        }
    }
}
