//! Images that are there and images that are not.

use super::{Params, Result, Tried, check, sandbox_config};
use crate::Client;
use crate::types::*;

pub(super) async fn status(client: &Client, params: &Params) -> Result {
    let image = client.image_status(&ImageSpec::new(&params.image)).await.tried("status")?;
    let image = image.ok_or_else(|| format!("the image {} is not there", params.image))?;
    check!(image.repo_tags.iter().any(|tag| tag.ends_with(&params.image)), "its names are {:?}", image.repo_tags);
    check!(image.size_bytes > 0, "it has no size");
    let same = client.image_status(&ImageSpec::new(&image.id)).await.tried("status by id")?;
    check!(same.as_ref().is_some_and(|same| same.id == image.id), "by its id it is {same:?}");
    let list = client.list_images().await.tried("list")?;
    check!(list.iter().any(|entry| entry.id == image.id), "it is not in the list");
    let usage = client.image_fs_info().await.tried("file systems")?;
    check!(usage.image_filesystems.iter().all(|fs| !fs.mountpoint.is_empty()), "file systems: {usage:?}");
    check!(!usage.image_filesystems.is_empty(), "there is no file system for images");
    Ok(())
}

pub(super) async fn absent(client: &Client, params: &Params) -> Result {
    let absent = ImageSpec::new(&params.absent_image);
    let status = client.image_status(&absent).await.tried("status")?;
    check!(status.is_none(), "an image that is not there: {status:?}");
    client.remove_image(&absent).await.tried("removal of an absent image")?;
    let auth = AuthConfig { username: "user".into(), password: "quite-a-secret".into(), ..Default::default() };
    let pulled = client.pull_image(&absent, Some(&auth), &sandbox_config(params, "pull")).await;
    let error = match pulled {
        Err(error) => error,
        Ok(reference) => return Err(format!("an image that no registry has was pulled: {reference}")),
    };
    check!(!format!("{error} {error:?}").contains("quite-a-secret"), "the error tells the password");
    let refused = client.image_status(&ImageSpec::default()).await;
    check!(matches!(refused, Err(crate::Error::Request { .. })), "an empty name: {refused:?}");
    Ok(())
}
