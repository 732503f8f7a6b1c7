use super::*;
use crate::api::testing::{Answer, Server};
use http::HeaderMap;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

fn with(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::AUTHORIZATION, value.parse().unwrap())])
}

#[test]
fn certificates_name_user_and_groups() {
    let identity = |pairs: &[(DnType, &str)]| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        pairs.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), *value));
        let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerIdentity::of(Some(&[cert.der().clone()])).0
    };
    let user = identity(&[(DnType::CommonName, "alice"), (DnType::OrganizationName, "system:masters")]).unwrap();
    assert_eq!((user.name.as_str(), user.groups.join(",")), ("alice", "system:masters,system:authenticated".to_owned()));
    assert_eq!(identity(&[(DnType::OrganizationName, "system:masters")]), None);
    assert!(PeerIdentity::of(None).0.is_none());
    assert!(PeerIdentity::of(Some(&[CertificateDer::from(vec![1, 2, 3])])).0.is_none());
}

#[tokio::test]
async fn tokens_are_reviewed_once_and_nobody_is_anonymous() {
    let server = Server::start(|asked| {
        let good = asked.body.contains("good");
        let status = if good {
            json!({"authenticated": true, "user": {"username": "a", "groups": ["g"]}})
        } else {
            json!({"authenticated": false})
        };
        Some(Answer::Json(201, json!({"spec": {"token": ""}, "status": status})))
    })
    .await;
    let mut config = crate::config::Config::default().authentication;
    let authenticator = Authenticator::new(server.client(), &config);
    let nobody = PeerIdentity::default();
    for _ in 0..2 {
        let user = authenticator.user(&nobody, &with("Bearer good")).await.unwrap();
        assert_eq!((user.name.as_str(), user.groups.join(",")), ("a", "g,system:authenticated".to_owned()));
        assert_eq!(authenticator.user(&nobody, &with("bearer bad")).await, Err(Denied::Unauthenticated));
    }
    assert_eq!(server.asked.lock().unwrap().len(), 2);
    for headers in [HeaderMap::new(), with("Basic good"), with("Bearer "), with(&format!("Bearer {}", "x".repeat(MAX_TOKEN + 1)))]
    {
        assert_eq!(authenticator.user(&nobody, &headers).await, Err(Denied::Unauthenticated));
    }
    config.webhook = false;
    let without = Authenticator::new(server.client(), &config);
    assert_eq!(without.user(&nobody, &with("Bearer good")).await, Err(Denied::Unauthenticated));
    server.task.abort();
}

#[tokio::test]
async fn an_api_that_cannot_be_asked_lets_nobody_in() {
    let server =
        Server::queue(vec![Answer::Json(500, json!({"kind": "Status", "code": 500, "reason": "x", "message": ""}))]).await;
    let authenticator = Authenticator::new(server.client(), &crate::config::Config::default().authentication);
    assert_eq!(authenticator.user(&PeerIdentity::default(), &with("Bearer good")).await, Err(Denied::Unavailable));
}
