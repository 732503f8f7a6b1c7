//! The node's own docker config: files in the places where kubelet looks for them.
//!
//! Reads only, each time anew: a file that is changed counts from the next pull on. The first that can be read is the one.

use super::auth::DockerConfig;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A larger file is no docker config.
const MAX: u64 = 1 << 20;

type Parse = fn(&[u8]) -> Result<DockerConfig, super::auth::BadConfig>;

/// Where to look, in this order.
#[derive(Debug, Clone, Default)]
pub struct Places(Vec<(PathBuf, Parse)>);

impl Places {
    /// The agent's root, its working folder and its user's home; `/` is the host's.
    pub fn new(root_dir: &Path, here: Option<&Path>, home: Option<&Path>) -> Places {
        let host = Path::new("/");
        let json = [Some(root_dir.to_owned()), here.map(Into::into), home.map(|h| h.join(".docker")), Some(host.join(".docker"))];
        let legacy = [Some(root_dir), here, home, Some(host)];
        let json = json.into_iter().flatten().map(|folder| (folder.join("config.json"), DockerConfig::json as Parse));
        let legacy = legacy.into_iter().flatten().map(|folder| (folder.join(".dockercfg"), DockerConfig::legacy as Parse));
        Places(json.chain(legacy).collect())
    }

    /// What the first file says, and what is wrong with those before it. Blocks.
    pub fn read(&self) -> (DockerConfig, Vec<String>) {
        let mut problems = Vec::new();
        for (path, parse) in &self.0 {
            let why = match slurp(path) {
                Ok(bytes) => match parse(&bytes) {
                    Ok(config) => return (config, problems),
                    Err(why) => why.to_string(),
                },
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(error) => error.to_string(),
            };
            problems.push(format!("the node's {}: {why}", path.display()));
        }
        (DockerConfig::default(), problems)
    }
}

fn slurp(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe without a writer would keep whoever opens it waiting.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
