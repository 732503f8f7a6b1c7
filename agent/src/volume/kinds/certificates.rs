//! What `certificates.k8s.io` has for volumes: ClusterTrustBundles, and certificates for pods by PodCertificateRequest.
//!
//! Owns the keys and requests of pods that live, in memory only: an agent that starts again asks anew, as kubelet does, and the
//! volume keeps what it has until then. Both kinds are read in whatever version the API server offers.

use super::anchors::{merged, selector};
use super::issue::{Answer, Issued, Next, Request, Slot, Wire, answer};
use crate::volume::fields::PodContext;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, Node, Pod, PodCertificateProjection, ServiceAccount};
use kube::api::Api;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SignatureAlgorithm};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Newest first.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
/// How long a first certificate is waited for at a time; who waits is told after that, and goes on.
const PATIENCE: Duration = Duration::from_secs(20);
const TURN: Duration = Duration::from_millis(500);
/// How soon to look again for one that is to take the place of another.
const RENEWAL: Duration = Duration::from_secs(10);
/// How often bundles are read again.
const BUNDLES: Duration = Duration::from_secs(60);

/// Why there is nothing to show. Texts for events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the API server does not offer {0} of certificates.k8s.io")]
    NotOffered(&'static str),
    #[error("{0}")]
    Api(String),
    #[error("ClusterTrustBundle {0:?} not found")]
    NoBundle(String),
    #[error("combination of signerName and labelSelector matched zero ClusterTrustBundles")]
    NoneSelected,
    #[error("ClusterTrustBundle projection requires either name or signerName to be set")]
    Unnamed,
    #[error("labelSelector: {0}")]
    Selector(&'static str),
    #[error("keyType {0:?} is none of ECDSAP256, ECDSAP384 and ED25519, which this agent can make")]
    KeyType(String),
    #[error("cannot make a key: {0}")]
    Key(String),
    #[error("the pod has no service account")]
    NoAccount,
    #[error("PodCertificateRequest {0:?} is not issued yet")]
    Waiting(String),
    #[error("{0}")]
    Refused(String),
}

/// A pod, a volume of it, and the source's place in the volume.
type Key = (String, String, usize);

pub(crate) struct Certificates {
    seed: [u8; 16],
    slots: Mutex<HashMap<Key, Slot>>,
}

#[derive(Deserialize)]
struct Bundles {
    items: Vec<Bundle>,
}

#[derive(Deserialize)]
struct Bundle {
    spec: BundleSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleSpec {
    #[serde(default)]
    signer_name: String,
    trust_bundle: String,
}

impl Certificates {
    pub(crate) fn new() -> Certificates {
        Certificates { seed: rand::random(), slots: Mutex::default() }
    }

    /// The pod is gone, and its keys with it.
    pub(crate) fn forget(&self, uid: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|(pod, _, _), _| pod != uid);
    }

    /// The trust anchors that a source asks for, and when to look again.
    pub(super) async fn anchors(
        &self,
        kube: &kube::Client,
        source: &ClusterTrustBundleProjection,
    ) -> Result<(Vec<u8>, SystemTime), Problem> {
        let optional = source.optional == Some(true);
        let (name, signer) = (source.name.as_deref(), source.signer_name.as_deref());
        let (query, none) = match (name, signer) {
            (Some(name), _) => {
                (Some(query(&[("fieldSelector", &format!("metadata.name={name}"))])), Problem::NoBundle(name.to_owned()))
            }
            (None, Some(signer)) => {
                let labels = selector(source.label_selector.as_ref()).map_err(Problem::Selector)?;
                let fields = format!("spec.signerName={signer}");
                (labels.map(|l| query(&[("fieldSelector", &fields), ("labelSelector", &l)])), Problem::NoneSelected)
            }
            (None, None) => return Err(Problem::Unnamed),
        };
        let mut found: Vec<Bundle> = match query {
            Some(query) => list(kube, &query).await?,
            None => Vec::new(),
        };
        found.retain(|bundle| name.is_some() || Some(bundle.spec.signer_name.as_str()) == signer);
        if found.is_empty() && !optional {
            return Err(none);
        }
        let again = SystemTime::now() + BUNDLES.mul_f64(rand::random_range(0.75..1.25));
        Ok((merged(found.iter().map(|b| b.spec.trust_bundle.as_str()), &self.seed), again))
    }

    /// A key with its certificates, and when to come again. Waits for a first one, not for one that takes another's place.
    pub(super) async fn credentials(
        &self,
        (kube, pod, context): (&kube::Client, &Pod, &PodContext),
        (volume, index): (&str, usize),
        source: &PodCertificateProjection,
    ) -> Result<(Issued, SystemTime), Problem> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let key: Key = (uid, volume.to_owned(), index);
        let until = tokio::time::Instant::now() + PATIENCE;
        let (mut gone, mut over) = (false, false);
        loop {
            let now = crate::clock::now();
            let slot = self.slot(&key);
            let waits = match slot.next(now) {
                Next::Refused(why) => return Err(Problem::Refused(why.to_owned())),
                Next::Use(issued) => return Ok((issued.clone(), issued.refresh_at.into())),
                Next::Ask => match ask(kube, pod, context, source).await {
                    Ok(request) => {
                        self.change(&key, |slot| slot.request = Some(request));
                        continue;
                    }
                    Err(problem) => problem,
                },
                Next::Look(request) => {
                    let said = look(kube, pod, &request.name).await;
                    let pending = matches!(said, Ok(Answer::Pending) | Err(_));
                    // Somebody removes them as soon as they are made: no endless making.
                    over = said == Ok(Answer::Gone) && std::mem::replace(&mut gone, true);
                    let problem = match said {
                        Ok(answer) => {
                            self.change(&key, |slot| slot.learn(answer, rand::random()));
                            Problem::Waiting(request.name.clone())
                        }
                        Err(problem) => problem,
                    };
                    if !pending && !over {
                        continue;
                    }
                    problem
                }
            };
            if let Some(issued) = slot.holds(now) {
                tracing::debug!(pod_uid = key.0, volume, why = %waits, "no new certificate yet, the old one still holds");
                return Ok((issued.clone(), SystemTime::now() + RENEWAL));
            }
            if slot.request.is_none() || over || tokio::time::Instant::now() >= until {
                return Err(waits);
            }
            tokio::time::sleep(TURN).await;
        }
    }

    fn slot(&self, key: &Key) -> Slot {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default()
    }

    fn change(&self, key: &Key, change: impl FnOnce(&mut Slot)) {
        change(self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default());
    }
}

fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// A request for a path below each version in turn, until one is offered.
async fn in_any_version<T: serde::de::DeserializeOwned>(
    kube: &kube::Client,
    what: &'static str,
    request: impl Fn(&str) -> http::request::Builder,
    body: &[u8],
) -> Result<T, Problem> {
    for version in VERSIONS {
        let whole = request(&format!("/apis/certificates.k8s.io/{version}")).body(body.to_vec());
        match kube.request::<T>(whole.map_err(|e| Problem::Api(e.to_string()))?).await {
            // Of an object or a namespace that is not there the server says which; of a path it does not know it says only that.
            Err(kube::Error::Api(status)) if status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty()) => {}
            Err(kube::Error::Api(status)) => return Err(Problem::Api(status.message.clone())),
            Err(error) => return Err(Problem::Api(crate::api::watch::chain(&error))),
            Ok(found) => return Ok(found),
        }
    }
    Err(Problem::NotOffered(what))
}

async fn list(kube: &kube::Client, query: &str) -> Result<Vec<Bundle>, Problem> {
    let request = |base: &str| http::Request::get(format!("{base}/clustertrustbundles?{query}"));
    in_any_version::<Bundles>(kube, "ClusterTrustBundle", request, &[]).await.map(|all| all.items)
}

const REQUESTS: &str = "PodCertificateRequest";

