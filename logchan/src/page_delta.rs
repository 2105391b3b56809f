//! [`PageDelta`]: the difference between two versions of a page or a state, as three levels of masks and
//! the XOR of the bytes that changed (cf. QEMU's XBZRLE).
//!
//! ```text
//! delta = piece*                         one for every PIECE_BYTES, or the rest, of the bytes compared
//! piece = lines u64    line*             bit i: of its 64 lines of 64 bytes, line i changes
//! line  = words u8     word*             bit i: of its 8 words of 8 bytes, word i changes; not 0
//! word  = bytes u8     xor*              bit i: byte i changes; not 0
//! xor   = u8                             old ^ new; not 0
//! ```
//!
//! A counter that advanced takes some 4 bytes, a rewritten word 9 or 10. Numbers are little-endian. What
//! follows a mask is in the order of its bits, from the lowest up. A difference has exactly one
//! encoding: equal differences are equal bytes, whatever the base.
//!
//! Decoding is total: any bytes are either a [`PageDelta`] or refused. Applying a delta to bytes that have
//! another number of pieces, or that end before a byte that changes, is refused too.

use crate::error::FieldError;
use crate::limits::PIECE_BYTES;
use crate::wire::bounded;

/// Bytes of a line. A piece has as many lines as a `u64` has bits.
const LINE_BYTES: usize = 64;
const WORD_BYTES: usize = 8;
const LINE_WORDS: usize = LINE_BYTES / WORD_BYTES;

type Line = [u8; LINE_BYTES];

const _: () = assert!(PIECE_BYTES == LINE_BYTES * u64::BITS as usize);
const _: () = assert!(LINE_BYTES == WORD_BYTES * u8::BITS as usize);

/// A delta that was checked or encoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageDelta<'a> {
    bytes: &'a [u8],
    pieces: usize,
}

impl<'a> PageDelta<'a> {
    /// Checks that `bytes` are a delta.
    ///
    /// # Errors
    ///
    /// The first mask or byte that is invalid.
    pub fn new(bytes: &'a [u8]) -> Result<Self, FieldError> {
        let (mut rest, mut pieces) = (bytes, 0);
        while !rest.is_empty() {
            for_each_word(&mut rest, |_offset, _xor| Ok(()))?;
            pieces += 1;
        }
        Ok(Self { bytes, pieces })
    }

    /// Encodes the difference between `old` and `new` to the front of `out`, and makes `old` equal to
    /// `new`. Returns `None` if `out` is too short for the delta; encoding needs room for up to 9 bytes
    /// at its last word, even if that word takes fewer. `old` is equal to `new` then, too. Bytes that
    /// are equal are not written.
    ///
    /// # Panics
    ///
    /// When `old` and `new` have different lengths.
    pub fn make(old: &mut [u8], new: &[u8], out: &'a mut [u8]) -> Option<Self> {
        assert_eq!(old.len(), new.len(), "a delta compares bytes of equal length");
        let made = encode(old, new, out);
        if made.is_none() {
            old.copy_from_slice(new);
        }
        let length = made?;
        Some(Self { bytes: &out[..length], pieces: old.len().div_ceil(PIECE_BYTES) })
    }

    /// Returns the encoded delta.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the number of pieces that the delta covers, whether they change or not.
    pub const fn pieces(self) -> usize {
        self.pieces
    }

    /// Returns whether nothing changes.
    pub fn is_unchanged(self) -> bool {
        self.bytes.iter().all(|&byte| byte == 0)
    }

    /// Applies the delta to `bytes`.
    ///
    /// # Errors
    ///
    /// `bytes` have another number of pieces than the delta, or end before a byte that changes. They are then
    /// partly changed.
    pub fn apply(self, bytes: &mut [u8]) -> Result<(), FieldError> {
        let mut rest = self.bytes;
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            for_each_word(&mut rest, |offset, xor| xor_word(piece, offset, xor))?;
        }
        match rest.len() {
            0 => Ok(()),
            count => Err(FieldError::Trailing { count }),
        }
    }
}

fn encode(old: &mut [u8], new: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    for (old, new) in old.chunks_mut(PIECE_BYTES).zip(new.chunks(PIECE_BYTES)) {
        length += encode_piece(old, new, out.get_mut(length..)?)?;
    }
    Some(length)
}

fn encode_piece(old: &mut [u8], new: &[u8], out: &mut [u8]) -> Option<usize> {
    let (head, body) = out.split_first_chunk_mut::<{ size_of::<u64>() }>()?;
    let (mut lines, mut length) = (0u64, 0);
    let ((old, old_rest), (new, new_rest)) = (old.as_chunks_mut(), new.as_chunks());
    for index in 0..old.len() {
        let xors = xors(&old[index], &new[index]);
        if any_change(&xors) {
            lines |= 1 << index;
            length += encode_line(&xors, body.get_mut(length..)?)?;
            old[index] = new[index];
        }
    }
    // The rest that is shorter than a line is compared as if padded with zeros.
    let xors = xors(&zero_padded(old_rest), &zero_padded(new_rest));
    if any_change(&xors) {
        lines |= 1 << old.len();
        length += encode_line(&xors, body.get_mut(length..)?)?;
        old_rest.copy_from_slice(new_rest);
    }
    *head = lines.to_le_bytes();
    Some(head.len() + length)
}

