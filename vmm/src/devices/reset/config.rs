//! Ports of the reset ports.

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResetRegister {
    /// Ports 0x60 and 0x64: offset from 0x60.
    I8042(u8),
    /// Port 0xCF9, one byte only. A wider access is one to the PCI configuration port beside it.
    Control,
}

impl ResetRegister {
    pub(super) fn at(port: u16, bytes: usize) -> Option<Self> {
        match (port, bytes) {
            (0x60 | 0x64, _) => Some(Self::I8042((port - 0x60) as u8)),
            (0xCF9, 1) => Some(Self::Control),
            _ => None,
        }
    }
}
