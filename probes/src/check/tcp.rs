//! A container is well if its port takes a connection.

use super::{Outcome, dial};
use std::time::Duration;

pub(super) async fn probe(host: &str, port: u16, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, dial::connect(host, port)).await {
        Ok(Ok(_closed_here)) => Outcome::Success,
        Ok(Err(message)) => Outcome::Failure(message),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", dial::authority(host, port))),
    }
}

#[cfg(test)]
mod tests;
