//! Sending times of frames.

use alloc::vec;
use alloc::vec::Vec;

use crate::ids::FrameNumber;
use crate::limits::SENT_TIMES;
use crate::time::Time;

/// A frame that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    number: FrameNumber,
    pub(super) at: Time,
    /// The frame asked for an immediate acknowledgement, so that one is a round-trip sample.
    pub(super) wants_ack: bool,
}

/// The last [`SENT_TIMES`] frames sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SentTimes {
    /// Frame `n` is at `n % SENT_TIMES`.
    ring: Vec<Sent>,
}

impl SentTimes {
    pub(super) fn new() -> Self {
        Self { ring: vec![Sent::default(); SENT_TIMES] }
    }

    pub(super) fn record(&mut self, number: FrameNumber, at: Time, wants_ack: bool) {
        self.ring[Self::place(number)] = Sent { number, at, wants_ack };
    }

    /// Returns the frame, unless it is too old to be remembered.
    pub(super) fn get(&self, number: FrameNumber) -> Option<Sent> {
        let sent = self.ring[Self::place(number)];
        (number != FrameNumber::NONE && sent.number == number).then_some(sent)
    }

    fn place(number: FrameNumber) -> usize {
        (number.0 % SENT_TIMES as u64) as usize
    }
}
