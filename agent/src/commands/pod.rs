//! `ferrolet pod`: what the pods of this node wait for, and since when.
//!
//! Owns the arguments, the question and its answer as they go over the socket, and the text of it. It knows nothing of pods itself:
//! the running daemon does.

use super::socket;
use crate::dispatch::ask::{Source, Told, Which};
use crate::pod::explain::span;
use crate::pod::{Time, elapsed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Says what a pod of this node waits for, and since when; without a name, of all of them, one line each
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "ferrolet pod")]
pub struct Args {
    /// The pod; without a namespace in all of them
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub pod: Option<String>,
    /// The form of the answer
    #[arg(short = 'o', long, value_name = "FORMAT", value_parser = ["json"])]
    pub output: Option<String>,
    /// The root folder of the daemon that is asked
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Log verbosity, as of the daemon
    #[arg(short = 'v', long = "v", value_name = "LEVEL", default_value_t = 0)]
    pub v: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not of the form NAME or NAMESPACE/NAME")]
    Name(String),
    #[error(transparent)]
    Socket(#[from] socket::Error),
    #[error("no ferrolet answers at {}: start it, or name its --root-dir", .0.display())]
    Nobody(PathBuf),
    #[error("the answer was not one about pods")]
    OtherAnswer,
    #[error("there is no pod {0} on this node")]
    Unknown(String),
    #[error("there are pods {name} in several namespaces, say which: {}", .all.join(", "))]
    Ambiguous { name: String, all: Vec<String> },
}

/// Which pods: what crosses the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    #[serde(default)]
    pub namespace: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
}

/// Longer ones are none in Kubernetes.
const LONGEST_NAME: usize = 253;

impl Ask {
    fn read(text: Option<&str>) -> Result<Ask, Error> {
        let Some(text) = text else { return Ok(Ask::default()) };
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let usable = |part: &str| (1..=LONGEST_NAME).contains(&part.len()) && !part.contains('/');
        if !usable(name) || !namespace.is_none_or(usable) {
            return Err(Error::Name(text.chars().take(80).collect()));
        }
        Ok(Ask { namespace: namespace.map(str::to_owned), name: Some(name.to_owned()) })
    }

    pub fn which(self) -> Which {
        Which { namespace: self.namespace, name: self.name }
    }
}

/// One pod, as it crosses the socket and as `-o json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Who wants the pod: api, static, gone (the API server has it no longer) or runtime (only the runtime has it)
    pub source: Source,
    /// Ready, Terminating, or its phase
    pub state: String,
    /// The first is what matters most; none: the pod is where it should be.
    pub waits: Vec<Wait>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    #[serde(rename = "for")]
    pub what: String,
    /// RFC 3339
    pub since: String,
    pub seconds: u64,
}

/// Waits of one pod in an answer about it, and about all.
const MOST: usize = 32;
/// Characters of the one line of a pod among all.
const SHORT: usize = 300;

/// The answer, ordered by name. It stays within what the socket carries: of many pods only what matters most is said.
pub fn reports(told: Vec<Told>, one: bool, now: Time) -> Vec<Report> {
    let wait = |w: &crate::pod::explain::Wait| Wait {
        what: if one { w.what.clone() } else { cut(&w.what) },
        since: Time::from_second(w.since.as_second()).unwrap_or(w.since).to_string(),
        seconds: elapsed(w.since, now).as_secs(),
    };
    let report = |t: Told| Report {
        waits: t.standing.waits.iter().take(if one { MOST } else { 1 }).map(wait).collect(),
        namespace: t.id.namespace,
        name: t.id.name,
        uid: t.id.uid,
        source: t.source,
        state: t.standing.state,
    };
    let mut all: Vec<Report> = told.into_iter().map(report).collect();
    all.sort_by(|a, b| (&a.namespace, &a.name, &a.uid).cmp(&(&b.namespace, &b.name, &b.uid)));
    all
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHORT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

impl Report {
    fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn origin(&self) -> &'static str {
        match self.source {
            Source::Api => "",
            Source::Static => ", static",
            Source::Gone => ", gone from the API server",
            Source::Runtime => ", only in the container runtime",
        }
    }

    /// One line, and further ones for what it waits for besides.
    fn text(&self) -> String {
        let (title, state, origin) = (self.title(), &self.state, self.origin());
        let Some((first, others)) = self.waits.split_first() else {
            return format!("{title} ({state}{origin}): waits for nothing\n");
        };
        let mut out = format!("{title} ({state}{origin}): {}, since {} ({})\n", first.what, first.since, first.span());
        for w in others {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "  also: {}, since {} ({})", w.what, w.since, w.span());
        }
        out
    }
}

impl Wait {
    fn span(&self) -> String {
        span(Duration::from_secs(self.seconds))
    }
}

/// All pods, one line each.
fn table(all: &[Report]) -> String {
    let row = |r: &Report| match r.waits.first() {
        Some(w) => [r.title(), r.state.clone(), w.span(), w.what.clone()],
        None => [r.title(), r.state.clone(), "-".into(), "-".into()],
    };
    let head = ["POD", "STATE", "FOR", "WAITS FOR"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(all.iter().map(row)).collect();
    let width = |n: usize| rows.iter().map(|r| r[n].chars().count()).max().unwrap_or(0);
    let (a, b, c) = (width(0), width(1), width(2));
    rows.iter().map(|[pod, state, since, what]| format!("{pod:<a$}  {state:<b$}  {since:<c$}  {what}\n")).collect()
}

/// Asks the running daemon; what is to be printed.
pub async fn run(args: &Args) -> Result<String, Error> {
    let ask = Ask::read(args.pod.as_deref())?;
    let answer = socket::ask(&args.root_dir, &socket::Request::Pods(ask.clone())).await?;
    let all = match answer {
        Some(socket::Answer::Pods(all)) => all,
        Some(_) => return Err(Error::OtherAnswer),
        None => return Err(Error::Nobody(args.root_dir.join(socket::NAME))),
    };
    said(&ask, &all, args.output.is_some())
}

fn said(ask: &Ask, all: &[Report], json: bool) -> Result<String, Error> {
    if let Some(name) = &ask.name {
        if all.is_empty() {
            let place = ask.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
            return Err(Error::Unknown(format!("{place}{name}")));
        }
        let namespaces: BTreeSet<&str> = all.iter().map(|r| r.namespace.as_str()).collect();
        if namespaces.len() > 1 {
            let all = namespaces.iter().map(|namespace| format!("{namespace}/{name}")).collect();
            return Err(Error::Ambiguous { name: name.clone(), all });
        }
    }
    Ok(match (json, ask.name.is_some()) {
        (true, _) => format!("{:#}\n", serde_json::json!({ "pods": all })),
        (false, true) => all.iter().map(Report::text).collect(),
        (false, false) => table(all),
    })
}

#[cfg(test)]
mod tests;
