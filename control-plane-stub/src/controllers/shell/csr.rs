//! The shell of `csr`. The key that signs stays with whoever gives the signing function.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::text;
use crate::controllers::cache::Reader;
use crate::controllers::csr::{Decision, Usage, decide, subject};
use crate::controllers::meta::{self, Key};
use crate::controllers::runner::{Error, Synced, unless_gone};
use crate::kinds::{self, Sub};
use crate::registry::Registry;

/// Signs the PEM of a request: certificate chain as PEM, or why not.
pub type Sign = Arc<dyn Fn(&str, Usage, Duration) -> Result<String, String> + Send + Sync>;

#[derive(Clone)]
pub struct Shell {
    pub registry: Registry,
    pub requests: Reader<CertificateSigningRequest>,
    pub sign: Sign,
}

impl Shell {
    pub async fn sync(self, key: Key) -> Synced {
        let Some(csr) = self.requests.get(&key) else { return Ok(None) };
        let addresses = self.addresses(&csr).await?;
        match decide(&csr, subject(&csr.spec.request.0), |_| addresses.clone()) {
            Decision::Nothing => {}
            Decision::Approve(why) => self.condition(&csr, Sub::Approval, "Approved", "AutoApproved", why).await?,
            Decision::Fail(why) => self.condition(&csr, Sub::Status, "Failed", "SignerValidationFailure", &why).await?,
            Decision::Sign { usage, valid } => {
                let pem = String::from_utf8_lossy(&csr.spec.request.0);
                match (self.sign)(&pem, usage, valid) {
                    Ok(chain) => {
                        let certificate = json!(ByteString(chain.into_bytes()));
                        self.change(&csr, Sub::Status, |v| v["status"]["certificate"] = certificate.clone()).await?;
                    }
                    Err(why) => self.condition(&csr, Sub::Status, "Failed", "SigningFailure", &why).await?,
                }
            }
        }
        Ok(None)
    }

    /// The names and addresses of the node that asks; nothing if there is none.
    async fn addresses(&self, csr: &CertificateSigningRequest) -> Result<Option<BTreeSet<String>>, Error> {
        let Some(node) = csr.spec.username.as_deref().and_then(|u| u.strip_prefix("system:node:")) else { return Ok(None) };
        let node = unless_gone(self.registry.get(&kinds::NODE, "", node).await, "read the node of a request")?;
        let list = |v: &Value| v.pointer("/status/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(node.map(|v| list(&v).iter().filter_map(|a| a["address"].as_str().map(str::to_owned)).collect()))
    }

    async fn condition(
        &self,
        csr: &CertificateSigningRequest,
        sub: Sub,
        kind: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let now = json!(Time(Timestamp::now()));
        let condition = json!({"type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": now});
        let add = |v: &mut Value| {
            if !v["status"]["conditions"].is_array() {
                v["status"]["conditions"] = json!([]);
            }
            if let Some(list) = v["status"]["conditions"].as_array_mut().filter(|l| l.iter().all(|c| c["type"] != kind)) {
                list.push(condition.clone());
            }
        };
        self.change(csr, sub, add).await
    }

    async fn change(
        &self,
        csr: &CertificateSigningRequest,
        sub: Sub,
        mut change: impl FnMut(&mut Value) + Send,
    ) -> Result<(), Error> {
        let uid = meta::uid(&csr.metadata);
        let guarded = |v: &mut Value| {
            let ours = text(v, "uid") == uid;
            if ours {
                change(v);
            }
            ours
        };
        let name = meta::name(&csr.metadata);
        let done = self.registry.modify(&kinds::CERTIFICATE_SIGNING_REQUEST, "", name, Some(sub), guarded).await;
        let seen = unless_gone(done, "write a certificate request")?.map_or(0, |v| super::revision_of(&v));
        self.requests.reach(seen).await;
        Ok(())
    }
}
