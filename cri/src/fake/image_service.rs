//! The image service of the fake.

use super::runtime_service::{Parts, around, parts};
use super::shared::Shared;
use super::state::{State, StoredImage, now};
use crate::pb;
use crate::pb::image_service_server::ImageService;
use futures::stream::BoxStream;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) struct Service(pub(super) Arc<Shared>);

type Answer<T> = Result<Response<T>, Status>;

fn wire(image: &StoredImage) -> pb::Image {
    pb::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image
            .tags
            .iter()
            .map(|tag| format!("{}@{}", tag.split([':', '@']).next().unwrap_or(tag), image.id))
            .collect(),
        size: image.config.size_bytes,
        uid: image.config.uid.map(|value| pb::Int64Value { value }),
        username: image.config.username.clone(),
        spec: None,
        pinned: image.config.pinned,
    }
}

fn name(spec: Option<pb::ImageSpec>) -> String {
    spec.map(|spec| spec.image).unwrap_or_default()
}

fn list(state: &State, filter: Option<pb::ImageFilter>) -> Vec<pb::Image> {
    let wanted = name(filter.and_then(|filter| filter.image));
    if wanted.is_empty() {
        return state.images.values().map(wire).collect();
    }
    state.image(&wanted).map(wire).into_iter().collect()
}

impl Service {
    async fn pull(&self, request: pb::PullImageRequest) -> Result<pb::PullImageResponse, Status> {
        let name = name(request.image);
        let failed = |why: &str| format!("failed to pull and unpack image {name:?}: failed to resolve reference {name:?}: {why}");
        let (registered, present) =
            self.0.with(|state| (state.registry.get(&name).cloned(), state.image(&name).map(|image| image.id.clone())));
        let Some(config) = registered else {
            return match present {
                // The registry is asked even if the image is there, so this is what an offline node sees.
                Some(_) => Err(Status::unknown(failed("failed to do request: dial tcp: lookup registry: no such host"))),
                None => Err(Status::not_found(failed(&format!("{name}: not found")))),
            };
        };
        if let Some((user, password)) = &config.credentials {
            let auth = request.auth.unwrap_or_default();
            if (&auth.username, &auth.password) != (user, password) {
                // Registries have been seen to quote what they were shown.
                let shown = format!(
                    "pull access denied for {}:{}: insufficient_scope: authorization failed",
                    auth.username, auth.password
                );
                return Err(Status::unknown(failed(&shown)));
            }
        }
        tokio::time::sleep(config.pull_time).await;
        let image_ref = self.0.with(|state| state.add_image(&name, config));
        self.0.touch();
        Ok(pb::PullImageResponse { image_ref })
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    type StreamImagesStream = BoxStream<'static, Result<pb::StreamImagesResponse, Status>>;

    async fn pull_image(&self, request: Request<pb::PullImageRequest>) -> Answer<pb::PullImageResponse> {
        let request = request.into_inner();
        let ids = vec![name(request.image.clone())];
        around(&self.0, "PullImage", ids, self.pull(request)).await
    }

    async fn image_status(&self, request: Request<pb::ImageStatusRequest>) -> Answer<pb::ImageStatusResponse> {
        let name = name(request.into_inner().image);
        let work = async {
            let image = self.0.with(|state| state.image(&name).map(wire));
            Ok(pb::ImageStatusResponse { image, info: Default::default() })
        };
        around(&self.0, "ImageStatus", vec![name.clone()], work).await
    }

    async fn list_images(&self, request: Request<pb::ListImagesRequest>) -> Answer<pb::ListImagesResponse> {
        let filter = request.into_inner().filter;
        let work = async { Ok(pb::ListImagesResponse { images: self.0.with(|state| list(state, filter)) }) };
        around(&self.0, "ListImages", Vec::new(), work).await
    }

    async fn stream_images(&self, request: Request<pb::StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        let filter = request.into_inner().filter;
        let wrap = |images| pb::StreamImagesResponse { images };
        let work = async { Ok(parts(self.0.with(|state| list(state, filter)), wrap)) };
        let answer: Response<Parts<_>> = around(&self.0, "StreamImages", Vec::new(), work).await?;
        Ok(answer.map(|parts| parts.0))
    }

    async fn remove_image(&self, request: Request<pb::RemoveImageRequest>) -> Answer<pb::RemoveImageResponse> {
        let name = name(request.into_inner().image);
        let work = async {
            self.0.with(|state| {
                if let Some(id) = state.image(&name).map(|image| image.id.clone()) {
                    state.images.remove(&id);
                }
            });
            Ok(pb::RemoveImageResponse {})
        };
        around(&self.0, "RemoveImage", vec![name.clone()], work).await
    }

    async fn image_fs_info(&self, _: Request<pb::ImageFsInfoRequest>) -> Answer<pb::ImageFsInfoResponse> {
        let work = async {
            let used = self.0.with(|state| state.images.values().map(|image| image.config.size_bytes).sum());
            let usage = pb::FilesystemUsage {
                timestamp: now(),
                fs_id: Some(pb::FilesystemIdentifier { mountpoint: "/".into() }),
                used_bytes: Some(pb::UInt64Value { value: used }),
                inodes_used: Some(pb::UInt64Value { value: 10 }),
            };
            Ok(pb::ImageFsInfoResponse { image_filesystems: vec![usage], container_filesystems: Vec::new() })
        };
        around(&self.0, "ImageFsInfo", Vec::new(), work).await
    }
}
