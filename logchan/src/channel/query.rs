//! Queries of a channel, which change nothing.

use core::fmt;

use super::recv_window::RecvWindow;
use super::send_window::SendWindow;
use super::{Channel, Config, State};
use crate::health::Unfit;
use crate::ids::{Lane, LogSeq, Role};
use crate::stats::Stats;
use crate::time::{Duration, Time};

impl Channel {
    /// Returns how much of `lane` was consumed.
    pub fn consumed(&self, lane: Lane) -> LogSeq {
        LogSeq(self.recv[lane.index()].consumed())
    }

    /// Returns the end of what was appended to `lane`.
    pub fn appended(&self, lane: Lane) -> LogSeq {
        LogSeq(self.send[lane.index()].end())
    }

    /// Returns how much of `lane` was sent, at least once each.
    pub fn sent(&self, lane: Lane) -> LogSeq {
        LogSeq(self.send[lane.index()].sent())
    }

    /// Returns the position up to which the peer holds the latency lane, and all of the bulk lane that
    /// this requires.
    pub fn acked(&self) -> LogSeq {
        LogSeq(self.commit.position())
    }

    /// Returns the position up to which the peer holds `lane`.
    pub fn lane_acked(&self, lane: Lane) -> LogSeq {
        LogSeq(self.send[lane.index()].acked())
    }

    /// Returns since when the peer acknowledges nothing more of what was sent, of either lane; `None` if nothing
    /// waits for an acknowledgement. A peer that is heard all the same does not receive the frames that carry it: a
    /// link that loses long frames only.
    pub fn unacked_since(&self) -> Option<Time> {
        self.unacked_since.into_iter().flatten().min()
    }

    /// Returns since when this end has no lease; `None` while it has one. A peer that is heard all the same acknowledges
    /// each frame after its lease has ended: the link, or the peer, is too slow.
    pub fn unleased_since(&self) -> Option<Time> {
        self.unleased_since
    }

    /// Returns the number of bytes that may be appended to `lane` now.
    pub fn room(&self, lane: Lane) -> usize {
        self.send[lane.index()].room()
    }

    /// Returns how far the peer has executed.
    pub fn peer_executed(&self) -> u64 {
        self.peer_executed
    }

    /// Returns what the peer's host lacks to run the VM, by the newest of its frames.
    pub fn peer_unfit(&self) -> Unfit {
        self.peer_unfit
    }

    /// Returns whether output may be released at `now`. Ask immediately before every release, with a
    /// clock reading that is as fresh. A backup never has a lease.
    pub fn lease_held(&self, now: Time) -> bool {
        self.lease_until().is_some_and(|until| now < until)
    }

    /// Returns the end of the lease.
    pub fn lease_until(&self) -> Option<Time> {
        self.liveness.lease_until()
    }

    /// Returns the latest time that was passed in; an earlier one must not follow.
    pub fn time(&self) -> Time {
        self.now
    }

    /// Returns whether log was received that no frame sent since acknowledges. The peer may hold an
    /// output until it is acknowledged.
    pub fn owes_log_ack(&self) -> bool {
        self.pending_ack.has_log()
    }

    /// Returns the time of the peer's last sign of life.
    pub fn heard_at(&self) -> Time {
        self.liveness.heard_at()
    }

    /// Returns whether bytes of log can still be sent and received.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Returns the role of this end.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the smoothed round-trip time: from sending a frame to its acknowledgement, less the delay
    /// at the peer.
    pub fn round_trip(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// Returns the counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Omits the bytes that the channel holds.
impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("role", &self.role)
            .field("term", &self.config.term)
            .field("state", &self.state)
            .field("appended", &self.send.each_ref().map(SendWindow::end))
            .field("sent", &self.send.each_ref().map(SendWindow::sent))
            .field("acked", &self.send.each_ref().map(SendWindow::acked))
            .field("received", &self.recv.each_ref().map(RecvWindow::received))
            .field("consumed", &self.recv.each_ref().map(RecvWindow::consumed))
            .field("lease_until", &self.lease_until())
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}
