//! What the host's administrator has set aside for pods: the subordinate ids of the user `kubelet`, told by `getsubids`.

use super::{Error, Range, subids};
use std::time::Duration;
use tokio::process::Command;

const USER: &str = "kubelet";
const TOOL: &str = "getsubids";
/// The tool may ask a directory service.
const LIMIT: Duration = Duration::from_secs(30);

/// The ids for pods. Without that user or that tool it is the whole range; a user without ids is an error, as the service that
/// knows them may just not answer.
pub async fn range(ids_per_pod: u32, max_pods: u32) -> Result<Range, Error> {
    let user = tokio::task::spawn_blocking(|| nix::unistd::User::from_name(USER)).await;
    let user = user.map_err(|e| Error::Range(e.to_string()))?;
    if user.map_err(|e| Error::Range(format!("looking up user {USER:?}: {e}")))?.is_none() {
        return Range::whole(ids_per_pod, max_pods);
    }
    let Some(users) = ask(&[USER]).await? else { return Range::whole(ids_per_pod, max_pods) };
    if ask(&["-g", USER]).await?.as_ref() != Some(&users) {
        return Err(Error::Range(format!("mismatched subuids and subgids for user {USER:?}")));
    }
    let (first, length) = subids(&users).map_err(Error::Range)?;
    Range::new(first, u64::from(length), ids_per_pod, max_pods)
}

/// `None` if the tool is not installed.
async fn ask(args: &[&str]) -> Result<Option<String>, Error> {
    let failed = |why: String| Error::Range(format!("{TOOL} {}: {why}", args.join(" ")));
    let asked = Command::new(TOOL).args(args).kill_on_drop(true).output();
    match tokio::time::timeout(LIMIT, asked).await {
        Err(_) => Err(failed("did not answer".to_owned())),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(output)) if output.status.success() => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(Ok(output)) => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
