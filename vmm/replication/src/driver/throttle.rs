//! Slows the guest: meters how long it runs, and says how long it must pause for its share of time.
//!
//! ```text
//!  guest    ====              ====              ====          share 1/4
//!  pause        ------------      ------------
//! ```
//!
//! The guest pauses in [`poll_memory`](crate::boundary::Boundary::poll_memory), and this thread copies memory and drives
//! the wire meanwhile. A guest that makes no exit is kicked at the deadline of inputs, so it runs for that long at a time.
//! Guest time goes on.

use crate::replica::GuestShare;
use logchan::time::{Duration, Time};

/// Longest pause at a time.
pub const PAUSE_MAX: Duration = Duration::from_millis(100);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Since when the guest may run.
    since: Option<Time>,
    /// How long it ran before that, since its last pause.
    ran: Duration,
}

impl Throttle {
    /// The guest is not slowed.
    pub(super) fn release(&mut self) {
        *self = Throttle::default();
    }

    /// Returns whether the guest is slowed, and runs.
    pub(super) fn is_running(&self) -> bool {
        self.since.is_some()
    }

    /// The guest runs from `now` on.
    pub(super) fn enter(&mut self, now: Time) {
        self.since = Some(now);
    }

    /// The guest has halted, or is paused.
    pub(super) fn stop(&mut self, now: Time) {
        if let Some(since) = self.since.take() {
            self.ran = self.ran + now.since(since);
        }
    }

    /// The guest is stopped at `now`. Returns until when it must pause to run for `share` of the time.
    pub(super) fn pause_until(&mut self, now: Time, share: GuestShare) -> Time {
        self.stop(now);
        let ran = core::mem::take(&mut self.ran);
        now + share.pause_after(ran).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_pauses_for_the_time_that_it_ran_and_not_for_the_time_that_it_was_halted() {
        let at = |ms| Time::from_nanos(1 << 40) + Duration::from_millis(ms);
        let half = GuestShare::HALF;
        let mut throttle = Throttle::default();
        assert_eq!(throttle.pause_until(at(5), half), at(5), "it has not run");
        throttle.enter(at(5));
        throttle.stop(at(7));
        assert!(!throttle.is_running());
        throttle.enter(at(50));
        assert_eq!(throttle.pause_until(at(51), half), at(54));
        throttle.enter(at(54));
        assert_eq!(throttle.pause_until(at(9000), half), at(9000) + PAUSE_MAX);
        throttle.enter(at(9000));
        throttle.release();
        assert_eq!(throttle.pause_until(at(9900), half), at(9900));
    }
}
