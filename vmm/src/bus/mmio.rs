//! The memory bus. Accesses to RAM never arrive here.

/// A window of memory addresses that a device claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// First address.
    pub(crate) start: u64,
    /// Length in bytes.
    pub(crate) bytes: u64,
}

impl Window {
    /// Returns the offset of an access of `bytes` bytes at `address`, or `None` if not all of the access
    /// lies in the window.
    pub(crate) fn offset_of(self, address: u64, bytes: usize) -> Option<u64> {
        let offset = address.checked_sub(self.start)?;
        let end = offset.checked_add(bytes as u64)?;
        (end <= self.bytes).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_contains_its_first_and_last_byte_but_no_access_across_its_end() {
        let window = Window { start: 0x10_0000, bytes: 0x4000 };
        assert_eq!(window.offset_of(0x10_0000, 4), Some(0));
        assert_eq!(window.offset_of(0x10_3FFF, 1), Some(0x3FFF));
        assert_eq!(window.offset_of(0x10_3FFF, 2), None);
        assert_eq!(window.offset_of(0x0F_FFFF, 4), None);
        assert_eq!(window.offset_of(u64::MAX, 8), None);
    }
}
