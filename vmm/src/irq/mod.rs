//! Interrupt lines and the interrupt controllers.

pub mod pic;

/// The interrupt lines that this machine's devices drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Output of PIT channel 0 (ISA IRQ 0).
    Timer,
    /// First UART (ISA IRQ 4).
    Serial,
    /// INTA of the virtio-net function. It is an input of the master, so that one EOI is enough.
    Net,
    /// INTA of the virtio-rng function.
    Rng,
}

impl Line {
    /// Returns the ISA interrupt number, 0..=15.
    pub const fn number(self) -> u8 {
        match self {
            Self::Timer => 0,
            Self::Serial => 4,
            Self::Net => 5,
            Self::Rng => 11,
        }
    }
}
