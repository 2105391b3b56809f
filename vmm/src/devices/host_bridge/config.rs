//! PCI identity of the host bridge, 00:00.0.

use crate::devices::pci::Identity;

/// Intel 82441FX, a host bridge that every PC guest knows. It has no window and no interrupt.
pub(super) const IDENTITY: &Identity = &Identity {
    slot: 0,
    vendor: 0x8086,
    device: 0x1237,
    revision: 2,
    class: 0x0600,
    subsystem: 0,
    interrupt: None,
    window: None,
    capabilities: &[],
};
