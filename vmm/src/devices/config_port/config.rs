//! Ports of the configuration mechanism.

const ADDRESS: u16 = 0xCF8;
const DATA: u16 = 0xCFC;

/// Whether an access is one to CONFIG_ADDRESS, which answers to 32 bits only.
pub(super) fn is_address(port: u16, bytes: usize) -> bool {
    (port, bytes) == (ADDRESS, 4)
}

/// Returns the index of a port in CONFIG_DATA, 0..=3.
pub(super) fn data_lane(port: u16) -> Option<u8> {
    match port {
        DATA..=0xCFF => Some((port - DATA) as u8),
        _ => None,
    }
}
