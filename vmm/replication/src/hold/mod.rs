//! [`HoldQueue`]: frames of the VM that must not leave yet (output rule).
//!
//! Each frame has three log positions: its **watermark**, which is its own position; **release_at**, at
//! or before its own, which must be acknowledged before the frame may leave; and **durable_at**, before its own, which
//! must be executed by the backup before the frame may leave, because a flush of a disk is complete there. To this crate
//! a position is a number. None of the three decreases from one frame to the next.
//!
//! ```text
//!             push                    front, pop: once acknowledged   
//!   the VM ---------> [ HoldQueue ] -----------------------------------> the tap      primary
//!   the VM ---------> [ HoldQueue ] -----------------------------------> nowhere      backup
//!                                     drop_up_to(released by the primary)
//!                                     at go-live: front, pop ----------> the tap
//! ```
//!
//! The primary holds a frame until the backup has the log that led to it. The backup produces the same
//! frames and keeps each until the primary reports that it has released it. At go-live the backup sends
//! the remaining frames, because the primary may have failed before it sent them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use core::fmt;

use crate::limits::{FRAME_MAX, FRAME_MIN};

mod config;

pub use config::{HoldLimits, HoldLimitsError, HoldStats};

/// The queue has no room for the frame, and did not take it. Slow down the producer, and push the frame
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hold queue is full")]
pub struct Full;

/// The frame at the front of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'a> {
    /// Log position that must be acknowledged before the frame may leave.
    pub release_at: u64,
    /// Log position that the backup must have executed before the frame may leave.
    pub durable_at: u64,
    /// The frame's own log position.
    pub watermark: u64,
    /// When the VM produced it, in nanoseconds of the caller's clock.
    pub made_at_ns: u64,
    /// The frame, contiguous.
    pub frame: &'a [u8],
}

/// The log positions of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Must be acknowledged before the frame may leave.
    pub release_at: u64,
    /// Must be executed by the backup before the frame may leave.
    pub durable_at: u64,
    /// The frame's own.
    pub watermark: u64,
}

/// Frames in the order in which they were produced, bounded in number and in bytes. Allocates only in
/// `new`; copies each frame once, on `push`, and lends it in place.
///
/// The bytes are in a ring buffer. A frame that would cross the end of the ring is placed at its start
/// instead, so that it is one slice. The ring is longer than the limit on bytes by the space that this
/// can waste. The limit is therefore exact: a frame fits if and only if it is within both limits.
pub struct HoldQueue {
    limits: HoldLimits,
    ring: Box<[u8]>,
    slots: VecDeque<Slot>,
    /// Bytes of the frames held.
    bytes: usize,
    /// Those of the last push, the minima for the next one.
    newest: Positions,
    stats: HoldStats,
}

/// The place of a frame in the ring, and its positions.
struct Slot {
    positions: Positions,
    made_at_ns: u64,
    start: u32,
    length: u16,
}

impl Slot {
    fn start(&self) -> usize {
        self.start as usize
    }

    fn end(&self) -> usize {
        self.start() + usize::from(self.length)
    }
}

impl HoldQueue {
    /// Creates an empty queue.
    pub fn new(limits: HoldLimits) -> HoldQueue {
        HoldQueue {
            limits,
            // Space is wasted only at the end of the ring, and less than one frame of it.
            ring: vec![0; limits.bytes() + FRAME_MAX - 1].into_boxed_slice(),
            slots: VecDeque::with_capacity(limits.frames()),
            bytes: 0,
            newest: Positions::default(),
            stats: HoldStats::default(),
        }
    }

    /// The limits it was created with.
    pub fn limits(&self) -> HoldLimits {
        self.limits
    }

