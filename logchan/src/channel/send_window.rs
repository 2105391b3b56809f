//! One lane's bytes on their way to the peer.
//!
//! ```text
//!        acked                 sent              end          acked + capacity
//!  --------|---------------------|-----------------|-----------------|
//!   gone   | segments: in flight,| appended, not   | room            |
//!          | lost, or acked      | yet sent        |                 |
//! ```
//!
//! Bytes become a segment when they are first sent, and stay in the same one: what is sent again is
//! cut as it was before, under a new frame number. A segment remembers its last number only; that
//! an earlier transmission of it arrived shows in the lane's cumulative acknowledgement.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::frame::{FrameAck, LaneAck};
use crate::ids::FrameNumber;
use crate::time::{Duration, Time};

/// A segment is lost when a frame sent this many numbers later has arrived: RFC 9002, section
/// 6.1.1.
const OVERTAKEN_BY: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    InFlight,
    Lost,
    Acked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    start: u64,
    length: usize,
    /// The frame that carried it last, and when.
    number: FrameNumber,
    sent_at: Time,
    fate: Fate,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.length as u64
    }
}

/// What goes into the next frame of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) is_repeated: bool,
}

/// One lane's bytes that the peer has not acknowledged. What is allocated is allocated by `new`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SendWindow {
    /// A ring: the byte at offset `o` of the lane is at `o % len`.
    ring: Vec<u8>,
    acked: u64,
    sent: u64,
    end: u64,
    /// The peer takes no byte from here on.
    limit: u64,
    segments: VecDeque<Segment>,
    /// Segments, at most.
    segments_max: usize,
    /// Segments whose fate is `Lost`.
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

    /// Something is on its way that the peer has not acknowledged.
    pub(super) fn is_waiting(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Takes `bytes`, which must fit the [`room`](Self::room).
    pub(super) fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "appended beyond the window");
        let at = self.place(self.end);
        let until_wrap = bytes.len().min(self.ring.len() - at);
        let (head, tail) = bytes.split_at(until_wrap);
        self.ring[at..at + head.len()].copy_from_slice(head);
        self.ring[..tail.len()].copy_from_slice(tail);
        self.end += bytes.len() as u64;
    }

    /// Copies the bytes of a cut.
    pub(super) fn copy(&self, cut: Cut, out: &mut [u8]) {
        assert!(self.acked <= cut.offset && cut.offset + cut.length as u64 <= self.end);
        let at = self.place(cut.offset);
        let until_wrap = cut.length.min(self.ring.len() - at);
        let (head, tail) = out.split_at_mut(until_wrap);
        head.copy_from_slice(&self.ring[at..at + until_wrap]);
        tail.copy_from_slice(&self.ring[..cut.length - until_wrap]);
    }

    fn place(&self, offset: u64) -> usize {
        (offset % self.ring.len() as u64) as usize
    }

    /// Bytes that may be sent for the first time, in a frame that takes `payload_max`.
    ///
    /// A piece that is smaller only because the peer's window ends is not sent while others are on
    /// their way: the window will open further (the silly window syndrome, RFC 1122 section
    /// 4.2.3.4). With nothing on its way, it is: the peer's reader may need just those bytes.
    fn sendable(&self, payload_max: usize) -> usize {
        let unsent = ((self.end - self.sent) as usize).min(payload_max);
        let open = self.limit.saturating_sub(self.sent);
        let is_cut_short = open < unsent as u64;
        if self.segments.len() == self.segments_max || (is_cut_short && self.is_waiting()) {
            return 0;
        }
        unsent.min(open as usize)
    }

    pub(super) fn wants_to_send(&self, payload_max: usize) -> bool {
        self.lost > 0 || self.sendable(payload_max) > 0
    }

    /// Takes what goes into frame `number`, sent at `now`: the first lost segment, else new bytes.
    /// Something must [want](Self::wants_to_send) to be sent.
    pub(super) fn cut(&mut self, now: Time, number: FrameNumber, payload_max: usize) -> Cut {
        if self.lost > 0 {
            let lost = self.segments.iter_mut().find(|segment| segment.fate == Fate::Lost);
            let segment = lost.expect("as many lost segments as are counted");
            segment.fate = Fate::InFlight;
            segment.number = number;
            segment.sent_at = now;
            self.lost -= 1;
            return Cut { offset: segment.start, length: segment.length, is_repeated: true };
        }
        let length = self.sendable(payload_max);
        assert!(length > 0, "a frame with nothing to send");
        let start = self.sent;
        self.segments.push_back(Segment {
            start,
            length,
            number,
            sent_at: now,
            fate: Fate::InFlight,
        });
        self.sent += length as u64;
        Cut { offset: start, length, is_repeated: false }
    }

    /// The peer acknowledged everything below `lane.received`, and what was in the frames that
    /// `frames` covers. Returns how many segments that was news of.
    pub(super) fn handle_ack(&mut self, lane: LaneAck, frames: FrameAck) -> usize {
        assert!(lane.received <= self.sent, "an acknowledgement of what was never sent");
        let mut arrived = 0;
        while let Some(first) = self.segments.front()
            && first.end() <= lane.received
        {
            match first.fate {
                Fate::Acked => {}
                Fate::InFlight => arrived += 1,
                Fate::Lost => {
                    arrived += 1;
                    self.lost -= 1;
                }
            }
            self.segments.pop_front();
        }
        // Segments are acknowledged whole; a peer that cuts them otherwise hears the rest again.
        let acked = self.segments.front().map_or(self.sent, |first| first.start);
        self.acked = self.acked.max(acked.min(lane.received));
        self.limit = self.limit.max(lane.received + u64::from(lane.window));

        for segment in &mut self.segments {
            if segment.fate != Fate::Acked && frames.covers(segment.number) {
                if segment.fate == Fate::Lost {
                    self.lost -= 1;
                }
                segment.fate = Fate::Acked;
                arrived += 1;
            }
        }
        arrived
    }

    /// Takes for lost what was overtaken by the peer's `newest` frame: by [`OVERTAKEN_BY`] numbers,
    /// or by fewer but `reordering_max` ago. Returns how many segments are lost now that were not,
    /// and when the next one will be, if nothing is heard of it.
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
            if segment.fate != Fate::InFlight || segment.number >= newest || is_forgotten {
                continue;
            }
            let late_at = segment.sent_at + reordering_max;
            if newest.0 - segment.number.0 >= OVERTAKEN_BY || late_at <= now {
                segment.fate = Fate::Lost;
                lost += 1;
            } else {
                loss_at = Some(loss_at.map_or(late_at, |at| at.min(late_at)));
            }
        }
        self.lost += lost;
        (lost, loss_at)
    }

    /// RFC 6298 (5.4): the timer ran out, the earliest segment on its way is to be sent again.
    /// Whether there was one.
    pub(super) fn handle_timeout(&mut self, forget_last: bool) -> bool {
        let end = self.end;
        let mut waiting = self.segments.iter_mut().filter(|s| s.fate == Fate::InFlight);
        let Some(segment) = waiting.find(|s| !(forget_last && s.end() == end)) else {
            return false;
        };
        segment.fate = Fate::Lost;
        self.lost += 1;
        true
    }
}
