//! What goes out: which frame is sent next.
//!
//! | order | frame | because |
//! |---|---|---|
//! | 1 | lost bytes of the latency lane | the log behind them waits for them |
//! | 2 | new bytes of the latency lane | an output may wait for them |
//! | 3 | lost, then new bytes of the bulk lane | acknowledges as well as an `Ack` would |
//! | 4 | `Heartbeat` if one is due, else `Ack` if one is due | nothing else said it |
//!
//! The choice is made anew for every frame, so what is appended to the latency lane waits for one
//! bulk frame at most: the one that is being sent.

use super::timer::Timer;
use super::{Channel, Mutant, State};
use crate::frame::{FrameHeader, FrameKind, LaneAck};
use crate::ids::{Lane, Role};
use crate::limits::FRAME_HEADER_BYTES;
use crate::time::Time;

impl Channel {
    /// Writes the next frame to the front of `out` and returns its length; `None` when there is
    /// nothing to send now. It is taken to leave at `now`: when the link is busy, ask later.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`Config::frame_bytes_max`](super::Config::frame_bytes_max).
    pub fn poll_transmit(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        self.advance(now);
        assert!(out.len() >= self.config.frame_bytes_max, "no room for a frame");
        let kind = self.next_kind()?;
        let number = self.next_number;
        self.next_number = number.next();

        let mut length = FRAME_HEADER_BYTES;
        let mut offset = 0;
        let mut ack_now = kind.wants_ack();
        if let Some(lane) = kind.lane() {
            let payload_max = self.payload_max();
            let send = &mut self.send[lane.index()];
            let cut = send.cut(now, number, payload_max);
            length += cut.length;
            offset = cut.offset;
            send.copy(cut, &mut out[FRAME_HEADER_BYTES..length]);
            self.stats.resent += u64::from(cut.is_repeated);
            // Of bulk, only the last frame for now is one that somebody waits for.
            ack_now = lane == Lane::Latency || !send.wants_to_send(payload_max);
        }
        let header = FrameHeader {
            kind,
            role: self.role,
            ack_now,
            vm: self.config.vm,
            session: self.config.session,
            term: self.config.term,
            number,
            ack: self.arrivals.ack(now),
            lanes: self.tell_lanes(),
            executed: self.executed,
            offset,
        };
        header.encode(&mut out[..length]);

        self.sent_times.record(number, now, ack_now);
        self.stats.sent[kind.index()] += 1;
        self.stats.sent_bytes += length as u64;
        self.debt.pay();
        self.timers.stop(Timer::Ack);
        self.restart_timers(now, kind);
        Some(length)
    }

    fn next_kind(&self) -> Option<FrameKind> {
        match self.state {
            State::Open => {
                let mut lanes = Lane::ALL;
                if self.planted(Mutant::BulkFirst) {
                    lanes.reverse();
                }
                let payload_max = self.payload_max();
                let wants = |lane: &Lane| self.send[lane.index()].wants_to_send(payload_max);
                if let Some(lane) = lanes.into_iter().find(wants) {
                    Some(FrameKind::of_lane(lane))
                } else if self.beat_due {
                    Some(FrameKind::Heartbeat)
                } else {
                    self.debt.is_due().then_some(FrameKind::Ack)
                }
            }
            State::Leaving { .. } => self.beat_due.then_some(FrameKind::Bye),
            State::PeerLeft => self.debt.is_due().then_some(FrameKind::Ack),
            State::Left | State::Silent => None,
        }
    }

    fn tell_lanes(&mut self) -> [LaneAck; Lane::ALL.len()] {
        let ack_gap = self.planted(Mutant::AckGap);
        self.recv.each_mut().map(|recv| {
            let window = recv.tell_window();
            if ack_gap {
                return LaneAck { received: recv.highest(), window };
            }
            LaneAck { received: recv.received(), window }
        })
    }

    /// A frame of `kind` is on its way.
    fn restart_timers(&mut self, now: Time, kind: FrameKind) {
        let heartbeat = self.config.timing.heartbeat;
        match self.state {
            State::Open => {
                // The primary's lease needs frames that are answered. The backup answers; it only
                // needs to say something by itself when it was asked nothing.
                let (counts, after) = match self.role {
                    Role::Primary => (kind.wants_ack(), heartbeat),
                    Role::Backup => (true, heartbeat * 2),
                };
                if counts {
                    self.beat_due = false;
                    self.timers.set(Timer::Heartbeat, now + after);
                }
                if kind.lane().is_some() && !self.timers.is_set(Timer::Retransmit) {
                    self.restart_retransmit(now);
                }
            }
            State::Leaving { .. } => {
                self.beat_due = false;
                self.timers.set(Timer::Retransmit, self.rtt.retransmit_at(now));
            }
            State::PeerLeft | State::Left | State::Silent => {}
        }
    }
}
