//! The body of a log file: blocks of entries.
//!
//! ```text
//!  0  marker "UBLK"     4
//!  4  sequence          8   0, 1, 2, ...
//! 12  payload length    4   1..=BLOCK_PAYLOAD_MAX
//! 16  CRC32             4   of sequence, payload length, payload
//! 20  payload               whole entries, back to back
//! ```
//!
//! Numbers are little-endian. A recorder appends whole blocks. If it is killed while it writes one, that
//! block is torn and everything before it is intact. Damage elsewhere shows as a wrong marker, length,
//! CRC or sequence number. One case remains: the length of a torn block cannot be verified, so damage
//! that enlarges the length of one of the last blocks also reads as torn.
//!
//! A complete log closes with an [`Entry::End`], so a reader that must know whether the end of a log is
//! missing does not depend on the blocks for it.

use alloc::vec::Vec;

use crate::entry::Entry;
use crate::entry_codec;
use crate::error::{BlockError, DecodeError, FieldError};
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_PAYLOAD_MAX, ENTRY_BYTES_MAX};
use crate::wire::{Reader, bounded};

/// The first four bytes of every block.
pub const BLOCK_MARKER: [u8; 4] = *b"UBLK";

const SEQUENCE_AT: usize = 4;
const LENGTH_AT: usize = 12;
const CRC_AT: usize = 16;

/// Collects entries into blocks, in one buffer that is allocated once.
///
/// States: *filling* after [`push`](Self::push): the buffer holds the entries pushed so far. *Taken*
/// after [`take_block`](Self::take_block): the buffer holds the finished block that was handed out, and
/// the next push begins the next block.
#[derive(Debug)]
pub struct BlockWriter {
    /// Space for the header, then the payload.
    buffer: Vec<u8>,
    /// Sequence number of the current block, or of the next one if the last was taken.
    sequence: u64,
    taken: bool,
}

impl Default for BlockWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockWriter {
    /// Returns a writer whose first block has sequence number 0.
    pub fn new() -> Self {
        let mut buffer = Vec::with_capacity(BLOCK_BYTES_MAX);
        buffer.resize(BLOCK_HEADER_BYTES, 0);
        Self { buffer, sequence: 0, taken: false }
    }

    /// Adds an entry to the current block.
    ///
    /// # Panics
    ///
    /// When the entry is outside of its limits, or when it does not fit because the caller ignored
    /// [`needs_flush`](Self::needs_flush).
    pub fn push(&mut self, entry: &Entry<'_>) {
        if self.taken {
            self.buffer.truncate(BLOCK_HEADER_BYTES);
            self.taken = false;
        }
        entry_codec::encode(entry, &mut self.buffer);
        assert!(self.payload_length() <= BLOCK_PAYLOAD_MAX, "a block was filled beyond its bound");
    }

    /// Returns whether the block must be taken before the next push, because the largest entry might not
    /// fit any more.
    pub fn needs_flush(&self) -> bool {
        !self.taken && self.payload_length() > BLOCK_PAYLOAD_MAX - ENTRY_BYTES_MAX
    }

    /// Returns whether nothing was pushed since the last block was taken.
    pub fn is_empty(&self) -> bool {
        self.taken || self.payload_length() == 0
    }

    /// Returns the sequence number of the next block to be taken, which is the number of blocks taken so
    /// far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Finishes the current block and returns its bytes, header included, for the caller to append to
    /// the file. Returns an empty slice, and uses no sequence number, if nothing was pushed.
    pub fn take_block(&mut self) -> &[u8] {
        if self.is_empty() {
            return &[];
        }
        let length = self.payload_length() as u32;
        let (header, payload) = self.buffer.split_at_mut(BLOCK_HEADER_BYTES);
        header[..SEQUENCE_AT].copy_from_slice(&BLOCK_MARKER);
        header[SEQUENCE_AT..LENGTH_AT].copy_from_slice(&self.sequence.to_le_bytes());
        header[LENGTH_AT..CRC_AT].copy_from_slice(&length.to_le_bytes());
        let crc = block_crc(&header[SEQUENCE_AT..CRC_AT], payload);
        header[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        self.sequence += 1;
        self.taken = true;
        &self.buffer
    }

    fn payload_length(&self) -> usize {
        self.buffer.len() - BLOCK_HEADER_BYTES
    }
}

/// A block that was read whole: its CRC matches, and it is the next in sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its sequence number.
    pub sequence: u64,
    /// Entries of the block, back to back.
    pub payload: &'a [u8],
}

