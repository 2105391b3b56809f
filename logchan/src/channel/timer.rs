//! When a channel must be woken.

use crate::time::Time;

/// What a channel waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Something must be sent, so that the peer does not take this end for dead.
    Heartbeat,
    /// The peer has been silent for too long.
    Silence,
    /// The lease ends.
    Lease,
    /// Nothing that is on its way was acknowledged in time.
    Retransmit,
    /// A frame was overtaken, and is late enough to be taken for lost.
    Loss,
    /// An acknowledgement may not be put off any longer.
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

    /// Whether `timer` has run out at `now`; it is stopped then.
    pub(super) fn take_expired(&mut self, timer: Timer, now: Time) -> bool {
        let expired = self.deadlines[timer as usize].is_some_and(|deadline| deadline <= now);
        if expired {
            self.stop(timer);
        }
        expired
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Time> {
        self.deadlines.iter().flatten().min().copied()
    }
}
