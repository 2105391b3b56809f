//! Encoding and decoding of numbers: fixed-width little-endian, and LEB128.
//!
//! LEB128 has seven bits in a byte, lowest first, with bit 7 set in every byte but the last (DWARF 5,
//! section 7.6). Here, a number has exactly one encoding, the shortest; the reader refuses others, so
//! that equal entries are equal bytes.

use alloc::vec::Vec;

use crate::error::FieldError;

/// Length of `value` as LEB128, in bytes.
pub(crate) const fn leb128_length(value: u64) -> usize {
    // Zero takes one byte, too.
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// A sink for encoded fields.
///
/// There are two: a `Vec`, which keeps the bytes, and [`ByteCount`], which counts them. So one function
/// both writes a body and computes its length, which precedes it.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_leb128(&mut self, value: u64) {
        let mut rest = value;
        while rest >= 0x80 {
            self.put(&[rest as u8 | 0x80]);
            rest >>= 7;
        }
        self.put(&[rest as u8]);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts the bytes put into it.
#[derive(Default)]
pub(crate) struct ByteCount(pub(crate) usize);

impl Put for ByteCount {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn put_leb128(&mut self, value: u64) {
        self.0 += leb128_length(value);
    }
}

/// Reads fields from the front of a byte slice. `field` is the field's name in the error.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the bytes not yet read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(
        &mut self,
        field: &'static str,
        length: usize,
    ) -> Result<&'a [u8], FieldError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FieldError::Ends { field })?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes all remaining bytes.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], FieldError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FieldError::Ends { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, FieldError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, FieldError> {
        self.array(field).map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, FieldError> {
        self.array(field).map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FieldError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn leb128_u32(&mut self, field: &'static str) -> Result<u32, FieldError> {
        self.leb128(field, u32::BITS).map(|value| value as u32)
    }

    pub(crate) fn leb128_u64(&mut self, field: &'static str) -> Result<u64, FieldError> {
        self.leb128(field, u64::BITS)
    }

    /// Reads a number below 2^`bits`.
    fn leb128(&mut self, field: &'static str, bits: u32) -> Result<u64, FieldError> {
        let mut value = 0;
        let mut shift = 0;
        loop {
            let byte = self.u8(field)?;
            let group = u64::from(byte & 0x7f);
            let room = bits.saturating_sub(shift);
            if room == 0 || (room < 7 && group >> room != 0) {
                return Err(FieldError::TooWide { field, bits });
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                // A zero as the last byte adds nothing: the number has a shorter form.
                return if byte == 0 && shift > 0 {
                    Err(FieldError::NotShortest { field })
                } else {
                    Ok(value)
                };
            }
            shift += 7;
        }
    }

    /// Checks that no bytes follow the last field.
    pub(crate) fn finish(self) -> Result<(), FieldError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FieldError::Trailing { count: self.rest.len() })
        }
    }
}

/// Refuses a number, or the length of a byte string, outside of `min..=max`.
pub(crate) fn bounded(
    field: &'static str,
    value: u64,
    min: u64,
    max: u64,
) -> Result<(), FieldError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(FieldError::OutOfBounds { field, value, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_u64(bytes: &[u8]) -> Result<u64, FieldError> {
        Reader::new(bytes).leb128_u64("n")
    }

    fn read_u32(bytes: &[u8]) -> Result<u32, FieldError> {
        Reader::new(bytes).leb128_u32("n")
    }

    #[test]
    fn leb128_every_bit_width_round_trips_at_its_edges() {
        for bits in 0..u64::BITS {
            let low = 1_u64 << bits;
            for value in [low - 1, low, low | 1, low | (low - 1)] {
                let mut bytes = Vec::new();
                bytes.put_leb128(value);
                assert_eq!(bytes.len(), leb128_length(value), "length of {value:#x}");
                assert_eq!(read_u64(&bytes), Ok(value));
                let narrow = u32::try_from(value);
                assert_eq!(read_u32(&bytes).ok(), narrow.ok(), "{value:#x} as a u32");
                for cut in 0..bytes.len() {
                    assert_eq!(read_u64(&bytes[..cut]), Err(FieldError::Ends { field: "n" }));
                }
            }
        }
    }

    #[test]
    fn leb128_padded_with_zero_groups_is_refused() {
        assert_eq!(read_u64(&[0x80, 0x00]), Err(FieldError::NotShortest { field: "n" }));
        assert_eq!(read_u64(&[0xff, 0x80, 0x00]), Err(FieldError::NotShortest { field: "n" }));
    }

    #[test]
    fn leb128_beyond_its_width_is_refused() {
        let wide = |bits| Err(FieldError::TooWide { field: "n", bits });
        let mut bytes = [0xff; 11];
        bytes[9] = 0x02;
        assert_eq!(read_u64(&bytes), wide(64), "bit 64");
        bytes[9] = 0x81;
        assert_eq!(read_u64(&bytes), wide(64), "an eleventh byte");
        assert_eq!(read_u32(&[0xff, 0xff, 0xff, 0xff, 0x10]).map(u64::from), wide(32), "bit 32");
        assert_eq!(read_u32(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
    }
}
