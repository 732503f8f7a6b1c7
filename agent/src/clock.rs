//! The wall clock, and how far it was moved.
//!
//! Moments that others see (statuses, events, leases) are the wall clock's, and so are those that come from others. How long
//! something of ours still has to wait must not change when somebody sets the clock: whoever keeps moments of the wall clock for that
//! holds a [`Jumps`], and moves what it keeps by as much as the clock was moved.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// What is not a jump: clocks are slewed, and two of them are never read at the same time.
const LEAST: SignedDuration = SignedDuration::from_millis(500);

/// Now, by the wall clock.
pub fn now() -> Timestamp {
    #[cfg(test)]
    return testing::moved(Timestamp::now());
    #[cfg(not(test))]
    Timestamp::now()
}

/// Both clocks, as last read together.
#[derive(Debug, Clone, Copy)]
pub struct Jumps {
    wall: Timestamp,
    steady: Instant,
}

impl Jumps {
    pub fn from(wall: Timestamp) -> Jumps {
        Jumps { wall, steady: Instant::now() }
    }

    /// By how much the wall clock was moved since the last look; zero if it was not.
    pub fn until(&mut self, wall: Timestamp) -> SignedDuration {
        let steady = Instant::now();
        let passed = SignedDuration::try_from(steady - self.steady).unwrap_or(SignedDuration::MAX);
        let jump = wall.duration_since(self.wall).checked_sub(passed).unwrap_or_default();
        (self.wall, self.steady) = (wall, steady);
        if jump.unsigned_abs() >= LEAST.unsigned_abs() { jump } else { SignedDuration::ZERO }
    }
}

/// `t` as it would be had the clock always been where it is now.
pub fn moved(t: Timestamp, by: SignedDuration) -> Timestamp {
    t.saturating_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
pub mod testing {
    //! A clock that a test sets, for what runs on the test's own thread.

    use super::*;
    use std::cell::Cell;

    thread_local! {
        static BY: Cell<SignedDuration> = const { Cell::new(SignedDuration::ZERO) };
    }

    pub fn set(by: SignedDuration) {
        BY.set(by);
    }

    pub(super) fn moved(t: Timestamp) -> Timestamp {
        super::moved(t, BY.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn jumps_are_what_the_steady_clock_does_not_explain() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut jumps = Jumps::from(start);
        let hour = SignedDuration::from_hours(1);
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        let later = moved(start, SignedDuration::from_secs(10));
        assert_eq!(jumps.until(later), SignedDuration::ZERO);
        assert_eq!(jumps.until(moved(later, hour)), hour);
        assert_eq!(jumps.until(moved(later, hour)), SignedDuration::ZERO, "told once");
        assert_eq!(jumps.until(moved(later, -hour)), -hour * 2);
        assert_eq!(jumps.until(moved(later, -hour + SignedDuration::from_millis(100))), SignedDuration::ZERO, "a slew");
        assert_eq!(moved(Timestamp::MAX, hour), Timestamp::MAX);
    }
}
