//! Memory bus decoding: the windows of the PCI functions. Accesses to RAM never arrive here.

use crate::devices::pci::WINDOW_BYTES;

/// The target of an MMIO access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MmioTarget {
    /// The window of virtio-net.
    Net,
    /// The window of virtio-rng.
    Rng,
}

/// Addresses of the windows that the guest has enabled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) net: Option<u64>,
    pub(crate) rng: Option<u64>,
}

impl Windows {
    /// Returns the target of an access of `bytes` bytes at `address` and the offset in its window. Where
    /// windows overlap, virtio-net wins. An access across the end of a window has no target.
    pub(crate) fn decode(&self, address: u64, bytes: usize) -> Option<(MmioTarget, u64)> {
        let offset_in = |window: Option<u64>| {
            let offset = address.checked_sub(window?)?;
            let end = offset.checked_add(bytes as u64)?;
            (end <= u64::from(WINDOW_BYTES)).then_some(offset)
        };
        if let Some(offset) = offset_in(self.net) {
            return Some((MmioTarget::Net, offset));
        }
        offset_in(self.rng).map(|offset| (MmioTarget::Rng, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_first_and_last_byte_of_a_window_but_not_across_its_end() {
        let windows = Windows { net: Some(0x10_0000), rng: None };
        assert_eq!(windows.decode(0x10_0000, 4), Some((MmioTarget::Net, 0)));
        assert_eq!(windows.decode(0x10_3FFF, 1), Some((MmioTarget::Net, 0x3FFF)));
        assert_eq!(windows.decode(0x10_3FFF, 2), None);
        assert_eq!(windows.decode(0x0F_FFFF, 4), None);
        assert_eq!(windows.decode(u64::MAX, 8), None);
    }

    #[test]
    fn decode_ignores_disabled_windows_and_prefers_net_on_overlap() {
        let both = Windows { net: Some(0x4000), rng: Some(0x4000) };
        assert_eq!(both.decode(0x4000, 1), Some((MmioTarget::Net, 0)));
        let rng_only = Windows { net: None, rng: Some(0x4000) };
        assert_eq!(rng_only.decode(0x4004, 1), Some((MmioTarget::Rng, 4)));
        let none = Windows { net: None, rng: None };
        assert_eq!(none.decode(0x4000, 1), None);
    }
}
