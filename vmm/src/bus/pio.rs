//! The port bus.
//!
//! Most devices of a PC have registers of one byte. A wider access that starts at such a register is
//! split as the ISA bridge splits it: into single bytes at ascending ports, each decoded separately.
//! Registers that are wider take an access as a whole.

/// How much of an access a register takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One byte. The rest of the access belongs to the following ports.
    Byte,
    /// The whole access.
    Whole,
}

impl Width {
    /// Returns how many bytes of an access of `bytes` bytes the register takes.
    pub(crate) fn bytes(self, bytes: usize) -> usize {
        match self {
            Self::Byte => 1,
            Self::Whole => bytes,
        }
    }
}

/// Returns the little-endian value of at most four bytes.
pub(crate) fn value(data: &[u8]) -> u32 {
    data.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// Fills `data`, at most four bytes, with the low bytes of `value`.
pub(crate) fn fill(data: &mut [u8], value: u32) {
    for (byte, source) in data.iter_mut().zip(value.to_le_bytes()) {
        *byte = source;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_and_fill_are_little_endian_at_every_width() {
        let bytes = [0x78, 0x56, 0x34, 0x12];
        for (width, expected) in [(1, 0x78), (2, 0x5678), (3, 0x34_5678), (4, 0x1234_5678)] {
            assert_eq!(value(&bytes[..width]), expected);
            let mut filled = vec![0; width];
            fill(&mut filled, 0x1234_5678);
            assert_eq!(filled, bytes[..width]);
        }
    }
}
