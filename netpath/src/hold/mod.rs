//! [`HoldQueue`]: frames of the VM that may not leave yet.
//!
//! Each frame has a **watermark**, its own position in the log, and **needs** a position, at or before
//! its own, that must be acknowledged before it may leave. To this crate a position is a number; neither
//! of the two decreases from frame to frame.
//!
//! ```text
//!             push                    next_released(acknowledged), pop
//!   the VM ---------> [ HoldQueue ] -----------------------------------> the tap      primary
//!   the VM ---------> [ HoldQueue ] -----------------------------------> nowhere      backup
//!                                     drop_up_to(released by the primary)
//!                                     at go-live: front, pop ----------> the tap
//! ```
//!
//! The primary holds a frame until the backup has the log that led to it. The backup makes the same
//! frames and keeps each until the primary says that it has left; at go-live it sends what is left,
//! because those may have died with the primary.

use std::collections::VecDeque;
use std::fmt;

use crate::port::{FRAME_MAX, length_fits};

mod config;

pub use config::{HoldLimits, HoldLimitsError, HoldStats};

/// There is no room for the frame. It was not taken: slow down whoever makes frames, and push it
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hold queue is full")]
pub struct Full;

/// A frame that waits at the front of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'a> {
    /// Position that must be acknowledged before the frame may leave.
    pub release_at: u64,
    /// Its own position.
    pub watermark: u64,
    /// When the VM made it, in nanoseconds of the caller's clock.
    pub made_at_ns: u64,
    /// The frame, in one piece.
    pub frame: &'a [u8],
}

/// Frames in the order they were made, bounded in number and in bytes. Allocates when it is made and
/// never again; takes each frame in one copy and hands it out in place.
///
/// The bytes lie in a ring. A frame that would cross its end begins at its start instead, so that it
/// is one slice; the ring is longer than the bound on bytes by what that can waste, and the bound is
/// therefore exact: a frame fits if, and only if, it is within both limits.
pub struct HoldQueue {
    limits: HoldLimits,
    ring: Box<[u8]>,
    slots: VecDeque<Slot>,
    /// Bytes of the frames held.
    bytes: usize,
    /// What the last push needed, and its watermark: no later ones may be less.
    newest: (u64, u64),
    stats: HoldStats,
}

/// Where a frame lies.
struct Slot {
    release_at: u64,
    watermark: u64,
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
    /// An empty queue.
    pub fn new(limits: HoldLimits) -> HoldQueue {
        HoldQueue {
            limits,
            // Less than a whole frame is wasted, and only at one place: the end of the ring.
            ring: vec![0; limits.bytes() + FRAME_MAX - 1].into_boxed_slice(),
            slots: VecDeque::with_capacity(limits.frames()),
            bytes: 0,
            newest: (0, 0),
            stats: HoldStats::default(),
        }
    }

    /// The limits it was made with.
    pub fn limits(&self) -> HoldLimits {
        self.limits
    }

    /// Takes a copy of `frame` with the watermark `watermark`, to be held until `needs` is acknowledged;
    /// or nothing, if it is [`Full`].
    ///
    /// Panics if one of the two is less than at the push before, if `needs` is beyond the watermark, or if
    /// no port would carry the frame: the VM's device drops those of other lengths.
    pub fn push(
        &mut self,
        release_at: u64,
        watermark: u64,
        made_at_ns: u64,
        frame: &[u8],
    ) -> Result<(), Full> {
        let (release_min, watermark_min) = self.newest;
        assert!(watermark >= watermark_min, "watermark {watermark} after {watermark_min}");
        assert!(
            (release_min..=watermark).contains(&release_at),
            "a frame at {watermark} that leaves at {release_at}"
        );
        assert!(length_fits(frame.len()), "a frame of {} bytes", frame.len());
        if !self.room_for(frame.len()) {
            self.stats.refused += 1;
            return Err(Full);
        }
        let start = self.place(frame.len());
        self.ring[start..start + frame.len()].copy_from_slice(frame);
        let (start, length) = (start as u32, frame.len() as u16);
        self.slots.push_back(Slot { release_at, watermark, made_at_ns, start, length });
        self.newest = (release_at, watermark);
        self.bytes += frame.len();
        self.stats.pushed += 1;
        self.stats.frames_high = self.stats.frames_high.max(self.slots.len());
        self.stats.bytes_high = self.stats.bytes_high.max(self.bytes);
        Ok(())
    }

    /// Where the next frame goes, if it is within the limits.
    fn place(&self, length: usize) -> usize {
        let (Some(front), Some(back)) = (self.slots.front(), self.slots.back()) else {
            // From the start again: the memory used last is the memory in the cache.
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
        assert!(start + length <= free_to, "within the limits, and no room: {self:?}");
        start
    }

    /// Whether a frame of `length` bytes would be taken.
    pub fn room_for(&self, length: usize) -> bool {
        self.slots.len() < self.limits.frames() && self.bytes + length <= self.limits.bytes()
    }

    /// The oldest frame.
    pub fn front(&self) -> Option<Held<'_>> {
        let slot = self.slots.front()?;
        let frame = &self.ring[slot.start()..slot.end()];
        let Slot { release_at, watermark, made_at_ns, .. } = *slot;
        Some(Held { release_at, watermark, made_at_ns, frame })
    }

    /// The oldest frame, if it may leave once everything up to and including `up_to` is
    /// acknowledged.
    pub fn next_released(&self, up_to: u64) -> Option<Held<'_>> {
        self.front().filter(|held| held.release_at <= up_to)
    }

    /// Lets go of the oldest frame, which was released. Panics if there is none.
    pub fn pop(&mut self) {
        self.remove_front();
        self.stats.released += 1;
    }

    fn remove_front(&mut self) {
        let slot = self.slots.pop_front().expect("a frame at the front");
        self.bytes -= usize::from(slot.length);
    }

    /// Drops the frames whose watermark is at most `watermark` and returns how many they were: on
    /// the backup, those that the primary has released.
    ///
    /// Several frames may share a watermark. The primary must then report it only when the last of
    /// them has left and no further one can come.
    pub fn drop_up_to(&mut self, watermark: u64) -> usize {
        let before = self.slots.len();
        while self.front().is_some_and(|held| held.watermark <= watermark) {
            self.remove_front();
        }
        let count = before - self.slots.len();
        self.stats.dropped += count as u64;
        count
    }

    /// Drops all frames and returns how many they were. Watermarks may begin anew: a new log does.
    pub fn clear(&mut self) -> usize {
        let count = self.drop_up_to(u64::MAX);
        self.newest = (0, 0);
        count
    }

    /// Frames held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of the frames held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the newest frame held needs: once it is acknowledged, all may leave.
    pub fn newest_release_at(&self) -> Option<u64> {
        self.slots.back().map(|slot| slot.release_at)
    }

    /// When the oldest frame held was made.
    pub fn oldest_made_at(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.made_at_ns)
    }

    /// What was counted since the queue was made.
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
