//! One lane's bytes as they arrive.
//!
//! ```text
//!   consumed        received       gap                          consumed + window
//!  ----|---------------|..........[======]......[===]..................|
//!      | the reader's  | missing   early         early                 | refused
//! ```
//!
//! Bytes are put where they belong when they arrive and not moved until they are read, but for the
//! rare moment when the buffer's end is near: it is twice the window, so that what is readable is
//! one slice always.

use alloc::vec;
use alloc::vec::Vec;

use crate::limits::GAPS_MAX;

/// What became of a stretch of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insertion {
    /// Kept. `in_order`: it closed no gap and opened none.
    Kept { in_order: bool },
    /// It was all there already.
    Repeated,
    /// Not kept: behind the end of the window, which the peer was told.
    OutOfWindow,
    /// Not kept: too many gaps.
    TooManyGaps,
}

/// One lane's bytes that arrived and were not consumed. What is allocated is allocated by `new`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RecvWindow {
    /// The byte at offset `o` of the lane is at `o - base`.
    buffer: Vec<u8>,
    base: u64,
    consumed: u64,
    /// All bytes below are here.
    received: u64,
    /// What arrived beyond, by offset: start and end of stretches with gaps between them.
    early: Vec<(u64, u64)>,
    window: usize,
    /// The end of the window as the peer was last told.
    told: u64,
}

impl RecvWindow {
    pub(super) fn new(window: usize) -> Self {
        Self {
            buffer: vec![0; 2 * window],
            base: 0,
            consumed: 0,
            received: 0,
            early: Vec::with_capacity(GAPS_MAX),
            window,
            told: 0,
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

    /// What may be sent beyond what was received, as the peer is about to be told.
    pub(super) fn tell_window(&mut self) -> u32 {
        self.told = self.limit();
        (self.limit() - self.received) as u32
    }

    /// The window has opened so far since the peer was told that it must hear of it.
    pub(super) fn owes_window(&self) -> bool {
        self.limit() - self.told >= self.window as u64 / 2
    }

    /// Puts `payload` where it belongs.
    pub(super) fn insert(&mut self, offset: u64, payload: &[u8]) -> Insertion {
        let end = offset + payload.len() as u64;
        if end <= self.received {
            return Insertion::Repeated;
        }
        if end > self.limit() {
            return Insertion::OutOfWindow;
        }
        // What was acknowledged is not written again, whatever the peer claims to be there.
        let start = offset.max(self.received);
        let in_order = self.early.is_empty() && start == self.received;
        if start > self.received {
            match self.insert_early(start, end) {
                Insertion::Kept { .. } => {}
                refused @ (Insertion::Repeated
                | Insertion::OutOfWindow
                | Insertion::TooManyGaps) => return refused,
            }
        } else {
            self.received = end;
        }
        let at = (start - self.base) as usize;
        let payload = &payload[(start - offset) as usize..];
        self.buffer[at..at + payload.len()].copy_from_slice(payload);
        self.join_early();
        Insertion::Kept { in_order }
    }

    /// Notes a stretch beyond the first gap, joined with those that it touches.
    fn insert_early(&mut self, start: u64, end: u64) -> Insertion {
        let first = self.early.partition_point(|&(_, early_end)| early_end < start);
        let behind = self.early.partition_point(|&(early_start, _)| early_start <= end);
        if first == behind {
            if self.early.len() == GAPS_MAX {
                return Insertion::TooManyGaps;
            }
            self.early.insert(first, (start, end));
            return Insertion::Kept { in_order: false };
        }
        let joined = (start.min(self.early[first].0), end.max(self.early[behind - 1].1));
        if behind - first == 1 && joined == self.early[first] {
            return Insertion::Repeated;
        }
        self.early[first] = joined;
        self.early.drain(first + 1..behind);
        Insertion::Kept { in_order: false }
    }

    /// Takes into the contiguous part what has come to touch it.
    fn join_early(&mut self) {
        let joined = self.early.partition_point(|&(start, _)| start <= self.received);
        if joined > 0 {
            self.received = self.received.max(self.early[joined - 1].1);
            self.early.drain(..joined);
        }
    }

    /// The end of everything that arrived.
    pub(super) fn highest(&self) -> u64 {
        self.early.last().map_or(self.received, |&(_, end)| end)
    }

    pub(super) fn readable(&self) -> &[u8] {
        let at = (self.consumed - self.base) as usize;
        &self.buffer[at..at + (self.received - self.consumed) as usize]
    }

    /// The reader is done with the first `length` readable bytes.
    pub(super) fn consume(&mut self, length: usize) {
        assert!(length as u64 <= self.received - self.consumed, "consumed more than there is");
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
