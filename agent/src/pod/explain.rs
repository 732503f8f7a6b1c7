//! What a pod waits for, and since when. Pure.
//!
//! `explain` reads what the actor has in hand anyway: the actions under way and how far they are, the failures that are waited
//! out, the runtime's containers, the probes' verdicts. Nothing is kept for it but times, and it is called only when
//! somebody asks. A pod that is where it should be waits for nothing. It never decides what happens next (that is `plan`) nor
//! what the API is told (`status`).

mod active;
mod ending;
mod text;

use crate::pod::backoff::{Backoffs, Failure, Subject};
use crate::pod::desired::Desired;
use crate::pod::lifecycle::Lifecycle;
use crate::pod::observed::{Observed, Verdicts};
use crate::pod::plan::Action;
use crate::pod::stage::Progress;
use crate::pod::{Time, elapsed};
use k8s_openapi::api::core::v1 as api;
pub use text::{span, tidy};

/// One thing that a pod waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub what: String,
    pub since: Time,
}

/// How a pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `Ready`, `Terminating`, or the phase.
    pub state: String,
    /// The first is what matters most. Empty: the pod is where it should be.
    pub waits: Vec<Wait>,
}

/// Something that goes on failing: since when, and with which words last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub since: Time,
    pub why: String,
}

/// An action that has been started and is not done.
#[derive(Debug, Clone)]
pub struct UnderWay<'a> {
    pub action: &'a Action,
    pub since: Time,
    pub progress: Progress,
}

pub struct Inputs<'a> {
    pub desired: &'a Desired,
    pub lifecycle: &'a Lifecycle,
    /// When the pod came into that part of its life.
    pub entered: Time,
    /// When the pod was first seen by this agent.
    pub begun: Time,
    pub observed: &'a Observed,
    pub verdicts: &'a Verdicts,
    /// With the probes' own words.
    pub probes: &'a ferrolet_probes::Verdicts,
    pub backoffs: &'a Backoffs,
    pub under_way: &'a [UnderWay<'a>],
    /// The status last computed.
    pub status: &'a api::PodStatus,
    /// The runtime does not answer.
    pub runtime: Option<&'a Trouble>,
    /// Actions have been cut off, and what came of them is not known yet.
    pub unsure: Option<Time>,
    /// The API does not take the status.
    pub report: Option<&'a Trouble>,
    pub now: Time,
}

/// What matters most comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Nothing else can go on.
    Blocks,
    /// It was tried and failed.
    Fails,
    /// It takes its time.
    Lasts,
    /// It holds up nothing else.
    Beside,
}

/// Where waits are gathered.
#[derive(Default)]
struct Waits(Vec<(Weight, Wait)>);

impl Waits {
    fn add(&mut self, weight: Weight, since: Time, what: impl Into<String>) {
        self.0.push((weight, Wait { what: tidy(&what.into()), since }));
    }

    fn sorted(mut self) -> Vec<Wait> {
        self.0.sort_by_key(|(weight, _)| *weight);
        self.0.into_iter().map(|(_, wait)| wait).collect()
    }
}

pub fn explain(i: &Inputs<'_>) -> Standing {
    let mut out = Waits::default();
    if let Some(trouble) = i.runtime {
        out.add(Weight::Blocks, trouble.since, format!("{}the container runtime does not answer: {}", i.prefix(), trouble.why));
    } else if let Some(since) = i.unsure {
        out.add(Weight::Blocks, since, format!("{}the container runtime is asked what came of an interrupted call", i.prefix()));
    }
    match i.lifecycle {
        Lifecycle::Active => active::waits(i, &mut out),
        Lifecycle::Terminating { deadline, .. } => ending::stops(i, Some(*deadline), &mut out),
        Lifecycle::Terminated { .. } => ending::taken_down(i, &mut out),
        Lifecycle::Finished { .. } => ending::finished(i, &mut out),
    }
    let finished = matches!(i.lifecycle, Lifecycle::Finished { .. });
    if let Some(trouble) = i.report.filter(|_| !finished) {
        out.add(Weight::Beside, trouble.since, format!("the API server has not taken the pod's status: {}", trouble.why));
    }
    Standing { state: i.state(), waits: out.sorted() }
}

impl<'a> Inputs<'a> {
    fn state(&self) -> String {
        if self.desired.deletion.is_some() || matches!(self.lifecycle, Lifecycle::Terminating { .. }) {
            return "Terminating".to_owned();
        }
        if self.condition("Ready").is_some_and(|c| c.status == "True") {
            return "Ready".to_owned();
        }
        self.status.phase.clone().unwrap_or_else(|| "Pending".to_owned())
    }

    fn condition(&self, name: &str) -> Option<&'a api::PodCondition> {
        self.status.conditions.iter().flatten().find(|c| c.type_ == name)
    }

    /// When a condition last changed, if that is known.
    fn changed(&self, name: &str) -> Option<Time> {
        self.condition(name)?.last_transition_time.as_ref().map(|t| t.0)
    }

    fn doing(&self, which: impl Fn(&Action) -> bool) -> Option<&'a UnderWay<'a>> {
        self.under_way.iter().find(|u| which(u.action))
    }

    fn failure(&self, subject: &Subject) -> Option<&'a Failure> {
        self.backoffs.failures.get(subject)
    }

    /// What is said of something that failed: when it is tried again, or that it is.
    fn again(&self, failure: &Failure, under_way: bool) -> String {
        let left = elapsed(self.now, failure.until.min(crate::pod::after(self.now, failure.delay)));
        if under_way || left.is_zero() { "tried again now".to_owned() } else { format!("next try in {}", span(left)) }
    }

    /// Failing, or only under way, or neither. The words say first that it goes on, and then that it cannot be done.
    fn attempt(&self, subject: &Subject, doing: Option<&UnderWay<'_>>, words: [&str; 2], least: Weight, out: &mut Waits) {
        let [going, cannot] = words;
        match (self.failure(subject), doing) {
            (Some(f), doing) => {
                out.add(
                    least.max(Weight::Fails),
                    f.since,
                    format!("{cannot}: {}; {}", f.message, self.again(f, doing.is_some())),
                );
            }
            (None, Some(doing)) => out.add(least.max(Weight::Lasts), doing.progress.since, going),
            (None, None) => {}
        }
    }

    /// In front of everything that is said of a pod which is being ended.
    fn prefix(&self) -> &'static str {
        match self.lifecycle {
            Lifecycle::Active => "",
            _ if self.desired.deletion.is_some() => "terminating: ",
            _ => "ending: ",
        }
    }
}

#[cfg(test)]
mod tests;
