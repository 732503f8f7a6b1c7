//! Rounds: how the rule action `RestartAllContainers` starts a whole pod anew in its sandbox. Pure.
//!
//! A container that ends with a code for which it has that rule ends its round: all init and main containers of that round are
//! ended, and the next round begins with the first init container, as if the pod had just been made. Each instance says in the
//! runtime which round it belongs to, so that an agent that starts halfway goes on where the last one was. Ephemeral containers
//! belong to no round.

use crate::pod::Time;
use crate::pod::desired::{Container as Spec, Desired, Role};
use crate::pod::observed::{Container, Observed};
use crate::pod::{after, elapsed};
use std::time::Duration;

/// A round that ended sooner than this after its source began holds up the next one so long: without it a container that fails at
/// once would keep the runtime busy for ever, as there is no other delay.
pub const PACE: Duration = Duration::from_secs(1);

/// The round that is under way, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round(u32);

impl Round {
    pub fn of(d: &Desired, o: &Observed) -> Round {
        let all = counted(d).filter_map(|c| Some((c, o.newest(&c.name)?)));
        Round(all.map(|(c, n)| n.round.saturating_add(u32::from(ends(c, n)))).max().unwrap_or(0))
    }

    pub fn number(self) -> u32 {
        self.0
    }

    /// Whether the instance belongs to it; if not it is of one before.
    pub fn has(self, n: &Container) -> bool {
        n.round >= self.0
    }

    /// What still lives of the rounds before.
    pub fn left<'a>(self, d: &'a Desired, o: &'a Observed) -> impl Iterator<Item = (&'a Spec, &'a Container)> {
        let live = o.live().filter(move |n| !self.has(n));
        live.filter_map(|n| Some((counted(d).find(|c| c.name == n.name)?, n)))
    }

    /// Whether nothing of it has begun yet while there is something of the one before.
    pub fn begins(self, d: &Desired, o: &Observed) -> bool {
        self.0 > 0 && !counted(d).flat_map(|c| o.instances(&c.name)).any(|n| self.has(n))
    }

    /// When it may begin, if not now.
    pub fn waits(self, d: &Desired, o: &Observed, now: Time) -> Option<Time> {
        let sources = counted(d).filter_map(|c| o.newest(&c.name).filter(|n| !self.has(n) && ends(c, n)));
        let began = sources.map(|n| n.started_at.unwrap_or(n.created_at)).max()?;
        // A clock that jumped back must not hold it up.
        (began <= now && elapsed(began, now) < PACE && self.begins(d, o)).then(|| after(began, PACE))
    }
}

/// Whether any of the pod's containers can end a round.
pub fn possible(d: &Desired) -> bool {
    counted(d).any(|c| c.rules.iter().any(|r| r.all))
}

fn counted(d: &Desired) -> impl Iterator<Item = &Spec> {
    d.containers.iter().filter(|c| c.role != Role::Ephemeral)
}

fn ends(c: &Spec, n: &Container) -> bool {
    n.exit_code().is_some_and(|code| c.restarts_all(code))
}
