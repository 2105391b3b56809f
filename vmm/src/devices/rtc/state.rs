//! State of the real-time clock.

use serde::{Deserialize, Serialize};

/// Bytes of battery-backed memory, including the clock's own registers.
pub(super) const CMOS_BYTES: usize = 128;

/// State of the registers and the memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RtcState {
    /// Index of the register that port 0x71 accesses, 0..=127.
    pub(crate) index: u8,
    /// Memory as the guest wrote it. Its time registers are never read.
    pub(crate) memory: Vec<u8>,
    /// The wall-clock reading from which the time registers answer, seconds since 1970.
    pub(crate) latched_s: Option<u64>,
}