    /// Appends a copy of `frame`, to be held until its `release_at` is acknowledged and its `durable_at` executed.
    ///
    /// # Errors
    ///
    /// [`Full`] if the frame does not fit within the limits; the queue is unchanged.
    ///
    /// # Panics
    ///
    /// If a position is less than at the previous push, if `release_at` or `durable_at` is beyond
    /// `watermark`, or if the frame's length is outside [`FRAME_MIN`] to
    /// [`FRAME_MAX`]: the VM's device drops frames of other lengths.
    pub fn push(
        &mut self,
        positions: Positions,
        made_at_ns: u64,
        frame: &[u8],
    ) -> Result<(), Full> {
        let Positions { release_at, durable_at, watermark } = positions;
        let newest = self.newest;
        let watermark_min = newest.watermark;
        assert!(watermark >= watermark_min, "watermark {watermark} after {watermark_min}");
        assert!((newest.release_at..=watermark).contains(&release_at), "{positions:?}");
        assert!((newest.durable_at..=watermark).contains(&durable_at), "{positions:?}");
        assert!((FRAME_MIN..=FRAME_MAX).contains(&frame.len()), "a frame of {} bytes", frame.len());
        if !self.room_for(frame.len()) {
            self.stats.refused += 1;
            return Err(Full);
        }
        let start = self.place(frame.len());
        self.ring[start..start + frame.len()].copy_from_slice(frame);
        let (start, length) = (start as u32, frame.len() as u16);
        self.slots.push_back(Slot { positions, made_at_ns, start, length });
        self.newest = positions;
        self.bytes += frame.len();
        self.stats.pushed += 1;
        self.stats.frames_high = self.stats.frames_high.max(self.slots.len());
        self.stats.bytes_high = self.stats.bytes_high.max(self.bytes);
        Ok(())
    }

    /// Returns the ring offset for the next frame, which must be within the limits.
    fn place(&self, length: usize) -> usize {
        let (Some(front), Some(back)) = (self.slots.front(), self.slots.back()) else {
            // Restart at offset 0 when empty: the most recently used memory is in the CPU cache.
            return 0;
        };
        let (head, tail) = (front.start(), back.end());
        let wrapped = back.start < front.start;
        let (start, free_to) = if wrapped {
            (tail, head)
        } else if tail + length <= self.ring.len() {
            (tail, self.ring.len())
        } else {
            (0, head)
        };
        assert!(start + length <= free_to, "no room for a frame within the limits: {self:?}");
        start
    }

    /// Whether a frame of `length` bytes would be accepted.
    pub fn room_for(&self, length: usize) -> bool {
        self.slots.len() < self.limits.frames() && self.bytes + length <= self.limits.bytes()
    }

    /// The oldest frame.
    pub fn front(&self) -> Option<Held<'_>> {
        self.get(0)
    }

    /// The frame behind the `index` oldest ones.
    pub fn get(&self, index: usize) -> Option<Held<'_>> {
        let slot = self.slots.get(index)?;
        let frame = &self.ring[slot.start()..slot.end()];
        let Slot { positions: Positions { release_at, durable_at, watermark }, made_at_ns, .. } =
            *slot;
        Some(Held { release_at, durable_at, watermark, made_at_ns, frame })
    }

    /// Removes the oldest frame, which the caller has released.
    ///
    /// # Panics
    ///
    /// If the queue is empty.
    pub fn pop(&mut self) {
        self.remove_front();
        self.stats.released += 1;
    }

    fn remove_front(&mut self) {
        let slot = self.slots.pop_front().expect("a frame at the front");
        self.bytes -= usize::from(slot.length);
    }

    /// Drops the frames whose watermark is at most `watermark` and returns how many it dropped. The
    /// backup calls this with the watermark that the primary reports as released.
    ///
    /// Several frames may share a watermark. The primary must report it only once it has released the
    /// last of them and no further frame can get the same watermark.
    pub fn drop_up_to(&mut self, watermark: u64) -> usize {
        let before = self.slots.len();
        while self.front().is_some_and(|held| held.watermark <= watermark) {
            self.remove_front();
        }
        let count = before - self.slots.len();
        self.stats.dropped += count as u64;
        count
    }

    /// Drops all frames and returns how many it dropped. Positions may start from 0 again after this, as
    /// they do in a new log.
    pub fn clear(&mut self) -> usize {
        let count = self.drop_up_to(u64::MAX);
        self.newest = Positions::default();
        count
    }

    /// Number of frames held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no frame is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of the frames held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `release_at` of the newest frame held. Once that position is acknowledged, all frames may leave.
    pub fn newest_release_at(&self) -> Option<u64> {
        self.slots.back().map(|slot| slot.positions.release_at)
    }

    /// Counters since the queue was created.
    pub fn stats(&self) -> HoldStats {
        self.stats
    }
}

impl fmt::Debug for HoldQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("HoldQueue");
        debug.field("limits", &self.limits).field("frames", &self.slots.len());
        debug.field("bytes", &self.bytes).field("stats", &self.stats).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
