//! The life of a certificate for a pod: what a PodCertificateRequest says, and what is to be done next. Pure.

use super::anchors::cleaned;
use crate::volume::kinds::payload::DEFAULT_MODE;
use jiff::Timestamp;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// A request that nobody knows any more is made anew; one that nobody answers is waited for.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) name: String,
    /// Of the key that it is for; kept in memory only.
    pub(super) key: String,
}

/// A key and its certificates. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Issued {
    pub(super) key: String,
    pub(super) chain: Vec<u8>,
    pub(super) refresh_at: Timestamp,
    pub(super) not_after: Timestamp,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("refresh_at", &self.refresh_at).finish_non_exhaustive()
    }
}

/// All that is known of one source of one volume of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) issued: Option<Issued>,
    pub(super) request: Option<Request>,
    /// For good: the pod has to be made anew.
    pub(super) refused: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    Refused(&'a str),
    Use(&'a Issued),
    /// A new key, and a request for it.
    Ask,
    /// What came of the request?
    Look(&'a Request),
}

impl Slot {
    pub(super) fn next(&self, now: Timestamp) -> Next<'_> {
        match (&self.refused, &self.request, &self.issued) {
            (Some(why), _, _) => Next::Refused(why),
            (None, Some(request), _) => Next::Look(request),
            (None, None, Some(issued)) if now < issued.refresh_at => Next::Use(issued),
            (None, None, _) => Next::Ask,
        }
    }

    /// What holds still while a new one is waited for.
    pub(super) fn holds(&self, now: Timestamp) -> Option<&Issued> {
        self.issued.as_ref().filter(|issued| now < issued.not_after)
    }

    /// With what came of the request. `spread`, from 0 to 1, keeps pods from asking all at once.
    pub(super) fn learn(&mut self, answer: Answer, spread: f64) {
        let Some(Request { key, name }) = self.request.take() else { return };
        match answer {
            Answer::Pending => self.request = Some(Request { key, name }),
            Answer::Gone => {}
            Answer::Refused(why) => self.refused = Some(format!("PodCertificateRequest {name:?} {why}")),
            Answer::Issued { chain, refresh_at, not_after } => {
                // Five minutes at most, and never so long that it would be over.
                let room = not_after.duration_since(refresh_at).as_secs().clamp(0, 600) / 2;
                let late = jiff::SignedDuration::try_from(Duration::from_secs(room as u64).mul_f64(spread)).unwrap_or_default();
                let refresh_at = refresh_at.saturating_add(late).unwrap_or(refresh_at);
                self.issued = Some(Issued { key, chain, refresh_at, not_after });
            }
        }
    }
}

/// What came of a request so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Pending,
    /// There is no such request.
    Gone,
    Refused(String),
    Issued {
        chain: Vec<u8>,
        refresh_at: Timestamp,
        not_after: Timestamp,
    },
}

/// The part of a PodCertificateRequest that counts, whatever its version.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Wire {
    pub(super) metadata: Meta,
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Meta {
    pub(super) name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    conditions: Vec<Condition>,
    certificate_chain: String,
    begin_refresh_at: Option<Timestamp>,
    not_after: Option<Timestamp>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
}

pub(super) fn answer(wire: &Wire) -> Answer {
    for condition in wire.status.conditions.iter().filter(|c| c.status != "False") {
        let why = |what: &str| Answer::Refused(format!("{what}: reason={:?}, message={:?}", condition.reason, condition.message));
        match condition.kind.as_str() {
            "Denied" => return why("was denied"),
            "Failed" => return why("failed"),
            "Issued" => {
                let chain = cleaned(&wire.status.certificate_chain);
                let (Some(refresh_at), Some(not_after)) = (wire.status.begin_refresh_at, wire.status.not_after) else {
                    return Answer::Refused("was issued without beginRefreshAt and notAfter".to_owned());
                };
                if chain.is_empty() {
                    return Answer::Refused("was issued without a certificate".to_owned());
                }
                return Answer::Issued { chain, refresh_at, not_after };
            }
            _ => {}
        }
    }
    Answer::Pending
}

/// The files of the source: paths and what is in them.
pub(super) fn files<'a>(
    (bundle, key, chain): (Option<&'a str>, Option<&'a str>, Option<&'a str>),
    issued: &Issued,
) -> Vec<(&'a str, Vec<u8>)> {
    let given = |path: Option<&'a str>| path.filter(|path| !path.is_empty());
    let together = || [issued.key.as_bytes(), &issued.chain].concat();
    [
        given(bundle).map(|path| (path, together())),
        given(key).map(|path| (path, issued.key.as_bytes().to_vec())),
        given(chain).map(|path| (path, issued.chain.clone())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Readable by one user or by the pod's group, where that is known; else as the volume says.
pub(super) fn private_mode(owned: bool, default: Option<i32>) -> u32 {
    if owned { 0o600 } else { super::payload::mode(default.unwrap_or(DEFAULT_MODE)) }
}

#[cfg(test)]
mod tests;
