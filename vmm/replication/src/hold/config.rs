//! Limits and counters of a hold queue.

use crate::limits::{
    HOLD_BYTES_DEFAULT, HOLD_BYTES_MAX, HOLD_BYTES_MIN, HOLD_FRAMES_DEFAULT, HOLD_FRAMES_MAX,
    HOLD_FRAMES_MIN,
};

/// How many frames and bytes a hold queue accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    frames: usize,
    bytes: usize,
}

/// Why limits are invalid.
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
    /// Limits of `frames` frames and `bytes` bytes in total.
    ///
    /// # Errors
    ///
    /// [`HoldLimitsError`] if one of the two is outside the bounds in [`crate::limits`].
    pub fn new(frames: usize, bytes: usize) -> Result<HoldLimits, HoldLimitsError> {
        if !(HOLD_FRAMES_MIN..=HOLD_FRAMES_MAX).contains(&frames) {
            Err(HoldLimitsError::Frames(frames))
        } else if !(HOLD_BYTES_MIN..=HOLD_BYTES_MAX).contains(&bytes) {
            Err(HoldLimitsError::Bytes(bytes))
        } else {
            Ok(HoldLimits { frames, bytes })
        }
    }

    /// Maximum number of frames held.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Maximum number of bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Default for HoldLimits {
    fn default() -> Self {
        HoldLimits { frames: HOLD_FRAMES_DEFAULT, bytes: HOLD_BYTES_DEFAULT }
    }
}

/// Counters of a hold queue since it was created. `pushed - released - dropped` frames are still held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldStats {
    /// Frames accepted.
    pub pushed: u64,
    /// Frames removed by `pop`.
    pub released: u64,
    /// Frames removed by `drop_up_to` or `clear`.
    pub dropped: u64,
    /// Pushes refused with [`Full`](super::Full).
    pub refused: u64,
    /// Largest number of frames held at a time.
    pub frames_high: usize,
    /// Largest number of bytes held at a time.
    pub bytes_high: usize,
}
