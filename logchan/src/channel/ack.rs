//! Which frames of the peer were received, and when to acknowledge them.

use crate::frame::FrameAck;
use crate::ids::FrameNumber;
use crate::limits::REPLAY_BITS;
use crate::time::{Duration, Time};

/// Longest delay of an acknowledgement that the peer does not wait for.
pub(super) const ACK_DELAY_MAX: Duration = Duration::from_micros(100);

/// Number of frames after which an acknowledgement is sent at once, although the peer does not wait for
/// it.
const ACK_EVERY: u32 = 8;

/// Whether a frame was received before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    New,
    Duplicate,
    /// So far behind the newest frame that this is not known. The frame is dropped. If it was new, the
    /// sender gets no acknowledgement and retransmits the bytes.
    TooOld,
}

/// The frames received: the newest number and the [`REPLAY_BITS`] before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrivals {
    newest: FrameNumber,
    /// Bit `i`: frame `newest - 1 - i` was received.
    before: u128,
    newest_at: Time,
}

impl Arrivals {
    pub(super) fn novelty(&self, number: FrameNumber) -> Novelty {
        if number > self.newest {
            return Novelty::New;
        }
        let Some(bit) = (self.newest.0 - number.0).checked_sub(1) else {
            return Novelty::Duplicate;
        };
        if bit >= u64::from(REPLAY_BITS) {
            Novelty::TooOld
        } else if self.before >> bit & 1 != 0 {
            Novelty::Duplicate
        } else {
            Novelty::New
        }
    }

    /// Records frame `number`, which must be new, as received.
    pub(super) fn record(&mut self, now: Time, number: FrameNumber) {
        assert_eq!(self.novelty(number), Novelty::New);
        if let Some(back) = self.newest.0.checked_sub(number.0) {
            self.before |= 1 << (back - 1);
            return;
        }
        let ahead = number.0 - self.newest.0;
        // Bit `ahead - 1` stands for the frame that was the newest. Before the first frame there was
        // none.
        let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
        let seen = self.before.checked_shl(shift).unwrap_or(0);
        let was_newest = if self.newest == FrameNumber::NONE { 0 } else { 1 };
        self.before = seen | u128::checked_shl(was_newest, shift - 1).unwrap_or(0);
        self.newest = number;
        self.newest_at = now;
    }

    /// Returns whether `number` is newer than every frame received.
    pub(super) fn is_newest(&self, number: FrameNumber) -> bool {
        number > self.newest
    }

    /// Returns whether `number` follows the newest frame directly.
    pub(super) fn is_next(&self, number: FrameNumber) -> bool {
        number == self.newest.next()
    }

    /// Returns the acknowledgement that every outgoing frame carries.
    pub(super) fn ack(&self, now: Time) -> FrameAck {
        let held_ns = match self.newest {
            FrameNumber::NONE => 0,
            FrameNumber(_) => now.since(self.newest_at).as_nanos(),
        };
        FrameAck {
            newest: self.newest,
            before: self.before as u64,
            held_ns: u32::try_from(held_ns).unwrap_or(u32::MAX),
        }
    }
}

/// The acknowledgement that this end owes to the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PendingAck {
    /// Frames received since the last acknowledgement that ask for one.
    frames: u32,
    due: bool,
    /// At least one of them carried log.
    log: bool,
}

impl PendingAck {
    /// Records a frame that asks for an acknowledgement. Returns whether the acknowledgement may be
    /// delayed by [`ACK_DELAY_MAX`].
    pub(super) fn add(&mut self, at_once: bool) -> bool {
        self.frames += 1;
        self.due |= at_once || self.frames >= ACK_EVERY;
        !self.due
    }

    /// Records that the frame carried log.
    pub(super) fn add_log(&mut self) {
        self.log = true;
    }

    /// Returns whether log was received that is not acknowledged yet.
    pub(super) fn has_log(&self) -> bool {
        self.log
    }

    pub(super) fn set_due(&mut self) {
        self.due = true;
    }

    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// Clears the pending acknowledgement: a frame was sent, and every frame acknowledges.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(numbers: &[u64]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for &number in numbers {
            arrivals.record(Time::default(), FrameNumber(number));
        }
        arrivals
    }

    #[test]
    fn arrivals_out_of_order_are_reported_one_by_one() {
        let ack = arrivals(&[3, 1, 7, 6]).ack(Time::default());
        let covered: Vec<u64> = (1..10).filter(|&n| ack.covers(FrameNumber(n))).collect();
        assert_eq!(covered, [1, 3, 6, 7]);
    }

    #[test]
    fn arrivals_first_frame_covers_no_frame_before_it() {
        let ack = arrivals(&[1]).ack(Time::default());
        assert_eq!((ack.newest.0, ack.before), (1, 0));
    }

    #[test]
    fn arrivals_recognize_duplicates_within_the_window_and_old_frames_beyond() {
        for newest in [2, 127, 128, 129, 130, 500, u64::MAX - 1] {
            let arrivals = arrivals(&[1, newest]);
            let expected = if newest > 129 { Novelty::TooOld } else { Novelty::Duplicate };
            assert_eq!(arrivals.novelty(FrameNumber(1)), expected, "after {newest}");
            assert_eq!(arrivals.novelty(FrameNumber(newest)), Novelty::Duplicate);
            assert_eq!(arrivals.novelty(FrameNumber(newest + 1)), Novelty::New);
        }
    }

    /// Every sequence of four frame numbers at the edges of both bitmaps gives the answers of a set, and so does
    /// the acknowledgement that results.
    #[test]
    fn arrivals_agree_with_a_set_for_every_short_sequence_at_an_edge() {
        let bits = u64::from(REPLAY_BITS);
        let near = [1, 2, 3, 63, 64, 65, 66];
        let far = [bits - 1, bits, bits + 1, bits + 2, 2 * bits, 2 * bits + 1, u64::MAX - 1];
        let numbers = [near, far].concat();
        let count = numbers.len();
        for sequence in 0..count.pow(4) {
            let mut arrivals = Arrivals::default();
            let mut seen = Vec::new();
            for place in 0..4 {
                let n = numbers[sequence / count.pow(place) % count];
                let newest = seen.iter().copied().max().unwrap_or(0);
                let expected = if n < newest && newest - n > bits {
                    Novelty::TooOld
                } else if seen.contains(&n) {
                    Novelty::Duplicate
                } else {
                    Novelty::New
                };
                let found = arrivals.novelty(FrameNumber(n));
                assert_eq!(found, expected, "number {n} of sequence {sequence}");
                if found == Novelty::New {
                    arrivals.record(Time::default(), FrameNumber(n));
                    seen.push(n);
                }
            }
            let ack = arrivals.ack(Time::default());
            for &n in &numbers {
                let is_covered = seen.contains(&n) && ack.newest.0 - n <= 64;
                assert_eq!(ack.covers(FrameNumber(n)), is_covered, "number {n}, {sequence}");
            }
        }
    }

    use alloc::vec::Vec;
}
