//! Collects the files of a volume from the API. Reads only.

use super::certificates::{Certificates, Problem};
use super::issue;
use super::payload::{DEFAULT_MODE, File, Keys, Mapping, Payload, checked, mode};
use super::token::{self, Life};
use crate::objects;
use crate::volume::fields::{PodContext, field_value, resource_value};
use crate::volume::{Error, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, PodCertificateProjection,
    ProjectedVolumeSource, Secret, ServiceAccount, ServiceAccountTokenProjection,
};
use kube::api::{Api, PostParams};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How soon to ask again for a token that could not be renewed but still lives.
const RETRY: Duration = Duration::from_secs(30);

/// For one volume of one pod.
pub(super) struct Collector<'a> {
    pub(super) kube: &'a kube::Client,
    pub(super) objects: &'a objects::Store,
    pub(super) certificates: &'a Certificates,
    pub(super) pod: &'a Pod,
    pub(super) context: &'a PodContext,
    pub(super) volume: &'a str,
    /// Group and user that files of tokens are made for.
    pub(super) fs_group: Option<u32>,
    pub(super) fs_user: Option<u32>,
}

/// An object of keys that a volume shows.
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) items: Option<&'a Vec<KeyToPath>>,
    pub(super) default_mode: Option<i32>,
    pub(super) optional: Option<bool>,
}

