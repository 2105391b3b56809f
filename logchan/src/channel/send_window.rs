//! Outgoing bytes of one lane.
//!
//! ```text
//!        acked                 sent              end          acked + capacity
//!  --------|---------------------|-----------------|-----------------|
//!   gone   | segments: in flight,| appended, not   | room            |
//!          | lost, or acked      | yet sent        |                 |
//! ```
//!
//! Bytes become a segment when they are first sent, and a segment is retransmitted as it is, under a new
//! frame number. A segment remembers its last frame number only. The arrival of an earlier transmission
//! shows in the lane's cumulative acknowledgement.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::frame::{FrameAck, LaneAck};
use crate::ids::FrameNumber;
use crate::time::{Duration, Time};

/// A segment is lost when a frame with a number at least this much higher was acknowledged: the packet
/// threshold of RFC 9002, section 6.1.1.
const PACKET_THRESHOLD: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SegmentState {
    InFlight,
    Lost,
    Acked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    start: u64,
    length: usize,
    /// Number and sending time of the frame that carried it last.
    number: FrameNumber,
    sent_at: Time,
    state: SegmentState,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.length as u64
    }
}

/// The segment that the next frame of the lane carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutgoingSegment {
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) is_retransmission: bool,
}

/// Bytes of one lane that the peer has not acknowledged. Everything is allocated by `new`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SendWindow {
    /// A ring: the byte at offset `o` of the lane is at `o % len`.
    ring: Vec<u8>,
    acked: u64,
    sent: u64,
    end: u64,
    /// End of the peer's window: it accepts no byte from here on.
    limit: u64,
    segments: VecDeque<Segment>,
    /// Most segments in flight.
    segments_max: usize,
    /// Number of segments in state `Lost`.
    lost: usize,
}

impl SendWindow {
    pub(super) fn new(capacity: usize, segments_max: usize) -> Self {
        Self {
            ring: vec![0; capacity],
            acked: 0,
            sent: 0,
            end: 0,
            limit: 0,
            segments: VecDeque::with_capacity(segments_max),
            segments_max,
            lost: 0,
        }
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn room(&self) -> usize {
        self.ring.len() - self.held()
    }

    /// Bytes appended and not yet acknowledged.
    fn held(&self) -> usize {
        (self.end - self.acked) as usize
    }

    /// Returns whether something was sent that the peer has not acknowledged.
    pub(super) fn has_unacked(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Appends `bytes`, which must fit the [`room`](Self::room).
    pub(super) fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "appended beyond the window");
        let at = self.place(self.end);
        let until_wrap = bytes.len().min(self.ring.len() - at);
        let (head, tail) = bytes.split_at(until_wrap);
        self.ring[at..at + head.len()].copy_from_slice(head);
        self.ring[..tail.len()].copy_from_slice(tail);
        self.end += bytes.len() as u64;
    }

    /// Copies the bytes of a segment.
    pub(super) fn copy(&self, segment: OutgoingSegment, out: &mut [u8]) {
        assert!(self.acked <= segment.offset && segment.offset + segment.length as u64 <= self.end);
        let at = self.place(segment.offset);
        let until_wrap = segment.length.min(self.ring.len() - at);
        let (head, tail) = out.split_at_mut(until_wrap);
        head.copy_from_slice(&self.ring[at..at + until_wrap]);
        tail.copy_from_slice(&self.ring[..segment.length - until_wrap]);
    }

    fn place(&self, offset: u64) -> usize {
        (offset % self.ring.len() as u64) as usize
    }

    /// Returns how many new bytes may be sent in a frame with room for `payload_max`.
    ///
    /// A segment that is short only because the peer's window ends is not sent while others are in
    /// flight, because the window will open further (silly window syndrome, RFC 1122 section 4.2.3.4).
    /// With nothing in flight it is sent, because the peer's reader may need just these bytes.
    fn sendable(&self, payload_max: usize) -> usize {
        let unsent = ((self.end - self.sent) as usize).min(payload_max);
        let open = self.limit.saturating_sub(self.sent);
        let is_cut_short = open < unsent as u64;
        if self.segments.len() == self.segments_max || (is_cut_short && self.has_unacked()) {
            return 0;
        }
        unsent.min(open as usize)
    }

