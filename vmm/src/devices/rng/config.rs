//! PCI identity of the entropy device, 00:02.0, and the size of its queue.

use crate::devices::device::Line;
use crate::devices::pci::{Identity, window_of_slot};
use crate::devices::virtio::transport_pci::capability_list;

const SLOT: u8 = 2;

pub(super) const QUEUE_SIZE: u16 = 8;

pub(super) const IDENTITY: &Identity = &Identity {
    slot: SLOT,
    // Section 4.1.2: 0x1040 plus the device ID (entropy source: 4).
    vendor: 0x1AF4,
    device: 0x1044,
    revision: 1,
    // No class fits. This is the value that QEMU gives this device (PCI_CLASS_OTHERS).
    class: 0x00FF,
    subsystem: 0x1044_1AF4,
    interrupt: Some(Line::new(11)),
    window: Some(window_of_slot(SLOT)),
    capabilities: &capability_list(0, 1),
};