impl Collector<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// The object; `None` if it is not there and need not be.
    async fn get<K: objects::Configures>(&self, kind: &'static str, name: &str, optional: bool) -> Result<Option<Arc<K>>> {
        let found = self.objects.get::<K>(self.namespace(), name).await;
        let (volume, name) = (self.volume.to_owned(), name.to_owned());
        match found {
            Ok(None) if !optional => Err(Error::NotFound { volume, kind, name }),
            Ok(found) => Ok(found),
            Err(source) => Err(Error::Api { volume, kind, name, source }),
        }
    }

    fn mapping<'b>(&'b self, named: &'b Named<'_>) -> Mapping<'b> {
        Mapping {
            volume: self.volume,
            items: named.items.map_or(&[], Vec::as_slice),
            default_mode: named.default_mode.unwrap_or(DEFAULT_MODE),
            optional: named.optional.unwrap_or(false),
        }
    }

    pub(super) async fn config_map(&self, named: &Named<'_>) -> Result<Payload> {
        let object = self.get::<ConfigMap>("configmap", named.name, named.optional.unwrap_or(false)).await?;
        Keys::config_map(named.name, object.as_deref()).files(&self.mapping(named))
    }

    pub(super) async fn secret(&self, named: &Named<'_>) -> Result<Payload> {
        let object = self.get::<Secret>("secret", named.name, named.optional.unwrap_or(false)).await?;
        Keys::secret(named.name, object.as_deref()).files(&self.mapping(named))
    }

    pub(super) fn downward(&self, items: &[DownwardAPIVolumeFile], default_mode: Option<i32>) -> Result<Payload> {
        let mut out = Payload::new();
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => field_value(self.pod, &field.field_path, self.context),
                (None, Some(r)) => {
                    let divisor = r.divisor.as_ref().map(|q| q.0.as_str());
                    let container = r.container_name.as_deref().unwrap_or_default();
                    resource_value(self.pod, container, &r.resource, divisor, self.context)
                }
                (None, None) => Ok(String::new()),
            };
            let value = value.map_err(|source| Error::Field { volume: self.volume.to_owned(), source: Box::new(source) })?;
            let mode = mode(item.mode.or(default_mode).unwrap_or(DEFAULT_MODE));
            out.insert(checked(self.volume, &item.path)?, File { data: value.into_bytes(), mode, uid: None });
        }
        Ok(out)
    }

    /// All sources together, and when the first of their tokens is to be renewed. `current` holds the
    /// tokens that are there now, by path, with the time they were written.
    pub(super) async fn projected(
        &self,
        source: &ProjectedVolumeSource,
        current: &BTreeMap<String, (Vec<u8>, SystemTime)>,
    ) -> Result<(Payload, Option<SystemTime>)> {
        let mut out = Payload::new();
        let mut renew_at: Option<SystemTime> = None;
        let default_mode = source.default_mode;
        for (index, part) in source.sources.iter().flatten().enumerate() {
            let files = if let Some(s) = &part.secret {
                let named = Named { name: &s.name, items: s.items.as_ref(), default_mode, optional: s.optional };
                self.secret(&named).await?
            } else if let Some(c) = &part.config_map {
                let named = Named { name: &c.name, items: c.items.as_ref(), default_mode, optional: c.optional };
                self.config_map(&named).await?
            } else if let Some(d) = &part.downward_api {
                self.downward(d.items.as_deref().unwrap_or_default(), default_mode)?
            } else if let Some(t) = &part.service_account_token {
                let path = checked(self.volume, &t.path)?;
                let (data, at) = self.token(t, current.get(&path).cloned()).await?;
                renew_at = Some(renew_at.map_or(at, |r| r.min(at)));
                Payload::from([(path, self.private(data, default_mode))])
            } else if let Some(b) = &part.cluster_trust_bundle {
                let (files, at) = self.anchors(b, default_mode).await?;
                renew_at = Some(renew_at.map_or(at, |r| r.min(at)));
                files
            } else if let Some(c) = &part.pod_certificate {
                let (files, at) = self.certificate(c, index, default_mode).await?;
                renew_at = Some(renew_at.map_or(at, |r| r.min(at)));
                files
            } else {
                let field = "projected source".to_owned();
                return Err(Error::Unsupported { volume: self.volume.to_owned(), field });
            };
            out.extend(files);
        }
        Ok((out, renew_at))
    }

    /// A file for the pod's user or group alone, where that is known.
    fn private(&self, data: Vec<u8>, default_mode: Option<i32>) -> File {
        let owned = self.fs_group.is_some() || self.fs_user.is_some();
        File { data, mode: issue::private_mode(owned, default_mode), uid: self.fs_user }
    }

    fn problem(&self, why: Problem) -> Error {
        Error::Certificates { volume: self.volume.to_owned(), why: Box::new(why) }
    }

    async fn anchors(&self, source: &ClusterTrustBundleProjection, default_mode: Option<i32>) -> Result<(Payload, SystemTime)> {
        let path = checked(self.volume, &source.path)?;
        let (data, at) = self.certificates.anchors(self.kube, source).await.map_err(|why| self.problem(why))?;
        Ok((Payload::from([(path, self.private(data, default_mode))]), at))
    }

    async fn certificate(
        &self,
        source: &PodCertificateProjection,
        index: usize,
        default_mode: Option<i32>,
    ) -> Result<(Payload, SystemTime)> {
        let about = (self.kube, self.pod, self.context);
        let issued = self.certificates.credentials(about, (self.volume, index), source).await;
        let (issued, at) = issued.map_err(|why| self.problem(why))?;
        let paths =
            (source.credential_bundle_path.as_deref(), source.key_path.as_deref(), source.certificate_chain_path.as_deref());
        let mut out = Payload::new();
        for (path, data) in issue::files(paths, &issued) {
            out.insert(checked(self.volume, path)?, self.private(data, default_mode));
        }
        Ok((out, at))
    }

    /// The token that is there as long as it is young enough, else a new one; and when to renew it.
    async fn token(
        &self,
        projection: &ServiceAccountTokenProjection,
        current: Option<(Vec<u8>, SystemTime)>,
    ) -> Result<(Vec<u8>, SystemTime)> {
        let now = SystemTime::now();
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let audience = projection.audience.as_deref().filter(|a| !a.is_empty());
        let asked = Duration::from_secs(u64::try_from(projection.expiration_seconds.unwrap_or(3600)).unwrap_or(3600));
        let life = |token: &[u8], written: SystemTime| match token::life(token, uid, audience) {
            Some(life) => Some(life),
            // A token that says nothing of itself lives from when it was written for as long as was asked.
            None if token.iter().filter(|b| **b == b'.').count() != 2 => Some(Life { from: written, until: written + asked }),
            None => None,
        };
        let held = current.and_then(|(data, written)| Some((life(&data, written)?, data)));
        if let Some((life, data)) = &held
            && now < life.renew_at()
        {
            return Ok((data.clone(), life.renew_at()));
        }
        match (self.request(projection, audience).await, held) {
            (Ok(token), _) => {
                let until = life(token.as_bytes(), now).map_or(now + asked, |l| l.until);
                let life = life(token.as_bytes(), now).unwrap_or(Life { from: now, until });
                Ok((token.into_bytes(), life.renew_at().max(now + RETRY)))
            }
            (Err(error), Some((life, data))) if now < life.until => {
                tracing::warn!(pod_uid = uid, volume = self.volume, %error, "token not renewed yet, the old one still holds");
                Ok((data, now + RETRY))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn request(&self, projection: &ServiceAccountTokenProjection, audience: Option<&str>) -> Result<String> {
        let spec = self.pod.spec.as_ref();
        let account = spec.and_then(|s| s.service_account_name.as_deref()).filter(|a| !a.is_empty()).unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: audience.map(|a| vec![a.to_owned()]),
                expiration_seconds: projection.expiration_seconds,
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.kube.clone(), self.namespace());
        let answer = api.create_token_request(account, &PostParams::default(), &request).await;
        let (volume, account) = (self.volume.to_owned(), account.to_owned());
        match answer {
            Ok(answer) => {
                let token = answer.status.and_then(|s| s.token).filter(|t| !t.is_empty());
                token.ok_or(Error::TokenAnswer { volume, account, missing: "token" })
            }
            Err(source) => Err(Error::Token { volume, account, source: Box::new(source) }),
        }
    }
}
