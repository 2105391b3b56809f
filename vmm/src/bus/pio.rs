//! Port bus decoding.
//!
//! Most devices of a PC have registers of one byte. A wider access that starts at such a register is
//! split as the ISA bridge splits it: into single bytes at ascending ports, each decoded separately.
//! Registers that are wider take an access as a whole.

use crate::devices::clockport::ClockHalf;
use crate::devices::pit::{CounterIndex, PitRegister};
use crate::irq::pic::PicRegister;

/// The target of a port access.
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
    /// Port 0x80: POST progress codes. Guests also write it as a delay, so it is not counted as
    /// unclaimed.
    Post,
    /// Ports 0x3F8..=0x3FF: offset.
    Uart(u8),
    /// Port 0xCF9.
    ResetControl,
    /// No device.
    Unclaimed,
}

/// Registers that are wider than one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WideTarget {
    /// Port 0xCF8, 32 bits only.
    PciAddress,
    /// Ports 0xCFC..=0xCFF: index of the register's byte at which the access starts.
    PciData(u8),
    /// Ports 0x608..=0x60B: index of the timer's byte at which the access starts.
    PmTimer(u8),
    /// Ports 0xE8 and 0xEC, 32 bits only.
    Clock(ClockHalf),
}

/// Returns the target of an access of `bytes` bytes at `port`.
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
        // Configuration mechanism #1 answers to 32-bit accesses only; a byte access to 0xCF9 belongs to
        // the chipset.
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
    fn decode_configuration_ports_by_access_width() {
        assert_eq!(decode(0xCF8, 4), PioTarget::Wide(WideTarget::PciAddress));
        assert_eq!(decode(0xCF8, 1), PioTarget::Byte(ByteTarget::Unclaimed));
        assert_eq!(decode(0xCF9, 1), PioTarget::Byte(ByteTarget::ResetControl));
        assert_eq!(decode(0xCF9, 2), PioTarget::Byte(ByteTarget::Unclaimed));
        assert_eq!(decode(0xCFE, 2), PioTarget::Wide(WideTarget::PciData(2)));
    }

    #[test]
    fn decode_clock_ports_at_32_bits_only() {
        assert_eq!(decode(0xE8, 4), PioTarget::Wide(WideTarget::Clock(ClockHalf::Low)));
        assert_eq!(decode(0xE8, 1), PioTarget::Byte(ByteTarget::Unclaimed));
        assert_eq!(decode(0xEC, 4), PioTarget::Wide(WideTarget::Clock(ClockHalf::High)));
    }

    #[test]
    fn decode_neighbours_of_every_port_block_as_unclaimed() {
        for port in [0x1F, 0x22, 0x3F, 0x44, 0x62, 0x63, 0x72, 0x9F, 0xA2, 0x3F7, 0x400, 0x60C] {
            assert_eq!(decode(port, 1), PioTarget::Byte(ByteTarget::Unclaimed), "{port:#x}");
        }
    }
}
