use super::*;
use k8s_openapi::api::core::v1::Secret;

#[tokio::test]
async fn it_says_why_nothing_is_to_be_had() {
    let secrets = kube::Api::<Secret>::namespaced(client(), "ns");
    let error = secrets.get("s").await.unwrap_err();
    let text = crate::api::watch::chain(&error);
    assert!(text.contains("GET /api/v1/namespaces/ns/secrets/s: there is no api server in standalone mode"), "{text}");
}
