//! PCI identity of the network device, 00:01.0, and sizes of its structures.

use crate::devices::device::Line;
use crate::devices::pci::{Identity, window_of_slot};
use crate::devices::virtio::transport_pci::capability_list;

const SLOT: u8 = 1;

pub(super) const QUEUE_SIZE: u16 = 256;
/// Bytes of `struct virtio_net_config` with the offered features (section 5.1.4).
pub(super) const CONFIG_BYTES: usize = 8;

pub(super) const IDENTITY: &Identity = &Identity {
    slot: SLOT,
    // Section 4.1.2: 0x1040 plus the device ID (network: 1), revision 1 and up for virtio 1.x.
    vendor: 0x1AF4,
    device: 0x1041,
    revision: 1,
    // Ethernet controller.
    class: 0x0200,
    subsystem: 0x1041_1AF4,
    // An input of the master, so that one EOI is enough.
    interrupt: Some(Line::new(5)),
    window: Some(window_of_slot(SLOT)),
    capabilities: &capability_list(CONFIG_BYTES as u32, 2),
};