fn zero_padded(bytes: &[u8]) -> Line {
    let mut line = [0; LINE_BYTES];
    line[..bytes.len()].copy_from_slice(bytes);
    line
}

/// Returns the XOR of the words of two lines. The loops here and below use indices: in builds that
/// inline little, zipped iterators become calls, and a checkpoint spends its time here.
fn xors(old: &Line, new: &Line) -> [u64; LINE_WORDS] {
    let mut xors = [0; LINE_WORDS];
    for (index, xor) in xors.iter_mut().enumerate() {
        *xor = word(old, index) ^ word(new, index);
    }
    xors
}

/// Returns whether any word changes. In such builds, a comparison of arrays is a call, too.
fn any_change(xors: &[u64; LINE_WORDS]) -> bool {
    let mut any = 0;
    for xor in xors {
        any |= xor;
    }
    any != 0
}

fn word(line: &Line, index: usize) -> u64 {
    let bytes = line[index * WORD_BYTES..].first_chunk();
    u64::from_le_bytes(*bytes.expect("the index is below the number of words in a line"))
}

fn encode_line(xors: &[u64; LINE_WORDS], out: &mut [u8]) -> Option<usize> {
    let (head, body) = out.split_first_mut()?;
    let (mut words, mut length) = (0u8, 0);
    for (index, &xor) in xors.iter().enumerate() {
        if xor != 0 {
            words |= 1 << index;
            length += encode_word(xor, body.get_mut(length..)?)?;
        }
    }
    *head = words;
    Some(1 + length)
}

fn encode_word(xor: u64, out: &mut [u8]) -> Option<usize> {
    let out = out.first_chunk_mut::<{ 1 + WORD_BYTES }>()?;
    if !has_zero(xor) {
        out[0] = u8::MAX;
        out[1..].copy_from_slice(&xor.to_le_bytes());
        return Some(out.len());
    }
    let (mut mask, mut length, mut rest) = (0, 1, xor);
    while rest != 0 {
        let byte = rest.trailing_zeros() / u8::BITS;
        mask |= 1 << byte;
        out[length] = (rest >> (byte * u8::BITS)) as u8;
        length += 1;
        rest &= !(u64::from(u8::MAX) << (byte * u8::BITS));
    }
    out[0] = mask;
    Some(length)
}

/// Returns whether a byte of the word is zero (Mycroft's test).
const fn has_zero(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    word.wrapping_sub(ONES) & !word & ONES << 7 != 0
}

/// Calls `each` for every word that changes, with the word's offset in the piece and its XOR.
fn for_each_word(
    rest: &mut &[u8],
    mut each: impl FnMut(usize, u64) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    let mut lines = u64::from_le_bytes(*take("lines", rest)?);
    while lines != 0 {
        let line = lines.trailing_zeros() as usize * LINE_BYTES;
        lines &= lines - 1;
        let mut words = not_zero("words", take("words", rest)?)?;
        while words != 0 {
            each(line + words.trailing_zeros() as usize * WORD_BYTES, read_word(rest)?)?;
            words &= words - 1;
        }
    }
    Ok(())
}

fn read_word(rest: &mut &[u8]) -> Result<u64, FieldError> {
    let mut mask = not_zero("bytes", take("bytes", rest)?)?;
    if mask == u8::MAX {
        let xor = u64::from_le_bytes(*take("xor", rest)?);
        return not_zero("xor", &[u8::from(!has_zero(xor))]).map(|_| xor);
    }
    let mut xor = 0;
    while mask != 0 {
        let byte = not_zero("xor", take("xor", rest)?)?;
        xor |= u64::from(byte) << (mask.trailing_zeros() * u8::BITS);
        mask &= mask - 1;
    }
    Ok(xor)
}

/// XORs the word at `offset` of `piece`, which may end within the word.
fn xor_word(piece: &mut [u8], offset: usize, xor: u64) -> Result<(), FieldError> {
    let max = piece.len() as u64 - 1;
    let rest = piece.get_mut(offset..).unwrap_or_default();
    if let Some(word) = rest.first_chunk_mut() {
        *word = (u64::from_le_bytes(*word) ^ xor).to_le_bytes();
        return Ok(());
    }
    let length = (u64::BITS - xor.leading_zeros()).div_ceil(u8::BITS) as usize;
    if length > rest.len() {
        let value = (offset + length) as u64 - 1;
        return Err(FieldError::OutOfBounds { field: "offset", value, min: 0, max });
    }
    rest.iter_mut().zip(xor.to_le_bytes()).for_each(|(byte, xor)| *byte ^= xor);
    Ok(())
}

