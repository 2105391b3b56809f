//! Ports of the ACPI timer.

const PORT: u16 = 0x608;

/// Returns the index of a port in the timer's register, 0..=3.
pub(super) fn lane(port: u16) -> Option<u8> {
    match port {
        PORT..=0x60B => Some((port - PORT) as u8),
        _ => None,
    }
}