async fn look(kube: &kube::Client, pod: &Pod, name: &str) -> Result<Answer, Problem> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let query = query(&[("fieldSelector", &format!("metadata.name={name}"))]);
    let request = |base: &str| http::Request::get(format!("{base}/namespaces/{namespace}/podcertificaterequests?{query}"));
    #[derive(Deserialize)]
    struct All {
        items: Vec<Wire>,
    }
    let found = in_any_version::<All>(kube, REQUESTS, request, &[]).await?;
    Ok(found.items.iter().find(|wire| wire.metadata.name == name).map_or(Answer::Gone, answer))
}

/// Makes a key, and a request for a certificate of it.
async fn ask(
    kube: &kube::Client,
    pod: &Pod,
    context: &PodContext,
    source: &PodCertificateProjection,
) -> Result<Request, Problem> {
    let failed = |error: kube::Error| match error {
        kube::Error::Api(status) => Problem::Api(status.message.clone()),
        other => Problem::Api(crate::api::watch::chain(&other)),
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).filter(|a| !a.is_empty());
    let account = account.ok_or(Problem::NoAccount)?;
    let (key, proof) = key_and_proof(&source.key_type)?;
    let accounts: Api<ServiceAccount> = Api::namespaced(kube.clone(), namespace);
    let account_uid = accounts.get(account).await.map_err(failed)?.metadata.uid;
    let nodes: Api<Node> = Api::all(kube.clone());
    let node_uid = nodes.get(&context.node_name).await.map_err(failed)?.metadata.uid;
    let (name, uid) = (&pod.metadata.name, &pod.metadata.uid);
    let body = |version: &str| {
        let mut spec = json!({
            "signerName": source.signer_name, "podName": name, "podUID": uid, "serviceAccountName": account,
            "serviceAccountUID": account_uid, "nodeName": context.node_name, "nodeUID": node_uid,
            "stubPKCS10Request": k8s_openapi::ByteString(proof.clone()),
        });
        if let Some(seconds) = source.max_expiration_seconds {
            spec["maxExpirationSeconds"] = json!(seconds);
        }
        if let Some(annotations) = source.user_annotations.as_ref().filter(|a| !a.is_empty()) {
            spec["unverifiedUserAnnotations"] = json!(annotations);
        }
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
        let metadata = json!({"namespace": namespace, "generateName": "req-", "ownerReferences": [owner]});
        json!({"apiVersion": format!("certificates.k8s.io/{version}"), "kind": REQUESTS, "metadata": metadata, "spec": spec})
    };
    for version in VERSIONS {
        let path = format!("/apis/certificates.k8s.io/{version}/namespaces/{namespace}/podcertificaterequests");
        let request =
            http::Request::post(path).header("content-type", "application/json").body(body(version).to_string().into_bytes());
        match kube.request::<Wire>(request.map_err(|e| Problem::Api(e.to_string()))?).await {
            Err(kube::Error::Api(status)) if status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty()) => {}
            Err(error) => return Err(failed(error)),
            Ok(made) => return Ok(Request { name: made.metadata.name, key }),
        }
    }
    Err(Problem::NotOffered(REQUESTS))
}

/// The key as PEM, and an empty certificate request that its owner has signed.
fn key_and_proof(key_type: &str) -> Result<(String, Vec<u8>), Problem> {
    let algorithm: &'static SignatureAlgorithm = match key_type {
        "ECDSAP256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &rcgen::PKCS_ECDSA_P384_SHA384,
        "ED25519" => &rcgen::PKCS_ED25519,
        other => return Err(Problem::KeyType(other.chars().take(64).collect())),
    };
    let failed = |error: rcgen::Error| Problem::Key(error.to_string());
    let key = KeyPair::generate_for(algorithm).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

#[cfg(test)]
mod tests;
