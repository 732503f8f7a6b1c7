//! The HTTP request of a lifecycle hook.
//!
//! Any answer will do, whatever its status. A server that answers an HTTPS request in the clear is asked again without TLS, and
//! without the header that would give a secret away.

use super::http::{self, Unheard};
use crate::spec::{Check, Scheme};
use std::time::Duration;

const USER_AGENT: &str = "kube-lifecycle/1.36";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookAnswer {
    Answered,
    /// HTTPS was asked for, and the second request went without.
    InTheClear {
        server: String,
    },
}

/// `check` is that of an HTTP handler. The error is a whole message. Without a limit the server may take its time.
pub async fn http_hook(check: &Check, limit: Option<Duration>) -> Result<HookAnswer, String> {
    let Check::Http { host, port, path, scheme, headers } = check else {
        return Err("the hook is not an HTTP request".to_owned());
    };
    let request = http::Request { scheme: *scheme, host, port: *port, path, headers };
    match http::reach(&request, USER_AGENT, limit).await {
        Ok(_) => Ok(HookAnswer::Answered),
        Err(Unheard::Other(why)) => Err(why),
        Err(Unheard::InTheClear(_)) => {
            let open: Vec<_> = headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("authorization")).cloned().collect();
            let request = http::Request { scheme: Scheme::Http, headers: &open, ..request };
            match http::reach(&request, USER_AGENT, limit).await {
                Ok(server) => Ok(HookAnswer::InTheClear { server }),
                Err(Unheard::Other(why) | Unheard::InTheClear(why)) => Err(why),
            }
        }
    }
}

#[cfg(test)]
mod tests;
