//! What the configuration means for a node without an API server. Pure.
//!
//! The server's defaults ask the API who somebody is and what they may; here that cannot be. Facts from `cmd/kubelet/app/auth.go`.

use super::{AuthorizationMode, Config, Problem};

/// Before the file is read: it wins.
pub(super) fn defaults(config: &mut Config) {
    config.authentication.webhook = false;
}

/// What the file asks of an API server that is not there.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |path: &str, detail: &str| problems.push(Problem { path: path.into(), detail: detail.into() });
    if config.authentication.webhook {
        problem("authentication.webhook.enabled", "no client provided, cannot use webhook authentication");
    }
    // Without an authority nobody can show who they are, and nobody is ever asked about.
    if config.authentication.client_ca_file.is_some() && config.authorization.mode == AuthorizationMode::Webhook {
        problem(
            "authorization.mode",
            "no client provided, cannot use webhook authorization; AlwaysAllow lets in whoever has a certificate of clientCAFile",
        );
    }
    problems
}
