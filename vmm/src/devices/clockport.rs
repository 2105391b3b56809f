//! Guest clock port: nanoseconds since the guest started, in two 32-bit reads. A read of the low
//! half latches the high half, so that the pair belongs together. No hardware has it; it is what
//! a trapped or rewritten RDTSC reads.

use serde::{Deserialize, Serialize};

/// Which half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockHalf {
    /// Port 0xE8.
    Low,
    /// Port 0xEC.
    High,
}

/// The latch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockPortState {
    /// High half that belongs to the low half read last.
    pub high: u32,
}

/// The port.
#[derive(Debug, Default)]
pub(crate) struct ClockPort {
    state: ClockPortState,
}

impl ClockPort {
    /// The low half at `now_ns`.
    pub(crate) fn read_low(&mut self, now_ns: u64) -> u32 {
        self.state.high = (now_ns >> 32) as u32;
        now_ns as u32
    }

    /// The high half that belongs to the last low half.
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
    fn high_half_is_the_one_of_the_last_low_read() {
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
