use super::*;
use crate::api::testing::{Answer, Server};
use serde_json::{Value, json};

#[test]
fn what_each_path_needs() {
    let needs = |method: Method, path: &str| attributes(&method, path).map(|a| (a.verb, a.subresources.to_vec()));
    assert_eq!(needs(Method::GET, "/metrics"), Some(("get", vec!["metrics"])));
    assert_eq!(needs(Method::GET, "/metrics/cadvisor"), Some(("get", vec!["metrics"])));
    assert_eq!(needs(Method::GET, "/stats/summary"), Some(("get", vec!["stats"])));
    assert_eq!(needs(Method::GET, "/logs/x"), Some(("get", vec!["log"])));
    assert_eq!(needs(Method::GET, "/containerLogs/a/b/c"), Some(("get", vec!["proxy"])));
    assert_eq!(needs(Method::POST, "/exec/a/b/c"), Some(("create", vec!["proxy"])));
    assert_eq!(needs(Method::GET, "/pods"), Some(("get", vec!["pods", "proxy"])));
    assert_eq!(needs(Method::GET, "/healthz/ping"), Some(("get", vec!["healthz", "proxy"])));
    assert_eq!(needs(Method::GET, "/podsx"), Some(("get", vec!["proxy"])));
    assert_eq!(needs(Method::OPTIONS, "/pods"), None);
}

fn authorizer(server: &Server) -> Authorizer {
    Authorizer::new(server.client(), "n", &crate::config::Config::default().authorization)
}

#[tokio::test]
async fn reviews_are_asked_once_and_the_specific_first() {
    let server = Server::start(|asked| {
        let review: Value = serde_json::from_str(&asked.body).unwrap();
        let allowed = review["spec"]["resourceAttributes"]["subresource"] == "proxy";
        Some(Answer::Json(201, json!({"spec": review["spec"], "status": {"allowed": allowed}})))
    })
    .await;
    let authorizer = authorizer(&server);
    let user = Arc::new(User { name: "a".into(), groups: vec!["system:masters".into()], ..User::default() });
    let pods = attributes(&Method::GET, "/pods").unwrap();
    assert!(authorizer.allows(&user, &pods).await && authorizer.allows(&user, &pods).await);
    assert!(!authorizer.allows(&user, &attributes(&Method::GET, "/metrics").unwrap()).await);
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked.len(), 3, "two for pods, one for metrics, none twice; system:masters is asked about too");
    let spec: Value = serde_json::from_str::<Value>(&asked[0].body).unwrap()["spec"].clone();
    let attributes = json!({"verb": "get", "version": "v1", "resource": "nodes", "subresource": "pods", "name": "n"});
    assert_eq!(spec, json!({"user": "a", "groups": ["system:masters"], "resourceAttributes": attributes}));
}

#[tokio::test]
async fn an_error_is_a_no_that_is_not_remembered() {
    let server = Server::queue(vec![
        Answer::Json(500, json!({"kind": "Status", "code": 500, "reason": "InternalError", "message": ""})),
        Answer::Json(201, json!({"spec": {}, "status": {"allowed": true}})),
    ])
    .await;
    let (authorizer, user) = (authorizer(&server), Arc::new(User::default()));
    let metrics = attributes(&Method::GET, "/metrics").unwrap();
    assert!(!authorizer.allows(&user, &metrics).await);
    assert!(authorizer.allows(&user, &metrics).await);
}
