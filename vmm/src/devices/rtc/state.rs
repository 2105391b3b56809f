//! State of the real-time clock.

use serde::{Deserialize, Serialize};

/// Bytes of battery-backed memory, the clock's own registers among them.
pub(super) const CMOS_BYTES: usize = 128;

/// Registers and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcState {
    /// Register that port 0x71 reads and writes, 0..=127.
    pub index: u8,
    /// What the guest wrote; the time registers of it are never read.
    pub memory: Vec<u8>,
    /// The wall clock the time registers answer from, seconds since 1970.
    pub latched_s: Option<u64>,
}
