//! What follows the end of a container: every combination of policies, rules, exit code, delay, a changed image and health,
//! against the API's rules told again.

use super::tables::{at, container, next, ready_local, sandbox, t};
use super::*;
use crate::pod::observed::Verdict;
use crate::pod::testing::desired;
use serde_json::{Value, json};

const POD_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const OWN_POLICIES: [Option<&str>; 4] = [None, Some("Always"), Some("OnFailure"), Some("Never")];
/// Ended well, badly, with a code of its own, by SIGKILL, by SIGTERM, out of the range of processes.
const CODES: [i32; 6] = [0, 1, 42, 137, 143, 255];

/// Each rule: whether it is `In`, and its exit codes.
type Rules = &'static [(bool, &'static [i32])];
const RULES: [Rules; 8] = [
    &[],
    &[(true, &[42])],
    &[(false, &[42])],
    &[(true, &[0])],
    &[(false, &[0, 42])],
    &[(true, &[1]), (true, &[42, 137])],
    &[(true, &[7]), (false, &[0, 1, 42, 137])],
    &[(true, &[])],
];

/// How long ago the container ended, and what its crash loop says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delay {
    First,
    Due,
    Pending,
    /// It ran well for more than ten minutes, and would otherwise have to wait.
    LongRun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    pod: &'static str,
    own: Option<&'static str>,
    rules: Rules,
    init: bool,
    code: i32,
    delay: Delay,
    /// The spec has another image by now.
    changed: bool,
    /// The agent ended it in order to start it again.
    replaced: bool,
    unhealthy: bool,
    /// Another main container still runs.
    company: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// At once, and with this delay for the one after.
    Starts(u64),
    /// Not before this second.
    Waits(i64),
    /// The pod is over.
    Ends,
    /// It stays ended, and the rest goes on.
    Stays,
}

impl Case {
    fn again(&self) -> bool {
        if self.replaced {
            return true;
        }
        // Rules without a policy of the container's own are no rules.
        let rule = |(is_in, codes): &(bool, &[i32])| codes.contains(&self.code) == *is_in;
        if self.own.is_some() && self.rules.iter().any(rule) {
            return true;
        }
        match self.own.unwrap_or(self.pod) {
            "Always" => true,
            "OnFailure" => self.code != 0 || self.unhealthy,
            _ => false,
        }
    }

    fn expected(&self) -> Expected {
        if self.init && self.code == 0 {
            return Expected::Stays;
        }
        if !self.again() {
            return if self.company && !self.init { Expected::Stays } else { Expected::Ends };
        }
        match self.delay {
            _ if self.changed => Expected::Starts(10),
            Delay::First | Delay::LongRun => Expected::Starts(10),
            Delay::Due => Expected::Starts(40),
            Delay::Pending => Expected::Waits(21),
        }
    }

    fn spec(&self) -> Value {
        let mut c = json!({"name": "it", "image": "img:1"});
        if let Some(own) = self.own {
            c["restartPolicy"] = json!(own);
        }
        let rules = self.rules.iter().map(|(is_in, codes)| {
            let operator = if *is_in { "In" } else { "NotIn" };
            json!({"action": "Restart", "exitCodes": {"operator": operator, "values": codes}})
        });
        c["restartPolicyRules"] = rules.collect();
        c
    }

    /// The pod for it; the same for all cases that differ only in what happened.
    fn desired(&self) -> Desired {
        let other = json!({"name": "other", "image": "img:1"});
        desired(match self.init {
            true => json!({"restartPolicy": self.pod, "initContainers": [self.spec()], "containers": [other]}),
            false if self.company => json!({"restartPolicy": self.pod, "containers": [self.spec(), other]}),
            false => json!({"restartPolicy": self.pod, "containers": [self.spec()]}),
        })
    }

