//! Timers of a channel.

use crate::time::Time;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A frame must be sent, so that the peer does not declare this end dead.
    Heartbeat,
    /// The peer's silence timeout.
    Silence,
    /// The lease expires.
    Lease,
    /// Retransmission: nothing in flight was acknowledged in time.
    Retransmit,
    /// Loss detection: an overtaken frame is late enough to be declared lost.
    Loss,
    /// A delayed acknowledgement must be sent.
    Ack,
}

impl Timer {
    const ALL: [Self; 6] =
        [Self::Heartbeat, Self::Silence, Self::Lease, Self::Retransmit, Self::Loss, Self::Ack];
}

/// The deadlines, one for each [`Timer`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TimerTable {
    deadlines: [Option<Time>; Timer::ALL.len()],
}

impl TimerTable {
    pub(super) fn set(&mut self, timer: Timer, deadline: Time) {
        self.deadlines[timer as usize] = Some(deadline);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    pub(super) fn stop_all(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.deadlines[timer as usize].is_some()
    }

    /// Returns whether `timer` has expired at `now`, and stops it if so.
    pub(super) fn take_expired(&mut self, timer: Timer, now: Time) -> bool {
        let expired = self.deadlines[timer as usize].is_some_and(|deadline| deadline <= now);
        if expired {
            self.stop(timer);
        }
        expired
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<Time> {
        self.deadlines.iter().flatten().min().copied()
    }
}