    pub(super) fn wants_to_send(&self, payload_max: usize) -> bool {
        self.lost > 0 || self.sendable(payload_max) > 0
    }

    /// Returns the segment for frame `number`, sent at `now`: the first lost one, else new bytes.
    /// [`wants_to_send`](Self::wants_to_send) must be true.
    pub(super) fn next_segment(
        &mut self,
        now: Time,
        number: FrameNumber,
        payload_max: usize,
    ) -> OutgoingSegment {
        if self.lost > 0 {
            let lost = self.segments.iter_mut().find(|segment| segment.state == SegmentState::Lost);
            let segment = lost.expect("`lost` counts the lost segments");
            segment.state = SegmentState::InFlight;
            segment.number = number;
            segment.sent_at = now;
            self.lost -= 1;
            return OutgoingSegment {
                offset: segment.start,
                length: segment.length,
                is_retransmission: true,
            };
        }
        let length = self.sendable(payload_max);
        assert!(length > 0, "there is no segment to send");
        let start = self.sent;
        self.segments.push_back(Segment {
            start,
            length,
            number,
            sent_at: now,
            state: SegmentState::InFlight,
        });
        self.sent += length as u64;
        OutgoingSegment { offset: start, length, is_retransmission: false }
    }

    /// The peer acknowledged everything below `lane.received`, and the segments in the frames that
    /// `frames` covers. Returns how many segments were not acknowledged before.
    pub(super) fn handle_ack(&mut self, lane: LaneAck, frames: FrameAck) -> usize {
        assert!(lane.received <= self.sent, "an acknowledgement of bytes that were never sent");
        let mut arrived = 0;
        while let Some(first) = self.segments.front()
            && first.end() <= lane.received
        {
            match first.state {
                SegmentState::Acked => {}
                SegmentState::InFlight => arrived += 1,
                SegmentState::Lost => {
                    arrived += 1;
                    self.lost -= 1;
                }
            }
            self.segments.pop_front();
        }
        // Segments are acknowledged whole. A segment that the peer acknowledged in part is
        // retransmitted.
        let acked = self.segments.front().map_or(self.sent, |first| first.start);
        self.acked = self.acked.max(acked.min(lane.received));
        self.limit = self.limit.max(lane.received + u64::from(lane.window));

        for segment in &mut self.segments {
            if segment.state != SegmentState::Acked && frames.covers(segment.number) {
                if segment.state == SegmentState::Lost {
                    self.lost -= 1;
                }
                segment.state = SegmentState::Acked;
                arrived += 1;
            }
        }
        arrived
    }

    /// Declares lost what was overtaken by `newest`, the newest frame acknowledged: by at least
    /// [`PACKET_THRESHOLD`] numbers, or by fewer if it was sent `reordering_max` ago. Returns how many
    /// segments are newly lost, and when the next one will be if no acknowledgement comes.
    pub(super) fn detect_losses(
        &mut self,
        now: Time,
        newest: FrameNumber,
        reordering_max: Duration,
        forget_last: bool,
    ) -> (usize, Option<Time>) {
        let end = self.end;
        let mut lost = 0;
        let mut loss_at: Option<Time> = None;
        for segment in &mut self.segments {
            let is_forgotten = forget_last && segment.end() == end;
            if segment.state != SegmentState::InFlight || segment.number >= newest || is_forgotten {
                continue;
            }
            let late_at = segment.sent_at + reordering_max;
            if newest.0 - segment.number.0 >= PACKET_THRESHOLD || late_at <= now {
                segment.state = SegmentState::Lost;
                lost += 1;
            } else {
                loss_at = Some(loss_at.map_or(late_at, |at| at.min(late_at)));
            }
        }
        self.lost += lost;
        (lost, loss_at)
    }

    /// RFC 6298 (5.4): the timer expired, so the earliest segment in flight must be retransmitted.
    /// Returns whether there was one.
    pub(super) fn handle_timeout(&mut self, forget_last: bool) -> bool {
        let end = self.end;
        let mut waiting = self.segments.iter_mut().filter(|s| s.state == SegmentState::InFlight);
        let Some(segment) = waiting.find(|s| !(forget_last && s.end() == end)) else {
            return false;
        };
        segment.state = SegmentState::Lost;
        self.lost += 1;
        true
    }
}