    fn check(&self, d: &Desired) {
        let mut it =
            container("it", State::Exited { code: self.code, finished_at: t(1), reason: String::new(), message: String::new() });
        it.backoff = Duration::from_secs(if self.delay == Delay::First { 0 } else { 20 });
        if self.delay == Delay::LongRun {
            it.created_at = t(-700);
        }
        it.hash = Some(if self.changed { "another".into() } else { d.container("it").unwrap().hash.clone() });
        let mut containers = vec![it];
        if self.company && !self.init {
            containers.push(container("other", State::Running));
        }
        let mut o = Observed { sandboxes: vec![sandbox(true)], containers, local: ready_local(), stale: false };
        o.local.images = [("it".to_owned(), 9)].into();
        if self.replaced {
            o.local.replaced.insert("it-0".into());
        }
        let mut v = Verdicts::default();
        if self.unhealthy {
            v.0.insert("it".into(), Verdict { container_id: "it-0".into(), liveness: Some(false), ..Default::default() });
        }
        let step = at(d, &o, &v, if self.delay == Delay::Due { 21 } else { 2 });
        let start = step.actions.iter().find_map(|a| match a {
            Action::StartContainer { name, attempt, backoff, .. } if name == "it" => Some((*attempt, backoff.as_secs())),
            _ => None,
        });
        let told = || format!("{self:?}: {step:?}");
        match self.expected() {
            Expected::Starts(next) => assert_eq!(start, Some((1, next)), "{}", told()),
            Expected::Waits(until) => {
                assert_eq!((start, step.wake_at), (None, Some(t(until))), "{}", told());
                assert!(step.lifecycle.active(), "{}", told());
            }
            Expected::Ends => assert_eq!(next(&step), super::tables::Next::Ends, "{}", told()),
            Expected::Stays => {
                assert!(start.is_none() && step.lifecycle.active(), "{}", told());
            }
        }
    }
}

#[test]
fn every_end_of_a_container() {
    let mut seen = 0;
    for (pod, own, rules) in
        POD_POLICIES.iter().flat_map(|p| OWN_POLICIES.iter().flat_map(move |o| RULES.iter().map(move |r| (*p, *o, *r))))
    {
        for (init, company) in [(false, false), (false, true), (true, false)] {
            // With `Always` of its own it would be a sidecar, which has no rules.
            if init && own == Some("Always") {
                continue;
            }
            let base = Case {
                pod,
                own,
                rules,
                init,
                company,
                code: 0,
                delay: Delay::First,
                changed: false,
                replaced: false,
                unhealthy: false,
            };
            let d = base.desired();
            for code in CODES {
                for delay in [Delay::First, Delay::Due, Delay::Pending, Delay::LongRun] {
                    for bits in 0..8 {
                        let case =
                            Case { code, delay, changed: bits & 1 > 0, replaced: bits & 2 > 0, unhealthy: bits & 4 > 0, ..base };
                        // Nobody asks for a plain init container's health, or replaces it.
                        if !(init && (case.unhealthy || case.replaced)) {
                            case.check(&d);
                            seen += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(seen > 30_000, "only {seen} cases");
}

/// A sidecar is restarted whatever its code, with its delay, for as long as a main container is not over.
#[test]
fn every_end_of_a_sidecar() {
    for policy in POD_POLICIES {
        let d = desired(
            json!({"restartPolicy": policy, "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always"}]}),
        );
        for code in CODES {
            for (backoff, now, starts) in [(0, 2, true), (20, 2, false), (20, 21, true)] {
                for (state, over) in [(State::Running, false), (super::tables::exited(0), policy != "Always")] {
                    let mut side = container("side", super::tables::exited(code));
                    side.backoff = Duration::from_secs(backoff);
                    let containers = vec![side, container("main", state)];
                    let o = Observed { sandboxes: vec![sandbox(true)], containers, local: ready_local(), stale: false };
                    let step = at(&d, &o, &Verdicts::default(), now);
                    let told = format!("{policy} {code} {backoff} {now} {over}: {step:?}");
                    assert_eq!(step.lifecycle.active(), !over, "{told}");
                    let started = step.actions.iter().any(|a| matches!(a, Action::StartContainer { name, .. } if name == "side"));
                    assert_eq!(started, starts && !over, "{told}");
                }
            }
        }
    }
}
