//! Ports of the real-time clock.

/// A register of the port bus. The clock's own registers are behind these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RtcRegister {
    /// Port 0x70.
    Index,
    /// Port 0x71.
    Data,
}

impl RtcRegister {
    pub(super) fn at(port: u16) -> Option<Self> {
        match port {
            0x70 => Some(Self::Index),
            0x71 => Some(Self::Data),
            _ => None,
        }
    }
}
