//! Ports of the guest clock port.

/// A half of the clock value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockHalf {
    /// Port 0xE8, 32 bits only.
    Low,
    /// Port 0xEC, 32 bits only.
    High,
}

impl ClockHalf {
    pub(super) fn at(port: u16, bytes: usize) -> Option<Self> {
        match (port, bytes) {
            (0xE8, 4) => Some(Self::Low),
            (0xEC, 4) => Some(Self::High),
            _ => None,
        }
    }
}