impl<'a> Block<'a> {
    /// Returns the length of the whole block in bytes, header included: the next block begins there.
    pub fn encoded_length(&self) -> usize {
        BLOCK_HEADER_BYTES + self.payload.len()
    }

    /// Iterates over the entries of the block in order.
    pub fn entries(&self) -> Entries<'a> {
        Entries { payload: self.payload, offset: 0, failed: false }
    }
}

/// Reads one block at the front of `bytes`. Returns `Ok(None)` if `bytes` is empty, which is the clean
/// end of a log.
///
/// `bytes` must reach to the end of the file or be at least [`BLOCK_BYTES_MAX`] long. With less, a whole
/// block could look torn.
///
/// # Errors
///
/// [`BlockError::Torn`] when `bytes` is a proper prefix of a block, as far as can be seen. Another
/// [`BlockError`] when the block is damaged or is not number `expected_sequence`.
pub fn next_block(bytes: &[u8], expected_sequence: u64) -> Result<Option<Block<'_>>, BlockError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut marker = [0; 4];
    let shared = bytes.len().min(marker.len());
    marker[..shared].copy_from_slice(&bytes[..shared]);
    if marker[..shared] != BLOCK_MARKER[..shared] {
        return Err(BlockError::Marker { found: u32::from_be_bytes(marker) });
    }
    let torn = |need| BlockError::Torn { have: bytes.len(), need };
    let (header, rest) =
        bytes.split_at_checked(BLOCK_HEADER_BYTES).ok_or(torn(BLOCK_HEADER_BYTES))?;

    let (sequence, length, stored) =
        read_header(&header[SEQUENCE_AT..]).map_err(BlockError::Length)?;
    bounded("payload length", u64::from(length), 1, BLOCK_PAYLOAD_MAX as u64)
        .map_err(BlockError::Length)?;
    let length = length as usize;
    let payload = rest.get(..length).ok_or(torn(BLOCK_HEADER_BYTES + length))?;

    // Check the CRC first: only then can a wrong sequence number be reported as such.
    let computed = block_crc(&header[SEQUENCE_AT..CRC_AT], payload);
    if stored != computed {
        return Err(BlockError::Crc { stored, computed });
    }
    if sequence != expected_sequence {
        return Err(BlockError::Sequence { found: sequence, expected: expected_sequence });
    }
    Ok(Some(Block { sequence, payload }))
}

/// Reads sequence number, payload length and CRC.
fn read_header(bytes: &[u8]) -> Result<(u64, u32, u32), FieldError> {
    let mut reader = Reader::new(bytes);
    Ok((reader.u64("sequence")?, reader.u32("payload length")?, reader.u32("CRC")?))
}

fn block_crc(numbers: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(numbers);
    crc.update(payload);
    crc.finalize()
}

/// Iterator over the entries of a block's payload. It ends after the first error.
///
/// The entries of a block whose CRC matches should decode. An error here means that another program
/// wrote the block, or that the CRC missed some damage. [`DecodeError::Truncated`] is such an error too,
/// because a block holds whole entries only.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    payload: &'a [u8],
    offset: usize,
    failed: bool,
}

impl Entries<'_> {
    /// Returns the offset in the payload at which the next entry begins, or, after an error, at which
    /// the bad entry begins.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.payload[self.offset..];
        if rest.is_empty() || self.failed {
            return None;
        }
        match entry_codec::decode(rest) {
            Ok((entry, length)) => {
                self.offset += length;
                Some(Ok(entry))
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

impl core::iter::FusedIterator for Entries<'_> {}
