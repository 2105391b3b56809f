//! Ports and interrupt line of the timer.

use super::Line;

/// Output of counter 0.
pub(super) const LINE: Line = Line::new(0);

/// A register of the timer or port 0x61.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PitRegister {
    /// Ports 0x40, 0x41, 0x42.
    Counter(CounterIndex),
    /// Port 0x43.
    Control,
    /// Port 0x61.
    Port61,
}

/// A counter of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CounterIndex {
    /// Drives IRQ 0.
    Zero,
    /// DRAM refresh, unused.
    One,
    /// Speaker.
    Two,
}

impl PitRegister {
    pub(super) fn at(port: u16) -> Option<Self> {
        Some(match port {
            0x40 => Self::Counter(CounterIndex::Zero),
            0x41 => Self::Counter(CounterIndex::One),
            0x42 => Self::Counter(CounterIndex::Two),
            0x43 => Self::Control,
            0x61 => Self::Port61,
            _ => return None,
        })
    }
}
