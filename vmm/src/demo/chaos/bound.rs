//! How long a fault may interrupt the service of a VM. The bounds are derived from the silence timeout and from
//! what was measured on this machine.

use crate::health::LAN_POLL_INTERVAL;
use netpath::lan_health::{UNANSWERED_MAX, UNREACHABLE_AFTER};
use std::time::Duration;
use testbed::pace::Pace;

/// An interruption that is not longer than this many answers of the guest, or than one silence timeout, can't be
/// told from what a busy machine does to the clients.
const ANSWERS: u32 = 400;

/// A takeover needs at most this many answers of the witness, each as slow as the slowest one measured.
const CLAIMS: u32 = 4;

/// The clients and both hosts share this machine: each of them may have been scheduled as late as the prober was.
const LATE_THREADS: u32 = 3;

/// What the service may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// Silence timeouts.
    silences: u32,
    /// Intervals after which a host asks for the state of its tap.
    lan_polls: u32,
    /// How often an address on the LAN is found to be unreachable.
    lan_probes: u32,
}

/// The longest time until a host knows that an address on the LAN does not answer.
pub(super) const LAN_SILENT_AFTER: Duration =
    UNREACHABLE_AFTER.saturating_add(LAN_POLL_INTERVAL.saturating_mul(UNANSWERED_MAX + 1));

impl Bound {
    /// The service goes on.
    pub(super) const NONE: Bound = Bound { silences: 0, lan_polls: 0, lan_probes: 0 };
    /// A host notices that its way to the LAN is down, and hands the VM over.
    pub(super) const LAN: Bound = Bound { lan_polls: 2, ..Bound::NONE };
    /// A host notices that nothing on the LAN answers, and hands the VM over.
    pub(super) const SILENT_LAN: Bound = Bound { lan_probes: 1, ..Bound::LAN };
    /// A host takes the other one for dead.
    pub(super) const TAKEOVER: Bound = Bound { silences: 1, ..Bound::NONE };
    /// A host takes the other one for dead, or notices that its way to the LAN is down.
    pub(super) const LAN_AND_TAKEOVER: Bound = Bound { silences: 1, ..Bound::LAN };

    /// Returns whether a host may take the other one for dead. Otherwise that would be a false alarm.
    pub(super) const fn has_alarm(self) -> bool {
        self.silences > 0
    }

    /// Returns the longest interruption, if the prober was never scheduled later than `late`.
    pub(super) fn longest(self, speed: &Speed, late: Duration) -> Duration {
        let claims = if self.silences + self.lan_polls > 0 { CLAIMS } else { 0 };
        speed.silence * (self.silences + 1)
            + LAN_POLL_INTERVAL * self.lan_polls
            + LAN_SILENT_AFTER * self.lan_probes
            + speed.claim * claims
            + speed.answer * ANSWERS
            + late * LATE_THREADS
    }
}

/// The times from which the bounds follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    /// The silence timeout.
    pub(super) silence: Duration,
    /// An answer of the guest.
    pub(super) answer: Duration,
    /// The time that the storage of the witness needs for a claim.
    pub(super) claim: Duration,
}

impl Speed {
    /// Returns the times of a machine with this `pace`, on which the witness needs `claim`.
    pub(super) fn new(pace: &Pace, claim: Duration) -> Speed {
        let silence = Duration::from_millis(pace.silence_ms());
        Speed { silence, answer: pace.pause(Duration::ZERO, 1), claim }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_grows_with_what_the_fault_needs_and_with_slowness() {
        let ms = Duration::from_millis;
        let speed = Speed { silence: ms(100), answer: ms(1), claim: ms(2) };
        let longest = |bound: Bound| bound.longest(&speed, Duration::ZERO);
        assert_eq!(longest(Bound::NONE), ms(500));
        assert_eq!(longest(Bound::TAKEOVER), ms(608));
        assert_eq!(longest(Bound::LAN_AND_TAKEOVER), longest(Bound::LAN) + ms(100));
        assert_eq!(longest(Bound::SILENT_LAN), longest(Bound::LAN) + LAN_SILENT_AFTER);
        assert_eq!(Bound::NONE.longest(&speed, ms(10)), ms(530));
        let slow = Speed { silence: ms(1000), ..speed };
        assert_eq!(Bound::TAKEOVER.longest(&slow, Duration::ZERO), ms(2408));
    }
}
