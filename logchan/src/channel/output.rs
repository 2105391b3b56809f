//! Outputs of a channel: which frame to send next.
//!
//! | order | frame | reason |
//! |---|---|---|
//! | 1 | lost bytes of the latency lane | the log behind them waits for them |
//! | 2 | new bytes of the latency lane | an output may wait for them |
//! | 3 | lost, then new bytes of the bulk lane | acknowledges as well as an `Ack` would |
//! | 4 | `Heartbeat` if one is due, else `Ack` if one is due | no other frame carries the acknowledgement |
//!
//! The choice is made anew for every frame, so bytes appended to the latency lane wait for at most one
//! bulk frame: the one that is being sent.

use super::timer::Timer;
use super::{Channel, Mutant, State};
use crate::frame::{FrameHeader, FrameKind, LaneAck};
use crate::ids::{Lane, Role};
use crate::limits::FRAME_HEADER_BYTES;
use crate::time::Time;

impl Channel {
    /// Writes the next frame to the front of `out` and returns its length. Returns `None` if there is
    /// nothing to send. The frame counts as sent at `now`, so when the link is busy, call this later.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`Config::frame_bytes_max`](super::Config::frame_bytes_max).
    pub fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.poll_transmit_of(now, &Lane::ALL, out)
    }

    /// Like [`poll_transmit`](Self::poll_transmit), but sends no bulk: for a link that has enough bulk
    /// queued.
    ///
    /// # Panics
    ///
    /// As [`poll_transmit`](Self::poll_transmit).
    pub fn poll_transmit_log(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.poll_transmit_of(now, &[Lane::Latency], out)
    }

    fn poll_transmit_of(&mut self, now: Time, lanes: &[Lane], out: &mut [u8]) -> Option<usize> {
        self.advance(now);
        assert!(out.len() >= self.config.frame_bytes_max, "the buffer has no room for a frame");
        let kind = self.next_kind(lanes)?;
        let number = self.next_number;
        self.next_number = number.next();

        let mut length = FRAME_HEADER_BYTES;
        let mut offset = 0;
        let mut ack_now = kind.wants_ack();
        if let Some(lane) = kind.lane() {
            let payload_max = self.payload_max();
            let send = &mut self.send[lane.index()];
            let segment = send.next_segment(now, number, payload_max);
            length += segment.length;
            offset = segment.offset;
            send.copy(segment, &mut out[FRAME_HEADER_BYTES..length]);
            self.stats.resent += u64::from(segment.is_retransmission);
            self.unacked_since[lane.index()].get_or_insert(now);
            // The peer must acknowledge a bulk frame at once only if it is the last one for now.
            ack_now = lane == Lane::Latency || !send.wants_to_send(payload_max);
        }
        let header = FrameHeader {
            kind,
            role: self.role,
            ack_now,
            unfit: self.unfit,
            vm: self.config.vm,
            session: self.config.session,
            term: self.config.term,
            number,
            ack: self.arrivals.ack(now),
            lanes: self.lane_acks(),
            executed: self.executed,
            offset,
        };
        header.encode(&mut out[..length]);

        self.sent_times.record(number, now, ack_now);
        self.stats.sent[kind.index()] += 1;
        self.stats.sent_bytes += length as u64;
        self.pending_ack.clear();
        self.timers.stop(Timer::Ack);
        self.restart_timers(now, kind);
        Some(length)
    }

    /// Returns whether bytes of `lane` could be sent now.
    pub fn wants_to_send(&self, lane: Lane) -> bool {
        self.state == State::Open && self.send[lane.index()].wants_to_send(self.payload_max())
    }

    fn next_kind(&self, lanes: &[Lane]) -> Option<FrameKind> {
        match self.state {
            State::Open => {
                let wants = |lane: &&Lane| self.wants_to_send(**lane);
                let lane = match self.planted(Mutant::BulkFirst) {
                    false => lanes.iter().find(wants),
                    true => lanes.iter().rev().find(wants),
                };
                if let Some(lane) = lane {
                    Some(FrameKind::of_lane(*lane))
                } else if self.heartbeat_due {
                    Some(FrameKind::Heartbeat)
                } else {
                    self.pending_ack.is_due().then_some(FrameKind::Ack)
                }
            }
            State::Leaving { .. } => self.heartbeat_due.then_some(FrameKind::Bye),
            State::PeerLeft => self.pending_ack.is_due().then_some(FrameKind::Ack),
            State::Left | State::Silent => None,
        }
    }

    fn lane_acks(&mut self) -> [LaneAck; Lane::ALL.len()] {
        let ack_gap = self.planted(Mutant::AckGap);
        self.recv.each_mut().map(|recv| {
            let window = recv.advertise_window();
            if ack_gap {
                return LaneAck { received: recv.highest(), window };
            }
            LaneAck { received: recv.received(), window }
        })
    }

    /// Restarts the timers after a frame of `kind` was sent.
    fn restart_timers(&mut self, now: Time, kind: FrameKind) {
        let heartbeat = self.config.timing.heartbeat;
        match self.state {
            State::Open => {
                // The primary's lease requires frames that are answered. The backup answers anyway, and
                // only needs to send on its own if it was asked nothing.
                let (counts, after) = match self.role {
                    Role::Primary => (kind.wants_ack(), heartbeat),
                    Role::Backup => (true, heartbeat * 2),
                };
                if counts {
                    self.heartbeat_due = false;
                    self.timers.set(Timer::Heartbeat, now + after);
                }
                if kind.lane().is_some() && !self.timers.is_set(Timer::Retransmit) {
                    self.restart_retransmit(now);
                }
            }
            State::Leaving { .. } => {
                self.heartbeat_due = false;
                self.timers.set(Timer::Retransmit, self.rtt.retransmit_at(now));
            }
            State::PeerLeft | State::Left | State::Silent => {}
        }
    }
}
