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
//! Numbers are little-endian. A recorder appends whole blocks; killed in the middle of one, it
//! leaves a torn one, and everything before that is good. Damage elsewhere shows as a wrong marker,
//! length, CRC or sequence number. One case stays open: a torn block's length cannot be verified,
//! so damage that makes the length of one of the last blocks larger reads as torn, too.
//!
//! A log that was written to its end closes with an [`Entry::End`], so a reader that needs to know
//! whether something is missing at the end need not trust the blocks for it.

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

/// Collects entries into blocks, in one buffer that it allocates once.
///
/// State: *filling* (entries pushed are in the buffer) after [`push`](Self::push), *taken* (the
/// buffer holds a finished block that was handed out) after [`take_block`](Self::take_block). The
/// next push begins the next block.
#[derive(Debug)]
pub struct BlockWriter {
    /// The header's space, then the payload.
    buffer: Vec<u8>,
    /// Sequence number of the block that is filling, or of the next.
    sequence: u64,
    taken: bool,
}

impl Default for BlockWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockWriter {
    /// A writer whose first block has sequence number 0.
    pub fn new() -> Self {
        let mut buffer = Vec::with_capacity(BLOCK_BYTES_MAX);
        buffer.resize(BLOCK_HEADER_BYTES, 0);
        Self { buffer, sequence: 0, taken: false }
    }

    /// Adds an entry to the block that is filling.
    ///
    /// # Panics
    ///
    /// When [`needs_flush`](Self::needs_flush) was true and the entry does not fit, or when the
    /// entry is out of its limits.
    pub fn push(&mut self, entry: &Entry<'_>) {
        if self.taken {
            self.buffer.truncate(BLOCK_HEADER_BYTES);
            self.taken = false;
        }
        entry_codec::encode(entry, &mut self.buffer);
        assert!(self.payload_length() <= BLOCK_PAYLOAD_MAX, "a block was filled beyond its bound");
    }

    /// The largest entry might not fit any more: take the block before the next push.
    pub fn needs_flush(&self) -> bool {
        !self.taken && self.payload_length() > BLOCK_PAYLOAD_MAX - ENTRY_BYTES_MAX
    }

    /// Nothing was pushed since the last block was taken.
    pub fn is_empty(&self) -> bool {
        self.taken || self.payload_length() == 0
    }

    /// Sequence number that the next block to be taken will have: the number of blocks so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Finishes the block that is filling and hands out its bytes, header included, to be appended
    /// to the file. Empty when nothing was pushed; no sequence number is used then.
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

/// One block, found whole: its CRC matches and it is the next in sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its sequence number.
    pub sequence: u64,
    /// Its entries, back to back.
    pub payload: &'a [u8],
}

impl<'a> Block<'a> {
    /// Bytes of the whole block, header included: where the next one begins.
    pub fn encoded_length(&self) -> usize {
        BLOCK_HEADER_BYTES + self.payload.len()
    }

    /// Its entries, in order.
    pub fn entries(&self) -> Entries<'a> {
        Entries { payload: self.payload, offset: 0, failed: false }
    }
}

/// Reads one block off the front of `bytes`; `Ok(None)` when there are none: the clean end.
///
/// `bytes` must reach to the end of the file, or be [`BLOCK_BYTES_MAX`] long: anything less would
/// make a whole block look torn.
///
/// # Errors
///
/// [`BlockError::Torn`] when `bytes` is a proper prefix of a block, as far as can be seen; another
/// [`BlockError`] when the block is damaged, or not number `expected_sequence`.
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

    // Before the sequence number is believed, and blamed.
    let computed = block_crc(&header[SEQUENCE_AT..CRC_AT], payload);
    if stored != computed {
        return Err(BlockError::Crc { stored, computed });
    }
    if sequence != expected_sequence {
        return Err(BlockError::Sequence { found: sequence, expected: expected_sequence });
    }
    Ok(Some(Block { sequence, payload }))
}

/// Sequence, payload length and CRC.
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

/// The entries of a block's payload. After an error it is at its end.
///
/// A whole block's entries decode, so an error here means a writer that is not ours, or damage that
/// the CRC missed. [`DecodeError::Truncated`] is one of them: a block holds whole entries.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    payload: &'a [u8],
    offset: usize,
    failed: bool,
}

impl Entries<'_> {
    /// Byte in the payload where the next entry begins; after an error, where the bad one does.
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
