//! Images, and credentials for pulling them.

use super::Labels;
use std::fmt;

/// Which image is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// A name with tag or digest, or an id.
    pub image: String,
    pub annotations: Labels,
    /// As the user wrote it.
    pub user_specified_image: String,
    /// Empty: the default one.
    pub runtime_handler: String,
    /// Only in answers.
    pub image_ref: String,
}

impl ImageSpec {
    pub fn new(image: impl Into<String>) -> Self {
        Self { image: image.into(), ..Self::default() }
    }
}

impl From<&str> for ImageSpec {
    fn from(image: &str) -> Self {
        Self::new(image)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub size_bytes: u64,
    /// The user the image wants, if it is a number.
    pub uid: Option<i64>,
    /// The user the image wants, if it is a name; else empty.
    pub username: String,
    pub spec: ImageSpec,
    /// Not to be garbage-collected (the pause image).
    pub pinned: bool,
}

/// What to show a registry. `Debug` says only which parts are given.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    pub username: String,
    pub password: String,
    /// Base64 of `user:password`, as in a dockerconfig.
    pub auth: String,
    pub server_address: String,
    pub identity_token: String,
    pub registry_token: String,
}

impl AuthConfig {
    /// What must never be seen in a log or an error.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        [&self.password, &self.auth, &self.identity_token, &self.registry_token]
            .into_iter()
            .map(String::as_str)
            .filter(|s| !s.is_empty())
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |s: &String| if s.is_empty() { "absent" } else { "given" };
        f.debug_struct("AuthConfig")
            .field("server_address", &self.server_address)
            .field("username", &given(&self.username))
            .field("password", &given(&self.password))
            .field("auth", &given(&self.auth))
            .field("identity_token", &given(&self.identity_token))
            .field("registry_token", &given(&self.registry_token))
            .finish()
    }
}

/// How full the file systems under images and containers are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFsInfo {
    pub image_filesystems: Vec<super::FilesystemUsage>,
    /// Empty from runtimes that keep containers with the images.
    pub container_filesystems: Vec<super::FilesystemUsage>,
}
