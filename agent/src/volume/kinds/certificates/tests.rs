//! An API server of one version, whose signer is the test.

use super::*;
use serde_json::Value;
use std::sync::Arc;

#[derive(Default)]
struct Api {
    version: &'static str,
    bundles: Mutex<Vec<Value>>,
    requests: Mutex<Vec<Value>>,
    /// What each new request is answered with at once.
    status: Mutex<Value>,
    asked: Mutex<Vec<String>>,
    /// Requests are gone as soon as they are made.
    forgets: bool,
}

impl Api {
    fn client(self: &Arc<Api>) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
                let (status, text) = api.answer(parts.method.as_str(), &parts.uri, &body);
                let body = http_body_util::Full::new(bytes::Bytes::from(text));
                let response = http::Response::builder().status(status).header("content-type", "application/json");
                Ok::<_, std::convert::Infallible>(response.body(body).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, method: &str, uri: &http::Uri, body: &[u8]) -> (u16, String) {
        let path = uri.path();
        self.asked.lock().unwrap().push(format!("{method} {uri}"));
        let base = format!("/apis/certificates.k8s.io/{}", self.version);
        let metadata = |kind: &str, name: &str| json!({"metadata": {"name": name, "uid": format!("{kind} {name}")}}).to_string();
        match path.strip_prefix(&base) {
            Some("/clustertrustbundles") => (200, json!({"items": *self.bundles.lock().unwrap()}).to_string()),
            Some("/namespaces/ns/podcertificaterequests") if method == "POST" => {
                let mut made: Value = serde_json::from_slice(body).unwrap();
                let mut all = self.requests.lock().unwrap();
                made["metadata"]["name"] = json!(format!("req-{}", all.len()));
                made["status"] = self.status.lock().unwrap().clone();
                all.push(made.clone());
                (201, made.to_string())
            }
            Some("/namespaces/ns/podcertificaterequests") => {
                let all = if self.forgets { json!([]) } else { json!(*self.requests.lock().unwrap()) };
                (200, json!({ "items": all }).to_string())
            }
            _ if path == "/api/v1/namespaces/ns/serviceaccounts/sa" => (200, metadata("sa", "sa")),
            _ if path == "/api/v1/nodes/n1" => (200, metadata("node", "n1")),
            _ => (404, "404 page not found".to_owned()),
        }
    }
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\nb25l\n-----END CERTIFICATE-----\n";

fn issued(refresh: i64, over: i64) -> Value {
    let at = |seconds: i64| (crate::clock::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
    json!({"conditions": [{"type": "Issued", "status": "True"}], "certificateChain": PEM, "beginRefreshAt": at(refresh), "notAfter": at(over)})
}

fn context() -> PodContext {
    PodContext { node_name: "n1".into(), host_ips: vec![], pod_ips: vec![], allocatable: Default::default() }
}

fn pod() -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"serviceAccountName": "sa", "containers": []}}),
    )
    .unwrap()
}

fn source(key_type: &str) -> PodCertificateProjection {
    let annotations = json!({"example.com/a": "b"});
    serde_json::from_value(json!({"signerName": "example.com/s", "keyType": key_type, "maxExpirationSeconds": 7200, "userAnnotations": annotations, "keyPath": "k"})).unwrap()
}

async fn get(c: &Certificates, api: &Arc<Api>, key_type: &str) -> Result<(Issued, SystemTime), Problem> {
    c.credentials((&api.client(), &pod(), &context()), ("v", 0), &source(key_type)).await
}

fn bundles(source: Value) -> ClusterTrustBundleProjection {
    serde_json::from_value(source).unwrap()
}

#[tokio::test]
async fn trust_bundles_by_name_and_by_signer() {
    let bundle = |signer: &str| json!({"metadata": {"name": "b"}, "spec": {"signerName": signer, "trustBundle": PEM}});
    for version in VERSIONS {
        let api = Arc::new(Api {
            version,
            bundles: Mutex::new(vec![bundle("example.com/s"), bundle("example.com/s")]),
            ..Api::default()
        });
        let c = Certificates::new();
        let (text, again) = c.anchors(&api.client(), &bundles(json!({"name": "b c", "path": "p"}))).await.unwrap();
        assert_eq!(text, PEM.as_bytes());
        assert!(again > SystemTime::now());
        let by_signer = json!({"signerName": "example.com/s", "labelSelector": {"matchLabels": {"a": "b"}}, "path": "p"});
        assert_eq!(c.anchors(&api.client(), &bundles(by_signer)).await.unwrap().0, PEM.as_bytes());
        let asked = api.asked.lock().unwrap().clone();
        assert!(asked.iter().any(|a| a.ends_with("clustertrustbundles?fieldSelector=metadata.name%3Db+c")), "{asked:?}");
        assert!(
            asked.last().unwrap().ends_with("fieldSelector=spec.signerName%3Dexample.com%2Fs&labelSelector=a%3Db"),
            "{asked:?}"
        );
    }
    let api = Arc::new(Api { version: "v1beta1", bundles: Mutex::new(vec![bundle("example.com/other")]), ..Api::default() });
    let c = Certificates::new();
    let ask = async |source: Value| c.anchors(&api.client(), &bundles(source)).await.map(|(text, _)| text);
    let all = json!({"signerName": "example.com/s", "labelSelector": {}, "path": "p"});
    assert_eq!(ask(all.clone()).await, Err(Problem::NoneSelected));
    let optional = |mut source: Value| {
        source["optional"] = json!(true);
        source
    };
    assert_eq!(ask(optional(all)).await, Ok(vec![]));
    let without = json!({"signerName": "example.com/other", "path": "p"});
    assert_eq!(ask(without).await, Err(Problem::NoneSelected), "no selector selects nothing");
    assert_eq!(ask(json!({"path": "p"})).await, Err(Problem::Unnamed));
    api.bundles.lock().unwrap().clear();
    assert_eq!(ask(json!({"name": "b", "path": "p"})).await, Err(Problem::NoBundle("b".into())));
    assert_eq!(ask(optional(json!({"name": "b", "path": "p"}))).await, Ok(vec![]));
    let none = Arc::new(Api { version: "v7", ..Api::default() });
    let error = c.anchors(&none.client(), &bundles(json!({"name": "b", "path": "p", "optional": true}))).await.unwrap_err();
    assert_eq!(error.to_string(), "the API server does not offer ClusterTrustBundle of certificates.k8s.io");
}

