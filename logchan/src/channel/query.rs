//! What a channel can be asked. Nothing here changes anything.

use core::fmt;

use super::recv_window::RecvWindow;
use super::send_window::SendWindow;
use super::{Channel, Config, State};
use crate::ids::{Lane, LogSeq, Role};
use crate::stats::Stats;
use crate::time::{Duration, Time};

impl Channel {
    /// How much of `lane` was consumed.
    pub fn consumed(&self, lane: Lane) -> LogSeq {
        LogSeq(self.recv[lane.index()].consumed())
    }

    /// The end of what was appended to `lane`.
    pub fn appended(&self, lane: Lane) -> LogSeq {
        LogSeq(self.send[lane.index()].end())
    }

    /// The peer holds the latency lane up to here, and what that needs of the bulk lane.
    pub fn acked(&self) -> LogSeq {
        LogSeq(self.commit.position())
    }

    /// The peer holds `lane` up to here.
    pub fn lane_acked(&self, lane: Lane) -> LogSeq {
        LogSeq(self.send[lane.index()].acked())
    }

    /// Bytes that may be appended to `lane` now.
    pub fn room(&self, lane: Lane) -> usize {
        self.send[lane.index()].room()
    }

    /// How far the peer has executed.
    pub fn peer_executed(&self) -> u64 {
        self.peer_executed
    }

    /// Whether output may be released at `now`: ask immediately before every release, with a
    /// reading of the clock that is as fresh. A backup never has a lease.
    pub fn lease_held(&self, now: Time) -> bool {
        self.lease_until().is_some_and(|until| now < until)
    }

    /// The end of the lease.
    pub fn lease_until(&self) -> Option<Time> {
        self.liveness.lease_until()
    }

    /// The latest time that it was told: an earlier one must not follow.
    pub fn time(&self) -> Time {
        self.now
    }

    /// Log arrived that nothing sent since acknowledges: an output may wait for it at the peer.
    pub fn owes_log_ack(&self) -> bool {
        self.debt.is_of_log()
    }

    /// When the peer was last heard.
    pub fn heard_at(&self) -> Time {
        self.liveness.heard_at()
    }

    /// Bytes of log may still come and go.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Smoothed time from sending a frame to its acknowledgement, less what the peer held it for.
    pub fn round_trip(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Without the bytes that it holds.
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
