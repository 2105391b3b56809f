//! Received bytes of one lane.
//!
//! ```text
//!   consumed        received       gap                          consumed + window
//!  ----|---------------|..........[======]......[===]..................|
//!      | readable      | missing   out of order, with gaps             | refused
//! ```
//!
//! Bytes are written to their place in the buffer when they arrive, and not moved until they are read.
//! The exception is the rare moment when the end of the buffer is near. The buffer is twice the window,
//! so that the readable bytes are always one slice.

use alloc::vec;
use alloc::vec::Vec;

use crate::limits::GAPS_MAX;

/// What became of a range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// Kept. `in_order`: the range closed no gap and opened none.
    Kept { in_order: bool },
    /// All of it was received before.
    Duplicate,
    /// Not kept: it exceeds the window that was advertised.
    OutOfWindow,
    /// Not kept: too many gaps.
    TooManyGaps,
}

/// Bytes of one lane that were received and not consumed. Everything is allocated by `new`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RecvWindow {
    /// The byte at offset `o` of the lane is at `o - base`.
    buffer: Vec<u8>,
    base: u64,
    consumed: u64,
    /// All bytes below are received.
    received: u64,
    /// Ranges received beyond that, as start and end offsets, with gaps between them.
    out_of_order: Vec<(u64, u64)>,
    window: usize,
    /// End of the window as last advertised to the peer.
    advertised: u64,
}

impl RecvWindow {
    pub(super) fn new(window: usize) -> Self {
        Self {
            buffer: vec![0; 2 * window],
            base: 0,
            consumed: 0,
            received: 0,
            out_of_order: Vec::with_capacity(GAPS_MAX),
            window,
            advertised: 0,
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    fn limit(&self) -> u64 {
        self.consumed + self.window as u64
    }

    /// Returns the window to advertise: bytes that the peer may send beyond those received.
    pub(super) fn advertise_window(&mut self) -> u32 {
        self.advertised = self.limit();
        (self.limit() - self.received) as u32
    }

    /// Returns whether the window has opened so far since it was last advertised that the peer must be
    /// told.
    pub(super) fn needs_window_update(&self) -> bool {
        self.limit() - self.advertised >= self.window as u64 / 2
    }

    /// Inserts `payload`, whose first byte is at `offset` of the lane.
    pub(super) fn insert(&mut self, offset: u64, payload: &[u8]) -> Insertion {
        let end = offset + payload.len() as u64;
        if end <= self.received {
            return Insertion::Duplicate;
        }
        if end > self.limit() {
            return Insertion::OutOfWindow;
        }
        // Bytes that were acknowledged are not overwritten, whatever the peer sends for them.
        let start = offset.max(self.received);
        let in_order = self.out_of_order.is_empty() && start == self.received;
        if start > self.received {
            match self.insert_out_of_order(start, end) {
                Insertion::Kept { .. } => {}
                refused @ (Insertion::Duplicate
                | Insertion::OutOfWindow
                | Insertion::TooManyGaps) => return refused,
            }
        } else {
            self.received = end;
        }
        let at = (start - self.base) as usize;
        let payload = &payload[(start - offset) as usize..];
        self.buffer[at..at + payload.len()].copy_from_slice(payload);
        self.merge_out_of_order();
        Insertion::Kept { in_order }
    }

    /// Adds a range beyond the first gap and merges it with those that it touches.
    fn insert_out_of_order(&mut self, start: u64, end: u64) -> Insertion {
        let first = self.out_of_order.partition_point(|&(_, range_end)| range_end < start);
        let behind = self.out_of_order.partition_point(|&(range_start, _)| range_start <= end);
        if first == behind {
            if self.out_of_order.len() == GAPS_MAX {
                return Insertion::TooManyGaps;
            }
            self.out_of_order.insert(first, (start, end));
            return Insertion::Kept { in_order: false };
        }
        let joined =
            (start.min(self.out_of_order[first].0), end.max(self.out_of_order[behind - 1].1));
        if behind - first == 1 && joined == self.out_of_order[first] {
            return Insertion::Duplicate;
        }
        self.out_of_order[first] = joined;
        self.out_of_order.drain(first + 1..behind);
        Insertion::Kept { in_order: false }
    }

    /// Moves `received` past the ranges that have become contiguous with it.
    fn merge_out_of_order(&mut self) {
        let joined = self.out_of_order.partition_point(|&(start, _)| start <= self.received);
        if joined > 0 {
            self.received = self.received.max(self.out_of_order[joined - 1].1);
            self.out_of_order.drain(..joined);
        }
    }

    /// Returns the end of everything received.
    pub(super) fn highest(&self) -> u64 {
        self.out_of_order.last().map_or(self.received, |&(_, end)| end)
    }

    pub(super) fn readable(&self) -> &[u8] {
        let at = (self.consumed - self.base) as usize;
        &self.buffer[at..at + (self.received - self.consumed) as usize]
    }

    /// Discards the first `length` readable bytes.
    pub(super) fn consume(&mut self, length: usize) {
        assert!(length as u64 <= self.received - self.consumed, "consumed more than was received");
        self.consumed += length as u64;
        let highest = self.highest();
        let at = (self.consumed - self.base) as usize;
        if self.consumed == highest || at > self.window {
            let held = (highest - self.consumed) as usize;
            self.buffer.copy_within(at..at + held, 0);
            self.base = self.consumed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the lane, and the window.
    const LANE_BYTES: usize = 8;
    const WINDOW_BYTES: usize = 6;

    /// Every sequence of three ranges in a short lane, with everything readable consumed after none or each of
    /// them: the window keeps what it may, in order, and never gives another byte than the sender's.
    #[test]
    fn every_sequence_of_three_ranges_in_a_short_lane_is_put_together() {
        let lane: [u8; LANE_BYTES] = core::array::from_fn(|at| 0xA0 + at as u8);
        let ranges =
            (0..LANE_BYTES).flat_map(|start| (start + 1..=LANE_BYTES).map(move |end| (start, end)));
        let ranges: Vec<_> = ranges.collect();
        let count = ranges.len();
        for sequence in 0..count.pow(3) * 8 {
            let mut window = RecvWindow::new(WINDOW_BYTES);
            let (mut held, mut consumed) = ([false; LANE_BYTES], 0);
            for place in 0..3 {
                let (start, end) = ranges[sequence / 8 / count.pow(place) % count];
                let is_beyond = end > consumed + WINDOW_BYTES;
                let is_held = held[start..end].iter().all(|&held| held);
                let expected = match (is_held, is_beyond) {
                    (true, _) => Insertion::Duplicate,
                    (false, true) => Insertion::OutOfWindow,
                    (false, false) => {
                        let received = window.received() as usize;
                        let in_order = start <= received && window.highest() == received as u64;
                        held[start..end].fill(true);
                        Insertion::Kept { in_order }
                    }
                };
                assert_eq!(
                    window.insert(start as u64, &lane[start..end]),
                    expected,
                    "{sequence}, {place}"
                );
                let received = held.iter().position(|&held| !held).unwrap_or(LANE_BYTES);
                assert_eq!(window.received(), received as u64, "{sequence}, {place}");
                assert_eq!(window.readable(), &lane[consumed..received], "{sequence}, {place}");
                if sequence >> place & 1 != 0 {
                    window.consume(received - consumed);
                    consumed = received;
                }
                assert!(window.advertise_window() as usize <= WINDOW_BYTES);
            }
        }
    }
}