#[tokio::test]
async fn a_certificate_is_asked_for_used_and_renewed() {
    for (version, key_type) in [("v1", "ECDSAP256"), ("v1beta1", "ECDSAP384"), ("v1beta1", "ED25519")] {
        let api = Arc::new(Api { version, status: Mutex::new(issued(3600, 7200)), ..Api::default() });
        let c = Certificates::new();
        let (first, again) = get(&c, &api, key_type).await.unwrap();
        assert!(first.key.contains("PRIVATE KEY") && again > SystemTime::now() + Duration::from_secs(3000));
        assert_eq!(get(&c, &api, key_type).await.unwrap().0, first, "the same until then");
        let made = api.requests.lock().unwrap()[0].clone();
        let mut spec = made["spec"].clone();
        let proof: k8s_openapi::ByteString = serde_json::from_value(spec["stubPKCS10Request"].take()).unwrap();
        let params = rcgen::CertificateSigningRequestParams::from_der(&proof.0.into()).unwrap();
        let key = rcgen::KeyPair::from_pem(&first.key).unwrap();
        assert_eq!(rcgen::PublicKeyData::der_bytes(&params.public_key), rcgen::PublicKeyData::der_bytes(&key));
        spec.as_object_mut().unwrap().remove("stubPKCS10Request");
        let expected = json!({"signerName": "example.com/s", "podName": "p", "podUID": "u", "serviceAccountName": "sa", "serviceAccountUID": "sa sa",
            "nodeName": "n1", "nodeUID": "node n1", "maxExpirationSeconds": 7200, "unverifiedUserAnnotations": {"example.com/a": "b"}});
        assert_eq!(spec, expected);
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "u");
        c.forget("other");
        assert_eq!(get(&c, &api, key_type).await.unwrap().0, first);
        c.forget("u");
        assert_ne!(get(&c, &api, key_type).await.unwrap().0.key, first.key);
    }
}

#[tokio::test]
async fn the_old_one_holds_while_a_new_one_is_waited_for() {
    let api = Arc::new(Api { version: "v1beta1", status: Mutex::new(issued(-1, 300)), ..Api::default() });
    let c = Certificates::new();
    // It is to be renewed from the first moment on, and the next one is not issued.
    let key: Key = ("u".into(), "v".into(), 0);
    c.change(&key, |slot| slot.request = Some(Request { name: "req-0".into(), key: "old".into() }));
    api.requests.lock().unwrap().push(json!({"metadata": {"name": "req-0"}, "status": issued(-400, 300)}));
    *api.status.lock().unwrap() = json!({});
    let (held, again) = get(&c, &api, "ED25519").await.unwrap();
    assert_eq!(held.key, "old");
    assert!(again < SystemTime::now() + Duration::from_secs(30));
    assert_eq!(api.requests.lock().unwrap().len(), 2);
    get(&c, &api, "ED25519").await.unwrap();
    assert_eq!(api.requests.lock().unwrap().len(), 2, "one request at a time");
    api.requests.lock().unwrap()[1]["status"] = issued(100, 700);
    assert!(get(&c, &api, "ED25519").await.unwrap().0.key.contains("PRIVATE KEY"));
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_is_said() {
    let with = |version: &'static str, status: Value| Arc::new(Api { version, status: Mutex::new(status), ..Api::default() });
    let error = async |api: &Arc<Api>, key_type: &str| get(&Certificates::new(), api, key_type).await.unwrap_err().to_string();
    let refused = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "reason": "Why", "message": "because"}]});
    assert_eq!(
        error(&with("v1", refused("Denied")), "ED25519").await,
        "PodCertificateRequest \"req-0\" was denied: reason=\"Why\", message=\"because\""
    );
    assert_eq!(
        error(&with("v1", refused("Failed")), "ED25519").await,
        "PodCertificateRequest \"req-0\" failed: reason=\"Why\", message=\"because\""
    );
    assert_eq!(error(&with("v1", json!({})), "ED25519").await, "PodCertificateRequest \"req-0\" is not issued yet");
    assert_eq!(
        error(&with("v7", json!({})), "ED25519").await,
        "the API server does not offer PodCertificateRequest of certificates.k8s.io"
    );
    let rsa = with("v1", json!({}));
    assert!(error(&rsa, "RSA3072").await.contains("keyType \"RSA3072\" is none of"));
    assert!(rsa.requests.lock().unwrap().is_empty());
    // Somebody removes all requests: they are not made without end.
    let forgets = Arc::new(Api { version: "v1", forgets: true, status: Mutex::new(json!({})), ..Api::default() });
    get(&Certificates::new(), &forgets, "ED25519").await.unwrap_err();
    assert_eq!(forgets.requests.lock().unwrap().len(), 2);
}
