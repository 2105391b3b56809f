//! Ports of the interrupt controllers.

/// A register of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PicRegister {
    /// Ports 0x20 (even) and 0x21 (odd).
    Master {
        /// The odd address (A0 high).
        odd: bool,
    },
    /// Ports 0xA0 (even) and 0xA1 (odd).
    Slave {
        /// The odd address (A0 high).
        odd: bool,
    },
    /// Port 0x4D0.
    MasterElcr,
    /// Port 0x4D1.
    SlaveElcr,
}

impl PicRegister {
    pub(super) fn at(port: u16) -> Option<Self> {
        Some(match port {
            0x20 | 0x21 => Self::Master { odd: port & 1 == 1 },
            0xA0 | 0xA1 => Self::Slave { odd: port & 1 == 1 },
            0x4D0 => Self::MasterElcr,
            0x4D1 => Self::SlaveElcr,
            _ => return None,
        })
    }
}
