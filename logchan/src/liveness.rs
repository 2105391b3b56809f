//! Whether the peer lives, and how long the primary may speak.
//!
//! ```text
//!  primary   send S ----------- lease -----------| S + lease       ... must be mute here
//!                   \                            |<- margin ->|
//!  backup            R ------------- silence -----------------| R + silence: may go live
//! ```
//!
//! R is never before S, so the primary's right to speak ends before the backup's patience does if
//! the lease is the shorter one by what the clocks can drift: [`crate::channel::Timing::check`].
//! That holds whatever the network does to the acknowledgement, because the lease does not depend
//! on when it arrives; and it holds for every later frame, because a backup that has lost its
//! patience acknowledges nothing more.

use crate::time::{Duration, Time};

/// The failure detector, and the lease that follows from what the peer acknowledged. Pure; both
/// ends have one, only the primary's lease means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Liveness {
    silence: Duration,
    lease: Duration,
    heard_at: Time,
    lease_until: Option<Time>,
}

impl Liveness {
    /// The peer was there at `now`; nothing was acknowledged yet, so there is no lease.
    pub fn new(now: Time, silence: Duration, lease: Duration) -> Self {
        Self { silence, lease, heard_at: now, lease_until: None }
    }

    /// A frame of the peer arrived that it had not sent before.
    pub fn heard(&mut self, now: Time) {
        self.heard_at = self.heard_at.max(now);
    }

    /// When the peer was last heard.
    pub fn heard_at(&self) -> Time {
        self.heard_at
    }

    /// When the peer is to be taken for dead, if it is not heard before.
    pub fn silence_at(&self) -> Time {
        self.heard_at + self.silence
    }

    /// The peer acknowledged a frame that was sent at `sent_at`. Whether that extends the lease:
    /// acknowledgements come in any order.
    pub fn acknowledged(&mut self, sent_at: Time) -> bool {
        let until = Some(sent_at + self.lease);
        let extends = until > self.lease_until;
        if extends {
            self.lease_until = until;
        }
        extends
    }

    /// The lease is over, whatever was acknowledged.
    pub fn end_lease(&mut self) {
        self.lease_until = None;
    }

    /// The end of the lease: output may be released before, not at this time. `None`: there is
    /// none.
    pub fn lease_until(&self) -> Option<Time> {
        self.lease_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_runs_from_the_newest_frame_sent_not_from_the_last_acknowledged() {
        let ms = |ms| Time::default() + Duration::from_millis(ms);
        let mut liveness =
            Liveness::new(ms(0), Duration::from_millis(100), Duration::from_millis(80));
        assert_eq!(liveness.lease_until(), None);
        assert!(liveness.acknowledged(ms(20)));
        assert!(!liveness.acknowledged(ms(10)));
        assert_eq!(liveness.lease_until(), Some(ms(100)));
        liveness.heard(ms(30));
        liveness.heard(ms(25));
        assert_eq!(liveness.silence_at(), ms(130));
    }
}
