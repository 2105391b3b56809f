//! Ports and interrupt line of the UART: those of a PC's first serial port.

use super::Line;

const PORT: u16 = 0x3F8;

pub(super) const LINE: Line = Line::new(4);

/// Returns the offset of a port in the registers, 0..=7.
pub(super) fn offset(port: u16) -> Option<u8> {
    match port {
        PORT..=0x3FF => Some((port - PORT) as u8),
        _ => None,
    }
}
