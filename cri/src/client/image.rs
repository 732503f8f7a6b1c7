//! Calls about images.

use super::Client;
use super::calls::{about, answer, asking, gone_is_done, request};
use super::features::Optional;
use crate::convert::{from, to};
use crate::error::Error;
use crate::pb;
use crate::types::{AuthConfig, Image, ImageFsInfo, ImageSpec, SandboxConfig};

impl Client {
    /// The image, or `None` if it is not on this node.
    pub async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>, Error> {
        const METHOD: &str = "ImageStatus";
        let message = pb::ImageStatusRequest { image: Some(request(METHOD, to::image_required(image))?), verbose: false };
        let service = self.images();
        match self.query(about(METHOD, &image.image), asking!(service, message, image_status)).await {
            Ok(reply) => answer(METHOD, from::image_status(reply)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches the image and answers its digest or id, which is what a container should be made from.
    pub async fn pull_image(
        &self,
        image: &ImageSpec,
        auth: Option<&AuthConfig>,
        sandbox: &SandboxConfig,
    ) -> Result<String, Error> {
        const METHOD: &str = "PullImage";
        let message = pb::PullImageRequest {
            image: Some(request(METHOD, to::image_required(image))?),
            auth: auth.map(to::auth),
            sandbox_config: Some(request(METHOD, to::sandbox_config(sandbox))?),
        };
        let mut service = self.images();
        let reply = self.call(about(METHOD, &image.image), self.deadlines().pull, service.pull_image(message)).await;
        let reply = reply.map_err(|error| without_secrets(error, auth))?;
        answer(METHOD, from::id("image_ref", reply.image_ref))
    }

    pub async fn list_images(&self) -> Result<Vec<Image>, Error> {
        const METHOD: &str = "ListImages";
        let service = self.images();
        let streamed = {
            let message = pb::StreamImagesRequest { filter: None };
            let open = asking!(service, message, stream_images);
            self.collect(Optional::StreamImages, about("StreamImages", ""), open, |part| part.images).await?
        };
        let items = match streamed {
            Some(items) => items,
            None => {
                let message = pb::ListImagesRequest { filter: None };
                self.query(about(METHOD, ""), asking!(service, message, list_images)).await?.images
            }
        };
        answer(METHOD, from::images(items))
    }

    /// Not there: that is a success.
    pub async fn remove_image(&self, image: &ImageSpec) -> Result<(), Error> {
        const METHOD: &str = "RemoveImage";
        let message = pb::RemoveImageRequest { image: Some(request(METHOD, to::image_required(image))?) };
        let mut service = self.images();
        gone_is_done(self.call(about(METHOD, &image.image), self.deadlines().mutate, service.remove_image(message)).await)
    }

    pub async fn image_fs_info(&self) -> Result<ImageFsInfo, Error> {
        const METHOD: &str = "ImageFsInfo";
        let mut service = self.images();
        let reply = service.image_fs_info(pb::ImageFsInfoRequest {});
        Ok(from::image_fs_info(self.call(about(METHOD, ""), self.deadlines().query, reply).await?))
    }
}

/// A registry's complaint may quote what it was shown.
fn without_secrets(error: Error, auth: Option<&AuthConfig>) -> Error {
    match (error, auth) {
        (Error::Call { method, object, code, mut message }, Some(auth)) => {
            for secret in auth.secrets() {
                message = message.replace(secret, "[redacted]");
            }
            Error::Call { method, object, code, message }
        }
        (error, _) => error,
    }
}
