//! Runs a credential provider's program: the question on its standard input, the answer on its standard output.
//!
//! Bounded in time and in what is read of it. When it is over, in whatever way, the program and all that it started are ended.

use super::{Error, Provider};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub(super) const LIMIT: Duration = Duration::from_secs(60);
const ANSWER_MAX: usize = 1 << 20;
/// Of what it says of itself, for the log.
const SAID_MAX: usize = 1024;

/// Its process group, ended at last.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// What it wrote. `hidden` must not be seen in the log, whatever the program says.
pub(super) async fn program(path: &Path, provider: &Provider, question: &[u8], hidden: Option<&str>) -> Result<Vec<u8>, Error> {
    let mut command = Command::new(path);
    command.args(&provider.args).envs(provider.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| Error::Start(error.to_string()))?;
    let _group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    timeout(LIMIT, talk(&mut child, provider, question, hidden)).await.unwrap_or_else(|_| {
        tracing::warn!(provider = provider.name, limit = ?LIMIT, "a credential provider did not end and was killed");
        Err(Error::Timeout(LIMIT))
    })
}

async fn talk(child: &mut Child, provider: &Provider, question: &[u8], hidden: Option<&str>) -> Result<Vec<u8>, Error> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ask = async {
        // One that does not want to know closes it.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(question).await;
        }
    };
    let ((), (answer, large), (said, _)) = tokio::join!(ask, most(stdout, ANSWER_MAX), most(stderr, SAID_MAX));
    let status = child.wait().await.map_err(|error| Error::Failed(error.to_string()))?;
    if !status.success() {
        let said = shown(&said, hidden);
        tracing::warn!(provider = provider.name, %status, said, "a credential provider failed");
        return Err(Error::Failed(status.to_string()));
    }
    if large { Err(Error::Large(ANSWER_MAX)) } else { Ok(answer) }
}

/// At most so much of a stream, and whether there was more; the rest is read and dropped, so that nobody waits to write it.
async fn most(stream: Option<impl AsyncRead + Unpin>, max: usize) -> (Vec<u8>, bool) {
    let Some(mut stream) = stream else { return (Vec::new(), false) };
    let mut bytes = Vec::new();
    let _ = (&mut stream).take(max as u64).read_to_end(&mut bytes).await;
    let more = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    (bytes, more.is_ok_and(|n| n > 0))
}

/// For the log: one line, without the token that the program was shown.
fn shown(said: &[u8], hidden: Option<&str>) -> String {
    let text = String::from_utf8_lossy(said);
    let text = match hidden {
        Some(token) => text.replace(token, "(token)"),
        None => text.into_owned(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
