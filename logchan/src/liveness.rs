//! The failure detector and the primary's lease.
//!
//! ```text
//!  primary   send S ----------- lease -----------| S + lease       ... must not release output here
//!                   \                            |<- margin ->|
//!  backup            R -------- silence timeout --------------| R + silence: may go live
//! ```
//!
//! R is never before S. So the primary's lease expires before the backup's silence timeout, provided
//! that the lease is shorter by as much as the two clocks can drift; [`crate::channel::Timing::check`]
//! ensures that. This holds whatever the network does to the acknowledgement, because the lease does not
//! depend on when the acknowledgement arrives. It holds for every later frame too, because a backup
//! whose silence timeout has expired sends no further acknowledgement.

use crate::time::{Duration, Time};

/// The failure detector, and the lease that follows from the peer's acknowledgements. Pure. Both ends
/// have one, but only the primary's lease has a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Liveness {
    silence: Duration,
    lease: Duration,
    heard_at: Time,
    lease_until: Option<Time>,
}

impl Liveness {
    /// Starts at `now`, when the peer was present. Nothing is acknowledged yet, so there is no lease.
    pub fn new(now: Time, silence: Duration, lease: Duration) -> Self {
        Self { silence, lease, heard_at: now, lease_until: None }
    }

    /// Records a sign of life: a frame of the peer that is not a duplicate.
    pub fn heard(&mut self, now: Time) {
        self.heard_at = self.heard_at.max(now);
    }

    /// Returns the time of the peer's last sign of life.
    pub fn heard_at(&self) -> Time {
        self.heard_at
    }

    /// Returns the time at which the peer is declared dead unless a sign of life comes before.
    pub fn silence_at(&self) -> Time {
        self.heard_at + self.silence
    }

    /// Extends the lease: the peer acknowledged a frame that was sent at `sent_at`. Returns whether the
    /// lease became longer, because acknowledgements come in any order.
    pub fn extend_lease(&mut self, sent_at: Time) -> bool {
        let until = Some(sent_at + self.lease);
        let extends = until > self.lease_until;
        if extends {
            self.lease_until = until;
        }
        extends
    }

    /// Ends the lease, whatever was acknowledged.
    pub fn end_lease(&mut self) {
        self.lease_until = None;
    }

    /// Returns the end of the lease: output may be released before this time, but not at it. `None` if
    /// there is no lease.
    pub fn lease_until(&self) -> Option<Time> {
        self.lease_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_acks_out_of_order_runs_from_the_newest_frame_sent() {
        let ms = |ms| Time::default() + Duration::from_millis(ms);
        let mut liveness =
            Liveness::new(ms(0), Duration::from_millis(100), Duration::from_millis(80));
        assert_eq!(liveness.lease_until(), None);
        assert!(liveness.extend_lease(ms(20)));
        assert!(!liveness.extend_lease(ms(10)));
        assert_eq!(liveness.lease_until(), Some(ms(100)));
        liveness.heard(ms(30));
        liveness.heard(ms(25));
        assert_eq!(liveness.silence_at(), ms(130));
    }
}