fn take<'a, const N: usize>(
    field: &'static str,
    rest: &mut &'a [u8],
) -> Result<&'a [u8; N], FieldError> {
    let (taken, left) = rest.split_first_chunk().ok_or(FieldError::Ends { field })?;
    *rest = left;
    Ok(taken)
}

fn not_zero(field: &'static str, &[value]: &[u8; 1]) -> Result<u8, FieldError> {
    bounded(field, u64::from(value), 1, u64::from(u8::MAX)).map(|()| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn apply(delta: &[u8], bytes: &mut [u8]) -> Result<(), FieldError> {
        PageDelta::new(delta).and_then(|delta| delta.apply(bytes))
    }

    fn delta(old: &[u8], new: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 2 * old.len() + 64];
        let mut base = old.to_vec();
        let delta = PageDelta::make(&mut base, new, &mut out).expect("there is room");
        assert_eq!((delta.is_unchanged(), &base[..]), (old == new, new));
        assert_eq!(delta.pieces(), old.len().div_ceil(PIECE_BYTES));
        delta.bytes().to_vec()
    }

    fn round_trip(old: &[u8], new: &[u8]) -> Vec<u8> {
        let made = delta(old, new);
        let mut bytes = old.to_vec();
        assert_eq!(apply(&made, &mut bytes), Ok(()));
        assert_eq!(bytes, new);
        made
    }

    #[test]
    fn delta_of_single_bytes_encodes_only_those() {
        let old = [7; PIECE_BYTES];
        let mut new = old;
        assert_eq!(round_trip(&old, &new), [0; 8], "nothing changes");
        new[64 + 9] = 6;
        new[64 + 15] = 0;
        new[4095] = 8;
        let expected = [2, 0, 0, 0, 0, 0, 0, 0x80, 2, 0x82, 1, 7, 0x80, 0x80, 15];
        assert_eq!(round_trip(&old, &new), expected);
    }

    #[test]
    fn delta_of_bytes_of_any_length_round_trips() {
        for length in [0usize, 1, 7, 8, 9, 63, 65, 4095, 4096, 4097, 5000, 8192, 8193] {
            let old: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let same = round_trip(&old, &old);
            assert_eq!(same.len(), 8 * length.div_ceil(PIECE_BYTES), "{length}");
            let new: Vec<u8> = (0..length).map(|at| (at * 3 + 1) as u8).collect();
            round_trip(&old, &new);
        }
    }

    #[test]
    fn delta_applied_to_bytes_that_do_not_fit_is_refused() {
        let made = delta(&[0; 100], &[1; 100]);
        assert_eq!(apply(&made, &mut [0; 101]), Ok(()), "the last word is the same");
        let beyond = FieldError::OutOfBounds { field: "offset", value: 99, min: 0, max: 98 };
        assert_eq!(apply(&made, &mut [0; 99]), Err(beyond));
        let ends = FieldError::Ends { field: "lines" };
        assert_eq!(apply(&made, &mut [0; PIECE_BYTES + 1]), Err(ends));
        let trailing = FieldError::Trailing { count: made.len() };
        assert_eq!(apply(&made, &mut []), Err(trailing));
        assert_eq!(apply(&[], &mut []), Ok(()));
    }

    #[test]
    fn delta_longer_than_its_room_is_not_made() {
        let new = [1; PIECE_BYTES];
        let made = delta(&[0; PIECE_BYTES], &new);
        assert_eq!(made.len(), 8 + 64 + 512 + 4096);
        for room in [0, 7, 8, 9, 17, made.len() - 1] {
            let mut out = vec![0; room];
            let mut old = [0; PIECE_BYTES];
            assert_eq!(PageDelta::make(&mut old, &new, &mut out), None, "{room}");
            assert_eq!(old, new);
        }
        let mut out = vec![0; made.len()];
        assert!(PageDelta::make(&mut [0; PIECE_BYTES], &new, &mut out).is_some());
    }

    #[test]
    fn delta_with_masks_or_bytes_of_zero_is_refused() {
        let line = [1, 0, 0, 0, 0, 0, 0, 0];
        let refused =
            |rest: &[u8]| PageDelta::new(&[&line, rest].concat()).expect_err("an invalid delta");
        let zero = |field| FieldError::OutOfBounds { field, value: 0, min: 1, max: 255 };
        assert_eq!(refused(&[0]), zero("words"));
        assert_eq!(refused(&[1, 0]), zero("bytes"));
        assert_eq!(refused(&[1, 1, 0]), zero("xor"));
        assert_eq!(refused(&[1, 3, 5]), FieldError::Ends { field: "xor" });
        assert_eq!(PageDelta::new(&[0; 9]), Err(FieldError::Ends { field: "lines" }));
    }
}
