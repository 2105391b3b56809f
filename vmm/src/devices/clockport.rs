//! The guest clock port: nanoseconds since the guest started, in two 32-bit reads. A read of the low half
//! latches the high half, so that both halves are of one reading. No hardware has this port; a trapped
//! RDTSC reads it.

use serde::{Deserialize, Serialize};

/// A half of the clock value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockHalf {
    /// Port 0xE8.
    Low,
    /// Port 0xEC.
    High,
}

/// State of the port: the latch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPortState {
    /// High half of the reading whose low half was read last.
    pub high: u32,
}

/// The guest clock port.
#[derive(Debug, Default)]
pub(crate) struct ClockPort {
    state: ClockPortState,
}

impl ClockPort {
    /// Returns the low half of `now_ns` and latches the high half.
    pub(crate) fn read_low(&mut self, now_ns: u64) -> u32 {
        self.state.high = (now_ns >> 32) as u32;
        now_ns as u32
    }

    /// Returns the latched high half.
    pub(crate) fn read_high(&self) -> u32 {
        self.state.high
    }

    pub(crate) fn save(&self) -> ClockPortState {
        self.state.clone()
    }

    pub(crate) fn restore(state: ClockPortState) -> Self {
        Self { state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_half_is_latched_by_the_last_low_read() {
        let mut port = ClockPort::default();
        let before_carry = 0x1_FFFF_FFFF;
        assert_eq!(port.read_low(before_carry), 0xFFFF_FFFF);
        assert_eq!(port.read_high(), 1);
        let restored = ClockPort::restore(port.save());
        assert_eq!(restored.read_high(), 1);
        assert_eq!(port.read_low(before_carry + 1), 0);
        assert_eq!(port.read_high(), 2);
    }
}
