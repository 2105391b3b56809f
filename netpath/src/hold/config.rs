//! What a hold queue is told, and what it counts.

use crate::limits::{
    HOLD_BYTES_DEFAULT, HOLD_BYTES_MAX, HOLD_BYTES_MIN, HOLD_FRAMES_DEFAULT, HOLD_FRAMES_MAX,
    HOLD_FRAMES_MIN,
};

/// How much a hold queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    frames: usize,
    bytes: usize,
}

/// Why limits are none that a queue can be made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldLimitsError {
    /// Too few or too many frames.
    #[error("a hold queue of {0} frames: choose {HOLD_FRAMES_MIN} to {HOLD_FRAMES_MAX}")]
    Frames(usize),
    /// Too few or too many bytes.
    #[error("a hold queue of {0} bytes: choose {HOLD_BYTES_MIN} to {HOLD_BYTES_MAX}")]
    Bytes(usize),
}

impl HoldLimits {
    /// At most `frames` frames, of `bytes` bytes in all; within the bounds of [`crate::limits`].
    pub fn new(frames: usize, bytes: usize) -> Result<HoldLimits, HoldLimitsError> {
        if !(HOLD_FRAMES_MIN..=HOLD_FRAMES_MAX).contains(&frames) {
            Err(HoldLimitsError::Frames(frames))
        } else if !(HOLD_BYTES_MIN..=HOLD_BYTES_MAX).contains(&bytes) {
            Err(HoldLimitsError::Bytes(bytes))
        } else {
            Ok(HoldLimits { frames, bytes })
        }
    }

    /// Frames held at most.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Bytes of frames held at most.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Default for HoldLimits {
    fn default() -> Self {
        HoldLimits { frames: HOLD_FRAMES_DEFAULT, bytes: HOLD_BYTES_DEFAULT }
    }
}

/// Counters of a hold queue since it was made. A plain copy. What was pushed and neither released
/// nor dropped is still held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldStats {
    /// Frames taken.
    pub pushed: u64,
    /// Frames that left by `pop`.
    pub released: u64,
    /// Frames that left by `drop_up_to` or `clear`.
    pub dropped: u64,
    /// Pushes answered with [`Full`](super::Full).
    pub refused: u64,
    /// Most frames held at a time.
    pub frames_high: usize,
    /// Most bytes held at a time.
    pub bytes_high: usize,
}
