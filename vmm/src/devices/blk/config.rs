//! PCI identities of the disks, 00:03.0 to 00:06.0, and sizes of their structures.

use crate::devices::device::Line;
use crate::devices::pci::{Identity, window_of_slot};
use crate::devices::virtio::transport_pci::capability_list;
use logchan::limits::DISKS_MAX;

/// Device number of disk 0.
const FIRST_SLOT: u8 = 3;
/// Interrupt lines that a PC's other devices leave free.
const LINES: [u8; DISKS_MAX] = [10, 9, 12, 14];

pub(super) const QUEUE_SIZE: u16 = 256;
/// Bytes of `struct virtio_blk_config` (section 5.2.4) up to and including `write_zeroes_may_unmap`, with padding.
pub(super) const CONFIG_BYTES: usize = 60;

/// The PCI function of each disk. A machine without a disk does not have its function.
pub(super) const IDENTITIES: [Identity; DISKS_MAX] =
    [identity(0), identity(1), identity(2), identity(3)];

const CAPABILITIES: &[u32] = &capability_list(CONFIG_BYTES as u32, 1);

const fn identity(disk: u8) -> Identity {
    let slot = FIRST_SLOT + disk;
    Identity {
        slot,
        // Section 4.1.2: 0x1040 plus the device ID (block device: 2).
        vendor: 0x1AF4,
        device: 0x1042,
        revision: 1,
        // SCSI storage controller, as QEMU's: no class fits better.
        class: 0x0100,
        subsystem: 0x1042_1AF4,
        interrupt: Some(Line::new(LINES[disk as usize])),
        window: Some(window_of_slot(slot)),
        capabilities: CAPABILITIES,
    }
}
