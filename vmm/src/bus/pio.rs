//! Port bus decoding.
//!
//! Most devices of a PC are one byte wide. A wider access that starts at one of them is what the
//! ISA bridge makes of it: single bytes at ascending ports, each decoded for itself. Ports that are
//! wider by nature take an access whole.

use crate::devices::clockport::ClockHalf;
use crate::devices::pit::{CounterIndex, PitRegister};
use crate::irq::pic::PicRegister;

/// Where a port access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PioTarget {
    /// A register one byte wide.
    Byte(ByteTarget),
    /// A register that takes accesses of several widths.
    Wide(WideTarget),
}

/// Registers one byte wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteTarget {
    /// Interrupt controllers.
    Pic(PicRegister),
    /// Timer and port 0x61.
    Pit(PitRegister),
    /// Ports 0x60 and 0x64: offset from 0x60.
    I8042(u8),
    /// Port 0x70.
    RtcIndex,
    /// Port 0x71.
    RtcData,
    /// Port 0x80: progress codes; used as a delay, so it is nobody's error.
    Post,
    /// Ports 0x3F8..=0x3FF: offset.
    Uart(u8),
    /// Port 0xCF9.
    ResetControl,
    /// No device.
    Unclaimed,
}

/// Registers of other widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WideTarget {
    /// Port 0xCF8, 32 bits only.
    PciAddress,
    /// Ports 0xCFC..=0xCFF: which byte of the register comes first.
    PciData(u8),
    /// Ports 0x608..=0x60B: which byte of the timer comes first.
    PmTimer(u8),
    /// Ports 0xE8 and 0xEC, 32 bits only.
    Clock(ClockHalf),
}

/// The target of an access of `bytes` bytes at `port`.
pub(crate) fn decode(port: u16, bytes: usize) -> PioTarget {
    use PioTarget::{Byte, Wide};
    match (port, bytes) {
        (0x20 | 0x21, _) => Byte(ByteTarget::Pic(PicRegister::Master { odd: port & 1 == 1 })),
        (0x40, _) => counter(CounterIndex::Zero),
        (0x41, _) => counter(CounterIndex::One),
        (0x42, _) => counter(CounterIndex::Two),
        (0x43, _) => Byte(ByteTarget::Pit(PitRegister::Control)),
        (0x60 | 0x64, _) => Byte(ByteTarget::I8042((port - 0x60) as u8)),
        (0x61, _) => Byte(ByteTarget::Pit(PitRegister::Port61)),
        (0x70, _) => Byte(ByteTarget::RtcIndex),
        (0x71, _) => Byte(ByteTarget::RtcData),
        (0x80, _) => Byte(ByteTarget::Post),
        (0xA0 | 0xA1, _) => Byte(ByteTarget::Pic(PicRegister::Slave { odd: port & 1 == 1 })),
        (0xE8, 4) => Wide(WideTarget::Clock(ClockHalf::Low)),
        (0xEC, 4) => Wide(WideTarget::Clock(ClockHalf::High)),
        (0x3F8..=0x3FF, _) => Byte(ByteTarget::Uart((port - 0x3F8) as u8)),
        (0x4D0, _) => Byte(ByteTarget::Pic(PicRegister::MasterElcr)),
        (0x4D1, _) => Byte(ByteTarget::Pic(PicRegister::SlaveElcr)),
        (0x608..=0x60B, _) => Wide(WideTarget::PmTimer((port - 0x608) as u8)),
        // Mechanism #1 answers to 32-bit accesses alone; a byte at 0xCF9 is the chipset's.
        (0xCF8, 4) => Wide(WideTarget::PciAddress),
        (0xCF9, 1) => Byte(ByteTarget::ResetControl),
        (0xCFC..=0xCFF, _) => Wide(WideTarget::PciData((port - 0xCFC) as u8)),
        _ => Byte(ByteTarget::Unclaimed),
    }
}

fn counter(index: CounterIndex) -> PioTarget {
    PioTarget::Byte(ByteTarget::Pit(PitRegister::Counter(index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_decides_at_the_configuration_ports() {
        assert_eq!(decode(0xCF8, 4), PioTarget::Wide(WideTarget::PciAddress));
        assert_eq!(decode(0xCF8, 1), PioTarget::Byte(ByteTarget::Unclaimed));
        assert_eq!(decode(0xCF9, 1), PioTarget::Byte(ByteTarget::ResetControl));
        assert_eq!(decode(0xCF9, 2), PioTarget::Byte(ByteTarget::Unclaimed));
        assert_eq!(decode(0xCFE, 2), PioTarget::Wide(WideTarget::PciData(2)));
    }

    #[test]
    fn clock_ports_take_32_bits_only() {
        assert_eq!(decode(0xE8, 4), PioTarget::Wide(WideTarget::Clock(ClockHalf::Low)));
        assert_eq!(decode(0xE8, 1), PioTarget::Byte(ByteTarget::Unclaimed));
        assert_eq!(decode(0xEC, 4), PioTarget::Wide(WideTarget::Clock(ClockHalf::High)));
    }

    #[test]
    fn neighbours_of_every_block_are_unclaimed() {
        for port in [0x1F, 0x22, 0x3F, 0x44, 0x62, 0x63, 0x72, 0x9F, 0xA2, 0x3F7, 0x400, 0x60C] {
            assert_eq!(decode(port, 1), PioTarget::Byte(ByteTarget::Unclaimed), "{port:#x}");
        }
    }
}
